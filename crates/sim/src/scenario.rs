//! What a seed says about the cluster: how many nodes, which virtual routers, which settings.
//!
//! Every node is given the same instances with its own priorities, as operators do; a reload
//! turns [`Edits`] into another plan for one node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_config::plan::{self, Check, Instance, Lease, Name, Plan, Service, Weight};
use locum_vrrp::{
    Family, Interval, Preempt, Priority, RouterSettings, Transport, UnicastPeer, Version, Vrid,
};

use crate::random::Random;

/// The link every node has.
pub const INTERFACE: &str = "eth0";

#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    pub nodes: usize,
    pub routers: Vec<VirtualRouter>,
    pub delay: Duration,
    pub jitter: Duration,
    /// How much later than its deadline a timeout comes, at most.
    pub tardiness: Duration,
    /// How many faults, before everything is healed.
    pub faults: usize,
}

/// One virtual router as all nodes know it.
#[derive(Clone, PartialEq, Debug)]
pub struct VirtualRouter {
    pub name: Name,
    pub vrid: Vrid,
    pub family: Family,
    pub version: Version,
    pub interval: Interval,
    pub unicast: bool,
    pub addresses: Vec<IpAddr>,
    /// One per node, as are the next two.
    pub priorities: Vec<u8>,
    pub preempts: Vec<Preempt>,
    pub lease: Lease,
    pub check: Option<Check>,
    pub service: Option<Service>,
}

/// How one node's plan differs from the scenario's now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Edits {
    /// By instance: another base priority.
    pub priorities: Vec<Option<u8>>,
    pub removed: Vec<bool>,
    /// One address more.
    pub extended: Vec<bool>,
}

impl Scenario {
    pub fn new(random: &mut Random) -> Self {
        let nodes = random.between(2, 5) as usize;
        let routers: Vec<_> = (0..random.pick(&[1, 1, 1, 2, 3]))
            .map(|number| VirtualRouter::new(random, number, nodes))
            .collect();
        let shortest = routers.iter().map(|r| r.interval.as_duration()).min().unwrap_or_default();
        let delay = random.span_between(Duration::from_micros(5), shortest / 50);
        Self {
            nodes,
            routers,
            delay,
            jitter: random.pick(&[Duration::ZERO, delay / 4, delay]),
            tardiness: random.pick(&[Duration::ZERO, Duration::from_micros(20), shortest / 50]),
            faults: random.between(0, 16) as usize,
        }
    }

    /// The longest advertisement interval of any virtual router.
    pub fn longest_interval(&self) -> Duration {
        self.routers.iter().map(|r| r.interval.as_duration()).max().unwrap_or_default()
    }

    pub fn no_edits(&self) -> Edits {
        let count = self.routers.len();
        Edits {
            priorities: vec![None; count],
            removed: vec![false; count],
            extended: vec![false; count],
        }
    }

    /// What this node's operator has written.
    pub fn plan(&self, node: usize, edits: &Edits) -> Arc<Plan> {
        let kept = |index: &usize| !edits.removed[*index];
        let numbers: Vec<usize> = (0..self.routers.len()).filter(kept).collect();
        let routers = || numbers.iter().map(|index| &self.routers[*index]);
        Arc::new(Plan {
            node: node_name(node),
            nodes: (0..self.nodes)
                .filter(|peer| *peer != node)
                .map(|peer| plan::Node {
                    name: node_name(peer),
                    address: Some(node_address(peer, Family::V4)),
                })
                .collect(),
            dialect: plan::Dialect::Toml,
            instances: numbers
                .iter()
                .map(|index| {
                    let priority = edits.priorities[*index];
                    self.routers[*index].instance(
                        node,
                        self.nodes,
                        priority,
                        edits.extended[*index],
                    )
                })
                .collect(),
            checks: routers().filter_map(|router| router.check.clone()).collect(),
            services: routers().filter_map(|router| router.service.clone()).collect(),
            haproxy: Vec::new(),
            hooks: plan::HookSettings::default(),
            digest: format!("{edits:?}"),
        })
    }
}

impl VirtualRouter {
    fn new(random: &mut Random, number: u8, nodes: usize) -> Self {
        let version = random.pick(&[Version::V2, Version::V3, Version::V3]);
        let family = match version {
            Version::V2 => Family::V4,
            Version::V3 => random.pick(&[Family::V4, Family::V6]),
        };
        let centis = match version {
            Version::V2 => 100,
            Version::V3 => random.pick(&[1, 1, 2, 5, 10, 25, 100]),
        };
        // INVARIANT: every number above is within its version's range, and no VRID is 0.
        let interval = Interval::new(version, centis).expect("within range");
        // INVARIANT: at least 51.
        let vrid = Vrid::new(51 + number).expect("not zero");
        let name = Name::from(format!("vr{number}").as_str());
        let count = random.between(1, 3) as u8;
        let priorities = priorities(random, nodes);
        let preempts = preempts(random, nodes, interval.as_duration());
        let lease = random.pick(&[
            Lease::Auto,
            Lease::Auto,
            Lease::Fixed(Duration::from_secs(2)),
            Lease::Off,
        ]);
        let check = random.one_in(3).then(|| check(random, number));
        let service = random.one_in(3).then(|| service(random, number, &name, family));
        Self {
            name,
            vrid,
            family,
            version,
            interval,
            unicast: random.one_in(4),
            addresses: (0..count).map(|index| virtual_address(family, number, index)).collect(),
            priorities,
            preempts,
            lease,
            check,
            service,
        }
    }

    /// The address that an edit adds.
    pub fn extra_address(&self) -> IpAddr {
        virtual_address(self.family, self.vrid.get() - 51, 9)
    }

    fn instance(&self, node: usize, nodes: usize, priority: Option<u8>, more: bool) -> Instance {
        let mut addresses = self.addresses.clone();
        if more {
            addresses.push(self.extra_address());
        }
        let mut router = RouterSettings::new(self.vrid, self.family, self.version);
        router.priority = Priority(priority.unwrap_or(self.priorities[node]));
        router.interval = self.interval;
        router.preempt = self.preempts[node];
        router.addresses.clone_from(&addresses);
        if self.unicast {
            let peers = (0..nodes)
                .filter(|peer| *peer != node)
                .map(|peer| UnicastPeer { address: sender_address(peer, self), ttl: None });
            router.transport =
                Transport::Unicast { peers: peers.collect(), ttl: 255, check_source: true };
        }
        Instance {
            name: self.name.clone(),
            interface: Name::from(INTERFACE),
            router,
            addresses: addresses.into_iter().map(with_prefix).collect(),
            track: self
                .check
                .iter()
                .map(|check| plan::Track { check: check.name.clone(), weight: None })
                .collect(),
            track_interfaces: Vec::new(),
            hooks: plan::Hooks::default(),
            lease: self.lease,
        }
    }
}

/// Distinct and far apart, adjacent, equal, or with an owner.
fn priorities(random: &mut Random, nodes: usize) -> Vec<u8> {
    let mut list: Vec<u8> = match random.below(6) {
        0 => vec![100; nodes],
        1 => (0..nodes).map(|node| 100 + node as u8).collect(),
        2 => (0..nodes).map(|node| if node == 0 { 255 } else { 200 - node as u8 }).collect(),
        3 => (0..nodes).map(|node| 250 - 50 * node as u8).collect(),
        _ => (0..nodes).map(|_| random.between(1, 254) as u8).collect(),
    };
    for last in (1..nodes).rev() {
        list.swap(last, random.index(last + 1));
    }
    list
}

/// The same for all, or each its own.
fn preempts(random: &mut Random, nodes: usize, interval: Duration) -> Vec<Preempt> {
    let choices = [Preempt::After(Duration::ZERO), Preempt::Never, Preempt::After(interval * 5)];
    match random.below(5) {
        0..=2 => vec![choices[0]; nodes],
        3 => vec![random.pick(&choices); nodes],
        _ => (0..nodes).map(|_| random.pick(&choices)).collect(),
    }
}

fn check(random: &mut Random, number: u8) -> Check {
    let probe = plan::Probe {
        kind: plan::ProbeKind::Script(plan::Command::argv(["/bin/check", &number.to_string()])),
        interval: Duration::from_millis(random.pick(&[100, 250, 500])),
        timeout: Duration::from_millis(100),
    };
    Check {
        name: Name::from(format!("check{number}").as_str()),
        probe,
        rise: random.between(1, 2) as u32,
        fall: random.between(1, 2) as u32,
        weight: Weight { value: random.pick(&[0, -60, 40]), reverse: false },
        starts_failed: random.one_in(4),
    }
}

fn service(random: &mut Random, number: u8, instance: &Name, family: Family) -> Service {
    let server = |last: u8| plan::Server {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200, number, last)), 80),
        weight: 1,
    };
    Service {
        name: Name::from(format!("service{number}").as_str()),
        instance: Some(instance.clone()),
        listen: SocketAddr::new(virtual_address(family, number, 0), 80),
        protocol: plan::Protocol::Tcp,
        backend: plan::Backend::Proxy,
        scheduler: plan::Scheduler("rr".to_owned()),
        forwarding: plan::Forwarding::Nat,
        health: random.one_in(2).then(|| plan::Health {
            kind: plan::HealthKind::Tcp,
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(100),
            rise: 1,
            fall: 2,
            port: None,
        }),
        failed: plan::FailedServer::Remove,
        standby: random.pick(&[plan::Standby::Cold, plan::Standby::Warm]),
        drain: Duration::from_secs(1),
        servers: vec![server(1), server(2)],
    }
}

fn virtual_address(family: Family, number: u8, index: u8) -> IpAddr {
    let (number, index) = (u16::from(number), u16::from(index));
    match (family, index) {
        (Family::V4, _) => IpAddr::V4(Ipv4Addr::new(10, 0, number as u8, index as u8 + 1)),
        // The first of a version 3 list is link-local: RFC 9568 §5.2.9.
        (Family::V6, 0) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 1, number, 1)),
        (Family::V6, _) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, index)),
    }
}

fn with_prefix(address: IpAddr) -> plan::VirtualAddress {
    plan::VirtualAddress {
        address,
        prefix: if address.is_ipv4() { 24 } else { 64 },
        device: None,
        broadcast: None,
        label: None,
        scope: plan::Scope::Global,
        duplicate_detection: false,
        no_prefix_route: false,
    }
}

pub fn node_name(node: usize) -> Name {
    Name::from(format!("lb{}", node + 1).as_str())
}

/// The address a node sends this router's adverts from. Peers across IPv6 routers know each other
/// by global addresses, neighbours by link-local ones.
pub fn sender_address(node: usize, router: &VirtualRouter) -> IpAddr {
    match (router.unicast, router.family) {
        (true, Family::V6) => global_address(node),
        (false, Family::V6) | (_, Family::V4) => node_address(node, router.family),
    }
}

pub fn global_address(node: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 11 + node as u16))
}

/// A node's first address of a family. Higher nodes win ties.
pub fn node_address(node: usize, family: Family) -> IpAddr {
    let last = 11 + node as u16;
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, last as u8)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)),
    }
}
