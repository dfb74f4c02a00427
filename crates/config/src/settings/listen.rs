//! Where the clients of a service come in: addresses with a port, ranges of them, firewall marks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::toml::de::DeValue;
use locum_plan::{AddressRange, Listener};
use locum_vrrp::Family;

use crate::settings::form::{Form, Schema, toml_only};
use crate::span::At;

/// One of them, or a list.
pub(crate) const LISTENERS: Form<Vec<At<Listener>>> = toml_only(
    "an address and a port, as in \"192.0.2.10:80\", a range of addresses, as in \
     \"192.0.2.10-192.0.2.20:80\", or a list of them",
    Schema::Any(&[Schema::Text, Schema::List(&Schema::Text)]),
    |reader, value, key| match value.get_ref() {
        DeValue::Array(items) if items.is_empty() => {
            reader.bad_value(value, key, "the list is empty");
            None
        }
        DeValue::Array(_) => {
            reader.each(value, key, |reader, item| reader.parsed(item, key, listener))
        }
        _other => {
            let span = reader.span(value.span());
            reader.parsed(value, key, listener).map(|one| vec![At::new(one, span)])
        }
    },
    |_| String::new(),
);

pub(crate) const FAMILY_FORM: Form<Family> =
    Form::Words(&[("ipv4", Family::V4), ("ipv6", Family::V6)]);

/// `192.0.2.10:80`, `192.0.2.10-192.0.2.20:80`, `192.0.2.10-20:80`, `[2001:db8::1]:80`,
/// `[2001:db8::1-2001:db8::9]:80`.
fn listener(text: &str) -> Result<Listener, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listener::Address(address));
    }
    let neither = || format!("`{text}` is not an IP address with a port");
    let (addresses, port) = text.rsplit_once(':').ok_or_else(neither)?;
    let port: u16 = port.parse().map_err(|_| neither())?;
    let inner = addresses.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let (first, last) = inner.unwrap_or(addresses).split_once('-').ok_or_else(neither)?;
    let first: IpAddr = first.parse().map_err(|_| format!("`{first}` is not an IP address"))?;
    if first.is_ipv6() != inner.is_some() {
        return Err(neither());
    }
    Ok(Listener::Range(range(first, last, port)?))
}

/// A range whose end is an address, or as keepalived has it the last number of one: decimal for
/// IPv4, hexadecimal for IPv6.
pub(crate) fn range(first: IpAddr, last: &str, port: u16) -> Result<AddressRange, String> {
    let end = match (last.parse::<IpAddr>(), first) {
        (Ok(last), _) => Some(last),
        (Err(_), IpAddr::V4(first)) => last.parse::<u8>().ok().map(|number| {
            let [a, b, c, _] = first.octets();
            IpAddr::V4(Ipv4Addr::from([a, b, c, number]))
        }),
        (Err(_), IpAddr::V6(first)) => u16::from_str_radix(last, 16).ok().map(|number| {
            let [a, b, c, d, e, f, g, _] = first.segments();
            IpAddr::V6(Ipv6Addr::from([a, b, c, d, e, f, g, number]))
        }),
    };
    let end = end.ok_or_else(|| {
        format!("`{last}` is neither an IP address nor the last number of one after {first}")
    })?;
    AddressRange::new(first, end, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_or_a_range_with_a_port() {
        let spelled = |text| listener(text).map(|one| one.to_string());
        for text in ["192.0.2.10:80", "[2001:db8::10]:80", "192.0.2.10-192.0.2.20:80"] {
            assert_eq!(spelled(text).as_deref(), Ok(text));
        }
        assert_eq!(spelled("192.0.2.10-20:80").as_deref(), Ok("192.0.2.10-192.0.2.20:80"));
        let v6 = spelled("[2001:db8::1-1f]:80");
        assert_eq!(v6.as_deref(), Ok("[2001:db8::1-2001:db8::1f]:80"));
        for text in [
            "192.0.2.10",
            "192.0.2.10:",
            "192.0.2.10:80000",
            "192.0.2.10-:80",
            "192.0.2.10-9:80",
            "192.0.2.10-256:80",
            "[192.0.2.10-20]:80",
            "2001:db8::1-9:80",
            "",
            ":",
            "-",
            "[-]:80",
            "10.0.0.0-10.9.0.0:80",
        ] {
            assert!(listener(text).is_err(), "{text}");
        }
    }
}
