//! The balancer: which backend gets which service, and the one door to all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use locum_plan as plan;
use locum_plan::{Name, WantedService, WantedServices};

use crate::backend::{Backend, Event};
use crate::haproxy::HaproxyBackend;
use crate::ipvs::IpvsBackend;
use crate::proxy::ProxyBackend;
use crate::status::{BackendKind, BalancerStatus};

/// Where the balancer works, and as what it starts the proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalancerSettings {
    /// Holds the proxy's socket and the files that remember what is ours; must exist.
    pub run_dir: PathBuf,
    /// The main binary: the proxy is `PROGRAM proxy …`.
    pub locum_program: PathBuf,
}

/// A service or HAProxy that could not be served, and why, for a person.
pub type ServeError = (Name, String);

/// Owned by one thread. Its calls are bounded: [`Balancer::apply`] returns within a few seconds even
/// when every process hangs, and goes on in [`Balancer::tick`].
pub struct Balancer {
    ipvs: IpvsBackend,
    proxy: ProxyBackend,
    haproxy: HaproxyBackend,
    wanted: WantedServices,
}

impl Balancer {
    /// Changes nothing yet: what an earlier daemon left is taken over, or cleaned up, by the first
    /// [`Balancer::apply`].
    pub fn new(settings: BalancerSettings) -> Self {
        Self {
            ipvs: IpvsBackend::new(&settings),
            proxy: ProxyBackend::new(&settings),
            haproxy: HaproxyBackend::new(&settings),
            wanted: WantedServices::default(),
        }
    }

    /// Makes what this node serves exactly `wanted`. One service's failure does not stop the
    /// others; the failed ones come back, each once, and are tried again by [`Balancer::tick`].
    pub fn apply(&mut self, wanted: &WantedServices) -> Result<(), Vec<ServeError>> {
        self.wanted = wanted.clone();
        let now = Instant::now();
        let mut errors = Vec::new();
        // Kernel tables first: they take microseconds. HAProxy last: it may take seconds to start.
        let ipvs = self.share(BackendKind::Ipvs);
        errors.extend(self.ipvs.apply(&ipvs, now));
        let proxy = self.share(BackendKind::Proxy);
        errors.extend(self.proxy.apply(&proxy, now));
        let haproxy = self.share(BackendKind::Haproxy);
        errors.extend(self.haproxy.apply(&haproxy, now));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Watches processes and tables: restarts what died, retries what failed, ends what had its
    /// time. Call it when [`Balancer::next_tick`] says; earlier is harmless.
    pub fn tick(&mut self) -> Vec<Event> {
        let now = Instant::now();
        let mut events = self.ipvs.tick(now);
        events.extend(self.proxy.tick(now));
        events.extend(self.haproxy.tick(now));
        events
    }

    /// How long the owner may wait before the next [`Balancer::tick`]; `None` while nothing runs.
    pub fn next_tick(&self) -> Option<Duration> {
        let now = Instant::now();
        [self.ipvs.next_tick(now), self.proxy.next_tick(now), self.haproxy.next_tick(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Nothing is wanted, and nothing runs or drains any more: the daemon may end without leaving
    /// anything behind.
    pub fn is_idle(&self) -> bool {
        self.next_tick().is_none()
    }

    /// What is served, by what, and what is wrong with it.
    pub fn status(&mut self) -> BalancerStatus {
        let mut status = BalancerStatus::default();
        self.ipvs.status(&mut status);
        self.proxy.status(&mut status);
        self.haproxy.status(&mut status);
        status
    }

    /// The part of the wanted level that this backend serves.
    fn share(&mut self, kind: BackendKind) -> WantedServices {
        let ipvs = &mut self.ipvs;
        let mut is_ours = |wanted: &&std::sync::Arc<WantedService>| {
            backend_of(wanted.service.backend, || ipvs.available()) == kind
        };
        WantedServices {
            services: self.wanted.services.iter().filter(&mut is_ours).cloned().collect(),
            haproxy: match kind {
                BackendKind::Haproxy => self.wanted.haproxy.clone(),
                BackendKind::Ipvs | BackendKind::Proxy => Vec::new(),
            },
        }
    }
}

/// The kernel is asked only where the choice is left to it: asking may load a module.
fn backend_of(asked: plan::Backend, kernel_has_ipvs: impl FnOnce() -> bool) -> BackendKind {
    match asked {
        plan::Backend::Ipvs => BackendKind::Ipvs,
        plan::Backend::Proxy => BackendKind::Proxy,
        plan::Backend::Auto if kernel_has_ipvs() => BackendKind::Ipvs,
        plan::Backend::Auto => BackendKind::Proxy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automatic_backend_is_ipvs_where_the_kernel_has_it_else_the_proxy() {
        assert_eq!(backend_of(plan::Backend::Auto, || true), BackendKind::Ipvs);
        assert_eq!(backend_of(plan::Backend::Auto, || false), BackendKind::Proxy);
        let unasked = || -> bool { unreachable!("the kernel is not asked") };
        assert_eq!(backend_of(plan::Backend::Ipvs, unasked), BackendKind::Ipvs);
        assert_eq!(backend_of(plan::Backend::Proxy, unasked), BackendKind::Proxy);
    }
}
