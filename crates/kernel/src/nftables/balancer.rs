//! Makes the kernel balance what is wanted, and sees when somebody else has changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::balance::{
    BalanceTable, DescribedService, KnownClients, ObservedTable, key_of, translations_of,
};
use super::codec::{
    ChainKind, ChainPlace, EntryData, Holds, Hook, ObservedSetEntry, OwnTable, PacketFamily,
    SetEntry, read_entries, read_rule, read_set_name,
};
use super::rule::{Header, Register, Rule};
use super::service::NatService;
use super::session::{self, NftablesError, Session};
use crate::conntrack::{Conntrack, KeptConnections, NatListener};
use crate::family::Family;
use crate::transport::{Message, Request};

const FAMILIES: [PacketFamily; 2] = [PacketFamily::Ipv4, PacketFamily::Ipv6];

/// A transaction with it is never carried out.
const TRIAL: &str = "locum_trial";

/// What became of a change, or of a look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NatReport {
    /// Services that were put in place, changed or removed; 0 when all was as wanted.
    pub applied: usize,
    /// Connections that were ended because their server is gone.
    pub cut: usize,
    /// Why connections that should have been ended may go on.
    pub uncut: Option<String>,
}

/// What one listener has to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NatLoad {
    /// Connections that began since it was put in place.
    pub accepted: u64,
    /// Connections of now, by the server that answers them.
    pub active: BTreeMap<SocketAddr, u64>,
}

/// The services of one network namespace. Use it from a thread that may take the time of a request.
#[derive(Debug, Default)]
pub struct NatBalancer {
    session: Option<Session>,
    conntrack: Option<Conntrack>,
    /// By their chains, as the kernel has them as far as we know; `None` before the first look and
    /// after what is not known to have been done.
    installed: Option<BTreeMap<String, NatService>>,
    /// Of the rules, when they were known to be ours.
    generation: Option<u32>,
    /// Of services that changed: whoever began while they did is looked for once more.
    unswept: Vec<KeptConnections>,
}

impl NatBalancer {
    /// What the kernel lacks to balance services of this family, as a sentence; asking may load
    /// modules. Nothing is changed.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn missing(&mut self, family: Family) -> Result<Option<String>, NftablesError> {
        let family = match family {
            Family::V4 => PacketFamily::Ipv4,
            Family::V6 => PacketFamily::Ipv6,
        };
        let mut missing = Vec::new();
        for (module, requests) in trials(family) {
            let tried = session::with(&mut self.session, |session| session.commit(&requests));
            match tried {
                // The last request always fails, and this one only when all others would not.
                Err(error) if error.is_known() => {}
                // It would refuse whatever it is asked.
                Err(error) if error.is_forbidden() => return Err(error),
                Err(NftablesError::Kernel(error)) => missing.push(format!("{module} ({error})")),
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            // Whatever follows needs it.
            if module == "nf_tables" && !missing.is_empty() {
                break;
            }
        }
        if missing.is_empty()
            && let Err(error) = with_conntrack(&mut self.conntrack, Conntrack::answers)?
        {
            missing.push(format!("nf_conntrack_netlink ({error})"));
        }
        Ok((!missing.is_empty()).then(|| missing.join(", ")))
    }

    /// Balances exactly these services, and ends the connections of servers that left. What an
    /// earlier run left is gone on with where it is the same.
    ///
    /// # Errors
    /// When the kernel refuses; then all is as before.
    pub fn reconcile(&mut self, wanted: &[NatService]) -> Result<NatReport, NftablesError> {
        let wanted: BTreeMap<String, NatService> =
            wanted.iter().map(|service| (service.chain(), service.clone())).collect();
        let Some(before) = self.installed.take() else {
            return self.adopt(wanted);
        };
        let mut applied = 0;
        for family in FAMILIES {
            let (old, new) = (of_family(&before, family), of_family(&wanted, family));
            match self.change(family, &old, &new) {
                Ok(changed) => applied += changed,
                // Somebody has removed what was to be changed.
                Err(error) if error.is_missing() || error.is_known() => {
                    self.rebuild(family, &new)?;
                    applied += new.len().max(1);
                }
                Err(error) => return Err(error),
            }
        }
        let left = wanted.iter().filter(|(chain, service)| {
            before.get(*chain).is_none_or(|before| service.leaves_behind(before))
        });
        let left: Vec<_> = left.flat_map(|(_, service)| service.kept()).collect();
        self.installed = Some(wanted);
        let (cut, uncut) = self.sweep(left);
        Ok(NatReport { applied, cut, uncut })
    }

    /// Looks whether the kernel still has what it was given, and gives it again where it has not.
    ///
    /// # Errors
    /// When the kernel cannot say, or refuses.
    pub fn look(&mut self) -> Result<NatReport, NftablesError> {
        let again = std::mem::take(&mut self.unswept);
        let (cut, uncut) = self.end(&again);
        let generation = session::with(&mut self.session, Session::generation)?;
        let is_as_known = generation.is_some() && generation == self.generation;
        let mut report = NatReport { applied: 0, cut, uncut };
        if is_as_known {
            return Ok(report);
        }
        let Some(installed) = self.installed.take() else { return Ok(report) };
        let adopted = self.adopt(installed)?;
        report.applied = adopted.applied;
        report.cut += adopted.cut;
        report.uncut = report.uncut.or(adopted.uncut);
        Ok(report)
    }

    /// What each listener has to do.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn loads(&mut self) -> Result<BTreeMap<NatListener, NatLoad>, NftablesError> {
        let installed = self.installed.iter().flatten();
        let listeners: Vec<NatListener> =
            installed.flat_map(|(_, service)| &service.listeners).copied().collect();
        let mut loads: BTreeMap<NatListener, NatLoad> = BTreeMap::new();
        for family in FAMILIES {
            let of_family = |one: &&NatListener| PacketFamily::of(one.address.ip()) == family;
            let ours: Vec<_> = listeners.iter().filter(of_family).collect();
            if ours.is_empty() {
                continue;
            }
            let entries = self.entries(BalanceTable(family), BalanceTable::DISPATCH)?;
            let counted: BTreeMap<Vec<u8>, u64> =
                entries.into_iter().map(|one| (one.entry.key, one.packets)).collect();
            for listener in ours {
                let accepted = counted.get(&key_of(listener)).copied().unwrap_or(0);
                loads.insert(*listener, NatLoad { accepted, active: BTreeMap::new() });
            }
        }
        let connections =
            with_conntrack(&mut self.conntrack, |conntrack| conntrack.connections(&listeners))?;
        for connection in connections.into_iter().filter(|one| one.is_sent_elsewhere) {
            if let Some(load) = loads.get_mut(&connection.listener) {
                *load.active.entry(connection.server).or_default() += 1;
            }
        }
        Ok(loads)
    }

    /// Makes the kernel have `wanted`, whatever it has.
    fn adopt(&mut self, wanted: BTreeMap<String, NatService>) -> Result<NatReport, NftablesError> {
        self.generation = session::with(&mut self.session, Session::generation)?;
        let mut applied = 0;
        let mut rebuilt = Vec::new();
        for family in FAMILIES {
            let services = of_family(&wanted, family);
            let described: Vec<_> =
                services.values().map(|service| DescribedService::new(service, family)).collect();
            let observed = self.observe(family, &described)?;
            if !BalanceTable(family).is_whole(&described, &observed) {
                self.rebuild(family, &services)?;
                applied += services.len().max(1);
                rebuilt.extend(services.values().flat_map(|service| service.kept()));
            }
        }
        self.installed = Some(wanted);
        let (cut, uncut) = self.sweep(rebuilt);
        Ok(NatReport { applied, cut, uncut })
    }

    /// Returns how many services differ.
    fn change(
        &mut self,
        family: PacketFamily,
        before: &BTreeMap<&str, &NatService>,
        wanted: &BTreeMap<&str, &NatService>,
    ) -> Result<usize, NftablesError> {
        if before == wanted {
            return Ok(0);
        }
        if before.is_empty() || wanted.is_empty() {
            self.rebuild(family, wanted)?;
            return Ok(before.len().max(wanted.len()));
        }
        let table = BalanceTable(family);
        let describe = |service: &NatService| DescribedService::new(service, family);
        let (mut requests, mut changed) = (Vec::new(), 0);
        let mut gone = BTreeSet::new();
        // What gives listeners up comes before what takes them.
        for (chain, service) in before {
            if !wanted.contains_key(chain) {
                let service = describe(service);
                table.uninstall(&service, &mut requests);
                gone.extend(service.translations);
                changed += 1;
            }
        }
        for (at, (chain, service)) in wanted.iter().enumerate() {
            match before.get(chain) {
                Some(same) if same == service => continue,
                Some(old) => {
                    let (old, new) = (describe(old), describe(service));
                    let clients = self.clients(table, &old)?;
                    table.change(&old, &new, clients, &mut requests);
                    gone.extend(old.translations.difference(&new.translations).cloned());
                }
                None => table.install(&describe(service), at, Vec::new(), &mut requests),
            }
            changed += 1;
        }
        if !gone.is_empty() {
            let all: Vec<_> = wanted.values().map(|service| describe(service)).collect();
            let kept = translations_of(&all);
            gone.retain(|one| !kept.contains(one));
            table.forget(&gone, &mut requests);
        }
        self.commit(&requests)?;
        Ok(changed)
    }

    fn rebuild(
        &mut self,
        family: PacketFamily,
        wanted: &BTreeMap<&str, &NatService>,
    ) -> Result<(), NftablesError> {
        let table = BalanceTable(family);
        let described: Vec<_> =
            wanted.values().map(|service| DescribedService::new(service, family)).collect();
        let mut clients = KnownClients::new();
        for service in &described {
            clients.insert(service.chain.clone(), self.clients(table, service)?);
        }
        self.commit(&table.rebuild(&described, &mut clients))
    }

    fn commit(&mut self, requests: &[Request]) -> Result<(), NftablesError> {
        session::with(&mut self.session, |session| session.commit(requests))?;
        let now = session::with(&mut self.session, Session::generation)?;
        // One more, or somebody else has changed something meanwhile.
        let is_next = |before: u32| now == Some(before.wrapping_add(1));
        self.generation = self.generation.filter(|before| is_next(*before)).and(now);
        Ok(())
    }

    /// Clients that a service keeps on its servers now.
    fn clients(
        &mut self,
        table: BalanceTable,
        service: &DescribedService,
    ) -> Result<Vec<SetEntry>, NftablesError> {
        let Some(set) = table.clients_of(service) else { return Ok(Vec::new()) };
        let entries = self.entries(table, &set)?;
        // What is about to run out would be for ever.
        let alive = entries.into_iter().map(|one| one.entry);
        Ok(alive.filter(|entry| entry.lifetime.is_some_and(|left| !left.is_zero())).collect())
    }

    fn entries(
        &mut self,
        table: BalanceTable,
        set: &str,
    ) -> Result<Vec<ObservedSetEntry>, NftablesError> {
        let messages = self.dump(table.own().get_elements(set))?;
        Ok(messages.iter().flat_map(|message| read_entries(&message.body)).collect())
    }

    /// Of what is not there, nothing.
    fn dump(&mut self, (kind, body): (u16, Vec<u8>)) -> Result<Vec<Message>, NftablesError> {
        match session::with(&mut self.session, |session| session.dump(kind, &body)) {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    fn observe(
        &mut self,
        family: PacketFamily,
        wanted: &[DescribedService],
    ) -> Result<ObservedTable, NftablesError> {
        let table = BalanceTable(family);
        let mut observed = ObservedTable::default();
        for message in self.dump(table.own().get_rules())? {
            if let Some((chain, comment)) = read_rule(&message.body) {
                observed.chains.entry(chain).or_default().push(comment);
            }
        }
        let sets = self.dump(table.own().get_sets())?;
        observed.sets = sets.iter().filter_map(|message| read_set_name(&message.body)).collect();
        if observed.sets.is_empty() {
            return Ok(observed);
        }
        let listeners = self.entries(table, BalanceTable::LISTENERS)?;
        observed.listeners = listeners.into_iter().map(|one| one.entry.key).collect();
        let translations = self.entries(table, BalanceTable::TRANSLATIONS)?;
        observed.translations = translations.into_iter().map(|one| one.entry.key).collect();
        for one in self.entries(table, BalanceTable::DISPATCH)? {
            if let EntryData::Goto(chain) = one.entry.data {
                observed.dispatch.insert(one.entry.key, chain);
            }
        }
        for service in wanted {
            let set = BalanceTable::slots_of(&service.chain);
            let entries = self.entries(table, &set)?;
            let entries = entries.into_iter().map(|one| (one.entry.key, one.entry.data));
            observed.slots.insert(set, entries.collect());
        }
        Ok(observed)
    }

    /// Ends connections now, and those that began meanwhile at the next look.
    fn sweep(&mut self, kept: Vec<KeptConnections>) -> (usize, Option<String>) {
        let ended = self.end(&kept);
        self.unswept.extend(kept);
        ended
    }

    fn end(&mut self, kept: &[KeptConnections]) -> (usize, Option<String>) {
        if kept.is_empty() {
            return (0, None);
        }
        match with_conntrack(&mut self.conntrack, |conntrack| conntrack.cut(kept)) {
            Ok(cut) => (cut, None),
            Err(error) => (0, Some(error.to_string())),
        }
    }
}

fn of_family(
    services: &BTreeMap<String, NatService>,
    family: PacketFamily,
) -> BTreeMap<&str, &NatService> {
    let ours = services.iter().filter(|(_, service)| service.family() == Some(family));
    ours.map(|(chain, service)| (chain.as_str(), service)).collect()
}

/// A socket that failed is not used again.
fn with_conntrack<T>(
    conntrack: &mut Option<Conntrack>,
    act: impl FnOnce(&mut Conntrack) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let mut open = match conntrack.take() {
        Some(open) => open,
        None => Conntrack::open()?,
    };
    let outcome = act(&mut open);
    if outcome.is_ok() {
        *conntrack = Some(open);
    }
    outcome
}

/// What a table of services is made of, each with the kernel module that it needs, in transactions
/// whose last request fails.
fn trials(family: PacketFamily) -> Vec<(&'static str, Vec<Request>)> {
    const CHAIN: &str = "trial";
    const SET: &str = "listeners";
    const SLOTS: &str = "slots";
    let table = OwnTable { family, name: TRIAL };
    let register = Register::new(0);
    let octets = family.address_octets();
    let rule = |rule: Rule| vec![table.append_rule(CHAIN, &rule)];
    let place = |hook| ChainPlace { kind: ChainKind::Translation, hook, priority: 0 };
    let load = |rule: Rule| rule.load(Header::Network, 0, octets, register);
    let fib = match family {
        PacketFamily::Ipv4 => "nft_fib_ipv4",
        PacketFamily::Ipv6 => "nft_fib_ipv6",
    };
    let parts = [
        ("nf_tables", vec![table.create_set(SET, 1, Holds::Dispatch)]),
        ("nft_chain_nat", vec![table.create_hooked_chain("hooked", place(Hook::Output))]),
        ("nft_ct", rule(Rule::new().if_sent_elsewhere(register))),
        ("nft_numgen", rule(Rule::new().count_up(1, register))),
        ("nft_hash", rule(load(Rule::new()).hash(register, octets, 1, register))),
        (fib, rule(Rule::new().if_for_this_host(register))),
        (
            "nft_nat",
            vec![
                table.create_set(SLOTS, 2, Holds::Slots),
                table.append_rule(
                    CHAIN,
                    &Rule::new()
                        .count_up(1, register)
                        .map(SLOTS, register, register)
                        .send_to(family, register),
                ),
            ],
        ),
        (
            "nft_masq",
            vec![
                table.create_hooked_chain("hooked", place(Hook::Postrouting)),
                table.append_rule("hooked", &Rule::new().masquerade()),
            ],
        ),
    ];
    let whole = |part: Vec<Request>| {
        let base = place(Hook::Prerouting);
        let mut requests = vec![table.create(), table.create_hooked_chain(CHAIN, base)];
        requests.extend(part);
        requests.push(table.create_new());
        requests
    };
    parts.into_iter().map(|(module, part)| (module, whole(part))).collect()
}
