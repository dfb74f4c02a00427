//! All services, and how one level follows another.

use std::rc::Rc;

use crate::protocol::{ProxyService, Status};

use crate::limits::Limits;
use crate::service::Service;

#[derive(Debug)]
pub struct Table {
    /// Wanted ones, and those whose last connections still finish.
    services: Vec<Rc<Service>>,
    /// A level was told, and whether it was empty.
    told: Option<Wants>,
    limits: Rc<Limits>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wants {
    Something,
    Nothing,
}

impl Table {
    pub fn new(limits: Rc<Limits>) -> Self {
        Self { services: Vec::new(), told: None, limits }
    }

    /// Serves exactly these from now on. First every door that is not wanted where it is closes,
    /// then the others open: an address may move from one service to another.
    pub async fn apply(&mut self, wanted: &[ProxyService]) {
        let spec_of = |name: &str| wanted.iter().find(|spec| spec.name == name);
        for service in &self.services {
            service.close_unless(spec_of(&service.name)).await;
        }
        self.services.retain(|service| spec_of(&service.name).is_some() || !service.is_over());
        for spec in wanted {
            let service = match self.services.iter().find(|service| service.name == spec.name) {
                Some(service) => service.clone(),
                None => {
                    let service = Rc::new(Service::new(spec, self.limits.clone()));
                    self.services.push(service.clone());
                    service
                }
            };
            service.become_wanted(spec);
        }
        self.told = Some(if wanted.is_empty() { Wants::Nothing } else { Wants::Something });
    }

    /// Told to serve nothing, and nothing is left.
    pub fn is_over(&self) -> bool {
        self.told == Some(Wants::Nothing) && self.limits.active() == 0
    }

    pub fn status(&mut self) -> Status {
        self.services.retain(|service| !service.is_over());
        Status {
            pid: std::process::id(),
            active: self.limits.active(),
            limit: self.limits.limit(),
            accept_pauses: self.limits.accept_pauses(),
            error: None,
            services: self.services.iter().map(|service| service.status()).collect(),
        }
    }
}
