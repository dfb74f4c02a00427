//! Requests to the kernel over a netlink socket: batched, acknowledged, in order.

use std::fmt;

/// Why the kernel refused a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelError {
    /// errno, positive.
    pub code: i32,
    /// What the kernel added in words (extended acknowledgement).
    pub message: Option<String>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.code);
        match &self.message {
            Some(message) => write!(f, "{} ({message})", errno.desc().to_lowercase()),
            None => f.write_str(&errno.desc().to_lowercase()),
        }
    }
}

impl std::error::Error for KernelError {}
