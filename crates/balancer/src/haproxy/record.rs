//! What the state file says of one HAProxy.

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
