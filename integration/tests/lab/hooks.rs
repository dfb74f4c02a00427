//! Hooks on a real pair: which run, with which words, in which order, and what the node holds when
//! they do.

use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::pair::FIRST;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::SECOND;
use locum_integration::pair::VIP;
use locum_integration::peer::Language;
use locum_integration::peer::Locum;
use locum_integration::peer::Router;
use locum_integration::peer::locum_command;
use locum_integration::wait;
use locum_integration::wait::millis;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };

const HOOK: &str = "/run/lab/hook.sh";
const EVENTS: &str = "/run/lab/events";
/// Writes its words, and how many times the node holds the address while it runs.
const RECORD: &str = "held=$(ip -o addr show to 192.168.1.100 | wc -l)
echo \"$* held=$held\" >> /run/lab/events";

fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP]).every(millis(500))
}

/// The router of a director with all hooks, in either language.
fn config(kind: Locum, director: usize) -> String {
    let states = ["master", "backup", "fault", "stop"];
    let text = kind.render(&[router(director)]);
    if kind.language == Language::Toml {
        let hooks = states.map(|state| format!("notify_{state} = [[\"{HOOK}\", \"{state}\"]]\n"));
        format!("{text}{}notify = [[\"{HOOK}\", \"any\"]]\n", hooks.concat())
    } else {
        let hooks = states.map(|state| format!("    notify_{state} \"{HOOK} {state}\"\n"));
        let hooks = format!("{}    notify \"{HOOK} any\"\n", hooks.concat());
        text.replace("    virtual_ipaddress {", &format!("{hooks}    virtual_ipaddress {{"))
    }
}

fn start(pair: &mut Pair, kind: Locum, director: usize) {
    let node = &pair.lab.directors[director];
    node.write_script(HOOK, RECORD);
    let running = kind.start_with(node, &config(kind, director));
    pair.adopt(director, running);
}

/// The two lines of one transition: the state's hook, then the generic one.
fn lines(state: &str, priority: u8, held: u8) -> [String; 2] {
    let upper = state.to_uppercase();
    [
        format!("{state} held={held}"),
        format!("any INSTANCE router51 {upper} {priority} held={held}"),
    ]
}

/// Waits until exactly these transitions stand in the file.
fn expect(node: &Node, priority: u8, transitions: &[(&str, u8)]) {
    let wanted: Vec<String> =
        transitions.iter().flat_map(|(state, held)| lines(state, priority, *held)).collect();
    wait::eventually(&format!("{} ran {transitions:?}", node.name()), ELECTION, || {
        let text = node.read(EVENTS).unwrap_or_default();
        if text.lines().eq(wanted.iter().map(String::as_str)) { Ok(()) } else { Err(text) }
    });
}

/// Up, link lost and found, and a stop.
fn every_state(kind: Locum) {
    if !OURS.available() {
        return;
    }
    let mut pair = Pair::new(Shape::PAIR, OURS, router);
    start(&mut pair, kind, 0);
    pair.expect_master(0);
    start(&mut pair, kind, 1);
    let mut seen = [vec![("backup", 0), ("master", 1)], vec![("backup", 0)]];
    let check = |pair: &Pair, seen: &[Vec<(&str, u8)>; 2]| {
        expect(&pair.lab.directors[0], FIRST, &seen[0]);
        expect(&pair.lab.directors[1], SECOND, &seen[1]);
    };
    check(&pair, &seen);
    pair.lab.unplug(0);
    seen[0].push(("fault", 0));
    seen[1].push(("master", 1));
    check(&pair, &seen);
    pair.lab.replug(0);
    seen[0].extend([("backup", 0), ("master", 1)]);
    seen[1].push(("backup", 0));
    check(&pair, &seen);
    pair.daemon(0).terminate();
    seen[0].push(("stop", 0));
    seen[1].push(("master", 1));
    check(&pair, &seen);
}

#[test]
fn each_state_runs_its_hook_and_then_the_generic_one_with_four_words() {
    every_state(Locum::NATIVE);
}

#[test]
fn each_state_runs_its_hook_from_a_keepalived_file_too() {
    every_state(Locum::DROP_IN);
}

#[test]
fn planned_handover_runs_the_backup_hook_when_the_address_has_gone() {
    if !OURS.available() {
        return;
    }
    let mut pair = Pair::new(Shape::PAIR, OURS, router);
    start(&mut pair, Locum::NATIVE, 0);
    pair.expect_master(0);
    start(&mut pair, Locum::NATIVE, 1);
    expect(&pair.lab.directors[1], SECOND, &[("backup", 0)]);
    let output = locum_command(&pair.lab.directors[0], &["switchover", "router51"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    expect(&pair.lab.directors[1], SECOND, &[("backup", 0), ("master", 1)]);
    expect(&pair.lab.directors[0], FIRST, &[("backup", 0), ("master", 1), ("backup", 0)]);
}
