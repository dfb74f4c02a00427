//! What happens to the servers of a service: results of their checks, orders of the operator, and what
//! follows for its quorum, its sorry server and its hooks.

use std::time::Duration;

use locum_plan::{Command, Name, Outcome};
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
        let (service, server) = (state.service.name.clone(), &state.servers[at.server].server);
        let commands = match heading {
            Heading::Up => &server.hooks.up,
            Heading::Down => &server.hooks.down,
        };
        let owner = HookOwner::Server { service: service.clone(), address: server.address };
        let own = ("LOCUM_SERVER", server.address.to_string());
        let runs = runs(commands, &owner, &service, heading, event, cause, Some(own));
        self.hooks.extend(runs);
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
        let event = self.note(
            None,
            EventKind::Quorum {
                service: name.clone(),
                reached,
                sorry,
                remaining,
                detail: detail.clone(),
            },
        );
        let heading = Heading::of(reached);
        let commands = match heading {
            Heading::Up => &service.hooks.up,
            Heading::Down => &service.hooks.down,
        };
        let own = sorry.map(|sorry| ("LOCUM_SORRY", sorry.to_string()));
        let owner = HookOwner::Service(name.clone());
        self.hooks.extend(runs(commands, &owner, &name, heading, event, &detail, own));
    }

    /// `omega`: what is up is said to go down when the node has stopped.
    pub(crate) fn last_hooks(&self) -> Vec<HookRun> {
        const CAUSE: &str = "the daemon stops";
        let mut all = Vec::new();
        for state in self.services.iter().filter(|state| state.service.omega) {
            let (name, event) = (&state.service.name, self.events);
            for one in state.servers.iter().filter(|one| one.is_live()) {
                let address = one.server.address;
                let owner = HookOwner::Server { service: name.clone(), address };
                let own = Some(("LOCUM_SERVER", address.to_string()));
                let hooks = &one.server.hooks.down;
                all.extend(runs(hooks, &owner, name, Heading::Down, event, CAUSE, own));
            }
            if state.has_quorum {
                let owner = HookOwner::Service(name.clone());
                let hooks = &state.service.hooks.down;
                all.extend(runs(hooks, &owner, name, Heading::Down, event, CAUSE, None));
            }
        }
        all
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

fn runs(
    commands: &[Command],
    owner: &HookOwner,
    service: &Name,
    heading: Heading,
    event: u64,
    cause: &str,
    own: Option<(&str, String)>,
) -> Vec<HookRun> {
    let common = [
        ("LOCUM_SERVICE", service.to_string()),
        ("LOCUM_STATE", heading.word().to_owned()),
        ("LOCUM_CAUSE", cause.to_owned()),
        ("LOCUM_EVENT", event.to_string()),
    ];
    let all = common.into_iter().chain(own);
    let environment: Vec<(String, String)> =
        all.map(|(key, value)| (key.to_owned(), value)).collect();
    let run = |command: &Command| HookRun {
        owner: owner.clone(),
        command: command.clone(),
        environment: environment.clone(),
        event,
    };
    commands.iter().map(run).collect()
}
