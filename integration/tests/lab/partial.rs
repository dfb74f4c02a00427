//! An address that the kernel refuses while it takes the others of the same virtual router.

use locum_integration::lab::Shape;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Locum;
use locum_integration::peer::Router;
use locum_integration::peer::locum_command;
use locum_integration::wait;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };

/// Held beside [`VIP`], but not advertised: it is of the other family.
const EXCLUDED: &str = "fd00:1::100";

const SWITCH: &str = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

/// The first director cannot hold IPv6 addresses, the second one can.
fn start() -> Pair {
    let mut pair = Pair::new(Shape::PAIR, OURS, router);
    pair.lab.directors[0].shell(&format!("echo 1 > {SWITCH}"));
    for director in [0, 1] {
        let config = Locum::NATIVE.render(&[router(director)]);
        let config = format!("{config}excluded_addresses = [\"{EXCLUDED}/64\"]\n");
        let running = Locum::NATIVE.start_with(&pair.lab.directors[director], &config);
        pair.adopt(director, running);
    }
    pair.expect_master(0);
    pair
}

/// Exit code and text of a status command on the first director.
fn status(pair: &Pair, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["status"], arguments].concat();
    let output = locum_command(&pair.lab.directors[0], &arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn counter(document: &serde_json::Value, name: &str) -> u64 {
    let mut counters = document["instances"][0]["counters"].as_array().into_iter().flatten();
    let found = counters.find(|counter| counter["name"] == name);
    found.and_then(|counter| counter["value"].as_u64()).expect("every counter is there")
}

#[test]
fn refused_address_leaves_the_others_alone_and_comes_when_the_kernel_allows_it() {
    if !OURS.available() {
        return;
    }
    let pair = start();
    let excluded = EXCLUDED.parse().expect("an address");
    wait::throughout("lb1 alone is master, without the refused address", seconds(4), || {
        pair.masters() == [0] && pair.lab.holders(excluded).is_empty()
    });

    let (code, text) = status(&pair, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("router51 goes on without fd00:1::100/64 on eth0"), "{text}");
    let (code, why) = status(&pair, &["--why"]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("It goes on without fd00:1::100/64"), "{why}");
    assert!(why.contains("permission denied"), "the kernel's words: {why}");
    let (code, json) = status(&pair, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(code, Some(1), "{json}");
    assert_eq!(document["instances"][0]["missing"][0]["address"], "fd00:1::100/64", "{json}");
    assert!(counter(&document, "garp-sent") > 0, "{json}");
    assert_eq!(counter(&document, "na-sent"), 0, "nothing is announced for it: {json}");
    assert_eq!(counter(&document, "announce-errors"), 0, "{json}");

    pair.lab.directors[0].shell(&format!("echo 0 > {SWITCH}"));
    // The pause never is longer than 32 s.
    wait::until("the address is there", seconds(90), || pair.lab.directors[0].has(excluded));
    wait::eventually("status is healthy and the address is announced", seconds(30), || {
        let (code, json) = status(&pair, &["--json"]);
        let document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let healed = code == Some(0) && counter(&document, "na-sent") > 0;
        if healed { Ok(()) } else { Err(json) }
    });
    assert_eq!(pair.masters(), [0]);
    let history = locum_command(&pair.lab.directors[0], &["history"]).stdout;
    let history = String::from_utf8_lossy(&history).into_owned();
    let reported = |words: &str| history.lines().filter(|line| line.contains(words)).count();
    assert_eq!(reported("the kernel refused"), 1, "{history}");
    assert_eq!(reported("the kernel has accepted: fd00:1::100/64 on eth0"), 1, "{history}");
}

/// The same while it is held: the kernel takes every IPv6 address away and gives none back.
#[test]
fn address_that_the_kernel_takes_away_for_good_leaves_the_others_alone() {
    if !OURS.available() {
        return;
    }
    let pair = start();
    let excluded = EXCLUDED.parse().expect("an address");
    pair.lab.directors[0].shell(&format!("echo 0 > {SWITCH}"));
    wait::until("the address is there", seconds(90), || pair.lab.directors[0].has(excluded));
    pair.lab.directors[0].shell(&format!("echo 1 > {SWITCH}"));
    wait::until("status tells", seconds(30), || status(&pair, &[]).0 == Some(1));
    wait::throughout("lb1 alone is master", seconds(4), || pair.masters() == [0]);
}
