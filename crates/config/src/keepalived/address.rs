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

/// `None` when something in the line was refused.
pub(super) fn read(lowering: &mut Lowering<'_>, line: &Statement) -> Option<At<VirtualAddress>> {
    let first = line.keyword();
    if line.block.is_some() {
        lowering.report.error(line.span(), "extra-block", "an address takes no block");
        return None;
    }
    let mut address = match values::virtual_address(&first.text) {
        Ok(address) => address,
        Err(reason) => {
            lowering.bad_value(first, reason);
            return None;
        }
    };
    let mut words = line.arguments().iter();
    let mut fine = true;
    while let Some(word) = words.next() {
        fine &= option(lowering, word, &mut words, &mut address);
    }
    fine.then(|| At::new(address, line.span()))
}

/// Reads one option and its value; false when it was refused.
fn option<'w>(
    lowering: &mut Lowering<'_>,
    word: &'w Word,
    rest: &mut impl Iterator<Item = &'w Word>,
    address: &mut VirtualAddress,
) -> bool {
    let mut value = || rest.next();
    let found = match word.text.as_str() {
        "dev" => value()
            .map(|name| address.detail(|all| all.device = Some(Name::from(name.text.as_str())))),
        "label" => value()
            .map(|name| address.detail(|all| all.label = Some(Name::from(name.text.as_str())))),
        "scope" => match value() {
            Some(name) => return scope(lowering, name, address),
            None => None,
        },
        "brd" | "broadcast" => match value() {
            Some(name) => return broadcast(lowering, name, address),
            None => None,
        },
        "-nodad" => {
            address.duplicate_detection = true;
            Some(())
        }
        "noprefixroute" => {
            address.no_prefix_route = true;
            Some(())
        }
        // The default already, or about a watch that puts a lost address back.
        "nodad" | "no_track" => Some(()),
        "home" | "mngtmpaddr" | "autojoin" => {
            let text = format!("`{}` has no effect on a virtual address here", word.text);
            lowering.report.warning(word.span, "ignored-keyword", text);
            Some(())
        }
        "preferred_lft" => value().map(|name| {
            let text = "`preferred_lft` has no effect: the lease of the address is ours";
            lowering.report.warning(name.span, "ignored-keyword", text);
        }),
        "peer" | "use_vmac" => {
            let text = format!("`{}` is not supported yet", word.text);
            lowering.report.error(word.span, "unsupported", text);
            return false;
        }
        other => {
            let text = format!("unknown option `{other}` of an address");
            lowering.report.error(word.span, "unknown-keyword", text).suggest(other, OPTIONS);
            return false;
        }
    };
    if found.is_none() {
        let text = format!("`{}` needs a value", word.text);
        lowering.report.error(word.span, "missing-argument", text);
    }
    found.is_some()
}

fn scope(lowering: &mut Lowering<'_>, word: &Word, address: &mut VirtualAddress) -> bool {
    address.scope = match word.text.as_str() {
        "global" | "universe" | "0" => Scope::Global,
        "site" | "200" => Scope::Site,
        "link" | "253" => Scope::Link,
        "host" | "254" => Scope::Host,
        other => {
            let text = format!("`{other}` is not a scope: global, site, link or host");
            lowering.bad_value(word, text);
            return false;
        }
    };
    true
}

fn broadcast(lowering: &mut Lowering<'_>, word: &Word, address: &mut VirtualAddress) -> bool {
    match word.text.as_str() {
        // "None", which is what an address has when nothing is said.
        "-" => true,
        "+" => {
            let broadcast = derived_broadcast(address);
            address.detail(|all| all.broadcast = broadcast);
            true
        }
        _other => match lowering.ip_address(word) {
            Some(at) => {
                address.detail(|all| all.broadcast = Some(at.value));
                true
            }
            None => false,
        },
    }
}

/// The last address of the prefix.
fn derived_broadcast(address: &VirtualAddress) -> Option<std::net::IpAddr> {
    let std::net::IpAddr::V4(v4) = address.address else { return None };
    let host_bits = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
    Some(std::net::Ipv4Addr::from(u32::from(v4) | host_bits).into())
}
