//! The election thread: the engine, its sockets and its deadline.
//!
//! ```text
//!        ┌───────────────────── wait until the deadline ◄──────────────┐
//!        ▼                                                             │
//!   read adverts ──► fire the timer ──► take messages ──► execute outputs
//! ```
//!
//! While many adverts come, they gather for a moment between two reads; messages and the deadline
//! do not wait for them.
//!
//! Adverts are read before timers fire, so that a thread that was kept from running does not take
//! a master for dead whose adverts are waiting. It never blocks, takes no lock and writes no log:
//! every queue it fills is tried once, and what happens when it is full stands beside the try.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use locum_check::Probes;
use locum_engine::{
    CommandId, Engine, Event, HookRun, Input, InstanceId, OutgoingAdvert, Output, Packet,
    ProbeChange, Reply, SendReport,
};
use locum_kernel::advert_socket::{ReceiveBatch, SendBatch};
use locum_kernel::{clock, poller};
use locum_vrrp::{Family, Time};
use tokio::sync::mpsc::error::TrySendError as TrySend;
use tokio::sync::mpsc::{Sender, UnboundedSender};
use tokio::sync::oneshot;

use super::applier::{Apply, Job, JobSender, Levels};
use super::balancer_thread::BalancerJob;
use super::inbox::{InboxReceiver, Message};
use super::sockets::{AdvertSockets, Pace, ReadResult, Readable, SocketFault, SocketOutcome};

/// Batches of adverts read from one socket before timers have their turn: more than a socket's
/// buffer holds, and a flood cannot hold up the timers for longer than about two milliseconds.
const MAX_BATCHES: usize = 32;

/// The same for senders that are nobody's master while a timer is due already.
const MAX_BATCHES_WHEN_DUE: usize = 8;

/// Messages taken before adverts and timers have their turn again.
const MAX_MESSAGES: usize = 64;

/// The largest advert: IP header with options, VRRP header, 255 IPv6 addresses.
const ADVERT_BYTES: usize = 60 + 8 + 255 * 16 + 8;

/// Pause before a full queue is tried again.
const OFFER_AGAIN: Duration = Duration::from_millis(10);

/// Room for outputs that is kept from one input to the next: what the timers that are due together
/// need, some 200 KiB on a node that has so many. To give it back and to ask for it again with every
/// drain costs more than the drain.
const KEPT_OUTPUTS: usize = 1024;

/// Where outputs go.
pub struct Sinks {
    pub applier: JobSender,
    pub balancer: SyncSender<BalancerJob>,
    pub probes: Probes,
    pub reports: Sender<ElectionReport>,
    /// Unbounded, so that no hook is lost: see where it is created.
    pub hooks: UnboundedSender<HookRun>,
    pub dropped: Arc<Dropped>,
    /// Told, once, when everything is handed over.
    pub stopped: Option<oneshot::Sender<()>>,
}

/// What found no room, counted.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Lines for log and history, and announcements.
    pub reports: AtomicU64,
}

/// For the log and the history.
#[derive(Debug)]
pub enum ElectionReport {
    Event(Event),
    /// Something wrong with sending or receiving, or right again.
    Socket(String),
}

pub struct Election {
    engine: Engine,
    inbox: InboxReceiver,
    sockets: AdvertSockets,
    sinks: Sinks,
    deadline: Option<Time>,
    out: Vec<Output>,
    /// Lent out while its datagrams are fed.
    received: Option<Box<ReceiveBatch>>,
    send_batch: SendBatch,
    pace: Pace,
    /// Of the drain under way: those that leave together are sent together.
    adverts: Vec<OutgoingAdvert>,
    /// The newest level of each owner that the applier's queue had no room for. It is offered
    /// again: a slow applier gets fewer levels, and loses none that counts.
    unapplied: Levels,
    /// Adverts that could not be sent, by instance, for the engine to count.
    unsent: BTreeMap<InstanceId, u64>,
    /// The newest level that the balancer's queue had no room for.
    unserved: Option<BalancerJob>,
    answers: HashMap<CommandId, oneshot::Sender<Reply>>,
    next_command: CommandId,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Wait,
    End,
}

impl Election {
    pub fn new(inbox: InboxReceiver, sockets: AdvertSockets, sinks: Sinks) -> Self {
        Self {
            engine: Engine::new(),
            inbox,
            sockets,
            sinks,
            deadline: None,
            out: Vec::new(),
            received: None,
            send_batch: SendBatch::default(),
            pace: Pace::default(),
            adverts: Vec::new(),
            unapplied: Levels::default(),
            unsent: BTreeMap::new(),
            unserved: None,
            answers: HashMap::new(),
            next_command: 0,
        }
    }

    /// Until [`Message::End`].
    pub fn run(mut self) {
        loop {
            self.gather();
            let readable = self.wait();
            self.read_adverts(&readable);
            self.fire_timers();
            if self.take_messages() == Next::End {
                return;
            }
        }
    }

    /// Lets adverts gather while many come, until there is anything else to do.
    fn gather(&self) {
        let now = now();
        let Some(limit) = self.pace.gathers_for(now) else { return };
        let due = self.deadline.map_or(limit, |deadline| deadline.since(now));
        poller::wait_for(&self.inbox, limit.min(due));
    }

    /// The sockets that have something, when there is anything to do.
    fn wait(&mut self) -> Vec<Readable> {
        let now = now();
        let congested = !self.unapplied.is_empty() || self.unserved.is_some();
        let offer_at = congested.then(|| now + OFFER_AGAIN);
        let wakes = [self.deadline, self.sockets.due_at(), offer_at];
        let wake = wakes.into_iter().flatten().min();
        self.sockets.wait(wake.map(|wake| wake.since(now)))
    }

    fn read_adverts(&mut self, readable: &[Readable]) {
        if readable.is_empty() {
            return;
        }
        self.pace.has_read(now());
        let mut batch =
            self.received.take().unwrap_or_else(|| Box::new(ReceiveBatch::new(ADVERT_BYTES)));
        for &socket in readable {
            for number in 1..=MAX_BATCHES {
                match self.sockets.receive(socket, &mut batch, now()) {
                    ReadResult::Datagrams(interface, family, fault) => {
                        self.report_faults(fault);
                        self.feed_adverts(&interface, family, &batch);
                    }
                    ReadResult::Empty => break,
                    ReadResult::Broken(fault) => {
                        self.report_faults([fault]);
                        break;
                    }
                }
                let others_wait = !socket.is_of_masters() && number >= MAX_BATCHES_WHEN_DUE;
                if !batch.is_full() || others_wait && self.is_due() {
                    break;
                }
            }
        }
        self.received = Some(batch);
    }

    fn feed_adverts(&mut self, interface: &str, family: Family, batch: &ReceiveBatch) {
        for (received, bytes) in batch.iter() {
            self.feed(Input::Packet(Packet {
                interface,
                family,
                bytes,
                source: received.source,
                destination: received.destination,
                hop_limit: received.hop_limit,
                truncated: received.truncated,
            }));
        }
    }

    fn is_due(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now())
    }

    fn fire_timers(&mut self) {
        let now = now();
        let outcome = self.sockets.tick(now);
        self.note(outcome);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.feed(Input::Timeout);
        }
        if let Some(job) = self.unserved.take() {
            self.offer(job);
        }
        self.offer_levels();
        for (instance, advert_errors) in std::mem::take(&mut self.unsent) {
            let report = SendReport { advert_errors, ..SendReport::default() };
            self.feed(Input::Sent { instance, report });
        }
    }

    fn take_messages(&mut self) -> Next {
        self.inbox.quiet();
        for _ in 0..MAX_MESSAGES {
            let Some(message) = self.inbox.next() else { return Next::Wait };
            if self.receive(message) == Next::End {
                return Next::End;
            }
            // A message may take the engine's time; adverts that came meanwhile are not late yet,
            // but a timer may be.
            if self.deadline.is_some_and(|deadline| deadline <= now()) {
                break;
            }
        }
        // There may be more behind the last one taken.
        self.inbox.ring();
        Next::Wait
    }

    fn receive(&mut self, message: Message) -> Next {
        match message {
            Message::Input(input) => self.follow_and_feed(input),
            Message::Inputs(inputs) => {
                inputs.into_iter().for_each(|input| self.follow_and_feed(input));
            }
            Message::Command { command, answer } => {
                let id = self.keep(answer);
                self.feed(Input::Command { id, command });
            }
            Message::Plan { plan, inherited, answer } => {
                let id = self.keep(answer);
                self.feed(Input::Plan { id, plan, inherited });
            }
            Message::Opened(opened) => {
                let outcome = self.sockets.opened(*opened, &mut self.send_batch, now());
                self.note(outcome);
            }
            Message::Status { answer } => {
                let now = now();
                let _ = answer.send((now, self.engine.status(now)));
            }
            Message::End => return Next::End,
        }
        Next::Wait
    }

    /// Keeps who waits for the engine's reply.
    fn keep(&mut self, answer: oneshot::Sender<Reply>) -> CommandId {
        self.next_command += 1;
        self.answers.insert(self.next_command, answer);
        self.next_command
    }

    /// The sockets first, so that what the engine sends has one to leave by.
    fn follow_and_feed(&mut self, input: Input<'static>) {
        match &input {
            Input::Link(link) => {
                let outcome = self.sockets.follow_link(link, now());
                self.note(outcome);
            }
            Input::LinkGone { name } => {
                let outcome = self.sockets.forget_link(name);
                self.note(outcome);
            }
            _ => {}
        }
        self.feed(input);
    }

    /// One input, full drain.
    fn feed(&mut self, input: Input<'_>) {
        self.engine.handle(now(), input, &mut self.out);
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Advertise(datagram) => self.adverts.push(datagram),
                output => {
                    // Adverts come before what follows from them.
                    self.send_adverts();
                    self.execute(output);
                }
            }
        }
        self.send_adverts();
        // What a start or a promotion of thousands needs once is given back.
        out.shrink_to(KEPT_OUTPUTS);
        self.adverts.shrink_to(KEPT_OUTPUTS);
        self.out = out;
        self.offer_levels();
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Advertise(datagram) => self.adverts.push(datagram),
            Output::Apply { seq, owner, hold, drop } => {
                self.unapplied.put(Apply { seq, owner, hold, drop });
            }
            Output::Announce { instance, until, frames } => {
                // An announcement without room is lost like one on the wire: the next burst or
                // refresh repeats it.
                let job = Job::Announce { instance, until, frames };
                if self.sinks.applier.try_send(job).is_err() {
                    self.sinks.dropped.reports.fetch_add(1, Ordering::Relaxed);
                }
            }
            Output::Serve { seq, wanted } => self.offer(BalancerJob::Serve { seq, wanted }),
            Output::Notify(event) => self.report(ElectionReport::Event(event)),
            Output::Hook(run) => {
                // Its receiver goes only with the process.
                let _ = self.sinks.hooks.send(run);
            }
            Output::Probe(ProbeChange::Start { probe, spec }) => {
                self.sinks.probes.start(probe, spec);
            }
            Output::Probe(ProbeChange::Stop { probe }) => self.sinks.probes.stop(probe),
            Output::Listen(wanted) => {
                let outcome = self.sockets.listen(wanted, now());
                self.note(outcome);
            }
            Output::Masters(masters) => self.sockets.follow_masters(masters, now()),
            Output::Reply { id, reply } => {
                if let Some(answer) = self.answers.remove(&id) {
                    // The client may have gone away.
                    let _ = answer.send(reply);
                }
            }
            Output::Stopped => {
                if let Some(stopped) = self.sinks.stopped.take() {
                    let _ = stopped.send(());
                }
            }
            Output::Deadline(deadline) => self.deadline = deadline,
        }
    }

    /// Gives the applier what it has room for; the rest waits, the newest level of each owner.
    fn offer_levels(&mut self) {
        self.sinks.applier.offer(&mut self.unapplied);
    }

    /// Hands the newest level to the balancer, or keeps it in place of an older one that found no
    /// room either.
    fn offer(&mut self, job: BalancerJob) {
        self.unserved = match self.sinks.balancer.try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(job)) => Some(job),
            // Its thread ends only with the process.
            Err(TrySendError::Disconnected(_)) => None,
        };
    }

    /// Without room a report is counted and forgotten: the log is behind by thousands of lines.
    fn report(&self, report: ElectionReport) {
        if let Err(TrySend::Full(_) | TrySend::Closed(_)) = self.sinks.reports.try_send(report) {
            self.sinks.dropped.reports.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn report_faults(&self, faults: impl IntoIterator<Item = SocketFault>) {
        faults.into_iter().for_each(|fault| self.report(ElectionReport::Socket(fault)));
    }

    fn send_adverts(&mut self) {
        if self.adverts.is_empty() {
            return;
        }
        let outcome = self.sockets.send(&mut self.adverts, &mut self.send_batch, now());
        self.note(outcome);
    }

    /// Counts adverts that were not sent, and reports why.
    fn note(&mut self, outcome: SocketOutcome) {
        for datagram in outcome.unsent {
            *self.unsent.entry(datagram.instance).or_default() += 1;
        }
        self.report_faults(outcome.faults);
    }
}

fn now() -> Time {
    Time::from_nanos(clock::now())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use locum_engine::{Announcement, Fact, HeldAddress, HookOwner, Owner, Seq};
    use locum_plan::{VirtualAddress, WantedServices};

    use super::super::applier::queue;
    use super::super::inbox::inbox;
    use super::*;

    /// An election whose queues have room for one thing each.
    struct Rig {
        election: Election,
        jobs: tokio::sync::mpsc::Receiver<Job>,
        balancer_jobs: mpsc::Receiver<BalancerJob>,
        _reports: tokio::sync::mpsc::Receiver<ElectionReport>,
        hooks: tokio::sync::mpsc::UnboundedReceiver<HookRun>,
    }

    impl Rig {
        fn new() -> Self {
            let (applier, jobs) = queue(1, 3);
            let (balancer, balancer_jobs) = mpsc::sync_channel(1);
            let (reports, _reports) = tokio::sync::mpsc::channel(1);
            let (hook_sender, hooks) = tokio::sync::mpsc::unbounded_channel();
            let sinks = Sinks {
                applier,
                balancer,
                probes: Probes::spawn(|_| {}).unwrap(),
                reports,
                hooks: hook_sender,
                dropped: Arc::default(),
                stopped: None,
            };
            let (_, receiver) = inbox().unwrap();
            let sockets = AdvertSockets::start(|_| {}).unwrap();
            let election = Election::new(receiver, sockets, sinks);
            Self { election, jobs, balancer_jobs, _reports, hooks }
        }

        fn apply(&mut self, seq: Seq, owner: Owner) {
            let (hold, drop) = ([Fact::Address(held())].into(), Vec::new());
            self.election.execute(Output::Apply { seq, owner, hold, drop });
            self.election.offer_levels();
        }

        /// Owner and number of the levels the applier takes next.
        fn applied(&mut self) -> Vec<(Owner, Seq)> {
            match self.jobs.try_recv() {
                Ok(Job::Apply(batch)) => {
                    let levels = batch.take();
                    levels.parts(usize::MAX).flatten().map(|one| (one.owner, one.seq)).collect()
                }
                Ok(Job::Announce { .. } | Job::Flush(_)) | Err(_) => Vec::new(),
            }
        }

        fn announce(&mut self) {
            let frame = Announcement {
                interface: "eth0".into(),
                interface_index: 2,
                address: held().address.address,
                frame: Arc::default(),
            };
            let (until, frames) = (now(), vec![frame]);
            self.election.execute(Output::Announce { instance: instance(), until, frames });
        }

        fn serve(&mut self, seq: Seq) {
            let wanted = Arc::new(WantedServices::default());
            self.election.execute(Output::Serve { seq, wanted });
        }

        fn served(&self) -> Option<Seq> {
            match self.balancer_jobs.try_recv() {
                Ok(BalancerJob::Serve { seq, .. }) => Some(seq),
                Ok(BalancerJob::Status(_) | BalancerJob::Idle(_) | BalancerJob::Settle { .. })
                | Err(_) => None,
            }
        }

        fn dropped(&self) -> u64 {
            self.election.sinks.dropped.reports.load(Ordering::Relaxed)
        }
    }

    fn instance() -> InstanceId {
        InstanceId::new(7)
    }

    fn held() -> HeldAddress {
        HeldAddress {
            interface: "eth0".into(),
            address: VirtualAddress::new(Ipv4Addr::new(192, 0, 2, 10).into(), 24),
            lease_seconds: None,
        }
    }

    /// V-057.
    #[test]
    fn an_advert_that_cannot_be_sent_is_counted_by_the_engine() {
        let mut rig = Rig::new();
        let datagram = OutgoingAdvert {
            instance: instance(),
            interface: "eth0".into(),
            interface_index: 2,
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            destination: Ipv4Addr::new(224, 0, 0, 18).into(),
            ttl: 255,
            message: Vec::new(),
        };
        rig.election.execute(Output::Advertise(datagram.clone()));
        rig.election.execute(Output::Advertise(datagram));
        rig.election.send_adverts();
        assert_eq!(rig.election.unsent, [(instance(), 2)].into(), "no socket is open");
        rig.election.fire_timers();
        assert!(rig.election.unsent.is_empty(), "told");
    }

    #[test]
    fn a_hook_arrives_however_far_behind_log_and_history_are() {
        let mut rig = Rig::new();
        let hook = |event| HookRun {
            owner: HookOwner::Instance("web".into()),
            command: locum_plan::Command::argv(["true"]),
            environment: Vec::new(),
            event,
        };
        rig.election.report(ElectionReport::Socket(String::new()));
        (1..=5000).for_each(|event| rig.election.execute(Output::Hook(hook(event))));
        for event in 1..=5000 {
            assert_eq!(rig.hooks.try_recv().ok(), Some(hook(event)));
        }
    }

    /// A full queue is nobody's fault: the newest level of each owner waits for room.
    #[test]
    fn a_level_without_room_waits_and_a_newer_one_of_its_owner_takes_its_place() {
        let mut rig = Rig::new();
        let web = Owner::Instance(instance());
        rig.apply(1, web);
        rig.apply(2, web);
        rig.apply(3, Owner::Nobody);
        rig.apply(4, web);
        rig.announce();
        assert_eq!(rig.dropped(), 1, "an announcement without room is lost");
        assert_eq!(rig.applied(), [(web, 1)]);
        rig.election.fire_timers();
        assert_eq!(rig.applied(), [(web, 4), (Owner::Nobody, 3)]);
        rig.election.fire_timers();
        assert_eq!(rig.applied(), []);
    }

    #[test]
    fn the_newest_level_is_kept_until_the_balancer_has_room() {
        let mut rig = Rig::new();
        (1..=4).for_each(|seq| rig.serve(seq));
        assert_eq!(rig.served(), Some(1));
        rig.election.fire_timers();
        assert_eq!(rig.served(), Some(4));
        rig.election.fire_timers();
        assert_eq!(rig.served(), None);
    }

    #[test]
    fn reports_without_room_are_counted() {
        let mut rig = Rig::new();
        (0..3).for_each(|_| rig.election.report(ElectionReport::Socket(String::new())));
        assert_eq!(rig.dropped(), 2);
        rig.announce();
        assert_eq!(rig.dropped(), 2);
    }
}
