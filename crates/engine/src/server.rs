//! One server of a service: whether it is up, and the weight that it has now.
//!
//! ```text
//!   configured ─► what its checks say ─► what the operator says ─► on the way there ─► in force
//! ```

use std::time::Duration;

use locum_plan::{Health, MAX_WEIGHT, Outcome, ReportedWeight, Server, Verdict};
use locum_vrrp::Time;

use crate::order::ServerOrder;
use crate::ramp::{Ramp, STEPS};
use crate::tracker::{CheckState, Thresholds};

#[derive(Clone, Debug)]
pub struct ServerState {
    pub server: Server,
    /// Of each of its health checks, in their order.
    checks: Vec<CheckState>,
    /// What the last run of each that passed said of its weight.
    reported: Vec<Option<ReportedWeight>>,
    /// What the operator has said of it.
    pub order: Option<ServerOrder>,
    pub ramp: Option<Ramp>,
}

/// Which check of which server, by position.
#[derive(Clone, Copy, Debug)]
pub struct ServerCheck {
    pub service: usize,
    pub server: usize,
    pub check: usize,
}

/// What a result did to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerTurn {
    None,
    /// It went up or down.
    Turned,
    /// Its checks say another weight.
    Reweighted,
    /// It is as doubtful now as it was not before, or the other way round.
    Doubt,
}

impl ServerState {
    /// Checks that ask the same as before keep what they know.
    pub fn new(server: &Server, known: Option<&Self>, now: Time) -> Self {
        let find = |health: &Health| {
            let mut all = known?.server.health.iter().zip(&known?.checks).zip(&known?.reported);
            all.find(|((other, _), _)| other.probe == health.probe)
        };
        let states = server.health.iter().map(|health| match find(health) {
            Some(((_, check), reported)) => (check.clone(), *reported),
            None => (CheckState::new(None, now), None),
        });
        let (checks, reported) = states.unzip();
        Self {
            server: server.clone(),
            checks,
            reported,
            order: known.and_then(|known| known.order),
            ramp: known.and_then(|known| known.ramp),
        }
    }

    /// Down as soon as one check is, up once all are; `None`: nobody checks it, or not all have
    /// reported and none has failed.
    pub fn up(&self) -> Option<bool> {
        if self.checks.iter().any(|check| check.up == Some(false)) {
            return Some(false);
        }
        let all_up = self.checks.iter().all(|check| check.up == Some(true));
        (all_up && !self.checks.is_empty()).then_some(true)
    }

    /// It is sent clients. Until its first result it is up, because a new master must not start
    /// empty, unless the operator wants it the other way round.
    pub fn is_live(&self) -> bool {
        self.up().unwrap_or(!self.server.alpha || self.checks.is_empty())
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

    /// One result of this check. What this node could not ask (no port, no descriptor) says nothing
    /// of the server.
    pub fn record(&mut self, check: usize, outcome: &Outcome, now: Time) -> ServerTurn {
        let before = (self.up(), self.able_weight(), self.is_doubtful());
        let Health { rise, fall, .. } = self.server.health[check];
        let state = &mut self.checks[check];
        state.detail.clone_from(&outcome.detail);
        if outcome.verdict == Verdict::CannotRun {
            state.is_unasked = true;
            return ServerTurn::None;
        }
        let passed = outcome.verdict == Verdict::Pass;
        state.record(passed, Thresholds { rise, fall }, now);
        if passed {
            self.reported[check] = outcome.weight;
        }
        match (self.up(), self.able_weight(), self.is_doubtful()) {
            (up, ..) if up != before.0 => ServerTurn::Turned,
            (_, weight, _) if weight != before.1 => ServerTurn::Reweighted,
            (_, _, doubt) if doubt != before.2 => ServerTurn::Doubt,
            (..) => ServerTurn::None,
        }
    }

    /// What it can take while it is up: as configured, or the least that its checks say.
    pub fn able_weight(&self) -> u32 {
        let reported = self.reported.iter().flatten().map(|one| one.of(self.server.weight));
        reported.min().unwrap_or(self.server.weight).min(MAX_WEIGHT)
    }

    /// What it shall have while it is up.
    pub fn due_weight(&self) -> u32 {
        match self.order {
            None => self.able_weight(),
            Some(ServerOrder::Drain) => 0,
            Some(ServerOrder::Weight(weight)) => weight.min(MAX_WEIGHT),
        }
    }

    /// The same; none while it is sent no clients.
    pub fn due_while_live(&self) -> u32 {
        if self.is_live() { self.due_weight() } else { 0 }
    }

    fn due_tenths(&self) -> u32 {
        self.due_weight() * STEPS
    }

    /// What it has now while it is up, in tenths.
    pub fn tenths_in_force(&self, now: Time) -> u32 {
        let due = self.due_tenths();
        self.ramp.map_or(due, |ramp| ramp.weight(due, now))
    }

    /// What it has now while it is up, in units of `1 / scale`. Less than one of them is one: who has
    /// clients on the way keeps some until its end.
    pub fn weight_in_force(&self, scale: u32, now: Time) -> u32 {
        (self.tenths_in_force(now) * scale).div_ceil(STEPS)
    }

    /// The most that it has from now on, in tenths.
    pub fn most_tenths(&self) -> u32 {
        self.ramp.map_or(0, |ramp| ramp.from).max(self.due_tenths())
    }

    /// It is on a way on which whole weights would leave out steps.
    pub fn needs_tenths(&self) -> bool {
        self.ramp.is_some_and(|ramp| ramp.is_short(self.due_tenths()))
    }

    /// It gets to its weight in steps from here on, or is there at once. `from` is in tenths.
    pub fn begin_ramp(&mut self, from: u32, over: Duration, now: Time) {
        self.ramp = (!over.is_zero()).then_some(Ramp { from, began: now, over });
    }

    /// When it takes its next step. One that has taken the last has no ramp any more.
    pub fn next_step(&mut self, now: Time) -> Option<Time> {
        let next = self.ramp.and_then(|ramp| ramp.next(now));
        if next.is_none() {
            self.ramp = None;
        }
        next
    }
}
