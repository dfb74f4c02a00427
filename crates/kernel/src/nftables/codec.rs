//! Messages of nf_tables as octets: linux/netfilter/nf_tables.h. Pure.
//!
//! Numbers are big-endian. Names of attributes are the header's without their prefix.

use std::net::IpAddr;
use std::time::Duration;

use crate::attribute::{Attribute, Attributes, attributes, text};
use crate::family::{IpFamily, address, octets};
use crate::transport::{NLM_F_CREATE, NLM_F_EXCL, NetlinkRequest};

/// NFNL_SUBSYS_NFTABLES, the upper octet of a message's type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULES: u16 = 7;
const DELETE_RULES: u16 = 8;
const NEW_SET: u16 = 9;
const GET_SETS: u16 = 10;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DELETE_ELEMENTS: u16 = 14;
const GET_GENERATION: u16 = 16;

/// Rules are added behind those that are there.
const NLM_F_APPEND: u16 = 0x800;

/// struct nfgenmsg: family u8, version u8, resource u16.
pub(crate) const HEADER_OCTETS: usize = 4;

/// Elements of one list, far less than a length of two octets can say.
const LIST_ENTRIES: usize = 512;
/// A part of a key or of data takes a whole register.
pub(crate) const PART_OCTETS: u32 = 4;

/// LIST_ELEM, of every list.
pub(super) const LIST_ELEMENT: u16 = 1;
/// NFTA_DATA_VALUE and NFTA_DATA_VERDICT, in what holds either.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// NFTA_VERDICT_*.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// NFTA_EXPR_*.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// NFTA_SET_ELEM_*.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_EXPRESSION: u16 = 7;
/// NFTA_SET_ELEM_LIST_*.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// NFTA_RULE_*.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// NFTNL_UDATA_RULE_COMMENT, by which the `nft` program knows a comment.
const USERDATA_COMMENT: u8 = 0;
/// NFTA_SET_*.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;

/// Type of an address as the `nft` program prints it.
fn address_type(family: IpFamily) -> u32 {
    match family {
        IpFamily::V4 => 7,
        IpFamily::V6 => 8,
    }
}

/// Types of a protocol, a port and a number as the `nft` program prints them.
const PROTOCOL_TYPE: u32 = 12;
const PORT_TYPE: u32 = 13;
const NUMBER_TYPE: u32 = 19;
/// NFT_DATA_VERDICT.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// A key of several parts has all their types in one number, this many bits each.
const TYPE_BITS: u32 = 6;

/// Where a chain sees packets: NF_INET_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// As they arrive.
    Prerouting = 0,
    /// Those for this host.
    Input = 1,
    /// Those from this host, before they are routed again.
    Output = 3,
    /// As they leave, wherever they are from.
    Postrouting = 4,
}

/// Which packets of its hook a chain sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChainKind {
    /// All.
    Filter,
    /// The first one of each connection; what it decides holds for the others.
    Translation,
}

/// The place of a chain among all that look at packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChainPlace {
    pub kind: ChainKind,
    pub hook: Hook,
    /// Before those with a higher one.
    pub priority: i32,
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
    /// Address, protocol and port.
    Listeners,
    /// Address, protocol, another address and its port.
    Translations,
    /// Address, protocol and port to a chain; each counts what it is asked for.
    Dispatch,
    /// Number to address and port.
    Slots,
    /// Address to address and port; added by rules, for this long.
    Clients(Duration),
}

/// The most connections that are remembered at once.
const MOST_CONNECTIONS: u32 = 1 << 18;
/// The most clients of one service that are remembered at once; those beyond are not kept on their
/// server.
const MOST_CLIENTS: u32 = 1 << 16;

pub(crate) fn begin() -> NetlinkRequest {
    batch(BATCH_BEGIN)
}

pub(crate) fn end() -> NetlinkRequest {
    batch(BATCH_END)
}

fn batch(kind: u16) -> NetlinkRequest {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    // NFPROTO_UNSPEC.
    NetlinkRequest { kind, flags: 0, body: vec![0, 0, high, low] }
}

/// A table of ours, for the messages about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnTable {
    pub family: IpFamily,
    pub name: &'static str,
}

impl OwnTable {
    pub(crate) fn create(self) -> NetlinkRequest {
        const NAME: u16 = 1;
        let mut body = self.body();
        body.put_text(NAME, self.name);
        request(NEW_TABLE, NLM_F_CREATE, body)
    }

    pub(crate) fn delete(self) -> NetlinkRequest {
        const NAME: u16 = 1;
        let mut body = self.body();
        body.put_text(NAME, self.name);
        request(DELETE_TABLE, 0, body)
    }

    /// Fails with EEXIST where it is there already.
    pub(crate) fn create_new(self) -> NetlinkRequest {
        let mut request = self.create();
        request.flags |= NLM_F_EXCL;
        request
    }

    /// A chain that sees packets.
    pub(crate) fn create_hooked_chain(self, chain: &str, place: ChainPlace) -> NetlinkRequest {
        const HOOK: u16 = 4;
        const KIND: u16 = 7;
        const HOOK_NUMBER: u16 = 1;
        const HOOK_PRIORITY: u16 = 2;
        let ChainPlace { kind, hook, priority } = place;
        let mut place = numbers(&[(HOOK_NUMBER, hook as u32)]);
        place.put(HOOK_PRIORITY, &priority.to_be_bytes());
        let mut body = self.chain_body(chain);
        body.put(HOOK, place.octets());
        let kind = match kind {
            ChainKind::Filter => "filter",
            ChainKind::Translation => "nat",
        };
        body.put_text(KIND, kind);
        request(NEW_CHAIN, NLM_F_CREATE, body)
    }

    /// A chain that rules jump to.
    pub(crate) fn create_chain(self, chain: &str) -> NetlinkRequest {
        request(NEW_CHAIN, NLM_F_CREATE, self.chain_body(chain))
    }

    /// Nothing may lead to it any more.
    pub(crate) fn delete_chain(self, chain: &str) -> NetlinkRequest {
        request(DELETE_CHAIN, 0, self.chain_body(chain))
    }

    /// `id` is any number, of no other set in the same transaction.
    pub(crate) fn create_set(self, name: &str, id: u32, holds: Holds) -> NetlinkRequest {
        const FLAGS: u16 = 3;
        const KEY_TYPE: u16 = 4;
        const KEY_OCTETS: u16 = 5;
        const DATA_TYPE: u16 = 6;
        const DATA_OCTETS: u16 = 7;
        const DESCRIPTION: u16 = 9;
        const ID: u16 = 10;
        const TIMEOUT: u16 = 11;
        const EXPRESSION: u16 = 17;
        const DESCRIPTION_SIZE: u16 = 1;
        const IS_MAP: u32 = 0x8;
        const HAS_TIMEOUT: u32 = 0x10;
        const IS_CHANGED_BY_RULES: u32 = 0x20;
        let Self { family, .. } = self;
        let (octets, kind) = (family.address_octets(), address_type(family));
        let listener = type_of(&[kind, PROTOCOL_TYPE, PORT_TYPE]);
        let mut body = self.set_body(name);
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
                put(KEY_TYPE, type_of(&[kind, PORT_TYPE, PORT_TYPE, kind]));
                put(KEY_OCTETS, 2 * octets + 2 * PART_OCTETS);
                let description = numbers(&[(DESCRIPTION_SIZE, MOST_CONNECTIONS)]);
                body.put(DESCRIPTION, description.octets());
                body.put(TIMEOUT, &milliseconds(lifetime).to_be_bytes());
            }
            Holds::Listeners => {
                put(FLAGS, 0);
                put(KEY_TYPE, listener);
                put(KEY_OCTETS, octets + 2 * PART_OCTETS);
            }
            Holds::Translations => {
                put(FLAGS, 0);
                put(KEY_TYPE, type_of(&[kind, PROTOCOL_TYPE, kind, PORT_TYPE]));
                put(KEY_OCTETS, 2 * octets + 2 * PART_OCTETS);
            }
            Holds::Dispatch => {
                put(FLAGS, IS_MAP);
                put(KEY_TYPE, listener);
                put(KEY_OCTETS, octets + 2 * PART_OCTETS);
                put(DATA_TYPE, VERDICT_TYPE);
                body.put(EXPRESSION, expression("counter", &Attributes::default()).octets());
            }
            Holds::Slots => {
                put(FLAGS, IS_MAP);
                put(KEY_TYPE, NUMBER_TYPE);
                put(KEY_OCTETS, PART_OCTETS);
                put(DATA_TYPE, type_of(&[kind, PORT_TYPE]));
                put(DATA_OCTETS, octets + PART_OCTETS);
            }
            Holds::Clients(lifetime) => {
                put(FLAGS, IS_MAP | HAS_TIMEOUT | IS_CHANGED_BY_RULES);
                put(KEY_TYPE, kind);
                put(KEY_OCTETS, octets);
                put(DATA_TYPE, type_of(&[kind, PORT_TYPE]));
                put(DATA_OCTETS, octets + PART_OCTETS);
                let description = numbers(&[(DESCRIPTION_SIZE, MOST_CLIENTS)]);
                body.put(DESCRIPTION, description.octets());
                body.put(TIMEOUT, &milliseconds(lifetime).to_be_bytes());
            }
        }
        request(NEW_SET, NLM_F_CREATE, body)
    }

    /// Behind the rules that `chain` has.
    pub(crate) fn append_rule(self, chain: &str, rule: &Rule) -> NetlinkRequest {
        self.append(chain, rule, None)
    }

    /// The same with words of ours, by which it is known again: ASCII, at most 128.
    pub(crate) fn append_marked_rule(
        self,
        chain: &str,
        rule: &Rule,
        comment: &str,
    ) -> NetlinkRequest {
        self.append(chain, rule, Some(comment))
    }

    fn append(self, chain: &str, rule: &Rule, comment: Option<&str>) -> NetlinkRequest {
        let mut body = self.rule_body(Some(chain));
        body.put(RULE_EXPRESSIONS, rule.expressions());
        if let Some(comment) = comment {
            // INVARIANT: as promised.
            let length = u8::try_from(comment.len() + 1).expect("a short comment");
            let words = [&[USERDATA_COMMENT, length], comment.as_bytes(), &[0]].concat();
            body.put(RULE_USERDATA, &words);
        }
        request(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, body)
    }

    /// All rules of a chain.
    pub(crate) fn delete_rules(self, chain: &str) -> NetlinkRequest {
        request(DELETE_RULES, 0, self.rule_body(Some(chain)))
    }

    /// Type and body of the dump of all rules of this table.
    pub(crate) fn get_rules(self) -> (u16, Vec<u8>) {
        (SUBSYSTEM << 8 | GET_RULES, self.rule_body(None).into_octets())
    }

    /// Type and body of the dump of all sets of this table.
    pub(crate) fn get_sets(self) -> (u16, Vec<u8>) {
        let mut body = self.body();
        body.put_text(SET_TABLE, self.name);
        (SUBSYSTEM << 8 | GET_SETS, body.into_octets())
    }

    /// No rule may name it any more.
    pub(crate) fn delete_set(self, set: &str) -> NetlinkRequest {
        request(DELETE_SET, 0, self.set_body(set))
    }

    /// What is there already stays as it is.
    pub(crate) fn add_elements(self, set: &str, elements: &[Element]) -> NetlinkRequest {
        self.elements(NEW_ELEMENTS, NLM_F_CREATE, set, elements)
    }

    /// ENOENT when one of them is not there or has run out.
    pub(crate) fn delete_elements(self, set: &str, elements: &[Element]) -> NetlinkRequest {
        self.elements(DELETE_ELEMENTS, 0, set, elements)
    }

    fn elements(self, kind: u16, flags: u16, set: &str, elements: &[Element]) -> NetlinkRequest {
        self.list(kind, flags, set, elements.iter().map(Element::entry))
    }

    /// As [`OwnTable::add_elements`]; a request for each list, whose length is a number of two octets.
    pub(crate) fn add_entries(self, set: &str, entries: &[SetEntry]) -> Vec<NetlinkRequest> {
        self.lists(NEW_ELEMENTS, NLM_F_CREATE, set, entries)
    }

    /// As [`OwnTable::delete_elements`].
    pub(crate) fn delete_entries(self, set: &str, entries: &[SetEntry]) -> Vec<NetlinkRequest> {
        self.lists(DELETE_ELEMENTS, 0, set, entries)
    }

    fn lists(self, kind: u16, flags: u16, set: &str, entries: &[SetEntry]) -> Vec<NetlinkRequest> {
        let parts = entries.chunks(LIST_ENTRIES);
        parts.map(|part| self.list(kind, flags, set, part.iter().cloned())).collect()
    }

    fn list(
        self,
        kind: u16,
        flags: u16,
        set: &str,
        entries: impl Iterator<Item = SetEntry>,
    ) -> NetlinkRequest {
        let mut list = Attributes::default();
        for SetEntry { key, data, lifetime } in entries {
            let mut one = Attributes::default();
            one.put(ELEMENT_KEY, value(&key).octets());
            match data {
                EntryData::Nothing => {}
                EntryData::Value(data) => one.put(ELEMENT_DATA, value(&data).octets()),
                EntryData::Goto(chain) => {
                    one.put(ELEMENT_DATA, verdict(GOTO, Some(&chain)).octets());
                }
            }
            if let Some(lifetime) = lifetime {
                one.put(ELEMENT_TIMEOUT, &milliseconds(lifetime).to_be_bytes());
            }
            list.put(LIST_ELEMENT, one.octets());
        }
        let mut body = self.list_body(set);
        body.put(LIST_ELEMENTS, list.octets());
        request(kind, flags, body)
    }

    /// All elements of a set.
    pub(crate) fn clear_set(self, set: &str) -> NetlinkRequest {
        request(DELETE_ELEMENTS, 0, self.list_body(set))
    }

    /// Type and body of the dump of a set.
    pub(crate) fn get_elements(self, set: &str) -> (u16, Vec<u8>) {
        (SUBSYSTEM << 8 | GET_ELEMENTS, self.list_body(set).into_octets())
    }

    fn list_body(self, set: &str) -> Attributes {
        let mut body = self.body();
        body.put_text(LIST_TABLE, self.name);
        body.put_text(LIST_SET, set);
        body
    }

    fn set_body(self, set: &str) -> Attributes {
        let mut body = self.body();
        body.put_text(SET_TABLE, self.name);
        body.put_text(SET_NAME, set);
        body
    }

    fn rule_body(self, chain: Option<&str>) -> Attributes {
        let mut body = self.body();
        body.put_text(RULE_TABLE, self.name);
        if let Some(chain) = chain {
            body.put_text(RULE_CHAIN, chain);
        }
        body
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

/// Expressions, one after the other; the first that does not fit ends the rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rule(pub(super) Attributes);

impl Rule {
    pub(super) fn expressions(&self) -> &[u8] {
        self.0.octets()
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

impl Element {
    fn entry(&self) -> SetEntry {
        let data = self.data.map_or(EntryData::Nothing, |data| EntryData::Value(octets(data)));
        SetEntry { key: octets(self.key), data, lifetime: self.lifetime }
    }
}

/// One element of any set or map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SetEntry {
    /// As it lies in registers.
    pub key: Vec<u8>,
    pub data: EntryData,
    /// `None` is for ever.
    pub lifetime: Option<Duration>,
}

impl SetEntry {
    pub(crate) fn new(key: Vec<u8>, data: EntryData) -> Self {
        Self { key, data, lifetime: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum EntryData {
    /// Of a set, or where only the key is asked for.
    Nothing,
    /// As it lies in registers.
    Value(Vec<u8>),
    /// The chain of this name goes on.
    Goto(String),
}

/// An element that the kernel has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ObservedSetEntry {
    /// With what is left of its lifetime.
    pub entry: SetEntry,
    /// What its counter has counted.
    pub packets: u64,
}

/// Keys and what is left of their lifetime, from one message of a dump of addresses.
pub(crate) fn read_elements(body: &[u8]) -> Vec<(IpAddr, Duration)> {
    let addresses =
        read_entries(body).into_iter().filter_map(|ObservedSetEntry { entry, .. }| {
            Some((address(&entry.key)?, entry.lifetime.unwrap_or_default()))
        });
    addresses.collect()
}

/// Elements from one message of a dump.
pub(crate) fn read_entries(body: &[u8]) -> Vec<ObservedSetEntry> {
    let lists = attributes_after_header(body).filter(|one| one.kind == LIST_ELEMENTS);
    lists.flat_map(|list| attributes(list.value)).filter_map(|one| entry(one.value)).collect()
}

fn entry(octets: &[u8]) -> Option<ObservedSetEntry> {
    let mut found = SetEntry::new(Vec::new(), EntryData::Nothing);
    let mut packets = 0;
    for attribute in attributes(octets) {
        match attribute.kind {
            ELEMENT_KEY => found.key = find(attribute.value, DATA_VALUE)?.to_vec(),
            ELEMENT_DATA => found.data = entry_data(attribute.value)?,
            ELEMENT_EXPIRATION => {
                let value = attribute.value.try_into().ok()?;
                found.lifetime = Some(Duration::from_millis(u64::from_be_bytes(value)));
            }
            ELEMENT_EXPRESSION => packets = counted(attribute.value).unwrap_or(packets),
            _ => {}
        }
    }
    (!found.key.is_empty()).then_some(ObservedSetEntry { entry: found, packets })
}

fn entry_data(octets: &[u8]) -> Option<EntryData> {
    if let Some(value) = find(octets, DATA_VALUE) {
        return Some(EntryData::Value(value.to_vec()));
    }
    let chain = find(find(octets, DATA_VERDICT)?, VERDICT_CHAIN)?;
    Some(EntryData::Goto(text(chain)))
}

/// NFTA_COUNTER_PACKETS of a counter.
fn counted(expression: &[u8]) -> Option<u64> {
    const PACKETS: u16 = 2;
    let packets = find(find(expression, EXPRESSION_DATA)?, PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}

/// The chain of a rule, and the comment that it has, from one message of a dump.
pub(crate) fn read_rule(body: &[u8]) -> Option<(String, Option<String>)> {
    let (mut chain, mut comment) = (None, None);
    for attribute in attributes_after_header(body) {
        match attribute.kind {
            RULE_CHAIN => chain = Some(text(attribute.value)),
            RULE_USERDATA => {
                comment = match attribute.value {
                    [USERDATA_COMMENT, _, words @ ..] => Some(text(words)),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some((chain?, comment))
}

/// The name of a set, from one message of a dump.
pub(crate) fn read_set_name(body: &[u8]) -> Option<String> {
    attributes_after_header(body).find(|one| one.kind == SET_NAME).map(|one| text(one.value))
}

/// Asks how often the rules of this network namespace have changed.
pub(crate) fn get_generation() -> NetlinkRequest {
    request(GET_GENERATION, 0, Attributes::after(vec![0; HEADER_OCTETS]))
}

pub(crate) fn read_generation(body: &[u8]) -> Option<u32> {
    const ID: u16 = 1;
    let id = attributes_after_header(body).find(|one| one.kind == ID)?.value;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

fn attributes_after_header(body: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    attributes(body.get(HEADER_OCTETS..).unwrap_or_default())
}

/// The value of the first attribute of this kind.
fn find(octets: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(octets).find(|one| one.kind == kind).map(|one| one.value)
}

/// At least one: zero would be for ever.
fn milliseconds(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(super) fn value(octets: &[u8]) -> Attributes {
    let mut list = Attributes::default();
    list.put(DATA_VALUE, octets);
    list
}

/// NF_DROP, NF_ACCEPT, NFT_JUMP and NFT_GOTO.
pub(super) const DROP: i32 = 0;
pub(super) const ACCEPT: i32 = 1;
pub(super) const JUMP: i32 = -3;
const GOTO: i32 = -4;

pub(super) fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let mut inner = Attributes::default();
    inner.put(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        inner.put_text(VERDICT_CHAIN, chain);
    }
    let mut outer = Attributes::default();
    outer.put(DATA_VERDICT, inner.octets());
    outer
}

/// An expression: its name, and what it needs.
pub(super) fn expression(name: &str, data: &Attributes) -> Attributes {
    let mut expression = Attributes::default();
    expression.put_text(EXPRESSION_NAME, name);
    expression.put(EXPRESSION_DATA, data.octets());
    expression
}

/// The type of a key of several parts.
fn type_of(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |all, part| (all << TYPE_BITS) | part)
}

fn request(kind: u16, flags: u16, body: Attributes) -> NetlinkRequest {
    NetlinkRequest { kind: SUBSYSTEM << 8 | kind, flags, body: body.into_octets() }
}

pub(super) fn numbers(list: &[(u16, u32)]) -> Attributes {
    let mut data = Attributes::default();
    put_numbers(&mut data, list);
    data
}

pub(super) fn put_numbers(data: &mut Attributes, list: &[(u16, u32)]) {
    for (attribute, number) in list {
        data.put(*attribute, &number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_what_is_left_of_them_and_a_cut_message_ends_early() {
        let table = OwnTable { family: IpFamily::V6, name: "t" };
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
    fn what_a_dump_says_of_entries_and_rules_is_read_and_what_is_cut_is_less() {
        let table = OwnTable { family: IpFamily::V4, name: "t" };
        let entries = [
            SetEntry::new(vec![1, 2, 3, 4], EntryData::Goto("web".to_owned())),
            SetEntry::new(vec![5, 6, 7, 8], EntryData::Value(vec![9; 8])),
        ];
        let body = table.add_entries("s", &entries).remove(0).body;
        let read: Vec<_> = read_entries(&body).into_iter().map(|one| one.entry).collect();
        assert_eq!(read, entries);
        for end in 0..body.len() {
            assert!(read_entries(&body[..end]).len() < 2);
        }
        let rule = Rule::new().masquerade();
        let body = table.append_marked_rule("web", &rule, "ours 1").body;
        assert_eq!(read_rule(&body), Some(("web".to_owned(), Some("ours 1".to_owned()))));
        let body = table.append_rule("web", &rule).body;
        assert_eq!(read_rule(&body), Some(("web".to_owned(), None)));
        for end in 0..body.len() {
            read_rule(&body[..end]);
        }
    }

    #[test]
    fn a_lifetime_is_never_nothing_which_would_be_for_ever() {
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::from_millis(350)), 350);
    }
}
