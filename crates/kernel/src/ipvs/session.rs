//! A session with the kernel's load balancer.

use std::fmt;
use std::io;

use crate::KernelError;
use crate::ipvs::DestId;
use crate::ipvs::DestSpec;
use crate::ipvs::ServiceId;
use crate::ipvs::ServiceSpec;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Choose another backend.
    #[error("the kernel has no ipvs (module ip_vs cannot be loaded)")]
    NotSupported,
    #[error("ipvs needs the capability CAP_NET_ADMIN")]
    NotPermitted,
    #[error("ipvs: {0}")]
    Kernel(#[from] KernelError),
    #[error("ipvs netlink socket: {0}")]
    Socket(#[from] io::Error),
}

/// What the kernel has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedService {
    pub spec: ServiceSpec,
    pub dests: Vec<ObservedDest>,
    /// Connections scheduled so far.
    pub connections: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedDest {
    pub spec: DestSpec,
    pub active_connections: u32,
    pub inactive_connections: u32,
    pub persistent_connections: u32,
}

/// What a reconciliation did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Operations the kernel carried out; 0 when everything was as wanted (I-033).
    pub applied: usize,
    /// Operations it refused; all others were done.
    pub failed: Vec<Failure>,
}

/// One operation that the kernel refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub service: ServiceId,
    pub dest: Option<DestId>,
    /// "add", "change" or "remove".
    pub action: &'static str,
    pub error: KernelError,
}

impl fmt::Display for Failure {
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
pub struct Ipvs {}

impl Ipvs {
    /// Finds the kernel's IPVS in the caller's network namespace; tries `modprobe ip_vs` once when
    /// it is not there (I-001).
    pub fn open() -> Result<Self, Error> {
        Err(Error::NotSupported)
    }

    /// Everything in this network namespace, foreign services too.
    pub fn dump(&mut self) -> Result<Vec<ObservedService>, Error> {
        Err(Error::NotSupported)
    }

    /// Makes the kernel serve `wanted`, and none of `owned` that is not wanted. Every other service
    /// is left alone.
    pub fn reconcile(
        &mut self,
        wanted: &[(ServiceSpec, Vec<DestSpec>)],
        owned: &[ServiceId],
    ) -> Result<Report, Error> {
        let _ = (wanted, owned);
        Err(Error::NotSupported)
    }
}
