//! One virtual router as a seed draws it, and as each node's configuration has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locum_plan as plan;
use locum_plan::{
    Check, FitnessPolicy, Instance, Lease, Name, Ranking, Served, Service, Track, Tracked, Weight,
};
use locum_vrrp::{
    Family, Interval, Preempt, Priority, RouterSettings, Transport, UnicastPeer, Version, Vrid,
};

use crate::place::{interface, sender_address, virtual_address};
use crate::random::Random;

/// The VRID of the first virtual router of a link.
const FIRST_VRID: u8 = 51;

/// One virtual router as all nodes know it.
#[derive(Clone, PartialEq, Debug)]
pub struct VirtualRouter {
    pub name: Name,
    /// Its place in the scenario: what its addresses are made of.
    pub number: u8,
    pub vrid: Vrid,
    pub family: Family,
    pub version: Version,
    /// The link its adverts use.
    pub link: usize,
    /// The intervals that any node may have, at least one.
    pub paces: Vec<Interval>,
    pub unicast: bool,
    pub addresses: Vec<IpAddr>,
    /// The link of the last address, when it is another than that of the adverts.
    pub stray: Option<usize>,
    /// One per node, as are the next two.
    pub priorities: Vec<u8>,
    pub preempts: Vec<Preempt>,
    pub intervals: Vec<Interval>,
    pub start_delay: Duration,
    pub lease: Lease,
    pub check: Option<Check>,
    /// Another link that decides about the priority.
    pub tracked: Option<(usize, Weight)>,
    pub service: Option<Service>,
    /// Its service decides about its place.
    pub follows_service: bool,
}

/// How one node's instance differs from the scenario's now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Edit {
    /// Another base priority, another interval.
    pub priority: Option<u8>,
    pub interval: Option<Interval>,
    pub removed: bool,
    /// One address more.
    pub extended: bool,
}

impl VirtualRouter {
    /// The link of its adverts.
    pub fn speaks_on(&self) -> Name {
        interface(self.link)
    }

    /// Where the address at this position is.
    pub fn device_of(&self, position: usize) -> Name {
        let stray = self.stray.filter(|_| position + 1 == self.addresses.len());
        interface(stray.unwrap_or(self.link))
    }

    pub fn new(random: &mut Random, number: u8, nodes: usize, links: usize) -> Self {
        let version = random.pick(&[Version::V2, Version::V3, Version::V3]);
        let family = match version {
            Version::V2 => Family::V4,
            Version::V3 => random.pick(&[Family::V4, Family::V6]),
        };
        let paces = paces(random, version);
        let longest = paces.iter().map(|pace| pace.as_duration()).max().unwrap_or_default();
        let link = usize::from(number) % links;
        // Each link counts its VRIDs anew: the same number on two links is two routers.
        // INVARIANT: at least 51.
        let vrid = Vrid::new(FIRST_VRID + number / links as u8).expect("not zero");
        let name = Name::from(format!("vr{number}").as_str());
        let count = random.between(1, 3) as u8;
        let other = (links > 1).then_some(1 - link);
        let service = random.one_in(2).then(|| service(random, number, &name, family));
        let mut router = Self {
            number,
            vrid,
            family,
            version,
            link,
            unicast: random.one_in(4),
            addresses: (0..count).map(|index| virtual_address(family, number, index)).collect(),
            stray: other.filter(|_| random.one_in(4)),
            priorities: priorities(random, nodes),
            preempts: preempts(random, nodes, longest),
            intervals: (0..nodes).map(|_| random.pick(&paces)).collect(),
            start_delay: longest * random.pick(&[0, 0, 0, 1, 4]),
            lease: random.pick(&[
                Lease::Auto,
                Lease::Auto,
                Lease::Fixed(Duration::from_secs(2)),
                Lease::Off,
            ]),
            check: random.one_in(2).then(|| check(random, number)),
            tracked: other
                .filter(|_| random.one_in(3))
                .map(|link| (link, Weight { value: random.pick(&[0, -60, 40]), reverse: false })),
            follows_service: service.is_some() && !random.one_in(3),
            service,
            name,
            paces,
        };
        // All have one file: where there is no room for one of them, there is none for any.
        let edit = Edit::default();
        let has_room =
            |node| router.priorities[node] == u8::MAX || router.ranking(node, &edit).is_some();
        router.follows_service = router.follows_service && (0..nodes).all(has_room);
        router
    }

    /// How a node that cannot serve competes; `None` where what it serves does not decide.
    pub fn ranking(&self, node: usize, edit: &Edit) -> Option<Ranking> {
        let mut priorities = self.priorities.clone();
        priorities[node] = edit.priority.unwrap_or(priorities[node]);
        let own = Priority(priorities[node]);
        if !self.follows_service || own.is_owner() {
            return None;
        }
        let all: Vec<Priority> = priorities.into_iter().map(Priority).collect();
        let weights = self.check.iter().map(|check| check.weight);
        let weights = weights.chain(self.tracked.map(|(_, weight)| weight));
        let lowest = weights.map(|weight| i32::from(weight.value.min(0))).sum();
        Ranking::new(&all, own, lowest, 1)
    }

    /// The address that an edit adds.
    pub fn extra_address(&self) -> IpAddr {
        virtual_address(self.family, self.number, 9)
    }

    /// The links without which a node cannot hold every address.
    pub fn links(&self) -> impl Iterator<Item = usize> {
        [Some(self.link), self.stray].into_iter().flatten()
    }

    pub fn longest_interval(&self) -> Duration {
        self.paces.iter().map(|pace| pace.as_duration()).max().unwrap_or_default()
    }

    pub fn shortest_interval(&self) -> Duration {
        self.paces.iter().map(|pace| pace.as_duration()).min().unwrap_or_default()
    }

    /// What this node's operator has written.
    pub fn instance(&self, node: usize, nodes: usize, edit: &Edit) -> Instance {
        let mut addresses: Vec<_> = self.addresses.iter().copied().map(with_prefix).collect();
        if let (Some(stray), Some(last)) = (self.stray, addresses.last_mut()) {
            last.detail(|all| all.device = Some(interface(stray)));
        }
        if edit.extended {
            addresses.push(with_prefix(self.extra_address()));
        }
        let mut router = RouterSettings::new(self.vrid, self.family, self.version);
        router.priority = Priority(edit.priority.unwrap_or(self.priorities[node]));
        router.interval = edit.interval.unwrap_or(self.intervals[node]);
        router.preempt = self.preempts[node];
        router.start_delay = self.start_delay;
        router.addresses = addresses.iter().map(|address| address.address).collect();
        if self.unicast {
            let peers = (0..nodes)
                .filter(|peer| *peer != node)
                .map(|peer| UnicastPeer { address: sender_address(peer, self), ttl: None });
            router.transport =
                Transport::Unicast { peers: peers.collect(), ttl: 255, check_source: true };
        }
        let track = self.check.iter();
        let track =
            track.map(|check| Track { object: Tracked::Check(check.name.clone()), weight: None });
        let interfaces = self.tracked.iter().map(|(link, weight)| Track {
            object: Tracked::Interface(interface(*link)),
            weight: Some(*weight),
        });
        Instance {
            addresses,
            track: track.chain(interfaces).collect(),
            hooks: Arc::new(plan::Hooks {
                any: vec![plan::Command::argv(["/bin/notify"])],
                ..plan::Hooks::default()
            }),
            fitness: self.ranking(node, edit).zip(self.service.as_ref()).map(
                |(ranking, service)| {
                    let object = Tracked::Service(service.name.clone());
                    Box::new(FitnessPolicy { served: vec![Served { object, weight: 1 }], ranking })
                },
            ),
            lease: self.lease,
            keep_connections: true,
            ..Instance::new(self.name.clone(), interface(self.link), router)
        }
    }
}

/// One interval for all nodes, or several: version 3 learns its master's, version 2 discards what
/// has another.
fn paces(random: &mut Random, version: Version) -> Vec<Interval> {
    let (choices, count): (&[u16], u64) = match version {
        Version::V2 => (&[100, 200], random.pick(&[1, 1, 1, 2])),
        Version::V3 => (&[1, 1, 2, 5, 10, 25, 100], random.pick(&[1, 1, 2, 3])),
    };
    // INVARIANT: every number above is within its version's range.
    let pace = |centis| Interval::new(version, centis).expect("within range");
    let first = match version {
        Version::V2 => 100,
        Version::V3 => random.pick(choices),
    };
    let rest = (1..count).map(|_| pace(random.pick(choices)));
    [pace(first)].into_iter().chain(rest.collect::<Vec<_>>()).collect()
}

/// Distinct and far apart, adjacent, equal, with an owner, or with two by mistake (V-176).
fn priorities(random: &mut Random, nodes: usize) -> Vec<u8> {
    let mut list: Vec<u8> = match random.below(7) {
        0 => vec![100; nodes],
        1 => (0..nodes).map(|node| 100 + node as u8).collect(),
        2 => (0..nodes).map(|node| if node == 0 { 255 } else { 200 - node as u8 }).collect(),
        3 => (0..nodes).map(|node| 250 - 50 * node as u8).collect(),
        4 => (0..nodes).map(|node| if node < 2 { 255 } else { 100 + node as u8 }).collect(),
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
    let kind = plan::Checker::Script(plan::Command::argv(["/bin/check", &number.to_string()]));
    let interval = Duration::from_millis(random.pick(&[100, 250, 500]));
    let probe = plan::Probe::new(kind, interval, Duration::from_millis(100));
    Check {
        name: Name::from(format!("check{number}").as_str()),
        probe,
        rise: random.between(1, 2) as u32,
        fall: random.between(1, 2) as u32,
        weight: Weight { value: random.pick(&[0, -60, 40]), reverse: false },
        starts_failed: random.one_in(4),
        unrunnable: plan::Unrunnable::Fails,
    }
}

/// Whose server this is.
pub fn router_of_server(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(v4) if v4.octets()[..2] == [10, 200] => Some(usize::from(v4.octets()[2])),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn service(random: &mut Random, number: u8, instance: &Name, family: Family) -> Service {
    let is_checked = !random.one_in(3);
    let server = |last: u8| {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200, number, last)), 80);
        let check = plan::Health {
            probe: plan::Probe::new(
                plan::Checker::tcp(address),
                Duration::from_millis(500),
                Duration::from_millis(100),
            ),
            rise: 1,
            fall: 2,
        };
        let health = is_checked.then_some(check).into_iter().collect();
        plan::Server { health, ..plan::Server::new(address) }
    };
    let name = Name::from(format!("service{number}").as_str());
    let listen = SocketAddr::new(virtual_address(family, number, 0), 80).into();
    Service {
        instance: Some(instance.clone()),
        backend: plan::BackendChoice::Only(plan::BackendKind::Proxy),
        standby: random.pick(&[plan::Standby::Cold, plan::Standby::Warm]),
        drain: Duration::from_secs(1),
        servers: vec![server(1), server(2)],
        ..Service::new(name, listen)
    }
}

fn with_prefix(address: IpAddr) -> plan::VirtualAddress {
    plan::VirtualAddress::new(address, if address.is_ipv4() { 24 } else { 64 })
}
