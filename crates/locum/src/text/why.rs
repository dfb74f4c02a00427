//! `status --why`: how each instance came to its role and priority, in sentences.

use std::fmt::Write;

use locum_control::status::{DiscardedStatus, InstanceStatus, RefusedAddress};
use locum_control::{HistoryEntry, Record, StatusDocument};

use super::served::{self, ServedObject};
use super::{age, fitness};

/// Earlier transitions shown per instance.
const MAX_TRANSITIONS: usize = 5;

/// The whole text.
pub fn explain(status: &StatusDocument, history: &[HistoryEntry]) -> String {
    let mut text = String::new();
    let objects = served::all(status);
    for instance in &status.instances {
        for sentence in sentences(instance, status, &objects) {
            let _ = writeln!(text, "{sentence}");
        }
        transitions(&mut text, instance, history);
        text.push('\n');
    }
    if status.instances.is_empty() {
        text.push_str("No instance is configured.\n\n");
    }
    let names: Vec<&str> = status.instances.iter().map(|one| &*one.name).collect();
    let is_apart = |object: &&ServedObject<'_>| {
        object.instance.is_none_or(|instance| !names.contains(&instance))
    };
    let apart = fitness::served(&objects.iter().filter(is_apart).collect::<Vec<_>>());
    if !apart.is_empty() {
        text.push_str("Served on every node, whoever is master:\n");
        apart.iter().for_each(|sentence| text.push_str(&format!("  {sentence}\n")));
        text.push('\n');
    }
    if status.problems.is_empty() {
        text.push_str("Nothing needs an operator.\n");
    } else {
        text.push_str("What needs an operator:\n");
        for problem in &status.problems {
            let _ = writeln!(text, "  ! {problem}");
        }
    }
    text
}

fn sentences(
    instance: &InstanceStatus,
    status: &StatusDocument,
    objects: &[ServedObject<'_>],
) -> Vec<String> {
    let mut all = vec![
        format!(
            "{}: {} is {} since {} ({} ago).",
            instance.name,
            status.node,
            instance.role.to_uppercase(),
            instance.since,
            age(instance.since_ms)
        ),
        format!("  Because: {}.", instance.cause),
    ];
    all.push(format!("  {}", competes(instance, objects)));
    let is_own = |object: &&ServedObject<'_>| object.instance == Some(&*instance.name);
    let own: Vec<&ServedObject<'_>> = objects.iter().filter(is_own).collect();
    all.extend(fitness::served(&own).iter().map(|sentence| format!("  {sentence}")));
    all.extend(
        own.iter()
            .filter_map(|object| object.choice)
            .map(|why| format!("  By choice (`backend = \"auto\"`) {why}.")),
    );
    for part in &instance.adjustments {
        let name = part.name.strip_prefix("check ");
        if let Some(check) = status.checks.iter().find(|check| Some(&*check.name) == name) {
            let state = match check.up {
                Some(true) => "passes",
                Some(false) => "fails",
                None => "has no result yet",
            };
            let since = age(check.since_ms);
            let sentence = format!("  Check {} {state} for {since}: {}.", check.name, check.detail);
            all.push(sentence);
        }
    }
    all.extend(instance.faults.iter().map(|fault| format!("  It cannot take part: {fault}.")));
    all.extend(instance.missing.iter().map(|missing| {
        let RefusedAddress { address, interface, error, again_ms } = missing;
        let again = again(*again_ms);
        format!(
            "  It goes on without {address}: the kernel refused it on {interface} ({error}), \
             {again}."
        )
    }));
    all.extend(instance.stuck.iter().map(|stuck| {
        let RefusedAddress { address, interface, error, again_ms } = stuck;
        let again = again(*again_ms);
        format!(
            "  It must not hold {address} on {interface} and cannot withdraw it ({error}), \
             {again}."
        )
    }));
    if instance.peer.is_some() || instance.discarded.is_none() {
        all.push(hears(instance));
    }
    if let Some(DiscardedStatus { source, reason, heard_ms }) = &instance.discarded {
        let heard = age(*heard_ms);
        all.push(format!("  It discards the adverts of {source}, heard {heard} ago: {reason}."));
    }
    match fitness::held_back(instance) {
        Some(sentence) => all.push(format!("  {sentence}")),
        None if instance.yielded => {
            let sentence = "  An operator handed it over: it stays backup while the peer lives.";
            all.push(sentence.to_owned());
        }
        None => {}
    }
    all
}

/// When the kernel is asked again.
fn again(ms: u64) -> String {
    match ms {
        0 => "which is being tried again".to_owned(),
        ms => format!("tried again in {}", age(ms)),
    }
}

/// What it knows of the other routers.
fn hears(instance: &InstanceStatus) -> String {
    match (&instance.peer, instance.role.as_str()) {
        // Those that could do better and do not try are no less silent.
        (None, "master") if instance.effective_priority < instance.base_priority => {
            "  No other router claims to be master: backups are silent, and one that could do better \
             and does not preempt (`preempt = false`, `nopreempt`) stays so."
                .to_owned()
        }
        (None, "master") => "  No other router claims to be master: backups are silent.".to_owned(),
        (None, _) => "  No other router of this identifier was heard as master.".to_owned(),
        (Some(peer), _) if peer.priority == 0 => format!(
            "  Its peer {} released its mastership {} ago and is silent since.",
            peer.address,
            age(peer.heard_ms)
        ),
        (Some(peer), _) => format!(
            "  Its peer {} competes with priority {} and was heard {} ago.",
            peer.address,
            peer.priority,
            age(peer.heard_ms)
        ),
    }
}

/// The arithmetic of the priority.
fn competes(instance: &InstanceStatus, objects: &[ServedObject<'_>]) -> String {
    let effective = instance.effective_priority;
    let competes = if instance.role == "fault" { "would compete" } else { "competes" };
    if instance.base_priority == 255 {
        return "It owns the addresses: priority 255 is never adjusted.".to_owned();
    }
    if let Some(sentence) = fitness::competes_unfit(instance, objects, competes) {
        return sentence;
    }
    if instance.adjustments.is_empty() {
        return format!("It {competes} with priority {effective}, as configured.");
    }
    let parts: Vec<String> = instance
        .adjustments
        .iter()
        .map(|part| format!("{:+} by {}", part.value, part.name))
        .collect();
    let base = instance.base_priority;
    format!("It {competes} with priority {effective}: {base} configured, {}.", parts.join(", "))
}

fn transitions(text: &mut String, instance: &InstanceStatus, history: &[HistoryEntry]) {
    let mut earlier: Vec<&HistoryEntry> = history
        .iter()
        .rev()
        .filter(|entry| entry.instance.as_deref() == Some(&instance.name))
        .filter(|entry| matches!(entry.record, Record::Transition { .. }))
        .take(MAX_TRANSITIONS)
        .collect();
    earlier.reverse();
    if earlier.is_empty() {
        return;
    }
    text.push_str("  How it came so:\n");
    for entry in earlier {
        if let Record::Transition { from, to, cause_text, priority, .. } = &entry.record {
            let at = &entry.at;
            let _ =
                writeln!(text, "    {at}  {from} -> {to} with priority {priority}: {cause_text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample;

    #[test]
    fn the_chain_of_causes_is_written_in_sentences() {
        let expected = "\
web: lb1 is BACKUP since 2026-01-02T03:04:05.000Z (2m05s ago).
  Because: 192.0.2.2 advertises priority 100.
  It competes with priority 90: 150 configured, -60 by check haproxy.
  It could serve at once: service www (1 of 1 servers up).
  Check haproxy fails for 2m06s: exited with status 1.
  Its peer 192.0.2.2 competes with priority 100 and was heard 0.3s ago.
  How it came so:
    2026-01-02T03:04:05.000Z  master -> backup with priority 90: 192.0.2.2 advertises priority 100

What needs an operator:
  ! check haproxy fails: exited with status 1
";
        assert_eq!(explain(&sample::document(), &sample::history()), expected);
    }

    #[test]
    fn why_a_service_is_served_by_what_it_is_served_by_is_said_where_there_was_a_choice() {
        let mut document = sample::document();
        assert!(!explain(&document, &[]).contains("By choice"), "there is nothing to explain");
        let why = "www is served by the built-in proxy: IPVS cannot: this kernel has no IPVS";
        document.services[0].backend_choice = Some(why.into());
        let text = explain(&document, &[]);
        assert!(text.contains(&format!("  By choice (`backend = \"auto\"`) {why}.\n")), "{text}");
    }

    #[test]
    fn a_peer_that_released_its_mastership_does_not_compete_with_priority_0() {
        let mut document = sample::document();
        if let Some(peer) = &mut document.instances[0].peer {
            peer.priority = 0;
        }
        let text = explain(&document, &[]);
        assert!(text.contains("192.0.2.2 released its mastership 0.3s ago"), "{text}");
        assert!(!text.contains("competes with priority 0"), "{text}");
    }

    #[test]
    fn a_master_that_discards_the_adverts_of_another_does_not_call_it_silent() {
        let mut document = sample::document();
        let instance = &mut document.instances[0];
        instance.role = "master".into();
        instance.peer = None;
        assert!(explain(&document, &[]).contains("No other router claims to be master"));
        document.instances[0].discarded = Some(DiscardedStatus {
            source: [192, 0, 2, 3].into(),
            reason: "the password is wrong".into(),
            heard_ms: 700,
        });
        let text = explain(&document, &[]);
        let expected =
            "It discards the adverts of 192.0.2.3, heard 0.7s ago: the password is wrong.";
        assert!(text.contains(expected) && !text.contains("No other router"), "{text}");
    }

    #[test]
    fn who_is_in_fault_would_compete() {
        let mut document = sample::document();
        document.instances[0].role = "fault".into();
        let text = explain(&document, &[]);
        assert!(text.contains("It would compete with priority 90"), "{text}");
    }

    #[test]
    fn a_configuration_without_instances_says_so() {
        let mut document = sample::document();
        document.instances.clear();
        assert!(explain(&document, &[]).starts_with("No instance is configured.\n"));
    }

    #[test]
    fn addresses_the_kernel_refused_or_keeps_are_shown_with_its_words() {
        let mut document = sample::document();
        document.instances[0].missing = vec![sample::refused()];
        let text = explain(&document, &[]);
        let without = "  It goes on without 2001:db8::10/64: the kernel refused it on eth0 \
                       (permission denied), tried again in 4.2s.\n";
        assert!(text.contains(without), "{text}");
        document.instances[0].stuck = std::mem::take(&mut document.instances[0].missing);
        document.instances[0].stuck[0].again_ms = 0;
        let text = explain(&document, &[]);
        let stuck = "  It must not hold 2001:db8::10/64 on eth0 and cannot withdraw it \
                     (permission denied), which is being tried again.\n";
        assert!(text.contains(stuck), "{text}");
    }

    #[test]
    fn what_follows_no_instance_stands_apart() {
        let mut document = sample::document();
        document.services[0].instance = None;
        document.services[0].active = true;
        let text = explain(&document, &[]);
        let apart = "\n\nServed on every node, whoever is master:\n  Clients are answered: service \
                     www (1 of 1 servers up).\n\n";
        assert!(text.contains(apart), "{text}");
    }

    #[test]
    fn an_owner_is_never_adjusted() {
        let mut document = sample::document();
        document.instances[0].base_priority = 255;
        assert!(explain(&document, &[]).contains("It owns the addresses"));
    }
}
