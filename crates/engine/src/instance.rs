//! One instance: its router, the addresses it wants in the kernel, and what it has to say.
//!
//! A drain turns what the router did into outputs in a fixed order: adverts, then addresses, then
//! (after the services of the node) announcements, then notifications and hooks. V-055, I-035.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_plan as plan;
use locum_plan::{Lease, Name};
use locum_vrrp::announce;
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{
    Accepted, Action, Counters, Discard, Event as RouterEvent, Family, Priority, Role, Router,
    Time, Transport, Vrid,
};

use crate::fault::Fault;
use crate::hooks;
use crate::input::Refusal;
use crate::kernel_state::{KernelState, Level, News, Wish};
use crate::output::{Datagram, HeldAddress, HookRun, Output, Seq};

/// The kernel looks for leases that have run out once a second.
const LATEST_EXPIRY: Duration = Duration::from_secs(1);

/// What tells instances apart on the wire (V-003).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub interface: Name,
    pub family: Family,
    pub vrid: Vrid,
}

impl Key {
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

#[derive(Debug)]
pub struct InstanceState {
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
    /// Reasons already told since the last role change (V-124).
    pub told: HashSet<Discard>,
    /// Told that a peer has our priority (V-163).
    pub told_tie: bool,
    /// Told that its checksum is of the other form (V-042).
    pub told_form: Option<IpAddr>,
    /// The last datagram that was discarded while this instance took part.
    pub discarded: Option<Discarded>,
    /// The master whose adverts the sockets were last told to keep.
    pub followed: Option<IpAddr>,
    /// Of this drain.
    pub actions: Vec<Action>,
    pub touched: bool,
    /// Waiting for the kernel to be as they will expect it.
    hooks: Vec<HookRun>,
    kernel: KernelState,
}

impl InstanceState {
    pub fn new(instance: Arc<plan::Instance>, now: Time) -> Self {
        Self {
            router: Router::new(instance.router.clone(), now),
            instance,
            counters: Counters::default(),
            leaving: false,
            presume_up: false,
            faults: Vec::new(),
            adoptable: false,
            healed: 0,
            told: HashSet::new(),
            told_tie: false,
            told_form: None,
            discarded: None,
            followed: None,
            actions: Vec::new(),
            touched: true,
            hooks: Vec::new(),
            kernel: KernelState::default(),
        }
    }

    pub fn name(&self) -> &Name {
        &self.instance.name
    }

    /// Feeds the router; what it does is drained later.
    pub fn feed(&mut self, now: Time, event: RouterEvent<'_>) {
        self.touched = true;
        self.router.handle(now, event, &mut self.actions);
    }

    /// One datagram for this instance; see [`Router::receive`].
    pub fn receive(
        &mut self,
        now: Time,
        datagram: &locum_vrrp::Datagram<'_>,
    ) -> Result<Accepted, Discard> {
        let accepted = self.router.receive(now, datagram, &mut self.actions);
        self.touched |= accepted.is_ok();
        accepted
    }

    pub fn deadline(&self) -> Option<Time> {
        let kernel = self.kernel.deadline(self.asks_again());
        [self.router.deadline(), kernel].into_iter().flatten().min()
    }

    /// Handed over, and the kernel has confirmed it or will not.
    pub fn is_gone(&self) -> bool {
        self.router.is_finished() && self.kernel.is_settled()
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

    /// Addresses found in the kernel that must go, unless the next level wants them.
    pub fn add_leftovers(&mut self, leftovers: impl IntoIterator<Item = HeldAddress>) {
        self.kernel.add_leftovers(leftovers);
        self.touched = true;
    }

    /// What the kernel was told and has answered.
    pub fn kernel(&self) -> &KernelState {
        &self.kernel
    }

    /// Why the kernel refused all addresses, while the pause lasts.
    pub fn refusal(&mut self, now: Time) -> Option<&str> {
        self.kernel.refusal(now)
    }

    /// A link has changed: what the kernel refused because of it may go now.
    pub fn follow_link(&mut self, link: &str, is_another: bool, now: Time) {
        let mut devices = self.instance.addresses.iter().filter_map(|a| a.device.as_deref());
        if is_another && (&*self.instance.interface == link || devices.any(|on| on == link)) {
            self.kernel.forget_refusal();
        }
        if !self.kernel.is_complete() {
            self.kernel.hasten(link, now);
            self.touched = true;
        }
    }

    /// A device that may hold addresses can be heard again: those of a master are announced (G-020).
    pub fn announce_on(&mut self, link: &str) {
        if self.kernel.present().any(|held| &*held.interface == link) {
            let repeat = announce::burst(self.router.settings());
            self.actions.push(Action::Announce { repeat });
            self.touched = true;
        }
    }

    /// The result of the level with this number; `None` for an older one, which is stale.
    pub fn applied(
        &mut self,
        seq: Seq,
        result: &Result<Vec<Refusal>, String>,
        now: Time,
    ) -> Option<News> {
        if seq != self.kernel.seq() {
            return None;
        }
        self.touched = true;
        let news = self.kernel.answered(result, now);
        if news.is_extended {
            self.announce_more(now);
        }
        Some(news)
    }

    /// V-227: addresses that were not in place are announced, twice.
    fn announce_more(&mut self, now: Time) {
        let repeat = self.router.announce_more(now);
        self.actions.push(Action::Announce { repeat });
    }

    /// Someone removed `address`; `true` when it is ours to put back, at once or after the pause.
    pub fn lost(&mut self, address: IpAddr, now: Time) -> bool {
        // The router looks at its lease first: a node that slept must not put anything back.
        self.feed(now, RouterEvent::Timeout);
        if !self.kernel.has(address) || !self.router.holds_addresses() {
            return false;
        }
        self.kernel.heal(now);
        self.healed += 1;
        true
    }

    /// The instance of a new plan with the same [`Key`], whose trackers add up to `adjustment`.
    /// `true` when anything differs.
    pub fn replace(&mut self, instance: &Arc<plan::Instance>, adjustment: i32, now: Time) -> bool {
        if self.instance == *instance {
            return false;
        }
        let old = std::mem::replace(&mut self.instance, Arc::clone(instance));
        if old.router != instance.router {
            let settings = instance.router.clone();
            let priority = settings.priority.adjusted(adjustment);
            self.feed(now, RouterEvent::Settings(settings, priority));
        }
        self.touched = true;
        true
    }

    /// First half of a drain: adverts, then the level for the kernel.
    /// `claimed` are the addresses that other instances hold and this one must not remove.
    pub fn drain_levels(
        &mut self,
        now: Time,
        link: Link,
        seq: &mut Seq,
        claimed: &dyn Fn(&HeldAddress) -> bool,
        out: &mut Vec<Output>,
    ) {
        let adverts: Vec<Priority> = self
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Advertise { priority } => Some(*priority),
                Action::Propose { .. }
                | Action::Changed { .. }
                | Action::Announce { .. }
                | Action::ConflictBegan { .. }
                | Action::ConflictEnded { .. }
                | Action::ClaimChanged { .. }
                | Action::Late { .. } => None,
            })
            .collect();
        if adverts.iter().any(|priority| *priority != Priority::RELEASE) {
            self.kernel.renew_with_advert(now);
        }
        for priority in adverts {
            self.advertise(priority, link, out);
        }
        self.apply(now, seq, claimed, out);
    }

    fn advertise(&mut self, priority: Priority, link: Link, out: &mut Vec<Output>) {
        let Some(source) = link.source else {
            self.counters.tx_no_source += 1;
            return;
        };
        let settings = self.router.settings();
        let send = |destination: IpAddr, ttl: u8| {
            let form = self.router.form();
            Output::Advertise(Datagram {
                instance: self.instance.name.clone(),
                interface: self.instance.interface.clone(),
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

    fn apply(
        &mut self,
        now: Time,
        seq: &mut Seq,
        claimed: &dyn Fn(&HeldAddress) -> bool,
        out: &mut Vec<Output>,
    ) {
        let wanted = if self.router.holds_addresses() { self.wanted() } else { Vec::new() };
        let wish = Wish { wanted, asks_again: self.asks_again(), claimed };
        let Some(level) = self.kernel.next(now, wish, *seq + 1) else { return };
        *seq += 1;
        let Level { hold, drop, heals, extends } = level;
        if heals {
            self.actions.push(Action::Announce { repeat: 1 });
        }
        if extends {
            self.announce_more(now);
        }
        out.push(Output::Apply { seq: *seq, instance: self.instance.name.clone(), hold, drop });
    }

    /// The level of a router that holds its addresses.
    fn wanted(&self) -> Vec<HeldAddress> {
        let lease_seconds = lease_seconds(self.instance.lease, self.router.shortest_takeover());
        let held = |address: &plan::VirtualAddress| HeldAddress {
            interface: address.device.clone().unwrap_or_else(|| self.instance.interface.clone()),
            address: address.clone(),
            lease_seconds,
        };
        self.instance.addresses.iter().map(held).collect()
    }

    /// The hooks to run now: a master hook finds the addresses in place, but for those it is told
    /// of, and a backup hook finds them gone. They wait for the kernel's answer, whatever it is, and
    /// keep their order.
    pub fn ripe_hooks(&mut self, fresh: Vec<HookRun>) -> Vec<HookRun> {
        self.hooks.extend(fresh);
        if self.kernel.is_outstanding() {
            return Vec::new();
        }
        let mut ripe = std::mem::take(&mut self.hooks);
        let missing = self.kernel.missing().map(|one| one.held.address.address);
        hooks::tell_missing(&mut ripe, &missing.collect::<Vec<_>>());
        ripe
    }

    /// How long its addresses stay when nobody renews them; `None` for ever.
    pub fn lease(&self) -> Option<Duration> {
        let seconds = lease_seconds(self.instance.lease, self.router.shortest_takeover())?;
        Some(Duration::from_secs(u64::from(seconds)) + LATEST_EXPIRY)
    }

    /// Number of the level that announcements must wait for.
    pub fn seq(&self) -> Seq {
        self.kernel.seq()
    }
}

/// What an instance must know of the link it speaks on.
#[derive(Clone, Copy, Debug)]
pub struct Link {
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
