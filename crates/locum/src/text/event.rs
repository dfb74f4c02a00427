//! Events of the engine in words: the log line, the history entry, the level.
//!
//! The text of a transition begins as keepalived's does, because that is what people grep for.

use locum_control::Record;
use locum_engine::{Aspect, Event, EventKind, FactKey, PriorityCause, PriorityPart};
use locum_plan::Tracked;
use locum_vrrp::Role;
use tracing::Level;

use super::millis;

/// One sentence, without the instance's name unless the phrase has it.
pub fn sentence(event: &Event) -> String {
    let name = event.instance.as_deref().unwrap_or("locum");
    match &event.kind {
        EventKind::Transition { to, cause, priority, .. } => {
            format!("({name}) Entering {to} STATE: {cause} (priority {})", priority.0)
        }
        EventKind::Priority { from, to, why } => {
            let why = priority_cause(why);
            format!("({name}) Changing effective priority from {} to {}: {why}", from.0, to.0)
        }
        EventKind::Tracked { object, up, detail } => {
            format!("{object} {}: {detail}", succeeded(*up))
        }
        EventKind::Server { service, server, up, detail } => {
            let state = if *up { "up" } else { "down" };
            format!("server {server} of {service} is {state}: {detail}")
        }
        EventKind::Healed { key, culprit } => {
            let by = culprit.as_deref().unwrap_or("someone");
            format!("({name}) {key} was removed by {by}: put back")
        }
        EventKind::Conflict { peer, peer_priority } => format!(
            "({name}) {peer} was master too, with priority {}: announcing the addresses again",
            peer_priority.0
        ),
        EventKind::Discard { source: Some(source), reason } => {
            format!("({name}) discarding adverts from {source}: {reason}")
        }
        EventKind::Discard { source: None, reason } => {
            format!("({name}) discarding adverts: {reason}")
        }
        EventKind::Mismatch { peer, what } => {
            format!("({name}) compare the configuration of {peer} with ours: {what}")
        }
        EventKind::ApplyFailed { error } => format!("({name}) the kernel refused: {error}"),
        EventKind::ApplyMended { what } => format!("({name}) the kernel has accepted: {what}"),
        EventKind::ApplyLate { waited } => format!(
            "({name}) the kernel has not answered for {} ms: this node is overloaded",
            waited.as_millis()
        ),
        EventKind::Expelled { address, interface } => format!(
            "({name}) {address} was on {interface} although this node is not its master: removed; \
             find out what puts it there"
        ),
        EventKind::AnnouncedUnready { waited, awaited } => {
            format!("({name}) announced after {} ms all the same: {awaited}", waited.as_millis())
        }
        EventKind::Fitness { object, aspect, holds, detail } => {
            fitness(object, *aspect, *holds, detail)
        }
        EventKind::Reloaded { added, changed, removed, unchanged } => format!(
            "configuration in effect: {added} added, {changed} changed, {removed} removed, \
             {unchanged} unchanged"
        ),
        EventKind::Adopted { key, kept: true } => {
            format!("({name}) {key} taken over from an earlier run")
        }
        EventKind::Adopted { key, kept: false } => {
            format!("{key}, left by an earlier run, withdrawn")
        }
        EventKind::Note(text) => match &event.instance {
            Some(name) => format!("({name}) {text}"),
            None => text.clone(),
        },
    }
}

/// Its form in the history.
pub fn record(kind: &EventKind) -> Record {
    match kind.clone() {
        EventKind::Transition { from, to, cause, priority } => Record::Transition {
            from: from.word().to_owned(),
            to: to.word().to_owned(),
            cause: cause.word().to_owned(),
            cause_text: cause.to_string(),
            priority: priority.0,
        },
        EventKind::Priority { from, to, why } => {
            Record::Priority { from: from.0, to: to.0, why: priority_cause(&why) }
        }
        EventKind::Tracked { object, up, detail } => {
            Record::Check { check: object.name().to_string(), up, detail }
        }
        EventKind::Server { service, server, up, detail } => {
            Record::Server { service: service.to_string(), server, up, detail }
        }
        EventKind::Healed { key, culprit } => {
            Record::Healed { address: key.address(), interface: interface(&key), culprit }
        }
        EventKind::Conflict { peer, peer_priority } => {
            Record::Conflict { peer, peer_priority: peer_priority.0 }
        }
        EventKind::Discard { source, reason } => Record::Discard { source, reason },
        EventKind::Mismatch { peer, what } => Record::Mismatch { peer, what },
        EventKind::ApplyFailed { error } => Record::ApplyFailed { error },
        EventKind::ApplyMended { what } => Record::ApplyMended { what },
        EventKind::ApplyLate { waited } => Record::ApplyLate { waited_ms: millis(waited) },
        EventKind::Expelled { address, interface } => {
            Record::Expelled { address, interface: interface.to_string() }
        }
        EventKind::AnnouncedUnready { waited, awaited } => {
            let awaited = awaited.to_string();
            Record::AnnouncedUnready { waited_ms: millis(waited), awaited }
        }
        EventKind::Fitness { object, aspect, holds, detail } => {
            let (object, aspect) = (object.to_string(), aspect.word().to_owned());
            Record::Fitness { object, aspect, holds, detail }
        }
        EventKind::Reloaded { added, changed, removed, unchanged } => {
            Record::Reloaded { added, changed, removed, unchanged }
        }
        EventKind::Adopted { key, kept } => {
            Record::Adopted { address: key.address(), interface: interface(&key), kept }
        }
        EventKind::Note(_) => Record::Note {},
    }
}

fn interface(key: &FactKey) -> Option<String> {
    key.interface().map(ToString::to_string)
}

/// How loud the log is about it.
pub fn level(kind: &EventKind) -> Level {
    match kind {
        EventKind::Transition { to: Role::Fault, .. }
        | EventKind::Tracked { up: false, .. }
        | EventKind::Server { up: false, .. }
        | EventKind::Healed { .. }
        | EventKind::Expelled { .. }
        | EventKind::ApplyLate { .. }
        | EventKind::AnnouncedUnready { .. }
        | EventKind::Conflict { .. }
        | EventKind::Discard { .. }
        | EventKind::Fitness { aspect: Aspect::Capable, holds: false, .. }
        | EventKind::Mismatch { .. } => Level::WARN,
        EventKind::ApplyFailed { .. }
        | EventKind::Fitness {
            aspect: Aspect::Answering | Aspect::Populated, holds: false, ..
        } => Level::ERROR,
        EventKind::Transition { .. }
        | EventKind::Priority { .. }
        | EventKind::Tracked { up: true, .. }
        | EventKind::Server { up: true, .. }
        | EventKind::Reloaded { .. }
        | EventKind::Adopted { .. }
        | EventKind::ApplyMended { .. }
        | EventKind::Fitness { holds: true, .. }
        | EventKind::Note(_) => Level::INFO,
    }
}

/// Of what this node cannot serve, or is not known to be able to, a number alone would be no reason.
fn priority_cause(why: &PriorityCause) -> String {
    let part = |part: &PriorityPart| match &part.object {
        Tracked::Service(_) | Tracked::Haproxy(_) if part.part < 0 => {
            format!("{} is not ready to be served here ({:+})", part.object, part.part)
        }
        Tracked::Check(_) | Tracked::Interface(_) | Tracked::Service(_) | Tracked::Haproxy(_) => {
            part.to_string()
        }
    };
    match why {
        PriorityCause::Trackers(parts) if parts.is_empty() => "nothing adjusts it".to_owned(),
        PriorityCause::Trackers(parts) => parts.iter().map(part).collect::<Vec<_>>().join(", "),
        PriorityCause::Reload
        | PriorityCause::OwnerConcedes { .. }
        | PriorityCause::OwnerReturns { .. } => why.to_string(),
    }
}

fn fitness(object: &Tracked, aspect: Aspect, holds: bool, detail: &str) -> String {
    match (aspect, holds) {
        (Aspect::Answering, true) => format!("{object} answers its clients again"),
        (Aspect::Answering, false) => format!("{object} does not answer its clients: {detail}"),
        (Aspect::Capable, true) => format!("{object} could be served here again"),
        (Aspect::Capable, false) => {
            format!("{object} could not be served if this node became master: {detail}")
        }
        (Aspect::Populated, true) => format!("{object} has enough servers again"),
        (Aspect::Populated, false) => format!("{object} has too few servers: {detail}"),
    }
}

fn succeeded(up: bool) -> &'static str {
    if up { "succeeded" } else { "failed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_a_reason_and_not_a_number_alone() {
        let object = Tracked::Service("www".into());
        let parts = vec![
            PriorityPart { object: Tracked::Check("app".into()), part: -60 },
            PriorityPart { object, part: -88 },
        ];
        let said = priority_cause(&PriorityCause::Trackers(parts));
        assert_eq!(said, "check app -60, service www is not ready to be served here (-88)");
        assert_eq!(priority_cause(&PriorityCause::Trackers(Vec::new())), "nothing adjusts it");
    }
}
