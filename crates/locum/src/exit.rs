//! Exit codes: what scripts may rely on.

/// Done, clean, healthy.
pub const OK: u8 = 0;

/// Refused, failed, or the daemon could not end in order.
pub const FAILED: u8 = 1;

/// `check`: warnings, no errors.
pub const WARNINGS: u8 = 1;

/// `status`: something needs an operator.
pub const DEGRADED: u8 = 1;

/// `check` and `run`: the configuration has errors.
pub const ERRORS: u8 = 2;

/// No daemon answers.
pub const NO_DAEMON: u8 = 2;
