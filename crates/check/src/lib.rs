//! Run probes and report raw outcomes.
