//! Every default, with its reason. The front-ends write none.

use std::time::Duration;

use locum_vrrp::Version;

use locum_plan::{Backend, Dialect, Forwarding, Lease, Protocol, Weight};

/// Version 3 in our own files: sub-second intervals, IPv6, and peers that follow the master's
/// interval instead of splitting over a different one.
const VERSION: Version = Version::V3;

/// keepalived's own default, which its peers expect on the wire.
const KEEPALIVED_VERSION: Version = Version::V2;

/// The version of an IPv4 instance whose file names none. IPv6 exists in version 3 only.
pub(crate) const fn version(dialect: Dialect) -> Version {
    match dialect {
        Dialect::Toml => VERSION,
        Dialect::Keepalived => KEEPALIVED_VERSION,
    }
}

/// Hop count of unicast adverts, so that a peer may check that we are on its link (V-322).
pub(crate) const UNICAST_TTL: u8 = 255;

/// A dead node never keeps an address, in either dialect: it is why one changes the daemon.
pub(crate) const LEASE: Lease = Lease::Auto;

/// Start of one run to the next: keepalived's 1 s, in both dialects. It is what a failover waits
/// for in the worst case, and a process check costs microseconds.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Longest default time-out of a check: a local one that takes longer is hung, however rarely it
/// runs.
const CHECK_TIMEOUT_LIMIT: Duration = Duration::from_secs(5);

/// Successes and failures in a row: two, so that one lost packet or one slow fork moves no address.
const CHECK_RISE: u32 = 2;
const CHECK_FALL: u32 = 2;

/// A check that says nothing else makes its instance unfit: keepalived's meaning of weight 0.
pub(crate) const CHECK_WEIGHT: Weight = Weight { value: 0, reverse: false };

/// Time-out of a check: its interval, because runs never overlap; in our own files at most
/// [`CHECK_TIMEOUT_LIMIT`].
pub(crate) fn check_timeout(dialect: Dialect, interval: Duration) -> Duration {
    match dialect {
        Dialect::Toml => interval.min(CHECK_TIMEOUT_LIMIT),
        Dialect::Keepalived => interval,
    }
}

/// keepalived decides by one result unless told otherwise.
pub(crate) const fn check_rise(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Toml => CHECK_RISE,
        Dialect::Keepalived => 1,
    }
}

pub(crate) const fn check_fall(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Toml => CHECK_FALL,
        Dialect::Keepalived => 1,
    }
}

/// Most services are TCP. A keepalived file without `protocol` means UDP, and its front-end says so.
pub(crate) const PROTOCOL: Protocol = Protocol::Tcp;

/// The kernel's balancer where there is one, because it carries more; else the built-in proxy.
pub(crate) const BACKEND: Backend = Backend::Auto;

/// Weighted least connections: keepalived's and ipvsadm's default.
pub(crate) const SCHEDULER: &str = "wlc";

/// The one that works without preparing the servers.
pub(crate) const FORWARDING: Forwarding = Forwarding::Nat;

pub(crate) const SERVER_WEIGHT: u32 = 1;

/// Long enough for a download to end, short enough that a reload is over in a coffee break.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// A failed server is seen after `HEALTH_FALL` × this.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// keepalived's `delay_loop`.
const KEEPALIVED_HEALTH_INTERVAL: Duration = Duration::from_secs(60);

/// keepalived's `connect_timeout`, and long enough for a TCP retransmission.
const HEALTH_TIMEOUT_LIMIT: Duration = Duration::from_secs(5);

/// A server returns after two good answers: the first may come from a half-started one.
const HEALTH_RISE: u32 = 2;

/// One failure more than a check of the director itself: taking a server out shifts its load to
/// the others.
const HEALTH_FALL: u32 = 3;

pub(crate) const fn health_interval(dialect: Dialect) -> Duration {
    match dialect {
        Dialect::Toml => HEALTH_INTERVAL,
        Dialect::Keepalived => KEEPALIVED_HEALTH_INTERVAL,
    }
}

pub(crate) fn health_timeout(dialect: Dialect, interval: Duration) -> Duration {
    match dialect {
        Dialect::Toml => interval.min(HEALTH_TIMEOUT_LIMIT),
        Dialect::Keepalived => HEALTH_TIMEOUT_LIMIT,
    }
}

pub(crate) const fn health_rise(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Toml => HEALTH_RISE,
        Dialect::Keepalived => 1,
    }
}

/// keepalived's `retry 1`: the second failure in a row counts.
pub(crate) const fn health_fall(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Toml => HEALTH_FALL,
        Dialect::Keepalived => 2,
    }
}

/// Status codes that are a success when the file names none: keepalived's 200 to 299.
pub(crate) const HTTP_SUCCESS: (u16, u16) = (200, 299);

/// Looked up in PATH.
pub(crate) const HAPROXY_PROGRAM: &str = "haproxy";
