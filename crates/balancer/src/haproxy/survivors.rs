//! HAProxies that an earlier daemon of ours left, found by a mark in their environment.
//!
//! The state file names what ran when it was written. It may be gone, or be a moment older than the
//! last start; the mark is there from the process's first instant to its last. It says whose the
//! process is (run directory and unit) and which content of the file it was started from.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use crate::haproxy::listening::{is_listening, listens_as};
use crate::haproxy::unit::Remembered;
use crate::process::Identity;

/// Run directory and name of the unit, as one path.
const UNIT: &str = "LOCUM_UNIT";

/// SHA-256 of the file it was started from, in hexadecimal.
const CONFIG: &str = "LOCUM_UNIT_CONFIG";

/// Longest environment read, in octets: far more than a service manager hands on.
const ENVIRONMENT_LIMIT: u64 = 1 << 20;

/// What our processes carry, for one run directory.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    run_dir: PathBuf,
}

/// A process that carries the mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Survivor {
    pub unit: String,
    identity: Identity,
    parent: u32,
    digest: String,
    listens: bool,
}

/// What becomes of all processes of one unit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Inheritance {
    pub keep: Remembered,
    /// To be told to finish: another one serves.
    pub surplus: Vec<Identity>,
}

impl Mark {
    pub(super) fn new(run_dir: &Path) -> Self {
        // The next daemon may be started elsewhere; without a current directory, as it is.
        Self { run_dir: std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned()) }
    }

    pub(super) fn put(&self, command: &mut Command, unit: &str, digest: &str) {
        command.env(UNIT, self.run_dir.join(unit)).env(CONFIG, digest);
    }

    /// All that live in this network namespace; another one's daemon looks after its own.
    pub(super) fn survivors(&self) -> Vec<Survivor> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers =
            processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let found: Vec<Survivor> = numbers.filter_map(|pid| self.survivor(pid)).collect();
        // Workers have their master's environment, and it looks after them.
        let is_worker = |one: &Survivor| found.iter().any(|other| other.identity.pid == one.parent);
        found.iter().filter(|one| !is_worker(one)).cloned().collect()
    }

    fn survivor(&self, pid: u32) -> Option<Survivor> {
        let identity = Identity::of(pid)?;
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        if pid == std::process::id() || network(&pid.to_string())? != network("self")? {
            return None;
        }
        let (unit, digest) = self.read(&environment(pid)?)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let own = geteuid().as_raw();
        // Anybody may carry the mark. HAProxy may have changed its user, but its listeners are
        // still those of the user who made them.
        if !runs_as(&status, own) && !listens_as(pid, own) {
            return None;
        }
        let parent = field(&status, "PPid:")?.trim().parse().ok()?;
        let listens = is_listening(pid);
        // All of this was read of one and the same process.
        identity.is_alive().then_some(Survivor { unit, identity, parent, digest, listens })
    }

    /// Unit and digest, when it is of our run directory.
    fn read(&self, environment: &[u8]) -> Option<(String, String)> {
        let value = |name: &str| {
            let mut variables = environment.split(|octet| *octet == 0);
            variables.find_map(|variable| {
                variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
            })
        };
        let path = PathBuf::from(OsString::from_vec(value(UNIT)?));
        if path.parent()?.as_os_str().as_bytes() != self.run_dir.as_os_str().as_bytes() {
            return None;
        }
        let unit = path.file_name()?.to_str()?.to_owned();
        Some((unit, String::from_utf8(value(CONFIG)?).ok()?))
    }
}

fn environment(pid: u32) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRONMENT_LIMIT).read_to_end(&mut text).ok()?;
    Some(text)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// Real, effective, saved and file system user alike: who starts a setuid program gives it its
/// environment.
fn runs_as(status: &str, user: u32) -> bool {
    field(status, "Uid:")
        .is_some_and(|users| users.split_ascii_whitespace().all(|one| one.parse() == Ok(user)))
}

/// One goes on: the youngest that listens, since each was started to follow the one before, and
/// one that does not listen yet may never do so.
pub(super) fn choose(remembered: Remembered, found: Vec<Survivor>) -> Inheritance {
    let is_new = |one: &Survivor| {
        !remembered.leaving.contains(&one.identity)
            && remembered.running.as_ref().is_none_or(|(running, _)| *running != one.identity)
    };
    let mut candidates: Vec<_> = found
        .into_iter()
        .filter(is_new)
        .map(|one| (one.listens, one.identity, one.digest))
        .collect();
    if candidates.is_empty() {
        return Inheritance { keep: remembered, surplus: Vec::new() };
    }
    let Remembered { running, leaving } = remembered;
    let running = running.filter(|(identity, _)| identity.is_alive());
    candidates
        .extend(running.map(|(identity, digest)| (is_listening(identity.pid), identity, digest)));
    candidates.sort_by_key(|(listens, identity, _)| (*listens, identity.start_time, identity.pid));
    let running = candidates.pop().map(|(_, identity, digest)| (identity, digest));
    let surplus = candidates.into_iter().map(|(_, identity, _)| identity).collect();
    Inheritance { keep: Remembered { running, leaving }, surplus }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivor(start_time: u64, listens: bool) -> Survivor {
        // No process has this number, so that none of the machine's is taken for it.
        let identity = Identity { pid: u32::MAX, start_time };
        let (unit, digest) = ("web".to_owned(), format!("of {start_time}"));
        Survivor { unit, identity, parent: 1, digest, listens }
    }

    #[test]
    fn the_youngest_that_listens_goes_on_and_the_others_finish() {
        let found = vec![survivor(1, true), survivor(3, false), survivor(2, true)];
        let inheritance = choose(Remembered::default(), found);
        let (running, digest) = inheritance.keep.running.unwrap();
        assert_eq!((running.start_time, digest.as_str()), (2, "of 2"));
        let surplus: Vec<_> = inheritance.surplus.iter().map(|one| one.start_time).collect();
        assert_eq!(surplus, [3, 1]);
    }

    #[test]
    fn what_the_state_file_names_stays_what_it_says() {
        let (running, leaving) = (survivor(1, false), survivor(2, true));
        let remembered = Remembered {
            running: Some((running.identity, running.digest.clone())),
            leaving: vec![leaving.identity],
        };
        let inheritance = choose(remembered.clone(), vec![running, leaving]);
        assert_eq!(inheritance, Inheritance { keep: remembered, surplus: Vec::new() });
    }

    #[test]
    fn only_a_mark_of_this_run_directory_counts() {
        let mark = Mark::new(Path::new("/run/locum"));
        let read = |text: &[u8]| mark.read(text);
        let ours = b"PATH=/bin\0LOCUM_UNIT=/run/locum/web\0LOCUM_UNIT_CONFIG=ab\0";
        assert_eq!(read(ours), Some(("web".to_owned(), "ab".to_owned())));
        assert_eq!(read(b"LOCUM_UNIT=/run/locum2/web\0LOCUM_UNIT_CONFIG=ab\0"), None);
        assert_eq!(read(b"LOCUM_UNIT=/run/locum/a/web\0LOCUM_UNIT_CONFIG=ab\0"), None);
        assert_eq!(read(b"X=LOCUM_UNIT=/run/locum/web\0LOCUM_UNIT_CONFIG=ab\0"), None);
    }

    #[test]
    fn a_setuid_program_runs_as_nobody_of_ours() {
        assert!(runs_as("Name:\ta\nUid:\t0\t0\t0\t0\n", 0));
        assert!(!runs_as("Name:\ta\nUid:\t1000\t0\t0\t0\n", 0));
        assert!(!runs_as("Name:\ta\n", 0));
    }
}
