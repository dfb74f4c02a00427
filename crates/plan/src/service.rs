//! Services: what listens where, the servers behind it, and what of that is wanted now.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use locum_vrrp::Family;

use crate::backend::BackendChoice;
use crate::command::TurnHooks;
use crate::http::{ClientTls, HttpService, ServerTls};
use crate::introduction::Introduction;
use crate::ipvs::WantedIpvs;
use crate::limits::ServiceLimits;
use crate::listener::Listener;
use crate::name::Name;
use crate::quorum::Quorum;
use crate::selection::{Persistence, Scheduler};
use crate::server::{Server, SorryServer, WantedServer};
use crate::traffic::Protocol;

/// A load-balanced service.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    pub name: Name,
    /// Served while this instance is master here; `None` is always.
    pub instance: Option<Name>,
    /// One service, with one health and one quorum, wherever its clients come in; at least one, but for
    /// a service of HTTP that only routes of others lead to.
    pub listen: Vec<Listener>,
    /// What its clients speak; a mark takes whatever carries it.
    pub protocol: Protocol,
    pub backend: BackendChoice,
    pub scheduler: Scheduler,
    pub persistence: Option<Persistence>,
    /// Each datagram goes to a server of its own, whoever sent it.
    pub one_packet: bool,
    pub standby: Standby,
    /// How long the proxy lets connections finish after it lost its role or a server left.
    pub drain: Duration,
    pub limits: ServiceLimits,
    pub introduction: Introduction,
    /// What of its servers must take connections, up or not checked, for it to serve.
    pub quorum: Quorum,
    pub hooks: TurnHooks,
    /// Has the clients while the quorum is lost; without one the servers that are left keep them.
    pub sorry: Option<SorryServer>,
    /// The hooks for down are run for what is up when the daemon stops.
    pub omega: bool,
    /// A server that came up gets its whole weight after this time, in steps; zero: at once.
    pub slow_start: Duration,
    /// Requests are looked at; `None`: it is connections that are passed on.
    pub http: Option<Arc<HttpService>>,
    /// Clients speak TLS, and it ends here; `None`: what they speak is passed on as it is.
    pub client_tls: Option<ClientTls>,
    pub server_tls: Option<ServerTls>,
    pub servers: Vec<Server>,
}

impl Service {
    /// A service of which nothing is said but its name and where it listens: it has no servers yet.
    pub fn new(name: Name, listen: Listener) -> Self {
        Self {
            name,
            instance: None,
            listen: vec![listen],
            protocol: Protocol::Tcp,
            backend: BackendChoice::Auto,
            scheduler: Scheduler::named("rr"),
            persistence: None,
            one_packet: false,
            standby: Standby::default(),
            drain: Duration::from_secs(30),
            limits: ServiceLimits::default(),
            introduction: Introduction::default(),
            quorum: Quorum::default(),
            hooks: TurnHooks::default(),
            sorry: None,
            omega: false,
            slow_start: Duration::ZERO,
            http: None,
            client_tls: None,
            server_tls: None,
            servers: Vec::new(),
        }
    }

    /// Every address that it listens on, with its port; none of a mark.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().flat_map(Listener::addresses)
    }

    /// What clients of it are ever sent to: its servers, and the one for when they are gone.
    pub fn reached(&self) -> impl Iterator<Item = WantedServer> {
        let servers = self.servers.iter().map(Server::wanted);
        servers.chain(self.sorry.iter().map(SorryServer::wanted))
    }

    /// This server is of another address family than one of its listeners.
    pub fn crosses(&self, server: &WantedServer) -> bool {
        let family = Family::of(&server.address.ip());
        self.listen.iter().any(|listener| listener.family() != family)
    }

    /// The only address that it listens on, where it is one and a port.
    pub fn only_address(&self) -> Option<SocketAddr> {
        match &self.listen[..] {
            [Listener::Address(address)] if address.port() != 0 => Some(*address),
            [Listener::Address(_) | Listener::Range(_) | Listener::Fwmark { .. }] | [..] => None,
        }
    }
}

/// What a node that is not master keeps ready.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Standby {
    /// Nothing runs: no process, no socket.
    #[default]
    Cold,
    /// The process runs and has its ports before the node holds their addresses.
    Warm,
}

impl Standby {
    /// What a node does for a service whose address it holds, or does not.
    pub fn activity(self, holds: bool) -> Activity {
        match (holds, self) {
            (true, _) => Activity::Active,
            (false, Self::Warm) => Activity::Ready,
            (false, Self::Cold) => Activity::Idle,
        }
    }
}

/// A HAProxy supervised from its own configuration file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HaproxyFile {
    pub name: Name,
    /// Serves while this instance is master here; `None` is always.
    pub instance: Option<Name>,
    pub config: PathBuf,
    /// The program; `haproxy` is looked up in PATH.
    pub program: PathBuf,
    pub standby: Standby,
    /// Where a client of it is answered while it serves; without one, wherever its file says that it
    /// listens, as far as that can be asked without a server behind it.
    pub answer: Option<HttpTarget>,
}

/// What `http://ADDRESS/PATH` names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpTarget {
    pub address: SocketAddr,
    /// For the `Host` header; the address when there is none.
    pub host: Option<String>,
    /// From its first slash on.
    pub path: String,
}

/// What this node shall do for each service and HAProxy of its plan now: a level, reconciled by the
/// balancer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WantedServices {
    /// Shared, so that a level which differs in one service costs little more than that one.
    pub services: Vec<Arc<WantedService>>,
    pub haproxy: Vec<WantedHaproxy>,
    /// Those that come to this node when it becomes master, for the files of `haproxy` to name; empty
    /// where there are none.
    pub virtual_addresses: Arc<[IpAddr]>,
    pub ipvs: WantedIpvs,
}

impl WantedServices {
    /// As it is for the backends: what runs here, or shall.
    pub fn running(&self) -> Self {
        let services = self.services.iter().filter(|one| one.activity != Activity::Idle);
        let haproxy = self.haproxy.iter().filter(|one| one.activity != Activity::Idle);
        Self {
            services: services.cloned().collect(),
            haproxy: haproxy.cloned().collect(),
            virtual_addresses: Arc::clone(&self.virtual_addresses),
            ipvs: self.ipvs.clone(),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct WantedService {
    pub service: Arc<Service>,
    pub activity: Activity,
    /// The servers to send clients to, with the weight in force; failed ones are absent or have
    /// weight 0, as [`crate::FailedServer`] says. While the quorum is lost the sorry server stands
    /// for them. None while nothing runs.
    pub servers: Vec<WantedServer>,
    /// How long the address of the service stays on this node when no daemon renews it, and how
    /// long therefore it may be served without one; `None` for ever.
    pub lease: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activity {
    /// Serve.
    Active,
    /// Keep ready but serve nobody ([`Standby::Warm`]).
    Ready,
    /// Run nothing, and see whether it could be served ([`Standby::Cold`]).
    Idle,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedHaproxy {
    pub file: Arc<HaproxyFile>,
    pub activity: Activity,
}
