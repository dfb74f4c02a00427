//! The configurations that people published, run as they stand: addresses and `eth0` of the lab
//! are those of the files.

use std::fs;
use std::net::IpAddr;

use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::seconds;

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

#[test]
fn active_passive_file_elects_and_moves_with_its_script() {
    if !require::lab(&["nft"]) {
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
    }
    let _first = Locum::DROP_IN.start_with(&lab.directors[0], &file);
    let _second = Locum::DROP_IN.start_with(&lab.directors[1], &second);
    expect(&lab, "the MASTER of the file is master", &[(vip, 0)]);
    wait::until("its notify_master ran once with its argument", seconds(5), || {
        lab.directors[0].read("/run/lab/cleaned").as_deref() == Some("182.148.15.239\n")
    });
    lab.directors[0].write("/run/lab/failing", "");
    expect(&lab, "a failing check_haproxy.sh moves the address", &[(vip, 1)]);
    lab.directors[0].remove("/run/lab/failing");
    expect(&lab, "a passing one brings it back", &[(vip, 0)]);
}

#[test]
fn active_active_pair_survives_either_node_and_returns_to_its_own() {
    if !require::lab(&["nft", "killall"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let files = [seed("keepalived-active-active.conf"), mirrored()];
    let (one, two) = (address("192.168.1.100"), address("192.168.1.101"));
    let start =
        |director: usize| Locum::DROP_IN.start_with(&lab.directors[director], &files[director]);
    let mut first = start(0);
    let mut second = start(1);
    let own = [(one, 0), (two, 1)];
    expect(&lab, "each address is on its own node", &own);
    second.kill();
    expect(&lab, "the second's address is on the first", &[(one, 0), (two, 0)]);
    second = start(1);
    expect(&lab, "each address is on its own node again", &own);
    first.kill();
    expect(&lab, "the first's address is on the second", &[(one, 1), (two, 1)]);
    first = start(0);
    expect(&lab, "each address is on its own node at last", &own);
    drop((first, second));
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
    let node = locum_integration::node::Node::new("lb1");
    node.write("/run/lab/file.conf", &seed("keepalived-check-http.conf"));
    let binary = require::locum().to_string_lossy();
    let output = node.output(&[&binary, "check", "-c", "/run/lab/file.conf"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
}
