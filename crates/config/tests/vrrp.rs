//! Requirements of the protocol that a configuration decides: what each text makes of them.

use std::time::Duration;

use locum_config::{Context, MemorySource, load};
use locum_vrrp::{AnnounceSettings, Auth, ChecksumForm, ChecksumMode, Profile, RouterSettings};

/// The routers of this text, and the codes of what was found.
fn routers(text: &str) -> (Vec<RouterSettings>, Vec<String>) {
    let source = MemorySource::new().with("file", text);
    let loaded = load(&source, "file", &Context::host("lb1"));
    let codes = loaded.diagnostics.iter().map(|item| item.code.to_owned()).collect();
    let plan = loaded.plan.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    (plan.instances.iter().map(|instance| RouterSettings::clone(&instance.router)).collect(), codes)
}

fn toml(lines: &str) -> RouterSettings {
    let (routers, codes) = routers(&format!(
        "[[instance]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n\
         addresses = [\"192.0.2.10/24\"]\n{lines}"
    ));
    assert!(codes.is_empty(), "{codes:?}");
    routers[0].clone()
}

fn keepalived(globals: &str, lines: &str) -> RouterSettings {
    let (routers, codes) = routers(&format!(
        "global_defs {{\n{globals}\n}}\nvrrp_instance web {{\ninterface eth0\n\
         virtual_router_id 51\nversion 3\nvirtual_ipaddress {{\n192.0.2.10/24\n}}\n{lines}\n}}\n"
    ));
    assert!(codes.is_empty() || codes == ["strict-mode"], "{codes:?}");
    routers[0].clone()
}

/// G-015: from 1 µs, ARP and NA separately, none by default.
#[test]
fn gap_between_announcements_is_read_in_both_languages() {
    let gaps =
        |router: RouterSettings| (router.announce.garp_interval, router.announce.gna_interval);
    let (ms, us) = (Duration::from_millis(20), Duration::from_micros(1500));
    assert_eq!(gaps(keepalived("", "")), (Duration::ZERO, Duration::ZERO));
    assert_eq!(gaps(keepalived("vrrp_garp_interval 0.02\nvrrp_gna_interval 0.0015", "")), (ms, us));
    assert_eq!(gaps(toml("")), (Duration::ZERO, Duration::ZERO));
    let text = "announce = { garp_interval = \"20ms\", gna_interval = \"1500us\" }";
    assert_eq!(gaps(toml(text)), (ms, us));
}

/// G-011, G-012: one frame and no second burst, where nothing else is said.
#[test]
fn min_garp_is_one_announcement_unless_set_otherwise() {
    let burst = |router: RouterSettings| (router.announce.repeat, router.announce.delay);
    let usual = AnnounceSettings::default();
    assert_eq!(burst(keepalived("vrrp_min_garp", "")), (1, Duration::ZERO));
    assert_eq!(burst(keepalived("vrrp_min_garp false", "")), (usual.repeat, usual.delay));
    let own = keepalived("vrrp_garp_master_repeat 3\nvrrp_min_garp", "garp_master_delay 2");
    assert_eq!(burst(own), (3, Duration::from_secs(2)));
}

/// V-001, V-043: a keepalived peer in strict mode understands its own form alone.
#[test]
fn strict_forces_the_form_of_the_rfc_in_our_own_files_alone() {
    let message = ChecksumMode::Pinned(ChecksumForm::Message);
    assert_eq!(toml("profile = \"strict\"").checksum, message);
    assert_eq!(toml("profile = \"strict\"\nchecksum = \"message\"").checksum, message);
    assert_eq!(toml("").checksum, ChecksumMode::Auto(ChecksumForm::Pseudo));
    let strict = keepalived("vrrp_strict", "");
    assert_eq!(strict.profile, Profile::Strict);
    assert_eq!(strict.checksum, ChecksumMode::Auto(ChecksumForm::Pseudo));
}

/// V-332.
#[test]
fn unicast_instances_with_disjoint_peers_may_share_a_vrid() {
    let instance = |name: &str, peer: &str, address: &str| {
        format!(
            "vrrp_instance {name} {{\ninterface eth0\nvirtual_router_id 51\n\
             unicast_peer {{\n{peer}\n}}\nvirtual_ipaddress {{\n{address}\n}}\n}}\n"
        )
    };
    let text = instance("web", "192.0.2.21", "192.0.2.10/24")
        + &instance("db", "192.0.2.22", "192.0.2.11/24");
    let (routers, codes) = routers(&text);
    assert_eq!((routers.len(), codes.len()), (2, 0), "{codes:?}");
    assert_eq!(routers[0].vrid, routers[1].vrid);
}

/// What is found in one instance with these lines, sorted by place.
fn findings(lines: &str) -> Vec<String> {
    let text = format!("[[instance]]\nname = \"web\"\ninterface = \"eth0\"\n{lines}");
    let source = MemorySource::new().with("file", text);
    let loaded = load(&source, "file", &Context::host("lb1"));
    loaded.diagnostics.iter().map(|item| item.code.to_owned()).collect()
}

/// V-010, V-012, V-321: nothing is rounded, clamped or made up.
#[test]
fn values_that_the_wire_cannot_carry_are_refused() {
    let address = "addresses = [\"192.0.2.10/24\"]\n";
    for (lines, code) in [
        ("vrid = 0", "out-of-range"),
        ("vrid = 256", "out-of-range"),
        ("vrid = 1\npriority = 0", "out-of-range"),
        ("vrid = 1\nversion = 2\nadvert_interval = \"1500ms\"", "interval-range"),
        ("vrid = 1\nversion = 2\nadvert_interval = \"256s\"", "interval-range"),
        ("vrid = 1\nadvert_interval = \"5ms\"", "interval-range"),
        ("vrid = 1\nadvert_interval = \"41s\"", "interval-range"),
        ("vrid = 1\ngroup = \"192.0.2.18\"", "bad-group"),
        ("vrid = 1\ngroup = \"ff02::12\"", "bad-group"),
        ("vrid = 1\nunicast = { peers = [] }", "no-peers"),
    ] {
        assert_eq!(findings(&format!("{address}{lines}")), [code], "{lines}");
    }
    for lines in ["vrid = 255", "vrid = 1\ngroup = \"224.0.0.200\""] {
        assert_eq!(findings(&format!("{address}{lines}")), [""; 0], "{lines}");
    }
}

/// V-003, V-010, V-027: IPv6 beside IPv4 under one VRID; its group has link-local scope, and its
/// list begins with a link-local address.
#[test]
fn ipv6_instances_have_rules_of_their_own() {
    let six = |lines: &str| findings(&format!("vrid = 51\n{lines}"));
    assert_eq!(six("addresses = [\"fe80::10/64\"]\ngroup = \"ff05::12\""), ["bad-group"]);
    assert_eq!(six("addresses = [\"2001:db8::10/64\"]"), ["link-local-first"]);
    let both = "vrid = 51\naddresses = [\"192.0.2.10/24\"]\n\n[[instance]]\nname = \"six\"\n\
                interface = \"eth0\"\nvrid = 51\naddresses = [\"fe80::10/64\"]";
    assert_eq!(findings(both), [""; 0]);
}

/// V-322.
#[test]
fn unicast_adverts_have_ttl_255_unless_set_otherwise() {
    let ttl = |router: RouterSettings| match router.transport {
        locum_vrrp::Transport::Unicast { ttl, .. } => ttl,
        locum_vrrp::Transport::Multicast { .. } => panic!("unicast"),
    };
    assert_eq!(ttl(toml("unicast = { peers = [\"192.0.2.2\"] }")), 255);
    assert_eq!(ttl(toml("unicast = { peers = [\"192.0.2.2\"], ttl = 64 }")), 64);
    assert_eq!(ttl(keepalived("", "unicast_peer {\n192.0.2.2\n}\nunicast_ttl 0")), 0);
}

/// V-322, V-331: by itself our own file believes configured peers on this link alone; keepalived's
/// means what keepalived means by it.
#[test]
fn unicast_is_strict_with_strangers_and_forwarded_adverts_unless_set_otherwise() {
    let peers = |router: RouterSettings| match router.transport {
        locum_vrrp::Transport::Unicast { peers, check_source, .. } => (peers[0].ttl, check_source),
        locum_vrrp::Transport::Multicast { .. } => panic!("unicast"),
    };
    let unicast =
        |more: &str| peers(toml(&format!("unicast = {{ peers = [\"192.0.2.2\"]{more} }}")));
    assert_eq!(unicast(""), (Some((255, 255)), true));
    assert_eq!(unicast(", ttl = 64"), (None, true), "a peer with the same file sends 64 as well");
    assert_eq!(unicast(", ttl = 64, ttl_check = true"), (Some((255, 255)), true));
    assert_eq!(unicast(", ttl_check = false"), (None, true));
    assert_eq!(unicast(", check_source = false"), (None, false), "a hop limit is of a known peer");
    let own = "unicast = { peers = [{ address = \"192.0.2.2\", min_ttl = 250 }] }";
    assert_eq!(peers(toml(own)), (Some((250, 255)), true), "the peer's own goes before it");
    let plain = "unicast_peer {\n192.0.2.2\n}";
    assert_eq!(peers(keepalived("", plain)), (None, false));
    assert_eq!(peers(keepalived("vrrp_check_unicast_src", plain)), (None, true));
    assert_eq!(peers(keepalived("vrrp_strict", plain)), (None, true));
}

/// keepalived says that version 3 has none, and goes on.
#[test]
fn authentication_beside_version_3_is_ignored_in_a_keepalived_file() {
    let text = |globals: &str, kind: &str| {
        format!(
            "global_defs {{\n{globals}\n}}\nvrrp_instance web {{\ninterface eth0\n\
             virtual_router_id 51\nvirtual_ipaddress {{\n192.0.2.10/24\n}}\n\
             authentication {{\nauth_type {kind}\nauth_pass 1234\n}}\n}}\n"
        )
    };
    for kind in ["AH", "PASS"] {
        let (found, codes) = routers(&text("vrrp_version 3", kind));
        assert_eq!(
            (found[0].auth.clone(), codes.as_slice()),
            (Auth::None, &["auth-version".to_owned()][..])
        );
    }
    let (found, codes) = routers(&text("", "PASS"));
    assert_eq!((found[0].auth.clone(), codes.len()), (Auth::Simple(*b"1234\0\0\0\0"), 0));
    let source = MemorySource::new().with("file", text("", "AH"));
    assert!(load(&source, "file", &Context::host("lb1")).plan.is_none(), "version 2 would need it");
}
