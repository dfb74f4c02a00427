//! Where the clients of a service come in.

use std::fmt;
use std::net::SocketAddr;

/// What packets must have to be for a service, its protocol apart. Whoever can serve some kinds only
/// takes it apart by a pattern, so that a new kind is refused by the compiler wherever it needs an
/// answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Listener {
    /// This address and port; the unspecified address is every address of the host.
    Address(SocketAddr),
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// As operators read it: `192.0.2.10:80`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
        }
    }
}
