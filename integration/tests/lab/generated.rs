//! Services by a HAProxy that is made for them, with real servers: the same clients as of the other
//! backends.

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::web::HalfAsked;
use locum_integration::web::Requests;

use crate::backends;

const BACKEND: &str = "haproxy";

fn available() -> bool {
    require::lab(&["haproxy"])
}

/// What runs on a node, by number.
fn processes(node: &Node) -> Vec<String> {
    let all = node.run(&["ps", "-eo", "pid,args", "--no-headers"]);
    let ours = all.lines().filter(|line| line.contains("/haproxy/web.cfg"));
    ours.filter_map(|line| Some(line.split_ascii_whitespace().next()?.to_owned())).collect()
}

#[test]
fn a_standby_is_warm() {
    if !available() {
        return;
    }
    let mut balanced = backends::settled(BACKEND);
    let shown = backends::status(&balanced.lab.directors[0]);
    assert!(shown.contains("haproxy"), "{shown}");
    wait::until("the backup runs one too", ELECTION, || {
        processes(&balanced.lab.directors[1]).len() == 1
    });
    let before = processes(&balanced.lab.directors[1]);
    balanced.lab.unplug(0);
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    assert_eq!(processes(&balanced.lab.directors[1]), before, "what stood by serves");
    balanced.daemon(1).terminate();
    wait::until("a stop leaves none", ELECTION, || {
        processes(&balanced.lab.directors[1]).is_empty()
    });
}

/// Of a server that fails, and of one that is drained: no request is lost but those in flight there,
/// and HAProxy is not started anew for it.
#[test]
fn a_server_that_fails_or_is_drained_gets_no_clients_and_returns() {
    if !available() {
        return;
    }
    let balanced = backends::settled(BACKEND);
    let director = &balanced.lab.directors[0];
    let before = processes(director);
    backends::expect_a_server_to_fail_and_return(&balanced);
    // Before there are others who take turns.
    let held = [(); 12].map(|()| HalfAsked::start(&balanced.lab.client, balanced.vip()));
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    let said = locum_command(director, &["server", "drain", "www", "10.0.0.1"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    balanced.expect_servers(&["srv2"]);
    let finished: Vec<String> =
        held.into_iter().map(|one| one.finish().expect("what was there goes on")).collect();
    assert!(finished.iter().any(|name| name == "srv1"), "{finished:?}");
    let said = locum_command(director, &["server", "ready", "www", "10.0.0.1"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    balanced.expect_both_servers();
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    assert_eq!(processes(director), before);
}

/// `kill -9` of the daemon, and a start half a second later.
#[test]
fn haproxy_goes_on_while_the_daemon_is_started_again() {
    if !available() {
        return;
    }
    let mut balanced = backends::settled(BACKEND);
    let before = processes(&balanced.lab.directors[0]);
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    balanced.daemon(0).kill_main();
    std::thread::sleep(millis(500));
    balanced.start_again(0);
    wait::until("the daemon answers", ELECTION, || {
        backends::status(&balanced.lab.directors[0]).contains("haproxy")
    });
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    balanced.web[0].set_status(503);
    balanced.expect_servers(&["srv2"]);
    assert_eq!(processes(&balanced.lab.directors[0]), before, "the same process");
}
