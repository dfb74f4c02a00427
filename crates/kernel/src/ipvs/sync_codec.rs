//! The octets of what concerns all services: threads that synchronise connections, and timeouts.

use std::net::IpAddr;

use super::codec::{HEADER_OCTETS, header, nested, u16_of, u32_of};
use super::sync::{SyncChange, SyncState, SyncThread};
use crate::attribute::{Attributes, attributes, text};

const NEW_DAEMON: u8 = 9;
const DEL_DAEMON: u8 = 10;
const GET_DAEMON: u8 = 11;
const SET_CONFIG: u8 = 12;
const GET_CONFIG: u8 = 13;

const DAEMON: u16 = 3;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

const DAEMON_STATE: u16 = 1;
const DAEMON_INTERFACE: u16 = 2;
const DAEMON_ID: u16 = 3;
const DAEMON_LONGEST: u16 = 4;
const DAEMON_GROUP: u16 = 5;
const DAEMON_GROUP6: u16 = 6;
const DAEMON_PORT: u16 = 7;
const DAEMON_TTL: u16 = 8;

/// How long the kernel remembers idle connections, in seconds. 0 in a request keeps what is (I-060).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ConnectionTimeouts {
    pub tcp: u32,
    /// Of a connection that one side has closed.
    pub tcp_fin: u32,
    pub udp: u32,
}

/// A change of one of the threads.
pub fn sync_change(change: &SyncChange) -> Vec<u8> {
    match change {
        SyncChange::Start(thread) => {
            let mut list = state(thread.state);
            list.put_text(DAEMON_INTERFACE, &thread.interface);
            list.put(DAEMON_ID, &u32::from(thread.id).to_ne_bytes());
            if let Some(longest) = thread.longest {
                list.put(DAEMON_LONGEST, &longest.to_ne_bytes());
            }
            match thread.group {
                Some(IpAddr::V4(group)) => list.put(DAEMON_GROUP, &group.octets()),
                Some(IpAddr::V6(group)) => list.put(DAEMON_GROUP6, &group.octets()),
                None => {}
            }
            // Unlike all other ports in the order of the host (I-010).
            if let Some(port) = thread.port {
                list.put(DAEMON_PORT, &port.to_ne_bytes());
            }
            if let Some(ttl) = thread.ttl {
                list.put(DAEMON_TTL, &[ttl]);
            }
            message(NEW_DAEMON, &list)
        }
        SyncChange::Stop(of) => message(DEL_DAEMON, &state(*of)),
    }
}

/// Asks for the threads that run, as a dump.
pub fn get_sync_threads() -> Vec<u8> {
    header(GET_DAEMON)
}

/// A thread of a dump.
pub fn read_sync_thread(body: &[u8]) -> Option<SyncThread> {
    let (mut state, mut interface, mut id) = (None, String::new(), 0);
    let (mut longest, mut group, mut port, mut ttl) = (None, None, None, None);
    for attribute in attributes(nested(body, NEW_DAEMON, DAEMON)?) {
        let value = attribute.value;
        match attribute.kind {
            DAEMON_STATE => state = read_state(u32_of(value)?),
            DAEMON_INTERFACE => interface = text(value),
            DAEMON_ID => id = u8::try_from(u32_of(value)?).ok()?,
            DAEMON_LONGEST => longest = Some(u16_of(value)?),
            DAEMON_GROUP => group = Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
            DAEMON_GROUP6 => group = Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
            DAEMON_PORT => port = Some(u16_of(value)?),
            DAEMON_TTL => ttl = Some(*value.first()?),
            _ => {}
        }
    }
    Some(SyncThread { state: state?, interface, id, longest, group, port, ttl })
}

pub fn set_timeouts(timeouts: ConnectionTimeouts) -> Vec<u8> {
    let mut body = Attributes::after(header(SET_CONFIG));
    body.put(TIMEOUT_TCP, &timeouts.tcp.to_ne_bytes());
    body.put(TIMEOUT_TCP_FIN, &timeouts.tcp_fin.to_ne_bytes());
    body.put(TIMEOUT_UDP, &timeouts.udp.to_ne_bytes());
    body.into_octets()
}

pub fn get_timeouts() -> Vec<u8> {
    header(GET_CONFIG)
}

/// The timeouts in force, of the reply to [`get_timeouts`].
pub fn read_timeouts(body: &[u8]) -> Option<ConnectionTimeouts> {
    if *body.first()? != SET_CONFIG {
        return None;
    }
    let mut timeouts = ConnectionTimeouts::default();
    for attribute in attributes(body.get(HEADER_OCTETS..)?) {
        match attribute.kind {
            TIMEOUT_TCP => timeouts.tcp = u32_of(attribute.value)?,
            TIMEOUT_TCP_FIN => timeouts.tcp_fin = u32_of(attribute.value)?,
            TIMEOUT_UDP => timeouts.udp = u32_of(attribute.value)?,
            _ => {}
        }
    }
    Some(timeouts)
}

fn message(command: u8, list: &Attributes) -> Vec<u8> {
    let mut body = Attributes::after(header(command));
    body.put(DAEMON, list.octets());
    body.into_octets()
}

fn state(of: SyncState) -> Attributes {
    let number: u32 = match of {
        SyncState::Master => 1,
        SyncState::Backup => 2,
    };
    let mut list = Attributes::default();
    list.put(DAEMON_STATE, &number.to_ne_bytes());
    list
}

fn read_state(number: u32) -> Option<SyncState> {
    match number {
        1 => Some(SyncState::Master),
        2 => Some(SyncState::Backup),
        _ => None,
    }
}
