//! Who a client is, where connections pass through more than one proxy: the PROXY protocol.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What a service hears ahead of its clients' own words; what it says is its servers' ([`crate::Server`]).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Introduction {
    /// Who comes from there says for whom, and must; whoever else comes speaks for itself.
    pub accepted: Vec<SourceNetwork>,
}

impl Introduction {
    pub fn any(&self) -> bool {
        !self.accepted.is_empty()
    }
}

/// Of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeaderVersion {
    /// A line of text.
    V1,
    /// Octets.
    V2,
}

impl HeaderVersion {
    /// Ahead of a connection that nobody is spoken for on, as one that asks how a server is: `UNKNOWN`, and
    /// the command LOCAL.
    pub const fn of_nobody(self) -> &'static [u8] {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n",
            Self::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        }
    }
}

/// Addresses of one family that are equal in their leading bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceNetwork {
    address: IpAddr,
    prefix: u8,
}

impl SourceNetwork {
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// 0 to 32, or for IPv6 to 128.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }
}

/// `192.0.2.0/24`, `2001:db8::/32`, or an address for itself alone.
impl FromStr for SourceNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        if address != address.to_canonical() {
            return Err(format!("{address} is the IPv4 address {}", address.to_canonical()));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= most)
                .ok_or_else(|| format!("`{digits}` is not a prefix length from 0 to {most}"))?,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for SourceNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_address_with_or_without_the_length_of_its_prefix() {
        let spelled = |text: &str| text.parse::<SourceNetwork>().map(|one| one.to_string());
        assert_eq!(spelled("192.0.2.0/24").as_deref(), Ok("192.0.2.0/24"));
        assert_eq!(spelled("192.0.2.7").as_deref(), Ok("192.0.2.7/32"));
        assert_eq!(spelled("2001:db8::/32").as_deref(), Ok("2001:db8::/32"));
        assert_eq!(spelled("::1").as_deref(), Ok("::1/128"));
        assert_eq!(spelled("0.0.0.0/0").as_deref(), Ok("0.0.0.0/0"));
        for text in [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2/24",
            "::/129",
            "::/-1",
            "::ffff:192.0.2.1",
        ] {
            assert!(spelled(text).is_err(), "{text}");
        }
    }
}
