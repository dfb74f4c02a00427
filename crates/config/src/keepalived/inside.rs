//! The keywords of the blocks that are refused until what they ask for is built.

use crate::keepalived::shape::Shape;

/// What stands in one block, and what may follow each keyword.
type Inside = (&'static str, &'static str, &'static [(&'static str, Shape)]);

const WORD: Shape = Shape::Line(1, 1);
const FLAG: Shape = Shape::Line(0, 1);
const SCRIPT: Shape = Shape::Line(1, 3);
const LIST: Shape = Shape::Block(0, 0);
const NUMBERS: Shape = Shape::Line(1, 2);

/// Name, the same with its article, keywords.
pub(super) const BLOCKS: &[Inside] = &[
    (
        "vrrp_sync_group",
        "a vrrp_sync_group",
        &[
            ("group", LIST),
            ("track_interface", LIST),
            ("track_script", LIST),
            ("track_file", LIST),
            ("track_process", LIST),
            ("track_bfd", LIST),
            ("notify", SCRIPT),
            ("notify_master", SCRIPT),
            ("notify_backup", SCRIPT),
            ("notify_fault", SCRIPT),
            ("notify_stop", SCRIPT),
            ("notify_priority_changes", FLAG),
            ("smtp_alert", FLAG),
            ("global_tracking", FLAG),
            ("sync_group_tracking_weight", FLAG),
        ],
    ),
    ("track_file", "a track_file", TRACK_FILE),
    ("vrrp_track_file", "a vrrp_track_file", TRACK_FILE),
    (
        "vrrp_track_process",
        "a vrrp_track_process",
        &[
            ("process", Shape::Line(1, usize::MAX)),
            ("param_match", WORD),
            ("full_command", FLAG),
            ("weight", NUMBERS),
            ("quorum", WORD),
            ("quorum_max", WORD),
            ("delay", WORD),
            ("fork_delay", WORD),
            ("terminate_delay", WORD),
        ],
    ),
    (
        "bfd_instance",
        "a bfd_instance",
        &[
            ("neighbor_ip", WORD),
            ("neighbour_ip", WORD),
            ("source_ip", WORD),
            ("min_rx", WORD),
            ("min_tx", WORD),
            ("idle_tx", WORD),
            ("multiplier", WORD),
            ("passive", FLAG),
            ("ttl", WORD),
            ("hoplimit", WORD),
            ("max_hops", WORD),
            ("multihop", FLAG),
            ("weight", NUMBERS),
            ("vrrp", FLAG),
            ("checker", FLAG),
        ],
    ),
    ("track_group", "a track_group", &[("group", LIST)]),
    (
        "garp_group",
        "a garp_group",
        &[
            ("garp_interval", WORD),
            ("gna_interval", WORD),
            ("interface", WORD),
            ("interfaces", Shape::Any),
        ],
    ),
    ("SSL", "an SSL", &[("password", WORD), ("ca", WORD), ("certificate", WORD), ("key", WORD)]),
    (
        "auth_hmac",
        "an auth_hmac",
        &[
            ("key", Shape::Line(2, 2)),
            ("active_key", WORD),
            ("anti_replay", WORD),
            ("time_window", WORD),
            ("mode", WORD),
        ],
    ),
    ("BFD_CHECK", "a BFD_CHECK", &[("name", WORD), ("alpha", FLAG)]),
    ("FILE_CHECK", "a FILE_CHECK", &[("track_file", WORD), ("weight", NUMBERS), ("dynamic", FLAG)]),
];

const TRACK_FILE: &[(&str, Shape)] =
    &[("file", WORD), ("weight", NUMBERS), ("init_file", Shape::Line(0, 2))];
