//! What a file says of how services decide in the election, down to the priorities it comes to.

use std::sync::Arc;

use locum_config::{Context, MemorySource, load};
use locum_plan::{FitnessPolicy, Instance, Plan, Quorum, QuorumUnit, Tracked, Weight};
use locum_vrrp::Priority;

const NODES: &str = "[nodes.lb1]\n[nodes.lb2]\n[nodes.lb3]\n";

const SERVICES: &str = "[[service]]\nname = \"www\"\nlisten = \"192.0.2.10:80\"\n\
    servers = [\"10.0.0.1\"]\n[[service]]\nname = \"mail\"\nlisten = \"192.0.2.10:25\"\nquorum = 2\n\
    servers = [\"10.0.0.1\", \"10.0.0.2\"]\n[[haproxy]]\nname = \"front\"\ninstance = \"web\"\n\
    config = \"/etc/haproxy/haproxy.cfg\"\n";

fn loaded(text: &str, node: &str) -> Arc<Plan> {
    let source = MemorySource::new().with("file", text);
    let loaded = load(&source, "file", &Context::host(node));
    loaded.plan.unwrap_or_else(|| panic!("{}", loaded.diagnostics))
}

/// The first instance of a file of three nodes, three services and this in the instance.
fn instance(lines: &str, node: &str) -> Arc<Instance> {
    let head = "[[instance]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n\
        addresses = [\"192.0.2.10/24\"]\n";
    let plan = loaded(&format!("{NODES}{head}{lines}\n{SERVICES}"), node);
    Arc::clone(&plan.instances[0])
}

fn policy(lines: &str, node: &str) -> FitnessPolicy {
    let found = instance(lines, node).fitness.as_deref().cloned();
    found.unwrap_or_else(|| panic!("no policy: {lines}"))
}

fn weights(policy: &FitnessPolicy) -> Vec<(String, u8)> {
    policy.served.iter().map(|served| (served.object.to_string(), served.weight)).collect()
}

fn named(all: &[(&str, u8)]) -> Vec<(String, u8)> {
    all.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

#[test]
fn an_instance_follows_all_it_serves_unless_asked_otherwise() {
    let all = named(&[("service www", 1), ("service mail", 1), ("haproxy front", 1)]);
    assert_eq!(weights(&policy("", "lb1")), all);
    assert_eq!(weights(&policy("track_services = true", "lb1")), all);
    assert_eq!(instance("track_services = false", "lb1").fitness, None);
}

#[test]
fn weights_are_by_name_and_0_is_not_followed() {
    let found = policy("track_services = { www = 10, front = 0 }", "lb1");
    assert_eq!(weights(&found), named(&[("service www", 10), ("service mail", 1)]));
    let none = "track_services = { www = 0, mail = 0, front = 0 }";
    assert_eq!(instance(none, "lb1").fitness, None);
}

#[test]
fn a_service_that_is_tracked_by_name_is_followed_whatever_else_is_not() {
    for track in ["track = [\"www\"]", "track = [{ service = \"www\" }]"] {
        let found = instance(&format!("track_services = false\n{track}"), "lb1");
        assert_eq!(found.track, [], "it takes no node out of the election");
        let found = found.fitness.as_deref().expect("a policy");
        assert_eq!(weights(found), named(&[("service www", 1)]));
    }
}

#[test]
fn a_service_with_a_weight_of_its_own_has_that_alone() {
    let found = instance("track = [{ service = \"www\", weight = -60 }]", "lb1");
    let [track] = &found.track[..] else { panic!("one track: {:?}", found.track) };
    assert_eq!(track.object, Tracked::Service("www".into()));
    assert_eq!(track.weight, Some(Weight { value: -60, reverse: false }));
    let found = found.fitness.as_deref().expect("a policy");
    assert_eq!(weights(found), named(&[("service mail", 1), ("haproxy front", 1)]));
}

#[test]
fn a_check_goes_before_a_service_of_its_name() {
    let text = "track = [\"www\"]\n[check.www]\nprocess = \"nginx\"";
    let found = instance(text, "lb1");
    assert_eq!(found.track[0].object, Tracked::Check("www".into()));
    let found = found.fitness.as_deref().expect("a policy");
    assert_eq!(found.served.len(), 3);
}

#[test]
fn places_follow_from_the_priorities_of_all_nodes() {
    let lines = "priority = { lb1 = 150, lb2 = 120, lb3 = 100 }\ntrack_services = { www = 2 }";
    let unfit = |node, lost| policy(lines, node).ranking.unfit(lost);
    assert_eq!(unfit("lb1", 4), (Priority(3), Priority(0)), "nothing is left");
    assert_eq!(unfit("lb3", 4), (Priority(1), Priority(0)));
    assert_eq!(unfit("lb2", 1), (Priority(11), Priority(9)), "the best of those that lost two");
    let alike = policy("priority = 100", "lb2");
    assert_eq!(alike.ranking.unfit(3), (Priority(1), Priority(0)));
    let unset = policy("", "lb2");
    assert_eq!(unset.ranking.unfit(1), (Priority(3), Priority(2)));
}

#[test]
fn a_value_that_another_node_cannot_use_is_for_that_node_to_hear() {
    let lines = "priority = { lb1 = 150, lb2 = 100, lb3 = \"low\" }";
    assert_eq!(policy(lines, "lb1").ranking.unfit(3), (Priority(2), Priority(0)));
}

/// A file of one node's own: the peer may have any priority, and its is lower than what many
/// services would come to.
#[test]
fn one_priority_alone_leaves_a_node_that_cannot_serve_at_the_bottom() {
    let head = "[[instance]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\npriority = 200\n\
        addresses = [\"192.0.2.10/24\"]\n";
    let service = |number: u8| {
        format!(
            "[[service]]\nname = \"s{number}\"\nlisten = \"192.0.2.10:{number}\"\n\
             servers = [\"10.0.0.1\"]\n"
        )
    };
    let text = head.to_owned() + &(1..=120).map(service).collect::<String>();
    let plan = loaded(&text, "lb1");
    let found = plan.instances[0].fitness.as_deref().expect("a policy");
    assert_eq!(found.served.len(), 120);
    assert_eq!(found.ranking.unfit(1), (Priority(16), Priority(15)));
    let both =
        format!("[nodes.lb1]\n[nodes.lb2]\n{text}").replace("200", "{ lb1 = 200, lb2 = 150 }");
    let plan = loaded(&both, "lb1");
    let found = plan.instances[0].fitness.as_deref().expect("a policy");
    assert!(found.ranking.unfit(1).0 > Priority(100), "{found:?}");
}

#[test]
fn checks_may_take_from_the_room() {
    let check = "\n[check.a]\nprocess = \"a\"\nweight = -60\n[check.b]\nprocess = \"b\"\n\
        weight = { value = 34, reverse = true }";
    let lines = "priority = { lb1 = 150, lb2 = 100, lb3 = 100 }\ntrack = [\"a\", \"b\"]";
    let found = policy(&format!("{lines}{check}"), "lb1");
    assert!(found.ranking.has_room_for(2) && !found.ranking.has_room_for(3), "{found:?}");
}

#[test]
fn a_keepalived_file_has_no_policy() {
    let text = "vrrp_instance web {\n interface eth0\n virtual_router_id 51\n\
        virtual_ipaddress {\n 192.0.2.10/24\n }\n}\nvirtual_server 192.0.2.10 80 {\n\
        protocol TCP\n quorum 2\n real_server 10.0.0.1 80 {\n weight 3\n }\n}\n";
    let plan = loaded(text, "lb1");
    assert_eq!(plan.instances[0].fitness, None);
    let quorum = Quorum { level: 2, hysteresis: 0, unit: QuorumUnit::Weight };
    assert_eq!(plan.services[0].quorum, quorum, "as keepalived counts");
}

#[test]
fn a_quorum_is_a_number_of_servers() {
    let text = format!(
        "{NODES}[[instance]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n\
         addresses = [\"192.0.2.10/24\"]\n{SERVICES}"
    );
    let plan = loaded(&text, "lb1");
    let quorum = |level| Quorum { level, hysteresis: 0, unit: QuorumUnit::Servers };
    let found: Vec<Quorum> = plan.services.iter().map(|one| one.quorum).collect();
    assert_eq!(found, [quorum(1), quorum(2)]);
}
