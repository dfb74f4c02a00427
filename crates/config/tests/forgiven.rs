//! What keepalived logs, passes over or corrects is a warning that says what is in effect, and
//! that is what the plan has; `forgive_nothing` makes an error of it.

use std::sync::Arc;

use locum_config::{Context, Loaded, MemorySource, Severity, load};
use locum_plan::{Forwarding, Plan, Tracked};
use locum_vrrp::{Auth, Transport, Version};

fn read(text: &str) -> Loaded {
    load(&MemorySource::new().with("k.conf", text), "k.conf", &Context::host("lb1"))
}

/// The plan of a file with exactly this one mistake.
fn forgiven(code: &str, text: &str) -> Arc<Plan> {
    let loaded = read(text);
    let codes: Vec<&str> =
        loaded.diagnostics.iter().filter(|one| one.effect.is_some()).map(|one| one.code).collect();
    assert_eq!(codes, [code], "{text}\n{}", loaded.diagnostics);
    let mut strict = loaded.diagnostics.clone();
    strict.forgive_nothing();
    assert_eq!(strict.errors(), 1, "{strict}");
    loaded.plan.unwrap_or_else(|| panic!("{text}\n{}", loaded.diagnostics))
}

/// An instance with these lines.
fn instance(lines: &str) -> String {
    format!(
        "vrrp_instance V {{\n interface eth0\n virtual_router_id 51\n state BACKUP\n {lines}\n \
         virtual_ipaddress {{\n 192.0.2.10/24\n }}\n}}\n"
    )
}

/// A service of one server with these lines.
fn service(lines: &str, server: &str) -> String {
    format!(
        "virtual_server 192.0.2.10 80 {{\n protocol TCP\n lb_algo rr\n {lines}\n \
         real_server 10.0.0.1 80 {{\n {server}\n }}\n}}\n"
    )
}

#[test]
fn an_unknown_or_dead_keyword_is_passed_over_with_its_block() {
    forgiven("unknown-keyword", &instance("prioritiy 3"));
    forgiven("unknown-keyword", &instance("foo {\n bar 1\n }"));
    forgiven("unknown-keyword", &format!("[root@lb1 ~]# cat x\n{}", instance("")));
    forgiven("dead-keyword", &service("nat_mask 255.255.255.0", ""));
    forgiven("unknown-keyword", &service("", "weigth 3"));
}

#[test]
fn a_value_that_cannot_be_leaves_the_default() {
    let priority = |text: &str| {
        let plan = forgiven("out-of-range", &instance(text));
        plan.instances[0].router.priority.0
    };
    assert_eq!(priority("priority 100;"), 100);
    assert_eq!(priority("priority 300"), 100);
    let plan = forgiven("bad-value", &instance("state SLAVE"));
    assert_eq!(plan.instances[0].router.priority.0, 100);
    let plan = forgiven("bad-value", &service("lb_kind dr", ""));
    assert_eq!(plan.services[0].servers[0].forwarding, Forwarding::Nat);
    let plan = forgiven("interval-range", &instance("version 3\n advert_int 50"));
    assert_eq!(plan.instances[0].router.interval.as_duration().as_millis(), 40_950);
}

#[test]
fn words_too_many_are_passed_over() {
    let plan = forgiven("extra-argument", &instance("priority 120 best"));
    assert_eq!(plan.instances[0].router.priority.0, 120);
    forgiven("extra-argument", &instance("nopreempt yes"));
    let text = service("", "").replace("192.0.2.10 80", "192.0.2.10 80 dev eth0");
    forgiven("extra-argument", &text);
}

#[test]
fn of_two_blocks_with_one_name_the_first_counts() {
    let second = instance("priority 7").replace("51", "52");
    let plan = forgiven("duplicate-name", &format!("{}{second}", instance("")));
    assert_eq!((plan.instances.len(), plan.instances[0].router.priority.0), (1, 100));
    let script = |path: &str| format!("vrrp_script s {{\n script \"{path}\"\n}}\n");
    let text = [script("/bin/true"), script("/bin/false"), instance("track_script {\n s\n }")];
    let plan = forgiven("duplicate-name", &text.concat());
    assert_eq!(plan.checks.len(), 1);
}

#[test]
fn addresses_and_peers_that_do_not_fit_are_left_out() {
    let text = instance("").replace(" 192.0.2.10/24", " 192.0.2.10/24\n 2001:db8::1/64");
    assert_eq!(forgiven("mixed-families", &text).instances[0].addresses.len(), 1);
    let text = instance("").replace(" 192.0.2.10/24", " 192.0.2.10/24\n 192.0.2.0.5");
    assert_eq!(forgiven("bad-value", &text).instances[0].addresses.len(), 1);
    let peers =
        |lines: &str| instance(&format!("{lines}\n unicast_peer {{\n 192.0.2.2\n 192.0.2.1\n }}"));
    let plan = forgiven("peer-is-self", &peers("unicast_src_ip 192.0.2.1"));
    let Transport::Unicast { peers: heard, .. } = &plan.instances[0].router.transport else {
        panic!("unicast")
    };
    assert_eq!(heard.len(), 1);
    let plan = forgiven("prefix-ignored", &peers("unicast_src_ip 192.0.2.3/24"));
    assert_eq!(plan.instances[0].router.source, "192.0.2.3".parse().ok());
    let plan = forgiven("no-peers", &instance("unicast_src_ip 192.0.2.1"));
    assert!(matches!(plan.instances[0].router.transport, Transport::Multicast { .. }));
    let v6 = instance("version 2").replace("192.0.2.10/24", "fe80::10/64");
    assert_eq!(forgiven("version-family", &v6).instances[0].router.version, Version::V3);
}

#[test]
fn authentication_that_is_none_is_left_out() {
    let auth = |lines: &str| instance(&format!("authentication {{\n {lines}\n }}"));
    for (code, lines) in [
        ("bad-value", "auth_type PASS;\n auth_pass 1111"),
        ("auth-incomplete", "auth_type PASS"),
        ("auth-incomplete", "auth_pass 1111"),
    ] {
        assert_eq!(forgiven(code, &auth(lines)).instances[0].router.auth, Auth::None);
    }
    let plan = forgiven("extra-argument", &auth("auth_type PASS\n auth_pass my pass"));
    assert_eq!(plan.instances[0].router.auth, Auth::Simple(*b"my\0\0\0\0\0\0"));
}

#[test]
fn what_is_tracked_and_is_not_there_is_not_tracked() {
    let script = "vrrp_script s {\n script \"/bin/true\"\n}\n";
    let track =
        |lines: &str| format!("{script}{}", instance(&format!("track_script {{\n {lines}\n }}")));
    let plan = forgiven("unknown-check", &track("s\n t"));
    assert_eq!(plan.instances[0].track[0].object, Tracked::Check("s".into()));
    assert_eq!(forgiven("duplicate-track", &track("s\n s weight 3")).instances[0].track.len(), 1);
    assert_eq!(forgiven("unknown-keyword", &track("s weigth 3")).instances[0].track.len(), 1);
    let empty = track("s").replace(" script \"/bin/true\"\n", "");
    assert!(forgiven("missing-key", &empty).instances[0].track.is_empty());
}

#[test]
fn a_check_that_is_defined_after_its_use_is_tracked_and_said() {
    let text = format!(
        "{}vrrp_script s {{\n script \"/bin/true\"\n}}\n",
        instance("track_script {\n s\n }")
    );
    let loaded = read(&text);
    assert!(loaded.diagnostics.iter().any(|one| one.code == "late-definition"));
    assert_eq!(loaded.plan.expect("a plan").instances[0].track.len(), 1);
}

#[test]
fn servers_that_do_not_fit_are_corrected_or_left_out() {
    let twice = service("", "}\n real_server 10.0.0.1 80 {");
    assert_eq!(forgiven("duplicate-server", &twice).services[0].servers.len(), 1);
    let other_port = service("lb_kind DR", "").replace("10.0.0.1 80", "10.0.0.1 8080");
    assert_eq!(forgiven("port-differs", &other_port).services[0].servers[0].address.port(), 80);
    let none = format!("{}virtual_server 192.0.2.11 80 {{\n protocol TCP\n}}\n", service("", ""));
    assert_eq!(forgiven("no-servers", &none).services.len(), 1);
    let bad = service("", "}\n real_server host 80 {");
    assert_eq!(forgiven("bad-value", &bad).services[0].servers.len(), 1);
    let plan = forgiven("missing-key", &service("", "HTTP_GET {\n }"));
    assert!(plan.services[0].servers[0].health.is_empty());
}

#[test]
fn an_absent_include_is_nothing_unless_its_letter_demands_it() {
    forgiven("unreadable", &format!("include /absent.conf\n{}", instance("")));
    forgiven("unreadable", &format!("includer /absent.conf\n{}", instance("")));
    assert!(read(&format!("include /absent*.conf\n{}", instance(""))).diagnostics.is_empty());
    for line in
        ["includem /absent.conf", "includew /absent*.conf", "includeb {k,l}.conf", "includea /x*"]
    {
        let loaded = read(&format!("{line}\n{}", instance("")));
        assert!(loaded.plan.is_none(), "{line}");
    }
}

#[test]
fn empty_blocks_are_nothing() {
    let blocks = [
        "static_ipaddress",
        "static_routes",
        "static_rules",
        "interface_up_down_delays",
        "linkbeat_interfaces",
        "garp_group",
        "vrrp_sync_group G",
        "track_group g",
    ];
    let text: String = blocks.iter().map(|block| format!("{block} {{\n}}\n")).collect();
    let loaded = read(&format!("{text}{}", instance("virtual_routes {\n }\n track_file {\n }")));
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics);
}

/// keepalived ends there, or the file is not whole.
#[test]
fn what_keepalived_cannot_run_is_an_error() {
    for text in [
        instance("priority"),
        instance("").replace("51", "51x"),
        instance("").replace(" virtual_router_id 51\n", ""),
        format!("{}{}", instance(""), instance("").replace("instance V", "instance W")),
        instance("version 3").replace(" 192.0.2.10/24\n", ""),
        instance("").trim_end().trim_end_matches('}').to_owned(),
        instance("notify \"/bin/true"),
    ] {
        let loaded = read(&text);
        assert_eq!(loaded.diagnostics.errors(), 1, "{text}\n{}", loaded.diagnostics);
    }
}

/// One mistake, one message: where it is, and where the brace is that made it.
#[test]
fn a_brace_too_many_is_found_where_it_closed() {
    let text = instance("priority 90\n }\n advert_int 2\n nopreempt");
    let loaded = read(&text);
    let errors: Vec<_> =
        loaded.diagnostics.iter().filter(|one| one.severity == Severity::Error).collect();
    let [error] = &errors[..] else { panic!("{}", loaded.diagnostics) };
    assert_eq!((error.code, error.place.line), ("misplaced-keyword", 7));
    assert_eq!(error.note.as_deref(), Some("the block before is closed at k.conf:6:2"));
    assert!(error.message.contains("a vrrp_instance"), "{}", error.message);
}

#[test]
fn what_stands_in_a_refused_block_is_read_too() {
    let text = format!(
        "vrrp_sync_group G {{\n group {{\n V\n }}\n notify_mastre /bin/true\n}}\n{}",
        service("", "FILE_CHECK {\n track_fil x\n }\n BFD_CHECK {\n }")
    );
    let loaded = read(&text);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["unsupported", "unsupported", "unknown-keyword", "unknown-keyword"]);
    let help: Vec<_> = loaded.diagnostics.iter().skip(2).map(|one| one.help.clone()).collect();
    let wanted = ["did you mean `notify_master`?", "did you mean `track_file`?"];
    assert_eq!(help, wanted.map(|text| Some(text.to_owned())));
}
