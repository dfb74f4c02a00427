//! One node's Linux, as far as virtual addresses go: what is configured, with which lease.
//!
//! It outlives the process that programmed it: a crash leaves it as it is, and only the leases
//! run on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use locum_engine::{Fact, HeldAddress, Inherited, Whose};
use locum_plan::Name;
use locum_vrrp::Time;

use crate::random::Random;

/// Linux looks at lifetimes at most once a second, so an address may outlive its lease by that.
pub const SWEEP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lifetime {
    prefix: u8,
    /// The lease by the book; `None` is for ever.
    expires: Option<Time>,
    /// When the kernel will really remove it.
    swept: Option<Time>,
    /// The lease last granted, in seconds, and when.
    granted: Option<u32>,
    renewed: Time,
}

/// An address as a process that starts may judge it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Seconds; `None` is for ever.
    pub granted: Option<u32>,
    pub renewed: Time,
}

#[derive(Default, Debug)]
pub struct Kernel {
    held: BTreeMap<(Name, IpAddr), Lifetime>,
    /// What someone else took away and nobody has put back: the engine learns of it too late to
    /// call back an announcement on its way.
    taken: BTreeSet<IpAddr>,
    /// What ran out while the process could not hear of it, and nobody has put back.
    lapsed: BTreeSet<IpAddr>,
    /// What other programs have added: without our mark, for ever. With the time since when
    /// nothing excuses that it is there.
    foreign: BTreeMap<(Name, IpAddr), Time>,
}

impl Kernel {
    pub fn holds(&self, address: IpAddr) -> bool {
        self.held.keys().any(|(_, held)| *held == address)
    }

    /// Has an address that the kernel will drop by itself.
    pub fn leases(&self, address: IpAddr) -> bool {
        self.held.iter().any(|((_, held), life)| *held == address && life.expires.is_some())
    }

    /// As [`Self::holds`], on this interface and no other.
    pub fn holds_on(&self, interface: &str, address: IpAddr) -> bool {
        self.held.keys().any(|(on, held)| *held == address && &**on == interface)
    }

    /// The lease of an address on whatever interface.
    pub fn lease(&self, address: IpAddr) -> Option<Lease> {
        let mut all = self.held.iter();
        let (_, life) = all.find(|((_, held), _)| *held == address)?;
        Some(Lease { granted: life.granted, renewed: life.renewed })
    }

    pub fn addresses(&self) -> impl Iterator<Item = (&Name, IpAddr)> {
        self.held.keys().map(|(interface, address)| (interface, *address))
    }

    /// It is part of what is simulated. Nothing here has connections to hand over.
    pub fn models(fact: &Fact) -> bool {
        match fact {
            Fact::Address(_) => true,
            Fact::Handover(_) => false,
        }
    }

    /// It is there from now on. Returns when to look at it again, and whether the link differs for
    /// others now.
    pub fn hold(&mut self, now: Time, fact: &Fact, random: &mut Random) -> (Option<Time>, bool) {
        match fact {
            Fact::Address(held) => {
                let was_foreign = self.is_foreign(&held.interface, held.address.address);
                (self.add(now, held, random), was_foreign)
            }
            Fact::Handover(_) => (None, false),
        }
    }

    /// It is not there any more. Returns whether the link differs for others now.
    pub fn withdraw(&mut self, fact: &Fact, whose: Whose) -> bool {
        match fact {
            Fact::Address(gone) => {
                self.remove(&gone.interface, gone.address.address);
                let expels = whose == Whose::Anyones;
                expels && self.expel(&gone.interface, gone.address.address)
            }
            Fact::Handover(_) => false,
        }
    }

    /// Adds it, or renews its lease. Returns when to look at it again.
    fn add(&mut self, now: Time, held: &HeldAddress, random: &mut Random) -> Option<Time> {
        let expires = held.lease_seconds.map(|s| now + Duration::from_secs(u64::from(s)));
        let swept = expires.map(|at| at + random.span(SWEEP));
        let key = (held.interface.clone(), held.address.address);
        let prefix = held.address.prefix;
        self.taken.remove(&held.address.address);
        self.lapsed.remove(&held.address.address);
        // It is ours from now on.
        self.foreign.remove(&key);
        let granted = held.lease_seconds;
        self.held.insert(key, Lifetime { prefix, expires, swept, granted, renewed: now });
        swept
    }

    /// True when it was there.
    pub fn remove(&mut self, interface: &str, address: IpAddr) -> bool {
        let key = (Name::from(interface), address);
        self.held.remove(&key).is_some()
    }

    /// Another program adds an address; `false` when it is there already.
    pub fn intrude(&mut self, now: Time, interface: &Name, address: IpAddr) -> bool {
        let key = (interface.clone(), address);
        let is_free = !self.held.contains_key(&key) && !self.foreign.contains_key(&key);
        is_free && self.foreign.insert(key, now).is_none()
    }

    /// Removes what another program has added; `true` when it was there.
    fn expel(&mut self, interface: &str, address: IpAddr) -> bool {
        let key = (Name::from(interface), address);
        self.foreign.remove(&key).is_some()
    }

    fn is_foreign(&self, interface: &Name, address: IpAddr) -> bool {
        self.foreign.contains_key(&(interface.clone(), address))
    }

    /// What other programs have added on this interface.
    pub fn foreign_on(&self, interface: &str) -> impl Iterator<Item = IpAddr> {
        let on_it = self.foreign.keys().filter(move |(on, _)| &**on == interface);
        on_it.map(|(_, address)| *address)
    }

    /// All that other programs have added, with the time since when nothing excuses it.
    pub fn foreign(&self) -> impl Iterator<Item = (&Name, IpAddr, Time)> {
        self.foreign.iter().map(|((interface, address), since)| (interface, *address, *since))
    }

    /// As [`Self::foreign`], to change the time.
    pub fn foreign_mut(&mut self) -> impl Iterator<Item = (&(Name, IpAddr), &mut Time)> {
        self.foreign.iter_mut()
    }

    /// As [`Self::remove`], by a stranger.
    pub fn take(&mut self, interface: &str, address: IpAddr) {
        if self.remove(interface, address) {
            self.taken.insert(address);
        }
    }

    pub fn note_taken(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    pub fn note_lapsed(&mut self, address: IpAddr) {
        self.lapsed.insert(address);
    }

    /// It was there, and the engine cannot know yet that it is not.
    pub fn was_lost(&self, address: IpAddr) -> bool {
        self.was_taken(address) || self.lapsed.contains(&address)
    }

    pub fn was_taken(&self, address: IpAddr) -> bool {
        self.taken.contains(&address)
    }

    /// Removes what has outlived its lease and returns it.
    pub fn sweep(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let gone: Vec<_> = self
            .held
            .iter()
            .filter(|(_, life)| life.swept.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.held.remove(key);
        }
        gone
    }

    /// Everything on a link that ceased to exist.
    pub fn clear(&mut self, interface: &str) -> Vec<(Name, IpAddr)> {
        let on_it = self.held.keys().filter(|(on, _)| &**on == interface);
        let gone: Vec<_> = on_it.cloned().collect();
        self.held.retain(|(on, _), _| &**on != interface);
        self.foreign.retain(|(on, _), _| &**on != interface);
        self.taken.extend(gone.iter().map(|(_, address)| *address));
        gone
    }

    /// What a process that starts now finds.
    pub fn inherited(&self, now: Time) -> Vec<Inherited> {
        let found = self.held.iter().map(|((interface, address), life)| {
            let valid_seconds = life.expires.map(|at| whole_seconds(at.since(now)));
            Inherited::address(interface.clone(), *address, life.prefix, valid_seconds)
        });
        found.collect()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// As the kernel reports them: rounded up.
fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}
