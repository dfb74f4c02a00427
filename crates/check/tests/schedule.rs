//! When probes run: at once, on time, never twice at once, and not after they were stopped.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::{Bench, PATIENCE, closed_port, shell, wait_for_death};
use locum_plan::{Checker, Outcome, Probe, Retry, Verdict};

const MS: Duration = Duration::from_millis(1);

fn script(line: impl Into<String>, interval: Duration, timeout: Duration) -> Probe {
    Probe::new(Checker::Script(shell(line)), interval, timeout)
}

fn skipped(outcome: &Outcome) -> u32 {
    let note = outcome.detail.split_once(" (").map(|(_, note)| note);
    let number = note.and_then(|note| note.split(' ').next());
    number.map_or(0, |number| number.parse().expect("a number of runs"))
}

#[test]
fn the_first_run_is_at_once() {
    let bench = Bench::new();
    // The second one is due long after the patience has ended.
    bench.probes.start(1, script("exit 0", PATIENCE * 10, PATIENCE));
    assert_eq!(bench.next().0, 1);
}

#[test]
fn a_run_of_most_of_the_interval_does_not_move_the_next() {
    let bench = Bench::new();
    let begin = Instant::now();
    bench.probes.start(1, script("sleep 0.12", 200 * MS, PATIENCE));
    let ends = ends_after_their_slots(&bench, begin, 200 * MS, 15);
    // Runs that waited for the interval after each run would be 1.2 s late after ten of them.
    assert!(least(&ends[10..]) < 700 * MS, "{ends:?}");
}

#[test]
fn a_slow_probe_never_runs_twice_at_once_and_counts_what_it_skips() {
    let directory = tempfile::tempdir().expect("a directory");
    let lock = directory.path().join("lock");
    let line = format!("mkdir {0} || exit 1; sleep 0.25; rmdir {0}", lock.display());
    let bench = Bench::new();
    let begin = Instant::now();
    bench.probes.start(1, script(line, 100 * MS, PATIENCE));
    let outcomes: Vec<_> = (0..6).map(|_| bench.next().1).collect();
    for outcome in &outcomes {
        assert_eq!(outcome.verdict, Verdict::Pass, "two at once: {outcomes:?}");
    }
    assert_eq!(skipped(&outcomes[0]), 0, "{outcomes:?}");
    let missed: u32 = outcomes.iter().map(skipped).sum();
    assert!(missed >= 10, "two or more before each: {outcomes:?}");
    // Slots run and skipped are the time that passed, but for the last run.
    assert!(begin.elapsed() > 100 * MS * (5 + missed), "{missed} skipped");
    let slots = 6 + missed;
    let ends = ends_after_their_slots(&bench, begin + 100 * MS * slots, 100 * MS, 5);
    assert!(least(&ends) < 1500 * MS, "{ends:?}");
}

#[test]
fn a_probe_that_always_times_out_fails_in_every_interval() {
    let bench = Bench::new();
    let begin = Instant::now();
    bench.probes.start(1, script("exec sleep 1000", 200 * MS, 200 * MS));
    let (mut slots, mut ends) = (0, Vec::new());
    while ends.len() < 10 {
        let outcome = bench.next().1;
        slots += 1 + skipped(&outcome);
        // On a busy machine one or another does not come so far.
        if outcome.detail.starts_with("could not be started within 200ms") {
            assert_eq!(outcome.verdict, Verdict::CannotRun);
            continue;
        }
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert!(outcome.detail.starts_with("timed out after 200ms"), "{outcome:?}");
        let end = begin.elapsed();
        assert!(end >= 200 * MS * slots, "{slots} slots in {end:?}");
        ends.push(end - 200 * MS * slots);
    }
    // On time, or those it missed are counted.
    assert!(least(&ends[5..]) < 600 * MS, "{ends:?}");
}

/// How long after the beginning of its slot each of the next `count` runs was reported, slot 0 being
/// at `begin`.
fn ends_after_their_slots(
    bench: &Bench,
    begin: Instant,
    interval: Duration,
    count: u32,
) -> Vec<Duration> {
    let mut slots = 0;
    let ends = (0..count).map(|_| {
        slots += 1 + skipped(&bench.next().1);
        begin.elapsed().saturating_sub(interval * (slots - 1))
    });
    ends.collect()
}

/// A busy machine makes one or another late, and not all.
fn least(ends: &[Duration]) -> Duration {
    *ends.iter().min().expect("some")
}

#[test]
fn a_probe_that_hangs_does_not_keep_others_waiting() {
    let bench = Bench::new();
    for id in 0..100 {
        bench.probes.start(id, script("exec sleep 1000", PATIENCE, PATIENCE));
    }
    bench.probes.start(100, script("exit 0", 100 * MS, PATIENCE));
    for _ in 0..3 {
        assert_eq!(bench.next().0, 100);
    }
}

#[test]
fn a_stopped_probe_is_silent_and_what_it_ran_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    assert!(std::process::Command::new("mkfifo").arg(&pid).status().expect("mkfifo").success());
    let bench = Bench::new();
    let line = format!("echo $$ > {}; exec sleep 1000", pid.display());
    bench.probes.start(1, script(line, 100 * MS, PATIENCE));
    let pid = fs::read_to_string(pid).expect("a process id");
    bench.probes.stop(1);
    bench.probes.stop(77);
    wait_for_death(&pid);
    assert_eq!(bench.next_within(300 * MS), None);
}

#[test]
fn a_started_probe_replaces_the_one_with_its_id() {
    let bench = Bench::new();
    bench.probes.start(1, script("exit 1", 20 * MS, PATIENCE));
    assert_eq!(bench.next().1.verdict, Verdict::Fail);
    bench.probes.start(1, script("exit 0", 20 * MS, PATIENCE));
    // One outcome of the old one may have been on its way; after the new one's there is none.
    let mut outcomes = std::iter::repeat_with(|| bench.next().1.verdict);
    assert!(outcomes.by_ref().take(1000).any(|verdict| verdict == Verdict::Pass));
    assert!(outcomes.take(10).all(|verdict| verdict == Verdict::Pass));
}

#[test]
fn dropping_the_handle_kills_what_runs_and_does_not_wait_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    assert!(std::process::Command::new("mkfifo").arg(&pid).status().expect("mkfifo").success());
    let bench = Bench::new();
    let line = format!("trap '' TERM; echo $$ > {}; exec sleep 1000", pid.display());
    bench.probes.start(1, script(line, PATIENCE, PATIENCE));
    let pid = fs::read_to_string(pid).expect("a process id");
    let begin = Instant::now();
    drop(bench);
    // It would end by itself after 1000 seconds, and by its time-out after the patience.
    assert!(begin.elapsed() < PATIENCE);
    wait_for_death(&pid);
}

#[test]
fn a_recovering_target_is_seen_at_the_next_slot() {
    let (target, socket) = closed_port();
    let bench = Bench::new();
    let kind = Checker::tcp(target);
    bench.probes.start(1, Probe::new(kind, 50 * MS, PATIENCE));
    assert_eq!(bench.next().1.verdict, Verdict::Fail);
    socket.listen(8).expect("listening");
    bench.forget();
    // The run that was under way may still have been refused.
    let verdicts: Vec<_> = (0..2).map(|_| bench.next().1.verdict).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Pass), "{verdicts:?}");
}

/// A server that fails is asked again after the delay, as often as the retry says; then the interval.
#[test]
fn a_failure_is_repeated_sooner_until_enough_have_failed() {
    let (target, _held) = closed_port();
    let retry = Some(Retry { delay: 20 * MS, times: 2 });
    let (interval, bench) = (500 * MS, Bench::new());
    let probe = Probe::new(Checker::tcp(target), interval, PATIENCE);
    bench.probes.start(1, Probe { retry, ..probe });
    let mut ends = Vec::new();
    for _ in 0..4 {
        let (_, outcome) = bench.next();
        assert_eq!(outcome.verdict, Verdict::Fail);
        ends.push(Instant::now());
    }
    // Three within two delays, which a loaded host may make longer, and the fourth an interval on.
    assert!(ends[2] - ends[0] < interval, "{:?}", ends[2] - ends[0]);
    assert!(ends[3] - ends[2] > interval / 2, "{:?}", ends[3] - ends[2]);
}
