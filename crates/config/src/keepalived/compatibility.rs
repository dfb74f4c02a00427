//! Every keyword of keepalived, what it does here, and why: the page of compatibility.

use std::fmt::Write as _;

use crate::keepalived::keywords::{KeywordEffect, KeywordRow};
use crate::keepalived::{TOP, checker, globals, inside, instance, script, url, virtual_server};
use crate::settings::nouns;
use crate::settings::row::{Block, ReadBy};

/// One line of the page.
struct KeywordLine {
    keyword: &'static str,
    status: &'static str,
    note: String,
}

const ACTS: &str = "acts";
const DIFFERS: &str = "acts differently";
const IGNORED: &str = "ignored";
const REFUSED: &str = "refused until built";

/// The page in Markdown.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# keepalived.conf\n\n\
         Made from the tables in `crates/config/src/keepalived` and `settings` by \
         `cargo run -p locum-config --example reference`; do not edit it by hand.\n\n\
         What *acts* does what keepalived does; a note names the setting of a locum.toml with the \
         same meaning (`settings.md`). What is *ignored* changes nothing that is served, for the reason \
         beside it. What is *refused until built* is an error, so that nothing runs without what it \
         was given; an empty block asks for nothing and is no error. A keyword that is in no table is a \
         warning, as in keepalived, and an error with `locum check --strict`.\n",
    );
    chapter(&mut page, "Outside any block", lines(TOP, None));
    chapter(&mut page, "global_defs", lines(globals::ROWS, Some(Block::Globals)));
    chapter(&mut page, "vrrp_instance", lines(instance::ROWS, Some(Block::Instance)));
    chapter(&mut page, "authentication", lines(instance::AUTHENTICATION, None));
    chapter(&mut page, "vrrp_script", lines(script::ROWS, Some(Block::Script)));
    chapter(&mut page, "virtual_server", lines(virtual_server::ROWS, Some(Block::VirtualServer)));
    let mut servers = lines(virtual_server::REAL_SERVER, Some(Block::RealServer));
    servers.extend(lines(checker::BLOCKS, None));
    chapter(&mut page, "real_server", servers);
    chapter(&mut page, "Checkers", lines(checker::ROWS, Some(Block::Checker)));
    chapter(&mut page, "url", lines(url::ROWS, None));
    for (block, _, rows) in inside::BLOCKS {
        let refused = rows.iter().map(|(keyword, _)| KeywordLine {
            keyword,
            status: REFUSED,
            note: format!("with its `{block}`"),
        });
        chapter(&mut page, block, refused.collect());
    }
    page
}

fn chapter(page: &mut String, title: &str, mut lines: Vec<KeywordLine>) {
    lines.sort_by_key(|line| line.keyword);
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {title}\n\n| keyword | status | note |\n|---|---|---|\n");
    for KeywordLine { keyword, status, note } in lines {
        let _ = writeln!(page, "| `{keyword}` | {status} | {note} |");
    }
}

/// The rows of a table, and the settings that have their keywords in this block.
fn lines<T>(rows: &[KeywordRow<T>], block: Option<Block>) -> Vec<KeywordLine> {
    let of_rows = rows.iter().map(|row| {
        let note = if row.note.is_empty() { setting(block, row.name) } else { row.note.to_owned() };
        KeywordLine { keyword: row.name, status: status(row), note }
    });
    let settings = nouns().into_iter().flat_map(|noun| noun.keywords());
    let of_settings = settings.filter(|(home, _, by)| Some(*home) == block && *by == ReadBy::Row);
    let of_settings = of_settings.map(|(_, keyword, _)| KeywordLine {
        keyword,
        status: ACTS,
        note: setting(block, keyword),
    });
    let mut all: Vec<KeywordLine> = of_rows.chain(of_settings).collect();
    all.sort_by_key(|line| line.keyword);
    all.dedup_by_key(|line| line.keyword);
    all
}

fn status<T>(row: &KeywordRow<T>) -> &'static str {
    match row.effect {
        KeywordEffect::Set(_) if row.note.is_empty() => ACTS,
        KeywordEffect::Set(_) => DIFFERS,
        // Read elsewhere, before the other blocks.
        KeywordEffect::Accept if row.note.is_empty() => ACTS,
        KeywordEffect::Accept | KeywordEffect::Ignore(_) | KeywordEffect::Dead => IGNORED,
        KeywordEffect::Refuse(_) => REFUSED,
    }
}

/// The setting that means the same.
fn setting(block: Option<Block>, keyword: &str) -> String {
    let found = nouns().into_iter().find_map(|noun| {
        let all = noun.facts();
        let is_it =
            |(home, name, _): &(Block, &str, ReadBy)| Some(*home) == block && *name == keyword;
        let facts = all.into_iter().find(|facts| facts.keywords.iter().any(is_it))?;
        Some(format!("`{}.{}`", noun.name(), facts.key))
    });
    found.unwrap_or_default()
}
