//! The instances of a node: who they are, which have something to say, and whose time comes next.
//!
//! Whoever changes an instance takes it by [`Instances::touch`], which puts it on the list of those
//! that the drain looks at. What an event costs depends on the instances it touches, not on how
//! many there are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Index;

use locum_plan::Name;
use locum_vrrp::{Time, Vrid};

use crate::facts::{Fact, FactKey};
use crate::ids::InstanceId;
use crate::index::InstanceIndex;
use crate::instance::{Departure, InstanceState, RouterKey};
use crate::promises;
use crate::services::Holding;
use crate::table::InstanceTable;

/// Timers that one drain carries. Instances that began together stay together: what thousands of
/// them send is built and sent in parts, so that the first advert does not wait for the last, and
/// adverts of others are read in between. The rest is due at once.
const MOST_DUE: usize = 256;

#[derive(Debug, Default)]
pub struct Instances {
    /// By id. Those that are gone leave a hole.
    slots: Vec<Option<Box<InstanceState>>>,
    /// In the order of the plan, those that leave last.
    order: Vec<InstanceId>,
    /// Who has the name: one of the plan before one that leaves.
    names: InstanceTable<Name>,
    /// Not in the plan any more.
    leaving: Vec<InstanceId>,
    /// Who may hold a fact.
    facts: InstanceTable<FactKey>,
    index: InstanceIndex,
    /// Touched since the last drain.
    dirty: Vec<InstanceId>,
    timers: BTreeSet<(Time, InstanceId)>,
    /// How many have handed over, and how many of those are done with the kernel too.
    finished: usize,
    gone: usize,
}

impl Instances {
    pub fn iter(&self) -> impl Iterator<Item = &InstanceState> {
        self.order.iter().filter_map(|id| self.get(*id))
    }

    pub fn ids(&self) -> Vec<InstanceId> {
        self.order.clone()
    }

    pub fn get(&self, id: InstanceId) -> Option<&InstanceState> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    /// The instance of this name, one of the plan before one that leaves.
    pub fn named(&self, name: &str) -> Option<InstanceId> {
        self.names.get(name).next()
    }

    /// The instance a datagram from `source` is for.
    pub fn on_wire(&self, interface: &str, vrid: Vrid, source: IpAddr) -> Option<InstanceId> {
        let hears = |id| self.get(id).is_some_and(|state| state.hears(source));
        self.index.find(interface, vrid, source, hears)
    }

    /// All with this key; more than one only where unicast instances share it (V-332).
    pub fn of_key<'a>(&'a self, key: &RouterKey) -> impl Iterator<Item = InstanceId> + use<'a> {
        self.index.of_key(key)
    }

    /// To change it. The next drain looks at it.
    ///
    /// # Panics
    /// When the instance is gone, which nobody can know an id of.
    pub fn touch(&mut self, id: InstanceId) -> &mut InstanceState {
        // INVARIANT: ids leave `order` and every table before their slot is emptied.
        let state = self.slots[id.0 as usize].as_deref_mut().expect("an instance that is there");
        if !std::mem::replace(&mut state.touched, true) {
            self.dirty.push(id);
        }
        state
    }

    /// As [`Instances::touch`], with a view of the others.
    pub fn touch_among<T>(
        &mut self,
        id: InstanceId,
        change: impl FnOnce(&mut InstanceState, &Others<'_>) -> T,
    ) -> T {
        self.touch(id);
        // INVARIANT: as in `touch`, which has just looked.
        let mut state = self.slots[id.0 as usize].take().expect("an instance that is there");
        let outcome = change(&mut state, &Others(self));
        self.slots[id.0 as usize] = Some(state);
        outcome
    }

    /// Those that may hold this fact.
    pub fn of_fact<'a>(&'a self, key: &FactKey) -> impl Iterator<Item = InstanceId> + use<'a> {
        self.facts.get(key)
    }

    /// Whether the addresses of the instances of this name are here: one of the plan may wait until
    /// its namesake has left.
    pub fn holding(&self, name: &Name) -> Holding {
        let of_plan = self.named(name).and_then(|id| self.get(id));
        let leaving = self.leaving.iter().filter_map(|id| self.get(*id));
        let mut all = of_plan.into_iter().chain(leaving.filter(|state| state.name() == name));
        Holding {
            is_here: all.any(|state| state.router.holds_addresses()),
            lease: of_plan.filter(|state| !state.leaving).and_then(InstanceState::lease),
        }
    }

    /// To change what no drain need look at, as a counter.
    pub fn quietly(&mut self, id: InstanceId) -> Option<&mut InstanceState> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// A new instance, which [`Instances::set_order`] gives its place.
    pub fn insert(&mut self, build: impl FnOnce(InstanceId) -> InstanceState) -> InstanceId {
        let id = InstanceId::new(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(Some(Box::new(build(id))));
        self.touch(id);
        id
    }

    /// After a plan: these, in this order. Names and wire keys are read anew.
    pub fn set_order(&mut self, order: Vec<InstanceId>) {
        self.order = order;
        self.reindex();
    }

    /// Forgets an instance that has handed over.
    pub fn remove(&mut self, gone: &[InstanceId]) {
        for id in gone {
            let Some(state) = self.slots[id.0 as usize].take() else { continue };
            self.count(state.counted, Departure::Present);
            if let Some(timer) = state.timer {
                self.timers.remove(&(timer, *id));
            }
        }
        self.order.retain(|id| !gone.contains(id));
        self.dirty.retain(|id| !gone.contains(id));
        self.reindex();
    }

    fn reindex(&mut self) {
        let (leaving, staying): (Vec<_>, Vec<_>) = self.iter().partition(|state| state.leaving);
        let ids = leaving.iter().map(|state| state.id).collect();
        let all = || staying.iter().chain(&leaving).copied();
        let facts = |state: &InstanceState| {
            let id = state.id;
            state.level().iter().map(move |fact| (fact.key(), id)).collect::<Vec<_>>()
        };
        let names = all().map(|state| (state.name().clone(), state.id)).collect();
        let facts = all().flat_map(facts).collect();
        let index = InstanceIndex::of(all());
        (self.names, self.facts, self.leaving, self.index) = (names, facts, ids, index);
    }

    /// Those whose time has come, the longest due first, and not more than one drain should carry.
    pub fn due(&self, now: Time) -> Vec<InstanceId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.take(MOST_DUE).map(|(_, id)| *id).collect()
    }

    /// The first moment at which an instance has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Those touched since the last drain.
    pub fn touched(&self) -> &[InstanceId] {
        &self.dirty
    }

    /// Those touched since the last drain, in a fixed order. The list comes back by
    /// [`Instances::give_back`].
    pub fn take_dirty(&mut self) -> Vec<InstanceId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty
    }

    /// The room for the next list of those touched: a drain for every advert needs one.
    pub fn give_back(&mut self, mut dirty: Vec<InstanceId>) {
        if self.dirty.is_empty() && dirty.capacity() <= MOST_DUE {
            dirty.clear();
            self.dirty = dirty;
        }
    }

    /// The drain is done with it: from now on its deadline counts.
    pub fn settle(&mut self, id: InstanceId) {
        let Some(state) = self.slots[id.0 as usize].as_deref_mut() else { return };
        state.touched = false;
        let (departure, deadline) = (state.departure(), state.deadline());
        let counted = std::mem::replace(&mut state.counted, departure);
        let timer = std::mem::replace(&mut state.timer, deadline);
        self.count(counted, departure);
        if timer == deadline {
            return;
        }
        if let Some(timer) = timer {
            self.timers.remove(&(timer, id));
        }
        self.timers.extend(deadline.map(|at| (at, id)));
    }

    fn count(&mut self, from: Departure, to: Departure) {
        let step = |count: &mut usize, least: Departure| {
            *count = *count + usize::from(to >= least) - usize::from(from >= least);
        };
        step(&mut self.finished, Departure::Finished);
        step(&mut self.gone, Departure::Gone);
    }

    /// Every instance has handed over, and the kernel has confirmed it or will not. True once all
    /// that were touched are settled.
    pub fn all_gone(&self) -> bool {
        self.gone == self.order.len()
    }

    /// Every router has handed over; `dirty` are those that are not settled yet.
    pub fn all_finished(&self, dirty: &[InstanceId]) -> bool {
        let states = || dirty.iter().filter_map(|id| self.get(*id));
        let is = states().filter(|state| state.departure() >= Departure::Finished).count();
        let was = states().filter(|state| state.counted >= Departure::Finished).count();
        self.finished + is - was == self.order.len()
    }

    /// What must hold of one instance once it is settled. `Err` is what does not.
    pub fn check_one(&self, id: InstanceId) -> Result<(), String> {
        let Some(state) = self.get(id) else { return Ok(()) };
        let deadline = state.deadline();
        let is_timed = deadline.is_none_or(|at| self.timers.contains(&(at, id)));
        let may_hold = |fact: &Fact| self.facts.get(&fact.key()).any(|of| of == id);
        let is_heard = self.of_key(&RouterKey::of(&state.instance)).any(|of| of == id);
        let named = self.named(state.name()).and_then(|id| self.get(id));
        let promises = [
            (state.id == id, "its slot is another's"),
            (!state.touched, "it is touched and nobody drains it"),
            (state.timer == deadline && is_timed, "its timer is not its deadline"),
            (state.counted == state.departure(), "it is counted as what it was"),
            (named.is_some_and(|other| state.leaving || other.id == id), "its name is another's"),
            (self.leaving.contains(&id) == state.leaving, "nobody knows whether it leaves"),
            (state.level().iter().all(may_hold), "a fact of its level is not in the index"),
            (is_heard, "its adverts do not find it"),
        ];
        promises::kept(&promises)
    }

    /// What must hold of them all after a drain.
    pub fn check_all(&self) -> Result<(), String> {
        let there: BTreeSet<InstanceId> = self.iter().map(|state| state.id).collect();
        let all = || self.slots.iter().flatten();
        let count = |least: Departure| all().filter(|state| state.departure() >= least).count();
        let entries = all().map(|state| state.level().len()).sum::<usize>();
        let is_there = |id: &InstanceId| there.contains(id);
        let promises = [
            (self.dirty.is_empty(), "instances are dirty after a drain".to_owned()),
            (
                there.len() == self.order.len() && there.len() == all().count(),
                format!("{} slots, {} in order", all().count(), self.order.len()),
            ),
            (
                self.timers.len() == all().filter(|state| state.timer.is_some()).count(),
                "a timer is of no instance".to_owned(),
            ),
            (
                self.finished == count(Departure::Finished),
                format!("{} are finished", self.finished),
            ),
            (self.gone == count(Departure::Gone), format!("{} are gone", self.gone)),
            (self.names.ids().all(|id| is_there(&id)), "a name is of no instance".to_owned()),
            (
                self.facts.ids().count() == entries && self.facts.ids().all(|id| is_there(&id)),
                "the index of facts is not that of the levels".to_owned(),
            ),
            (self.index.ids().all(|id| is_there(&id)), "adverts find who is not there".to_owned()),
        ];
        promises::kept(&promises)
    }
}

/// All instances but the one that is being changed.
pub struct Others<'a>(&'a Instances);

impl Others<'_> {
    /// One of them holds this fact.
    pub fn hold(&self, fact: &Fact) -> bool {
        let mut others = self.0.of_fact(&fact.key()).filter_map(|id| self.0.get(id));
        others.any(|other| other.router.holds_addresses())
    }
}

impl Index<InstanceId> for Instances {
    type Output = InstanceState;

    fn index(&self, id: InstanceId) -> &InstanceState {
        // INVARIANT: as in `touch`.
        self.get(id).expect("an instance that is there")
    }
}
