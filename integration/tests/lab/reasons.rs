//! Why a director stays what it is, and what that costs: an operator is told where nothing moves.

use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Locum;
use locum_integration::peer::Router;
use locum_integration::peer::Running;
use locum_integration::peer::locum_command;
use locum_integration::wait;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::DROP_IN, second: &Locum::DROP_IN };
const BESIDE_KEEPALIVED: Kinds = Kinds { first: &Keepalived, second: &Locum::DROP_IN };

/// On the second director only.
const MORE: &str = "192.168.1.101/24";

fn router(director: usize) -> Router {
    let addresses = [&[VIP][..], &[MORE, VIP]][director];
    Router::new(51, [FIRST, SECOND][director], addresses)
}

/// Waits until `locum status` with these options says this, in one line, with this exit code.
fn expect_said(node: &Node, options: &[&str], code: i32, sentence: &str) {
    wait::eventually(&format!("{} says: {sentence}", node.name()), ELECTION, || {
        let output = locum_command(node, &[&["status"], options].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_said = output.status.code() == Some(code) && line.contains(sentence);
        if is_said { Ok(()) } else { Err(said) }
    });
}

/// An address that the master does not have is nowhere, however well the election goes.
fn address_of_the_backup_alone_is_named(kinds: Kinds) {
    if !kinds.available() {
        return;
    }
    let pair = Pair::settled(Shape::PAIR, kinds, router);
    let sentence = "router51: 192.168.1.101 is on no node: 192.168.1.201 is master and does not \
                    have it";
    expect_said(&pair.lab.directors[1], &[], 1, sentence);
    let more = MORE.split('/').next().and_then(|text| text.parse().ok()).expect("an address");
    wait::steadily("it is nowhere, and lb1 master", seconds(2), || {
        pair.lab.holders(more).is_empty() && pair.masters() == [0]
    });
}

#[test]
fn address_that_only_we_have_beside_keepalived_is_named() {
    address_of_the_backup_alone_is_named(BESIDE_KEEPALIVED);
}

#[test]
fn address_that_only_the_backup_of_ours_has_is_named() {
    address_of_the_backup_alone_is_named(OURS);
}

const FLAG: &str = "/run/lab/flag";

/// The flag's 50 would put either above the other.
fn weighed(priority: u8) -> String {
    format!(
        "global_defs {{
    router_id LAB
    script_user root
}}
vrrp_script flag {{
    script \"/usr/bin/test -e {FLAG}\"
    interval 1
    weight 50
    fall 2
    rise 2
    init_fail
}}
vrrp_instance web {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        {VIP}
    }}
    track_script {{
        flag
    }}
}}
"
    )
}

fn better_backup_that_does_not_preempt_says_why(
    kinds: Kinds,
    first: impl Fn(&Node, &str) -> Running,
) {
    if !kinds.available() {
        return;
    }
    let mut pair = Pair::new(Shape::PAIR, kinds, router);
    pair.lab.directors.iter().for_each(|node| node.write(FLAG, ""));
    let running = first(&pair.lab.directors[0], &weighed(100));
    pair.adopt(0, running);
    pair.expect_master(0);
    let running = Locum::DROP_IN.start_with(&pair.lab.directors[1], &weighed(90));
    pair.adopt(1, running);
    expect_said(&pair.lab.directors[1], &[], 0, "prio 150");
    pair.lab.directors[0].remove(FLAG);
    let sentence = "It leaves 192.168.1.201, which competes with priority 100 only, alone: it does \
                    not preempt";
    expect_said(&pair.lab.directors[1], &["--why"], 0, sentence);
    wait::steadily("lb1 stays master", seconds(5), || pair.masters() == [0]);
    pair.lab.unplug(0);
    pair.expect_master(1);
    pair.lab.replug(0);
    wait::steadily("lb2 stays master", seconds(5), || pair.masters() == [1]);
}

#[test]
fn better_backup_of_ours_that_does_not_preempt_says_why() {
    better_backup_that_does_not_preempt_says_why(OURS, |node, config| {
        Locum::DROP_IN.start_with(node, config)
    });
}

#[test]
fn better_backup_that_does_not_preempt_keepalived_says_why() {
    better_backup_that_does_not_preempt_says_why(BESIDE_KEEPALIVED, |node, config| {
        Keepalived.start_with(node, config)
    });
}
