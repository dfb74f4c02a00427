//! What a service asks and a backend does not have, by the backend's row of capabilities.

use crate::backend::{Backend, BackendKind, Capabilities};
use crate::service::Service;
use crate::traffic::Forwarding;

/// Something a service asks that a backend does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    Protocol,
    Forwarding,
    Scheduler,
    Limits,
}

impl Capabilities {
    /// The first thing of what `service` asks that this backend does not have.
    pub fn lack(&self, service: &Service) -> Option<Lack> {
        if !self.protocols.contains(&service.protocol) {
            Some(Lack::Protocol)
        } else if self.lacking_way(service).is_some() {
            Some(Lack::Forwarding)
        } else if !self.schedules(&service.scheduler.0) {
            Some(Lack::Scheduler)
        } else if service.limits.count() && !self.limits_connections {
            Some(Lack::Limits)
        } else {
            None
        }
    }

    /// How a server of `service` is to be reached and this backend cannot.
    fn lacking_way(&self, service: &Service) -> Option<Forwarding> {
        let mut ways = service.servers.iter().map(|server| server.forwarding);
        ways.find(|way| !self.forwardings.contains(way))
    }

    /// What a service that this backend cannot serve for that reason is told.
    pub fn explain(&self, lack: Lack, service: &Service) -> String {
        let title = self.title;
        match lack {
            Lack::Protocol => {
                let carried: Vec<_> = self.protocols.iter().map(|one| one.title()).collect();
                format!("{title} carries {} only", carried.join(" and "))
            }
            Lack::Forwarding => {
                let way = match self.lacking_way(service) {
                    None | Some(Forwarding::Nat) => "by nat",
                    Some(Forwarding::Direct) => "direct",
                    Some(Forwarding::Tunnel) => "through a tunnel",
                };
                format!("{title} cannot forward {way}")
            }
            Lack::Scheduler => {
                let (name, known) = (&service.scheduler.0, self.schedulers.join(", "));
                format!("{title} has no scheduler `{name}`, use one of {known}")
            }
            Lack::Limits => format!("{title} keeps no limit of connections"),
        }
    }
}

impl Backend {
    /// The backends that may serve `service` and can, the preferred one first.
    pub fn candidates(self, service: &Service) -> Vec<BackendKind> {
        let named = |kind: &BackendKind| self == Backend::Auto || self == Backend::Only(*kind);
        let able = |kind: &BackendKind| kind.capabilities().lack(service).is_none();
        BackendKind::ALL.into_iter().filter(named).filter(able).collect()
    }
}
