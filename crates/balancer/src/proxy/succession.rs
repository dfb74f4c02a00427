//! A proxy that is not as it would be started now, of another program or with other options, is replaced
//! while it serves.
//!
//! ```text
//!   proxy.sock        the one that serves
//!   proxy.sock.next   its successor, until it has taken over; then it is proxy.sock
//! ```
//!
//! Whoever is at `proxy.sock.next` and has been sent what to serve is the proxy, and the name is all
//! that is missing: a daemon that ended in between is followed by one that says so.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use locum_proxy::protocol::{self, Orphan, ProgramFile, ProxyRequest, ProxyStatus};
use rustix::process::Signal;

use super::level::orphan_of;
use super::link::Link;
use super::{ProxyBackend, START_LIMIT, START_POLL, options};
use crate::process::Process;

/// One that has taken over.
struct ProxySuccessor {
    process: Process,
    link: Link,
    /// What it was told, and said.
    request: ProxyRequest,
    orphan: Orphan,
    status: ProxyStatus,
}

impl ProxyBackend {
    /// Replaces the proxy at the link where it is not as it would be started now.
    pub(super) fn review(&mut self, now: Instant) {
        let is_known = self.link.is_some() && self.sent.is_some();
        if self.is_reviewed || !is_known || self.wants_nothing() || !self.succession.is_due(now) {
            return;
        }
        let Some(reason) = self.outdated() else {
            self.is_reviewed = true;
            return;
        };
        let before = self.latest.pid;
        match self.succeed() {
            Ok(successor) => {
                let pid = successor.process.pid();
                self.note(format!(
                    "the proxy (pid {before}) {reason}: another one (pid {pid}) has taken its place, \
                     and it ends with its last connection"
                ));
                self.succession.reset();
                self.install(successor);
            }
            Err(error) => {
                self.succession.fail(now, Duration::ZERO);
                self.note(format!(
                    "the proxy (pid {before}) {reason} and cannot be replaced, it serves on: {error}"
                ));
                // It may have handed over to one that did not go on: it is sent everything again.
                self.hang_up();
            }
        }
    }

    /// Why another process should be there; `None` also where that cannot be told, or it is too old to hand
    /// over.
    fn outdated(&self) -> Option<&'static str> {
        let start = self.latest.start.as_ref()?;
        if self.latest.version < protocol::HANDOVER_SINCE {
            return None;
        }
        let (theirs, ours) = (start.program, ProgramFile::of(&self.program));
        if theirs.zip(ours).is_some_and(|(theirs, ours)| theirs != ours) {
            return Some("runs another program");
        }
        (start.options != options()).then_some("was started with other options")
    }

    fn succeed(&mut self) -> io::Result<ProxySuccessor> {
        let next = next(&self.socket);
        let _ = fs::remove_file(&next);
        let mut process = self.spawn(&next, Some(&self.socket))?;
        match self.take_over(&mut process, &next) {
            Ok((link, request, orphan, status)) => {
                Ok(ProxySuccessor { process, link, request, orphan, status })
            }
            Err(error) => {
                process.signal(Signal::KILL);
                self.ending.push(process);
                let _ = fs::remove_file(&next);
                Err(error)
            }
        }
    }

    fn take_over(
        &self,
        process: &mut Process,
        next: &Path,
    ) -> io::Result<(Link, ProxyRequest, Orphan, ProxyStatus)> {
        let mut link = answering(process, next)?;
        let orphan = orphan_of(self.fit());
        let request = self.whole(orphan);
        let status = link.ask(&request).map_err(io::Error::other)?;
        fs::rename(next, &self.socket)?;
        Ok((link, request, orphan, status))
    }

    fn install(&mut self, successor: ProxySuccessor) {
        let ProxySuccessor { process, link, request, orphan, status } = successor;
        self.ending.extend(self.process.replace(process));
        self.link = Some(link);
        self.take_in(&request, status);
        self.sent = Some(self.table(orphan));
        self.is_reviewed = true;
        self.asked_to_end = false;
    }

    /// Brings to an end what an earlier daemon began and did not finish.
    pub(super) fn settle_succession(&self) {
        let next = next(&self.socket);
        let Ok(mut link) = Link::connect(&next) else {
            let _ = fs::remove_file(&next);
            return;
        };
        match link.ask(&ProxyRequest::Status) {
            Ok(status) if !status.services.is_empty() => {
                let _ = fs::rename(&next, &self.socket);
            }
            // It has taken nothing yet, and has nobody.
            Ok(_) | Err(_) => {
                let process = link.peer().and_then(Process::adopt);
                process.into_iter().for_each(|mut process| process.signal(Signal::KILL));
                let _ = fs::remove_file(&next);
            }
        }
    }
}

/// Waits until a process that is starting answers.
fn answering(process: &mut Process, socket: &Path) -> io::Result<Link> {
    let start = Instant::now();
    while start.elapsed() < START_LIMIT {
        if let Ok(link) = Link::connect(socket) {
            return Ok(link);
        }
        if let Some(end) = process.poll() {
            return Err(io::Error::other(format!("it {end}")));
        }
        thread::sleep(START_POLL);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
}

fn next(socket: &Path) -> PathBuf {
    let mut name = OsString::from(socket);
    name.push(".next");
    PathBuf::from(name)
}
