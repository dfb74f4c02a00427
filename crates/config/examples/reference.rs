//! Writes the reference page and the JSON schema of all settings to where the repository has them.

// The library itself touches no file.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

fn main() -> std::io::Result<()> {
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc");
    std::fs::write(etc.join("manual/settings.md"), locum_config::reference::page())?;
    std::fs::write(etc.join("manual/keepalived.md"), locum_config::reference::keepalived_page())?;
    let schema = format!("{:#}\n", locum_config::reference::schema());
    std::fs::write(etc.join("locum.schema.json"), schema)
}
