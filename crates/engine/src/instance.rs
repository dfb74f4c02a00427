//! One instance: its router, the addresses it wants in the kernel, and what it has to say.
//!
//! A drain turns what the router did into outputs in a fixed order: adverts, then addresses, then
//! (after the services of the node) announcements, then notifications and hooks. V-055, I-035.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_config::plan::{self, Lease, Name};
use locum_vrrp::counters::{Counters, Discard};
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{Action, Event as RouterEvent, Family, Priority, Router, Time, Transport, Vrid};

use crate::output::{Datagram, HeldAddress, HookRun, Output, Seq};

/// Least time between two repairs of one instance: whoever removes our addresses in a loop shall
/// not keep this node busy.
const HEAL_PAUSE: Duration = Duration::from_millis(100);

/// A lease is renewed with the adverts, so that it and the peers' patience run out together, but
/// not more often than this: a renewal costs a netlink request and an event per address.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(500);

/// The kernel looks for leases that have run out once a second.
const LATEST_EXPIRY: Duration = Duration::from_secs(1);

/// How long an instance stays out after the kernel refused its addresses: doubled with every
/// refusal in a row, so that a lasting reason does not make a pair flap.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
const MOST_DOUBLINGS: u32 = 2;

/// Pause before a withdrawal that failed is tried again.
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);

/// Failed withdrawals after which a stop does not wait any longer: the lease has to see to it.
const PATIENCE: u32 = 3;

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
    pub faults: Vec<String>,
    /// Addresses of an earlier run whose lease is valid, until the first look at the faults.
    pub adoptable: bool,
    pub healed: u64,
    /// Reasons already told since the last role change (V-124).
    pub told: HashSet<Discard>,
    /// Told that a peer has our priority (V-163).
    pub told_tie: bool,
    /// Of this drain.
    pub actions: Vec<Action>,
    pub touched: bool,
    /// Waiting for the kernel to be as they will expect it.
    hooks: Vec<HookRun>,
    kernel: KernelState,
}

/// What the applier was told, and when to tell it again.
#[derive(Debug, Default)]
struct KernelState {
    /// The level last sent.
    held: Vec<HeldAddress>,
    /// To be removed with the next level.
    leftovers: Vec<HeldAddress>,
    /// Removals the kernel has not confirmed; each level asks for them again.
    unconfirmed: Vec<HeldAddress>,
    failed_withdrawals: u32,
    retry_at: Option<Time>,
    /// Refusals in a row.
    refusals: u32,
    /// Number of the last level, and whether its result is still to come.
    seq: Seq,
    outstanding: bool,
    /// From when on an advert takes a renewal with it, and when one is due without.
    renewable_at: Option<Time>,
    renew_at: Option<Time>,
    heal_at: Option<Time>,
    healed_at: Option<Time>,
    refused: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    error: String,
    until: Time,
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

    pub fn deadline(&self) -> Option<Time> {
        let refused = self.kernel.refused.as_ref().map(|refusal| refusal.until);
        let kernel = &self.kernel;
        [self.router.deadline(), kernel.renew_at, kernel.heal_at, kernel.retry_at, refused]
            .into_iter()
            .flatten()
            .min()
    }

    /// Handed over, and the kernel has confirmed it or will not.
    pub fn is_gone(&self) -> bool {
        let kernel = &self.kernel;
        let is_clean = kernel.leftovers.is_empty() && kernel.unconfirmed.is_empty();
        let is_hopeless = kernel.failed_withdrawals >= PATIENCE;
        self.router.is_finished() && !kernel.outstanding && (is_clean || is_hopeless)
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
        self.kernel.leftovers.extend(leftovers);
        self.touched = true;
    }

    /// The addresses the kernel was told to hold for this instance.
    pub fn held(&self) -> &[HeldAddress] {
        &self.kernel.held
    }

    /// Why the kernel refused, while the pause lasts.
    pub fn refusal(&mut self, now: Time) -> Option<&str> {
        self.kernel.refused.take_if(|refusal| refusal.until <= now);
        self.kernel.refused.as_ref().map(|refusal| refusal.error.as_str())
    }

    pub fn is_refused(&self) -> bool {
        self.kernel.refused.is_some()
    }

    /// The reason for a refusal may be gone: the next election finds out.
    pub fn forget_refusal(&mut self) {
        self.kernel.refused = None;
        self.kernel.refusals = 0;
    }

    /// The result of the level with this number; older ones are stale. `true` for a failure that
    /// is news.
    pub fn applied(&mut self, seq: Seq, result: Result<(), String>, now: Time) -> bool {
        if seq != self.kernel.seq {
            return false;
        }
        let kernel = &mut self.kernel;
        kernel.outstanding = false;
        let Err(error) = result else {
            kernel.unconfirmed.clear();
            kernel.failed_withdrawals = 0;
            kernel.retry_at = None;
            if !kernel.held.is_empty() {
                kernel.refusals = 0;
            }
            return false;
        };
        let mut is_new = false;
        if !kernel.unconfirmed.is_empty() {
            is_new = kernel.failed_withdrawals == 0;
            kernel.failed_withdrawals += 1;
            kernel.retry_at = Some(now + WITHDRAWAL_PAUSE);
        }
        if self.router.holds_addresses() {
            is_new |= kernel.refused.is_none();
            let pause = REFUSAL_PAUSE * (1 << kernel.refusals.min(MOST_DOUBLINGS));
            kernel.refusals += 1;
            kernel.refused = Some(Refusal { error, until: now + pause });
        }
        is_new
    }

    /// Someone removed `address`; `true` when it is ours to put back, at once or after the pause.
    pub fn lost(&mut self, address: IpAddr, now: Time) -> bool {
        // The router looks at its lease first: a node that slept must not put anything back.
        self.feed(now, RouterEvent::Timeout);
        let is_ours = self.kernel.held.iter().any(|held| held.address.address == address);
        if !is_ours || !self.router.holds_addresses() {
            return false;
        }
        let earliest = self.kernel.healed_at.map_or(now, |at| at + HEAL_PAUSE);
        self.kernel.heal_at = Some(earliest.max(now));
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
                Action::Changed { .. }
                | Action::Announce { .. }
                | Action::ConflictBegan { .. }
                | Action::ConflictEnded { .. }
                | Action::ClaimChanged { .. }
                | Action::Late { .. } => None,
            })
            .collect();
        let renewable = self.kernel.renewable_at.is_some_and(|at| at <= now);
        if renewable && adverts.iter().any(|priority| *priority != Priority::RELEASE) {
            self.kernel.renew_at = Some(now);
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
        let kernel = &mut self.kernel;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let heals = due(kernel.heal_at);
        let retries = due(kernel.retry_at);
        let changed = wanted != kernel.held;
        let is_due = heals || retries || due(kernel.renew_at);
        if !changed && !is_due && kernel.leftovers.is_empty() {
            return;
        }
        if retries {
            kernel.retry_at = None;
        }
        let same = |a: &HeldAddress, b: &HeldAddress| {
            a.interface == b.interface && a.address.address == b.address.address
        };
        let former = std::mem::replace(&mut kernel.held, wanted);
        let is_new = |new: &HeldAddress| !former.iter().any(|old| same(old, new));
        let extends = !former.is_empty() && kernel.held.iter().any(is_new);
        let mut drop: Vec<HeldAddress> = former;
        drop.append(&mut kernel.leftovers);
        for unconfirmed in kernel.unconfirmed.drain(..) {
            if !drop.iter().any(|other| same(other, &unconfirmed)) {
                drop.push(unconfirmed);
            }
        }
        drop.retain(|old| !kernel.held.iter().any(|new| same(old, new)) && !claimed(old));
        kernel.unconfirmed.clone_from(&drop);
        *seq += 1;
        kernel.seq = *seq;
        kernel.outstanding = true;
        if heals {
            kernel.heal_at = None;
            kernel.healed_at = Some(now);
            self.actions.push(Action::Announce { repeat: 1 });
        }
        if extends {
            // V-227.
            let repeat = self.router.announce_more(now);
            self.actions.push(Action::Announce { repeat });
        }
        let lease = kernel.held.iter().filter_map(|held| held.lease_seconds).min();
        kernel.renewable_at = lease.map(|_| now + SHORTEST_RENEWAL);
        kernel.renew_at = lease.map(|seconds| now + latest_renewal(seconds));
        if kernel.held.is_empty() {
            kernel.heal_at = None;
        }
        let hold = kernel.held.clone();
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

    /// The hooks to run now: a master hook finds the address in place, a backup hook finds it gone.
    /// They wait for the kernel's answer, whatever it is, and keep their order.
    pub fn ripe_hooks(&mut self, fresh: Vec<HookRun>) -> Vec<HookRun> {
        self.hooks.extend(fresh);
        if self.kernel.outstanding { Vec::new() } else { std::mem::take(&mut self.hooks) }
    }

    /// How long its addresses stay when nobody renews them; `None` for ever.
    pub fn lease(&self) -> Option<Duration> {
        let seconds = lease_seconds(self.instance.lease, self.router.shortest_takeover())?;
        Some(Duration::from_secs(u64::from(seconds)) + LATEST_EXPIRY)
    }

    /// Number of the level that announcements must wait for.
    pub fn seq(&self) -> Seq {
        self.kernel.seq
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

/// Half of it, for a resigning master that sends no adverts.
fn latest_renewal(lease_seconds: u32) -> Duration {
    (Duration::from_secs(u64::from(lease_seconds)) / 2).max(SHORTEST_RENEWAL)
}
