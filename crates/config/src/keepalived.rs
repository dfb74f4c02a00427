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
pub(crate) mod compatibility;
mod correct;
mod generators;
mod globals;
mod inside;
mod instance;
mod ipvs;
pub(crate) mod keywords;
mod lexer;
mod lines;
pub(crate) mod lowering;
mod parameters;
mod script;
mod server_group;
pub(crate) mod shape;
mod url;
mod virtual_server;

use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::Sha256;

use crate::context::Context;
use crate::dialect::Dialect;
use crate::keepalived::blocks::{Statement, Tree};
use crate::keepalived::correct::ScriptNames;
use crate::keepalived::globals::{FileDraft, Globals};
use crate::keepalived::keywords::{KeywordEffect, KeywordRow, Shape, refuse, set};
use crate::keepalived::lines::Lines;
use crate::keepalived::lowering::{LINE_IGNORED, Lowering};
use crate::parsed::{LateInterfaces, Parsed};
use crate::settings;
use crate::settings::row::Block;
use crate::source::Source;
use crate::span::{Report, Span};
use locum_plan::Name;

/// Blocks and lines outside any block.
const TOP: &[KeywordRow<FileDraft>] = &[
    // Read first, because keepalived applies its values wherever the block stands.
    KeywordRow {
        name: "global_defs",
        shape: Shape::Block(0, 0),
        effect: KeywordEffect::Accept,
        note: "",
    },
    set("vrrp_script", Shape::Block(0, usize::MAX), script::read),
    set("vrrp_instance", Shape::Block(0, usize::MAX), instance::read),
    set("virtual_server", Shape::Block(1, usize::MAX), virtual_server::read),
    refuse(
        "vrrp_sync_group",
        "instances cannot be tied together yet; without the group, let each of its instances track the \
         interfaces of the others, so that none is left behind",
    ),
    // Read before what names them.
    KeywordRow {
        name: "virtual_server_group",
        shape: Shape::Block(0, usize::MAX),
        effect: KeywordEffect::Accept,
        note: "",
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
    keywords::accept("use_pid_dir", globals::NO_PID),
    keywords::accept("include_check", "each include says by its own letter what must be there"),
    KeywordRow {
        name: "random_seed",
        shape: Shape::Line(1, 1),
        effect: KeywordEffect::Accept,
        note: "",
    },
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
    let Tree { statements, is_whole } = blocks::parse(tokens, report);
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
    top(&mut lowering, &mut file, statements);
    if !is_whole {
        // What else is missing is missing because of that.
        return None;
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

/// Blocks and lines outside any block. Lines of a block that was closed too early are one mistake.
fn top(lowering: &mut Lowering<'_>, file: &mut FileDraft, statements: Vec<Statement>) {
    let mut before: Option<Span> = None;
    let mut is_said = false;
    // One at a time, so that what has been read is not in memory twice.
    for statement in statements {
        let keyword = statement.keyword();
        let is_known = has(TOP, &keyword.text);
        if let (false, Some(closed)) = (is_known, before)
            && let Some(home) = home_of(&keyword.text)
        {
            if !is_said {
                let text = format!("`{}` belongs in {home}", keyword.text);
                let finding = lowering.report.error(keyword.span, "misplaced-keyword", text);
                let finding = finding.see("the block before is closed", closed);
                drop(finding.help("is there a brace too many?"));
            }
            is_said = true;
            continue;
        }
        lowering.run("a keepalived.conf", TOP, file, std::slice::from_ref(&statement));
        if is_known && statement.closed.is_some() {
            (before, is_said) = (statement.closed, false);
        }
    }
}

/// The block whose table has this keyword, for one that stands elsewhere.
fn home_of(keyword: &str) -> Option<&'static str> {
    HOMES.get(keyword).copied()
}

/// A large file may ask for each of its lines.
static HOMES: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let mut homes = HashMap::new();
    let mut add = |home, keywords: Vec<&'static str>| {
        for keyword in keywords {
            // The first has the say.
            homes.entry(keyword).or_insert(home);
        }
    };
    add("no block: a brace before it is probably missing", names(TOP));
    add("global_defs", names(globals::ROWS));
    add("global_defs", settings::keywords(Block::Globals));
    add("a vrrp_instance", names(instance::ROWS));
    add("a vrrp_instance", settings::keywords(Block::Instance));
    add("a vrrp_script", names(script::ROWS));
    add("a vrrp_script", settings::keywords(Block::Script));
    add("a virtual_server", names(virtual_server::ROWS));
    add("a virtual_server", settings::keywords(Block::VirtualServer));
    add("a real_server", names(virtual_server::REAL_SERVER));
    add("a real_server", names(checker::BLOCKS));
    add("a real_server", settings::keywords(Block::RealServer));
    add("a checker of a real_server, as TCP_CHECK", names(checker::ROWS));
    add("a checker of a real_server, as TCP_CHECK", names(url::ROWS));
    add("a checker of a real_server, as TCP_CHECK", settings::keywords(Block::Checker));
    homes
});

fn names<T>(rows: &[KeywordRow<T>]) -> Vec<&'static str> {
    rows.iter().map(|row| row.name).collect()
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
