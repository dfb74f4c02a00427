//! A client keeps being served on whichever director is master, by the built-in proxy and by
//! HAProxy; the other one serves nothing.

use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::INSTANCE;
use locum_integration::service::carriers;
use locum_integration::service::listens;
use locum_integration::wait;
use locum_integration::wait::seconds;
use locum_integration::web::WebServer;

const PROXY: &str = r#"
[[service]]
name = "www"
instance = "web"
listen = "192.168.1.100:80"
backend = "proxy"
scheduler = "rr"
standby = "cold"
drain = "1s"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = [{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80" }]
"#;

const HAPROXY: &str = r#"
[[haproxy]]
name = "edge"
instance = "web"
config = "/etc/haproxy/lab.cfg"
"#;

const HAPROXY_FILE: &str = "
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend web
    bind *:80
    default_backend servers
backend servers
    balance roundrobin
    server srv1 10.0.0.1:80 check inter 500
    server srv2 10.0.0.2:80 check inter 500
";

fn with(part: &str) -> String {
    format!("{INSTANCE}{part}")
}

fn proxied() -> Balanced {
    Balanced::settled(&with(PROXY))
}

fn through_haproxy() -> Balanced {
    let mut balanced = Balanced::new(&with(HAPROXY));
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
    }
    balanced.start(0);
    balanced.start(1);
    balanced.expect_service_by(0);
    balanced
}

/// Nothing on the director carries or waits for traffic.
fn expect_idle(balanced: &Balanced, director: usize) {
    let node = &balanced.lab.directors[director];
    wait::eventually("nothing serves on the backup", seconds(5), || {
        let (listens, carriers) = (listens(node), carriers(node));
        match listens || !carriers.is_empty() {
            true => Err(format!("listens: {listens}, processes: {carriers:?}")),
            false => Ok(()),
        }
    });
}

fn moves_with_a_stop(mut balanced: Balanced) {
    balanced.expect_both_servers();
    expect_idle(&balanced, 1);
    balanced.daemon(0).terminate();
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    expect_idle(&balanced, 0);
}

fn moves_with_a_kill(mut balanced: Balanced) {
    balanced.daemon(0).kill();
    balanced.expect_service_by(1);
    balanced.expect_both_servers();
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    expect_idle(&balanced, 1);
}

fn moves_with_silence_and_back(balanced: &Balanced) {
    balanced.lab.silence(0);
    balanced.expect_service_by(1);
    balanced.lab.unsilence(0);
    balanced.expect_service_by(0);
    expect_idle(balanced, 1);
}

fn moves_with_the_link_and_back(balanced: &Balanced) {
    balanced.lab.unplug(0);
    balanced.expect_service_by(1);
    expect_idle(balanced, 0);
    balanced.lab.replug(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
}

/// One test per way to lose a master, for one way to carry traffic.
macro_rules! carried {
    ($module:ident: $make:ident, $programs:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn traffic_continues_after_a_stop() {
                if require::lab(&$programs) {
                    moves_with_a_stop($make());
                }
            }

            #[test]
            fn traffic_continues_after_a_kill() {
                if require::lab(&$programs) {
                    moves_with_a_kill($make());
                }
            }

            #[test]
            fn traffic_continues_while_the_master_is_silent() {
                if require::lab(&$programs) {
                    moves_with_silence_and_back(&$make());
                }
            }

            #[test]
            fn traffic_continues_while_the_link_is_lost() {
                if require::lab(&$programs) {
                    moves_with_the_link_and_back(&$make());
                }
            }
        }
    };
}

carried!(by_proxy: proxied, ["nft", "ss"]);
carried!(by_haproxy: through_haproxy, ["nft", "ss", "haproxy"]);

#[test]
fn failing_server_gets_no_requests_until_it_is_well() {
    if !require::lab(&["nft"]) {
        return;
    }
    let balanced = proxied();
    balanced.expect_both_servers();
    balanced.web[0].set_status(503);
    balanced.expect_servers(&["srv2"]);
    balanced.web[0].set_status(200);
    balanced.expect_both_servers();
}

#[test]
fn seed_haproxy_file_serves_on_the_master_only() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let mut balanced = Balanced::new(&with(&HAPROXY.replace("lab.cfg", "haproxy.cfg")));
    // The web servers of the file, all on one machine.
    let client = &balanced.lab.client;
    for address in ["192.168.1.8", "192.168.1.9", "192.168.1.10", "192.168.1.3"] {
        client.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    }
    let _web = WebServer::start(client);
    let file =
        std::fs::read_to_string(require::workspace().join("integration/data/seed/haproxy.cfg"));
    // HAProxy 2.5 and later refuses this one line.
    let file = file.expect("the seed file").replace("    nbproc 1\n", "");
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/haproxy.cfg", &file);
    }
    balanced.start(0);
    balanced.start(1);
    balanced.expect_service_by(0);
    balanced.expect_servers(&["client"]);
    expect_idle(&balanced, 1);
    balanced.daemon(0).terminate();
    balanced.expect_service_by(1);
}

#[test]
fn haproxy_that_refuses_its_file_shows_its_message_and_moves_no_address() {
    if !require::lab(&["nft", "haproxy"]) {
        return;
    }
    let mut balanced = Balanced::new(&with(HAPROXY));
    let refused = HAPROXY_FILE.replace("bind *:80", "bind *:80\n    no_such_word");
    balanced.lab.directors[0].write("/etc/haproxy/lab.cfg", &refused);
    balanced.start(0);
    let node = &balanced.lab.directors[0];
    wait::until("lb1 is master", seconds(10), || node.holds(balanced.vip()));
    wait::until("status shows HAProxy's own message", seconds(10), || {
        let output = locum_command(node, &["status", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        said.contains("no_such_word") && said.contains("lab.cfg:")
    });
    assert!(node.holds(balanced.vip()));
}

#[test]
fn killed_haproxy_is_started_again() {
    if !require::lab(&["nft", "haproxy", "pgrep"]) {
        return;
    }
    let balanced = through_haproxy();
    balanced.lab.directors[0].shell("kill -9 $(pgrep -x haproxy)");
    balanced.expect_service_by(0);
}
