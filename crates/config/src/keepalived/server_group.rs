//! `virtual_server_group`: addresses, ranges and marks that are one service.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use locum_plan::{AddressRange, Listener};
use locum_vrrp::Family;

use crate::field::Field;
use crate::keepalived::blocks::Statement;
use crate::keepalived::globals::{FileDraft, ServerGroup};
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::Lowering;
use crate::settings::listen::range;
use crate::span::At;

/// Groups are read before what names them, wherever they stand.
pub(super) fn read(lowering: &mut Lowering<'_>, file: &mut FileDraft, statement: &Statement) {
    let Some(name) = lowering.only_name(statement) else { return };
    if file.groups.iter().any(|group| group.name == name.value) {
        let text = format!("virtual_server_group `{}` is defined twice", name.value);
        let effect = "the second block is ignored";
        lowering.report.forgiven(name.span, "duplicate-name", text, effect);
        return;
    }
    let entries = statement.block.as_deref().unwrap_or_default();
    let listeners: Vec<At<Listener>> =
        entries.iter().filter_map(|entry| listener(lowering, entry)).collect();
    let listeners = if listeners.is_empty() {
        let text = format!("virtual_server_group `{}` names no address", name.value);
        let effect = "the virtual_server of it is left out";
        lowering.report.forgiven(statement.span(), "missing-key", text, effect);
        Field::Bad
    } else {
        Field::Given(At::new(listeners, statement.span()))
    };
    file.groups.push(ServerGroup { name: name.value, listeners });
}

/// `ADDRESS PORT`, `ADDRESS-LAST PORT` or `fwmark N [inet|inet6]`.
fn listener(lowering: &mut Lowering<'_>, entry: &Statement) -> Option<At<Listener>> {
    let first = entry.keyword();
    if first.text == "fwmark" {
        return mark(lowering, entry, entry.arguments());
    }
    if let Some(word) = entry.arguments().get(1) {
        let text = format!("`{}` does not take this argument", first.text);
        lowering.report.forgiven(word.span, "extra-argument", text, "it is ignored");
    }
    let port = match entry.arguments().first() {
        Some(word) => lowering.number(word, 0..=65_535)?.value,
        // Every port, as the kernel has it.
        None => 0,
    };
    if first.text.contains('/') {
        let text = format!("the network `{}` is not supported yet", first.text);
        let finding = lowering.report.error(first.span, "unsupported", text);
        drop(finding.help("write its addresses as FIRST-LAST"));
        return None;
    }
    match address(&first.text, port) {
        Ok(listener) => Some(At::new(listener, entry.span())),
        Err(reason) => {
            lowering.bad_value(first, reason);
            None
        }
    }
}

fn address(text: &str, port: u16) -> Result<Listener, String> {
    if let Ok(address) = text.parse() {
        return Ok(Listener::Address(SocketAddr::new(address, port)));
    }
    let none = || format!("`{text}` is not an IP address or a range of them");
    let (first, last) = text.split_once('-').ok_or_else(none)?;
    let first = first.parse().map_err(|_| none())?;
    let range: AddressRange = range(first, last, port)?;
    Ok(Listener::Range(range))
}

/// `N [inet|inet6]`.
pub(super) fn mark(
    lowering: &mut Lowering<'_>,
    statement: &Statement,
    words: &[Word],
) -> Option<At<Listener>> {
    let Some(word) = words.first() else {
        lowering.fault(statement.span(), "missing-argument", "`fwmark` needs a number");
        return None;
    };
    let mark = NonZeroU32::new(lowering.number(word, 1..=i64::from(u32::MAX))?.value)?;
    let family = match words.get(1).map(|word| (word, word.text.as_str())) {
        None | Some((_, "inet")) => Family::V4,
        Some((_, "inet6")) => Family::V6,
        Some((word, other)) => {
            lowering.bad_value(word, format!("`{other}` is not a family: inet or inet6"));
            return None;
        }
    };
    Some(At::new(Listener::Fwmark { mark, family }, statement.span()))
}
