//! What serves and is strained: reported, and no more than that.

use std::sync::Arc;
use std::time::Duration;

use locum_engine::{EventKind, Input, Output};
use locum_plan::{Command, HaproxyFile, Plan, Standby, Tracked};
use locum_vrrp::Role;

use crate::node::{Node, instance, plan, sent_priorities};

const FULL: &str = "its listener 192.0.2.10:80 is full";

fn with_edge() -> Plan {
    let mut plan = plan([instance("web", 51, 100)]);
    plan.haproxy.push(HaproxyFile {
        name: "edge".into(),
        instance: Some("web".into()),
        config: "/etc/haproxy/haproxy.cfg".into(),
        program: "haproxy".into(),
        standby: Standby::Cold,
        answer: None,
    });
    plan
}

fn strained(by: Option<&str>) -> Input<'static> {
    let one = by.map(|by| ("edge".into(), by.to_owned()));
    Input::Strained { strained: one.into_iter().collect() }
}

/// By what, or that it is over, in the order of the reports.
fn reported(out: &[Output]) -> Vec<Option<String>> {
    let events = out.iter().filter_map(|output| match output {
        Output::Notify(event) => Some(&event.kind),
        _ => None,
    });
    let strains = events.filter_map(|kind| match kind {
        EventKind::Strained { object, by } => {
            assert_eq!(*object, Tracked::Haproxy("edge".into()));
            Some(by.clone())
        }
        _ => None,
    });
    strains.collect()
}

#[test]
fn a_strain_and_its_end_are_reported_and_nothing_else_follows() {
    let mut node = Node::master(with_edge());
    let before = node.status();
    let out = node.feed(strained(Some(FULL))).to_vec();
    assert_eq!(reported(&out), [Some(FULL.to_owned())]);
    assert_eq!(sent_priorities(&out), [0_u8; 0]);
    assert!(
        !out.iter().any(|one| matches!(one, Output::Serve { .. } | Output::Hook(_))),
        "{out:?}"
    );
    assert_eq!(reported(node.feed(strained(Some(FULL)))), [], "no other than before");
    let after = node.status();
    assert_eq!(after.haproxy, before.haproxy);
    assert_eq!(after.instances[0].priority, before.instances[0].priority);
    let out = node.run_for(Duration::from_secs(100)).to_vec();
    assert_eq!((node.role(), reported(&out)), (Role::Master, Vec::new()));
    assert_eq!(reported(node.feed(strained(None))), [None]);
}

/// One that comes and goes a hundred times a minute.
#[test]
fn a_strain_that_flaps_is_reported_once_a_minute_at_most() {
    let mut node = Node::master(with_edge());
    let mut all = Vec::new();
    for _ in 0..200 {
        for by in [Some(FULL), None] {
            all.extend(reported(node.feed(strained(by))));
            all.extend(reported(node.run_for(Duration::from_millis(300))));
        }
    }
    assert!((2..=3).contains(&all.len()), "two minutes: {all:?}");
    let rest = reported(node.run_for(Duration::from_secs(120)));
    assert_eq!(
        all.iter().chain(&rest).next_back(),
        Some(&None),
        "the last word is that it is over"
    );
}

#[test]
fn what_is_no_more_strained_when_its_minute_is_over_is_not_reported_before() {
    let mut node = Node::master(with_edge());
    node.feed(strained(Some(FULL)));
    assert_eq!(reported(node.feed(strained(None))), []);
    assert_eq!(reported(node.run_for(Duration::from_secs(59))), []);
    assert_eq!(reported(node.run_for(Duration::from_secs(2))), [None]);
    assert_eq!(reported(node.run_for(Duration::from_secs(120))), []);
}

#[test]
fn of_what_a_reload_removes_nothing_is_reported() {
    let mut node = Node::master(with_edge());
    node.feed(strained(Some(FULL)));
    node.plan_with(plan([instance("web", 51, 100)]), Vec::new());
    assert_eq!(reported(node.feed(strained(None))), []);
    assert_eq!(reported(node.run_for(Duration::from_secs(120))), []);
}

#[test]
fn hooks_of_a_transition_name_what_is_strained() {
    let mut plan = with_edge();
    Arc::make_mut(&mut Arc::make_mut(&mut plan.instances[0]).hooks).fault =
        vec![Command::argv(["/bin/f"])];
    let mut node = Node::master(plan);
    node.feed(strained(Some(FULL)));
    let mut out = node.link("eth0", false).to_vec();
    out.extend(node.confirm_applies().to_vec());
    out.extend(node.run_for(Duration::from_secs(5)).to_vec());
    out.extend(node.confirm_applies().to_vec());
    let hook = out.iter().find_map(|output| match output {
        Output::Hook(run) => Some(run),
        _ => None,
    });
    let environment = &hook.expect("it is in fault").environment;
    let expected = ("LOCUM_STRAINED".to_owned(), "haproxy edge".to_owned());
    assert!(environment.contains(&expected), "{environment:?}");
}
