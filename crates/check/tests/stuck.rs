//! Files that cannot be read: what waits for them takes the place of nothing else.

mod harness;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Bench, PATIENCE, shell};
use locum_plan::{
    Checker, HttpPage, HttpQuestion, HttpVersion, Probe, Question, StatusRange, Tls, Trust, Verdict,
};
use nix::sys::stat::Mode;

/// More than there are places.
const MANY: u32 = 40;

const SHORT: Duration = Duration::from_millis(10);

/// Whoever opens it waits for a writer, who never comes.
fn stuck(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    path
}

fn file(path: PathBuf) -> Checker {
    Checker::File { path, factor: 0 }
}

/// A file beside the stuck ones can be read, and a command run.
fn expect_others(bench: &Bench, directory: &Path) {
    let good = directory.join("good");
    fs::write(&good, "0").expect("written");
    bench.probes.start(1000, Probe::new(file(good), PATIENCE, PATIENCE));
    bench.probes.start(1001, Probe::new(Checker::Script(shell("exit 0")), PATIENCE, PATIENCE));
    let mut missing = vec![1000, 1001];
    while !missing.is_empty() {
        let (id, outcome) = bench.next();
        if id >= 1000 {
            assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
            missing.retain(|one| *one != id);
        }
    }
}

#[test]
fn a_stuck_file_that_is_asked_for_again_and_again_keeps_no_other_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let bench = Bench::new();
    let path = stuck(directory.path(), "stuck");
    bench.probes.start(1, Probe::new(file(path), SHORT, SHORT));
    for _ in 0..MANY {
        let (_, outcome) = bench.next();
        assert_eq!(outcome.verdict, Verdict::CannotRun, "{outcome:?}");
    }
    expect_others(&bench, directory.path());
}

#[test]
fn stuck_certificates_keep_no_file_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let bench = Bench::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let target = listener.local_addr().expect("an address");
    let trust = Trust::File(stuck(directory.path(), "ca.pem"));
    for id in 0..MANY {
        let name = Some(format!("{id}.example.net"));
        let page = HttpPage {
            path: "/".into(),
            expect: vec![StatusRange { first: 200, last: 200 }],
            ..HttpPage::default()
        };
        let tls = Some(Tls { name, sends_name: true, trust: trust.clone(), identity: None });
        let question = HttpQuestion { pages: vec![page], version: HttpVersion::Http11, tls };
        let checker = Checker::ask(target, Question::Http(question.into()));
        bench.probes.start(id, Probe::new(checker, SHORT, SHORT));
    }
    for _ in 0..MANY {
        assert_ne!(bench.next().1.verdict, Verdict::Pass);
    }
    expect_others(&bench, directory.path());
}

#[test]
fn stuck_files_keep_no_command_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let bench = Bench::new();
    for id in 0..MANY {
        let path = stuck(directory.path(), &id.to_string());
        bench.probes.start(id, Probe::new(file(path), PATIENCE, SHORT));
    }
    for _ in 0..MANY {
        bench.next();
    }
    bench.probes.start(1000, Probe::new(Checker::Script(shell("exit 0")), PATIENCE, PATIENCE));
    let (_, outcome) = bench.next();
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:?}");
}
