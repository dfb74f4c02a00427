//! What a node can serve, in the sentences of `status --why`: what is answered here, what would be
//! missing if it took over, what that does to the priority, and what keeps it where it is.

use locum_control::status::{HeldBackStatus, InstanceStatus, UnfitObject};

use super::problem::unfit_outlook;
use super::served::{ServedObject, Situation};
use super::{age, first_few};

/// Sentences about objects that are not well; the rest is counted.
const MOST: usize = 10;

/// What is served of an instance, or of none, one sentence each and those that are well in one.
pub fn served(objects: &[&ServedObject<'_>]) -> Vec<String> {
    let is_well = |object: &&&ServedObject<'_>| object.situation() == Situation::Well;
    let well = |active: bool| {
        let objects = objects.iter().filter(is_well).filter(move |object| object.active == active);
        objects.map(|object| with_servers(object)).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    let answered = well(true);
    if !answered.is_empty() {
        all.push(format!("Clients are answered: {}.", first_few(&answered, ", ")));
    }
    let ready = well(false);
    if !ready.is_empty() {
        all.push(format!("It could serve at once: {}.", first_few(&ready, ", ")));
    }
    let others: Vec<&&ServedObject<'_>> =
        objects.iter().filter(|object| !is_well(object)).collect();
    all.extend(others.iter().take(MOST).map(|object| not_well(object)));
    if let Some(more) = others.len().checked_sub(MOST).filter(|more| *more > 0) {
        all.push(format!("And {more} more of what it serves are not well: see --json."));
    }
    all.extend(objects.iter().filter_map(|object| {
        let left = object.fitness.hold_ms?;
        let times = match object.fitness.losses {
            1 => "once".to_owned(),
            losses => format!("{losses} times"),
        };
        Some(format!(
            "It counts as able to serve {} in {}, because it was lost {times} of late.",
            object.title(),
            age(left)
        ))
    }));
    all.into_iter().map(|sentence| capital(&sentence)).collect()
}

/// A sentence that begins with a name of ours.
fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn not_well(object: &ServedObject<'_>) -> String {
    let (title, spell) = (object.title(), age(object.fitness.since_ms));
    match object.situation() {
        Situation::Unanswered => {
            format!("{title} has not answered its clients for {spell}: {}.", object.missing())
        }
        Situation::Sorry => {
            // It may have been well for long in all but what the operator has ordered.
            let spell = age(object.sorry.map_or(0, |quorum| quorum.since_ms));
            let why = object.missing();
            format!("{title} has sent its clients to its sorry server for {spell}: {why}.")
        }
        Situation::Scarce => {
            format!("{title} has had too few servers for {spell}: {}.", object.missing())
        }
        Situation::Incapable => {
            format!("{title} would be missing if this node took over: {}.", object.missing())
        }
        Situation::WouldBeScarce => format!(
            "{title} would have too few servers if this node took over: {}.",
            object.missing()
        ),
        Situation::Unknown if object.active => {
            format!("{title} is about to answer its clients.")
        }
        Situation::Unknown | Situation::Well => {
            format!("Whether {title} could be served here is not known yet.")
        }
    }
}

/// `service www (2 of 3 servers up)`
fn with_servers(object: &ServedObject<'_>) -> String {
    let all = object.servers.len();
    let up = object.servers.iter().filter(|server| server.up == Some(true)).count();
    let is_checked = object.servers.iter().any(|server| server.up.is_some());
    let title = object.title();
    if is_checked { format!("{title} ({up} of {all} servers up)") } else { title }
}

/// Why it competes from the bottom of the range. `competes` is `competes` or `would compete`;
/// `None` for who can serve all, or where that does not decide.
pub fn competes_unfit(
    instance: &InstanceStatus,
    objects: &[ServedObject<'_>],
    competes: &str,
) -> Option<String> {
    if instance.unfit.is_empty() {
        return None;
    }
    let reasons = first_few(&reasons(&instance.unfit, objects), ", and ");
    let (own, base) = (instance.effective_priority, instance.base_priority);
    let outlook = unfit_outlook(instance);
    Some(format!(
        "It {competes} with priority {own} instead of {base}, behind every node that can serve, \
         because {reasons}{outlook}."
    ))
}

fn reasons(unfit: &[UnfitObject], objects: &[ServedObject<'_>]) -> Vec<String> {
    let situation = |unfit: &UnfitObject| {
        let object = objects.iter().find(|object| object.title() == unfit.object);
        object.map_or(Situation::Unknown, ServedObject::situation)
    };
    let of = |is: &dyn Fn(Situation) -> bool| {
        let of = unfit.iter().filter(|unfit| is(situation(unfit)));
        first_few(&of.map(|unfit| unfit.object.clone()).collect::<Vec<_>>(), ", ")
    };
    let reason = |what: String, sentence: &dyn Fn(&str) -> String| {
        if what.is_empty() { None } else { Some(sentence(&what)) }
    };
    let all = [
        reason(of(&Situation::is_lost), &|what| format!("it cannot serve {what}")),
        reason(of(&|one| one == Situation::Unknown), &|what| {
            format!("it is not known yet whether it could serve {what}")
        }),
        reason(of(&|one| one == Situation::Well), &|what| {
            format!("{what} has come back, and does not count yet")
        }),
    ];
    all.into_iter().flatten().collect()
}

/// Why it stays what it is, for `status --why`.
pub fn held_back(instance: &InstanceStatus) -> Option<String> {
    let HeldBackStatus { reason, left_ms } = instance.held_back.as_ref()?;
    let left = left_ms.map_or_else(|| "a while".to_owned(), age);
    let master = instance.peer.as_ref().map_or_else(
        || "the master".to_owned(),
        |peer| format!("{}, which competes with priority {} only,", peer.address, peer.priority),
    );
    Some(match reason.as_str() {
        "start-delay" => format!("It takes part in {left}: its start delay is not over."),
        "refused" => "It was not granted its mastership: it listens for a whole down interval \
                      before it asks again."
            .to_owned(),
        "lets-pass" => format!(
            "The mastership is on offer to nodes that can serve, and this one cannot: it takes \
             over in {left} if nobody else does."
        ),
        "yielded" => format!(
            "It leaves {master} alone: an operator handed it over, and it stays backup while the \
             peer lives."
        ),
        "unfit" => format!("It leaves {master} alone: that node serves no less than this one."),
        "no-preempt" => format!(
            "It leaves {master} alone: it does not preempt (`preempt = false`, `nopreempt`)."
        ),
        "preempt-delay" => {
            format!("It leaves {master} alone for {left} more: its preempt delay is not over.")
        }
        other => format!("It is held back: {other}."),
    })
}

/// The same in a few words, for the table.
pub fn held_back_note(held: &HeldBackStatus) -> String {
    let left = held.left_ms.map_or_else(|| "a while".to_owned(), age);
    match held.reason.as_str() {
        "start-delay" => format!("takes part in {left}: start delay"),
        "refused" => "its mastership was refused".to_owned(),
        "lets-pass" => format!("lets an offer pass for {left}: it cannot serve"),
        "yielded" => "after the handover it stays backup while the peer lives".to_owned(),
        "unfit" => "leaves the lower master alone: it cannot serve more".to_owned(),
        "no-preempt" => "leaves the lower master alone: it does not preempt".to_owned(),
        "preempt-delay" => format!("leaves the lower master alone for {left}: preempt delay"),
        other => format!("held back: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use locum_control::StatusDocument;
    use locum_control::status::SorryStatus;

    use super::*;
    use crate::commands::sample;
    use crate::text::served as served_text;

    fn said(document: &StatusDocument) -> Vec<String> {
        let objects = served_text::all(document);
        served(&objects.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_is_served_and_what_would_be_missing_is_said() {
        let mut document = sample::document();
        document.haproxy.push(sample::haproxy());
        let well = [
            "Clients are answered: haproxy front.",
            "It could serve at once: service www (1 of 1 servers up).",
        ];
        assert_eq!(said(&document), well);
        let front = &mut document.haproxy[0];
        front.active = false;
        front.fitness.holds = Some(false);
        front.fitness.detail = "unable to load certificate b.pem".into();
        document.services[0].active = true;
        document.services[0].fitness.holds = None;
        let lost = [
            "Service www is about to answer its clients.",
            "Haproxy front would be missing if this node took over: unable to load certificate \
             b.pem.",
        ];
        assert_eq!(said(&document), lost);
    }

    /// Case: drained an hour after its health had turned, it was said to be there for that hour.
    #[test]
    fn a_sorry_server_has_had_the_clients_since_the_quorum_was_lost() {
        let mut document = sample::document();
        let service = &mut document.services[0];
        service.active = true;
        service.fitness.since_ms = 3_600_000;
        let address = ([10, 0, 0, 9], 80).into();
        service.sorry = Some(SorryStatus { address, in_use: true, connections: 0 });
        (service.quorum.since_ms, service.quorum.shortage) =
            (5_000, "its only server is drained by the operator".into());
        let expected = "Service www has sent its clients to its sorry server for 5.0s: its only \
                        server is drained by the operator.";
        assert_eq!(said(&document), [expected]);
    }

    #[test]
    fn a_recovery_says_when_it_counts_again() {
        let mut document = sample::document();
        document.services[0].fitness.hold_ms = Some(5_000);
        document.services[0].fitness.losses = 2;
        let expected = "It counts as able to serve service www in 5.0s, because it was lost 2 \
                        times of late.";
        assert_eq!(said(&document)[1..], [expected]);
        let unfit = UnfitObject { object: "service www".into(), detail: String::new() };
        document.instances[0].unfit = vec![unfit];
        document.instances[0].effective_priority = 2;
        let objects = served_text::all(&document);
        let priority = competes_unfit(&document.instances[0], &objects, "competes");
        let expected = "It competes with priority 2 instead of 150, behind every node that can \
                        serve, because service www has come back, and does not count yet; \
                        192.0.2.2 comes first with priority 100.";
        assert_eq!(priority.as_deref(), Some(expected));
    }

    #[test]
    fn a_master_that_cannot_serve_says_why_its_priority_is_what_it_is_and_when_it_offers() {
        let mut document = sample::document();
        document.services[0].fitness.populated = Some(false);
        document.services[0].servers[0].up = Some(false);
        let instance = &mut document.instances[0];
        let unfit = UnfitObject { object: "service www".into(), detail: String::new() };
        (instance.role, instance.unfit) = ("master".into(), vec![unfit]);
        (instance.effective_priority, instance.offer_in_ms) = (2, Some(40_000));
        let objects = served_text::all(&document);
        let priority = competes_unfit(&document.instances[0], &objects, "competes");
        let expected = "It competes with priority 2 instead of 150, behind every node that can \
                        serve, because it cannot serve service www; it offers its mastership again \
                        in 40s.";
        assert_eq!(priority.as_deref(), Some(expected));
    }

    /// keepalived's `nopreempt`: nothing moves, and nobody sees why.
    #[test]
    fn every_reason_to_stay_has_a_sentence_and_a_note() {
        let mut instance = sample::document().instances.remove(0);
        assert_eq!(held_back(&instance), None);
        let mut said = |reason: &str, left_ms| {
            let held = HeldBackStatus { reason: reason.into(), left_ms };
            let note = held_back_note(&held);
            instance.held_back = Some(held);
            (held_back(&instance).unwrap_or_default(), note)
        };
        let (sentence, note) = said("no-preempt", None);
        let expected = "It leaves 192.0.2.2, which competes with priority 100 only, alone: it does \
                        not preempt (`preempt = false`, `nopreempt`).";
        assert_eq!(sentence, expected);
        assert_eq!(note, "leaves the lower master alone: it does not preempt");
        let (sentence, _) = said("preempt-delay", Some(25_000));
        assert!(sentence.ends_with("alone for 25s more: its preempt delay is not over."));
        let (sentence, _) = said("start-delay", Some(5_000));
        assert_eq!(sentence, "It takes part in 5.0s: its start delay is not over.");
        for reason in ["refused", "lets-pass", "yielded", "unfit"] {
            let (sentence, note) = said(reason, None);
            assert!(!sentence.contains("held back") && !note.contains("held back"), "{sentence}");
        }
    }
}
