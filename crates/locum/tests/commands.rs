//! Exit codes and messages of the commands that need no daemon, or miss one.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const GOOD: &str = "[[instance]]\nname = \"web\"\ninterface = \"lo\"\nvrid = 51\npriority = 150\n\
                    addresses = [\"10.9.0.100/24\"]\n";

struct Files(tempfile::TempDir);

impl Files {
    fn with(content: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("locum.toml"), content).unwrap();
        Self(directory)
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("locum.toml")
    }

    fn check(&self, words: &[&str]) -> Output {
        locum(&[&["check", "-c", self.config().to_str().unwrap()], words].concat())
    }
}

fn locum(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_locum")).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_of_a_good_file_is_0() {
    let output = Files::with(GOOD).check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fine"));
}

#[test]
fn check_of_several_errors_is_2_and_shows_each_with_its_place() {
    let bad = GOOD.replace("priority = 150", "prioritty = 150").replace("51", "300");
    let output = Files::with(&bad).check(&[]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    assert!(errors.contains("locum.toml:4:") && errors.contains("locum.toml:5:"), "{errors}");
    assert!(errors.contains("did you mean"), "{errors}");
}

#[test]
fn check_of_a_missing_file_is_2_and_names_it() {
    let output = locum(&["check", "-c", "/nonexistent/locum.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nonexistent/locum.toml"));
}

#[test]
fn check_json_is_one_object_with_the_same_verdict() {
    let output = Files::with(&GOOD.replace("51", "0")).check(&["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], 1, "{report:#}");
    assert_eq!(report["diagnostics"][0]["severity"], "error");
    let good = Files::with(GOOD).check(&["--json"]);
    let report: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(report["errors"], 0);
    assert!(report["digest"].is_string());
}

#[test]
fn check_host_finds_what_this_machine_lacks() {
    let file = Files::with(&GOOD.replace("\"lo\"", "\"nowhere0\""));
    assert_eq!(file.check(&[]).status.code(), Some(0), "without --host the file is fine");
    let output = file.check(&["--host"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere0"), "{}", text(&output.stderr));
}

#[test]
fn commands_without_a_daemon_are_2_and_say_what_to_do() {
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--why"],
        &["reload"],
        &["stop"],
        &["switchover", "web"],
        &["history"],
    ] {
        let output = locum(&[words, &["--socket", "/nonexistent/control.sock"]].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let errors = text(&output.stderr);
        assert!(errors.contains("no daemon answers on /nonexistent/control.sock"), "{errors}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn history_without_a_daemon_says_where_the_last_one_wrote_it() {
    let files = Files::with(GOOD);
    let run_dir = files.0.path().to_str().unwrap();
    let ask = || text(&locum(&["history", "--run-dir", run_dir]).stderr);
    assert!(!ask().contains("history.jsonl"), "{}", ask());
    std::fs::write(files.0.path().join("history.jsonl"), "").unwrap();
    assert!(ask().contains(&format!("{run_dir}/history.jsonl")), "{}", ask());
}

/// What the configuration says of HTTP is there, and no password.
#[test]
fn a_service_that_reads_http_is_shown_without_its_passwords() {
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config/tests/cases/http-service.toml");
    let output = locum(&["service", "show-haproxy", "api", "-c", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let from = shown.find("userlist www:users").expect("the first service");
    assert_eq!(&shown[from..], HTTP_SERVICE, "{shown}");
}

/// Of `http-service.toml`, behind what every file begins with.
const HTTP_SERVICE: &str = include_str!("data/http-service.cfg");

/// Without a daemon, and as it would be run.
#[test]
fn a_service_of_haproxy_is_shown_as_it_would_run() {
    let service = |name: &str, port: u16, backend: &str| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nlisten = \"10.9.0.100:{port}\"\n\
             backend = \"{backend}\"\nservers = [\"10.9.1.1:80\"]\n"
        )
    };
    let all = [service("www", 80, "haproxy"), service("mail", 25, "proxy")].concat();
    let files = Files::with(&format!("{GOOD}{all}"));
    let show = |name: &str| {
        let config = files.config();
        locum(&["service", "show-haproxy", name, "-c", config.to_str().unwrap()])
    };
    let output = show("www");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for line in ["bind 10.9.0.100:80 transparent", "server 10.9.1.1:80 10.9.1.1:80 weight 1"] {
        assert!(shown.contains(&format!("    {line}\n")), "{shown}");
    }
    for (name, words) in [("mail", "is not served by HAProxy"), ("shop", "is no service")] {
        let output = show(name);
        assert_eq!(output.status.code(), Some(1));
        let words = format!("{name} {words} in {}; these are: www", files.config().display());
        assert!(text(&output.stderr).contains(&words), "{}", text(&output.stderr));
    }
    let wrong = Files::with("[[service]]\n").config();
    let output = locum(&["service", "show-haproxy", "www", "-c", wrong.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
}
