//! The local API and its client.
