//! The balancer: which backend gets which service, and one interface to all of them.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::ModuleLoader;
use locum_plan::{BackendKind, Service, WantedIpvs, WantedServices};

use crate::backend::{Backend, BalancerSettings, Note, Progress, ServeError};
use crate::choice::{Choices, Reach};
use crate::generated::GeneratedBackend;
use crate::haproxy::HaproxyBackend;
use crate::ipvs::IpvsBackend;
use crate::nftables::NftablesBackend;
use crate::proxy::ProxyBackend;
use crate::state_file::StateFile;
use crate::status::{BalancedService, BalancedState, BalancerStatus};
use crate::verify::{Verifier, lacks};

/// How often a backend is looked for again for what none can serve.
const PLACE_AGAIN: Duration = Duration::from_secs(1);

/// Owned by one thread. No call waits for a HAProxy; of a proxy that hangs, [`Balancer::apply`]
/// and [`Balancer::tick`] wait about two seconds for an answer.
pub struct Balancer {
    /// In the order in which a level is applied.
    backends: Vec<Box<dyn Backend>>,
    choices: Choices,
    /// Looks at what does not run here.
    verifier: Verifier,
    /// What runs here, or shall.
    running: WantedServices,
    /// Of `running.services`, in their order; `Err` says why no backend has it.
    placed: Vec<Result<BackendKind, String>>,
    placed_at: Option<Instant>,
}

impl Balancer {
    /// Changes nothing yet: what an earlier daemon left is taken over, or cleaned up, by the first
    /// [`Balancer::apply`].
    pub fn new(settings: BalancerSettings) -> Self {
        let choices = StateFile::new(settings.run_dir.join("balancer-backends.json"));
        // One for all: what one has begun to load no other begins.
        let modules = ModuleLoader::default();
        Self {
            // Kernel tables take microseconds. HAProxies are started next and not waited for; while
            // they start, the proxy answers.
            backends: vec![
                Box::new(IpvsBackend::new(&settings, modules.clone())),
                Box::new(NftablesBackend::default()),
                Box::new(HaproxyBackend::new(&settings)),
                Box::new(GeneratedBackend::new(&settings)),
                Box::new(ProxyBackend::new(&settings)),
            ],
            choices: Choices::new(choices),
            verifier: Verifier::new(&settings.locum_program, &settings.run_dir)
                .loading_modules(modules),
            running: WantedServices::default(),
            placed: Vec::new(),
            placed_at: None,
        }
    }

    /// Makes what this node serves exactly what of `wanted` is to run, and looks whether the rest
    /// could be served. One service's failure does not stop the others. [`Balancer::progress`] says
    /// at once how far it came, and again after each [`Balancer::tick`].
    pub fn apply(&mut self, wanted: &WantedServices) {
        self.running = wanted.running();
        self.place(Instant::now());
        self.share_out();
        // What serves clients comes first.
        self.verifier.want(wanted, &self.placed, Instant::now());
    }

    /// Chooses where there is a choice.
    fn place(&mut self, now: Instant) {
        let Self { backends, choices, verifier, running, .. } = self;
        let host = OnceCell::new();
        let wanted: Vec<_> = running.services.iter().map(|one| Arc::clone(&one.service)).collect();
        self.placed = choices.of(running, &mut |service, kind| {
            let mut of_kind = backends.iter_mut().filter(|backend| backend.kind() == Some(kind));
            of_kind
                .next()
                .map_or(Ok(()), |backend| backend.available())
                .map_err(|why| (Reach::All, why))?;
            // Read once, and after what asking a backend may have loaded.
            lacks(service, kind, host.get_or_init(|| verifier.host(now, &wanted)))
        });
        self.placed_at = Some(now);
    }

    /// Gives each service to its backend.
    fn share_out(&mut self) {
        for backend in &mut self.backends {
            let share = share(&self.running, &self.placed, backend.kind());
            backend.apply(share, Instant::now());
        }
    }

    /// What no backend has, and why not.
    fn unplaced(&self) -> impl Iterator<Item = (&Service, &str)> {
        let placed = self.running.services.iter().zip(&self.placed);
        placed.filter_map(|(wanted, placed)| {
            Some((&*wanted.service, placed.as_ref().err()?.as_str()))
        })
    }

    fn placing_due(&self, now: Instant) -> Option<Duration> {
        self.unplaced().next()?;
        let passed = self.placed_at.map_or(PLACE_AGAIN, |at| now.saturating_duration_since(at));
        Some(PLACE_AGAIN.saturating_sub(passed))
    }

    /// Watches processes and tables: goes on with what starts, restarts what died, retries what
    /// failed, ends what had its time. Call it when [`Balancer::next_tick`] says; earlier is
    /// harmless.
    pub fn tick(&mut self) {
        let now = Instant::now();
        if self.placing_due(now) == Some(Duration::ZERO) {
            let before = self.placed.clone();
            self.place(now);
            if self.placed != before {
                self.share_out();
                self.verifier.place(&self.placed, now);
            }
        }
        for backend in &mut self.backends {
            backend.tick(Instant::now());
        }
        self.verifier.tick(Instant::now());
    }

    /// How long the owner may wait before the next [`Balancer::tick`]; `None` while nothing runs and
    /// nothing is looked at.
    pub fn next_tick(&self) -> Option<Duration> {
        let now = Instant::now();
        let running = self.next_of_running(now);
        running.into_iter().chain(self.verifier.next_tick(now)).min()
    }

    fn next_of_running(&self, now: Instant) -> Option<Duration> {
        let backends = self.backends.iter().filter_map(|backend| backend.next_tick(now));
        backends.chain(self.placing_due(now)).min()
    }

    /// What of the last level is not served yet, and what cannot be.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        self.backends.iter().for_each(|backend| backend.progress(&mut progress));
        let unplaced = self.unplaced();
        let unplaced = unplaced.map(|(service, why)| (service.name.clone(), why.to_owned()));
        progress.failed.extend::<Vec<ServeError>>(unplaced.collect());
        self.verifier.progress(&mut progress);
        progress
    }

    /// What is worth a line in the log since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.choices.notes);
        notes.extend(self.backends.iter_mut().flat_map(|backend| backend.take_notes()));
        notes
    }

    /// Nothing is wanted, and nothing runs or drains any more: the daemon may end without leaving
    /// anything behind.
    pub fn is_idle(&self) -> bool {
        self.next_of_running(Instant::now()).is_none()
    }

    /// What is served, by what, and what is wrong with it.
    pub fn status(&mut self) -> BalancerStatus {
        let mut status = BalancerStatus::default();
        self.backends.iter_mut().for_each(|backend| backend.status(&mut status));
        status.strained = self.progress().strained;
        status.choices = self.choices.reasons().collect();
        let unplaced = self.unplaced().map(|(service, why)| BalancedService {
            name: service.name.clone(),
            backend: service
                .backend
                .candidates(service)
                .first()
                .copied()
                .unwrap_or(BackendKind::ALL[0]),
            state: BalancedState::Failed,
            error: Some(why.to_owned()),
            strained: None,
            active: 0,
            accepted: 0,
            waiting: None,
            octets: None,
            servers: Vec::new(),
        });
        let unplaced: Vec<_> = unplaced.collect();
        status.services.extend(unplaced);
        status
    }
}

/// The part of the level that one backend serves: pointers, no copies.
fn share(
    wanted: &WantedServices,
    placed: &[Result<BackendKind, String>],
    kind: Option<BackendKind>,
) -> WantedServices {
    match kind {
        Some(kind) => {
            let services =
                wanted.services.iter().zip(placed).filter(|(_, placed)| **placed == Ok(kind));
            let services = services.map(|(service, _)| service.clone()).collect();
            let ipvs = match kind {
                BackendKind::Ipvs => wanted.ipvs.clone(),
                BackendKind::Nftables | BackendKind::Proxy | BackendKind::Haproxy => {
                    WantedIpvs::default()
                }
            };
            WantedServices { services, ipvs, ..WantedServices::default() }
        }
        None => WantedServices { haproxy: wanted.haproxy.clone(), ..WantedServices::default() },
    }
}
