//! Kernel modules that IPVS asks for by name, loaded before it asks.
//!
//! IPVS asks for a scheduler's module while it holds the lock of its tables. A module with a part in
//! each network namespace (ip_vs_lblc, ip_vs_lblcr) waits for namespaces that end, and what ends
//! there of IPVS waits for that lock: neither ever comes back. A module that is loaded is not asked
//! for.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long what could not be loaded is not tried again: it may be installed meanwhile.
const AGAIN: Duration = Duration::from_secs(30);

/// Loads each module at most once at a time. Clones share what is under way: a program that hangs is
/// waited for by the first who asks, as long as that one allows, and started no second time.
#[derive(Clone, Debug, Default)]
pub struct ModuleLoader(Arc<Mutex<BTreeMap<String, ModuleRequest>>>);

#[derive(Debug)]
enum ModuleRequest {
    Running(Child),
    /// Found by the program and not among the modules: the kernel is built with it.
    BuiltIn,
    Failed(Instant),
}

impl ModuleLoader {
    /// Begins to load what is not loaded, and does not wait. False while it is being loaded; true when
    /// it is there or cannot be loaded by us.
    pub fn is_settled(&self, module: &str) -> bool {
        self.settle(module, Duration::ZERO)
    }

    /// The same as [`Self::is_settled`], and waits until `limit` has passed for what no earlier call
    /// has begun to load.
    pub(super) fn settle(&self, module: &str, limit: Duration) -> bool {
        self.settle_by(module, limit, || spawn(&program(), module))
    }

    fn settle_by(
        &self,
        module: &str,
        limit: Duration,
        start: impl FnOnce() -> Option<Child>,
    ) -> bool {
        // A panic while it is locked leaves a whole map.
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_under_way = matches!(asked.get(module), Some(ModuleRequest::Running(_)));
        let limit = if is_under_way { Duration::ZERO } else { limit };
        if is_loaded(module) {
            // The program ends a little later, and is looked after once more.
            if let Some(ModuleRequest::Running(mut child)) = asked.remove(module)
                && wait(&mut child, Duration::ZERO).is_none()
            {
                asked.insert(module.to_owned(), ModuleRequest::Running(child));
            }
            return true;
        }
        let mut child = match asked.remove(module) {
            Some(ModuleRequest::Running(child)) => child,
            Some(ModuleRequest::Failed(at)) if at.elapsed() < AGAIN => {
                asked.insert(module.to_owned(), ModuleRequest::Failed(at));
                return true;
            }
            Some(ModuleRequest::BuiltIn) => {
                asked.insert(module.to_owned(), ModuleRequest::BuiltIn);
                return true;
            }
            Some(ModuleRequest::Failed(_)) | None => match start() {
                Some(child) => child,
                None => {
                    let failed = ModuleRequest::Failed(Instant::now());
                    asked.insert(module.to_owned(), failed);
                    return true;
                }
            },
        };
        let (request, is_settled) = match wait(&mut child, limit) {
            None => (ModuleRequest::Running(child), false),
            Some(true) => (ModuleRequest::BuiltIn, true),
            Some(false) => (ModuleRequest::Failed(Instant::now()), true),
        };
        if !(is_settled && is_loaded(module)) {
            asked.insert(module.to_owned(), request);
        }
        is_settled
    }
}

fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

/// What the kernel itself would run.
fn program() -> String {
    const USUAL: &str = "/sbin/modprobe";
    let program = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    Some(program.trim()).filter(|path| !path.is_empty()).unwrap_or(USUAL).to_owned()
}

/// In a process group of its own: what it does is done whatever becomes of us.
fn spawn(program: &str, module: &str) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(["-q", module]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().ok()
}

/// Whether it was successful; `None` while it runs.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    if let Some(output) = &child.stdout {
        // It says nothing; that nobody can any more is its end.
        let mut ended = [PollFd::new(output.as_fd(), PollFlags::empty())];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if poll(&mut ended, limit) == Ok(0) {
            return None;
        }
    }
    match child.wait() {
        Ok(status) => Some(status.success()),
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Option<Child> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().ok()
    }

    const NAME: &str = "ip_vs_no_such_module";
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_being_loaded_is_asked_for_once_and_waited_for_no_longer_than_the_limit() {
        let loader = ModuleLoader::default();
        let directory = std::env::temp_dir().join(format!("locum-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let gate = directory.join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        // Runs until somebody opens the other end.
        let script = format!("read -r line < {}", gate.display());
        assert!(!loader.settle_by(NAME, Duration::from_millis(20), || run(&script)));
        // Whoever asks next has the same loader, and does not wait for what hangs.
        let other = loader.clone();
        let again = || -> Option<Child> { unreachable!("it is under way") };
        let begun = Instant::now();
        assert!(!other.settle_by(NAME, LONG, again));
        assert!(begun.elapsed() < LONG / 2);
        fs::write(&gate, "go\n").expect("somebody reads");
        while !other.settle_by(NAME, Duration::ZERO, again) {
            assert!(begun.elapsed() < LONG, "it ends");
            std::thread::yield_now();
        }
        assert!(loader.settle_by(NAME, Duration::ZERO, again), "it is built in");
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn what_cannot_be_loaded_is_settled_and_not_tried_again_at_once() {
        let loader = ModuleLoader::default();
        assert!(loader.settle_by(NAME, LONG, || run("exit 1")));
        let again = || -> Option<Child> { unreachable!("it was tried") };
        assert!(loader.settle_by(NAME, LONG, again));
        let without = ModuleLoader::default();
        assert!(without.settle_by(NAME, LONG, || spawn("/no/such/program", NAME)));
        assert!(without.settle_by(NAME, LONG, again));
    }
}
