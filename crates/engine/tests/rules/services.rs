//! What a node serves follows the addresses it holds and the health of the servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{Aspect, Awaited, EventKind, Input, OperatorCommand, Output, ProbeChange};
use locum_plan::{
    Activity, BackendChoice, BackendKind, Checker, FailedServer, HaproxyFile, Health, HttpQuestion,
    Lease, Outcome, Plan, Probe, Question, Server, Service, Standby, StatusRange, Tracked, Verdict,
    WantedServices,
};
use locum_vrrp::{Interval, Role, Version};

use crate::node::{Node, instance, plan};

#[test]
fn a_service_of_an_instance_is_served_by_its_master_only() {
    let mut node = Node::started(with_service(service()));
    let out = node.run_for(Duration::from_millis(3600)).to_vec();
    assert_eq!(served(&out), None);
    let out = node.run_for(Duration::from_millis(100)).to_vec();
    let wanted = served(&out).expect("a new level");
    assert_eq!(wanted.services[0].activity, Activity::Active);
    assert_eq!(wanted.services[0].servers.len(), 2, "unknown counts as up");
    node.confirm_applies();
    let out = node.link("eth0", false).to_vec();
    let wanted = served(&out).expect("a new level");
    assert_eq!(wanted.services[0].activity, Activity::Idle, "only whether it could is asked");
    assert_eq!(wanted.services[0].servers, []);
    assert_eq!(wanted.running(), WantedServices::default());
}

/// The kernel rounds leases down to seconds and drops addresses up to a second late.
#[test]
fn a_service_may_be_served_without_a_daemon_as_long_as_its_address_stays() {
    let lease = |lease, instance: Option<&str>| {
        let mut plan = with_service(Service {
            instance: instance.map(Into::into),
            standby: Standby::Warm,
            ..service()
        });
        Arc::make_mut(&mut plan.instances[0]).lease = lease;
        let out = Node::with_links().plan_with(plan, Vec::new()).to_vec();
        served(&out).expect("a level").services[0].lease
    };
    let web = Some("web");
    // Three adverts, one a second.
    assert_eq!(lease(Lease::Auto, web), Some(Duration::from_secs(3 + 1)));
    assert_eq!(lease(Lease::Fixed(Duration::from_secs(60)), web), Some(Duration::from_secs(61)));
    assert_eq!(lease(Lease::Off, web), None);
    assert_eq!(lease(Lease::Auto, None), None, "served whoever is master");
}

#[test]
fn a_reload_that_changes_only_the_lease_sends_the_level_again() {
    let mut node = Node::master(with_service(service()));
    let mut plan = with_service(service());
    let web = Arc::make_mut(&mut plan.instances[0]);
    Arc::make_mut(&mut web.router).interval = Interval::new(Version::V3, 500).expect("5 s");
    let out = node.plan_with(plan, Vec::new()).to_vec();
    let wanted = served(&out).expect("a new level");
    assert_eq!(wanted.services[0].activity, Activity::Active);
    assert_eq!(wanted.services[0].lease, Some(Duration::from_secs(15 + 1)));
}

/// Of 10,000 servers, each with a check of its own: what stays is not even looked at again.
#[test]
fn a_reload_that_changes_one_of_many_servers_touches_one_service_and_no_check() {
    let many = |weight| {
        let server = |number: u16, of: u8| {
            let address = SocketAddr::from(([10, 0, of, 1], number));
            let probe =
                Probe::new(Checker::tcp(address), Duration::from_secs(2), Duration::from_secs(1));
            let health = vec![Health { probe, rise: 1, fall: 1 }];
            Server { health, ..Server::new(address) }
        };
        let mut plan = plan([]);
        for of in 0..100 {
            let name = format!("s{of}");
            let listen = SocketAddr::from(([192, 0, 2, 10], 1000 + u16::from(of)));
            let mut service = Service::new((&*name).into(), listen.into());
            service.servers = (1..=100).map(|number| server(number, of)).collect();
            plan.services.push(service);
        }
        plan.services[50].servers[3].weight = weight;
        plan
    };
    let mut node = Node::with_links();
    let out = node.plan_with(many(1), Vec::new()).to_vec();
    let before = served(&out).expect("a level");
    let probes = out.iter().filter(|output| matches!(output, Output::Probe(_))).count();
    assert_eq!(probes, 10_000);
    let out = node.plan_with(many(2), Vec::new()).to_vec();
    assert!(!out.iter().any(|output| matches!(output, Output::Probe(_))), "no check is restarted");
    let after = served(&out).expect("a level");
    let both = before.services.iter().zip(&after.services);
    let changed: Vec<&str> = both
        .filter(|(before, after)| before != after)
        .map(|(_, after)| &*after.service.name)
        .collect();
    assert_eq!(changed, ["s50"]);
}

/// Master since this moment, its addresses in place, and its service asked for under the number
/// that comes back.
fn serving() -> (Node, u64) {
    let mut node = Node::prompt(with_service(service()));
    let out = node.run_for(Duration::from_millis(3610)).to_vec();
    let seq = out.iter().rev().find_map(|output| match output {
        Output::Serve { seq, .. } => Some(*seq),
        _ => None,
    });
    assert!(!announces(&out), "{out:#?}");
    (node, seq.expect("serves"))
}

fn announces(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Announce { .. }))
}

fn unready(out: &[Output]) -> Vec<Awaited> {
    let events = out.iter().filter_map(|output| match output {
        Output::Notify(event) => Some(&event.kind),
        _ => None,
    });
    let awaited = events.filter_map(|kind| match kind {
        EventKind::AnnouncedUnready { awaited, .. } => Some(awaited.clone()),
        _ => None,
    });
    awaited.collect()
}

/// I-035: a client that is told too early is refused.
#[test]
fn an_address_is_announced_when_its_service_answers() {
    let (mut node, seq) = serving();
    assert!(!announces(node.run_for(Duration::from_millis(200))));
    let pending = Input::Served { seq, pending: vec!["www".into()], failed: Vec::new() };
    assert!(!announces(node.feed(pending)), "it does not answer yet");
    let done = Input::Served { seq, pending: Vec::new(), failed: Vec::new() };
    let out = node.feed(done).to_vec();
    assert!(announces(&out));
    assert_eq!(unready(&out), []);
}

/// A service that cannot be served must not keep the others away.
#[test]
fn the_wait_for_a_service_is_bounded_and_the_history_says_when_the_bound_was_hit() {
    let (mut node, seq) = serving();
    assert!(!announces(node.run_for(Duration::from_millis(299))));
    let out = node.run_for(Duration::from_millis(1)).to_vec();
    assert!(announces(&out));
    assert_eq!(unready(&out), [Awaited::Service("www".into())]);
    let late = Input::Served { seq, pending: Vec::new(), failed: Vec::new() };
    assert!(!announces(node.feed(late)), "that was announced");
}

/// V-241: whatever speaks first after a pause.
#[test]
fn a_master_that_slept_too_long_is_none_when_its_service_answers() {
    let (mut node, seq) = serving();
    node.sleep(Duration::from_secs(5));
    let done = Input::Served { seq, pending: Vec::new(), failed: Vec::new() };
    let out = node.feed(done).to_vec();
    assert!(!announces(&out), "{out:?}");
    assert_eq!(node.role(), Role::Backup);
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if !hold.is_empty())));
}

#[test]
fn a_service_that_cannot_be_served_is_not_waited_for() {
    let (mut node, seq) = serving();
    let failed = vec![("www".into(), "port 80 is taken".to_owned())];
    assert!(announces(node.feed(Input::Served { seq, pending: Vec::new(), failed })));
}

#[test]
fn a_warm_standby_is_ready_on_the_backup() {
    let warm = Service { standby: Standby::Warm, ..service() };
    let mut node = Node::with_links();
    let out = node.plan_with(with_service(warm), Vec::new()).to_vec();
    assert_eq!(served(&out).expect("a level").services[0].activity, Activity::Ready);
}

#[test]
fn a_warm_haproxy_is_ready_on_the_backup_and_a_cold_one_idle() {
    let file = |name: &str, standby| HaproxyFile {
        name: name.into(),
        instance: Some("web".into()),
        config: "/etc/haproxy/haproxy.cfg".into(),
        program: "haproxy".into(),
        standby,
        answer: None,
    };
    let mut plan = with_service(service());
    plan.services.clear();
    plan.haproxy = vec![file("warm", Standby::Warm), file("cold", Standby::Cold)];
    let mut node = Node::with_links();
    let out = node.plan_with(plan, Vec::new()).to_vec();
    let named = |wanted: &WantedServices| {
        let all = wanted.haproxy.iter().map(|one| (one.file.name.to_string(), one.activity));
        all.collect::<Vec<_>>()
    };
    let first = served(&out).expect("a level");
    let both = [("warm".to_owned(), Activity::Ready), ("cold".to_owned(), Activity::Idle)];
    assert_eq!(named(&first), both);
    assert!(!node.status().haproxy[0].active);
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let both = [("warm".to_owned(), Activity::Active), ("cold".to_owned(), Activity::Active)];
    assert_eq!(named(&served(&out).expect("a level of the master")), both);
    assert!(node.status().haproxy[0].active);
}

#[test]
fn services_that_stay_as_they_are_are_shared_between_levels() {
    let mut both = with_service(service());
    both.services.push(Service { name: "again".into(), standby: Standby::Warm, ..service() });
    both.services[0].standby = Standby::Cold;
    both.services[1].instance = None;
    let mut node = Node::with_links();
    let out = node.plan_with(both, Vec::new()).to_vec();
    let first = served(&out).expect("a level");
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let second = served(&out).expect("a level of the master");
    let kept = |wanted: &WantedServices| {
        wanted.services.iter().find(|one| &*one.service.name == "again").cloned()
    };
    assert!(Arc::ptr_eq(&kept(&first).unwrap(), &kept(&second).unwrap()));
    assert_ne!(first, second);
}

#[test]
fn a_failed_server_leaves_or_stays_with_weight_zero() {
    for (failed, left) in [(FailedServer::Remove, vec![2]), (FailedServer::Quiesce, vec![0, 2])] {
        let mut node = Node::with_links();
        let mut service = service();
        service.servers[0].failed = failed;
        let out = node.plan_with(with_service(service), Vec::new()).to_vec();
        let probe = out
            .iter()
            .find_map(|output| match output {
                Output::Probe(ProbeChange::Start { probe, .. }) => Some(*probe),
                _ => None,
            })
            .expect("servers are probed on backups too");
        node.run_for(Duration::from_millis(3700));
        assert_eq!(served(node.feed(probed(probe, Verdict::Fail))).map(weights), Some(left));
        let out = node.feed(probed(probe, Verdict::Pass)).to_vec();
        assert_eq!(served(&out), None, "rise is 2");
        let back = served(node.feed(probed(probe, Verdict::Pass))).map(weights);
        assert_eq!(back, Some(vec![1, 2]), "with the configured weight (I-044)");
    }
}

/// No port to connect from, no descriptor: a shortage here is no failure there, however often.
#[test]
fn a_server_that_this_node_cannot_ask_stays_what_it_was() {
    let checked = |address: SocketAddr| {
        let check = Health { rise: 1, fall: 2, ..tcp(address) };
        Server { health: vec![check], ..server(address, 1) }
    };
    let servers = service().servers.iter().map(|server| checked(server.address)).collect();
    let mut node = Node::with_links();
    let out = node.plan_with(with_service(Service { servers, ..service() }), Vec::new()).to_vec();
    let started = out.iter().filter_map(|output| match output {
        Output::Probe(ProbeChange::Start { probe, .. }) => Some(*probe),
        _ => None,
    });
    let [first, second] = started.collect::<Vec<u32>>()[..] else { panic!("two: {out:?}") };
    let states = |node: &Node| -> Vec<Option<bool>> {
        node.status().services[0].servers.iter().map(|server| server.up).collect()
    };
    node.feed(probed(second, Verdict::CannotRun));
    assert_eq!(states(&node), [None, None], "the first result is still to come");
    node.feed(probed(first, Verdict::Pass));
    node.feed(probed(second, Verdict::Fail));
    assert_eq!(states(&node), [Some(true), Some(false)]);
    for _ in 0..5 {
        node.feed(probed(first, Verdict::CannotRun));
        node.feed(probed(second, Verdict::CannotRun));
    }
    assert_eq!(states(&node), [Some(true), Some(false)]);
    let is_unasked = |node: &Node| -> Vec<bool> {
        node.status().services[0].servers.iter().map(|server| server.is_unasked).collect()
    };
    assert_eq!(is_unasked(&node), [true, true]);
    node.feed(probed(first, Verdict::Pass));
    assert_eq!(is_unasked(&node), [false, true]);
}

/// Each check counts for itself, with its own rise and fall.
#[test]
fn a_server_is_up_while_all_its_checks_are() {
    let mut service = service();
    let expect = vec![StatusRange { first: 200, last: 299 }];
    let question = Question::Http(HttpQuestion::get("/", None, expect).into());
    let page = |target| Checker::ask(target, question);
    let first = &mut service.servers[0];
    let mut second_check = tcp(first.address);
    second_check.probe.kind = page(first.address);
    (second_check.rise, second_check.fall) = (1, 2);
    first.health.push(second_check);
    let mut node = Node::with_links();
    let out = node.plan_with(with_service(service), Vec::new()).to_vec();
    let started: Vec<u32> = out
        .iter()
        .filter_map(|output| match output {
            Output::Probe(ProbeChange::Start { probe, .. }) => Some(*probe),
            _ => None,
        })
        .collect();
    let [port, page, _] = started[..] else { panic!("three probes: {started:?}") };
    node.run_for(Duration::from_millis(3700));
    let up = |node: &Node| node.status().services[0].servers[0].up;
    node.feed(probed(port, Verdict::Pass));
    assert_eq!(up(&node), None, "one of two has reported");
    node.feed(probed(page, Verdict::Pass));
    assert_eq!(up(&node), Some(true));
    assert_eq!(served(node.feed(probed(page, Verdict::Fail))), None, "fall is 2");
    let left = served(node.feed(probed(page, Verdict::Fail))).map(weights);
    assert_eq!(left, Some(vec![2]), "one failing check is enough");
    assert_eq!(served(node.feed(probed(port, Verdict::Pass))), None, "the page still fails");
    let back = served(node.feed(probed(page, Verdict::Pass))).map(weights);
    assert_eq!(back, Some(vec![1, 2]), "rise of the page is 1");
}

#[test]
fn a_stopping_node_serves_until_it_has_handed_over() {
    let mut node = Node::master(with_service(service()));
    let out = node.feed(Input::Command { id: 1, command: OperatorCommand::Stop }).to_vec();
    assert_eq!(served(&out), None);
    let out = node.run_for(Duration::from_millis(2200)).to_vec();
    assert_eq!(*served(&out).expect("a new level"), WantedServices::default());
}

#[test]
fn servers_that_are_asked_the_same_share_one_probe() {
    let mut both = with_service(service());
    both.services.push(Service { name: "again".into(), ..service() });
    let mut node = Node::with_links();
    let out = node.plan_with(both, Vec::new()).to_vec();
    let started = out.iter().filter(|o| matches!(o, Output::Probe(ProbeChange::Start { .. })));
    assert_eq!(started.count(), 2, "two servers, two services, two questions");
}

#[test]
fn a_service_that_failed_shows_why_until_the_balancer_says_it_is_served_again() {
    let mut node = Node::started(with_service(service()));
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    let seq = out.iter().find_map(|output| match output {
        Output::Serve { seq, .. } => Some(*seq),
        _ => None,
    });
    let seq = seq.expect("a level");
    let error = |node: &Node| node.status().services[0].error.clone();
    let served = |seq| Input::Served { seq, pending: Vec::new(), failed: Vec::new() };
    let pending = || Input::Served { seq, pending: vec!["www".into()], failed: Vec::new() };
    let failed = || Input::Served {
        seq,
        pending: Vec::new(),
        failed: vec![("www".into(), "port 80 is taken".to_owned())],
    };
    let reported = |out: &[Output]| {
        let events = out.iter().filter_map(|output| match output {
            Output::Notify(event) => Some(event.kind.clone()),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    let error_text = "port 80 is taken".to_owned();
    let fitness = |aspect, holds, detail: &str| EventKind::Fitness {
        object: Tracked::Service("www".into()),
        aspect,
        holds,
        detail: detail.to_owned(),
    };
    assert_eq!(reported(node.feed(pending())), [], "nothing is known yet");
    assert_eq!(error(&node), None);
    let out = node.feed(failed()).to_vec();
    assert_eq!(reported(&out), [fitness(Aspect::Answering, false, &error_text)]);
    assert_eq!(error(&node), Some(error_text.clone()));
    assert_eq!(reported(node.feed(failed())), [], "no news");
    assert_eq!(reported(node.feed(pending())), [], "what is tried again has not recovered yet");
    assert_eq!(error(&node), Some(error_text));
    let out = node.feed(served(seq)).to_vec();
    assert_eq!(reported(&out), [fitness(Aspect::Answering, true, "")]);
    assert_eq!(error(&node), None);
    node.feed(failed());
    assert_eq!(reported(node.feed(served(seq - 1))), [], "too late");
    node.link("eth0", false);
    let out = node.feed(served(seq + 1)).to_vec();
    let mended = [fitness(Aspect::Capable, true, "")];
    assert_eq!(reported(&out), mended, "it could be served again");
    assert_eq!(error(&node), None);
}

fn weights(wanted: Arc<WantedServices>) -> Vec<u32> {
    wanted.services[0].servers.iter().map(|server| server.weight).collect()
}

fn served(out: &[Output]) -> Option<Arc<WantedServices>> {
    out.iter().find_map(|output| match output {
        Output::Serve { wanted, .. } => Some(Arc::clone(wanted)),
        _ => None,
    })
}

fn probed(probe: u32, verdict: Verdict) -> Input<'static> {
    let outcome = Outcome { verdict, detail: String::new(), took: Duration::ZERO, weight: None };
    Input::Probed { probe, outcome }
}

fn with_service(service: Service) -> Plan {
    let mut plan = plan([instance("web", 51, 100)]);
    plan.services = vec![service];
    plan
}

fn tcp(target: SocketAddr) -> Health {
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    Health { probe: Probe::new(Checker::tcp(target), interval, timeout), rise: 2, fall: 3 }
}

fn server(address: SocketAddr, weight: u32) -> Server {
    Server { weight, health: vec![tcp(address)], ..Server::new(address) }
}

fn service() -> Service {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Service {
        instance: Some("web".into()),
        backend: BackendChoice::Only(BackendKind::Proxy),
        servers: vec![server(address("10.0.0.1:80"), 1), server(address("10.0.0.2:80"), 2)],
        ..Service::new("www".into(), address("192.0.2.10:80").into())
    }
}
