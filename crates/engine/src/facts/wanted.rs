//! The facts of one instance: what the kernel was told, what it said to that, and when to tell it
//! again.
//!
//! A level is the whole of the facts. Each answer is about single ones: as long as one is in place
//! the instance goes on without those that were refused, and asks for them now and then. When none
//! is, a peer may do better, and the instance stays out for a while.
//!
//! ```text
//!   wanted ──► Level ──► kernel ──► answer ──► in place │ refused, asked again │ all refused: pause
//!                ▲                                │
//!                └── renewal, repair, retry ◄─────┘
//! ```
//!
//! A renewal waits until the answer before it has come: a slow kernel gets fewer questions, not
//! more. Being slow is reported and is nobody's fault. An answer that is late may be lost: the level
//! is sent again, and whichever answer comes first counts.

use std::sync::Arc;
use std::time::Duration;

use locum_vrrp::Time;

use super::exceptions::{Pause, Rare, Withdrawal};
use super::fact::{Asked, Fact, FactKey, Refusal, Removal, Whose};
use super::in_place::InPlace;
use super::refused::{RefusalChange, RefusedFact};
use crate::ids::Seq;
use crate::promises;

/// Least time between two repairs of one instance: whoever removes our addresses in a loop shall
/// not keep this node busy.
const HEAL_PAUSE: Duration = Duration::from_millis(100);

/// A lease is renewed with the adverts, so that it and the peers' patience run out together, but
/// not more often than this: a renewal costs a netlink request and an event per address.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(500);

/// How long an instance stays out after the kernel refused all its facts: doubled with every such
/// refusal in a row, so that a lasting reason does not make a pair flap.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
const MOST_DOUBLINGS: u32 = 2;

/// Pause before a withdrawal that failed is tried again.
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);

/// Least time between two removals of what others put where it must not be: two programs that
/// disagree shall not keep the node busy.
const EXPULSION_PAUSE: Duration = Duration::from_secs(1);

/// Failed withdrawals after which a stop does not wait any longer: the lease has to see to it.
const PATIENCE: u32 = 3;

/// An answer that takes longer is reported: the node is overloaded, or the kernel stuck. The level
/// is sent again that often, since the answer may be lost.
const LATE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Facts {
    /// What the kernel was last told to have, the refused ones among it.
    held: Arc<[Fact]>,
    /// Of each of `held`: the kernel has said that it is in place.
    in_place: InPlace,
    rare: Rare,
    seq: Seq,
    outstanding: Option<Outstanding>,
    /// From when on an advert takes a renewal with it, and when one is due without.
    renewable_at: Option<Time>,
    renew_at: Option<Time>,
}

/// A level whose answer is still to come.
#[derive(Debug)]
struct Outstanding {
    /// Number of the first of several that say the same, and when it was sent.
    first: Seq,
    since: Time,
    /// When it is sent again.
    again_at: Time,
    /// Its lateness has been reported.
    is_reported: bool,
    /// It changes something: hooks and a stop wait for it. A renewal does not.
    changes: bool,
}

/// What is wanted of the kernel now.
pub struct Wanted<'a> {
    pub hold: &'a Arc<[Fact]>,
    /// Ask again for what was refused: a router that is about to let go does not.
    pub asks_again: bool,
    /// Facts that other instances hold and this one must not remove.
    pub claimed: &'a dyn Fn(&Fact) -> bool,
}

/// A level to send.
#[derive(Debug)]
pub struct Level {
    pub hold: Arc<[Fact]>,
    pub drop: Vec<Removal>,
    /// It puts back what someone removed.
    pub heals: bool,
    /// It adds to what is held already.
    pub extends: bool,
    /// What it removes that somebody else put there.
    pub expels: Vec<Fact>,
}

/// What is new in an answer of the kernel.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// What failed, one sentence each; empty when nothing did that was not known.
    pub failed: Vec<String>,
    /// What has been put right, one sentence each.
    pub mended: Vec<String>,
    /// Facts that were refused are in place now.
    pub is_extended: bool,
    /// None of the facts is in place.
    pub is_refused: bool,
}

impl Facts {
    /// What the kernel was last told to have.
    pub fn held(&self) -> &[Fact] {
        &self.held
    }

    /// What must hold between two inputs. `Err` is what does not.
    pub fn check_invariants(&self) -> Result<(), String> {
        let is_held = |fact: &Fact| self.held.iter().any(|held| held.is_same(fact));
        let promises = [
            (self.in_place.fits(self.held.len()), "not every fact is in place or not"),
            (
                self.rare.refused.iter().all(|one| is_held(&one.fact)),
                "what is refused is not wanted",
            ),
            (
                !self.rare.withdrawals.iter().any(|one| is_held(&one.removal.fact)),
                "what is wanted is to be withdrawn",
            ),
            (self.rare.heal_at.is_none() || !self.held.is_empty(), "nothing is held, and healed"),
            (self.rare.inherited.is_empty(), "what was found is neither held nor withdrawn"),
        ];
        promises::kept(&promises)
    }

    /// The answer to the level of this number is still to come, and says all that is asked now.
    pub fn awaits(&self, seq: Seq) -> bool {
        self.outstanding.as_ref().is_some_and(|one| (one.first..=self.seq).contains(&seq))
    }

    /// Something was asked of the kernel, more than a renewal, and its answer is still to come.
    pub fn is_outstanding(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|one| one.changes)
    }

    /// What was told to go is gone, or will not go.
    pub fn is_settled(&self) -> bool {
        let rare = &self.rare;
        let is_clean = rare.inherited.is_empty() && rare.withdrawals.is_empty();
        self.outstanding.is_none() && (is_clean || rare.failed_withdrawals >= PATIENCE)
    }

    /// `asks_again` as in [`Wanted`].
    pub fn deadline(&self, asks_again: bool) -> Option<Time> {
        let rare = &self.rare;
        let pause = rare.pause.as_ref().map(|pause| pause.until);
        let refused = if asks_again { rare.refused.deadline() } else { None };
        let (renew, late) = match &self.outstanding {
            Some(outstanding) => (None, Some(outstanding.again_at)),
            None => (self.renew_at, None),
        };
        let times = [renew, late, rare.heal_at, rare.retry_at, rare.unwanted.at, pause, refused];
        times.into_iter().flatten().min()
    }

    /// The facts the kernel has put in place, as far as we know.
    pub fn in_place(&self) -> impl Iterator<Item = &Fact> {
        let pairs = self.held.iter().zip(self.in_place.iter());
        pairs.filter_map(|(fact, is_in_place)| is_in_place.then_some(fact))
    }

    /// Facts that the kernel was told to have and has not answered for yet.
    pub fn is_awaited(&self) -> bool {
        let mut pairs = self.held.iter().zip(self.in_place.iter());
        pairs.any(|(fact, is_in_place)| !is_in_place && !self.rare.refused.is_pausing(fact))
    }

    /// The kernel was told to have something with this key.
    pub fn wants(&self, key: &FactKey) -> bool {
        self.held.iter().any(|fact| key.is_of(fact)) && !self.is_refused_one(key)
    }

    fn is_refused_one(&self, key: &FactKey) -> bool {
        self.rare.refused.iter().any(|refused| key.is_of(&refused.fact))
    }

    /// Wanted and refused, while others are in place.
    pub fn refused(&self) -> impl Iterator<Item = &RefusedFact> {
        self.rare.refused.iter()
    }

    /// Not wanted, and the kernel does not let go of them: fact, the kernel's words.
    pub fn withdrawals_pending(&self) -> impl Iterator<Item = (&Fact, &str)> {
        let all = self.rare.withdrawals.iter();
        all.filter_map(|one| Some((&one.removal.fact, one.error.as_deref()?)))
    }

    /// What must go and has not, of an instance that is done.
    pub fn left(&self) -> impl Iterator<Item = &Fact> {
        let withdrawals = self.rare.withdrawals.iter().map(|one| &one.removal.fact);
        withdrawals.chain(&self.rare.inherited)
    }

    /// When pending withdrawals are tried again.
    pub fn retry_at(&self) -> Option<Time> {
        self.rare.retry_at
    }

    /// Found in the kernel under our mark: they must go, unless the next level wants them.
    pub fn inherit(&mut self, found: impl IntoIterator<Item = Fact>) {
        self.rare.make().inherited.extend(found);
    }

    /// Exactly these are there now, without our mark, and must not be; each with whether it may be
    /// removed.
    pub fn observe_unwanted(&mut self, facts: Vec<(Fact, bool)>, now: Time) {
        if facts.is_empty() && self.rare.unwanted.facts.is_empty() {
            return;
        }
        let rare = self.rare.make();
        let unwanted = &mut rare.unwanted;
        if !facts.iter().any(|(_, is_removable)| *is_removable) {
            (unwanted.facts, unwanted.at) = (facts, None);
            return;
        }
        // What was asked for and not answered may still seem to be there.
        let is_awaited = |(fact, _): &(Fact, bool)| {
            rare.withdrawals.iter().any(|one| one.removal.fact.is_same(fact))
        };
        let before = if facts.iter().any(is_awaited) { Some(now) } else { unwanted.removed_at };
        let earliest = before.map_or(now, |at| at + EXPULSION_PAUSE);
        unwanted.facts = facts;
        unwanted.at.get_or_insert(earliest.max(now));
    }

    /// Facts of others that are where they must not be.
    pub fn unwanted(&self) -> impl Iterator<Item = &Fact> {
        self.rare.unwanted.facts.iter().map(|(fact, _)| fact)
    }

    /// Why the kernel refused everything, while the pause lasts.
    pub fn refusal(&mut self, now: Time) -> Option<&str> {
        let rare = self.rare.get_mut()?;
        rare.pause.take_if(|pause| pause.until <= now);
        rare.pause.as_ref().map(|pause| pause.error.as_str())
    }

    pub fn is_pausing(&self) -> bool {
        self.rare.pause.is_some()
    }

    /// The reason for a refusal may be gone: the next election finds out.
    pub fn forget_refusal(&mut self) {
        if let Some(rare) = self.rare.get_mut() {
            rare.pause = None;
            rare.refusals = 0;
        }
    }

    /// The link with this name has changed: what was refused there is asked for soon. `true` when
    /// something is.
    pub fn retry_soon(&mut self, interface: &str, now: Time) -> bool {
        let Some(rare) = self.rare.get_mut() else { return false };
        rare.refused.retry_soon(interface, now);
        !rare.refused.is_empty()
    }

    /// An advert leaves: a renewal that is not too early goes with it.
    pub fn renew_with_advert(&mut self, now: Time) {
        if self.renewable_at.is_some_and(|at| at <= now) {
            self.renew_at = Some(now);
        }
    }

    /// Someone removed a fact: the level is sent again, at once or after the pause.
    pub fn heal(&mut self, key: &FactKey, now: Time) {
        let pairs = self.held.iter().zip(self.in_place.iter());
        self.in_place = pairs.map(|(fact, is_in_place)| is_in_place && !key.is_of(fact)).collect();
        let rare = self.rare.make();
        let earliest = rare.healed_at.map_or(now, |at| at + HEAL_PAUSE);
        rare.heal_at = Some(earliest.max(now));
    }

    /// The answer is late, and nobody was told: for how long it has been waited for.
    pub fn take_lateness(&mut self, now: Time) -> Option<Duration> {
        let outstanding = self.outstanding.as_mut()?;
        let waited = now.since(outstanding.since);
        if waited < LATE || std::mem::replace(&mut outstanding.is_reported, true) {
            return None;
        }
        Some(waited)
    }

    /// The answer is late, and that was reported.
    pub fn is_late(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|one| one.is_reported)
    }

    /// The level to send with number `seq`; `None` when there is nothing to say.
    pub fn next(&mut self, now: Time, wanted: Wanted<'_>, seq: Seq) -> Option<Level> {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let heals = due(self.rare.heal_at);
        let retries = due(self.rare.retry_at);
        let expels = due(self.rare.unwanted.at);
        let asks = wanted.asks_again && due(self.rare.refused.deadline());
        let changed = !Arc::ptr_eq(wanted.hold, &self.held) && **wanted.hold != *self.held;
        let changes =
            changed || heals || retries || expels || asks || !self.rare.inherited.is_empty();
        let renews = due(self.renew_at) && self.outstanding.is_none();
        let repeats = due(self.outstanding.as_ref().map(|one| one.again_at));
        if !changes && !renews && !repeats {
            return None;
        }
        if retries {
            self.rare.make().retry_at = None;
        }
        if heals {
            let rare = self.rare.make();
            (rare.heal_at, rare.healed_at) = (None, Some(now));
        }
        let former = if changed { self.replace(wanted.hold) } else { Arc::clone(&self.held) };
        let is_new = |new: &Fact| !former.iter().any(|old| old.is_same(new));
        let extends = changed && !former.is_empty() && self.held.iter().any(is_new);
        self.seq = seq;
        let again_at = now + LATE;
        self.outstanding = Some(match self.outstanding.take() {
            Some(before) if !changes => Outstanding { again_at, ..before },
            _ => Outstanding { first: seq, since: now, again_at, is_reported: false, changes },
        });
        let expels = if expels { self.expel(now) } else { Vec::new() };
        let drop = self.removals(&former, &expels, wanted.claimed);
        // What had to go is wanted again: nothing is left to try, and an answer that is on its way
        // is to this level.
        if drop.is_empty()
            && let Some(rare) = self.rare.get_mut()
        {
            rare.retry_at = None;
        }
        let hold = self.additions(now, wanted.asks_again);
        let lease = self.held.iter().filter_map(Fact::lease_seconds).min();
        self.renewable_at = lease.map(|_| now + SHORTEST_RENEWAL);
        self.renew_at = lease.map(|seconds| now + latest_renewal(seconds));
        if self.held.is_empty()
            && let Some(rare) = self.rare.get_mut()
        {
            rare.heal_at = None;
        }
        Some(Level { hold, drop, heals, extends, expels })
    }

    /// Takes over what is wanted; what is in place in the same form stays so.
    fn replace(&mut self, wanted: &Arc<[Fact]>) -> Arc<[Fact]> {
        let known: Vec<&Fact> = self.in_place().collect();
        let in_place = wanted.iter().map(|fact| known.contains(&fact)).collect();
        self.in_place = in_place;
        if let Some(rare) = self.rare.get_mut() {
            rare.refused.retain_wanted(wanted);
        }
        std::mem::replace(&mut self.held, Arc::clone(wanted))
    }

    fn expel(&mut self, now: Time) -> Vec<Fact> {
        let unwanted = &mut self.rare.make().unwanted;
        unwanted.at = None;
        unwanted.removed_at = Some(now);
        let removable = unwanted.facts.extract_if(.., |(_, is_removable)| *is_removable);
        removable.map(|(fact, _)| fact).collect()
    }

    /// All that is held but what pauses. When nothing else is left, all of it.
    fn additions(&mut self, now: Time, asks_again: bool) -> Arc<[Fact]> {
        if self.rare.refused.is_empty() {
            return Arc::clone(&self.held);
        }
        let is_none_in_reach = self.is_none_in_reach();
        let refused = &mut self.rare.make().refused;
        if is_none_in_reach {
            refused.clear();
        }
        if asks_again {
            refused.ask(now);
        }
        self.held.iter().filter(|fact| !refused.is_pausing(fact)).cloned().collect()
    }

    /// What was held, inherited, put there by others or not let go of, and is not wanted.
    fn removals(
        &mut self,
        former: &Arc<[Fact]>,
        expelled: &[Fact],
        claimed: &dyn Fn(&Fact) -> bool,
    ) -> Vec<Removal> {
        let (before, inherited) = self.rare.get_mut().map_or_else(Default::default, |rare| {
            (std::mem::take(&mut rare.withdrawals), std::mem::take(&mut rare.inherited))
        });
        let mut drop: Vec<Removal> = Vec::new();
        let mut add = |fact: &Fact, whose: Whose| {
            let is_wanted = self.held.iter().any(|wanted| wanted.is_same(fact));
            if is_wanted || claimed(fact) {
                return;
            }
            match drop.iter_mut().find(|other| other.fact.is_same(fact)) {
                Some(other) => other.whose = other.whose.max(whose),
                None => drop.push(Removal { fact: fact.clone(), whose }),
            }
        };
        if !Arc::ptr_eq(former, &self.held) {
            former.iter().for_each(|fact| add(fact, Whose::Ours));
        }
        inherited.iter().for_each(|fact| add(fact, Whose::Ours));
        expelled.iter().for_each(|fact| add(fact, Whose::Anyones));
        before.iter().for_each(|one| add(&one.removal.fact, one.removal.whose));
        let error_of = |fact: &Fact| {
            before.iter().find(|one| one.removal.fact.is_same(fact)).and_then(|o| o.error.clone())
        };
        let withdrawal = |removal: &Removal| Withdrawal {
            removal: removal.clone(),
            error: error_of(&removal.fact),
        };
        if !drop.is_empty() {
            self.rare.make().withdrawals = drop.iter().map(withdrawal).collect();
        }
        drop
    }

    /// The result of the last level.
    pub fn answered(&mut self, result: &Result<Vec<Refusal>, String>, now: Time) -> Answered {
        self.outstanding = None;
        let mut answered = Answered::default();
        let is_plain = matches!(result, Ok(refusals) if refusals.is_empty());
        if is_plain && self.rare.withdrawals.is_empty() && self.rare.refused.is_empty() {
            // The answer to a renewal, a thousand times a second on a large node.
            self.in_place = InPlace::default();
            if let Some(rare) = self.rare.get_mut() {
                if !self.held.is_empty() {
                    rare.refusals = 0;
                }
                rare.failed_withdrawals = 0;
            }
            self.rare.tidy();
            return answered;
        }
        let mut failed = self.withdrawals_answered(result, now, &mut answered.mended);
        let was_pausing = self.is_pausing();
        let mended_before = answered.mended.len();
        let refusals = self.additions_answered(result, now, &mut answered.mended);
        answered.is_extended = answered.mended.len() > mended_before;
        answered.is_refused = self.pause_when_nothing_is_held(now);
        if let (true, false, Some(pause)) = (answered.is_refused, was_pausing, &self.rare.pause) {
            failed.push(pause.error.clone());
        } else if !was_pausing && !refusals.is_empty() {
            failed.push(locum_plan::first_few(&refusals, "; "));
            failed.push("going on with the other addresses".to_owned());
        }
        answered.failed = failed;
        self.rare.tidy();
        answered
    }

    /// Returns what failed and was not known.
    fn withdrawals_answered(
        &mut self,
        result: &Result<Vec<Refusal>, String>,
        now: Time,
        mended: &mut Vec<String>,
    ) -> Vec<String> {
        let rare = self.rare.make();
        let asked = std::mem::take(&mut rare.withdrawals);
        let mut changes = Vec::new();
        // Another prefix length of an address that is held: asked for by nobody, reported once.
        for refusal in result.iter().flatten().filter(|one| one.asked == Asked::Drop) {
            if !asked.iter().any(|one| refusal.key.is_of(&one.removal.fact)) {
                let Refusal { key, error, .. } = refusal;
                changes.push(format!("cannot withdraw the former {key}: {error}"));
            }
        }
        for Withdrawal { removal, error: before } in asked {
            let error = error_of(result, Asked::Drop, &removal.fact);
            let fact = &removal.fact;
            match &error {
                Some(error) if before.as_ref() != Some(error) => {
                    changes.push(format!("cannot withdraw {fact}: {error}"));
                }
                None if before.is_some() => mended.push(format!("{fact} is withdrawn")),
                Some(_) | None => {}
            }
            if error.is_some() {
                rare.withdrawals.push(Withdrawal { removal, error });
            }
        }
        if rare.withdrawals.is_empty() {
            rare.failed_withdrawals = 0;
            rare.retry_at = None;
        } else {
            rare.failed_withdrawals += 1;
            rare.retry_at = Some(now + WITHDRAWAL_PAUSE);
        }
        if changes.is_empty() { Vec::new() } else { vec![locum_plan::first_few(&changes, "; ")] }
    }

    /// Returns the refusals that are news.
    fn additions_answered(
        &mut self,
        result: &Result<Vec<Refusal>, String>,
        now: Time,
        mended: &mut Vec<String>,
    ) -> Vec<String> {
        let mut changes = Vec::new();
        let mut in_place = Vec::with_capacity(self.held.len());
        let refused = &mut self.rare.make().refused;
        for (fact, is_in_place) in self.held.iter().zip(self.in_place.iter()) {
            if refused.is_pausing(fact) {
                in_place.push(is_in_place);
                continue;
            }
            let error = error_of(result, Asked::Hold, fact);
            in_place.push(error.is_none());
            match refused.answer(fact, error.clone(), now) {
                RefusalChange::None => {}
                RefusalChange::Refused => {
                    changes.push(cannot_hold(fact, &error.unwrap_or_default()))
                }
                RefusalChange::Accepted => mended.push(format!("{fact} is held now")),
            }
        }
        self.in_place = in_place.into_iter().collect();
        changes
    }

    /// Every address was refused; nothing else is of use without one.
    fn is_none_in_reach(&self) -> bool {
        let mut addresses = self.held.iter().filter(|fact| fact.address().is_some());
        addresses.all(|fact| self.rare.refused.contains(fact))
    }

    /// With nothing in place the instance stays out for a while.
    fn pause_when_nothing_is_held(&mut self, now: Time) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let is_none_in_reach = self.is_none_in_reach();
        let rare = self.rare.make();
        if !is_none_in_reach {
            rare.refusals = 0;
            return false;
        }
        let all = rare.refused.iter().map(|one| cannot_hold(&one.fact, &one.error));
        let error = locum_plan::first_few(&all.collect::<Vec<_>>(), "; ");
        rare.refused.clear();
        let pause = REFUSAL_PAUSE * (1 << rare.refusals.min(MOST_DOUBLINGS));
        rare.refusals += 1;
        rare.pause = Some(Pause { error, until: now + pause });
        true
    }
}

/// The kernel's words about one fact; `None` when it did as asked.
fn error_of(result: &Result<Vec<Refusal>, String>, asked: Asked, fact: &Fact) -> Option<String> {
    match result {
        Ok(refusals) => {
            let mut about = refusals.iter().filter(|one| one.asked == asked && one.key.is_of(fact));
            about.next().map(|one| one.error.clone())
        }
        Err(error) => Some(error.clone()),
    }
}

fn cannot_hold(fact: &Fact, error: &str) -> String {
    format!("cannot hold {fact}: {error}")
}

/// Half of it, for a resigning master that sends no adverts.
fn latest_renewal(lease_seconds: u32) -> Duration {
    (Duration::from_secs(u64::from(lease_seconds)) / 2).max(SHORTEST_RENEWAL)
}
