//! Thousands of probes at once: all in time, little memory, and no more of it with every round.
//!
//! Alone in its file, since it measures the process.

mod harness;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Bench, PATIENCE};
use locum_plan::{Checker, Command, Probe, Verdict};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const TCP: u32 = 1000;
const PROCESS: u32 = 1000;
const SCRIPT: u32 = 100;
const ROUNDS: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(1);

/// Half of what the whole daemon may have; far below what a leak per run would take.
const GROWTH_LIMIT_KIB: u64 = 2048;

#[test]
fn thousands_of_probes_run_in_time_and_take_no_more_memory_with_every_round() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("descriptors");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    thread::spawn(move || listener.incoming().for_each(drop));

    let empty = resident_kib();
    let bench = Bench::new();
    let begin = Instant::now();
    for id in 0..TCP + PROCESS + SCRIPT {
        let kind = match id {
            id if id < TCP => Checker::tcp(target),
            id if id < TCP + PROCESS => Checker::Process { name: own_name() },
            _ => Checker::Script(Command::argv(["/bin/true"])),
        };
        bench.probes.start(id, Probe::new(kind, INTERVAL, PATIENCE));
    }
    let mut runs = HashMap::new();
    let mut skipped = 0;
    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        for _ in 0..TCP + PROCESS + SCRIPT {
            let (id, outcome) = bench.next();
            assert_eq!(outcome.verdict, Verdict::Pass, "{id}: {outcome:?}");
            skipped += u32::from(outcome.detail.contains("skipped"));
            *runs.entry(id).or_insert(0) += 1;
        }
        resident.push(resident_kib());
        let took = begin.elapsed();
        println!("round {round}: {took:?}, {} KiB (empty: {empty} KiB)", resident_kib());
    }
    let took = begin.elapsed();
    assert_eq!(runs.len(), (TCP + PROCESS + SCRIPT) as usize, "all have run");
    // On an idle machine none is late. One that stands still for a moment makes all of them late,
    // once; half as many rounds as are due in the time mean that this does not keep up.
    assert!(took < INTERVAL * ROUNDS * 2, "took {took:?}");
    assert!(skipped < (TCP + PROCESS + SCRIPT) * ROUNDS / 2, "{skipped} runs were late");
    let growth = resident[resident.len() - 1].saturating_sub(resident[1]);
    assert!(growth < GROWTH_LIMIT_KIB, "grows: {resident:?} KiB");
}

fn own_name() -> String {
    let program = std::env::current_exe().expect("a program");
    program.file_name().expect("a name").to_string_lossy().into_owned()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}
