//! The configurations that people published, run as they stand: addresses and `eth0` of the lab
//! are those of the files.

use std::fs;
use std::net::IpAddr;

use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Running;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::seconds;

use Director::Ours;
use Director::Theirs;

fn seed(name: &str) -> String {
    let path = require::workspace().join("integration/data/seed").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Waits until each address is held by exactly the director at its position.
fn expect(lab: &Lab, what: &str, wanted: &[(IpAddr, usize)]) {
    wait::until(what, ELECTION, || {
        wanted.iter().all(|(address, director)| lab.holders(*address) == [*director])
    });
}

/// What runs a file on a director.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Director {
    Ours,
    /// keepalived.
    Theirs,
}

impl Director {
    fn start(self, node: &Node, file: &str) -> Running {
        match self {
            Self::Ours => Locum::DROP_IN.start_with(node, file),
            Self::Theirs => Keepalived.start_with(node, file),
        }
    }

    /// The node dies. Ours by `kill -9`; keepalived then keeps its address for ever, so it is
    /// stopped.
    fn end(self, running: &mut Running) {
        match self {
            Self::Ours => running.kill(),
            Self::Theirs => {
                running.terminate();
                running.wait(ELECTION);
            }
        }
    }
}

/// The MASTER of the file is master, runs its script with its word, and gives the address away
/// while its check fails.
fn active_passive(directors: [Director; 2]) {
    if !require::lab(&["nft", "keepalived"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let file = seed("keepalived-active-passive.conf");
    let second =
        file.replace("state MASTER", "state BACKUP").replace("priority 100", "priority 99");
    let vip = address("182.148.15.239");
    for director in &lab.directors {
        director.write_script("/etc/keepalived/check_haproxy.sh", "test ! -e /run/lab/failing");
        director.write_script("/etc/keepalived/clean_arp.sh", "echo \"$@\" >> /run/lab/cleaned");
        director.write("/run/lab/cleaned", "");
        director.shell("chmod 777 /run/lab && chmod 666 /run/lab/cleaned");
    }
    let _first = directors[0].start(&lab.directors[0], &file);
    expect(&lab, "the MASTER of the file is master", &[(vip, 0)]);
    let _second = directors[1].start(&lab.directors[1], &second);
    let cleaned = |director: usize| {
        let node = &lab.directors[director];
        wait::until("its notify_master ran once with its argument", ELECTION, || {
            node.read("/run/lab/cleaned").as_deref() == Some("182.148.15.239\n")
        });
    };
    cleaned(0);
    wait::throughout("the MASTER alone is master", seconds(3), || lab.holders(vip) == [0]);
    lab.directors[0].write("/run/lab/failing", "");
    expect(&lab, "a failing check_haproxy.sh moves the address", &[(vip, 1)]);
    cleaned(1);
    lab.directors[0].remove("/run/lab/failing");
    expect(&lab, "a passing one brings it back", &[(vip, 0)]);
}

#[test]
fn active_passive_file_elects_and_moves_with_its_script() {
    active_passive([Ours, Ours]);
}

#[test]
fn active_passive_file_elects_with_keepalived_as_backup() {
    active_passive([Ours, Theirs]);
}

#[test]
fn active_passive_file_elects_with_keepalived_as_master() {
    active_passive([Theirs, Ours]);
}

/// Each address on its own node; both on the other when one dies; each back when it returns.
fn active_active(directors: [Director; 2]) {
    if !require::lab(&["nft", "killall", "keepalived"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let files = [seed("keepalived-active-active.conf"), mirrored()];
    let (one, two) = (address("192.168.1.100"), address("192.168.1.101"));
    let start = |at: usize| directors[at].start(&lab.directors[at], &files[at]);
    let mut first = start(0);
    let mut second = start(1);
    let own = [(one, 0), (two, 1)];
    expect(&lab, "each address is on its own node", &own);
    directors[1].end(&mut second);
    expect(&lab, "the second's address is on the first", &[(one, 0), (two, 0)]);
    second = start(1);
    expect(&lab, "each address is on its own node again", &own);
    directors[0].end(&mut first);
    expect(&lab, "the first's address is on the second", &[(one, 1), (two, 1)]);
    first = start(0);
    expect(&lab, "each address is on its own node at last", &own);
    drop((first, second));
}

#[test]
fn active_active_pair_survives_either_node_and_returns_to_its_own() {
    active_active([Ours, Ours]);
}

#[test]
fn active_active_pair_works_with_keepalived_as_second() {
    active_active([Ours, Theirs]);
}

#[test]
fn active_active_pair_works_with_keepalived_as_first() {
    active_active([Theirs, Ours]);
}

/// The file of the second node: states and priorities change places.
fn mirrored() -> String {
    let swap =
        |text: String, a: &str, b: &str| text.replace(a, "\u{0}").replace(b, a).replace('\u{0}', b);
    let text = swap(seed("keepalived-active-active.conf"), "state MASTER", "state BACKUP");
    swap(text, "priority 100", "priority 92")
}

#[test]
fn check_http_file_is_accepted_as_it_stands() {
    if !require::lab(&["curl"]) {
        return;
    }
    let node = Node::new("lb1");
    node.write("/run/lab/file.conf", &seed("keepalived-check-http.conf"));
    let binary = require::locum().to_string_lossy();
    let output = node.output(&[&binary, "check", "-c", "/run/lab/file.conf"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
}
