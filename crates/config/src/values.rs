//! Spellings both front-ends share: addresses with a prefix, passwords, status codes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use locum_vrrp::{Auth, Family};

use locum_plan::{StatusRange, VirtualAddress};

/// An address, with a port or without; of IPv6 with a port it is in brackets.
pub(crate) fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok((socket.ip(), Some(socket.port())));
    }
    let address = text.parse::<IpAddr>();
    address
        .map(|address| (address, None))
        .map_err(|_| format!("`{text}` is not an IP address, with or without a port"))
}

/// `192.0.2.10/24`, or without a prefix a host route: /32, /128. Errors name what is wrong.
pub(crate) fn virtual_address(text: &str) -> Result<VirtualAddress, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    let longest = match Family::of(&address) {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let prefix = match prefix {
        None => longest,
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|prefix| (1..=longest).contains(prefix))
            .ok_or_else(|| format!("prefix /{digits} is not within /1 to /{longest}"))?,
        Some(other) => return Err(format!("`/{other}` is not a prefix length")),
    };
    if let Some(reason) = unusable(address) {
        return Err(format!("{address} cannot be a virtual address: {reason}"));
    }
    Ok(VirtualAddress::new(address, prefix))
}

fn unusable(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() {
        Some("it is the unspecified address")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else if broadcast {
        Some("it is the broadcast address")
    } else if mapped {
        Some("it is an IPv4-mapped IPv6 address: write the IPv4 address")
    } else if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        Some("it is the loopback address")
    } else {
        None
    }
}

/// Octets of a version 2 password. RFC 2338 §5.3.6.
pub(crate) const MAX_PASSWORD: usize = 8;

/// The password left-aligned and padded with zeros, cut to eight octets (V-021).
pub(crate) fn password(text: &str) -> Auth {
    let mut octets = [0; MAX_PASSWORD];
    for (slot, octet) in octets.iter_mut().zip(text.bytes()) {
        *slot = octet;
    }
    Auth::Simple(octets)
}

/// `200` or `200-299`.
pub(crate) fn status_range(text: &str) -> Result<StatusRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code =
        |digits: &str| digits.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        _ => Err(format!("`{text}` is not a status code or range, as in 200 or \"200-299\"")),
    }
}

/// What a check of ours may ask of an HTTP server without breaking the request.
pub(crate) fn http_path(text: &str) -> Result<String, String> {
    let clean = |c: char| !c.is_whitespace() && !c.is_control();
    if text.starts_with('/') && text.chars().all(clean) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not the path of a URL: it begins with `/` and has no spaces"))
    }
}

/// A value of the Host header.
pub(crate) fn http_host(text: &str) -> Result<String, String> {
    let clean = |c: char| c.is_ascii_graphic() && c != '/';
    if !text.is_empty() && text.chars().all(clean) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a host name"))
    }
}

/// Memory that a compiled regular expression may take.
pub(crate) const REGEX_SIZE: usize = 1 << 20;

/// Twice `N` hexadecimal digits.
pub(crate) fn digest<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let octets = hex::decode(text).ok().and_then(|octets| <[u8; N]>::try_from(octets).ok());
    octets.ok_or_else(|| format!("`{text}` is not {} hexadecimal digits", 2 * N))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_prefix_is_a_host_route() {
        assert_eq!(virtual_address("192.0.2.1").map(|a| a.prefix), Ok(32));
        assert_eq!(virtual_address("2001:db8::1").map(|a| a.prefix), Ok(128));
        assert_eq!(virtual_address("192.0.2.1/24").map(|a| a.prefix), Ok(24));
    }

    #[test]
    fn an_address_that_cannot_move_is_refused() {
        for text in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:192.0.2.1"] {
            assert!(virtual_address(text).is_err(), "{text}");
        }
        for text in ["192.0.2.1/33", "192.0.2.1/0", "192.0.2.1/+8", "192.0.2.1/", "host", ""] {
            assert!(virtual_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_padded_and_cut_to_eight_octets() {
        assert_eq!(password("1056"), Auth::Simple(*b"1056\0\0\0\0"));
        assert_eq!(password("123456789"), Auth::Simple(*b"12345678"));
    }

    #[test]
    fn status_codes_come_alone_or_as_a_range() {
        assert_eq!(status_range("200-299"), Ok(StatusRange { first: 200, last: 299 }));
        assert!(status_range("99").is_err());
        assert!(status_range("300-200").is_err());
    }
}
