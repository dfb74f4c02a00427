//! Move client connections to real servers, as a process of its own.
