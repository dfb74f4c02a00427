//! Start a command: identity, environment, process group, output pipe.
//!
//! All of it may block (a user database over the network, a program on a dead file server), so
//! each start has a thread of its own. The runtime's pool for such work is no help: it panics where
//! the system refuses a thread, and a task limit that a script has reached must end no daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Arc;
use std::thread;

use locum_plan::{Command, CommandLine};
use nix::errno::Errno;
use nix::unistd::{Gid, Group as UserGroup, Uid, User};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::group::Group;
use crate::output::Output;

/// Variables that change what a shell or the loader does behind a script's back; a drop-in
/// removes the same ones as keepalived.
const REMOVED_VARIABLES: [&str; 3] = ["IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// Addressed by the service manager to the daemon itself: a child that answered them would speak
/// in its name, or take its standard streams for the journal.
const DAEMONS_VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "JOURNAL_STREAM",
];

const SHELL: &str = "/bin/sh";

/// A command that is running.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) group: Group,
    pub(crate) output: Output,
}

/// Why a command does not run; the text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotStarted {
    /// It will not run either when it is tried again.
    Wrong(String),
    /// No process, thread, descriptor or memory is left for it now.
    NoRoom(String),
}

/// Starts commands, so many at a time. Clones share the places.
#[derive(Clone, Debug)]
pub struct Launcher {
    places: Arc<Semaphore>,
}

impl Launcher {
    /// `places` is how many may be starting at a time: so many programs on a dead file server have
    /// to hang before others have to wait.
    pub fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)) }
    }

    /// Starts `command` on a thread of its own once there is a place. The receiver hears how it
    /// went; dropping it ends what was started. Must be called within a runtime.
    pub(crate) async fn start(
        &self,
        command: Command,
        environment: Vec<(String, String)>,
    ) -> Result<oneshot::Receiver<Result<Started, NotStarted>>, NotStarted> {
        let start = move || start_here(&command, &environment);
        self.begin(start).await.map_err(|error| {
            NotStarted::NoRoom(format!(
                "no thread to start it on ({error}): raise TasksMax or LimitNPROC"
            ))
        })
    }

    /// Runs `work` on a thread of its own once there is a place.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<oneshot::Receiver<T>> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let runtime = Handle::current();
        let (sender, receiver) = oneshot::channel();
        thread::Builder::new().name("locum-start".into()).spawn(move || {
            // Pipes and processes are watched by the runtime they belong to.
            let _context = runtime.enter();
            let result = work();
            drop(place);
            // Whoever waited may have given up; the result ends what it holds then.
            let _ = sender.send(result);
        })?;
        Ok(receiver)
    }
}

fn start_here(command: &Command, environment: &[(String, String)]) -> Result<Started, NotStarted> {
    let words = words(command);
    let Some((program, arguments)) = words.split_first() else {
        return Err(NotStarted::Wrong("the command is empty: name a program".into()));
    };
    let identity = Identity::of(command).map_err(NotStarted::Wrong)?;
    let attempt = |program: &str, arguments: &[String]| -> io::Result<Started> {
        let (reader, writer) = io::pipe()?;
        let output = Output::new(Receiver::from_owned_fd(OwnedFd::from(reader))?);
        let mut order = process::Command::new(program);
        order
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .process_group(0);
        for variable in REMOVED_VARIABLES.into_iter().chain(DAEMONS_VARIABLES) {
            order.env_remove(variable);
        }
        identity.put_on(&mut order);
        Ok(Started { group: Group::adopt(order.spawn()?)?, output })
    };
    let mut started = attempt(program, arguments);
    if is_error(&started, Errno::ENOEXEC) {
        // No #! line: a shell script by tradition, as execvp(3) has it.
        let script: Vec<String> = words.clone();
        started = attempt(SHELL, &script);
    }
    started.map_err(|error| explain(program, command, &error))
}

fn words(command: &Command) -> Vec<String> {
    match &command.line {
        CommandLine::Argv(words) => words.clone(),
        CommandLine::Shell(line) => vec![SHELL.into(), "-c".into(), line.clone()],
    }
}

/// Whom to become; `None` is to stay.
struct Identity {
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Identity {
    /// A user without a group brings its own primary group.
    fn of(command: &Command) -> Result<Self, String> {
        let user = command.user.as_deref().map(find_user).transpose()?;
        let group = match command.group.as_deref() {
            Some(name) => Some(find_group(name)?),
            None => user.as_ref().map(|user| user.gid),
        };
        Ok(Self { user: user.map(|user| user.uid), group })
    }

    /// Supplementary groups are given up by the standard library when root becomes another user.
    fn put_on(&self, order: &mut process::Command) {
        // Who is it already needs no privilege to stay so.
        if let Some(uid) = self.user.filter(|uid| *uid != Uid::effective()) {
            order.uid(uid.as_raw());
        }
        if let Some(gid) = self.group.filter(|gid| *gid != Gid::effective()) {
            order.gid(gid.as_raw());
        }
    }
}

fn find_user(name: &str) -> Result<User, String> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(format!("no user \"{name}\" on this host: create it or name another")),
        Err(errno) => Err(format!("cannot look up user \"{name}\": {}", errno.desc())),
    }
}

fn find_group(name: &str) -> Result<Gid, String> {
    let found = match name.parse() {
        Ok(number) => UserGroup::from_gid(Gid::from_raw(number)),
        Err(_) => UserGroup::from_name(name),
    };
    match found {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("no group \"{name}\" on this host: create it or name another")),
        Err(errno) => Err(format!("cannot look up group \"{name}\": {}", errno.desc())),
    }
}

fn is_error<T>(result: &io::Result<T>, errno: Errno) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(errno as i32))
}

/// Says what to do about a command that did not start.
fn explain(program: &str, command: &Command, error: &io::Error) -> NotStarted {
    let exists = Path::new(program).exists();
    let user = command.user.as_deref().unwrap_or("the daemon's user");
    let no_room = |what: &str| NotStarted::NoRoom(format!("cannot start {program}: {what}"));
    NotStarted::Wrong(match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if !program.contains('/') => {
            format!("no program \"{program}\" in PATH: give its full path")
        }
        Some(Errno::ENOENT) if exists => {
            format!("{program}: the interpreter in its #! line does not exist")
        }
        Some(Errno::ENOENT | Errno::ENOTDIR) => format!("{program}: no such file"),
        Some(Errno::EACCES) if Path::new(program).is_dir() => format!("{program}: is a directory"),
        Some(Errno::EACCES) => {
            format!("{program}: permission denied: make it executable for {user}")
        }
        Some(Errno::EPERM) if command.user.is_some() || command.group.is_some() => {
            format!("cannot become user {user} to run {program}: the daemon is not root")
        }
        Some(Errno::EMFILE | Errno::ENFILE) => {
            return no_room("out of file descriptors: raise LimitNOFILE");
        }
        Some(Errno::EAGAIN) => {
            return no_room("too many processes: raise TasksMax or LimitNPROC");
        }
        Some(Errno::ENOMEM) => return no_room("out of memory"),
        _ => format!("cannot start {program}: {error}"),
    })
}
