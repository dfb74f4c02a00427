//! Who is master, for every pair of daemons that may meet: the same rules for each.
//!
//! keepalived with itself is among them: when a rule fails there, the rule is wrong.

mod scenarios;

use locum_integration::pair::Kinds;
use locum_integration::peer::Frr;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;

/// One test per scenario for a pair of daemons.
macro_rules! pair {
    ($module:ident: $first:expr, $second:expr => $($scenario:ident)+) => {
        mod $module {
            use super::*;
            const KINDS: Kinds = Kinds { first: &$first, second: &$second };
            $(
                #[test]
                fn $scenario() {
                    if KINDS.available() {
                        scenarios::$scenario(KINDS);
                    }
                }
            )+
        }
    };
}

pair!(keepalived_with_keepalived: Keepalived, Keepalived =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    one_way_cut_ends_with_one_master
    equal_priorities_go_to_the_higher_address
);

pair!(ours_with_ours: Locum::NATIVE, Locum::NATIVE =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    preempt_delay_holds_the_better_one_back
    check_script_moves_the_address
    killed_master_is_replaced
    silent_master_is_replaced
    stopped_master_hands_over
    lost_link_moves_the_address
    one_way_cut_ends_with_one_master
    partition_ends_with_one_master
    equal_priorities_go_to_the_higher_address
    unicast_elects
    ipv6_elects
    version_2_with_password_elects
    conflict_is_repaired_whoever_hears_first
);

pair!(ours_as_drop_in: Locum::DROP_IN, Locum::DROP_IN =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    preempt_delay_holds_the_better_one_back
    check_script_moves_the_address
    unicast_elects
    ipv6_elects
    version_2_with_password_elects
);

pair!(ours_with_keepalived: Locum::NATIVE, Keepalived =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    check_script_moves_the_address
    killed_master_is_replaced
    silent_master_is_replaced
    stopped_master_hands_over
    lost_link_moves_the_address
    one_way_cut_ends_with_one_master
    partition_ends_with_one_master
    equal_priorities_go_to_the_higher_address
    unicast_elects
    ipv6_elects
    version_2_with_password_elects
);

pair!(keepalived_with_ours: Keepalived, Locum::NATIVE =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    check_script_moves_the_address
    killed_master_is_replaced
    silent_master_is_replaced
    stopped_master_hands_over
    lost_link_moves_the_address
    one_way_cut_ends_with_one_master
    partition_ends_with_one_master
    equal_priorities_go_to_the_higher_address
    unicast_elects
    ipv6_elects
    version_2_with_password_elects
    conflict_is_repaired_whoever_hears_first
);

pair!(ours_with_frr: Locum::NATIVE, Frr =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    check_script_moves_the_address
    killed_master_is_replaced
    silent_master_is_replaced
    stopped_master_hands_over
    lost_link_moves_the_address
    one_way_cut_ends_with_one_master
    partition_ends_with_one_master
    equal_priorities_go_to_the_higher_address
    ipv6_elects
    version_2_elects
);

pair!(frr_with_ours: Frr, Locum::NATIVE =>
    better_priority_preempts
    nopreempt_leaves_the_master_alone
    killed_master_is_replaced
    silent_master_is_replaced
    stopped_master_hands_over
    lost_link_moves_the_address
    one_way_cut_ends_with_one_master
    partition_ends_with_one_master
    equal_priorities_go_to_the_higher_address
    ipv6_elects
    version_2_elects
);
