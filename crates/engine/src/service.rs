//! Load-balanced services: health of their servers, and what this node serves now.

use std::sync::Arc;
use std::time::Duration;

use locum_plan::{
    FailedServer, Health, HealthKind, Outcome, Probe, ProbeKind, Server, Service, Verdict,
    WantedService,
};
use locum_vrrp::Time;

use crate::tracker::{CheckState, Thresholds};

/// A service of the plan with the health of its servers.
#[derive(Clone, Debug)]
pub struct ServiceState {
    pub service: Arc<Service>,
    pub servers: Vec<ServerState>,
    /// What was wanted last; shared with the levels that name it.
    last: Option<Arc<WantedService>>,
}

#[derive(Clone, Debug)]
pub struct ServerState {
    pub server: Server,
    /// `None`: nobody checks it.
    pub probe: Option<Probe>,
    pub state: CheckState,
}

impl ServiceState {
    /// Servers keep the health they have in `old`, the same service of an earlier plan.
    pub fn new(service: &Service, old: Option<&Self>, now: Time) -> Self {
        let servers = service
            .servers
            .iter()
            .map(|server| {
                let probe = service.health.as_ref().map(|health| probe_of(health, server));
                let known = old.and_then(|old| {
                    let same =
                        |s: &&ServerState| s.server.address == server.address && s.probe == probe;
                    old.servers.iter().find(same)
                });
                let state =
                    known.map_or_else(|| CheckState::new(None, now), |known| known.state.clone());
                ServerState { server: server.clone(), probe, state }
            })
            .collect();
        Self { service: Arc::new(service.clone()), servers, last: None }
    }

    /// One probe result for the server at `index`; `true` when it went up or down.
    pub fn record(&mut self, index: usize, outcome: &Outcome, now: Time) -> bool {
        let Some(health) = &self.service.health else { return false };
        let thresholds = Thresholds { rise: health.rise, fall: health.fall };
        let state = &mut self.servers[index].state;
        state.detail.clone_from(&outcome.detail);
        state.record(outcome.verdict == Verdict::Pass, thresholds, now)
    }

    /// The level for the balancer; `None` when this node runs nothing for it. `lease` is that of
    /// its address.
    pub fn wanted(&mut self, holds: bool, lease: Option<Duration>) -> Option<Arc<WantedService>> {
        let activity = self.service.standby.activity(holds)?;
        // A server counts as up until its first result: a new master must not start empty.
        let servers = self.servers.iter().filter_map(|server| {
            match (server.state.up.unwrap_or(true), self.service.failed) {
                (true, _) => Some(server.server.clone()),
                (false, FailedServer::Quiesce) => Some(Server { weight: 0, ..server.server }),
                (false, FailedServer::Remove) => None,
            }
        });
        let servers = servers.collect();
        let wanted = WantedService { service: Arc::clone(&self.service), activity, servers, lease };
        if self.last.as_deref() != Some(&wanted) {
            self.last = Some(Arc::new(wanted));
        }
        self.last.clone()
    }
}

fn probe_of(health: &Health, server: &Server) -> Probe {
    let mut target = server.address;
    if let Some(port) = health.port {
        target.set_port(port);
    }
    let kind = match &health.kind {
        HealthKind::Tcp => ProbeKind::Tcp { target },
        HealthKind::Http { path, host, expect } => ProbeKind::Http {
            target,
            path: path.clone(),
            host: host.clone(),
            expect: expect.clone(),
        },
    };
    Probe { kind, interval: health.interval, timeout: health.timeout }
}
