//! The witness on a director: whether it holds an address at the moment it first announces it.
//!
//! A frame is seen before it leaves the interface, and the look for the address is one system call
//! later; an address that is applied only afterwards takes several and is not there yet.

use std::io::Read as _;
use std::net::IpAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::capture;
use crate::capture::Kind;
use crate::node::Node;

/// `ETH_P_ALL` of `linux/if_ether.h`: without it a packet socket sees nothing that leaves.
const EVERY_PROTOCOL: u16 = 0x0003;

/// A running watch; it keeps one core busy, so that it is never late.
pub struct FirstAnnouncement {
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<Option<bool>>>,
}

impl FirstAnnouncement {
    /// Watches what `node` sends on any link from now on.
    pub fn watch(node: &Node, address: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = node.in_network(|| {
            let protocol = socket2::Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(protocol))
                .expect("cannot open a packet socket")
        });
        socket.set_nonblocking(true).expect("cannot set a mode");
        let watcher = node.spawn_in_network({
            let stop = Arc::clone(&stop);
            move || watch(socket, address, &stop)
        });
        Self { stop, watcher: Some(watcher) }
    }

    /// Whether it has seen an announcement.
    pub fn has_seen(&self) -> bool {
        self.watcher.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether the address was there when it was first announced; `None` if it never was announced.
    pub fn finish(mut self) -> Option<bool> {
        self.stop.store(true, Ordering::Relaxed);
        let watcher = self.watcher.take()?;
        watcher.join().expect("the watch failed")
    }
}

impl Drop for FirstAnnouncement {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(mut socket: socket2::Socket, address: IpAddr, stop: &AtomicBool) -> Option<bool> {
    let mut bytes = [0; 2048];
    loop {
        // Asked before the look: what was sent until then is seen, however late this runs.
        let last = stop.load(Ordering::Relaxed);
        let Ok(length) = socket.read(&mut bytes) else {
            if last {
                return None;
            }
            std::hint::spin_loop();
            continue;
        };
        let announced = match capture::decode(&bytes[..length]) {
            Some(Kind::GratuitousArp { address }) => Some(IpAddr::V4(address)),
            Some(Kind::UnsolicitedNeighbour { address }) => Some(IpAddr::V6(address)),
            Some(Kind::Advert(_)) | None => None,
        };
        if announced == Some(address) {
            // Only an address of this node can be bound, and one that is tentative cannot.
            return Some(UdpSocket::bind((address, 0)).is_ok());
        }
    }
}
