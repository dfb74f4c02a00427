//! Services as tables of the kernel's load balancer.
//!
//! Only tables of ours are touched: their identities are written down before they are installed,
//! so that a daemon that died in between finds them again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{self, DestSpec, Forwarding, Ipvs, ServiceId, ServiceSpec, Tunnel};
use locum_plan as plan;
use locum_plan::{Activity, Name, WantedService, WantedServices};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Event, changes};
use crate::balancer::{BalancerSettings, ServeError};
use crate::remembered::StateFile;
use crate::status::{BackendKind, BalancerStatus, ServerStatus, ServiceState, ServiceStatus};

/// How often the kernel's tables are compared with ours: a dump costs microseconds per service, and
/// an entry that somebody removed is missed for no longer than this.
const HEAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a kernel without IPVS is asked again: each time may try to load the module.
const ABSENT_INTERVAL: Duration = Duration::from_secs(30);

/// Most operations named in one event; the rest are counted.
const NAMED_FAILURES: usize = 3;

pub(crate) struct IpvsBackend {
    kernel: Kernel,
    share: WantedServices,
    state: StateFile,
    /// Tables that are ours or may be; `None` until the file was read.
    owned: Option<Vec<OwnedId>>,
    failed: BTreeMap<Name, String>,
    healed_at: Option<Instant>,
}

enum Kernel {
    Unknown,
    Open(Ipvs),
    /// It has none, or does not let us; an automatic choice of backend holds to that answer.
    Absent(String),
}

/// A table of ours, as the state file has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct OwnedId {
    protocol: OwnedProtocol,
    listen: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnedProtocol {
    Tcp,
    Udp,
}

impl OwnedId {
    fn of(service: &plan::Service) -> Self {
        let protocol = match service.protocol {
            plan::Protocol::Tcp => OwnedProtocol::Tcp,
            plan::Protocol::Udp => OwnedProtocol::Udp,
        };
        Self { protocol, listen: service.listen }
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
    let spec = ServiceSpec::new(OwnedId::of(service).kernel_id(), service.scheduler.0.as_str());
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
            share: WantedServices::default(),
            state: StateFile::new(settings.run_dir.join("balancer-ipvs.json")),
            owned: None,
            failed: BTreeMap::new(),
            healed_at: None,
        }
    }

    /// The kernel has IPVS and lets us use it. Asked once: a service that moved to another backend
    /// while it serves would lose its connections.
    pub(crate) fn available(&mut self) -> bool {
        if matches!(self.kernel, Kernel::Unknown) {
            self.open();
        }
        matches!(self.kernel, Kernel::Open(_))
    }

    fn open(&mut self) {
        self.kernel = match Ipvs::open() {
            Ok(session) => Kernel::Open(session),
            Err(error) => Kernel::Absent(error.to_string()),
        };
    }

    /// Serving ones; a table of a standby would take traffic that is not for it.
    fn active(&self) -> impl Iterator<Item = &WantedService> {
        let services = self.share.services.iter().map(|wanted| &**wanted);
        services.filter(|wanted| wanted.activity == Activity::Active)
    }

    /// Makes the kernel's tables ours, and returns how much had to be done.
    fn reconcile(&mut self, now: Instant) -> usize {
        self.healed_at = Some(now);
        self.failed.clear();
        let ids: Vec<_> = self.active().map(|wanted| OwnedId::of(&wanted.service)).collect();
        let mut owned = self.owned.take().unwrap_or_else(|| self.state.load());
        let known = owned.clone();
        owned.extend(ids.iter().filter(|id| !known.contains(id)).cloned());
        if owned.is_empty() {
            self.owned = Some(owned);
            return 0;
        }
        if owned != known {
            self.state.save(&owned);
        }
        let applied = match self.change_kernel(&owned) {
            Ok(report) => {
                let still_there = |id: &OwnedId| {
                    report.failed.iter().any(|failure| failure.service == id.kernel_id())
                };
                let before = owned.len();
                owned.retain(|id| ids.contains(id) || still_there(id));
                if owned.len() != before {
                    self.state.save(&owned);
                }
                self.note_failures(&report);
                report.applied
            }
            Err(error) => {
                self.failed =
                    self.active().map(|w| (w.service.name.clone(), error.clone())).collect();
                0
            }
        };
        self.owned = Some(owned);
        applied
    }

    fn change_kernel(&mut self, owned: &[OwnedId]) -> Result<ipvs::Report, String> {
        let wanted: Vec<_> = self.active().map(table_of).collect();
        let owned: Vec<_> = owned.iter().map(OwnedId::kernel_id).collect();
        if !matches!(self.kernel, Kernel::Open(_)) {
            self.open();
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
            Kernel::Absent(reason) => Err(format!("{reason}, use backend = \"proxy\"")),
            Kernel::Unknown => Err("ipvs was not opened".to_owned()),
        }
    }

    fn note_failures(&mut self, report: &ipvs::Report) {
        let mut failed = BTreeMap::new();
        for wanted in self.active() {
            let id = OwnedId::of(&wanted.service).kernel_id();
            let all: Vec<_> =
                report.failed.iter().filter(|f| f.service == id).map(ToString::to_string).collect();
            if all.is_empty() {
                continue;
            }
            let mut text = all.iter().take(NAMED_FAILURES).cloned().collect::<Vec<_>>().join("; ");
            if all.len() > NAMED_FAILURES {
                text.push_str(&format!("; and {} more", all.len() - NAMED_FAILURES));
            }
            failed.insert(wanted.service.name.clone(), text);
        }
        self.failed = failed;
    }
}

impl Backend for IpvsBackend {
    fn apply(&mut self, share: &WantedServices, now: Instant) -> Vec<ServeError> {
        self.share = share.clone();
        self.reconcile(now);
        self.failed.clone().into_iter().collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<Event> {
        if self.next_tick(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        let before = self.failed.clone();
        let healed = self.reconcile(now);
        let mut events = changes(&before, &self.failed);
        if healed > 0 && before.is_empty() {
            let text = format!("ipvs tables were changed by somebody else, {healed} put back");
            events.push(Event::Note { name: Name::from("ipvs"), text });
        }
        events
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let nothing_to_watch = self.active().next().is_none()
            && self.owned.as_ref().is_none_or(|owned| owned.is_empty());
        if nothing_to_watch {
            return None;
        }
        let interval = match self.kernel {
            Kernel::Absent(_) => ABSENT_INTERVAL,
            Kernel::Open(_) | Kernel::Unknown => HEAL_INTERVAL,
        };
        let passed = self.healed_at.map_or(interval, |at| now.saturating_duration_since(at));
        Some(interval.saturating_sub(passed))
    }

    fn status(&mut self, status: &mut BalancerStatus) {
        let observed = match &mut self.kernel {
            Kernel::Open(session) if !self.share.services.is_empty() => {
                session.dump().unwrap_or_default()
            }
            Kernel::Open(_) | Kernel::Unknown | Kernel::Absent(_) => Vec::new(),
        };
        for wanted in &self.share.services {
            let id = OwnedId::of(&wanted.service).kernel_id();
            let table = observed.iter().find(|table| table.spec.id == id);
            let dests = table.map_or(&[][..], |table| &table.dests);
            let error = self.failed.get(&wanted.service.name).cloned();
            let state = match (wanted.activity, &error) {
                (_, Some(_)) => ServiceState::Failed,
                (Activity::Active, None) => ServiceState::Serving,
                (Activity::Ready, None) => ServiceState::Ready,
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
                listen: wanted.service.listen,
                state,
                error,
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
