//! Health checks against Debian's own servers: what each says of one that answers, that is stopped,
//! that is gone, and of a question that it turns down.

use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::peer::locum_command;
use locum_integration::process::Process;
use locum_integration::process::Whom;
use locum_integration::require;
use locum_integration::require::Company;
use locum_integration::software;
use locum_integration::software::Software;
use locum_integration::wait;
use nix::sys::signal::Signal;

/// One server, and a director that asks it.
const SHAPE: Shape = Shape { directors: 1, servers: 1, company: Company::Shared };

/// A health check, and what becomes of it while its server is well.
struct Case {
    /// The check in the words of the configuration.
    health: &'static str,
    /// `None`: the server is up.
    reason: Option<&'static str>,
}

const fn up(health: &'static str) -> Case {
    Case { health, reason: None }
}

const fn down(health: &'static str, reason: &'static str) -> Case {
    Case { health, reason: Some(reason) }
}

/// A service for each case, in their order, named after its place.
fn config(port: u16, cases: &[Case]) -> String {
    let mut text = "[nodes.lb1]\n".to_owned();
    for (place, case) in cases.iter().enumerate() {
        let listen = 9000 + place;
        let is_datagram = case.health.contains("dns = ") && !case.health.contains("over_tcp");
        let protocol = if is_datagram { "udp" } else { "tcp" };
        text += &format!(
            "[[service]]\nname = \"s{place}\"\nserve = \"always\"\nbackend = \"proxy\"\n\
             protocol = \"{protocol}\"\nlisten = \"192.168.1.201:{listen}\"\n\
             servers = [\"10.0.0.1:{port}\"]\n\
             health = {{ {}, interval = \"800ms\", timeout = \"800ms\", rise = 1, fall = 1 }}\n",
            case.health
        );
    }
    text
}

/// Whether the server of the service at this place is up, and what its check says, by `locum status`.
fn found(director: &Node, place: usize) -> (bool, String) {
    let output = locum_command(director, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let server = &status["services"][place]["servers"][0];
    let shown = server.to_string();
    (server["up"] == true, shown)
}

fn expect(director: &Node, place: usize, case: &Case, reason: Option<&str>) {
    let wanted = reason.unwrap_or("up");
    wait::eventually(&format!("{{ {} }} is {wanted}", case.health), ELECTION, || {
        let (is_up, shown) = found(director, place);
        let is_so = is_up == reason.is_none() && shown.contains(reason.unwrap_or_default());
        if is_so { Ok(()) } else { Err(shown) }
    });
}

/// The first case is asked again while the server is stopped, gone and back.
fn expect_all(prepare: impl FnOnce(&Node) -> Software, port: u16, stopped: &str, cases: &[Case]) {
    if !require::lab(&Software::PROGRAMS) {
        return;
    }
    let lab = Lab::new(SHAPE);
    let (director, server) = (&lab.directors[0], &lab.servers[0]);
    let software = prepare(server);
    let mut process: Process = software.start(server);
    let _daemon = Locum::NATIVE.start_with(director, &config(port, cases));
    for (place, case) in cases.iter().enumerate() {
        expect(director, place, case, case.reason);
    }
    let first = &cases[0];
    process.signal(Whom::Family, Signal::SIGSTOP);
    expect(director, 0, first, Some(stopped));
    process.signal(Whom::Family, Signal::SIGCONT);
    expect(director, 0, first, None);
    software::kill(process);
    expect(director, 0, first, Some("connection refused"));
    let _again = software.start(server);
    expect(director, 0, first, None);
}

#[test]
fn mariadb() {
    const USERS: &str = "CREATE USER IF NOT EXISTS locum@'%';\n\
        CREATE USER IF NOT EXISTS closed@'%' IDENTIFIED BY 'secret';\n";
    expect_all(
        |node| Software::mariadb(node, USERS),
        3306,
        "no greeting: timed out after 800ms",
        &[
            up("mysql = true"),
            up("mysql = \"locum\""),
            down("mysql = \"closed\"", "MySQL error 1045: Access denied for user 'closed'"),
            down("mysql = \"nobody\"", "MySQL error 1045: Access denied for user 'nobody'"),
            down("postgres = true", "not an answer of PostgreSQL"),
            down("redis = true", "not an answer of Redis"),
            down("smtp = true", "not an SMTP answer"),
        ],
    );
}

/// A host that leaves MariaDB after its greeting is locked out in the end, with all clients that come
/// through it.
#[test]
fn mariadb_does_not_block_the_director_that_checks_it() {
    if !require::lab(&Software::PROGRAMS) {
        return;
    }
    let lab = Lab::new(SHAPE);
    let (director, server) = (&lab.directors[0], &lab.servers[0]);
    // Of hosts without a name it keeps no count.
    server.write("/run/lab/hosts", "10.0.0.201 lb1.example.com\n");
    server.run(&["mount", "--bind", "/run/lab/hosts", "/etc/hosts"]);
    let software = Software::mariadb(server, "CREATE USER IF NOT EXISTS locum@'%';\n");
    let process = software.with(&["--max-connect-errors=3"]).start(server);
    let case = up("mysql = true");
    let config = config(3306, std::slice::from_ref(&case));
    let _daemon = Locum::NATIVE.start_with(director, &config);
    wait::eventually("it has been asked often", ELECTION, || {
        let asked = process.log().matches("'lb1.example.com'").count();
        if asked > 4 { Ok(()) } else { Err(format!("{asked} times: {}", found(director, 0).1)) }
    });
    expect(director, 0, &case, None);
}

#[test]
fn postgres() {
    const RULES: &str = "host all refused all reject\n\
        host all guarded all scram-sha-256\n\
        host all all all trust\n";
    expect_all(
        |node| Software::postgres(node, RULES),
        5432,
        "no answer: timed out after 800ms",
        &[
            up("postgres = true"),
            up("postgres = \"root/postgres\""),
            up("postgres = \"guarded/postgres\""),
            down("postgres = \"refused/postgres\"", "PostgreSQL: pg_hba.conf rejects connection"),
            down(
                "postgres = \"nobody/postgres\"",
                "PostgreSQL: role \\\"nobody\\\" does not exist",
            ),
            down("postgres = \"root/shop\"", "PostgreSQL: database \\\"shop\\\" does not exist"),
            down("mysql = true", "no greeting: timed out"),
        ],
    );
}

#[test]
fn redis() {
    expect_all(
        |_| Software::redis().with(&["--requirepass", "secret"]),
        6379,
        "no answer to AUTH: timed out after 800ms",
        &[
            up("redis = true, password = \"secret\""),
            down("redis = true, password = \"public\"", "Redis: WRONGPASS"),
            down("redis = true", "Redis: NOAUTH"),
        ],
    );
}

#[test]
fn unbound() {
    let long: String =
        (0..40).map(|n| format!("local-data: \"long.example.com. TXT '{n:0>200}'\"\n")).collect();
    let zones = format!(
        "local-zone: \"example.com.\" static\n\
         local-data: \"example.com. SOA ns.example.com. a.example.com. 1 60 60 60 60\"\n\
         local-data: \"www.example.com. A 192.0.2.1\"\n\
         local-zone: \"secret.example.\" refuse\n{long}"
    );
    expect_all(
        |node| Software::unbound(node, &zones),
        53,
        "no answer: timed out after 800ms",
        &[
            up("dns = \"www.example.com\""),
            up("dns = \"WWW.example.com.\", over_tcp = true"),
            up("dns = \"example.com\", type = \"SOA\""),
            // More than a datagram has without EDNS: it comes over TCP.
            up("dns = \"long.example.com\", type = \"TXT\""),
            down("dns = \"www.example.com\", type = \"MX\"", "an answer without a record"),
            down("dns = \"no.example.com\"", "answers NXDOMAIN"),
            down("dns = \"a.secret.example\"", "answers REFUSED"),
            down("dns = \"www.example.org\"", "answers SERVFAIL"),
        ],
    );
}

#[test]
fn opensmtpd() {
    expect_all(
        Software::smtpd,
        25,
        "no greeting: timed out after 800ms",
        &[
            up("smtp = true"),
            up("smtp = true, helo = \"lb1.example.com\""),
            down("redis = true", "not an answer of Redis: 220 mx.example.com"),
        ],
    );
}

#[test]
fn nginx() {
    expect_all(
        Software::nginx,
        80,
        "timed out after 800ms",
        &[
            up("http = \"/health\", body = \"srv1\""),
            up("http = \"/health\", version = \"1.0\""),
            down("http = \"/health\", body = \"srv2\"", "srv2"),
            down("http = \"/health\", expect = 404", "200"),
            down("smtp = true", "no greeting: timed out"),
        ],
    );
}

#[test]
fn etcd() {
    expect_all(
        |_| Software::etcd(),
        2379,
        "no response: timed out after 800ms",
        &[
            up("grpc = \"\""),
            down("grpc = \"shop\"", "does not know the service \\\"shop\\\""),
            down("redis = true", "closed the connection without an answer"),
        ],
    );
}
