//! What HAProxy itself says of a file before anything runs from it: `haproxy -c`.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use locum_plan::HaproxyFile;
use nix::errno::Errno;
use rustix::process::Signal;

use crate::haproxy::message::alerts;
use crate::process::Process;

/// A check that takes longer waits for a resolver that does not answer.
pub(crate) const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// Why a HAProxy would not run from its file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HaproxyRefusal {
    /// `words` are HAProxy's own, with file and line.
    #[error("haproxy refuses {}: {words}", config.display())]
    Refused { config: PathBuf, words: String },
    #[error("cannot run {}: {source}, is haproxy installed?", program.display())]
    NotRun { program: PathBuf, source: io::Error },
    #[error(
        "checking {} took longer than {} s, does it name hosts to resolve?",
        config.display(),
        CHECK_LIMIT.as_secs()
    )]
    TooSlow { config: PathBuf },
    #[error("checking {} did not come to an end, haproxy {end}", config.display())]
    Broken { config: PathBuf, end: String },
}

/// How much a refusal says of the file and the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Certainty {
    Certain,
    /// Another one may end otherwise.
    Doubtful,
    /// It is a shortage of ours.
    Nothing,
}

impl HaproxyRefusal {
    pub(crate) fn certainty(&self) -> Certainty {
        match self {
            Self::Refused { .. } => Certainty::Certain,
            Self::TooSlow { .. } | Self::Broken { .. } => Certainty::Doubtful,
            Self::NotRun { source, .. } if is_shortage(source) => Certainty::Nothing,
            Self::NotRun { .. } => Certainty::Certain,
        }
    }
}

/// Whether this process or host has too little of something, whatever was asked for.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE];
    error.raw_os_error().is_some_and(|number| short.contains(&Errno::from_raw(number)))
}

/// One under way.
#[derive(Debug)]
pub(crate) struct FileCheck {
    process: Process,
    config: PathBuf,
}

impl FileCheck {
    pub(crate) fn start(file: &HaproxyFile) -> Result<Self, HaproxyRefusal> {
        let mut command = Command::new(&file.program);
        command.arg("-c").arg("-f").arg(&file.config);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        match Process::start(command) {
            Ok(process) => Ok(Self { process, config: file.config.clone() }),
            Err(source) => Err(HaproxyRefusal::NotRun { program: file.program.clone(), source }),
        }
    }

    /// `None` while it goes on. One that takes too long is killed.
    pub(crate) fn verdict(&mut self) -> Option<Result<(), HaproxyRefusal>> {
        let config = || self.config.clone();
        match self.process.poll() {
            Some(end) if end.is_success() => Some(Ok(())),
            Some(end) if end.is_violent() => {
                let end = end.to_string();
                Some(Err(HaproxyRefusal::Broken { config: config(), end }))
            }
            Some(_) => {
                let words = alerts(&self.process.messages());
                Some(Err(HaproxyRefusal::Refused { config: config(), words }))
            }
            None if self.process.age() > CHECK_LIMIT => {
                let refusal = HaproxyRefusal::TooSlow { config: config() };
                self.process.signal(Signal::KILL);
                Some(Err(refusal))
            }
            None => None,
        }
    }

    /// The process, which may have to be waited for.
    pub(crate) fn into_process(self) -> Process {
        self.process
    }
}
