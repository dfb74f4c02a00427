//! What a reload took up, besides instances: those are counted first, as scripts have always read it.

use std::collections::HashMap;
use std::fmt::Write;

use locum_balancer::SupervisedProcess;
use locum_plan::Plan;

use super::first_few;

/// What became of the files of a HAProxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilesTaken {
    /// As the balancer notes it: by which process, and which files.
    Yes(String),
    /// They say what it runs with.
    Same,
    /// It runs on with what it had, or not at all, in HAProxy's words.
    No(String),
    /// Not within the time that a reload waits.
    Late,
}

impl FilesTaken {
    /// The reload is not whole.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::No(_) | Self::Late => true,
            Self::Yes(_) | Self::Same => false,
        }
    }
}

/// Whether [`differences`] says of anything that it is another.
pub fn has_changes(differences: &str) -> bool {
    differences.contains('(')
}

/// What differs between two plans, as the end of a sentence: `; services: 1 changed (www), 2
/// unchanged`. Kinds of which there are none are left out.
pub fn differences(before: &Plan, after: &Plan) -> String {
    let mut text = String::new();
    kind(
        &mut text,
        "services",
        before.services.iter().map(|one| (&*one.name, one)),
        after.services.iter().map(|one| (&*one.name, one)),
    );
    kind(
        &mut text,
        "haproxy",
        before.haproxy.iter().map(|one| (&*one.name, one)),
        after.haproxy.iter().map(|one| (&*one.name, one)),
    );
    kind(
        &mut text,
        "checks",
        before.checks.iter().map(|one| (&*one.name, one)),
        after.checks.iter().map(|one| (&*one.name, one)),
    );
    text
}

fn kind<'a, T: PartialEq + 'a>(
    text: &mut String,
    word: &str,
    before: impl Iterator<Item = (&'a str, &'a T)>,
    after: impl Iterator<Item = (&'a str, &'a T)>,
) {
    let mut gone: Vec<(&str, &T)> = before.collect();
    let known: HashMap<&str, &T> = gone.iter().copied().collect();
    let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0_usize);
    let mut kept = HashMap::new();
    for (name, one) in after {
        kept.insert(name, ());
        match known.get(name) {
            None => added.push(name.to_owned()),
            Some(former) if *former == one => unchanged += 1,
            Some(_) => changed.push(name.to_owned()),
        }
    }
    gone.retain(|(name, _)| !kept.contains_key(name));
    let removed: Vec<String> = gone.iter().map(|(name, _)| (*name).to_owned()).collect();
    let counts = [("added", added), ("changed", changed), ("removed", removed)];
    let counts = counts.iter().filter(|(_, names)| !names.is_empty());
    let mut parts: Vec<String> = counts
        .map(|(what, names)| format!("{} {what} ({})", names.len(), first_few(names, ", ")))
        .collect();
    if unchanged > 0 {
        parts.push(format!("{unchanged} unchanged"));
    }
    if !parts.is_empty() {
        let _ = write!(text, "; {word}: {}", parts.join(", "));
    }
}

/// What became of the files of this HAProxy, which does not change any more unless it is late.
/// `notes` are those of this reload; `None` where nothing runs, nor shall.
pub fn files_taken(process: Option<&SupervisedProcess>, notes: &[String]) -> Option<FilesTaken> {
    let process = process?;
    let error = process.error.as_deref().unwrap_or("ended");
    Some(match (process.is_changing, process.is_refused, process.pid, notes) {
        (true, _, _, _) => FilesTaken::Late,
        (false, true, _, _) => FilesTaken::No(error.to_owned()),
        (false, false, _, [.., last]) => FilesTaken::Yes(last.clone()),
        (false, false, Some(_), []) => FilesTaken::Same,
        (false, false, None, []) => return None,
    })
}

/// A line for one HAProxy.
pub fn files_line(name: &str, taken: &FilesTaken) -> String {
    match taken {
        FilesTaken::Yes(note) => format!("haproxy {name}: {note}"),
        FilesTaken::Same => format!("haproxy {name}: runs on, its files say what they said"),
        FilesTaken::No(error) => format!(
            "haproxy {name}: its files are NOT taken up, and tried again until they are: {error}"
        ),
        FilesTaken::Late => {
            format!("haproxy {name}: its files are still being taken up: look at `locum status`")
        }
    }
}

#[cfg(test)]
mod tests {
    use locum_plan::{HaproxyFile, Standby};

    use super::*;

    fn file(name: &str, config: &str) -> HaproxyFile {
        HaproxyFile {
            name: name.into(),
            instance: None,
            config: config.into(),
            program: "haproxy".into(),
            standby: Standby::Cold,
            answer: None,
        }
    }

    /// Case: a reload that changed the servers of a service said "0 changed, 1 unchanged".
    #[test]
    fn what_was_added_changed_and_removed_is_counted_and_named() {
        let of = |files: &[(&str, &str)]| Plan {
            haproxy: files.iter().map(|(name, config)| file(name, config)).collect(),
            ..Plan::default()
        };
        let (none, one) = (of(&[]), of(&[("front", "/a.cfg")]));
        assert_eq!(differences(&none, &none), "");
        assert_eq!(differences(&none, &one), "; haproxy: 1 added (front)");
        assert_eq!(differences(&one, &none), "; haproxy: 1 removed (front)");
        assert_eq!(differences(&one, &one), "; haproxy: 1 unchanged");
        assert!(has_changes(&differences(&one, &none)) && !has_changes(&differences(&one, &one)));
        let many = of(&[("front", "/b.cfg"), ("mail", "/m.cfg"), ("www", "/w.cfg")]);
        let expected = "; haproxy: 2 added (mail, www), 1 changed (front)";
        assert_eq!(differences(&one, &many), expected);
    }
}
