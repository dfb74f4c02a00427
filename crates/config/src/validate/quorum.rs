//! Rules of how many servers are enough.

use locum_plan::{QuorumUnit, Service};

use crate::dialect::Dialect;
use crate::parsed::ParsedService;
use crate::span::Report;
use crate::validate::common::{command_needs, strict_in_toml};

pub(super) fn validate(
    parsed: &ParsedService,
    built: &Service,
    dialect: Dialect,
    report: &mut Report,
) {
    for at in parsed.quorum_up.list().iter().chain(parsed.quorum_down.list()) {
        command_needs(&at.value, at.span, report);
    }
    let quorum = built.quorum;
    if let Some(at) = parsed.hysteresis.given()
        && at.value >= quorum.level
    {
        let text = format!(
            "a hysteresis of {} is not below the quorum, {}, so that nothing could be too few",
            at.value, quorum.level
        );
        let finding = strict_in_toml(dialect, at.span, "hysteresis-range", text, report);
        if dialect == Dialect::Keepalived {
            finding.help(format!("it counts as {}", quorum.hysteresis));
        }
    }
    if parsed.servers.is_bad() || built.servers.is_empty() {
        return;
    }
    let all = built.servers.iter().map(|server| quorum.worth(server.weight));
    let all = all.fold(0_u32, u32::saturating_add);
    let there = match quorum.unit {
        QuorumUnit::Servers => {
            format!("servers of service `{}` that take connections are {all}", built.name)
        }
        QuorumUnit::Weight => {
            format!("the servers of service `{}` have together a weight of {all}", built.name)
        }
    };
    if let Some(at) = parsed.quorum.given()
        && quorum.level > all
    {
        let text = format!("a quorum of {} is out of reach: {there}", quorum.level);
        strict_in_toml(dialect, at.span, "quorum-out-of-reach", text, report)
            .help("no node could ever serve it: lower the quorum, or add servers");
    } else if let Some(at) = parsed.hysteresis.given()
        && quorum.gained_at() > all
    {
        let text = format!("a lost quorum is reached again at {}: {there}", quorum.gained_at());
        strict_in_toml(dialect, at.span, "quorum-out-of-reach", text, report)
            .help("lower `quorum` or `hysteresis`, or add servers");
    }
}
