//! The validation pipeline beyond the spec's vectors.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::checksum::{FIELD, checksum};
use crate::packet::Advert;

const PEER: &str = "192.0.2.2";
const GROUP: &str = "224.0.0.18";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vrid(value: u8) -> Vrid {
    Vrid::new(value).unwrap()
}

fn v2() -> RouterSettings {
    let mut settings = RouterSettings::new(vrid(51), Family::V4, Version::V2);
    settings.addresses = vec![ip("192.0.2.1"), ip("192.0.2.9")];
    settings
}

fn v3() -> RouterSettings {
    RouterSettings { version: Version::V3, ..v2() }
}

fn v6() -> RouterSettings {
    let mut settings = RouterSettings::new(vrid(51), Family::V6, Version::V3);
    settings.addresses = vec![ip("fe80::100"), ip("2001:db8::1")];
    settings
}

fn unicast(check_source: bool, ttl: Option<(u8, u8)>) -> RouterSettings {
    let peers = vec![UnicastPeer { address: ip(PEER), ttl }];
    RouterSettings { transport: Transport::Unicast { peers, ttl: 255, check_source }, ..v3() }
}

/// An advert on its way, by default from a router of these settings to its group.
struct Sent {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: Option<u8>,
    message: Vec<u8>,
}

impl Sent {
    fn by(settings: &RouterSettings) -> Self {
        Self::with_addresses(settings, &settings.addresses)
    }

    fn with_addresses(settings: &RouterSettings, addresses: &[IpAddr]) -> Self {
        let source = match settings.family {
            Family::V4 => ip(PEER),
            Family::V6 => ip("fe80::2"),
        };
        let destination = match &settings.transport {
            Transport::Multicast { group } => *group,
            Transport::Unicast { .. } => ip("192.0.2.3"),
        };
        let advert = Advert {
            version: settings.version,
            vrid: settings.vrid,
            priority: settings.priority,
            interval: settings.interval,
            auth: &settings.auth,
            addresses,
        };
        let message = advert.encode(source, destination, ChecksumForm::Pseudo);
        Self { source, destination, hop_limit: Some(255), message }
    }

    /// Changes octets of the message and makes its checksum right again.
    fn patched(mut self, at: usize, octets: &[u8]) -> Self {
        self.message[at..at + octets.len()].copy_from_slice(octets);
        let version = match self.message[0] >> 4 {
            2 => Version::V2,
            _ => Version::V3,
        };
        let coverage = Coverage::of(version, ChecksumForm::Pseudo, self.source, self.destination);
        let sum = checksum(&self.message, coverage);
        self.message[FIELD].copy_from_slice(&sum.to_be_bytes());
        self
    }

    fn datagram(&self) -> Datagram<'_> {
        Datagram {
            source: self.source,
            destination: self.destination,
            hop_limit: self.hop_limit,
            message: &self.message,
        }
    }

    fn to(&self, settings: &RouterSettings) -> Result<Heard, Discard> {
        validate(settings, None, &self.datagram())
    }
}

/// V-100..V-121: a packet with every fault at once, which are then mended from the first on.
#[test]
fn first_failing_step_decides() {
    let settings = RouterSettings { auth: Auth::Simple(*b"password"), ..v2() };
    let own_source = Some(ip(PEER));
    let mut sent = Sent::by(&settings);
    let sound = sent.message.clone();
    sent.hop_limit = Some(254);
    sent.destination = ip("192.0.2.3");
    // Version 1 of type 2, VRID 52, no address, authentication type 3, interval 0.
    sent.message = vec![0x12, 52, 100, 0, 3, 0, 0xde];
    let judge = |sent: &Sent| validate(&settings, own_source, &sent.datagram()).unwrap_err();

    assert_eq!(judge(&sent), Discard::PacketLengthErrors);
    sent.message.push(0xad);
    sent.destination = ip(GROUP);
    assert_eq!(judge(&sent), Discard::IpTtlErrors);
    sent.hop_limit = Some(255);
    sent.destination = ip("192.0.2.3");
    assert_eq!(judge(&sent), Discard::VersionErrors);
    sent.message[0] = 0x22;
    assert_eq!(judge(&sent), Discard::InvalidTypePktsRcvd);
    sent.message[0] = 0x21;
    assert_eq!(judge(&sent), Discard::PacketLengthErrors);
    sent.message.extend([0; 8]);
    assert_eq!(judge(&sent), Discard::ChecksumErrors);
    sent = sent.patched(0, &[]);
    assert_eq!(judge(&sent), Discard::VridErrors);
    sent = sent.patched(1, &[51]);
    assert_eq!(judge(&sent), Discard::UnexpectedDestination);
    sent.destination = ip(GROUP);
    assert_eq!(judge(&sent), Discard::OwnSourceRcvd);
    sent.source = ip("192.0.2.7");
    assert_eq!(judge(&sent), Discard::InvalidAuthType);
    sent = sent.patched(4, &[2]);
    assert_eq!(judge(&sent), Discard::AuthTypeMismatch);
    sent = sent.patched(4, &[1]);
    assert_eq!(judge(&sent), Discard::AuthFailures);
    sent = sent.patched(8, b"password");
    assert_eq!(judge(&sent), Discard::IntervalErrors);
    sent = sent.patched(5, &[1]);
    let strict = RouterSettings { profile: Profile::Strict, ..settings.clone() };
    let heard = validate(&strict, own_source, &sent.datagram());
    assert_eq!(heard, Err(Discard::AddressListErrors));
    sent.message = sound;
    assert!(validate(&strict, own_source, &sent.datagram()).is_ok());
}

/// V-103.
#[test]
fn unknown_hop_limit_is_a_ttl_error() {
    for settings in [v2(), v3(), v6(), unicast(false, None)] {
        let mut sent = Sent::by(&settings);
        assert!(sent.to(&settings).is_ok());
        sent.hop_limit = None;
        assert_eq!(sent.to(&settings), Err(Discard::IpTtlErrors));
    }
}

/// V-330.
#[test]
fn unicast_ttl_is_checked_only_within_a_configured_range() {
    for (range, ttl, accepted) in [
        (None, 1, true),
        (Some((64, 128)), 63, false),
        (Some((64, 128)), 64, true),
        (Some((64, 128)), 128, true),
        (Some((64, 128)), 129, false),
    ] {
        let settings = unicast(false, range);
        let mut sent = Sent::by(&settings);
        sent.hop_limit = Some(ttl);
        let expected = if accepted { Ok(()) } else { Err(Discard::IpTtlErrors) };
        assert_eq!(sent.to(&settings).map(|_| ()), expected, "{range:?} {ttl}");
    }
}

/// V-102: a multicast packet that reaches a unicast router is judged by its own destination.
#[test]
fn multicast_packet_on_a_unicast_router_needs_ttl_255_and_is_unexpected() {
    let mut sent = Sent::by(&v3());
    assert_eq!(sent.to(&unicast(false, None)), Err(Discard::UnexpectedDestination));
    sent.hop_limit = Some(254);
    assert_eq!(sent.to(&unicast(false, None)), Err(Discard::IpTtlErrors));
}

/// V-110: another group than the configured one is not ours.
#[test]
fn other_group_is_unexpected() {
    let group = ip("224.0.0.200");
    let other = RouterSettings { transport: Transport::Multicast { group }, ..v3() };
    assert_eq!(Sent::by(&v3()).to(&other), Err(Discard::UnexpectedDestination));
    assert!(Sent::by(&other).to(&other).is_ok());
}

/// V-111, V-331; V-330 where a TTL range brings the check.
#[test]
fn unknown_unicast_source_is_refused_when_checking() {
    for (settings, accepted) in [
        (unicast(false, None), true),
        (unicast(true, None), false),
        (unicast(false, Some((255, 255))), false),
    ] {
        let mut sent = Sent::by(&settings);
        assert!(sent.to(&settings).is_ok());
        sent.source = ip("192.0.2.7");
        let expected = if accepted { Ok(()) } else { Err(Discard::UnknownSource) };
        assert_eq!(sent.patched(0, &[]).to(&settings).map(|_| ()), expected);
    }
}

/// V-112.
#[test]
fn own_source_is_refused() {
    let sent = Sent::by(&v3());
    let hear = |own_source| validate(&v3(), own_source, &sent.datagram());
    assert_eq!(hear(Some(ip(PEER))), Err(Discard::OwnSourceRcvd));
    assert!(hear(Some(ip("192.0.2.3"))).is_ok());
    assert!(hear(None).is_ok());
}

/// V-341: type 0 has eight octets that say nothing.
#[test]
fn data_of_authentication_type_0_is_ignored() {
    assert!(Sent::by(&v2()).patched(16, b"whatever").to(&v2()).is_ok());
}

/// V-342: each of the eight octets counts.
#[test]
fn password_is_compared_over_all_octets() {
    let settings = RouterSettings { auth: Auth::Simple(*b"secret\0\0"), ..v2() };
    assert!(Sent::by(&settings).to(&settings).is_ok());
    for at in 16..24 {
        let sent = Sent::by(&settings).patched(at, b"!");
        assert_eq!(sent.to(&settings), Err(Discard::AuthFailures), "octet {at}");
    }
}

/// V-114: the reverse of the vector, a password expected and none sent.
#[test]
fn missing_password_is_a_type_mismatch() {
    let settings = RouterSettings { auth: Auth::Simple(*b"secret\0\0"), ..v2() };
    assert_eq!(Sent::by(&v2()).to(&settings), Err(Discard::AuthTypeMismatch));
}

/// V-116 discards, V-120 does not.
#[test]
fn other_interval_is_refused_in_version_2_and_learned_in_version_3() {
    let slower = Sent::by(&v2()).patched(5, &[2]);
    assert_eq!(slower.to(&v2()), Err(Discard::IntervalErrors));
    let heard = Sent::by(&v3()).patched(4, &[0x00, 0x0a]).to(&v3()).unwrap();
    assert!(heard.interval_differs);
    assert_eq!(heard.interval.centis(), 10);
}

/// V-117: also when only reserved bits are set.
#[test]
fn interval_zero_is_refused_in_both_versions() {
    assert_eq!(Sent::by(&v2()).patched(5, &[0]).to(&v2()), Err(Discard::IntervalErrors));
    for octets in [[0, 0], [0xf0, 0]] {
        let sent = Sent::by(&v3()).patched(4, &octets);
        assert_eq!(sent.to(&v3()), Err(Discard::IntervalErrors));
    }
}

/// V-034, V-118.
#[test]
fn no_address_is_tolerated_in_version_2_interop_alone() {
    for (settings, accepted) in [
        (v2(), true),
        (RouterSettings { profile: Profile::Strict, ..v2() }, false),
        (v3(), false),
        (v6(), false),
    ] {
        let settings = RouterSettings { addresses: Vec::new(), ..settings };
        let expected = if accepted { Ok(()) } else { Err(Discard::AddressListErrors) };
        let heard = Sent::by(&settings).to(&settings).map(|_| ());
        assert_eq!(heard, expected, "{:?} {:?}", settings.version, settings.profile);
    }
}

/// V-121: order does not matter, content does.
#[test]
fn address_list_is_compared_as_a_set_of_equal_count() {
    let (first, second, other) = (ip("192.0.2.1"), ip("192.0.2.9"), ip("192.0.2.10"));
    for (sent, differs) in [
        (vec![first, second], false),
        (vec![second, first], false),
        (vec![first], true),
        (vec![first, other], true),
        (vec![first, first], true),
        (vec![first, second, other], true),
    ] {
        let heard = Sent::with_addresses(&v3(), &sent).to(&v3()).unwrap();
        assert_eq!(heard.addresses_differ, differs, "{sent:?}");
    }
}

/// V-121, RFC 3768 §7.1: an owner is believed.
#[test]
fn strict_version_2_refuses_another_address_list_unless_from_the_owner() {
    let strict = RouterSettings { profile: Profile::Strict, ..v2() };
    let only_first = [ip("192.0.2.1")];
    let sent = Sent::with_addresses(&strict, &only_first);
    assert_eq!(sent.to(&strict), Err(Discard::AddressListErrors));
    let owner = sent.patched(2, &[255]).to(&strict).unwrap();
    assert!(owner.addresses_differ);
    let interop = Sent::with_addresses(&v2(), &only_first).to(&v2()).unwrap();
    assert!(interop.addresses_differ);
}

/// V-028.
#[test]
fn ipv6_list_without_a_link_local_first_is_heard_and_counted() {
    let reversed = RouterSettings { addresses: vec![ip("2001:db8::1"), ip("fe80::100")], ..v6() };
    let heard = Sent::by(&reversed).to(&v6()).unwrap();
    assert!(heard.addresses_differ);
    assert!(!Sent::by(&v6()).to(&v6()).unwrap().addresses_differ);
}

/// V-032: as many as the length supports.
#[test]
fn any_count_from_1_to_255_is_heard() {
    for count in [1, 20, 21, 254, 255_u8] {
        let addresses = (0..count).map(|last| Ipv4Addr::new(198, 51, 100, last).into()).collect();
        let settings = RouterSettings { addresses, ..v3() };
        let heard = Sent::by(&settings).to(&settings).unwrap();
        assert!(!heard.addresses_differ, "{count}");
    }
}

/// V-043: a packet valid in both forms teaches nothing.
#[test]
fn checksum_valid_in_both_forms_has_no_form() {
    let mut sent = Sent::by(&v3());
    // With this source the pseudo header adds up to ffff, which is nothing: destination
    // e000+0012, protocol 0070, length 0010.
    assert_eq!(sent.message.len(), 0x10);
    sent.source = Ipv4Addr::from(0xffff - 0xe000 - 0x0012 - 0x0070 - 0x0010_u32).into();
    sent = sent.patched(0, &[]);
    for checksum in [
        ChecksumMode::Auto(ChecksumForm::Pseudo),
        ChecksumMode::Pinned(ChecksumForm::Message),
        ChecksumMode::Pinned(ChecksumForm::Pseudo),
    ] {
        let settings = RouterSettings { checksum, ..v3() };
        assert_eq!(sent.to(&settings).unwrap().form, None, "{checksum:?}");
    }
}

/// V-104, V-108: an unknown VRID is judged on the wire first.
#[test]
fn unmatched_datagram_is_judged_before_its_vrid() {
    let mut sent = Sent::by(&v3());
    assert_eq!(unmatched(&sent.datagram()), Discard::VridErrors);
    assert_eq!(unmatched(&Sent::by(&v2()).datagram()), Discard::VridErrors);
    assert_eq!(unmatched(&Sent::by(&v6()).datagram()), Discard::VridErrors);
    sent.message[6] ^= 1;
    assert_eq!(unmatched(&sent.datagram()), Discard::ChecksumErrors);
    sent.message[0] = 0x41;
    assert_eq!(unmatched(&sent.datagram()), Discard::VersionErrors);
    sent.hop_limit = Some(1);
    assert_eq!(unmatched(&sent.datagram()), Discard::IpTtlErrors);
    sent.message.truncate(7);
    assert_eq!(unmatched(&sent.datagram()), Discard::PacketLengthErrors);
}

/// V-004: version 2 does not exist over IPv6.
#[test]
fn version_2_over_ipv6_is_a_version_error() {
    let mut sent = Sent::by(&v6());
    sent.message[0] = 0x21;
    assert_eq!(sent.to(&v6()), Err(Discard::VersionErrors));
    assert_eq!(unmatched(&sent.datagram()), Discard::VersionErrors);
}

/// V-108: VRID 0 matches nobody, and a router hears its own VRID and family alone.
#[test]
fn other_vrid_or_family_is_a_vrid_error() {
    let sent = Sent::by(&v3());
    assert_eq!(vrid_of(&sent.datagram()), Some(vrid(51)));
    let other = RouterSettings { vrid: vrid(52), ..v3() };
    assert_eq!(sent.to(&other), Err(Discard::VridErrors));
    let other = RouterSettings { family: Family::V6, ..v3() };
    assert_eq!(sent.to(&other), Err(Discard::VridErrors));
    let nobody = sent.patched(1, &[0]);
    assert_eq!(vrid_of(&nobody.datagram()), None);
    assert_eq!(unmatched(&nobody.datagram()), Discard::VridErrors);
}

/// V-109: a router that does not listen counts malformed packets as such, and may ignore the rest
/// before the steps that look at who speaks.
#[test]
fn verify_ends_before_the_state_matters() {
    let settings = unicast(true, None);
    let mut sent = Sent::by(&settings);
    sent.source = ip("192.0.2.7");
    let sent = sent.patched(0, &[]);
    let datagram = sent.datagram();
    let verified = verify(&settings, &datagram).unwrap();
    let admitted = verified.admit(&settings, None);
    assert_eq!(admitted, Err(Discard::UnknownSource));
}
