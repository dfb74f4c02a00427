//! Clients that stay with their server for a time after their last connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::ProxyPersistence;

/// Most clients remembered for one service; one that is beyond is given a server anew. As many as a
/// table of 2¹⁸ places takes in: some 27 MB with what stands beside it.
const CLIENT_LIMIT: usize = 229_376;

/// How often those whose time is over are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct PersistenceTable {
    spec: Cell<Option<ProxyPersistence>>,
    clients: RefCell<HashMap<IpAddr, Rc<Stay>>>,
    swept_at: Cell<Option<Instant>>,
}

/// A client at a server. It lasts for as long as somebody besides the table has it.
#[derive(Debug)]
struct Stay {
    server: SocketAddr,
    /// Of the last connection that ended; `None`: beyond what the clock can count.
    until: Cell<Option<Instant>>,
}

impl Stay {
    fn is_over(self: &Rc<Self>, now: Instant) -> bool {
        Rc::strong_count(self) == 1 && self.until.get().is_some_and(|until| until <= now)
    }
}

/// A connection of a client that stays.
#[derive(Debug)]
pub struct StayHeld {
    table: Rc<PersistenceTable>,
    stay: Rc<Stay>,
}

impl Drop for StayHeld {
    fn drop(&mut self) {
        self.stay.until.set(self.table.until(Instant::now()));
    }
}

impl PersistenceTable {
    /// From now on. Clients that are remembered stay so unless other networks count as one client now.
    pub fn set(&self, spec: Option<ProxyPersistence>) {
        let before = self.spec.replace(spec);
        if before.map(|spec| spec.prefix) != spec.map(|spec| spec.prefix) {
            self.clients.borrow_mut().clear();
        }
    }

    /// The server that this client has, or had.
    pub fn find(&self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let spec = self.spec.get()?;
        let clients = self.clients.borrow();
        let stay = clients.get(&network(client, spec.prefix))?;
        (!stay.is_over(now)).then_some(stay.server)
    }

    /// The client has a connection to this server for as long as the answer lives, and stays until
    /// its time is over after the last of them. It leaves any other server; the ends of its
    /// connections there are of no account any more.
    pub fn hold(
        self: &Rc<Self>,
        client: IpAddr,
        server: SocketAddr,
        now: Instant,
    ) -> Option<StayHeld> {
        let spec = self.spec.get()?;
        self.sweep(now);
        let mut clients = self.clients.borrow_mut();
        let client = network(client, spec.prefix);
        let known = clients.get(&client);
        if known.is_none() && clients.len() >= CLIENT_LIMIT {
            return None;
        }
        let stay = match known.filter(|stay| stay.server == server) {
            Some(stay) => stay.clone(),
            None => {
                let stay = Rc::new(Stay { server, until: Cell::new(Some(now)) });
                clients.insert(client, stay.clone());
                stay
            }
        };
        Some(StayHeld { table: self.clone(), stay })
    }

    /// Everybody who stays: the network, the server, and for how long from now; `None`: longer than the
    /// clock can count. Who has a connection stays as if it ended now.
    pub fn export(&self, now: Instant) -> Vec<(IpAddr, SocketAddr, Option<Duration>)> {
        let clients = self.clients.borrow();
        let staying = clients.iter().filter(|(_, stay)| !stay.is_over(now));
        let one = |(network, stay): (&IpAddr, &Rc<Stay>)| {
            let ends = if Rc::strong_count(stay) > 1 { self.until(now) } else { stay.until.get() };
            (*network, stay.server, ends.map(|until| until.saturating_duration_since(now)))
        };
        staying.map(one).collect()
    }

    /// A client stays with this server for as long from now on.
    pub fn import(
        &self,
        network: IpAddr,
        server: SocketAddr,
        left: Option<Duration>,
        now: Instant,
    ) {
        let mut clients = self.clients.borrow_mut();
        if self.spec.get().is_some() && clients.len() < CLIENT_LIMIT {
            let until = left.and_then(|left| now.checked_add(left));
            clients.entry(network).or_insert(Rc::new(Stay { server, until: Cell::new(until) }));
        }
    }

    /// When one whose last connection ends now is forgotten.
    fn until(&self, now: Instant) -> Option<Instant> {
        let timeout_ms = self.spec.get().map_or(0, |spec| spec.timeout_ms);
        now.checked_add(Duration::from_millis(timeout_ms))
    }

    fn sweep(&self, now: Instant) {
        if self.swept_at.get().is_some_and(|at| now < at + SWEEP) {
            return;
        }
        self.swept_at.set(Some(now));
        self.clients.borrow_mut().retain(|_, stay| !stay.is_over(now));
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

    fn server(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn persistence(timeout_ms: u64, prefix: u8) -> Rc<PersistenceTable> {
        let persistence = PersistenceTable::default();
        persistence.set(Some(ProxyPersistence { timeout_ms, prefix }));
        Rc::new(persistence)
    }

    #[test]
    fn clients_of_one_network_stay_together_and_others_do_not() {
        let (clients, now) = (persistence(60_000, 24), Instant::now());
        let server = server("10.0.0.2:80");
        let _held = clients.hold(ip("192.0.2.7"), server, now);
        assert_eq!(clients.find(ip("192.0.2.200"), now), Some(server));
        assert_eq!(clients.find(ip("::ffff:192.0.2.9"), now), Some(server));
        assert_eq!(clients.find(ip("192.0.3.7"), now), None);
        clients.set(Some(ProxyPersistence { timeout_ms: 60_000, prefix: 32 }));
        assert_eq!(clients.find(ip("192.0.2.7"), now), None, "one from another now");
        assert_eq!(network(ip("2001:db8::ffff"), 112), ip("2001:db8::"));
        assert_eq!(network(ip("192.0.2.7"), 128), ip("192.0.2.7"));
    }

    #[test]
    fn a_client_is_forgotten_its_time_after_its_last_connection_and_not_before() {
        let (clients, begin) = (persistence(5_000, 32), Instant::now());
        let (client, server) = (ip("192.0.2.7"), server("10.0.0.2:80"));
        let held = [clients.hold(client, server, begin), clients.hold(client, server, begin)];
        let late = begin + 100 * SWEEP;
        held.into_iter().for_each(|one| {
            assert_eq!(clients.find(client, late), Some(server), "while one of them lives");
            clients.sweep(late);
            drop(one);
        });
        let end = Instant::now();
        assert_eq!(clients.find(client, begin + Duration::from_millis(5_000)), Some(server));
        assert_eq!(clients.find(client, end + Duration::from_millis(5_000)), None);
        drop(clients.hold(ip("192.0.2.8"), server, late + SWEEP));
        assert_eq!(clients.clients.borrow().len(), 1, "nothing is kept of who is forgotten");
    }

    #[test]
    fn the_last_server_that_a_client_was_given_is_its_own_whichever_connection_ends_first() {
        let (clients, now) = (persistence(5_000, 32), Instant::now());
        let (client, [a, b]) = (ip("192.0.2.7"), ["10.0.0.1:80", "10.0.0.2:80"].map(server));
        let old = clients.hold(client, a, now);
        let new = clients.hold(client, b, now);
        drop(old);
        assert_eq!(clients.find(client, now), Some(b));
        // Back at the first, of which an older connection ends.
        let old = clients.hold(client, a, now);
        let _new = (clients.hold(client, b, now), clients.hold(client, a, now));
        drop((old, new));
        assert_eq!(clients.find(client, now + 100 * SWEEP), Some(a));
    }

    #[test]
    fn who_is_handed_over_stays_for_what_is_left_of_its_time() {
        let (before, after, now) = (persistence(5_000, 24), persistence(9_000, 24), Instant::now());
        let server = server("10.0.0.2:80");
        drop(before.hold(ip("192.0.2.7"), server, now));
        let _here = before.hold(ip("198.51.100.7"), server, now);
        let later = Instant::now() + Duration::from_millis(1_000);
        for (network, server, left) in before.export(later) {
            after.import(network, server, left, later);
        }
        let is_there = |address: &str, ms| {
            let at = later + Duration::from_millis(ms);
            after.find(ip(address), at).is_some()
        };
        assert!(is_there("192.0.2.200", 3_900) && !is_there("192.0.2.200", 4_001));
        assert!(is_there("198.51.100.9", 4_999) && !is_there("198.51.100.9", 5_000));
    }

    #[test]
    fn a_time_beyond_the_clock_is_for_ever() {
        let clients = persistence(u64::MAX, 32);
        let (client, server, now) = (ip("192.0.2.7"), server("10.0.0.2:80"), Instant::now());
        drop(clients.hold(client, server, now));
        assert_eq!(clients.find(client, now + 100 * SWEEP), Some(server));
    }
}
