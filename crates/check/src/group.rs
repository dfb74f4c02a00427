//! A started command and everything it forked: one process group, ended and reaped as one.
//!
//! The leader is reaped only after the group's last signal: while it is a zombie its number
//! cannot be given to a stranger, so a signal to the group never hits one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rustix::process::{self, PidfdFlags, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time;
use tracing::warn;

/// Between SIGTERM and SIGKILL: enough for a shell's trap, too short to miss many runs.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// Owns the group; dropping it kills the group and reaps the leader in the background.
#[derive(Debug)]
pub(crate) struct Group {
    /// `None` once reaped.
    leader: Option<Leader>,
}

#[derive(Debug)]
struct Leader {
    child: Child,
    pid: Pid,
    /// Becomes readable when the leader has exited, before it is reaped.
    pidfd: AsyncFd<OwnedFd>,
}

impl Group {
    /// Takes over a child that was started as the leader of its own group. When its exit cannot
    /// be watched it is killed and the error returned.
    pub(crate) fn adopt(mut child: Child) -> io::Result<Self> {
        let number = process::Pid::from_child(&child);
        let pid = Pid::from_raw(number.as_raw_nonzero().get());
        let watched = process::pidfd_open(number, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(watch);
        match watched {
            Ok(pidfd) => Ok(Self { leader: Some(Leader { child, pid, pidfd }) }),
            Err(error) => {
                send(pid, Signal::SIGKILL);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Waits until the leader has exited. May be dropped and called again.
    pub(crate) async fn exited(&self) -> io::Result<()> {
        match &self.leader {
            Some(leader) => leader.exited().await,
            None => Ok(()),
        }
    }

    /// Kills what the leader left behind. The leader must have exited, else it is hit too.
    pub(crate) fn kill(&self) {
        if let Some(leader) = &self.leader {
            send(leader.pid, Signal::SIGKILL);
        }
    }

    /// Collects the exit status of a leader that has exited; one that has not is killed.
    pub(crate) fn reap(mut self) -> io::Result<ExitStatus> {
        let status = match &mut self.leader {
            Some(leader) => leader.child.try_wait()?,
            None => None,
        };
        let status = status.ok_or(io::ErrorKind::WouldBlock)?;
        self.leader = None;
        Ok(status)
    }

    /// SIGTERM, [`GRACE`], SIGKILL for all that is left, reap. Waits as long as the kernel does
    /// not let the leader go.
    pub(crate) async fn end(self) {
        if let Some(leader) = &self.leader {
            send(leader.pid, Signal::SIGTERM);
        }
        let _grace_may_pass = time::timeout(GRACE, self.exited()).await;
        self.kill();
        if self.exited().await.is_ok() {
            let _status_of_a_killed_run = self.reap();
        }
    }
}

impl Leader {
    /// Readiness may be claimed too early by the event queue, so the kernel is asked as well.
    async fn exited(&self) -> io::Result<()> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            let mut ready = self.pidfd.readable().await?;
            if process::waitid(WaitId::PidFd(self.pidfd.as_fd()), look)?.is_some() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        send(leader.pid, Signal::SIGKILL);
        // Without a runtime, or when it is shutting down, the zombie goes with the daemon.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if leader.exited().await.is_ok() {
                    let _status_of_a_killed_run = leader.child.wait();
                }
            });
        }
    }
}

/// Registers a pidfd with the event queue of the current runtime.
#[expect(
    deprecated,
    reason = "deprecated for types whose descriptor may change or close under the queue, which an \
              OwnedFd cannot; its successor needs unsafe code, which is forbidden here"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

fn send(group: Pid, signal: Signal) {
    match signal::killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        // A script that became another user by itself can only be signalled by root.
        Err(errno) => warn!(group = group.as_raw(), %signal, %errno, "cannot signal a script"),
    }
}
