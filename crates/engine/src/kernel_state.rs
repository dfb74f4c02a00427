//! What the kernel was told to hold for one instance, what it said to that, and when to tell it
//! again.
//!
//! A level is the whole of the addresses. Each answer is about single ones: as long as one is in
//! place the instance goes on without those that were refused, and asks for them now and then. When
//! none is, a peer may do better, and the instance stays out for a while.

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::Time;

use crate::input::{Asked, Refusal};
use crate::missing::{Change, Missing, MissingAddresses};
use crate::output::{HeldAddress, Seq};

/// Least time between two repairs of one instance: whoever removes our addresses in a loop shall
/// not keep this node busy.
const HEAL_PAUSE: Duration = Duration::from_millis(100);

/// A lease is renewed with the adverts, so that it and the peers' patience run out together, but
/// not more often than this: a renewal costs a netlink request and an event per address.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(500);

/// How long an instance stays out after the kernel refused all its addresses: doubled with every
/// such refusal in a row, so that a lasting reason does not make a pair flap.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
const MOST_DOUBLINGS: u32 = 2;

/// Pause before a withdrawal that failed is tried again.
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);

/// Failed withdrawals after which a stop does not wait any longer: the lease has to see to it.
const PATIENCE: u32 = 3;

/// Addresses named in one sentence; the rest is a number.
const NAMED: usize = 3;

#[derive(Debug, Default)]
pub struct KernelState {
    /// The level last wanted, those that are missing among it.
    held: Vec<HeldAddress>,
    /// Refused while others are in place; empty when all are, or none is.
    missing: MissingAddresses,
    /// To be removed with the next level.
    leftovers: Vec<HeldAddress>,
    /// Removals the kernel has not confirmed; each level asks for them again.
    unconfirmed: Vec<Unconfirmed>,
    failed_withdrawals: u32,
    retry_at: Option<Time>,
    /// Refusals of everything in a row.
    refusals: u32,
    /// Number of the last level, and whether its result is still to come.
    seq: Seq,
    outstanding: bool,
    /// From when on an advert takes a renewal with it, and when one is due without.
    renewable_at: Option<Time>,
    renew_at: Option<Time>,
    heal_at: Option<Time>,
    healed_at: Option<Time>,
    refused: Option<Refused>,
}

/// A removal that was asked for.
#[derive(Debug)]
struct Unconfirmed {
    held: HeldAddress,
    /// The kernel's words, once it has refused.
    error: Option<String>,
}

#[derive(Debug)]
struct Refused {
    error: String,
    until: Time,
}

/// What is wanted of the kernel now.
pub struct Wish<'a> {
    pub wanted: Vec<HeldAddress>,
    /// Ask again for what is missing: a router that is about to let go does not.
    pub asks_again: bool,
    /// Addresses that other instances hold and this one must not remove.
    pub claimed: &'a dyn Fn(&HeldAddress) -> bool,
}

/// A level to send.
#[derive(Debug)]
pub struct Level {
    pub hold: Vec<HeldAddress>,
    pub drop: Vec<HeldAddress>,
    /// It puts back what someone removed.
    pub heals: bool,
    /// It adds to what is held already.
    pub extends: bool,
}

/// What is new in an answer of the kernel.
#[derive(Debug, Default)]
pub struct News {
    /// What failed, for a person.
    pub failed: Option<String>,
    /// What has been put right, one sentence each.
    pub mended: Vec<String>,
    /// Addresses that were missing are in place now.
    pub is_extended: bool,
    /// None of the addresses is in place.
    pub is_refused: bool,
}

impl KernelState {
    /// Number of the last level; announcements wait for it.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The answer to the last level is still to come.
    pub fn is_outstanding(&self) -> bool {
        self.outstanding
    }

    /// What was told to go is gone, or will not go.
    pub fn is_settled(&self) -> bool {
        let is_clean = self.leftovers.is_empty() && self.unconfirmed.is_empty();
        !self.outstanding && (is_clean || self.failed_withdrawals >= PATIENCE)
    }

    /// `asks_again` as in [`Wish`].
    pub fn deadline(&self, asks_again: bool) -> Option<Time> {
        let refused = self.refused.as_ref().map(|refused| refused.until);
        let missing = if asks_again { self.missing.deadline() } else { None };
        [self.renew_at, self.heal_at, self.retry_at, refused, missing].into_iter().flatten().min()
    }

    /// The addresses the kernel was told to hold, without those it refused.
    pub fn present(&self) -> impl Iterator<Item = &HeldAddress> {
        self.held.iter().filter(|held| !self.missing.contains(held))
    }

    /// Wanted and refused, while others are in place.
    pub fn missing(&self) -> impl Iterator<Item = &Missing> {
        self.missing.iter()
    }

    /// The kernel has refused none of the addresses, or all.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Not wanted, and the kernel does not let go of them.
    pub fn stuck(&self) -> impl Iterator<Item = (&HeldAddress, &str)> {
        self.unconfirmed.iter().filter_map(|one| Some((&one.held, one.error.as_deref()?)))
    }

    /// When what is stuck is withdrawn again.
    pub fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// Addresses found in the kernel that must go, unless the next level wants them.
    pub fn add_leftovers(&mut self, leftovers: impl IntoIterator<Item = HeldAddress>) {
        self.leftovers.extend(leftovers);
    }

    /// Why the kernel refused everything, while the pause lasts.
    pub fn refusal(&mut self, now: Time) -> Option<&str> {
        self.refused.take_if(|refused| refused.until <= now);
        self.refused.as_ref().map(|refused| refused.error.as_str())
    }

    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The reason for a refusal may be gone: the next election finds out.
    pub fn forget_refusal(&mut self) {
        self.refused = None;
        self.refusals = 0;
    }

    /// The link with this name has changed: what is missing there is asked for soon.
    pub fn hasten(&mut self, interface: &str, now: Time) {
        self.missing.hasten(interface, now);
    }

    /// An advert leaves: a renewal that is not too early goes with it.
    pub fn renew_with_advert(&mut self, now: Time) {
        if self.renewable_at.is_some_and(|at| at <= now) {
            self.renew_at = Some(now);
        }
    }

    /// `address` is in place as far as we know.
    pub fn has(&self, address: IpAddr) -> bool {
        self.present().any(|held| held.address.address == address)
    }

    /// Someone removed an address: the level is told again, at once or after the pause.
    pub fn heal(&mut self, now: Time) {
        let earliest = self.healed_at.map_or(now, |at| at + HEAL_PAUSE);
        self.heal_at = Some(earliest.max(now));
    }

    /// The level to send with number `seq`; `None` when there is nothing to tell.
    pub fn next(&mut self, now: Time, wish: Wish<'_>, seq: Seq) -> Option<Level> {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let heals = due(self.heal_at);
        let retries = due(self.retry_at);
        let asks = wish.asks_again && due(self.missing.deadline());
        let changed = wish.wanted != self.held;
        let is_due = heals || retries || asks || due(self.renew_at);
        if !changed && !is_due && self.leftovers.is_empty() {
            return None;
        }
        if retries {
            self.retry_at = None;
        }
        let former = std::mem::replace(&mut self.held, wish.wanted);
        let is_new = |new: &HeldAddress| !former.iter().any(|old| old.is_same(new));
        let extends = !former.is_empty() && self.held.iter().any(is_new);
        self.seq = seq;
        self.outstanding = true;
        if heals {
            self.heal_at = None;
            self.healed_at = Some(now);
        }
        let drop = self.removals(former, wish.claimed);
        let hold = self.additions(now, wish.asks_again);
        let lease = self.held.iter().filter_map(|held| held.lease_seconds).min();
        self.renewable_at = lease.map(|_| now + SHORTEST_RENEWAL);
        self.renew_at = lease.map(|seconds| now + latest_renewal(seconds));
        if self.held.is_empty() {
            self.heal_at = None;
        }
        Some(Level { hold, drop, heals, extends })
    }

    /// All that is held but what pauses. When nothing else is left, all of it.
    fn additions(&mut self, now: Time, asks_again: bool) -> Vec<HeldAddress> {
        self.missing.retain_wanted(&self.held);
        if self.held.iter().all(|held| self.missing.contains(held)) {
            self.missing.clear();
        }
        if asks_again {
            self.missing.ask(now);
        }
        self.held.iter().filter(|held| !self.missing.is_pausing(held)).cloned().collect()
    }

    /// What was held, was left over or was not let go of, and is not wanted.
    fn removals(
        &mut self,
        former: Vec<HeldAddress>,
        claimed: &dyn Fn(&HeldAddress) -> bool,
    ) -> Vec<HeldAddress> {
        let before = std::mem::take(&mut self.unconfirmed);
        let mut drop: Vec<HeldAddress> = former;
        drop.append(&mut self.leftovers);
        for Unconfirmed { held, .. } in &before {
            if !drop.iter().any(|other| other.is_same(held)) {
                drop.push(held.clone());
            }
        }
        drop.retain(|old| !self.held.iter().any(|new| new.is_same(old)) && !claimed(old));
        let error_of = |held: &HeldAddress| {
            before.iter().find(|one| one.held.is_same(held)).and_then(|one| one.error.clone())
        };
        let unconfirmed =
            |held: &HeldAddress| Unconfirmed { held: held.clone(), error: error_of(held) };
        self.unconfirmed = drop.iter().map(unconfirmed).collect();
        drop
    }

    /// The result of the last level.
    pub fn answered(&mut self, result: &Result<Vec<Refusal>, String>, now: Time) -> News {
        self.outstanding = false;
        let mut news = News::default();
        let mut failed = self.withdrawals_answered(result, now, &mut news.mended);
        let was_refused = self.refused.is_some();
        let held_before = news.mended.len();
        let refusals = self.additions_answered(result, now, &mut news.mended);
        news.is_extended = news.mended.len() > held_before;
        news.is_refused = self.refuse_when_nothing_is_held(now);
        if let (true, false, Some(refused)) = (news.is_refused, was_refused, &self.refused) {
            failed.push(refused.error.clone());
        } else if !was_refused && !refusals.is_empty() {
            failed.push(sentence(&refusals));
            failed.push("going on with the other addresses".to_owned());
        }
        news.failed = (!failed.is_empty()).then(|| failed.join("; "));
        news
    }

    /// Returns what failed and had not been told.
    fn withdrawals_answered(
        &mut self,
        result: &Result<Vec<Refusal>, String>,
        now: Time,
        mended: &mut Vec<String>,
    ) -> Vec<String> {
        let asked = std::mem::take(&mut self.unconfirmed);
        let mut news = Vec::new();
        // Another prefix length of an address that is held: asked for by nobody, told once.
        for refusal in result.iter().flatten().filter(|one| one.asked == Asked::Drop) {
            if !asked.iter().any(|one| refusal.is_about(&one.held)) {
                let Refusal { address, interface, error, .. } = refusal;
                news.push(format!("cannot withdraw the former {address} on {interface}: {error}"));
            }
        }
        for Unconfirmed { held, error: before } in asked {
            let error = error_of(result, Asked::Drop, &held);
            match &error {
                Some(error) if before.as_ref() != Some(error) => {
                    news.push(format!("cannot withdraw {held}: {error}"));
                }
                None if before.is_some() => mended.push(format!("{held} is withdrawn")),
                Some(_) | None => {}
            }
            if error.is_some() {
                self.unconfirmed.push(Unconfirmed { held, error });
            }
        }
        if self.unconfirmed.is_empty() {
            self.failed_withdrawals = 0;
            self.retry_at = None;
        } else {
            self.failed_withdrawals += 1;
            self.retry_at = Some(now + WITHDRAWAL_PAUSE);
        }
        if news.is_empty() { Vec::new() } else { vec![sentence(&news)] }
    }

    /// Returns the refusals that are news.
    fn additions_answered(
        &mut self,
        result: &Result<Vec<Refusal>, String>,
        now: Time,
        mended: &mut Vec<String>,
    ) -> Vec<String> {
        let mut news = Vec::new();
        for held in &self.held {
            if self.missing.is_pausing(held) {
                continue;
            }
            let error = error_of(result, Asked::Hold, held);
            match self.missing.answer(held, error.clone(), now) {
                Change::None => {}
                Change::Refused => news.push(cannot_hold(held, &error.unwrap_or_default())),
                Change::Accepted => mended.push(format!("{held} is held now")),
            }
        }
        news
    }

    /// With nothing in place the instance stays out for a while.
    fn refuse_when_nothing_is_held(&mut self, now: Time) -> bool {
        if self.held.is_empty() {
            return false;
        }
        if self.held.iter().any(|held| !self.missing.contains(held)) {
            self.refusals = 0;
            return false;
        }
        let all = self.missing.iter().map(|one| cannot_hold(&one.held, &one.error));
        let error = sentence(&all.collect::<Vec<_>>());
        self.missing.clear();
        let pause = REFUSAL_PAUSE * (1 << self.refusals.min(MOST_DOUBLINGS));
        self.refusals += 1;
        self.refused = Some(Refused { error, until: now + pause });
        true
    }
}

/// The kernel's words about one address; `None` when it did as asked.
fn error_of(
    result: &Result<Vec<Refusal>, String>,
    asked: Asked,
    held: &HeldAddress,
) -> Option<String> {
    match result {
        Ok(refusals) => {
            let mut about = refusals.iter().filter(|one| one.asked == asked && one.is_about(held));
            about.next().map(|one| one.error.clone())
        }
        Err(error) => Some(error.clone()),
    }
}

fn cannot_hold(held: &HeldAddress, error: &str) -> String {
    format!("cannot hold {held}: {error}")
}

/// The first few of them, and how many more.
fn sentence(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > NAMED {
        text.push_str(&format!("; and {} more", all.len() - NAMED));
    }
    text
}

/// Half of it, for a resigning master that sends no adverts.
fn latest_renewal(lease_seconds: u32) -> Duration {
    (Duration::from_secs(u64::from(lease_seconds)) / 2).max(SHORTEST_RENEWAL)
}
