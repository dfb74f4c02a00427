//! What the balancer says to proxies that answer oddly, of older and of newer versions. A proxy is
//! played by this test's own program, which [`stand_in`] runs in a process of its own.

mod bench;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use bench::{Bench, edit, failure, serve, service, start_server, tick_until, wanted};
use locum_plan::WantedServices;

/// Names the run directory to the process that plays the proxy, and what it answers.
const RUN_DIR: &str = "STAND_IN_RUN_DIR";
const ANSWER: &str = "STAND_IN_ANSWER";

/// Not a test of its own: plays the proxy where the environment says so, and writes down what it is
/// asked.
#[test]
fn stand_in() {
    let (Some(run_dir), Ok(answer)) = (std::env::var_os(RUN_DIR), std::env::var(ANSWER)) else {
        return;
    };
    let run_dir = PathBuf::from(run_dir);
    let listener = UnixListener::bind(run_dir.join("proxy.sock")).unwrap();
    let mut asked = fs::File::create(run_dir.join("asked")).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        for line in reader.lines().map_while(Result::ok) {
            writeln!(asked, "{line}").unwrap();
            let line = match answer.as_str() {
                "long" => "x".repeat(locum_proxy::protocol::LINE_LIMIT + 1),
                text => text.to_owned(),
            };
            if writeln!(stream, "{line}").is_err() {
                break;
            }
        }
    }
}

struct StandIn {
    bench: Bench,
    process: Child,
}

impl StandIn {
    fn new(answer: &str) -> Self {
        let bench = Bench::new();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stand_in", "--nocapture"])
            .env(RUN_DIR, bench.directory.path())
            .env(ANSWER, answer)
            .spawn()
            .unwrap();
        let mut stand_in = Self { bench, process };
        while !stand_in.bench.path("asked").exists() {
            assert_eq!(stand_in.process.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
        stand_in
    }

    /// The requests so far, but those for a status.
    fn asked(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.bench.path("asked")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|request: &serde_json::Value| request["request"] != "status").collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn status(version: &str, services: &[&str]) -> String {
    let service = |name: &&str| {
        format!(
            r#"{{"name":"{name}","listen":"127.0.0.1:1","state":{{"is":"listening"}},"active":0,
            "accepted":0,"refused":0,"bytes_in":0,"bytes_out":0,"servers":[]}}"#
        )
        .replace('\n', "")
    };
    let services: Vec<_> = services.iter().map(service).collect();
    format!(
        r#"{{{version}"pid":7,"active":0,"limit":9,"accept_pauses":0,"services":[{}]}}"#,
        services.join(",")
    )
}

/// Four times as often as silence is suffered.
const OFTEN: usize = 12;

fn lives_on_when_it_answers(answer: &str, expected: &str) {
    let mut stand_in = StandIn::new(answer);
    let mut balancer = stand_in.bench.balancer();
    let web = service("web", &[start_server('a')]);
    let mut level = wanted(&[&web]);
    let mut weight = 1;
    tick_until(&mut balancer, "many requests", |balancer, _| {
        weight += 1;
        edit(&mut level, 0).servers[0].weight = weight;
        balancer.apply(&level);
        stand_in.asked().len() >= OFTEN
    });
    let error = failure(&balancer, "web").unwrap();
    assert!(error.contains(expected), "{error}");
    assert_eq!(stand_in.process.try_wait().unwrap(), None, "it is alive");
    assert!(balancer.take_notes().iter().all(|note| !note.text.contains("killed")));
}

#[test]
fn one_that_refuses_is_quoted_and_lives() {
    let refusal = status(r#""version":2,"error":"no room for more services","#, &[]);
    lives_on_when_it_answers(&refusal, "the proxy refuses: no room for more services");
}

#[test]
fn one_that_answers_too_much_or_nonsense_is_reported_and_lives() {
    lives_on_when_it_answers("long", "longer than 4194304 octets");
    lives_on_when_it_answers("{\"pid\":", "makes no sense");
}

#[test]
fn one_of_an_earlier_release_that_keeps_no_limits_is_logged_once() {
    let lines = |version: &str| {
        let stand_in = StandIn::new(&status(version, &["web"]));
        let mut balancer = stand_in.bench.balancer();
        let mut level = wanted(&[&service("web", &[start_server('a')])]);
        balancer.apply(&level);
        edit(&mut level, 0).servers[0].weight = 5;
        balancer.apply(&level);
        let notes = balancer.take_notes().into_iter().map(|note| note.text);
        notes.filter(|text| text.contains("keeps neither limits nor time-outs")).count()
    };
    assert_eq!((lines(r#""version":2,"#), lines(r#""version":3,"#)), (1, 0));
}

#[test]
fn what_one_lacks_of_its_sandbox_is_logged_once() {
    let lacks = r#""version":4,"unconfined":["no filter here","no Landlock here"],"#;
    let stand_in = StandIn::new(&status(lacks, &["web"]));
    let mut balancer = stand_in.bench.balancer();
    let mut level = wanted(&[&service("web", &[start_server('a')])]);
    balancer.apply(&level);
    edit(&mut level, 0).servers[0].weight = 5;
    balancer.apply(&level);
    let notes: Vec<_> = balancer.take_notes().into_iter().map(|note| note.text).collect();
    let lines = notes.iter().filter_map(|text| text.split_once("more rights than it needs: "));
    let lines: Vec<_> = lines.map(|(_, lack)| lack).collect();
    assert_eq!(lines, ["no filter here", "no Landlock here"]);
}

#[test]
fn one_of_this_version_is_sent_only_what_changed() {
    let stand_in = StandIn::new(&status(r#""version":3,"#, &["web", "shop", "blog"]));
    let mut balancer = stand_in.bench.balancer();
    let (web, shop) = (service("web", &[start_server('a')]), service("shop", &[]));
    let blog = service("blog", &[]);
    let mut level = wanted(&[&web, &shop]);
    serve(&mut balancer, &level).unwrap();
    serve(&mut balancer, &level).unwrap();
    edit(&mut level, 0).servers[0].weight = 5;
    serve(&mut balancer, &level).unwrap();
    level.services.remove(1);
    level.services.push(wanted(&[&blog]).services.remove(0));
    serve(&mut balancer, &level).unwrap();
    let asked = stand_in.asked();
    let names = |list: &serde_json::Value| -> Vec<String> {
        let name =
            |one: &serde_json::Value| one["name"].as_str().or(one.as_str()).map(str::to_owned);
        list.as_array().into_iter().flatten().filter_map(name).collect()
    };
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(
        (asked[0]["request"].as_str(), names(&asked[0]["services"]).len()),
        (Some("serve"), 2)
    );
    assert_eq!(asked[1]["request"], "update");
    assert_eq!(asked[1]["set"][0]["servers"][0]["weight"], 5);
    assert_eq!(
        (names(&asked[1]["set"]), names(&asked[1]["remove"])),
        (vec!["web".to_owned()], vec![])
    );
    let (set, removed) = (names(&asked[2]["set"]), names(&asked[2]["remove"]));
    assert_eq!((set, removed), (vec!["blog".to_owned()], vec!["shop".to_owned()]));
}

#[test]
fn an_older_one_is_sent_everything_at_each_change() {
    let stand_in = StandIn::new(&status("", &["web", "shop"]));
    let mut balancer = stand_in.bench.balancer();
    let (web, shop) = (service("web", &[start_server('a')]), service("shop", &[]));
    let mut level = wanted(&[&web, &shop]);
    serve(&mut balancer, &level).unwrap();
    edit(&mut level, 0).servers[0].weight = 5;
    serve(&mut balancer, &level).unwrap();
    let asked = stand_in.asked();
    assert_eq!(asked.len(), 2);
    for request in asked {
        assert_eq!(request["request"], "serve");
        assert_eq!(request["services"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn one_that_understands_only_later_versions_is_named_and_lives() {
    let mut stand_in = StandIn::new(&status(r#""version":9,"oldest":8,"#, &["web"]));
    let mut balancer = stand_in.bench.balancer();
    let web = service("web", &[start_server('a')]);
    let errors = serve(&mut balancer, &wanted(&[&web])).unwrap_err();
    assert!(errors[0].1.contains("understands version 8 of the protocol"), "{errors:?}");
    balancer.apply(&WantedServices::default());
    assert_eq!(stand_in.process.try_wait().unwrap(), None);
}
