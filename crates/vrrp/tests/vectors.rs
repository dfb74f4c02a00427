//! Every vector of the specification, through writing and through reading (V-123).

#[path = "vectors/corpus.rs"]
mod corpus;
#[path = "vectors/mutations.rs"]
mod mutations;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use corpus::{Vector, address, hex, number, receive, rows, text, vectors};
use locum_vrrp::checksum::{Coverage, checksum, is_valid};
use locum_vrrp::frame::{ArpForm, Speaker, gratuitous_arp, neighbor_advertisement};
use locum_vrrp::packet::{Body, encode_advert};
use locum_vrrp::receive::validate;
use locum_vrrp::timers::{down_interval, skew};
use locum_vrrp::{
    Auth, ChecksumForm, ChecksumMode, Counters, Datagram, Discard, Family, Interval, Priority,
    RouterSettings, Transport, Version, Vrid,
};

const POSITIVE: [&str; 3] = [corpus::V2, corpus::V3_IPV4, corpus::V3_IPV6];

/// Vectors no sender of ours makes: reserved bits set, keepalived's old unicast checksum.
const NEVER_SENT: [&str; 3] = ["V3-4-07", "V3-4-08", "V3-6-05"];

fn positive() -> impl Iterator<Item = Vector> {
    POSITIVE.into_iter().flat_map(vectors)
}

fn vector(id: &str) -> Vector {
    positive().find(|vector| vector.id == id).unwrap()
}

/// V-020, V-021, V-040, V-045, V-056: what we send is the vector, octet by octet.
#[test]
fn encoding_the_fields_gives_the_vector() {
    let mut compared = 0;
    for vector in positive() {
        let Some(fields) = vector.fields() else { continue };
        if NEVER_SENT.contains(&vector.id.as_str()) {
            continue;
        }
        let form = fields.form.unwrap_or(ChecksumForm::Pseudo);
        let (source, destination) = (fields.source, fields.destination);
        let message = fields.advert().encode(source, destination, form);
        assert_eq!(message, vector.message(), "{}", vector.id);
        let message = encode_advert(&fields.settings(), fields.priority, source, destination, form);
        assert_eq!(message, vector.message(), "{} from settings", vector.id);
        compared += 1;
    }
    // 20 vectors give the fields of a message, three of which are never sent.
    assert_eq!(compared, 17);
}

/// V-040: where version and family leave no choice, the form changes nothing.
#[test]
fn form_matters_in_version_3_over_ipv4_alone() {
    for vector in positive() {
        let Some(fields) = vector.fields() else { continue };
        let encode = |form| fields.advert().encode(fields.source, fields.destination, form);
        let same = encode(ChecksumForm::Message) == encode(ChecksumForm::Pseudo);
        let choice = fields.version == Version::V3 && fields.source.is_ipv4();
        assert_eq!(same, !choice, "{}", vector.id);
    }
}

/// V-025: reserved bits are sent as zero.
#[test]
fn reserved_bits_are_sent_as_zero() {
    for id in ["V3-4-08", "V3-6-05"] {
        let vector = vector(id);
        let fields = vector.fields().unwrap();
        let message =
            fields.advert().encode(fields.source, fields.destination, ChecksumForm::Pseudo);
        assert_eq!(message[4], vector.message()[4] & 0x0f, "{id}");
        assert_eq!(message[5], vector.message()[5], "{id}");
    }
}

/// V-025, V-026, V-070: every field is read back, whatever stands before the message.
#[test]
fn reading_the_vector_gives_the_fields() {
    for vector in positive() {
        let Some(fields) = vector.fields() else { continue };
        let datagram = vector.strip().unwrap();
        assert_eq!(datagram.source, fields.source, "{}", vector.id);
        assert_eq!(datagram.destination, fields.destination, "{}", vector.id);
        assert_eq!(datagram.hop_limit, Some(fields.hop_limit), "{}", vector.id);
        assert_eq!(datagram.message, vector.message(), "{}", vector.id);
        let body = Body::new(datagram.message, Family::of(&fields.source)).unwrap();
        assert_eq!(body.version(), Some(fields.version), "{}", vector.id);
        assert_eq!(body.packet_type(), 1, "{}", vector.id);
        assert_eq!(body.vrid(), Some(fields.vrid), "{}", vector.id);
        assert_eq!(body.priority(), fields.priority, "{}", vector.id);
        assert_eq!(body.count(), fields.addresses.len(), "{}", vector.id);
        assert_eq!(body.centis(fields.version), fields.interval.centis(), "{}", vector.id);
        assert!(body.addresses().eq(fields.addresses.iter().copied()), "{}", vector.id);
        if fields.version == Version::V2 {
            let auth = hex(text(&vector.json["fields"]["auth_data_hex"]));
            assert_eq!(body.auth_data().unwrap()[..], auth, "{}", vector.id);
        }
    }
}

/// V-041, V-042, V-122, V-330: a router that shares the settings hears the advert.
#[test]
fn router_of_the_same_settings_hears_the_vector() {
    for vector in positive() {
        let Some(fields) = vector.fields() else { continue };
        let heard = receive(&fields.settings(), None, &vector.strip().unwrap());
        if vector.id == "V3-4-07" {
            // V-046: the old unicast form is not accepted by itself.
            assert_eq!(heard, Err(Discard::ChecksumErrors), "{}", vector.id);
            continue;
        }
        let heard = heard.unwrap_or_else(|reason| panic!("{}: {reason:?}", vector.id));
        assert_eq!(heard.source, fields.source, "{}", vector.id);
        assert_eq!(heard.priority, fields.priority, "{}", vector.id);
        assert_eq!(heard.interval, fields.interval, "{}", vector.id);
        assert_eq!(heard.form, fields.form, "{}", vector.id);
        assert!(!heard.interval_differs && !heard.addresses_differ, "{}", vector.id);
    }
}

/// V-041: a pinned form makes the other one a checksum error.
#[test]
fn pinned_form_refuses_the_other() {
    for vector in vectors(corpus::V3_IPV4) {
        let Some(fields) = vector.fields() else { continue };
        for pinned in [ChecksumForm::Message, ChecksumForm::Pseudo] {
            let mut settings = fields.settings();
            settings.checksum = ChecksumMode::Pinned(pinned);
            let heard = receive(&settings, None, &vector.strip().unwrap());
            let accepted = fields.form == Some(pinned);
            assert_eq!(heard.is_ok(), accepted, "{} {pinned:?}", vector.id);
            assert!(accepted || heard == Err(Discard::ChecksumErrors), "{}", vector.id);
        }
    }
}

/// V-110: what the vectors call "only on an instance configured for unicast".
#[test]
fn unicast_vector_is_unexpected_on_a_multicast_router() {
    for id in ["V2-06", "V3-4-06", "V3-6-04"] {
        let vector = vector(id);
        let fields = vector.fields().unwrap();
        let mut settings = fields.settings();
        let family = settings.family;
        let group = locum_vrrp::settings::multicast_group(family);
        settings.transport = Transport::Multicast { group };
        let heard = receive(&settings, None, &vector.strip().unwrap());
        assert_eq!(heard, Err(Discard::UnexpectedDestination), "{id}");
    }
}

/// V-040, V-046: the sum over keepalived's old pseudo header.
#[test]
fn legacy_unicast_checksum_covers_the_group() {
    let vector = vector("V3-4-07");
    let coverage = Coverage::legacy_unicast(Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(checksum(vector.message(), coverage), 0x062e);
    assert!(is_valid(vector.message(), coverage));
}

/// V-070: the message begins where the header length says.
#[test]
fn ipv4_options_are_not_part_of_the_message() {
    let plain = vector("V3-4-01");
    let optioned = vector("V3-4-10");
    let datagram = optioned.strip().unwrap();
    assert_eq!(datagram.message, plain.message());
    let settings = plain.fields().unwrap().settings();
    let heard = receive(&settings, None, &datagram);
    assert_eq!(heard, receive(&settings, None, &plain.strip().unwrap()));
    assert!(heard.is_ok());
}

/// V-100, V-114: an authentication header is another protocol, and its message another type.
#[test]
fn authentication_header_is_refused_while_it_cannot_be_configured() {
    for id in ["V2-07", "V2-08"] {
        let vector = vector(id);
        assert_eq!(vector.strip().err(), Some(Discard::PacketLengthErrors), "{id}");
        let datagram = Datagram {
            source: IpAddr::from([192, 0, 2, 2]),
            destination: IpAddr::from([224, 0, 0, 18]),
            hop_limit: Some(255),
            message: vector.message(),
        };
        let body = Body::new(vector.message(), Family::V4).unwrap();
        assert_eq!((body.auth_type(), body.auth_data()), (2, Some(&[0; 8])), "{id}");
        let settings = context(Version::V2, Family::V4);
        let heard = validate(&settings, None, &datagram);
        assert_eq!(heard, Err(Discard::AuthTypeMismatch), "{id}");
    }
}

/// Receiver of the negative vectors, SPEC.md §16.
fn context(version: Version, family: Family) -> RouterSettings {
    let mut settings = RouterSettings::new(Vrid::new(51).unwrap(), family, version);
    settings.addresses = vec![match family {
        Family::V4 => "192.0.2.1".parse().unwrap(),
        Family::V6 => "fe80::100".parse().unwrap(),
    }];
    settings
}

fn own_source(family: Family) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => "192.0.2.3".parse().unwrap(),
        Family::V6 => "fe80::3".parse().unwrap(),
    })
}

/// The versions a receiver of this negative vector may have: the packet's own where it has one.
fn receiver_versions(vector: &Vector) -> Vec<Version> {
    let offset = if text(&vector.json["layer"]) == "ipv4" { 20 } else { 40 };
    match vector.bytes[offset] >> 4 {
        2 => vec![Version::V2],
        3 => vec![Version::V3],
        _ => vec![Version::V2, Version::V3],
    }
}

/// V-100..V-121, V-123, V-125: each negative vector counts what it says, once, and nothing else.
#[test]
fn negative_vector_is_discarded_for_its_reason() {
    let negative = vectors(corpus::NEGATIVE);
    assert_eq!(negative.len(), 19);
    for vector in negative {
        assert_eq!(text(&vector.json["expect"]), "discard", "{}", vector.id);
        let layer = text(&vector.json["layer"]);
        let family = if layer == "ipv4" { Family::V4 } else { Family::V6 };
        for version in receiver_versions(&vector) {
            let mut settings = context(version, family);
            if vector.id == "NEG-15" {
                settings.auth = Auth::Simple(*b"secret\0\0");
            }
            let mut counters = Counters::default();
            let heard = vector
                .strip()
                .and_then(|datagram| receive(&settings, own_source(family), &datagram));
            counters.record(heard.expect_err(&vector.id));
            let counted: Vec<_> = counters.iter().filter(|(_, value)| *value > 0).collect();
            let expected = text(&vector.json["counter"]);
            assert_eq!(counted, [(expected, 1)], "{} {version:?}", vector.id);
        }
    }
}

/// The receiver of the negative vectors is not deaf: it hears the sound ones they were made from.
#[test]
fn receiver_of_the_negative_vectors_hears_their_sound_twins() {
    for id in ["V2-01", "V3-4-01", "V3-4-02", "V3-6-01"] {
        let vector = vector(id);
        let fields = vector.fields().unwrap();
        let family = Family::of(&fields.source);
        let settings = context(fields.version, family);
        let heard = receive(&settings, own_source(family), &vector.strip().unwrap());
        assert_eq!(heard.map(|heard| heard.priority), Ok(Priority(100)), "{id}");
    }
}

fn mac(value: &serde_json::Value) -> [u8; 6] {
    hex(&text(value).replace(':', "")).as_slice().try_into().unwrap()
}

/// G-001..G-004.
#[test]
fn gratuitous_arp_frames_are_the_vectors() {
    let mut compared = 0;
    for vector in vectors(corpus::ARP_ND).iter().filter(|vector| vector.id.starts_with("ARP")) {
        let fields = &vector.json["fields"];
        let (sender, target) = (mac(&fields["sha"]), mac(&fields["tha"]));
        let form = match (number::<u8>(&fields["op"]), target) {
            (2, _) => ArpForm::Reply,
            (_, [0xff, ..]) => ArpForm::RequestBroadcast,
            (_, [0, 0, 0, 0, 0, 0]) => ArpForm::RequestZero,
            (_, _) => ArpForm::RequestSelf,
        };
        let IpAddr::V4(virtual_address) = address(&fields["spa"]) else { panic!("{}", vector.id) };
        assert_eq!(gratuitous_arp(sender, virtual_address, form), vector.bytes, "{}", vector.id);
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// G-006..G-008.
#[test]
fn neighbor_advertisement_frames_are_the_vectors() {
    let mut compared = 0;
    for vector in vectors(corpus::ARP_ND).iter().filter(|vector| vector.id.starts_with("NA")) {
        let fields = &vector.json["fields"];
        let speaker = match number::<u8>(&fields["R"]) {
            1 => Speaker::Router,
            _ => Speaker::Host,
        };
        let IpAddr::V6(target) = address(&fields["target"]) else { panic!("{}", vector.id) };
        let frame = neighbor_advertisement(mac(&fields["tlla"]), target, speaker);
        assert_eq!(frame, vector.bytes, "{}", vector.id);
        compared += 1;
    }
    assert_eq!(compared, 3);
}

/// V-140, V-141, V-149: exact, fractions of a microsecond included.
#[test]
fn timers_are_the_vectors() {
    let rows = rows(corpus::TIMERS);
    assert_eq!(rows.len(), 14);
    // All rows are multiples of 1/4 µs, which a double holds without loss.
    let exact = |value: &serde_json::Value| {
        let nanos = value.as_f64().unwrap() * 1000.0;
        assert_eq!(nanos.fract(), 0.0, "{value}");
        Duration::from_nanos(nanos as u64)
    };
    for row in rows {
        let (version, scale) = match number::<u8>(&row["version"]) {
            2 => (Version::V2, 100),
            _ => (Version::V3, 1),
        };
        let centis = number::<u16>(&row["active_adver_interval"]) * scale;
        let interval = Interval::new(version, centis).unwrap();
        let priority = Priority(number(&row["priority"]));
        assert_eq!(skew(version, priority, interval), exact(&row["skew_us"]), "{row}");
        let down = down_interval(version, priority, interval, 3);
        assert_eq!(down, exact(&row["down_interval_us"]), "{row}");
    }
}
