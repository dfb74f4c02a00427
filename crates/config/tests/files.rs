//! Files that must work as they stand: the published examples and our own sample, down to every
//! field that matters.

// Cases are files; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use locum_config::{Context, MemorySource, NeedKind, Severity, load};
use locum_plan::{
    BackendChoice, BodyDigest, CheckSource, Checker, Command, CommandLine, DnsQuestion, DnsRecord,
    Forwarding, GrpcQuestion, HeaderVersion, Health, HttpMethod, HttpQuestion, HttpVersion, Lease,
    Plan, PostgresUser, Protocol, Question, Retry, Scope, Server, Standby, StatusRange, Tls,
    Tracked, Trust, UdpQuestion, UdpReply, Unrunnable, Weight,
};
use locum_vrrp::{
    Auth, ChecksumForm, ChecksumMode, Family, Preempt, Priority, Profile, Transport, Version,
};

/// Loads a file of the repository on this node; findings beside the plan.
fn loaded(path: &str, node: &str) -> (Arc<Plan>, Vec<String>) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read(file).expect("the file is in the repository");
    load_text(text, node)
}

fn load_text(text: impl Into<Vec<u8>>, node: &str) -> (Arc<Plan>, Vec<String>) {
    let source = MemorySource::new().with("file", text);
    let loaded = load(&source, "file", &Context::host(node));
    let codes = loaded.diagnostics.iter().map(|item| item.code.to_owned()).collect();
    (loaded.plan.unwrap_or_else(|| panic!("{}", loaded.diagnostics)), codes)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

#[test]
fn the_active_passive_file_means_what_keepalived_means_by_it() {
    let (plan, codes) = loaded("tests/data/seed/keepalived-active-passive.conf", "lb1");
    assert_eq!(codes, ["ignored-keyword"], "only the mail address is remarked on");
    assert_eq!(plan.checks[0].unrunnable, Unrunnable::LeftOut, "as keepalived does");
    let [instance] = &plan.instances[..] else { panic!("one instance") };
    assert_eq!((&*instance.name, &*instance.interface), ("VI_1", "eth0"));
    let router = &instance.router;
    assert_eq!(router.vrid.get(), 51);
    assert_eq!((router.version, router.family), (Version::V2, Family::V4));
    assert_eq!(router.profile, Profile::Interop);
    assert_eq!(router.priority, Priority(100));
    assert_eq!(router.interval.centis(), 100);
    assert_eq!(router.preempt, Preempt::After(Duration::ZERO));
    assert_eq!(router.auth, Auth::Simple(*b"1111\0\0\0\0"));
    assert_eq!(router.addresses, [ip("182.148.15.239")]);
    assert_eq!(router.transport, Transport::Multicast { group: ip("224.0.0.18") });
    assert_eq!(router.checksum, ChecksumMode::Auto(ChecksumForm::Pseudo));
    assert_eq!(router.down_multiplier, 3);
    assert_eq!((router.announce.repeat, router.announce.delay), (5, Duration::from_secs(5)));
    assert!(!router.start_eager, "state MASTER does not skip the wait");
    let [address] = &instance.addresses[..] else { panic!("one address") };
    assert_eq!(address.prefix, 32, "no prefix length is a host route");
    assert_eq!((address.device(), address.label(), address.scope), (None, None, Scope::Global));
    assert_eq!(instance.lease, Lease::Auto);
    assert_eq!(instance.track[0].object, Tracked::Check("chk_haproxy".into()));
    assert_eq!(instance.track[0].weight, None);
    let clean = Command::argv(["/etc/keepalived/clean_arp.sh", "182.148.15.239"]);
    assert_eq!(instance.hooks.master, [clean]);
    assert!(instance.hooks.any.is_empty() && instance.hooks.backup.is_empty());
    let [check] = &plan.checks[..] else { panic!("one check") };
    let script = Command::argv(["/etc/keepalived/check_haproxy.sh"]);
    assert_eq!(check.probe.kind, Checker::Script(script));
    assert_eq!(check.probe.interval, Duration::from_secs(2));
    assert_eq!(check.probe.timeout, Duration::from_secs(2), "the timeout is the interval");
    assert_eq!((check.rise, check.fall, check.starts_failed), (1, 1, false));
    assert_eq!(check.weight, Weight { value: 2, reverse: false });
}

#[test]
fn the_active_active_file_has_two_routers_and_a_process_check() {
    let (plan, _) = loaded("tests/data/seed/keepalived-active-active.conf", "lb1");
    let [one, two] = &plan.instances[..] else { panic!("two instances") };
    assert_eq!((one.router.vrid.get(), two.router.vrid.get()), (56, 58));
    assert_eq!((one.router.priority, two.router.priority), (Priority(100), Priority(92)));
    assert_eq!(one.router.auth, Auth::Simple(*b"1056\0\0\0\0"));
    assert_eq!(two.router.auth, Auth::Simple(*b"1058\0\0\0\0"));
    assert_eq!(one.addresses[0].address, ip("192.168.1.100"));
    assert_eq!(two.addresses[0].address, ip("192.168.1.101"));
    assert_eq!((one.addresses[0].prefix, two.addresses[0].prefix), (24, 24));
    assert_eq!((one.track.len(), two.track.len()), (1, 0));
    let check = &plan.checks[0];
    assert_eq!(check.probe.kind, Checker::Process { name: "haproxy".to_owned() });
    assert_eq!(check.weight, Weight { value: -2, reverse: false });
    assert_eq!(check.probe.interval, Duration::from_secs(1));
}

#[test]
fn a_file_with_nothing_but_a_check_loads_with_a_remark() {
    let (plan, codes) = loaded("tests/data/seed/keepalived-check-http.conf", "lb1");
    assert_eq!(codes, ["unused-check"]);
    assert!(plan.instances.is_empty());
    let check = &plan.checks[0];
    let curl = Command::argv(["/usr/bin/curl", "-sSf", "http://localhost/health"]);
    assert_eq!(check.probe.kind, Checker::Script(curl));
    assert_eq!((check.rise, check.fall), (2, 2));
}

#[test]
fn the_design_example_gives_each_node_its_own_values() {
    let (first, codes) = loaded("tests/data/design.toml", "lb1.example.net");
    let (second, _) = loaded("tests/data/design.toml", "lb2");
    assert!(codes.is_empty(), "{codes:?}");
    assert_eq!((&*first.node, &*second.node), ("lb1", "lb2"));
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.digest.len(), 64);
    assert_eq!(first.instances[0].router.priority, Priority(150));
    assert_eq!(second.instances[0].router.priority, Priority(100));
    assert_eq!(first.nodes.len(), 2);
    assert_eq!(first.nodes[1].address, Some(ip("192.0.2.2")));
    let instance = &first.instances[0];
    assert_eq!(instance.router.version, Version::V3);
    assert_eq!(instance.hooks.any, [Command::argv(["/etc/locum/notify.sh"])]);
    let check = &first.checks[0];
    assert_eq!(check.unrunnable, Unrunnable::Fails);
    assert_eq!(check.weight.value, -60);
    assert_eq!((check.rise, check.fall), (2, 2));
    let service = &first.services[0];
    assert_eq!(service.instance.as_deref(), Some("web"));
    assert_eq!(service.listen, [socket("192.0.2.10:80").into()]);
    assert_eq!((service.protocol, service.backend), (Protocol::Tcp, BackendChoice::Auto));
    assert_eq!(service.scheduler.name, "wlc");
    assert!(service.servers.iter().all(|server| server.forwarding == Forwarding::Nat));
    let [health] = &service.servers[0].health[..] else { panic!("one health check") };
    let expect = vec![StatusRange { first: 200, last: 200 }];
    let target = socket("10.0.0.1:80");
    let question = Question::Http(HttpQuestion::get("/health", None, expect).into());
    assert_eq!(health.probe.kind, Checker::ask(target, question));
    assert_eq!((health.probe.interval, health.fall), (Duration::from_secs(2), 3));
    let weights: Vec<u32> = service.servers.iter().map(|server| server.weight).collect();
    assert_eq!(weights, [1, 2]);
}

#[test]
fn the_sample_that_is_installed_has_no_findings() {
    for node in ["lb1", "lb2"] {
        let (plan, codes) = loaded("../../etc/locum.toml", node);
        assert!(codes.is_empty(), "{codes:?}");
        assert_eq!((plan.instances.len(), plan.checks.len(), plan.services.len()), (1, 1, 1));
    }
}

#[test]
fn the_examples_have_no_findings_and_are_in_the_readme() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("it is in the repository");
    let entries = std::fs::read_dir(root.join("etc/examples")).expect("they are in the repository");
    let mut services = 0;
    for entry in entries {
        let name = entry.expect("readable").file_name().into_string().expect("a plain name");
        assert!(readme.contains(&format!("`{name}`")), "README.md does not name {name}");
        if !name.ends_with(".toml") {
            continue;
        }
        for node in ["lb1", "lb2"] {
            let (plan, codes) = loaded(&format!("../../etc/examples/{name}"), node);
            assert!(codes.is_empty(), "{name}: {codes:?}");
            services += plan.services.len();
        }
    }
    assert!(services >= 10, "only {services} services");
}

#[test]
fn commented_keys_of_the_sample_are_valid_when_uncommented() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../etc/locum.toml");
    let text = std::fs::read_to_string(file).expect("the file is in the repository");
    let bare: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // `auth` belongs to version 2 alone, and the sample stays with 3.
            Some(rest) if is_setting(rest) && !rest.starts_with("auth") => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    assert!(bare.lines().filter(|line| is_setting(line)).count() > 30);
    let (plan, _) = load_text(bare, "lb1");
    assert_eq!((plan.checks.len(), plan.haproxy.len()), (3, 1));
    assert_eq!(plan.haproxy[0].standby, Standby::Cold);
    let text = "[[haproxy]]\nname = \"edge\"\nconfig = \"/etc/edge.cfg\"\nstandby = \"warm\"\n";
    let (plan, _) = load_text(text.to_owned(), "lb1");
    assert_eq!((plan.haproxy[0].standby, &plan.haproxy[0].answer), (Standby::Warm, &None));
    let text = format!("{text}answer = \"http://192.0.2.10/up\"\n");
    let (plan, _) = load_text(text, "lb1");
    let answer = plan.haproxy[0].answer.as_ref().expect("a page");
    assert_eq!(
        (answer.address.to_string().as_str(), answer.path.as_str()),
        ("192.0.2.10:80", "/up")
    );
}

fn is_setting(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    line.starts_with('[') || (line.contains('=') && !key.is_empty() && key.chars().all(word))
}

#[test]
fn unicast_peers_and_source_come_from_the_other_nodes() {
    let text = "[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
        [nodes.c]\naddress = \"10.0.0.3\"\n[[instance]]\nname = \"x\"\ninterface = \"eth0\"\n\
        vrid = 1\ntransport = \"unicast\"\naddresses = [\"10.0.0.9\"]\n";
    let (plan, _) = load_text(text, "b");
    let router = &plan.instances[0].router;
    let Transport::Unicast { peers, ttl, check_source } = &router.transport else {
        panic!("unicast")
    };
    let peers: Vec<IpAddr> = peers.iter().map(|peer| peer.address).collect();
    assert_eq!(peers, [ip("10.0.0.1"), ip("10.0.0.3")]);
    assert_eq!((*ttl, *check_source, router.source), (255, true, Some(ip("10.0.0.2"))));
}

#[test]
fn a_service_finds_its_instance_by_the_address_and_its_servers_the_port() {
    let text = "[[instance]]\nname = \"x\"\ninterface = \"eth0\"\nvrid = 1\n\
        addresses = [\"10.0.0.9\"]\n[[service]]\nname = \"s\"\nlisten = \"10.0.0.9:80\"\n\
        forwarding = \"direct\"\nservers = [\"10.0.0.1\", { address = \"10.0.0.2\", weight = 0 }]\n";
    let (plan, _) = load_text(text, "a");
    let service = &plan.services[0];
    assert_eq!(service.instance.as_deref(), Some("x"));
    assert_eq!(service.servers[0].address, socket("10.0.0.1:80"));
    assert_eq!((service.servers[0].weight, service.servers[1].weight), (1, 0));
}

#[test]
fn advertised_addresses_come_first_and_excluded_ones_are_not_advertised() {
    let text = "vrrp_instance a {\n interface eth0\n virtual_router_id 1\n version 3\n\
        virtual_ipaddress_excluded {\n 2001:db8::9/64 -nodad\n 10.0.0.8 brd + dev eth1\n }\n\
        virtual_ipaddress {\n 10.0.0.9/24 label eth0:v scope link\n }\n advert_int 0.25\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let instance = &plan.instances[0];
    assert_eq!(instance.router.addresses, [ip("10.0.0.9")]);
    assert_eq!(instance.router.interval.centis(), 25);
    assert_eq!(instance.router.priority, Priority(100));
    let all: Vec<IpAddr> = instance.addresses.iter().map(|held| held.address).collect();
    assert_eq!(all, [ip("10.0.0.9"), ip("2001:db8::9"), ip("10.0.0.8")]);
    let [first, second, third] = &instance.addresses[..] else { panic!("three addresses") };
    assert_eq!((first.label().map(|name| &**name), first.scope), (Some("eth0:v"), Scope::Link));
    assert!(second.duplicate_detection && !first.duplicate_detection);
    assert_eq!(
        (third.device().map(|name| &**name), third.broadcast()),
        (Some("eth1"), Some(ip("10.0.0.8")))
    );
}

#[test]
fn an_ipv6_instance_of_a_keepalived_file_is_version_3() {
    let text = "vrrp_instance a {\n interface eth0\n virtual_router_id 1\n\
        virtual_ipaddress {\n fe80::1/64\n 2001:db8::9/64\n }\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let router = &plan.instances[0].router;
    assert_eq!((router.version, router.family), (Version::V3, Family::V6));
    assert_eq!(router.transport, Transport::Multicast { group: ip("ff02::12") });
}

#[test]
fn global_values_apply_wherever_their_block_stands() {
    let text = "vrrp_instance a {\n interface eth0\n virtual_router_id 1\n\
        virtual_ipaddress {\n 10.0.0.9\n }\n garp_master_repeat 2\n notify /bin/n\n}\n\
        global_defs {\n vrrp_version 3\n vrrp_garp_master_repeat 9\n vrrp_garp_master_delay 1\n\
        script_user nobody nogroup\n vrrp_garp_master_refresh 60\n}\n";
    let (plan, _) = load_text(text, "a");
    let router = &plan.instances[0].router;
    assert_eq!(router.version, Version::V3);
    assert_eq!((router.announce.repeat, router.announce.lower_priority_repeat), (2, 2));
    assert_eq!(router.announce.delay, Duration::from_secs(1));
    assert_eq!(router.announce.refresh, Duration::from_secs(60));
    let hook = &plan.instances[0].hooks.any[0];
    assert_eq!(hook.line, CommandLine::Argv(vec!["/bin/n".to_owned()]));
    assert_eq!((hook.user.as_deref(), hook.group.as_deref()), (Some("nobody"), Some("nogroup")));
}

#[test]
fn unicast_of_a_keepalived_file_keeps_peers_ttl_and_source() {
    let text = "vrrp_instance a {\n interface eth0\n virtual_router_id 1\n\
        unicast_src_ip 10.0.0.1\n unicast_ttl 64\n unicast_peer {\n 10.0.0.2\n\
        10.0.0.3 min_ttl 250 max_ttl 255\n }\n virtual_ipaddress {\n 10.0.0.9\n }\n\
        check_unicast_src\n preempt_delay 30\n}\n";
    let (plan, _) = load_text(text, "a");
    let router = &plan.instances[0].router;
    assert_eq!(router.source, Some(ip("10.0.0.1")));
    assert_eq!(router.preempt, Preempt::After(Duration::from_secs(30)));
    let Transport::Unicast { peers, ttl, check_source } = &router.transport else {
        panic!("unicast")
    };
    assert_eq!((peers[0].ttl, peers[1].ttl), (None, Some((250, 255))));
    assert_eq!((*ttl, *check_source), (64, true));
}

#[test]
fn more_addresses_than_fit_become_excluded_ones_in_a_keepalived_file() {
    let list: String = (1..=95).map(|n| format!("fe80::{n:x}/64\n")).collect();
    let text = format!(
        "vrrp_instance a {{\n interface eth0\n virtual_router_id 1\n virtual_ipaddress {{\n{list}}}\n}}\n"
    );
    let (plan, codes) = load_text(text, "a");
    assert_eq!(codes, ["many-addresses", "too-many-addresses"]);
    let instance = &plan.instances[0];
    assert_eq!((instance.router.addresses.len(), instance.addresses.len()), (89, 95));
}

#[test]
fn a_virtual_server_becomes_a_service_on_every_node() {
    let text = "virtual_server 10.0.0.9 80 {\n delay_loop 6\n lb_algo rr\n lb_kind DR\n\
        protocol TCP\n inhibit_on_failure\n real_server 10.0.0.1 80 {\n weight 3\n HTTP_GET {\n\
        url {\n path /h\n status_code 200\n }\n connect_timeout 3\n retry 3\n }\n }\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let service = &plan.services[0];
    assert_eq!((&*service.name, &service.instance), ("10.0.0.9 80 tcp", &None));
    assert_eq!(service.backend, BackendChoice::Auto);
    assert_eq!(service.servers[0].forwarding, Forwarding::Direct);
    assert_eq!(service.servers[0].failed, locum_plan::FailedServer::Quiesce);
    assert_eq!(service.servers[0].weight, 3);
    let [health] = &service.servers[0].health[..] else { panic!("one health check") };
    let probe = &health.probe;
    assert_eq!((probe.interval, probe.timeout), (Duration::from_secs(6), Duration::from_secs(3)));
    assert_eq!((health.rise, health.fall), (1, 4));
}

#[test]
fn a_real_server_has_its_own_checks_and_its_own_forwarding() {
    let text = "virtual_server 10.0.0.9 80 {\n protocol TCP\n lb_kind DR\n delay_loop 6\n\
        retry 2\n weight 5\n\
        real_server 10.0.0.1 80 {\n TCP_CHECK {\n connect_timeout 3\n }\n HTTP_GET {\n\
        delay_loop 20\n nb_get_retry 1\n connect_port 8080\n url {\n path /h\n }\n }\n }\n\
        real_server 10.0.0.2 80 {\n lb_kind NAT\n weight 1\n retry 4\n TCP_CHECK {\n }\n }\n\
        real_server 10.0.0.3 80 {\n }\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let [first, second, third] = &plan.services[0].servers[..] else { panic!("three servers") };
    let [port, page] = &first.health[..] else { panic!("two checks: {:?}", first.health) };
    assert_eq!(port.probe.kind, Checker::tcp(socket("10.0.0.1:80")));
    let seconds = Duration::from_secs;
    assert_eq!((port.probe.interval, port.probe.timeout, port.fall), (seconds(6), seconds(3), 3));
    let Checker::Ask { target, question: Question::Http(question), .. } = &page.probe.kind else {
        panic!("a page")
    };
    assert_eq!((*target, question.pages[0].path.as_str()), (socket("10.0.0.1:8080"), "/h"));
    assert_eq!((page.probe.interval, page.fall), (seconds(20), 2));
    assert_eq!((first.forwarding, first.weight), (Forwarding::Direct, 5));
    assert_eq!((second.forwarding, second.weight), (Forwarding::Nat, 1));
    assert_eq!((second.health.len(), second.health[0].fall), (1, 5));
    assert!(third.health.is_empty(), "nobody checks it");
}

#[test]
fn an_ssl_get_asks_as_keepalived_does() {
    let text = "virtual_server 10.0.0.9 443 {\n protocol TCP\n delay_loop 6\n warmup 3\n\
        delay_before_retry 2\n virtualhost www.example.net\n\
        real_server 10.0.0.1 443 {\n SSL_GET {\n url {\n path /health\n\
        digest 640205b7b0fc66c1ea91c463fac6334d\n status_code 200-299 401\n }\n url {\n path /\n\
        regex \"^(OK|fine)\"\n regex_options caseless caseless dotall\n regex_no_match\n\
        regex_min_offset 5\n regex_max_offset 90\n virtualhost api.example.net\n }\n\
        enable_sni\n http_protocol 1.1\n connect_ip 10.0.1.1\n connect_port 8443\n\
        bindto 10.0.0.200\n bind_port 4000\n bind_if eth1\n fwmark 7\n retry 2\n\
        delay_before_retry 4\n }\n TCP_CHECK {\n }\n }\n}\n\
        virtual_server 10.0.0.9 80 {\n protocol TCP\n real_server 10.0.0.1 80 {\n HTTP_GET {\n\
        url {\n path /\n }\n }\n }\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let [ssl, tcp] = &plan.services[0].servers[0].health[..] else { panic!("two checks") };
    let seconds = Duration::from_secs;
    assert_eq!(ssl.fall, 3);
    assert_eq!(ssl.probe.retry, Some(Retry { delay: seconds(4), times: 2 }));
    assert_eq!(ssl.probe.warm_up, seconds(3));
    assert_eq!(tcp.probe.retry, Some(Retry { delay: seconds(2), times: 1 }));
    let page = &plan.services[1].servers[0].health[0].probe;
    assert_eq!(page.retry, Some(Retry { delay: seconds(3), times: 1 }));
    let Checker::Ask { target, question: Question::Http(question), origin } = &ssl.probe.kind
    else {
        panic!("a page")
    };
    assert_eq!(*target, socket("10.0.1.1:8443"));
    let wanted = CheckSource {
        source: Some(socket("10.0.0.200:4000")),
        interface: Some("eth1".into()),
        mark: Some(7),
        header: None,
    };
    assert_eq!(origin.as_deref(), Some(&wanted));
    assert_eq!(question.version, HttpVersion::Http11);
    let tls = question.tls.as_ref().expect("with TLS");
    assert_eq!((&tls.trust, tls.sends_name, &tls.name), (&Trust::Anybody, true, &None));
    let [first, second] = &question.pages[..] else { panic!("two pages") };
    assert_eq!(first.host.as_deref(), Some("www.example.net"));
    assert!(matches!(first.digest, Some(BodyDigest::Md5([0x64, 0x02, .., 0x4d]))));
    assert_eq!(first.expect[1], StatusRange { first: 401, last: 401 });
    assert_eq!(second.host.as_deref(), Some("api.example.net"));
    let pattern = second.pattern.as_ref().expect("a pattern");
    assert_eq!(pattern.regex, "(?is)^(OK|fine)");
    assert_eq!((pattern.is_unwanted, pattern.first, pattern.last), (true, 5, Some(90)));
}

#[test]
fn a_page_of_ours_is_asked_as_it_is_written() {
    let text = "[check.page]\nhttp = \"https://192.0.2.1/x\"\nhost = \"www.example.net\"\n\
        version = \"2\"\nca = \"/etc/ca.pem\"\ncertificate = \"/etc/own.pem\"\nkey = \"/etc/own.key\"\n\
        retry_delay = \"100ms\"\nfall = 4\nwarm_up = \"5s\"\n\
        [[service]]\nname = \"s\"\nlisten = \"10.0.0.9:80\"\nserve = \"always\"\n\
        health = { http = [\"/a\", \"/b\"], method = \"POST\", payload = \"ping\", body = \"OK\",\
        regex = \"(?i)ok\", source = \"192.0.2.9\", interface = \"eth0\", mark = 5 }\n\
        servers = [\"10.0.0.1\"]\n";
    let (plan, codes) = load_text(text, "a");
    assert_eq!(codes, ["unused-check"]);
    let check = &plan.checks[0].probe;
    let delay = Duration::from_millis(100);
    assert_eq!(check.retry, Some(Retry { delay, times: 3 }));
    assert_eq!(check.warm_up, Duration::from_secs(5));
    let Checker::Ask { target, question: Question::Http(question), .. } = &check.kind else {
        panic!("a page")
    };
    assert_eq!(*target, socket("192.0.2.1:443"));
    assert_eq!(question.version, HttpVersion::Http2);
    let tls = question.tls.as_ref().expect("with TLS");
    assert_eq!(tls.trust, Trust::File("/etc/ca.pem".into()));
    assert_eq!(tls.identity, Some(("/etc/own.pem".into(), "/etc/own.key".into())));
    let health = &plan.services[0].servers[0].health[0].probe;
    let Checker::Ask { question: Question::Http(question), origin, .. } = &health.kind else {
        panic!("pages")
    };
    let origin = origin.as_deref().expect("an origin");
    assert_eq!(origin.source, Some(socket("192.0.2.9:0")));
    assert_eq!((origin.interface.as_deref(), origin.mark), (Some("eth0"), Some(5)));
    let [first, second] = &question.pages[..] else { panic!("two pages") };
    assert_eq!((first.path.as_str(), second.path.as_str()), ("/a", "/b"));
    assert_eq!((second.method, second.payload.as_deref()), (HttpMethod::Post, Some("ping")));
    assert_eq!(second.text.as_deref(), Some("OK"));
    assert_eq!(second.pattern.as_ref().map(|pattern| pattern.regex.as_str()), Some("(?i)ok"));
}

#[test]
fn the_other_checkers_ask_as_keepalived_does() {
    let text = "virtual_server 10.0.0.9 53 {\n protocol UDP\n delay_loop 6\n\
        real_server 10.0.0.1 53 {\n DNS_CHECK {\n type txt\n name www.example.net\n }\n\
        MISC_CHECK {\n misc_path \"/bin/check -a\"\n misc_timeout 4\n misc_dynamic\n\
        user nobody nogroup\n }\n MISC_CHECK {\n misc_path /bin/true\n retry 2\n }\n\
        SMTP_CHECK {\n helo_name lb1\n connect_port 25\n }\n\
        UDP_CHECK {\n payload 01 02\n require_reply 1x\n min_reply_length 3\n }\n\
        PING_CHECK {\n }\n DNS_CHECK {\n }\n }\n}\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let server = socket("10.0.0.1:53");
    let [dns, misc, plain, smtp, udp, ping, root] = &plan.services[0].servers[0].health[..] else {
        panic!("seven checks")
    };
    let lookup = |name: &str, record| {
        Question::Dns(DnsQuestion { name: name.to_owned(), record, is_tcp: false }.into())
    };
    let asks = |health: &Health, target, question| {
        assert_eq!(health.probe.kind, Checker::ask(target, question));
    };
    asks(dns, server, lookup("www.example.net", DnsRecord::Txt));
    asks(root, server, lookup(".", DnsRecord::Soa));
    assert_eq!((dns.fall, dns.probe.retry), (4, None));
    let seconds = Duration::from_secs;
    let command = Command {
        line: CommandLine::Argv(vec!["/bin/check".into(), "-a".into()]),
        user: Some("nobody".into()),
        group: Some("nogroup".into()),
    };
    let weighing = Checker::ServerScript { command: command.into(), server, is_weighing: true };
    assert_eq!((&misc.probe.kind, misc.probe.timeout, misc.fall), (&weighing, seconds(4), 1));
    let command = Command::argv(["/bin/true"]);
    let script = Checker::ServerScript { command: command.into(), server, is_weighing: false };
    assert_eq!((&plain.probe.kind, plain.probe.timeout, plain.fall), (&script, seconds(6), 3));
    asks(smtp, socket("10.0.0.1:25"), Question::Smtp { helo: "lb1".into() });
    let reply = UdpReply { pattern: vec![(0x10, 0xf0)], shortest: 3, longest: None };
    let datagram = UdpQuestion { payload: vec![1, 2], reply: Some(reply) };
    asks(udp, server, Question::Udp(datagram.into()));
    asks(ping, server, Question::Ping);
}

#[test]
fn the_other_kinds_of_ours_are_asked_as_they_are_written() {
    let text = "[check.gateway]\nping = true\naddress = \"192.0.2.1\"\n\
        [check.db]\npostgres = \"locum/app\"\naddress = \"192.0.2.2\"\n\
        [check.api]\ngrpc = \"app\"\naddress = \"192.0.2.3:50051\"\ntls = true\nverify = false\n\
        host = \"api\"\n\
        [[service]]\nname = \"s\"\nlisten = \"10.0.0.9:80\"\nserve = \"always\"\nhealth = [\n\
        { mysql = \"locum\" }, { mysql = true }, { redis = true, password = \"x\" },\n\
        { agent = true, port = 9999 }, { dns = \"a.b\", type = \"AAAA\", over_tcp = true },\n\
        { udp = \"0x00ff\", reply = \"\", port = 9 }, { script = [\"/bin/true\"], weighs = true },\n\
        { file = \"/run/weight\", factor = -2 } ]\nservers = [\"10.0.0.1\"]\n";
    let (plan, codes) = load_text(text, "a");
    assert_eq!(codes, ["unused-check"; 3]);
    let kinds: Vec<&Checker> = plan.checks.iter().map(|check| &check.probe.kind).collect();
    let user = Some(PostgresUser { user: "locum".into(), database: "app".into() }.into());
    let tls = Tls { name: None, sends_name: true, trust: Trust::Anybody, identity: None };
    let api = GrpcQuestion { service: "app".into(), host: Some("api".into()), tls: Some(tls) };
    for wanted in [
        Checker::ask(socket("192.0.2.1:0"), Question::Ping),
        Checker::ask(socket("192.0.2.2:5432"), Question::Postgres { user }),
        Checker::ask(socket("192.0.2.3:50051"), Question::Grpc(api.into())),
    ] {
        assert!(kinds.contains(&&wanted), "{wanted:?} is not among {kinds:?}");
    }
    let server = socket("10.0.0.1:80");
    let lookup = DnsQuestion { name: "a.b".into(), record: DnsRecord::Aaaa, is_tcp: true };
    let datagram = UdpQuestion { payload: vec![0, 0xff], reply: Some(UdpReply::default()) };
    let wanted = [
        Checker::ask(server, Question::Mysql { user: Some("locum".into()) }),
        Checker::ask(server, Question::Mysql { user: None }),
        Checker::ask(server, Question::Redis { password: Some("x".into()) }),
        Checker::ask(socket("10.0.0.1:9999"), Question::Agent),
        Checker::ask(server, Question::Dns(lookup.into())),
        Checker::ask(socket("10.0.0.1:9"), Question::Udp(datagram.into())),
        Checker::ServerScript {
            command: Command::argv(["/bin/true"]).into(),
            server,
            is_weighing: true,
        },
        Checker::File { path: "/run/weight".into(), factor: -2 },
    ];
    let found = plan.services[0].servers[0].health.iter().map(|health| &health.probe.kind);
    for (found, wanted) in found.zip(&wanted) {
        assert_eq!(found, wanted);
    }
}

#[test]
fn servers_follow_the_service_unless_they_say_otherwise() {
    let text = "[[service]]\nname = \"s\"\nlisten = \"10.0.0.9:80\"\nserve = \"always\"\n\
        forwarding = \"direct\"\n\
        health = [\"tcp\", { http = \"/\", interval = \"4s\", fall = 1 }]\nservers = [\n\
        \"10.0.0.1\",\n\
        { address = \"10.0.0.2:81\", forwarding = \"nat\", health = { tcp = true, port = 82 } },\n\
        { address = \"10.0.0.3\", health = [] },\n]\n";
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let [first, second, third] = &plan.services[0].servers[..] else { panic!("three servers") };
    assert_eq!((first.forwarding, second.forwarding), (Forwarding::Direct, Forwarding::Nat));
    let [port, page] = &first.health[..] else { panic!("two checks: {:?}", first.health) };
    assert_eq!(port.probe.kind, Checker::tcp(socket("10.0.0.1:80")));
    assert_eq!((port.probe.interval, port.fall), (Duration::from_secs(2), 3));
    assert_eq!((page.probe.interval, page.fall), (Duration::from_secs(4), 1));
    let [own] = &second.health[..] else { panic!("its own check") };
    assert_eq!(own.probe.kind, Checker::tcp(socket("10.0.0.2:82")));
    assert!(third.health.is_empty(), "an empty list is no check");
}

#[test]
fn includes_are_read_relative_to_the_file_that_names_them() {
    let source = MemorySource::new()
        .with("/etc/k/main.conf", "include conf.d/*.conf\ninclude {x,y}.conf\n")
        .with("/etc/k/conf.d/a.conf", "include ../other/z.conf\n")
        .with("/etc/k/conf.d/../other/z.conf", "vrrp_script z {\n script /z\n}\n")
        .with("/etc/k/y.conf", "vrrp_script y {\n script /y\n}\n");
    let loaded = load(&source, "/etc/k/main.conf", &Context::host("a"));
    let plan = loaded.plan.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    let names: Vec<&str> = plan.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["z", "y"]);
}

#[test]
fn what_the_host_must_have_is_listed_with_its_place() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/seed/keepalived-active-passive.conf");
    let text = std::fs::read(file).expect("the file is in the repository");
    let source = MemorySource::new().with("file", text);
    let needs = load(&source, "file", &Context::host("a")).needs;
    let found: Vec<(String, u32)> =
        needs.iter().map(|need| (format!("{:?}", need.kind), need.place.line)).collect();
    assert!(found.contains(&("Interface(\"eth0\")".to_owned(), 19)), "{found:?}");
    let script = NeedKind::Program("/etc/keepalived/check_haproxy.sh".to_owned());
    assert!(needs.iter().any(|need| need.kind == script));
}

/// keepalived does not start without an interface, unless its file has this word.
#[test]
fn interfaces_that_may_come_later_are_no_error_of_the_host() {
    let block = "vrrp_instance a {\n interface br9\n virtual_router_id 1\n\
        virtual_ipaddress {\n 10.0.0.9\n }\n notify /bin/n\n}\n";
    let severities = |head: &str| -> Vec<(NeedKind, Severity)> {
        let source = MemorySource::new().with("file", format!("{head}{block}"));
        let needs = load(&source, "file", &Context::host("a")).needs;
        needs.into_iter().map(|need| (need.kind, need.severity)).collect()
    };
    let program = (NeedKind::Program("/bin/n".to_owned()), Severity::Error);
    let interface = |severity| (NeedKind::Interface("br9".to_owned()), severity);
    assert_eq!(severities(""), [interface(Severity::Error), program.clone()]);
    let later = severities("global_defs {\n dynamic_interfaces\n}\n");
    assert_eq!(later, [interface(Severity::Warning), program]);
}

#[test]
fn a_missing_file_is_an_error_with_its_name() {
    let loaded = load(&MemorySource::new(), "/etc/locum/locum.toml", &Context::host("a"));
    assert!(loaded.plan.is_none());
    let text = loaded.diagnostics.to_string();
    let expected = "/etc/locum/locum.toml: error: cannot read the file: no such file [unreadable]\n      \
         = help: restore it, or name another with -c FILE\n";
    assert_eq!(text, expected);
}

#[test]
fn a_finding_is_one_flat_object_in_json() {
    let source = MemorySource::new().with("f.toml", "colour = 1\n");
    let loaded = load(&source, "f.toml", &Context::host("a"));
    let json = serde_json::to_value(&loaded.diagnostics).expect("plain data");
    let first = &json[0];
    assert_eq!(first["severity"], "error");
    assert_eq!(first["code"], "unknown-key");
    assert_eq!((&first["file"], &first["line"]), (&"f.toml".into(), &1.into()));
    assert_eq!((&first["column"], &first["width"]), (&1.into(), &6.into()));
}

#[test]
fn without_a_nodes_table_per_node_values_follow_the_host_name() {
    let text = "[[instance]]\nname = \"x\"\ninterface = \"eth0\"\nvrid = 1\n\
        priority = { a = 150, b = 90 }\naddresses = [\"10.0.0.9\"]\n";
    let (plan, _) = load_text(text, "b.example.net");
    assert_eq!(plan.instances[0].router.priority, Priority(90));
}

#[test]
fn a_node_given_by_name_goes_before_the_host_name() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/design.toml");
    let source = MemorySource::new().with("f", std::fs::read(file).expect("in the repository"));
    let context = Context { node: Some("lb2"), ..Context::host("lb1") };
    let plan = load(&source, "f", &context).plan.expect("a plan");
    assert_eq!((&*plan.node, plan.instances[0].router.priority), ("lb2", Priority(100)));
    let context = Context { node: Some("lb9"), ..Context::host("lb1") };
    assert!(load(&source, "f", &context).plan.is_none());
}

/// 2,000 services of 20 servers are about what the largest published configuration has.
#[test]
fn a_large_configuration_loads_in_a_bounded_number_of_steps() {
    let mut text = String::new();
    for n in 0..2_000u32 {
        text += &format!(
            "virtual_server 10.{}.{}.1 80 {{\n protocol TCP\n lb_kind DR\n",
            n / 250,
            n % 250
        );
        for server in 1..=20 {
            text += &format!(" real_server 10.9.9.{server} 80 {{\n weight 1\n }}\n");
        }
        text += "}\n";
    }
    let (plan, _) = load_text(text, "a");
    assert_eq!(plan.services.len(), 2_000);
}

#[test]
fn a_server_is_introduced_as_it_says_or_else_as_its_service_does_and_so_is_a_check_of_it() {
    let health = "health = [{ tcp = true }, { tcp = true, port = 81 }, { ping = true }]";
    let text = format!(
        "[[service]]\nname = \"www\"\nserve = \"always\"\nlisten = \"192.0.2.10:80\"\nsend_proxy = \"v2\"\n\
         sorry = \"10.0.0.9\"\n{health}\nservers = [\"10.0.0.1\",\n\
         {{ address = \"10.0.0.2\", send_proxy = \"v1\" }},\n\
         {{ address = \"10.0.0.3\", send_proxy = \"none\" }}]\n"
    );
    let (plan, codes) = load_text(text, "a");
    assert!(codes.is_empty(), "{codes:?}");
    let service = &plan.services[0];
    let (v1, v2) = (Some(HeaderVersion::V1), Some(HeaderVersion::V2));
    let introduced: Vec<_> = service.reached().map(|server| server.introduced).collect();
    assert_eq!(introduced, [v2, v1, None, v2]);
    let header = |kind: &Checker| match kind {
        Checker::Ask { origin, .. } => origin.as_ref().and_then(|origin| origin.header),
        other => panic!("{other:?}"),
    };
    let of = |server: &Server| -> Vec<_> {
        server.health.iter().map(|health| header(&health.probe.kind)).collect()
    };
    let all: Vec<_> = service.servers.iter().map(of).collect();
    // Where it is asked for what it is, and not elsewhere.
    assert_eq!(all, [[v2, None, None], [v1, None, None], [None; 3]]);
}
