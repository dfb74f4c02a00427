//! The keepalived.conf front-end: keepalived's grammar and keywords, and its meaning of them.
//!
//! ```text
//!   text ─► lines (includes, @id, $NAME) ─► lexer (words) ─► blocks (tree) ─► keyword rows ─► parsed
//! ```
//!
//! A keyword that means one setting is in the row of that setting, in `settings`. Every other one is
//! a row of one table: `TOP` here, and the tables of `globals`, `instance`, `script`,
//! `virtual_server`, `checker` and `url`.

mod address;
mod arguments;
pub(crate) mod blocks;
mod checker;
mod correct;
mod generators;
mod globals;
mod instance;
mod ipvs;
pub(crate) mod keywords;
mod lexer;
mod lines;
pub(crate) mod lowering;
mod parameters;
mod script;
mod server_group;
mod url;
mod virtual_server;

use std::collections::HashMap;

use sha2::Sha256;

use crate::context::Context;
use crate::dialect::Dialect;
use crate::keepalived::blocks::Statement;
use crate::keepalived::correct::ScriptNames;
use crate::keepalived::globals::{FileDraft, Globals};
use crate::keepalived::keywords::{KeywordEffect, KeywordRow, Shape, refuse, set};
use crate::keepalived::lines::Lines;
use crate::keepalived::lowering::{LINE_IGNORED, Lowering};
use crate::parsed::{LateInterfaces, Parsed};
use crate::settings;
use crate::settings::row::Block;
use crate::source::Source;
use crate::span::Report;
use locum_plan::Name;

/// Blocks and lines outside any block.
const TOP: &[KeywordRow<FileDraft>] = &[
    // Read first, because keepalived applies its values wherever the block stands.
    KeywordRow { name: "global_defs", shape: Shape::Block(0, 0), effect: KeywordEffect::Accept },
    set("vrrp_script", Shape::Block(0, usize::MAX), script::read),
    set("vrrp_instance", Shape::Block(0, usize::MAX), instance::read),
    set("virtual_server", Shape::Block(1, usize::MAX), virtual_server::read),
    refuse(
        "vrrp_sync_group",
        "instances cannot be tied together; remove the group to run them singly",
    ),
    // Read before what names them.
    KeywordRow {
        name: "virtual_server_group",
        shape: Shape::Block(0, usize::MAX),
        effect: KeywordEffect::Accept,
    },
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

/// Reads the file and what it includes. Errors are in the report; something is always parsed.
pub(crate) fn read(
    source: &dyn Source,
    path: &str,
    octets: Vec<u8>,
    context: &Context<'_>,
    digest: &mut Sha256,
    report: &mut Report,
) -> Option<Parsed> {
    let mut lines = Lines::new(source, report, digest, context);
    lines.file(path, &octets);
    let tokens = std::mem::take(&mut lines.tokens);
    let statements = blocks::parse(tokens, report);
    let parsed = Parsed {
        dialect: Dialect::Keepalived,
        node: Name::from(context.node.unwrap_or(context.host_name)),
        is_node_known: true,
        nodes: Vec::new(),
        instances: Vec::new(),
        checks: Vec::new(),
        services: Vec::new(),
        haproxy: Vec::new(),
        ipvs: Default::default(),
        hooks: Default::default(),
        late_interfaces: LateInterfaces::Missed,
    };
    let mut file = FileDraft {
        parsed,
        globals: Globals::default(),
        groups: Vec::new(),
        instance_names: HashMap::new(),
        scripts: ScriptNames::default(),
    };
    let mut lowering =
        Lowering { report, script_user: None, home_of, is_essential: false, effect: LINE_IGNORED };
    for statement in statements.iter().filter(|one| one.keyword().text == "global_defs") {
        let block: &[Statement] = statement.block.as_deref().unwrap_or_default();
        lowering.run("global_defs", globals::ROWS, &mut file.globals, block);
    }
    for statement in statements.iter().filter(|one| one.keyword().text == "virtual_server_group") {
        server_group::read(&mut lowering, &mut file, statement);
    }
    for statement in statements {
        // One at a time, so that what has been read is not in memory twice.
        lowering.run("a keepalived.conf", TOP, &mut file, std::slice::from_ref(&statement));
    }
    for instance in &mut file.parsed.instances {
        correct::tracks(instance, &file.scripts, report);
    }
    file.parsed.ipvs = std::mem::take(&mut file.globals.ipvs);
    if file.globals.has_late_interfaces {
        file.parsed.late_interfaces = LateInterfaces::Expected;
    }
    Some(file.parsed)
}

/// The block whose table has this keyword, for one that stands elsewhere.
fn home_of(keyword: &str) -> Option<&'static str> {
    let of_block = |block| settings::keywords(block).contains(&keyword);
    if has(TOP, keyword) {
        Some("no block: a brace before it is probably missing")
    } else if has(globals::ROWS, keyword) || of_block(Block::Globals) {
        Some("global_defs")
    } else if has(instance::ROWS, keyword) || of_block(Block::Instance) {
        Some("a vrrp_instance")
    } else if has(script::ROWS, keyword) || of_block(Block::Script) {
        Some("a vrrp_script")
    } else if has(virtual_server::ROWS, keyword) || of_block(Block::VirtualServer) {
        Some("a virtual_server")
    } else if has(virtual_server::REAL_SERVER, keyword)
        || has(checker::BLOCKS, keyword)
        || of_block(Block::RealServer)
    {
        Some("a real_server")
    } else if has(checker::ROWS, keyword) || has(url::ROWS, keyword) || of_block(Block::Checker) {
        Some("a checker of a real_server, as TCP_CHECK")
    } else {
        None
    }
}

fn has<T>(rows: &[KeywordRow<T>], keyword: &str) -> bool {
    rows.iter().any(|row| row.name == keyword)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::row::ReadBy;

    /// A row of a setting may leave a keyword to the front-end; then the front-end has it.
    #[test]
    fn every_keyword_of_a_setting_is_read_by_its_row_or_by_the_front_end() {
        let real_server = virtual_server::REAL_SERVER.iter().map(|row| row.name);
        let blocks = checker::BLOCKS.iter().map(|row| row.name);
        let tables: [(Block, Vec<&str>); 6] = [
            (Block::Globals, globals::ROWS.iter().map(|row| row.name).collect()),
            (Block::Instance, instance::names()),
            (Block::Script, script::ROWS.iter().map(|row| row.name).collect()),
            (Block::VirtualServer, virtual_server::ROWS.iter().map(|row| row.name).collect()),
            (Block::RealServer, real_server.chain(blocks).collect()),
            (Block::Checker, checker::ROWS.iter().map(|row| row.name).collect()),
        ];
        for (block, names) in tables {
            let own = settings::keywords_read(block, ReadBy::FrontEnd);
            assert!(!own.is_empty(), "{block:?}");
            for keyword in own {
                assert!(names.contains(&keyword), "{keyword} in {block:?}");
            }
            for keyword in settings::keywords_read(block, ReadBy::Row) {
                assert!(!names.contains(&keyword), "{keyword} in {block:?} has two rows");
            }
        }
    }
}
