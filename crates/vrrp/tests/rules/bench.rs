//! One router, its clock, and what it did.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use locum_vrrp::{
    Family, Heard, Interval, Priority, Router, RouterAction, RouterEvent, RouterSettings, Time,
    Version, Vrid,
};

pub const LOW: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub const HIGH: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

pub struct Bench {
    pub router: Router,
    pub now: Time,
}

impl Bench {
    /// Source 192.0.2.2, nothing happened yet.
    pub fn new(settings: RouterSettings) -> Self {
        let now = Time::ZERO + Duration::from_secs(100);
        let mut router = Router::new(settings, now);
        router.set_source(Some(OWN));
        Self { router, now }
    }

    pub fn eligible(settings: RouterSettings) -> Self {
        let mut bench = Self::new(settings);
        bench.feed(RouterEvent::Eligible);
        bench
    }

    /// Nobody objects to what the router proposes.
    pub fn feed(&mut self, event: RouterEvent<'_>) -> Vec<RouterAction> {
        let mut out = Vec::new();
        self.router.handle(self.now, event, &mut out);
        self.grant(&mut out);
        out
    }

    fn grant(&mut self, out: &mut Vec<RouterAction>) {
        if self.router.candidate().is_some() {
            self.router.handle(self.now, RouterEvent::Grant, out);
            out.retain(|action| !matches!(action, RouterAction::Propose { .. }));
        }
    }

    pub fn hear(&mut self, source: IpAddr, priority: u8) -> Vec<RouterAction> {
        self.feed(RouterEvent::Heard(&heard(source, priority)))
    }

    /// Lets the clock run, with every deadline served when it comes.
    pub fn run(&mut self, millis: u64) -> Vec<RouterAction> {
        let end = self.now + Duration::from_millis(millis);
        let mut out = Vec::new();
        while let Some(due) = self.router.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.router.handle(self.now, RouterEvent::Timeout, &mut out);
            self.grant(&mut out);
        }
        self.now = end;
        out
    }

    /// The peer sends every second for so many seconds; what the router did meanwhile.
    pub fn beside(&mut self, source: IpAddr, priority: u8, seconds: u32) -> Vec<RouterAction> {
        let mut out = Vec::new();
        for _ in 0..seconds {
            out.extend(self.hear(source, priority));
            out.extend(self.run(1000));
        }
        out
    }
}

/// VRID 51 over IPv4 with one address.
pub fn settings(version: Version, priority: u8) -> RouterSettings {
    let vrid = Vrid::new(51).expect("1..=255");
    RouterSettings {
        priority: Priority(priority),
        addresses: vec![IpAddr::from([192, 0, 2, 10])],
        ..RouterSettings::new(vrid, Family::V4, version)
    }
}

pub fn heard(source: IpAddr, priority: u8) -> Heard {
    Heard {
        source,
        priority: Priority(priority),
        interval: Interval::DEFAULT,
        form: None,
        interval_differs: false,
        addresses_differ: false,
    }
}

/// Priorities of the adverts among these actions.
pub fn sent(actions: &[RouterAction]) -> Vec<u8> {
    let priority = |action: &RouterAction| match action {
        RouterAction::Advertise { priority } => Some(priority.0),
        _ => None,
    };
    actions.iter().filter_map(priority).collect()
}
