//! Start a command: identity, environment, process group, output pipe.
//!
//! All of it may block (a user database over the network, a program on a dead file server), so
//! each start has a thread of its own. The runtime's pool for such work is no help: it panics where
//! the system refuses a thread, and a task limit that a script has reached must end no daemon.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;

use locum_plan::{Command, CommandLine};
use nix::errno::Errno;
use nix::unistd::{Gid, Group as UserGroup, Uid, User};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::group::Group;
use crate::output::CommandOutput;

/// What a command inherits of the daemon's environment: how to find programs, and how to write. All
/// else stays: secrets of the daemon, what a service manager says to it alone, and what changes a
/// shell or the loader behind a script's back.
const INHERITED_VARIABLES: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];

/// Beginning of the names of the locale's parts, which are inherited too.
const LOCALE_PREFIX: &str = "LC_";

/// Beginning of the names that are ours to give.
const GIVEN_PREFIX: &str = "LOCUM_";

/// For a daemon that was started without: where programs are on every distribution.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SHELL: &str = "/bin/sh";

/// A command that is running.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) group: Group,
    pub(crate) output: CommandOutput,
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
    let identity = RunAs::of(command).map_err(NotStarted::Wrong)?;
    let given = environment.iter().filter(|(name, _)| name.starts_with(GIVEN_PREFIX));
    let given = given.map(|(name, value)| (name, value));
    let attempt = |program: &str, arguments: &[String]| -> io::Result<Started> {
        let (reader, writer) = io::pipe()?;
        let output = CommandOutput::new(Receiver::from_owned_fd(OwnedFd::from(reader))?);
        let mut order = process::Command::new(program);
        order
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .env_clear()
            .env("PATH", DEFAULT_PATH)
            .envs(env::vars_os().filter(|(name, _)| is_inherited(name)))
            .envs(identity.environment())
            .envs(given.clone())
            .process_group(0);
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

fn is_inherited(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| INHERITED_VARIABLES.contains(&name) || name.starts_with(LOCALE_PREFIX))
}

/// Whom to become; `None` is to stay.
struct RunAs {
    user: Option<User>,
    group: Option<Gid>,
}

impl RunAs {
    /// A user without a group brings its own primary group.
    fn of(command: &Command) -> Result<Self, String> {
        let user = command.user.as_deref().map(find_user).transpose()?;
        let group = match command.group.as_deref() {
            Some(name) => Some(find_group(name)?),
            None => user.as_ref().map(|user| user.gid),
        };
        Ok(Self { user, group })
    }

    /// What a login of the user would find; a user without an entry has a home and a shell at least.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some(user) = self.user.as_ref().or_else(|| own_user()) else {
            return vec![("HOME", "/".into()), ("SHELL", SHELL.into())];
        };
        vec![
            ("HOME", user.dir.clone().into()),
            ("SHELL", user.shell.clone().into()),
            ("USER", user.name.clone().into()),
            ("LOGNAME", user.name.clone().into()),
        ]
    }

    /// Supplementary groups are given up by the standard library when root becomes another user.
    fn put_on(&self, order: &mut process::Command) {
        // Who is it already needs no privilege to stay so.
        let uid = self.user.as_ref().map(|user| user.uid);
        if let Some(uid) = uid.filter(|uid| *uid != Uid::effective()) {
            order.uid(uid.as_raw());
        }
        if let Some(gid) = self.group.filter(|gid| *gid != Gid::effective()) {
            order.gid(gid.as_raw());
        }
    }
}

/// The daemon's own, looked up once: thousands of checks ask. A look-up that failed is repeated.
fn own_user() -> Option<&'static User> {
    static OWN: OnceLock<User> = OnceLock::new();
    if OWN.get().is_none() {
        let user = User::from_uid(Uid::effective()).ok().flatten()?;
        // Another start may have been faster, with the same user.
        let _ = OWN.set(user);
    }
    OWN.get()
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
