//! Services as tables of the kernel's load balancer.
//!
//! Only tables of ours are touched: their identities are written down before they are installed,
//! so that a daemon that died in between finds them again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{self, DestSpec, Forwarding, Ipvs, ServiceId, ServiceSpec, Tunnel};
use locum_plan as plan;
use locum_plan::{Activity, BackendKind, Name, WantedService, WantedServices};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::state_file::StateFile;
use crate::status::{BalancerStatus, ServerStatus, ServiceState, ServiceStatus};

/// How often all of the kernel's tables are compared with ours: a dump costs microseconds per
/// service, and an entry that somebody removed is missed for no longer than this.
const HEAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a kernel without IPVS is asked again: each time may try to load the module.
const ABSENT_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) struct IpvsBackend {
    kernel: Kernel,
    services: Vec<Arc<WantedService>>,
    state: StateFile,
    /// Tables that are ours or may be; `None` until the file was read.
    owned: Option<Vec<OwnedId>>,
    failed: BTreeMap<Name, String>,
    healed_at: Option<Instant>,
    notes: Vec<Note>,
}

enum Kernel {
    Unknown,
    Open(Ipvs),
    /// It has none or does not let us, why, and when it said so.
    Absent(String, Instant),
}

/// A table of ours, as the state file has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct OwnedId {
    protocol: OwnedProtocol,
    listen: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnedProtocol {
    Tcp,
    Udp,
}

impl OwnedId {
    fn of(service: &plan::Service) -> Self {
        let protocol = match service.protocol {
            plan::Protocol::Tcp => OwnedProtocol::Tcp,
            // Neither SCTP nor a service that listens elsewhere comes here: see the table of
            // capabilities.
            plan::Protocol::Udp | plan::Protocol::Sctp => OwnedProtocol::Udp,
        };
        let nowhere = || SocketAddr::from(([0, 0, 0, 0], 0));
        let listen = service.only_address().unwrap_or_else(nowhere);
        Self { protocol, listen }
    }

    fn kernel_id(&self) -> ServiceId {
        let protocol = match self.protocol {
            OwnedProtocol::Tcp => ipvs::Protocol::Tcp,
            OwnedProtocol::Udp => ipvs::Protocol::Udp,
        };
        ServiceId::listener(protocol, self.listen)
    }
}

/// The table a service asks for.
fn table_of(wanted: &WantedService) -> (ServiceSpec, Vec<DestSpec>) {
    let service = &wanted.service;
    let spec = ServiceSpec::new(OwnedId::of(service).kernel_id(), service.scheduler.name.as_str());
    let server = |server: &plan::WantedServer| {
        let forwarding = match server.forwarding {
            plan::Forwarding::Nat => Forwarding::Masq,
            plan::Forwarding::Direct => Forwarding::Direct,
            plan::Forwarding::Tunnel => Forwarding::Tunnel(Tunnel::Ipip),
        };
        DestSpec::new(server.address, forwarding, server.weight)
    };
    (spec, wanted.servers.iter().map(server).collect())
}

impl IpvsBackend {
    pub(crate) fn new(settings: &BalancerSettings) -> Self {
        Self {
            kernel: Kernel::Unknown,
            services: Vec::new(),
            state: StateFile::new(settings.run_dir.join("balancer-ipvs.json")),
            owned: None,
            failed: BTreeMap::new(),
            healed_at: None,
            notes: Vec::new(),
        }
    }

    fn open(&mut self, now: Instant) {
        self.kernel = match Ipvs::open() {
            Ok(session) => Kernel::Open(session),
            Err(error) => Kernel::Absent(error.to_string(), now),
        };
    }

    /// Serving ones; a table of a standby would take traffic that is not for it.
    fn active(&self) -> impl Iterator<Item = &WantedService> {
        active(&self.services)
    }

    /// Makes the kernel's tables ours, all of them or those that changed, and returns how much had
    /// to be done.
    fn reconcile(&mut self, now: Instant, scope: &Scope) -> usize {
        if *scope == Scope::All {
            self.healed_at = Some(now);
        }
        let ids: BTreeSet<_> = self.active().map(|wanted| OwnedId::of(&wanted.service)).collect();
        let mut owned = self.owned.take().unwrap_or_else(|| self.state.load().unwrap_or_default());
        let known = owned.len();
        let new: Vec<_> = ids.iter().filter(|id| !owned.contains(id)).copied().collect();
        owned.extend(new);
        if owned.is_empty() {
            self.failed.clear();
            self.owned = Some(owned);
            return 0;
        }
        if owned.len() != known {
            self.state.save(&owned);
        }
        let applied = match self.change_kernel(&owned, scope, now) {
            Ok(report) => {
                let is_there = |id: &OwnedId| {
                    report.failed.iter().any(|failure| failure.service == id.kernel_id())
                };
                let before = owned.len();
                owned.retain(|id| ids.contains(id) || is_there(id) || !scope.covers(id));
                if owned.len() != before {
                    self.state.save(&owned);
                }
                self.note_failures(&report, scope);
                report.applied
            }
            Err(error) => {
                let explain = |wanted: &WantedService| {
                    (wanted.service.name.clone(), with_way_out(&error, &wanted.service))
                };
                self.failed = self.active().map(explain).collect();
                0
            }
        };
        self.owned = Some(owned);
        applied
    }

    fn change_kernel(
        &mut self,
        owned: &[OwnedId],
        scope: &Scope,
        now: Instant,
    ) -> Result<ipvs::Report, String> {
        let concerned = |wanted: &&WantedService| scope.covers(&OwnedId::of(&wanted.service));
        let wanted: Vec<_> = self.active().filter(concerned).map(table_of).collect();
        let owned: Vec<_> =
            owned.iter().filter(|id| scope.covers(id)).map(OwnedId::kernel_id).collect();
        if !matches!(self.kernel, Kernel::Open(_)) {
            self.open(now);
        }
        match &mut self.kernel {
            Kernel::Open(session) => {
                let result = session.reconcile(&wanted, &owned);
                if result.is_err() {
                    // A session that failed as a whole is opened anew by the next attempt.
                    self.kernel = Kernel::Unknown;
                }
                result.map_err(|error| error.to_string())
            }
            Kernel::Absent(reason, _) => Err(reason.clone()),
            Kernel::Unknown => Err("ipvs was not opened".to_owned()),
        }
    }

    /// What is not looked at stays as it was, unless it is not wanted any more.
    fn note_failures(&mut self, report: &ipvs::Report, scope: &Scope) {
        let mut before = std::mem::take(&mut self.failed);
        let mut failed = BTreeMap::new();
        for wanted in self.active() {
            let id = OwnedId::of(&wanted.service);
            if !scope.covers(&id) {
                failed.extend(before.remove_entry(&wanted.service.name));
                continue;
            }
            let id = id.kernel_id();
            let all: Vec<_> =
                report.failed.iter().filter(|f| f.service == id).map(ToString::to_string).collect();
            if all.is_empty() {
                continue;
            }
            failed.insert(wanted.service.name.clone(), plan::first_few(&all, "; "));
        }
        self.failed = failed;
    }
}

/// Which tables are looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Scope {
    All,
    These(BTreeSet<OwnedId>),
}

impl Scope {
    /// The tables in which two levels differ.
    fn between(before: &[Arc<WantedService>], now: &[Arc<WantedService>]) -> Self {
        let by_id = |services: &[Arc<WantedService>]| -> BTreeMap<OwnedId, *const WantedService> {
            let active = active(services);
            active
                .map(|wanted| (OwnedId::of(&wanted.service), std::ptr::from_ref(wanted)))
                .collect()
        };
        let (before, now) = (by_id(before), by_id(now));
        // The same pointer is the same table; what is equal and not the same costs a look.
        let changed = now.iter().filter(|(id, wanted)| before.get(id) != Some(wanted));
        let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
        Self::These(changed.chain(gone).map(|(id, _)| *id).collect())
    }

    fn covers(&self, id: &OwnedId) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(id),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::These(ids) => ids.is_empty(),
        }
    }
}

fn active(services: &[Arc<WantedService>]) -> impl Iterator<Item = &WantedService> {
    let services = services.iter().map(|wanted| &**wanted);
    services.filter(|wanted| wanted.activity == Activity::Active)
}

/// Names the backend that could serve it instead, if there is one.
fn with_way_out(error: &str, service: &plan::Service) -> String {
    let mut others = plan::Backend::Auto.candidates(service).into_iter();
    match others.find(|kind| *kind != BackendKind::Ipvs) {
        Some(other) => format!("{error}, use backend = \"{}\"", other.name()),
        None => error.to_owned(),
    }
}

impl Backend for IpvsBackend {
    fn kind(&self) -> Option<BackendKind> {
        Some(BackendKind::Ipvs)
    }

    /// Asked again whenever another service is to be placed, and by every attempt to serve one.
    fn available(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let is_due = match &self.kernel {
            Kernel::Unknown => true,
            Kernel::Open(_) => false,
            Kernel::Absent(_, at) => now.saturating_duration_since(*at) >= ABSENT_INTERVAL,
        };
        if is_due {
            self.open(now);
        }
        match &self.kernel {
            Kernel::Open(_) => Ok(()),
            Kernel::Absent(reason, _) => Err(reason.clone()),
            Kernel::Unknown => Err("ipvs was not opened".to_owned()),
        }
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        let before = std::mem::replace(&mut self.services, share.services);
        let scope = match self.owned {
            None => Scope::All,
            Some(_) => Scope::between(&before, &self.services),
        };
        if !scope.is_empty() {
            self.reconcile(now, &scope);
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.next_tick(now) != Some(Duration::ZERO) {
            return;
        }
        let was_well = self.failed.is_empty();
        let healed = self.reconcile(now, &Scope::All);
        if healed > 0 && was_well {
            let text = format!("ipvs tables were changed by somebody else, {healed} put back");
            self.notes.push(Note { name: Name::from("ipvs"), text });
        }
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let nothing_to_watch = self.active().next().is_none()
            && self.owned.as_ref().is_none_or(|owned| owned.is_empty());
        if nothing_to_watch {
            return None;
        }
        let interval = match self.kernel {
            Kernel::Absent(..) => ABSENT_INTERVAL,
            Kernel::Open(_) | Kernel::Unknown => HEAL_INTERVAL,
        };
        let passed = self.healed_at.map_or(interval, |at| now.saturating_duration_since(at));
        Some(interval.saturating_sub(passed))
    }

    fn progress(&self, progress: &mut Progress) {
        let failed = self.failed.iter().map(|(name, error)| (name.clone(), error.clone()));
        progress.failed.extend(failed);
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let observed = match &mut self.kernel {
            Kernel::Open(session) if !self.services.is_empty() => {
                session.dump().unwrap_or_default()
            }
            Kernel::Open(_) | Kernel::Unknown | Kernel::Absent(..) => Vec::new(),
        };
        for wanted in &self.services {
            let id = OwnedId::of(&wanted.service).kernel_id();
            let table = observed.iter().find(|table| table.spec.id == id);
            let dests = table.map_or(&[][..], |table| &table.dests);
            let error = self.failed.get(&wanted.service.name).cloned();
            let state = match (wanted.activity, &error) {
                (_, Some(_)) => ServiceState::Failed,
                (Activity::Active, None) => ServiceState::Serving,
                (Activity::Ready | Activity::Idle, None) => ServiceState::Ready,
            };
            let server = |dest: &ipvs::ObservedDest| ServerStatus {
                address: SocketAddr::new(dest.spec.id.address, dest.spec.id.port),
                weight: dest.spec.weight,
                active: u64::from(dest.active_connections),
                failures: 0,
            };
            status.services.push(ServiceStatus {
                name: wanted.service.name.clone(),
                backend: BackendKind::Ipvs,
                state,
                error,
                strained: None,
                active: dests.iter().map(|dest| u64::from(dest.active_connections)).sum(),
                accepted: table.map_or(0, |table| table.connections),
                servers: dests.iter().map(server).collect(),
            });
        }
    }
}

#[cfg(test)]
#[path = "ipvs/tests.rs"]
mod tests;
