//! One datagram for one router: what depends on the state of the router (V-109, V-119, V-127).

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::checksum::{Coverage, FIELD, checksum};
use locum_vrrp::packet::encode_advert;
use locum_vrrp::{
    Accepted, ChecksumForm, Datagram, Discard, Priority, Role, RouterAction, RouterEvent,
    RouterSettings, Version,
};

use crate::bench::{Bench, HIGH, LOW, OWN, settings};

const GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18));

/// The message of a peer with the settings of version 3 and this priority.
fn message(source: IpAddr, priority: u8, form: ChecksumForm) -> Vec<u8> {
    encode_advert(&settings(Version::V3, 100), Priority(priority), source, GROUP, form)
}

fn receive(
    bench: &mut Bench,
    source: IpAddr,
    message: &[u8],
) -> (Result<Accepted, Discard>, Vec<RouterAction>) {
    let datagram = Datagram { source, destination: GROUP, hop_limit: Some(255), message };
    let mut out = Vec::new();
    let accepted = bench.router.receive(bench.now, &datagram, &mut out);
    (accepted, out)
}

fn hear(bench: &mut Bench, source: IpAddr, priority: u8) -> Accepted {
    let message = message(source, priority, ChecksumForm::Pseudo);
    receive(bench, source, &message).0.expect("a sound advert")
}

fn master(priority: u8) -> Bench {
    let mut bench = Bench::new(settings(Version::V3, priority));
    bench.feed(RouterEvent::Adopt);
    bench
}

/// V-223 from the octets on.
#[test]
fn better_advert_makes_a_master_step_down() {
    let mut bench = master(100);
    let heard = message(HIGH, 150, ChecksumForm::Pseudo);
    let (accepted, out) = receive(&mut bench, HIGH, &heard);
    assert_eq!(accepted.expect("sound").heard.priority, Priority(150));
    assert_eq!(bench.router.role(), Role::Resigning);
    assert!(out.iter().any(|action| matches!(action, RouterAction::Changed { .. })), "{out:?}");
}

/// V-127: nothing of a router changes by what it discards.
#[test]
fn discarded_datagram_changes_nothing() {
    let sound = message(HIGH, 150, ChecksumForm::Pseudo);
    for (octet, reason) in [
        (0, Discard::VersionErrors),
        (1, Discard::ChecksumErrors),
        (3, Discard::PacketLengthErrors),
        (FIELD.start, Discard::ChecksumErrors),
    ] {
        let mut bench = master(100);
        // Late enough that an accepted advert would find the mastership lost (V-241).
        bench.now += Duration::from_secs(60);
        let before = format!("{:?}", bench.router);
        let mut changed = sound.clone();
        changed[octet] ^= 0x40;
        let (accepted, out) = receive(&mut bench, HIGH, &changed);
        assert_eq!((accepted, out), (Err(reason), vec![]));
        assert_eq!(format!("{:?}", bench.router), before, "octet {octet}");
    }
}

/// V-109: who does not listen counts malformed datagrams as such, and ignores the rest before the
/// steps that look at who speaks.
#[test]
fn router_that_takes_no_part_ignores_what_is_well_formed() {
    let (own, cut) = (message(OWN, 150, ChecksumForm::Pseudo), [0x31; 7]);
    let initialize = Bench::new(settings(Version::V3, 100));
    let mut fault = Bench::new(settings(Version::V3, 100));
    fault.feed(RouterEvent::Fault { reasons: "link".into(), can_send: false });
    for mut bench in [initialize, fault] {
        let ignored = receive(&mut bench, OWN, &own).0;
        assert_eq!(ignored, Err(Discard::AdvertsIgnored), "not its own source, V-112");
        assert_eq!(receive(&mut bench, HIGH, &cut).0, Err(Discard::PacketLengthErrors));
        bench.feed(RouterEvent::Eligible);
        assert_eq!(receive(&mut bench, OWN, &own).0, Err(Discard::OwnSourceRcvd));
    }
}

/// V-108.
#[test]
fn advert_for_another_router_is_a_vrid_error() {
    let mut other = message(HIGH, 150, ChecksumForm::Pseudo);
    other[1] = 52;
    let coverage = Coverage::of(Version::V3, ChecksumForm::Pseudo, HIGH, GROUP);
    let sum = checksum(&other, coverage).to_be_bytes();
    other[FIELD].copy_from_slice(&sum);
    assert_eq!(receive(&mut master(100), HIGH, &other).0, Err(Discard::VridErrors));
}

/// V-119: an owner counts what it hears, whatever becomes of it.
#[test]
fn owner_says_that_it_heard_another_router() {
    for owner_ignores_adverts in [false, true] {
        let settings = RouterSettings { owner_ignores_adverts, ..settings(Version::V3, 255) };
        let mut bench = Bench::eligible(settings);
        assert!(hear(&mut bench, HIGH, 255).is_owner_conflict);
        assert!(!hear(&mut bench, HIGH, 255).is_tie, "owners are no equals, they are a fault");
    }
    assert!(!hear(&mut master(100), HIGH, 50).is_owner_conflict);
}

/// V-163: between equals the address decides, and an operator should know.
#[test]
fn equal_priority_is_a_tie() {
    for (priority, is_tie) in [(99, false), (100, true), (101, false)] {
        assert_eq!(hear(&mut master(100), LOW, priority).is_tie, is_tie, "{priority}");
    }
}

/// V-042: said of the form as it was when the advert came, which may be followed at once (V-043).
#[test]
fn other_checksum_form_is_said() {
    let mut bench = master(100);
    let heard = message(LOW, 50, ChecksumForm::Message);
    let first = receive(&mut bench, LOW, &heard).0.expect("both forms are right (V-041)");
    assert_eq!(first.other_form, Some(ChecksumForm::Message));
    assert_eq!(bench.router.form(), ChecksumForm::Message);
    let second = receive(&mut bench, LOW, &heard).0.expect("as before");
    assert_eq!(second.other_form, None);
}

/// V-124: what is reported once of a master is reported again of the next one.
#[test]
fn another_master_is_a_new_one() {
    let mut bench = Bench::eligible(settings(Version::V3, 100));
    assert!(hear(&mut bench, HIGH, 150).is_new_master, "there was none");
    assert!(!hear(&mut bench, HIGH, 150).is_new_master);
    assert!(hear(&mut bench, LOW, 150).is_new_master);
    assert!(!hear(&mut bench, HIGH, 50).is_new_master, "V-214: it is not accepted as master");
}
