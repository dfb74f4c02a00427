//! What a health check of a server comes to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::parsed::ParsedHealth;
use crate::settings::health::{HEALTH_FALL, HEALTH_INTERVAL, HEALTH_RISE, LocalCheck};
use crate::settings::question::ParsedQuestion;
use locum_plan::{CheckSource, Checker, HeaderVersion, Health, Probe, Protocol, Retry};

/// A server that is asked.
pub(super) struct AskedServer {
    pub address: SocketAddr,
    pub introduced: Option<HeaderVersion>,
    pub warm_up: Duration,
}

pub(super) fn health(
    parsed: &ParsedHealth,
    server: &AskedServer,
    dialect: Dialect,
) -> Option<Health> {
    let address = parsed.address.value().copied().unwrap_or(server.address.ip());
    let port = parsed.port.value().copied().unwrap_or(server.address.port());
    let target = SocketAddr::new(address, port);
    let kind = match (parsed.local.value(), parsed.question.value()) {
        (Some(LocalCheck::Script { command, is_weighing }), _) => Checker::ServerScript {
            command: Arc::new(command.clone()),
            server: target,
            is_weighing: *is_weighing,
        },
        (Some(LocalCheck::File { path, factor }), _) => {
            Checker::File { path: path.clone(), factor: *factor }
        }
        (None, question) => {
            let question = question?.clone();
            // Elsewhere there may be somebody who expects no header.
            let expects = target == server.address && question.protocol() == Some(Protocol::Tcp);
            let header = server.introduced.filter(|_| expects);
            let origin = match (parsed.asked.origin(), header) {
                (None, None) => None,
                (origin, header) => {
                    Some(Arc::new(CheckSource { header, ..origin.unwrap_or_default() }))
                }
            };
            Checker::Ask { target, question, origin }
        }
    };
    let fall = HEALTH_FALL.of(parsed, dialect);
    Some(Health {
        probe: Probe {
            kind,
            interval: HEALTH_INTERVAL.of(parsed, dialect),
            timeout: parsed.timeout(dialect),
            retry: retry(&parsed.asked, fall),
            warm_up: parsed.asked.warm_up.value().copied().unwrap_or(server.warm_up),
        },
        rise: HEALTH_RISE.of(parsed, dialect),
        fall,
    })
}

/// Failed runs are repeated sooner until so many have failed.
pub(super) fn retry(asked: &ParsedQuestion, fall: u32) -> Option<Retry> {
    let delay = asked.retry_delay.value().copied()?;
    let times = fall.saturating_sub(1);
    (times > 0).then_some(Retry { delay, times })
}
