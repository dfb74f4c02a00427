//! What a lab test needs from the machine, and how it says that it cannot run.
//!
//! Green never means "not run": `LOCUM_REQUIRE_LAB=1`, which `scripts/test` sets, turns a skip into
//! a failure.

use std::env;
use std::fs::File;
use std::num::NonZero;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::thread;

/// Directories searched for programs beside those of `PATH`: daemons live in `sbin`.
const PROGRAM_DIRECTORIES: [&str; 5] =
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/usr/lib/frr"];

/// Whether a test shall run: root, and every one of `programs` found.
///
/// # Panics
/// When something is missing and `LOCUM_REQUIRE_LAB` is `1`.
#[must_use]
pub fn lab(programs: &[&str]) -> bool {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    let absent = programs.iter().filter(|name| program(name).is_none());
    missing.extend(absent.map(|name| format!("the program {name}")));
    if missing.is_empty() {
        return true;
    }
    let reason = format!("the lab needs {} (scripts/test installs it)", missing.join(", "));
    assert!(env::var_os("LOCUM_REQUIRE_LAB").is_none_or(|value| value != "1"), "{reason}");
    eprintln!("skipped: {reason}");
    false
}

/// Full path of a program.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let known = PROGRAM_DIRECTORIES.iter().map(PathBuf::from);
    env::split_paths(&path).chain(known).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The `locum` binary under test: `LOCUM_BIN`, or built now, so that it is never an old one.
///
/// # Panics
/// When it cannot be built.
pub fn locum() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = env::var_os("LOCUM_BIN") {
            let path = PathBuf::from(given);
            assert!(path.is_file(), "LOCUM_BIN names {}, which is not a file", path.display());
            return path;
        }
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "locum", "--bin", "locum"])
            .current_dir(workspace())
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cannot build locum");
        target().join("debug/locum")
    })
}

/// The binary of an integration test of another package, built now where it is not.
///
/// # Panics
/// When it cannot be built or is not there.
pub fn test_binary(package: &str, test: &str) -> PathBuf {
    // The whole workspace, so that dependencies have the features they have in a full run, and
    // nothing is built twice.
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--workspace", "--no-run", "--message-format=json"])
        .args(["--test", test])
        .current_dir(workspace())
        .output()
        .expect("cannot run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let found = messages.into_iter().find_map(|message: serde_json::Value| {
        let id = message["package_id"].as_str()?;
        let named = id.contains(&format!("crates/{package}#")) && message["target"]["name"] == test;
        named.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    found.unwrap_or_else(|| panic!("cargo built no test {test} of {package}"))
}

/// The workspace's directory.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory, found from the running test.
pub fn target() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let named = exe.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release"));
    match named.and_then(Path::parent) {
        Some(target) => target.to_owned(),
        None => workspace().join("target"),
    }
}

/// Tests share a machine, and those that measure time must be alone on it.
pub struct Turn {
    _file: File,
    _guest: Option<Guest>,
}

/// What a test needs of the machine while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Company {
    /// Others may run beside it.
    Shared,
    /// The same for one that takes a whole processor: no more at once than there are.
    Guest,
    /// It measures, and nothing else may run.
    Alone,
}

impl Turn {
    /// Waits for its turn; the lock is shared by all processes of this machine and goes with them.
    pub fn take(company: Company) -> Self {
        let guest = (company == Company::Guest).then(Guest::enter);
        let path = target().join("lab.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        let locked = match company {
            Company::Shared | Company::Guest => file.lock_shared(),
            Company::Alone => file.lock(),
        };
        locked.expect("cannot lock the lab");
        Self { _file: file, _guest: guest }
    }
}

/// One of the guests of this process.
struct Guest;

static GUESTS: Mutex<usize> = Mutex::new(0);
static GUEST_LEFT: Condvar = Condvar::new();

impl Guest {
    fn enter() -> Self {
        let limit = thread::available_parallelism().map_or(1, NonZero::get);
        let guests = GUESTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guests = GUEST_LEFT
            .wait_while(guests, |guests| *guests >= limit)
            .unwrap_or_else(PoisonError::into_inner);
        *guests += 1;
        Self
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        *GUESTS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GUEST_LEFT.notify_one();
    }
}
