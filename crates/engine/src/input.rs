//! What can happen to a node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{Name, Outcome, Plan, VirtualAddress};
use locum_vrrp::Family;

use crate::facts::{Fact, FactKey, HeldAddress, Refusal};
use crate::ids::{CommandId, InstanceId, Owner, ProbeId, Seq};
use crate::order::{ServerOrder, StandingOrder};

#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// From the advert sockets. Counted or heard; never a panic.
    Packet(Packet<'a>),
    /// The deadline of the last drain has come, or any other time.
    Timeout,
    /// From the probe runtime: one run has ended.
    Probed { probe: ProbeId, outcome: Outcome },
    /// From the netlink monitor, also once per known link at start and after an overrun: the
    /// whole state of one link.
    Link(LinkState),
    /// From the netlink monitor: there is no link of this name any more.
    LinkGone { name: Name },
    /// From the netlink monitor: a fact that carries our mark was removed by someone other than the
    /// applier. `culprit` is the process that asked, where the kernel told.
    FactLost { key: FactKey, culprit: Option<String> },
    /// From the applier: what became of `Apply{seq}`. `Ok` lists the facts that the kernel did not
    /// do, and all others are done. `Err`: nothing is known of any of them, and why.
    Applied { seq: Seq, owner: Owner, result: Result<Vec<Refusal>, String> },
    /// From the applier and the advert sockets: what left for this instance since the last report,
    /// and what the kernel did not take. It is counted, nothing else.
    Sent { instance: InstanceId, report: SendReport },
    /// From the balancer: how far `Serve{seq}` has come, again whenever that changes. Services and
    /// HAProxies in `pending` do not answer clients yet and have not failed; those in `failed` do
    /// not, and why; all others that `Serve{seq}` names answer.
    Served { seq: Seq, pending: Vec<Name>, failed: Vec<(Name, String)> },
    /// From the balancer, whenever it changes: what is strained although it serves, or could, and by
    /// what. It is reported, and decides nothing.
    Strained { strained: Vec<(Name, String)> },
    /// From the operator.
    Command { id: CommandId, command: OperatorCommand },
    /// From an earlier run, before the first plan: what an operator has ordered of servers. Orders for
    /// servers that the plan does not have are forgotten.
    Orders(Vec<StandingOrder>),
    /// A new plan, at start and at each reload. `inherited` is what an earlier run left in the
    /// kernel under our mark; it is looked at when the first plan comes. Answered by a
    /// `Output::Reply` when the plan is in effect.
    Plan { id: CommandId, plan: Arc<Plan>, inherited: Vec<Inherited> },
}

/// One datagram from an advert socket.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub interface: &'a str,
    pub family: Family,
    /// IPv4: with its IP header, as raw sockets deliver it. IPv6: the payload only.
    pub bytes: &'a [u8],
    /// The three below come from the socket's control messages; IPv4 reads them from `bytes`.
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hop_limit: Option<u8>,
    /// The kernel cut it (MSG_TRUNC or MSG_CTRUNC).
    pub truncated: bool,
}

/// The whole state of one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkState {
    pub name: Name,
    /// Never 0.
    pub index: u32,
    /// IFF_UP and carrier (IFF_RUNNING).
    pub running: bool,
    /// Six octets, or `None` for hardware without them or with IFF_NOARP: nothing is announced.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Addresses usable as a source, primary first, without those that carry our mark; tentative
    /// ones are left out.
    pub addresses: Vec<IpAddr>,
    /// The link forwards IPv6 (R flag of the neighbour advertisement).
    pub forwards_v6: bool,
}

/// A fact found at start under our mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inherited {
    pub fact: Fact,
    /// Whole seconds of its lease that are left, rounded up; `None` was for ever.
    pub valid_seconds: Option<u32>,
}

impl Inherited {
    /// An address, of which the kernel tells no more than this.
    pub fn address(
        interface: Name,
        address: IpAddr,
        prefix: u8,
        valid_seconds: Option<u32>,
    ) -> Self {
        let address = VirtualAddress::new(address, prefix);
        let held = HeldAddress { interface, address, lease_seconds: None };
        Self { fact: Fact::Address(held), valid_seconds }
    }
}

/// What was sent, in frames and datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendReport {
    /// Gratuitous ARP frames the kernel took.
    pub garp: u64,
    /// Unsolicited neighbour advertisements the kernel took.
    pub na: u64,
    /// Frames of either kind that it did not take.
    pub announce_errors: u64,
    /// Adverts that it did not take, each unicast copy by itself.
    pub advert_errors: u64,
}

/// Which instances a command means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    All,
    Instance(Name),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperatorCommand {
    /// Hand over everything without losing a packet, then emit [`crate::Output::Stopped`].
    Stop,
    /// Hand this instance to its backup and stay backup until that one fails or hands back. On a
    /// backup: ask nothing of the wire, refuse with the reason. `to` names the node that shall take
    /// over: VRRP lets the sender choose nobody, so it must be the only other one.
    Switchover { target: Target, to: Option<Name>, run: RunMode, successor: Successor },
    /// Give this server another weight, in steps over this time where it is not zero; `None` gives it
    /// its own back. Without a port it is the only one of the service with this address.
    Server {
        service: Name,
        address: IpAddr,
        port: Option<u16>,
        order: Option<ServerOrder>,
        over: Duration,
    },
}

/// Who may take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Successor {
    /// A node that can serve, where nodes know that of themselves.
    Fit,
    /// Whoever is there.
    Any,
}

/// Whether a command is carried out or only says what it would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunMode {
    Real,
    Dry,
}
