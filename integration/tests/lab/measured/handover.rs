//! What a client notices when the address moves: nothing when it was planned, the interval of RFC
//! 9568 §6.1 and no more when it was not.

use std::time::Duration;

use locum_integration::lab::Shape;
use locum_integration::measure;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Router;
use locum_integration::peer::locum_command;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };
const KEEPALIVED: Kinds = Kinds { first: &Keepalived, second: &Keepalived };
const INTO_KEEPALIVED: Kinds = Kinds { first: &Locum::NATIVE, second: &Keepalived };

/// The promise: this many probes, one every millisecond, none of them lost.
const PERIOD: Duration = seconds(8);
/// A backup may be so late by its own scheduling and the address it must add, on a machine that is
/// never late.
const MARGIN: Duration = millis(10);

/// So often a busy machine may spoil a measurement.
const MEASUREMENTS: u32 = 8;

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

/// Runs `leave` on the master of a settled pair and demands that no probe was lost.
fn planned(kinds: Kinds, period: Duration, leave: impl FnOnce(&mut Pair)) {
    if !kinds.available() {
        return;
    }
    let mut pair = Pair::settled(Shape::MEASURED_PAIR, kinds, router);
    let report = measure::through(&mut pair, period, leave);
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(report.answered_by, [0, 1], "{report:?}");
}

fn succeeds(pair: &Pair, arguments: &[&str]) {
    let output = locum_command(&pair.lab.directors[0], arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {error}", output.status);
}

/// keepalived's own figure for the same, for the reader: it depends on the moment of the stop.
#[test]
fn stop_by_signal_loses_no_probe() {
    for _ in 0..2 {
        planned(OURS, PERIOD, |pair| pair.daemon(0).terminate());
    }
    if KEEPALIVED.available() {
        let mut pair = Pair::settled(Shape::MEASURED_PAIR, KEEPALIVED, router);
        let report = measure::through(&mut pair, PERIOD, |pair| pair.daemon(0).terminate());
        println!("lost of {}: locum 0, keepalived {}", report.sent, report.lost);
        assert_eq!(report.answered_by, [0, 1], "{report:?}");
    }
}

#[test]
fn stop_by_command_loses_no_probe() {
    planned(OURS, seconds(4), |pair| succeeds(pair, &["stop"]));
}

#[test]
fn switchover_loses_no_probe() {
    planned(OURS, seconds(4), |pair| succeeds(pair, &["switchover", "router51"]));
}

#[test]
fn reload_that_removes_the_instance_loses_no_probe() {
    planned(OURS, seconds(4), |pair| {
        let other = Router::new(52, FIRST, &["192.168.1.99/24"]);
        Locum::NATIVE.configure(&pair.lab.directors[0], &Locum::NATIVE.render(&[other]));
        succeeds(pair, &["reload"]);
    });
}

#[test]
fn stop_hands_over_to_keepalived_without_a_lost_probe() {
    planned(INTO_KEEPALIVED, seconds(4), |pair| pair.daemon(0).terminate());
}

/// What the client met when the master's host fell silent.
struct Silence {
    /// Until the backup answered.
    length: Duration,
    answered_by: Vec<u8>,
    /// How late the machine itself was meanwhile.
    late: Duration,
}

fn silence(kinds: Kinds, interval: Duration) -> Silence {
    let every = |director| router(director).every(interval);
    let mut pair = Pair::settled(Shape::MEASURED_PAIR, kinds, every);
    let period = pair.routers[1].down_interval() + seconds(4);
    let fault = |pair: &mut Pair| pair.lab.silence(0);
    let (report, late) = measure::through_with_lateness(&mut pair, period, fault);
    Silence { length: report.longest_silence, answered_by: report.answered_by, late }
}

/// On a machine that was late by more than an interval a master may have lost its place before it
/// fell silent: what was measured then is no measurement, and another one is made.
fn unplanned(interval: Duration) {
    if !OURS.available() || !KEEPALIVED.available() {
        return;
    }
    let limit = router(1).every(interval).down_interval() + MARGIN;
    let mut is_excused = false;
    for _ in 0..MEASUREMENTS {
        let Silence { length, answered_by, late } = silence(OURS, interval);
        println!(
            "at {interval:?}: locum silent for {length:?}, limit {limit:?}, machine late {late:?}"
        );
        if answered_by == [0, 1] && length <= limit {
            println!("keepalived {:?}", silence(KEEPALIVED, interval).length);
            return;
        }
        assert!(late > interval, "{length:?} is longer than {limit:?}, answers by {answered_by:?}");
        is_excused |= answered_by == [0, 1] && length <= limit + late;
    }
    assert!(is_excused, "longer than {limit:?} even without what the machine was late");
}

#[test]
fn silence_at_one_second_ends_with_the_down_interval() {
    unplanned(seconds(1));
}

#[test]
fn silence_at_100_milliseconds_ends_with_the_down_interval() {
    unplanned(millis(100));
}

#[test]
fn silence_at_10_milliseconds_ends_with_the_down_interval() {
    unplanned(millis(10));
}
