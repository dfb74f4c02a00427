//! One thing that happened: a line of the history file and of `locum history --json`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Something an operator would act on or remember. The fields of `record` stand beside the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Milliseconds since 1970-01-01 UTC, by the wall clock at that moment.
    pub at_ms: u64,
    /// The same as RFC 3339 with milliseconds, UTC.
    pub at: String,
    /// Process that wrote it: `event` counts within one.
    pub pid: u32,
    /// Number of the event, rising within one process. A hook has the number of its cause.
    pub event: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The same in words, as the log has it.
    pub text: String,
    #[serde(flatten)]
    pub record: Record,
}

/// What happened; `kind` says which variant it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A role changed. Roles are `initialize`, `backup`, `master`, `resigning`, `fault`.
    Transition { from: String, to: String, cause: String, cause_text: String, priority: u8 },
    /// The effective priority changed.
    Priority { from: u8, to: u8, why: String },
    /// A check went up or down.
    Check { check: String, up: bool, detail: String },
    /// A server of a service went up or down.
    Server { service: String, server: SocketAddr, up: bool, detail: String },
    /// The servers of a service are too few, or enough again. `sorry` has its clients.
    Quorum {
        service: String,
        reached: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sorry: Option<SocketAddr>,
        detail: String,
    },
    /// An operator gave a server another weight (`drain`, `weight`) or its own back (`ready`).
    ServerOrdered { service: String, server: SocketAddr, order: String, weight: Option<u32> },
    /// What someone removed, as a rule a virtual address, was put back; `text` says what it is.
    Healed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interface: Option<String>,
        culprit: Option<String>,
    },
    /// Two masters met and this one stayed.
    Conflict { peer: IpAddr, peer_priority: u8 },
    /// Adverts are being discarded for this reason.
    Discard { source: Option<IpAddr>, reason: String },
    /// The peer is configured differently.
    Mismatch { peer: IpAddr, what: String },
    /// The kernel refused some addresses, or all.
    ApplyFailed { error: String },
    /// What it refused before is done.
    ApplyMended { what: String },
    /// It has not answered for this long.
    ApplyLate { waited_ms: u64 },
    /// An address that somebody had put where this node is not its master was removed.
    Expelled { address: IpAddr, interface: String },
    /// Addresses were announced before everything they wait for was ready.
    AnnouncedUnready { waited_ms: u64, awaited: String },
    /// A service or HAProxy (`service www`, `haproxy edge`) came to miss what its clients need, or
    /// has it again. `aspect` is `capable`, `answering` or `populated`.
    Fitness { object: String, aspect: String, holds: bool, detail: String },
    /// A service or HAProxy that serves, or could, came to be strained (`detail` says by what), or is
    /// so no more. At most one a minute of each.
    Strained { object: String, strained: bool, detail: String },
    /// A configuration took effect.
    Reloaded { added: usize, changed: usize, removed: usize, unchanged: usize },
    /// A configuration was refused; the running one stays.
    ReloadRefused { reason: String },
    /// What an earlier run left, as a rule an address, was taken over (`kept`) or withdrawn.
    Adopted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interface: Option<String>,
        kept: bool,
    },
    /// A hook ended. `outcome` is `ok`, `failed`, `timed-out`, `cannot-run`,
    /// `superseded`, or `postponed` while the system has no process for it.
    Hook { command: String, outcome: String, detail: String, took_ms: u64, output: String },
    /// The daemon began.
    Started { node: String, config: String, digest: String },
    /// The daemon ended in order.
    Ended {},
    /// What has no other place.
    Note {},
}
