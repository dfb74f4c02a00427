//! One node under test: an engine, its clock, and the outputs of the last step.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::status::NodeSnapshot;
use locum_engine::{
    Arbiter, Asked, Decision, Engine, Fact, Inherited, Input, InstanceId, LinkState, Output, Owner,
    Packet, ProbeChange, Refusal, Removal,
};
use locum_plan::{
    Check, Checker, Instance, Name, Outcome, Plan, Probe, Unrunnable, Verdict, VirtualAddress,
    Weight,
};
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{
    Cause, ChecksumForm, Family, Priority, Role, RouterSettings, Time, Version, Vrid,
};

pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
/// From the successor's first advert until a master has withdrawn (V-240), and a moment more.
pub const HANDED_OVER: Duration = Duration::from_millis(401);
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));

/// Deadlines of one moment, one after the other.
const MOST_AT_ONCE: u32 = 1000;

/// An apply that waits for its answer.
struct Asking {
    seq: u64,
    owner: Owner,
    hold: Arc<[Fact]>,
    drop: Vec<Removal>,
}

pub struct Node {
    engine: Engine,
    now: Time,
    deadline: Option<Time>,
    out: Vec<Output>,
    /// Applies the kernel has not answered yet.
    applies: Vec<Asking>,
    /// Those of them that hold nothing.
    withdrawals: Vec<(u64, Owner)>,
    probes: Vec<u32>,
    /// The kernel does at once whatever it is asked.
    is_prompt: bool,
    /// What whoever has a say makes of every proposal.
    pub decision: Decision,
}

/// Decides everything alike.
struct Says(Decision);

impl Arbiter for Says {
    fn decide(&mut self, _: Time, _: &Name, _: &Cause) -> Decision {
        self.0
    }
}

impl Node {
    /// eth0 (192.0.2.2) and eth1 (198.51.100.2) are up; no plan yet.
    pub fn with_links() -> Self {
        let mut node = Self {
            engine: Engine::new(),
            now: Time::ZERO + Duration::from_secs(100),
            deadline: None,
            out: Vec::new(),
            applies: Vec::new(),
            withdrawals: Vec::new(),
            probes: Vec::new(),
            is_prompt: false,
            decision: Decision::Grant,
        };
        node.link("eth0", true);
        node.link("eth1", true);
        node
    }

    pub fn started(plan: Plan) -> Self {
        let mut node = Self::with_links();
        node.plan_with(plan, Vec::new());
        node
    }

    /// As [`Node::started`], with a kernel that answers at once.
    pub fn prompt(plan: Plan) -> Self {
        let mut node = Self::with_links();
        node.is_prompt = true;
        node.plan_with(plan, Vec::new());
        node
    }

    /// Started, and master for want of others; the kernel has confirmed.
    pub fn master(plan: Plan) -> Self {
        let mut node = Self::started(plan);
        node.run_for(Duration::from_millis(3700));
        node.confirm_applies();
        node
    }

    pub fn feed(&mut self, input: Input<'_>) -> &[Output] {
        self.out.clear();
        self.step(input);
        &self.out
    }

    /// Lets the clock run, with every deadline served when it comes.
    ///
    /// # Panics
    /// When a deadline that has been served stays due.
    pub fn run_for(&mut self, span: Duration) -> &[Output] {
        self.out.clear();
        let end = self.now + span;
        let mut at_once = 0;
        while let Some(deadline) = self.deadline
            && deadline <= end
        {
            at_once = if deadline > self.now { 0 } else { at_once + 1 };
            assert!(at_once < MOST_AT_ONCE, "{deadline} is served at {} and stays due", self.now);
            self.now = self.now.max(deadline);
            self.step(Input::Timeout);
        }
        self.now = end;
        &self.out
    }

    /// As [`Node::run_for`], up to this moment.
    pub fn run_until(&mut self, moment: Time) -> &[Output] {
        self.run_for(moment.since(self.now))
    }

    /// The clock runs, the node does not.
    pub fn sleep(&mut self, span: Duration) {
        self.now += span;
    }

    pub fn link(&mut self, name: &str, running: bool) -> &[Output] {
        let (index, address) = match name {
            "eth0" => (2, Ipv4Addr::new(192, 0, 2, 2)),
            _ => (3, Ipv4Addr::new(198, 51, 100, 2)),
        };
        self.feed(Input::Link(LinkState {
            name: name.into(),
            index,
            running,
            mac: Some([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            addresses: vec![address.into()],
            forwards_v6: false,
        }))
    }

    pub fn plan_with(&mut self, plan: Plan, inherited: Vec<Inherited>) -> &[Output] {
        self.feed(Input::Plan { id: 0, plan: Arc::new(plan), inherited })
    }

    pub fn hear(&mut self, source: IpAddr, priority: u8) -> &[Output] {
        let bytes = advert(source, priority);
        self.hear_bytes(&bytes)
    }

    pub fn hear_bytes(&mut self, bytes: &[u8]) -> &[Output] {
        self.hear_bytes_at(GROUP, bytes)
    }

    /// As [`Node::hear`], of an advert to this address.
    pub fn hear_at(&mut self, destination: IpAddr, source: IpAddr, priority: u8) -> &[Output] {
        let bytes = advert_to(destination, source, priority);
        self.hear_bytes_at(destination, &bytes)
    }

    fn hear_bytes_at(&mut self, destination: IpAddr, bytes: &[u8]) -> &[Output] {
        self.feed(Input::Packet(Packet {
            interface: "eth0",
            family: Family::V4,
            bytes,
            source: PEER,
            destination,
            hop_limit: None,
            truncated: false,
        }))
    }

    pub fn confirm_applies(&mut self) -> &[Output] {
        self.answer_applies(&Ok(Vec::new()))
    }

    pub fn refuse_applies(&mut self, why: &str) -> &[Output] {
        self.answer_applies(&Err(why.to_owned()))
    }

    /// Confirms the levels that only withdraw; the others stay unanswered.
    pub fn confirm_applies_of_nothing(&mut self) {
        for (seq, owner) in std::mem::take(&mut self.withdrawals) {
            self.applies.retain(|other| other.seq != seq);
            self.step(Input::Applied { seq, owner, result: Ok(Vec::new()) });
        }
    }

    /// Confirms all but the handovers.
    pub fn refuse_handovers(&mut self, why: &str) -> &[Output] {
        self.out.clear();
        for Asking { seq, owner, hold, .. } in std::mem::take(&mut self.applies) {
            let handovers = hold.iter().filter(|fact| fact.handover().is_some());
            let refusal = |fact: &Fact| Refusal {
                asked: Asked::Hold,
                key: fact.key(),
                error: why.to_owned(),
            };
            let refusals = handovers.map(refusal).collect();
            self.step(Input::Applied { seq, owner, result: Ok(refusals) });
        }
        &self.out
    }

    fn answer_applies(&mut self, result: &Result<Vec<Refusal>, String>) -> &[Output] {
        self.out.clear();
        for Asking { seq, owner, .. } in std::mem::take(&mut self.applies) {
            self.step(Input::Applied { seq, owner, result: result.clone() });
        }
        &self.out
    }

    /// The kernel does what it was asked, but not for these addresses.
    pub fn refuse(&mut self, addresses: &[Ipv4Addr], why: &str) -> &[Output] {
        self.out.clear();
        for Asking { seq, owner, hold, drop } in std::mem::take(&mut self.applies) {
            let is_meant = |(_, fact): &(Asked, &Fact)| {
                addresses.iter().any(|address| is_address(fact, *address))
            };
            let hold = hold.iter().map(|fact| (Asked::Hold, fact));
            let drop = drop.iter().map(|removal| (Asked::Drop, &removal.fact));
            let refusal = |(asked, fact): (Asked, &Fact)| Refusal {
                asked,
                key: fact.key(),
                error: why.to_owned(),
            };
            let refusals = hold.chain(drop).filter(is_meant).map(refusal).collect();
            self.step(Input::Applied { seq, owner, result: Ok(refusals) });
        }
        &self.out
    }

    /// Of the first instance.
    pub fn id(&self) -> InstanceId {
        self.status().instances[0].id
    }

    pub fn role(&self) -> Role {
        self.status().instances[0].role
    }

    pub fn status(&self) -> NodeSnapshot {
        self.engine.status(self.now)
    }

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The only probe that runs.
    pub fn probe(&self) -> u32 {
        assert_eq!(self.probes.len(), 1);
        self.probes[0]
    }

    fn step(&mut self, input: Input<'_>) {
        let from = self.out.len();
        self.engine.handle_under(&mut Says(self.decision), self.now, input, &mut self.out);
        assert_eq!(self.engine.check_invariants(), Ok(()));
        for output in &self.out[from..] {
            match output {
                Output::Deadline(deadline) => self.deadline = *deadline,
                Output::Apply { seq, owner, hold, drop } => {
                    if hold.is_empty() {
                        self.withdrawals.push((*seq, *owner));
                    }
                    self.applies.push(Asking {
                        seq: *seq,
                        owner: *owner,
                        hold: hold.clone(),
                        drop: drop.clone(),
                    });
                }
                Output::Probe(ProbeChange::Start { probe, .. }) => self.probes.push(*probe),
                _ => {}
            }
        }
        assert!(matches!(self.out.last(), Some(Output::Deadline(_))), "the deadline is last");
        if self.is_prompt {
            for Asking { seq, owner, .. } in std::mem::take(&mut self.applies) {
                self.step(Input::Applied { seq, owner, result: Ok(Vec::new()) });
            }
        }
    }
}

/// The fact is this address, on whatever interface.
pub fn is_address(fact: &Fact, address: Ipv4Addr) -> bool {
    fact.address().is_some_and(|held| held.address.address == address)
}

/// Priorities of the adverts among these outputs.
pub fn sent_priorities(out: &[Output]) -> Vec<u8> {
    out.iter()
        .filter_map(|output| match output {
            Output::Advertise(datagram) => Some(datagram.message[2]),
            _ => None,
        })
        .collect()
}

/// A version 3 advert for VRID 51 with its IPv4 header.
pub fn advert(source: IpAddr, priority: u8) -> Vec<u8> {
    advert_to(GROUP, source, priority)
}

fn advert_to(destination: IpAddr, source: IpAddr, priority: u8) -> Vec<u8> {
    let settings = instance("peer", 51, 100).router;
    let form = ChecksumForm::Pseudo;
    let message = encode_advert(&settings, Priority(priority), source, destination, form);
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source, destination) else { panic!("IPv4 only") };
    let total = u16::try_from(20 + message.len()).expect("short");
    let mut bytes = vec![0x45, 0xc0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 255, 112, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(message);
    bytes
}

pub fn instance(name: &str, vrid: u8, priority: u8) -> Instance {
    let vrid = Vrid::new(vrid).expect("1..=255");
    let mut router = RouterSettings::new(vrid, Family::V4, Version::V3);
    router.priority = Priority(priority);
    router.addresses = vec![VIP.into()];
    Instance {
        addresses: vec![VirtualAddress::new(VIP.into(), 24)],
        ..Instance::new(name.into(), "eth0".into(), router)
    }
}

pub fn plan<const N: usize>(instances: [Instance; N]) -> Plan {
    Plan { node: "lb1".into(), instances: instances.map(Arc::new).into(), ..Plan::default() }
}

/// Check "app": is a process there, every second, one result decides.
pub fn process_check(weight: i16) -> Check {
    Check {
        name: "app".into(),
        probe: Probe::new(
            Checker::Process { name: "app".to_owned() },
            Duration::from_secs(1),
            Duration::from_secs(1),
        ),
        rise: 1,
        fall: 1,
        weight: Weight { value: weight, reverse: false },
        starts_failed: false,
        unrunnable: Unrunnable::Fails,
    }
}

/// A run that passed or failed, in no time.
pub fn outcome(verdict: Verdict) -> Outcome {
    Outcome { verdict, detail: "no process app".to_owned(), took: Duration::ZERO, weight: None }
}
