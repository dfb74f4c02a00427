//! Places for clients, and how the services divide them: no service can take what another one needs.
//!
//! ```text
//!   descriptors of the process, two for each place (a client of UDP needs but one)
//!   ├─ kept back ─┤
//!                 ├─ guaranteed: www ─┼─ mail ─┼───── whoever needs them ─────┤
//! ```
//!
//! Half of the places are guaranteed, to each service as many as to the others. A client takes one of
//! its service's own, else one of the other half; with neither it waits.

use std::cell::Cell;
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Most client connections at a time, whatever the descriptor limit: at some 8 KB of kernel memory
/// for an idle pair of sockets this is half a gigabyte.
const CONNECTION_LIMIT: usize = 65_536;

/// Descriptors kept back for control connections and the runtime.
const RESERVED_DESCRIPTORS: usize = 128;

/// It, and the client that waits there for a place.
const DESCRIPTORS_OF_LISTENER: usize = 2;

/// All places, and who has them.
#[derive(Debug)]
pub struct Shares {
    descriptors: usize,
    limit: Cell<usize>,
    /// What of the limit is guaranteed to nobody.
    common: Cell<usize>,
    active: Cell<usize>,
    /// What services have beyond what they are guaranteed.
    beyond: Cell<usize>,
    accept_pauses: Cell<u64>,
    /// Clients without a place whose listener is not ours any more.
    held: Cell<usize>,
    /// Notified when the last connection ended while [`Shares::is_ending`].
    pub idle: Notify,
    /// Nothing is served any more: the process ends with the last connection.
    pub is_ending: Cell<bool>,
    /// Notified when there is a connection again.
    pub busy: Notify,
    /// Notifies everybody who waits for a place whenever there may be one.
    freed: Notify,
}

impl Shares {
    /// As many as the hard limit of descriptors allows, two for each connection.
    pub fn of_process() -> Self {
        Self::new(raise_descriptor_limit())
    }

    fn new(descriptors: usize) -> Self {
        let shares = Self {
            descriptors,
            limit: Cell::new(0),
            common: Cell::new(0),
            active: Cell::new(0),
            beyond: Cell::new(0),
            accept_pauses: Cell::new(0),
            held: Cell::new(0),
            idle: Notify::new(),
            is_ending: Cell::new(false),
            busy: Notify::new(),
            freed: Notify::new(),
        };
        shares.divide(&[]);
        shares
    }

    /// Divides the places anew among all services there are. Nobody loses one that he has.
    pub fn divide(&self, shares: &[&Share]) {
        let takers = shares.iter().filter(|share| share.takes.get() == Takes::Clients).count();
        let listeners = shares.iter().map(|share| share.listeners.get()).sum::<usize>();
        let kept_back = RESERVED_DESCRIPTORS + DESCRIPTORS_OF_LISTENER * listeners;
        let limit = (self.descriptors.saturating_sub(kept_back) / 2).clamp(1, CONNECTION_LIMIT);
        let part = limit.checked_div(2 * takers).map_or(0, |part| part.max(1).min(limit / takers));
        let (mut guaranteed, mut beyond) = (0, 0);
        for share in shares {
            let own = match share.takes.get() {
                Takes::Clients => part.min(share.most.get()),
                Takes::Nobody => 0,
            };
            share.guaranteed.set(own);
            guaranteed += own;
            beyond += share.beyond();
        }
        self.limit.set(limit);
        self.common.set(limit - guaranteed);
        self.beyond.set(beyond);
        self.freed.notify_waiters();
    }

    pub fn note_accept_pause(&self) {
        self.accept_pauses.set(self.accept_pauses.get() + 1);
    }

    pub fn accept_pauses(&self) -> u64 {
        self.accept_pauses.get()
    }

    pub fn limit(&self) -> u64 {
        self.limit.get() as u64
    }

    pub fn active(&self) -> u64 {
        self.active.get() as u64
    }

    /// Nobody is here, not even somebody without a place.
    pub fn is_empty(&self) -> bool {
        self.active.get() == 0 && self.held.get() == 0
    }

    /// A client without a place counts as one that is here for as long as this lives.
    pub fn hold(self: &Rc<Self>) -> PlacelessClient {
        self.held.set(self.held.get() + 1);
        PlacelessClient(self.clone())
    }
}

/// Held for a client that waits for a place.
#[derive(Debug)]
pub struct PlacelessClient(Rc<Shares>);

impl Drop for PlacelessClient {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get().saturating_sub(1));
    }
}

/// Whether a service takes clients now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    Clients,
    Nobody,
}

/// The places of one service.
#[derive(Debug)]
pub struct Share {
    shares: Rc<Shares>,
    takes: Cell<Takes>,
    listeners: Cell<usize>,
    /// As configured, else the largest number there is.
    most: Cell<usize>,
    guaranteed: Cell<usize>,
    active: Cell<usize>,
}

impl Share {
    pub fn new(shares: &Rc<Shares>) -> Self {
        Self {
            shares: shares.clone(),
            takes: Cell::new(Takes::Nobody),
            listeners: Cell::new(0),
            most: Cell::new(usize::MAX),
            guaranteed: Cell::new(0),
            active: Cell::new(0),
        }
    }

    /// What the next [`Shares::divide`] goes by: whether it takes clients, at how many addresses it
    /// listens, and the most clients that it may have.
    pub fn claim(&self, takes: Takes, listeners: usize, most: Option<u32>) {
        self.takes.set(takes);
        self.listeners.set(listeners);
        self.most.set(most.map_or(usize::MAX, |most| most as usize));
    }

    /// A place for one more client.
    pub fn take(self: &Rc<Self>) -> Option<ClientPlace> {
        if !self.has_room() {
            return None;
        }
        if self.active.get() >= self.guaranteed.get() {
            self.shares.beyond.set(self.shares.beyond.get() + 1);
        }
        self.active.set(self.active.get() + 1);
        self.shares.active.set(self.shares.active.get() + 1);
        if self.shares.active.get() == 1 {
            self.shares.busy.notify_one();
        }
        Some(ClientPlace(self.clone()))
    }

    pub fn has_room(&self) -> bool {
        let shares = &self.shares;
        let own = self.active.get() < self.guaranteed.get();
        let common = shares.beyond.get() < shares.common.get();
        self.active.get() < self.most.get()
            // Clients that were there before the places were divided anew still have theirs.
            && shares.active.get() < shares.limit.get()
            && (own || common)
    }

    /// Resolves once there may be a place that was not there at the call.
    pub fn freed(&self) -> Notified<'_> {
        self.shares.freed.notified()
    }

    /// Most clients that it can have now, with what the others have.
    pub fn limit(&self) -> u64 {
        let shares = &self.shares;
        let others = shares.beyond.get().saturating_sub(self.beyond());
        let common = shares.common.get().saturating_sub(others);
        let free = shares.limit.get().saturating_sub(shares.active.get());
        let possible = (self.guaranteed.get() + common).min(self.active.get() + free);
        self.most.get().min(possible) as u64
    }

    pub fn active(&self) -> u64 {
        self.active.get() as u64
    }

    fn beyond(&self) -> usize {
        self.active.get().saturating_sub(self.guaranteed.get())
    }
}

/// Held by a client connection.
#[derive(Debug)]
pub struct ClientPlace(Rc<Share>);

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let (share, shares) = (&self.0, &self.0.shares);
        if share.active.get() > share.guaranteed.get() {
            shares.beyond.set(shares.beyond.get().saturating_sub(1));
        }
        share.active.set(share.active.get().saturating_sub(1));
        shares.active.set(shares.active.get().saturating_sub(1));
        shares.freed.notify_waiters();
        if shares.active.get() == 0 && shares.is_ending.get() {
            shares.idle.notify_one();
        }
    }
}

/// The soft limit is made the hard one, which is there for servers; returns what is in force.
fn raise_descriptor_limit() -> usize {
    /// What every Linux gives a process, if it cannot be asked.
    const FALLBACK: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FALLBACK as usize;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let in_force = if raised { hard } else { soft };
    usize::try_from(in_force).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many services as there are limits; each takes clients.
    fn services(descriptors: usize, most: &[Option<u32>]) -> (Rc<Shares>, Vec<Rc<Share>>) {
        let shares = Rc::new(Shares::new(descriptors));
        let all: Vec<Rc<Share>> = most.iter().map(|_| Rc::new(Share::new(&shares))).collect();
        all.iter().zip(most).for_each(|(share, most)| share.claim(Takes::Clients, 1, *most));
        divide(&shares, &all);
        (shares, all)
    }

    fn divide(shares: &Shares, all: &[Rc<Share>]) {
        shares.divide(&all.iter().map(|share| &**share).collect::<Vec<_>>());
    }

    fn take_all(share: &Rc<Share>) -> Vec<ClientPlace> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn a_service_that_takes_all_it_can_leaves_each_of_the_others_its_part() {
        let (shares, all) = services(1200, &[None, None]);
        assert_eq!(shares.limit(), (1200 - 128 - 4) / 2);
        assert_eq!((all[0].limit(), all[1].limit()), (401, 401));
        let first = take_all(&all[0]);
        assert_eq!((first.len(), all[0].limit(), all[1].limit()), (401, 401, 133));
        let second = take_all(&all[1]);
        assert_eq!(second.len(), 133);
        assert_eq!(shares.active(), shares.limit());
        // One of the common places is free again: either may take it.
        let mut first = first;
        drop(first.pop());
        drop(all[1].take().expect("it is common"));
        first.push(all[0].take().expect("it is common"));
        drop(second);
        assert!(all[0].take().is_none(), "what is guaranteed to another one stays free");
    }

    #[test]
    fn a_limit_of_its_own_gives_the_rest_to_the_others() {
        let (shares, all) = services(1200, &[Some(10), None]);
        assert_eq!(take_all(&all[0]).len(), 10);
        assert_eq!(take_all(&all[1]).len() as u64, shares.limit() - 10);
    }

    #[test]
    fn services_that_come_and_go_move_the_parts_and_nobody_loses_a_place() {
        let (shares, mut all) = services(1200, &[None]);
        let held = take_all(&all[0]);
        assert_eq!((held.len(), shares.limit()), (535, 535));
        all.push(Rc::new(Share::new(&shares)));
        all[1].claim(Takes::Clients, 1, None);
        divide(&shares, &all);
        assert_eq!(shares.limit(), 534);
        assert!(all[1].take().is_none(), "descriptors that are not there are not given away");
        drop(held);
        assert_eq!(take_all(&all[1]).len(), 401);
        // Its clients finish while it is not wanted: they count against what is common.
        let leaving = take_all(&all[0]);
        all[0].claim(Takes::Nobody, 0, None);
        divide(&shares, &all);
        assert_eq!(all[1].limit() + leaving.len() as u64, shares.limit());
    }

    #[test]
    fn there_is_always_a_place_and_never_more_than_the_limit() {
        let (shares, one) = services(0, &[None]);
        assert_eq!((shares.limit(), take_all(&one[0]).len()), (1, 1));
        for count in [1_usize, 2, 3, 7, 136] {
            let (shares, all) = services(400 + 2 * count, &vec![None; count]);
            let taken: Vec<_> = all.iter().map(take_all).collect();
            let sum: usize = taken.iter().map(Vec::len).sum();
            assert_eq!(sum as u64, shares.limit(), "{count} services");
            assert!(taken.iter().all(|places| !places.is_empty()), "{count} services");
        }
        assert_eq!(Shares::new(usize::MAX).limit(), CONNECTION_LIMIT as u64);
    }
}
