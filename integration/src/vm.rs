//! A real kernel of another kind: Debian's 6.1 under QEMU, for what the host's kernel lacks (IPVS).
//!
//! The guest's root is the host's file system, read-only, with a layer in memory above it, so the
//! guest runs the binaries just built. A test that needs the guest runs *itself* there, see
//! [`inside`]; the whole lab works in it.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::node::Node;
use crate::process::Whom;
use crate::require;
use crate::require::Company;
use crate::require::Turn;

/// Set in the guest's environment.
const INSIDE: &str = "LOCUM_LAB_VM";
/// Memory of the guest in MiB: half of it can hold files.
const MEMORY: &str = "1024";
/// Tests at the same time in a guest: they wait as they do elsewhere, but it is slow.
const INSIDE_AT_ONCE: u32 = 3;
/// For all of them.
const INSIDE_LIMIT: Duration = Duration::from_secs(1200);
/// From power-on to a shell, on a busy host without hardware virtualisation.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// What a script in the guest did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Exit status of the script; `None` when the guest ended without one.
    pub status: Option<i32>,
    /// Standard output and error of the script.
    pub text: String,
    /// The guest's console: messages of its kernel.
    pub console: String,
    pub took: Duration,
}

/// Whether a guest can be started.
///
/// # Panics
/// When something is missing and `LOCUM_REQUIRE_LAB` is `1`.
#[must_use]
pub fn available() -> bool {
    if is_inside() {
        return true;
    }
    if !require::lab(&["qemu-system-x86_64", "ipvsadm"]) {
        return false;
    }
    let prepared = require::target().join("vm/initramfs.gz").is_file();
    let required = env::var_os("LOCUM_REQUIRE_LAB").is_some_and(|value| value == "1");
    assert!(prepared || !required, "the guest's kernel is missing: run scripts/vm-kernel");
    if !prepared {
        eprintln!("skipped: the guest's kernel is missing: run scripts/vm-kernel");
    }
    prepared
}

/// Whether this process runs in a guest.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs `body` in a guest, and fails if it fails there. In the guest it calls `body`.
///
/// `test` is the whole name of the calling test, with its modules. All tests of this process that
/// ask for it share one guest, which runs this very binary with the same choice of tests: booting
/// takes longer than most of them.
///
/// # Panics
/// When the test fails in the guest, with everything that was said there.
pub fn inside(test: &str, body: impl FnOnce()) {
    static GUEST: OnceLock<Output> = OnceLock::new();
    if is_inside() {
        return body();
    }
    if !available() {
        return;
    }
    let output = GUEST.get_or_init(|| {
        let exe = env::current_exe().expect("a test has a path");
        let mut chosen: Vec<String> =
            env::args().skip(1).filter(|word| !word.starts_with("--test-threads")).collect();
        if chosen.is_empty() {
            let (module, _) = test.split_once("::").unwrap_or((test, ""));
            chosen.push(module.to_owned());
        }
        let chosen: Vec<String> = chosen.iter().map(|choice| word(Path::new(choice))).collect();
        let copies = tempfile::tempdir_in(require::target().join("vm"));
        let copies = copies.expect("cannot make a directory");
        let lean = |program: &Path| lean(program, copies.path());
        let script = format!(
            "export LOCUM_BIN={} LOCUM_REQUIRE_LAB=1 RUST_TEST_THREADS={INSIDE_AT_ONCE}\n\
             {} --color never {}\n",
            word(&lean(require::locum())),
            word(&lean(&exe)),
            chosen.join(" "),
        );
        let output = run(&script, INSIDE_LIMIT);
        println!("{}\n{:?} in the guest", output.text, output.took);
        output
    });
    let passed = output.text.contains(&format!("test {test} ... ok\n"));
    assert!(passed, "{test} did not pass in the guest:\n{}", output.text);
}

/// A copy of a program without what only debuggers read, which is most of it: the guest reads all that
/// it runs through a share, slowly. The program itself where no copy can be made.
fn lean(program: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join(program.file_name().unwrap_or_default());
    let made =
        Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(program).status();
    if made.is_ok_and(|status| status.success()) { copy } else { program.to_owned() }
}

/// A path as one word of a shell script, whatever is in it.
#[must_use]
pub fn word(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Boots a guest, runs a shell script in it as root and powers it off.
///
/// # Panics
/// When the guest still runs after `limit` (beyond the time it takes to boot).
pub fn run(script: &str, limit: Duration) -> Output {
    let _turn = Turn::take(Company::Guest);
    // Its namespaces take the emulator with them when this process ends.
    let host = Node::new("vmhost");
    let cache = require::target().join("vm");
    let files = tempfile::tempdir().expect("cannot make a directory");
    let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let text = format!("export {INSIDE}=1\n{script}");
    fs::write(path("script"), text).expect("cannot write the script");
    let start = Instant::now();
    let argv = arguments(&cache, files.path(), &path("console"), &path("output"));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut guest = host.spawn(&argv);
    while guest.exited().is_none() && start.elapsed() < limit + BOOT_LIMIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = guest.exited().is_some();
    guest.signal(Whom::Family, Signal::SIGKILL);
    let read = |name: &str| {
        String::from_utf8_lossy(&fs::read(path(name)).unwrap_or_default()).into_owned()
    };
    let (text, console) = (read("output"), read("console"));
    assert!(ended, "the guest did not end in {limit:?}: {text}\n{console}\n{}", guest.log());
    let status = console.lines().find_map(|line| line.strip_prefix("lab status "));
    let status = status.and_then(|number| number.trim().parse().ok());
    if status.is_none() {
        eprintln!("{console}\n{}", guest.log());
    }
    Output { status, text, console, took: start.elapsed() }
}

/// `job` is the directory with the script. Paths reach the guest as shares and not as words of the
/// kernel's command line, which end at a space.
fn arguments(cache: &Path, job: &Path, console: &str, output: &str) -> Vec<String> {
    let kernel = cache.join("vmlinuz").display().to_string();
    let initramfs = cache.join("initramfs.gz").display().to_string();
    let shares =
        [("host", Path::new("/")), ("modules", &cache.join("root/lib/modules")), ("job", job)];
    // A guest has nothing to measure and takes all it gets: what runs beside it comes first.
    let mut arguments = [
        "nice",
        "-n",
        "10",
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        MEMORY,
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
        // A clock that counts what the guest executes: what its host has no time for is no time there.
        "-icount",
        "shift=2",
        "-kernel",
        &kernel,
        "-initrd",
        &initramfs,
        "-append",
        // An emulated timer is late on a busy host, which a booting kernel takes for a broken one.
        "console=ttyS0 quiet panic=-1 no_timer_check",
        "-serial",
        &format!("file:{console}"),
        "-serial",
        &format!("file:{output}"),
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, directory) in shares {
        // In a list of options a comma is written twice.
        let path = directory.display().to_string().replace(',', ",,");
        let options = "security_model=none,readonly=on,multidevs=remap";
        arguments.extend([
            "-fsdev".to_owned(),
            format!("local,id={name},path={path},{options}"),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={name},mount_tag={name}"),
        ]);
    }
    arguments
}
