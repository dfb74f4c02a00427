//! What a file asks for: typed, each value with its place, nothing filled in. Both front-ends
//! produce it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use locum_vrrp::{ChecksumMode, Family, Preempt, Profile, UnicastPeer, Version, Vrid};

use crate::dialect::Dialect;
use crate::span::{At, Span};
use locum_plan::{
    Backend, Checker, Command, CommandLine, FailedServer, Forwarding, Lease, Name, Node, Protocol,
    Scope, Standby, StatusRange, Track, VirtualAddress, Weight,
};

/// A setting as it was read.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    /// Written, but not usable, and reported. Of a list: at least one entry was.
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

    pub fn is_bad(&self) -> bool {
        matches!(self, Self::Bad)
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Given(at) => Field::Given(at.map(change)),
        }
    }
}

impl<T> Field<Vec<T>> {
    /// The entries of a list; none when it was not written or was refused.
    pub fn list(&self) -> &[T] {
        self.value().map_or(&[][..], Vec::as_slice)
    }

    /// Adds entries: keepalived's lists may be written in several blocks.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = T>, span: Span) {
        let mut entries = entries.into_iter().peekable();
        match self {
            Self::Given(at) => at.value.extend(entries),
            Self::Absent | Self::Bad if entries.peek().is_some() => {
                *self = Self::Given(At::new(entries.collect(), span));
            }
            Self::Absent | Self::Bad => {}
        }
    }
}

/// What was read, or that it was refused.
impl<T> From<Option<At<T>>> for Field<T> {
    fn from(value: Option<At<T>>) -> Self {
        value.map_or(Self::Bad, Self::Given)
    }
}

#[derive(Debug)]
pub(crate) struct Parsed {
    pub dialect: Dialect,
    pub node: Name,
    /// The node was found among `nodes`; `false` when it could not be told, which is reported.
    pub is_node_known: bool,
    pub nodes: Vec<Node>,
    pub instances: Vec<ParsedInstance>,
    pub checks: Vec<ParsedCheck>,
    pub services: Vec<ParsedService>,
    pub haproxy: Vec<ParsedHaproxy>,
    pub hooks: ParsedHookSettings,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedNode {
    pub address: Field<IpAddr>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedHookSettings {
    pub timeout: Field<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedInstance {
    /// The block's head, for what is missing in it.
    pub span: Span,
    pub name: At<String>,
    pub interface: Field<String>,
    pub vrid: Field<Vrid>,
    pub version: Field<Version>,
    pub profile: Field<Profile>,
    pub priority: Field<u8>,
    pub interval: Field<Duration>,
    pub preempt: Field<Preempt>,
    pub addresses: Field<Vec<At<VirtualAddress>>>,
    pub excluded: Field<Vec<At<VirtualAddress>>>,
    /// Family to assume when there is no address to tell.
    pub family: Field<Family>,
    /// The operator said that no advertised address is meant.
    pub without_addresses: bool,
    pub auth: ParsedAuth,
    pub transport: Field<TransportKind>,
    pub group: Field<IpAddr>,
    pub unicast: ParsedUnicast,
    pub source: Field<IpAddr>,
    pub checksum: Field<ChecksumMode>,
    pub down_multiplier: Field<u8>,
    pub announce: ParsedAnnounce,
    pub answer_lower: Field<bool>,
    pub answer_higher: Field<bool>,
    pub owner_ignores_adverts: Field<bool>,
    pub start_delay: Field<Duration>,
    pub lease: Field<Lease>,
    pub track: Field<Vec<At<Track>>>,
    pub hooks: ParsedHooks,
}

impl ParsedInstance {
    /// An instance of which only the name is known.
    pub fn new(span: Span, name: At<String>) -> Self {
        Self { span, name, ..Self::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransportKind {
    Multicast,
    Unicast,
}

/// A password of version 2.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedAuth {
    /// Where the authentication stands; `None` when there is none.
    pub span: Option<Span>,
    /// The one type there is was named.
    pub simple: Field<()>,
    pub password: Field<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedUnicast {
    /// What says that adverts go to peers one by one; `None` when they do not.
    pub span: Option<Span>,
    pub peers: Field<Vec<At<UnicastPeer>>>,
    pub ttl: Field<u8>,
    pub ttl_check: Field<bool>,
    pub check_source: Field<bool>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedPeer {
    pub address: Field<IpAddr>,
    pub min_ttl: Field<u8>,
    pub max_ttl: Field<u8>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedAddress {
    pub address: Field<VirtualAddress>,
    pub device: Field<String>,
    pub label: Field<String>,
    pub scope: Field<Scope>,
    pub broadcast: Field<IpAddr>,
    pub duplicate_detection: Field<bool>,
    pub prefix_route: Field<bool>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedTrack {
    pub check: Field<String>,
    pub interface: Field<String>,
    pub weight: Field<Weight>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedWeight {
    pub value: Field<i16>,
    pub reverse: Field<bool>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedCommand {
    pub script: Field<CommandLine>,
    pub shell: Field<CommandLine>,
    pub user: Field<String>,
    pub group: Field<String>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedAnnounce {
    pub repeat: Field<u8>,
    pub delay: Field<Duration>,
    pub refresh: Field<Duration>,
    pub refresh_repeat: Field<u8>,
    pub lower_priority_repeat: Field<u8>,
    pub lower_priority_delay: Field<Duration>,
    pub garp_interval: Field<Duration>,
    pub gna_interval: Field<Duration>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedHooks {
    pub master: Field<Vec<At<Command>>>,
    pub backup: Field<Vec<At<Command>>>,
    pub fault: Field<Vec<At<Command>>>,
    pub stop: Field<Vec<At<Command>>>,
    pub any: Field<Vec<At<Command>>>,
}

impl ParsedHooks {
    pub fn all(&self) -> impl Iterator<Item = &At<Command>> {
        let lists = [&self.master, &self.backup, &self.fault, &self.stop, &self.any];
        lists.into_iter().flat_map(Field::list)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedCheck {
    pub span: Span,
    pub name: At<String>,
    /// What `asked` comes to.
    pub checker: Field<Checker>,
    pub asked: Asked,
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub rise: Field<u32>,
    pub fall: Field<u32>,
    pub weight: Field<Weight>,
    pub starts_failed: Field<bool>,
}

/// The ways to ask something, one of which is to be chosen, and what goes along with some of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub script: Field<CommandLine>,
    pub shell: Field<CommandLine>,
    pub process: Field<String>,
    pub tcp: Field<SocketAddr>,
    pub http: Field<Url>,
    pub host: Field<String>,
    pub expect: Field<Vec<StatusRange>>,
    pub user: Field<String>,
    pub group: Field<String>,
}

/// A URL whose host is an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub target: SocketAddr,
    pub path: String,
    /// Value of the Host header, where it is another than the address.
    pub host: Option<String>,
}

/// When a service is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serve {
    Master,
    Always,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedService {
    pub span: Span,
    pub name: At<String>,
    pub instance: Field<String>,
    pub serve: Field<Serve>,
    pub listen: Field<SocketAddr>,
    pub protocol: Field<Protocol>,
    pub backend: Field<Backend>,
    pub scheduler: Field<String>,
    pub forwarding: Field<Forwarding>,
    /// Of every server that has none of its own.
    pub health: Field<Vec<At<ParsedHealth>>>,
    pub failed: Field<FailedServer>,
    pub standby: Field<Standby>,
    pub drain: Field<Duration>,
    pub servers: Field<Vec<At<ParsedServer>>>,
}

/// One health check of the servers it is of.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedHealth {
    /// What `tcp` and `http` come to.
    pub question: Field<HealthQuestion>,
    pub tcp: Field<bool>,
    pub http: Field<String>,
    pub expect: Field<Vec<StatusRange>>,
    pub host: Field<String>,
    /// Port to ask; the server's own when absent.
    pub port: Field<u16>,
    pub interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub rise: Field<u32>,
    pub fall: Field<u32>,
}

/// A checker that does not know yet which server it asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HealthQuestion {
    Tcp,
    Http { path: String, host: Option<String>, expect: Vec<StatusRange> },
}

impl HealthQuestion {
    /// Asked of this address.
    pub fn of(&self, target: SocketAddr) -> Checker {
        match self {
            Self::Tcp => Checker::Tcp { target },
            Self::Http { path, host, expect } => Checker::Http {
                target,
                path: path.clone(),
                host: host.clone(),
                expect: expect.clone(),
            },
        }
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedServer {
    /// Without a port it is the service's own.
    pub address: Field<(IpAddr, Option<u16>)>,
    pub weight: Field<u32>,
    pub forwarding: Field<Forwarding>,
    /// Its own checks, in place of the service's.
    pub health: Field<Vec<At<ParsedHealth>>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedHaproxy {
    pub name: At<String>,
    pub instance: Field<String>,
    pub config: Field<PathBuf>,
    pub program: Field<PathBuf>,
    pub standby: Field<Standby>,
}
