//! Whatever arrives or is written, the daemon counts it, says it, and goes on.

use std::net::Ipv4Addr;

use locum_integration::inject;
use locum_integration::inject::Forged;
use locum_integration::lab::CLIENT;
use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::pair::Kinds;
use locum_integration::pair::Pair;
use locum_integration::pair::VIP;
use locum_integration::peer::Locum;
use locum_integration::peer::Peer as _;
use locum_integration::peer::Router;
use locum_integration::peer::Version;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::wait;
use locum_integration::wait::millis;
use locum_integration::wait::seconds;

const OURS: Kinds = Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE };
/// Bad adverts of each kind: enough that a line of log for each would be seen.
const FLOOD: u64 = 200;
/// So many at a time fit into a socket's buffer while the daemon is not run.
const WAVE: u64 = 20;
/// More lines than this for one flood is a flood of its own.
const LOG_LINES: usize = 20;

fn source() -> Ipv4Addr {
    CLIENT.parse().expect("the client's address")
}

/// An advert that would take the address away if it were believed.
fn correct() -> Forged {
    let vip = VIP.split('/').next().and_then(|text| text.parse().ok());
    Forged::correct(source(), 51, 254, vip.expect("an address"))
}

/// A correct one with the bytes changed and the checksum right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Forged {
    let mut forged = correct();
    change(&mut forged.bytes);
    forged.fix_checksum(source());
    forged
}

/// The sum of a counter over all instances and interfaces of a director.
fn counter(lab: &Lab, director: usize, name: &str) -> u64 {
    sum(lab, director, name, |_| true)
}

/// A counter of one instance of a director.
fn counter_of(lab: &Lab, director: usize, instance: &str, name: &str) -> u64 {
    sum(lab, director, name, |owner| owner["name"] == instance)
}

fn sum(lab: &Lab, director: usize, name: &str, counts: impl Fn(&serde_json::Value) -> bool) -> u64 {
    let output = locum_command(&lab.directors[director], &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |kind: &str| status[kind].as_array().cloned().unwrap_or_default();
    let owners = of("instances").into_iter().chain(of("unmatched"));
    owners
        .filter(counts)
        .flat_map(|owner| owner["counters"].as_array().cloned().unwrap_or_default())
        .filter(|counter| counter["name"] == name)
        .filter_map(|counter| counter["value"].as_u64())
        .sum()
}

fn flood(pair: &mut Pair, forged: &Forged, reason: &str) {
    let before = [0, 1].map(|director| counter(&pair.lab, director, reason));
    let lines = [0, 1].map(|director| pair.daemon(director).log().lines().count());
    for wave in 1..=FLOOD / WAVE {
        for _ in 0..WAVE {
            inject::send(&pair.lab.client, source(), forged);
        }
        for director in [0, 1] {
            wait::until(&format!("lb{} counts {reason}", director + 1), seconds(20), || {
                counter(&pair.lab, director, reason) >= before[director] + wave * WAVE
            });
        }
    }
    for director in [0, 1] {
        let more = pair.daemon(director).log().lines().count() - lines[director];
        assert!(more <= LOG_LINES, "{more} lines of log for {FLOOD} adverts ({reason})");
    }
    assert_eq!(pair.masters(), [0], "{reason} changed who is master");
}

#[test]
fn bad_adverts_are_counted_by_reason_and_change_nothing() {
    if !OURS.available() {
        return;
    }
    let mut pair =
        Pair::settled(Shape::PAIR, OURS, |director| Router::new(51, [150, 100][director], &[VIP]));
    let mut low = correct();
    low.ttl = 254;
    flood(&mut pair, &low, "ip-ttl-errors");
    let mut damaged = correct();
    damaged.bytes[6] ^= 0x55;
    flood(&mut pair, &damaged, "checksum-errors");
    flood(&mut pair, &changed(|bytes| bytes[0] = 0x51), "version-errors");
    flood(&mut pair, &changed(|bytes| bytes[0] = 0x3f), "invalid-type-pkts-rcvd");
    flood(&mut pair, &changed(|bytes| bytes[1] = 77), "vrid-errors");
    flood(&mut pair, &changed(|bytes| bytes[3] = 20), "packet-length-errors");
    let mut short = correct();
    short.bytes.truncate(7);
    flood(&mut pair, &short, "packet-length-errors");
    flood(&mut pair, &changed(|bytes| bytes.resize(1400, 0xa5)), "packet-length-errors");
}

/// Beyond some thousand a second they die in the kernel; that is said, and so is the end of it.
#[test]
fn a_flood_of_foreign_adverts_is_sampled_and_reported_once() {
    const MANY: u64 = 20_000;
    if !OURS.available() {
        return;
    }
    let mut pair =
        Pair::settled(Shape::PAIR, OURS, |director| Router::new(51, [150, 100][director], &[VIP]));
    let foreign = changed(|bytes| bytes[1] = 77);
    let says = |pair: &mut Pair, director: usize, words: &str| {
        pair.daemon(director).log().lines().filter(|line| line.contains(words)).count()
    };
    for _ in 0..3 {
        inject::send_many(&pair.lab.client, source(), &foreign, MANY);
    }
    for director in [0, 1] {
        wait::until("the flood is reported", seconds(20), || {
            says(&mut pair, director, "only one in 1024 is counted") == 1
        });
        let counted = counter(&pair.lab, director, "vrid-errors");
        assert!((2000..MANY).contains(&counted), "{counted} of {}", 3 * MANY);
    }
    for director in [0, 1] {
        wait::until("its end is reported", seconds(40), || {
            says(&mut pair, director, "each is counted again") == 1
        });
        assert_eq!(says(&mut pair, director, "only one in 1024"), 1);
    }
    assert_eq!(pair.masters(), [0], "nobody believed it");
}

/// Both would take a unicast advert, were there a socket for each.
#[test]
fn a_unicast_advert_beside_a_multicast_instance_is_counted_once() {
    if !OURS.available() {
        return;
    }
    let addresses = ["192.168.1.201", "192.168.1.202"].map(|text| text.parse().expect("address"));
    let multicast = |director: usize| Router::new(51, [150, 100][director], &[VIP]);
    let mut pair = Pair::new(Shape::PAIR, OURS, multicast);
    for director in [0, 1] {
        let unicast = Router::new(52, [150, 100][director], &["192.168.1.101/24"])
            .unicast(addresses[director], &[addresses[1 - director]]);
        let routers = [multicast(director), unicast];
        let running = Locum::NATIVE.start(&pair.lab.directors[director], &routers);
        pair.adopt(director, running);
    }
    pair.expect_master(0);
    let counts = || {
        let sent = counter_of(&pair.lab, 0, "router52", "advertisement-sent");
        (sent, counter_of(&pair.lab, 1, "router52", "advertisement-rcvd"))
    };
    let before = counts();
    wait::until("ten adverts are heard", seconds(20), || counts().1 >= before.1 + 10);
    // What was heard is asked for after what was sent, so one more may have come in between.
    let after = counts();
    let (sent, heard) = (after.0 - before.0, after.1 - before.1);
    assert!(heard <= sent + 1, "{sent} sent, {heard} heard");
}

#[test]
fn wrong_password_is_counted_and_changes_nothing() {
    if !OURS.available() {
        return;
    }
    let mut pair = Pair::settled(Shape::PAIR, OURS, |director| {
        let router = Router::new(51, [150, 100][director], &[VIP]);
        router.version(Version::V2).every(seconds(1)).password("s3cret")
    });
    let forged = |kind: u8, password: &[u8; 8]| {
        let mut bytes = vec![0x21, 51, 254, 1, kind, 1, 0, 0, 192, 168, 1, 100];
        bytes.extend(password);
        let mut forged = Forged { bytes, ttl: 255 };
        forged.fix_checksum_of_message();
        forged
    };
    flood(&mut pair, &forged(1, b"guess\0\0\0"), "auth-failures");
    flood(&mut pair, &forged(0, &[0; 8]), "auth-type-mismatch");
    flood(&mut pair, &forged(9, &[0; 8]), "invalid-auth-type");
}

#[test]
fn configuration_with_errors_never_starts_and_reports_them_all() {
    if !require::lab(&[]) {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let config = "[[instance]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 0\npriorty = 5\n";
    let mut daemon = Locum::NATIVE.start_with(&lab.directors[0], config);
    let status = daemon.wait(seconds(20));
    assert!(!status.success());
    let log = daemon.log();
    assert!(log.contains("locum.toml:4:") && log.contains("locum.toml:5:"), "{log}");
    assert!(log.contains("priority"), "it suggests what was meant: {log}");
}

#[test]
fn reload_with_errors_is_refused_and_changes_nothing() {
    if !OURS.available() {
        return;
    }
    let pair =
        Pair::settled(Shape::PAIR, OURS, |director| Router::new(51, [150, 100][director], &[VIP]));
    let node = &pair.lab.directors[0];
    Locum::NATIVE.configure(node, "[[instance]]\nname = 7\n");
    let output = locum_command(node, &["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("locum.toml:2:8"));
    wait::throughout("lb1 alone is master", seconds(1), || pair.masters() == [0]);
}

#[test]
fn missing_interface_is_a_fault_of_its_instance_alone() {
    if !OURS.available() {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let node = &lab.directors[0];
    let router = |vrid, address: &str| Router::new(vrid, 150, &[address]).every(millis(100));
    let config = Locum::NATIVE.render(&[router(51, VIP)])
        + &Locum::NATIVE.render(&[router(52, "192.168.1.99/24")]).replace("eth0", "eth9");
    let _daemon = Locum::NATIVE.start_with(node, &config);
    wait::until("the sound instance is master", ELECTION, || node.holds(router(51, VIP).vip()));
    let output = locum_command(node, &["status", "--json"]);
    assert_eq!(output.status.code(), Some(1), "degraded");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let faulty = status["instances"].as_array().into_iter().flatten();
    let faulty = faulty.into_iter().find(|one| one["name"] == "router52").expect("listed");
    assert_eq!(faulty["role"], "fault");
    assert!(faulty["faults"].to_string().contains("eth9"), "{faulty}");
}

#[test]
fn wild_scripts_are_bounded_and_do_not_disturb_the_others() {
    if !OURS.available() {
        return;
    }
    let lab = Lab::new(Shape::PAIR);
    let node = &lab.directors[0];
    node.write_script("/run/lab/hangs.sh", "sleep 1000 & sleep 1000");
    node.write_script("/run/lab/prints.sh", "exec cat /dev/zero");
    let mut config = Locum::NATIVE.render(&[Router::new(51, 200, &[VIP]).every(millis(100))]);
    config += "track = [\"hangs\", \"prints\", \"absent\"]\n";
    for name in ["hangs", "prints", "absent"] {
        config += &format!(
            "[check.{name}]\nscript = [\"/run/lab/{name}.sh\"]\ninterval = \"1s\"\n\
             timeout = \"500ms\"\nfall = 1\nweight = -10\n"
        );
    }
    let mut daemon = Locum::NATIVE.start_with(node, &config);
    wait::until("the instance is master all the same", ELECTION, || {
        node.holds(Router::new(51, 1, &[VIP]).vip())
    });
    wait::until("all three have failed", ELECTION, || {
        let output = locum_command(node, &["status", "--json"]);
        String::from_utf8_lossy(&output.stdout).contains("\"effective_priority\":170")
            || String::from_utf8_lossy(&output.stdout).contains("\"effective_priority\": 170")
    });
    wait::throughout("hung scripts do not pile up", seconds(5), || {
        let output = node.output(&["pgrep", "-xc", "sleep"]);
        // Two of each run; those of the run before may still be dying.
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().is_ok_and(|count| count <= 4)
    });
    let resident = daemon.process().resident_kib();
    assert!(resident < 30_000, "{resident} KiB resident after a gigabyte of output");
}
