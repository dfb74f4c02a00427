//! Who can serve is master: what all of a pair cannot do moves nothing, what one cannot do is seen
//! before it is needed, and the other director may be another program.

use locum_integration::node::Node;
use locum_integration::outage;
use locum_integration::pair::ELECTION;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Frr;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Peer;
use locum_integration::peer::Router;
use locum_integration::peer::locum_command;
use locum_integration::probe::Prober;
use locum_integration::probe::Report;
use locum_integration::probe::Responder;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::HAPROXY;
use locum_integration::service::HAPROXY_FILE;
use locum_integration::service::PROXY;
use locum_integration::service::cold;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::wait::seconds;

/// Lines of the instance's own table.
fn with(lines: &str) -> String {
    every_second(&format!("{lines}\n{}", cold(PROXY)))
}

/// What `locum status --json` says of the only instance.
fn instance(node: &Node) -> serde_json::Value {
    let output = locum_command(node, &["status", "--json"]);
    let mut status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status.pointer_mut("/instances/0").map(serde_json::Value::take).unwrap_or_default()
}

/// Waits until a backup sees that it could serve.
fn expect_ready(node: &Node) {
    wait::eventually(&format!("{} could serve", node.name()), ELECTION, || {
        let instance = instance(node);
        let is_fit = instance["effective_priority"] == instance["base_priority"];
        if is_fit && instance["role"] == "backup" { Ok(()) } else { Err(instance.to_string()) }
    });
}

/// Directors of which the first one serves, and the other one could.
fn settled(config: &str) -> Balanced {
    let balanced = Balanced::settled(config);
    expect_ready(&balanced.lab.directors[1]);
    balanced
}

/// Probes of the shared address from the moment it is answered.
fn probe(balanced: &Balanced) -> (Vec<Responder>, Prober) {
    let responders = Responder::on_each(&balanced.lab.directors);
    let prober = Prober::start(&balanced.lab.client, balanced.vip());
    wait::until("probes are answered", ELECTION, || prober.answered() > 500);
    (responders, prober)
}

fn expect_no_loss(report: &Report, answered_by: &[u8]) {
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(report.answered_by, answered_by, "{report:?}");
}

const HOOK: &str = "/run/lab/hook.sh";
const EVENTS: &str = "/run/lab/events";

/// The offers of the master, which the other one lets pass, come after 0, 10 and 30 s: nobody is
/// to notice them but the history.
#[test]
fn failure_that_both_have_moves_nothing() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let mut balanced = Balanced::new(&with(&format!("notify = [[\"{HOOK}\"]]")));
    for director in [0, 1] {
        balanced.lab.directors[director].write_script(HOOK, &format!("echo \"$*\" >> {EVENTS}"));
        balanced.start(director);
        balanced.expect_service_by(0);
    }
    expect_ready(&balanced.lab.directors[1]);
    let events = |balanced: &Balanced| {
        let read = |node: &Node| node.read(EVENTS).unwrap_or_default();
        balanced.lab.directors.iter().map(read).collect::<Vec<_>>()
    };
    wait::until("all hooks have run", ELECTION, || {
        let events = events(&balanced);
        events[0].contains(" MASTER ") && events[1].contains(" BACKUP ")
    });
    let before = events(&balanced);
    let (_responders, prober) = probe(&balanced);
    let capture = balanced.lab.capture_without_client();
    balanced.web.clear();
    for node in &balanced.lab.directors {
        wait::eventually("status says that no server is up", ELECTION, || {
            let output = locum_command(node, &["status"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_said = output.status.code() == Some(1) && said.contains("service www");
            if is_said { Ok(()) } else { Err(said) }
        });
    }
    wait::steadily("lb1 alone is master", seconds(60), || {
        balanced.lab.holders(balanced.vip()) == [0]
    });
    expect_no_loss(&prober.stop(), &[0]);
    assert_eq!(events(&balanced), before, "no hook has run");
    assert_eq!(capture.adverts("lb2"), [], "lb2 was never master");
    let offers = capture.adverts("lb1").iter().filter(|(_, advert)| advert.priority == 0).count();
    assert!((1..=20).contains(&offers), "it has offered, and not all the time: {offers}");
    for node in &balanced.lab.directors {
        assert_ne!(instance(node)["unfit"], serde_json::Value::Null, "{}", instance(node));
    }
}

/// Whether the only service has enough servers as seen from here.
fn is_populated(node: &Node) -> Option<bool> {
    let output = locum_command(node, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["services"][0]["fitness"]["populated"].as_bool()
}

/// The first loss moves the address. What comes back does not count before it has lasted.
#[test]
fn servers_that_come_and_go_move_the_address_once() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let balanced = settled(&with(""));
    let (_responders, prober) = probe(&balanced);
    let capture = balanced.lab.capture_without_client();
    let node = &balanced.lab.directors[0];
    for _ in 0..10 {
        outage::lose_servers(node);
        wait::until("the servers are lost", ELECTION, || is_populated(node) == Some(false));
        outage::find_servers(node);
        wait::until("the servers are back", ELECTION, || is_populated(node) == Some(true));
    }
    balanced.expect_service_by(1);
    wait::steadily("lb2 stays master", seconds(5), || balanced.lab.holders(balanced.vip()) == [1]);
    expect_no_loss(&prober.stop(), &[0, 1]);
    assert_eq!(outage::masters(&capture), ["lb1", "lb2"]);
    let output = locum_command(node, &["status"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("service www comes and goes: lost 10 times of late"), "{said}");
}

/// Where a better priority alone would move nothing.
#[test]
fn unfit_master_of_a_pair_that_does_not_preempt_is_relieved() {
    if !require::lab(&["nft", "ss"]) {
        return;
    }
    let balanced = settled(&with("preempt = false"));
    let (_responders, prober) = probe(&balanced);
    outage::lose_servers(&balanced.lab.directors[0]);
    balanced.expect_service_by(1);
    expect_no_loss(&prober.stop(), &[0, 1]);
    // As nothing preempts, it stays there when the first one has recovered.
    outage::find_servers(&balanced.lab.directors[0]);
    expect_ready(&balanced.lab.directors[0]);
    wait::steadily("lb2 stays master", seconds(3), || balanced.lab.holders(balanced.vip()) == [1]);
}

/// The offer of an unfit master is an advert of priority 0, which every router takes.
fn relieved_by(other: &dyn Peer) -> Report {
    let mut balanced = Balanced::new(&with(""));
    balanced.start(0);
    balanced.expect_service_by(0);
    let router = Router::new(51, SECOND, &[VIP]);
    let _other = other.start(&balanced.lab.directors[1], &[router]);
    // It listens from its first moment, and stays backup for longer than a down interval.
    wait::lasting("lb1 alone is master", ELECTION, seconds(4), || {
        balanced.lab.holders(balanced.vip()) == [0]
    });
    let (_responders, prober) = probe(&balanced);
    outage::lose_servers(&balanced.lab.directors[0]);
    let alone = |director| balanced.lab.holders(balanced.vip()) == [director];
    wait::until("the other director alone is master", ELECTION, || alone(1));
    // The worst of the two cannot serve: nothing comes back by itself.
    wait::steadily("it stays so", seconds(5), || alone(1));
    let report = prober.stop();
    outage::find_servers(&balanced.lab.directors[0]);
    balanced.expect_service_by(0);
    report
}

#[test]
fn keepalived_takes_what_an_unfit_master_offers() {
    if require::lab(&["nft", "ss", "keepalived"]) {
        expect_no_loss(&relieved_by(&Keepalived), &[0, 1]);
    }
}

/// Its macvlan answers a moment later than it is master: only who answers counts.
#[test]
fn frr_takes_what_an_unfit_master_offers() {
    if require::lab(&["nft", "ss", "zebra", "vrrpd"]) {
        assert_eq!(relieved_by(&Frr).answered_by, [0, 1]);
    }
}

const WARM: &str = r#"
[[haproxy]]
name = "edge"
instance = "web"
config = "/etc/haproxy/lab.cfg"
standby = "warm"
"#;

/// It runs there before it is needed, so it can hang there before it is needed.
#[test]
fn haproxy_that_hangs_on_a_warm_standby_is_known_before_it_is_needed() {
    if !require::lab(&["nft", "ss", "haproxy", "pgrep"]) {
        return;
    }
    let mut balanced = Balanced::new(&every_second(WARM));
    for director in [0, 1] {
        balanced.lab.directors[director].write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
        balanced.start(director);
        balanced.expect_service_by(0);
    }
    expect_ready(&balanced.lab.directors[1]);
    let (_responders, prober) = probe(&balanced);
    outage::signal_haproxy(&balanced.lab.directors[1], "STOP");
    wait::eventually("the standby says that it hangs", ELECTION, || {
        let output = locum_command(&balanced.lab.directors[1], &["status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_said = output.status.code() == Some(1) && said.contains("is stopped");
        if is_said { Ok(()) } else { Err(said) }
    });
    outage::signal_haproxy(&balanced.lab.directors[0], "STOP");
    wait::until("the master knows that it hangs", ELECTION, || {
        instance(&balanced.lab.directors[0])["unfit"] != serde_json::Value::Null
    });
    // The offers come after 0 and 10 s.
    wait::steadily("lb1 stays master", seconds(15), || balanced.lab.holders(balanced.vip()) == [0]);
    outage::signal_haproxy(&balanced.lab.directors[1], "CONT");
    balanced.expect_service_by(1);
    let alone = || balanced.lab.holders(balanced.vip()) == [1];
    wait::until("lb2 alone is master", ELECTION, alone);
    // The other one hangs on, and does not come back for that.
    wait::steadily("lb2 stays master", seconds(10), alone);
    expect_no_loss(&prober.stop(), &[0, 1]);
}

/// A backup finds out what it could start from its files, and the master that it cannot start again:
/// the sooner of them must not send the address to the other.
#[test]
fn certificate_that_both_have_lost_moves_nothing_when_haproxy_dies() {
    if !require::lab(&["nft", "ss", "haproxy", "pgrep", "openssl"]) {
        return;
    }
    let mut balanced = Balanced::new(&every_second(HAPROXY));
    for director in [0, 1] {
        let node = &balanced.lab.directors[director];
        outage::issue_certificate(node, "lab.example");
        node.write("/etc/haproxy/lab.cfg", &outage::with_certificate());
        balanced.start(director);
        balanced.expect_service_by(0);
    }
    expect_ready(&balanced.lab.directors[1]);
    let (_responders, prober) = probe(&balanced);
    let capture = balanced.lab.capture_without_client();
    for node in balanced.lab.directors.iter().rev() {
        node.remove(outage::CERTIFICATE);
    }
    outage::signal_haproxy(&balanced.lab.directors[0], "KILL");
    for node in &balanced.lab.directors {
        wait::eventually("status says what it cannot serve", ELECTION, || {
            let instance = instance(node);
            let unfit = instance["unfit"][0]["object"] == "haproxy edge";
            if unfit { Ok(()) } else { Err(instance.to_string()) }
        });
    }
    wait::steadily("lb1 alone is master", seconds(60), || {
        balanced.lab.holders(balanced.vip()) == [0]
    });
    expect_no_loss(&prober.stop(), &[0]);
    assert_eq!(outage::masters(&capture), ["lb1"]);
}
