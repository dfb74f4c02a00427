//! A router proposes, and whoever has a say grants, refuses or says nothing (V-270 to V-275).

use std::time::Duration;

use locum_engine::{Decision, Input, Output};
use locum_vrrp::Role;

use crate::node::{Node, PEER, instance, plan, sent_priorities};

/// Until a router of priority 100 that hears nobody proposes its mastership: 3 × A + skew.
const DOWN: Duration = Duration::from_millis(3610);

/// V-275.
const READY_LIMIT: Duration = Duration::from_millis(300);

fn proposing(decision: Decision) -> Node {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.decision = decision;
    let out = node.run_for(DOWN);
    assert!(sent_priorities(out).is_empty(), "a candidate sends nothing");
    assert!(!out.iter().any(|output| matches!(output, Output::Apply { .. })), "nor holds anything");
    node
}

fn bound(node: &Node) -> Option<Duration> {
    node.status().instances[0].candidate
}

#[test]
fn a_candidate_that_gets_no_answer_is_master_at_its_bound() {
    let mut node = proposing(Decision::Defer);
    assert_eq!(node.role(), Role::Backup);
    assert!(bound(&node).is_some_and(|left| left <= READY_LIMIT));
    node.run_for(READY_LIMIT);
    assert_eq!((node.role(), bound(&node)), (Role::Master, None));
}

#[test]
fn an_answer_that_was_deferred_is_asked_for_with_every_input() {
    let mut node = proposing(Decision::Defer);
    node.decision = Decision::Grant;
    let out = node.feed(Input::Timeout);
    assert_eq!(sent_priorities(out), [100]);
    assert_eq!(node.role(), Role::Master);
}

#[test]
fn a_candidate_that_is_refused_listens_for_a_down_interval_and_asks_again() {
    let mut node = proposing(Decision::Refuse);
    assert_eq!((node.role(), bound(&node)), (Role::Backup, None));
    node.decision = Decision::Grant;
    node.run_for(DOWN - READY_LIMIT);
    assert_eq!(node.role(), Role::Backup);
    node.run_for(READY_LIMIT);
    assert_eq!(node.role(), Role::Master);
}

#[test]
fn an_advert_ends_a_candidacy_and_with_it_the_question() {
    let mut node = proposing(Decision::Defer);
    node.hear(PEER, 200);
    assert_eq!((node.role(), bound(&node)), (Role::Backup, None));
    node.decision = Decision::Grant;
    node.run_for(READY_LIMIT);
    assert_eq!(node.role(), Role::Backup);
}
