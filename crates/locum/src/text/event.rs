//! Events of the engine in words: the log line, the history entry, the level.
//!
//! The text of a transition begins as keepalived's does, because that is what people grep for.

use locum_control::Record;
use locum_engine::{Aspect, Event, EventKind, FactKey, PriorityCause, PriorityPart, ServerOrder};
use locum_plan::Tracked;
use locum_vrrp::Role;
use tracing::Level;

use super::millis;
use super::served::{self, ObjectKind, Situation};

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
        EventKind::Quorum { service, reached: true, .. } => {
            format!("service {service} has its quorum again")
        }
        EventKind::Quorum { service, reached: false, sorry, remaining, detail } => {
            let clients = match (sorry, remaining) {
                (Some(sorry), _) => format!("clients go to the sorry server {sorry}"),
                (None, 0) => "no server is left for new clients".to_owned(),
                (None, 1) => "new clients go to the server that is left".to_owned(),
                (None, left) => format!("new clients go to the {left} servers that are left"),
            };
            format!("service {service} has lost its quorum: {detail}; {clients}")
        }
        EventKind::ServerOrdered { service, server, order: Some(order) } => {
            format!("server {server} of {service}: {order}")
        }
        EventKind::ServerOrdered { service, server, order: None } => {
            format!("server {server} of {service} has its own weight again, by the operator")
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
        EventKind::Strained { object, by } => {
            format!("{object} {}", served::strained(by.as_deref()))
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
        EventKind::Quorum { service, reached, sorry, detail, .. } => {
            Record::Quorum { service: service.to_string(), reached, sorry, detail }
        }
        EventKind::ServerOrdered { service, server, order } => {
            let (order, weight) = match order {
                None => ("ready", None),
                Some(ServerOrder::Drain) => ("drain", Some(0)),
                Some(ServerOrder::Weight(weight)) => ("weight", Some(weight)),
            };
            let (service, order) = (service.to_string(), order.to_owned());
            Record::ServerOrdered { service, server, order, weight }
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
        EventKind::Strained { object, by } => Record::Strained {
            object: object.to_string(),
            strained: by.is_some(),
            detail: by.unwrap_or_default(),
        },
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
        | EventKind::Quorum { reached: false, .. }
        | EventKind::Healed { .. }
        | EventKind::Expelled { .. }
        | EventKind::ApplyLate { .. }
        | EventKind::AnnouncedUnready { .. }
        | EventKind::Conflict { .. }
        | EventKind::Discard { .. }
        | EventKind::Fitness { aspect: Aspect::Capable, holds: false, .. }
        | EventKind::Strained { by: Some(_), .. }
        | EventKind::Mismatch { .. } => Level::WARN,
        EventKind::ApplyFailed { .. }
        | EventKind::Fitness {
            aspect: Aspect::Answering | Aspect::Populated, holds: false, ..
        } => Level::ERROR,
        EventKind::Transition { .. }
        | EventKind::Priority { .. }
        | EventKind::Tracked { up: true, .. }
        | EventKind::Server { up: true, .. }
        | EventKind::Quorum { reached: true, .. }
        | EventKind::ServerOrdered { .. }
        | EventKind::Reloaded { .. }
        | EventKind::Adopted { .. }
        | EventKind::ApplyMended { .. }
        | EventKind::Fitness { holds: true, .. }
        | EventKind::Strained { by: None, .. }
        | EventKind::Note(_) => Level::INFO,
    }
}

/// As the engine says it; but of what this node cannot serve, or is not known to be able to, a number
/// alone would be no reason.
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
        PriorityCause::Trackers(parts) if !parts.is_empty() => {
            parts.iter().map(part).collect::<Vec<_>>().join(", ")
        }
        PriorityCause::Trackers(_)
        | PriorityCause::Reload
        | PriorityCause::OwnerConcedes { .. }
        | PriorityCause::OwnerReturns { .. } => why.to_string(),
    }
}

/// What status says of it while it lasts, and that it is over.
fn fitness(object: &Tracked, aspect: Aspect, holds: bool, detail: &str) -> String {
    let kind = match object {
        Tracked::Haproxy(_) => ObjectKind::Haproxy,
        Tracked::Service(_) | Tracked::Check(_) | Tracked::Interface(_) => ObjectKind::Service,
    };
    let over = match (aspect, kind) {
        (Aspect::Answering, _) => "answers its clients again",
        (Aspect::Capable, ObjectKind::Service) => "could be served here again",
        (Aspect::Capable, ObjectKind::Haproxy) => "could serve here again",
        (Aspect::Populated, _) => "has enough servers again",
    };
    if holds {
        return format!("{object} {over}");
    }
    let situation = match aspect {
        Aspect::Answering => Situation::Unanswered,
        Aspect::Capable => Situation::Incapable,
        Aspect::Populated => Situation::Scarce,
    };
    format!("{object} {}: {detail}", served::predicate(situation, kind, true))
}

fn succeeded(up: bool) -> &'static str {
    if up { "succeeded" } else { "failed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One phrase, whether the history says it or the status.
    #[test]
    fn the_history_speaks_of_a_haproxy_as_the_status_does() {
        let edge = Tracked::Haproxy("edge".into());
        let said = |kind| sentence(&Event { number: 1, instance: None, kind });
        let fitness = |aspect, holds| EventKind::Fitness {
            object: edge.clone(),
            aspect,
            holds,
            detail: "no file".to_owned(),
        };
        let lost = said(fitness(Aspect::Capable, false));
        assert_eq!(lost, "haproxy edge could not serve if this node became master: no file");
        assert_eq!(said(fitness(Aspect::Capable, true)), "haproxy edge could serve here again");
        let hung = said(fitness(Aspect::Answering, false));
        assert_eq!(hung, "haproxy edge does not answer its clients: no file");
    }

    #[test]
    fn a_strain_is_a_warning_with_its_reason_and_its_end_is_said() {
        let strained = |by: Option<&str>| EventKind::Strained {
            object: Tracked::Haproxy("edge".into()),
            by: by.map(str::to_owned),
        };
        let said = |kind| sentence(&Event { number: 1, instance: None, kind });
        assert_eq!(said(strained(Some("it is full"))), "haproxy edge is strained: it is full");
        assert_eq!(said(strained(None)), "haproxy edge is strained no more");
        assert_eq!(level(&strained(Some("it is full"))), Level::WARN);
        let expected = Record::Strained {
            object: "haproxy edge".into(),
            strained: true,
            detail: "it is full".into(),
        };
        assert_eq!(record(&strained(Some("it is full"))), expected);
    }

    /// Case: clients were said to stay with the servers that are left when none was.
    #[test]
    fn a_lost_quorum_says_where_the_clients_go() {
        let said = |sorry, remaining| {
            let (service, detail) = ("www".into(), "why".to_owned());
            let kind = EventKind::Quorum { service, reached: false, sorry, remaining, detail };
            sentence(&Event { number: 1, instance: None, kind })
        };
        let lost = "service www has lost its quorum: why;";
        assert_eq!(said(None, 0), format!("{lost} no server is left for new clients"));
        assert_eq!(said(None, 1), format!("{lost} new clients go to the server that is left"));
        let sorry = Some(([10, 0, 0, 9], 80).into());
        assert_eq!(said(sorry, 1), format!("{lost} clients go to the sorry server 10.0.0.9:80"));
    }

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
