//! The services of a node: what it serves now, what the balancer made of that, and what is awaited.
//!
//! What is served is one level, as the kernel's facts are: it follows the roles and the health of
//! servers, a newer one replaces an older one, and the balancer answers for it service by service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_plan::{
    Activity, HaproxyFile, IpvsSettings, Name, Plan, SyncRole, Tracked, WantedHaproxy, WantedIpvs,
    WantedServices, first_few,
};
use locum_vrrp::Time;

use crate::ids::Seq;
use crate::order::StandingOrder;
use crate::output::Output;
use crate::service::ServiceState;

/// Whether the addresses of an instance are on this node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holding {
    pub is_here: bool,
    /// How long they stay when no daemon renews them; `None` for ever.
    pub lease: Option<Duration>,
}

#[derive(Debug, Default)]
pub struct Services {
    all: Vec<ServiceState>,
    haproxy: Vec<Arc<HaproxyFile>>,
    /// Of the plan, where a HAProxy may name them.
    virtual_addresses: Arc<[IpAddr]>,
    ipvs: Arc<IpvsSettings>,
    /// The level last sent, and its number.
    level: Arc<WantedServices>,
    seq: Seq,
    /// The next level is sent even if nothing has changed.
    send_again: bool,
    /// Of the level: those the balancer has not answered for since they were asked for.
    pending: BTreeSet<Name>,
    /// Orders of an earlier run, until the plan comes that has their servers.
    inherited: Vec<StandingOrder>,
    /// When a weight takes its next step.
    step_at: Option<Time>,
}

impl Services {
    pub fn iter(&self) -> impl Iterator<Item = &ServiceState> {
        self.all.iter()
    }

    /// By position, as probes are asked for.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut ServiceState> {
        self.all.get_mut(at)
    }

    pub fn haproxy(&self) -> impl Iterator<Item = &HaproxyFile> {
        self.haproxy.iter().map(|file| &**file)
    }

    /// The level last sent.
    pub fn level(&self) -> &WantedServices {
        &self.level
    }

    /// The services of a new plan. Those that are the same keep what is known of their servers.
    pub fn replace(&mut self, now: Time, plan: &Plan) {
        let old: HashMap<Name, ServiceState> =
            self.all.drain(..).map(|state| (state.service.name.clone(), state)).collect();
        self.all = plan
            .services
            .iter()
            .map(|service| match old.get(&service.name) {
                Some(state) if *state.service == *service => state.clone(),
                known => ServiceState::new(service, known, now),
            })
            .collect();
        self.haproxy = plan.haproxy.iter().cloned().map(Arc::new).collect();
        self.virtual_addresses = match plan.haproxy.is_empty() {
            true => Arc::default(),
            false => plan.virtual_addresses(),
        };
        self.ipvs = Arc::clone(&plan.ipvs);
        self.send_again = true;
        for StandingOrder { service, server, order } in std::mem::take(&mut self.inherited) {
            // What the plan does not have any more nobody has ordered anything of.
            if let Ok((at, server)) = self.find(&service, server.ip(), Some(server.port())) {
                self.all[at].servers[server].order = Some(order);
                self.all[at].settle(now);
            }
        }
    }

    /// What an operator has ordered in an earlier run; it takes effect with the next plan.
    pub fn inherit(&mut self, orders: Vec<StandingOrder>) {
        self.inherited = orders;
    }

    /// The positions of a service and of its server; without a port the only one with this address.
    ///
    /// # Errors
    /// A sentence that says what there is instead.
    pub fn find(
        &self,
        service: &Name,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<(usize, usize), String> {
        let at = self.all.iter().position(|state| state.service.name == *service);
        let at = at.ok_or_else(|| {
            let all: Vec<String> =
                self.all.iter().map(|one| one.service.name.to_string()).collect();
            match all.is_empty() {
                true => format!("there is no service {service}: the configuration has none"),
                false => {
                    format!("there is no service {service}; there is {}", first_few(&all, ", "))
                }
            }
        })?;
        let is_it = |known: &SocketAddr| {
            known.ip() == address && port.is_none_or(|port| known.port() == port)
        };
        let servers = || self.all[at].servers.iter().map(|one| one.server.address);
        let mut found = servers().enumerate().filter(|(_, known)| is_it(known));
        match (found.next(), found.next()) {
            (Some((server, _)), None) => Ok((at, server)),
            (None, _) => {
                let server = match port {
                    Some(port) => SocketAddr::new(address, port).to_string(),
                    None => address.to_string(),
                };
                let all: Vec<String> = servers().map(|one| one.to_string()).collect();
                let all = first_few(&all, ", ");
                Err(format!("service {service} has no server {server}; it has {all}"))
            }
            (Some(_), Some(_)) => {
                let all = servers().filter(is_it).map(|one| one.to_string());
                let all = first_few(&all.collect::<Vec<_>>(), ", ");
                Err(format!("service {service} has several servers {address}: name one of {all}"))
            }
        }
    }

    /// When a weight takes its next step.
    pub fn deadline(&self) -> Option<Time> {
        self.step_at
    }

    /// Weights have taken the steps that were due.
    pub fn settle_steps(&mut self, now: Time) {
        self.step_at = self.all.iter_mut().filter_map(|state| state.next_step(now)).min();
    }

    /// What this node serves now, when that is another level than the last one. `holding` says of
    /// an instance, or of none, whether its addresses are here; `is_over` that nothing is served
    /// any more.
    pub fn drain(
        &mut self,
        now: Time,
        holding: impl Fn(Option<&Name>) -> Holding,
        is_over: bool,
        out: &mut Vec<Output>,
    ) {
        let is_first = self.seq == 0;
        let has_any = !self.all.is_empty() || !self.haproxy.is_empty();
        let sends_again = std::mem::take(&mut self.send_again);
        if !is_first && !has_any && *self.level == WantedServices::default() {
            return;
        }
        let mut wanted = WantedServices::default();
        if !is_over {
            let services = self.all.iter_mut();
            let level = services.map(|state| {
                let Holding { is_here, lease } = holding(state.service.instance.as_ref());
                state.wanted(is_here, lease, now)
            });
            wanted.services = level.collect();
            let level = self.haproxy.iter().map(|file| {
                let is_here = holding(file.instance.as_ref()).is_here;
                let activity = file.standby.activity(is_here);
                WantedHaproxy { file: Arc::clone(file), activity }
            });
            wanted.haproxy = level.collect();
            wanted.virtual_addresses = Arc::clone(&self.virtual_addresses);
            let sync = self.ipvs.sync.as_ref().map(|sync| match holding(Some(&sync.instance)) {
                Holding { is_here: true, .. } => SyncRole::Sender,
                Holding { is_here: false, .. } => SyncRole::Receiver,
            });
            wanted.ipvs = WantedIpvs { settings: Arc::clone(&self.ipvs), sync };
        }
        // The first level is always sent: an earlier run may have left something serving. So is
        // the one after a reload when it names files: their text may have changed.
        let must_send = sends_again && (is_first || !wanted.haproxy.is_empty());
        if wanted == *self.level && !must_send {
            return;
        }
        self.seq += 1;
        self.pending = self.newly_active(&wanted);
        self.level = Arc::new(wanted);
        out.push(Output::Serve { seq: self.seq, wanted: Arc::clone(&self.level) });
    }

    /// What begins to serve with `wanted`, and what had not begun yet.
    fn newly_active(&self, wanted: &WantedServices) -> BTreeSet<Name> {
        let was_active = |name: &Name| active(&self.level).any(|(active, _)| active == name);
        let names = active(wanted).map(|(name, _)| name);
        names.filter(|name| self.pending.contains(*name) || !was_active(name)).cloned().collect()
    }

    /// What is awaited is served actively. `Err` is what does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        let is_active = |name: &&Name| active(&self.level).any(|(active, _)| active == *name);
        match self.pending.iter().find(|name| !is_active(name)) {
            Some(name) => Err(format!("{name} is awaited and not served")),
            None => Ok(()),
        }
    }

    /// What an announcement of this instance has to wait for.
    pub fn awaited(&self, instance: &Name) -> Option<Name> {
        if self.pending.is_empty() {
            return None;
        }
        let mut all = active(&self.level).filter(|(name, _)| self.pending.contains(*name));
        all.find(|(_, of)| *of == Some(instance)).map(|(name, _)| name.clone())
    }

    /// These names as the objects of the level; what it does not name is left out.
    pub fn of_names(&self, names: Vec<(Name, String)>) -> Vec<(Tracked, String)> {
        let names: BTreeMap<Name, String> = names.into_iter().collect();
        let objects = objects(&self.level).map(|(object, _)| object);
        let named = objects.filter_map(|object| {
            let text = names.get(object.name())?.clone();
            Some((object, text))
        });
        named.collect()
    }

    /// The instance whose addresses a service or HAProxy follows.
    pub fn instance_of(&self, object: &Tracked) -> Option<&Name> {
        let mut services = self.all.iter().map(|state| &state.service);
        let mut haproxy = self.haproxy.iter();
        match object {
            Tracked::Service(name) => services.find(|one| one.name == *name)?.instance.as_ref(),
            Tracked::Haproxy(name) => haproxy.find(|one| one.name == *name)?.instance.as_ref(),
            Tracked::Check(_) | Tracked::Interface(_) => None,
        }
    }

    /// The balancer's answer to level `seq`; it comes again whenever something changes. Returns what
    /// it says of each object, and the instances of which something was awaited.
    pub fn answered(
        &mut self,
        seq: Seq,
        pending: &[Name],
        failed: Vec<(Name, String)>,
    ) -> (Vec<ServedAnswer>, BTreeSet<Name>) {
        if seq != self.seq {
            return (Vec::new(), BTreeSet::new());
        }
        let awaited = std::mem::take(&mut self.pending);
        self.pending = awaited.iter().filter(|name| pending.contains(name)).cloned().collect();
        let (pending, failed): (BTreeSet<&Name>, BTreeMap<Name, String>) =
            (pending.iter().collect(), failed.into_iter().collect());
        let answers = objects(&self.level).map(|(object, activity)| {
            let error = failed.get(object.name()).cloned();
            // What is pending has neither failed again nor recovered.
            let holds = (!pending.contains(object.name())).then_some(error.is_none());
            let is_active = activity == Activity::Active;
            ServedAnswer { is_active, holds, detail: error.unwrap_or_default(), object }
        });
        let answers = answers.collect();
        let instances = active(&self.level).filter(|(name, _)| awaited.contains(*name));
        (answers, instances.filter_map(|(_, instance)| instance.cloned()).collect())
    }
}

/// What the balancer says of one object.
#[derive(Debug)]
pub struct ServedAnswer {
    pub object: Tracked,
    /// It is served here: the answer is whether clients are answered, else whether they would be.
    pub is_active: bool,
    /// `None` while it is at it.
    pub holds: Option<bool>,
    pub detail: String,
}

/// What a level names.
fn objects(level: &WantedServices) -> impl Iterator<Item = (Tracked, Activity)> {
    let services = level.services.iter();
    let services = services.map(|one| (Tracked::Service(one.service.name.clone()), one.activity));
    let haproxy = level.haproxy.iter();
    services.chain(haproxy.map(|one| (Tracked::Haproxy(one.file.name.clone()), one.activity)))
}

/// Names of what a level serves, with the instance each belongs to.
fn active(level: &WantedServices) -> impl Iterator<Item = (&Name, Option<&Name>)> {
    let services = level.services.iter().filter(|one| one.activity == Activity::Active);
    let services = services.map(|one| (&one.service.name, one.service.instance.as_ref()));
    let haproxy = level.haproxy.iter().filter(|one| one.activity == Activity::Active);
    services.chain(haproxy.map(|one| (&one.file.name, one.file.instance.as_ref())))
}
