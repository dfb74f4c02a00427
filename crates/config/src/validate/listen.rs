//! Rules of where a service listens, alone and beside the other services of the node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use locum_plan::{Capabilities, Listener, Plan, Protocol, Service};
use locum_vrrp::Family;

use crate::assemble::service::listeners;
use crate::dialect::Dialect;
use crate::parsed::{Parsed, ParsedService};
use crate::span::{At, Report, Span};
use crate::validate::common::always;

pub(super) fn validate(
    parsed: &ParsedService,
    built: &Service,
    plan: &Plan,
    dialect: Dialect,
    report: &mut Report,
) {
    if let Some(at) = parsed.family.given()
        && parsed.fwmark.is_absent()
    {
        let text = "`family` is that of a `fwmark`, and there is none";
        report.error(at.span, "misplaced-key", text);
    }
    for at in parsed.listen.list() {
        listener(at, built, dialect, report);
    }
    held(parsed, built, plan, report);
}

fn listener(at: &At<Listener>, built: &Service, dialect: Dialect, report: &mut Report) {
    let addresses = match at.value {
        Listener::Address(address) => [address.ip(); 2],
        Listener::Range(range) => range.ends(),
        Listener::Fwmark { .. } => return,
    };
    if addresses.iter().any(|address| address.is_multicast()) {
        report.error(at.span, "bad-listen", "a service listens on a unicast address");
    }
    let is_range = matches!(at.value, Listener::Range(_));
    let is_any = addresses.iter().any(|address| address.is_unspecified());
    let serves = |backend: &Capabilities| backend.listens_on_any.contains(&built.protocol);
    if is_any && (is_range || !always(built, serves)) {
        let text = match built.protocol {
            Protocol::Tcp => "only the built-in proxy and HAProxy listen on every address",
            Protocol::Udp => "a UDP service listens on addresses that are named",
            Protocol::Sctp => "an SCTP service listens on addresses that are named",
        };
        report.error(at.span, "bad-listen", text).help(match dialect {
            Dialect::Toml if built.protocol == Protocol::Tcp => {
                "name the virtual address, or set the backend to \"proxy\" or \"haproxy\""
            }
            Dialect::Toml => "name the virtual address",
            Dialect::Keepalived => "name the virtual address",
        });
    }
}

/// The instance that serves it has its addresses.
fn held(parsed: &ParsedService, built: &Service, plan: &Plan, report: &mut Report) {
    let Some(name) = &built.instance else { return };
    let Some(instance) = plan.instances.iter().find(|instance| instance.name == *name) else {
        return;
    };
    for at in parsed.listen.list() {
        let is_held = |address: std::net::IpAddr| {
            address.is_unspecified() || instance.addresses.iter().any(|one| one.address == address)
        };
        let mut addresses = at.value.addresses().map(|address| address.ip());
        if let Some(address) = addresses.find(|address| !is_held(*address)) {
            let text = format!("{address} is not an address of instance `{name}`");
            report.warning(at.span, "listen-elsewhere", text).help(
                "the service is served while that instance is master, wherever the address is",
            );
        }
    }
}

/// What two services cannot both have.
#[derive(PartialEq, Eq, Hash)]
enum Taken {
    Address(std::net::SocketAddr, Protocol),
    Mark(NonZeroU32, Family),
}

pub(super) fn distinct(all: &Parsed, plan: &Plan, report: &mut Report) {
    let mut seen: HashMap<Taken, Span> = HashMap::new();
    for (parsed, built) in all.services.iter().zip(&plan.services) {
        for at in listeners(parsed, all.dialect) {
            let mut takes: Vec<Taken> = at
                .value
                .addresses()
                .map(|address| Taken::Address(address, built.protocol))
                .collect();
            if let Listener::Fwmark { mark, family } = at.value {
                takes.push(Taken::Mark(mark, family));
            }
            let mut first = None;
            for taken in takes {
                match seen.entry(taken) {
                    Entry::Occupied(before) => {
                        let what = match before.key() {
                            Taken::Address(address, _) => address.to_string(),
                            Taken::Mark(..) => at.value.to_string(),
                        };
                        first = first.or(Some((what, *before.get())));
                    }
                    Entry::Vacant(free) => {
                        free.insert(at.span);
                    }
                }
            }
            // Once for a range, however many addresses it shares.
            if let Some((what, span)) = first {
                let text = format!("{what} is listened on twice");
                report.error(at.span, "duplicate-listen", text).see("first", span);
            }
        }
    }
}
