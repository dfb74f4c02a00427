//! Make the observed service set equal the wanted one through a backend.
