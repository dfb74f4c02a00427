//! What the conformance test and `cargo run -p locum-config --example bless` share: how a case is
//! run and how its outcome is written down.

// Cases are files; only the library itself reads none.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

use locum_config::{Context, MemorySource, load};

/// Every case, as the path of its configuration; sorted.
pub fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the folder of cases is in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml" || end == "conf"))
        .collect();
    paths.sort();
    paths
}

/// What the case yields on node `lb1`: every finding as printed, then whether there is a plan.
pub fn outcome(path: &Path) -> String {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let text = fs::read(path).expect("a readable case");
    let source = MemorySource::new()
        .with(name.clone(), text)
        .with("included/good.conf", "vrrp_script included {\n  script \"/bin/true\"\n}\n")
        .with("included/bad.conf", "vrrp_script broken {\n  intervall 2\n}\n")
        .with("included/loop.conf", "include loop.conf\n");
    let loaded = load(&source, &name, &Context::host("lb1.example.net"));
    let verdict = if loaded.plan.is_some() { "plan" } else { "no plan" };
    format!("{}{verdict}\n", loaded.diagnostics)
}

/// Where the expected outcome of a case is kept.
pub fn expected(path: &Path) -> PathBuf {
    let mut name = path.file_name().expect("a file").to_os_string();
    name.push(".expected");
    path.with_file_name(name)
}
