//! What `[ipvs]` says, in the plan's words.

use std::time::Duration;

use locum_plan::{ConnectionSync, Instance, IpvsSettings, Name};

use crate::dialect::Dialect;
use crate::parsed::{Field, ParsedIpvs, ParsedSync};
use crate::settings::ipvs::{EXPIRE_NODEST_CONN, EXPIRE_QUIESCENT_TEMPLATE};
use crate::span::{Report, Span};

pub(super) fn settings(
    parsed: &ParsedIpvs,
    instances: &[Instance],
    dialect: Dialect,
    report: &mut Report,
) -> IpvsSettings {
    IpvsSettings {
        tcp_timeout_s: seconds(&parsed.tcp),
        tcp_fin_timeout_s: seconds(&parsed.tcp_fin),
        udp_timeout_s: seconds(&parsed.udp),
        // What is not wanted is the kernel's own, and whatever else the host has made of it.
        expire_nodest_conn: EXPIRE_NODEST_CONN.of(parsed, dialect),
        expire_quiescent_template: EXPIRE_QUIESCENT_TEMPLATE.of(parsed, dialect),
        conn_reuse_mode: parsed.conn_reuse_mode.value().copied(),
        sync: parsed.sync.span.and_then(|span| sync(&parsed.sync, span, instances, report)),
    }
}

fn sync(
    parsed: &ParsedSync,
    span: Span,
    instances: &[Instance],
    report: &mut Report,
) -> Option<ConnectionSync> {
    for (key, is_absent) in
        [("interface", parsed.interface.is_absent()), ("instance", parsed.instance.is_absent())]
    {
        if is_absent {
            report.error(
                span,
                "missing-key",
                format!("the synchronisation of connections has no `{key}`"),
            );
        }
    }
    let (interface, name) = (parsed.interface.value()?, parsed.instance.value()?);
    let instance = instances.iter().find(|instance| *instance.name == **name);
    // An unknown instance is reported by `validate`.
    let vrid = instance.map_or(0, |instance| instance.router.vrid.get());
    Some(ConnectionSync {
        interface: Name::from(interface.as_str()),
        instance: Name::from(name.as_str()),
        id: parsed.id.value().copied().unwrap_or(vrid),
        longest: parsed.longest.value().copied(),
        group: parsed.group.value().copied(),
        port: parsed.port.value().copied(),
        ttl: parsed.ttl.value().copied(),
        threshold: parsed.threshold.value().copied(),
        refresh_s: seconds(&parsed.refresh),
    })
}

/// Their form takes whole seconds alone.
fn seconds(time: &Field<Duration>) -> Option<u32> {
    time.value().and_then(|time| u32::try_from(time.as_secs()).ok())
}
