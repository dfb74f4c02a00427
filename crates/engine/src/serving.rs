//! What happens to the servers of a service: results of their checks, orders of the operator, and what
//! follows for its quorum, its sorry server and its hooks.

use std::net::SocketAddr;
use std::time::Duration;

use locum_plan::{Command, Outcome, TurnHooks};
use locum_vrrp::Time;

use crate::engine::Engine;
use crate::order::ServerOrder;
use crate::output::{EventKind, HookOwner, HookRun, Reply};
use crate::server::{ServerCheck, ServerTurn};

/// What hooks of servers and services are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heading {
    Up,
    Down,
}

impl Heading {
    const fn of(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
        }
    }
}

impl Engine {
    pub(crate) fn on_server_probed(&mut self, now: Time, at: ServerCheck, outcome: &Outcome) {
        let ServerCheck { service, server, check } = at;
        let Some(state) = self.services.get_mut(service) else { return };
        let one = &mut state.servers[server];
        let was_live = one.is_live();
        let turn = one.record(check, outcome, now);
        match turn {
            ServerTurn::None => return,
            ServerTurn::Doubt => {}
            ServerTurn::Reweighted => self.levels_touched = true,
            ServerTurn::Turned => {
                let (up, is_live) = (one.up() == Some(true), one.is_live());
                let kind = EventKind::Server {
                    service: state.service.name.clone(),
                    server: one.server.address,
                    up,
                    detail: outcome.detail.clone(),
                };
                if is_live && !was_live {
                    state.begin_slow_start(server, now);
                }
                self.levels_touched = true;
                let event = self.note(None, kind);
                if is_live != was_live {
                    self.run_server_hooks(at, Heading::of(is_live), event, &outcome.detail);
                }
            }
        }
        self.turn_quorum(now, service);
        self.note_population(now, service);
    }

    fn run_server_hooks(&mut self, at: ServerCheck, heading: Heading, event: u64, cause: &str) {
        let Some(state) = self.services.get_mut(at.service) else { return };
        let (owner, hooks) =
            (state.server_owner(at.server), &state.servers[at.server].server.hooks);
        self.hooks.extend(runs(&owner, hooks, TurnEvent { heading, event, cause, sorry: None }));
    }

    /// The servers of the service at this position are others, or the same with another weight.
    pub(crate) fn turn_quorum(&mut self, now: Time, at: usize) {
        let Some(state) = self.services.get_mut(at) else { return };
        let Some(reached) = state.turn_quorum(now) else { return };
        self.levels_touched = true;
        let service = state.service.clone();
        let is_followed = service.sorry.is_some()
            || !service.hooks.up.is_empty()
            || !service.hooks.down.is_empty();
        if !is_followed {
            // That it has too few servers is said where it decides something.
            return;
        }
        let sorry = state.sorry_in_use().map(|sorry| sorry.address);
        let (remaining, detail) = (state.remaining(), state.shortage());
        let name = service.name.clone();
        let owner = HookOwner::Service(name.clone());
        let cause = detail.clone();
        let kind = EventKind::Quorum { service: name, reached, sorry, remaining, detail };
        let event = self.note(None, kind);
        let turn = TurnEvent { heading: Heading::of(reached), event, cause: &cause, sorry };
        self.hooks.extend(runs(&owner, &service.hooks, turn));
    }

    /// `omega`: what is up is said to go down when the node has stopped.
    pub(crate) fn last_hooks(&mut self) -> Vec<HookRun> {
        const CAUSE: &str = "the daemon stops";
        let ends: Vec<(HookOwner, TurnHooks)> = self
            .services
            .iter()
            .filter(|state| state.service.omega)
            .flat_map(|state| {
                let live = (0..state.servers.len()).filter(|at| state.servers[*at].is_live());
                let servers =
                    live.map(|at| (state.server_owner(at), state.servers[at].server.hooks.clone()));
                let own = state.has_quorum.then(|| {
                    (HookOwner::Service(state.service.name.clone()), state.service.hooks.clone())
                });
                servers.chain(own)
            })
            .filter(|(_, hooks)| !hooks.down.is_empty())
            .collect();
        if ends.is_empty() {
            return Vec::new();
        }
        let text =
            format!("stopping: hooks for down of {} servers and services (`omega`)", ends.len());
        let event = self.note(None, EventKind::Note(text));
        let turn = TurnEvent { heading: Heading::Down, event, cause: CAUSE, sorry: None };
        ends.iter().flat_map(|(owner, hooks)| runs(owner, hooks, turn)).collect()
    }

    /// The operator's word on a server, by the positions of its service and of itself.
    pub(crate) fn order_server(
        &mut self,
        now: Time,
        (at, place): (usize, usize),
        order: Option<ServerOrder>,
        over: Duration,
    ) -> Reply {
        if self.stopping {
            return Reply::Refused("this node is stopping".to_owned());
        }
        let Some(state) = self.services.get_mut(at) else {
            // Whoever has found the server has found its service.
            return Reply::Refused("there is no such service".to_owned());
        };
        let service = state.service.name.clone();
        let one = &mut state.servers[place];
        let server = one.server.address;
        let (from, before) = (one.tenths_in_force(now), one.order);
        one.order = order;
        one.begin_ramp(from, over, now);
        let (due, is_live) = (one.due_weight(), one.is_live());
        self.levels_touched = true;
        if before != order {
            let kind = EventKind::ServerOrdered { service: service.clone(), server, order };
            self.note(None, kind);
        }
        self.turn_quorum(now, at);
        self.note_population(now, at);
        let steps = match over {
            Duration::ZERO => String::new(),
            over => format!(", in steps over {} s", over.as_secs_f64()),
        };
        let down = if is_live { "" } else { "; it is down now" };
        Reply::Ok(match order {
            Some(ServerOrder::Drain) => format!(
                "{server} of {service} gets no new connections{steps}; those that it has go on{down}"
            ),
            Some(ServerOrder::Weight(weight)) => {
                format!("{server} of {service} has weight {weight}{steps}{down}")
            }
            None => format!("{server} of {service} has its own weight again, {due}{steps}{down}"),
        })
    }
}

/// What turned, and why.
#[derive(Clone, Copy)]
struct TurnEvent<'a> {
    heading: Heading,
    event: u64,
    cause: &'a str,
    /// Has the clients of the service.
    sorry: Option<SocketAddr>,
}

fn runs(owner: &HookOwner, hooks: &TurnHooks, turn: TurnEvent<'_>) -> Vec<HookRun> {
    let TurnEvent { heading, event, cause, sorry } = turn;
    let (service, server) = match owner {
        HookOwner::Instance(name) | HookOwner::Service(name) => (name, None),
        HookOwner::Server { service, address } => (service, Some(address)),
    };
    let environment = [
        ("LOCUM_SERVICE", Some(service.to_string())),
        ("LOCUM_STATE", Some(heading.word().to_owned())),
        ("LOCUM_CAUSE", Some(cause.to_owned())),
        ("LOCUM_EVENT", Some(event.to_string())),
        ("LOCUM_SERVER", server.map(ToString::to_string)),
        ("LOCUM_SORRY", sorry.map(|sorry| sorry.to_string())),
    ];
    let environment = environment.into_iter();
    let environment: Vec<(String, String)> =
        environment.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let commands = match heading {
        Heading::Up => &hooks.up,
        Heading::Down => &hooks.down,
    };
    let run = |command: &Command| HookRun {
        owner: owner.clone(),
        command: command.clone(),
        environment: environment.clone(),
        event,
    };
    commands.iter().map(run).collect()
}
