//! Run one command to its end, within limits: the script probe and the hooks.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use locum_plan::{Command, Outcome, ReportedWeight, Verdict};
use nix::sys::signal::Signal;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{self, Instant};

use crate::output::CommandOutput;
use crate::spawn::{Launcher, NotStarted, Started};

/// Background processes of hooks whose output is still being thrown away. Beyond this the pipe
/// is closed, and a process that writes to it dies of SIGPIPE; so many are a leak in the hook.
const BACKGROUND_LIMIT: usize = 64;

static BACKGROUND: AtomicUsize = AtomicUsize::new(0);

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    pub end: End,
    /// What it wrote to standard output and standard error, in the order written; at most 4 KiB,
    /// from the middle of longer text something is left out, and says so.
    pub output: String,
    /// From the fork to its end, or to the time-out.
    pub took: Duration,
}

/// How a command ended. Displays as "exited with status 1", "killed by SIGSEGV",
/// "timed out after 2s", or the reason why it never ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// With this status, 0..=255.
    Exited(i32),
    /// Killed by a signal of this number that was not ours.
    Signalled(i32),
    /// Killed, with its process group, after this long.
    TimedOut(Duration),
    /// Never ran: no such program, not executable, no such user. The text says which.
    CannotRun(String),
    /// Never ran, for want of a process, a thread, a descriptor or memory: it may later.
    NoRoom(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Signalled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
            Self::CannotRun(reason) | Self::NoRoom(reason) => f.write_str(reason),
        }
    }
}

impl Launcher {
    /// Runs `command` in its own process group, with standard input empty. Its environment is what
    /// the daemon has of `PATH`, `LANG`, `LANGUAGE`, `LC_*` and `TZ`, the `HOME`, `SHELL`, `USER` and
    /// `LOGNAME` of the user it runs as, and of `environment` what is called `LOCUM_*`.
    ///
    /// After `timeout` the whole group gets SIGTERM, a little later SIGKILL. What a command leaves
    /// running in the background when it exits in time is left alone, and never waited for. Must be
    /// called within a tokio runtime with I/O and time enabled, on a thread that blocks no signals,
    /// since the command inherits that; dropping the future kills the group.
    pub async fn run(
        &self,
        command: &Command,
        environment: &[(String, String)],
        timeout: Duration,
    ) -> Ran {
        let mut run = run(self, command, environment, timeout, Background::Leave).await;
        if let Some(reaping) = run.reaping.take() {
            // The next hook of an instance must not overtake one that is still being killed; one
            // that cannot be killed must not stop the queue either.
            let _may_be_unkillable = time::timeout(UNKILLABLE_AFTER, reaping).await;
        }
        run.ran
    }
}

/// A run that was killed and is not gone after this long is stuck in the kernel: the grace and
/// time for a loaded host to let it go.
pub(crate) const UNKILLABLE_AFTER: Duration = Duration::from_secs(2);

/// What happens to processes that a command leaves behind when it exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Background {
    /// A probe has no business in the background: thousands of runs would pile up.
    Kill,
    /// A hook may start what shall go on, as it may under keepalived.
    Leave,
}

/// A run as seen by the scheduler.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ran: Ran,
    /// First line of the output.
    pub(crate) excerpt: Option<String>,
    /// Present while processes of this run may still exist.
    pub(crate) reaping: Option<Reaping>,
}

/// Resolves when nothing of a killed run is left. Dropping it does not end the killing.
#[derive(Debug)]
pub(crate) struct Reaping(JoinHandle<()>);

impl Future for Reaping {
    type Output = Result<(), JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// A script of a probe, and what its end means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedScript<'a> {
    pub(crate) command: &'a Command,
    /// The server that it is about.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) statuses: Statuses,
}

impl AskedScript<'_> {
    fn environment(&self) -> Vec<(String, String)> {
        let Some(server) = self.server else { return Vec::new() };
        vec![
            ("LOCUM_ADDRESS".to_owned(), server.ip().to_string()),
            ("LOCUM_PORT".to_owned(), server.port().to_string()),
        ]
    }
}

/// What the status of an exit says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Statuses {
    /// 0 passes, and nothing else.
    Pass,
    /// From 2 it passes too, and is the weight and 2 more: keepalived's misc_dynamic.
    Weigh,
}

/// Runs a probe's script once.
pub(crate) async fn probe(
    launcher: &Launcher,
    asked: AskedScript<'_>,
    timeout: Duration,
) -> (Outcome, Option<Reaping>) {
    let environment = asked.environment();
    let run = run(launcher, asked.command, &environment, timeout, Background::Kill).await;
    let weight = match (&run.ran.end, asked.statuses) {
        (End::Exited(status @ 2..), Statuses::Weigh) => u32::try_from(status - 2).ok(),
        _ => None,
    };
    let weight = weight.map(ReportedWeight::Absolute);
    let verdict = match &run.ran.end {
        End::Exited(0) => Verdict::Pass,
        End::Exited(_) if weight.is_some() => Verdict::Pass,
        End::CannotRun(_) | End::NoRoom(_) => Verdict::CannotRun,
        // 126 and 127 too: `docker exec`, `timeout` and `sh -c` end so when what they ask is gone.
        End::Exited(_) | End::Signalled(_) | End::TimedOut(_) => Verdict::Fail,
    };
    let detail = match (verdict, run.excerpt) {
        (Verdict::Fail | Verdict::CannotRun, Some(line)) => format!("{}: {line}", run.ran.end),
        (Verdict::Fail | Verdict::CannotRun, None) | (Verdict::Pass, _) => run.ran.end.to_string(),
    };
    (Outcome { verdict, detail, took: run.ran.took, weight }, run.reaping)
}

async fn run(
    launcher: &Launcher,
    command: &Command,
    environment: &[(String, String)],
    timeout: Duration,
    background: Background,
) -> Run {
    let begin = Instant::now();
    let deadline = begin + timeout;
    let stuck =
        || End::CannotRun(format!("could not be started within {timeout:?}: is its disk stuck?"));
    let start = launcher.start(command.clone(), environment.to_vec());
    let mut starting = match time::timeout_at(deadline, start).await {
        Ok(Ok(starting)) => starting,
        Ok(Err(reason)) => return never_ran(reason.into(), begin, None),
        Err(_) => return never_ran(stuck(), begin, None),
    };
    let started = match time::timeout_at(deadline, &mut starting).await {
        Ok(Ok(Ok(started))) => started,
        Ok(Ok(Err(reason))) => return never_ran(reason.into(), begin, None),
        Ok(Err(_)) => {
            let end = End::CannotRun("the thread that starts it ended without a result".into());
            return never_ran(end, begin, None);
        }
        Err(_) => return never_ran(stuck(), begin, Some(end_late_start(starting))),
    };
    watch(started, begin, timeout, background).await
}

impl From<NotStarted> for End {
    fn from(reason: NotStarted) -> Self {
        match reason {
            NotStarted::Wrong(reason) => Self::CannotRun(reason),
            NotStarted::NoRoom(reason) => Self::NoRoom(reason),
        }
    }
}

/// Follows a started command to its exit or its deadline.
async fn watch(mut it: Started, begin: Instant, timeout: Duration, background: Background) -> Run {
    let deadline = time::sleep_until(begin + timeout);
    tokio::pin!(deadline);
    let in_time = loop {
        tokio::select! {
            biased;
            _ = it.group.exited() => break true,
            () = &mut deadline => break false,
            () = it.output.read() => {}
        }
    };
    let took = begin.elapsed();
    it.output.finish();
    let excerpt = it.output.kept().first_line();
    let output = it.output.kept().text();
    if !in_time {
        let reaping = Some(Reaping(tokio::spawn(it.group.end())));
        return Run { ran: Ran { end: End::TimedOut(timeout), output, took }, excerpt, reaping };
    }
    match background {
        Background::Kill => it.group.kill(),
        Background::Leave => discard_in_background(it.output),
    }
    let end = match it.group.reap() {
        Ok(status) => end_of(status),
        Err(error) => End::CannotRun(format!("its exit status is lost: {error}")),
    };
    Run { ran: Ran { end, output, took }, excerpt, reaping: None }
}

fn never_ran(end: End, begin: Instant, reaping: Option<Reaping>) -> Run {
    let ran = Ran { end, output: String::new(), took: begin.elapsed() };
    Run { ran, excerpt: None, reaping }
}

/// A start that comes after its deadline is ended at once.
fn end_late_start(starting: oneshot::Receiver<Result<Started, NotStarted>>) -> Reaping {
    Reaping(tokio::spawn(async move {
        if let Ok(Ok(started)) = starting.await {
            started.group.end().await;
        }
    }))
}

/// Keeps the pipe open for what a hook left running, so that it does not die of SIGPIPE.
fn discard_in_background(output: CommandOutput) {
    if !output.is_open() || BACKGROUND.load(Ordering::Relaxed) >= BACKGROUND_LIMIT {
        return;
    }
    let place = BackgroundPlace::take();
    tokio::spawn(async move {
        output.discard().await;
        drop(place);
    });
}

/// One of the [`BACKGROUND_LIMIT`] places, given back also when the runtime ends.
struct BackgroundPlace;

impl BackgroundPlace {
    fn take() -> Self {
        BACKGROUND.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for BackgroundPlace {
    fn drop(&mut self) {
        BACKGROUND.fetch_sub(1, Ordering::Relaxed);
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::CannotRun(format!("ended in an unknown way: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn a_start_that_finds_no_place_in_time_is_reported_and_the_place_comes_back() {
        block_on(async {
            let launcher = Launcher::new(1);
            let (release, released) = std::sync::mpsc::channel::<()>();
            // As a program on a dead file server keeps the thread that starts it.
            let stuck = launcher.begin(move || released.recv()).await.expect("a thread");
            let command = Command::argv(["/bin/true"]);
            let ran = launcher.run(&command, &[], SHORT).await;
            let reason = "could not be started within 50ms: is its disk stuck?";
            assert_eq!(ran.end, End::CannotRun(reason.into()));
            release.send(()).expect("still stuck");
            stuck.await.expect("a result").expect("released");
            let ran = launcher.run(&command, &[], Duration::from_secs(20)).await;
            assert_eq!(ran.end, End::Exited(0));
        });
    }

    #[test]
    fn what_is_started_after_its_time_is_ended_and_reaped() {
        block_on(async {
            let (begun, started) = oneshot::channel();
            let reaping = end_late_start(started);
            let launcher = Launcher::new(1);
            let command = Command::argv(["/bin/sleep", "1000"]);
            let starting = launcher.start(command, Vec::new()).await.expect("a thread");
            let late = starting.await.expect("a result");
            assert!(late.is_ok(), "{late:?}");
            assert!(begun.send(late).is_ok());
            time::timeout(Duration::from_secs(20), reaping).await.expect("in time").expect("ended");
        });
    }
}
