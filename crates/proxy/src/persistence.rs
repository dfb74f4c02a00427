//! Clients that stay with their server for a time after their last connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::ProxyPersistence;

/// Most clients remembered for one service, some 20 MB; one that is beyond is given a server anew.
const CLIENT_LIMIT: usize = 262_144;

/// How often those whose time is over are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct PersistenceTable {
    spec: Cell<Option<ProxyPersistence>>,
    clients: RefCell<HashMap<IpAddr, (SocketAddr, Instant)>>,
    swept_at: Cell<Option<Instant>>,
}

impl PersistenceTable {
    /// From now on. Clients that are remembered stay so unless other networks count as one client now.
    pub fn set(&self, spec: Option<ProxyPersistence>) {
        let before = self.spec.replace(spec);
        if before.map(|spec| spec.prefix) != spec.map(|spec| spec.prefix) {
            self.clients.borrow_mut().clear();
        }
    }

    /// The server that this client had.
    pub fn find(&self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let spec = self.spec.get()?;
        let clients = self.clients.borrow();
        let (server, until) = clients.get(&network(client, spec.prefix))?;
        (now < *until).then_some(*server)
    }

    /// The client has a connection to this server now, or had one until now.
    pub fn keep(&self, client: IpAddr, server: SocketAddr, now: Instant) {
        let Some(spec) = self.spec.get() else { return };
        self.sweep(now);
        let mut clients = self.clients.borrow_mut();
        let client = network(client, spec.prefix);
        if clients.len() < CLIENT_LIMIT || clients.contains_key(&client) {
            clients.insert(client, (server, now + Duration::from_millis(spec.timeout_ms)));
        }
    }

    fn sweep(&self, now: Instant) {
        if self.swept_at.get().is_some_and(|at| now < at + SWEEP) {
            return;
        }
        self.swept_at.set(Some(now));
        self.clients.borrow_mut().retain(|_, (_, until)| now < *until);
    }
}

/// The network of so many leading bits that the address is in; 32 and more are all of an IPv4 address.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn persistence(timeout_ms: u64, prefix: u8) -> PersistenceTable {
        let persistence = PersistenceTable::default();
        persistence.set(Some(ProxyPersistence { timeout_ms, prefix }));
        persistence
    }

    #[test]
    fn clients_of_one_network_stay_together_and_others_do_not() {
        let (clients, now) = (persistence(60_000, 24), Instant::now());
        let server: SocketAddr = "10.0.0.2:80".parse().unwrap();
        clients.keep(ip("192.0.2.7"), server, now);
        assert_eq!(clients.find(ip("192.0.2.200"), now), Some(server));
        assert_eq!(clients.find(ip("::ffff:192.0.2.9"), now), Some(server));
        assert_eq!(clients.find(ip("192.0.3.7"), now), None);
        clients.set(Some(ProxyPersistence { timeout_ms: 60_000, prefix: 32 }));
        assert_eq!(clients.find(ip("192.0.2.7"), now), None, "one from another now");
        assert_eq!(network(ip("2001:db8::ffff"), 112), ip("2001:db8::"));
        assert_eq!(network(ip("192.0.2.7"), 128), ip("192.0.2.7"));
    }

    #[test]
    fn a_client_is_forgotten_after_its_time_and_not_before() {
        let (clients, now) = (persistence(5_000, 32), Instant::now());
        let server: SocketAddr = "10.0.0.2:80".parse().unwrap();
        clients.keep(ip("192.0.2.7"), server, now);
        let last = now + Duration::from_millis(4_999);
        assert_eq!(clients.find(ip("192.0.2.7"), last), Some(server));
        assert_eq!(clients.find(ip("192.0.2.7"), now + Duration::from_millis(5_000)), None);
        clients.keep(ip("192.0.2.8"), server, now + SWEEP);
        assert_eq!(clients.clients.borrow().len(), 1, "nothing is kept of who is forgotten");
    }
}
