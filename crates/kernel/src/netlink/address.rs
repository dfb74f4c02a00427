//! An address as it is wanted and as it is found, and the octets of both.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressHeaderFlags, AddressMessage,
    AddressProtocol, AddressScope, CacheInfo,
};

/// Our number in IFA_PROTO (kernel 5.18 and later), V-257; the same as the IP protocol's.
pub const MARK: u8 = 112;

/// First release whose addresses keep a mark (IFA_PROTO).
const MARKS_SINCE: (u32, u32) = (5, 18);

/// IFA_CACHEINFO lifetime that never ends.
const FOREVER: u32 = u32::MAX;

/// Does this kernel keep the [`MARK`] of an address, by its release? Where it does not, a process
/// that follows another one cannot tell that one's addresses from a stranger's. A release that
/// cannot be read counts as one that does.
pub fn keeps_marks() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release_keeps_marks(&release)
}

fn release_keeps_marks(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= MARKS_SINCE,
        (_, _) => true,
    }
}

/// An address to hold on an interface.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AddressSpec {
    pub interface: Arc<str>,
    pub address: IpAddr,
    /// 0..=32 or 0..=128.
    pub prefix: u8,
    /// IPv4 only.
    pub broadcast: Option<IpAddr>,
    /// IPv4 only, at most 15 octets.
    pub label: Option<Arc<str>>,
    pub scope: KernelScope,
    /// IPv6: usable at once, without duplicate address detection (V-255).
    pub nodad: bool,
    /// No prefix route for it.
    pub noprefixroute: bool,
    /// Whole seconds until the kernel removes it by itself unless it is renewed, at least 1;
    /// `None` is never.
    pub valid_seconds: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KernelScope {
    #[default]
    Global,
    Site,
    Link,
    Host,
}

/// An address that carries our mark.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MarkedAddress {
    pub interface: Arc<str>,
    pub address: IpAddr,
    pub prefix: u8,
    /// Whole seconds of its lifetime that are left, rounded up; `None` is for ever.
    pub valid_seconds: Option<u32>,
}

/// An address in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FoundAddress {
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
    pub flags: AddressFlags,
    pub marked: bool,
    /// Seconds it has left; `None` is for ever.
    pub valid_seconds: Option<u32>,
}

impl FoundAddress {
    /// Reads the body of an RTM_NEWADDR or RTM_DELADDR; `None` for what is not an IP address.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let message = AddressMessage::parse(body).ok()?;
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        // On a point-to-point link, IFA_LOCAL is ours and IFA_ADDRESS the peer's.
        let (mut local, mut address, mut marked, mut valid_seconds) = (None, None, false, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(value) => local = Some(*value),
                AddressAttribute::Address(value) => address = Some(*value),
                AddressAttribute::Flags(value) => flags = *value,
                AddressAttribute::Protocol(value) => marked = u8::from(*value) == MARK,
                AddressAttribute::CacheInfo(info) if info.ifa_valid != FOREVER => {
                    valid_seconds = Some(info.ifa_valid);
                }
                // The attribute list is open: the library adds to it with the kernel.
                _ => {}
            }
        }
        Some(Self {
            index: message.header.index,
            address: local.or(address)?,
            prefix: message.header.prefix_len,
            flags,
            marked,
            valid_seconds,
        })
    }
}

/// Writes the bodies of requests. Kept from one to the next: thousands of addresses are renewed
/// every second, in memory that is there already.
#[derive(Debug, Default)]
pub(crate) struct AddressWriter(AddressMessage);

impl AddressWriter {
    /// Appends the body of an RTM_NEWADDR, to be valid for so many seconds; `None` is for ever.
    pub(crate) fn addition(
        &mut self,
        spec: &AddressSpec,
        index: u32,
        valid_seconds: Option<u32>,
        octets: &mut Vec<u8>,
    ) {
        let mut flags = AddressFlags::empty();
        if spec.noprefixroute {
            flags |= AddressFlags::Noprefixroute;
        }
        if spec.nodad && spec.address.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        self.identify(index, spec.address, spec.prefix);
        let message = &mut self.0;
        message.header.scope = match spec.scope {
            KernelScope::Global => AddressScope::Universe,
            KernelScope::Site => AddressScope::Site,
            KernelScope::Link => AddressScope::Link,
            KernelScope::Host => AddressScope::Host,
        };
        // The header has room for eight flags only; the attribute has them all.
        message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
        let attributes = &mut message.attributes;
        attributes.push(AddressAttribute::Flags(flags));
        attributes.push(AddressAttribute::CacheInfo(lifetime(spec, valid_seconds)));
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(MARK)));
        if spec.address.is_ipv4() {
            if let Some(IpAddr::V4(broadcast)) = spec.broadcast {
                attributes.push(AddressAttribute::Broadcast(broadcast));
            }
            if let Some(label) = &spec.label {
                attributes.push(AddressAttribute::Label(label.to_string()));
            }
        }
        self.append(octets);
    }

    /// Appends the body of an RTM_DELADDR.
    pub(crate) fn removal(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        octets: &mut Vec<u8>,
    ) {
        self.identify(index, address, prefix);
        self.append(octets);
    }

    /// Begins a message about this address.
    fn identify(&mut self, index: u32, address: IpAddr, prefix: u8) {
        let message = &mut self.0;
        message.header = AddressHeader {
            family: if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
            prefix_len: prefix,
            index,
            ..AddressHeader::default()
        };
        message.attributes.clear();
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
    }

    fn append(&self, octets: &mut Vec<u8>) {
        let start = octets.len();
        octets.resize(start + self.0.buffer_len(), 0);
        self.0.emit(&mut octets[start..]);
    }
}

/// Preferred as long as valid, but never for an IPv6 host address, which must not be chosen as a
/// source (V-256).
fn lifetime(spec: &AddressSpec, valid_seconds: Option<u32>) -> CacheInfo {
    // Zero would be refused, and the largest number would be for ever.
    let valid = valid_seconds.map_or(FOREVER, |seconds| seconds.clamp(1, FOREVER - 1));
    let mut info = CacheInfo::default();
    info.ifa_valid = valid;
    info.ifa_preferred = if spec.address.is_ipv6() && spec.prefix == 128 { 0 } else { valid };
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(address: &str, prefix: u8) -> AddressSpec {
        AddressSpec {
            interface: "eth0".into(),
            address: address.parse().unwrap(),
            prefix,
            broadcast: None,
            label: None,
            scope: KernelScope::Global,
            nodad: true,
            noprefixroute: true,
            valid_seconds: Some(3),
        }
    }

    fn preferred(spec: &AddressSpec) -> u32 {
        lifetime(spec, spec.valid_seconds).ifa_preferred
    }

    #[test]
    fn what_is_added_is_found_again_with_mark_lifetime_and_flags() {
        let mut writer = AddressWriter::default();
        let mut addition = |spec: &AddressSpec, index: u32, valid_seconds: Option<u32>| {
            let mut octets = Vec::new();
            writer.addition(spec, index, valid_seconds, &mut octets);
            octets
        };
        let labelled = AddressSpec {
            broadcast: Some([192, 0, 2, 255].into()),
            label: Some("eth0:1".into()),
            ..spec("192.0.2.9", 24)
        };
        let longest = addition(&labelled, 5, Some(3));
        assert!(longest.ends_with(b"eth0:1\0\0"), "{longest:x?}");
        let found = FoundAddress::parse(&addition(&spec("2001:db8::10", 64), 5, Some(3))).unwrap();
        assert!(found.marked);
        assert_eq!((found.index, found.prefix, found.valid_seconds), (5, 64, Some(3)));
        assert_eq!(found.flags, AddressFlags::Nodad | AddressFlags::Noprefixroute);
        let found = FoundAddress::parse(&addition(&spec("192.0.2.10", 24), 5, None)).unwrap();
        assert_eq!(found.address, "192.0.2.10".parse::<IpAddr>().unwrap());
        assert_eq!(found.flags, AddressFlags::Noprefixroute, "IPv4 has no nodad");
        let again = addition(&spec("192.0.2.10", 24), 5, None);
        let plain = AddressWriter::default();
        let mut octets = Vec::new();
        { plain }.addition(&spec("192.0.2.10", 24), 5, None, &mut octets);
        assert_eq!(again, octets, "nothing of the message before is left");
    }

    #[test]
    fn v_256_an_ipv6_host_address_is_never_preferred() {
        assert_eq!(preferred(&spec("2001:db8::10", 128)), 0);
        assert_eq!(preferred(&spec("2001:db8::10", 64)), 3);
        assert_eq!(preferred(&spec("192.0.2.10", 32)), 3);
        let forever = AddressSpec { valid_seconds: None, ..spec("192.0.2.10", 32) };
        assert_eq!(preferred(&forever), FOREVER);
    }

    #[test]
    fn lifetimes_stay_between_one_second_and_almost_for_ever() {
        for (asked, valid) in [(0, 1), (1, 1), (u32::MAX, u32::MAX - 1)] {
            let spec = spec("192.0.2.10", 32);
            assert_eq!(lifetime(&spec, Some(asked)).ifa_valid, valid);
        }
    }

    #[test]
    fn kernels_keep_marks_since_5_18() {
        assert!(!release_keeps_marks("5.10.0-28-amd64\n"));
        assert!(!release_keeps_marks("5.17.15"));
        assert!(release_keeps_marks("5.18.0"));
        assert!(release_keeps_marks("6.1.0-18-amd64\n"));
        assert!(release_keeps_marks("unknown"));
    }
}
