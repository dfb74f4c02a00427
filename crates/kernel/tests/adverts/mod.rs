//! Advert sockets on the two ends of a cable, for tests.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::AsFd;

use locum_kernel::advert_socket::AdvertSettings;
use locum_kernel::advert_socket::AdvertSocket;
use locum_kernel::advert_socket::Filter;
use locum_kernel::advert_socket::IpFamily;
use locum_kernel::advert_socket::Outgoing;
use locum_kernel::advert_socket::ReceiveBatch;
use locum_kernel::advert_socket::Received;
use locum_kernel::advert_socket::SendBatch;
use locum_kernel::advert_socket::filter::Foreign;
use locum_kernel::advert_socket::filter::Sources;
use locum_kernel::netlink::link_index;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use super::namespace::sysctl;

pub const GROUP_V4: &str = "224.0.0.18";
pub const GROUP_V6: &str = "ff02::12";
const PROTOCOL: u8 = 112;
const RECEIVE_BUFFER: usize = 1 << 20;
/// Longer than anything here takes, even on a loaded machine.
const PATIENCE_MS: u16 = 20_000;

/// A socket with what it has received and the test has not taken yet.
pub struct Tested {
    pub socket: AdvertSocket,
    unread: RefCell<VecDeque<(Received, Vec<u8>)>>,
}

impl std::ops::Deref for Tested {
    type Target = AdvertSocket;

    fn deref(&self) -> &AdvertSocket {
        &self.socket
    }
}

/// Both ends are of one host, which normally refuses datagrams from itself.
pub fn accept_own_addresses() {
    for link in ["all", "left", "right"] {
        sysctl(&format!("ipv4/conf/{link}/rp_filter"), "0");
        sysctl(&format!("ipv4/conf/{link}/accept_local"), "1");
    }
}

pub fn everything() -> Filter {
    Filter { sources: Sources::Any, foreign: Foreign::LetIn }
}

pub fn settings(
    interface: &str,
    family: IpFamily,
    groups: &[&str],
    filter: Filter,
) -> AdvertSettings {
    AdvertSettings {
        interface: interface.into(),
        index: link_index(interface).expect("it exists"),
        family,
        protocol: PROTOCOL,
        groups: groups.iter().map(|group| address(group)).collect(),
        filter,
        receive_buffer: RECEIVE_BUFFER,
    }
}

pub fn open(interface: &str, family: IpFamily, groups: &[&str], filter: Filter) -> Tested {
    opened(&settings(interface, family, groups, filter))
}

pub fn opened(settings: &AdvertSettings) -> Tested {
    let socket = AdvertSocket::open(settings).expect("opened");
    Tested { socket, unread: RefCell::default() }
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub fn send(socket: &AdvertSocket, source: &str, destination: &str, ttl: u8, message: &[u8]) {
    let (source, destination) = (address(source), address(destination));
    let outgoing = [Outgoing { source, destination, ttl, message }];
    let failed = |_, error| panic!("{destination}: {error}");
    socket.send(&mut SendBatch::default(), &outgoing, failed);
}

pub fn await_readable(socket: &AdvertSocket) {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::from(PATIENCE_MS)), Ok(1), "a datagram comes in time");
}

/// The next datagram, as soon as there is one.
pub fn wait(tested: &Tested) -> (Received, Vec<u8>) {
    if tested.unread.borrow().is_empty() {
        await_readable(tested);
        let datagrams = read(tested);
        tested.unread.borrow_mut().extend(datagrams);
    }
    tested.unread.borrow_mut().pop_front().expect("there is one")
}

/// All that has not been taken and all that there is now.
pub fn read(tested: &Tested) -> Vec<(Received, Vec<u8>)> {
    let mut batch = ReceiveBatch::new(1500);
    let mut all: Vec<_> = tested.unread.borrow_mut().drain(..).collect();
    loop {
        tested.receive(&mut batch).expect("received");
        all.extend(batch.iter().map(|(received, octets)| (received, octets.to_vec())));
        if !batch.is_full() {
            return all;
        }
    }
}
