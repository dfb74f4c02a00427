//! What an operator fixes about a virtual router. A value that exists is within its range.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Virtual router identifier, 1..=255. RFC 9568 §5.2.3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(u8);

impl Vrid {
    /// `None` for 0, which is not a VRID.
    pub const fn new(value: u8) -> Option<Self> {
        if value == 0 { None } else { Some(Self(value)) }
    }

    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VRID {}", self.0)
    }
}

/// Priority as it stands on the wire: 0 releases, 1..=254 compete, 255 owns. RFC 9568 §5.2.4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(pub u8);

impl Priority {
    /// A master that resigns.
    pub const RELEASE: Self = Self(0);
    pub const DEFAULT: Self = Self(100);
    /// The router whose interface addresses are the virtual addresses.
    pub const OWNER: Self = Self(255);

    pub const fn is_owner(self) -> bool {
        self.0 == 255
    }

    /// Effective priority after trackers: `base + adjustment` within 1..=254. An owner is never
    /// adjusted and nobody else becomes one (V-161).
    pub fn adjusted(self, adjustment: i32) -> Self {
        if self.is_owner() {
            return self;
        }
        let sum = (i32::from(self.0) + adjustment).clamp(1, 254);
        // INVARIANT: clamped to 1..=254 in the line above.
        Self(u8::try_from(sum).expect("clamped"))
    }
}

/// Whether a node can do what a router is elected for (V-280). No setting, but as priorities are:
/// whoever drives the router knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fitness {
    #[default]
    Fit,
    /// It cannot serve all. A master with a priority up to `outranks` can serve less, and one up to
    /// `offers` that releases takes back what nobody takes (V-282).
    Unfit { outranks: Priority, offers: Priority },
}

impl Fitness {
    /// A master of this priority serves as well as this node would, or better.
    pub fn leaves(self, master: Priority) -> bool {
        match self {
            Self::Fit => false,
            Self::Unfit { outranks, .. } => master > outranks,
        }
    }

    /// What a master of this priority has released is left to nodes that can serve, and to itself.
    pub fn passes(self, master: Priority) -> bool {
        match self {
            Self::Fit => false,
            Self::Unfit { outranks, offers } => master > outranks && master <= offers,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// RFC 3768, with the authentication of RFC 2338. IPv4 only.
    V2,
    /// RFC 5798 and RFC 9568.
    V3,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Advertisement interval in centiseconds: 1..=4095 in version 3, whole seconds 1..=255 in
/// version 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    pub const DEFAULT: Self = Self(100);

    /// `None` when `version` cannot carry it; nothing is rounded (V-012).
    pub const fn new(version: Version, centis: u16) -> Option<Self> {
        let fits = match version {
            Version::V2 => centis >= 100 && centis <= 25_500 && centis.is_multiple_of(100),
            Version::V3 => centis >= 1 && centis <= 4095,
        };
        if fits { Some(Self(centis)) } else { None }
    }

    pub const fn centis(self) -> u16 {
        self.0
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}cs", self.0)
    }
}

/// How close to the letter of the RFCs: `Interop` is tolerant where keepalived is (V-001).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Profile {
    #[default]
    Interop,
    Strict,
}

/// What happens when a router with a higher priority hears a lower master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Preempt {
    /// Take over, after this long. Zero is the RFC's preempt mode.
    After(Duration),
    /// Leave it. An owner preempts all the same (V-162).
    Never,
}

/// Version 2 authentication. The password is zero padded and never shown (V-343).
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Auth {
    #[default]
    None,
    Simple([u8; 8]),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Simple(_) => "Simple(********)",
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// `group` is 224.0.0.18 or ff02::12 unless overridden.
    Multicast { group: IpAddr },
    /// One copy per peer, never empty (V-321). `ttl` is the one sent.
    Unicast { peers: Vec<UnicastPeer>, ttl: u8, check_source: bool },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnicastPeer {
    pub address: IpAddr,
    /// Accepted range of the received TTL; `None` is unchecked (V-330).
    pub ttl: Option<(u8, u8)>,
}

/// What a version 3 IPv4 checksum covers; both readings exist in the field (SPEC.md §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChecksumForm {
    /// The VRRP message only: RFC 9568 §5.2.8.
    Message,
    /// Pseudo header and message: RFC 5798 as keepalived and FRR read it.
    Pseudo,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChecksumMode {
    /// Send and accept this form alone.
    Pinned(ChecksumForm),
    /// Accept both; start with this one and follow the peer (V-043).
    Auto(ChecksumForm),
}

/// When a master announces its addresses by gratuitous ARP or unsolicited NA (G-011..G-015).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AnnounceSettings {
    /// Frames per address in the first and the second burst.
    pub repeat: u8,
    /// From the first burst to the second; zero is no second burst.
    pub delay: Duration,
    /// Period of the refresh; zero is none.
    pub refresh: Duration,
    pub refresh_repeat: u8,
    /// The same two after a lower-priority master was heard.
    pub lower_priority_repeat: u8,
    pub lower_priority_delay: Duration,
    /// Least time between two ARP frames, and two neighbour advertisements, on one interface; zero
    /// is none (G-015).
    pub garp_interval: Duration,
    pub gna_interval: Duration,
}

impl Default for AnnounceSettings {
    /// keepalived's values, because its users compare.
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_priority_repeat: 5,
            lower_priority_delay: Duration::from_secs(5),
            garp_interval: Duration::ZERO,
            gna_interval: Duration::ZERO,
        }
    }
}

/// One virtual router. Identity is (interface, `family`, `vrid`); all else may change in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterSettings {
    pub vrid: Vrid,
    pub family: Family,
    pub version: Version,
    pub profile: Profile,
    /// Before trackers; 1..=255.
    pub priority: Priority,
    pub interval: Interval,
    pub preempt: Preempt,
    /// Advertised addresses in the order sent. Empty only where the profile allows it (V-034).
    pub addresses: Vec<IpAddr>,
    pub auth: Auth,
    pub transport: Transport,
    /// Configured source of adverts; `None` is the interface's primary (v4) or link-local (v6).
    pub source: Option<IpAddr>,
    pub checksum: ChecksumMode,
    /// Adverts missed before the master counts as dead: 3 by the RFCs (V-147).
    pub down_multiplier: u8,
    /// Shared by the routers that have the same.
    pub announce: Arc<AnnounceSettings>,
    /// Answer a lower-priority master with an advert at once (V-230).
    pub answer_lower: bool,
    /// Send one losing advert before stepping down (V-232).
    pub answer_higher: bool,
    /// An owner discards what it hears (V-175).
    pub owner_ignores_adverts: bool,
    /// After start, hear and send nothing for this long (V-148).
    pub start_delay: Duration,
    /// Configured initial state is master: the first wait is one interval, not three (V-172).
    pub start_eager: bool,
}

impl RouterSettings {
    /// The defaults of the project for this identity; the caller overrides fields.
    pub fn new(vrid: Vrid, family: Family, version: Version) -> Self {
        Self {
            vrid,
            family,
            version,
            profile: Profile::Interop,
            priority: Priority::DEFAULT,
            interval: Interval::DEFAULT,
            preempt: Preempt::After(Duration::ZERO),
            addresses: Vec::new(),
            auth: Auth::None,
            transport: Transport::Multicast { group: multicast_group(family) },
            source: None,
            checksum: ChecksumMode::Auto(ChecksumForm::Pseudo),
            down_multiplier: 3,
            announce: Arc::default(),
            answer_lower: true,
            answer_higher: true,
            owner_ignores_adverts: false,
            start_delay: Duration::ZERO,
            start_eager: false,
        }
    }
}

/// 224.0.0.18 or ff02::12. RFC 9568 §5.1.1.2, §5.1.2.2.
pub const fn multicast_group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18)),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
    }
}
