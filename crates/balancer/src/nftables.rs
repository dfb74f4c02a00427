//! Services as address translation by the kernel's packet filter.
//!
//! All that is in the kernel is in tables of our own, so nothing has to be written down: a daemon that
//! comes back finds them, and what an earlier one left that is not wanted goes with its table.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use locum_kernel::conntrack::{IpProtocol, NatListener};
use locum_kernel::nftables::{
    ConnectionSweep, NatBalancer, NatLoad, NatPersistence, NatSelection, NatServer, NatService,
    NftablesError,
};
use locum_plan::{
    Activity, BackendKind, Name, Persistence, Protocol, Service, WantedServer, WantedService,
    WantedServices,
};

use crate::backend::{Backend, Note, Progress};
use crate::round::LookRound;
use crate::status::{BalancedServer, BalancedService, BalancedState, BalancerStatus};

/// How often the kernel is asked whether somebody changed its rules, and what failed is tried again.
const HEAL_INTERVAL: Duration = Duration::from_secs(1);

/// Until the second sweep after a change: what began while that was made is known by then.
const SECOND_SWEEP: Duration = Duration::from_millis(100);

/// How often is asked whether a sweep is over that keeps the next one waiting.
const SWEEP_INTERVAL: Duration = Duration::from_millis(20);

/// A sweep that is being carried out by a thread of its own: to go through all connections of a crowd of
/// clients may take longer than a successor has until it answers.
struct Sweeping {
    sweep: ConnectionSweep,
    outcome: Receiver<io::Result<usize>>,
}

impl Sweeping {
    fn begin(sweep: ConnectionSweep) -> io::Result<Self> {
        let (sender, outcome) = mpsc::sync_channel(1);
        let carried_out = sweep.clone();
        thread::Builder::new().name("sweep".to_owned()).spawn(move || {
            // The owner may have ended meanwhile.
            let _ = sender.send(carried_out.carry_out());
        })?;
        Ok(Self { sweep, outcome })
    }

    /// `None` while it goes on.
    fn outcome(&self) -> Option<io::Result<usize>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::ErrorKind::Interrupted.into())),
        }
    }
}

#[derive(Default)]
pub(crate) struct NftablesBackend {
    kernel: NatBalancer,
    services: Vec<Arc<WantedService>>,
    /// Something of ours is, or may be, in the kernel.
    is_installed: bool,
    failed: BTreeMap<Name, String>,
    /// Why clients of servers that left may stay with them.
    uncut: Option<String>,
    sweeping: Option<Sweeping>,
    /// When what failed is tried again, and connections are looked for once more.
    sweep_at: Option<Instant>,
    /// What was found when the connections were last counted, which costs as much as a sweep.
    loads: Option<(LookRound, BTreeMap<NatListener, NatLoad>)>,
    looked: Option<LookRound>,
    notes: Vec<Note>,
}

/// What the kernel is asked for.
fn nat_service(wanted: &WantedService) -> NatService {
    let service = &wanted.service;
    let server =
        |server: &WantedServer| NatServer { address: server.address, weight: server.weight };
    NatService {
        listeners: listeners(service),
        selection: selection(service),
        persistence: service.persistence.as_ref().map(
            |Persistence { timeout, granularity, .. }| NatPersistence {
                timeout: Duration::from_secs(u64::from(*timeout)),
                prefix: *granularity,
            },
        ),
        servers: wanted.servers.iter().map(server).collect(),
    }
}

fn listeners(service: &Service) -> Vec<NatListener> {
    let protocol = match service.protocol {
        Protocol::Tcp => IpProtocol::Tcp,
        Protocol::Udp => IpProtocol::Udp,
        Protocol::Sctp => IpProtocol::Sctp,
    };
    service.addresses().map(|address| NatListener { protocol, address }).collect()
}

fn selection(service: &Service) -> NatSelection {
    match service.scheduler.name.as_str() {
        "rr" => NatSelection::Turns,
        "sh" => NatSelection::SourceHash,
        "mh" => NatSelection::ConsistentHash,
        // The row of capabilities lets no other through.
        _ => NatSelection::WeightedTurns,
    }
}

impl NftablesBackend {
    fn active(&self) -> impl Iterator<Item = &Arc<WantedService>> {
        self.services.iter().filter(|wanted| wanted.activity == Activity::Active)
    }

    fn reconcile(&mut self) {
        let wanted: Vec<(Name, NatService)> = self
            .active()
            .map(|wanted| (wanted.service.name.clone(), nat_service(wanted)))
            .collect();
        let all: Vec<NatService> = wanted.iter().map(|(_, service)| service.clone()).collect();
        let outcome = self.kernel.reconcile(&all);
        self.is_installed = !wanted.is_empty() || self.is_installed && outcome.is_err();
        self.failed = match outcome {
            Ok(report) => {
                let refusal = |(name, service): (Name, NatService)| {
                    let error = report.refused.get(service.listeners.first()?)?;
                    Some((name, NftablesError::from(error.clone()).to_string()))
                };
                wanted.into_iter().filter_map(refusal).collect()
            }
            Err(error) => {
                self.uncut = None;
                wanted.into_iter().map(|(name, _)| (name, error.to_string())).collect()
            }
        };
    }

    /// Connections that servers have left behind are ended beside everything else.
    fn sweep(&mut self, now: Instant) {
        if let Some(sweeping) = &self.sweeping {
            let Some(outcome) = sweeping.outcome() else { return };
            self.note_swept(outcome, now);
        }
        if self.sweep_wait(now) != Some(Duration::ZERO) {
            return;
        }
        match self.kernel.sweep().map(Sweeping::begin) {
            None => (self.uncut, self.sweep_at) = (None, None),
            Some(Ok(sweeping)) => self.sweeping = Some(sweeping),
            Some(Err(error)) => self.note_swept(Err(error), now),
        }
    }

    fn note_swept(&mut self, outcome: io::Result<usize>, now: Instant) {
        let pause = if outcome.is_ok() { SECOND_SWEEP } else { HEAL_INTERVAL };
        self.sweep_at = Some(now + pause);
        let sweeping = self.sweeping.take();
        self.uncut = match outcome {
            Ok(_) => {
                sweeping.iter().for_each(|one| self.kernel.swept(&one.sweep));
                None
            }
            Err(error) => Some(format!(
                "clients of servers that left may stay with them, the kernel does not end their \
                 connections: {error}"
            )),
        };
    }

    fn look_wait(&self, now: Instant) -> Option<Duration> {
        let wait = || self.looked.map_or(Duration::ZERO, |round| round.wait(HEAL_INTERVAL, now));
        self.is_installed.then(wait)
    }

    /// When the next step of a sweep is due.
    fn sweep_wait(&self, now: Instant) -> Option<Duration> {
        let is_new = self.kernel.has_left_behind() && self.uncut.is_none();
        match (&self.sweeping, self.sweep_at) {
            (Some(_), _) => Some(SWEEP_INTERVAL),
            (None, _) if is_new => Some(Duration::ZERO),
            (None, at) => at.map(|at| at.saturating_duration_since(now)),
        }
    }

    /// Connections of now, or of a short while ago.
    fn loads(&mut self, now: Instant) -> BTreeMap<NatListener, NatLoad> {
        if self.active().next().is_none() {
            self.loads = None;
            return BTreeMap::new();
        }
        let is_fresh =
            |(round, _): &&(LookRound, _)| round.wait(Duration::ZERO, now) > Duration::ZERO;
        if let Some((_, loads)) = self.loads.as_ref().filter(is_fresh) {
            return loads.clone();
        }
        let (round, loads) = LookRound::made(now, || self.kernel.loads().unwrap_or_default());
        self.loads = Some((round, loads.clone()));
        loads
    }

    /// Looks at the rules, and puts them back where they are not as they shall be.
    fn heal(&mut self) {
        let is_well = match self.kernel.look() {
            Ok(report) => {
                if report.applied > 0 {
                    let text = "nftables rules of ours were changed by somebody else, and put back";
                    self.notes.push(Note {
                        name: Name::from(BackendKind::Nftables.name()),
                        text: text.to_owned(),
                    });
                }
                self.failed.is_empty() && self.active().next().is_some()
            }
            Err(_) => false,
        };
        if !is_well {
            self.reconcile();
        }
    }
}

impl Backend for NftablesBackend {
    fn kind(&self) -> Option<BackendKind> {
        Some(BackendKind::Nftables)
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        let is_first = self.looked.is_none();
        let is_same = |one: &Arc<WantedService>, other: &Arc<WantedService>| {
            Arc::ptr_eq(one, other) || one == other
        };
        let before = std::mem::replace(&mut self.services, share.services);
        let is_known = before.len() == self.services.len()
            && before.iter().zip(&self.services).all(|(one, other)| is_same(one, other));
        if is_first || !is_known {
            self.looked = Some(LookRound::free(now));
            self.reconcile();
        }
    }

    fn tick(&mut self, now: Instant) {
        self.sweep(now);
        if self.look_wait(now) == Some(Duration::ZERO) {
            let (round, ()) = LookRound::made(now, || self.heal());
            self.looked = Some(round);
        }
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        self.look_wait(now).into_iter().chain(self.sweep_wait(now)).min()
    }

    fn progress(&self, progress: &mut Progress) {
        progress.failed.extend(self.failed.iter().map(|(name, why)| (name.clone(), why.clone())));
        let Some(uncut) = &self.uncut else { return };
        let serving = self.active().map(|wanted| &wanted.service.name);
        let serving = serving.filter(|name| !self.failed.contains_key(*name));
        progress.strained.extend(serving.map(|name| (name.clone(), uncut.clone())));
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let loads = self.loads(Instant::now());
        for wanted in &self.services {
            let service = &wanted.service;
            let of_service = listeners(service);
            let loads: Vec<&NatLoad> =
                of_service.iter().filter_map(|listener| loads.get(listener)).collect();
            let error = self.failed.get(&service.name).cloned();
            let state = BalancedState::of(wanted.activity, error.as_ref());
            let server = |server: &WantedServer| {
                let active = loads.iter().filter_map(|load| load.active.get(&server.address));
                BalancedServer {
                    address: server.address,
                    weight: server.weight,
                    active: active.sum(),
                    failures: 0,
                    inactive: None,
                    connection_rate: None,
                    octets: None,
                }
            };
            status.services.push(BalancedService {
                name: service.name.clone(),
                backend: BackendKind::Nftables,
                state,
                strained: None,
                error,
                active: loads.iter().flat_map(|load| load.active.values()).sum(),
                accepted: loads.iter().map(|load| load.accepted).sum(),
                waiting: None,
                octets: None,
                servers: wanted.servers.iter().map(server).collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_ended_is_said_and_tried_again() {
        let mut backend = NftablesBackend::default();
        let now = Instant::now();
        assert_eq!(backend.next_tick(now), None);
        backend.note_swept(Err(io::ErrorKind::OutOfMemory.into()), now);
        assert!(backend.uncut.as_ref().is_some_and(|why| why.contains("out of memory")));
        assert_eq!(backend.next_tick(now), Some(HEAL_INTERVAL));
        backend.note_swept(Ok(3), now);
        assert_eq!((backend.uncut.as_ref(), backend.next_tick(now)), (None, Some(SECOND_SWEEP)));
        // Nothing is left of it.
        backend.tick(now + HEAL_INTERVAL);
        assert_eq!((backend.uncut.as_ref(), backend.next_tick(now)), (None, None));
    }
}
