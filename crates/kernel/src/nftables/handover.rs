//! Connections that began at the predecessor go on there while it still answers.
//!
//! After a planned handover two hosts have the address for a moment: the one that hosts send to
//! now, and the one that has their connections. What begins here is remembered; what is neither
//! remembered nor begins goes to the predecessor, whose answers take their own way.
//!
//! ```text
//!   packet ──► address handed over? ──no──► as ever
//!                  │ yes
//!                  ├─ begins a connection ──► remembered, ours
//!                  ├─ of a remembered one ──► ours
//!                  └─ anything else ────────► to the predecessor, and not to us
//! ```
//!
//! Each address is handed over for a while that the kernel itself ends: a daemon that dies leaves
//! nothing behind that acts. TCP only. A table of ours is there while any address is handed over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::codec::{ChainKind, ChainPlace, Element, Holds, Hook, OwnTable};
use super::rule::{Header, Register, Rule, RuleVerdict, address_offsets};
use super::session::{self, NftablesError, Session};
use crate::family::IpFamily;
use crate::transport::NetlinkRequest;

const TABLE: &str = "locum_handover";
const PREDECESSORS: &str = "predecessors";
const CONNECTIONS: &str = "connections";
const ARRIVING: &str = "arriving";
const HANDED: &str = "handed";

/// Before address translation, which would hide what the packet was sent to.
const PLACE: ChainPlace =
    ChainPlace { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -150 };

/// A remembered connection, unless it says something meanwhile.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Packets a second that go to the predecessor at most, so that a flood of strays is not doubled.
const RATE: u32 = 50_000;

const TCP: u8 = 6;
/// Of the TCP header: FIN, SYN, RST and ACK, and SYN alone.
const FLAGS_AT: u32 = 13;
const FLAGS: u8 = 0x17;
const SYN: u8 = 0x02;
const PORT_OCTETS: u32 = 2;

/// An address that another host answered for until now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Predecessor {
    pub address: IpAddr,
    /// On a link of ours.
    pub host: IpAddr,
    /// How long it goes on answering.
    pub answers_for: Duration,
}

/// What is handed over in this network namespace. Use it from a thread that may take the time of a
/// request.
#[derive(Debug, Default)]
pub struct Handovers {
    session: Option<Session>,
    /// Addresses, each with whom it goes to.
    handed: BTreeMap<IpAddr, IpAddr>,
}

impl Handovers {
    /// Removes what an earlier run may have left.
    pub fn connect() -> Self {
        let mut handover = Self::default();
        for family in IpFamily::ALL {
            // Where there is none, there is nothing to remove.
            let _ = handover.commit(&[table(family).delete()]);
        }
        handover
    }

    /// Hands connections of these addresses over, each from now on for its while.
    ///
    /// # Errors
    /// When the kernel has no packet filter, or refuses; then it is as before.
    pub fn begin(&mut self, predecessors: &[Predecessor]) -> Result<(), NftablesError> {
        for family in IpFamily::ALL {
            let of_family = |one: &&Predecessor| IpFamily::of(one.address) == family;
            let ours: Vec<_> = predecessors.iter().filter(of_family).copied().collect();
            // An element lies in a list whose length is a number of two octets.
            for part in ours.chunks(512) {
                self.begin_in(family, part)?;
            }
        }
        Ok(())
    }

    fn begin_in(&mut self, family: IpFamily, part: &[Predecessor]) -> Result<(), NftablesError> {
        let table = table(family);
        let elements: Vec<_> = part
            .iter()
            .map(|one| Element {
                key: one.address,
                data: Some(one.host),
                lifetime: Some(one.answers_for),
            })
            .collect();
        let is_handed = |key: &IpAddr| self.handed.contains_key(key);
        let known: Vec<_> = part.iter().map(|one| one.address).filter(is_handed).collect();
        self.forget(&known)?;
        let add = table.add_elements(PREDECESSORS, &elements);
        let has_table = self.handed.keys().any(|address| IpFamily::of(*address) == family);
        let outcome = if has_table {
            self.commit(std::slice::from_ref(&add))
        } else {
            let mut requests = ruleset(family);
            requests.push(add.clone());
            self.commit(&requests)
        };
        match outcome {
            // Somebody has removed our table.
            Err(error) if has_table && error.is_missing() => {
                self.handed.retain(|address, _| IpFamily::of(*address) != family);
                let mut requests = ruleset(family);
                requests.push(add);
                self.commit(&requests)?;
            }
            outcome => outcome?,
        }
        self.handed.extend(part.iter().map(|one| (one.address, one.host)));
        Ok(())
    }

    /// Connections of these addresses are ours alone from now on.
    ///
    /// # Errors
    /// When the kernel refuses; by itself it forgets all the same, at the end of their while.
    pub fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), NftablesError> {
        for family in IpFamily::ALL {
            let handed = |address: &&IpAddr| {
                IpFamily::of(**address) == family && self.handed.contains_key(*address)
            };
            let gone: Vec<_> = addresses.iter().filter(handed).copied().collect();
            if gone.is_empty() {
                continue;
            }
            for address in &gone {
                self.handed.remove(address);
            }
            if !self.handed.keys().any(|address| IpFamily::of(*address) == family) {
                self.remove(&[table(family).delete()])?;
                continue;
            }
            // One by one: those that have run out are no reason to keep the others.
            for address in gone {
                let element = Element::of(address);
                self.remove(&[table(family).delete_elements(PREDECESSORS, &[element])])?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, requests: &[NetlinkRequest]) -> Result<(), NftablesError> {
        match self.commit(requests) {
            Err(error) if error.is_missing() => Ok(()),
            outcome => outcome,
        }
    }

    fn commit(&mut self, requests: &[NetlinkRequest]) -> Result<(), NftablesError> {
        session::with(&mut self.session, |session| session.commit(requests))
    }
}

impl Drop for Handovers {
    fn drop(&mut self) {
        let all: Vec<_> = self.handed.keys().copied().collect();
        // What stays acts no longer than its while.
        let _ = self.forget(&all);
    }
}

fn table(family: IpFamily) -> OwnTable {
    OwnTable { family, name: TABLE }
}

/// The table anew, whatever is there.
fn ruleset(family: IpFamily) -> Vec<NetlinkRequest> {
    let table = table(family);
    let octets = family.address_octets();
    let (source_at, destination_at) = address_offsets(family);
    // The key of a connection, and behind it the predecessor.
    let source = Register::new(0);
    let source_port = source.after(octets);
    let destination_port = source_port.after(PORT_OCTETS);
    let destination = destination_port.after(PORT_OCTETS);
    let host = destination.after(octets);
    let load_address = |rule: Rule| rule.load(Header::Network, destination_at, octets, destination);
    let load_key = |rule: Rule| {
        let rule = rule.load(Header::Network, source_at, octets, source);
        let rule = rule.load(Header::Transport, 0, PORT_OCTETS, source_port);
        let rule = rule.load(Header::Transport, PORT_OCTETS, PORT_OCTETS, destination_port);
        load_address(rule)
    };
    let begins = |rule: Rule| {
        let rule = rule.load(Header::Transport, FLAGS_AT, 1, source);
        rule.mask(&[FLAGS], source).equals(&[SYN], source)
    };
    let arriving = Rule::new().if_protocol(TCP, source);
    let arriving = load_address(arriving).map(PREDECESSORS, destination, host);
    let copied = load_address(Rule::new()).map(PREDECESSORS, destination, host).at_most(RATE);
    // The route to an IPv4 neighbour is known; an IPv6 one speaks from a link-local address.
    let copied = match family {
        IpFamily::V4 => copied.copy_to(host, None),
        IpFamily::V6 => copied.load_interface(source).copy_to(host, Some(source)),
    };
    vec![
        table.create(),
        table.delete(),
        table.create(),
        table.create_set(PREDECESSORS, 1, Holds::AddressMap),
        table.create_set(CONNECTIONS, 2, Holds::Connections(REMEMBERED)),
        table.create_chain(HANDED),
        table.append_rule(HANDED, &load_key(begins(Rule::new())).remember(CONNECTIONS, source)),
        table.append_rule(HANDED, &begins(Rule::new()).verdict(RuleVerdict::Accept)),
        table.append_rule(
            HANDED,
            &load_key(Rule::new()).if_in(CONNECTIONS, source).verdict(RuleVerdict::Accept),
        ),
        table.append_rule(HANDED, &copied),
        table.append_rule(HANDED, &Rule::new().verdict(RuleVerdict::Drop)),
        table.create_hooked_chain(ARRIVING, PLACE),
        table.append_rule(ARRIVING, &arriving.verdict(RuleVerdict::Jump(HANDED))),
    ]
}
