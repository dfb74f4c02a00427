//! All services, and how one request to serve follows another.

use std::rc::Rc;

use crate::protocol::{OLDEST_VERSION, ProxyService, ProxyStart, ProxyStatus, VERSION};

use crate::outbound::Outbound;
use crate::service::RunningService;
use crate::shares::Shares;
use crate::succession::Estate;

#[derive(Debug)]
pub struct Table {
    /// Wanted ones, and those whose last connections still finish.
    services: Vec<Rc<RunningService>>,
    /// A controller has said what to serve.
    is_sent: bool,
    shares: Rc<Shares>,
    outbound: Rc<Outbound>,
    /// What of its sandbox this process lacks.
    pub unconfined: Vec<String>,
    pub start: ProxyStart,
    /// Another proxy has our sockets: what is here finishes.
    has_handed_over: bool,
    /// What the proxy before this one handed over and nobody has taken up yet.
    estate: Estate,
}

impl Table {
    pub fn new(shares: Rc<Shares>) -> Self {
        Self {
            services: Vec::new(),
            is_sent: false,
            shares,
            outbound: Rc::default(),
            unconfined: Vec::new(),
            start: ProxyStart::default(),
            has_handed_over: false,
            estate: Estate::default(),
        }
    }

    /// Serves exactly these from now on.
    pub async fn apply(&mut self, wanted: &[ProxyService]) {
        let is_gone = |name: &&String| wanted.iter().all(|spec| spec.name != **name);
        let gone: Vec<String> =
            self.services.iter().map(|service| &service.name).filter(is_gone).cloned().collect();
        self.update(wanted, &gone).await;
    }

    /// Serves these from now on, those named in `remove` no more, and all others as before. First
    /// every listener that is not wanted where it is closes, then the others open: an address may
    /// move from one service to another.
    pub async fn update(&mut self, set: &[ProxyService], remove: &[String]) {
        for service in &self.services {
            match set.iter().find(|spec| spec.name == service.name) {
                Some(spec) => service.close_unless(Some(spec)).await,
                None if remove.contains(&service.name) => service.close_unless(None).await,
                None => {}
            }
        }
        let is_set = |name: &str| set.iter().any(|spec| spec.name == *name);
        self.services.retain(|service| is_set(&service.name) || !service.is_over());
        for spec in set {
            let known = || self.services.iter().find(|service| service.name == spec.name);
            let service = match known() {
                Some(service) => service.clone(),
                // It has nobody here who could finish.
                None if self.has_handed_over => continue,
                None => {
                    let service = Rc::new(RunningService::new(spec, &self.shares, &self.outbound));
                    self.services.push(service.clone());
                    service
                }
            };
            if self.has_handed_over {
                service.become_succeeded(spec);
            } else {
                service.become_wanted(spec, &mut self.estate);
            }
        }
        // What nobody wants closes.
        self.estate = Estate::default();
        self.divide();
        self.is_sent = true;
        self.shares.is_ending.set(self.wants_nothing());
    }

    /// What another proxy hands over is taken up by the next level.
    pub fn inherit(&mut self, estate: Estate) {
        self.estate = estate;
    }

    /// Gives away all sockets through which clients come. Those that are here finish.
    pub async fn hand_over(&mut self) -> Estate {
        let mut estate = Estate::default();
        self.has_handed_over = true;
        for service in &self.services {
            service.hand_over(&mut estate).await;
        }
        self.is_sent = true;
        self.shares.is_ending.set(true);
        estate
    }

    /// Whoever took our place is gone: the level that comes next is served here again.
    pub fn take_back(&mut self) {
        self.has_handed_over = false;
    }

    pub fn has_handed_over(&self) -> bool {
        self.has_handed_over
    }

    fn wants_nothing(&self) -> bool {
        self.has_handed_over || self.services.iter().all(|service| !service.is_wanted())
    }

    /// It shall serve nothing, and nothing is left.
    pub fn is_over(&self) -> bool {
        self.is_sent && self.wants_nothing() && self.shares.is_empty()
    }

    fn divide(&self) {
        self.shares
            .divide(&self.services.iter().map(|service| service.share()).collect::<Vec<_>>());
    }

    pub fn status(&mut self) -> ProxyStatus {
        self.status_of(|_| true)
    }

    /// As [`Table::status`], with the services of these names alone.
    pub fn status_of(&mut self, is_named: impl Fn(&str) -> bool) -> ProxyStatus {
        self.services.retain(|service| !service.is_over());
        let named = self.services.iter().filter(|service| is_named(&service.name));
        ProxyStatus {
            version: VERSION,
            oldest: OLDEST_VERSION,
            pid: std::process::id(),
            active: self.shares.active(),
            limit: self.shares.limit(),
            accept_pauses: self.shares.accept_pauses(),
            error: None,
            unconfined: self.unconfined.clone(),
            start: Some(self.start.clone()),
            log: Vec::new(),
            services: named.map(|service| service.status()).collect(),
        }
    }
}
