//! Scripts and files of servers: what they are given, and the weights that they say.

mod harness;

use std::net::SocketAddr;

use harness::{PATIENCE, once, shell};
use locum_plan::{Checker, Outcome, ReportedWeight, Verdict};

fn script(line: &str, is_weighing: bool) -> Outcome {
    let server = SocketAddr::from(([192, 0, 2, 7], 8080));
    once(Checker::ServerScript { command: shell(line).into(), server, is_weighing }, PATIENCE)
}

#[test]
fn a_script_finds_its_server() {
    let outcome = script("test \"$LOCUM_ADDRESS $LOCUM_PORT\" = \"192.0.2.7 8080\"", false);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
}

#[test]
fn a_status_from_2_is_a_weight_where_the_script_weighs() {
    for (status, verdict, weight) in [
        (0, Verdict::Pass, None),
        (1, Verdict::Fail, None),
        (2, Verdict::Pass, Some(ReportedWeight::Absolute(0))),
        (255, Verdict::Pass, Some(ReportedWeight::Absolute(253))),
    ] {
        let outcome = script(&format!("exit {status}"), true);
        assert_eq!((outcome.verdict, outcome.weight), (verdict, weight), "{status}");
    }
    let outcome = script("exit 2", false);
    assert_eq!((outcome.verdict, outcome.weight), (Verdict::Fail, None));
}

#[test]
fn a_file_says_yes_or_no_or_a_weight() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("weight");
    let look = |factor| once(Checker::File { path: path.clone(), factor }, PATIENCE);
    assert_eq!(look(0).verdict, Verdict::Pass, "no file is 0");
    std::fs::write(&path, " 3\n").expect("written");
    let outcome = look(0);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.detail, format!("{} says 3", path.display()));
    let outcome = look(-2);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.weight, Some(ReportedWeight::Added(-6)));
    std::fs::write(&path, "three").expect("written");
    assert_eq!(look(0).verdict, Verdict::CannotRun);
    let outcome = once(Checker::File { path: "/proc/self".into(), factor: 0 }, PATIENCE);
    assert_eq!(outcome.verdict, Verdict::CannotRun, "{outcome:?}");
}
