//! Make the kernel hold and not hold what several instances want, in one go.
//!
//! ```text
//!   changes ──► notifications read ──► plan ──► batches of requests ──► answers
//!                                                                         │
//!   refused, because the table was wrong: dump, once more ◄───────────────┘
//! ```
//!
//! No change costs a dump: what is there is known from the notifications.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use netlink_packet_route::address::AddressFlags;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::address::{AddressWriter, FoundAddress, MarkedAddress, keeps_marks};
use super::fact::{FactRemoval, KernelFact, KernelFactKey, WantedFacts};
use super::monitor::{Monitor, MonitorEvent, Removed, addresses};
use super::observed::Observed;
use super::plan::{Step, StepPlan, Task, WantedByKey, plan, renewals};
use crate::nftables::{LeaseId, Leases};
use crate::sock_diag::SockDiag;
use crate::transport::{
    BATCH_REQUESTS, KernelError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkRequest,
    NetlinkTransport,
};

/// One fact that could not be made true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactFailure {
    pub fact: KernelFact,
    /// What was being done.
    pub action: FactAction,
    /// ENODEV when there is no such interface.
    pub error: KernelError,
}

/// What is done to one fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FactAction {
    /// It was not there, and is not.
    Add,
    /// It was there and ours, and may run out.
    Renew,
    /// It is still there.
    Remove,
}

impl fmt::Display for FactAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Renew => "renew",
            Self::Remove => "remove",
        })
    }
}

impl fmt::Display for FactFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fact, action, error } = self;
        write!(f, "cannot {action} {fact}: {error}")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Those that failed; all others of the same change were done.
    #[error("{}", list(.0))]
    Facts(Vec<FactFailure>),
    /// The netlink socket itself failed, or the kernel did not answer in time: nothing is known
    /// about what was done. The next change looks for itself.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
}

/// Failures for a person, the first few in full.
fn list(failures: &[FactFailure]) -> String {
    const SHOWN: usize = 3;
    let mut text =
        failures.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failures.len() > SHOWN {
        text.push_str(&format!("; and {} more", failures.len() - SHOWN));
    }
    text
}

/// Addresses of one network namespace: what they shall be, and what happens to them.
///
/// Changes are synchronous: the kernel carries out a netlink request within the call. Use it from a
/// thread that may take that time. It waits two seconds for an answer, then gives up; what cannot be
/// limited from here is how long the kernel makes a request wait for its lock.
#[derive(Debug)]
pub struct Netlink {
    transport: NetlinkTransport,
    monitor: Monitor,
    leases: Leases,
    writer: AddressWriter,
    /// A socket failed or an answer did not come: begin anew before anything else.
    failed: bool,
}

impl Netlink {
    /// Opens both sockets and reads every link and address. To be called inside a tokio runtime with
    /// I/O enabled.
    pub fn connect() -> io::Result<Self> {
        let transport = NetlinkTransport::open(NETLINK_ROUTE)?;
        let monitor = Monitor::open(Observed::new(keeps_marks()), transport.port())?;
        let (leases, writer) = (Leases::default(), AddressWriter::default());
        let mut netlink = Self { transport, monitor, leases, writer, failed: false };
        netlink.monitor.catch_up(&mut netlink.transport)?;
        Ok(netlink)
    }

    /// New sockets in place of failed ones. What this process holds is remembered: a kernel before
    /// 5.18 could not tell. What was lost meanwhile is reported, and every link again.
    pub fn reconnect(&mut self) -> io::Result<()> {
        self.failed = true;
        let transport = NetlinkTransport::open(NETLINK_ROUTE)?;
        self.monitor.reopen(transport.port())?;
        self.transport = transport;
        self.monitor.catch_up(&mut self.transport)?;
        self.failed = false;
        Ok(())
    }

    /// The next event. Cancel-safe. After an error, [`reconnect`](Self::reconnect).
    pub async fn next(&mut self) -> io::Result<MonitorEvent> {
        self.monitor.next(&mut self.transport).await
    }

    /// Makes the kernel as one change wants it; see [`apply_all`](Self::apply_all).
    pub fn apply(&mut self, change: &WantedFacts<'_>) -> Result<(), ApplyError> {
        self.apply_all(std::slice::from_ref(change)).into_iter().collect()
    }

    /// Makes the kernel as all these changes want it, in batches of requests; one answer for each
    /// change, in their order. Applying the same again only renews. What one change holds no other
    /// one drops. What is connected to an address is reset before that is removed. One failing fact does not stop the others. Where the kernel keeps no marks (before
    /// 5.18), what this process added is ours.
    pub fn apply_all(&mut self, changes: &[WantedFacts<'_>]) -> Vec<Result<(), ApplyError>> {
        match self.carry_out(changes) {
            Ok(refusals) => changes.iter().map(|change| refusals.of(change)).collect(),
            Err(error) => {
                self.failed = true;
                let again = || io::Error::new(error.kind(), error.to_string());
                changes.iter().map(|_| Err(ApplyError::Socket(again()))).collect()
            }
        }
    }

    /// Every address in this network namespace that carries our mark. Asks the kernel.
    pub fn marked_addresses(&mut self) -> io::Result<Vec<MarkedAddress>> {
        self.monitor.catch_up(&mut self.transport)?;
        let found = addresses(&mut self.transport)?;
        let marked: Vec<_> = found.into_iter().filter(|found| found.marked).collect();
        let leases = self.leases.remaining();
        self.leases.inherit(marked.iter().filter_map(|found| {
            let (address, index) = lease_id(&key_of(found))?;
            leases.contains_key(&address).then_some((address, index))
        }));
        let marked = marked.into_iter().filter_map(|found| {
            let FoundAddress { index, address, prefix, valid_seconds, .. } = found;
            // A link that came or went since has taken its addresses with it.
            let interface = self.monitor.observed.name(index)?;
            let left = match address {
                IpAddr::V6(address) => leases.get(&address),
                IpAddr::V4(_) => None,
            };
            let left = left.map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX));
            Some(MarkedAddress {
                interface,
                address,
                prefix,
                valid_seconds: left.or(valid_seconds),
            })
        });
        Ok(marked.collect())
    }

    fn carry_out(&mut self, changes: &[WantedFacts<'_>]) -> io::Result<Refusals> {
        if self.failed {
            self.reconnect()?;
        }
        self.monitor.catch_up(&mut self.transport)?;
        if let Some(steps) = renewals(changes, &self.monitor.observed) {
            return self.renew(changes, steps);
        }
        let mut wanted = WantedByKey::of(changes, &self.monitor.observed);
        let mut refusals = Refusals::of_missing_links(changes, &self.monitor.observed);
        let surprises = self.round(&wanted, &mut refusals)?;
        if !surprises.is_empty() {
            // Somebody added an address between our look and our request: look once more.
            self.monitor.stale = true;
            self.monitor.catch_up(&mut self.transport)?;
            wanted.hold.retain(|key, _| surprises.contains(key));
            wanted.drop.clear();
            for key in self.round(&wanted, &mut refusals)? {
                self.monitor.observed.disclaim(&key);
                refusals.note(key, FactAction::Add, KernelError::new(Errno::EEXIST));
            }
        }
        Ok(refusals)
    }

    /// What is there shall stay. Where the kernel does as it is asked, nothing that is known changes.
    fn renew(&mut self, changes: &[WantedFacts<'_>], steps: Vec<Step<'_>>) -> io::Result<Refusals> {
        self.monitor.forget_removed();
        let (steps, lifetimes) = self.lease(steps);
        let mut refusals = Refusals::default();
        for batch in steps.chunks(BATCH_REQUESTS) {
            for (step, error) in self.exchange(batch, &lifetimes)? {
                if refusals.by_key.is_empty() {
                    refusals = Refusals::of_missing_links(changes, &self.monitor.observed);
                }
                self.refused(step, error, &mut refusals, &mut HashSet::new());
            }
            // Before the buffer of the notifications overflows.
            self.monitor.drain()?;
        }
        self.leases.forget(refusals.by_key.keys().filter_map(lease_id));
        Ok(refusals)
    }

    /// Plans and acts once. Returns the additions that met an address which the table did not have.
    fn round(
        &mut self,
        wanted: &WantedByKey<'_>,
        refusals: &mut Refusals,
    ) -> io::Result<HashSet<KernelFactKey>> {
        self.monitor.forget_removed();
        let StepPlan { steps, foreign } = plan(wanted, &self.monitor.observed);
        let observed = &mut self.monitor.observed;
        for (key, prefix) in &foreign {
            observed.claim(*key, *prefix, false);
        }
        let foreign: Vec<_> = foreign.into_iter().map(|(key, _)| key).collect();
        for key in wanted.drop.keys() {
            observed.disclaim(key);
        }
        let asked: HashSet<(KernelFactKey, u8)> = steps.iter().filter_map(removes).collect();
        self.cut_off(wanted, &asked);
        let (steps, lifetimes) = self.lease(steps);
        let mut surprises = HashSet::new();
        for batch in steps.chunks(BATCH_REQUESTS) {
            self.execute(batch, &lifetimes, refusals, &mut surprises)?;
            // Before the buffer of the notifications overflows.
            self.monitor.drain()?;
            self.put_back(&asked)?;
        }
        let not_held = |key: &&KernelFactKey| {
            let is_refused =
                refusals.by_key.get(*key).is_some_and(|(action, _)| *action != FactAction::Remove);
            !wanted.hold.contains_key(*key) || is_refused
        };
        let gone = steps.iter().map(|step| &step.key).filter(not_held).chain(&foreign);
        self.leases.forget(gone.filter_map(lease_id));
        Ok(surprises)
    }

    /// Connections end with the address that they are at: without it this host could not even say so,
    /// and a client that waits for an answer would wait for ever.
    fn cut_off(&self, wanted: &WantedByKey<'_>, leaving: &HashSet<(KernelFactKey, u8)>) {
        let address_of = |key: &KernelFactKey| {
            let KernelFactKey::Address { address, .. } = *key;
            address
        };
        let held: HashSet<IpAddr> = wanted.hold.keys().map(address_of).collect();
        let stays = |address: &IpAddr| {
            let mut there = self.monitor.observed.places_of(*address);
            held.contains(address) || there.any(|place| !leaving.contains(&place))
        };
        let mut gone: HashSet<IpAddr> = leaving.iter().map(|(key, _)| address_of(key)).collect();
        gone.retain(|address| !stays(address));
        if gone.is_empty() {
            return;
        }
        match SockDiag::open().and_then(|mut kernel| kernel.reset_at(&gone)) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "connections reset with their address"),
            // Its clients hear it from the next master when they speak.
            Err(error) => tracing::debug!(%error, "connections are not reset with their address"),
        }
    }

    /// Begins or renews the leases of IPv6 addresses. Returns the steps that are left, and how long
    /// the kernel shall keep an address whose lease is not its lifetime.
    fn lease<'a>(&mut self, steps: Vec<Step<'a>>) -> (Vec<Step<'a>>, HashMap<KernelFactKey, u32>) {
        let leased = |step: &Step<'_>| {
            let (Task::Add(spec) | Task::Renew(spec)) = step.task else { return None };
            let length = Duration::from_secs(u64::from(spec.valid_seconds?));
            Some((lease_id(&step.key)?, length))
        };
        let leases: Vec<_> = steps.iter().filter_map(leased).collect();
        let mut lifetimes = HashMap::new();
        if leases.is_empty() || !self.leases.renew(&leases) {
            return (steps, lifetimes);
        }
        let mut left = Vec::with_capacity(steps.len());
        for step in steps {
            let Some((id, _)) = leased(&step) else {
                left.push(step);
                continue;
            };
            if matches!(step.task, Task::Add(_)) {
                self.leases.disturbed(id);
            }
            match (self.leases.lifetime_to_renew(id), step.task) {
                (Some(lifetime), _) => {
                    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
                    lifetimes.insert(step.key, seconds);
                    left.push(step);
                }
                (None, Task::Add(spec) | Task::Renew(spec)) => {
                    self.monitor.observed.claim(step.key, spec.prefix, true);
                }
                (None, Task::Remove { .. }) => {}
            }
        }
        (left, lifetimes)
    }

    fn execute(
        &mut self,
        steps: &[Step<'_>],
        lifetimes: &HashMap<KernelFactKey, u32>,
        refusals: &mut Refusals,
        surprises: &mut HashSet<KernelFactKey>,
    ) -> io::Result<()> {
        let observed = &mut self.monitor.observed;
        for step in steps {
            if let Task::Add(spec) | Task::Renew(spec) = step.task {
                observed.claim(step.key, spec.prefix, true);
            }
        }
        let failed = self.exchange(steps, lifetimes)?;
        let mut failed = failed.into_iter().peekable();
        for step in steps {
            match failed.next_if(|(failed, _)| std::ptr::eq(*failed, step)) {
                Some((_, error)) => self.refused(step, error, refusals, surprises),
                None => done(&mut self.monitor.observed, step),
            }
        }
        Ok(())
    }

    /// Asks the kernel; returns what it refused, in order.
    fn exchange<'a, 'b>(
        &mut self,
        steps: &'b [Step<'a>],
        lifetimes: &HashMap<KernelFactKey, u32>,
    ) -> io::Result<Vec<(&'b Step<'a>, KernelError)>> {
        let writer = &mut self.writer;
        let write = |step: &Step<'_>, octets: &mut Vec<u8>| write(writer, step, lifetimes, octets);
        let failed = self.transport.carry_out(steps, write)?;
        Ok(failed.into_iter().map(|(at, error)| (&steps[at], error)).collect())
    }

    fn refused(
        &mut self,
        step: &Step<'_>,
        error: KernelError,
        refusals: &mut Refusals,
        surprises: &mut HashSet<KernelFactKey>,
    ) {
        let observed = &mut self.monitor.observed;
        if let Some(id) = lease_id(&step.key) {
            self.leases.disturbed(id);
        }
        match (step.task, error.errno()) {
            (Task::Add(_), Errno::EEXIST) => {
                surprises.insert(step.key);
            }
            (Task::Add(_), _) => {
                observed.disclaim(&step.key);
                refusals.note(step.key, FactAction::Add, error);
            }
            (Task::Renew(_), _) => {
                observed.disclaim(&step.key);
                refusals.note(step.key, FactAction::Renew, error);
            }
            // Already gone, with or without its link.
            (Task::Remove { .. }, Errno::EADDRNOTAVAIL | Errno::ENODEV) => done(observed, step),
            (Task::Remove { .. }, _) => refusals.note(step.key, FactAction::Remove, error),
        }
    }

    /// With `promote_secondaries` off, the kernel removes every other address of a subnet with the
    /// first one. What we did not ask for is put back as it was, whoever it belongs to.
    fn put_back(&mut self, asked: &HashSet<(KernelFactKey, u8)>) -> io::Result<()> {
        let taken_along: Vec<Removed> = std::mem::take(&mut self.monitor.removed)
            .into_iter()
            .filter(|removed| !asked.contains(&(key_of(&removed.found), removed.found.prefix)))
            .collect();
        let request = |removed: &Removed| {
            let body = removed.body.clone();
            NetlinkRequest { kind: libc::RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, body }
        };
        let requests: Vec<_> = taken_along.iter().map(request).collect();
        if requests.is_empty() {
            return Ok(());
        }
        let answers = self.transport.exchange(&requests)?;
        let observed = &mut self.monitor.observed;
        for (Removed { found, .. }, answer) in taken_along.into_iter().zip(answers) {
            let FoundAddress { address, prefix, index, .. } = found;
            let interface = observed.name(index).unwrap_or_default();
            match answer.error {
                None => {
                    tracing::info!(%address, prefix, %interface,
                        "put back an address that the kernel removed together with one of ours");
                    observed.set_address(found);
                }
                Some(error) => {
                    tracing::warn!(%address, prefix, %interface, %error,
                        "the kernel removed an address together with one of ours, and it cannot be \
                         put back: set promote_secondaries to 1 for this interface");
                    self.monitor.stale = true;
                }
            }
        }
        Ok(())
    }
}

fn removes(step: &Step<'_>) -> Option<(KernelFactKey, u8)> {
    match step.task {
        Task::Remove { prefix } => Some((step.key, prefix)),
        Task::Add(_) | Task::Renew(_) => None,
    }
}

fn key_of(found: &FoundAddress) -> KernelFactKey {
    KernelFactKey::Address { index: found.index, address: found.address }
}

/// Of an address whose lease may be another thing than its lifetime.
fn lease_id(key: &KernelFactKey) -> Option<LeaseId> {
    match *key {
        KernelFactKey::Address { index, address: IpAddr::V6(address) } => Some((address, index)),
        KernelFactKey::Address { address: IpAddr::V4(_), .. } => None,
    }
}

/// The kernel has done it.
fn done(observed: &mut Observed, step: &Step<'_>) {
    let KernelFactKey::Address { index, address } = step.key;
    match step.task {
        Task::Add(spec) | Task::Renew(spec) => observed.set_address(FoundAddress {
            index,
            address,
            prefix: spec.prefix,
            flags: AddressFlags::empty(),
            marked: observed.keeps_marks(),
            valid_seconds: spec.valid_seconds,
        }),
        Task::Remove { prefix } => observed.remove_address(index, address, prefix),
    }
}

/// Writes the body of a request; returns its kind and flags.
fn write(
    writer: &mut AddressWriter,
    step: &Step<'_>,
    lifetimes: &HashMap<KernelFactKey, u32>,
    octets: &mut Vec<u8>,
) -> (u16, u16) {
    let KernelFactKey::Address { index, address } = step.key;
    let lifetime = if lifetimes.is_empty() { None } else { lifetimes.get(&step.key).copied() };
    let (spec, flags) = match step.task {
        Task::Add(spec) => (spec, NLM_F_EXCL),
        Task::Renew(spec) => (spec, NLM_F_REPLACE),
        Task::Remove { prefix } => {
            writer.removal(index, address, prefix, octets);
            return (libc::RTM_DELADDR, 0);
        }
    };
    writer.addition(spec, index, lifetime.or(spec.valid_seconds), octets);
    (libc::RTM_NEWADDR, NLM_F_CREATE | flags)
}

/// What the kernel refused, until it is told to every change that asked for it.
#[derive(Default)]
struct Refusals {
    by_key: HashMap<KernelFactKey, (FactAction, KernelError)>,
    /// Index of every interface that the changes name.
    indices: HashMap<Arc<str>, Option<u32>>,
}

impl Refusals {
    /// None yet but for what is wanted on links that do not exist. What is not wanted there is
    /// dropped already.
    fn of_missing_links(changes: &[WantedFacts<'_>], observed: &Observed) -> Self {
        let mut indices = HashMap::new();
        for change in changes {
            let drop = change.drop.iter().map(|unwanted| &unwanted.fact);
            for fact in change.hold.iter().chain(drop) {
                let name = fact.interface();
                if !indices.contains_key(name) {
                    indices.insert(Arc::clone(name), observed.index(name));
                }
            }
        }
        Self { by_key: HashMap::new(), indices }
    }

    fn note(&mut self, key: KernelFactKey, action: FactAction, error: KernelError) {
        self.by_key.insert(key, (action, error));
    }

    /// The part that this change asked for.
    fn of(&self, change: &WantedFacts<'_>) -> Result<(), ApplyError> {
        if self.by_key.is_empty() && self.indices.is_empty() {
            return Ok(());
        }
        let mut failures = Vec::new();
        let index = |fact: &KernelFact| self.indices.get(fact.interface()).copied().flatten();
        let mut fail = |fact: &KernelFact, action: FactAction, error: KernelError| {
            failures.push(FactFailure { fact: fact.clone(), action, error });
        };
        for fact in change.hold {
            match index(fact) {
                None => fail(fact, FactAction::Add, KernelError::new(Errno::ENODEV)),
                Some(index) => {
                    if let Some((action, error)) = self.by_key.get(&fact.key(index)) {
                        fail(fact, *action, error.clone());
                    }
                }
            }
        }
        for FactRemoval { fact, .. } in change.drop {
            let key = index(fact).map(|index| fact.key(index));
            if let Some((FactAction::Remove, error)) = key.and_then(|key| self.by_key.get(&key)) {
                fail(fact, FactAction::Remove, error.clone());
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ApplyError::Facts(failures)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::address::{AddressSpec, KernelScope};

    #[test]
    fn an_error_names_action_address_interface_and_the_kernels_words() {
        let failure = |last: u8| FactFailure {
            fact: KernelFact::Address(AddressSpec {
                interface: "eth0".into(),
                address: [192, 0, 2, last].into(),
                prefix: 24,
                broadcast: None,
                label: None,
                scope: KernelScope::Global,
                nodad: true,
                noprefixroute: false,
                valid_seconds: None,
            }),
            action: FactAction::Add,
            error: KernelError { code: libc::EINVAL, message: Some("bad label".into()) },
        };
        let error = ApplyError::Facts((1..=5).map(failure).collect());
        let first = "cannot add 192.0.2.1/24 on eth0: invalid argument (bad label)";
        assert!(error.to_string().starts_with(first), "{error}");
        assert!(error.to_string().ends_with("; and 2 more"), "{error}");
    }
}
