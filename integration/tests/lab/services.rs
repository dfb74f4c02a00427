//! What becomes of a service whose servers come and go: sorry server, hooks, and an operator's orders,
//! with real servers behind the built-in proxy.

use std::net::IpAddr;

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::service::Balanced;
use locum_integration::service::PROXY;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::web::HalfAsked;
use locum_integration::web::WebServer;

const HOOK: &str = "/run/lab/hook.sh";
const EVENTS: &str = "/run/lab/events";
/// Writes what it is told of.
const RECORD: &str =
    "echo \"$LOCUM_SERVICE ${LOCUM_SERVER:-quorum} $LOCUM_STATE $1\" >> /run/lab/events";

/// The service of [`PROXY`], with more to say.
fn service(more: &str) -> String {
    every_second(&format!("{PROXY}{more}"))
}

fn events(node: &Node) -> Vec<String> {
    node.read(EVENTS).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn locum(node: &Node, words: &[&str]) -> Result<String, String> {
    let output = locum_command(node, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn a_sorry_server_has_the_clients_while_there_are_too_few_servers() {
    let more = format!(
        "sorry = \"10.0.0.202:8080\"\nquorum_up = [[\"{HOOK}\", \"up\"]]\n\
         quorum_down = [[\"{HOOK}\", \"down\"]]\n"
    );
    let balanced = {
        let mut balanced = Balanced::new(&service(&more));
        balanced.lab.directors[0].write_script(HOOK, RECORD);
        balanced.lab.directors[1].write_script(HOOK, RECORD);
        balanced.start(0);
        balanced.start(1);
        balanced.expect_service_by(0);
        balanced
    };
    // On the other director, which serves nobody.
    let director = &balanced.lab.directors[1];
    let _sorry = WebServer::start_at(director, ([10, 0, 0, 202], 8080).into());
    balanced.expect_both_servers();
    let first = &balanced.lab.directors[0];
    assert_eq!(events(first), [""; 0], "nothing is gained by a beginning");
    for server in &balanced.web {
        server.set_status(500);
    }
    balanced.expect_servers(&["lb2"]);
    wait::until("the hook of the lost quorum", ELECTION, || {
        events(first) == ["www quorum DOWN down"]
    });
    let status = locum(first, &["status"]).unwrap_err();
    assert_eq!(status, "", "degraded, and said on standard output");
    balanced.web[1].set_status(200);
    balanced.expect_servers(&["srv2"]);
    let both = ["www quorum DOWN down", "www quorum UP up"];
    wait::until("the hook of the quorum", ELECTION, || events(first) == both);
    let history = locum(first, &["history"]).expect("a daemon");
    assert!(history.contains("clients go to the sorry server 10.0.0.202:8080"), "{history}");
    assert!(history.contains("service www has its quorum again"), "{history}");
}

#[test]
fn hooks_of_a_server_run_when_it_goes_and_comes() {
    let hooks =
        format!("notify_up = [[\"{HOOK}\", \"up\"]], notify_down = [[\"{HOOK}\", \"down\"]]");
    let own = format!("{{ address = \"10.0.0.1:80\", {hooks} }}");
    let config = service("")
        .replace("[\"10.0.0.1:80\", \"10.0.0.2:80\"]", &format!("[{own}, \"10.0.0.2:80\"]"));
    let mut balanced = Balanced::new(&config);
    balanced.lab.directors[0].write_script(HOOK, RECORD);
    balanced.lab.directors[1].write_script(HOOK, RECORD);
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    let director = &balanced.lab.directors[0];
    let went = "www 10.0.0.1:80 DOWN down".to_owned();
    let came = "www 10.0.0.1:80 UP up".to_owned();
    balanced.web[0].set_status(500);
    wait::until("the hook for down", ELECTION, || events(director) == [went.clone()]);
    balanced.web[0].set_status(200);
    wait::until("the hook for up", ELECTION, || events(director) == [went.clone(), came.clone()]);
}

/// Drained by command: new clients go elsewhere, the one that is there finishes, and a daemon that
/// was killed comes back to what was ordered.
#[test]
fn a_server_is_drained_by_command_until_it_is_ready_again() {
    let mut balanced = Balanced::settled(&service(""));
    balanced.expect_both_servers();
    let vip: IpAddr = balanced.vip();
    // One of two in turn is that of the first server.
    let held = [(); 2].map(|()| HalfAsked::start(&balanced.lab.client, vip));
    let node = &balanced.lab.directors[0];
    let said = locum(node, &["server", "drain", "www", "10.0.0.1"]).expect("done");
    assert!(said.starts_with("10.0.0.1:80 of www gets no new connections"), "{said}");
    balanced.expect_servers(&["srv2"]);
    let mut finished: Vec<String> =
        held.into_iter().map(|one| one.finish().expect("answered")).collect();
    finished.sort();
    assert_eq!(finished, ["srv1", "srv2"], "what was there went on");
    balanced.daemon(0).kill_main();
    balanced.start_again(0);
    balanced.expect_service_by(0);
    balanced.expect_servers(&["srv2"]);
    let node = &balanced.lab.directors[0];
    let status = locum(node, &["status"]).expect("healthy: it was ordered");
    assert!(status.contains("drained by the operator"), "{status}");
    let refused = locum(node, &["server", "drain", "www", "10.0.0.9"]).unwrap_err();
    assert!(
        refused.contains("has no server 10.0.0.9; it has 10.0.0.1:80, 10.0.0.2:80"),
        "{refused}"
    );
    let refused = locum(node, &["server", "ready", "shop", "10.0.0.1"]).unwrap_err();
    assert!(refused.contains("there is no service shop; there is www"), "{refused}");
    locum(node, &["server", "weight", "www", "10.0.0.2", "0"]).expect("done");
    locum(node, &["server", "ready", "www", "10.0.0.1:80"]).expect("done");
    balanced.expect_servers(&["srv1"]);
    let node = &balanced.lab.directors[0];
    locum(node, &["server", "ready", "www", "10.0.0.2"]).expect("done");
    balanced.expect_both_servers();
}
