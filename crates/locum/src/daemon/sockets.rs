//! The advert sockets of the election thread: which are wanted, which are open, what they hear.
//!
//! ```text
//!   Listen, links ──► entry of one interface and family ──► opener thread ──► two sockets
//!   Masters ────────► whose adverts come by the first of them, with room of their own
//!   Advertise ──────► sent by the second in batches, or waits a moment until it is open
//! ```
//!
//! Sockets are opened when the engine listens on an interface that exists, and again when it comes
//! back under another index. Nothing here waits: what takes the kernel's lock on its interfaces is
//! done by the [`opener`].

mod entry;
mod flood;
mod opener;
mod pace;

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use locum_engine::{LinkState, Listen, Masters, OutgoingAdvert};
use locum_kernel::advert_socket::{AdvertSocket, ReceiveBatch, SendBatch};
use locum_kernel::poller::Poller;
use locum_plan::Name;
use locum_vrrp::{Family, Time};

use entry::Entry;
use opener::{Lanes, Opener, OpenerRequest};

pub use entry::SocketFault;
pub use opener::Opened;
pub use pace::Pace;

/// Stands for the inbox among the tokens of the sockets.
const INBOX: u64 = u64::MAX;

#[derive(Debug)]
pub struct AdvertSockets {
    entries: Vec<Entry>,
    /// Those that exist, whatever is wanted: what is wanted next may lie on any of them.
    links: HashMap<Name, SocketLink>,
    opener: Opener,
    /// What the opener had no room for.
    closing: Vec<Lanes>,
    poller: Poller,
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct SocketLink {
    index: u32,
    running: bool,
}

/// One socket that can be read. It may be closed before it is.
#[derive(Clone, Copy, Debug)]
pub struct Readable(u64);

impl Readable {
    fn new(entry: u64, side: Side) -> Self {
        Self(entry << 1 | side as u64)
    }

    const fn entry(self) -> u64 {
        self.0 >> 1
    }

    /// It is a matter of their own room that they are read; the others must leave time for timers.
    pub const fn is_of_masters(self) -> bool {
        self.0 & 1 == Side::Masters as u64
    }
}

#[derive(Clone, Copy)]
enum Side {
    Masters,
    Others,
}

/// What a read gave.
#[derive(Debug)]
pub enum ReadResult {
    /// The batch has something, and whether there are too many foreign datagrams, or not any more.
    Datagrams(Name, Family, Option<SocketFault>),
    Empty,
    /// The sockets were closed, and why.
    Broken(SocketFault),
}

/// What a change of the sockets or a try to send has brought to light.
#[derive(Debug, Default)]
pub struct SocketOutcome {
    /// Adverts that were not sent and will not be.
    pub unsent: Vec<OutgoingAdvert>,
    pub faults: Vec<SocketFault>,
}

impl AdvertSockets {
    /// `deliver` brings the answers of the opener back to [`AdvertSockets::opened`].
    ///
    /// # Errors
    /// When no thread can be started or there is no descriptor left.
    pub fn start(deliver: impl Fn(Opened) + Send + 'static) -> io::Result<Self> {
        Self::with(Opener::start(AdvertSocket::open, deliver)?)
    }

    fn with(opener: Opener) -> io::Result<Self> {
        Ok(Self {
            entries: Vec::new(),
            links: HashMap::new(),
            opener,
            closing: Vec::new(),
            poller: Poller::new()?,
            next_id: 0,
        })
    }

    /// The inbox ends every wait from now on.
    ///
    /// # Errors
    /// When the kernel's limit on watches is reached.
    pub fn watch_inbox(&self, inbox: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.add(inbox, INBOX)
    }

    /// Until a socket can be read, the inbox rings or the time has passed: what can be read, the
    /// masters' first.
    pub fn wait(&mut self, limit: Option<Duration>) -> Vec<Readable> {
        let tokens = self.poller.wait(limit).filter(|token| *token != INBOX);
        let mut readable: Vec<_> = tokens.map(Readable).collect();
        readable.sort_unstable_by_key(|one| !one.is_of_masters());
        readable
    }

    /// Makes the sockets exactly these, as soon as they are open.
    pub fn listen(&mut self, wanted: Vec<Listen>, now: Time) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        let key = |listen: &Listen| (listen.interface.clone(), listen.family);
        let mut closing = Vec::new();
        self.entries.retain_mut(|entry| {
            let is_wanted = wanted.iter().any(|listen| key(listen) == key(&entry.listen));
            if !is_wanted {
                entry.give_up(&mut outcome.unsent);
                closing.extend(entry.close());
            }
            is_wanted
        });
        closing.into_iter().for_each(|lanes| self.close(lanes));
        for listen in wanted {
            let known = |entry: &&mut Entry| key(&entry.listen) == key(&listen);
            if let Some(entry) = self.entries.iter_mut().find(known) {
                entry.relisten(listen);
                continue;
            }
            let mut entry = Entry::new(self.next_id, listen);
            self.next_id += 1;
            entry.index = self.links.get(&entry.listen.interface).map_or(0, |link| link.index);
            self.entries.push(entry);
        }
        self.open_where_needed(now, |_| true, &mut outcome);
        outcome
    }

    /// The adverts of these sources get room of their own.
    pub fn follow_masters(&mut self, masters: Masters, now: Time) {
        let Masters { interface, family, sources } = masters;
        if let Some(entry) = self.find(&interface, family) {
            entry.follow_masters(sources, now);
        }
    }

    /// Follows a link: opens, opens anew, closes or joins again.
    pub fn follow_link(&mut self, link: &LinkState, now: Time) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        let state = SocketLink { index: link.index, running: link.running };
        let before = self.links.insert(link.name.clone(), state);
        let came_up = link.running && before.is_none_or(|before| !before.running);
        let mut closing = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.listen.interface == link.name) {
            if entry.index != link.index {
                entry.give_up(&mut outcome.unsent);
                closing.extend(entry.close());
                entry.index = link.index;
            } else if came_up && let Some(lanes) = &entry.lanes {
                // A switch that forgot us hears of the membership again. Without room for the
                // request it does not, which shows as silence.
                let groups = entry.listen.groups.clone();
                let _ = self.opener.ask(OpenerRequest::Rejoin(lanes.clone(), groups));
            }
        }
        closing.into_iter().for_each(|lanes| self.close(lanes));
        self.open_where_needed(now, |entry| entry.listen.interface == link.name, &mut outcome);
        outcome
    }

    /// There is no link of this name any more: closes its sockets.
    pub fn forget_link(&mut self, name: &Name) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        self.links.remove(name);
        let mut closing = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.listen.interface == *name) {
            entry.give_up(&mut outcome.unsent);
            closing.extend(entry.close());
            entry.index = 0;
        }
        closing.into_iter().for_each(|lanes| self.close(lanes));
        outcome
    }

    /// The answer of the opener: what has waited for it is sent.
    pub fn opened(&mut self, opened: Opened, batch: &mut SendBatch, now: Time) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        let Opened { opening, result } = opened;
        let asks = |entry: &&mut Entry| entry.opening.as_ref() == Some(&opening);
        let Some(entry) = self.entries.iter_mut().find(asks) else {
            // It is not wanted any more.
            result.into_iter().for_each(|lanes| self.close(lanes));
            return outcome;
        };
        entry.opening = None;
        let registered = result.and_then(|lanes| register(&self.poller, entry.id, lanes));
        let (fault, old) = match registered {
            Ok(lanes) => {
                let old = entry.opened(lanes, opening);
                let sent = entry.send(batch, now, &mut outcome.unsent);
                (sent.or_else(|| entry.changed(None, now)), old)
            }
            Err(error) => (entry.open_failed(&error, now, &mut outcome.unsent), None),
        };
        outcome.faults.extend(fault);
        old.into_iter().for_each(|lanes| self.close(lanes));
        outcome
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        for lanes in std::mem::take(&mut self.closing) {
            self.close(lanes);
        }
        for entry in self.entries.iter_mut().filter(|e| e.due_at().is_some_and(|at| at <= now)) {
            let fault = entry.tick(now, &mut outcome.unsent);
            outcome.faults.extend(fault);
        }
        self.open_where_needed(now, |e| e.retry_at.is_some_and(|at| at <= now), &mut outcome);
        outcome
    }

    /// When [`AdvertSockets::tick`] has something to do.
    pub fn due_at(&self) -> Option<Time> {
        self.entries.iter().filter_map(Entry::due_at).min()
    }

    /// Reads what there is now, at most one batch.
    pub fn receive(
        &mut self,
        readable: Readable,
        batch: &mut ReceiveBatch,
        now: Time,
    ) -> ReadResult {
        let is_it = |entry: &&mut Entry| entry.id == readable.entry();
        let Some(entry) = self.entries.iter_mut().find(is_it) else { return ReadResult::Empty };
        let Some(lanes) = &entry.lanes else { return ReadResult::Empty };
        let socket = if readable.is_of_masters() { &lanes.masters } else { &lanes.others };
        match socket.receive(batch) {
            Ok(()) if batch.is_empty() => ReadResult::Empty,
            Ok(()) => {
                let fault = entry.has_read(batch, now);
                ReadResult::Datagrams(entry.listen.interface.clone(), entry.listen.family, fault)
            }
            Err(error) if entry.read_failed() => {
                let index = entry.index;
                let lanes = entry.close();
                entry.index = index;
                entry.retry_at = Some(now + entry::RETRY);
                let fault = entry.changed(Some(format!("cannot receive adverts: {error}")), now);
                lanes.into_iter().for_each(|lanes| self.close(lanes));
                fault.map_or(ReadResult::Empty, ReadResult::Broken)
            }
            Err(_) => ReadResult::Empty,
        }
    }

    /// Sends adverts, those of one socket together and in order. For one that cannot be sent and
    /// does not wait for its socket, why has been reported.
    pub fn send(
        &mut self,
        adverts: &mut Vec<OutgoingAdvert>,
        batch: &mut SendBatch,
        now: Time,
    ) -> SocketOutcome {
        let mut outcome = SocketOutcome::default();
        for datagram in adverts.drain(..) {
            match self.find(&datagram.interface, Family::of(&datagram.destination)) {
                Some(entry) => entry.outgoing.push(datagram),
                None => outcome.unsent.push(datagram),
            }
        }
        for entry in self.entries.iter_mut().filter(|entry| !entry.outgoing.is_empty()) {
            let fault = entry.send(batch, now, &mut outcome.unsent);
            outcome.faults.extend(fault);
        }
        outcome
    }

    fn find(&mut self, interface: &Name, family: Family) -> Option<&mut Entry> {
        let fits = |listen: &Listen| listen.family == family && listen.interface == *interface;
        self.entries.iter_mut().find(|entry| fits(&entry.listen))
    }

    fn open_where_needed(
        &mut self,
        now: Time,
        among: impl Fn(&Entry) -> bool,
        outcome: &mut SocketOutcome,
    ) {
        for entry in self.entries.iter_mut().filter(|entry| among(entry)) {
            entry.retry_at = None;
            // Without a link the instance is in fault and says so itself.
            if entry.index == 0 || !entry.needs_sockets() {
                continue;
            }
            let opening = entry.wanted();
            match self.opener.ask(OpenerRequest::Open(Box::new(opening.clone()))) {
                Ok(()) => entry.opening = Some(opening),
                Err(_) => {
                    let error = io::Error::other("too many others are being opened");
                    let fault = entry.open_failed(&error, now, &mut outcome.unsent);
                    outcome.faults.extend(fault);
                }
            }
        }
    }

    /// Closing takes the kernel's lock too.
    fn close(&mut self, lanes: Lanes) {
        // One that was never registered is none the worse for it.
        let _ = self.poller.remove(&*lanes.masters);
        let _ = self.poller.remove(&*lanes.others);
        if let Err(OpenerRequest::Close(lanes)) = self.opener.ask(OpenerRequest::Close(lanes)) {
            self.closing.push(lanes);
        }
    }
}

fn register(poller: &Poller, entry: u64, lanes: Lanes) -> io::Result<Lanes> {
    poller.add(&*lanes.masters, Readable::new(entry, Side::Masters).0)?;
    poller.add(&*lanes.others, Readable::new(entry, Side::Others).0)?;
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    /// Sockets whose opener waits for [`Rig::answer`] and then fails.
    struct Rig {
        sockets: AdvertSockets,
        /// The thread that opens a socket.
        asked: mpsc::Receiver<ThreadId>,
        gate: mpsc::Sender<io::ErrorKind>,
        answers: mpsc::Receiver<Opened>,
    }

    impl Rig {
        fn new() -> Self {
            let (asks, asked) = mpsc::channel();
            let (gate, opens) = mpsc::channel();
            let (delivers, answers) = mpsc::channel();
            let open = move |_: &_| {
                asks.send(thread::current().id()).unwrap();
                Err(io::Error::from(opens.recv().unwrap_or(io::ErrorKind::Other)))
            };
            let deliver = move |opened| drop(delivers.send(opened));
            let sockets = AdvertSockets::with(Opener::start(open, deliver).unwrap()).unwrap();
            Self { sockets, asked, gate, answers }
        }

        fn answer(&mut self, now: Time) -> SocketOutcome {
            self.gate.send(io::ErrorKind::PermissionDenied).unwrap();
            let opened = self.answers.recv().unwrap();
            self.sockets.opened(opened, &mut SendBatch::default(), now)
        }

        fn send(&mut self, now: Time) -> SocketOutcome {
            self.sockets.send(&mut vec![advert()], &mut SendBatch::default(), now)
        }
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn listen(interface: &str, groups: &[&str]) -> Listen {
        Listen {
            interface: interface.into(),
            family: Family::V4,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            routers: Vec::new(),
            unicast_hop_limit: Some(0),
            auth: None,
        }
    }

    fn link(name: &str, index: u32) -> LinkState {
        LinkState {
            name: name.into(),
            index,
            running: true,
            mac: None,
            mtu: 1500,
            addresses: Vec::new(),
            forwards_v6: false,
        }
    }

    fn advert() -> OutgoingAdvert {
        OutgoingAdvert {
            instance: locum_engine::InstanceId::new(7),
            interface: "v0".into(),
            interface_index: 7,
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            destination: Ipv4Addr::new(224, 0, 0, 18).into(),
            ttl: 255,
            message: Vec::new(),
        }
    }

    #[test]
    fn links_that_went_away_are_forgotten() {
        let mut rig = Rig::new();
        for number in 1..=1000 {
            let link = link(&format!("veth{number}"), number);
            rig.sockets.follow_link(&link, Time::ZERO);
            assert_eq!(rig.sockets.links.len(), 1);
            rig.sockets.forget_link(&link.name);
        }
        assert!(rig.sockets.links.is_empty());
    }

    /// While another program holds the kernel's lock, opening takes as long as it likes.
    #[test]
    fn sockets_are_opened_by_another_thread_and_adverts_wait_a_moment_for_them() {
        let mut rig = Rig::new();
        rig.sockets.follow_link(&link("v0", 7), at(0));
        rig.sockets.listen(vec![listen("v0", &["224.0.0.18"])], at(0));
        assert_ne!(rig.asked.recv().unwrap(), thread::current().id());
        assert!(rig.send(at(10)).unsent.is_empty(), "it waits");
        assert_eq!(rig.sockets.due_at(), Some(at(110)));
        assert!(rig.sockets.tick(at(109)).unsent.is_empty());
        assert_eq!(rig.sockets.tick(at(110)).unsent.len(), 1, "it is late by now");
        rig.send(at(120));
        let outcome = rig.answer(at(130));
        assert_eq!(outcome.unsent.len(), 1, "there is no socket to wait for");
        assert!(outcome.faults[0].contains("CAP_NET_RAW"), "{:?}", outcome.faults);
        assert_eq!(rig.send(at(140)).unsent.len(), 1);
        assert_eq!(rig.sockets.due_at(), Some(at(1130)), "then it is tried again");
        assert!(rig.sockets.tick(at(1130)).faults.is_empty());
        rig.asked.recv().unwrap();
    }

    #[test]
    fn an_answer_for_what_is_not_wanted_any_more_is_nobodys() {
        let mut rig = Rig::new();
        rig.sockets.follow_link(&link("v0", 7), at(0));
        rig.sockets.listen(vec![listen("v0", &[])], at(0));
        rig.sockets.follow_link(&link("v0", 8), at(0));
        rig.sockets.listen(vec![listen("v0", &["224.0.0.18"])], at(0));
        assert!(rig.answer(at(1)).faults.is_empty(), "of another link");
        assert!(rig.answer(at(2)).faults.is_empty(), "without the group");
        assert_eq!(rig.answer(at(3)).faults.len(), 1);
        rig.sockets.tick(at(1003));
        rig.sockets.listen(Vec::new(), at(1004));
        assert!(rig.answer(at(1005)).faults.is_empty());
    }

    #[test]
    fn more_adverts_than_can_wait_are_unsent_at_once() {
        let mut rig = Rig::new();
        rig.sockets.follow_link(&link("v0", 7), at(0));
        rig.sockets.listen(vec![listen("v0", &[])], at(0));
        let unsent = (0..1030).map(|_| rig.send(at(0)).unsent.len());
        assert_eq!(unsent.sum::<usize>(), 6);
    }
}
