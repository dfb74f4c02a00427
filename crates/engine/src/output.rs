//! What a node shall do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_plan as plan;
use locum_plan::{Name, Probe, Tracked, WantedServices};
use locum_vrrp::{Auth, Cause, Family, Priority, Role, Version, Vrid};

use crate::facts::{Fact, FactKey, Removal};
use crate::fault::PriorityCause;
use crate::fitness::Aspect;
use crate::ids::{CommandId, InstanceId, Owner, ProbeId, Seq};
use crate::order::ServerOrder;

#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send now, by the advert socket of this interface and family. `Input::Sent` tells of a failure.
    Advertise(OutgoingAdvert),
    /// Applier: the facts of `hold` are there from now on, for this owner. `drop` are those that
    /// must not be there any more. A fact that the kernel refused a short while ago is in neither.
    /// Applying it again renews leases. A newer level of the same owner replaces one that has not
    /// begun. Answered by `Input::Applied`.
    Apply { seq: Seq, owner: Owner, hold: Arc<[Fact]>, drop: Vec<Removal> },
    /// Applier: send these frames, unless it is later than `until`: a late one may come from a
    /// master that is none any more (G-016). Their addresses are in place, and what the instance
    /// serves answers (G-020). Answered by `Input::Sent`. Frames that keep a distance (G-015) come
    /// one by one, each in its own drain.
    Announce { instance: InstanceId, until: locum_vrrp::Time, frames: Vec<Announcement> },
    /// Balancer: what this node serves from now on is exactly this. A newer one replaces an older
    /// one that has not begun. Answered by `Input::Served`, and again whenever the answer changes.
    Serve { seq: Seq, wanted: Arc<WantedServices> },
    /// Log, history and API subscribers.
    Notify(Event),
    /// Queue of its owner: run in order, one at a time. That of an instance comes when the kernel has
    /// answered the `Apply` of its transition: a master hook may use the address.
    Hook(HookRun),
    /// Probe runtime.
    Probe(ProbeChange),
    /// What is to be heard from now on: exactly this, at most one entry per interface and family.
    Listen(Vec<Listen>),
    /// Whose adverts must not be lost among others, on one interface. It replaces what was said of
    /// this interface and family before; without an entry in `Listen` it means nothing.
    Masters(Masters),
    /// Answer to a command or a plan.
    Reply { id: CommandId, reply: Reply },
    /// After `OperatorCommand::Stop`: everything is handed over, the process may end.
    Stopped,
    /// Always last: feed `Input::Timeout` at this time. `None`: nothing is pending.
    Deadline(Option<locum_vrrp::Time>),
}

/// What one socket shall hear, so that it can leave the rest to the kernel. Only what it says of
/// versions, VRIDs and hop limits need pass; what passes is validated all the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    pub interface: Name,
    pub family: Family,
    /// Multicast groups to join, sorted; empty when every instance here speaks by unicast. What
    /// comes to a group has a TTL or hop limit of 255 (V-102).
    pub groups: Vec<IpAddr>,
    /// Version and VRID of each of our routers, sorted.
    pub routers: Vec<(Version, Vrid)>,
    /// Least TTL or hop limit of what comes to an address of this host, 0 when any will do (V-330);
    /// `None` when no instance here speaks by unicast.
    pub unicast_hop_limit: Option<u8>,
    /// How all routers of version 2 here authenticate; `None` when there is none or they differ.
    pub auth: Option<Auth>,
}

/// The masters that instances of one interface and family follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Masters {
    pub interface: Name,
    pub family: Family,
    /// Source addresses of their adverts, sorted.
    pub sources: Vec<IpAddr>,
}

/// An advertisement ready to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingAdvert {
    pub instance: InstanceId,
    pub interface: Name,
    pub interface_index: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// The VRRP message; the socket adds the IP header.
    pub message: Vec<u8>,
}

/// One Ethernet frame to broadcast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    pub interface: Name,
    pub interface_index: u32,
    pub address: IpAddr,
    /// Shared by those that say the same.
    pub frame: Arc<[u8]>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum ProbeChange {
    Start { probe: ProbeId, spec: Probe },
    Stop { probe: ProbeId },
}

/// One hook to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookRun {
    pub owner: HookOwner,
    /// With the generic hook's four arguments already appended.
    pub command: plan::Command,
    /// Of an instance `LOCUM_INSTANCE`, `LOCUM_STATE`, `LOCUM_PREVIOUS_STATE`, `LOCUM_CAUSE`,
    /// `LOCUM_PRIORITY`, `LOCUM_EVENT`; if there are any, `LOCUM_MISSING` with the addresses the
    /// kernel refused, `LOCUM_UNFIT` with the services and HAProxies this node cannot serve, and
    /// `LOCUM_STRAINED` with those that are strained. Of a service and a server `LOCUM_SERVICE`, `LOCUM_STATE` (`UP` or `DOWN`), `LOCUM_CAUSE`,
    /// `LOCUM_EVENT`, and `LOCUM_SERVER` of a server or `LOCUM_SORRY` while a sorry server has the
    /// clients.
    pub environment: Vec<(String, String)>,
    /// Number of the event that caused it, so that the history can join them.
    pub event: u64,
}

/// Whose hook it is. A newer event of the same owner stands for an older one that has not begun.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HookOwner {
    Instance(Name),
    /// For its quorum.
    Service(Name),
    Server {
        service: Name,
        address: SocketAddr,
    },
}

impl HookOwner {
    pub fn instance(&self) -> Option<&Name> {
        match self {
            Self::Instance(name) => Some(name),
            Self::Service(_) | Self::Server { .. } => None,
        }
    }
}

/// As a line of the log begins: `web`, `service www`, `server 10.0.0.1:80 of www`.
impl fmt::Display for HookOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) => f.write_str(name),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Server { service, address } => write!(f, "server {address} of {service}"),
        }
    }
}

/// Something an operator would act on or remember.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Rising within this process.
    pub number: u64,
    pub instance: Option<Name>,
    pub kind: EventKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A role changed; `cause` is why.
    Transition { from: Role, to: Role, cause: Cause, priority: Priority },
    /// The effective priority changed.
    Priority { from: Priority, to: Priority, why: PriorityCause },
    /// A tracked object whose results this node counts went up or down.
    Tracked { object: Tracked, up: bool, detail: String },
    /// A server of a service went up or down.
    Server { service: Name, server: SocketAddr, up: bool, detail: String },
    /// The servers of a service are too few, and why, or enough again. `sorry` has its clients; where
    /// there is none they go to the servers that are `remaining`.
    Quorum {
        service: Name,
        reached: bool,
        sorry: Option<SocketAddr>,
        remaining: usize,
        detail: String,
    },
    /// An operator has given a server another weight, or its own back (`None`).
    ServerOrdered { service: Name, server: SocketAddr, order: Option<ServerOrder> },
    /// A fact that someone removed, as a rule a virtual address, was put back.
    Healed { key: FactKey, culprit: Option<String> },
    /// A virtual address that someone had put here, where this node is not master, was removed.
    Expelled { address: IpAddr, interface: Name },
    /// The kernel has not answered for this long. Nothing is at fault: the node is overloaded.
    ApplyLate { waited: Duration },
    /// Addresses were announced although a service of the instance does not answer yet, or its
    /// other addresses are not in place: the wait for them has a bound.
    AnnouncedUnready { waited: Duration, awaited: Awaited },
    /// Two masters met and this one stayed: addresses are announced again.
    Conflict { peer: IpAddr, peer_priority: Priority },
    /// First discard of this reason since the last role change; the counters have the rest.
    Discard { source: Option<IpAddr>, reason: String },
    /// The peer differs from us in something that does not stop it: interval, address list.
    Mismatch { peer: IpAddr, what: String },
    /// The kernel refused some addresses, or all.
    ApplyFailed { error: String },
    /// What it refused before is done.
    ApplyMended { what: String },
    /// A service or HAProxy cannot be served, or not be served here, or has too few servers, and
    /// why; or that is over.
    Fitness { object: Tracked, aspect: Aspect, holds: bool, detail: String },
    /// A service or HAProxy that serves, or could, is strained, and by what; `None`: it is so no more.
    /// At most one a minute of each.
    Strained { object: Tracked, by: Option<String> },
    /// A plan took effect.
    Reloaded { added: usize, changed: usize, removed: usize, unchanged: usize },
    /// A fact in the kernel from an earlier run was taken over, or withdrawn.
    Adopted { key: FactKey, kept: bool },
    /// Free text for what has no other place: an operator command, a limit reached.
    Note(String),
}

/// What an announcement waited for in vain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The kernel's word that every address is in place.
    Addresses,
    /// This service, to answer its clients.
    Service(Name),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses => f.write_str("the kernel has not put every address in place"),
            Self::Service(name) => write!(f, "service {name} does not answer yet"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Done, or under way and certain to be done.
    Ok(String),
    /// Nothing was changed; the reason, for a person.
    Refused(String),
}
