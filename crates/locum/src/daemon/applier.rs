//! The applier thread: makes the kernel have what the instances want, sends announcements, and
//! reports what links and addresses do to the election.
//!
//! ```text
//!   election ──► Job queue ──► all that wait at once ──► Netlink.apply_all ──► FrameSocket
//!      ▲                                                     │
//!      └── Applied, Sent, Link, AddressLost ◄────────────────┴──── Netlink.next
//! ```
//!
//! Of several levels of one owner that wait, only the newest is carried out: it says all that the
//! others said. So a slow kernel gets fewer levels, and none is lost that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use locum_engine::{
    Announcement, Asked, Fact, FactKey, HeldAddress, Inherited, Input, InstanceId, LinkState,
    Owner, Refusal, Removal, SendReport, Seq, Whose,
};
use locum_kernel::frame_socket::{Batch, FrameSocket};
use locum_kernel::netlink::{
    self, Action, AddressSpec, ApplyError, Change, Failure, LinkSnapshot, MonitorEvent, Netlink,
    Unwanted,
};
use locum_kernel::nftables::{self, Predecessor};
use locum_plan::{Name, Plan, Scope};
use locum_vrrp::Time;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::inbox::{InboxSender, Message};

/// Jobs waiting. When it is full, the election keeps the newest level of each owner and offers it
/// again, and forgets announcements.
const QUEUE_JOBS: usize = 4096;

/// Levels carried out at once: some ten milliseconds of the kernel's time, so that the answers to
/// the first of thousands do not wait for the last.
const MOST_AT_ONCE: usize = 512;

/// Netlink messages of a dump are parsed on this thread; the rest is shallow.
const STACK_BYTES: usize = 512 * 1024;

/// How long the first report of links may take before the plan is looked at without them.
const FIRST_LINKS_LIMIT: Duration = Duration::from_secs(2);

/// Pause between tries to reach the kernel again after its socket failed.
const RECONNECT: Duration = Duration::from_secs(1);

/// What the kernel shall have for one owner.
#[derive(Debug)]
pub struct Apply {
    pub seq: Seq,
    pub owner: Owner,
    pub hold: Arc<[Fact]>,
    pub drop: Vec<Removal>,
}

#[derive(Debug)]
pub enum Job {
    Apply(Apply),
    Announce {
        instance: InstanceId,
        /// Too late afterwards: this node may be master no more.
        until: Time,
        frames: Vec<Announcement>,
    },
    /// Everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// A thread that is getting to know the kernel.
pub struct Starting {
    pub jobs: Sender<Job>,
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
    let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
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

struct Applier {
    netlink: Netlink,
    handover: nftables::Handovers,
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
        let marked = netlink.marked_addresses()?;
        let inherited = marked
            .into_iter()
            .map(|found| Inherited {
                interface: found.interface,
                address: found.address,
                prefix: found.prefix,
                valid_seconds: found.valid_seconds,
            })
            .collect();
        let (handover, known) = (nftables::Handovers::connect(), BTreeSet::new());
        Ok((Self { netlink, handover, frames, inbox, known }, inherited))
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
        let mut levels: BTreeMap<Owner, Apply> = BTreeMap::new();
        let mut bursts = Vec::new();
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Apply(apply) => drop(levels.insert(apply.owner, apply)),
                Job::Announce { instance, until, frames } => bursts.push((instance, until, frames)),
                Job::Flush(done) => flushed.push(done),
            }
            next = if levels.len() < MOST_AT_ONCE { jobs.try_recv().ok() } else { None };
        }
        self.apply(levels.into_values().collect());
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

    fn apply(&mut self, levels: Vec<Apply>) {
        let facts: Vec<_> = levels
            .iter()
            .map(|level| {
                let hold: Vec<_> = level.hold.iter().filter_map(Fact::address).map(fact).collect();
                (hold, level.drop.iter().filter_map(unwanted).collect::<Vec<_>>())
            })
            .collect();
        let changes: Vec<_> = facts.iter().map(|(hold, drop)| Change { hold, drop }).collect();
        if changes.is_empty() {
            return;
        }
        // Connections of a predecessor find their way before the first of them comes here.
        let error = self.hand_over(&levels);
        let results = self.netlink.apply_all(&changes);
        let applied = |(level, result): (Apply, _)| {
            let mut result = answer(result);
            if let (Some(error), Ok(refusals)) = (&error, &mut result) {
                let handovers = level.hold.iter().filter(|fact| fact.handover().is_some());
                refusals.extend(handovers.map(|fact| Refusal {
                    asked: Asked::Hold,
                    key: fact.key(),
                    error: error.clone(),
                }));
            }
            Input::Applied { seq: level.seq, owner: level.owner, result }
        };
        self.report(levels.into_iter().zip(results).map(applied).collect());
    }

    /// Connections that began elsewhere go there, or not any more. Why they cannot.
    fn hand_over(&mut self, levels: &[Apply]) -> Option<String> {
        let now = Time::from_nanos(locum_kernel::clock::now());
        let begun = levels.iter().flat_map(|level| level.hold.iter()).filter_map(Fact::handover);
        let begun: Vec<_> = begun
            .filter(|handover| now < handover.until)
            .map(|handover| Predecessor {
                address: handover.address,
                host: handover.host,
                answers_for: handover.until.since(now),
            })
            .collect();
        let ended = levels.iter().flat_map(|level| &level.drop);
        let ended: Vec<_> = ended
            .filter_map(|removal| removal.fact.handover())
            .map(|handover| handover.address)
            .filter(|address| !begun.iter().any(|one| one.address == *address))
            .collect();
        if let Err(error) = self.handover.forget(&ended) {
            // It ends by itself.
            tracing::debug!(%error, "connections are still handed to the predecessor");
        }
        self.handover.begin(&begun).err().map(|error| error.to_string())
    }

    fn report(&self, inputs: Vec<Input<'static>>) {
        if !inputs.is_empty() {
            self.inbox.send(Message::Inputs(inputs));
        }
    }

    fn announce(&self, frames: &[Announcement]) -> SendReport {
        let batch: Vec<(u32, &[u8])> =
            frames.iter().map(|frame| (frame.interface_index, frame.frame.as_slice())).collect();
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
        let input = match event {
            MonitorEvent::Link(link) => {
                self.known.insert(link.name.clone());
                Input::Link(state(link))
            }
            MonitorEvent::LinkGone { name } => {
                self.known.remove(&name);
                Input::LinkGone { name }
            }
            MonitorEvent::AddressLost { interface, address, culprit } => {
                Input::AddressLost { interface, address, culprit }
            }
        };
        self.inbox.send(Message::Input(input));
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

/// What the kernel did not do, address by address.
fn answer(result: Result<(), ApplyError>) -> Result<Vec<Refusal>, String> {
    match result {
        Ok(()) => Ok(Vec::new()),
        Err(ApplyError::Facts(failures)) => Ok(failures.into_iter().map(refusal).collect()),
        Err(ApplyError::Socket(error)) => Err(format!("netlink: {error}")),
    }
}

fn refusal(failure: Failure) -> Refusal {
    let netlink::Fact::Address(spec) = failure.fact;
    Refusal {
        asked: match failure.action {
            Action::Add | Action::Renew => Asked::Hold,
            Action::Remove => Asked::Drop,
        },
        key: FactKey::Address { interface: spec.interface, address: spec.address },
        error: failure.error.to_string(),
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
        names.extend(instance.addresses.iter().filter_map(|address| address.device.clone()));
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

fn fact(held: &HeldAddress) -> netlink::Fact {
    spec(held).into()
}

fn unwanted(removal: &Removal) -> Option<Unwanted> {
    let whose = match removal.whose {
        Whose::Ours => netlink::Whose::Ours,
        Whose::Anyones => netlink::Whose::Anyones,
    };
    Some(Unwanted { fact: fact(removal.fact.address()?), whose })
}

fn spec(held: &HeldAddress) -> AddressSpec {
    let address = &held.address;
    AddressSpec {
        interface: Arc::clone(&held.interface),
        address: address.address,
        prefix: address.prefix,
        broadcast: address.broadcast.filter(IpAddr::is_ipv4),
        label: address.label.clone(),
        scope: match address.scope {
            Scope::Global => netlink::Scope::Global,
            Scope::Site => netlink::Scope::Site,
            Scope::Link => netlink::Scope::Link,
            Scope::Host => netlink::Scope::Host,
        },
        nodad: !address.duplicate_detection,
        noprefixroute: address.no_prefix_route,
        valid_seconds: held.lease_seconds,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// G-022.
    #[test]
    fn frames_the_kernel_took_are_counted_by_kind_and_the_others_as_errors() {
        let frame = |address: IpAddr| Announcement {
            interface: "eth0".into(),
            interface_index: 2,
            address,
            frame: Vec::new(),
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
