//! All services, and how one request to serve follows another.

use std::rc::Rc;

use crate::protocol::{OLDEST_VERSION, ProxyService, ProxyStatus, VERSION};

use crate::outbound::Outbound;
use crate::service::RunningService;
use crate::shares::Shares;

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
}

impl Table {
    pub fn new(shares: Rc<Shares>) -> Self {
        Self {
            services: Vec::new(),
            is_sent: false,
            shares,
            outbound: Rc::default(),
            unconfined: Vec::new(),
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
            let service = match self.services.iter().find(|service| service.name == spec.name) {
                Some(service) => service.clone(),
                None => {
                    let service = Rc::new(RunningService::new(spec, &self.shares, &self.outbound));
                    self.services.push(service.clone());
                    service
                }
            };
            service.become_wanted(spec);
        }
        self.divide();
        self.is_sent = true;
        self.shares.is_ending.set(self.wants_nothing());
    }

    fn wants_nothing(&self) -> bool {
        self.services.iter().all(|service| !service.is_wanted())
    }

    /// It shall serve nothing, and nothing is left.
    pub fn is_over(&self) -> bool {
        self.is_sent && self.wants_nothing() && self.shares.active() == 0
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
            services: named.map(|service| service.status()).collect(),
        }
    }
}
