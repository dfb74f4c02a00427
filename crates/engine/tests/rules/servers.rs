//! How many servers are enough, what follows when they are not, and the weight that each has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    EventKind, HookOwner, HookRun, Input, OperatorCommand, Output, ProbeChange, Reply, ServerOrder,
    StandingOrder,
};
use locum_plan::{
    Activity, Checker, Command as Program, FailedServer, Health, Outcome, Plan, Probe, Quorum,
    QuorumUnit, ReportedWeight, Server, Service, SorryServer, TurnHooks, Verdict, WantedServices,
};

use crate::node::{Node, instance, plan};

const SECOND: Duration = Duration::from_secs(1);

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

fn server(number: u8, weight: u32) -> Server {
    let probe = Probe::new(Checker::tcp(address(number)), 2 * SECOND, SECOND);
    let health = vec![Health { probe, rise: 1, fall: 1 }];
    Server { weight, health, ..Server::new(address(number)) }
}

/// Served by every node.
fn service(servers: Vec<Server>) -> Service {
    let listen = SocketAddr::from(([192, 0, 2, 10], 80)).into();
    Service { servers, ..Service::new("www".into(), listen) }
}

fn program(name: &str) -> Vec<Program> {
    vec![Program::argv([name])]
}

/// A node with one service, and what it has said.
struct Rig {
    node: Node,
    out: Vec<Output>,
    probes: Vec<u32>,
}

impl Rig {
    fn new(service: Service) -> Self {
        let mut rig = Self { node: Node::with_links(), out: Vec::new(), probes: Vec::new() };
        rig.reload(service);
        rig
    }

    fn reload(&mut self, service: Service) {
        let mut plan: Plan = plan([]);
        plan.services = vec![service];
        let out = self.node.plan_with(plan, Vec::new()).to_vec();
        self.note(out);
    }

    fn note(&mut self, out: Vec<Output>) {
        let started = out.iter().filter_map(|output| match output {
            Output::Probe(ProbeChange::Start { probe, .. }) => Some(*probe),
            _ => None,
        });
        self.probes.extend(started);
        self.out = out;
    }

    fn report(&mut self, server: usize, verdict: Verdict, weight: Option<ReportedWeight>) {
        let outcome = Outcome { verdict, detail: "said so".into(), took: SECOND, weight };
        let probe = self.probes[server];
        let out = self.node.feed(Input::Probed { probe, outcome }).to_vec();
        self.note(out);
    }

    fn turn(&mut self, server: usize, up: bool) {
        self.report(server, if up { Verdict::Pass } else { Verdict::Fail }, None);
    }

    fn order(&mut self, server: u8, order: Option<ServerOrder>, over: Duration) -> Reply {
        self.command("www", address(server).ip(), Some(80), order, over)
    }

    fn command(
        &mut self,
        service: &str,
        address: IpAddr,
        port: Option<u16>,
        order: Option<ServerOrder>,
        over: Duration,
    ) -> Reply {
        let command =
            OperatorCommand::Server { service: service.into(), address, port, order, over };
        let out = self.node.feed(Input::Command { id: 9, command }).to_vec();
        self.note(out);
        let reply = self.out.iter().find_map(|output| match output {
            Output::Reply { reply, .. } => Some(reply.clone()),
            _ => None,
        });
        reply.expect("every command is answered")
    }

    /// The last octet and the weight of each server of the newest level, when there is one.
    fn level(&self) -> Option<Vec<(u8, u32)>> {
        level(&self.out)
    }

    fn hooks(&self) -> Vec<HookRun> {
        let hooks = self.out.iter().filter_map(|output| match output {
            Output::Hook(run) => Some(run.clone()),
            _ => None,
        });
        hooks.collect()
    }

    fn events(&self) -> Vec<EventKind> {
        let events = self.out.iter().filter_map(|output| match output {
            Output::Notify(event) => Some(event.kind.clone()),
            _ => None,
        });
        events.collect()
    }

    fn quorum_events(&self) -> Vec<(bool, Option<SocketAddr>)> {
        let events = self.events().into_iter().filter_map(|kind| match kind {
            EventKind::Quorum { reached, sorry, .. } => Some((reached, sorry)),
            _ => None,
        });
        events.collect()
    }
}

fn level(out: &[Output]) -> Option<Vec<(u8, u32)>> {
    let wanted: Arc<WantedServices> = out.iter().rev().find_map(|output| match output {
        Output::Serve { wanted, .. } => Some(Arc::clone(wanted)),
        _ => None,
    })?;
    let last = |one: &locum_plan::WantedServer| match one.address {
        SocketAddr::V4(v4) => (v4.ip().octets()[3], one.weight),
        SocketAddr::V6(_) => panic!("IPv4 only"),
    };
    Some(wanted.services[0].servers.iter().map(last).collect())
}

fn sorry(unused: FailedServer) -> Option<SorryServer> {
    let Server { forwarding, encapsulation, .. } = Server::new(address(9));
    Some(SorryServer { address: address(9), forwarding, encapsulation, introduced: None, unused })
}

/// keepalived: lost below `quorum - hysteresis`, gained at `quorum + hysteresis`, by weight.
#[test]
fn a_quorum_is_lost_and_gained_where_keepalived_loses_and_gains_it() {
    let quorum = Quorum { level: 4, hysteresis: 1, unit: QuorumUnit::Weight };
    let hooks = TurnHooks { up: program("/up"), down: program("/down") };
    let servers = vec![server(1, 2), server(2, 1), server(3, 1), server(4, 1)];
    let sorry = sorry(FailedServer::Remove);
    let mut rig = Rig::new(Service { quorum, hooks, sorry, ..service(servers) });
    assert_eq!(rig.quorum_events(), [], "nothing is gained by a beginning");
    rig.turn(3, false);
    rig.turn(2, false);
    assert_eq!(rig.quorum_events(), [], "3 is not below 3");
    assert_eq!(rig.level(), Some(vec![(1, 2), (2, 1)]));
    rig.turn(1, false);
    assert_eq!(rig.quorum_events(), [(false, Some(address(9)))]);
    assert_eq!(rig.level(), Some(vec![(9, 1)]), "the one that is left goes too");
    let [down] = &rig.hooks()[..] else { panic!("one hook: {:?}", rig.hooks()) };
    assert_eq!(down.command, Program::argv(["/down"]));
    assert_eq!(down.owner, HookOwner::Service("www".into()));
    let said = |key: &str| {
        down.environment.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    };
    assert_eq!(said("LOCUM_SERVICE").as_deref(), Some("www"));
    assert_eq!(said("LOCUM_STATE").as_deref(), Some("DOWN"));
    assert_eq!(said("LOCUM_SORRY").as_deref(), Some("10.0.0.9:80"));
    let cause = "its servers have together a weight of 2, and its quorum of 4 is reached again with \
                 5";
    assert_eq!(said("LOCUM_CAUSE").as_deref(), Some(cause));
    let status = rig.node.status().services.remove(0);
    assert_eq!((status.quorum.reached, status.quorum.sum), (false, 2));
    assert_eq!(status.quorum.shortage, cause, "one sentence, wherever it is said");
    assert_eq!((status.sorry, status.sorry_in_use), (Some(address(9)), true));
    let due: Vec<u32> = status.servers.iter().map(|server| server.due_weight).collect();
    assert_eq!(due, [0; 4], "the sorry server has the clients");
    rig.turn(1, true);
    rig.turn(2, true);
    assert_eq!((rig.quorum_events(), rig.level()), (vec![], None), "4 is below 5");
    rig.turn(3, true);
    assert_eq!(rig.quorum_events(), [(true, None)]);
    assert_eq!(rig.level(), Some(vec![(1, 2), (2, 1), (3, 1), (4, 1)]));
    let commands: Vec<Program> = rig.hooks().into_iter().map(|run| run.command).collect();
    assert_eq!(commands, program("/up"));
}

#[test]
fn without_a_sorry_server_those_that_are_left_keep_the_clients() {
    let quorum = Quorum { level: 2, ..Quorum::default() };
    let mut rig = Rig::new(Service { quorum, ..service(vec![server(1, 1), server(2, 1)]) });
    rig.turn(0, false);
    assert_eq!(rig.level(), Some(vec![(2, 1)]));
    assert_eq!(rig.quorum_events(), [], "nothing follows from it but in the election");
    assert!(!rig.node.status().services[0].quorum.reached);
}

#[test]
fn a_sorry_server_that_is_quiesced_stays_with_weight_zero() {
    let sorry = sorry(FailedServer::Quiesce);
    let mut quiet = server(1, 3);
    quiet.failed = FailedServer::Quiesce;
    let mut rig = Rig::new(Service { sorry, ..service(vec![quiet]) });
    assert_eq!(rig.level(), Some(vec![(1, 3), (9, 0)]));
    rig.turn(0, false);
    assert_eq!(rig.level(), Some(vec![(1, 0), (9, 1)]));
    rig.turn(0, true);
    assert_eq!(rig.level(), Some(vec![(1, 3), (9, 0)]));
}

#[test]
fn with_alpha_a_server_is_down_until_its_checks_have_passed() {
    let hooks = TurnHooks { up: program("/up"), down: program("/down") };
    let alpha = |number| Server { alpha: true, hooks: hooks.clone(), ..server(number, 1) };
    let sorry = sorry(FailedServer::Remove);
    let mut rig = Rig::new(Service { sorry, ..service(vec![alpha(1), alpha(2)]) });
    assert_eq!(rig.level(), Some(vec![(9, 1)]));
    assert_eq!(rig.quorum_events(), [], "nothing was lost: it has never been there");
    rig.turn(0, false);
    assert_eq!((rig.level(), rig.hooks()), (None, vec![]), "it was down before");
    rig.turn(1, true);
    assert_eq!(rig.level(), Some(vec![(2, 1)]));
    let [up] = &rig.hooks()[..] else { panic!("one hook: {:?}", rig.hooks()) };
    assert_eq!(up.command, Program::argv(["/up"]));
    assert_eq!(up.owner, HookOwner::Server { service: "www".into(), address: address(2) });
    assert!(up.environment.contains(&("LOCUM_SERVER".into(), "10.0.0.2:80".into())));
}

#[test]
fn hooks_of_a_server_run_when_it_turns_and_not_when_it_is_first_heard_of() {
    let hooks = TurnHooks { up: program("/up"), down: program("/down") };
    let mut rig = Rig::new(service(vec![Server { hooks, ..server(1, 1) }]));
    rig.turn(0, true);
    assert_eq!(rig.hooks(), [], "it counted as up");
    rig.turn(0, false);
    rig.turn(0, false);
    assert_eq!(rig.hooks(), [], "it is down already");
    rig.turn(0, true);
    assert_eq!(rig.hooks()[0].command, Program::argv(["/up"]));
}

#[test]
fn with_omega_the_end_of_the_daemon_is_a_failure_of_what_is_up() {
    let down = |name: &str| TurnHooks { up: Vec::new(), down: program(name) };
    let servers = vec![
        Server { hooks: down("/one"), ..server(1, 1) },
        Server { hooks: down("/two"), ..server(2, 1) },
    ];
    let hooks = TurnHooks { up: Vec::new(), down: program("/quorum") };
    for omega in [true, false] {
        let plain = service(servers.clone());
        let mut rig = Rig::new(Service { omega, hooks: hooks.clone(), ..plain });
        rig.turn(1, false);
        let out = rig.node.feed(Input::Command { id: 1, command: OperatorCommand::Stop }).to_vec();
        rig.note(out);
        let commands: Vec<String> = rig.hooks().iter().map(|run| run.command.to_string()).collect();
        let expected: &[&str] = if omega { &["/one", "/quorum"] } else { &[] };
        assert_eq!(commands, expected);
        let noted = |event: u64| {
            let is_it = |one: &Output| {
                matches!(one, Output::Notify(noted) if noted.number == event
                    && matches!(&noted.kind, EventKind::Note(text) if text.contains("omega")))
            };
            rig.out.iter().any(is_it)
        };
        assert!(rig.hooks().iter().all(|run| noted(run.event)), "{:?}", rig.out);
        let stopped = rig.out.iter().position(|one| matches!(one, Output::Stopped));
        let last = rig.out.iter().rposition(|one| matches!(one, Output::Hook(_)));
        assert!(stopped.is_some() && last < stopped, "{:?}", rig.out);
    }
}

/// The weight of one that came up, at each level that follows, with the time since.
#[test]
fn a_server_that_came_up_gets_its_weight_in_steps() {
    let plain = service(vec![server(1, 1), server(2, 2)]);
    let mut rig = Rig::new(Service { slow_start: 10 * SECOND, ..plain });
    assert_eq!(rig.level(), Some(vec![(1, 10), (2, 20)]), "tenths can be said");
    rig.turn(1, true);
    assert_eq!(rig.level(), None, "it counted as up");
    rig.turn(1, false);
    rig.turn(1, true);
    assert_eq!(rig.level(), Some(vec![(1, 10), (2, 2)]));
    assert_eq!(rig.node.status().services[0].servers[1].ramp_percent, Some(10));
    for step in 2..=10 {
        // The first step is taken with the start, each of the others at its time.
        let span = if step == 2 { 2 * SECOND } else { SECOND };
        let just_before = span - Duration::from_millis(1);
        assert_eq!(level(rig.node.run_for(just_before)), None, "step {step}");
        let out = rig.node.run_for(Duration::from_millis(1)).to_vec();
        assert_eq!(level(&out), Some(vec![(1, 10), (2, 2 * step)]), "step {step}");
    }
    assert_eq!(rig.node.status().services[0].servers[1].ramp_percent, None);
    assert_eq!(rig.node.deadline(), None, "nothing is left to do");
}

#[test]
fn the_least_weight_that_a_check_says_is_the_servers() {
    let mut rig = Rig::new(service(vec![server(1, 10), server(2, 10)]));
    rig.report(0, Verdict::Pass, Some(ReportedWeight::Percent(50)));
    assert_eq!(rig.level(), Some(vec![(1, 5), (2, 10)]));
    rig.report(0, Verdict::Pass, Some(ReportedWeight::Percent(50)));
    assert_eq!(rig.level(), None, "the same again");
    rig.report(0, Verdict::Pass, Some(ReportedWeight::Absolute(u32::MAX)));
    assert_eq!(rig.level(), Some(vec![(1, 65_535), (2, 10)]), "clamped");
    rig.report(0, Verdict::Fail, None);
    rig.report(0, Verdict::Pass, None);
    assert_eq!(rig.level(), Some(vec![(1, 10), (2, 10)]), "it says nothing any more");
}

#[test]
fn a_server_that_reports_no_weight_at_all_counts_for_no_quorum() {
    let quorum = Quorum { level: 2, ..Quorum::default() };
    let sorry = sorry(FailedServer::Remove);
    let mut rig = Rig::new(Service { quorum, sorry, ..service(vec![server(1, 1), server(2, 1)]) });
    rig.report(0, Verdict::Pass, Some(ReportedWeight::Absolute(0)));
    assert_eq!(rig.level(), Some(vec![(9, 1)]));
}

#[test]
fn an_order_holds_over_checks_and_reloads_until_it_is_withdrawn() {
    let servers = || vec![server(1, 4), server(2, 4)];
    let mut rig = Rig::new(service(servers()));
    let reply = rig.order(1, Some(ServerOrder::Drain), Duration::ZERO);
    let text = "10.0.0.1:80 of www gets no new connections; those that it has go on";
    assert_eq!(reply, Reply::Ok(text.to_owned()));
    assert_eq!(rig.level(), Some(vec![(1, 0), (2, 4)]));
    let ordered =
        |order| EventKind::ServerOrdered { service: "www".into(), server: address(1), order };
    assert!(rig.events().contains(&ordered(Some(ServerOrder::Drain))), "{:?}", rig.events());
    rig.turn(0, false);
    rig.turn(0, true);
    assert_eq!(rig.level(), Some(vec![(1, 0), (2, 4)]), "up again, and still drained");
    rig.reload(Service { drain: SECOND, ..service(servers()) });
    assert_eq!(rig.level(), Some(vec![(1, 0), (2, 4)]));
    rig.order(1, Some(ServerOrder::Weight(7)), Duration::ZERO);
    assert_eq!(rig.level(), Some(vec![(1, 7), (2, 4)]));
    let status = rig.node.status().services[0].servers[0].clone();
    assert_eq!((status.weight, status.due_weight), (4, 7));
    assert_eq!(status.order, Some(ServerOrder::Weight(7)));
    rig.order(1, None, Duration::ZERO);
    assert_eq!(rig.level(), Some(vec![(1, 4), (2, 4)]));
    assert!(rig.events().contains(&ordered(None)));
}

#[test]
fn an_order_may_be_carried_out_in_steps() {
    let mut rig = Rig::new(service(vec![server(1, 100), server(2, 100)]));
    rig.order(1, Some(ServerOrder::Drain), 10 * SECOND);
    assert_eq!(rig.level(), Some(vec![(1, 90), (2, 100)]));
    let out = rig.node.run_for(5 * SECOND).to_vec();
    assert_eq!(level(&out), Some(vec![(1, 50), (2, 100)]));
    let out = rig.node.run_for(5 * SECOND).to_vec();
    assert_eq!(level(&out), Some(vec![(1, 0), (2, 100)]));
    assert_eq!(rig.node.deadline(), None);
}

#[test]
fn a_weight_of_one_falls_and_rises_in_steps_too() {
    let mut rig = Rig::new(service(vec![server(1, 1), server(2, 1)]));
    rig.order(1, Some(ServerOrder::Drain), 10 * SECOND);
    assert_eq!(rig.level(), Some(vec![(1, 9), (2, 10)]), "tenths, while it takes them");
    let out = rig.node.run_for(5 * SECOND).to_vec();
    assert_eq!(level(&out), Some(vec![(1, 5), (2, 10)]));
    rig.order(1, None, 10 * SECOND);
    assert_eq!(rig.level(), Some(vec![(1, 6), (2, 10)]), "back from where it was");
    let out = rig.node.run_for(10 * SECOND).to_vec();
    assert_eq!(level(&out), Some(vec![(1, 1), (2, 1)]));
    assert_eq!(rig.node.deadline(), None);
}

/// Tenths of 65535 are more than a backend takes.
#[test]
fn a_weight_that_cannot_be_said_in_tenths_stays_until_the_way_is_over() {
    let mut rig = Rig::new(service(vec![server(1, 1), server(2, 65_535)]));
    rig.order(1, Some(ServerOrder::Drain), 10 * SECOND);
    assert_eq!(rig.level(), None, "it has clients until the end");
    let out = rig.node.run_for(10 * SECOND).to_vec();
    assert_eq!(level(&out), Some(vec![(1, 0), (2, 65_535)]));
}

/// Case: a ramp that began in tenths was read as whole weights when another server's weight left no
/// room for tenths, and one that fell from 10,000 to 1 was sent as 90,001.
#[test]
fn what_is_on_its_way_stays_where_it_is_when_the_level_changes_its_units() {
    let plain = service(vec![server(1, 5_000), server(2, 1)]);
    let mut rig = Rig::new(Service { slow_start: 10 * SECOND, ..plain });
    rig.order(1, Some(ServerOrder::Weight(1_000)), 10 * SECOND);
    assert_eq!(rig.level(), Some(vec![(1, 46_000), (2, 10)]));
    rig.report(1, Verdict::Pass, Some(ReportedWeight::Absolute(10_000)));
    assert_eq!(rig.level(), Some(vec![(1, 4_600), (2, 10_000)]));
    rig.order(2, Some(ServerOrder::Weight(1)), 10 * SECOND);
    assert_eq!(rig.level(), Some(vec![(1, 4_600), (2, 9_001)]));
}

#[test]
fn an_order_for_what_there_is_not_says_what_there_is() {
    let mut rig = Rig::new(service(vec![server(1, 1)]));
    let refused = |reply| match reply {
        Reply::Refused(why) => why,
        Reply::Ok(text) => panic!("done: {text}"),
    };
    let why = refused(rig.order(5, None, Duration::ZERO));
    assert_eq!(why, "service www has no server 10.0.0.5:80; it has 10.0.0.1:80");
    let why = refused(rig.command("wwww", address(1).ip(), Some(80), None, Duration::ZERO));
    assert_eq!(why, "there is no service wwww; there is www");
}

#[test]
fn a_server_may_be_named_without_the_port_that_it_alone_has() {
    let second = SocketAddr::new(address(2).ip(), 81);
    let servers = vec![server(1, 1), server(2, 1), Server::new(second)];
    let mut rig = Rig::new(service(servers));
    let mut drained = |number, port| {
        let drain = Some(ServerOrder::Drain);
        match rig.command("www", address(number).ip(), port, drain, Duration::ZERO) {
            Reply::Ok(text) | Reply::Refused(text) => text,
        }
    };
    assert!(drained(1, None).starts_with("10.0.0.1:80 of www gets no new connections"));
    assert!(drained(2, Some(81)).starts_with("10.0.0.2:81 of www gets no new connections"));
    let several = "service www has several servers 10.0.0.2: name one of 10.0.0.2:80, 10.0.0.2:81";
    assert_eq!(drained(2, None), several);
    let none = "service www has no server 10.0.0.9; it has 10.0.0.1:80, 10.0.0.2:80, 10.0.0.2:81";
    assert_eq!(drained(9, None), none);
}

#[test]
fn orders_of_an_earlier_run_hold_from_the_first_level_on() {
    let mut rig = Rig { node: Node::with_links(), out: Vec::new(), probes: Vec::new() };
    let order =
        |number, order| StandingOrder { service: "www".into(), server: address(number), order };
    let gone = order(7, ServerOrder::Drain);
    rig.node.feed(Input::Orders(vec![order(2, ServerOrder::Drain), gone]));
    let sorry = sorry(FailedServer::Remove);
    rig.reload(Service { sorry, ..service(vec![server(1, 1), server(2, 1)]) });
    assert_eq!(rig.level(), Some(vec![(1, 1), (2, 0)]));
    rig.order(1, Some(ServerOrder::Drain), Duration::ZERO);
    assert_eq!(
        rig.level(),
        Some(vec![(9, 1)]),
        "all are drained: the sorry server has the clients"
    );
}

/// The other nodes would send clients to it: it is no reason for them to take over.
#[test]
fn a_server_that_is_drained_here_counts_in_the_election() {
    let mut plan = plan([instance("web", 51, 100)]);
    plan.services = vec![Service { instance: Some("web".into()), ..service(vec![server(1, 1)]) }];
    let mut node = Node::started(plan);
    let command = OperatorCommand::Server {
        service: "www".into(),
        address: address(1).ip(),
        port: None,
        order: Some(ServerOrder::Drain),
        over: Duration::ZERO,
    };
    let probe = node.probe();
    let outcome = Outcome {
        verdict: Verdict::Pass,
        detail: String::new(),
        took: Duration::ZERO,
        weight: None,
    };
    node.feed(Input::Probed { probe, outcome });
    node.feed(Input::Command { id: 3, command });
    let status = node.status().services.remove(0);
    assert_eq!(status.fitness.populated, Some(true));
    assert!(!status.quorum.reached && status.quorum.sum == 0, "{:?}", status.quorum);
}

/// Case: the only server of a service, drained, was said to be down.
#[test]
fn who_is_drained_is_not_down() {
    let sorry = sorry(FailedServer::Remove);
    let mut rig = Rig::new(Service { sorry, ..service(vec![server(1, 4)]) });
    let shortage = |rig: &Rig| rig.node.status().services.remove(0).quorum.shortage;
    assert_eq!(shortage(&rig), "");
    rig.turn(0, true);
    rig.node.run_for(5 * SECOND);
    rig.order(1, Some(ServerOrder::Drain), Duration::ZERO);
    assert_eq!(shortage(&rig), "its only server is drained by the operator");
    rig.node.run_for(2 * SECOND);
    let quorum = rig.node.status().services.remove(0).quorum;
    assert_eq!(quorum.age, 2 * SECOND, "since it was lost");
    rig.order(1, Some(ServerOrder::Weight(0)), Duration::ZERO);
    assert_eq!(shortage(&rig), "its only server has weight 0 by the operator");
    rig.turn(0, false);
    assert_eq!(shortage(&rig), "its only server is down");
    let servers = vec![server(1, 4), server(2, 4), server(3, 4)];
    let quorum = Quorum { level: 2, ..Quorum::default() };
    let mut rig = Rig::new(Service { sorry, quorum, ..service(servers) });
    rig.turn(0, false);
    rig.order(2, Some(ServerOrder::Drain), Duration::ZERO);
    rig.order(3, Some(ServerOrder::Weight(2)), Duration::ZERO);
    let why =
        "1 of its 3 servers take connections (1 drained by the operator), and its quorum is 2";
    assert_eq!(shortage(&rig), why, "a lower weight is a server all the same");
}

#[test]
fn without_a_sorry_server_it_is_said_how_many_servers_are_left() {
    let hooks = TurnHooks { up: Vec::new(), down: program("/down") };
    let quorum = Quorum { level: 2, ..Quorum::default() };
    let servers = vec![server(1, 1), server(2, 1), server(3, 1)];
    let mut rig = Rig::new(Service { hooks, quorum, ..service(servers) });
    let remaining = |rig: &Rig| {
        let mut events = rig.events().into_iter();
        events.find_map(|kind| match kind {
            EventKind::Quorum { remaining, .. } => Some(remaining),
            _ => None,
        })
    };
    rig.turn(0, false);
    assert_eq!(remaining(&rig), None);
    rig.turn(1, false);
    assert_eq!(remaining(&rig), Some(1));
}

#[test]
fn a_standby_takes_steps_without_a_level() {
    let mut plan = plan([instance("web", 51, 100)]);
    let slow_start = 10 * SECOND;
    let plain = service(vec![server(1, 10)]);
    plan.services = vec![Service { instance: Some("web".into()), slow_start, ..plain }];
    let mut node = Node::with_links();
    let out = node.plan_with(plan, Vec::new()).to_vec();
    assert_eq!(level(&out), Some(Vec::new()));
    let probe = node.probe();
    for verdict in [Verdict::Fail, Verdict::Pass] {
        let (detail, took) = (String::new(), Duration::ZERO);
        node.feed(Input::Probed {
            probe,
            outcome: Outcome { verdict, detail, took, weight: None },
        });
    }
    let out = node.run_for(5 * SECOND).to_vec();
    let activities = out.iter().filter_map(|output| match output {
        Output::Serve { wanted, .. } => Some(wanted.services[0].activity),
        _ => None,
    });
    assert_eq!(activities.filter(|activity| *activity == Activity::Idle).count(), 0);
}
