//! `locum demo --plain`: whether what it promises on a terminal is true here, and whether it leaves
//! anything behind.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// One show at a time: it measures.
static STAGE: Mutex<()> = Mutex::new(());

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
    command.args(["demo", "--plain"]);
    command
}

/// Whether the machine refused what the show needs; a failure where the lab is required.
fn refused(said: &str) -> bool {
    let reasons = ["does not let this user make namespaces", "the program `ip` is missing"];
    let refused = reasons.iter().any(|reason| said.contains(reason));
    let required = env::var_os("LOCUM_REQUIRE_LAB").is_some_and(|value| value == "1");
    assert!(!refused || !required, "{said}");
    if refused {
        eprintln!("skipped: {said}");
    }
    refused
}

#[test]
fn the_demonstration_keeps_every_promise() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = demo().output().expect("the program under test is built");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if refused(&complained) {
        return;
    }
    assert!(output.status.success(), "{said}{complained}");
    assert_eq!(complained, "");
    assert!(said.ends_with("every promise was kept\n"), "{said}");
    assert_eq!(said.matches("promise kept: ").count(), 20, "{said}");
    assert!(!said.contains("BROKEN"), "{said}");
}

#[test]
fn a_killed_demonstration_leaves_no_process() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut show = demo()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test is built");
    if !both_directors_run(&mut show) {
        let mut complained = String::new();
        // INVARIANT: the pipe was asked for at the spawn above and is taken only here.
        let mut errors = show.stderr.take().expect("piped");
        errors.read_to_string(&mut complained).expect("its errors are text");
        assert!(refused(&complained), "it ended early: {complained}");
        return;
    }
    let family = descendants(show.id());
    // Init, stage, two daemons and at least one proxy.
    assert!(family.len() >= 5, "{family:?}");
    show.kill().expect("it runs");
    show.wait().expect("it was killed");
    let limit = Instant::now() + Duration::from_secs(20);
    while family.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < limit, "some of {family:?} still run");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads on until both daemons have found the servers; false when the show ends before.
fn both_directors_run(show: &mut Child) -> bool {
    // INVARIANT: the pipe was asked for at the spawn and is taken only here.
    let lines = BufReader::new(show.stdout.take().expect("piped")).lines();
    let up = lines.map_while(Result::ok).filter(|line| line.contains(" of www is up"));
    up.take(4).count() == 4
}

/// All processes below `root`.
fn descendants(root: u32) -> HashSet<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.1))
        })
        .collect();
    let mut found = HashSet::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for (pid, of) in &parents {
            if *of == parent && found.insert(*pid) {
                open.push(*pid);
            }
        }
    }
    found
}

fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
