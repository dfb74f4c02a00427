//! Leases of IPv6 addresses that nobody on the wire hears of.
//!
//! Every request for an IPv6 address makes the kernel report all multicast groups of its interface
//! anew, two frames each time. So the address itself is given a long lifetime, asked for rarely, and
//! what must end in time is an element of a set: when it runs out, packets that this host would take
//! for the address, and questions for its owner, are dropped as if it were gone.
//!
//! ```text
//!   packet for a leased address, or a question who has it ──► lease alive? ──no──► dropped
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::codec::{self, ChainKind, ChainPlace, Element, Holds, Hook, OwnTable};
use super::rule::{Header, Register, Rule, RuleVerdict};
use super::session::{self, NftablesError, Session};
use crate::family::IpFamily;
use crate::transport::NetlinkRequest;

const TABLE: OwnTable = OwnTable { family: IpFamily::V6, name: "locum_leases" };
/// Every address that has a lease.
const LEASED: &str = "leased";
/// Those whose lease has not run out.
const ALIVE: &str = "alive";
const ARRIVING: &str = "arriving";
/// Before anybody else's rules.
const PLACE: ChainPlace = ChainPlace { kind: ChainKind::Filter, hook: Hook::Input, priority: -300 };

const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Where it says whose owner it looks for.
const TARGET_AT: u32 = 8;
const DESTINATION_AT: u32 = 24;
const ADDRESS_OCTETS: u32 = 16;

/// Elements of one list, whose length is a number of two octets.
const LIST: usize = 512;

/// How long the kernel keeps the address itself; a lease that is longer is its own lifetime.
const LIFETIME: Duration = Duration::from_secs(60);

/// The leases of one network namespace.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    session: Option<Session>,
    held: BTreeMap<LeaseId, AddressLease>,
    /// The kernel cannot do it; said once.
    is_unsupported: bool,
}

/// An address on the interface with this index.
pub(crate) type LeaseId = (Ipv6Addr, u32);

#[derive(Clone, Copy, Debug)]
struct AddressLease {
    length: Duration,
    /// Until when the kernel keeps the address, as it was last told.
    kept: Option<Instant>,
}

impl Leases {
    /// Begins or renews leases; each runs out after its length. `false` when the kernel cannot: then
    /// an address needs a lifetime of its own.
    pub(crate) fn renew(&mut self, leases: &[(LeaseId, Duration)]) -> bool {
        if self.is_unsupported || leases.is_empty() {
            return !self.is_unsupported;
        }
        let is_first = self.held.is_empty();
        let Err(error) = self.try_renew(leases) else { return true };
        // What is there would run out, and take addresses along that are renewed by other means.
        let is_gone = match self.commit(&[TABLE.delete()]) {
            Ok(()) => true,
            Err(error) => is_first || error.is_missing(),
        };
        if is_gone {
            self.is_unsupported = true;
            self.held.clear();
        }
        tracing::warn!(%error,
            "leases of IPv6 addresses are their lifetimes in the kernel: each renewal sends two \
             multicast reports");
        false
    }

    fn try_renew(&mut self, leases: &[(LeaseId, Duration)]) -> Result<(), NftablesError> {
        let alive: BTreeMap<_, _> =
            leases.iter().map(|((address, _), length)| (*address, *length)).collect();
        let alive: Vec<_> = alive.into_iter().map(|(one, length)| element(one, length)).collect();
        let (known, new): (Vec<_>, Vec<_>) = alive.iter().partition(|one| self.has(one.key));
        let is_first = self.held.is_empty();
        for (id, length) in leases {
            let lease =
                self.held.entry(*id).or_insert(AddressLease { length: *length, kept: None });
            lease.length = *length;
        }
        if is_first {
            return self.make_anew();
        }
        let mut requests = Vec::new();
        put_lists(&mut requests, &new, |part| TABLE.add_elements(LEASED, &without_end(part)));
        // An element's lifetime begins anew when it is another element: all kernels can do that.
        put_lists(&mut requests, &known, |part| TABLE.delete_elements(ALIVE, part));
        put_lists(&mut requests, &alive, |part| TABLE.add_elements(ALIVE, part));
        match self.commit(&requests) {
            // A lease has run out, or somebody has removed our table.
            Err(error) if error.is_missing() => self.make_anew(),
            outcome => outcome,
        }
    }

    /// The table with all that is held.
    fn make_anew(&mut self) -> Result<(), NftablesError> {
        let all: BTreeMap<_, _> =
            self.held.iter().map(|((address, _), lease)| (*address, lease.length)).collect();
        let all: Vec<_> = all.into_iter().map(|(one, length)| element(one, length)).collect();
        let mut requests = ruleset();
        put_lists(&mut requests, &all, |part| TABLE.add_elements(LEASED, &without_end(part)));
        put_lists(&mut requests, &all, |part| TABLE.add_elements(ALIVE, part));
        self.commit(&requests)
    }

    /// The lifetime that the kernel is to be told for an address that has a lease here; `None` while
    /// it knows one that is long enough.
    pub(crate) fn lifetime_to_renew(&mut self, id: LeaseId) -> Option<Duration> {
        let lease = self.held.get_mut(&id)?;
        let lifetime = lease.length.max(LIFETIME);
        let now = Instant::now();
        if lease.kept.is_some_and(|kept| kept.saturating_duration_since(now) > lifetime / 2) {
            return None;
        }
        lease.kept = Some(now + lifetime);
        Some(lifetime)
    }

    /// The address is not there as the kernel was last told: it is told again next time.
    pub(crate) fn disturbed(&mut self, id: LeaseId) {
        if let Some(lease) = self.held.get_mut(&id) {
            lease.kept = None;
        }
    }

    /// These addresses are gone, or somebody else's.
    pub(crate) fn forget(&mut self, ids: impl IntoIterator<Item = LeaseId>) {
        let mut gone: Vec<Ipv6Addr> = Vec::new();
        for id in ids {
            if self.held.remove(&id).is_some() && !self.has(id.0.into()) {
                gone.push(id.0);
            }
        }
        if gone.is_empty() {
            return;
        }
        if self.held.is_empty() {
            // Gone already is as good.
            let _ = self.commit(&[TABLE.delete()]);
            return;
        }
        let gone: Vec<_> = gone.into_iter().map(|one| Element::of(one.into())).collect();
        let mut requests = Vec::new();
        put_lists(&mut requests, &gone, |part| TABLE.delete_elements(ALIVE, part));
        put_lists(&mut requests, &gone, |part| TABLE.delete_elements(LEASED, part));
        if self.commit(&requests).is_err() {
            // One of them had run out: the others' leases begin anew, which harms none.
            let _ = self.make_anew();
        }
    }

    /// What is left of every lease of this kind, those of an earlier run too; nothing is left of one
    /// that has run out.
    pub(crate) fn remaining(&mut self) -> BTreeMap<Ipv6Addr, Duration> {
        // No table, no leases.
        let leased = self.dump(LEASED).unwrap_or_default();
        let alive = self.dump(ALIVE).unwrap_or_default();
        let ended = leased.into_iter().map(|(address, _)| (address, Duration::ZERO));
        ended.chain(alive).collect()
    }

    /// What an earlier run left: these are ours to renew and to forget. The table has them.
    pub(crate) fn inherit(&mut self, ids: impl IntoIterator<Item = LeaseId>) {
        for id in ids {
            self.held.entry(id).or_insert(AddressLease { length: Duration::ZERO, kept: None });
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let IpAddr::V6(address) = address else { return false };
        self.held.range((address, 0)..=(address, u32::MAX)).next().is_some()
    }

    fn dump(&mut self, set: &str) -> Result<Vec<(Ipv6Addr, Duration)>, NftablesError> {
        let (kind, body) = TABLE.get_elements(set);
        let messages = self.with_session(|session| session.dump(kind, &body))?;
        let elements = messages.iter().flat_map(|message| codec::read_elements(&message.body));
        let only_v6 = elements.filter_map(|(address, left)| match address {
            IpAddr::V6(address) => Some((address, left)),
            IpAddr::V4(_) => None,
        });
        Ok(only_v6.collect())
    }

    fn commit(&mut self, requests: &[NetlinkRequest]) -> Result<(), NftablesError> {
        self.with_session(|session| session.commit(requests))
    }

    fn with_session<T>(
        &mut self,
        act: impl FnOnce(&mut Session) -> Result<T, NftablesError>,
    ) -> Result<T, NftablesError> {
        session::with(&mut self.session, act)
    }
}

fn element(address: Ipv6Addr, lifetime: Duration) -> Element {
    Element { lifetime: Some(lifetime), ..Element::of(address.into()) }
}

fn without_end(elements: &[Element]) -> Vec<Element> {
    elements.iter().map(|one| Element::of(one.key)).collect()
}

fn put_lists(
    requests: &mut Vec<NetlinkRequest>,
    elements: &[Element],
    request: impl Fn(&[Element]) -> NetlinkRequest,
) {
    requests.extend(elements.chunks(LIST).map(request));
}

/// The table anew, whatever is there.
fn ruleset() -> Vec<NetlinkRequest> {
    let address = Register::new(0);
    let ended = |rule: Rule| {
        rule.if_in(LEASED, address).unless_in(ALIVE, address).verdict(RuleVerdict::Drop)
    };
    let packet = Rule::new().load(Header::Network, DESTINATION_AT, ADDRESS_OCTETS, address);
    let question = Rule::new()
        .if_protocol(ICMPV6, address)
        .load(Header::Transport, 0, 1, address)
        .equals(&[NEIGHBOUR_SOLICITATION], address)
        .load(Header::Transport, TARGET_AT, ADDRESS_OCTETS, address);
    vec![
        TABLE.create(),
        TABLE.delete(),
        TABLE.create(),
        TABLE.create_set(LEASED, 1, Holds::Addresses),
        TABLE.create_set(ALIVE, 2, Holds::LeasedAddresses),
        TABLE.create_hooked_chain(ARRIVING, PLACE),
        TABLE.append_rule(ARRIVING, &ended(packet)),
        TABLE.append_rule(ARRIVING, &ended(question)),
    ]
}
