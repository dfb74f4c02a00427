//! The status for a person: one table per kind of thing, problems first.

mod served;

use std::fmt::Write;

use locum_control::StatusDocument;
use locum_control::status::{CheckStatus, InstanceStatus};

use crate::text::problem::unfit_outlook;
use crate::text::{age, first_few, fitness};

/// How much of a long list is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// What one looks at.
    Screen,
    Whole,
}

/// The whole page.
pub fn render(status: &StatusDocument, extent: Extent) -> String {
    let mut text = head(status);
    for problem in &status.problems {
        line(&mut text, &format!("  ! {problem}"));
    }
    text.push('\n');
    if status.instances.is_empty() {
        text.push_str("no instance is configured\n\n");
    }
    instances(&mut text, &status.instances);
    checks(&mut text, &status.checks);
    served::services(&mut text, status, extent);
    served::processes(&mut text, status);
    text
}

fn head(status: &StatusDocument) -> String {
    let health = match (status.stopping, status.problems.len()) {
        (true, _) => "stopping".to_owned(),
        (false, 0) => "healthy".to_owned(),
        (false, 1) => "1 problem".to_owned(),
        (false, count) => format!("{count} problems"),
    };
    let digest = status.digest.get(..8).unwrap_or(&status.digest);
    format!(
        "node {}: {health}  (locum {}, process {}, {} {digest})\n",
        status.node, status.version, status.pid, status.config
    )
}

fn instances(text: &mut String, instances: &[InstanceStatus]) {
    let header = ["INSTANCE", "ROLE", "FOR", "PRIORITY", "MASTER", "PEER", "ADDRESSES"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for instance in instances {
        rows.push(vec![
            instance.name.clone(),
            instance.role.to_uppercase(),
            age(instance.since_ms),
            priority(instance),
            master(instance),
            peer(instance),
            addresses(instance),
        ]);
    }
    let notes = instances.iter().map(|instance| {
        let mut note = instance.cause.clone();
        if !instance.unfit.is_empty() {
            let what: Vec<String> = instance.unfit.iter().map(|one| one.object.clone()).collect();
            let (what, outlook) = (first_few(&what, ", "), unfit_outlook(instance));
            let _ = write!(note, "; unfit for {what}{outlook}");
        }
        if let Some(held) = &instance.held_back {
            let _ = write!(note, "; {}", fitness::held_back_note(held));
        } else if instance.yielded && instance.role == "backup" {
            note.push_str("; after the handover it stays backup while the peer lives");
        }
        if !instance.missing.is_empty() {
            let without = instance.missing.iter().map(|missing| missing.address.clone());
            let without = first_few(&without.collect::<Vec<_>>(), " ");
            let _ = write!(note, "; without {without}");
        }
        if instance.leaving {
            note.push_str("; being handed over");
        }
        note
    });
    columns(text, &rows, notes);
}

fn checks(text: &mut String, checks: &[CheckStatus]) {
    let mut rows = vec![["CHECK", "STATE", "FOR", "LAST RESULT"].map(str::to_owned).to_vec()];
    for check in checks {
        let state = if check.ignored { "ignored" } else { up_down(check.up) };
        rows.push(vec![
            check.name.clone(),
            state.to_owned(),
            age(check.since_ms),
            check.detail.clone(),
        ]);
    }
    columns(text, &rows, std::iter::empty());
}

fn priority(instance: &InstanceStatus) -> String {
    if !instance.unfit.is_empty() {
        return format!("{} of {}, unfit", instance.effective_priority, instance.base_priority);
    }
    if instance.adjustments.is_empty() {
        return instance.effective_priority.to_string();
    }
    let parts: Vec<String> =
        instance.adjustments.iter().map(|part| format!("{:+} {}", part.value, part.name)).collect();
    format!("{} = {} {}", instance.effective_priority, instance.base_priority, parts.join(" "))
}

fn master(instance: &InstanceStatus) -> String {
    match (instance.role.as_str(), instance.master) {
        ("master", _) => "this node".to_owned(),
        (_, Some(address)) => address.to_string(),
        // It answers until someone else is heard.
        ("resigning", None) => "this node".to_owned(),
        (_, None) => "unknown".to_owned(),
    }
}

fn discarded(instance: &InstanceStatus) -> String {
    let other = instance.discarded.iter();
    other.map(|other| format!("{} discarded, {} ago", other.source, age(other.heard_ms))).collect()
}

/// A backup is silent, so a master that hears nobody is as it should be.
fn peer(instance: &InstanceStatus) -> String {
    match (&instance.peer, instance.role.as_str()) {
        (None, _) | (_, "master") if instance.discarded.is_some() => discarded(instance),
        (None, "master") => "silent".to_owned(),
        (None, _) => "not heard".to_owned(),
        (Some(peer), _) if peer.priority == 0 => {
            format!("{} released, {} ago", peer.address, age(peer.heard_ms))
        }
        (Some(peer), _) => {
            format!("{} prio {}, {} ago", peer.address, peer.priority, age(peer.heard_ms))
        }
    }
}

fn addresses(instance: &InstanceStatus) -> String {
    first_few(&instance.addresses, " ")
}

fn up_down(up: Option<bool>) -> &'static str {
    match up {
        Some(true) => "up",
        Some(false) => "DOWN",
        None => "unknown",
    }
}

/// Aligned columns, two spaces apart, a note indented below each row but the first; nothing at all
/// when there is only the header.
fn columns(text: &mut String, rows: &[Vec<String>], notes: impl Iterator<Item = String>) {
    if rows.len() < 2 {
        return;
    }
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width_of(column).unwrap_or(0)).collect();
    let mut notes = std::iter::once(String::new()).chain(notes);
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        line(text, &cells.collect::<Vec<_>>().join("  "));
        match notes.next() {
            Some(note) if !note.is_empty() => line(text, &format!("    {note}")),
            Some(_) | None => {}
        }
    }
    text.push('\n');
}

fn line(text: &mut String, content: &str) {
    text.push_str(content.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use locum_control::status::{DiscardedStatus, HeldBackStatus, PeerStatus, UnfitObject};

    use super::*;
    use crate::commands::sample;

    #[test]
    fn the_page_says_who_is_master_and_what_makes_the_priority() {
        let expected = "\
node lb1: 1 problem  (locum 0.1.0, process 7, /etc/locum/locum.toml 0123abcd)
  ! check haproxy fails: exited with status 1

INSTANCE  ROLE    FOR    PRIORITY               MASTER      PEER                          ADDRESSES
web       BACKUP  2m05s  90 = 150 -60 check haproxy  192.0.2.2  192.0.2.2 prio 100, 0.3s ago  192.0.2.10/24
    192.0.2.2 advertises priority 100

CHECK    STATE  FOR    LAST RESULT
haproxy  DOWN   2m06s  exited with status 1

SERVICE  ADDRESS           BACKEND  STATE  WEIGHT  CONNS  LAST RESULT
www      192.0.2.10:80/tcp  -        standby        0
           10.0.0.1:80               up     2       0      status 200 OK

";
        let squeezed = |text: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&render(&sample::document(), Extent::Screen)), squeezed(expected));
    }

    #[test]
    fn a_master_that_hears_nobody_is_as_it_should_be() {
        let mut document = sample::document();
        let instance = &mut document.instances[0];
        let heard = instance.peer.take();
        assert_eq!(peer(instance), "not heard");
        instance.role = "master".into();
        assert_eq!(peer(instance), "silent");
        instance.peer = heard.map(|peer| PeerStatus { priority: 0, ..peer });
        assert_eq!(peer(instance), "192.0.2.2 released, 0.3s ago");
        instance.discarded = Some(DiscardedStatus {
            source: [192, 0, 2, 3].into(),
            reason: "the password is wrong".into(),
            heard_ms: 700,
        });
        assert_eq!(peer(instance), "192.0.2.3 discarded, 0.7s ago");
    }

    #[test]
    fn a_node_that_hands_over_is_master_until_another_is_heard() {
        let mut document = sample::document();
        let instance = &mut document.instances[0];
        instance.role = "resigning".into();
        assert_eq!(master(instance), "192.0.2.2");
        instance.master = None;
        assert_eq!(master(instance), "this node");
    }

    #[test]
    fn a_configuration_without_instances_says_so() {
        let mut document = sample::document();
        document.instances.clear();
        assert!(render(&document, Extent::Screen).contains("no instance is configured"));
    }

    #[test]
    fn an_instance_that_goes_on_without_an_address_says_so() {
        let mut document = sample::document();
        document.instances[0].missing = vec![sample::refused()];
        let page = render(&document, Extent::Screen);
        let note = "    192.0.2.2 advertises priority 100; without 2001:db8::10/64\n";
        assert!(page.contains(note), "{page}");
    }

    #[test]
    fn an_instance_that_cannot_serve_says_so_and_what_comes_of_it() {
        let mut document = sample::document();
        let unfit = UnfitObject { object: "service www".into(), detail: String::new() };
        let instance = &mut document.instances[0];
        (instance.unfit, instance.effective_priority) = (vec![unfit], 2);
        let page = render(&document, Extent::Screen);
        assert!(page.contains("  2 of 150, unfit  "), "{page}");
        let note = "    192.0.2.2 advertises priority 100; unfit for service www; 192.0.2.2 comes \
                    first with priority 100\n";
        assert!(page.contains(note), "{page}");
        let held = HeldBackStatus { reason: "preempt-delay".into(), left_ms: Some(25_000) };
        let instance = &mut document.instances[0];
        (instance.unfit, instance.held_back) = (Vec::new(), Some(held));
        let page = render(&document, Extent::Screen);
        let note = "; leaves the lower master alone for 25s: preempt delay\n";
        assert!(page.contains(note), "{page}");
    }

    #[test]
    fn columns_align_and_an_empty_table_vanishes() {
        let mut text = String::new();
        let rows = vec![vec!["A".to_owned(), "B".to_owned()], vec!["long".into(), "x".into()]];
        columns(&mut text, &rows, ["why".to_owned()].into_iter());
        assert_eq!(text, "A     B\nlong  x\n    why\n\n");
        columns(&mut text, &rows[..1], std::iter::empty());
        assert_eq!(text.lines().count(), 4);
    }
}
