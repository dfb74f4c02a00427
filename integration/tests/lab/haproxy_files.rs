//! A reload of what HAProxy's configuration consists of: files that it names, and a port that another
//! program has.

use std::net::SocketAddr;
use std::net::TcpListener;

use locum_integration::node::Node;
use locum_integration::outage;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::service::HAPROXY;
use locum_integration::service::HAPROXY_FILE;
use locum_integration::service::every_second;
use locum_integration::wait;
use locum_integration::web;
use locum_integration::web::Requests;

const MAP: &str = "/etc/haproxy/hosts.map";

/// Directors with this file, the first one serving.
fn serving(file: &str) -> Balanced {
    let mut balanced = Balanced::new(&every_second(HAPROXY));
    for director in [0, 1] {
        let node = &balanced.lab.directors[director];
        node.write("/etc/haproxy/lab.cfg", file);
        node.write(MAP, "shop.example b1\n");
        outage::issue_certificate(node, "first.example");
        balanced.start(director);
        balanced.expect_service_by(0);
    }
    balanced
}

/// Exit code of a command, and all that it said.
fn ask(node: &Node, command: &str) -> (Option<i32>, String) {
    let output = locum_command(node, &[command]);
    let all = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

/// Whom the certificate is for that a client is shown.
fn subject(balanced: &Balanced) -> String {
    let show = "openssl s_client -connect 192.168.1.100:443 </dev/null 2>/dev/null \
                | openssl x509 -noout -subject 2>/dev/null || true";
    balanced.lab.client.shell(show)
}

/// The main file says what it said: a renewal by a hook changes only what it names.
#[test]
fn reload_takes_up_a_renewed_certificate_and_a_changed_map() {
    if !require::lab(&["nft", "haproxy", "openssl"]) {
        return;
    }
    let by_name = format!("    use_backend %[req.hdr(host),lower,map({MAP},servers)]\n");
    let file = outage::with_certificate().replace(
        "    default_backend servers\n",
        &format!("{by_name}    default_backend servers\n"),
    );
    let file = format!(
        "{file}backend b1\n    server srv1 10.0.0.1:80\nbackend b2\n    server srv2 10.0.0.2:80\n"
    );
    let balanced = serving(&file);
    let node = &balanced.lab.directors[0];
    let shop = || web::get_path(&balanced.lab.client, balanced.vip(), "shop.example", "/");
    assert_eq!(shop(), Ok("srv1".to_owned()));
    assert!(subject(&balanced).contains("first.example"), "{}", subject(&balanced));

    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    outage::issue_certificate(node, "renewed.example");
    node.write(MAP, "shop.example b2\n");
    let (code, said) = ask(node, "reload");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("haproxy edge: "), "{said}");
    assert!(said.contains("site.pem") && said.contains("hosts.map"), "{said}");
    wait::eventually("clients are shown the renewed certificate", ELECTION, || {
        let subject = subject(&balanced);
        if subject.contains("renewed.example") { Ok(()) } else { Err(subject) }
    });
    wait::eventually("the changed map decides", ELECTION, || match shop() {
        Ok(name) if name == "srv2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (answered, failed) = requests.stop();
    assert!(failed.is_empty(), "{failed:?}, {answered} answered");
    let (code, said) = ask(node, "reload");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("haproxy edge: runs on"), "nothing has changed: {said}");
}

/// What runs serves on, so nothing moves either.
#[test]
fn reload_whose_new_port_is_taken_says_so_and_is_made_good_when_it_is_free() {
    if !require::lab(&["nft", "haproxy", "openssl"]) {
        return;
    }
    let balanced = serving(HAPROXY_FILE);
    let node = &balanced.lab.directors[0];
    let (plain, more) = ("    bind *:80\n", "    bind 192.168.1.100:8081\n");
    let stranger = node.in_network(|| TcpListener::bind("0.0.0.0:8081"));
    let stranger = stranger.expect("the port is free on a new machine");
    node.write("/etc/haproxy/lab.cfg", &HAPROXY_FILE.replace(plain, &[plain, more].concat()));
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    let (code, said) = ask(node, "reload");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("NOT taken up") && said.contains("8081"), "{said}");
    let (code, said) = ask(node, "status");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("haproxy edge is strained"), "{said}");
    assert!(!said.contains("does not run") && !said.contains("does not answer"), "{said}");
    wait::steadily("lb1 stays master", wait::seconds(4), || {
        balanced.lab.holders(balanced.vip()) == [0]
    });
    drop(stranger);
    let added = SocketAddr::from((balanced.vip(), 8081));
    wait::until("the new port is served", ELECTION, || {
        web::get_at(&balanced.lab.client, added).is_ok()
    });
    // Each attempt to start has the one that runs let go of its ports for a moment.
    let (answered, failed) = requests.stop();
    assert!(failed.len() * 20 < answered, "{answered} answered, the others: {failed:?}");
    wait::eventually("status says no more of it", ELECTION, || match ask(node, "status") {
        (Some(0), _) => Ok(()),
        (_, said) => Err(said),
    });
}
