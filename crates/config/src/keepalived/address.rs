//! A line of `virtual_ipaddress`: an address and what `ip address add` would take with it.

use crate::keepalived::blocks::Statement;
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::Lowering;
use crate::span::At;
use crate::values;
use locum_plan::{Name, Scope, VirtualAddress};

/// Words that may follow the address.
const OPTIONS: [&str; 14] = [
    "dev",
    "label",
    "scope",
    "brd",
    "broadcast",
    "nodad",
    "-nodad",
    "noprefixroute",
    "no_track",
    "home",
    "mngtmpaddr",
    "autojoin",
    "preferred_lft",
    "peer",
];

/// `None` when keepalived would leave the address out, or when something in the line was refused.
pub(super) fn read(lowering: &mut Lowering<'_>, line: &Statement) -> Option<At<VirtualAddress>> {
    let first = line.keyword();
    if line.block.is_some() {
        let text = "an address takes no block";
        lowering.report.forgiven(line.span(), "extra-block", text, "the block is ignored");
    }
    let mut address = lowering.or_else(LEFT_OUT, |lowering| with_prefix(lowering, first))?;
    let mut words = line.arguments().iter().peekable();
    let mut is_kept = true;
    while let Some(word) = words.next() {
        is_kept &= option(lowering, word, &mut words, &mut address);
    }
    is_kept.then(|| At::new(address, line.span()))
}

const LEFT_OUT: &str = "the address is left out";
const WORD_IGNORED: &str = "the word is ignored";

/// keepalived takes the whole address where the prefix is longer than that.
fn with_prefix(lowering: &mut Lowering<'_>, word: &Word) -> Option<VirtualAddress> {
    let (bare, prefix) = word.text.split_once('/').unwrap_or((&word.text, ""));
    let is_number = !prefix.is_empty() && prefix.bytes().all(|octet| octet.is_ascii_digit());
    match values::virtual_address(&word.text) {
        Ok(address) => Some(address),
        Err(reason) => match values::virtual_address(bare) {
            Ok(address) if is_number && !prefix.trim_start_matches('0').is_empty() => {
                let effect = format!("the prefix is /{}", address.prefix);
                lowering.report.forgiven(word.span, "bad-value", reason, effect);
                Some(address)
            }
            Ok(_) | Err(_) => {
                lowering.bad_value(word, reason);
                None
            }
        },
    }
}

/// Reads one option and its value; false when the address is not kept because of it.
fn option<'w>(
    lowering: &mut Lowering<'_>,
    word: &'w Word,
    rest: &mut impl Iterator<Item = &'w Word>,
    address: &mut VirtualAddress,
) -> bool {
    match word.text.as_str() {
        "-nodad" => address.duplicate_detection = true,
        "noprefixroute" => address.no_prefix_route = true,
        // The default already, or about a watch that puts a lost address back.
        "nodad" | "no_track" => {}
        "home" | "mngtmpaddr" | "autojoin" => {
            let text = format!("`{}` has no effect on a virtual address here", word.text);
            lowering.report.warning(word.span, "ignored-keyword", text);
        }
        "use_vmac" => {
            let text = "`use_vmac` is not supported yet";
            lowering.report.error(word.span, "unsupported", text);
        }
        "dev" | "label" | "scope" | "brd" | "broadcast" | "preferred_lft" | "peer" => {
            let Some(value) = rest.next() else {
                // Without its label keepalived leaves the address out.
                let is_label = word.text == "label";
                let effect = if is_label { LEFT_OUT } else { WORD_IGNORED };
                let text = format!("`{}` needs a value", word.text);
                lowering.report.forgiven(word.span, "missing-argument", text, effect);
                return !is_label;
            };
            return with_value(lowering, word, value, address);
        }
        other => {
            let text = format!("unknown option `{other}` of an address");
            lowering
                .report
                .forgiven(word.span, "unknown-keyword", text, WORD_IGNORED)
                .suggest(other, OPTIONS);
        }
    }
    true
}

fn with_value(
    lowering: &mut Lowering<'_>,
    word: &Word,
    value: &Word,
    address: &mut VirtualAddress,
) -> bool {
    let name = || Name::from(value.text.as_str());
    match word.text.as_str() {
        "dev" => address.detail(|all| all.device = Some(name())),
        "label" if value.text.len() > MAX_LABEL => {
            let text = format!("a label has at most {MAX_LABEL} characters");
            lowering.report.forgiven(value.span, "bad-label", text, LEFT_OUT);
            return false;
        }
        "label" => address.detail(|all| all.label = Some(name())),
        "scope" => {
            let read = |lowering: &mut Lowering<'_>| scope(lowering, value);
            if let Some(scope) = lowering.or_else("the scope is global", read) {
                address.scope = scope;
            }
        }
        "brd" | "broadcast" => {
            return lowering
                .or_else(LEFT_OUT, |lowering| broadcast(lowering, value, address))
                .is_some();
        }
        "preferred_lft" => {
            let text = "`preferred_lft` has no effect: the lease of the address is ours";
            lowering.report.warning(value.span, "ignored-keyword", text);
        }
        _peer => {
            let text = format!("`{}` is not supported yet", word.text);
            lowering.report.error(word.span, "unsupported", text);
        }
    }
    true
}

/// Octets of an interface name.
const MAX_LABEL: usize = 15;

fn scope(lowering: &mut Lowering<'_>, word: &Word) -> Option<Scope> {
    match word.text.as_str() {
        "global" | "universe" | "0" => Some(Scope::Global),
        "site" | "200" => Some(Scope::Site),
        "link" | "253" => Some(Scope::Link),
        "host" | "254" => Some(Scope::Host),
        other => {
            let text = format!("`{other}` is not a scope: global, site, link or host");
            lowering.bad_value(word, text);
            None
        }
    }
}

fn broadcast(lowering: &mut Lowering<'_>, word: &Word, address: &mut VirtualAddress) -> Option<()> {
    let broadcast = match word.text.as_str() {
        // "None", which is what an address has when nothing is said.
        "-" => return Some(()),
        "+" => derived_broadcast(address),
        _other => Some(lowering.ip_address(word)?.value),
    };
    address.detail(|all| all.broadcast = broadcast);
    Some(())
}

/// The last address of the prefix.
fn derived_broadcast(address: &VirtualAddress) -> Option<std::net::IpAddr> {
    let std::net::IpAddr::V4(v4) = address.address else { return None };
    let host_bits = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
    Some(std::net::Ipv4Addr::from(u32::from(v4) | host_bits).into())
}
