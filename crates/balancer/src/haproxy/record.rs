//! What the state file says of one HAProxy, and the keys that it names starts by.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::process::Identity;

/// What is written down of one HAProxy for the next daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    /// With the digest of the file it was started from.
    pub running: Option<(Identity, String)>,
    pub leaving: Vec<Identity>,
    /// Of the start under way: written down before the process is there to be named.
    #[serde(default)]
    pub key: Option<String>,
}

/// Of one start: a number that the kernel gives out once.
pub(super) fn fresh_key() -> Result<String, String> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(SOURCE);
    text.map(|key| key.trim().to_owned()).map_err(|error| format!("cannot read {SOURCE}: {error}"))
}
