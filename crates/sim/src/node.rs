//! One host: its kernel, link, applier and balancer, and the process that may run on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    CommandId, FactKey, Input, InstanceId, LinkState, Owner, Packet, ProbeId, Refusal, SendReport,
    Seq,
};
use locum_plan::{Name, Outcome, Plan, Probe, Verdict};
use locum_vrrp::{Family, Time};

use crate::adapter::Adapter;
use crate::applier::{Applier, Balancer};
use crate::kernel::Kernel;
use crate::lan::Frame;
use crate::orders::Orders;
use crate::place::{INTERFACES, global_address, interface, node_address};
use crate::virtual_router::{Edit, router_of_server};

/// Datagrams a socket keeps for a process that does not read. The rest is lost, as by Linux.
const SOCKET_BACKLOG: usize = 64;

/// What the process on a host is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    Running,
    /// Stopped in its tracks; its sockets fill.
    Paused,
    /// Crashed or ended.
    Gone,
}

/// Something for the engine, owned, so that it can wait.
#[derive(Clone, Debug)]
pub enum Stimulus {
    Packet(Frame),
    Timeout,
    Probed(ProbeId, Outcome),
    /// With index 0 for one that is gone.
    Link(LinkState),
    FactLost(FactKey),
    Applied(Seq, Owner, Result<Vec<Refusal>, String>),
    Sent(InstanceId, SendReport),
    /// With what does not answer yet, and what could not be served.
    Served(Seq, Vec<Name>, Vec<(Name, String)>),
    Command(CommandId, locum_engine::OperatorCommand),
    Plan(Arc<Plan>, Vec<locum_engine::Inherited>),
}

impl Stimulus {
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Packet(frame) => Input::Packet(Packet {
                interface: INTERFACES[frame.link],
                family: frame.family,
                bytes: &frame.bytes,
                source: frame.source,
                destination: frame.destination,
                hop_limit: Some(frame.hop_limit),
                truncated: false,
            }),
            Self::Timeout => Input::Timeout,
            Self::Probed(probe, outcome) => {
                Input::Probed { probe: *probe, outcome: outcome.clone() }
            }
            Self::Link(link) if link.index == 0 => Input::LinkGone { name: link.name.clone() },
            Self::Link(link) => Input::Link(link.clone()),
            Self::FactLost(key) => Input::FactLost { key: key.clone(), culprit: None },
            Self::Applied(seq, owner, result) => {
                Input::Applied { seq: *seq, owner: *owner, result: result.clone() }
            }
            Self::Sent(instance, report) => Input::Sent { instance: *instance, report: *report },
            Self::Served(seq, pending, failed) => {
                Input::Served { seq: *seq, pending: pending.clone(), failed: failed.clone() }
            }
            Self::Command(id, command) => Input::Command { id: *id, command: command.clone() },
            Self::Plan(plan, inherited) => {
                Input::Plan { id: 0, plan: plan.clone(), inherited: inherited.clone() }
            }
        }
    }
}

/// What the check of a server says that does not answer.
pub const SERVER_FAILS: &str = "connection refused";

/// What of a service does not work on one node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// It cannot be served here.
    pub is_broken: bool,
    /// None of its servers answers this node.
    pub is_starved: bool,
    /// When it last came to be so or otherwise.
    pub since: Time,
    /// How often it was lost.
    pub count: u32,
}

impl Lost {
    pub fn is_lost(self) -> bool {
        self.is_broken || self.is_starved
    }
}

pub struct Node {
    pub number: usize,
    pub process: Process,
    /// Which process this is, counted from the first: what an earlier one began is forgotten.
    pub life: u32,
    pub adapter: Adapter,
    /// One per virtual router.
    pub edits: Vec<Edit>,
    pub plan: Arc<Plan>,
    /// What its process was last told.
    pub applied_plan: Option<Arc<Plan>>,
    pub links: Vec<LinkState>,
    pub kernel: Kernel,
    /// Addresses this kernel refuses to add or to renew, whatever its temper.
    pub stubborn: BTreeSet<IpAddr>,
    /// It did not let go of what an earlier process has left.
    pub unowned_refused: bool,
    pub applier: Applier,
    pub balancer: Balancer,
    pub orders: Orders,
    pub probes: BTreeMap<ProbeId, Probe>,
    /// What every probe of a check of this node finds now.
    pub check_passes: bool,
    /// By virtual router: its service has lost what.
    pub losses: Vec<Lost>,
    /// By link: sockets, and each group they have joined; `None` is the host's own addresses.
    pub listens: BTreeSet<(usize, Family, Option<IpAddr>)>,
    /// Datagrams, and everything else, that wait for a paused process.
    pub unread: VecDeque<Frame>,
    pub unheard: VecDeque<Stimulus>,
    /// The timer that is set; older ones are stale.
    pub timer: Option<Time>,
    /// When it is called again because of a decision.
    pub decision: Option<Time>,
    pub last_apply: Seq,
    pub last_serve: Seq,
    pub last_event: u64,
    /// Since when its process is paused.
    pub paused_at: Time,
}

impl Node {
    pub fn new(number: usize, links: usize, edits: Vec<Edit>, plan: Arc<Plan>) -> Self {
        Self {
            number,
            process: Process::Gone,
            life: 0,
            adapter: Adapter::default(),
            plan,
            applied_plan: None,
            links: (0..links).map(|link| link_state(number, link)).collect(),
            kernel: Kernel::default(),
            stubborn: BTreeSet::new(),
            unowned_refused: false,
            applier: Applier::default(),
            balancer: Balancer::default(),
            orders: Orders::default(),
            probes: BTreeMap::new(),
            check_passes: true,
            losses: vec![Lost::default(); edits.len()],
            edits,
            listens: BTreeSet::new(),
            unread: VecDeque::new(),
            unheard: VecDeque::new(),
            timer: None,
            decision: None,
            last_apply: 0,
            last_serve: 0,
            last_event: 0,
            paused_at: Time::ZERO,
        }
    }

    pub fn is_running(&self) -> bool {
        self.process == Process::Running
    }

    /// Takes part in elections as far as its host lets it.
    pub fn is_healthy(&self) -> bool {
        self.is_running() && self.links.iter().all(|link| link.running) && self.check_passes
    }

    /// A datagram for `destination` on this link reaches one of its sockets.
    pub fn receives(&self, link: usize, family: Family, destination: IpAddr) -> bool {
        let mut sockets = self.listens.iter();
        self.links[link].running
            && sockets.any(|(on, of, group)| {
                (*on, *of) == (link, family)
                    && (!destination.is_multicast() || *group == Some(destination))
            })
    }

    /// What the kernel reports when this link is another: all addresses that do not carry our mark
    /// are on it.
    pub fn reported_links(&self, link: usize) -> Vec<LinkState> {
        let mut state = self.links[link].clone();
        state.addresses.extend(self.kernel.foreign_on(INTERFACES[link]));
        vec![state]
    }

    /// Nothing that was asked of it is still to be done.
    pub fn is_drained(&self) -> bool {
        self.is_running() && self.applier.is_idle() && self.unheard.is_empty()
    }

    /// Everything in the process is gone; the host's kernel and what serves stay.
    pub fn end_process(&mut self) {
        self.process = Process::Gone;
        self.life += 1;
        let mood = self.adapter.objector.mood;
        self.adapter = Adapter::default();
        self.adapter.objector.mood = mood;
        self.applier.forget();
        self.balancer.forget();
        self.orders = Orders::default();
        self.probes.clear();
        self.listens.clear();
        self.unread.clear();
        self.unheard.clear();
        self.timer = None;
        self.decision = None;
        self.last_apply = 0;
        self.last_serve = 0;
        self.unowned_refused = false;
        self.last_event = 0;
        self.applied_plan = None;
    }

    /// Keeps a datagram for later, if there is room.
    pub fn keep(&mut self, frame: Frame) {
        if self.unread.len() < SOCKET_BACKLOG {
            self.unread.push_back(frame);
        }
    }

    pub fn outcome(&self, probe: &Probe) -> Outcome {
        let router = probe.kind.target().and_then(router_of_server);
        let passes = match router {
            Some(router) => !self.losses.get(router).is_some_and(|lost| lost.is_starved),
            None => self.check_passes,
        };
        let (verdict, detail) = match passes {
            true => (Verdict::Pass, "exited with status 0"),
            false if router.is_some() => (Verdict::Fail, SERVER_FAILS),
            // Fail closed: what cannot be run has failed.
            false if self.number.is_multiple_of(2) => (Verdict::CannotRun, "no such file"),
            false => (Verdict::Fail, "exited with status 1"),
        };
        Outcome { verdict, detail: detail.to_owned(), took: Duration::from_millis(1), weight: None }
    }
}

fn link_state(number: usize, link: usize) -> LinkState {
    LinkState {
        name: interface(link),
        index: 2 + link as u32,
        running: true,
        mac: Some([2, 0, 0, 0, link as u8, number as u8 + 1]),
        mtu: 1500,
        addresses: vec![
            node_address(number, Family::V4, link),
            node_address(number, Family::V6, link),
            global_address(number, link),
        ],
        forwards_v6: true,
    }
}
