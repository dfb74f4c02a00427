//! Which requests make the kernel hold and not hold what is wanted, and in which order. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::address::{AddressSpec, FoundAddress};
use super::fact::{KernelFact, KernelFactKey, RemovalScope, WantedFacts};
use super::observed::Observed;
use crate::diff::{Difference, diff};

/// One request to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step<'a> {
    pub key: KernelFactKey,
    pub task: Task<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task<'a> {
    /// It is not there; refused if it appears in the meantime.
    Add(&'a AddressSpec),
    /// It is there and ours.
    Renew(&'a AddressSpec),
    /// It is there, with this prefix length.
    Remove { prefix: u8 },
}

/// What several changes want together.
#[derive(Debug, Default)]
pub(crate) struct WantedByKey<'a> {
    pub hold: BTreeMap<KernelFactKey, &'a AddressSpec>,
    /// Without what is in `hold`.
    pub drop: BTreeMap<KernelFactKey, RemovalScope>,
}

impl<'a> WantedByKey<'a> {
    /// Of a fact that two changes hold, the first one counts; one that is held and dropped is held.
    /// What is on a link that does not exist is left out.
    pub(crate) fn of(changes: &[WantedFacts<'a>], observed: &Observed) -> Self {
        let key = |fact: &KernelFact| Some(fact.key(observed.index(fact.interface())?));
        let mut wanted = Self::default();
        for fact in changes.iter().flat_map(|change| change.hold) {
            let KernelFact::Address(spec) = fact;
            if let Some(key) = key(fact) {
                wanted.hold.entry(key).or_insert(spec);
            }
        }
        for unwanted in changes.iter().flat_map(|change| change.drop) {
            let Some(key) = key(&unwanted.fact) else { continue };
            if !wanted.hold.contains_key(&key) {
                let whose = wanted.drop.entry(key).or_insert(unwanted.whose);
                if unwanted.whose == RemovalScope::Anyones {
                    *whose = RemovalScope::Anyones;
                }
            }
        }
        wanted
    }
}

#[derive(Debug, Default)]
pub(crate) struct StepPlan<'a> {
    /// In the order in which they are to be carried out.
    pub steps: Vec<Step<'a>>,
    /// Held by someone else already, with this prefix length.
    pub foreign: Vec<(KernelFactKey, u8)>,
}

/// The requests where nothing is wanted but that what is held stays: all of it is in place and ours,
/// and nothing is dropped. That is so of nearly every change, and needs none of the tables of the
/// other ones. What two changes hold is renewed twice.
pub(crate) fn renewals<'a>(
    changes: &[WantedFacts<'a>],
    observed: &Observed,
) -> Option<Vec<Step<'a>>> {
    let mut steps = Vec::with_capacity(changes.len());
    for change in changes {
        if !change.drop.is_empty() {
            return None;
        }
        for fact in change.hold {
            let KernelFact::Address(spec) = fact;
            let key = fact.key(observed.index(fact.interface())?);
            if !observed.is_held(&key, spec.prefix) {
                return None;
            }
            steps.push(Step { key, task: Task::Renew(spec) });
        }
    }
    Some(steps)
}

/// Orders the requests: what must go before its successor can come, what is held, what goes. No
/// address of `hold` is ever without the kernel having it when it can be avoided.
pub(crate) fn plan<'a>(wanted: &WantedByKey<'a>, observed: &Observed) -> StepPlan<'a> {
    let concerned = wanted.hold.keys().chain(wanted.drop.keys());
    let there: BTreeMap<KernelFactKey, Vec<&FoundAddress>> = concerned
        .map(|key| (*key, observed.at(key).collect::<Vec<_>>()))
        .filter(|(_, there)| !there.is_empty())
        .collect();
    let mut order = Order::default();
    for (key, difference) in diff(&wanted.hold, &there) {
        match difference {
            Difference::Missing(spec) => order.hold(key, Task::Add(spec)),
            Difference::Both(spec, there) => {
                let ours = there.iter().filter(|found| observed.is_ours(found));
                order.keep(key, spec, there, ours.map(|found| found.prefix).collect());
            }
            Difference::Extra(there) => {
                let all = wanted.drop.get(&key) == Some(&RemovalScope::Anyones);
                for found in there.iter().filter(|found| all || observed.is_ours(found)) {
                    order.remove_after(key, found.prefix);
                }
            }
        }
    }
    order.into_plan()
}

/// Steps by their place in the order.
#[derive(Default)]
struct Order<'a> {
    before: Vec<Step<'a>>,
    hold: Vec<Step<'a>>,
    after: Vec<Step<'a>>,
    foreign: Vec<(KernelFactKey, u8)>,
}

impl<'a> Order<'a> {
    fn hold(&mut self, key: KernelFactKey, task: Task<'a>) {
        self.hold.push(Step { key, task });
    }

    fn remove_after(&mut self, key: KernelFactKey, prefix: u8) {
        self.after.push(Step { key, task: Task::Remove { prefix } });
    }

    /// An address that is there, with these prefix lengths by us, and shall be as in `spec`.
    fn keep(
        &mut self,
        key: KernelFactKey,
        spec: &'a AddressSpec,
        there: &[&FoundAddress],
        ours: Vec<u8>,
    ) {
        if ours.is_empty() {
            let prefix = there.first().map_or(spec.prefix, |found| found.prefix);
            self.foreign.push((key, prefix));
            return;
        }
        let is_right = ours.contains(&spec.prefix);
        self.hold(key, if is_right { Task::Renew(spec) } else { Task::Add(spec) });
        for prefix in ours.into_iter().filter(|prefix| *prefix != spec.prefix) {
            // IPv6 knows an address once per interface; IPv4 once per prefix length.
            match spec.address {
                IpAddr::V4(_) => self.remove_after(key, prefix),
                IpAddr::V6(_) => self.before.push(Step { key, task: Task::Remove { prefix } }),
            }
        }
    }

    fn into_plan(mut self) -> StepPlan<'a> {
        // What was put there last may build on what was there before.
        self.after.reverse();
        let mut steps = self.before;
        steps.append(&mut self.hold);
        steps.append(&mut self.after);
        StepPlan { steps, foreign: self.foreign }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressFlags;

    use super::*;
    use crate::netlink::address::KernelScope;
    use crate::netlink::fact::FactRemoval;
    use crate::netlink::links::KernelLink;

    fn spec(address: &str, prefix: u8) -> KernelFact {
        KernelFact::Address(AddressSpec {
            interface: "eth0".into(),
            address: address.parse().unwrap(),
            prefix,
            broadcast: None,
            label: None,
            scope: KernelScope::Global,
            nodad: true,
            noprefixroute: false,
            valid_seconds: None,
        })
    }

    fn dropped(address: &str, whose: RemovalScope) -> FactRemoval {
        FactRemoval { fact: spec(address, 24), whose }
    }

    /// Addresses of eth0, marked or not.
    fn observed(found: &[(&str, u8, bool)]) -> Observed {
        let mut observed = Observed::new(true);
        observed.set_link(KernelLink::named(1, "eth0"), false);
        for (address, prefix, marked) in found {
            let (address, flags) = (address.parse().unwrap(), AddressFlags::empty());
            let (prefix, marked) = (*prefix, *marked);
            let found =
                FoundAddress { index: 1, address, prefix, flags, marked, valid_seconds: None };
            observed.set_address(found);
        }
        observed
    }

    fn planned(hold: &[KernelFact], drop: &[FactRemoval], observed: &Observed) -> Vec<String> {
        let wanted = WantedByKey::of(&[WantedFacts { hold, drop }], observed);
        let plan = plan(&wanted, observed);
        let address = |KernelFactKey::Address { address, .. }: KernelFactKey| address;
        let step = |step: &Step<'_>| match step.task {
            Task::Add(spec) => format!("add {}/{}", address(step.key), spec.prefix),
            Task::Renew(spec) => format!("renew {}/{}", address(step.key), spec.prefix),
            Task::Remove { prefix } => format!("remove {}/{prefix}", address(step.key)),
        };
        let foreign = |(key, _): &(KernelFactKey, u8)| format!("leave {}", address(*key));
        plan.steps.iter().map(step).chain(plan.foreign.iter().map(foreign)).collect()
    }

    #[test]
    fn absent_is_added_and_ours_is_renewed() {
        let hold = [spec("192.0.2.1", 24), spec("192.0.2.2", 24)];
        let steps = planned(&hold, &[], &observed(&[("192.0.2.2", 24, true)]));
        assert_eq!(steps, ["add 192.0.2.1/24", "renew 192.0.2.2/24"]);
    }

    #[test]
    fn without_our_mark_it_is_neither_renewed_nor_removed() {
        let there = observed(&[("192.0.2.1", 24, false), ("192.0.2.2", 24, false)]);
        let drop = [dropped("192.0.2.2", RemovalScope::Ours)];
        assert_eq!(planned(&[spec("192.0.2.1", 32)], &drop, &there), ["leave 192.0.2.1"]);
    }

    #[test]
    fn anyones_goes_with_every_prefix_length_when_asked() {
        let there = observed(&[("192.0.2.2", 32, false), ("192.0.2.2", 24, true)]);
        let steps = planned(&[], &[dropped("192.0.2.2", RemovalScope::Anyones)], &there);
        assert_eq!(steps, ["remove 192.0.2.2/32", "remove 192.0.2.2/24"]);
        let steps = planned(&[], &[dropped("192.0.2.2", RemovalScope::Ours)], &there);
        assert_eq!(steps, ["remove 192.0.2.2/24"]);
    }

    #[test]
    fn what_is_in_place_and_ours_is_renewed_without_a_plan_and_nothing_else_is() {
        let mut there = observed(&[
            ("192.0.2.1", 24, true),
            ("192.0.2.2", 24, true),
            ("192.0.2.3", 24, false),
            ("192.0.2.4", 24, true),
            ("192.0.2.4", 32, true),
            ("192.0.2.5", 24, true),
        ]);
        let claimed = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.6"];
        for address in claimed {
            let key = KernelFactKey::Address { index: 1, address: address.parse().unwrap() };
            there.claim(key, 24, address != "192.0.2.3");
        }
        let renewed = |hold: &[&str], drop: &[FactRemoval]| {
            let hold: Vec<KernelFact> = hold.iter().map(|address| spec(address, 24)).collect();
            let changes = [WantedFacts { hold: &hold, drop }];
            let steps = renewals(&changes, &there)?;
            // Where there is nothing else to do, the plan says the same.
            let planned = plan(&WantedByKey::of(&changes, &there), &there);
            assert_eq!((&steps, planned.foreign.len()), (&planned.steps, 0));
            Some(steps.len())
        };
        assert_eq!(renewed(&["192.0.2.1", "192.0.2.2"], &[]), Some(2));
        let drop = [dropped("192.0.2.9", RemovalScope::Ours)];
        assert_eq!(renewed(&["192.0.2.1"], &drop), None, "something is dropped");
        for (address, why) in [
            ("192.0.2.3", "without our mark"),
            ("192.0.2.4", "another one of ours is in the way"),
            ("192.0.2.5", "nobody asked for it before"),
            ("192.0.2.6", "it is not there"),
        ] {
            assert_eq!(renewed(&["192.0.2.1", address], &[]), None, "{why}");
        }
        let elsewhere = [KernelFact::Address(AddressSpec {
            interface: "eth1".into(),
            ..match spec("192.0.2.1", 24) {
                KernelFact::Address(spec) => spec,
            }
        })];
        assert_eq!(
            renewals(&[WantedFacts { hold: &elsewhere, drop: &[] }], &there),
            None,
            "no link"
        );
        let other = [spec("192.0.2.1", 32)];
        assert_eq!(
            renewals(&[WantedFacts { hold: &other, drop: &[] }], &there),
            None,
            "other prefix"
        );
    }

    #[test]
    fn holds_come_before_drops_and_an_address_in_both_is_held() {
        let hold = [spec("192.0.2.1", 24)];
        let drop =
            [dropped("192.0.2.2", RemovalScope::Ours), dropped("192.0.2.1", RemovalScope::Anyones)];
        let there = observed(&[("192.0.2.1", 24, true), ("192.0.2.2", 24, true)]);
        assert_eq!(planned(&hold, &drop, &there), ["renew 192.0.2.1/24", "remove 192.0.2.2/24"]);
    }

    #[test]
    fn what_one_change_holds_no_other_one_drops() {
        let there = observed(&[("192.0.2.1", 24, true)]);
        let (hold, drop) = ([spec("192.0.2.1", 24)], [dropped("192.0.2.1", RemovalScope::Ours)]);
        let changes =
            [WantedFacts { hold: &[], drop: &drop }, WantedFacts { hold: &hold, drop: &[] }];
        let wanted = WantedByKey::of(&changes, &there);
        assert_eq!((wanted.hold.len(), wanted.drop.len()), (1, 0));
    }

    #[test]
    fn another_prefix_length_replaces_make_before_break_where_the_kernel_can() {
        let there = observed(&[("192.0.2.1", 24, true), ("2001:db8::1", 64, true)]);
        let v4 = planned(&[spec("192.0.2.1", 32)], &[], &there);
        assert_eq!(v4, ["add 192.0.2.1/32", "remove 192.0.2.1/24"]);
        let v6 = planned(&[spec("2001:db8::1", 128)], &[], &there);
        assert_eq!(v6, ["remove 2001:db8::1/64", "add 2001:db8::1/128"]);
    }

    #[test]
    fn where_no_marks_are_kept_what_we_claimed_is_ours() {
        let mut there = Observed::new(false);
        there.set_link(KernelLink::named(1, "eth0"), false);
        let key = KernelFactKey::Address { index: 1, address: "192.0.2.1".parse().unwrap() };
        there.claim(key, 24, true);
        let (address, flags) = ("192.0.2.1".parse().unwrap(), AddressFlags::empty());
        let (prefix, marked, valid_seconds) = (24, false, None);
        there.set_address(FoundAddress { index: 1, address, prefix, flags, marked, valid_seconds });
        assert_eq!(planned(&[spec("192.0.2.1", 24)], &[], &there), ["renew 192.0.2.1/24"]);
    }
}
