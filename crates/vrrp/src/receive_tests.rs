//! The validation pipeline beyond the spec's vectors.
