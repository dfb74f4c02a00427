//! What a file asks for: typed and spanned, nothing filled in. Both front-ends produce it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use locum_vrrp::{Auth, ChecksumMode, Family, Preempt, Profile, UnicastPeer, Version, Vrid};

use crate::span::{At, Span};
use locum_plan::{
    Backend, Command, Dialect, FailedServer, Forwarding, HealthKind, Lease, Name, Node, ProbeKind,
    Protocol, Standby, Track, VirtualAddress, Weight,
};

/// A setting that must be there: what is wrong with it was reported when it was read.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    /// Written, but not usable, and reported.
    Bad,
    Given(At<T>),
}

impl<T> Field<T> {
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub fn into_given(self) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T> From<Option<At<T>>> for Field<T> {
    fn from(value: Option<At<T>>) -> Self {
        value.map_or(Self::Absent, Self::Given)
    }
}

#[derive(Debug)]
pub(crate) struct Wishes {
    pub dialect: Dialect,
    pub node: Name,
    pub nodes: Vec<Node>,
    pub instances: Vec<InstanceWish>,
    pub checks: Vec<CheckWish>,
    pub services: Vec<ServiceWish>,
    pub haproxy: Vec<HaproxyWish>,
    pub hook_timeout: Option<At<Duration>>,
}

#[derive(Debug)]
pub(crate) struct InstanceWish {
    /// The block's head, for what is missing in it.
    pub span: Span,
    pub name: At<String>,
    pub interface: Field<String>,
    pub vrid: Field<Vrid>,
    pub version: Option<At<Version>>,
    pub profile: Option<At<Profile>>,
    pub priority: Option<At<u8>>,
    pub interval: Option<At<Duration>>,
    pub preempt: Option<At<Preempt>>,
    /// `Bad` when an entry was refused: the list is then not judged as a whole.
    pub addresses: Field<Vec<At<VirtualAddress>>>,
    pub excluded: Vec<At<VirtualAddress>>,
    /// Family to assume when there is no address to tell.
    pub family: Option<At<Family>>,
    /// The operator said that no advertised address is meant.
    pub without_addresses: bool,
    pub auth: Option<At<Auth>>,
    pub group: Option<At<IpAddr>>,
    pub unicast: Option<UnicastWish>,
    pub source: Option<At<IpAddr>>,
    pub checksum: Option<At<ChecksumMode>>,
    pub down_multiplier: Option<At<u8>>,
    pub announce: AnnounceWish,
    pub answer_lower: Option<At<bool>>,
    pub answer_higher: Option<At<bool>>,
    pub owner_ignores_adverts: Option<At<bool>>,
    pub start_delay: Option<At<Duration>>,
    pub lease: Option<At<Lease>>,
    pub track: Vec<At<Track>>,
    pub hooks: HooksWish,
}

impl InstanceWish {
    /// An instance of which only the name is known.
    pub fn new(span: Span, name: At<String>) -> Self {
        Self {
            span,
            name,
            interface: Field::Absent,
            vrid: Field::Absent,
            version: None,
            profile: None,
            priority: None,
            interval: None,
            preempt: None,
            addresses: Field::Absent,
            excluded: Vec::new(),
            family: None,
            without_addresses: false,
            auth: None,
            group: None,
            unicast: None,
            source: None,
            checksum: None,
            down_multiplier: None,
            announce: AnnounceWish::default(),
            answer_lower: None,
            answer_higher: None,
            owner_ignores_adverts: None,
            start_delay: None,
            lease: None,
            track: Vec::new(),
            hooks: HooksWish::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct UnicastWish {
    pub span: Span,
    /// `Bad` when an entry was refused.
    pub peers: Field<Vec<At<UnicastPeer>>>,
    pub ttl: Option<At<u8>>,
    pub check_source: Option<At<bool>>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct AnnounceWish {
    pub repeat: Option<At<u8>>,
    pub delay: Option<At<Duration>>,
    pub refresh: Option<At<Duration>>,
    pub refresh_repeat: Option<At<u8>>,
    pub lower_priority_repeat: Option<At<u8>>,
    pub lower_priority_delay: Option<At<Duration>>,
    pub garp_interval: Option<At<Duration>>,
    pub gna_interval: Option<At<Duration>>,
}

#[derive(Default, Debug)]
pub(crate) struct HooksWish {
    pub master: Vec<At<Command>>,
    pub backup: Vec<At<Command>>,
    pub fault: Vec<At<Command>>,
    pub stop: Vec<At<Command>>,
    pub any: Vec<At<Command>>,
}

impl HooksWish {
    pub fn all(&self) -> impl Iterator<Item = &At<Command>> {
        [&self.master, &self.backup, &self.fault, &self.stop, &self.any].into_iter().flatten()
    }
}

#[derive(Debug)]
pub(crate) struct CheckWish {
    pub span: Span,
    pub name: At<String>,
    pub probe: Field<ProbeKind>,
    pub interval: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
    pub rise: Option<At<u32>>,
    pub fall: Option<At<u32>>,
    pub weight: Option<At<Weight>>,
    pub starts_failed: Option<At<bool>>,
}

/// When a service is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serve {
    Master,
    Always,
}

#[derive(Debug)]
pub(crate) struct ServiceWish {
    pub span: Span,
    pub name: At<String>,
    pub instance: Option<At<String>>,
    pub serve: Option<At<Serve>>,
    pub listen: Field<SocketAddr>,
    pub protocol: Option<At<Protocol>>,
    pub backend: Option<At<Backend>>,
    pub scheduler: Option<At<String>>,
    pub forwarding: Option<At<Forwarding>>,
    pub health: Option<HealthWish>,
    pub failed: Option<At<FailedServer>>,
    pub standby: Option<At<Standby>>,
    pub drain: Option<At<Duration>>,
    /// `Bad` when an entry was refused.
    pub servers: Field<Vec<ServerWish>>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct HealthWish {
    pub kind: At<HealthKind>,
    pub interval: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
    pub rise: Option<At<u32>>,
    pub fall: Option<At<u32>>,
    pub port: Option<At<u16>>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ServerWish {
    pub address: At<IpAddr>,
    /// The service's own port when `None`.
    pub port: Option<u16>,
    pub weight: Option<At<u32>>,
}

#[derive(Debug)]
pub(crate) struct HaproxyWish {
    pub name: At<String>,
    pub instance: Option<At<String>>,
    pub config: Field<PathBuf>,
    pub program: Option<At<PathBuf>>,
    pub standby: Option<At<Standby>>,
}
