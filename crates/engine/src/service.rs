//! Load-balanced services: health of their servers, and what this node serves now.

use std::sync::Arc;
use std::time::Duration;

use locum_plan::{
    Activity, FailedServer, MAX_WEIGHT, QuorumUnit, Service, SorryServer, WantedServer,
    WantedService,
};
use locum_vrrp::Time;

use crate::fitness::Population;
use crate::order::ServerOrder;
use crate::output::HookOwner;
use crate::ramp;
use crate::server::ServerState;

/// A service of the plan with the health of its servers.
#[derive(Clone, Debug)]
pub struct ServiceState {
    pub service: Arc<Service>,
    pub servers: Vec<ServerState>,
    /// Its servers are enough, as far as clients are sent to them.
    pub has_quorum: bool,
    /// When that has turned.
    pub quorum_since: Time,
    /// The same as far as the node decides it: a server that an operator has drained here is none
    /// that another node could serve better.
    is_populated: bool,
    /// What was wanted last; shared with the levels that name it.
    last: Option<Arc<WantedService>>,
}

impl ServiceState {
    /// Servers keep the health they have in `old`, the same service of an earlier plan.
    pub fn new(service: &Service, old: Option<&Self>, now: Time) -> Self {
        let servers = service.servers.iter().map(|server| {
            let known = old.and_then(|old| {
                old.servers.iter().find(|known| known.server.address == server.address)
            });
            ServerState::new(server, known, now)
        });
        let mut state = Self {
            service: Arc::new(service.clone()),
            servers: servers.collect(),
            has_quorum: old.is_none_or(|old| old.has_quorum),
            quorum_since: old.map_or(now, |old| old.quorum_since),
            is_populated: old.is_none_or(|old| old.is_populated),
            last: None,
        };
        if old.is_none() {
            state.settle(now);
        }
        state
    }

    /// What its servers that are sent clients are worth for the quorum.
    pub fn standing(&self) -> u32 {
        self.sum(|one| Some(one.due_while_live()))
    }

    /// Sum of what these servers are worth with these weights.
    fn sum(&self, weight: impl Fn(&ServerState) -> Option<u32>) -> u32 {
        let worth = |weight| self.service.quorum.worth(weight);
        self.servers.iter().filter_map(weight).map(worth).fold(0, u32::saturating_add)
    }

    /// Nothing is gained or lost by a beginning.
    pub fn settle(&mut self, now: Time) {
        self.turn_quorum(now);
    }

    /// Looks at the quorum anew; what it is now when it has turned.
    pub fn turn_quorum(&mut self, now: Time) -> Option<bool> {
        let is_reached = self.service.quorum.is_reached(self.has_quorum, self.standing());
        if is_reached == self.has_quorum {
            return None;
        }
        (self.has_quorum, self.quorum_since) = (is_reached, now);
        Some(is_reached)
    }

    /// How many of its servers new clients may be sent to.
    pub fn remaining(&self) -> usize {
        self.servers.iter().filter(|one| one.due_while_live() > 0).count()
    }

    /// The sorry server, while it has the clients.
    pub fn sorry_in_use(&self) -> Option<&SorryServer> {
        self.service.sorry.as_ref().filter(|_| !self.has_quorum)
    }

    /// Whether enough of its servers take connections, whatever an operator has ordered.
    pub fn population(&mut self) -> Population {
        let quorum = self.service.quorum;
        let takes = self.sum(|one| {
            (one.up() == Some(true) || one.server.health.is_empty()).then(|| one.able_weight())
        });
        let unknown = self.sum(|one| {
            (one.up().is_none() && !one.server.health.is_empty()).then(|| one.able_weight())
        });
        let doubtful = self.sum(|one| one.is_doubtful().then(|| one.able_weight()));
        let reached = |sum| quorum.is_reached(self.is_populated, sum);
        let is_enough = match () {
            () if reached(takes) => Some(true),
            () if reached(takes.saturating_add(unknown)) => None,
            () => Some(false),
        };
        let is_doubtful = is_enough == Some(true) && !quorum.is_reached(true, takes - doubtful);
        let detail = match is_enough {
            Some(false)
                if !self.servers.is_empty() && self.sum(|one| Some(one.able_weight())) == 0 =>
            {
                "all its servers have weight 0".to_owned()
            }
            Some(false) => self.too_few(takes, self.is_populated, ""),
            Some(true) | None => String::new(),
        };
        self.is_populated = is_enough.unwrap_or(self.is_populated);
        Population { is_enough, is_doubtful, detail }
    }

    /// Why its quorum is lost, for a person: empty while it is not.
    pub fn shortage(&self) -> String {
        if self.has_quorum {
            return String::new();
        }
        let sum = self.standing();
        match (&self.servers[..], sum) {
            ([only], 0) if only.up() != Some(false) => match only.order {
                Some(ServerOrder::Drain) => "its only server is drained by the operator".to_owned(),
                Some(ServerOrder::Weight(_)) => {
                    "its only server has weight 0 by the operator".to_owned()
                }
                None if only.is_live() => "its only server has weight 0".to_owned(),
                None => "its only server has not passed its checks yet".to_owned(),
            },
            _ => self.too_few(sum, false, &self.ordered()),
        }
    }

    /// How many of those that are up an operator has taken from the quorum, or made worth less.
    fn ordered(&self) -> String {
        let worth = |weight| self.service.quorum.worth(weight);
        let is_less = |one: &&ServerState| worth(one.due_weight()) < worth(one.able_weight());
        let less = self.servers.iter().filter(|one| one.is_live()).filter(is_less);
        let (drained, lowered): (Vec<&ServerState>, Vec<&ServerState>) =
            less.partition(|one| one.due_weight() == 0);
        let said = [(drained.len(), "drained"), (lowered.len(), "given a lower weight")];
        let said: Vec<String> = said
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, how)| format!("{count} {how}"))
            .collect();
        if said.is_empty() {
            return String::new();
        }
        format!(" ({} by the operator)", said.join(", "))
    }

    /// `ordered` is an aside about those that count less than they could.
    fn too_few(&self, sum: u32, was_reached: bool, ordered: &str) -> String {
        let quorum = self.service.quorum;
        let needed = match (was_reached || quorum.hysteresis == 0, quorum.hysteresis) {
            (true, _) => format!("its quorum is {}", quorum.level),
            (false, _) => format!(
                "its quorum of {} is reached again with {}",
                quorum.level,
                quorum.gained_at()
            ),
        };
        match (self.servers.len(), sum, quorum.unit) {
            (0, ..) => "it has no servers".to_owned(),
            (1, 0, _) => "its only server is down".to_owned(),
            (all, 0, _) => {
                format!("none of its {all} servers takes connections{ordered}")
            }
            (all, takes, QuorumUnit::Servers) => {
                format!("{takes} of its {all} servers take connections{ordered}, and {needed}")
            }
            (_, weight, QuorumUnit::Weight) => {
                format!("its servers have together a weight of {weight}{ordered}, and {needed}")
            }
        }
    }

    /// By how much the weights of its level are larger than those of the plan: a weight of 1 has
    /// something to rise and to fall by. With `slow_start` always, so that no other server is touched
    /// when one rises; else while an order is carried out that takes it.
    fn scale(&self) -> u32 {
        let has_room = self.servers.iter().all(|one| one.most_tenths() <= MAX_WEIGHT);
        let needs_tenths = !self.service.slow_start.is_zero()
            || self.servers.iter().any(ServerState::needs_tenths);
        if needs_tenths && has_room { ramp::STEPS } else { 1 }
    }

    /// A server has come up: with `slow_start` it gets its weight in steps.
    pub fn begin_slow_start(&mut self, server: usize, now: Time) {
        let over = self.service.slow_start;
        if !over.is_zero() {
            self.servers[server].begin_ramp(0, over, now);
        }
    }

    /// The level for the balancer. `lease` is that of its address.
    pub fn wanted(
        &mut self,
        holds: bool,
        lease: Option<Duration>,
        now: Time,
    ) -> Arc<WantedService> {
        let activity = self.service.standby.activity(holds);
        let runs = activity != Activity::Idle;
        let servers = if runs { self.wanted_servers(now) } else { Vec::new() };
        let lease = lease.filter(|_| runs);
        let wanted = WantedService { service: Arc::clone(&self.service), activity, servers, lease };
        match &self.last {
            Some(last) if **last == wanted => Arc::clone(last),
            Some(_) | None => Arc::clone(self.last.insert(Arc::new(wanted))),
        }
    }

    fn wanted_servers(&self, now: Time) -> Vec<WantedServer> {
        let scale = self.scale();
        let is_sorry = self.sorry_in_use().is_some();
        let servers = self.servers.iter().filter_map(|one| {
            let with = |weight| WantedServer { weight, ..one.server.wanted() };
            match (one.is_live() && !is_sorry, one.server.failed) {
                (true, _) => Some(with(one.weight_in_force(scale, now))),
                (false, FailedServer::Quiesce) => Some(with(0)),
                (false, FailedServer::Remove) => None,
            }
        });
        let sorry = self.service.sorry.as_ref().and_then(|sorry| match (is_sorry, sorry.unused) {
            (true, _) => Some(sorry.wanted()),
            (false, FailedServer::Quiesce) => Some(WantedServer { weight: 0, ..sorry.wanted() }),
            (false, FailedServer::Remove) => None,
        });
        servers.chain(sorry).collect()
    }

    /// Whose hooks those of its server at this position are.
    pub fn server_owner(&self, at: usize) -> HookOwner {
        let address = self.servers[at].server.address;
        HookOwner::Server { service: self.service.name.clone(), address }
    }

    /// When one of its servers takes its next step.
    pub fn next_step(&mut self, now: Time) -> Option<Time> {
        self.servers.iter_mut().filter_map(|server| server.next_step(now)).min()
    }
}
