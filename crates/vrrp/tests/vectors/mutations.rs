//! Every vector cut short and with every octet changed to every value: nothing panics, and nothing
//! is heard whose checksum is wrong.

use std::net::IpAddr;

use locum_vrrp::datagram::{strip_ipv4, strip_ipv6};
use locum_vrrp::{Auth, Datagram, Discard, Family, RouterSettings, Version, Vrid};

use crate::corpus::{self, Vector, receive, strip, text, vectors};

fn every_vector() -> impl Iterator<Item = Vector> {
    [corpus::V2, corpus::V3_IPV4, corpus::V3_IPV6, corpus::NEGATIVE].into_iter().flat_map(vectors)
}

/// Routers a vector may meet: its own, and those of the negative vectors in both versions.
fn receivers(vector: &Vector) -> Vec<RouterSettings> {
    let vrid = Vrid::new(51).unwrap();
    let mut receivers = vec![
        RouterSettings::new(vrid, Family::V4, Version::V2),
        RouterSettings::new(vrid, Family::V4, Version::V3),
        RouterSettings::new(vrid, Family::V6, Version::V3),
    ];
    let mut with_password = receivers[0].clone();
    with_password.auth = Auth::Simple(*b"secret\0\0");
    receivers.push(with_password);
    receivers.extend(vector.fields().map(|fields| fields.settings()));
    receivers
}

/// The checksum once more, the slow way: all covered octets in one buffer (RFC 1071).
fn checksum_holds(datagram: &Datagram<'_>) -> bool {
    let length = u16::try_from(datagram.message.len()).unwrap().to_be_bytes();
    let mut pseudo = Vec::new();
    match (datagram.source, datagram.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            pseudo.extend(source.octets());
            pseudo.extend(destination.octets());
            pseudo.extend([0, 112, length[0], length[1]]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            pseudo.extend(source.octets());
            pseudo.extend(destination.octets());
            pseudo.extend([0, 0, length[0], length[1], 0, 0, 0, 112]);
        }
        _ => return false,
    }
    let holds = |octets: &[u8]| {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    };
    let with_pseudo = holds(&[&pseudo, datagram.message].concat());
    match (datagram.message[0] >> 4, datagram.source) {
        (2, _) => holds(datagram.message),
        (_, IpAddr::V4(_)) => holds(datagram.message) || with_pseudo,
        (_, IpAddr::V6(_)) => with_pseudo,
    }
}

/// V-100, V-101, V-106: of a cut datagram nothing is heard, wherever it was cut.
#[test]
fn truncated_vector_is_never_heard() {
    for vector in every_vector() {
        let layer = text(&vector.json["layer"]);
        for length in 0..vector.bytes.len() {
            let cut = strip(layer, &vector.bytes[..length]);
            assert_eq!(cut.err(), Some(Discard::PacketLengthErrors), "{} {length}", vector.id);
        }
        let Ok(datagram) = vector.strip() else { continue };
        for length in 0..datagram.message.len() {
            let cut = Datagram { message: &datagram.message[..length], ..datagram };
            for settings in receivers(&vector) {
                let heard = receive(&settings, None, &cut);
                // Without its garbage, NEG-18 is a sound advert.
                let sound = vector.id == "NEG-18" && length == 12 && checksum_holds(&cut);
                assert!(heard.is_err() || sound, "{} cut to {length}", vector.id);
            }
        }
    }
}

/// V-107, V-127: whatever octet is changed, an advert with a wrong checksum is not heard.
#[test]
fn changed_octet_is_heard_only_with_a_right_checksum() {
    let (mut heard_count, mut discard_count) = (0, 0);
    for vector in every_vector() {
        let layer = text(&vector.json["layer"]);
        let receivers = receivers(&vector);
        let mut bytes = vector.bytes.clone();
        for at in 0..bytes.len() {
            let original = bytes[at];
            for value in 0..=u8::MAX {
                bytes[at] = value;
                let Ok(datagram) = strip(layer, &bytes) else { continue };
                for settings in &receivers {
                    match receive(settings, None, &datagram) {
                        Ok(_) => {
                            assert!(checksum_holds(&datagram), "{} {at} {value:#x}", vector.id);
                            heard_count += 1;
                        }
                        Err(_) => discard_count += 1,
                    }
                }
            }
            bytes[at] = original;
        }
    }
    // Octets of the IP header that nothing covers may change; most of the others may not.
    assert!(heard_count > 10_000 && discard_count > heard_count, "{heard_count} {discard_count}");
}

/// A change of one octet of the message changes its sum, so no such change is ever heard.
#[test]
fn changed_octet_of_the_message_is_never_heard() {
    for vector in every_vector() {
        let (Some(fields), Ok(datagram)) = (vector.fields(), vector.strip()) else { continue };
        let settings = fields.settings();
        let mut message = datagram.message.to_vec();
        for at in 0..message.len() {
            let original = message[at];
            for value in (0..=u8::MAX).filter(|value| *value != original) {
                message[at] = value;
                let changed = Datagram { message: &message, ..datagram };
                let heard = receive(&settings, None, &changed);
                assert!(heard.is_err(), "{} octet {at} {value:#x}", vector.id);
            }
            message[at] = original;
        }
    }
}

/// V-100: headers that claim any length, on datagrams of any length.
#[test]
fn claimed_lengths_never_reach_beyond_what_was_received() {
    for received in 0..=64_usize {
        for octet in 0..=u8::MAX {
            let ipv4 = [&[octet, 0, 0, octet, 0, 0, 0, 0, 255, 112][..], &[0x31; 54]].concat();
            if let Ok(datagram) = strip_ipv4(&ipv4[..received]) {
                assert!(datagram.message.len() + 20 <= received);
            }
            let ipv6 = [&[0x60, 0, 0, 0, 0, octet, 112, 255][..], &[0x31; 56]].concat();
            if let Ok(datagram) = strip_ipv6(&ipv6[..received]) {
                assert!(datagram.message.len() + 40 <= received);
            }
        }
    }
}
