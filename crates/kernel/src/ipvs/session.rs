//! A session with the kernel's load balancer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use std::{fmt, io};

use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;

use super::codec;
use super::model::{DestId, DestSpec, ObservedService, Operation, ServiceId, ServiceSpec};
use super::modules::ModuleLoader;
use super::plan::{Remedy, plan, remedy};
use super::sync::{SyncChange, SyncState, SyncThread, sync_changes};
use super::sync_codec::{self, ConnectionTimeouts};
use crate::attribute::{Attributes, attributes};
use crate::transport::{KernelError, NetlinkMessage, NetlinkRequest, NetlinkTransport};

/// How long the modules of all that one call asks for are waited for, once: what has not come by then
/// is looked after by the next call, and not waited for. One takes some 10 ms.
const MODULE_LIMIT: Duration = Duration::from_secs(5);

/// Netlink type of the family that knows all others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const CONTROLLER_VERSION: u8 = 2;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// struct genlmsghdr.
const GENERIC_HEADER_OCTETS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum IpvsError {
    /// Choose another backend.
    #[error("the kernel has no ipvs, and its module ip_vs cannot be loaded")]
    NotSupported,
    #[error("ipvs needs the capability CAP_NET_ADMIN in this network namespace")]
    NotPermitted,
    #[error("ipvs: {0}")]
    Kernel(#[from] KernelError),
    #[error("ipvs netlink socket: {0}")]
    Socket(#[from] io::Error),
}

/// Why connections are not synchronised as wanted.
#[derive(Debug, thiserror::Error)]
pub enum SyncFailure {
    #[error(transparent)]
    Session(IpvsError),
    #[error("cannot synchronise connections as {0} on {1}: {2}")]
    Start(SyncState, String, KernelError),
    #[error("cannot end the synchronisation of connections as {0}: {1}")]
    Stop(SyncState, KernelError),
}

/// What a reconciliation did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciliation {
    /// Operations the kernel carried out; 0 when everything was as wanted (I-033).
    pub applied: usize,
    /// Operations it refused; all others were done.
    pub failed: Vec<RefusedOperation>,
}

/// One operation that the kernel refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedOperation {
    pub service: ServiceId,
    pub dest: Option<DestId>,
    /// "add", "change" or "remove".
    pub action: &'static str,
    pub error: KernelError,
}

impl RefusedOperation {
    fn of(operation: &Operation, error: KernelError) -> Self {
        let (service, dest, action) = match operation {
            Operation::NewService(spec) => (spec.id, None, "add"),
            Operation::SetService(spec) => (spec.id, None, "change"),
            Operation::DelService(id) => (*id, None, "remove"),
            Operation::NewDest(id, dest) => (*id, Some(dest.id), "add"),
            Operation::SetDest(id, dest) => (*id, Some(dest.id), "change"),
            Operation::DelDest(id, dest) => (*id, Some(*dest), "remove"),
        };
        Self { service, dest, action, error: explained(operation, error) }
    }

    /// Of one that was not tried yet.
    fn waiting(operation: &Operation) -> Self {
        let mut error = KernelError::new(Errno::EINPROGRESS);
        let modules = modules_of(operation).join(" and ");
        error.message = Some(format!("the kernel is still loading module {modules}"));
        Self::of(operation, error)
    }
}

/// Modules that the kernel loads for an operation, if it has to.
fn modules_of(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::NewService(spec) | Operation::SetService(spec) => spec.modules(),
        Operation::DelService(_)
        | Operation::NewDest(..)
        | Operation::SetDest(..)
        | Operation::DelDest(..) => Vec::new(),
    }
}

/// Says in words what a bare errno hides (I-036).
fn explained(operation: &Operation, mut error: KernelError) -> KernelError {
    let (Operation::NewService(spec) | Operation::SetService(spec)) = operation else {
        return error;
    };
    if error.errno() == Errno::ENOENT && error.message.is_none() {
        let scheduler = &spec.scheduler;
        error.message =
            Some(format!("is there a scheduler {scheduler:?}, module ip_vs_{scheduler}?"));
    }
    error
}

impl fmt::Display for RefusedOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, dest, action, error } = self;
        match dest {
            Some(dest) => write!(f, "cannot {action} server {dest} of {service}: {error}"),
            None => write!(f, "cannot {action} service {service}: {error}"),
        }
    }
}

/// Blocking, for a thread of its own. One writer per network namespace (I-008).
#[derive(Debug)]
pub struct Ipvs {
    transport: NetlinkTransport,
    modules: ModuleLoader,
    /// Netlink type of the IPVS family; differs from boot to boot.
    family: u16,
    version: [u8; 3],
}

impl Ipvs {
    /// Finds the kernel's IPVS in the caller's network namespace; has its module loaded when it is not
    /// there (I-001), and waits for that 5 s at most, no matter how often it is called meanwhile.
    pub fn open(modules: &ModuleLoader) -> Result<Self, IpvsError> {
        let mut transport = NetlinkTransport::open(NETLINK_GENERIC)?;
        let mut found = resolve(&mut transport, codec::FAMILY)?;
        if found.is_none() && modules.settle("ip_vs", MODULE_LIMIT) {
            found = resolve(&mut transport, codec::FAMILY)?;
        }
        let family = found.ok_or(IpvsError::NotSupported)?;
        let modules = modules.clone();
        let mut session = Self { transport, modules, family, version: [0; 3] };
        // The first question that needs the capability (I-002).
        let info = session.ask(codec::get_info())?;
        if let Some(version) = info.iter().find_map(|message| codec::read_info(&message.body)) {
            session.version = version;
        }
        Ok(session)
    }

    /// Major, minor, patch, such as 1.2.1.
    pub fn version(&self) -> [u8; 3] {
        self.version
    }

    /// Everything in this network namespace, foreign services too, except those that only a newer
    /// kernel has words for.
    pub fn dump(&mut self) -> Result<Vec<ObservedService>, IpvsError> {
        self.dump_only(|_| true)
    }

    /// Makes the kernel serve `wanted`, and none of `owned` that is not wanted. Every other service
    /// is left alone. Safe to repeat: what is as wanted is not touched.
    pub fn reconcile(
        &mut self,
        wanted: &[(ServiceSpec, Vec<DestSpec>)],
        owned: &[ServiceId],
    ) -> Result<Reconciliation, IpvsError> {
        // A surprise means that somebody else writes too, and that the dump was old: look again.
        const PASSES: usize = 3;
        let concerned: BTreeSet<_> =
            wanted.iter().map(|(spec, _)| spec.id).chain(owned.iter().copied()).collect();
        let mut report = Reconciliation::default();
        for _ in 0..PASSES {
            let observed = self.dump_only(|id| concerned.contains(id))?;
            let operations = plan(wanted, owned, &observed);
            let pass = self.execute(&operations)?;
            report.applied += pass.applied;
            report.failed = pass.failed;
            if !pass.surprised {
                break;
            }
        }
        Ok(report)
    }

    /// The threads that synchronise connections.
    pub fn sync_threads(&mut self) -> Result<Vec<SyncThread>, IpvsError> {
        let messages = self.transport.dump(self.family, &sync_codec::get_sync_threads())??;
        let read = |message: &NetlinkMessage| sync_codec::read_sync_thread(&message.body);
        Ok(messages.iter().filter_map(read).collect())
    }

    /// Makes the threads `wanted` run, and none of `owned` that is not wanted. Safe to repeat.
    /// Returns how many changes there were.
    pub fn reconcile_sync(
        &mut self,
        wanted: &[SyncThread],
        owned: &[SyncState],
    ) -> Result<usize, SyncFailure> {
        let running = self.sync_threads().map_err(SyncFailure::Session)?;
        let changes = sync_changes(wanted, owned, &running);
        let requests: Vec<_> =
            changes.iter().map(|one| self.request(sync_codec::sync_change(one))).collect();
        let answers = self.transport.exchange(&requests).map_err(IpvsError::Socket);
        let answers = answers.map_err(SyncFailure::Session)?;
        for (change, answer) in changes.iter().zip(answers) {
            let Err(error) = answer.into_result() else { continue };
            match (change, error.errno()) {
                // I-051: somebody else was faster.
                (SyncChange::Start(_), Errno::EEXIST) | (SyncChange::Stop(_), Errno::ESRCH) => {}
                (SyncChange::Start(thread), _) => {
                    let interface = thread.interface.clone();
                    return Err(SyncFailure::Start(thread.state, interface, error));
                }
                (SyncChange::Stop(state), _) => return Err(SyncFailure::Stop(*state, error)),
            }
        }
        Ok(changes.len())
    }

    /// The timeouts of connections in force.
    pub fn timeouts(&mut self) -> Result<ConnectionTimeouts, IpvsError> {
        let answer = self.ask(sync_codec::get_timeouts())?;
        let found = answer.iter().find_map(|message| sync_codec::read_timeouts(&message.body));
        Ok(found.unwrap_or_default())
    }

    /// Sets those that are not 0.
    pub fn set_timeouts(&mut self, timeouts: ConnectionTimeouts) -> Result<(), IpvsError> {
        self.ask(sync_codec::set_timeouts(timeouts)).map(drop)
    }

    fn dump_only(
        &mut self,
        concerns: impl Fn(&ServiceId) -> bool,
    ) -> Result<Vec<ObservedService>, IpvsError> {
        let messages = self.transport.dump(self.family, &codec::get_services())??;
        let mut services: Vec<_> =
            messages.iter().filter_map(|message| codec::read_service(&message.body)).collect();
        services.retain(|service| concerns(&service.spec.id));
        for service in &mut services {
            let id = service.spec.id;
            let messages = self.transport.dump(self.family, &codec::get_dests(&id))??;
            let read = |message: &NetlinkMessage| codec::read_dest(&message.body, id.family());
            service.dests = messages.iter().filter_map(read).collect();
        }
        Ok(services)
    }

    fn execute(&mut self, operations: &[Operation]) -> Result<Pass, IpvsError> {
        let mut pass = Pass::default();
        let end = Instant::now() + MODULE_LIMIT;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            operations.iter().partition(|operation| self.has_modules(operation, end));
        pass.failed.extend(waiting.into_iter().map(RefusedOperation::waiting));
        let answers = self.send(&ready)?;
        let mut again = Vec::new();
        for (operation, answer) in ready.into_iter().zip(answers) {
            match answer {
                Ok(()) => pass.applied += 1,
                Err(error) => match remedy(operation, error.errno()) {
                    Remedy::Instead(operation) => again.push(operation),
                    Remedy::Done => pass.surprised = true,
                    Remedy::None => pass.failed.push(RefusedOperation::of(operation, error)),
                },
            }
        }
        pass.surprised |= !again.is_empty();
        let again: Vec<_> = again.iter().collect();
        let answers = self.send(&again)?;
        for (operation, answer) in again.into_iter().zip(answers) {
            match answer {
                Ok(()) => pass.applied += 1,
                Err(error) => pass.failed.push(RefusedOperation::of(operation, error)),
            }
        }
        forget_consequences(&mut pass.failed);
        Ok(pass)
    }

    /// Whether the modules that the kernel would load for it are loaded, or cannot be.
    fn has_modules(&self, operation: &Operation, end: Instant) -> bool {
        let left = || end.saturating_duration_since(Instant::now());
        modules_of(operation).iter().all(|module| self.modules.settle(module, left()))
    }

    fn send(&mut self, operations: &[&Operation]) -> io::Result<Vec<Result<(), KernelError>>> {
        let requests: Vec<_> =
            operations.iter().map(|operation| self.request(codec::operation(operation))).collect();
        let answers = self.transport.exchange(&requests)?;
        Ok(answers.into_iter().map(|answer| answer.into_result().map(drop)).collect())
    }

    fn ask(&mut self, body: Vec<u8>) -> Result<Vec<NetlinkMessage>, IpvsError> {
        let request = self.request(body);
        let answers = self.transport.exchange(&[request])?;
        let answer = answers.into_iter().next().unwrap_or_default();
        answer.into_result().map_err(|error| match error.errno() {
            Errno::EPERM | Errno::EACCES => IpvsError::NotPermitted,
            _ => IpvsError::Kernel(error),
        })
    }

    fn request(&self, body: Vec<u8>) -> NetlinkRequest {
        NetlinkRequest { kind: self.family, flags: 0, body }
    }
}

/// One pass over a plan.
#[derive(Default)]
struct Pass {
    applied: usize,
    failed: Vec<RefusedOperation>,
    surprised: bool,
}

/// A service that could not be added has no servers: one failure says it, not one per server.
fn forget_consequences(failed: &mut Vec<RefusedOperation>) {
    let missing: BTreeSet<_> = failed
        .iter()
        .filter(|failure| failure.dest.is_none() && failure.action == "add")
        .map(|failure| failure.service)
        .collect();
    failed.retain(|failure| failure.dest.is_none() || !missing.contains(&failure.service));
}

/// Netlink type of a generic family; `None` when the kernel does not have it.
fn resolve(transport: &mut NetlinkTransport, name: &str) -> Result<Option<u16>, IpvsError> {
    let mut body = Attributes::after(vec![GET_FAMILY, CONTROLLER_VERSION, 0, 0]);
    body.put_text(FAMILY_NAME, name);
    let body = body.into_octets();
    let answers = transport.exchange(&[NetlinkRequest { kind: CONTROLLER, flags: 0, body }])?;
    let answer = answers.into_iter().next().unwrap_or_default();
    let messages = match answer.into_result() {
        Ok(messages) => messages,
        Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
        Err(error) => return Err(IpvsError::Kernel(error)),
    };
    let family = messages.iter().find_map(|message| {
        let mut list = attributes(message.body.get(GENERIC_HEADER_OCTETS..)?);
        let value = list.find(|attribute| attribute.kind == FAMILY_ID)?.value;
        Some(u16::from_ne_bytes(value.try_into().ok()?))
    });
    Ok(family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip_protocol::IpProtocol;
    use crate::ipvs::model::ForwardingMethod;

    fn id() -> ServiceId {
        ServiceId::listener(IpProtocol::Tcp, ([192, 0, 2, 10], 80).into())
    }

    #[test]
    fn i_001_a_family_is_resolved_by_name_and_a_missing_one_is_no_error() {
        let mut transport = NetlinkTransport::open(NETLINK_GENERIC).expect("socket");
        assert_eq!(resolve(&mut transport, "nlctrl").expect("answer"), Some(CONTROLLER));
        assert_eq!(resolve(&mut transport, "no such family").expect("answer"), None);
    }

    #[test]
    fn i_036_a_missing_scheduler_is_explained() {
        let operation = Operation::SetService(ServiceSpec::new(id(), "wlcc"));
        let failure = RefusedOperation::of(&operation, KernelError::new(Errno::ENOENT));
        assert_eq!(
            failure.to_string(),
            "cannot change service tcp 192.0.2.10:80: no such file or directory \
             (is there a scheduler \"wlcc\", module ip_vs_wlcc?)"
        );
    }

    #[test]
    fn a_service_that_could_not_be_added_is_one_failure() {
        let dest = DestSpec::new(([10, 0, 0, 1], 80).into(), ForwardingMethod::Masq, 1);
        let error = || KernelError::new(Errno::ENOENT);
        let mut failed = vec![
            RefusedOperation::of(&Operation::NewService(ServiceSpec::new(id(), "wlcc")), error()),
            RefusedOperation::of(&Operation::NewDest(id(), dest), error()),
        ];
        forget_consequences(&mut failed);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].dest, None);
    }
}
