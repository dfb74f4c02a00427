//! How soon IPVS has its tables, in a guest whose kernel has it.

use std::process::Command;

use crate::require;
use crate::vm;
use crate::wait::seconds;

/// The promise, beside `ipvsadm -R`.
const TIMES_AS_FAST: f64 = 2.0;

/// Loads the tables of 1,000 services by us and by `ipvsadm`.
pub fn ipvs() -> bool {
    if !vm::available() {
        return false;
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "locum-kernel"])
        .args(["--example", "ipvs_load"])
        .current_dir(require::workspace())
        .status();
    assert!(built.is_ok_and(|status| status.success()), "cannot build what loads the tables");
    let program = require::target().join("release/examples/ipvs_load");
    let output = vm::run(&format!("{}\n", vm::word(&program)), seconds(600));
    print!("{}", output.text);
    let words: Vec<&str> = output.text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "times");
    let times = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse::<f64>().ok());
    output.status == Some(0) && times.is_some_and(|times| times >= TIMES_AS_FAST)
}
