//! The daemon as a process of its host: alone in its place, reachable, heard, and loud when it dies.

pub mod control_socket;
pub mod log;
pub mod namespace_lock;
pub mod panic;
pub mod run_dir_lock;
pub mod signals;
