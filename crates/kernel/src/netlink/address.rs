//! An address as it is wanted and as it is found.

use std::net::IpAddr;
use std::sync::Arc;

/// Our number in IFA_PROTO (kernel 5.18 and later); the IP protocol number of what we do.
pub const MARK: u8 = 112;

/// An address to hold on an interface.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AddressSpec {
    pub interface: Arc<str>,
    pub address: IpAddr,
    /// 0..=32 or 0..=128.
    pub prefix: u8,
    /// IPv4 only.
    pub broadcast: Option<IpAddr>,
    /// IPv4 only, at most 15 octets.
    pub label: Option<Arc<str>>,
    pub scope: Scope,
    /// IPv6: usable at once, without duplicate address detection (V-255).
    pub nodad: bool,
    /// No prefix route for it.
    pub noprefixroute: bool,
    /// Whole seconds until the kernel removes it by itself unless it is renewed, at least 1;
    /// `None` is never.
    pub valid_seconds: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Scope {
    #[default]
    Global,
    Site,
    Link,
    Host,
}

/// An address that carries our mark.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Marked {
    pub interface: Arc<str>,
    pub address: IpAddr,
    pub prefix: u8,
    /// Its lifetime is finite and not over.
    pub leased: bool,
}
