//! Weights that never act: whatever they are added to or taken from, the nodes stay in their order.

use std::collections::{BTreeMap, BTreeSet};

use locum_plan::{Instance, Plan, Track, first_few, weight_of};
use locum_vrrp::Priority;

use crate::parsed::ParsedInstance;
use crate::span::Report;

/// More weights than these in one instance are not looked through: every set of failures counts.
const MAX_WEIGHTS: usize = 8;

/// Warns of each weight of this instance that cannot bring another node to the front, whatever else
/// fails. The priorities of all nodes must be known.
pub(super) fn validate(
    parsed: &ParsedInstance,
    built: &Instance,
    plan: &Plan,
    report: &mut Report,
) {
    let weight = |track: &Track| weight_of(track, &plan.checks);
    let tracks = parsed.track.list();
    let sizes: Vec<i32> =
        tracks.iter().map(|track| i32::from(weight(&track.value).value).abs()).collect();
    let weights = sizes.iter().filter(|size| **size != 0).count();
    let priorities: Vec<i32> = parsed.priorities.iter().map(|(_, own)| i32::from(*own)).collect();
    // An owner has a finding of its own.
    if priorities.len() < 2 || weights > MAX_WEIGHTS || built.router.priority.is_owner() {
        return;
    }
    for (at, track) in tracks.iter().enumerate() {
        let Some(size) = sizes.get(at).copied().filter(|size| *size != 0) else { continue };
        let mut others = sizes.clone();
        others.remove(at);
        if acts(&priorities, size, &others) {
            continue;
        }
        let each: Vec<String> =
            parsed.priorities.iter().map(|(node, own)| format!("{node} has {own}")).collect();
        let text = format!(
            "the weight {} of {} changes no order of the nodes: {}",
            weight(&track.value).value,
            track.value.object,
            first_few(&each, ", ")
        );
        let finding = report.warning(track.span, "idle-weight", text);
        match least_difference(&priorities) {
            Some(difference) => finding.help(format!(
                "make it more than {difference}, or 0 to make a failure a fault: at equal \
                 priorities the master stays"
            )),
            None => finding.help("make it 0: a failure is then a fault"),
        };
    }
}

/// Whether one node's loss of `size` can put it behind another node, in whatever state `others` and
/// the same object are there. A master that has become equal stays.
fn acts(priorities: &[i32], size: i32, others: &[i32]) -> bool {
    let differences = differences(priorities);
    // A lead that is lost: of two that are equal the one in front has none.
    let loses = |difference: i32, shifts: &BTreeSet<i32>| {
        let least = if difference == 0 { 0 } else { 1 - difference };
        shifts.range(least..).next().is_some_and(|shift| difference + shift < size)
    };
    let alone = BTreeSet::from([0]);
    if differences.iter().any(|difference| loses(*difference, &alone)) {
        return true;
    }
    // What failures add to the difference of two nodes: taken from the first, or from the second.
    let mut shifts = BTreeSet::from([0, size]);
    for other in others {
        shifts = shifts.iter().flat_map(|shift| [*shift, shift - other, shift + other]).collect();
    }
    differences.iter().any(|difference| loses(*difference, &shifts))
}

/// Of every two nodes that are adjusted, both ways: at most as many as there are priorities, twice.
fn differences(priorities: &[i32]) -> BTreeSet<i32> {
    let mut counts: BTreeMap<i32, u32> = BTreeMap::new();
    for own in priorities.iter().filter(|own| **own != i32::from(Priority::OWNER.0)) {
        *counts.entry(*own).or_default() += 1;
    }
    let pairs = counts.iter().flat_map(|(first, count)| {
        let others = counts.keys().filter(move |second| *second != first || *count > 1);
        others.map(move |second| first - second)
    });
    pairs.collect()
}

/// Between two nodes that are told apart by it; `None` when no two are.
fn least_difference(priorities: &[i32]) -> Option<i32> {
    let owner = i32::from(Priority::OWNER.0);
    let sorted: BTreeSet<i32> = priorities.iter().copied().filter(|own| *own != owner).collect();
    sorted.iter().zip(sorted.iter().skip(1)).map(|(low, high)| high - low).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_acts_when_it_is_larger_than_a_difference_of_the_nodes() {
        assert!(acts(&[150, 100], 60, &[]));
        assert!(!acts(&[150, 100], 50, &[]), "the master stays at equal priorities");
        assert!(!acts(&[150, 100], 10, &[]));
        assert!(acts(&[150, 100, 95], 10, &[]), "the second and the third");
        assert!(acts(&[100, 100], 1, &[]), "equals");
    }

    #[test]
    fn a_weight_may_act_together_with_others() {
        assert!(acts(&[150, 100], 30, &[30]));
        assert!(!acts(&[150, 100], 25, &[25]), "at most equal");
        assert!(acts(&[150, 100], 10, &[45]));
        assert!(!acts(&[150, 100], 1, &[200]), "one node has failed there, or the other, or both");
    }

    /// A file of 10,000 nodes is refused by nobody.
    #[test]
    fn many_nodes_cost_no_more_than_many_priorities() {
        let priorities: Vec<i32> = (0..10_000).map(|node| 1 + node % 2 * 200).collect();
        assert_eq!(differences(&priorities).len(), 3);
        assert!(acts(&priorities, 1, &[]), "two of each");
        assert!(!acts(&[201, 1], 199, &[200; MAX_WEIGHTS - 1]));
    }

    #[test]
    fn an_owner_is_before_all_whatever_fails() {
        assert!(!acts(&[255, 100], 200, &[]));
        assert!(acts(&[255, 120, 100], 30, &[]));
        assert_eq!(least_difference(&[255, 100]), None);
        assert_eq!(least_difference(&[255, 120, 100, 120]), Some(20));
    }
}
