//! Which backend serves a service whose plan says "auto".
//!
//! The choice is made once, when the service begins to be served, and holds for as long as it is
//! wanted: a service that moved while it serves would lose its connections. It is written down, so
//! that the daemon that comes back after a crash goes on with it, whatever the kernel says by then.

use std::collections::BTreeMap;

use locum_plan::{Backend, BackendKind, Service, WantedServices};

use crate::state_file::StateFile;

#[derive(Debug)]
pub(crate) struct Choices {
    state: StateFile,
    /// Backend by service, both by name; `None` until the file was read.
    made: Option<BTreeMap<String, String>>,
}

impl Choices {
    pub(crate) fn new(state: StateFile) -> Self {
        Self { state, made: None }
    }

    /// The backend of each wanted service, in their order.
    pub(crate) fn of(
        &mut self,
        wanted: &WantedServices,
        mut is_available: impl FnMut(BackendKind) -> bool,
    ) -> Vec<BackendKind> {
        let before = self.made.take().unwrap_or_else(|| self.state.load().unwrap_or_default());
        let mut made = BTreeMap::new();
        let mut chosen = Vec::with_capacity(wanted.services.len());
        for wanted in &wanted.services {
            let service = &wanted.service;
            let kind = match service.backend {
                Backend::Only(kind) => kind,
                Backend::Auto => {
                    let earlier = before.get(&*service.name).and_then(|kind| known(kind, service));
                    let kind = earlier.unwrap_or_else(|| choose(service, &mut is_available));
                    made.insert(service.name.to_string(), kind.name().to_owned());
                    kind
                }
            };
            chosen.push(kind);
        }
        if made != before {
            self.state.save(&made);
        }
        self.made = Some(made);
        chosen
    }
}

/// An earlier choice, as long as the backend can do what the service asks by now.
fn known(name: &str, service: &Service) -> Option<BackendKind> {
    let kind = BackendKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    kind.capabilities().lack(service).is_none().then_some(kind)
}

/// The first that can and is there; where none is there, the first that can, which says why not.
fn choose(service: &Service, is_available: impl FnMut(BackendKind) -> bool) -> BackendKind {
    let able = service.backend.candidates(service);
    let preferred = able.first().copied().unwrap_or(BackendKind::ALL[0]);
    let mut is_available = is_available;
    able.into_iter().find(|kind| is_available(*kind)).unwrap_or(preferred)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use locum_plan::{Activity, Listener, Name, Protocol, Scheduler, WantedService};

    use super::*;

    fn level(names: &[&str], edit: impl Fn(&mut Service)) -> WantedServices {
        let services = names.iter().map(|name| {
            let listen = Listener::Address("192.0.2.1:80".parse().unwrap());
            let mut service = Service::new(Name::from(*name), listen);
            service.scheduler = Scheduler("wlc".to_owned());
            edit(&mut service);
            let (service, activity) = (Arc::new(service), Activity::Active);
            Arc::new(WantedService { service, activity, servers: Vec::new(), lease: None })
        });
        WantedServices { services: services.collect(), haproxy: Vec::new() }
    }

    #[test]
    fn a_choice_holds_while_the_service_is_wanted_and_over_a_restart() {
        use BackendKind::{Ipvs, Proxy};
        let directory = tempfile::tempdir().unwrap();
        let state = || StateFile::new(directory.path().join("backends.json"));
        let mut choices = Choices::new(state());
        let web = level(&["web"], |_| {});
        assert_eq!(choices.of(&web, |kind| kind == Proxy), [Proxy]);
        // IPVS appears: what serves stays where it is, what is new gets the better one.
        assert_eq!(choices.of(&web, |_| true), [Proxy]);
        let both = level(&["web", "shop"], |_| {});
        assert_eq!(choices.of(&both, |_| true), [Proxy, Ipvs]);
        // IPVS fails: nothing moves either.
        assert_eq!(choices.of(&both, |kind| kind == Proxy), [Proxy, Ipvs]);
        let mut restarted = Choices::new(state());
        assert_eq!(restarted.of(&both, |kind| kind == Proxy), [Proxy, Ipvs]);
        // Served no more, and then anew.
        assert!(restarted.of(&level(&[], |_| {}), |_| true).is_empty());
        assert_eq!(restarted.of(&web, |_| true), [Ipvs]);
    }

    #[test]
    fn what_only_one_backend_can_do_goes_there_and_a_named_backend_is_not_asked_about() {
        use BackendKind::{Ipvs, Proxy};
        let directory = tempfile::tempdir().unwrap();
        let mut choices = Choices::new(StateFile::new(directory.path().join("backends.json")));
        let web = level(&["web"], |_| {});
        assert_eq!(choices.of(&web, |kind| kind == Proxy), [Proxy]);
        let udp = level(&["web"], |service| service.protocol = Protocol::Udp);
        assert_eq!(choices.of(&udp, |kind| kind == Proxy), [Ipvs]);
        let named = level(&["web"], |service| service.backend = Backend::Only(Ipvs));
        let unasked = |_| -> bool { unreachable!("the kernel is not asked") };
        assert_eq!(choices.of(&named, unasked), [Ipvs]);
    }
}
