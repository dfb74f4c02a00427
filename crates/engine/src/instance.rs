//! One instance: its router, the addresses it wants in the kernel, and what it has to say.
//!
//! A drain turns what the router did into outputs in a fixed order: adverts, then addresses, then
//! (after the services of the node) announcements, then notifications and hooks. V-055, I-035.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan as plan;
use locum_plan::{Lease, Name};
use locum_vrrp::announce;
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{
    Accepted, Counters, Discard, Family, Fitness, Priority, Role, Router, RouterAction,
    RouterEvent, Time, Transport, Vrid,
};

use crate::announce::burst::PendingAnnouncement;
use crate::eligibility::Perspective;
use crate::facts::{Answered, Fact, FactKey, Facts, Handover, HeldAddress, Level, Refusal, Wanted};
use crate::fault::Fault;
use crate::fitness::{Incumbency, Loss};
use crate::hooks;
use crate::ids::{InstanceId, Owner, Seq};
use crate::input::LinkState;
use crate::offer::{Footing, OfferStep, Standpoint};
use crate::output::{HookRun, OutgoingAdvert, Output};
use crate::promises;

/// The kernel looks for leases that have run out once a second.
const LATEST_EXPIRY: Duration = Duration::from_secs(1);

/// The predecessor lets go so much later than we stop to hand connections to it: what came to a host
/// without the address would be lost.
const HANDOVER_RESERVE: Duration = Duration::from_millis(50);

/// What tells instances apart on the wire (V-003).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RouterKey {
    pub interface: Name,
    pub family: Family,
    pub vrid: Vrid,
}

impl RouterKey {
    pub fn of(instance: &plan::Instance) -> Self {
        Self {
            interface: instance.interface.clone(),
            family: instance.router.family,
            vrid: instance.router.vrid,
        }
    }
}

/// A datagram that this instance took no advert from.
#[derive(Clone, Copy, Debug)]
pub struct Discarded {
    pub at: Time,
    pub source: IpAddr,
    pub reason: Discard,
}

/// A master that advertises other addresses than this instance has.
#[derive(Clone, Debug)]
pub struct Differing {
    /// When it was heard last, and when its addresses were looked at.
    pub at: Time,
    pub seen: Time,
    pub source: IpAddr,
    pub ours_only: Vec<IpAddr>,
    pub theirs_only: Vec<IpAddr>,
}

/// What was reported of the peers, so that it is reported once.
#[derive(Debug, Default)]
pub struct Reported {
    /// A bit for each.
    reasons: u32,
    is_tie: bool,
    form_of: Option<IpAddr>,
}

const _: () = assert!(Discard::ALL.len() <= u32::BITS as usize, "a bit for each");

impl Reported {
    /// Until the role or the master changes (V-124). `true` when it is news.
    pub fn reason(&mut self, reason: Discard) -> bool {
        let before = self.reasons;
        self.reasons |= 1 << reason as u32;
        self.reasons != before
    }

    /// A peer has our priority (V-163), until the master changes. `true` when it is news.
    pub fn tie(&mut self) -> bool {
        !std::mem::replace(&mut self.is_tie, true)
    }

    /// The checksum of this peer is of the other form (V-042): once per peer, until another one
    /// says something else. `true` when it is news.
    pub fn form(&mut self, peer: IpAddr) -> bool {
        self.form_of.replace(peer) != Some(peer)
    }

    pub fn clear_on_role_change(&mut self) {
        self.reasons = 0;
    }

    pub fn clear_on_new_master(&mut self) {
        self.reasons = 0;
        self.is_tie = false;
    }
}

/// How far an instance has come on its way out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Departure {
    /// Its router takes part, or may.
    Present,
    /// Its router has handed over.
    Finished,
    /// And the kernel has confirmed it, or will not.
    Gone,
}

#[derive(Debug)]
pub struct InstanceState {
    pub id: InstanceId,
    pub instance: Arc<plan::Instance>,
    pub router: Router,
    pub counters: Counters,
    /// Not in the plan any more; goes when it has handed over.
    pub leaving: bool,
    /// Adopted: a check that has not reported yet counts as up, as it was before the restart.
    pub presume_up: bool,
    /// Why it cannot take part, for status; empty when it can.
    pub faults: Vec<Fault>,
    /// Addresses of an earlier run whose lease is valid, until the first look at the faults.
    pub adoptable: bool,
    pub healed: u64,
    pub reported: Reported,
    /// The last datagram that was discarded while this instance took part.
    pub discarded: Option<Box<Discarded>>,
    /// The last accepted advert, while its addresses are not ours.
    pub differing: Option<Box<Differing>>,
    /// The master whose adverts the sockets were last told to keep.
    pub followed: Option<IpAddr>,
    /// Of this drain.
    pub actions: Vec<RouterAction>,
    /// On the list of the next drain, and its place among the timers: [`crate::instances`] keeps
    /// both.
    pub touched: bool,
    pub timer: Option<Time>,
    /// How far it had come when [`crate::instances`] last counted it.
    pub counted: Departure,
    /// Addresses that are to be announced once they can be.
    pub announce: PendingAnnouncement,
    /// Waiting for the kernel to be as they will expect it.
    hooks: Vec<HookRun>,
    facts: Facts,
    /// The facts of a router that holds its addresses.
    level: Arc<[Fact]>,
    /// Since it took over from a predecessor that still answers.
    handover: Option<Box<HandoverWindow>>,
    /// How it stands where what it serves decides.
    pub fitness: Option<Box<Footing>>,
}

/// Two hosts have the addresses, and each its connections.
#[derive(Debug)]
struct HandoverWindow {
    until: Time,
    /// The whole level meanwhile.
    level: Arc<[Fact]>,
}

impl InstanceState {
    pub fn new(id: InstanceId, instance: Arc<plan::Instance>, now: Time) -> Self {
        let router = Router::new(Arc::clone(&instance.router), now);
        Self {
            id,
            level: level(&instance, &router),
            fitness: instance.policy().map(|_| Box::default()),
            router,
            instance,
            counters: Counters::default(),
            leaving: false,
            presume_up: false,
            faults: Vec::new(),
            adoptable: false,
            healed: 0,
            reported: Reported::default(),
            discarded: None,
            differing: None,
            followed: None,
            actions: Vec::new(),
            touched: false,
            timer: None,
            counted: Departure::Present,
            announce: PendingAnnouncement::default(),
            hooks: Vec::new(),
            facts: Facts::default(),
            handover: None,
        }
    }

    pub fn name(&self) -> &Name {
        &self.instance.name
    }

    /// The link its adverts leave by.
    pub fn speaks_on(&self) -> &Name {
        &self.instance.interface
    }

    /// Takes adverts of this sender: anybody's by multicast, its peers' by unicast.
    pub fn hears(&self, source: IpAddr) -> bool {
        match &self.router.settings().transport {
            Transport::Multicast { .. } => true,
            Transport::Unicast { peers, .. } => peers.iter().any(|peer| peer.address == source),
        }
    }

    /// Feeds the router; what it does is drained later.
    pub fn feed(&mut self, now: Time, event: RouterEvent<'_>) {
        self.router.handle(now, event, &mut self.actions);
    }

    /// One datagram for this instance; see [`Router::receive`].
    pub fn receive(
        &mut self,
        now: Time,
        datagram: &locum_vrrp::Datagram<'_>,
    ) -> Result<Accepted, Discard> {
        self.router.receive(now, datagram, &mut self.actions)
    }

    pub fn deadline(&self) -> Option<Time> {
        let facts = self.facts.deadline(self.asks_again());
        let announce = self.announce.deadline(self.router.ready_limit());
        let handover = self.handover.as_ref().map(|window| window.until);
        let fitness = self.fitness.as_ref().and_then(|fitness| fitness.again);
        [self.router.deadline(), facts, announce, handover, fitness].into_iter().flatten().min()
    }

    /// As who it is judged: what the addresses of an earlier run stand for is here too.
    pub fn incumbency(&self) -> Incumbency {
        match self.router.role() {
            Role::Master | Role::Resigning => Incumbency::Incumbent,
            _ if self.adoptable => Incumbency::Incumbent,
            // Its first advert as master says what it competes with then.
            _ if self.router.candidate().is_some() => Incumbency::Incumbent,
            Role::Initialize | Role::Backup | Role::Fault => Incumbency::Standby,
        }
    }

    pub fn perspective(&self, now: Time) -> Perspective {
        Perspective {
            presume_up: self.presume_up || self.adoptable,
            incumbency: self.incumbency(),
            now,
        }
    }

    /// Its role is another than what its fitness was judged for, or the time for that has come.
    pub fn is_fitness_due(&self, now: Time) -> bool {
        self.fitness.as_ref().is_some_and(|footing| footing.is_due(&self.router, now))
    }

    /// The router learns what this node can serve: how it releases depends on it.
    pub fn learn_fitness(&mut self, loss: &Loss, now: Time) {
        let ranking = self.instance.policy().map(|policy| policy.ranking);
        let fitness = ranking.map_or(Fitness::Fit, |ranking| loss.fitness(&ranking));
        if self.router.fitness() != fitness {
            self.feed(now, RouterEvent::Fitness(fitness));
        }
    }

    /// It offers its mastership when it is time to, and takes it back.
    pub fn follow_fitness(&mut self, loss: Loss, judged: Standpoint, now: Time) {
        let Some(footing) = &mut self.fitness else { return };
        match footing.follow(loss, judged, &self.router, now) {
            None => {}
            Some(OfferStep::Offer) => {
                let reasons = footing.loss.sentence();
                self.feed(now, RouterEvent::Offer { reasons });
            }
            Some(OfferStep::TakeBack) => self.feed(now, RouterEvent::TakeBack),
        }
    }

    /// How far it has come on its way out.
    pub fn departure(&self) -> Departure {
        match (self.router.is_finished(), self.facts.is_settled()) {
            (false, _) => Departure::Present,
            (true, false) => Departure::Finished,
            (true, true) => Departure::Gone,
        }
    }

    /// A router that gives up does not add to what its successor is about to hold.
    fn asks_again(&self) -> bool {
        self.router.role() == Role::Master
    }

    /// An address of an earlier run with this much of its lease left was renewed so recently that no
    /// peer can have taken over since (V-242). What is longer ago than that, or unknown, is lost.
    pub fn is_adoptable(&self, valid_seconds: Option<u32>) -> bool {
        let takeover = self.router.shortest_takeover();
        let granted = lease_seconds(self.instance.lease, takeover);
        let (Some(granted), Some(left)) = (granted, valid_seconds) else { return false };
        // The kernel counts whole seconds: the renewal may be up to one longer ago.
        let oldest = u64::from(granted.saturating_sub(left)) + 1;
        left > 0 && Duration::from_secs(oldest) <= takeover
    }

    /// Found in the kernel under our mark: it must go, unless the next level wants it.
    pub fn inherit(&mut self, found: Fact) {
        self.facts.inherit([found]);
    }

    /// The facts of its router when that holds its addresses.
    pub fn level(&self) -> &[Fact] {
        &self.level
    }

    /// What the kernel was told and has answered.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// The addresses that are in place.
    pub fn addresses_in_place(&self) -> impl Iterator<Item = &HeldAddress> {
        self.facts.in_place().filter_map(Fact::address)
    }

    /// A link has changed: what the kernel refused because of it may go now.
    pub fn follow_link(&mut self, link: &str, is_another: bool, now: Time) {
        let mut facts = self.level.iter();
        let is_its_own = |fact: &Fact| &**fact.interface() == link;
        if is_another && (&*self.instance.interface == link || facts.any(is_its_own)) {
            self.facts.forget_refusal();
        }
        self.facts.retry_soon(link, now);
    }

    /// A device that may hold addresses can be heard again: those of a master are announced (G-020).
    pub fn announce_on(&mut self, link: &str) {
        if self.addresses_in_place().any(|held| &*held.interface == link) {
            let repeat = announce::burst(self.router.settings());
            self.actions.push(RouterAction::Announce { repeat });
        }
    }

    /// The result of the newest level.
    pub fn applied(&mut self, result: &Result<Vec<Refusal>, String>, now: Time) -> Answered {
        let answered = self.facts.answered(result, now);
        if answered.is_extended {
            self.announce_more(now);
        }
        answered
    }

    /// V-227: addresses that were not in place are announced, twice.
    fn announce_more(&mut self, now: Time) {
        let repeat = self.router.announce_more(now);
        self.actions.push(RouterAction::Announce { repeat });
    }

    /// Someone removed a fact; `true` when it is ours to put back, at once or after the pause.
    pub fn lost(&mut self, key: &FactKey, now: Time) -> bool {
        // The router looks at its lease first: a node that slept must not put anything back.
        self.feed(now, RouterEvent::Timeout);
        if !self.facts.wants(key) || !self.router.holds_addresses() {
            return false;
        }
        self.facts.heal(key, now);
        self.healed += 1;
        true
    }

    /// The instance of a new plan with the same [`RouterKey`], whose trackers add up to `adjustment`.
    /// `true` when anything differs.
    pub fn replace(&mut self, instance: &Arc<plan::Instance>, adjustment: i32, now: Time) -> bool {
        if self.instance == *instance {
            return false;
        }
        let old = std::mem::replace(&mut self.instance, Arc::clone(instance));
        if old.router != instance.router {
            let settings = Arc::clone(&instance.router);
            let priority = settings.priority.adjusted(adjustment);
            self.feed(now, RouterEvent::Settings(settings, priority));
        }
        self.level = level(instance, &self.router);
        self.handover = None;
        if old.policy() != instance.policy() {
            self.fitness = instance.policy().map(|_| Box::default());
        }
        true
    }

    /// First of a drain: the adverts, each built now.
    pub fn drain_adverts(&mut self, now: Time, link: InstanceLink, out: &mut Vec<Output>) {
        let adverts: Vec<Priority> = self
            .actions
            .iter()
            .filter_map(|action| match action {
                RouterAction::Advertise { priority } => Some(*priority),
                RouterAction::Propose { .. }
                | RouterAction::Changed { .. }
                | RouterAction::Announce { .. }
                | RouterAction::ConflictBegan { .. }
                | RouterAction::ConflictEnded { .. }
                | RouterAction::ClaimChanged { .. }
                | RouterAction::Late { .. } => None,
            })
            .collect();
        if adverts.iter().any(|priority| *priority != Priority::RELEASE) {
            self.facts.renew_with_advert(now);
        }
        for priority in adverts {
            self.advertise(priority, link, out);
        }
    }

    fn advertise(&mut self, priority: Priority, link: InstanceLink, out: &mut Vec<Output>) {
        let Some(source) = link.source else {
            self.counters.tx_no_source += 1;
            return;
        };
        let settings = self.router.settings();
        let send = |destination: IpAddr, ttl: u8| {
            let form = self.router.form();
            Output::Advertise(OutgoingAdvert {
                instance: self.id,
                interface: self.speaks_on().clone(),
                interface_index: link.index,
                source,
                destination,
                ttl,
                message: encode_advert(settings, priority, source, destination, form),
            })
        };
        match &settings.transport {
            // 255: receivers discard anything that may have been forwarded. RFC 9568 §5.1.1.3.
            Transport::Multicast { group } => out.push(send(*group, 255)),
            Transport::Unicast { peers, ttl, .. } => {
                out.extend(peers.iter().map(|peer| send(peer.address, *ttl)));
            }
        }
        self.counters.advertisement_sent += 1;
        if priority == Priority::RELEASE {
            self.counters.priority_zero_pkts_sent += 1;
        }
    }

    /// Then the level for the kernel, where there is something to say. `claimed` are the facts that
    /// other instances hold and this one must not remove. Returns what it takes from others.
    pub fn drain_facts(
        &mut self,
        now: Time,
        seq: &mut Seq,
        claimed: &dyn Fn(&Fact) -> bool,
        out: &mut Vec<Output>,
    ) -> Vec<Fact> {
        self.follow_handover(now);
        let nothing = Arc::default();
        let hold = match &self.handover {
            _ if !self.router.holds_addresses() => &nothing,
            Some(window) => &window.level,
            None => &self.level,
        };
        let asks_again = self.router.role() == Role::Master;
        let wanted = Wanted { hold, asks_again, claimed };
        let Some(level) = self.facts.next(now, wanted, *seq + 1) else { return Vec::new() };
        *seq += 1;
        let Level { hold, drop, heals, extends, expels } = level;
        if heals {
            self.actions.push(RouterAction::Announce { repeat: 1 });
        }
        if extends {
            self.announce_more(now);
        }
        out.push(Output::Apply { seq: *seq, owner: Owner::Instance(self.id), hold, drop });
        expels
    }

    /// A predecessor that still answers keeps the connections that it has, until it lets go.
    fn follow_handover(&mut self, now: Time) {
        self.handover.take_if(|window| window.until <= now || !self.router.holds_addresses());
        let predecessor = self.actions.iter().find_map(|action| match action {
            RouterAction::Changed { to: Role::Master, cause, .. } => cause.predecessor(),
            _ => None,
        });
        let Some(host) = predecessor.filter(|_| self.instance.keep_connections) else { return };
        if !self.is_neighbour(host) {
            return;
        }
        let until = now + self.router.predecessor_answers().saturating_sub(HANDOVER_RESERVE);
        let handover = |fact: &Fact| {
            let HeldAddress { interface, address, .. } = fact.address()?;
            let (interface, address) = (interface.clone(), address.address);
            // It is known on the link of its adverts, and by an address of one family.
            let is_known =
                address.is_ipv4() == host.is_ipv4() && interface == self.instance.interface;
            is_known.then(|| Fact::Handover(Box::new(Handover { interface, address, host, until })))
        };
        let handovers: Vec<_> = self.level.iter().filter_map(handover).collect();
        let level = handovers.into_iter().chain(self.level.iter().cloned()).collect();
        self.handover = Some(Box::new(HandoverWindow { until, level }));
    }

    /// Nothing that it sends has passed a router on its way.
    fn is_neighbour(&self, peer: IpAddr) -> bool {
        match &self.router.settings().transport {
            Transport::Multicast { .. } => true,
            Transport::Unicast { peers, .. } => {
                let one_hop = Some((u8::MAX, u8::MAX));
                peers.iter().any(|known| known.address == peer && known.ttl == one_hop)
            }
        }
    }

    /// Virtual addresses that are on these links without our mark, while this node is not to hold
    /// them: whoever put them there answers for an address whose master is somewhere else.
    pub fn observe_unwanted(&mut self, links: &HashMap<Name, LinkState>, now: Time) {
        // An owner's addresses are the host's own.
        let is_free = self.router.holds_addresses() || self.router.settings().priority.is_owner();
        let level = if is_free { &[][..] } else { &self.level[..] };
        let found = level.iter().filter_map(|fact| {
            let held = fact.address()?;
            let all = &links.get(&held.interface)?.addresses;
            let address = &held.address.address;
            // Without another address of its family the link would be cut off.
            let is_other = |one: &&IpAddr| *one != address && one.is_ipv4() == address.is_ipv4();
            all.contains(address).then(|| (fact.clone(), all.iter().any(|one| is_other(&one))))
        });
        self.facts.observe_unwanted(found.collect(), now);
    }

    /// What must hold of it between two inputs. `Err` is what does not.
    pub fn check_invariants(&self) -> Result<(), String> {
        let role = self.router.role();
        let wanted = match &self.handover {
            _ if !self.router.holds_addresses() => &[],
            Some(window) => &*window.level,
            None => &*self.level,
        };
        let is_up = self.faults.is_empty();
        let master = self.router.master().filter(|_| !self.router.is_finished());
        let candidate = self.router.candidate().map(|(_, until)| until);
        let decides = |until: Time| self.deadline().is_some_and(|at| at <= until);
        let promises = [
            (self.actions.is_empty(), "its actions are not carried out"),
            (self.facts.held() == wanted, "the kernel was told another level than its own"),
            (
                !self.announce.is_some() || role == Role::Master,
                "a burst waits, and it is no master",
            ),
            (is_up || role != Role::Master && candidate.is_none(), "it is in fault and master"),
            (candidate.is_none_or(decides), "it is a candidate without a deadline (V-273)"),
            (self.followed == master.map(|master| master.address), "it follows another master"),
            (
                self.hooks.is_empty() || self.facts.is_outstanding(),
                "its hooks wait for an answer that nobody owes",
            ),
        ];
        promises::kept(&promises).and_then(|()| self.facts.check_invariants())
    }

    /// The hooks to run now: a master hook finds the addresses in place, but for those it is told
    /// of, and a backup hook finds them gone. They wait for the kernel's answer, whatever it is, and
    /// keep their order.
    pub fn take_ready_hooks(&mut self, fresh: Vec<HookRun>) -> Vec<HookRun> {
        self.hooks.extend(fresh);
        if self.hooks.is_empty() || self.facts.is_outstanding() {
            return Vec::new();
        }
        let mut ready = std::mem::take(&mut self.hooks);
        let refused = self.facts.refused().filter_map(|one| one.fact.address());
        let refused: Vec<IpAddr> = refused.map(|held| held.address.address).collect();
        hooks::add_refused(&mut ready, &refused);
        ready
    }

    /// How long its addresses stay when nobody renews them; `None` for ever.
    pub fn lease(&self) -> Option<Duration> {
        let seconds = lease_seconds(self.instance.lease, self.router.shortest_takeover())?;
        Some(Duration::from_secs(u64::from(seconds)) + LATEST_EXPIRY)
    }
}

/// The facts of a router that holds its addresses, in the order of its plan.
fn level(instance: &plan::Instance, router: &Router) -> Arc<[Fact]> {
    let lease_seconds = lease_seconds(instance.lease, router.shortest_takeover());
    let held = |address: &plan::VirtualAddress| HeldAddress {
        interface: address.device().unwrap_or(&instance.interface).clone(),
        address: address.clone(),
        lease_seconds,
    };
    instance.addresses.iter().map(held).map(Fact::Address).collect()
}

/// What an instance must know of the link it speaks on.
#[derive(Clone, Copy, Debug)]
pub struct InstanceLink {
    pub index: u32,
    pub source: Option<IpAddr>,
}

/// `Auto` is the shortest time in which a peer takes over, rounded down to the kernel's whole
/// seconds, at least 1.
fn lease_seconds(lease: Lease, shortest_takeover: Duration) -> Option<u32> {
    let whole = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX).max(1);
    match lease {
        Lease::Auto => Some(whole(shortest_takeover)),
        Lease::Fixed(span) => Some(whole(span)),
        Lease::Off => None,
    }
}
