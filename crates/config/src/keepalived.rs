//! The keepalived.conf front-end: keepalived's grammar and keywords, and its meaning of them.
//!
//! ```text
//!   text ─► lines (includes, @id, $NAME) ─► lexer (words) ─► blocks (tree) ─► keyword rows ─► wishes
//! ```
//!
//! Every keyword is one row of one table: `TOP` here, and the tables of `globals`, `instance`,
//! `script` and `virtual_server`.

mod address;
mod arguments;
mod blocks;
mod checker;
mod globals;
mod instance;
mod keywords;
mod lexer;
mod lines;
mod script;
mod virtual_server;

use sha2::Sha256;

use crate::Context;
use crate::keepalived::blocks::Statement;
use crate::keepalived::globals::Globals;
use crate::keepalived::keywords::{Effect, Row, Shape, refuse, set};
use crate::keepalived::lines::Lines;
use crate::source::Source;
use crate::span::Report;
use crate::wish::Wishes;
use locum_plan::{Dialect, Name};

/// Blocks and lines outside any block.
const TOP: &[Row<Wishes>] = &[
    // Read first, because keepalived applies its values wherever the block stands.
    Row { name: "global_defs", shape: Shape::Block(0, 0), effect: Effect::Accept },
    set("vrrp_script", Shape::Block(1, 1), script::read),
    set("vrrp_instance", Shape::Block(1, 1), instance::read),
    set("virtual_server", Shape::Block(1, 3), virtual_server::read),
    refuse(
        "vrrp_sync_group",
        "instances cannot be tied together; remove the group to run them singly",
    ),
    refuse("virtual_server_group", "write one virtual_server per address"),
    refuse("vrrp_track_process", "use a vrrp_script with \"killall -0 NAME\""),
    refuse("track_file", "use a vrrp_script that looks at the file"),
    refuse("vrrp_track_file", "use a vrrp_script that looks at the file"),
    refuse("bfd_instance", "remove it, or keep BFD in another daemon"),
    refuse("static_ipaddress", "configure the address with the system's network manager"),
    refuse("static_routes", "configure the routes with the system's network manager"),
    refuse("static_rules", "configure the rules with the system's network manager"),
    refuse("track_group", "remove it"),
    refuse("garp_group", "remove it"),
    refuse("interface_up_down_delays", "remove it"),
    refuse("linkbeat_interfaces", "remove it: carrier is watched through the kernel"),
    refuse("SSL", "remove it"),
    // Belong to global_defs, but keepalived takes them here as well.
    refuse("net_namespace", "start the daemon inside the namespace: ip netns exec NAME"),
    refuse("net_namespace_ipvs", "start the daemon inside the namespace: ip netns exec NAME"),
    refuse("instance", "use --run-dir to run several daemons on one host"),
    keywords::accept("use_pid_dir"),
    keywords::accept("include_check"),
    keywords::accept("random_seed"),
];

/// Whether a line that begins so belongs to a keepalived.conf.
pub(crate) fn is_top_level(word: &str) -> bool {
    TOP.iter().any(|row| row.name == word) || word == "include"
}

/// What a lowering knows besides the block it is in.
struct Lowering<'r> {
    pub report: &'r mut Report,
    pub globals: Globals,
}

/// Reads the file and what it includes. Errors are in the report; there are always wishes.
pub(crate) fn read(
    source: &dyn Source,
    path: &str,
    octets: Vec<u8>,
    context: &Context<'_>,
    digest: &mut Sha256,
    report: &mut Report,
) -> Option<Wishes> {
    let short = context.host_name.split('.').next().unwrap_or(context.host_name);
    let config_id = context.config_id.unwrap_or(short);
    let mut lines = Lines::new(source, report, digest, config_id);
    lines.file(path, &octets, 0);
    let tokens = std::mem::take(&mut lines.tokens);
    let statements = blocks::parse(&tokens, report);
    let mut wishes = Wishes {
        dialect: Dialect::Keepalived,
        node: Name::from(context.node.unwrap_or(context.host_name)),
        nodes: Vec::new(),
        instances: Vec::new(),
        checks: Vec::new(),
        services: Vec::new(),
        haproxy: Vec::new(),
        hook_timeout: None,
    };
    let mut lowering = Lowering { report, globals: Globals::default() };
    for statement in statements.iter().filter(|one| one.keyword().text == "global_defs") {
        let block: &[Statement] = statement.block.as_deref().unwrap_or_default();
        let mut globals = std::mem::take(&mut lowering.globals);
        lowering.run("global_defs", globals::ROWS, &mut globals, block);
        lowering.globals = globals;
    }
    lowering.run("a keepalived.conf", TOP, &mut wishes, &statements);
    Some(wishes)
}

/// The block whose table has this keyword, for one that stands elsewhere.
fn home_of(keyword: &str) -> Option<&'static str> {
    if has(TOP, keyword) {
        Some("no block: a brace before it is probably missing")
    } else if has(globals::ROWS, keyword) {
        Some("global_defs")
    } else if has(instance::ROWS, keyword) {
        Some("a vrrp_instance")
    } else if has(script::ROWS, keyword) {
        Some("a vrrp_script")
    } else if has(virtual_server::ROWS, keyword) {
        Some("a virtual_server")
    } else if has(virtual_server::REAL_SERVER, keyword) {
        Some("a real_server")
    } else if has(checker::ROWS, keyword) {
        Some("a TCP_CHECK or HTTP_GET")
    } else {
        None
    }
}

fn has<T>(rows: &[Row<T>], keyword: &str) -> bool {
    rows.iter().any(|row| row.name == keyword)
}
