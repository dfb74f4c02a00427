//! IPVS, in a guest whose kernel has it.

use std::fs;

use locum_integration::require;
use locum_integration::vm;
use locum_integration::wait::seconds;

/// The tables of the seed scripts.
const SEEDS: [&str; 4] = ["dr-rr", "dr-wlc", "nat-lc-mysql", "nat-rr"];

#[test]
fn guest_runs_each_seed_script_and_shows_its_table() {
    if !vm::available() {
        return;
    }
    let directory = require::workspace().join("integration/data/seed");
    let mut script = String::from("set -e\n");
    for seed in SEEDS {
        let text = fs::read_to_string(directory.join(format!("ipvsadm-{seed}.sh"))).expect(seed);
        script += &format!("echo == {seed}\n{text}\nipvsadm -Ln\nipvsadm -C\n");
    }
    let output = vm::run(&script, seconds(60));
    assert_eq!(output.status, Some(0), "{}", output.text);
    println!("{} in {:?}", output.text, output.took);
    assert_eq!(output.text.matches("== ").count(), SEEDS.len());
    assert!(output.text.contains("TCP  192.168.1.100:80 wlc"), "{}", output.text);
    assert!(output.text.contains("  -> 10.0.0.101:3306              Masq    3"), "{}", output.text);
}

#[test]
fn lab_works_in_the_guest() {
    vm::inside("lab_works_in_the_guest", seconds(120), || {
        let lab = locum_integration::lab::Lab::new(locum_integration::lab::Shape::SERVICE);
        lab.directors[0].run(&["ipvsadm", "-A", "-t", "192.168.1.100:80", "-s", "rr"]);
        assert!(lab.directors[0].run(&["ipvsadm", "-Ln"]).contains("192.168.1.100:80 rr"));
        assert!(!lab.directors[1].run(&["ipvsadm", "-Ln"]).contains("192.168.1.100"));
    });
}
