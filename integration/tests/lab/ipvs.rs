//! IPVS, in a guest whose kernel has it: tables as `ipvsadm` would make them, on the master only,
//! and real requests through them.

mod families;
mod first_configuration;
mod model;
mod sync;
mod tandem;
mod ways;

use std::fs;

use locum_integration::lab::Lab;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;
use locum_integration::wait::seconds;
use locum_integration::web;

use crate::contract::expect_all;

/// The seed scripts, each with our configuration of the same meaning.
const SEEDS: [(&str, &str); 4] = [
    (
        "dr-rr",
        r#"
        listen = "192.168.1.100:80"
        scheduler = "rr"
        forwarding = "direct"
        servers = [{ address = "192.168.1.101" }, { address = "192.168.1.102" }]
        "#,
    ),
    (
        "dr-wlc",
        r#"
        listen = "192.168.1.100:80"
        scheduler = "wlc"
        forwarding = "direct"
        servers = [
            { address = "192.168.1.101", weight = 1 },
            { address = "192.168.1.102", weight = 2 },
        ]
        "#,
    ),
    (
        "nat-lc-mysql",
        r#"
        listen = "10.0.0.100:3306"
        scheduler = "lc"
        forwarding = "nat"
        servers = [
            { address = "10.0.0.101", weight = 3 },
            { address = "10.0.0.102", weight = 2 },
        ]
        "#,
    ),
    (
        "nat-rr",
        r#"
        listen = "203.0.113.1:80"
        scheduler = "rr"
        forwarding = "nat"
        servers = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }]
        "#,
    ),
];

/// One instance that holds the addresses of all seeds, with the gateway address of the servers.
const INSTANCE: &str = r#"
[nodes.lb1]
[nodes.lb2]

[[instance]]
name = "web"
interface = "eth0"
vrid = 51
priority = { lb1 = 150, lb2 = 100 }
advert_interval = "500ms"
addresses = [
    "192.168.1.100/24",
    "203.0.113.1/32",
    { address = "10.0.0.100/24", device = "eth1" },
]
"#;

/// Like [`INSTANCE`] with the service of the NAT seed and a check of its servers.
const CHECKED: &str = r#"
[[service]]
name = "www"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:80"
protocol = "tcp"
scheduler = "rr"
forwarding = "nat"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = [{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80" }]
"#;

/// [`INSTANCE`] with adverts so rare that a guest that stands still costs no master its place.
fn slowly() -> String {
    INSTANCE.replace("500ms", "2s")
}

fn seed(name: &str) -> String {
    let path =
        require::workspace().join("integration/data/seed").join(format!("ipvsadm-{name}.sh"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn table(node: &Node) -> String {
    node.run(&["ipvsadm", "-Ln"])
}

/// The answer of a machine without a service.
fn empty(node: &Node) -> bool {
    !table(node).contains("TCP")
}

/// Servers answer through the master, whichever it is.
fn route_servers(lab: &Lab) {
    for server in &lab.servers {
        server.run(&["ip", "route", "add", "default", "via", "10.0.0.100"]);
    }
}

#[test]
fn guest_runs_each_seed_script_and_shows_its_table() {
    if vm::is_inside() || !vm::available() {
        return;
    }
    let mut script = String::from("set -e\n");
    for (name, _) in SEEDS {
        script += &format!("echo == {name}\n{}\nipvsadm -Ln\nipvsadm -C\n", seed(name));
    }
    let output = vm::run(&script, seconds(60));
    assert_eq!(output.status, Some(0), "{}", output.text);
    println!("{} in {:?}", output.text, output.took);
    assert_eq!(output.text.matches("== ").count(), SEEDS.len());
    assert!(output.text.contains("TCP  192.168.1.100:80 wlc"), "{}", output.text);
    assert!(output.text.contains("  -> 10.0.0.101:3306              Masq    3"), "{}", output.text);
}

/// The tests of other crates that need this kernel, and are not run elsewhere.
#[test]
fn tests_of_other_crates_pass_in_the_guest() {
    if vm::is_inside() || !vm::available() {
        return;
    }
    const TESTS: [(&str, &str); 2] = [("kernel", "ipvs_kernel"), ("balancer", "ipvs")];
    let mut script = String::from("set -e\nexport LOCUM_REQUIRE_LAB=1 LOCUM_KERNEL_VM=1\n");
    for (package, test) in TESTS {
        let binary = require::test_binary(package, test);
        script += &format!("{} --nocapture --test-threads=1\nipvsadm -C\n", vm::word(&binary));
    }
    let output = vm::run(&script, seconds(120));
    println!("{}", output.text);
    assert_eq!(output.status, Some(0), "failed in the guest");
    assert_eq!(output.text.matches("test result: ok").count(), TESTS.len());
    assert!(!output.text.contains("skipped") && !output.text.contains("not run"));
    assert!(!output.text.contains(" 0 passed"), "a binary without tests");
}

#[test]
fn tables_equal_those_of_the_seed_scripts_on_the_master_only() {
    vm::inside("ipvs::tables_equal_those_of_the_seed_scripts_on_the_master_only", || {
        for (name, service) in SEEDS {
            let witness = Node::new("witness");
            witness.shell(&seed(name));
            let wanted = table(&witness);
            let config = format!(
                "{INSTANCE}\n[[service]]\nname = \"seed\"\ninstance = \"web\"\n\
                 backend = \"ipvs\"\nprotocol = \"tcp\"\n{service}"
            );
            let mut balanced = Balanced::new(&config);
            balanced.start(0);
            balanced.start(1);
            let (master, backup) = (&balanced.lab.directors[0], &balanced.lab.directors[1]);
            wait::eventually(&format!("the table is that of {name}"), ELECTION, || {
                let found = table(master);
                if found == wanted { Ok(()) } else { Err(format!("{found}\nnot\n{wanted}")) }
            });
            // Both start at once, so the other may have been master for a moment.
            wait::until("the backup has no table", ELECTION, || empty(backup));
        }
    });
}

#[test]
fn requests_go_through_nat_and_follow_the_master() {
    vm::inside("ipvs::requests_go_through_nat_and_follow_the_master", || {
        let mut balanced = Balanced::new(&format!("{INSTANCE}{CHECKED}"));
        route_servers(&balanced.lab);
        balanced.start(0);
        balanced.start(1);
        balanced.expect_service_by(0);
        balanced.expect_both_servers();
        wait::until("the backup has no table", ELECTION, || empty(&balanced.lab.directors[1]));
        balanced.daemon(0).terminate();
        balanced.expect_service_by(1);
        balanced.expect_both_servers();
        wait::until("the table is gone from the first", ELECTION, || {
            empty(&balanced.lab.directors[0])
        });
    });
}

#[test]
fn failing_server_leaves_the_table_and_returns() {
    vm::inside("ipvs::failing_server_leaves_the_table_and_returns", || {
        let mut balanced = Balanced::new(&format!("{INSTANCE}{CHECKED}"));
        route_servers(&balanced.lab);
        balanced.start(0);
        balanced.expect_service_by(0);
        balanced.expect_both_servers();
        balanced.web[0].set_status(503);
        let master = &balanced.lab.directors[0];
        wait::until("srv1 left the table", ELECTION, || !table(master).contains("10.0.0.1:80"));
        balanced.expect_servers(&["srv2"]);
        balanced.web[0].set_status(200);
        wait::until("srv1 is in the table", ELECTION, || table(master).contains("10.0.0.1:80"));
        balanced.expect_both_servers();
    });
}

#[test]
fn foreign_services_are_left_alone() {
    vm::inside("ipvs::foreign_services_are_left_alone", || {
        let mut balanced = Balanced::new(&format!("{INSTANCE}{CHECKED}"));
        route_servers(&balanced.lab);
        let master = &balanced.lab.directors[0];
        master.run(&["ipvsadm", "-A", "-t", "192.168.1.55:8080", "-s", "rr"]);
        master.run(&["ipvsadm", "-a", "-t", "192.168.1.55:8080", "-r", "10.0.0.9:80", "-m"]);
        balanced.start(0);
        balanced.expect_service_by(0);
        balanced.daemon(0).terminate();
        balanced.daemon(0).wait(ELECTION);
        let left = table(&balanced.lab.directors[0]);
        assert!(left.contains("192.168.1.55:8080") && left.contains("10.0.0.9:80"), "{left}");
        assert!(!left.contains("192.168.1.100:80"), "ours is gone: {left}");
        // The client's request finds nobody.
        assert!(web::get(&balanced.lab.client, balanced.vip()).is_err());
    });
}

#[test]
fn keeps_the_contract() {
    vm::inside("ipvs::keeps_the_contract", || expect_all("ipvs", true));
}

#[test]
fn lab_works_in_the_guest() {
    vm::inside("ipvs::lab_works_in_the_guest", || {
        let lab = Lab::new(locum_integration::lab::Shape::SERVICE);
        lab.directors[0].run(&["ipvsadm", "-A", "-t", "192.168.1.100:80", "-s", "rr"]);
        assert!(table(&lab.directors[0]).contains("192.168.1.100:80 rr"));
        assert!(empty(&lab.directors[1]), "each machine has a table of its own");
    });
}
