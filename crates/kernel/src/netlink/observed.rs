//! What the kernel has, as far as we know, and what we hold of it. Pure.
//!
//! Dumped once, and kept true by what the kernel tells about the doings of others and by what it
//! answers to our own requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::address::FoundAddress;
use super::fact::KernelFactKey;
use super::links::{KernelLink, LinkSnapshot, sources};

/// A fact that an earlier change asked to hold, and that has not been lost since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    /// Prefix length of the address.
    pub prefix: u8,
    /// False when it was there without our mark: hands off.
    pub ours: bool,
}

/// A held address that is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LostAddress {
    pub interface: Arc<str>,
    pub address: IpAddr,
}

/// A link, what is on it, and what was last said about it.
#[derive(Debug)]
struct LinkRow {
    link: KernelLink,
    /// By address and prefix length, each with its place in the kernel's order.
    addresses: BTreeMap<(IpAddr, u8), (u64, FoundAddress)>,
    forwards_v6: bool,
    reported: Option<LinkSnapshot>,
}

/// Links by index, their addresses, and our claims to these.
#[derive(Debug)]
pub(crate) struct Observed {
    links: BTreeMap<u32, LinkRow>,
    indices: HashMap<Arc<str>, u32>,
    claims: HashMap<KernelFactKey, Claim>,
    /// Links that may differ from what was last said about them.
    touched: BTreeSet<u32>,
    /// On a kernel that ignores marks, their absence says nothing.
    keeps_marks: bool,
    /// Place of the next new address in the kernel's order.
    next_place: u64,
}

impl Observed {
    pub(crate) fn new(keeps_marks: bool) -> Self {
        Self {
            links: BTreeMap::new(),
            indices: HashMap::new(),
            claims: HashMap::new(),
            touched: BTreeSet::new(),
            keeps_marks,
            next_place: 0,
        }
    }

    pub(crate) fn keeps_marks(&self) -> bool {
        self.keeps_marks
    }

    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied()
    }

    pub(crate) fn name(&self, index: u32) -> Option<Arc<str>> {
        Some(self.links.get(&index)?.link.name.clone())
    }

    /// Where this address is, with each prefix length.
    pub(crate) fn places_of(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (KernelFactKey, u8)> + '_ {
        self.links.iter().flat_map(move |(index, row)| {
            let here = row.addresses.range((address, 0)..=(address, u8::MAX));
            here.map(|((address, prefix), _)| {
                (KernelFactKey::Address { index: *index, address: *address }, *prefix)
            })
        })
    }

    pub(crate) fn link_indices(&self) -> Vec<u32> {
        self.links.keys().copied().collect()
    }

    /// A new or changed link. Returns the name it had before when that was another one.
    pub(crate) fn set_link(&mut self, link: KernelLink, forwards_v6: bool) -> Option<Arc<str>> {
        let index = link.index;
        self.touched.insert(index);
        let mut former = None;
        match self.links.get_mut(&index) {
            Some(row) => {
                row.forwards_v6 = forwards_v6;
                let old = std::mem::replace(&mut row.link, link);
                if old.name != row.link.name {
                    former = Some(old.name);
                }
            }
            None => {
                let row = LinkRow { link, addresses: BTreeMap::new(), forwards_v6, reported: None };
                self.links.insert(index, row);
            }
        }
        if let Some(former) = &former
            && self.indices.get(former) == Some(&index)
        {
            self.indices.remove(former);
        }
        if let Some(name) = self.name(index) {
            self.indices.insert(name, index);
        }
        former
    }

    /// The link is gone with its addresses, and its index will never come back. Returns its name.
    pub(crate) fn remove_link(&mut self, index: u32) -> Option<Arc<str>> {
        self.claims.retain(|KernelFactKey::Address { index: at, .. }, _| *at != index);
        let name = self.links.remove(&index)?.link.name;
        if self.indices.get(&name) == Some(&index) {
            self.indices.remove(&name);
        }
        Some(name)
    }

    pub(crate) fn set_forwarding(&mut self, index: u32, forwards_v6: bool) {
        if let Some(row) = self.links.get_mut(&index) {
            row.forwards_v6 = forwards_v6;
            self.touched.insert(index);
        }
    }

    /// A new or changed address.
    pub(crate) fn set_address(&mut self, found: FoundAddress) {
        let Some(row) = self.links.get_mut(&found.index) else { return };
        self.keeps_marks |= found.marked;
        if self.keeps_marks
            && !found.marked
            && let Some(claim) = self.claims.get_mut(&key_of(&found))
            && claim.prefix == found.prefix
        {
            // Somebody else has made it theirs.
            claim.ours = false;
        }
        self.touched.insert(found.index);
        match row.addresses.get_mut(&(found.address, found.prefix)) {
            Some((_, known)) => *known = found,
            None => {
                row.addresses.insert((found.address, found.prefix), (self.next_place, found));
                self.next_place += 1;
            }
        }
    }

    pub(crate) fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        if let Some(row) = self.links.get_mut(&index) {
            row.addresses.remove(&(address, prefix));
            self.touched.insert(index);
        }
    }

    /// Everything that is there, after a dump. Returns what was held and is not there.
    pub(crate) fn replace_addresses(&mut self, found: Vec<FoundAddress>) -> Vec<LostAddress> {
        for row in self.links.values_mut() {
            row.addresses.clear();
        }
        for found in found {
            self.set_address(found);
        }
        // A link that vanished unseen took its claims with it.
        self.claims
            .retain(|KernelFactKey::Address { index, .. }, _| self.links.contains_key(index));
        let gone = |key: &&KernelFactKey| self.at(key).next().is_none();
        let gone: Vec<_> = self.claims.keys().filter(gone).copied().collect();
        gone.into_iter().filter_map(|key| self.lose(&key)).collect()
    }

    /// Every address under this key; IPv4 knows one once per prefix length.
    pub(crate) fn at(&self, key: &KernelFactKey) -> impl Iterator<Item = &FoundAddress> {
        let KernelFactKey::Address { index, address } = *key;
        let row = self.links.get(&index);
        row.into_iter()
            .flat_map(move |row| row.addresses.range((address, 0)..=(address, u8::MAX)))
            .map(|(_, (_, found))| found)
    }

    /// Was it put there by us, this process or an earlier one?
    pub(crate) fn is_ours(&self, found: &FoundAddress) -> bool {
        let claimed = |claim: &Claim| claim.ours && claim.prefix == found.prefix;
        found.marked || self.claims.get(&key_of(found)).is_some_and(claimed)
    }

    /// It was asked for with this prefix length, and is there so and not otherwise, as ours.
    pub(crate) fn is_held(&self, key: &KernelFactKey, prefix: u8) -> bool {
        let mut all = self.at(key);
        let is_there = all.next().is_some_and(|found| found.prefix == prefix);
        is_there
            && all.next().is_none()
            && self.claims.get(key) == Some(&Claim { prefix, ours: true })
    }

    pub(crate) fn claim(&mut self, key: KernelFactKey, prefix: u8, ours: bool) {
        self.claims.insert(key, Claim { prefix, ours });
    }

    /// It is not held any more: that it goes is no loss.
    pub(crate) fn disclaim(&mut self, key: &KernelFactKey) {
        self.claims.remove(key);
    }

    /// The address is gone and we did not ask for it. `Some` when it was held; another prefix length
    /// is another address: the one we have just replaced.
    pub(crate) fn disappeared(&mut self, found: &FoundAddress) -> Option<LostAddress> {
        let key = key_of(found);
        let claim = self.claims.get(&key)?;
        if claim.prefix == found.prefix { self.lose(&key) } else { None }
    }

    fn lose(&mut self, key: &KernelFactKey) -> Option<LostAddress> {
        self.claims.remove(key)?;
        let KernelFactKey::Address { index, address } = *key;
        Some(LostAddress { interface: self.name(index)?, address })
    }

    /// Makes [`changed_links`](Self::changed_links) name every link, changed or not.
    pub(crate) fn report_all_links(&mut self) {
        for row in self.links.values_mut() {
            row.reported = None;
        }
        self.touched.extend(self.links.keys());
    }

    /// The state of every link that differs from what this returned before.
    pub(crate) fn changed_links(&mut self) -> Vec<LinkSnapshot> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|index| self.changed_link(index)).collect()
    }

    fn changed_link(&mut self, index: u32) -> Option<LinkSnapshot> {
        let row = self.links.get(&index)?;
        let mut theirs: Vec<_> =
            row.addresses.values().filter(|(_, found)| !self.is_ours(found)).collect();
        theirs.sort_by_key(|(place, _)| *place);
        let sources = sources(theirs.into_iter().map(|(_, found)| found));
        let snapshot = row.link.snapshot(sources, row.forwards_v6);
        let row = self.links.get_mut(&index)?;
        if row.reported.as_ref() == Some(&snapshot) {
            return None;
        }
        row.reported = Some(snapshot.clone());
        Some(snapshot)
    }
}

fn key_of(found: &FoundAddress) -> KernelFactKey {
    KernelFactKey::Address { index: found.index, address: found.address }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressFlags;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
    const KEY: KernelFactKey = KernelFactKey::Address { index: 3, address: ADDRESS };

    fn found(prefix: u8, marked: bool) -> FoundAddress {
        let flags = AddressFlags::empty();
        FoundAddress { index: 3, address: ADDRESS, prefix, flags, marked, valid_seconds: None }
    }

    fn with_eth0(keeps_marks: bool) -> Observed {
        let mut observed = Observed::new(keeps_marks);
        assert_eq!(observed.set_link(KernelLink::named(3, "eth0"), false), None);
        observed
    }

    #[test]
    fn only_a_held_address_can_be_lost_and_only_once() {
        let mut observed = with_eth0(true);
        assert_eq!(observed.disappeared(&found(24, true)), None);
        let lost = Some(LostAddress { interface: "eth0".into(), address: ADDRESS });
        for ours in [true, false] {
            observed.claim(KEY, 24, ours);
            assert_eq!(observed.disappeared(&found(32, true)), None, "the replaced prefix length");
            assert_eq!(observed.disappeared(&found(24, true)), lost);
            assert_eq!(observed.disappeared(&found(24, true)), None);
        }
    }

    #[test]
    fn a_missing_mark_says_nothing_until_the_kernel_is_known_to_keep_marks() {
        let mut observed = with_eth0(false);
        observed.claim(KEY, 24, true);
        observed.set_address(found(24, false));
        assert!(observed.is_ours(&found(24, false)));
        observed.set_address(found(32, true));
        observed.set_address(found(24, false));
        assert!(!observed.is_ours(&found(24, false)), "somebody else has replaced it");
    }

    #[test]
    fn a_dump_shows_what_was_lost_unseen() {
        let mut observed = with_eth0(true);
        observed.claim(KEY, 24, true);
        observed.claim(KernelFactKey::Address { index: 4, address: ADDRESS }, 24, true);
        assert_eq!(observed.replace_addresses(vec![found(24, true)]), [], "no such link");
        let lost = LostAddress { interface: "eth0".into(), address: ADDRESS };
        assert_eq!(observed.replace_addresses(vec![]), [lost]);
    }

    #[test]
    fn a_link_takes_its_claims_with_it() {
        let mut observed = with_eth0(true);
        observed.claim(KEY, 24, true);
        assert_eq!(observed.remove_link(3).as_deref(), Some("eth0"));
        assert_eq!(observed.index("eth0"), None);
        observed.set_link(KernelLink::named(3, "eth0"), false);
        assert_eq!(observed.disappeared(&found(24, true)), None);
    }

    #[test]
    fn a_link_is_reported_once_per_change_and_again_when_all_are() {
        let mut observed = with_eth0(true);
        assert_eq!(observed.changed_links().len(), 1);
        assert_eq!(observed.changed_links(), []);
        observed.set_address(found(24, true));
        assert_eq!(observed.changed_links(), [], "ours is no news");
        observed.set_address(FoundAddress { address: [192, 0, 2, 2].into(), ..found(24, false) });
        observed.set_address(FoundAddress { address: [192, 0, 2, 1].into(), ..found(24, false) });
        let [link] = &observed.changed_links()[..] else { panic!("one event for two addresses") };
        let expected: [IpAddr; 2] = [[192, 0, 2, 2].into(), [192, 0, 2, 1].into()];
        assert_eq!(link.addresses, expected, "in the kernel's order");
        observed.report_all_links();
        assert_eq!(observed.changed_links().len(), 1);
    }

    #[test]
    fn links_are_found_by_their_present_name() {
        let mut observed = with_eth0(true);
        assert_eq!(observed.set_link(KernelLink::named(3, "wan"), false).as_deref(), Some("eth0"));
        observed.set_link(KernelLink::named(4, "eth0"), false);
        assert_eq!((observed.index("wan"), observed.index("eth0")), (Some(3), Some(4)));
        assert_eq!(observed.remove_link(3).as_deref(), Some("wan"));
        assert_eq!((observed.index("wan"), observed.index("eth0")), (None, Some(4)));
    }
}
