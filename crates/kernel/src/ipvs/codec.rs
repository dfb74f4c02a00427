//! The octets of IPVS messages, from the generic netlink header on.
//!
//! ```text
//!   command u8, version u8, reserved u16 | SERVICE { … } | DEST { … }
//! ```
//!
//! Attributes are in host order unless said otherwise; ports are big-endian (I-010). Numbers are
//! those of the kernel's `linux/ip_vs.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::{
    DestId, DestSpec, ForwardingMethod, IpvsTraffic, ObservedDest, ObservedService, Operation,
    ServiceFlags, ServiceId, ServiceSpec, Tunnel,
};
use crate::attribute::{Attributes, attributes, text};
use crate::family::IpFamily;
use crate::ip_protocol::IpProtocol;

/// Name under which the kernel registers the family.
pub(crate) const FAMILY: &str = "IPVS";
const VERSION: u8 = 1;
/// struct genlmsghdr.
pub(super) const HEADER_OCTETS: usize = 4;

const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
/// Only in replies, to GET_INFO.
const SET_INFO: u8 = 14;
const GET_INFO: u8 = 15;

const SERVICE: u16 = 1;
const DEST: u16 = 2;
/// In a reply to GET_INFO the numbers mean something else (I-006).
const INFO_VERSION: u16 = 1;

const SERVICE_FAMILY: u16 = 1;
const SERVICE_PROTOCOL: u16 = 2;
const SERVICE_ADDRESS: u16 = 3;
const SERVICE_PORT: u16 = 4;
const SERVICE_MARK: u16 = 5;
const SERVICE_SCHEDULER: u16 = 6;
const SERVICE_FLAGS: u16 = 7;
const SERVICE_TIMEOUT: u16 = 8;
const SERVICE_NETMASK: u16 = 9;
const SERVICE_STATS: u16 = 10;
const SERVICE_ENGINE: u16 = 11;
const SERVICE_STATS64: u16 = 12;

const DEST_ADDRESS: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FORWARDING: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_UPPER: u16 = 5;
const DEST_LOWER: u16 = 6;
const DEST_ACTIVE: u16 = 7;
const DEST_INACTIVE: u16 = 8;
const DEST_PERSISTENT: u16 = 9;
const DEST_STATS: u16 = 10;
const DEST_FAMILY: u16 = 11;
const DEST_STATS64: u16 = 12;
const DEST_TUNNEL_TYPE: u16 = 13;
const DEST_TUNNEL_PORT: u16 = 14;
const DEST_TUNNEL_FLAGS: u16 = 15;

const STATS_CONNECTIONS: u16 = 1;
const STATS_OCTETS_IN: u16 = 4;
const STATS_OCTETS_OUT: u16 = 5;
const STATS_CONNECTION_RATE: u16 = 6;
const STATS_OCTET_RATE_IN: u16 = 9;
const STATS_OCTET_RATE_OUT: u16 = 10;

/// Set by the kernel in every dump; no option of the service (I-014).
const FLAG_HASHED: u32 = 0x2;
/// With the flags: replace them all.
const ALL_FLAGS: u32 = u32::MAX;
/// Low bits of FWD_METHOD.
const FORWARDING_MASK: u32 = 0x7;

/// A change of one service or destination.
pub fn operation(operation: &Operation) -> Vec<u8> {
    match operation {
        Operation::NewService(spec) => message(NEW_SERVICE, full_service(spec), None),
        Operation::SetService(spec) => message(SET_SERVICE, full_service(spec), None),
        Operation::DelService(id) => message(DEL_SERVICE, service_id(id), None),
        Operation::NewDest(service, dest) => {
            message(NEW_DEST, service_id(service), Some(full_dest(dest)))
        }
        Operation::SetDest(service, dest) => {
            message(SET_DEST, service_id(service), Some(full_dest(dest)))
        }
        Operation::DelDest(service, dest) => {
            message(DEL_DEST, service_id(service), Some(dest_id(dest)))
        }
    }
}

/// Asks for all services, as a dump.
pub fn get_services() -> Vec<u8> {
    header(GET_SERVICE)
}

/// Asks for all destinations of a service, as a dump. Empty when there is no such service (I-007).
pub fn get_dests(service: &ServiceId) -> Vec<u8> {
    message(GET_DEST, service_id(service), None)
}

pub fn get_info() -> Vec<u8> {
    header(GET_INFO)
}

/// A service of a dump, without destinations. `None` for what is none, or one that we have no
/// words for, such as an unknown transport protocol.
pub fn read_service(body: &[u8]) -> Option<ObservedService> {
    let nested = nested(body, NEW_SERVICE, SERVICE)?;
    let mut family = None;
    let (mut protocol, mut address, mut port, mut mark) = (None, None, 0, None);
    let (mut scheduler, mut flags, mut timeout, mut netmask) = (String::new(), 0, 0, None);
    let (mut engine, mut traffic, mut traffic64) = (None, None, None);
    for attribute in attributes(nested) {
        let value = attribute.value;
        match attribute.kind {
            SERVICE_FAMILY => family = read_family(value),
            SERVICE_PROTOCOL => protocol = read_protocol(value),
            SERVICE_ADDRESS => address = <[u8; 16]>::try_from(value).ok(),
            SERVICE_PORT => port = be16(value)?,
            SERVICE_MARK => mark = Some(u32_of(value)?),
            SERVICE_SCHEDULER => scheduler = text(value),
            SERVICE_FLAGS => flags = u32_of(value.get(..4)?)?,
            SERVICE_TIMEOUT => timeout = u32_of(value)?,
            SERVICE_NETMASK => netmask = <[u8; 4]>::try_from(value).ok(),
            SERVICE_ENGINE => engine = Some(text(value)),
            SERVICE_STATS => traffic = Some(read_traffic(value)),
            SERVICE_STATS64 => traffic64 = Some(read_traffic(value)),
            _ => {}
        }
    }
    let family = family?;
    let id = match mark {
        Some(mark) => ServiceId::Mark { family, mark },
        None => {
            let address = read_address(address?, family);
            ServiceId::Listener { protocol: protocol?, address, port }
        }
    };
    let netmask = netmask?;
    let spec = ServiceSpec {
        id,
        scheduler,
        flags: ServiceFlags(flags & !FLAG_HASHED),
        persistence_seconds: timeout,
        client_prefix: match family {
            // Always whole: the kernel takes masks with holes, and we see how many bits they have.
            IpFamily::V4 => u32::from_be_bytes(netmask).count_ones() as u8,
            IpFamily::V6 => u8::try_from(u32::from_ne_bytes(netmask)).ok()?,
        },
        persistence_engine: engine.filter(|name| !name.is_empty()),
    };
    let traffic = traffic64.or(traffic).unwrap_or_default();
    Some(ObservedService { spec, dests: Vec::new(), traffic })
}

/// A destination of a dump; `family` is the service's.
pub fn read_dest(body: &[u8], family: IpFamily) -> Option<ObservedDest> {
    let nested = nested(body, NEW_DEST, DEST)?;
    let (mut family, mut address, mut port) = (family, None, 0);
    let (mut method, mut weight, mut upper, mut lower) = (None, 0, 0, 0);
    let (mut active, mut inactive, mut persistent) = (0, 0, 0);
    let (mut tunnel_type, mut tunnel_port, mut tunnel_flags) = (0, 0, 0);
    let (mut traffic, mut traffic64) = (None, None);
    for attribute in attributes(nested) {
        let value = attribute.value;
        match attribute.kind {
            DEST_ADDRESS => address = <[u8; 16]>::try_from(value).ok(),
            DEST_PORT => port = be16(value)?,
            DEST_FORWARDING => method = Some(u32_of(value)? & FORWARDING_MASK),
            DEST_WEIGHT => weight = u32_of(value)?,
            DEST_UPPER => upper = u32_of(value)?,
            DEST_LOWER => lower = u32_of(value)?,
            DEST_ACTIVE => active = u32_of(value)?,
            DEST_INACTIVE => inactive = u32_of(value)?,
            DEST_PERSISTENT => persistent = u32_of(value)?,
            DEST_FAMILY => family = read_family(value)?,
            DEST_TUNNEL_TYPE => tunnel_type = *value.first()?,
            DEST_TUNNEL_PORT => tunnel_port = be16(value)?,
            DEST_TUNNEL_FLAGS => tunnel_flags = u16_of(value)?,
            DEST_STATS => traffic = Some(read_traffic(value)),
            DEST_STATS64 => traffic64 = Some(read_traffic(value)),
            _ => {}
        }
    }
    let tunnel = match tunnel_type {
        0 => Tunnel::Ipip,
        1 => Tunnel::Gue { port: tunnel_port, flags: tunnel_flags },
        2 => Tunnel::Gre { flags: tunnel_flags },
        _ => return None,
    };
    let forwarding = match method? {
        0 => ForwardingMethod::Masq,
        1 => ForwardingMethod::Local,
        2 => ForwardingMethod::Tunnel(tunnel),
        3 => ForwardingMethod::Direct,
        4 => ForwardingMethod::Bypass,
        _ => return None,
    };
    let id = DestId { address: read_address(address?, family), port };
    Some(ObservedDest {
        spec: DestSpec { id, forwarding, weight, upper_threshold: upper, lower_threshold: lower },
        active_connections: active,
        inactive_connections: inactive,
        persistent_connections: persistent,
        traffic: traffic64.or(traffic).unwrap_or_default(),
    })
}

/// Version of the kernel's IPVS, as major, minor, patch.
pub fn read_info(body: &[u8]) -> Option<[u8; 3]> {
    if *body.first()? != SET_INFO {
        return None;
    }
    let mut found = attributes(body.get(HEADER_OCTETS..)?);
    let version = u32_of(found.find(|attribute| attribute.kind == INFO_VERSION)?.value)?;
    let [_, major, minor, patch] = version.to_be_bytes();
    Some([major, minor, patch])
}

pub(super) fn header(command: u8) -> Vec<u8> {
    vec![command, VERSION, 0, 0]
}

fn message(command: u8, service: Attributes, dest: Option<Attributes>) -> Vec<u8> {
    let mut body = Attributes::after(header(command));
    body.put(SERVICE, service.octets());
    if let Some(dest) = dest {
        body.put(DEST, dest.octets());
    }
    body.into_octets()
}

fn service_id(id: &ServiceId) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.put(SERVICE_FAMILY, &u16::from(id.family().number()).to_ne_bytes());
    match id {
        ServiceId::Listener { protocol, address, port } => {
            attributes.put(SERVICE_PROTOCOL, &u16::from(protocol.number()).to_ne_bytes());
            attributes.put(SERVICE_ADDRESS, &address_octets(*address));
            attributes.put(SERVICE_PORT, &port.to_be_bytes());
        }
        ServiceId::Mark { mark, .. } => attributes.put(SERVICE_MARK, &mark.to_ne_bytes()),
    }
    attributes
}

/// Everything a service must carry, and the engine, whose absence would remove it (I-012, I-015).
fn full_service(spec: &ServiceSpec) -> Attributes {
    let mut attributes = service_id(&spec.id);
    attributes.put_text(SERVICE_SCHEDULER, &spec.scheduler);
    if let Some(engine) = &spec.persistence_engine {
        attributes.put_text(SERVICE_ENGINE, engine);
    }
    let mut flags = spec.flags.0.to_ne_bytes().to_vec();
    flags.extend(ALL_FLAGS.to_ne_bytes());
    attributes.put(SERVICE_FLAGS, &flags);
    attributes.put(SERVICE_TIMEOUT, &spec.persistence_seconds.to_ne_bytes());
    let netmask = match spec.id.family() {
        IpFamily::V4 => {
            let host_bits = 32 - u32::from(spec.client_prefix.min(32));
            u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
        }
        IpFamily::V6 => u32::from(spec.client_prefix).to_ne_bytes(),
    };
    attributes.put(SERVICE_NETMASK, &netmask);
    attributes
}

fn dest_id(id: &DestId) -> Attributes {
    let mut attributes = Attributes::default();
    let family = u16::from(IpFamily::of(id.address).number());
    attributes.put(DEST_FAMILY, &family.to_ne_bytes());
    attributes.put(DEST_ADDRESS, &address_octets(id.address));
    attributes.put(DEST_PORT, &id.port.to_be_bytes());
    attributes
}

/// Everything a destination must carry, and the tunnel, whose absence would reset it (I-015).
fn full_dest(spec: &DestSpec) -> Attributes {
    let (method, tunnel): (u32, _) = match spec.forwarding {
        ForwardingMethod::Masq => (0, None),
        ForwardingMethod::Local => (1, None),
        ForwardingMethod::Tunnel(tunnel) => (2, Some(tunnel)),
        ForwardingMethod::Direct => (3, None),
        ForwardingMethod::Bypass => (4, None),
    };
    let mut attributes = dest_id(&spec.id);
    attributes.put(DEST_FORWARDING, &method.to_ne_bytes());
    attributes.put(DEST_WEIGHT, &spec.weight.to_ne_bytes());
    match tunnel {
        None => {}
        Some(Tunnel::Ipip) => attributes.put(DEST_TUNNEL_TYPE, &[0]),
        Some(Tunnel::Gue { port, flags }) => {
            attributes.put(DEST_TUNNEL_TYPE, &[1]);
            attributes.put(DEST_TUNNEL_PORT, &port.to_be_bytes());
            attributes.put(DEST_TUNNEL_FLAGS, &flags.to_ne_bytes());
        }
        Some(Tunnel::Gre { flags }) => {
            attributes.put(DEST_TUNNEL_TYPE, &[2]);
            attributes.put(DEST_TUNNEL_FLAGS, &flags.to_ne_bytes());
        }
    }
    attributes.put(DEST_UPPER, &spec.upper_threshold.to_ne_bytes());
    attributes.put(DEST_LOWER, &spec.lower_threshold.to_ne_bytes());
    attributes
}

/// Value of attribute `kind` of a message with this command.
pub(super) fn nested(body: &[u8], command: u8, kind: u16) -> Option<&[u8]> {
    if *body.first()? != command {
        return None;
    }
    let mut found = attributes(body.get(HEADER_OCTETS..)?);
    Some(found.find(|attribute| attribute.kind == kind)?.value)
}

/// Of STATS or STATS64: numbers of 32 or 64 bits. What is missing or cut counts nothing.
fn read_traffic(stats: &[u8]) -> IpvsTraffic {
    let mut traffic = IpvsTraffic::default();
    for attribute in attributes(stats) {
        let value = attribute.value;
        let wide = <[u8; 8]>::try_from(value).ok().map(u64::from_ne_bytes);
        let number = wide.or_else(|| u32_of(value).map(u64::from)).unwrap_or(0);
        match attribute.kind {
            STATS_CONNECTIONS => traffic.connections = number,
            STATS_CONNECTION_RATE => traffic.connections_a_second = number,
            STATS_OCTETS_IN => traffic.octets_in = number,
            STATS_OCTETS_OUT => traffic.octets_out = number,
            STATS_OCTET_RATE_IN => traffic.octets_in_a_second = number,
            STATS_OCTET_RATE_OUT => traffic.octets_out_a_second = number,
            _ => {}
        }
    }
    traffic
}

fn read_family(value: &[u8]) -> Option<IpFamily> {
    match i32::from(u16_of(value)?) {
        libc::AF_INET => Some(IpFamily::V4),
        libc::AF_INET6 => Some(IpFamily::V6),
        _ => None,
    }
}

fn read_protocol(value: &[u8]) -> Option<IpProtocol> {
    IpProtocol::of(u8::try_from(u16_of(value)?).ok()?)
}

/// Always 16 octets; an IPv4 address is in the first four.
fn address_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn read_address(octets: [u8; 16], family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        IpFamily::V6 => Ipv6Addr::from(octets).into(),
    }
}

fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

pub(super) fn u16_of(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}

pub(super) fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}
