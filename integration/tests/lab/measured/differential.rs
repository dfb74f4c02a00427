//! Debian's keepalived and ours on the same files, side by side in nodes with the same links: what
//! runs there runs here and holds the same addresses in the end, what is refused there is refused
//! here.
//!
//! Cases and what is known to differ, each with its reason, are data: `integration/data/differential`.
//! keepalived's own samples are cases too.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use locum_integration::node::Node;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Running;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

/// Pairs of nodes at a time: they wait for elections most of their time.
const AT_ONCE: usize = 8;
/// An election takes 3.6 s at an interval of a second; a script has one more.
const SETTLED: Duration = seconds(20);
/// keepalived says all that it has to say of a file.
const SPOKEN: Duration = seconds(10);
const SAMPLES: &str = "/usr/share/doc/keepalived/samples";

struct Case {
    name: String,
    text: String,
    has_services: bool,
}

/// What became of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Refused,
    /// The addresses that it put in place; of services alone none.
    Runs(BTreeSet<IpAddr>),
}

fn data(name: &str) -> String {
    let path = require::workspace().join("integration/data/differential").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases() -> Vec<Case> {
    let text = data("cases");
    let own = text.split("### ").skip(1).map(|case| {
        let (head, text) = case.split_once('\n').expect("a case has lines");
        let (name, kind) = head.split_once(' ').expect("a case has a name and a kind");
        Case { name: name.to_owned(), text: text.to_owned(), has_services: kind == "services" }
    });
    let samples = fs::read_dir(SAMPLES).into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.strip_prefix("keepalived.conf.")?.to_owned();
        let text = fs::read_to_string(&path).ok()?;
        let has_services = text.contains("virtual_server ");
        Some(Case { name: format!("sample.{name}"), text, has_services })
    });
    own.chain(samples).collect()
}

/// Known differences by the name of their case.
fn expected() -> BTreeMap<String, String> {
    let text = data("expected");
    let lines = text.lines().filter(|line| !line.is_empty());
    let split = lines.map(|line| line.split_once(": ").expect("a name and a reason"));
    split.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
}

/// A machine with four links that run, and an address on each.
fn node(name: &str) -> Node {
    let node = Node::new(name);
    for link in 0..4 {
        node.shell(&format!(
            "ip link add eth{link} type veth peer name p{link}; ip link set eth{link} up; \
             ip link set p{link} up; ip addr add 10.77.{link}.1/24 dev eth{link}"
        ));
    }
    node
}

/// The addresses that were not there before.
fn addresses(node: &Node) -> BTreeSet<IpAddr> {
    let all = node.addresses().into_iter().filter(|one| one.interface.starts_with("eth"));
    let all = all.map(|one| one.address);
    let is_own = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[..2] == [10, 77] && v4.octets()[3] == 1,
        // The kernel's link-local ones have a hardware address in them.
        IpAddr::V6(v6) => v6.segments()[0] == 0xfe80 && v6.segments()[5] & 0xff == 0xff,
    };
    all.filter(|address| !is_own(address)).collect()
}

/// keepalived has said what becomes of each instance, or has ended.
fn has_settled(theirs: &mut Running) -> bool {
    if theirs.process().exited().is_some() {
        return true;
    }
    let log = theirs.log();
    let begun = log.matches("Entering BACKUP STATE (init)").count();
    let ended =
        log.matches("Entering MASTER STATE").count() + log.matches("Entering FAULT STATE").count();
    begun > 0 && ended >= begun
}

/// What keepalived makes of a file with services, which it cannot serve where there is no IPVS.
fn judged_by_keepalived(node: &Node, text: &str) -> Outcome {
    node.write("/run/lab/services.conf", text);
    let argv = ["keepalived", "-C", "-n", "-l", "-f", "/run/lab/services.conf"];
    let mut process = node.spawn(&argv);
    let said = ["Can't initialize ipvs", "no real servers", "ignoring virtual server", "skipping"];
    wait::until("keepalived has read its file", SPOKEN, || {
        let log = process.log();
        process.exited().is_some() || said.iter().any(|words| log.contains(words))
    });
    let log = process.log();
    let is_refused = log.contains("permanent error CONFIG");
    if is_refused { Outcome::Refused } else { Outcome::Runs(BTreeSet::new()) }
}

fn run(case: &Case) -> (Outcome, Outcome) {
    let ours_node = node("ours");
    ours_node.write("/run/lab/keepalived.conf", &case.text);
    let binary = require::locum().to_string_lossy();
    let checked = ours_node.output(&[&*binary, "check", "-c", "/run/lab/keepalived.conf"]);
    let is_refused = checked.status.code().is_none_or(|code| code > 1);
    let theirs_node = node("ka");
    if case.has_services {
        let ours = if is_refused { Outcome::Refused } else { Outcome::Runs(BTreeSet::new()) };
        return (judged_by_keepalived(&theirs_node, &case.text), ours);
    }
    let mut theirs = Keepalived.start_with(&theirs_node, &case.text);
    let ours = (!is_refused).then(|| Locum::DROP_IN.start_with(&ours_node, &case.text));
    let limit = std::time::Instant::now() + SETTLED;
    let outcomes = loop {
        let settled = has_settled(&mut theirs);
        let their_outcome = match theirs.process().exited() {
            Some(_) => Outcome::Refused,
            None => Outcome::Runs(addresses(&theirs_node)),
        };
        let our_outcome = match ours {
            None => Outcome::Refused,
            Some(_) => Outcome::Runs(addresses(&ours_node)),
        };
        let is_over = std::time::Instant::now() > limit;
        if is_over || (settled && (their_outcome == our_outcome || ours.is_none())) {
            break (their_outcome, our_outcome);
        }
        thread::sleep(millis(100));
    };
    drop(ours);
    outcomes
}

#[test]
fn what_keepalived_runs_runs_here_with_the_same_addresses() {
    if !require::lab(&["keepalived", "ip"]) {
        return;
    }
    let cases = cases();
    assert!(Path::new(SAMPLES).is_dir(), "keepalived's samples are in {SAMPLES}");
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let known = expected();
    let queue = Mutex::new(cases.iter());
    let found: Mutex<BTreeMap<&str, (Outcome, Outcome)>> = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no thread died").next();
                    let Some(case) = next else { break };
                    let outcomes = run(case);
                    found.lock().expect("no thread died").insert(&case.name, outcomes);
                }
            });
        }
    });
    let found = found.into_inner().expect("no thread died");
    let mut wrong = Vec::new();
    for (name, (theirs, ours)) in &found {
        match (theirs == ours, known.get(*name)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => wrong.push(format!("{name}: no longer differs ({reason})")),
            (false, None) => wrong.push(format!("{name}: keepalived {theirs:?}, ours {ours:?}")),
        }
    }
    for name in known.keys().filter(|name| !found.contains_key(name.as_str())) {
        wrong.push(format!("{name}: there is no such case"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
