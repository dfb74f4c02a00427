//! A master that cannot serve any more: how soon the other one does, and that the address is held by
//! one of them all the time.

use std::net::TcpListener;
use std::time::Duration;
use std::time::Instant;

use locum_integration::lateness::Witnesses;
use locum_integration::outage;
use locum_integration::outage::Knocks;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::peer::locum_command;
use locum_integration::probe::Prober;
use locum_integration::probe::Responder;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::HAPROXY;
use locum_integration::service::HAPROXY_FILE;
use locum_integration::service::PROXY;
use locum_integration::service::cold;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

/// The promise with adverts every second: the successor's skew is 0.6 s, and then it has to start
/// what serves.
const ANSWERED: Duration = millis(1500);

/// Directors of which the first one serves, and the other one could.
fn settled(config: &str, file: &str, wrapper: &[&str]) -> Balanced {
    let mut balanced = Balanced::alone(config);
    for director in [0, 1] {
        let node = &balanced.lab.directors[director];
        node.write("/etc/haproxy/lab.cfg", file);
        if file.contains(outage::CERTIFICATE) {
            outage::issue_certificate(node, "lab.example");
        }
        balanced.start_under(director, wrapper);
        balanced.expect_service_by(0);
    }
    balanced.expect_both_servers();
    expect_ready(&balanced, 1);
    balanced
}

/// Waits until a director sees that it could serve, so that it takes what is offered.
fn expect_ready(balanced: &Balanced, director: usize) {
    let node = &balanced.lab.directors[director];
    wait::eventually("the other director could serve", ELECTION, || {
        let output = locum_command(node, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let instance = &status["instances"][0];
        let is_fit = instance["effective_priority"] == instance["base_priority"];
        if is_fit && instance["role"] == "backup" { Ok(()) } else { Err(instance.to_string()) }
    });
}

/// What `strike` does to the first director has it give the address away. `object` is what its
/// history then names, and `notice` how soon the failure must be known.
fn moves<T>(
    balanced: &mut Balanced,
    object: &str,
    notice: Duration,
    strike: impl FnOnce(&mut Balanced) -> T,
) -> T {
    let _responders = Responder::on_each(&balanced.lab.directors);
    let capture = balanced.lab.capture_without_client();
    let knocks = Knocks::start(&balanced.lab.client, balanced.vip());
    let prober = Prober::start(&balanced.lab.client, balanced.vip());
    wait::until("probes are answered", ELECTION, || prober.answered() > 500);
    let witnesses = Witnesses::call();
    let struck_from = Instant::now();
    let kept = strike(balanced);
    let struck = Instant::now();
    wait::until("clients are answered again", ELECTION, || knocks.answered_since(struck).is_some());
    let late = witnesses.dismiss();
    // Some more, in which nothing may be lost either.
    std::thread::sleep(seconds(1));
    let report = prober.stop();
    let answered = knocks.answered_since(struck).expect("waited for");
    let known = outage::known(&capture, "lb1", FIRST, struck_from).expect("lb1 gave it away");
    let noticed = known.saturating_duration_since(struck);
    let waited = answered.saturating_duration_since(known);
    println!("known after {noticed:?}, answered {waited:?} later, machine late by {late:?}");
    assert!(noticed <= notice + late, "known after {noticed:?}, machine late by {late:?}");
    assert!(waited <= ANSWERED + late, "answered after {waited:?}, machine late by {late:?}");
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(report.answered_by, [0, 1], "{report:?}");
    // Of what it is not asked to serve any more it may think otherwise.
    let history = locum_command(&balanced.lab.directors[0], &["history"]);
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    let sentence = format!("this node cannot serve {object}");
    assert!(history.contains(&sentence), "{history}");
    kept
}

/// While the first director cannot serve, its status says so, and nothing comes back.
fn expect_unfit(balanced: &Balanced, object: &str) {
    let node = &balanced.lab.directors[0];
    wait::eventually(&format!("status names {object}"), ELECTION, || {
        let output = locum_command(node, &["status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let sentence = format!("because this node cannot serve {object}");
        let is_said = output.status.code() == Some(1) && said.contains(&sentence);
        if is_said { Ok(()) } else { Err(said) }
    });
    // A recovery would count after 2 s.
    wait::steadily("lb2 stays master", seconds(5), || balanced.lab.holders(balanced.vip()) == [1]);
}

/// The daemon cannot start another one before the port is taken.
fn kill_and_take_port(balanced: &mut Balanced) -> TcpListener {
    balanced.daemon(0).pause();
    outage::signal_haproxy(&balanced.lab.directors[0], "KILL");
    let stranger = outage::take_port(&balanced.lab.directors[0]);
    balanced.daemon(0).resume();
    stranger
}

#[test]
fn haproxy_killed_and_its_port_taken_moves_the_address() {
    if !require::lab(&["nft", "ss", "haproxy", "pgrep"]) {
        return;
    }
    let mut balanced = settled(&every_second(HAPROXY), HAPROXY_FILE, &[]);
    let stranger = moves(&mut balanced, "haproxy edge", seconds(1), kill_and_take_port);
    expect_unfit(&balanced, "haproxy edge");
    drop(stranger);
    balanced.expect_service_by(0);
}

#[test]
fn haproxy_that_was_stopped_moves_the_address() {
    if !require::lab(&["nft", "ss", "haproxy", "pgrep"]) {
        return;
    }
    let mut balanced = settled(&every_second(HAPROXY), HAPROXY_FILE, &[]);
    moves(&mut balanced, "haproxy edge", seconds(2), |balanced| {
        outage::signal_haproxy(&balanced.lab.directors[0], "STOP");
    });
    // Another one is started there then, and shares no port with what was stopped.
    let alone = || balanced.lab.holders(balanced.vip()) == [0];
    wait::until("lb1 alone is master again", ELECTION, alone);
    wait::steadily("lb1 stays master", seconds(5), alone);
    balanced.expect_both_servers();
}

/// What is renewed wrongly serves on until it has to start.
#[test]
fn haproxy_whose_certificate_is_gone_moves_the_address_when_it_dies() {
    if !require::lab(&["nft", "ss", "haproxy", "pgrep", "openssl"]) {
        return;
    }
    let mut balanced = settled(&every_second(HAPROXY), &outage::with_certificate(), &[]);
    balanced.lab.directors[0].remove(outage::CERTIFICATE);
    let reload = locum_command(&balanced.lab.directors[0], &["reload"]);
    assert_eq!(reload.status.code(), Some(1), "a reload with it is refused");
    balanced.expect_both_servers();
    moves(&mut balanced, "haproxy edge", seconds(1), |balanced| {
        outage::signal_haproxy(&balanced.lab.directors[0], "KILL");
    });
    expect_unfit(&balanced, "haproxy edge");
    outage::issue_certificate(&balanced.lab.directors[0], "lab.example");
    balanced.expect_service_by(0);
}

#[test]
fn servers_that_the_master_alone_cannot_reach_move_the_address_there_and_back() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let mut balanced = settled(&every_second(&cold(PROXY)), "", &[]);
    // Two checks, 500 ms apart, and what another director may be behind.
    moves(&mut balanced, "service www", millis(1000 + 400 + 150), |balanced| {
        outage::lose_servers(&balanced.lab.directors[0]);
    });
    outage::find_servers(&balanced.lab.directors[0]);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
}

/// The daemon runs from a file of its own, which is then no program any more.
#[test]
fn proxy_killed_and_its_program_refused_moves_the_address() {
    if !require::lab(&["nft", "ss", "pgrep"]) {
        return;
    }
    let copy = "cp \"$0\" /run/lab/program && exec /run/lab/program \"$@\"";
    let mut balanced = settled(&every_second(&cold(PROXY)), "", &["/bin/sh", "-ec", copy]);
    moves(&mut balanced, "service www", seconds(2), |balanced| {
        // The brackets keep the pattern from matching the shell that it stands in.
        let refuse = "chmod 644 /run/lab/program; kill -9 $(pgrep -f '[p]roxy --socket')";
        balanced.lab.directors[0].shell(refuse);
    });
    expect_unfit(&balanced, "service www");
    balanced.lab.directors[0].shell("chmod 755 /run/lab/program");
    balanced.expect_service_by(0);
}

/// From the loss of a file to a sentence about it.
const SHOWN: Duration = seconds(2);
/// Between two answers, with a request every 20 ms.
const UNNOTICED: Duration = millis(500);
/// Of clients that a forced handover sent to a director which cannot serve.
const TAKEN_BACK: Duration = seconds(2);

/// Exit code of a switchover from the first director, and all that it said.
fn switchover(balanced: &Balanced, option: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["switchover", "web"], option].concat();
    let output = locum_command(&balanced.lab.directors[0], &arguments);
    let all = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn standby_that_cannot_serve_says_so_and_what_it_is_given_by_force_comes_back() {
    if !require::lab(&["nft", "ss", "haproxy", "openssl"]) {
        return;
    }
    let balanced = settled(&every_second(HAPROXY), &outage::with_certificate(), &[]);
    let witnesses = Witnesses::call();
    balanced.lab.directors[1].remove(outage::CERTIFICATE);
    let shown = wait::until("the standby says what is missing", ELECTION, || {
        let output = locum_command(&balanced.lab.directors[1], &["status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.code() == Some(1) && said.contains("cannot serve haproxy edge")
    });
    let late = witnesses.dismiss();
    println!("shown after {shown:?}, machine late by {late:?}");
    assert!(shown <= SHOWN + late, "shown after {shown:?}, machine late by {late:?}");

    let _responders = Responder::on_each(&balanced.lab.directors);
    let knocks = Knocks::start(&balanced.lab.client, balanced.vip());
    let prober = Prober::start(&balanced.lab.client, balanced.vip());
    wait::until("probes are answered", ELECTION, || prober.answered() > 500);
    let witnesses = Witnesses::call();
    let (code, said) = switchover(&balanced, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody took it, so this node is master again"), "{said}");
    let (code, said) = switchover(&balanced, &[]);
    assert!(code != Some(0) && said.contains("with --force"), "{code:?}: {said}");
    let report = prober.stop();
    assert_eq!((report.lost, &*report.answered_by), (0, &[0][..]), "{report:?}");
    let (silence, late) = (knocks.longest_silence(), witnesses.dismiss());
    assert!(silence < UNNOTICED + late, "clients waited {silence:?}, machine late by {late:?}");

    let prober = Prober::start(&balanced.lab.client, balanced.vip());
    let witnesses = Witnesses::call();
    let (code, said) = switchover(&balanced, &["--force"]);
    assert!(said.contains("taken by 192.168.1.202"), "{code:?}: {said}");
    balanced.expect_service_by(0);
    let back = Instant::now();
    wait::until("clients are answered again", ELECTION, || knocks.answered_since(back).is_some());
    let late = witnesses.dismiss();
    let silence = knocks.longest_silence();
    println!("clients unanswered for {silence:?}, machine late by {late:?}");
    assert!(silence <= TAKEN_BACK + late, "{silence:?}, machine late by {late:?}");
    let report = prober.stop();
    assert_eq!((report.lost, &*report.answered_by), (0, &[0, 1, 0][..]), "{report:?}");
}
