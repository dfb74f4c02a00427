//! Services balanced by address translation: what is sent to a listener goes to one of its servers.
//!
//! ```text
//!   packet ──► one of our listeners, for this host? ──no──► as ever
//!                  │ dispatch: listener ──► chain of its service
//!                  ├─ a client that is kept on a server ──► there
//!                  └─ number (a turn, or a hash) ──► slots ──► server
//!   as it leaves ──► sent by us? ──► with the address of this host, so that the answer comes back
//! ```
//!
//! All of it is decided for the first packet of a connection: what it costs does not depend on how
//! many services there are, and connections go on whatever becomes of the rules. One table of ours
//! for each family, changed by one transaction at a time. Each rule of it carries a digest of itself,
//! so that an observer sees whether it is the one that is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::codec::{
    ChainKind, ChainPlace, EntryData, Holds, Hook, OwnTable, PART_OCTETS, SetEntry,
};
use super::rule::{Header, Register, Rule, RuleVerdict, address_offsets};
use super::service::{NatPersistence, NatSelection, NatService};
use super::slots::{digest, slots};
use crate::conntrack::NatListener;
use crate::family::{IpFamily, octets};
use crate::transport::NetlinkRequest;

const TABLE: &str = "locum_balance";
pub(super) const LISTENERS: &str = "listeners";
pub(super) const DISPATCH: &str = "dispatch";
pub(super) const TRANSLATIONS: &str = "translations";
const ARRIVING: &str = "arriving";
const LOCAL: &str = "local";
const LEAVING: &str = "leaving";

/// Where addresses are translated: NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC.
const BEFORE_ROUTING: i32 = -100;
const AFTER_ROUTING: i32 = 100;

const CHAINS: [(&str, ChainPlace); 3] = [
    (ARRIVING, place(Hook::Prerouting, BEFORE_ROUTING)),
    (LOCAL, place(Hook::Output, BEFORE_ROUTING)),
    (LEAVING, place(Hook::Postrouting, AFTER_ROUTING)),
];

const fn place(hook: Hook, priority: i32) -> ChainPlace {
    ChainPlace { kind: ChainKind::Translation, hook, priority }
}

pub(super) fn slots_of(chain: &str) -> String {
    format!("slots-{chain}")
}

fn clients_of(chain: &str) -> String {
    format!("clients-{chain}")
}

/// An address and port as they lie in registers.
fn in_registers(address: SocketAddr) -> Vec<u8> {
    let mut all = octets(address.ip());
    all.extend(address.port().to_be_bytes());
    all.extend([0; 2]);
    all
}

pub(super) fn key_of(listener: &NatListener) -> Vec<u8> {
    let mut key = octets(listener.address.ip());
    key.extend([listener.protocol.number(), 0, 0, 0]);
    key.extend(listener.address.port().to_be_bytes());
    key.extend([0; 2]);
    key
}

/// What the table shall have of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DescribedService {
    pub chain: String,
    /// In order; each with the comment that names it.
    rules: Vec<(String, Rule)>,
    pub keys: BTreeSet<Vec<u8>>,
    /// What was asked for and where it is sent; other services may have the same.
    pub translations: BTreeSet<Vec<u8>>,
    /// By number, as they lie in registers.
    pub slots: Vec<Vec<u8>>,
    persistence: Option<NatPersistence>,
    /// What a client may be kept on.
    taking: BTreeSet<Vec<u8>>,
}

/// What a table has, as far as we look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ObservedTable {
    /// Comments of the rules of each chain, in order.
    pub chains: BTreeMap<String, Vec<Option<String>>>,
    pub sets: BTreeSet<String>,
    pub listeners: BTreeSet<Vec<u8>>,
    pub translations: BTreeSet<Vec<u8>>,
    pub dispatch: BTreeMap<Vec<u8>, String>,
    /// Entries of each set of slots.
    pub slots: BTreeMap<String, BTreeMap<Vec<u8>, EntryData>>,
}

/// Rules that differ have other digests.
fn comment(rule: &Rule) -> String {
    format!("locum {:016x}", digest(rule.expressions()))
}

/// Registers: what is looked up, and what is found.
const KEY: Register = Register::new(0);
const FOUND: Register = Register::new(8);

/// The rules of a service's chain; none while no server takes clients.
fn rules(service: &NatService, family: IpFamily, count: usize) -> Vec<Rule> {
    // INVARIANT: a table has a few thousand numbers at most.
    let Ok(count) = u32::try_from(count) else { return Vec::new() };
    if count == 0 {
        return Vec::new();
    }
    let chain = service.chain();
    let (slots, clients) = (slots_of(&chain), clients_of(&chain));
    let octets = family.address_octets();
    let (source_at, _) = address_offsets(family);
    let load_source = |rule: Rule| rule.load(Header::Network, source_at, octets, KEY);
    let choose = |rule: Rule| {
        let rule = match service.selection {
            NatSelection::Turns | NatSelection::WeightedTurns => rule.count_up(count, FOUND),
            NatSelection::SourceHash | NatSelection::ConsistentHash => {
                load_source(rule).hash(KEY, octets, count, FOUND)
            }
        };
        rule.map(&slots, FOUND, FOUND)
    };
    let mut rules = Vec::new();
    if let Some(NatPersistence { prefix, .. }) = service.persistence {
        let load_client = |rule: Rule| {
            let rule = load_source(rule);
            match mask(prefix, octets) {
                Some(mask) => rule.mask(&mask, KEY),
                None => rule,
            }
        };
        let known = load_client(Rule::new()).map(&clients, KEY, FOUND);
        rules.push(known.remember_for(&clients, KEY, FOUND).send_to(family, FOUND));
        let new = load_client(choose(Rule::new())).remember_for(&clients, KEY, FOUND);
        rules.push(new.send_to(family, FOUND));
    }
    rules.push(choose(Rule::new()).send_to(family, FOUND));
    // While the slots change there may be none for a number: better asked again than refused.
    rules.push(Rule::new().verdict(RuleVerdict::Drop));
    rules
}

/// The octets of an address that count; `None` for all of them.
fn mask(prefix: u8, octets: u32) -> Option<Vec<u8>> {
    let bits = u32::from(prefix);
    (bits < octets * 8).then(|| {
        let octet = |at: u32| match bits.saturating_sub(at * 8).min(8) {
            0 => 0,
            left => u8::MAX << (8 - left),
        };
        (0..octets).map(octet).collect()
    })
}

impl DescribedService {
    pub(super) fn new(service: &NatService, family: IpFamily) -> Self {
        let slots = slots(service.selection, &service.servers);
        let rules = rules(service, family, slots.len());
        let is_served = !slots.is_empty();
        let translations =
            service.listeners.iter().flat_map(|NatListener { protocol, address }| {
                let mut asked = octets(address.ip());
                asked.extend([protocol.number(), 0, 0, 0]);
                slots.iter().map(move |slot| [asked.clone(), in_registers(*slot)].concat())
            });
        Self {
            chain: service.chain(),
            rules: rules.into_iter().map(|rule| (comment(&rule), rule)).collect(),
            // Of whom nobody takes clients is not dispatched: this host refuses them by itself.
            keys: service.listeners.iter().filter(|_| is_served).map(key_of).collect(),
            translations: translations.collect(),
            taking: slots.iter().map(|slot| in_registers(*slot)).collect(),
            slots: slots.into_iter().map(in_registers).collect(),
            persistence: service.persistence,
        }
    }

    fn entries(&self) -> impl Iterator<Item = SetEntry> {
        (0_u32..).zip(&self.slots).map(|(number, slot)| {
            SetEntry::new(number.to_ne_bytes().to_vec(), EntryData::Value(slot.clone()))
        })
    }

    /// The table has all of it, and nothing else of it.
    fn is_in(&self, observed: &ObservedTable) -> bool {
        let comments = self.rules.iter().map(|(comment, _)| Some(comment.as_str()));
        let there = observed.chains.get(&self.chain).into_iter().flatten();
        let slots = observed.slots.get(&slots_of(&self.chain));
        let is_persistent = observed.sets.contains(&clients_of(&self.chain));
        let has =
            |entry: SetEntry| slots.is_some_and(|slots| slots.get(&entry.key) == Some(&entry.data));
        comments.eq(there.map(Option::as_deref))
            && slots.map_or(0, BTreeMap::len) == self.slots.len()
            && self.entries().all(has)
            && is_persistent == self.persistence.is_some()
    }

    /// Those of clients that are kept on a server which still takes some.
    fn still_kept(&self, clients: Vec<SetEntry>) -> Vec<SetEntry> {
        let is_kept = |entry: &SetEntry| match &entry.data {
            EntryData::Value(server) => self.taking.contains(server),
            EntryData::Nothing | EntryData::Goto(_) => false,
        };
        clients.into_iter().filter(is_kept).collect()
    }
}

/// Clients of each service that are kept on a server, by its chain.
pub(super) type KnownClients = BTreeMap<String, Vec<SetEntry>>;

/// The table of one family, and the messages that change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BalanceTable(pub IpFamily);

impl BalanceTable {
    pub(super) fn own(self) -> OwnTable {
        OwnTable { family: self.0, name: TABLE }
    }

    pub(super) fn clients_of(self, service: &DescribedService) -> Option<String> {
        service.persistence.map(|_| clients_of(&service.chain))
    }

    /// Whether it has exactly these services.
    pub(super) fn is_whole(self, wanted: &[DescribedService], observed: &ObservedTable) -> bool {
        if wanted.is_empty() {
            return observed.chains.is_empty();
        }
        let has_base = self.base().into_iter().all(|(chain, rule)| {
            observed.chains.get(chain).is_some_and(|there| *there == [Some(comment(&rule))])
        });
        let dispatch: BTreeMap<Vec<u8>, String> = wanted
            .iter()
            .flat_map(|service| service.keys.iter().map(|key| (key.clone(), service.chain.clone())))
            .collect();
        has_base
            && observed.listeners.iter().eq(dispatch.keys())
            && observed.dispatch == dispatch
            && observed.translations == translations_of(wanted)
            && wanted.iter().all(|service| service.is_in(observed))
    }

    /// Rules of the chains that see packets.
    fn base(self) -> [(&'static str, Rule); 3] {
        let octets = self.0.address_octets();
        let protocol = KEY.after(octets);
        let port = protocol.after(PART_OCTETS);
        let (_, destination_at) = address_offsets(self.0);
        let load_listener = |rule: Rule| {
            let rule = rule.load(Header::Network, destination_at, octets, KEY);
            rule.load_protocol(protocol).load(Header::Transport, 2, 2, port)
        };
        let begins = load_listener(Rule::new()).if_in(LISTENERS, KEY);
        // A node that died leaves rules behind, and no address.
        let begins = load_listener(begins.if_for_this_host(KEY)).dispatch(DISPATCH, KEY);
        let server_port = port.after(octets);
        let leaves = Rule::new().if_sent_elsewhere(KEY).load_asked_address(self.0, KEY);
        let leaves = leaves
            .load_protocol(protocol)
            .load(Header::Network, destination_at, octets, port)
            .load(Header::Transport, 2, 2, server_port);
        let leaves = leaves.if_in(TRANSLATIONS, KEY).masquerade();
        [(ARRIVING, begins.clone()), (LOCAL, begins), (LEAVING, leaves)]
    }

    pub(super) fn remove(self) -> Vec<NetlinkRequest> {
        let table = self.own();
        vec![table.create(), table.delete()]
    }

    /// The table anew, whatever is there.
    pub(super) fn rebuild(
        self,
        wanted: &[DescribedService],
        clients: &mut KnownClients,
    ) -> Vec<NetlinkRequest> {
        let table = self.own();
        let mut requests = self.remove();
        if wanted.is_empty() {
            return requests;
        }
        requests.extend([
            table.create(),
            table.create_set(LISTENERS, 1, Holds::Listeners),
            table.create_set(DISPATCH, 2, Holds::Dispatch),
            table.create_set(TRANSLATIONS, 3, Holds::Translations),
        ]);
        for (chain, place) in CHAINS {
            requests.push(table.create_hooked_chain(chain, place));
        }
        for (chain, rule) in self.base() {
            requests.push(table.append_marked_rule(chain, &rule, &comment(&rule)));
        }
        for (at, service) in wanted.iter().enumerate() {
            let clients = clients.remove(&service.chain).unwrap_or_default();
            self.install(service, at, clients, &mut requests);
        }
        requests
    }

    /// A service that the table has not.
    pub(super) fn install(
        self,
        service: &DescribedService,
        at: usize,
        clients: Vec<SetEntry>,
        requests: &mut Vec<NetlinkRequest>,
    ) {
        let table = self.own();
        let chain = &service.chain;
        // INVARIANT: there are far fewer services.
        let number = u32::try_from(at).expect("a small number") * 2 + 4;
        requests.push(table.create_chain(chain));
        requests.push(table.create_set(&slots_of(chain), number, Holds::Slots));
        self.create_clients(service, number + 1, clients, requests);
        self.fill(service, requests);
        self.dispatch(service, &service.keys, requests);
        requests.extend(table.add_entries(TRANSLATIONS, &bare(&service.translations)));
    }

    fn create_clients(
        self,
        service: &DescribedService,
        number: u32,
        clients: Vec<SetEntry>,
        requests: &mut Vec<NetlinkRequest>,
    ) {
        let table = self.own();
        if let Some(NatPersistence { timeout, .. }) = service.persistence {
            let name = clients_of(&service.chain);
            requests.push(table.create_set(&name, number, Holds::Clients(timeout)));
            requests.extend(table.add_entries(&name, &service.still_kept(clients)));
        }
    }

    fn fill(self, service: &DescribedService, requests: &mut Vec<NetlinkRequest>) {
        let table = self.own();
        let entries: Vec<_> = service.entries().collect();
        requests.extend(table.add_entries(&slots_of(&service.chain), &entries));
        for (comment, rule) in &service.rules {
            requests.push(table.append_marked_rule(&service.chain, rule, comment));
        }
    }

    fn dispatch(
        self,
        service: &DescribedService,
        keys: &BTreeSet<Vec<u8>>,
        requests: &mut Vec<NetlinkRequest>,
    ) {
        let table = self.own();
        let to_chain =
            |key: &Vec<u8>| SetEntry::new(key.clone(), EntryData::Goto(service.chain.clone()));
        let to_chain: Vec<_> = keys.iter().map(to_chain).collect();
        requests.extend(table.add_entries(DISPATCH, &to_chain));
        requests.extend(table.add_entries(LISTENERS, &bare(keys)));
    }

    fn undispatch(self, keys: &BTreeSet<Vec<u8>>, requests: &mut Vec<NetlinkRequest>) {
        let table = self.own();
        requests.extend(table.delete_entries(LISTENERS, &bare(keys)));
        requests.extend(table.delete_entries(DISPATCH, &bare(keys)));
    }

    /// A service that the table has, and that is to be another one.
    pub(super) fn change(
        self,
        before: &DescribedService,
        service: &DescribedService,
        clients: Vec<SetEntry>,
        requests: &mut Vec<NetlinkRequest>,
    ) {
        let table = self.own();
        let chain = &service.chain;
        requests.push(table.delete_rules(chain));
        requests.push(table.clear_set(&slots_of(chain)));
        if before.persistence.is_some() {
            requests.push(table.delete_set(&clients_of(chain)));
        }
        self.create_clients(service, 1, clients, requests);
        self.fill(service, requests);
        let (old, new) = (&before.keys, &service.keys);
        self.undispatch(&old.difference(new).cloned().collect(), requests);
        self.dispatch(service, &new.difference(old).cloned().collect(), requests);
        let new = service.translations.difference(&before.translations).cloned().collect();
        requests.extend(table.add_entries(TRANSLATIONS, &bare(&new)));
    }

    /// Translations that no service makes any more.
    pub(super) fn forget(self, gone: &BTreeSet<Vec<u8>>, requests: &mut Vec<NetlinkRequest>) {
        requests.extend(self.own().delete_entries(TRANSLATIONS, &bare(gone)));
    }

    /// A service that is not wanted any more.
    pub(super) fn uninstall(self, service: &DescribedService, requests: &mut Vec<NetlinkRequest>) {
        let table = self.own();
        let chain = &service.chain;
        self.undispatch(&service.keys, requests);
        requests.push(table.delete_rules(chain));
        requests.push(table.delete_chain(chain));
        requests.push(table.delete_set(&slots_of(chain)));
        if service.persistence.is_some() {
            requests.push(table.delete_set(&clients_of(chain)));
        }
    }
}

pub(super) fn translations_of(services: &[DescribedService]) -> BTreeSet<Vec<u8>> {
    services.iter().flat_map(|service| &service.translations).cloned().collect()
}

fn bare(keys: &BTreeSet<Vec<u8>>) -> Vec<SetEntry> {
    keys.iter().map(|key| SetEntry::new(key.clone(), EntryData::Nothing)).collect()
}
