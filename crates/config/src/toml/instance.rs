//! `[[instance]]`: a virtual router with its addresses, trackers and hooks.

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::{
    Auth, ChecksumForm, ChecksumMode, Family, Preempt, Profile, UnicastPeer, Version, Vrid,
};

use ::toml::de::DeValue;

use crate::duration;
use crate::span::At;
use crate::toml::check::{commands, weight};
use crate::toml::keys::{self, Key};
use crate::toml::reader::{Reader, Table, Value};
use crate::values;
use crate::wish::{AnnounceWish, Field, HooksWish, InstanceWish, UnicastWish};
use locum_plan::{Lease, Name, Scope, Track, Tracked, VirtualAddress};

pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    name: At<String>,
) -> InstanceWish {
    let mut wish = InstanceWish::new(table.span, name);
    wish.interface = reader.field(table, "interface", Reader::text);
    wish.vrid = reader
        .field(table, "vrid", |reader, value, key| reader.octet(value, key, 1).and_then(Vrid::new));
    wish.version = reader.optional(table, "version", version);
    wish.profile = reader.optional(table, "profile", |reader, value, key| {
        reader.word(value, key, &[("interop", Profile::Interop), ("strict", Profile::Strict)])
    });
    wish.priority =
        reader.optional(table, "priority", |reader, value, key| reader.octet(value, key, 1));
    wish.interval = reader.optional(table, "advert_interval", Reader::duration);
    wish.preempt = reader.optional(table, "preempt", preempt);
    wish.addresses = reader.field(table, "addresses", addresses);
    let excluded = reader.optional(table, "excluded_addresses", addresses);
    wish.excluded = excluded.map(|at| at.value).unwrap_or_default();
    wish.group = reader.optional(table, "group", ip_address);
    wish.source = reader.optional(table, "source", ip_address);
    wish.checksum = reader.optional(table, "checksum", checksum);
    wish.down_multiplier = reader.optional(table, "down_multiplier", |reader, value, key| {
        let number = reader.integer(value, key, 1..=100)?;
        u8::try_from(number).ok()
    });
    wish.answer_lower = reader.optional(table, "answer_lower", Reader::boolean);
    wish.answer_higher = reader.optional(table, "answer_higher", Reader::boolean);
    wish.owner_ignores_adverts = reader.optional(table, "owner_ignores_adverts", Reader::boolean);
    wish.start_delay = reader.optional(table, "start_delay", Reader::duration);
    wish.lease = reader.optional(table, "vip_lease", lease);
    let profile = wish.profile.as_ref().map_or(Profile::default(), |at| at.value);
    wish.auth = reader
        .optional(table, "auth", |reader, value, key| authentication(reader, value, key, profile));
    wish.announce = reader
        .optional(table, "announce", announce)
        .map_or_else(AnnounceWish::default, |at| at.value);
    wish.unicast = unicast(reader, table, &mut wish);
    wish.track = list(reader.optional(table, "track", |reader, value, key| {
        reader.each(value, key, |reader, item| track(reader, item, key))
    }));
    wish.track.extend(list(reader.optional(table, "track_interfaces", |reader, value, key| {
        reader.each(value, key, |reader, item| track_interface(reader, item, key))
    })));
    wish.hooks = HooksWish {
        any: list(reader.optional(table, "notify", commands)),
        master: list(reader.optional(table, "notify_master", commands)),
        backup: list(reader.optional(table, "notify_backup", commands)),
        fault: list(reader.optional(table, "notify_fault", commands)),
        stop: list(reader.optional(table, "notify_stop", commands)),
    };
    wish
}

fn list<T>(read: Option<At<Vec<At<T>>>>) -> Vec<At<T>> {
    read.map(|at| at.value).unwrap_or_default()
}

pub(super) fn ip_address(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<IpAddr> {
    reader.parsed(value, key, |text| {
        text.parse().map_err(|_| format!("`{text}` is not an IP address"))
    })
}

fn version(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Version> {
    let number = reader.integer(value, key, 2..=3)?;
    Some(if number == 2 { Version::V2 } else { Version::V3 })
}

fn preempt(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Preempt> {
    match value.get_ref() {
        DeValue::Boolean(true) => Some(Preempt::After(Duration::ZERO)),
        DeValue::Boolean(false) => Some(Preempt::Never),
        _other => reader.duration(value, key).map(Preempt::After),
    }
}

fn checksum(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<ChecksumMode> {
    let words = [
        ("auto", ChecksumMode::Auto(ChecksumForm::Pseudo)),
        ("pseudo", ChecksumMode::Pinned(ChecksumForm::Pseudo)),
        ("message", ChecksumMode::Pinned(ChecksumForm::Message)),
    ];
    reader.word(value, key, &words)
}

fn lease(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Lease> {
    reader.parsed(value, key, |text| match text {
        "auto" => Ok(Lease::Auto),
        "off" => Ok(Lease::Off),
        other => {
            let length = duration::parse(other)?;
            let whole = length.subsec_nanos() == 0 && !length.is_zero();
            if whole {
                Ok(Lease::Fixed(length))
            } else {
                Err("the kernel counts address lifetimes in whole seconds, from 1".to_owned())
            }
        }
    })
}

fn addresses(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Vec<At<VirtualAddress>>> {
    reader.each(value, key, |reader, item| address(reader, item, key))
}

/// `"a/p"`, or a table with more to say.
fn address(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<VirtualAddress> {
    if let DeValue::String(_) = value.get_ref() {
        return reader.parsed(value, key, values::virtual_address);
    }
    let shape = "a list of texts as in \"192.0.2.10/24\", or of tables with `address`";
    let table = reader.open_value(value, &keys::ADDRESS, key.name, shape)?;
    let address = reader.field(&table, "address", |reader, value, key| {
        reader.parsed(value, key, values::virtual_address)
    });
    if address.is_absent() {
        reader.report.error(table.span, "missing-key", "an address table has no `address`");
    }
    let device = reader.field(&table, "device", Reader::text);
    let label = reader.field(&table, "label", Reader::text);
    let scope = reader.field(&table, "scope", |reader, value, key| {
        let words = [
            ("global", Scope::Global),
            ("site", Scope::Site),
            ("link", Scope::Link),
            ("host", Scope::Host),
        ];
        reader.word(value, key, &words)
    });
    let broadcast = reader.field(&table, "broadcast", ip_address);
    let dad = reader.field(&table, "dad", Reader::boolean);
    let prefix_route = reader.field(&table, "prefix_route", Reader::boolean);
    let base = address.into_given()?.value;
    Some(VirtualAddress {
        device: device.value().map(|name| Name::from(name.as_str())),
        label: label.value().map(|label| Name::from(label.as_str())),
        scope: scope.value().copied().unwrap_or_default(),
        broadcast: broadcast.value().copied(),
        duplicate_detection: dad.value().copied().unwrap_or(base.duplicate_detection),
        no_prefix_route: prefix_route.value().map_or(base.no_prefix_route, |wanted| !wanted),
        ..base
    })
}

/// V-021: a password that does not fit is an error in the strict profile, else it is cut.
fn authentication(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
    profile: Profile,
) -> Option<Auth> {
    let table = reader.open_value(value, &keys::AUTH, key.name, key.shape)?;
    let simple = reader
        .field(&table, "type", |reader, value, key| reader.word(value, key, &[("simple", ())]));
    let password = reader.field(&table, "password", Reader::text);
    for (field, absent) in [("type", simple.is_absent()), ("password", password.is_absent())] {
        if absent {
            let text = format!("the authentication has no `{field}`");
            reader.report.error(table.span, "missing-key", text);
        }
    }
    simple.given()?;
    let password = password.into_given()?;
    if password.value.is_empty() {
        reader.report.error(password.span, "bad-password", "the password is empty");
        return None;
    }
    if password.value.len() > values::MAX_PASSWORD {
        let text = format!("a password has at most {} octets on the wire", values::MAX_PASSWORD);
        match profile {
            Profile::Strict => {
                reader.report.error(password.span, "password-too-long", text);
            }
            Profile::Interop => {
                reader
                    .report
                    .warning(password.span, "password-too-long", text)
                    .help("the rest is cut off, as keepalived does");
            }
        }
    }
    Some(values::password(&password.value))
}

fn announce(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<AnnounceWish> {
    let table = reader.open_value(value, &keys::ANNOUNCE, key.name, key.shape)?;
    let repeat = |reader: &mut Reader<'_>, value: &Value<'_>, key| reader.octet(value, key, 0);
    Some(AnnounceWish {
        repeat: reader.optional(&table, "repeat", repeat),
        delay: reader.optional(&table, "delay", Reader::duration),
        refresh: reader.optional(&table, "refresh", Reader::duration),
        refresh_repeat: reader.optional(&table, "refresh_repeat", repeat),
        lower_priority_repeat: reader.optional(&table, "lower_priority_repeat", repeat),
        lower_priority_delay: reader.optional(&table, "lower_priority_delay", Reader::duration),
        garp_interval: reader.optional(&table, "garp_interval", Reader::duration),
        gna_interval: reader.optional(&table, "gna_interval", Reader::duration),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Multicast,
    Unicast,
}

/// `transport = "unicast"`, `unicast = {…}`, or both. Without peers they are the other nodes.
fn unicast(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    wish: &mut InstanceWish,
) -> Option<UnicastWish> {
    let transport = reader.optional(table, "transport", |reader, value, key| {
        reader.word(value, key, &[("multicast", Kind::Multicast), ("unicast", Kind::Unicast)])
    });
    let settings = reader.optional(table, "unicast", |reader, value, key| {
        let opened = reader.open_value(value, &keys::UNICAST, key.name, key.shape)?;
        Some(UnicastWish {
            span: opened.span,
            peers: reader.field(&opened, "peers", peers),
            ttl: reader.optional(&opened, "ttl", |reader, value, key| reader.octet(value, key, 1)),
            check_source: reader.optional(&opened, "check_source", Reader::boolean),
        })
    });
    let wants = transport.as_ref().map(|at| at.value);
    let mut unicast = match (wants, settings) {
        (Some(Kind::Multicast), Some(settings)) => {
            let text = "`unicast` goes with `transport = \"unicast\"`";
            reader.report.error(settings.span, "transport-conflict", text);
            return None;
        }
        (Some(Kind::Unicast) | None, Some(settings)) => settings.value,
        (Some(Kind::Unicast), None) => UnicastWish {
            span: transport.as_ref().map_or(table.span, |at| at.span),
            peers: Field::Absent,
            ttl: None,
            check_source: None,
        },
        (Some(Kind::Multicast) | None, None) => return None,
    };
    if let Some(group) = &wish.group {
        reader.report.error(group.span, "transport-conflict", "`group` goes with multicast");
    }
    from_nodes(reader, &mut unicast, wish);
    Some(unicast)
}

/// Peers and source from the addresses of the nodes, where the file does not name them. The list
/// may be the same on all nodes: this node's own address is taken out of it.
fn from_nodes(reader: &Reader<'_>, unicast: &mut UnicastWish, wish: &mut InstanceWish) {
    let Some(own) = reader.node.as_ref() else { return };
    let family = crate::assemble::family(wish);
    let fits = |address: &IpAddr| Family::of(address) == family;
    let own_address = reader
        .nodes
        .iter()
        .find(|node| node.name == *own)
        .and_then(|node| node.address)
        .filter(fits);
    if let Field::Given(peers) = &mut unicast.peers {
        let listed = peers.value.len();
        peers.value.retain(|peer| Some(peer.value.address) != own_address);
        if peers.value.len() == listed {
            return;
        }
    } else if unicast.peers.is_absent() {
        let others = reader.nodes.iter().filter(|node| node.name != *own);
        let peers: Vec<At<UnicastPeer>> = others
            .filter_map(|node| node.address)
            .filter(fits)
            .map(|address| At::new(UnicastPeer { address, ttl: None }, unicast.span))
            .collect();
        if peers.is_empty() {
            return;
        }
        unicast.peers = Field::Given(At::new(peers, unicast.span));
    }
    if wish.source.is_none() {
        wish.source = own_address.map(|address| At::new(address, unicast.span));
    }
}

fn peers(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: &'static Key,
) -> Option<Vec<At<UnicastPeer>>> {
    reader.each(value, key, |reader, item| peer(reader, item, key))
}

fn peer(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<UnicastPeer> {
    if let DeValue::String(_) = value.get_ref() {
        let address = ip_address(reader, value, key)?;
        return Some(UnicastPeer { address, ttl: None });
    }
    let shape = "a list of IP addresses in quotes, or of tables with `address`";
    let table = reader.open_value(value, &keys::PEER, key.name, shape)?;
    let address = reader.field(&table, "address", ip_address);
    if address.is_absent() {
        reader.report.error(table.span, "missing-key", "a peer has no `address`");
    }
    let ttl = |reader: &mut Reader<'_>, value: &Value<'_>, key| reader.octet(value, key, 1);
    let low = reader.optional(&table, "min_ttl", ttl);
    let high = reader.optional(&table, "max_ttl", ttl);
    let range = match (&low, &high) {
        (None, None) => None,
        (low, high) => {
            Some((low.as_ref().map_or(1, |at| at.value), high.as_ref().map_or(255, |at| at.value)))
        }
    };
    if range.is_some_and(|(low, high)| low > high) {
        reader.report.error(table.span, "bad-value", "`min_ttl` is above `max_ttl`");
    }
    Some(UnicastPeer { address: address.into_given()?.value, ttl: range })
}

/// `"name"`, or `{ check = "name", weight = -10 }`.
fn track(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Track> {
    if let DeValue::String(name) = value.get_ref() {
        return Some(Track { object: Tracked::Check(name.as_ref().into()), weight: None });
    }
    let table = reader.open_value(value, &keys::TRACK, key.name, key.shape)?;
    let check = reader.field(&table, "check", Reader::text);
    if check.is_absent() {
        reader.report.error(table.span, "missing-key", "a tracked check has no `check`");
    }
    let weight = reader.field(&table, "weight", weight);
    let check = check.into_given()?.value;
    Some(Track { object: Tracked::Check(check.into()), weight: weight.value().copied() })
}

fn track_interface(reader: &mut Reader<'_>, value: &Value<'_>, key: &'static Key) -> Option<Track> {
    if let DeValue::String(name) = value.get_ref() {
        return Some(Track { object: Tracked::Interface(name.as_ref().into()), weight: None });
    }
    let table = reader.open_value(value, &keys::TRACK_INTERFACE, key.name, key.shape)?;
    let interface = reader.field(&table, "interface", Reader::text);
    if interface.is_absent() {
        reader.report.error(table.span, "missing-key", "a tracked interface has no `interface`");
    }
    let weight = reader.field(&table, "weight", weight);
    let object = Tracked::Interface(interface.into_given()?.value.into());
    Some(Track { object, weight: weight.value().copied() })
}
