//! A client keeps being served on whichever director is master, by the built-in proxy and by
//! HAProxy; the other one serves nothing.

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::HAPROXY;
use locum_integration::service::HAPROXY_FILE;
use locum_integration::service::INSTANCE;
use locum_integration::service::PROXY;
use locum_integration::service::carriers;
use locum_integration::service::cold;
use locum_integration::service::every_second;
use locum_integration::service::expect_idle;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;
use locum_integration::web::HalfAsked;
use locum_integration::web::Requests;

fn with(part: &str) -> String {
    format!("{INSTANCE}{part}")
}

fn proxied() -> Balanced {
    Balanced::settled(&with(&cold(PROXY)))
}

fn through_haproxy() -> Balanced {
    running_haproxy(&with(HAPROXY))
}

fn running_haproxy(config: &str) -> Balanced {
    let mut balanced = Balanced::new(config);
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
    }
    balanced.start(0);
    balanced.start(1);
    balanced.expect_service_by(0);
    balanced
}

fn moves_with_a_stop(mut balanced: Balanced) {
    balanced.expect_both_servers();
    expect_idle(&balanced.lab.directors[1]);
    balanced.daemon(0).terminate();
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    expect_idle(&balanced.lab.directors[0]);
}

fn moves_with_a_kill(mut balanced: Balanced) {
    balanced.daemon(0).kill();
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    expect_idle(&balanced.lab.directors[1]);
}

fn moves_with_silence_and_back(balanced: &Balanced) {
    balanced.lab.silence(0);
    balanced.expect_service_by(1);
    balanced.lab.unsilence(0);
    balanced.expect_service_by(0);
    expect_idle(&balanced.lab.directors[1]);
}

fn moves_with_the_link_and_back(balanced: &Balanced) {
    balanced.lab.unplug(0);
    balanced.expect_service_by(1);
    expect_idle(&balanced.lab.directors[0]);
    balanced.lab.replug(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
}

/// One test per way to lose a master, for one way to carry traffic.
macro_rules! carried {
    ($module:ident: $make:ident, $programs:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn traffic_continues_after_a_stop() {
                if require::lab(&$programs) {
                    moves_with_a_stop($make());
                }
            }

            #[test]
            fn traffic_continues_after_a_kill() {
                if require::lab(&$programs) {
                    moves_with_a_kill($make());
                }
            }

            #[test]
            fn traffic_continues_while_the_master_is_silent() {
                if require::lab(&$programs) {
                    moves_with_silence_and_back(&$make());
                }
            }

            #[test]
            fn traffic_continues_while_the_link_is_lost() {
                if require::lab(&$programs) {
                    moves_with_the_link_and_back(&$make());
                }
            }
        }
    };
}

carried!(by_proxy: proxied, ["nft", "ss"]);
carried!(by_haproxy: through_haproxy, ["nft", "ss", "haproxy"]);

#[test]
fn failing_server_gets_no_requests_until_it_is_well() {
    if !require::lab(&["nft"]) {
        return;
    }
    let balanced = proxied();
    balanced.expect_both_servers();
    balanced.web[0].set_status(503);
    balanced.expect_servers(&["srv2"]);
    balanced.web[0].set_status(200);
    balanced.expect_both_servers();
}

#[test]
fn haproxy_that_refuses_its_file_shows_its_message_and_moves_no_address() {
    if !require::lab(&["nft", "haproxy"]) {
        return;
    }
    let mut balanced = Balanced::new(&with(HAPROXY));
    let refused = HAPROXY_FILE.replace("bind *:80", "bind *:80\n    no_such_word");
    balanced.lab.directors[0].write("/etc/haproxy/lab.cfg", &refused);
    balanced.start(0);
    let node = &balanced.lab.directors[0];
    wait::until("lb1 is master", ELECTION, || node.holds(balanced.vip()));
    wait::until("status shows HAProxy's own message", ELECTION, || {
        let output = locum_command(node, &["status", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        said.contains("no_such_word") && said.contains("lab.cfg:")
    });
    assert!(node.holds(balanced.vip()));
}

/// Exit code of a reload, and what it said.
fn reload(node: &Node) -> (Option<i32>, String) {
    let output = locum_command(node, &["reload"]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The configured priority of the only instance.
fn base_priority(node: &Node) -> Option<u64> {
    let output = locum_command(node, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["instances"][0]["base_priority"].as_u64()
}

/// On the master and on the backup, which would run it after the next failover.
#[test]
fn reload_whose_haproxy_file_is_refused_changes_nothing() {
    if !require::lab(&["nft", "haproxy"]) {
        return;
    }
    let balanced = running_haproxy(&every_second(HAPROXY));
    balanced.expect_both_servers();
    let refused = HAPROXY_FILE.replace("bind *:80", "bind *:80\n    no_such_word");
    let line = 1 + refused.lines().position(|line| line.contains("no_such_word")).unwrap_or(0);
    let changed = every_second(HAPROXY).replace("150", "140").replace("100 }", "90 }");
    let priorities = [(150, 140), (100, 90)];
    for (node, (old, new)) in balanced.lab.directors.iter().zip(priorities) {
        let before = carriers(node);
        node.write("/etc/haproxy/lab.cfg", &refused);
        Locum::NATIVE.configure(node, &changed);
        let (code, said) = reload(node);
        assert_eq!(code, Some(1), "{said}");
        let place = format!("lab.cfg:{line}]");
        assert!(said.contains(&place) && said.contains("no_such_word"), "{said}");
        assert_eq!(base_priority(node), Some(old), "the old plan stays");
        assert_eq!(carriers(node), before, "and the old HAProxy");
        balanced.expect_both_servers();

        node.write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
        let (code, said) = reload(node);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(base_priority(node), Some(new));
    }
}

#[test]
fn hang_up_with_a_refused_haproxy_file_changes_nothing_and_is_remembered() {
    if !require::lab(&["nft", "haproxy"]) {
        return;
    }
    let mut balanced = running_haproxy(&every_second(HAPROXY));
    let node = &balanced.lab.directors[0];
    node.write("/etc/haproxy/lab.cfg", &HAPROXY_FILE.replace("bind", "no_such_word"));
    let before = carriers(node);
    balanced.daemon(0).hang_up();
    let node = &balanced.lab.directors[0];
    wait::until("the history has the refusal", ELECTION, || {
        let history = locum_command(node, &["history", "--json"]).stdout;
        let history = String::from_utf8_lossy(&history).into_owned();
        history.contains("reload-refused") && history.contains("no_such_word")
    });
    assert_eq!(carriers(node), before);
    balanced.expect_both_servers();
}

#[test]
fn reload_takes_up_a_changed_haproxy_file_without_losing_a_request() {
    if !require::lab(&["nft", "haproxy"]) {
        return;
    }
    let balanced = running_haproxy(&every_second(HAPROXY));
    balanced.expect_both_servers();
    let node = &balanced.lab.directors[0];
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    let held = HalfAsked::start(&balanced.lab.client, balanced.vip());
    // Only HAProxy's file changes, not ours.
    let line = "    server srv2 10.0.0.2:80 check inter 500\n";
    node.write("/etc/haproxy/lab.cfg", &HAPROXY_FILE.replace(line, ""));
    let (code, said) = reload(node);
    assert_eq!(code, Some(0), "{said}");
    wait::until("another HAProxy has taken over", seconds(20), || {
        carriers(node).iter().any(|line| line.contains("-sf"))
    });
    let answer = held.finish();
    assert!(answer.is_ok(), "the connection that was there: {answer:?}");
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    balanced.expect_servers(&["srv1"]);
    wait::until("the one before has ended", ELECTION, || carriers(node).len() == 1);
}

/// The service's port is taken by another program for a while.
#[test]
fn service_that_cannot_listen_shows_why_until_it_can() {
    if !require::lab(&["nft"]) {
        return;
    }
    let mut balanced = Balanced::new(&every_second(&cold(PROXY)));
    let node = &balanced.lab.directors[0];
    let squatter = node.in_network(|| std::net::TcpListener::bind("0.0.0.0:80"));
    let squatter = squatter.expect("port 80 is free on a new machine");
    balanced.start(0);
    let node = &balanced.lab.directors[0];
    let problem = || {
        let output = locum_command(node, &["status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said.contains("www does not answer its clients"))
    };
    wait::until("status says that it does not answer", ELECTION, || problem() == (Some(1), true));
    assert!(node.holds(balanced.vip()), "the address is held all the same");
    drop(squatter);
    wait::until("status says no more of it", ELECTION, || problem() == (Some(0), false));
    let history = locum_command(node, &["history"]);
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    assert!(history.contains("www answers its clients again"), "{history}");
    balanced.expect_both_servers();
}

#[test]
fn killed_proxy_is_started_again() {
    if !require::lab(&["nft", "pgrep"]) {
        return;
    }
    let balanced = Balanced::settled(&every_second(&cold(PROXY)));
    let node = &balanced.lab.directors[0];
    // The brackets keep the pattern from matching the shell that it stands in.
    let pids = || node.shell("pgrep -f '[p]roxy --socket' || true");
    let before = pids();
    assert_eq!(before.lines().count(), 1, "one proxy: {before}");
    node.run(&["kill", "-9", before.trim()]);
    wait::until("another proxy runs", ELECTION, || {
        let now = pids();
        !now.is_empty() && now != before
    });
    balanced.expect_both_servers();
    assert!(node.holds(balanced.vip()), "the address stays");
}

/// `kill -9` of the daemon alone, and a start half a second later: whoever carries the traffic goes
/// on meanwhile, with the connections it has.
fn survives_its_daemon(part: &str) {
    let mut balanced = Balanced::new(&every_second(part));
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
    }
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.start(1);
    balanced.expect_both_servers();
    let before = carriers(&balanced.lab.directors[0]);
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    let held = HalfAsked::start(&balanced.lab.client, balanced.vip());
    balanced.daemon(0).kill_main();
    std::thread::sleep(millis(500));
    balanced.start_again(0);
    std::thread::sleep(seconds(3));
    let answer = held.finish();
    assert!(answer.is_ok(), "the connection that was there: {answer:?}");
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    assert!(answered > 20, "only {answered} answered");
    assert_eq!(carriers(&balanced.lab.directors[0]), before, "taken over, not started anew");
}

#[test]
fn proxy_keeps_its_connections_while_its_daemon_is_started_again() {
    if require::lab(&["nft"]) {
        survives_its_daemon(&cold(PROXY));
    }
}

#[test]
fn upgraded_daemon_has_a_proxy_of_its_own_without_losing_a_request_or_a_connection() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let mut balanced = Balanced::settled(&every_second(&cold(PROXY)));
    let before = carriers(&balanced.lab.directors[0]);
    assert_eq!(before.len(), 1, "{before:?}");
    let held = HalfAsked::start(&balanced.lab.client, balanced.vip());
    wait::until("the proxy carries it", ELECTION, || is_busy(&balanced.lab.directors[0]));
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    balanced.daemon(0).kill_main();
    balanced.start_upgraded(0);
    let node = &balanced.lab.directors[0];
    let is_another = |one: &String| one.contains("--predecessor");
    wait::until("another proxy runs beside the one that was there", ELECTION, || {
        let now = carriers(node);
        now.len() == 2 && now.contains(&before[0]) && now.iter().any(is_another)
    });
    let answer = held.finish();
    assert!(answer.is_ok(), "the connection that was there: {answer:?}");
    wait::until("the one that was there has ended", ELECTION, || {
        let now = carriers(node);
        now.len() == 1 && now.iter().all(is_another)
    });
    balanced.expect_both_servers();
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    assert!(answered > 20, "only {answered} answered");
    assert!(balanced.lab.directors[0].holds(balanced.vip()), "the address stays");
}

#[test]
fn haproxy_keeps_its_connections_while_its_daemon_is_started_again() {
    if require::lab(&["nft", "haproxy"]) {
        survives_its_daemon(HAPROXY);
    }
}

/// Whether the node carries client connections.
fn is_busy(node: &Node) -> bool {
    !node.run(&["ss", "-Htn", "state", "established", "sport = :80"]).trim().is_empty()
}

/// A client of the first director, which then gives its role away.
fn strand(balanced: &Balanced) -> HalfAsked {
    let node = &balanced.lab.directors[0];
    let held = HalfAsked::start(&balanced.lab.client, balanced.vip());
    wait::until("the proxy carries it", seconds(20), || is_busy(node));
    let output = locum_command(node, &["switchover", "web"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    balanced.expect_service_by(1);
    held
}

/// With the default drain time: a client whose connection can never end, as the address is gone,
/// holds nothing up.
#[test]
fn stranded_connection_does_not_keep_a_proxy_on_the_backup() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let mut balanced = proxied();
    let held = strand(&balanced);
    expect_idle(&balanced.lab.directors[0]);
    drop(held);
    balanced.daemon(0).terminate();
}

/// Many directors have it set, for programs that bind the shared address.
#[test]
fn stranded_connection_is_noticed_where_every_address_can_be_bound() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let mut balanced = proxied();
    balanced.lab.directors[0].shell("echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind");
    let held = strand(&balanced);
    expect_idle(&balanced.lab.directors[0]);
    drop(held);
    balanced.daemon(0).terminate();
}

#[test]
fn stranded_connection_ends_on_a_warm_standby_that_stays_up() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let balanced = Balanced::settled(&with(&format!("{PROXY}standby = \"warm\"\n")));
    let held = strand(&balanced);
    let node = &balanced.lab.directors[0];
    // Long before the drain time ends.
    wait::until("the connection is closed", seconds(15), || !is_busy(node));
    assert_eq!(carriers(node).len(), 1, "the proxy stays");
    drop(held);
}

#[test]
fn killed_haproxy_is_started_again() {
    if !require::lab(&["nft", "haproxy", "pgrep"]) {
        return;
    }
    let balanced = through_haproxy();
    balanced.lab.directors[0].shell("kill -9 $(pgrep -x haproxy)");
    balanced.expect_service_by(0);
}
