//! Virtual addresses: from what the engine wants to what netlink is asked, and back.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use locum_engine::{Asked, Fact, FactKey, HeldAddress, Inherited, Refusal, Removal, Whose};
use locum_kernel::netlink::{
    self, AddressSpec, ApplyError, FactAction, FactFailure, FactRemoval, MarkedAddress,
    MonitorEvent, Netlink, WantedFacts,
};
use locum_plan::Scope;

use super::kind::{Apply, ApplyRound, FactKind};

/// They are held and dropped in one go: netlink knows the order.
pub struct Addresses;

impl FactKind for Addresses {
    fn inherited(&mut self, netlink: &mut Netlink) -> io::Result<Vec<Inherited>> {
        let marked = netlink.marked_addresses()?.into_iter();
        let inherited = |found: MarkedAddress| {
            let MarkedAddress { interface, address, prefix, valid_seconds } = found;
            Inherited::address(interface, address, prefix, valid_seconds)
        };
        Ok(marked.map(inherited).collect())
    }

    fn hold(&mut self, round: &mut ApplyRound<'_>) {
        // Side by side: one address is the rule, and there are hundreds of levels.
        let held: Vec<netlink::KernelFact> =
            round.levels.iter().flat_map(holds).map(fact).collect();
        let dropped: Vec<FactRemoval> = round.levels.iter().flat_map(drops).collect();
        let (mut held, mut dropped) = (&held[..], &dropped[..]);
        let change = |level: &Apply| WantedFacts {
            hold: split_off(&mut held, holds(level).count()),
            drop: split_off(&mut dropped, drops(level).count()),
        };
        let changes: Vec<_> = round.levels.iter().map(change).collect();
        for (at, result) in round.netlink.apply_all(&changes).into_iter().enumerate() {
            match result {
                Ok(()) => {}
                Err(ApplyError::Facts(failures)) => {
                    round.refuse(at, failures.into_iter().map(refusal));
                }
                Err(ApplyError::Socket(error)) => {
                    round.answers[at] = Err(format!("netlink: {error}"))
                }
            }
        }
    }

    fn lost(&mut self, event: &MonitorEvent) -> Option<(FactKey, Option<String>)> {
        let MonitorEvent::AddressLost { interface, address, culprit } = event else { return None };
        let key = FactKey::Address { interface: Arc::clone(interface), address: *address };
        Some((key, culprit.clone()))
    }
}

fn holds(level: &Apply) -> impl Iterator<Item = &HeldAddress> {
    level.hold.iter().filter_map(Fact::address)
}

fn drops(level: &Apply) -> impl Iterator<Item = FactRemoval> + '_ {
    level.drop.iter().filter_map(unwanted)
}

/// The first so many, which there are.
fn split_off<'a, T>(all: &mut &'a [T], count: usize) -> &'a [T] {
    let (first, others) = all.split_at(count);
    *all = others;
    first
}

fn refusal(failure: FactFailure) -> Refusal {
    let netlink::KernelFact::Address(spec) = failure.fact;
    Refusal {
        asked: match failure.action {
            FactAction::Add | FactAction::Renew => Asked::Hold,
            FactAction::Remove => Asked::Drop,
        },
        key: FactKey::Address { interface: spec.interface, address: spec.address },
        error: failure.error.to_string(),
    }
}

fn fact(held: &HeldAddress) -> netlink::KernelFact {
    spec(held).into()
}

fn unwanted(removal: &Removal) -> Option<FactRemoval> {
    let whose = match removal.whose {
        Whose::Ours => netlink::RemovalScope::Ours,
        Whose::Anyones => netlink::RemovalScope::Anyones,
    };
    Some(FactRemoval { fact: fact(removal.fact.address()?), whose })
}

fn spec(held: &HeldAddress) -> AddressSpec {
    let address = &held.address;
    AddressSpec {
        interface: Arc::clone(&held.interface),
        address: address.address,
        prefix: address.prefix,
        broadcast: address.broadcast().filter(IpAddr::is_ipv4),
        label: address.label().cloned(),
        scope: match address.scope {
            Scope::Global => netlink::KernelScope::Global,
            Scope::Site => netlink::KernelScope::Site,
            Scope::Link => netlink::KernelScope::Link,
            Scope::Host => netlink::KernelScope::Host,
        },
        nodad: !address.duplicate_detection,
        noprefixroute: address.no_prefix_route,
        valid_seconds: held.lease_seconds,
    }
}
