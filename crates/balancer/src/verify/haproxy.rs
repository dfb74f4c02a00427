//! Whether a HAProxy could be started here from its file: `haproxy -c` says so of what it reads, and
//! the kernel of its ports.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::ports::PortSharing;
use locum_plan::HaproxyFile;
use rustix::process::Signal;

use crate::haproxy::text::{Bind, PathKind, binds};
use crate::haproxy::{
    CHECK_LIMIT, Certainty, FileCheck, HaproxyRefusal, OwnHost, is_shortage, paths_named, read_text,
};
use crate::process::Process;
use crate::verify::port::Ports;
use crate::verify::watch::{Changes, Spot, spots_of};

/// How long a good verdict holds while no change is seen: what no file holds (names to resolve, a
/// file system of other hosts) may have changed.
const SLOW_ROUND: Duration = Duration::from_secs(60);

/// The same of a bad one.
const REPEAT: Duration = Duration::from_secs(10);

/// What could not be looked at is tried again after this long.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

/// Files are written in parts, and a certificate and its key one after the other: they are looked
/// at when this long nothing changed, or when changes go on for longer than [`RESTLESS`].
const QUIET: Duration = Duration::from_millis(300);
const RESTLESS: Duration = Duration::from_secs(1);

/// A verdict that takes longer than one check may is not waited for.
const LONGEST_DOUBT: Duration = CHECK_LIMIT;

/// A verdict counts although files changed while it was made, when that happens all the time.
const MOST_DISCARDED: u32 = 3;

#[derive(Debug)]
pub(super) struct HaproxyLook {
    pub file: Arc<HaproxyFile>,
    /// One runs here: only a restart would meet what is found.
    pub runs: bool,
    check: Option<FileCheck>,
    /// What its file names is not known as of the last level: what nobody reads, nobody watches.
    is_unread: bool,
    /// When the next check is due.
    due: Instant,
    /// When a change was seen that no verdict has taken into account.
    unjudged: Option<Instant>,
    /// What was there when its file was last read, of what that names; itself too.
    present: Vec<PathBuf>,
    /// First and last change since the last check was begun.
    changed: Option<(Instant, Instant)>,
    discarded: u32,
    doubts: u32,
    /// So many doubtful refusals in a row count as one.
    patience: u32,
    /// `None` until it is known.
    verdict: Option<Result<(), Objection>>,
    binds: Vec<Bind>,
    stranger: Option<String>,
    /// What it would listen at and can not, because this host will not have the address.
    foreign: Option<String>,
    pub spots: Vec<Spot>,
}

/// Why a file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Objection {
    /// HAProxy refuses it, in its words.
    Refused(String),
    /// HAProxy or its file is not there, or hangs.
    NotRun(String),
}

impl HaproxyLook {
    pub(super) fn new(file: Arc<HaproxyFile>, runs: bool, patience: u32, now: Instant) -> Self {
        Self {
            file,
            runs,
            check: None,
            is_unread: runs,
            // What has just been started says itself what is wrong with its file.
            due: if runs { now + SLOW_ROUND } else { now },
            unjudged: None,
            present: Vec::new(),
            changed: None,
            discarded: 0,
            doubts: 0,
            patience,
            verdict: None,
            binds: Vec::new(),
            stranger: None,
            foreign: None,
            spots: Vec::new(),
        }
    }

    /// Ends what is under way; whoever takes the process waits for its end.
    pub(super) fn abandon(&mut self) -> Option<Process> {
        let mut process = self.check.take()?.into_process();
        process.signal(Signal::KILL);
        Some(process)
    }

    /// What runs is compared with its file at this moment too, by who runs it: an earlier verdict is
    /// of the file before, and the next one is made when a change is seen or its time has come.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.is_checking() {
            // What it read may be from before.
            self.changed = Some((now, now));
        }
        if self.runs {
            self.verdict = None;
            self.is_unread = true;
        } else {
            self.due = self.due.min(now);
        }
    }

    pub(super) fn notice(&mut self, changes: &Changes, now: Instant) {
        if changes.touch(&self.spots) {
            let since = self.changed.map_or(now, |(since, _)| since);
            self.changed = Some((since, now));
            self.unjudged.get_or_insert(now);
            // That is no half of a file: should it come back, the verdict is discarded.
            if self.present.iter().any(|path| !path.exists()) {
                self.due = now;
            }
        }
    }

    pub(super) fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// When something is to be done next, apart from a check that is under way.
    pub(super) fn next(&self) -> Instant {
        let settled = self.changed.map(|(since, last)| (last + QUIET).min(since + RESTLESS));
        settled.map_or(self.due, |settled| settled.min(self.due))
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.check.is_none() && now >= self.next()
    }

    /// The same, once for a level, where no check is due; false when it was done.
    pub(super) fn read_for_level(&mut self) -> bool {
        let is_unread = self.is_unread;
        if is_unread {
            // A file that cannot be read says so at its check.
            self.read().ok();
        }
        is_unread
    }

    /// Notes what the file names; whoever watches that from here on misses no change.
    pub(super) fn read(&mut self) -> io::Result<()> {
        self.is_unread = false;
        let path = &self.file.config;
        self.spots = spots_of(path);
        if self.file.program.is_absolute() {
            self.spots.extend(spots_of(&self.file.program));
        }
        let text = read_text(path)?;
        // Files that are not there count too: they may come.
        let kind =
            |path: &Path| Some(if path.is_dir() { PathKind::Directory } else { PathKind::File });
        let named = paths_named(&text, path, &kind);
        self.spots.extend(named.iter().flat_map(|path| spots_of(path)));
        self.present = named.into_iter().chain([path.clone()]).filter(|it| it.exists()).collect();
        self.binds = binds(&String::from_utf8_lossy(&text));
        Ok(())
    }

    pub(super) fn start(&mut self, read: io::Result<()>, now: Instant) {
        self.changed = None;
        match read.map(|()| FileCheck::start(&self.file)) {
            Ok(Ok(check)) => self.check = Some(check),
            Ok(Err(refusal)) => self.conclude(Err(refusal), now),
            Err(error) if is_shortage(&error) => self.due = now + SHORTAGE_PAUSE,
            Err(error) => {
                let text = format!("cannot read {}: {error}", self.file.config.display());
                self.settle(Err(Objection::NotRun(text)), now);
            }
        }
    }

    /// Goes on with what is under way. A process that is
    /// returned may still have to be waited for.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Process> {
        let verdict = self.check.as_mut()?.verdict()?;
        let process = self.check.take().map(FileCheck::into_process);
        if self.changed.is_some() && self.discarded < MOST_DISCARDED {
            self.discarded += 1;
            self.due = now + SLOW_ROUND;
            return process;
        }
        self.conclude(verdict, now);
        process
    }

    fn conclude(&mut self, verdict: Result<(), HaproxyRefusal>, now: Instant) {
        let refusal = match verdict {
            Ok(()) => return self.settle(Ok(()), now),
            Err(refusal) => refusal,
        };
        let objection = match &refusal {
            HaproxyRefusal::Refused { .. } => Objection::Refused(refusal.to_string()),
            HaproxyRefusal::NotRun { .. }
            | HaproxyRefusal::TooSlow { .. }
            | HaproxyRefusal::Broken { .. } => Objection::NotRun(refusal.to_string()),
        };
        match refusal.certainty() {
            Certainty::Certain => self.settle(Err(objection), now),
            Certainty::Doubtful if self.doubts + 1 >= self.patience => {
                self.settle(Err(objection), now)
            }
            Certainty::Doubtful => {
                self.doubts += 1;
                self.due = now;
            }
            Certainty::Nothing => self.due = now + SHORTAGE_PAUSE,
        }
    }

    fn settle(&mut self, verdict: Result<(), Objection>, now: Instant) {
        self.due = now + if verdict.is_ok() { SLOW_ROUND } else { REPEAT };
        self.discarded = 0;
        self.doubts = 0;
        self.unjudged = None;
        self.verdict = Some(verdict);
    }

    /// Of one that runs the ports are its own.
    pub(super) fn look_at_ports(&mut self, ports: &mut Ports) {
        // On one interface it is in the way of others, and others of it, on that one alone.
        let binds = self.binds.iter().filter(|bind| bind.interface.is_none());
        let mut addresses = binds.flat_map(|bind| &bind.addresses);
        self.stranger = match self.runs {
            true => None,
            false => addresses.find_map(|at| ports.stranger_at(*at, PortSharing::Shared)),
        };
    }

    /// Of one that runs the addresses are there, or came with the role. `brought`: by the instances
    /// of the plan, to the node that is master.
    pub(super) fn look_at_addresses(
        &mut self,
        host: &mut OwnHost,
        brought: &[IpAddr],
        now: Instant,
    ) {
        let of_line = |bind: &Bind| {
            let is_foreign = |at: &&SocketAddr| {
                let is_known = at.ip().is_unspecified() || brought.contains(&at.ip());
                !is_known && !host.lets_listen(at.ip(), now)
            };
            let at = bind.addresses.iter().find(is_foreign)?;
            Some(format!(
                "line {} of {} binds {at}, and {} is neither an address of this node nor one of an \
                 instance, so haproxy would not start: use this node's own there, or add \
                 \"transparent\" to the line",
                bind.line,
                self.file.config.display(),
                at.ip(),
            ))
        };
        let mut fixed = self.binds.iter().filter(|bind| !bind.transparent);
        let foreign = if self.runs { None } else { fixed.find_map(of_line) };
        self.foreign = foreign;
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.verdict.is_none() && !self.runs
    }

    /// The verdict, if there is one, is of files that have changed since.
    pub(super) fn is_pending(&self) -> bool {
        let in_doubt = self.unjudged.is_some_and(|since| since.elapsed() < LONGEST_DOUBT);
        self.is_unknown() || in_doubt && !self.runs
    }

    pub(super) fn objection(&self) -> Option<&Objection> {
        self.verdict.as_ref()?.as_ref().err()
    }

    pub(super) fn foreign(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    /// Who has one of its ports.
    pub(super) fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use locum_plan::{Name, Standby};

    use super::*;
    use crate::verify::watch::Watcher;

    /// Found well a moment ago, and watched.
    fn well(root: &Path, now: Instant) -> (HaproxyLook, Watcher) {
        let config = root.join("edge.cfg");
        let list = root.join("list.acl");
        let text =
            format!("listen web\n    http-request deny if {{ src -f {} }}\n", list.display());
        fs::write(&config, text).unwrap();
        fs::write(&list, "192.0.2.1\n").unwrap();
        let (name, program) = ("edge".into(), "haproxy".into());
        let (instance, standby, answer) = (None, Standby::Cold, None);
        let file = HaproxyFile { name, instance, config, program, standby, answer };
        let mut look = HaproxyLook::new(Arc::new(file), false, 1, now);
        look.read().unwrap();
        let mut watcher = Watcher::default();
        watcher.follow(look.spots.iter().map(|(directory, _)| directory.as_path()));
        look.settle(Ok(()), now);
        (look, watcher)
    }

    #[test]
    fn what_has_changed_is_in_doubt_and_what_has_vanished_is_looked_at_without_a_rest() {
        let root = tempfile::tempdir().unwrap();
        let (list, now) = (root.path().join("list.acl"), Instant::now());
        let (mut look, mut watcher) = well(root.path(), now);
        assert!(!look.is_pending());
        fs::write(&list, "192.0.2.2\n").unwrap();
        look.notice(&watcher.changes(), now);
        assert!(look.is_pending() && !look.is_due(now) && look.is_due(now + QUIET));
        fs::remove_file(&list).unwrap();
        look.notice(&watcher.changes(), now);
        assert!(look.is_pending() && look.is_due(now));
        look.settle(Ok(()), now);
        assert!(!look.is_pending(), "it has a verdict");
    }

    #[test]
    fn a_verdict_that_does_not_come_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let begun = Instant::now().checked_sub(LONGEST_DOUBT).unwrap();
        let (mut look, mut watcher) = well(root.path(), begun);
        fs::write(root.path().join("list.acl"), "192.0.2.2\n").unwrap();
        look.notice(&watcher.changes(), begun);
        assert!(!look.is_pending() && look.unjudged.is_some());
    }

    #[test]
    fn a_level_asks_again_of_what_stands_by_and_not_of_what_runs() {
        let file = Arc::new(HaproxyFile {
            name: Name::from("edge"),
            instance: None,
            config: "/no/such.cfg".into(),
            program: "haproxy".into(),
            standby: Standby::Cold,
            answer: None,
        });
        let now = Instant::now();
        for runs in [false, true] {
            let mut look = HaproxyLook::new(Arc::clone(&file), runs, 1, now);
            look.settle(Err(Objection::Refused("an earlier file".to_owned())), now);
            assert!(look.next() > now);
            look.look_again(now);
            assert_eq!(look.next() > now, runs);
            assert_eq!(look.objection().is_none(), runs, "of what runs it is of the file before");
        }
    }
}
