//! The octets of an advertisement: [`Advert`] writes them, [`Body`] reads them. SPEC.md §2.
//!
//! Reading checks only that the octets are there; what they may say is `receive`'s business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Coverage, FIELD, checksum};
use crate::settings::{
    Auth, ChecksumForm, Family, Interval, Priority, RouterSettings, Version, Vrid,
};

/// The one packet type there is. RFC 9568 §5.2.2.
pub const TYPE_ADVERTISEMENT: u8 = 1;

/// Octets before the addresses, in every version.
pub const HEADER_LENGTH: usize = 8;

/// Octets of authentication data after the addresses of a version 2 message, always (V-020).
pub const AUTH_DATA_LENGTH: usize = 8;

/// The count of addresses is one octet.
pub const MAX_ADDRESSES: usize = 255;

/// An advertisement to send.
///
/// Version 2, RFC 3768 §5.1:
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------+-------+---------------+---------------+---------------+
/// | ver 2 | type 1|     VRID      |   priority    | addresses (N) |
/// +-------+-------+---------------+---------------+---------------+
/// |   auth type   | interval (s)  |           checksum            |
/// +---------------+---------------+-------------------------------+
/// |                      N IPv4 addresses                         |
/// +---------------------------------------------------------------+
/// |              authentication data, always 8 octets             |
/// |                                                               |
/// +---------------------------------------------------------------+
/// ```
///
/// Version 3, RFC 9568 §5.1:
///
/// ```text
/// +-------+-------+---------------+---------------+---------------+
/// | ver 3 | type 1|     VRID      |   priority    | addresses (N) |
/// +-------+-------+---------------+---------------+---------------+
/// | rsvd 0|     interval (cs)     |           checksum            |
/// +-------+-----------------------+-------------------------------+
/// |                 N IPv4 or N IPv6 addresses                    |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advert<'a> {
    pub version: Version,
    pub vrid: Vrid,
    pub priority: Priority,
    /// The configured interval, never a learned one (V-056).
    pub interval: Interval,
    /// Version 3 has none and sends none.
    pub auth: &'a Auth,
    /// At most [`capacity`], all of the family the advert is sent over (V-026).
    pub addresses: &'a [IpAddr],
}

impl Advert<'_> {
    /// The VRRP message with its checksum, without an IP header.
    ///
    /// `source` and `destination` are those of the IP header; `form` matters in version 3 over
    /// IPv4 alone (V-040). Each unicast copy is encoded for its own destination (V-045).
    pub fn encode(&self, source: IpAddr, destination: IpAddr, form: ChecksumForm) -> Vec<u8> {
        debug_assert!(self.addresses.len() <= MAX_ADDRESSES);
        debug_assert!(self.addresses.iter().all(|a| Family::of(a) == Family::of(&source)));
        let addresses = &self.addresses[..self.addresses.len().min(MAX_ADDRESSES)];
        let size = address_size(Family::of(&source));
        let mut message =
            Vec::with_capacity(HEADER_LENGTH + addresses.len() * size + AUTH_DATA_LENGTH);
        message.extend([
            version_number(self.version) << 4 | TYPE_ADVERTISEMENT,
            self.vrid.get(),
            self.priority.0,
            addresses.len() as u8,
        ]);
        message.extend(match self.version {
            Version::V2 => [auth_type(self.auth), seconds(self.interval)],
            Version::V3 => (self.interval.centis() & INTERVAL_MASK).to_be_bytes(),
        });
        message.extend([0, 0]);
        for address in addresses {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
        match (self.version, self.auth) {
            (Version::V2, Auth::None) => message.extend([0; AUTH_DATA_LENGTH]),
            (Version::V2, Auth::Simple(password)) => message.extend(password),
            (Version::V3, Auth::None | Auth::Simple(_)) => {}
        }
        let checksum = checksum(&message, Coverage::of(self.version, form, source, destination));
        message[FIELD].copy_from_slice(&checksum.to_be_bytes());
        message
    }
}

/// The message a router of these settings sends now, with its effective `priority`; see
/// [`Advert::encode`].
pub fn encode_advert(
    settings: &RouterSettings,
    priority: Priority,
    source: IpAddr,
    destination: IpAddr,
    form: ChecksumForm,
) -> Vec<u8> {
    let advert = Advert {
        version: settings.version,
        vrid: settings.vrid,
        priority,
        interval: settings.interval,
        auth: &settings.auth,
        addresses: &settings.addresses,
    };
    advert.encode(source, destination, form)
}

/// A received message, read where it lies. Pictures at [`Advert`].
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    header: [u8; HEADER_LENGTH],
    /// All octets after the header.
    rest: &'a [u8],
    family: Family,
}

impl<'a> Body<'a> {
    /// `None` when `message` is shorter than the header. `family` is that of the IP header.
    pub fn new(message: &'a [u8], family: Family) -> Option<Self> {
        let (header, rest) = message.split_first_chunk()?;
        Some(Self { header: *header, rest, family })
    }

    /// As sent; `None` for any but 2 and 3.
    pub const fn version(&self) -> Option<Version> {
        match self.header[0] >> 4 {
            2 => Some(Version::V2),
            3 => Some(Version::V3),
            _ => None,
        }
    }

    /// 1 is an advertisement, nothing else is defined.
    pub const fn packet_type(&self) -> u8 {
        self.header[0] & 0x0f
    }

    /// `None` for 0, which is not a VRID.
    pub const fn vrid(&self) -> Option<Vrid> {
        Vrid::new(self.header[1])
    }

    pub const fn priority(&self) -> Priority {
        Priority(self.header[2])
    }

    /// Addresses the message says it has, 0..=255.
    pub const fn count(&self) -> usize {
        self.header[3] as usize
    }

    /// Version 2: 0 none, 1 password, 2 authentication header. RFC 2338 §5.3.6.
    pub const fn auth_type(&self) -> u8 {
        self.header[4]
    }

    /// The interval in centiseconds, also of version 2; not checked. The reserved bits of
    /// version 3 are masked (V-025).
    pub const fn centis(&self, version: Version) -> u16 {
        match version {
            Version::V2 => self.header[5] as u16 * 100,
            Version::V3 => u16::from_be_bytes([self.header[4], self.header[5]]) & INTERVAL_MASK,
        }
    }

    /// Whether the message is exactly as long as its count says (V-106, V-125).
    pub const fn has_exact_length(&self, version: Version) -> bool {
        let auth = match version {
            Version::V2 => AUTH_DATA_LENGTH,
            Version::V3 => 0,
        };
        self.rest.len() == self.count() * address_size(self.family) + auth
    }

    /// The addresses in the order sent; fewer than [`Self::count`] when the message is short.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let size = address_size(self.family);
        self.rest.chunks_exact(size).take(self.count()).filter_map(|octets| match octets.len() {
            4 => Some(IpAddr::from(*octets.first_chunk::<4>()?)),
            _ => Some(IpAddr::from(*octets.first_chunk::<16>()?)),
        })
    }

    /// The eight octets after the addresses of version 2; `None` when they are not there.
    pub fn auth_data(&self) -> Option<&'a [u8; AUTH_DATA_LENGTH]> {
        self.rest.get(self.count() * address_size(self.family)..)?.first_chunk()
    }
}

/// How many addresses one advert can carry on a link of this MTU, 0..=255 (V-030).
pub const fn capacity(version: Version, family: Family, mtu: u32) -> usize {
    let auth = match version {
        Version::V2 => AUTH_DATA_LENGTH,
        Version::V3 => 0,
    };
    let ip_header = match family {
        Family::V4 => size_of::<Ipv4Addr>() * 5,
        Family::V6 => size_of::<Ipv6Addr>() * 2 + 8,
    };
    let room = (mtu as usize).saturating_sub(ip_header + HEADER_LENGTH + auth);
    let fits = room / address_size(family);
    if fits < MAX_ADDRESSES { fits } else { MAX_ADDRESSES }
}

/// How many addresses a configuration may have: [`capacity`] less the Ethernet header, which
/// keepalived subtracts too, so that both ends accept the same list (V-031).
pub const fn configurable_addresses(version: Version, family: Family, mtu: u32) -> usize {
    capacity(version, family, mtu.saturating_sub(ETHERNET_HEADER_LENGTH))
}

const ETHERNET_HEADER_LENGTH: u32 = 14;

/// The low 12 bits; the upper four are reserved. RFC 9568 §5.2.6.
const INTERVAL_MASK: u16 = 0x0fff;

const fn version_number(version: Version) -> u8 {
    match version {
        Version::V2 => 2,
        Version::V3 => 3,
    }
}

/// Octets of one address on the wire.
const fn address_size(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// RFC 2338 §5.3.6.
pub(crate) const fn auth_type(auth: &Auth) -> u8 {
    match auth {
        Auth::None => 0,
        Auth::Simple(_) => 1,
    }
}

/// A version 2 interval is whole seconds, 1..=255, by construction.
fn seconds(interval: Interval) -> u8 {
    debug_assert!(interval.centis().is_multiple_of(100));
    u8::try_from(interval.centis() / 100).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn advert<'a>(version: Version, auth: &'a Auth) -> Advert<'a> {
        Advert {
            version,
            vrid: Vrid::new(51).unwrap(),
            priority: Priority(100),
            interval: Interval::DEFAULT,
            auth,
            addresses: &[ADDRESS],
        }
    }

    /// V-020, V-021; the message of vector V2-01 and one with a password.
    #[test]
    fn version_2_always_ends_with_eight_octets_of_authentication() {
        let auth = Auth::None;
        let message = advert(Version::V2, &auth).encode(SOURCE, GROUP, ChecksumForm::Pseudo);
        #[rustfmt::skip]
        assert_eq!(message, [
            0x21, 0x33, 0x64, 0x01, 0x00, 0x01, 0xb8, 0xc8, 0xc0, 0x00, 0x02, 0x01,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ]);
        let auth = Auth::Simple(*b"secret\0\0");
        let message = advert(Version::V2, &auth).encode(SOURCE, GROUP, ChecksumForm::Pseudo);
        assert_eq!((message[4], &message[12..]), (1, &b"secret\0\0"[..]));
    }

    /// V-340; the message of vector V3-4-01.
    #[test]
    fn version_3_has_no_authentication() {
        for auth in [Auth::None, Auth::Simple(*b"secret\0\0")] {
            let message = advert(Version::V3, &auth).encode(SOURCE, GROUP, ChecksumForm::Pseudo);
            #[rustfmt::skip]
            assert_eq!(message, [
                0x31, 0x33, 0x64, 0x01, 0x00, 0x64, 0x05, 0xd4, 0xc0, 0x00, 0x02, 0x01,
            ]);
        }
    }

    #[test]
    fn body_of_fewer_octets_than_the_header_is_none() {
        assert!(Body::new(&[0x31; 7], Family::V4).is_none());
        assert!(Body::new(&[0x31; 8], Family::V4).is_some());
    }

    #[test]
    fn body_that_claims_more_than_it_has_yields_what_is_there() {
        let message = [0x21, 51, 100, 9, 0, 1, 0, 0, 192, 0, 2, 1, 192, 0];
        let body = Body::new(&message, Family::V4).unwrap();
        assert!(!body.has_exact_length(Version::V2));
        assert_eq!(body.addresses().collect::<Vec<_>>(), [ADDRESS]);
        assert_eq!(body.auth_data(), None);
    }

    /// V-030, V-031.
    #[test]
    fn capacity_is_what_fits_the_mtu() {
        assert_eq!(capacity(Version::V3, Family::V4, 1500), 255);
        assert_eq!(capacity(Version::V3, Family::V6, 1500), 90);
        assert_eq!(configurable_addresses(Version::V3, Family::V6, 1500), 89);
        assert_eq!(capacity(Version::V3, Family::V4, 28 + 4 * 7), 7);
        assert_eq!(capacity(Version::V2, Family::V4, 36 + 4 * 7), 7);
        assert_eq!(capacity(Version::V2, Family::V4, 36 + 4 * 7 - 1), 6);
        assert_eq!(configurable_addresses(Version::V2, Family::V4, 36 + 4 * 7 + 14), 7);
        assert_eq!(capacity(Version::V3, Family::V6, 48 + 16 * 3), 3);
        assert_eq!(capacity(Version::V3, Family::V6, 0), 0);
    }
}
