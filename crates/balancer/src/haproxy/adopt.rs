//! HAProxies that an earlier daemon of ours left.
//!
//! The state file names those that ran when it was written, by number and start time. A crash in the
//! middle of a start leaves one that it does not name yet: that one is found by a mark in its
//! environment, which says for which run directory and which HAProxy it was started, and carries a
//! key that was written down before the start. Environments are handed on to children and can be
//! copied, so the mark alone proves nothing: a process that carries it counts as ours only if it
//! also runs in our network namespace, as our user, with the arguments that we start a HAProxy with,
//! and if it has a key of the state file. Where that file is gone, the rest must do.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use crate::haproxy::listening::{Listening, listening, listens_as};
use crate::haproxy::record::ProcessRecord;
use crate::process::{Identity, status_field};

/// Run directory and escaped name, as one path.
const NAME: &str = "LOCUM_HAPROXY";

/// SHA-256 of the file it was started from, in hexadecimal.
const DIGEST: &str = "LOCUM_HAPROXY_DIGEST";

/// Of this one start.
const KEY: &str = "LOCUM_HAPROXY_KEY";

/// Longest environment or command line read, in octets: far more than a service manager hands on.
const TEXT_LIMIT: u64 = 1 << 20;

/// What our processes carry, for one run directory.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    run_dir: PathBuf,
}

/// What a mark says of the process that carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Marked {
    name: String,
    digest: String,
    key: String,
}

/// A process that is ours and that the state file does not name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub name: String,
    identity: Identity,
    parent: u32,
    digest: String,
    listens: bool,
}

/// What becomes of all processes of one HAProxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Inheritance {
    pub keep: ProcessRecord,
    /// To be told to finish: another one serves.
    pub extra: Vec<Identity>,
}

impl Mark {
    pub(super) fn new(run_dir: &Path) -> Self {
        // The next daemon may be started elsewhere; without a current directory, as it is.
        Self { run_dir: std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned()) }
    }

    pub(super) fn put(&self, command: &mut Command, name: &str, digest: &str, key: &str) {
        command.env(NAME, self.run_dir.join(escaped(name))).env(DIGEST, digest).env(KEY, key);
    }

    /// All of ours that live in this network namespace; another one's daemon looks after its own.
    /// `keys` are those of the state file, `None` where there is no such file.
    pub(super) fn find(&self, keys: Option<&BTreeSet<&str>>) -> Vec<Found> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers =
            processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let found: Vec<Found> = numbers.filter_map(|pid| self.examine(pid, keys)).collect();
        // Workers have their master's environment, and it looks after them.
        let is_worker = |one: &Found| found.iter().any(|other| other.identity.pid == one.parent);
        found.iter().filter(|one| !is_worker(one)).cloned().collect()
    }

    fn examine(&self, pid: u32, keys: Option<&BTreeSet<&str>>) -> Option<Found> {
        let identity = Identity::of(pid)?;
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        if pid == std::process::id() || network(&pid.to_string())? != network("self")? {
            return None;
        }
        let Marked { name, digest, key } = self.read(&text_of(pid, "environ")?)?;
        if !is_started_by_us(&text_of(pid, "cmdline")?)
            || keys.is_some_and(|keys| !keys.contains(key.as_str()))
        {
            return None;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let own = geteuid().as_raw();
        // HAProxy may have changed its user, but its listeners are still those of the user who made
        // them.
        if !runs_as(&status, own) && !listens_as(pid, own) {
            return None;
        }
        let parent = status_field(&status, "PPid:")?.parse().ok()?;
        let listens = listening(pid) != Listening::No;
        // All of this was read of one and the same process.
        identity.is_alive().then_some(Found { name, identity, parent, digest, listens })
    }

    /// What it says, when it is of our run directory.
    fn read(&self, environment: &[u8]) -> Option<Marked> {
        let value = |name: &str| {
            let mut variables = environment.split(|octet| *octet == 0);
            variables.find_map(|variable| {
                variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
            })
        };
        let path = PathBuf::from(OsString::from_vec(value(NAME)?));
        if path.parent()?.as_os_str().as_bytes() != self.run_dir.as_os_str().as_bytes() {
            return None;
        }
        let name = unescaped(path.file_name()?.to_str()?)?;
        let digest = String::from_utf8(value(DIGEST)?).ok()?;
        let key = value(KEY).and_then(|key| String::from_utf8(key).ok()).unwrap_or_default();
        Some(Marked { name, digest, key })
    }
}

/// What a name may hold as it is, so that it is one component of a path.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_'
}

fn escaped(name: &str) -> String {
    let octet = |octet: u8| match is_plain(octet) {
        true => char::from(octet).to_string(),
        false => format!("%{octet:02x}"),
    };
    name.bytes().map(octet).collect()
}

/// The inverse of [`escaped`].
fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            octets.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            octets.push(*first);
        }
    }
    String::from_utf8(octets).ok()
}

/// The arguments that [`super::supervisor`] gives a HAProxy. An interpreter and the path of a script
/// may stand before them.
fn is_started_by_us(command_line: &[u8]) -> bool {
    let words: Vec<&[u8]> =
        command_line.strip_suffix(b"\0").unwrap_or(command_line).split(|o| *o == 0).collect();
    let words = match words.as_slice() {
        [words @ .., b"-sf", _] => words,
        words => words,
    };
    matches!(words, [_, .., b"-db", b"-f", _])
}

/// Whether a process is a HAProxy that a daemon of ours started, of whatever run directory, or a
/// worker of one.
pub(crate) fn is_our_haproxy(pid: u32) -> bool {
    let environment = text_of(pid, "environ").unwrap_or_default();
    let mut variables = environment.split(|octet| *octet == 0);
    variables.any(|one| one.starts_with(NAME.as_bytes()) && one.get(NAME.len()) == Some(&b'='))
        && text_of(pid, "cmdline").is_some_and(|line| is_started_by_us(&line))
}

fn text_of(pid: u32, file: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/{file}")).ok()?;
    file.take(TEXT_LIMIT).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Real, effective, saved and file system user alike: who starts a setuid program gives it its
/// environment.
fn runs_as(status: &str, user: u32) -> bool {
    status_field(status, "Uid:")
        .is_some_and(|users| users.split_ascii_whitespace().all(|one| one.parse() == Ok(user)))
}

/// One goes on: the youngest that listens, since each was started to follow the one before, and
/// one that does not listen yet may never do so.
pub(super) fn choose(record: ProcessRecord, found: Vec<Found>) -> Inheritance {
    let is_new = |one: &Found| {
        !record.leaving.contains(&one.identity)
            && record.running.as_ref().is_none_or(|(running, _)| *running != one.identity)
    };
    let mut candidates: Vec<_> = found
        .into_iter()
        .filter(is_new)
        .map(|one| (one.listens, one.identity, one.digest))
        .collect();
    if candidates.is_empty() {
        return Inheritance { keep: record, extra: Vec::new() };
    }
    let ProcessRecord { running, leaving, .. } = record;
    let running = running.filter(|(identity, _)| identity.is_alive());
    candidates
        .extend(running.map(|(identity, digest)| {
            (listening(identity.pid) != Listening::No, identity, digest)
        }));
    candidates.sort_by_key(|(listens, identity, _)| (*listens, identity.start_time, identity.pid));
    let running = candidates.pop().map(|(_, identity, digest)| (identity, digest));
    let extra = candidates.into_iter().map(|(_, identity, _)| identity).collect();
    Inheritance { keep: ProcessRecord { running, leaving, key: None }, extra }
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
