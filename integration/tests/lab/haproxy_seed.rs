//! The HAProxy configurations that people published, run by a supervised HAProxy on the master only.
//! Fragments are completed with the backends they name; addresses are the lab's.

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::process::Process;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::INSTANCE;
use locum_integration::service::carriers;
use locum_integration::service::expect_idle;
use locum_integration::wait;
use locum_integration::web;
use locum_integration::web::WebServer;

const HAPROXY: &str = r#"
[[haproxy]]
name = "edge"
instance = "web"
config = "/etc/haproxy/haproxy.cfg"
"#;

/// What every complete file starts with, and no fragment says.
const DEFAULTS: &str = "
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
";

fn seed(name: &str) -> String {
    let path = require::workspace().join("integration/data/seed").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Directors that run HAProxy with this file, the first one master and serving.
fn serving(file: &str) -> Balanced {
    let mut balanced = Balanced::new(&format!("{INSTANCE}{HAPROXY}"));
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/haproxy.cfg", file);
    }
    balanced.start(0);
    wait::until("HAProxy runs on the master", ELECTION, || {
        !carriers(&balanced.lab.directors[0]).is_empty()
    });
    balanced.start(1);
    balanced
}

/// A backend with one server of the lab.
fn backend(name: &str, server: &str) -> String {
    format!("\nbackend {name}\n    server {name} {server}:80 check inter 500\n")
}

/// Waits until a request for this host and path is answered by this server.
fn expect(balanced: &Balanced, host: &str, path: &str, server: &str) {
    wait::eventually(&format!("{host}{path} goes to {server}"), ELECTION, || {
        match web::get_path(&balanced.lab.client, balanced.vip(), host, path) {
            Ok(answer) if answer == server => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Debian's nginx as a real server that says its node's name.
fn nginx(node: &Node) -> Process {
    let name = node.name();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path /run/lab/nginx-{kind};\n"));
    let file = format!(
        "user root;\npid /run/lab/nginx.pid;\nerror_log stderr;\nworker_processes 1;\nevents {{}}\n\
         http {{\naccess_log off;\n{}\
         server {{ listen 80; location / {{ return 200 \"nginx on {name}\"; }} }}\n}}\n",
        paths.concat()
    );
    node.write("/run/lab/nginx.conf", &file);
    node.spawn(&["nginx", "-c", "/run/lab/nginx.conf", "-g", "daemon off;"])
}

/// As it was published: the one line that HAProxy does not know any more is named, and a reload is all
/// that is left to do when it has gone.
#[test]
fn whole_file_as_it_stands_has_its_obsolete_line_reported() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let verbatim = seed("haproxy.cfg");
    let number = 1 + verbatim.lines().position(|line| line == "    nbproc 1").expect("it is there");
    let mut balanced = Balanced::new(&format!("{INSTANCE}{HAPROXY}"));
    balanced.lab.directors[0].write("/etc/haproxy/haproxy.cfg", &verbatim);
    balanced.start(0);
    let node = &balanced.lab.directors[0];
    let words = format!("parsing [/etc/haproxy/haproxy.cfg:{number}] : nbproc is not supported");
    wait::eventually("the line is reported", ELECTION, || {
        let output = locum_command(node, &["status", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = said.matches("parsing [").count() / said.matches(&words).count().max(1);
        if said.contains(&words) && lines == 1 { Ok(()) } else { Err(said) }
    });
    node.write("/etc/haproxy/haproxy.cfg", &verbatim.replace("    nbproc 1\n", ""));
    let output = locum_command(node, &["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait::until("HAProxy runs from the rest", ELECTION, || !carriers(node).is_empty());
}

#[test]
fn whole_file_serves_on_the_master_only() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    // HAProxy 2.5 and later refuses this one line.
    let file = seed("haproxy.cfg").replace("    nbproc 1\n", "");
    let mut balanced = serving(&file);
    // The web servers of the file, all on one machine.
    let client = &balanced.lab.client;
    for address in ["192.168.1.8", "192.168.1.9", "192.168.1.10", "192.168.1.3"] {
        client.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    }
    let _web = WebServer::start(client);
    balanced.expect_service_by(0);
    balanced.expect_servers(&["client"]);
    expect_idle(&balanced.lab.directors[1]);
    balanced.daemon(0).terminate();
    balanced.expect_service_by(1);
}

#[test]
fn path_fragment_chooses_the_backend_and_moves_with_the_address() {
    if !require::lab(&["nft", "haproxy", "ss", "nginx"]) {
        return;
    }
    let fragment = seed("haproxy-acl-path.cfg")
        .replace("192.168.1.101", "10.0.0.1")
        .replace("192.168.1.102", "10.0.0.2");
    let file = format!("{DEFAULTS}{fragment}{}", backend("dynamic", "192.168.1.200"));
    let mut balanced = serving(&file);
    balanced.web.clear();
    let _static: Vec<Process> = balanced.lab.servers.iter().map(nginx).collect();
    let _dynamic = WebServer::start(&balanced.lab.client);
    for director in [0, 1] {
        expect(&balanced, "lab", "/api/orders", "client");
        balanced.expect_servers(&["nginx on srv1", "nginx on srv2"]);
        expect_idle(&balanced.lab.directors[1 - director]);
        if director == 0 {
            balanced.daemon(0).terminate();
            balanced.expect_service_by(1);
        }
    }
}

#[test]
fn header_fragment_chooses_the_backend() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let file = [
        format!("{DEFAULTS}\nfrontend web\n    bind *:80\n{}", seed("haproxy-acl-hdr.cfg")),
        backend("server_www", "10.0.0.1"),
        backend("server_bbs", "10.0.0.2"),
        backend("server_app", "192.168.1.200"),
        backend("server_cache", "10.0.0.1"),
    ];
    let balanced = serving(&file.concat());
    let _app = WebServer::start(&balanced.lab.client);
    expect(&balanced, "www.z.cn", "/", "srv1");
    expect(&balanced, "bbs.z.cn", "/", "srv2");
    expect(&balanced, "other", "/shop?buy_sid=7", "client");
    expect(&balanced, "other", "/", "srv1");
    expect_idle(&balanced.lab.directors[1]);
}

#[test]
fn blog_fragment_chooses_the_backend() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let file = [
        format!("{DEFAULTS}{}", seed("haproxy-blog.cfg")),
        backend("blog-backend", "10.0.0.1"),
        backend("web-backend", "10.0.0.2"),
    ];
    let balanced = serving(&file.concat());
    expect(&balanced, "lab", "/blog/1", "srv1");
    expect(&balanced, "lab", "/", "srv2");
    expect_idle(&balanced.lab.directors[1]);
}

#[test]
fn http_check_fragment_sends_requests_to_well_servers_only() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let fragment = seed("haproxy-httpchk.cfg")
        .replace("10.0.1.101:8080", "10.0.0.1:80")
        .replace("10.0.1.102:8080", "10.0.0.2:80");
    let frontend = "\nfrontend web\n    bind *:80\n    default_backend api\n\n";
    let balanced = serving(&format!("{DEFAULTS}{frontend}{fragment}"));
    balanced.expect_both_servers();
    balanced.web[0].set_status(503);
    balanced.expect_servers(&["srv2"]);
    expect_idle(&balanced.lab.directors[1]);
}

#[test]
fn mysql_fragment_runs_on_the_master_only() {
    if !require::lab(&["nft", "haproxy", "ss"]) {
        return;
    }
    let frontend = "\nlisten front\n    mode tcp\n    bind *:80\n    use_backend mysql_cluster\n\n";
    let mut balanced = serving(&format!("{DEFAULTS}{frontend}{}", seed("haproxy-mysql.cfg")));
    expect_idle(&balanced.lab.directors[1]);
    balanced.daemon(0).terminate();
    expect_idle(&balanced.lab.directors[0]);
    wait::until("HAProxy runs on the other", ELECTION, || {
        !carriers(&balanced.lab.directors[1]).is_empty()
    });
}
