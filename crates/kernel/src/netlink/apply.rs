//! Make the kernel hold and not hold addresses.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::KernelError;
use crate::netlink::AddressSpec;
use crate::netlink::Marked;
use crate::netlink::Monitor;

/// One address that could not be put on or taken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub interface: Arc<str>,
    pub address: IpAddr,
    pub prefix: u8,
    /// What was being done: "add" or "remove".
    pub action: &'static str,
    /// ENODEV when there is no such interface.
    pub error: KernelError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, address, prefix, action, error } = self;
        write!(f, "cannot {action} {address}/{prefix} on {interface}: {error}")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Those that failed; all others of the same call were done.
    #[error("{}", list(.0))]
    Addresses(Vec<Failure>),
    /// The netlink socket itself failed: nothing is known about what was done.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
}

/// Failures for a person, the first few in full.
fn list(failures: &[Failure]) -> String {
    const SHOWN: usize = 3;
    let mut text =
        failures.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failures.len() > SHOWN {
        text.push_str(&format!("; and {} more", failures.len() - SHOWN));
    }
    text
}

/// Requests to the kernel. Synchronous: the kernel answers a netlink request within the call, so
/// that there is nothing to wait for. Use it from the thread that may take that time.
#[derive(Debug)]
pub struct Netlink {}

impl Netlink {
    /// Opens both sides. The monitor must be made inside a tokio runtime with I/O enabled.
    pub fn connect() -> io::Result<(Self, Monitor)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the kernel hold every address of `hold` (added, or renewed when it is ours) and none of
    /// `drop` (removed when it is ours). Applying the same again only renews. An address of `hold`
    /// that is on its interface without our mark is left alone and counts as held. One failing
    /// address does not stop the others.
    pub fn apply(&mut self, hold: &[AddressSpec], drop: &[AddressSpec]) -> Result<(), ApplyError> {
        let _ = (hold, drop);
        Ok(())
    }

    /// Every address in this network namespace that carries our mark.
    pub fn marked_addresses(&mut self) -> io::Result<Vec<Marked>> {
        Ok(Vec::new())
    }
}
