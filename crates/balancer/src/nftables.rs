//! Services as address translation by the kernel's packet filter.
//!
//! All that is in the kernel is in tables of our own, so nothing has to be written down: a daemon that
//! comes back finds them, and what an earlier one left that is not wanted goes with its table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::conntrack::{IpProtocol, NatListener};
use locum_kernel::nftables::{
    NatBalancer, NatLoad, NatPersistence, NatSelection, NatServer, NatService, NftablesError,
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

#[derive(Default)]
pub(crate) struct NftablesBackend {
    kernel: NatBalancer,
    services: Vec<Arc<WantedService>>,
    /// Something of ours is, or may be, in the kernel.
    is_installed: bool,
    failed: BTreeMap<Name, String>,
    /// Why clients of servers that left may stay with them.
    uncut: Option<String>,
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
                let failed = wanted.into_iter().filter_map(refusal).collect();
                self.note_uncut(report.uncut);
                failed
            }
            Err(error) => {
                self.uncut = None;
                wanted.into_iter().map(|(name, _)| (name, error.to_string())).collect()
            }
        };
    }

    fn note_uncut(&mut self, reason: Option<String>) {
        let text = |reason| {
            format!(
                "clients of servers that left may stay with them, the kernel does not end their \
                 connections: {reason}"
            )
        };
        self.uncut = reason.map(text);
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
                self.note_uncut(report.uncut);
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
        if self.next_tick(now) == Some(Duration::ZERO) {
            let (round, ()) = LookRound::made(now, || self.heal());
            self.looked = Some(round);
        }
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        if !self.is_installed {
            return None;
        }
        Some(self.looked.map_or(Duration::ZERO, |round| round.wait(HEAL_INTERVAL, now)))
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
        let loads = match self.active().count() {
            0 => BTreeMap::new(),
            _ => self.kernel.loads().unwrap_or_default(),
        };
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
