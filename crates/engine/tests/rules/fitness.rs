//! What a node can serve decides its place: who gives way, who stays, and when (V-280..V-284).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    Aspect, EventKind, Inherited, Input, OperatorCommand, Output, ProbeChange, Reply, RunMode,
    Successor, Target,
};
use locum_plan::{
    BackendChoice, BackendKind, Checker, FitnessPolicy, HaproxyFile, Health, Outcome, Plan, Probe,
    Ranking, Served, Server, Service, Standby, Track, Tracked, Verdict,
};
use locum_vrrp::{Priority, Role};

use crate::node::{Node, PEER, VIP, instance, plan, process_check, sent_priorities};

const SECOND: Duration = Duration::from_secs(1);
/// Of the instance under test, and of its peer.
const OWN: u8 = 100;
const OTHER: u8 = 150;
/// It cannot serve, and nor can the other: of two nodes this one has the lower priority.
const UNFIT: u8 = 1;
/// What says that a master takes back what nobody takes.
const OFFER: u8 = 3;

/// One haproxy and one service with two servers, both of the instance.
fn served() -> Plan {
    let mut plan = plan([instance("web", 51, OWN)]);
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let server =
        |text| Server { health: vec![health(address(text))], ..Server::new(address(text)) };
    plan.services = vec![Service {
        instance: Some("web".into()),
        backend: BackendChoice::Only(BackendKind::Proxy),
        servers: vec![server("10.0.0.1:80"), server("10.0.0.2:80")],
        ..Service::new("www".into(), address("192.0.2.10:80").into())
    }];
    follow(&mut plan, &[(Tracked::Service("www".into()), 1)]);
    plan
}

/// The same, and a check without which the instance may not take part.
fn checked() -> Plan {
    let mut plan = served();
    plan.checks = vec![process_check(0)];
    let track = Track { object: Tracked::Check("app".into()), weight: None };
    Arc::make_mut(&mut plan.instances[0]).track = vec![track];
    plan
}

fn follow(plan: &mut Plan, objects: &[(Tracked, u8)]) {
    let served = objects.iter().map(|(object, weight)| {
        let object = object.clone();
        Served { object, weight: *weight }
    });
    let served: Vec<Served> = served.collect();
    let weights = served.iter().fold(0_u16, |sum, one| sum.saturating_add(one.weight.into()));
    let nodes = [OWN, OTHER].map(Priority);
    let ranking = Ranking::new(&nodes, Priority(OWN), 0, weights).expect("room");
    Arc::make_mut(&mut plan.instances[0]).fitness =
        Some(Box::new(FitnessPolicy { served, ranking }));
}

fn health(target: SocketAddr) -> Health {
    let probe = Probe::new(Checker::tcp(target), SECOND, SECOND);
    Health { probe, rise: 2, fall: 2 }
}

fn edge() -> HaproxyFile {
    HaproxyFile {
        name: "edge".into(),
        instance: Some("web".into()),
        config: "/etc/haproxy/haproxy.cfg".into(),
        program: "haproxy".into(),
        standby: Standby::Cold,
        answer: None,
    }
}

/// A node with its probes, its balancer and its peer.
struct Director {
    node: Node,
    probes: Vec<u32>,
    seq: u64,
    events: Vec<EventKind>,
    /// Priorities of the adverts that have left.
    sent: Vec<u8>,
}

impl Director {
    fn new(plan: Plan) -> Self {
        let mut node = Node::with_links();
        let out = node.plan_with(plan, Vec::new()).to_vec();
        let mut director =
            Self { node, probes: Vec::new(), seq: 0, events: Vec::new(), sent: Vec::new() };
        director.note(&out);
        director
    }

    /// A backup that could serve, of a master that is heard.
    fn standby(plan: Plan) -> Self {
        let mut director = Self::new(plan);
        director.answer(&[]);
        director.probe(Verdict::Pass);
        director.beside(OTHER, 3);
        assert_eq!(director.status().unfit, []);
        director
    }

    fn master(plan: Plan) -> Self {
        let mut director = Self::new(plan);
        director.answer(&[]);
        director.probe(Verdict::Pass);
        director.run(4 * SECOND);
        director.answer(&[]);
        assert_eq!((director.node.role(), director.status().unfit), (Role::Master, Vec::new()));
        director.run(SECOND);
        director
    }

    fn note(&mut self, out: &[Output]) {
        for output in out {
            match output {
                Output::Serve { seq, .. } => self.seq = *seq,
                Output::Probe(ProbeChange::Start { probe, .. }) => self.probes.push(*probe),
                Output::Notify(event) => self.events.push(event.kind.clone()),
                _ => {}
            }
        }
        self.sent.extend(sent_priorities(out));
    }

    fn feed(&mut self, input: Input<'_>) {
        let out = self.node.feed(input).to_vec();
        self.note(&out);
    }

    fn run(&mut self, span: Duration) {
        let out = self.node.run_for(span).to_vec();
        self.note(&out);
        let out = self.node.confirm_applies().to_vec();
        self.note(&out);
    }

    /// Adverts of the peer, one a second.
    fn beside(&mut self, priority: u8, seconds: u32) {
        for _ in 0..seconds {
            let out = self.node.hear(PEER, priority).to_vec();
            self.note(&out);
            self.run(SECOND);
        }
    }

    /// The balancer serves all but these.
    fn answer(&mut self, failed: &[&str]) {
        let failed = failed.iter().map(|name| ((*name).into(), "port 80 is taken".to_owned()));
        let (seq, failed) = (self.seq, failed.collect());
        self.feed(Input::Served { seq, pending: Vec::new(), failed });
    }

    /// The balancer is finding out what of it could be served.
    fn look_anew(&mut self) {
        let seq = self.seq;
        self.feed(Input::Served { seq, pending: vec!["www".into()], failed: Vec::new() });
    }

    /// The master, which cannot serve, offers its place.
    fn hear_offer(&mut self) {
        let out = self.node.hear(PEER, 2).to_vec();
        self.note(&out);
        let out = self.node.hear(PEER, 0).to_vec();
        self.note(&out);
    }

    /// All servers answer alike.
    fn probe(&mut self, verdict: Verdict) {
        for probe in self.probes.clone() {
            let outcome =
                Outcome { verdict, detail: String::new(), took: Duration::ZERO, weight: None };
            self.feed(Input::Probed { probe, outcome });
        }
    }

    fn status(&self) -> locum_engine::status::InstanceSnapshot {
        self.node.status().instances.remove(0)
    }

    fn took_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    fn offers(&self) -> usize {
        let is_offer =
            |kind: &&EventKind| matches!(kind, EventKind::Transition { to: Role::Resigning, .. });
        self.events.iter().filter(is_offer).count()
    }

    fn was_master(&self) -> bool {
        let is_promotion =
            |kind: &EventKind| matches!(kind, EventKind::Transition { to: Role::Master, .. });
        self.events.iter().any(is_promotion)
    }
}

fn www() -> Tracked {
    Tracked::Service("www".into())
}

#[test]
fn a_master_whose_service_fails_offers_at_once_and_a_peer_that_can_serve_takes_it() {
    let mut master = Director::master(served());
    master.took_sent();
    master.answer(&["www"]);
    assert_eq!(master.took_sent(), [UNFIT, 0], "its priority first, then the release");
    assert_eq!(master.node.role(), Role::Resigning);
    let failed = EventKind::Fitness {
        object: www(),
        aspect: Aspect::Answering,
        holds: false,
        detail: "port 80 is taken".to_owned(),
    };
    assert!(master.events.contains(&failed), "{:?}", master.events);
    master.run(SECOND * 3 / 5);
    master.beside(50, 30);
    assert_eq!(master.node.role(), Role::Backup);
    // It could serve again: what has failed once is not believed at once.
    master.answer(&[]);
    assert!(!master.status().unfit.is_empty());
    master.beside(50, 1);
    assert_eq!(master.status().priority, Priority(UNFIT));
    master.beside(50, 6);
    assert_eq!((master.status().priority, master.node.role()), (Priority(OWN), Role::Master));
}

#[test]
fn a_failure_that_all_have_moves_nothing_and_is_offered_in_pauses_that_double() {
    let mut master = Director::master(served());
    master.answer(&["www"]);
    let mut offers = Vec::new();
    for second in 0..600 {
        let before = master.offers();
        master.run(SECOND);
        if master.offers() > before {
            offers.push(second);
        }
        assert!(master.status().holds_addresses, "it never lets go, second {second}");
    }
    assert_eq!(master.offers(), 1 + 5, "{offers:?}");
    assert_eq!(master.node.role(), Role::Master);
    let again = master.status().offer_in.expect("the next one");
    // 0, 10, 30, 70, 150, 310 and 610 s.
    assert!(again > 8 * SECOND && again <= 11 * SECOND, "{again:?}");
}

#[test]
fn a_standby_that_cannot_serve_lets_an_offer_pass_and_takes_over_from_the_dead() {
    let mut standby = Director::standby(served());
    standby.answer(&["www"]);
    assert_eq!(standby.status().priority, Priority(UNFIT));
    // The offer of one that cannot serve either.
    standby.beside(2, 2);
    let out = standby.node.hear(PEER, 0).to_vec();
    standby.note(&out);
    standby.run(2 * SECOND);
    assert!(!standby.was_master(), "it lets it pass");
    standby.beside(2, 10);
    assert!(!standby.was_master());
    standby.run(4 * SECOND);
    assert!(standby.was_master() && standby.status().holds_addresses, "alone it is master");
}

/// Both have lost the same, and the master has noticed first.
#[test]
fn a_standby_that_is_finding_out_lets_an_offer_pass_and_then_goes_by_what_it_has_found() {
    for fails in [true, false] {
        let mut standby = Director::standby(served());
        let events = standby.events.len();
        standby.look_anew();
        assert_eq!((standby.status().priority, standby.status().unfit), (Priority(OWN), vec![]));
        standby.hear_offer();
        standby.run(SECOND);
        assert!(!standby.was_master(), "its skew is over");
        assert_eq!(standby.events.len(), events, "{:?}", standby.events);
        standby.answer(if fails { &["www"] } else { &[] });
        standby.run(Duration::ZERO);
        assert_eq!(standby.was_master(), !fails, "what it has found counts at once");
        assert_eq!(standby.node.status().services[0].fitness.losses, u32::from(fails));
    }
}

/// As one that cannot serve does, and unlike one that can.
#[test]
fn a_standby_that_is_finding_out_leaves_an_unfit_master_alone_for_a_few_seconds() {
    let mut standby = Director::standby(served());
    standby.look_anew();
    standby.beside(2, 4);
    assert!(!standby.was_master(), "longer than a down interval");
    standby.beside(2, 6);
    assert!(standby.was_master(), "without a verdict it is what it was");
}

#[test]
fn a_standby_that_is_finding_out_takes_over_from_a_master_that_stops_or_dies() {
    let mut standby = Director::standby(served());
    standby.look_anew();
    let out = standby.node.hear(PEER, 0).to_vec();
    standby.note(&out);
    standby.run(SECOND * 7 / 10);
    assert!(standby.was_master(), "within its skew");
    let mut standby = Director::standby(served());
    standby.look_anew();
    standby.run(SECOND * 37 / 10);
    assert!(standby.was_master(), "after the down interval");
}

#[test]
fn a_standby_that_can_serve_takes_over_from_a_master_that_cannot() {
    for fails in [false, true] {
        let mut standby = Director::standby(served());
        if fails {
            standby.answer(&["www"]);
        }
        standby.beside(2, 6);
        assert_eq!(standby.was_master(), !fails);
    }
}

#[test]
fn a_node_that_has_just_started_does_not_count_for_what_nobody_has_looked_at() {
    let mut node = Director::new(served());
    assert_eq!(node.status().priority, Priority(UNFIT));
    node.probe(Verdict::Pass);
    assert_eq!(node.status().priority, Priority(UNFIT), "the service was not looked at");
    node.answer(&[]);
    assert_eq!(node.status().priority, Priority(OWN));
    let mut alone = Director::new(served());
    alone.run(4 * SECOND);
    assert_eq!(alone.node.role(), Role::Master, "never a node less for being unfit");
    assert_eq!(alone.status().priority, Priority(OWN), "and what it serves is not known to fail");
}

#[test]
fn a_reload_that_adds_a_service_moves_nothing() {
    let mut master = Director::master(served());
    let mut plan = served();
    plan.haproxy = vec![edge()];
    follow(&mut plan, &[(www(), 1), (Tracked::Haproxy("edge".into()), 1)]);
    let out = master.node.plan_with(plan, Vec::new()).to_vec();
    master.note(&out);
    assert_eq!((master.status().unfit, master.offers()), (Vec::new(), 0));
    master.answer(&["edge"]);
    assert_eq!(master.offers(), 1, "it has failed");
    let reasons = master.status().cause;
    assert!(reasons.contains("haproxy edge: port 80 is taken"), "{reasons}");
}

/// The servers of both nodes are the same, and each asks them in its own time.
#[test]
fn a_standby_doubts_its_servers_at_the_first_failed_check_and_a_master_believes_to_the_last() {
    let mut standby = Director::standby(served());
    standby.probe(Verdict::Fail);
    assert_eq!(standby.status().priority, Priority(UNFIT), "fall is 2");
    let is_fitness = |kind: &&EventKind| matches!(kind, EventKind::Fitness { .. });
    assert_eq!(standby.events.iter().find(is_fitness), None, "doubt is no news");
    standby.probe(Verdict::Pass);
    assert_eq!(standby.status().priority, Priority(OWN));

    let mut master = Director::master(served());
    master.probe(Verdict::Fail);
    master.probe(Verdict::Fail);
    assert_eq!((master.status().unfit, master.offers()), (Vec::new(), 0));
    master.run(SECOND / 5);
    assert_eq!(master.offers(), 1, "a tenth of the interval and 100 ms later");
    let sentence = "none of its 2 servers takes connections".to_owned();
    assert_eq!(master.status().unfit, [(www(), sentence.clone())]);
    let lost = EventKind::Fitness {
        object: www(),
        aspect: Aspect::Populated,
        holds: false,
        detail: sentence,
    };
    assert!(master.events.contains(&lost), "{:?}", master.events);
}

#[test]
fn one_server_is_enough_unless_the_quorum_says_more() {
    for (quorum, is_fit) in [(1, true), (2, false)] {
        let mut plan = served();
        plan.services[0].quorum.level = quorum;
        let mut master = Director::master(plan);
        let probe = master.probes[0];
        for _ in 0..2 {
            let outcome = Outcome {
                verdict: Verdict::Fail,
                detail: String::new(),
                took: Duration::ZERO,
                weight: None,
            };
            master.feed(Input::Probed { probe, outcome });
        }
        master.run(SECOND);
        assert_eq!(master.status().unfit.is_empty(), is_fit, "quorum {quorum}");
    }
}

#[test]
fn fitness_that_flaps_moves_the_address_once() {
    let mut master = Director::master(served());
    master.answer(&["www"]);
    master.run(SECOND * 3 / 5);
    master.beside(50, 1);
    // A hundred times a minute, for two minutes.
    for _ in 0..200 {
        master.answer(&[]);
        master.run(SECOND * 3 / 10);
        master.answer(&["www"]);
        let out = master.node.hear(PEER, 50).to_vec();
        master.note(&out);
        master.run(SECOND * 3 / 10);
    }
    let roles: Vec<Role> = master
        .events
        .iter()
        .filter_map(|kind| match kind {
            EventKind::Transition { to, .. } => Some(*to),
            _ => None,
        })
        .collect();
    assert_eq!(roles.iter().filter(|role| **role == Role::Master).count(), 1, "{roles:?}");
    let losses = master.node.status().services[0].fitness.losses;
    assert!(losses > 100, "it is shown: {losses}");
}

#[test]
fn more_that_is_lost_is_offered_at_once() {
    let mut plan = served();
    plan.haproxy = vec![edge()];
    follow(&mut plan, &[(www(), 1), (Tracked::Haproxy("edge".into()), 2)]);
    let mut master = Director::master(plan);
    master.took_sent();
    master.answer(&["www"]);
    assert_eq!(master.took_sent(), [5, 0], "it serves two of three");
    master.run(3 * SECOND);
    assert_eq!((master.node.role(), master.offers()), (Role::Master, 1));
    master.answer(&["www", "edge"]);
    assert_eq!(master.offers(), 2);
    master.run(3 * SECOND);
    master.answer(&["edge"]);
    assert_eq!(master.offers(), 2, "less than before");
    assert_eq!(master.status().priority, Priority(3), "it serves one of three");
}

#[test]
fn without_a_policy_nothing_of_it_decides_and_status_says_it_all_the_same() {
    let mut plan = served();
    Arc::make_mut(&mut plan.instances[0]).fitness = None;
    let mut master = Director::master(plan);
    master.answer(&["www"]);
    master.run(10 * SECOND);
    assert_eq!((master.node.role(), master.offers()), (Role::Master, 0));
    assert_eq!(master.status().priority, Priority(OWN));
    let fitness = master.node.status().services[0].fitness.clone();
    assert_eq!((fitness.aspect, fitness.holds), (Aspect::Answering, Some(false)));
    assert_eq!(fitness.detail, "port 80 is taken");
}

#[test]
fn an_owner_is_what_it_is() {
    let mut plan = served();
    let web = Arc::make_mut(&mut plan.instances[0]);
    Arc::make_mut(&mut web.router).priority = Priority::OWNER;
    let mut owner = Director::new(plan);
    owner.answer(&["www"]);
    owner.run(10 * SECOND);
    assert_eq!((owner.status().priority, owner.offers()), (Priority::OWNER, 0));
}

#[test]
fn hooks_run_when_something_ends_and_not_when_it_was_taken_back() {
    let mut plan = served();
    let hooks = locum_plan::Hooks {
        master: vec![locum_plan::Command::argv(["/bin/m"])],
        ..locum_plan::Hooks::default()
    };
    Arc::make_mut(&mut plan.instances[0]).hooks = Arc::new(hooks);
    let mut master = Director::master(plan);
    master.answer(&["www"]);
    let out = master.node.run_for(60 * SECOND).to_vec();
    let hooks = out.iter().filter(|output| matches!(output, Output::Hook(_))).count();
    assert_eq!((hooks, master.node.role()), (0, Role::Master));
}

#[test]
fn a_switchover_is_an_offer_and_a_forced_one_is_none() {
    let ask = |master: &mut Director, successor| {
        let target = Target::Instance("web".into());
        let command =
            OperatorCommand::Switchover { target, to: None, run: RunMode::Real, successor };
        let out = master.node.feed(Input::Command { id: 1, command }).to_vec();
        master.note(&out);
        out.iter().find_map(|output| match output {
            Output::Reply { reply, .. } => Some(reply.clone()),
            _ => None,
        })
    };
    let mut master = Director::master(served());
    master.took_sent();
    ask(&mut master, Successor::Fit);
    assert_eq!(master.took_sent(), [OFFER, 0]);
    master.run(3 * SECOND);
    assert_eq!((master.node.role(), master.status().priority), (Role::Master, Priority(OWN)));
    // Nobody took it: it is known by now.
    let Some(Reply::Refused(why)) = ask(&mut master, Successor::Fit) else { panic!("a refusal") };
    assert!(why.contains("nobody took it") && why.contains("--force"), "{why}");
    master.took_sent();
    assert!(matches!(ask(&mut master, Successor::Any), Some(Reply::Ok(_))));
    assert_eq!(master.took_sent(), [0], "as a master that stops");
    master.run(3 * SECOND);
    master.answer(&["www"]);
    master.run(3 * SECOND);
    master.took_sent();
    ask(&mut master, Successor::Any);
    assert_eq!(master.took_sent(), [OWN, 0], "it cannot serve, and says that this is no offer");
}

/// Judged as the master it was, it would count for what it was for ever.
#[test]
fn a_master_that_goes_into_fault_is_judged_as_the_standby_it_is() {
    let mut master = Director::master(served());
    master.answer(&["www"]);
    master.run(SECOND);
    master.answer(&[]);
    assert_eq!(master.status().priority, Priority(OWN));
    let out = master.node.link("eth0", false).to_vec();
    master.note(&out);
    assert_eq!(master.node.role(), Role::Fault);
    assert_eq!(master.status().priority, Priority(UNFIT), "it has just recovered");
}

/// Preempting peers find out by themselves; those that do not wait for the offer.
#[test]
fn a_failure_after_both_have_recovered_is_offered_at_once() {
    let mut master = Director::master(served());
    master.answer(&["www"]);
    master.run(400 * SECOND);
    master.answer(&[]);
    master.run(90 * SECOND);
    let offers = master.offers();
    master.answer(&["www"]);
    assert_eq!(master.offers(), offers + 1);
}

/// What it was before the restart does not excuse it once it is a backup.
#[test]
fn a_backup_that_has_been_adopted_is_judged_as_the_standby_it_is() {
    let plan = checked();
    let mut node = Node::with_links();
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, Some(3));
    let out = node.plan_with(plan, vec![inherited]).to_vec();
    let mut director =
        Director { node, probes: Vec::new(), seq: 0, events: Vec::new(), sent: Vec::new() };
    director.note(&out);
    assert_eq!((director.node.role(), director.status().priority), (Role::Master, Priority(OWN)));
    director.beside(OTHER, 2);
    assert_eq!(director.node.role(), Role::Backup);
    assert_eq!(director.status().priority, Priority(UNFIT), "nobody has looked at what it serves");
}

#[test]
fn more_than_can_be_counted_is_lost() {
    let objects: Vec<(Tracked, u8)> =
        (0..300).map(|one| (Tracked::Service(format!("s{one}").into()), u8::MAX)).collect();
    let mut plan = served();
    plan.services = objects
        .iter()
        .map(|(object, _)| Service {
            instance: Some("web".into()),
            ..Service::new(
                object.name().clone(),
                "192.0.2.10:80".parse::<SocketAddr>().expect("an address").into(),
            )
        })
        .collect();
    follow(&mut plan, &objects);
    let director = Director::new(plan);
    assert_eq!((director.status().priority, director.status().unfit.len()), (Priority(UNFIT), 300));
}

#[test]
fn servers_that_are_to_get_no_connections_are_not_called_down() {
    let mut plan = served();
    plan.services[0].servers.truncate(1);
    plan.services[0].servers[0].weight = 0;
    let mut master = Director::new(plan);
    master.answer(&[]);
    master.probe(Verdict::Pass);
    assert_eq!(master.status().unfit, [(www(), "all its servers have weight 0".to_owned())]);
}

/// To peers that cannot serve the release of one that cannot serve is an offer, which they let pass.
#[test]
fn a_master_that_is_unfit_and_in_fault_at_once_answers_until_an_unfit_peer_has_taken_over() {
    let plan = checked();
    let mut master = Director::master(plan);
    // Checks come before servers.
    let check = master.probes[0];
    let fails = || Outcome {
        verdict: Verdict::Fail,
        detail: String::new(),
        took: Duration::ZERO,
        weight: None,
    };
    for probe in [master.probes[1], master.probes[2]].repeat(2) {
        master.feed(Input::Probed { probe, outcome: fails() });
    }
    assert_eq!(master.node.role(), Role::Master);
    // The time to count it has come, and no timer has run yet.
    master.node.sleep(SECOND / 4);
    master.took_sent();
    master.feed(Input::Probed { probe: check, outcome: fails() });
    assert_eq!((master.node.role(), master.took_sent()), (Role::Resigning, vec![UNFIT, 0]));
    master.run(3 * SECOND);
    assert!(master.status().holds_addresses);
    master.run(SECOND / 2);
    assert!(!master.status().holds_addresses);
}

/// A HAProxy that could be started has not answered anybody yet.
#[test]
fn what_could_be_served_is_not_said_to_answer_before_it_does() {
    let mut director = Director::new(served());
    director.answer(&[]);
    director.probe(Verdict::Pass);
    let fitness = |director: &Director| {
        let fitness = director.node.status().services[0].fitness.clone();
        (fitness.aspect, fitness.holds)
    };
    assert_eq!(fitness(&director), (Aspect::Capable, Some(true)));
    director.run(4 * SECOND);
    assert_eq!(director.node.role(), Role::Master);
    assert_eq!(fitness(&director), (Aspect::Answering, None), "nobody has said so");
    let seq = director.seq;
    director.feed(Input::Served { seq, pending: vec!["www".into()], failed: Vec::new() });
    assert_eq!(fitness(&director), (Aspect::Answering, None), "it starts");
    assert_eq!(director.status().unfit, []);
    director.answer(&[]);
    assert_eq!(fitness(&director), (Aspect::Answering, Some(true)));
}
