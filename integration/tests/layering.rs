//! Arrows between the crates point down only, and the pure ring stays pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::process::Command;

use locum_integration::require;

/// Which of our crates each may use, as `crates/ARCHITECTURE.md` says.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("locum-vrrp", &[]),
    ("locum-plan", &["locum-vrrp"]),
    ("locum-config", &["locum-vrrp", "locum-plan"]),
    ("locum-engine", &["locum-vrrp", "locum-plan"]),
    ("locum-kernel", &[]),
    ("locum-check", &["locum-plan"]),
    ("locum-proxy", &["locum-kernel"]),
    ("locum-balancer", &["locum-plan", "locum-kernel", "locum-proxy"]),
    ("locum-control", &[]),
    (
        "locum",
        &[
            "locum-vrrp",
            "locum-plan",
            "locum-config",
            "locum-engine",
            "locum-kernel",
            "locum-check",
            "locum-balancer",
            "locum-proxy",
            "locum-control",
        ],
    ),
    ("locum-sim", &["locum-vrrp", "locum-plan", "locum-engine"]),
    ("locum-integration", &[]),
];

/// The pure ring: no clock, socket, thread, chance or log.
const PURE: [&str; 4] = ["locum-vrrp", "locum-plan", "locum-config", "locum-engine"];

/// Libraries that do what the pure ring must not.
const IMPURE: [&str; 11] = [
    "tokio",
    "nix",
    "libc",
    "socket2",
    "rand",
    "tracing",
    "log",
    "rtnetlink",
    "netlink-sys",
    "tempfile",
    "hyper",
];

/// Name of each member of the workspace, with what it is built from (tests aside).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(require::workspace())
        .output()
        .expect("cannot run cargo");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let built_from = |package: &serde_json::Value| {
        let all = list(&package["dependencies"]);
        all.iter().filter(|one| one["kind"] != "dev").map(name).collect()
    };
    list(&metadata["packages"]).iter().map(|package| (name(package), built_from(package))).collect()
}

#[test]
fn arrows_between_crates_point_down_only() {
    let dependencies = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    let known: Vec<&str> = dependencies.keys().map(String::as_str).collect();
    let listed: Vec<&str> = allowed.keys().copied().collect();
    assert_eq!(known, listed, "every crate of the workspace has its line in the table");
    for (name, uses) in &dependencies {
        let ours = uses.iter().filter(|used| dependencies.contains_key(*used));
        for used in ours {
            assert!(allowed[name.as_str()].contains(&used.as_str()), "{name} must not use {used}");
        }
    }
}

#[test]
fn pure_ring_uses_no_library_that_touches_the_world() {
    let dependencies = dependencies();
    for name in PURE {
        for used in &dependencies[name] {
            assert!(!IMPURE.contains(&used.as_str()), "{name} is pure and must not use {used}");
        }
    }
}
