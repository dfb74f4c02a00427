//! The balancer: which backend gets which service, and one interface to all of them.

use std::time::{Duration, Instant};

use locum_plan::{BackendKind, WantedServices};

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::choice::Choices;
use crate::haproxy::HaproxyBackend;
use crate::ipvs::IpvsBackend;
use crate::proxy::ProxyBackend;
use crate::state_file::StateFile;
use crate::status::BalancerStatus;

/// Owned by one thread. No call waits for a HAProxy; of a proxy that hangs, [`Balancer::apply`]
/// and [`Balancer::tick`] wait about two seconds for an answer.
pub struct Balancer {
    /// In the order in which a level is applied.
    backends: Vec<Box<dyn Backend>>,
    choices: Choices,
}

impl Balancer {
    /// Changes nothing yet: what an earlier daemon left is taken over, or cleaned up, by the first
    /// [`Balancer::apply`].
    pub fn new(settings: BalancerSettings) -> Self {
        let choices = StateFile::new(settings.run_dir.join("balancer-backends.json"));
        Self {
            // Kernel tables take microseconds. HAProxies are started next and not waited for; while
            // they start, the proxy answers.
            backends: vec![
                Box::new(IpvsBackend::new(&settings)),
                Box::new(HaproxyBackend::new(&settings)),
                Box::new(ProxyBackend::new(&settings)),
            ],
            choices: Choices::new(choices),
        }
    }

    /// Makes what this node serves exactly `wanted`. One service's failure does not stop the
    /// others. [`Balancer::progress`] says at once how far it came, and again after each
    /// [`Balancer::tick`].
    pub fn apply(&mut self, wanted: &WantedServices) {
        let wanted = &wanted.running();
        let backends = &mut self.backends;
        let chosen = self.choices.of(wanted, |kind| {
            let mut of_kind = backends.iter_mut().filter(|backend| backend.kind() == Some(kind));
            of_kind.next().is_some_and(|backend| backend.is_available())
        });
        for backend in &mut self.backends {
            backend.apply(share(wanted, &chosen, backend.kind()), Instant::now());
        }
    }

    /// Watches processes and tables: goes on with what starts, restarts what died, retries what
    /// failed, ends what had its time. Call it when [`Balancer::next_tick`] says; earlier is
    /// harmless.
    pub fn tick(&mut self) {
        for backend in &mut self.backends {
            backend.tick(Instant::now());
        }
    }

    /// How long the owner may wait before the next [`Balancer::tick`]; `None` while nothing runs.
    pub fn next_tick(&self) -> Option<Duration> {
        let now = Instant::now();
        self.backends.iter().filter_map(|backend| backend.next_tick(now)).min()
    }

    /// What of the last level is not served yet, and what cannot be.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        self.backends.iter().for_each(|backend| backend.progress(&mut progress));
        progress
    }

    /// What is worth a line in the log since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.backends.iter_mut().flat_map(|backend| backend.take_notes()).collect()
    }

    /// Nothing is wanted, and nothing runs or drains any more: the daemon may end without leaving
    /// anything behind.
    pub fn is_idle(&self) -> bool {
        self.next_tick().is_none()
    }

    /// What is served, by what, and what is wrong with it.
    pub fn status(&mut self) -> BalancerStatus {
        let mut status = BalancerStatus::default();
        self.backends.iter_mut().for_each(|backend| backend.status(&mut status));
        status.strained = self.progress().strained;
        status
    }
}

/// The part of the level that one backend serves: pointers, no copies.
fn share(
    wanted: &WantedServices,
    chosen: &[BackendKind],
    kind: Option<BackendKind>,
) -> WantedServices {
    match kind {
        Some(kind) => {
            let services =
                wanted.services.iter().zip(chosen).filter(|(_, chosen)| **chosen == kind);
            let services = services.map(|(service, _)| service.clone()).collect();
            WantedServices { services, haproxy: Vec::new() }
        }
        None => WantedServices { services: Vec::new(), haproxy: wanted.haproxy.clone() },
    }
}
