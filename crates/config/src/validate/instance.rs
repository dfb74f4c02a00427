//! Rules of one virtual router, and between routers of one node.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_vrrp::{Family, Preempt, Profile, Transport, Version};

use crate::dialect::Dialect;
use crate::need::NeedKind;
use crate::parsed::{Parsed, ParsedInstance};
use crate::span::{At, Report, Span};
use crate::validate::common::{command_needs, strict_in_toml};
use locum_plan::{Instance, Plan, Scope, Tracked, VirtualAddress};

pub(super) fn validate(
    parsed: &ParsedInstance,
    built: &Instance,
    dialect: Dialect,
    report: &mut Report,
) {
    needs(parsed, report);
    version(parsed, built, report);
    advertised(parsed, built, dialect, report);
    virtual_addresses(parsed, built, dialect, report);
    transport(parsed, built, dialect, report);
    election(parsed, built, report);
}

fn needs(parsed: &ParsedInstance, report: &mut Report) {
    if let Some(interface) = parsed.interface.given() {
        interface_name(interface, report);
        report.need(interface.span, NeedKind::Interface(interface.value.clone()));
    }
    for tracked in parsed.track.list() {
        let Tracked::Interface(interface) = &tracked.value.object else { continue };
        let name = At::new(interface.to_string(), tracked.span);
        interface_name(&name, report);
        report.need(tracked.span, NeedKind::Interface(name.value));
    }
    for hook in parsed.hooks.all() {
        command_needs(&hook.value, hook.span, report);
    }
    if let Some(source) = parsed.source.given() {
        report.need(source.span, NeedKind::Address(source.value));
    }
}

/// Octets of an interface name: IFNAMSIZ less its final zero.
const MAX_INTERFACE: usize = 15;

fn interface_name(name: &At<String>, report: &mut Report) {
    let text = &name.value;
    let fits = !text.is_empty() && text.len() <= MAX_INTERFACE && text != "." && text != "..";
    if !fits || text.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control()) {
        let message = format!("`{text}` cannot be the name of an interface");
        report
            .error(name.span, "bad-interface", message)
            .help(format!("1 to {MAX_INTERFACE} characters without `/` and white space"));
    }
}

/// V-004: version 2 has no IPv6.
fn version(parsed: &ParsedInstance, built: &Instance, report: &mut Report) {
    if built.router.version == Version::V2 && built.router.family == Family::V6 {
        let span = parsed.version.given().map_or(parsed.span, |at| at.span);
        report
            .error(span, "version-family", "VRRP version 2 carries no IPv6 addresses")
            .help("use version 3 for this instance");
    }
}

/// Addresses of an advertisement that keepalived accepts too, at an MTU of 1500 (V-031).
pub(crate) const fn capacity(version: Version, family: Family) -> usize {
    match (family, version) {
        (Family::V4, Version::V2 | Version::V3) => 255,
        (Family::V6, Version::V2 | Version::V3) => 89,
    }
}

/// Addresses that every known implementation accepts; holo and the YANG model stop here (V-032).
const fn portable(family: Family) -> usize {
    match family {
        Family::V4 => 16,
        Family::V6 => 2,
    }
}

fn advertised(parsed: &ParsedInstance, built: &Instance, dialect: Dialect, report: &mut Report) {
    let router = &built.router;
    let Some(list) = parsed.addresses.given() else {
        if parsed.addresses.is_absent() {
            no_addresses(parsed, parsed.span, router.version, router.profile, report);
        }
        return;
    };
    if list.value.is_empty() {
        return no_addresses(parsed, list.span, router.version, router.profile, report);
    }
    for at in &list.value {
        if Family::of(&at.value.address) != router.family {
            report
                .error(at.span, "mixed-families", "an instance advertises addresses of one family")
                .help(match dialect {
                    Dialect::Toml => {
                        "move it to `excluded_addresses`, or to an instance of its own"
                    }
                    Dialect::Keepalived => {
                        "move it to `virtual_ipaddress_excluded`, or to an instance of its own"
                    }
                });
        }
    }
    let rest = match dialect {
        Dialect::Toml => {
            "list the rest in `excluded_addresses`: they are installed and announced, not \
             advertised"
        }
        Dialect::Keepalived => {
            "list the rest in `virtual_ipaddress_excluded`: they are installed and announced, not \
             advertised"
        }
    };
    let count = list.value.len();
    let limit = capacity(router.version, router.family);
    if count > limit {
        let text =
            format!("{count} addresses do not fit into one advertisement: at most {limit} do");
        let span = list.value.get(limit).map_or(list.span, |at| at.span);
        report.error(span, "too-many-addresses", text).help(rest);
    } else if count > portable(router.family) {
        let text = format!(
            "{count} advertised addresses: some implementations refuse more than {}",
            portable(router.family)
        );
        let span = list.value.get(portable(router.family)).map_or(list.span, |at| at.span);
        report.warning(span, "many-addresses", text).help(rest);
    }
    link_local_first(router.profile, list, report);
}

/// V-034: a version 3 receiver discards an advertisement without addresses.
fn no_addresses(
    parsed: &ParsedInstance,
    span: Span,
    version: Version,
    profile: Profile,
    report: &mut Report,
) {
    let name = &parsed.name.value;
    let text = format!("instance `{name}` advertises no address");
    match (version, profile) {
        (Version::V2, Profile::Interop) => {
            if !parsed.without_addresses {
                report.warning(span, "no-addresses", text);
            }
        }
        (Version::V3, _) | (Version::V2, Profile::Strict) => {
            report
                .error(span, "no-addresses", text)
                .help("peers discard an advertisement without one");
        }
    }
}

/// V-027: RFC 9568 §5.2.9 wants the virtual router's link-local address first.
fn link_local_first(profile: Profile, list: &At<Vec<At<VirtualAddress>>>, report: &mut Report) {
    let Some(first) = list.value.first() else { return };
    let IpAddr::V6(address) = first.value.address else { return };
    if address.is_unicast_link_local() {
        return;
    }
    let text = "the first IPv6 address advertised is not link-local";
    let help = "put an address of fe80::/64 first: hosts use it as their next hop";
    match profile {
        Profile::Interop => report.warning(first.span, "link-local-first", text).help(help),
        Profile::Strict => report.error(first.span, "link-local-first", text).help(help),
    };
}

/// Octets of an address label: as an interface name.
const MAX_LABEL: usize = MAX_INTERFACE;

fn virtual_addresses(
    parsed: &ParsedInstance,
    built: &Instance,
    dialect: Dialect,
    report: &mut Report,
) {
    let mut seen: HashMap<IpAddr, Span> = HashMap::new();
    for at in parsed.addresses.list().iter().chain(parsed.excluded.list()) {
        let virtual_address = &at.value;
        if let Some(first) = seen.insert(virtual_address.address, at.span) {
            let text = format!("{} is listed twice", virtual_address.address);
            // keepalived lets it stand, and both are in its adverts.
            strict_in_toml(dialect, at.span, "duplicate-address", text, report).see("first", first);
        }
        if let Some(label) = virtual_address.label()
            && (label.len() > MAX_LABEL || label.is_empty() || virtual_address.address.is_ipv6())
        {
            let text = "a label has 1 to 15 characters and stands on an IPv4 address";
            report.error(at.span, "bad-label", text);
        }
        if let Some(device) = virtual_address.device() {
            let name = At::new(device.to_string(), at.span);
            interface_name(&name, report);
            report.need(at.span, NeedKind::Interface(name.value));
        }
        if virtual_address.broadcast().is_some_and(|broadcast| {
            Family::of(&broadcast) != Family::V4 || virtual_address.address.is_ipv6()
        }) {
            report.error(at.span, "bad-broadcast", "a broadcast address goes with an IPv4 address");
        }
        scope(at, report);
    }
    let owner_of_none =
        !parsed.addresses.is_bad() && built.router.priority.is_owner() && seen.is_empty();
    if owner_of_none && let Some(priority) = parsed.priority.given() {
        let text = "priority 255 is for the owner of the addresses, and there are none";
        report.warning(priority.span, "owner-without-addresses", text);
    }
}

/// The kernel derives the scope of an IPv6 address from the address.
fn scope(at: &At<VirtualAddress>, report: &mut Report) {
    if at.value.scope != Scope::Global && at.value.address.is_ipv6() {
        report.warning(at.span, "scope-ignored", "the scope of an IPv6 address is the kernel's");
    }
}

fn transport(parsed: &ParsedInstance, built: &Instance, dialect: Dialect, report: &mut Report) {
    let family = built.router.family;
    if let Some(source) = parsed.source.given()
        && Family::of(&source.value) != family
    {
        let text = "the source address is not of the family of the instance";
        report.error(source.span, "source-family", text);
    }
    // V-050: it would move, and the tie break between equals with it.
    if let Some(source) = parsed.source.given()
        && !built.router.priority.is_owner()
        && built.addresses.iter().any(|address| address.address == source.value)
    {
        let text = "adverts do not leave from a virtual address".to_owned();
        strict_in_toml(dialect, source.span, "virtual-source", text, report)
            .help("use an address that stays on this node");
    }
    if let Some(group) = parsed.group.given()
        && (Family::of(&group.value) != family || !group_fits(group.value))
    {
        report
            .error(group.span, "bad-group", "not a group for the adverts of this instance")
            .help("an IPv4 multicast address, or for IPv6 one of link-local scope, as in ff02::12");
    }
    let unicast = &parsed.unicast;
    let Some(span) = unicast.span else { return };
    let peers = unicast.peers.list();
    if unicast.peers.is_absent() || (unicast.peers.given().is_some() && peers.is_empty()) {
        let text = "unicast without peers: nobody would hear the adverts";
        report
            .error(span, "no-peers", text)
            .help("list the peers' addresses, or remove the unicast settings to use multicast");
    }
    let mut seen: HashMap<IpAddr, Span> = HashMap::new();
    for peer in peers {
        let address = peer.value.address;
        if Family::of(&address) != family {
            let text = "the peer is not of the family of the instance";
            report.error(peer.span, "peer-family", text);
        } else if parsed.source.value() == Some(&address) {
            report.error(peer.span, "peer-is-self", "the peer is this node's own source address");
        } else if address.is_unspecified() || address.is_multicast() {
            report.error(peer.span, "bad-peer", "a peer has a unicast address");
        }
        if let Some(first) = seen.insert(address, peer.span) {
            let text = format!("peer {address} is listed twice");
            report.error(peer.span, "duplicate-peer", text).see("first", first);
        }
    }
}

/// V-010: an IPv6 group is of link-local scope.
fn group_fits(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast() && v6.segments()[0] & 0x000f == 2,
    }
}

fn election(parsed: &ParsedInstance, built: &Instance, report: &mut Report) {
    let router = &built.router;
    if let Some(multiplier) = parsed.down_multiplier.given()
        && router.profile == Profile::Strict
        && multiplier.value != 3
    {
        let text = "the strict profile counts a master as dead after 3 adverts, as the RFCs do";
        report.error(multiplier.span, "multiplier-strict", text);
    }
    if let Some(repeat) = parsed.announce.repeat.given().filter(|at| at.value == 0) {
        let text = "without announcements clients find a new master only when their caches expire";
        report.warning(repeat.span, "no-announcement", text);
    }
    if let Some(preempt) = parsed.preempt.given()
        && router.priority.is_owner()
        && preempt.value != Preempt::After(std::time::Duration::ZERO)
    {
        let text = "an owner (priority 255) preempts at once, whatever is set here";
        report.warning(preempt.span, "owner-preempts", text);
    }
    for tracked in parsed.track.list().iter().filter(|tracked| {
        let Tracked::Interface(interface) = &tracked.value.object else { return false };
        parsed.interface.value().is_some_and(|own| **own == **interface)
            && tracked.value.weight.unwrap_or_default().value == 0
    }) {
        let text = "the instance's own interface is always tracked";
        report.warning(tracked.span, "redundant-track", text);
    }
}

/// V-003: an instance is known on the wire by its interface, family and VRID. Unicast instances
/// are told apart by their peers too (V-332).
pub(super) fn distinct_routers(all: &Parsed, plan: &Plan, report: &mut Report) {
    type Users<'a> = Vec<(Span, &'a Transport)>;
    let mut seen: HashMap<(&str, Family, u8), Users<'_>> = HashMap::new();
    for (parsed, built) in all.instances.iter().zip(&plan.instances) {
        let (Some(interface), Some(vrid)) = (parsed.interface.given(), parsed.vrid.given()) else {
            continue;
        };
        let key = (interface.value.as_str(), built.router.family, vrid.value.get());
        let transport = &built.router.transport;
        let others = seen.entry(key).or_default();
        if let Some((first, other)) = others.iter().find(|(_, other)| !disjoint(other, transport)) {
            let text = format!(
                "VRID {} is used twice for {} on interface {}",
                vrid.value.get(),
                family_name(built.router.family),
                interface.value,
            );
            let finding = report.error(vrid.span, "duplicate-vrid", text).see("first used", *first);
            if matches!((other, transport), (Transport::Unicast { .. }, Transport::Unicast { .. }))
            {
                finding.help("unicast instances may share a VRID when no peer is in both lists");
            }
        } else {
            others.push((vrid.span, transport));
        }
    }
}

/// Whether the sender of a datagram tells which of the two it is for.
fn disjoint(one: &Transport, other: &Transport) -> bool {
    match (one, other) {
        (Transport::Unicast { peers, .. }, Transport::Unicast { peers: others, .. }) => {
            let shared = peers.iter().any(|peer| others.iter().any(|o| o.address == peer.address));
            !shared && !peers.is_empty() && !others.is_empty()
        }
        (Transport::Multicast { .. }, _) | (_, Transport::Multicast { .. }) => false,
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Two instances with one address would take it from each other. Link-local ones may repeat on
/// other interfaces.
pub(super) fn distinct_addresses(all: &Parsed, report: &mut Report) {
    let mut seen: HashMap<(IpAddr, Option<&str>), (usize, Span)> = HashMap::new();
    for (index, parsed) in all.instances.iter().enumerate() {
        for at in parsed.addresses.list().iter().chain(parsed.excluded.list()) {
            let local = matches!(at.value.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let interface = parsed.interface.value().map(String::as_str).filter(|_| local);
            let key = (at.value.address, interface);
            let (first, first_at) = *seen.entry(key).or_insert((index, at.span));
            if first != index {
                let text = format!("{} belongs to another instance already", at.value.address);
                strict_in_toml(all.dialect, at.span, "shared-address", text, report)
                    .see("first listed", first_at);
            }
        }
    }
}
