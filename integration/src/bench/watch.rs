//! Another program that wants to know all addresses of a director, 20 times a second: it is a load of
//! its own, and it sees when an address comes and whether it goes again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use super::fleet::is_virtual;
use crate::node::Node;

/// How often it looks: what is in place is seen so much later at most.
pub const PERIOD: Duration = Duration::from_millis(50);

/// What became of one virtual address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// When it was first there.
    pub first: Instant,
    /// Whether it was there at the last look.
    pub there: bool,
    /// How often it was gone again.
    pub lapses: u32,
}

/// A running watch of one director.
pub struct Watch {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<BTreeMap<IpAddr, Sighting>>,
}

impl Watch {
    /// Looks at `node` from now on.
    pub fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let thread = node.spawn_in_network({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            move || watch(&stop, &count)
        });
        Self { stop, count, thread }
    }

    /// Virtual addresses there at the last look.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn finish(self) -> BTreeMap<IpAddr, Sighting> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch failed")
    }
}

fn watch(stop: &AtomicBool, count: &AtomicUsize) -> BTreeMap<IpAddr, Sighting> {
    let mut sightings: BTreeMap<IpAddr, Sighting> = BTreeMap::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let list = nix::ifaddrs::getifaddrs().expect("cannot list addresses");
        let now = Instant::now();
        let addresses = list.filter_map(|entry| {
            let address = IpAddr::V4(entry.address?.as_sockaddr_in()?.ip());
            is_virtual(address).then_some(address)
        });
        let there: BTreeSet<IpAddr> = addresses.collect();
        count.store(there.len(), Ordering::Relaxed);
        for (address, sighting) in &mut sightings {
            let still = there.contains(address);
            sighting.lapses += u32::from(sighting.there && !still);
            sighting.there = still;
        }
        for address in there {
            let new = Sighting { first: now, there: true, lapses: 0 };
            sightings.entry(address).or_insert(new);
        }
        due += PERIOD;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sightings
}
