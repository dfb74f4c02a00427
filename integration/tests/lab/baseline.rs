//! The lab itself: it elects with peers that are known to work, sees what they send, and leaves
//! nothing behind. What fails here is the lab's fault, not the daemon's.

use std::net::IpAddr;

use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Frr;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Peer;
use locum_integration::peer::Router;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::seconds;

#[test]
fn capture_sees_adverts_and_gratuitous_arp_of_each_node() {
    if !require::lab(&["keepalived", "nft"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let router = Router::new(51, 150, &["192.168.1.100/24"]);
    let capture = lab.capture();
    let _only = Keepalived.start(&lab.directors[0], std::slice::from_ref(&router));
    wait::until("lb1 announces", ELECTION, || {
        !capture.announcements("lb1", router.vip()).is_empty()
    });
    let (_, advert) = capture.adverts("lb1").remove(0);
    assert_eq!((advert.version, advert.vrid, advert.priority), (3, 51, 150));
    assert_eq!(advert.source, lab.address(0));
    assert_eq!(advert.destination, IpAddr::from([224, 0, 0, 18]));
    assert!(capture.adverts("lb2").is_empty());
}

#[test]
fn keepalived_and_frr_elect_in_either_role() {
    if !require::lab(&["keepalived", "nft", "vrrpd", "zebra"]) {
        return;
    }
    for (keepalived, frr, master) in [(150, 100, 0), (100, 150, 1)] {
        let lab = Lab::new(Shape::PAIR);
        let router = |priority| Router::new(51, priority, &["192.168.1.100/24"]);
        let vip = router(1).vip();
        let mut first = Keepalived.start(&lab.directors[0], &[router(keepalived)]);
        let mut second = Frr.start(&lab.directors[1], &[router(frr)]);
        wait::until("the better one is master", ELECTION, || lab.holders(vip) == [master]);
        if master == 0 {
            first.kill()
        } else {
            second.kill()
        }
        lab.silence(master);
        wait::until("the other takes over", ELECTION, || lab.holders(vip).contains(&(1 - master)));
    }
}

#[test]
fn one_way_cut_drops_only_that_direction_and_heals() {
    if !require::lab(&["nft", "ping"]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let (one, two) = (&lab.directors[0], &lab.directors[1]);
    let ping = |node: &locum_integration::node::Node, to: usize, patience: &str| {
        let target = lab.address(to).to_string();
        node.output(&["ping", "-c1", "-W", patience, &target]).status.success()
    };
    assert!(ping(one, 1, "20"), "directors reach each other");
    lab.cut(0, 1);
    assert!(!ping(two, 0, "1"), "an answer from lb1 does not arrive");
    assert!(one.holds(lab.address(0)), "a cut is not a loss of carrier");
    lab.heal();
    assert!(ping(two, 0, "20"), "healed");
    lab.unplug(0);
    wait::until("lb1 loses its carrier", seconds(20), || !one.holds(lab.address(0)));
    lab.replug(0);
    wait::until("lb1 has its carrier", seconds(20), || one.holds(lab.address(0)));
}

#[test]
fn node_ends_with_everything_in_it() {
    if !require::lab(&[]) {
        return;
    }
    let node = locum_integration::node::Node::new("short");
    // Its parent ends at once, so it belongs to the node alone.
    node.shell("setsid sleep 600 >/dev/null 2>&1 &");
    // The shell ends before its child has become what it shall be.
    let sleepers = wait::eventually("it runs", seconds(20), || {
        let output = node.output(&["pgrep", "-x", "sleep"]);
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(found) } else { Err("no sleep".to_owned()) }
    });
    assert_eq!(sleepers.lines().count(), 1, "the node sees its own processes only: {sleepers}");
    node.shell("kill -9 $(pgrep -x sleep)");
    wait::until("the orphan is reaped", seconds(20), || {
        !node.output(&["pgrep", "-x", "sleep"]).status.success()
    });
    let init = node.pid();
    drop(node);
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
}
