//! Which requests make the kernel hold and not hold addresses. Pure.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;

use crate::netlink::AddressSpec;
use crate::netlink::address::Found;
use crate::netlink::ledger::Entry;
use crate::netlink::ledger::Holding;
use crate::netlink::ledger::Key;

/// An address asked for, on an interface that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub spec: &'a AddressSpec,
    pub index: u32,
}

impl Wanted<'_> {
    pub(crate) fn key(&self) -> Key {
        (self.index, self.spec.address)
    }
}

/// One request to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// It is not there; refused if it appears in the meantime.
    Add(Wanted<'a>),
    /// It is there and ours.
    Renew(Wanted<'a>),
    /// It is there and ours, with this prefix length.
    Remove { wanted: Wanted<'a>, prefix: u8 },
}

#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// In the order in which they are to be carried out.
    pub steps: Vec<Step<'a>>,
    /// Held by someone else already, with this prefix length.
    pub foreign: Vec<(Key, u8)>,
    /// Not held any more, and nothing to do for it.
    pub forgotten: Vec<Key>,
}

/// What is known about an address before anything is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Present {
    Absent,
    Ours { prefix: u8 },
    Foreign { prefix: u8 },
}

/// Is the ledger enough for all of these? Otherwise the kernel must be asked.
pub(crate) fn is_certain(wanted: &[Wanted<'_>], known: impl Fn(Key) -> Option<Entry>) -> bool {
    wanted
        .iter()
        .all(|wanted| known(wanted.key()).is_some_and(|entry| entry.holding != Holding::Void))
}

/// Orders the requests: what must go before its successor can come, what is held, what goes. No
/// address of `hold` is ever without the kernel having it when it can be avoided.
pub(crate) fn plan<'a>(
    hold: &[Wanted<'a>],
    drop: &[Wanted<'a>],
    known: impl Fn(Key) -> Option<Entry>,
    found: &[Found],
) -> Plan<'a> {
    let mut by_key: HashMap<Key, Vec<&Found>> = HashMap::new();
    for found in found {
        by_key.entry((found.index, found.address)).or_default().push(found);
    }
    let present = |wanted: &Wanted<'_>| {
        let here = by_key.get(&wanted.key()).map_or(&[][..], Vec::as_slice);
        presence(known(wanted.key()), here, wanted.spec.prefix)
    };

    let mut plan = Plan::default();
    let (mut before, mut holds, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut held = HashSet::new();
    for wanted in hold.iter().filter(|wanted| held.insert(wanted.key())) {
        match present(wanted) {
            Present::Absent => holds.push(Step::Add(*wanted)),
            Present::Foreign { prefix } => plan.foreign.push((wanted.key(), prefix)),
            Present::Ours { prefix } if prefix == wanted.spec.prefix => {
                holds.push(Step::Renew(*wanted));
            }
            Present::Ours { prefix } => {
                let remove = Step::Remove { wanted: *wanted, prefix };
                // IPv6 knows an address once per interface; IPv4 once per prefix length.
                match wanted.spec.address {
                    IpAddr::V4(_) => after.push(remove),
                    IpAddr::V6(_) => before.push(remove),
                }
                holds.push(Step::Add(*wanted));
            }
        }
    }
    let mut dropped = HashSet::new();
    let not_held = |wanted: &&Wanted<'_>| !held.contains(&wanted.key());
    for wanted in drop.iter().filter(not_held).filter(|wanted| dropped.insert(wanted.key())) {
        match present(wanted) {
            Present::Ours { prefix } => after.push(Step::Remove { wanted: *wanted, prefix }),
            Present::Absent | Present::Foreign { .. } => plan.forgotten.push(wanted.key()),
        }
    }
    plan.steps = before;
    plan.steps.append(&mut holds);
    plan.steps.append(&mut after);
    plan
}

fn presence(known: Option<Entry>, here: &[&Found], prefix: u8) -> Present {
    match known {
        Some(Entry { prefix, holding: Holding::Ours }) => return Present::Ours { prefix },
        Some(Entry { prefix, holding: Holding::Foreign }) => return Present::Foreign { prefix },
        Some(Entry { holding: Holding::Void, .. }) | None => {}
    }
    // Of several prefix lengths the wanted one is the one to renew.
    let marked = || here.iter().filter(|found| found.marked);
    if let Some(found) = marked().find(|found| found.prefix == prefix).or(marked().next()) {
        return Present::Ours { prefix: found.prefix };
    }
    match here.first() {
        Some(found) => Present::Foreign { prefix: found.prefix },
        None => Present::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Scope;
    use netlink_packet_route::address::AddressFlags;

    fn spec(address: &str, prefix: u8) -> AddressSpec {
        AddressSpec {
            interface: "eth0".into(),
            address: address.parse().unwrap(),
            prefix,
            broadcast: None,
            label: None,
            scope: Scope::Global,
            nodad: true,
            noprefixroute: false,
            valid_seconds: None,
        }
    }

    fn found(address: &str, prefix: u8, marked: bool) -> Found {
        Found {
            index: 1,
            address: address.parse().unwrap(),
            prefix,
            flags: AddressFlags::empty(),
            marked,
            valid_seconds: None,
        }
    }

    fn planned(hold: &[AddressSpec], drop: &[AddressSpec], found: &[Found]) -> Vec<String> {
        planned_knowing(hold, drop, None, found)
    }

    fn planned_knowing(
        hold: &[AddressSpec],
        drop: &[AddressSpec],
        entry: Option<Entry>,
        found: &[Found],
    ) -> Vec<String> {
        let on_link = |spec| Wanted { spec, index: 1 };
        let hold: Vec<_> = hold.iter().map(on_link).collect();
        let drop: Vec<_> = drop.iter().map(on_link).collect();
        let plan = plan(&hold, &drop, |_| entry, found);
        let name = |wanted: &Wanted<'_>| format!("{}/{}", wanted.spec.address, wanted.spec.prefix);
        let step = |step: &Step<'_>| match step {
            Step::Add(wanted) => format!("add {}", name(wanted)),
            Step::Renew(wanted) => format!("renew {}", name(wanted)),
            Step::Remove { wanted, prefix } => format!("remove {}/{prefix}", wanted.spec.address),
        };
        let foreign = |((_, address), _): &(Key, u8)| format!("leave {address}");
        let forgotten = |(_, address): &Key| format!("forget {address}");
        plan.steps
            .iter()
            .map(step)
            .chain(plan.foreign.iter().map(foreign))
            .chain(plan.forgotten.iter().map(forgotten))
            .collect()
    }

    #[test]
    fn absent_is_added_and_ours_is_renewed() {
        let hold = [spec("192.0.2.1", 24), spec("192.0.2.2", 24)];
        let steps = planned(&hold, &[], &[found("192.0.2.2", 24, true)]);
        assert_eq!(steps, ["add 192.0.2.1/24", "renew 192.0.2.2/24"]);
    }

    #[test]
    fn without_our_mark_it_is_neither_renewed_nor_removed() {
        let found = [found("192.0.2.1", 24, false), found("192.0.2.2", 24, false)];
        let steps = planned(&[spec("192.0.2.1", 32)], &[spec("192.0.2.2", 24)], &found);
        assert_eq!(steps, ["leave 192.0.2.1", "forget 192.0.2.2"]);
    }

    #[test]
    fn holds_come_before_drops_and_an_address_in_both_is_held() {
        let hold = [spec("192.0.2.1", 24)];
        let drop = [spec("192.0.2.2", 24), spec("192.0.2.1", 24)];
        let found = [found("192.0.2.1", 24, true), found("192.0.2.2", 24, true)];
        let steps = planned(&hold, &drop, &found);
        assert_eq!(steps, ["renew 192.0.2.1/24", "remove 192.0.2.2/24"]);
    }

    #[test]
    fn another_prefix_length_replaces_make_before_break_where_the_kernel_can() {
        let v4 = planned(&[spec("192.0.2.1", 32)], &[], &[found("192.0.2.1", 24, true)]);
        assert_eq!(v4, ["add 192.0.2.1/32", "remove 192.0.2.1/24"]);
        let v6 = planned(&[spec("2001:db8::1", 128)], &[], &[found("2001:db8::1", 64, true)]);
        assert_eq!(v6, ["remove 2001:db8::1/64", "add 2001:db8::1/128"]);
    }

    #[test]
    fn the_ledger_is_enough_unless_it_is_void() {
        let hold = [spec("192.0.2.1", 24)];
        let wanted = [Wanted { spec: &hold[0], index: 1 }];
        let entry = |holding| Some(Entry { prefix: 24, holding });
        assert!(is_certain(&wanted, |_| entry(Holding::Ours)));
        assert!(is_certain(&wanted, |_| entry(Holding::Foreign)));
        assert!(!is_certain(&wanted, |_| entry(Holding::Void)));
        assert!(!is_certain(&wanted, |_| None));
        let renewed = planned_knowing(&hold, &[], entry(Holding::Ours), &[]);
        assert_eq!(renewed, ["renew 192.0.2.1/24"]);
        let added = planned_knowing(&hold, &[], entry(Holding::Void), &[]);
        assert_eq!(added, ["add 192.0.2.1/24"]);
    }
}
