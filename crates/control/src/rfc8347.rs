//! The state of one virtual router in the words of RFC 8347: for systems that know its YANG module.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Leaves of `vrrp-instance` under their own names and in their own units (V-401, V-402). Those
/// that count are among the counters of the instance.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rfc8347 {
    /// `initialize`, `backup` or `master`: what it is to its peers.
    pub state: String,
    pub is_owner: bool,
    /// Source of the last accepted advert.
    pub last_adv_source: Option<IpAddr>,
    /// Since when it has been taking part.
    pub up_datetime: Option<String>,
    /// Centiseconds, rounded down.
    pub master_down_interval: u64,
    /// Microseconds, rounded down.
    pub skew_time: u64,
    /// An identity of `vrrp-event-type`.
    pub last_event: String,
    /// `not-master`, `priority`, `preempted` or `no-response`.
    pub new_master_reason: String,
}
