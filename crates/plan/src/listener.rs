//! Where the clients of a service come in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use locum_vrrp::Family;

use crate::text::first_few;

/// What packets must have to be for a service, its protocol apart. Whoever can serve some kinds only
/// takes it apart by a pattern, so that a new kind is refused by the compiler wherever it needs an
/// answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Listener {
    /// This address and port; the unspecified address is every address of the host, port 0 every
    /// port.
    Address(SocketAddr),
    /// The same port of addresses in a row.
    Range(AddressRange),
    /// Whatever a packet filter has marked so.
    Fwmark { mark: NonZeroU32, family: Family },
}

/// Addresses in a row, the first and the last among them, with one port; 0 is every port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
    port: u16,
}

impl AddressRange {
    /// A backend makes one table of each address.
    pub const MOST: u128 = 1024;

    /// From `first` to `last`, which is of the same family, not before it, and at most
    /// [`Self::MOST`] − 1 addresses after it; else why not, as a sentence.
    pub fn new(first: IpAddr, last: IpAddr, port: u16) -> Result<Self, String> {
        let range = Self { first, last, port };
        if Family::of(&first) != Family::of(&last) {
            return Err(format!("{first} and {last} are of different families"));
        }
        if last < first {
            return Err(format!("{last} comes before {first}"));
        }
        let count = (number(last) - number(first)).saturating_add(1);
        if count > Self::MOST {
            return Err(format!("from {first} to {last} are more than {} addresses", Self::MOST));
        }
        Ok(range)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The first of them and the last.
    pub const fn ends(&self) -> [IpAddr; 2] {
        [self.first, self.last]
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let is_ipv4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |number| match is_ipv4 {
            // INVARIANT: between two IPv4 addresses are IPv4 addresses.
            true => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).expect("IPv4"))),
            false => IpAddr::V6(Ipv6Addr::from_bits(number)),
        })
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Listener {
    pub fn family(&self) -> Family {
        match self {
            Self::Address(address) => Family::of(&address.ip()),
            Self::Range(range) => Family::of(&range.first),
            Self::Fwmark { family, .. } => *family,
        }
    }

    pub fn is_ipv6(&self) -> bool {
        self.family() == Family::V6
    }

    /// 1..=65535; `None` where it is every port, or whatever the mark is given to.
    pub fn port(&self) -> Option<u16> {
        let port = match self {
            Self::Address(address) => address.port(),
            Self::Range(range) => range.port,
            Self::Fwmark { .. } => 0,
        };
        (port != 0).then_some(port)
    }

    /// The port that all of them have; `None` where they differ, or one has none.
    pub fn common_port(all: &[Self]) -> Option<u16> {
        let first = all.first()?.port();
        first.filter(|_| all.iter().all(|one| one.port() == first))
    }

    /// What is sent to this address and port comes in here. Not asked of what is marked, nor which
    /// addresses the unspecified one stands for.
    pub fn receives(&self, address: SocketAddr) -> bool {
        let has_port = self.port().is_none_or(|port| port == address.port());
        match self {
            Self::Address(own) => own.ip() == address.ip() && has_port,
            Self::Range(range) => {
                let is_within = (range.first..=range.last).contains(&address.ip());
                is_within && range.first.is_ipv4() == address.is_ipv4() && has_port
            }
            Self::Fwmark { .. } => false,
        }
    }

    /// Each address with the port, 0 for every port; none of a mark.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let (one, range) = match self {
            Self::Address(address) => (Some(*address), None),
            Self::Range(range) => (None, Some(*range)),
            Self::Fwmark { .. } => (None, None),
        };
        let with_port = |range: AddressRange| {
            range.addresses().map(move |address| SocketAddr::new(address, range.port))
        };
        one.into_iter().chain(range.into_iter().flat_map(with_port))
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// As operators read it: `192.0.2.10:80`, `192.0.2.10-192.0.2.20:80`,
/// `[2001:db8::1-2001:db8::9]:80`, `fwmark 7 (ipv4)`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Range(AddressRange { first, last, port }) if first.is_ipv4() => {
                write!(f, "{first}-{last}:{port}")
            }
            Self::Range(AddressRange { first, last, port }) => write!(f, "[{first}-{last}]:{port}"),
            Self::Fwmark { mark, family: Family::V4 } => write!(f, "fwmark {mark} (ipv4)"),
            Self::Fwmark { mark, family: Family::V6 } => write!(f, "fwmark {mark} (ipv6)"),
        }
    }
}

/// The first few of them, in a sentence or a column.
pub fn listeners_in_words(all: &[Listener]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    first_few(&all, ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> Result<AddressRange, String> {
        AddressRange::new(first.parse().unwrap(), last.parse().unwrap(), 80)
    }

    #[test]
    fn a_range_is_every_address_from_the_first_to_the_last() {
        let found = Listener::Range(range("192.0.2.254", "192.0.3.1").unwrap());
        let addresses: Vec<String> = found.addresses().map(|one| one.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.254:80", "192.0.2.255:80", "192.0.3.0:80", "192.0.3.1:80"]);
        assert_eq!(found.to_string(), "192.0.2.254-192.0.3.1:80");
        let found = Listener::Range(range("2001:db8::ffff", "2001:db8::1:0").unwrap());
        assert_eq!(found.addresses().count(), 2);
        assert_eq!(found.to_string(), "[2001:db8::ffff-2001:db8::1:0]:80");
    }

    #[test]
    fn a_range_that_is_none_or_too_long_is_refused_with_the_reason() {
        assert!(range("192.0.2.2", "192.0.2.1").unwrap_err().contains("comes before"));
        assert!(range("192.0.2.2", "2001:db8::1").unwrap_err().contains("different families"));
        assert!(range("10.0.0.0", "10.0.3.255").is_ok());
        assert!(range("10.0.0.0", "10.0.4.0").unwrap_err().contains("more than 1024"));
        assert!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").is_err());
    }
}
