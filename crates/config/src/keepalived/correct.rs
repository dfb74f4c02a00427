//! What keepalived corrects that no single line shows: it logs, leaves out or changes what does not
//! go with the other lines, and runs. So do we, and say what is in effect.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use locum_plan::{Forwarding, Listener, Protocol, Tracked};
use locum_vrrp::{Family, Version};

use crate::assemble;
use crate::dialect::Dialect;
use crate::field::Field;
use crate::parsed::{ParsedInstance, ParsedServer, ParsedService};
use crate::settings::instance::VERSION;
use crate::settings::persistence::ParsedPersistence;
use crate::span::{At, Report, Span};

/// Of an instance whose lines have all been read.
pub(super) fn instance(parsed: &mut ParsedInstance, report: &mut Report) {
    let family = assemble::family(parsed);
    addresses(parsed, family, report);
    peers(parsed, family, report);
    group(parsed, family, report);
    version(parsed, family, report);
    interval(parsed, report);
}

fn addresses(parsed: &mut ParsedInstance, family: Family, report: &mut Report) {
    let Field::Given(list) = &mut parsed.addresses else { return };
    list.value.retain(|at| {
        let fits = Family::of(&at.value.address) == family;
        if !fits {
            let text = "an instance advertises addresses of one family";
            let effect = format!("{} is left out", at.value.address);
            report
                .forgiven(at.span, "mixed-families", text, effect)
                .help("move it to `virtual_ipaddress_excluded`, or to an instance of its own");
        }
        fits
    });
}

/// Without any peer keepalived sends to the multicast group.
fn peers(parsed: &mut ParsedInstance, family: Family, report: &mut Report) {
    let Some(span) = parsed.unicast.span else { return };
    let source = parsed.source.value().copied();
    if let Field::Given(list) = &mut parsed.unicast.peers {
        let mut seen: HashMap<IpAddr, Span> = HashMap::new();
        list.value.retain(|peer| {
            let address = peer.value.address;
            let reason = if Family::of(&address) != family {
                ("peer-family", "the peer is not of the family of the instance".to_owned())
            } else if source == Some(address) {
                ("peer-is-self", "the peer is this node's own source address".to_owned())
            } else if seen.insert(address, peer.span).is_some() {
                ("duplicate-peer", format!("peer {address} is listed twice"))
            } else {
                return true;
            };
            report.forgiven(peer.span, reason.0, reason.1, "this entry is left out");
            false
        });
    }
    if parsed.unicast.peers.list().is_empty() {
        let text = "unicast without peers";
        let effect = "adverts go to the multicast group";
        let finding = report.forgiven(span, "no-peers", text, effect);
        drop(finding.help("list the peers in `unicast_peer`"));
        parsed.unicast.span = None;
        parsed.unicast.peers = Field::Absent;
    }
}

fn group(parsed: &mut ParsedInstance, family: Family, report: &mut Report) {
    let wrong = |at: &&At<IpAddr>| Family::of(&at.value) != family || !at.value.is_multicast();
    let Some(span) = parsed.group.given().filter(wrong).map(|at| at.span) else { return };
    let text = "this is no multicast address of the instance's family";
    report.forgiven(span, "bad-group", text, "adverts go to the usual group");
    parsed.group = Field::Absent;
}

/// V-004: IPv6 exists in version 3 only.
fn version(parsed: &mut ParsedInstance, family: Family, report: &mut Report) {
    let is_wrong = |at: &&At<Version>| at.value == Version::V2 && family == Family::V6;
    let Some(span) = parsed.version.given().filter(is_wrong).map(|at| at.span) else { return };
    let text = "VRRP version 2 carries no IPv6 addresses";
    report.forgiven(span, "version-family", text, "the version is 3");
    parsed.version = Field::Given(At::new(Version::V3, span));
}

/// What the adverts of an instance have.
pub(super) fn version_in_force(instance: &ParsedInstance) -> Version {
    match assemble::family(instance) {
        Family::V6 => instance.version.value().copied().unwrap_or(Version::V3),
        Family::V4 => VERSION.of(instance, Dialect::Keepalived),
    }
}

/// V-012: what version 3 carries at most.
const LONGEST_V3: Duration = Duration::from_millis(40_950);

fn interval(parsed: &mut ParsedInstance, report: &mut Report) {
    if version_in_force(parsed) != Version::V3 {
        return;
    }
    let Some(at) = parsed.interval.given_mut().filter(|at| at.value > LONGEST_V3) else { return };
    let text = "VRRP version 3 cannot carry this interval";
    report.forgiven(at.span, "interval-range", text, "adverts are 40.95 seconds apart");
    at.value = LONGEST_V3;
}

/// What the `vrrp_script` blocks of a file came to.
#[derive(Default)]
pub(super) struct ScriptNames {
    /// Those that run, and where they are defined.
    pub known: HashMap<String, Span>,
    /// Those that were left out, which has been said.
    pub left_out: HashSet<String>,
}

/// Takes out what is tracked twice, or is no script that there is.
pub(super) fn tracks(parsed: &mut ParsedInstance, scripts: &ScriptNames, report: &mut Report) {
    let Field::Given(list) = &mut parsed.track else { return };
    let mut seen: HashMap<Tracked, Span> = HashMap::new();
    list.value.retain(|track| {
        let object = &track.value.object;
        if let Tracked::Check(name) = object {
            if scripts.left_out.contains(&**name) {
                return false;
            }
            let Some(defined) = scripts.known.get(&**name) else {
                let text = format!("there is no vrrp_script `{name}`");
                let known = scripts.known.keys().map(String::as_str);
                report
                    .forgiven(track.span, "unknown-check", text, "it is not tracked")
                    .suggest(name, known);
                return false;
            };
            if defined.file == track.span.file && defined.start > track.span.start {
                let text = format!(
                    "vrrp_script `{name}` is defined after its use, where keepalived does not find it"
                );
                let finding = report.warning(track.span, "late-definition", text);
                let finding = finding.see("defined", *defined);
                drop(finding.help("define it before the instance: here it is tracked"));
            }
        }
        match seen.insert(object.clone(), track.span) {
            None => true,
            Some(first) => {
                let text = format!("{object} is tracked twice by this instance");
                report
                    .forgiven(track.span, "duplicate-track", text, "the first entry counts")
                    .see("first", first);
                false
            }
        }
    });
}

/// Of a service whose lines have all been read; `false` when keepalived serves nothing there.
pub(super) fn service(parsed: &mut ParsedService, report: &mut Report) -> bool {
    persistence(parsed, report);
    one_packet(parsed, report);
    flags(parsed, report);
    let port = parsed.listen.list().iter().find_map(|at| at.value.port());
    let by_default = parsed.forwarding.value().copied();
    let Field::Given(servers) = &mut parsed.servers else { return true };
    let mut seen: HashMap<(IpAddr, Option<u16>), Span> = HashMap::new();
    servers.value.retain_mut(|server| {
        bounds(&mut server.value, report);
        let way = server.value.forwarding.value().copied().or(by_default);
        let Some(at) = server.value.address.given_mut() else { return false };
        if let (Some(port), Some(Forwarding::Direct | Forwarding::Tunnel)) = (port, way)
            && at.value.1.is_some_and(|own| own != port && own != 0)
        {
            let text = "`lb_kind DR` and `lb_kind TUN` keep the port of the virtual_server";
            let effect = format!("the server has port {port}");
            report.forgiven(at.span, "port-differs", text, effect);
            at.value.1 = Some(port);
        }
        match seen.insert(at.value, at.span) {
            None => true,
            Some(first) => {
                let text = format!("server {} is listed twice", at.value.0);
                report
                    .forgiven(at.span, "duplicate-server", text, "the first one counts")
                    .see("first", first);
                false
            }
        }
    });
    if servers.value.is_empty() && !parsed.listen.is_bad() {
        let text = format!("virtual_server `{}` has no real_server", parsed.name.value);
        report.forgiven(parsed.span, "no-servers", text, "it is left out");
        return false;
    }
    true
}

fn persistence(parsed: &mut ParsedService, report: &mut Report) {
    let is_zero =
        |at: &At<ParsedPersistence>| at.value.timeout.value().is_some_and(Duration::is_zero);
    // keepalived's way to say that clients are not kept.
    if parsed.persistence.given().is_some_and(is_zero) {
        parsed.persistence = Field::Absent;
        return;
    }
    let protocol = parsed.protocol.value().copied();
    let Some(at) = parsed.persistence.given_mut() else { return };
    if let Some(span) = at.value.engine.span().filter(|_| protocol != Some(Protocol::Udp)) {
        let text = "a persistence engine looks into datagrams alone";
        report.forgiven(span, "persistence-engine", text, "there is none");
        at.value.engine = Field::Absent;
    }
}

fn one_packet(parsed: &mut ParsedService, report: &mut Report) {
    let marked = parsed.listen.list().iter().any(|at| matches!(at.value, Listener::Fwmark { .. }));
    let is_udp = parsed.protocol.value() == Some(&Protocol::Udp);
    let Some(at) = parsed.one_packet.given().filter(|at| at.value && !is_udp && !marked) else {
        return;
    };
    let text = "a server for each packet is for UDP: a connection has many";
    report.forgiven(at.span, "one-packet", text, "`ops` is ignored");
    parsed.one_packet = Field::Absent;
}

/// A flag of another scheduler.
fn flags(parsed: &mut ParsedService, report: &mut Report) {
    let scheduler = parsed.scheduler.value().cloned().unwrap_or_else(|| "wlc".to_owned());
    let Field::Given(list) = &mut parsed.scheduler_flags else { return };
    list.value.retain(|at| {
        let of = at.value.split_once('-').map(|(of, _)| of).filter(|of| *of != "flag");
        let Some(of) = of.filter(|of| *of != scheduler) else { return true };
        let text = format!("`{}` is of the scheduler {of}, and this one is {scheduler}", at.value);
        report.forgiven(at.span, "misplaced-flag", text, "it is ignored");
        false
    });
}

/// The kernel takes no lower limit above the upper one.
fn bounds(parsed: &mut ParsedServer, report: &mut Report) {
    let max = parsed.max_connections.value().copied().filter(|max| *max > 0);
    let Some(min) = parsed.min_connections.given().filter(|at| at.value > 0) else { return };
    if max.is_none_or(|max| min.value > max) {
        let text = "`lthreshold` is for a server with an `uthreshold` above it";
        report.forgiven(min.span, "connection-bounds", text, "it is ignored");
        parsed.min_connections = Field::Absent;
    }
}
