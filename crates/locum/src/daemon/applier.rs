//! The applier thread: addresses, then the announcements that depend on them, strictly in order;
//! and what links and addresses do, back to the election.
//!
//! ```text
//!   election ──► Job queue ──► Netlink.apply ──► FrameSocket.send_batch
//!      ▲                           │
//!      └── Applied, Sent, Link, ◄──┴──── Netlink.next
//!          AddressLost
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use locum_engine::{
    Announcement, Asked, HeldAddress, Inherited, LinkState, Refusal, SendReport, Seq,
};
use locum_kernel::frame_socket::{Batch, FrameSocket};
use locum_kernel::netlink::{
    self, Action, AddressSpec, ApplyError, Change, Fact, Failure, LinkSnapshot, MonitorEvent,
    Netlink, Unwanted, Whose,
};
use locum_plan::{Name, Plan, Scope, Tracked};
use locum_vrrp::Time;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::inbox::{InboxSender, Message};
use super::unheld::Unheld;

/// Jobs waiting: every one of 255 instances changing its role with two bursts on its way. When it
/// is full, the election tells the engine that the apply failed, and forgets announcements.
const QUEUE_JOBS: usize = 4096;

/// Netlink messages of a dump are parsed on this thread; the rest is shallow.
const STACK_BYTES: usize = 512 * 1024;

/// How long the first report of links may take before the plan is looked at without them.
const FIRST_LINKS_LIMIT: Duration = Duration::from_secs(2);

/// Pause between tries to reach the kernel again after its socket failed.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub enum Job {
    Apply {
        seq: Seq,
        instance: Name,
        hold: Vec<HeldAddress>,
        drop: Vec<HeldAddress>,
    },
    Announce {
        instance: Name,
        after: Seq,
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
    let (tell, ready) = oneshot::channel();
    let names = interfaces(plan);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async move {
            match Applier::connect(inbox) {
                Ok((mut applier, inherited)) => {
                    applier.hear_first_links(names).await;
                    // Whoever started this waits for it.
                    let _ = tell.send(Ok(inherited));
                    applier.run(queue).await;
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
    };
    thread::Builder::new().name("applier".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(Starting { jobs, ready })
}

struct Applier {
    netlink: Netlink,
    frames: FrameSocket,
    inbox: InboxSender,
    unheld: Unheld,
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
        let unheld = Unheld::default();
        let known = BTreeSet::new();
        Ok((Self { netlink, frames, inbox, unheld, known }, inherited))
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
                    Some(job) => self.work(job),
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

    fn work(&mut self, job: Job) {
        match job {
            Job::Apply { seq, instance, hold, drop } => {
                let hold: Vec<_> = hold.iter().map(|held| Fact::from(spec(held))).collect();
                let drop: Vec<_> = drop
                    .iter()
                    .map(|held| Unwanted { fact: spec(held).into(), whose: Whose::Ours })
                    .collect();
                let result = answer(self.netlink.apply(&Change { hold: &hold, drop: &drop }));
                self.unheld.record(&instance, seq, !hold.is_empty(), &result);
                self.inbox.send(Message::Applied { seq, instance, result });
            }
            Job::Announce { instance, after, until, frames } => {
                let now = Time::from_nanos(locum_kernel::clock::now());
                let frames = self.unheld.sendable(&instance, after, frames);
                if now <= until && !frames.is_empty() {
                    let report = self.announce(&frames);
                    self.inbox.send(Message::Sent { instance, report });
                }
            }
            Job::Flush(done) => {
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
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
        let message = match event {
            MonitorEvent::Link(link) => {
                self.known.insert(link.name.clone());
                Message::Link(state(link))
            }
            MonitorEvent::LinkGone { name } => {
                self.known.remove(&name);
                Message::Link(gone(name))
            }
            MonitorEvent::AddressLost { interface, address, culprit } => {
                Message::AddressLost { interface, address, culprit }
            }
        };
        self.inbox.send(message);
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
    let Fact::Address(spec) = failure.fact;
    Refusal {
        asked: match failure.action {
            Action::Add | Action::Renew => Asked::Hold,
            Action::Remove => Asked::Drop,
        },
        interface: spec.interface,
        address: spec.address,
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
        names.extend(instance.track.iter().filter_map(|track| match &track.object {
            Tracked::Interface(name) => Some(name.clone()),
            Tracked::Check(_) => None,
        }));
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

fn gone(name: Name) -> LinkState {
    LinkState {
        name,
        index: 0,
        running: false,
        mac: None,
        mtu: 0,
        addresses: Vec::new(),
        forwards_v6: false,
    }
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
