//! What a health check of a server comes to.

use std::net::SocketAddr;

use crate::dialect::Dialect;
use crate::parsed::ParsedHealth;
use crate::settings::health::{HEALTH_FALL, HEALTH_INTERVAL, HEALTH_RISE};
use locum_plan::{Checker, Health, Probe};

pub(super) fn health(
    parsed: &ParsedHealth,
    server: SocketAddr,
    dialect: Dialect,
) -> Option<Health> {
    let mut target = server;
    if let Some(port) = parsed.port.value() {
        target.set_port(*port);
    }
    Some(Health {
        probe: Probe {
            kind: Checker::Ask { target, question: parsed.question.value()?.clone() },
            interval: HEALTH_INTERVAL.of(parsed, dialect),
            timeout: parsed.timeout(dialect),
        },
        rise: HEALTH_RISE.of(parsed, dialect),
        fall: HEALTH_FALL.of(parsed, dialect),
    })
}
