//! The validation pipeline: a datagram becomes [`Heard`], or a [`Discard`] reason that is counted.

use std::net::IpAddr;

use crate::settings::{ChecksumForm, Interval, Priority};

/// One VRRP datagram as a socket delivered it, without its IP header.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or hop limit; `None` when the kernel gave none (V-103).
    pub hop_limit: Option<u8>,
    /// The VRRP message: from the version octet on, no padding.
    pub message: &'a [u8],
}

/// An advertisement that passed every check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    pub source: IpAddr,
    pub priority: Priority,
    /// The sender's interval; in version 2 always our own.
    pub interval: Interval,
    /// The form the checksum was valid in; `None` when both or when there is no choice.
    pub form: Option<ChecksumForm>,
    /// Accepted, but the sender's interval is not ours (V-120).
    pub interval_differs: bool,
    /// Accepted, but the sender's addresses are not ours (V-121).
    pub addresses_differ: bool,
}
