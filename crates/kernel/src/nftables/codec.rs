//! Messages of nf_tables as octets: linux/netfilter/nf_tables.h. Pure.
//!
//! Numbers are big-endian. Names of attributes are the header's without their prefix.

use std::net::IpAddr;
use std::time::Duration;

use crate::attribute::{Attributes, attributes};
use crate::transport::{NLM_F_CREATE, Request};

/// NFNL_SUBSYS_NFTABLES, the upper octet of a message's type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DELETE_ELEMENTS: u16 = 14;

/// Rules are added behind those that are there.
const NLM_F_APPEND: u16 = 0x800;

/// struct nfgenmsg: family u8, version u8, resource u16.
pub(crate) const HEADER_OCTETS: usize = 4;

/// LIST_ELEM, of every list.
const LIST_ELEMENT: u16 = 1;
/// NFTA_DATA_VALUE and NFTA_DATA_VERDICT, in what holds either.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// NFTA_SET_ELEM_*.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
/// NFTA_SET_ELEM_LIST_*.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;

/// Which packets a table sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum PacketFamily {
    Ipv4,
    Ipv6,
}

impl PacketFamily {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    fn number(self) -> u8 {
        let number = match self {
            Self::Ipv4 => libc::NFPROTO_IPV4,
            Self::Ipv6 => libc::NFPROTO_IPV6,
        };
        // INVARIANT: 2 and 10.
        u8::try_from(number).expect("a small number")
    }

    pub(crate) fn address_octets(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }

    /// Type of an address as the `nft` program prints it.
    fn address_type(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
        }
    }
}

/// Type of a port as the `nft` program prints it.
const PORT_TYPE: u32 = 13;
/// A key of several parts has all their types in one number, this many bits each.
const TYPE_BITS: u32 = 6;

/// Where a chain sees packets: NF_INET_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// As they arrive.
    Prerouting = 0,
    /// Those for this host.
    Input = 1,
}

/// What a set holds, and whether its elements run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    Addresses,
    /// With a lifetime each.
    LeasedAddresses,
    /// Address to address, with a lifetime each.
    AddressMap,
    /// Source, its port, destination's port, destination; added by rules, for this long.
    Connections(Duration),
}

/// The most connections that are remembered at once.
const MOST_CONNECTIONS: u32 = 1 << 18;

pub(crate) fn begin() -> Request {
    batch(BATCH_BEGIN)
}

pub(crate) fn end() -> Request {
    batch(BATCH_END)
}

fn batch(kind: u16) -> Request {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    // NFPROTO_UNSPEC.
    Request { kind, flags: 0, body: vec![0, 0, high, low] }
}

/// A table of ours, for the messages about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnTable {
    pub family: PacketFamily,
    pub name: &'static str,
}

impl OwnTable {
    pub(crate) fn create(self) -> Request {
        const NAME: u16 = 1;
        let mut body = self.body();
        body.put_text(NAME, self.name);
        request(NEW_TABLE, NLM_F_CREATE, body)
    }

    pub(crate) fn delete(self) -> Request {
        const NAME: u16 = 1;
        let mut body = self.body();
        body.put_text(NAME, self.name);
        request(DELETE_TABLE, 0, body)
    }

    /// A chain that sees packets at `hook`, before those with a higher `priority`.
    pub(crate) fn create_hooked_chain(self, chain: &str, hook: Hook, priority: i32) -> Request {
        const HOOK: u16 = 4;
        const KIND: u16 = 7;
        const HOOK_NUMBER: u16 = 1;
        const HOOK_PRIORITY: u16 = 2;
        let mut place = numbers(&[(HOOK_NUMBER, hook as u32)]);
        place.put(HOOK_PRIORITY, &priority.to_be_bytes());
        let mut body = self.chain_body(chain);
        body.put(HOOK, place.octets());
        body.put_text(KIND, "filter");
        request(NEW_CHAIN, NLM_F_CREATE, body)
    }

    /// A chain that rules jump to.
    pub(crate) fn create_chain(self, chain: &str) -> Request {
        request(NEW_CHAIN, NLM_F_CREATE, self.chain_body(chain))
    }

    /// `id` is any number, of no other set in the same transaction.
    pub(crate) fn create_set(self, name: &str, id: u32, holds: Holds) -> Request {
        const TABLE: u16 = 1;
        const NAME: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_TYPE: u16 = 4;
        const KEY_OCTETS: u16 = 5;
        const DATA_TYPE: u16 = 6;
        const DATA_OCTETS: u16 = 7;
        const DESCRIPTION: u16 = 9;
        const ID: u16 = 10;
        const TIMEOUT: u16 = 11;
        const DESCRIPTION_SIZE: u16 = 1;
        const IS_MAP: u32 = 0x8;
        const HAS_TIMEOUT: u32 = 0x10;
        const IS_CHANGED_BY_RULES: u32 = 0x20;
        let Self { family, .. } = self;
        let (octets, kind) = (family.address_octets(), family.address_type());
        let mut body = self.body();
        body.put_text(TABLE, self.name);
        body.put_text(NAME, name);
        body.put(ID, &id.to_be_bytes());
        let mut put = |attribute: u16, number: u32| body.put(attribute, &number.to_be_bytes());
        match holds {
            Holds::Addresses | Holds::LeasedAddresses => {
                put(FLAGS, if holds == Holds::Addresses { 0 } else { HAS_TIMEOUT });
                put(KEY_TYPE, kind);
                put(KEY_OCTETS, octets);
            }
            Holds::AddressMap => {
                put(FLAGS, IS_MAP | HAS_TIMEOUT);
                put(KEY_TYPE, kind);
                put(KEY_OCTETS, octets);
                put(DATA_TYPE, kind);
                put(DATA_OCTETS, octets);
            }
            Holds::Connections(lifetime) => {
                put(FLAGS, HAS_TIMEOUT | IS_CHANGED_BY_RULES);
                let parts = [kind, PORT_TYPE, PORT_TYPE, kind];
                put(KEY_TYPE, parts.iter().fold(0, |all, part| (all << TYPE_BITS) | part));
                put(KEY_OCTETS, 2 * octets + 2 * PORT_REGISTER_OCTETS);
                let mut description = Attributes::default();
                description.put(DESCRIPTION_SIZE, &MOST_CONNECTIONS.to_be_bytes());
                body.put(DESCRIPTION, description.octets());
                body.put(TIMEOUT, &milliseconds(lifetime).to_be_bytes());
            }
        }
        request(NEW_SET, NLM_F_CREATE, body)
    }

    /// Behind the rules that `chain` has.
    pub(crate) fn append_rule(self, chain: &str, rule: Rule) -> Request {
        const TABLE: u16 = 1;
        const CHAIN: u16 = 2;
        const EXPRESSIONS: u16 = 4;
        let mut body = self.body();
        body.put_text(TABLE, self.name);
        body.put_text(CHAIN, chain);
        body.put(EXPRESSIONS, rule.0.octets());
        request(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, body)
    }

    /// What is there already stays as it is.
    pub(crate) fn add_elements(self, set: &str, elements: &[Element]) -> Request {
        self.elements(NEW_ELEMENTS, NLM_F_CREATE, set, elements)
    }

    /// ENOENT when one of them is not there or has run out.
    pub(crate) fn delete_elements(self, set: &str, elements: &[Element]) -> Request {
        self.elements(DELETE_ELEMENTS, 0, set, elements)
    }

    fn elements(self, kind: u16, flags: u16, set: &str, elements: &[Element]) -> Request {
        let mut list = Attributes::default();
        for element in elements {
            let mut one = Attributes::default();
            one.put(ELEMENT_KEY, value(&octets(element.key)).octets());
            if let Some(data) = element.data {
                one.put(ELEMENT_DATA, value(&octets(data)).octets());
            }
            if let Some(lifetime) = element.lifetime {
                one.put(ELEMENT_TIMEOUT, &milliseconds(lifetime).to_be_bytes());
            }
            list.put(LIST_ELEMENT, one.octets());
        }
        let mut body = self.body();
        body.put_text(LIST_TABLE, self.name);
        body.put_text(LIST_SET, set);
        body.put(LIST_ELEMENTS, list.octets());
        request(kind, flags, body)
    }

    /// Type and body of the dump of a set.
    pub(crate) fn get_elements(self, set: &str) -> (u16, Vec<u8>) {
        let mut body = self.body();
        body.put_text(LIST_TABLE, self.name);
        body.put_text(LIST_SET, set);
        (SUBSYSTEM << 8 | GET_ELEMENTS, body.into_octets())
    }

    fn chain_body(self, chain: &str) -> Attributes {
        const TABLE: u16 = 1;
        const NAME: u16 = 3;
        let mut body = self.body();
        body.put_text(TABLE, self.name);
        body.put_text(NAME, chain);
        body
    }

    fn body(self) -> Attributes {
        Attributes::after(vec![self.family.number(), 0, 0, 0])
    }
}

/// One element of a set or map of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Element {
    pub key: IpAddr,
    pub data: Option<IpAddr>,
    /// `None` is for ever.
    pub lifetime: Option<Duration>,
}

impl Element {
    pub(crate) fn of(key: IpAddr) -> Self {
        Self { key, data: None, lifetime: None }
    }
}

/// Keys and what is left of their lifetime, from one message of a dump of addresses.
pub(crate) fn read_elements(body: &[u8]) -> Vec<(IpAddr, Duration)> {
    let list = attributes(body.get(HEADER_OCTETS..).unwrap_or_default());
    let lists = list.filter(|one| one.kind == LIST_ELEMENTS);
    lists.flat_map(|list| attributes(list.value)).filter_map(|one| element(one.value)).collect()
}

fn element(octets: &[u8]) -> Option<(IpAddr, Duration)> {
    let (mut key, mut left) = (None, Duration::ZERO);
    for attribute in attributes(octets) {
        match attribute.kind {
            ELEMENT_KEY => {
                let value = attributes(attribute.value).find(|one| one.kind == DATA_VALUE)?.value;
                key = address(value);
            }
            ELEMENT_EXPIRATION => {
                let value = attribute.value.try_into().ok()?;
                left = Duration::from_millis(u64::from_be_bytes(value));
            }
            _ => {}
        }
    }
    Some((key?, left))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// At least one: zero would be for ever.
fn milliseconds(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn value(octets: &[u8]) -> Attributes {
    let mut list = Attributes::default();
    list.put(DATA_VALUE, octets);
    list
}

fn request(kind: u16, flags: u16, body: Attributes) -> Request {
    Request { kind: SUBSYSTEM << 8 | kind, flags, body: body.into_octets() }
}

/// A register of four octets, NFT_REG32_00 and on. What is longer takes those that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register(u32);

/// A port takes a whole register in a key of several parts.
const PORT_REGISTER_OCTETS: u32 = 4;
const FIRST_REGISTER: u32 = 8;

impl Register {
    /// 0..16.
    pub(crate) const fn new(number: u32) -> Self {
        Self(FIRST_REGISTER + number)
    }

    /// The one behind `octets` octets.
    pub(crate) const fn after(self, octets: u32) -> Self {
        Self(self.0 + octets.div_ceil(4))
    }
}

/// Where a packet is read: NFT_PAYLOAD_*_HEADER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Header {
    Network = 1,
    Transport = 2,
}

/// What is done with a packet that a rule fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RuleVerdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
}

/// Expressions, one after the other; the first that does not fit ends the rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, data: &Attributes) -> Self {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        let mut expression = Attributes::default();
        expression.put_text(NAME, name);
        expression.put(DATA, data.octets());
        self.0.put(LIST_ELEMENT, expression.octets());
        self
    }

    /// IPPROTO_* of the packet, behind extension headers too.
    pub(crate) fn if_protocol(self, protocol: u8, scratch: Register) -> Self {
        const KEY: u32 = 16;
        self.load_meta(KEY, scratch).equals(&[protocol], scratch)
    }

    /// Index of the interface it arrived on.
    pub(crate) fn load_interface(self, to: Register) -> Self {
        const KEY: u32 = 4;
        self.load_meta(KEY, to)
    }

    fn load_meta(self, key: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        self.with("meta", &numbers(&[(DESTINATION, to.0), (KEY, key)]))
    }

    pub(crate) fn load(self, header: Header, offset: u32, octets: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        let list = [(DESTINATION, to.0), (BASE, header as u32), (OFFSET, offset), (LENGTH, octets)];
        self.with("payload", &numbers(&list))
    }

    pub(crate) fn mask(self, mask: &[u8], register: Register) -> Self {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        // INVARIANT: a few octets.
        let length = u32::try_from(mask.len()).expect("a short mask");
        let mut data =
            numbers(&[(SOURCE, register.0), (DESTINATION, register.0), (LENGTH, length)]);
        data.put(MASK, value(mask).octets());
        data.put(XOR, value(&vec![0; mask.len()]).octets());
        self.with("bitwise", &data)
    }

    pub(crate) fn equals(self, octets: &[u8], register: Register) -> Self {
        const SOURCE: u16 = 1;
        const OPERATION: u16 = 2;
        const DATA: u16 = 3;
        const EQUAL: u32 = 0;
        let mut data = numbers(&[(SOURCE, register.0), (OPERATION, EQUAL)]);
        data.put(DATA, value(octets).octets());
        self.with("cmp", &data)
    }

    pub(crate) fn if_in(self, set: &str, key: Register) -> Self {
        self.lookup(set, key, &[])
    }

    pub(crate) fn unless_in(self, set: &str, key: Register) -> Self {
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        self.lookup(set, key, &[(FLAGS, INVERTED)])
    }

    /// Fits when the map has the key; what it has for it is in `to`.
    pub(crate) fn map(self, map: &str, key: Register, to: Register) -> Self {
        const DESTINATION: u16 = 3;
        self.lookup(map, key, &[(DESTINATION, to.0)])
    }

    fn lookup(self, set: &str, key: Register, more: &[(u16, u32)]) -> Self {
        const SET: u16 = 1;
        const SOURCE: u16 = 2;
        let mut data = Attributes::default();
        data.put_text(SET, set);
        put_numbers(&mut data, &[(SOURCE, key.0)]);
        put_numbers(&mut data, more);
        self.with("lookup", &data)
    }

    /// Adds the key to the set, or begins its lifetime anew. Does not fit when the set is full.
    pub(crate) fn remember(self, set: &str, key: Register) -> Self {
        const SET: u16 = 1;
        const OPERATION: u16 = 3;
        const KEY: u16 = 4;
        const UPDATE: u32 = 1;
        let mut data = Attributes::default();
        data.put_text(SET, set);
        put_numbers(&mut data, &[(OPERATION, UPDATE), (KEY, key.0)]);
        self.with("dynset", &data)
    }

    /// Fits for so many packets a second.
    pub(crate) fn at_most(self, packets_per_second: u32) -> Self {
        const RATE: u16 = 1;
        const UNIT: u16 = 2;
        const BURST: u16 = 3;
        const SECOND: u64 = 1;
        let mut data = Attributes::default();
        data.put(RATE, &u64::from(packets_per_second).to_be_bytes());
        data.put(UNIT, &SECOND.to_be_bytes());
        data.put(BURST, &packets_per_second.to_be_bytes());
        self.with("limit", &data)
    }

    /// A copy goes to the host whose address is in `to`, by the interface whose index is in `by`.
    pub(crate) fn copy_to(self, to: Register, by: Option<Register>) -> Self {
        const ADDRESS: u16 = 1;
        const DEVICE: u16 = 2;
        let mut data = numbers(&[(ADDRESS, to.0)]);
        if let Some(by) = by {
            put_numbers(&mut data, &[(DEVICE, by.0)]);
        }
        self.with("dup", &data)
    }

    pub(crate) fn verdict(self, verdict: RuleVerdict<'_>) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        const DROP: i32 = 0;
        const ACCEPT: i32 = 1;
        const JUMP: i32 = -3;
        /// NFT_REG_VERDICT.
        const VERDICT_REGISTER: u32 = 0;
        let (code, chain) = match verdict {
            RuleVerdict::Accept => (ACCEPT, None),
            RuleVerdict::Drop => (DROP, None),
            RuleVerdict::Jump(chain) => (JUMP, Some(chain)),
        };
        let mut inner = Attributes::default();
        inner.put(CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            inner.put_text(CHAIN, chain);
        }
        let mut outer = Attributes::default();
        outer.put(DATA_VERDICT, inner.octets());
        let mut data = numbers(&[(DESTINATION, VERDICT_REGISTER)]);
        data.put(DATA, outer.octets());
        self.with("immediate", &data)
    }
}

fn numbers(list: &[(u16, u32)]) -> Attributes {
    let mut data = Attributes::default();
    put_numbers(&mut data, list);
    data
}

fn put_numbers(data: &mut Attributes, list: &[(u16, u32)]) {
    for (attribute, number) in list {
        data.put(*attribute, &number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_what_is_left_of_them_and_a_cut_message_ends_early() {
        let table = OwnTable { family: PacketFamily::Ipv6, name: "t" };
        let key: IpAddr = "2001:db8::1".parse().unwrap();
        let lifetime = Some(Duration::from_secs(3));
        let body = table.add_elements("s", &[Element { key, data: None, lifetime }]).body;
        // What is written says the lifetime; what is left of it, only the kernel says.
        assert_eq!(read_elements(&body), [(key, Duration::ZERO)]);
        for end in 0..body.len() {
            assert!(read_elements(&body[..end]).len() <= 1);
        }
    }

    #[test]
    fn a_lifetime_is_never_nothing_which_would_be_for_ever() {
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::from_millis(350)), 350);
    }
}
