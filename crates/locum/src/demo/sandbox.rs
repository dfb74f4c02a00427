//! Namespaces for the show, and the certainty that nothing outlives it.
//!
//! The init process is the first of a process namespace: when it ends, the kernel kills all others
//! in it, the network namespaces go with their last process, and the only directory written to is a
//! tmpfs in a mount namespace of its own. It ends with the stage, and when the pipe from the
//! process that the user started is closed, which `kill -9` of that process does too.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::EXIT_FAILURE;

/// This very program, whatever its name and place.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Where the tmpfs may go: the first one that exists and does not hide this program's file.
const HOMES: [&str; 3] = ["/run", "/tmp", "/mnt"];

/// Names the directory that [`init`] has made for the stage.
const HOME_VARIABLE: &str = "LOCUM_DEMO_HOME";

/// The show takes half of it; one that hangs is ended.
const SHOW_LIMIT: Duration = Duration::from_secs(60);

/// A shell reports a command that a signal ended as this plus the signal's number.
const EXIT_SIGNAL: u8 = 128;

/// Programs outside the `PATH` of ordinary users.
const PROGRAM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Makes the namespaces, waits for the show to end and hands back its exit status.
///
/// # Errors
/// What is missing and how to get it, for the user.
pub fn give(plain: bool) -> Result<u8, String> {
    find_ip()?;
    enter_namespaces()?;
    // Blocked before the child exists, so that its end is not missed.
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        awaited.add(signal);
    }
    awaited.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    // The pipe stays open as long as this process lives.
    let mut init = this_program("init", plain)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {THIS_PROGRAM} again: {error}"))?;
    loop {
        let signal = awaited.wait().map_err(|error| format!("cannot wait: {error}"))?;
        if signal == Signal::SIGCHLD {
            let ended = init.try_wait().map_err(|error| format!("cannot wait: {error}"))?;
            if let Some(status) = ended {
                return Ok(exit_code(status));
            }
        } else {
            end(&mut init);
            let number = u8::try_from(signal as i32).unwrap_or_default();
            return Ok(EXIT_SIGNAL + number);
        }
    }
}

/// The first process in the process namespace.
///
/// # Errors
/// What could not be set up.
pub fn init(plain: bool) -> Result<u8, String> {
    unblock_signals()?;
    let home = mount_home()?;
    let stage = this_program("stage", plain)
        .env(HOME_VARIABLE, &home)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {THIS_PROGRAM} again: {error}"))?;
    thread::spawn(|| {
        // Nothing is ever written: this returns when the pipe's other end is closed.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(EXIT_FAILURE.into());
    });
    thread::spawn(|| {
        thread::sleep(SHOW_LIMIT);
        eprintln!("locum demo: ended after {} s: this machine is too busy", SHOW_LIMIT.as_secs());
        std::process::exit(EXIT_FAILURE.into());
    });
    let stage = Pid::from_raw(stage.id().cast_signed());
    loop {
        match nix::sys::wait::wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == stage => {
                return Ok(u8::try_from(status).unwrap_or(EXIT_FAILURE));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == stage => {
                return Err(format!("the stage was ended by {signal}"));
            }
            // An orphan: the kernel wants it collected, and nobody misses it.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("cannot wait for the stage: {error}")),
        }
    }
}

/// The directory of this show, from the stage on: a tmpfs of its own.
///
/// # Errors
/// When this process was not started by [`init`].
pub fn home() -> Result<PathBuf, String> {
    let home = std::env::var_os(HOME_VARIABLE);
    home.map(PathBuf::from).ok_or_else(|| "start it as `locum demo`".to_owned())
}

/// The `ip` program.
///
/// # Errors
/// When it is not installed.
pub fn find_ip() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = PROGRAM_DIRECTORIES.iter().map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path).chain(known).map(|dir| dir.join("ip"));
    candidates.find(|file| file.is_file()).ok_or_else(|| {
        "the program `ip` is missing, which plugs the network together: install the package \
         iproute2"
            .to_owned()
    })
}

fn this_program(part: &str, plain: bool) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("locum").args(["demo", "--part", part]);
    if plain {
        command.arg("--plain");
    }
    command
}

fn end(init: &mut Child) {
    // It may have ended by itself in this moment; both ways it is gone after the wait.
    let _ = init.kill();
    let _ = init.wait();
}

fn exit_code(status: ExitStatus) -> u8 {
    let code =
        status.code().or_else(|| status.signal().map(|signal| signal + i32::from(EXIT_SIGNAL)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_FAILURE)
}

/// The mask is inherited, and a daemon that cannot be told to stop is of no use.
fn unblock_signals() -> Result<(), String> {
    SigSet::all().thread_unblock().map_err(|error| format!("cannot unblock signals: {error}"))
}

/// Network, mounts and, from the next child on, process numbers of our own; as an ordinary user
/// with a user namespace around them, in which we are root.
fn enter_namespaces() -> Result<(), String> {
    let ours = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if nix::unistd::geteuid().is_root() {
        match nix::sched::unshare(ours) {
            Ok(()) => return Ok(()),
            // Root of a container without the capability: as any other user.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(ours | CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    let map = |file: &str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text)
            .map_err(|error| refused(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
    };
    // The kernel wants this given up before an ordinary user may map a group.
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {user} 1"))?;
    map("gid_map", format!("0 {group} 1"))
}

/// Why the kernel does not let us have namespaces, as far as it tells, and what to do.
fn refused(error: Errno) -> String {
    let switches = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "1000"),
    ];
    let mut text = format!("the kernel does not let this user make namespaces: {}", error.desc());
    for (name, forbidding, allowing) in switches {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
        if value.is_ok_and(|value| value.trim() == forbidding) {
            text += &format!(
                "\n{name} is {forbidding}: allow them with `sysctl -w {name}={allowing}` as root"
            );
        }
    }
    text += "\nor run it as root (in a container: a privileged one); \
             the host's network is not touched either way";
    text
}

/// Mounts that nobody else sees: an empty directory to write to, and our own process numbers.
fn mount_home() -> Result<PathBuf, String> {
    let mount = |source: Option<&str>, target: &Path, kind: Option<&str>, flags| {
        nix::mount::mount(source, target, kind, flags, None::<&str>)
            .map_err(|error| format!("cannot mount on {}: {}", target.display(), error.desc()))
    };
    mount(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot find the own program file: {error}"))?;
    let usable = |home: &&Path| home.is_dir() && !program.starts_with(home);
    let home = HOMES
        .iter()
        .map(Path::new)
        .find(usable)
        .ok_or_else(|| format!("none of {} is a directory to use", HOMES.join(", ")))?;
    mount(Some("tmpfs"), home, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    // Refused where a container hides parts of /proc; then the outer one serves.
    let _ = mount(Some("proc"), Path::new("/proc"), Some("proc"), MsFlags::empty());
    Ok(home.to_owned())
}
