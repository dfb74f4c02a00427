//! Fitness: what a node can serve decides its place among the nodes, before anything else does.
//!
//! A node that cannot serve all competes with a priority from the very bottom of the range, below
//! that of every node that can, whoever configured it. There the nodes stand in the order of what
//! they can still serve, and among equals in the configured order:
//!
//! ```text
//!   1 2 │ 3 4 │ 5 6 │ …           │ 100 … 150
//!    0  │  1  │  2  │ can serve … │ can serve all: the configured priorities
//! ```

use locum_vrrp::Priority;

use crate::track::Tracked;

/// What an instance serves, and how the nodes are kept apart that cannot serve all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FitnessPolicy {
    pub served: Vec<Served>,
    pub ranking: Ranking,
}

/// A service or HAProxy of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    pub object: Tracked,
    /// How much it counts beside the others, at least 1.
    pub weight: u8,
}

/// The bottom of the range of priorities, as this node uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ranking {
    /// Different priorities among the nodes of the file, at least 1.
    nodes: u8,
    /// How many of them are lower than this node's.
    lower: u8,
    /// Weight of all that is served, as far as there is room to keep it apart.
    levels: u8,
}

/// The most that is kept apart where no other node's priority is known: whatever that is, as far as
/// operators choose it, a node that can serve has more than one that cannot.
pub const LEVELS_AMONG_UNKNOWN: u8 = 16;

impl Ranking {
    /// Whether these are the priorities of more nodes than one.
    pub fn knows_others(priorities: &[Priority]) -> bool {
        priorities.len() > 1
    }

    /// `priorities` are those of all nodes as far as they are known, `own` that of this one among
    /// them; `weights` is the sum of the weights, and `lowest_adjustment` the most that trackers may
    /// take from a priority, not above 0. With fewer than two known, no more than
    /// [`LEVELS_AMONG_UNKNOWN`] are kept apart. `None` without room for a single level below the lowest priority of a node that can
    /// serve; with room for some only, what is lost beyond them counts alike.
    pub fn new(
        priorities: &[Priority],
        own: Priority,
        lowest_adjustment: i32,
        weights: u16,
    ) -> Option<Self> {
        let mut different = priorities.to_vec();
        different.push(own);
        different.sort_unstable();
        different.dedup();
        let nodes = u8::try_from(different.len()).ok()?;
        let lower = different.iter().filter(|priority| **priority < own).count();
        let lowest = i32::from(different.first()?.0) + lowest_adjustment.min(0);
        // One more is for offers.
        let room = (lowest - 2) / i32::from(nodes);
        let most = if Self::knows_others(priorities) { u8::MAX } else { LEVELS_AMONG_UNKNOWN };
        let wanted = i32::from(weights).min(i32::from(most));
        let levels = u8::try_from(room.min(wanted)).ok().filter(|levels| *levels > 0)?;
        Some(Self { nodes, lower: u8::try_from(lower).ok()?, levels })
    }

    /// All that is lost is kept apart.
    pub fn has_room_for(&self, weights: u16) -> bool {
        u16::from(self.levels) >= weights
    }

    /// Above every node that cannot serve all, and below all others: what a master says that hands
    /// over and takes back what nobody takes.
    pub fn offer(&self) -> Priority {
        // INVARIANT: there was room for one more than these.
        Priority(self.levels * self.nodes + 1)
    }

    /// Whether a node that advertises this cannot serve all: it is one from the bottom. 0 is none.
    pub fn is_unfit(&self, advertised: Priority) -> bool {
        advertised.0 > 0 && advertised < self.offer()
    }

    /// The priority of this node without `lost` of the weights, at least 1, and the highest one of
    /// a node that can serve less (0: none can).
    pub fn unfit(&self, lost: u16) -> (Priority, Priority) {
        let left = u16::from(self.levels).saturating_sub(lost.max(1));
        // INVARIANT: `left` is below `levels`, and there was room for these.
        let outranks = u8::try_from(left * u16::from(self.nodes)).expect("room for all levels");
        (Priority(outranks + self.lower + 1), Priority(outranks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(all: &[u8], own: u8, adjustment: i32, weights: u16) -> Option<Ranking> {
        let all: Vec<Priority> = all.iter().map(|priority| Priority(*priority)).collect();
        Ranking::new(&all, Priority(own), adjustment, weights)
    }

    #[test]
    fn a_pair_with_one_service_uses_the_two_lowest_priorities() {
        let [high, low] = [150, 100].map(|own| ranking(&[150, 100], own, 0, 1).expect("room"));
        assert_eq!(high.unfit(1), (Priority(2), Priority(0)));
        assert_eq!(low.unfit(1), (Priority(1), Priority(0)));
        let unfit = |priority| low.is_unfit(Priority(priority));
        assert_eq!([0, 1, 2, 3, 100].map(unfit), [false, true, true, false, false]);
    }

    /// More served comes before the configured order, and everything fit before both.
    #[test]
    fn nodes_stand_in_the_order_of_what_they_serve_and_then_as_configured() {
        for nodes in 1..=5_u8 {
            for weights in 1..=10_u16 {
                let all: Vec<u8> = (0..nodes).map(|node| 100 + 10 * node).collect();
                let lowest_fit = Priority(100 - 40);
                let mut places = Vec::new();
                for lost in (1..=weights).rev() {
                    for own in &all {
                        let ranking = ranking(&all, *own, -40, weights).expect("room");
                        assert!(ranking.has_room_for(weights));
                        places.push((ranking.unfit(lost), lost));
                    }
                }
                let priorities: Vec<Priority> = places.iter().map(|((own, _), _)| *own).collect();
                assert!(priorities.is_sorted_by(|one, other| one < other), "{priorities:?}");
                assert!(priorities.iter().all(|own| *own < lowest_fit), "{priorities:?}");
                for ((_, outranks), lost) in &places {
                    let less = places.iter().filter(|(_, other)| other > lost);
                    let most = less.map(|((own, _), _)| *own).max().unwrap_or(Priority(0));
                    assert_eq!(*outranks, most, "{nodes} nodes, {lost} of {weights} lost");
                }
            }
        }
    }

    #[test]
    fn nodes_of_one_priority_are_kept_apart_by_what_they_serve_alone() {
        let equals = ranking(&[100, 100], 100, 0, 2).expect("room");
        assert_eq!([1, 2].map(|lost| equals.unfit(lost).0), [Priority(2), Priority(1)]);
    }

    /// The other nodes may have any priority: what is unfit stays at the very bottom.
    #[test]
    fn where_the_other_nodes_are_not_known_the_unfit_ones_stay_at_the_bottom() {
        for known in [&[][..], &[200]] {
            let alone = ranking(known, 200, 0, 150).expect("room");
            assert!(alone.has_room_for(16) && !alone.has_room_for(17));
            assert_eq!(alone.unfit(1), (Priority(16), Priority(15)), "{known:?}");
            assert_eq!(alone.unfit(150), (Priority(1), Priority(0)));
            assert_eq!(alone.offer(), Priority(17));
        }
        let all = ranking(&[200, 200], 200, 0, 150).expect("room");
        assert_eq!(all.unfit(1), (Priority(150), Priority(149)), "the file has both");
    }

    #[test]
    fn without_room_for_all_levels_the_last_ones_count_alike() {
        let cramped = ranking(&[5, 4], 4, 0, 3).expect("room for one");
        assert!(!cramped.has_room_for(3));
        assert_eq!([1, 2, 3].map(|lost| cramped.unfit(lost).0), [Priority(1); 3]);
        assert_eq!(ranking(&[5, 2], 5, 0, 1), None, "a fit node has 2, and two unfit ones need it");
        assert_eq!(ranking(&[150, 100], 150, -120, 1), None, "a check may take all of it");
    }
}
