//! Answers of the kernel that are late or lost: a level is asked for again, and nobody is at fault.

use std::time::Duration;

use locum_engine::{EventKind, Input, OperatorCommand, Output, Owner};
use locum_vrrp::Role;

use crate::node::{Node, instance, plan};

/// Numbers of the levels among these outputs.
fn levels(out: &[Output]) -> Vec<(u64, Owner)> {
    let levels = out.iter().filter_map(|output| match output {
        Output::Apply { seq, owner, .. } => Some((*seq, *owner)),
        _ => None,
    });
    levels.collect()
}

fn late(out: &[Output]) -> usize {
    let is_late = |output: &&Output| matches!(output, Output::Notify(event) if matches!(event.kind, EventKind::ApplyLate { .. }));
    out.iter().filter(is_late).count()
}

fn announces(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Announce { .. }))
}

/// Master for 90 ms; its first level is not answered.
fn unanswered() -> (Node, (u64, Owner)) {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let first = levels(node.run_for(Duration::from_millis(3700)));
    assert_eq!((node.role(), first.len()), (Role::Master, 1));
    (node, first[0])
}

fn answer((seq, owner): (u64, Owner)) -> Input<'static> {
    Input::Applied { seq, owner, result: Ok(Vec::new()) }
}

#[test]
fn a_level_without_an_answer_is_sent_again_every_second_and_reported_once() {
    let (mut node, _) = unanswered();
    let out = node.run_for(Duration::from_secs(3)).to_vec();
    assert_eq!((levels(&out).len(), late(&out)), (3, 1), "{out:#?}");
    assert_eq!(node.role(), Role::Master);
}

#[test]
fn the_first_answer_to_any_of_them_counts_and_the_others_are_stale() {
    let (mut node, first) = unanswered();
    let again = levels(node.run_for(Duration::from_secs(1)));
    assert!(announces(node.feed(answer(first))), "the address is in place");
    assert!(!announces(node.feed(answer(again[0]))));
    assert!(!node.status().instances[0].is_apply_late);
}

#[test]
fn a_stop_whose_answer_is_lost_ends_all_the_same() {
    let (mut node, first) = unanswered();
    node.feed(answer(first));
    node.feed(Input::Command { id: 1, command: OperatorCommand::Stop });
    let withdrawal = levels(node.run_for(Duration::from_secs(2)));
    let out = node.run_for(Duration::from_secs(2)).to_vec();
    let again = levels(&out);
    assert!(!withdrawal.is_empty() && !again.is_empty(), "{out:#?}");
    let stopped = |out: &[Output]| out.contains(&Output::Stopped);
    assert!(!stopped(&out));
    assert!(stopped(node.feed(answer(*again.last().unwrap()))));
}
