//! Load-balanced services: health of their servers, and what this node serves now.

use std::sync::Arc;
use std::time::Duration;

use locum_plan::{
    Activity, FailedServer, Health, Outcome, Server, Service, Verdict, WantedServer, WantedService,
};
use locum_vrrp::Time;

use crate::fitness::Population;
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
    /// Of each of its health checks, in their order.
    checks: Vec<CheckState>,
}

impl ServerState {
    /// Down as soon as one check is, up once all are; `None`: nobody checks it, or not all have
    /// reported and none has failed.
    pub fn up(&self) -> Option<bool> {
        if self.checks.iter().any(|check| check.up == Some(false)) {
            return Some(false);
        }
        let all_up = self.checks.iter().all(|check| check.up == Some(true));
        (all_up && !self.checks.is_empty()).then_some(true)
    }

    /// It is up, and the last run of one of its checks failed.
    pub fn is_doubtful(&self) -> bool {
        self.up() == Some(true) && self.checks.iter().any(CheckState::is_doubtful)
    }

    /// What is known of it is old: this node could not ask.
    pub fn is_unasked(&self) -> bool {
        self.checks.iter().any(|check| check.is_unasked)
    }

    /// What the last runs said: those that could not ask, or of the failing checks when it is down.
    pub fn detail(&self) -> String {
        let (is_down, is_unasked) = (self.up() == Some(false), self.is_unasked());
        let telling = self.checks.iter().filter(|check| match (is_unasked, is_down) {
            (true, _) => check.is_unasked,
            (false, true) => check.up == Some(false),
            (false, false) => true,
        });
        let details = telling.map(|check| check.detail.as_str());
        details.filter(|detail| !detail.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl ServiceState {
    /// Servers keep the health they have in `old`, the same service of an earlier plan.
    pub fn new(service: &Service, old: Option<&Self>, now: Time) -> Self {
        let servers = service.servers.iter().map(|server| {
            let known = old.and_then(|old| {
                old.servers.iter().find(|known| known.server.address == server.address)
            });
            // A check that asks the same keeps what it knows.
            let state = |health: &Health| {
                let known = known.and_then(|known| {
                    let mut all = known.server.health.iter().zip(&known.checks);
                    all.find(|(other, _)| other.probe == health.probe)
                });
                known.map_or_else(|| CheckState::new(None, now), |(_, check)| check.clone())
            };
            ServerState {
                server: server.clone(),
                checks: server.health.iter().map(state).collect(),
            }
        });
        let servers = servers.collect();
        Self { service: Arc::new(service.clone()), servers, last: None }
    }

    /// One result of this check of this server, both by position. What this node could not ask (no
    /// port, no descriptor) says nothing of the server.
    pub fn record(
        &mut self,
        server: usize,
        check: usize,
        outcome: &Outcome,
        now: Time,
    ) -> ServerTurn {
        let server = &mut self.servers[server];
        let before = (server.up(), server.is_doubtful());
        let Health { rise, fall, .. } = server.server.health[check];
        let state = &mut server.checks[check];
        state.detail.clone_from(&outcome.detail);
        if outcome.verdict == Verdict::CannotRun {
            state.is_unasked = true;
            return ServerTurn::None;
        }
        state.record(outcome.verdict == Verdict::Pass, Thresholds { rise, fall }, now);
        match (server.up(), server.is_doubtful()) {
            (up, _) if up != before.0 => ServerTurn::Turned,
            (_, doubt) if doubt != before.1 => ServerTurn::Doubt,
            (_, _) => ServerTurn::None,
        }
    }

    /// Whether enough of its servers take connections.
    pub fn population(&self) -> Population {
        let count = |is: fn(&ServerState) -> bool| {
            let counted = self.servers.iter().filter(|one| one.server.weight > 0 && is(one));
            u32::try_from(counted.count()).unwrap_or(u32::MAX)
        };
        let quorum = self.service.quorum.level;
        let takes = count(|one| one.up() == Some(true) || one.server.health.is_empty());
        let unknown = count(|one| one.up().is_none() && !one.server.health.is_empty());
        let doubtful = count(ServerState::is_doubtful);
        let is_enough = match () {
            () if takes >= quorum => Some(true),
            () if takes + unknown >= quorum => None,
            () => Some(false),
        };
        let is_doubtful = is_enough == Some(true) && takes - doubtful < quorum;
        let detail = match is_enough {
            Some(false) if !self.servers.is_empty() && count(|_| true) == 0 => {
                "all its servers have weight 0".to_owned()
            }
            Some(false) => too_few(self.servers.len(), takes, quorum),
            Some(true) | None => String::new(),
        };
        Population { is_enough, is_doubtful, detail }
    }

    /// The level for the balancer. `lease` is that of its address.
    pub fn wanted(&mut self, holds: bool, lease: Option<Duration>) -> Arc<WantedService> {
        let activity = self.service.standby.activity(holds);
        let runs = activity != Activity::Idle;
        // A server counts as up until its first result: a new master must not start empty.
        let servers = self.servers.iter().filter_map(|server| {
            let wanted = server.server.wanted();
            match (server.up().unwrap_or(true), server.server.failed) {
                (true, _) => Some(wanted),
                (false, FailedServer::Quiesce) => Some(WantedServer { weight: 0, ..wanted }),
                (false, FailedServer::Remove) => None,
            }
        });
        let servers = servers.filter(|_| runs).collect();
        let lease = lease.filter(|_| runs);
        let wanted = WantedService { service: Arc::clone(&self.service), activity, servers, lease };
        match &self.last {
            Some(last) if **last == wanted => Arc::clone(last),
            Some(_) | None => Arc::clone(self.last.insert(Arc::new(wanted))),
        }
    }
}

/// What a result did to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerTurn {
    None,
    /// It went up or down.
    Turned,
    /// It is as doubtful now as it was not before, or the other way round.
    Doubt,
}

fn too_few(all: usize, takes: u32, quorum: u32) -> String {
    match (all, takes) {
        (0, _) => "it has no servers".to_owned(),
        (1, 0) => "its only server is down".to_owned(),
        (all, 0) => format!("none of its {all} servers takes connections"),
        (all, takes) => {
            format!("{takes} of its {all} servers take connections, and its quorum is {quorum}")
        }
    }
}
