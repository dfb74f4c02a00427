//! A fresh network namespace for one test.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;

/// Set in the process that runs as root of its own user namespace.
const INSIDE: &str = "LOCUM_KERNEL_TEST_INSIDE";
/// Until a new cable carries frames: milliseconds on an idle machine.
const CARRIER_PATIENCE: Duration = Duration::from_secs(20);

/// Runs `body` in a thread with a network namespace of its own, which ends with the thread.
/// `test` is the name of the calling test: without privileges it runs once more, alone, in a user
/// namespace. Where that is not allowed either, the test is reported as skipped, or fails when
/// `LOCUM_REQUIRE_LAB` is 1.
pub fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    let entered = thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            ip("link set lo up");
            body();
            true
        }
        Err(_) => false,
    });
    match entered.join() {
        Ok(true) => {}
        Ok(false) => in_user_namespace(test),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn in_user_namespace(test: &str) {
    if std::env::var_os(INSIDE).is_some() {
        return skip("no network namespace, even as root of a user namespace");
    }
    let program = std::env::current_exe().expect("the test binary has a path");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return skip("the program unshare is missing") };
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("running 1 test") {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return skip(&format!("no user namespace: {reason}"));
    }
    print!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in a user namespace: {text}\n{errors}");
}

fn skip(reason: &str) {
    assert!(std::env::var("LOCUM_REQUIRE_LAB").as_deref() != Ok("1"), "cannot run: {reason}");
    println!("skipped: {reason}");
}

/// Runs `ip` with these words; its output.
pub fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("ip runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a switch under /proc/sys/net.
pub fn sysctl(name: &str, value: &str) {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A pair of connected interfaces, `left` and `right`, that carry frames, without IPv6 address
/// detection.
pub fn veth_pair() {
    sysctl("ipv6/conf/default/accept_dad", "0");
    ip("link add left type veth peer name right");
    connect("left", "right");
}

/// Brings both ends of a cable up and waits until they carry frames: the kernel does that after the
/// command has returned, and until then drops what is sent and reports success.
pub fn connect(one: &str, other: &str) {
    ip(&format!("link set {one} up"));
    ip(&format!("link set {other} up"));
    let limit = Instant::now() + CARRIER_PATIENCE;
    for end in [one, other] {
        let words = format!("-oneline link show dev {end}");
        loop {
            let state = ip(&words);
            if state.contains("state UP") && !state.contains("qdisc noop ") {
                break;
            }
            assert!(Instant::now() < limit, "{end} never came up: {state}");
        }
    }
}

/// From now on what this thread sends through a cable arrives in the order in which it is sent. Each
/// processor has a queue of its own for what arrives, and a host that is asked for by its first
/// datagram keeps that back until it has answered: so the thread stays on one, and `hosts` are known
/// at `left` as being at `right`.
pub fn keep_order(hosts: &[&str]) {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("processors");
    let first = (0..CpuSet::count()).find(|at| allowed.is_set(*at).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.expect("one of them")).expect("a processor");
    sched_setaffinity(this, &one).expect("one processor");
    let right = ip("-oneline link show dev right");
    let (_, address) = right.split_once("link/ether ").expect("an address");
    let address = address.split(' ').next().expect("a word");
    for host in hosts {
        ip(&format!("neigh replace {host} lladdr {address} dev left nud permanent"));
    }
}
