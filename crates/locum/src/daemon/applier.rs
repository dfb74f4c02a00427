//! The applier thread: makes the kernel have what the instances want, sends announcements, and
//! reports what links and addresses do to the election.
//!
//! ```text
//!   election ──► Job queue ──► all that wait at once ──► Netlink.apply_all ──► FrameSocket
//!      ▲                                                     │
//!      └── Applied, Sent, Link, FactLost ◄──────────────────┴──── Netlink.next
//! ```
//!
//! Of several levels of one owner that wait, only the newest is carried out: it says all that the
//! others said. So a slow kernel gets fewer levels, and none is lost that counts.

mod address;
mod handover;
mod kind;
mod levels;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use locum_engine::{Announcement, Inherited, Input, LinkState, SendReport};
use locum_kernel::frame_socket::{Batch, FrameSocket};
use locum_kernel::netlink::{self, LinkSnapshot, MonitorEvent, Netlink};
use locum_kernel::nftables::Handovers;
use locum_plan::{Name, Plan};
use locum_vrrp::Time;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::address::Addresses;
pub use self::kind::Apply;
use self::kind::{ApplyRound, FactKind};
pub use self::levels::{Job, JobSender, Levels, queue};
use super::inbox::{InboxSender, Message};

/// Jobs waiting, and levels within them. When there is no room, the election keeps the newest level of
/// each owner and offers it again, and forgets announcements.
const QUEUE_JOBS: usize = 4096;
const QUEUE_LEVELS: usize = 4096;

/// Levels carried out at once: some milliseconds of the kernel's time, so that the answers to the
/// first of thousands do not wait for the last.
const MOST_AT_ONCE: usize = 256;

/// Netlink messages of a dump are parsed on this thread; the rest is shallow.
const STACK_BYTES: usize = 512 * 1024;

/// How long the first report of links may take before the plan is looked at without them.
const FIRST_LINKS_LIMIT: Duration = Duration::from_secs(2);

/// Pause between tries to reach the kernel again after its socket failed.
const RECONNECT: Duration = Duration::from_secs(1);

/// A thread that is getting to know the kernel.
pub struct Starting {
    pub jobs: JobSender,
    ready: oneshot::Receiver<io::Result<Vec<Inherited>>>,
}

impl Starting {
    /// What an earlier run left in the kernel, once the thread knows it and has sent to the inbox
    /// every link that the plan names.
    ///
    /// # Errors
    /// A sentence: the kernel cannot be spoken to.
    pub async fn ready(&mut self) -> Result<Vec<Inherited>, String> {
        let outcome = (&mut self.ready).await;
        outcome.unwrap_or_else(|_| Err(io::Error::other("its thread ended"))).map_err(|error| {
            format!(
                "cannot speak to the kernel's network: {error}: run as root, \
                 or with CAP_NET_ADMIN and CAP_NET_RAW"
            )
        })
    }
}

/// Starts the thread.
///
/// # Errors
/// When it cannot be had.
pub fn spawn(plan: &Plan, inbox: InboxSender) -> io::Result<Starting> {
    let (jobs, queue) = queue(QUEUE_JOBS, QUEUE_LEVELS);
    let (began, ready) = oneshot::channel();
    let names = interfaces(plan);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async move {
            match Applier::connect(inbox) {
                Ok((mut applier, inherited)) => {
                    applier.hear_first_links(names).await;
                    // Whoever started this waits for it.
                    let _ = began.send(Ok(inherited));
                    applier.run(queue).await;
                }
                Err(error) => drop(began.send(Err(error))),
            }
        });
    };
    thread::Builder::new().name("applier".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(Starting { jobs, ready })
}

/// The kinds of facts, in the order in which they depend on each other: what an earlier one needs is
/// there before, and goes after, what a later one builds on it.
fn kinds() -> Vec<Box<dyn FactKind>> {
    vec![Box::new(Handovers::connect()), Box::new(Addresses)]
}

struct Applier {
    netlink: Netlink,
    /// In the order in which they depend on each other.
    kinds: Vec<Box<dyn FactKind>>,
    frames: FrameSocket,
    inbox: InboxSender,
    /// Links reported so far, so that after a lost connection the vanished ones are reported too.
    known: BTreeSet<Name>,
}

impl Applier {
    fn connect(inbox: InboxSender) -> io::Result<(Self, Vec<Inherited>)> {
        let mut netlink = Netlink::connect()?;
        if !netlink::keeps_marks() {
            tracing::warn!(
                "this kernel is older than 5.18 and keeps no mark of addresses: after a crash they \
                 are not taken over but stay until their lease is over"
            );
        }
        let frames = FrameSocket::open()?;
        let mut kinds = kinds();
        let mut inherited = Vec::new();
        for kind in &mut kinds {
            inherited.extend(kind.inherited(&mut netlink)?);
        }
        Ok((Self { netlink, kinds, frames, inbox, known: BTreeSet::new() }, inherited))
    }

    /// Passes on what the monitor says until it has spoken of every existing link in `names`.
    async fn hear_first_links(&mut self, names: BTreeSet<Name>) {
        let mut missing: BTreeSet<Name> =
            names.into_iter().filter(|name| netlink::link_index(name).is_ok()).collect();
        let hear = async {
            while !missing.is_empty() {
                match self.netlink.next().await {
                    Ok(event) => {
                        if let MonitorEvent::Link(link) = &event {
                            missing.remove(&link.name);
                        }
                        self.pass_on(event);
                    }
                    Err(error) => return tracing::error!(%error, "link monitor failed"),
                }
            }
        };
        if timeout(FIRST_LINKS_LIMIT, hear).await.is_err() {
            tracing::warn!("the kernel is slow to report its links: going on without");
        }
    }

    async fn run(mut self, mut jobs: Receiver<Job>) {
        loop {
            tokio::select! {
                // Jobs first: what a flapping link causes must not delay an address.
                biased;
                job = jobs.recv() => match job {
                    Some(job) => self.work(job, &mut jobs),
                    None => return,
                },
                event = self.netlink.next() => match event {
                    Ok(event) => self.pass_on(event),
                    Err(error) => {
                        tracing::error!(%error, "link monitor failed: connecting again");
                        self.reconnect().await;
                    }
                },
            }
        }
    }

    /// This job and all that wait behind it: levels first, then what they let be announced.
    fn work(&mut self, first: Job, jobs: &mut Receiver<Job>) {
        let mut levels = Levels::default();
        let mut bursts = Vec::new();
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Apply(batch) => levels.append(batch.take()),
                Job::Announce { instance, until, frames } => bursts.push((instance, until, frames)),
                Job::Flush(done) => flushed.push(done),
            }
            next = if levels.len() < MOST_AT_ONCE { jobs.try_recv().ok() } else { None };
        }
        levels.parts(MOST_AT_ONCE).for_each(|part| self.apply(part));
        let mut inputs = Vec::with_capacity(bursts.len());
        for (instance, until, frames) in bursts {
            if Time::from_nanos(locum_kernel::clock::now()) <= until {
                let report = self.announce(&frames);
                inputs.push(Input::Sent { instance, report });
            }
        }
        self.report(inputs);
        for done in flushed {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
    }

    fn apply(&mut self, levels: &[Apply]) {
        let answers = levels.iter().map(|_| Ok(Vec::new())).collect();
        let mut round = ApplyRound { netlink: &mut self.netlink, levels, answers };
        self.kinds.iter_mut().for_each(|kind| kind.hold(&mut round));
        self.kinds.iter_mut().rev().for_each(|kind| kind.withdraw(&mut round));
        let ApplyRound { answers, .. } = round;
        let applied = levels.iter().zip(answers).map(|(level, result)| Input::Applied {
            seq: level.seq,
            owner: level.owner,
            result,
        });
        self.report(applied.collect());
    }

    fn report(&self, inputs: Vec<Input<'static>>) {
        if !inputs.is_empty() {
            self.inbox.send(Message::Inputs(inputs));
        }
    }

    fn announce(&self, frames: &[Announcement]) -> SendReport {
        let batch: Vec<(u32, &[u8])> =
            frames.iter().map(|frame| (frame.interface_index, &frame.frame[..])).collect();
        let result = self.frames.send_batch(&batch);
        if let Some((position, error)) = result.failed.first() {
            let (interface, address) = frames
                .get(*position)
                .map_or(("", None), |frame| (&*frame.interface, Some(frame.address)));
            tracing::warn!(
                failed = result.failed.len(), sent = result.sent, interface, ?address, %error,
                "some announcements could not be sent"
            );
        }
        report(frames, &result)
    }

    fn pass_on(&mut self, event: MonitorEvent) {
        let lost: Vec<_> = self.kinds.iter_mut().filter_map(|kind| kind.lost(&event)).collect();
        match event {
            MonitorEvent::Link(link) => {
                self.known.insert(link.name.clone());
                self.inbox.send(Message::Input(Input::Link(state(link))));
            }
            MonitorEvent::LinkGone { name } => {
                self.known.remove(&name);
                self.inbox.send(Message::Input(Input::LinkGone { name }));
            }
            // A kind knows it.
            MonitorEvent::AddressLost { .. } => {}
        }
        for (key, culprit) in lost {
            self.inbox.send(Message::Input(Input::FactLost { key, culprit }));
        }
    }

    /// New sockets in place of failed ones; every link is reported again.
    async fn reconnect(&mut self) {
        loop {
            match self.netlink.reconnect() {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "cannot connect to the kernel"),
            }
            tokio::time::sleep(RECONNECT).await;
        }
        let vanished: Vec<Name> =
            self.known.iter().filter(|name| netlink::link_index(name).is_err()).cloned().collect();
        for name in vanished {
            self.pass_on(MonitorEvent::LinkGone { name });
        }
    }
}

/// Frames by kind: those the kernel took, and all that it did not take.
fn report(frames: &[Announcement], batch: &Batch) -> SendReport {
    let failed: BTreeSet<usize> = batch.failed.iter().map(|(position, _)| *position).collect();
    let mut report = SendReport::default();
    for (position, frame) in frames.iter().enumerate() {
        match frame.address {
            _ if failed.contains(&position) => report.announce_errors += 1,
            IpAddr::V4(_) => report.garp += 1,
            IpAddr::V6(_) => report.na += 1,
        }
    }
    report
}

/// Every interface the plan speaks of.
fn interfaces(plan: &Plan) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for instance in &plan.instances {
        names.insert(instance.interface.clone());
        names.extend(instance.track.iter().filter_map(|track| track.object.interface().cloned()));
        names.extend(instance.addresses.iter().filter_map(|address| address.device().cloned()));
    }
    names
}

fn state(link: LinkSnapshot) -> LinkState {
    LinkState {
        name: link.name,
        index: link.index,
        running: link.running,
        mac: link.mac,
        mtu: link.mtu,
        addresses: link.addresses,
        forwards_v6: link.forwards_v6,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;

    /// G-022.
    #[test]
    fn frames_the_kernel_took_are_counted_by_kind_and_the_others_as_errors() {
        let frame = |address: IpAddr| Announcement {
            interface: "eth0".into(),
            interface_index: 2,
            address,
            frame: Arc::default(),
        };
        let v4 = frame(Ipv4Addr::new(192, 0, 2, 10).into());
        let v6 = frame("2001:db8::10".parse().unwrap());
        let frames = [v4.clone(), v6.clone(), v4.clone(), v4, v6];
        let failed = vec![(0, io::ErrorKind::NotFound.into()), (4, io::ErrorKind::NotFound.into())];
        let counted = report(&frames, &Batch { sent: 3, failed });
        let expected = SendReport { garp: 2, na: 1, announce_errors: 2, advert_errors: 0 };
        assert_eq!(counted, expected);
    }
}
