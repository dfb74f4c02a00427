//! Makes the kernel balance what is wanted, and sees when somebody else has changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::balance::{
    BalanceTable, DISPATCH, DescribedService, KnownClients, LISTENERS, ObservedTable, TRANSLATIONS,
    key_of, slots_of, translations_of,
};
use super::codec::{
    ChainKind, ChainPlace, EntryData, Holds, Hook, ObservedSetEntry, OwnTable, SetEntry,
    read_entries, read_rule, read_set_name,
};
use super::rule::{Header, Register, Rule};
use super::service::NatService;
use super::session::{self, NftablesError, Session};
use crate::conntrack::{Conntrack, KeptConnections, NatListener};
use crate::family::IpFamily;
use crate::transport::{KernelError, NetlinkMessage, NetlinkRequest};

/// A transaction with it is never carried out.
const TRIAL: &str = "locum_trial";

/// How often connections are looked for that a service has left behind: after the change, and once
/// more for those that began while it was made.
const SWEEPS: u32 = 2;

/// What became of a change, or of a look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NatReport {
    /// Services that were put in place, changed or removed; 0 when all was as wanted.
    pub applied: usize,
    /// Services that the kernel refuses, by their first listener. What it had of each it still has.
    pub refused: BTreeMap<NatListener, KernelError>,
}

/// Connections that services have left behind, to be looked for and ended. Of many connections that
/// takes a while, so it is nothing that a change waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSweep {
    kept: Vec<KeptConnections>,
    /// Counted from 1.
    number: u64,
}

impl ConnectionSweep {
    /// Returns how many connections were ended, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel cannot say, or refuses. Some may have been ended.
    pub fn carry_out(&self) -> std::io::Result<usize> {
        Conntrack::open()?.cut(&self.kept)
    }
}

/// A service that may have left connections behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unswept {
    /// The last sweep that had begun before.
    after: u64,
    /// How often they are still to be looked for.
    left: u32,
}

/// By their chains.
type InstalledServices = BTreeMap<String, NatService>;

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
    /// As the kernel has them as far as we know. Of a family that is not here nothing is known: before
    /// the first look, and after what is not known to have been done.
    installed: BTreeMap<IpFamily, InstalledServices>,
    /// Of the rules, when they were known to be ours.
    generation: Option<u32>,
    /// By their chains.
    unswept: BTreeMap<String, Unswept>,
    /// Sweeps that have begun.
    sweeps: u64,
}

impl NatBalancer {
    /// What the kernel lacks to balance services of this family, as a sentence; asking may load
    /// modules. Nothing is changed.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn missing(&mut self, family: IpFamily) -> Result<Option<String>, NftablesError> {
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

    /// Balances exactly these services; connections of servers that left are up to
    /// [`NatBalancer::sweep`]. What an earlier run left is gone on with where it is the same. A service
    /// that the kernel refuses is in the report, and keeps no other from being served.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or refuses whatever it is asked.
    pub fn reconcile(&mut self, wanted: &[NatService]) -> Result<NatReport, NftablesError> {
        if self.installed.is_empty() {
            self.generation = session::with(&mut self.session, Session::generation)?;
        }
        let mut report = NatReport::default();
        for family in IpFamily::ALL {
            let wanted = of_family(wanted, family);
            if !self.installed.contains_key(&family) && self.has(family, &wanted)? {
                self.installed.insert(family, wanted);
            } else {
                self.bring(family, &wanted, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Looks whether the kernel still has what it was given, and gives it again where it has not.
    ///
    /// # Errors
    /// When the kernel cannot say, or refuses.
    pub fn look(&mut self) -> Result<NatReport, NftablesError> {
        let mut report = NatReport::default();
        let generation = session::with(&mut self.session, Session::generation)?;
        if generation.is_none() || generation != self.generation {
            self.generation = generation;
            for family in IpFamily::ALL {
                let Some(services) = self.installed.remove(&family) else { continue };
                if self.has(family, &services)? {
                    self.installed.insert(family, services);
                } else {
                    report.applied += self.set(family, services)?;
                }
            }
        }
        Ok(report)
    }

    /// What each listener has to do.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn loads(&mut self) -> Result<BTreeMap<NatListener, NatLoad>, NftablesError> {
        let installed = self.installed.values().flat_map(InstalledServices::values);
        let listeners: Vec<NatListener> =
            installed.flat_map(|service| &service.listeners).copied().collect();
        let mut loads: BTreeMap<NatListener, NatLoad> = BTreeMap::new();
        for family in IpFamily::ALL {
            let of_family = |one: &&NatListener| IpFamily::of(one.address.ip()) == family;
            let ours: Vec<_> = listeners.iter().filter(of_family).collect();
            if ours.is_empty() {
                continue;
            }
            let entries = self.entries(BalanceTable(family), DISPATCH)?;
            let counted: BTreeMap<Vec<u8>, u64> =
                entries.into_iter().map(|one| (one.entry.key, one.packets)).collect();
            for listener in ours {
                let accepted = counted.get(&key_of(listener)).copied().unwrap_or(0);
                loads.insert(*listener, NatLoad { accepted, active: BTreeMap::new() });
            }
        }
        with_conntrack(&mut self.conntrack, |conntrack| {
            conntrack.visit(&listeners, |connection| {
                if !connection.is_sent_elsewhere {
                    return;
                }
                if let Some(load) = loads.get_mut(&connection.listener) {
                    *load.active.entry(connection.server).or_default() += 1;
                }
            })
        })?;
        Ok(loads)
    }

    /// Whether the kernel has exactly these, whoever put them there.
    fn has(
        &mut self,
        family: IpFamily,
        services: &InstalledServices,
    ) -> Result<bool, NftablesError> {
        let described: Vec<_> =
            services.values().map(|service| DescribedService::new(service, family)).collect();
        let observed = self.observe(family, &described)?;
        Ok(BalanceTable(family).is_whole(&described, &observed))
    }

    /// Makes the kernel have these, but for those that it refuses.
    fn bring(
        &mut self,
        family: IpFamily,
        wanted: &InstalledServices,
        report: &mut NatReport,
    ) -> Result<(), NftablesError> {
        let mut refusal = match self.set(family, wanted.clone()) {
            Ok(applied) => {
                report.applied += applied;
                return Ok(());
            }
            Err(error) => error.of_parts()?,
        };
        let before = self.installed.get(&family);
        let is_new = |(chain, service): &(&String, &NatService)| {
            before.is_none_or(|before| before.get(*chain) != Some(*service))
        };
        let new: Vec<_> = wanted.iter().filter(is_new).collect();
        let stays = |before: &InstalledServices| -> InstalledServices {
            let stays = before.iter().filter(|(chain, _)| wanted.contains_key(*chain));
            stays.map(|(chain, service)| (chain.clone(), service.clone())).collect()
        };
        let staying = before.map(|before| (before.len(), stays(before)));
        if let Some((count, staying)) = staying
            && staying.len() < count
        {
            report.applied += self.set(family, staying)?;
            refusal = match self.add(family, &new) {
                Ok(applied) => {
                    report.applied += applied;
                    return Ok(());
                }
                Err(error) => error.of_parts()?,
            };
        }
        self.add_parts(family, &new, refusal, report)
    }

    /// Adds what the kernel has refused as a whole, `refusal` being its error.
    fn add_parts(
        &mut self,
        family: IpFamily,
        new: &[(&String, &NatService)],
        refusal: KernelError,
        report: &mut NatReport,
    ) -> Result<(), NftablesError> {
        match new {
            [] => return Err(refusal.into()),
            [(_, service)] => {
                let listener = service.listeners.first().copied();
                report.refused.extend(listener.map(|listener| (listener, refusal)));
                return Ok(());
            }
            _ => {}
        }
        let (one, other) = new.split_at(new.len() / 2);
        for part in [one, other] {
            match self.add(family, part) {
                Ok(applied) => report.applied += applied,
                Err(error) => self.add_parts(family, part, error.of_parts()?, report)?,
            }
        }
        Ok(())
    }

    /// Beside what is there, or in the place of what has the same chain.
    fn add(
        &mut self,
        family: IpFamily,
        new: &[(&String, &NatService)],
    ) -> Result<usize, NftablesError> {
        let mut all = self.installed.get(&family).cloned().unwrap_or_default();
        all.extend(new.iter().map(|(chain, service)| ((*chain).clone(), (*service).clone())));
        self.set(family, all)
    }

    /// Makes the kernel have exactly these, or leaves what it has. Returns how many services differ.
    fn set(&mut self, family: IpFamily, wanted: InstalledServices) -> Result<usize, NftablesError> {
        let before = self.installed.remove(&family);
        let outcome = match &before {
            None => self.rebuild(family, &wanted),
            Some(before) => match self.change(family, before, &wanted) {
                // Somebody has removed what was to be changed.
                Err(error) if error.is_missing() || error.is_known() => {
                    self.generation = None;
                    self.rebuild(family, &wanted)
                }
                outcome => outcome,
            },
        };
        match (&outcome, before) {
            (Ok(_), before) => {
                let leaves_behind = |(chain, service): &(&String, &NatService)| {
                    let before = before.as_ref().and_then(|before| before.get(*chain));
                    before.is_none_or(|before| service.leaves_behind(before))
                };
                let left = wanted.iter().filter(leaves_behind);
                let unswept = Unswept { after: self.sweeps, left: SWEEPS };
                self.unswept.extend(left.map(|(chain, _)| (chain.clone(), unswept)));
                self.installed.insert(family, wanted);
            }
            // A transaction is all or nothing.
            (Err(NftablesError::Kernel(_)), Some(before)) => {
                self.installed.insert(family, before);
            }
            (Err(_), _) => {}
        }
        outcome
    }

    /// Returns how many services differ.
    fn change(
        &mut self,
        family: IpFamily,
        before: &InstalledServices,
        wanted: &InstalledServices,
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
            let all: Vec<_> = wanted.values().map(describe).collect();
            let kept = translations_of(&all);
            gone.retain(|one| !kept.contains(one));
            table.forget(&gone, &mut requests);
        }
        self.commit(&requests)?;
        Ok(changed)
    }

    /// The table anew, whatever is there.
    fn rebuild(
        &mut self,
        family: IpFamily,
        wanted: &InstalledServices,
    ) -> Result<usize, NftablesError> {
        let table = BalanceTable(family);
        let described: Vec<_> =
            wanted.values().map(|service| DescribedService::new(service, family)).collect();
        let mut clients = KnownClients::new();
        for service in &described {
            clients.insert(service.chain.clone(), self.clients(table, service)?);
        }
        self.commit(&table.rebuild(&described, &mut clients))?;
        Ok(wanted.len().max(1))
    }

    fn commit(&mut self, requests: &[NetlinkRequest]) -> Result<(), NftablesError> {
        session::with(&mut self.session, |session| session.commit(requests))?;
        // It is done; what cannot be asked now is looked at by the next look.
        let now = session::with(&mut self.session, Session::generation).unwrap_or_default();
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
    fn dump(&mut self, (kind, body): (u16, Vec<u8>)) -> Result<Vec<NetlinkMessage>, NftablesError> {
        match session::with(&mut self.session, |session| session.dump(kind, &body)) {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    fn observe(
        &mut self,
        family: IpFamily,
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
        let listeners = self.entries(table, LISTENERS)?;
        observed.listeners = listeners.into_iter().map(|one| one.entry.key).collect();
        let translations = self.entries(table, TRANSLATIONS)?;
        observed.translations = translations.into_iter().map(|one| one.entry.key).collect();
        for one in self.entries(table, DISPATCH)? {
            if let EntryData::Goto(chain) = one.entry.data {
                observed.dispatch.insert(one.entry.key, chain);
            }
        }
        for service in wanted {
            let set = slots_of(&service.chain);
            let entries = self.entries(table, &set)?;
            let entries = entries.into_iter().map(|one| (one.entry.key, one.entry.data));
            observed.slots.insert(set, entries.collect());
        }
        Ok(observed)
    }

    /// Connections may have been left behind that nobody has looked for yet.
    #[must_use]
    pub fn has_left_behind(&self) -> bool {
        self.unswept.values().any(|one| one.left == SWEEPS)
    }

    /// What services have left behind, as these are now; `None` when that is nothing.
    pub fn sweep(&mut self) -> Option<ConnectionSweep> {
        let installed = || self.installed.values().flatten();
        let is_left = |(chain, _): &(&String, &NatService)| self.unswept.contains_key(*chain);
        let chains: BTreeSet<String> =
            installed().filter(is_left).map(|(chain, _)| chain.clone()).collect();
        let kept: Vec<_> =
            installed().filter(is_left).flat_map(|(_, service)| service.kept()).collect();
        self.unswept.retain(|chain, _| chains.contains(chain));
        if kept.is_empty() {
            return None;
        }
        self.sweeps += 1;
        Some(ConnectionSweep { kept, number: self.sweeps })
    }

    /// This one was carried out. What fails is not said here, and so is due again.
    pub fn swept(&mut self, sweep: &ConnectionSweep) {
        self.unswept.retain(|_, one| {
            if one.after < sweep.number {
                one.left -= 1;
            }
            one.left > 0
        });
    }
}

fn of_family(services: &[NatService], family: IpFamily) -> InstalledServices {
    let ours = services.iter().filter(|service| service.family() == Some(family));
    ours.map(|service| (service.chain(), service.clone())).collect()
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
fn trials(family: IpFamily) -> Vec<(&'static str, Vec<NetlinkRequest>)> {
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
        IpFamily::V4 => "nft_fib_ipv4",
        IpFamily::V6 => "nft_fib_ipv6",
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
    let whole = |part: Vec<NetlinkRequest>| {
        let base = place(Hook::Prerouting);
        let mut requests = vec![table.create(), table.create_hooked_chain(CHAIN, base)];
        requests.extend(part);
        requests.push(table.create_new());
        requests
    };
    parts.into_iter().map(|(module, part)| (module, whole(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::IpProtocol;
    use crate::nftables::{NatSelection, NatServer};

    fn service(port: u16) -> NatService {
        let address = ([192, 0, 2, 10], port).into();
        NatService {
            listeners: vec![NatListener { protocol: IpProtocol::Udp, address }],
            selection: NatSelection::Turns,
            persistence: None,
            servers: vec![NatServer { address: ([10, 0, 0, 1], 53).into(), weight: 1 }],
        }
    }

    #[test]
    fn connections_are_looked_for_twice_after_the_last_change() {
        let chain = service(53).chain();
        let changed = |balancer: &NatBalancer| Unswept { after: balancer.sweeps, left: SWEEPS };
        let mut balancer = NatBalancer::default();
        balancer.installed = [(IpFamily::V4, [(chain.clone(), service(53))].into())].into();
        balancer.unswept =
            [(chain.clone(), changed(&balancer)), ("gone".to_owned(), changed(&balancer))].into();
        let first = balancer.sweep().expect("nothing was looked for");
        assert!(balancer.has_left_behind(), "it has not been carried out");
        // Another change while it is carried out.
        balancer.unswept.insert(chain, changed(&balancer));
        balancer.swept(&first);
        for left in [true, false] {
            assert_eq!(balancer.has_left_behind(), left);
            let sweep = balancer.sweep().expect("twice");
            balancer.swept(&sweep);
        }
        assert_eq!(balancer.sweep(), None);
    }
}
