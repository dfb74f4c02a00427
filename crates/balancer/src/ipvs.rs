//! Services as tables of the kernel's load balancer.
//!
//! Only tables of ours are touched: their identities are written down before they are installed,
//! so that a daemon that died in between finds them again.

mod host;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{self, Ipvs, IpvsTraffic, ModuleLoader, ObservedService, ServiceId};
use locum_plan as plan;
use locum_plan::{Activity, BackendKind, Name, WantedIpvs, WantedService, WantedServices};

use crate::backend::{Backend, BalancerSettings, Note, Progress};
use crate::choice::way_out;
use crate::ipvs::host::IpvsHost;
use crate::ipvs::table::{OwnedId, tables_of};
use crate::state_file::StateFile;
use crate::status::{
    BalancedServer, BalancedService, BalancedState, BalancerStatus, CarriedOctets,
};

/// How often all of the kernel's tables are compared with ours: a dump costs microseconds per
/// service, and an entry that somebody removed is missed for no longer than this.
const HEAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a kernel without IPVS is asked again: each time may try to load the module.
const ABSENT_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) struct IpvsBackend {
    kernel: Kernel,
    modules: ModuleLoader,
    services: Vec<Arc<WantedService>>,
    wanted: WantedIpvs,
    host: IpvsHost,
    state: StateFile,
    /// Tables that are ours or may be; `None` until the file was read.
    owned: Option<BTreeSet<OwnedId>>,
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

impl Kernel {
    /// A session with it. One that had none is asked again after `pause`.
    fn session(
        &mut self,
        modules: &ModuleLoader,
        now: Instant,
        pause: Duration,
    ) -> Result<&mut Ipvs, String> {
        let is_due = match self {
            Self::Unknown => true,
            Self::Open(_) => false,
            Self::Absent(_, at) => now.saturating_duration_since(*at) >= pause,
        };
        if is_due {
            *self = match Ipvs::open(modules) {
                Ok(session) => Self::Open(session),
                Err(error) => Self::Absent(error.to_string(), now),
            };
        }
        match self {
            Self::Open(session) => Ok(session),
            Self::Absent(reason, _) => Err(reason.clone()),
            Self::Unknown => Err("ipvs was not opened".to_owned()),
        }
    }
}

impl IpvsBackend {
    pub(crate) fn new(settings: &BalancerSettings, modules: ModuleLoader) -> Self {
        Self {
            kernel: Kernel::Unknown,
            modules,
            services: Vec::new(),
            wanted: WantedIpvs::default(),
            host: IpvsHost::new(StateFile::new(settings.run_dir.join("balancer-ipvs-host.json"))),
            state: StateFile::new(settings.run_dir.join("balancer-ipvs.json")),
            owned: None,
            failed: BTreeMap::new(),
            healed_at: None,
            notes: Vec::new(),
        }
    }

    /// Serving ones; a table of a standby would take traffic that is not for it.
    fn active(&self) -> impl Iterator<Item = &WantedService> {
        active(&self.services)
    }

    /// Makes the kernel's tables ours, all of them or those that changed, and returns how much had
    /// to be done.
    fn reconcile(&mut self, now: Instant, scope: &ObservedTables) -> usize {
        if *scope == ObservedTables::All {
            self.healed_at = Some(now);
        }
        let ids: BTreeSet<_> =
            self.active().flat_map(|wanted| OwnedId::all(&wanted.service)).collect();
        let mut owned = self.owned.take().unwrap_or_else(|| self.state.load().unwrap_or_default());
        let known = owned.len();
        owned.extend(&ids);
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
                let failed: BTreeSet<ServiceId> =
                    report.failed.iter().map(|failure| failure.service).collect();
                let is_there = |id: &OwnedId| failed.contains(&id.kernel_id());
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
                    let advice = way_out(&wanted.service, &[BackendKind::Ipvs]);
                    let text = [Some(error.clone()), advice].into_iter().flatten();
                    (wanted.service.name.clone(), text.collect::<Vec<_>>().join(", "))
                };
                self.failed = self.active().map(explain).collect();
                0
            }
        };
        self.owned = Some(owned);
        applied
    }

    /// What is not of one table. Comes after the tables: clients wait for those.
    fn reconcile_host(&mut self, now: Instant) {
        let serves = self.active().next().is_some();
        let before = self.host.failed.clone();
        if self.host.is_idle(&self.wanted, serves) {
            return self.host.failed.clear();
        }
        // A kernel that had none for the tables, a moment ago, has none now.
        match self.kernel.session(&self.modules, now, ABSENT_INTERVAL) {
            Ok(session) => self.host.reconcile(session, &self.wanted, serves),
            Err(reason) => self.host.failed = vec![reason],
        }
        let new = self.host.failed.iter().filter(|text| !before.contains(text));
        let note = |text: &String| Note { name: Name::from("ipvs"), text: text.clone() };
        self.notes.extend(new.map(note));
    }

    fn change_kernel(
        &mut self,
        owned: &BTreeSet<OwnedId>,
        scope: &ObservedTables,
        now: Instant,
    ) -> Result<ipvs::Reconciliation, String> {
        let tables = self.active().flat_map(tables_of).filter(|(id, ..)| scope.covers(id));
        let wanted: Vec<_> = tables.map(|(_, spec, dests)| (spec, dests)).collect();
        let owned: Vec<_> =
            owned.iter().filter(|id| scope.covers(id)).map(OwnedId::kernel_id).collect();
        let session = self.kernel.session(&self.modules, now, Duration::ZERO)?;
        let result = session.reconcile(&wanted, &owned);
        if result.is_err() {
            // A session that failed as a whole is opened anew by the next attempt.
            self.kernel = Kernel::Unknown;
        }
        result.map_err(|error| error.to_string())
    }

    /// What is not looked at stays as it was, unless it is not wanted any more.
    fn note_failures(&mut self, report: &ipvs::Reconciliation, scope: &ObservedTables) {
        let mut before = std::mem::take(&mut self.failed);
        let mut failed = BTreeMap::new();
        let mut by_table: BTreeMap<ServiceId, Vec<String>> = BTreeMap::new();
        for failure in &report.failed {
            by_table.entry(failure.service).or_default().push(failure.to_string());
        }
        for wanted in self.active() {
            // All tables of a service are looked at, or none.
            if !OwnedId::all(&wanted.service).any(|id| scope.covers(&id)) {
                failed.extend(before.remove_entry(&wanted.service.name));
                continue;
            }
            let of_table = |id: OwnedId| by_table.remove(&id.kernel_id()).unwrap_or_default();
            let all: Vec<_> = OwnedId::all(&wanted.service).flat_map(of_table).collect();
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
enum ObservedTables {
    All,
    These(BTreeSet<OwnedId>),
}

impl ObservedTables {
    /// The tables in which two levels differ.
    fn between(before: &[Arc<WantedService>], now: &[Arc<WantedService>]) -> Self {
        let by_id = |services: &[Arc<WantedService>]| -> BTreeMap<OwnedId, *const WantedService> {
            let tables = active(services).flat_map(|wanted| {
                OwnedId::all(&wanted.service).map(move |id| (id, std::ptr::from_ref(wanted)))
            });
            tables.collect()
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

impl Backend for IpvsBackend {
    fn kind(&self) -> Option<BackendKind> {
        Some(BackendKind::Ipvs)
    }

    /// Asked again whenever another service is to be placed, and by every attempt to serve one.
    fn available(&mut self) -> Result<(), String> {
        self.kernel.session(&self.modules, Instant::now(), ABSENT_INTERVAL).map(drop)
    }

    fn apply(&mut self, share: WantedServices, now: Instant) {
        let before = std::mem::replace(&mut self.services, share.services);
        let scope = match self.owned {
            None => ObservedTables::All,
            Some(_) => ObservedTables::between(&before, &self.services),
        };
        if !scope.is_empty() {
            self.reconcile(now, &scope);
        }
        if self.wanted != share.ipvs || !scope.is_empty() {
            self.wanted = share.ipvs;
            self.reconcile_host(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.next_tick(now) != Some(Duration::ZERO) {
            return;
        }
        let was_well = self.failed.is_empty();
        let healed = self.reconcile(now, &ObservedTables::All);
        self.reconcile_host(now);
        if healed > 0 && was_well {
            let text = format!("ipvs tables were changed by somebody else, {healed} put back");
            self.notes.push(Note { name: Name::from("ipvs"), text });
        }
    }

    fn next_tick(&self, now: Instant) -> Option<Duration> {
        let nothing_to_watch = self.active().next().is_none()
            && self.wanted.sync.is_none()
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
        if !self.host.failed.is_empty() {
            let text = plan::first_few(&self.host.failed, "; ");
            let served = self.active().map(|wanted| &wanted.service.name);
            let served = served.filter(|name| !self.failed.contains_key(*name));
            progress.strained.extend(served.map(|name| (name.clone(), text.clone())));
        }
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
        let observed: BTreeMap<ServiceId, ObservedService> =
            observed.into_iter().map(|table| (table.spec.id, table)).collect();
        for wanted in &self.services {
            let tables: Vec<&ObservedService> = OwnedId::all(&wanted.service)
                .filter_map(|id| observed.get(&id.kernel_id()))
                .collect();
            let servers = servers_of(&tables);
            let error = self.failed.get(&wanted.service.name).cloned();
            let state = BalancedState::of(wanted.activity, error.as_ref());
            status.services.push(BalancedService {
                name: wanted.service.name.clone(),
                backend: BackendKind::Ipvs,
                state,
                error,
                strained: None,
                active: servers.iter().map(|server| server.active).sum(),
                accepted: tables.iter().map(|table| table.traffic.connections).sum(),
                waiting: None,
                octets: Some(octets_of(tables.iter().map(|table| table.traffic))),
                servers,
            });
        }
    }
}

fn octets_of(all: impl Iterator<Item = IpvsTraffic>) -> CarriedOctets {
    all.fold(CarriedOctets::default(), with)
}

fn with(before: CarriedOctets, more: IpvsTraffic) -> CarriedOctets {
    let (inward, outward) = before.a_second.unwrap_or_default();
    CarriedOctets {
        inward: before.inward + more.octets_in,
        outward: before.outward + more.octets_out,
        a_second: Some((inward + more.octets_in_a_second, outward + more.octets_out_a_second)),
    }
}

/// Of all tables of a service: each server once.
fn servers_of(tables: &[&ObservedService]) -> Vec<BalancedServer> {
    let mut servers: BTreeMap<SocketAddr, BalancedServer> = BTreeMap::new();
    for dest in tables.iter().flat_map(|table| &table.dests) {
        let address = SocketAddr::new(dest.spec.id.address, dest.spec.id.port);
        let server = servers.entry(address).or_insert(BalancedServer {
            address,
            weight: dest.spec.weight,
            active: 0,
            failures: 0,
            inactive: Some(0),
            connection_rate: Some(0),
            octets: Some(CarriedOctets::default()),
        });
        server.active += u64::from(dest.active_connections);
        let add = |sum: &mut Option<u64>, more: u64| *sum = sum.map(|sum| sum + more);
        add(&mut server.inactive, u64::from(dest.inactive_connections));
        add(&mut server.connection_rate, dest.traffic.connections_a_second);
        server.octets = server.octets.map(|before| with(before, dest.traffic));
    }
    servers.into_values().collect()
}

#[cfg(test)]
#[path = "ipvs/tests.rs"]
mod tests;
