//! What HAProxy itself says of a file before anything runs from it: `haproxy -c`.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use locum_plan::HaproxyFile;
use rustix::process::Signal;

use crate::haproxy::message::alerts;
use crate::process::Process;

/// A check that takes longer waits for a resolver that does not answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How often [`haproxy_refuses`] looks at a check; one takes some 50 ms.
const POLL: Duration = Duration::from_millis(5);

/// One that was killed ends within microseconds unless it hangs in the kernel.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// Why a HAProxy would not run from its file.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyRefusal {
    /// `words` are HAProxy's own, with file and line.
    #[error("haproxy refuses {}: {words}", config.display())]
    Refused { config: PathBuf, words: String },
    #[error("cannot run {}: {source}, is haproxy installed?", program.display())]
    NotRun { program: PathBuf, source: io::Error },
    #[error(
        "checking {} took longer than {} s, does it name hosts to resolve?",
        config.display(),
        LIMIT.as_secs()
    )]
    TooSlow { config: PathBuf },
}

/// Those of these that HAProxy would not run, in their order. Asks all at once and waits for them,
/// some ten seconds at most as long as the program itself can be read.
pub fn haproxy_refuses(files: &[HaproxyFile]) -> Vec<(&HaproxyFile, HaproxyRefusal)> {
    let started: Vec<_> = files.iter().map(|file| (file, Check::start(file))).collect();
    let judged = started.into_iter().map(|(file, check)| (file, check.and_then(Check::wait)));
    judged.filter_map(|(file, verdict)| Some((file, verdict.err()?))).collect()
}

/// One under way.
#[derive(Debug)]
pub(super) struct Check {
    process: Process,
    config: PathBuf,
}

impl Check {
    pub(super) fn start(file: &HaproxyFile) -> Result<Self, HaproxyRefusal> {
        let mut command = Command::new(&file.program);
        command.arg("-c").arg("-f").arg(&file.config);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        match Process::start(command) {
            Ok(process) => Ok(Self { process, config: file.config.clone() }),
            Err(source) => Err(HaproxyRefusal::NotRun { program: file.program.clone(), source }),
        }
    }

    /// `None` while it goes on. One that takes too long is killed.
    pub(super) fn verdict(&mut self) -> Option<Result<(), HaproxyRefusal>> {
        let config = || self.config.clone();
        match self.process.poll() {
            Some(end) if end.is_success() => Some(Ok(())),
            Some(_) => {
                let words = alerts(&self.process.messages());
                Some(Err(HaproxyRefusal::Refused { config: config(), words }))
            }
            None if self.process.age() > LIMIT => {
                let refusal = HaproxyRefusal::TooSlow { config: config() };
                self.process.signal(Signal::KILL);
                Some(Err(refusal))
            }
            None => None,
        }
    }

    /// The process, which may have to be waited for.
    pub(super) fn into_process(self) -> Process {
        self.process
    }

    fn wait(mut self) -> Result<(), HaproxyRefusal> {
        let verdict = loop {
            if let Some(verdict) = self.verdict() {
                break verdict;
            }
            thread::sleep(POLL);
        };
        let judged = Instant::now();
        while self.process.poll().is_none() && judged.elapsed() < LAST_BREATH {
            thread::sleep(POLL);
        }
        verdict
    }
}
