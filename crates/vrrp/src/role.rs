//! What a router is to its peers, and why: the words of the log, the hooks and the status.

use std::fmt;
use std::net::IpAddr;

use crate::report::NewMasterReason;
use crate::settings::Priority;
use crate::time::Time;

/// What a router is to its peers, as status and hooks show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Not taking part: just started, start delay, stopped.
    Initialize,
    Backup,
    Master,
    /// Has released its mastership and answers until the successor does.
    Resigning,
    /// Cannot take part; status says why.
    Fault,
}

impl Role {
    /// It is one of the RFC's roles that hear and send.
    pub const fn takes_part(self) -> bool {
        match self {
            Self::Backup | Self::Master | Self::Resigning => true,
            Self::Initialize | Self::Fault => false,
        }
    }

    /// As programs read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Master => "master",
            Self::Resigning => "resigning",
            Self::Fault => "fault",
        }
    }
}

/// Upper case, as operators grep for it.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Resigning => "RESIGNING",
            Self::Fault => "FAULT",
        })
    }
}

/// What keeps a router from being master though it could take part, or could replace the master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeldBack {
    /// Its start delay is over then, and it takes part.
    StartDelay { until: Time },
    /// Its mastership was refused then; it listens for a whole down interval before it asks again
    /// (V-272).
    Refused { at: Time },
    /// What the master has released is on offer to nodes that can serve, and this one cannot
    /// (V-282). Then nobody has taken it.
    LetsPass { until: Time },
    /// An operator handed it over: lower masters are left alone while they live.
    Yielded,
    /// It cannot serve, and a lower master serves no less than it would (V-281).
    Unfit,
    /// It does not preempt.
    NoPreempt,
    /// Lower masters are left alone until then (V-171).
    PreemptDelay { until: Time },
}

/// Why a role changed. The same text stands in the log, the hook's environment, the history and
/// `status --why`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// The instance began its life.
    Startup,
    /// Priority 255: nobody to wait for.
    Owner,
    /// No advert for a whole down interval.
    MasterSilent { last: Option<IpAddr> },
    /// The master released its mastership.
    PriorityZero { peer: IpAddr },
    /// Only lower priorities were heard for a whole down interval.
    Preempted { peer: IpAddr, priority: Priority },
    /// A better advert was heard.
    HigherPriority { peer: IpAddr, priority: Priority },
    /// An earlier run's addresses were in place with their lease.
    Adopted,
    /// This node was not running for longer than its peers wait.
    LeaseExpired,
    /// Link down, no source address, tracker, kernel refusal: the texts of all that hold.
    Fault { reasons: String },
    /// The last fault went away.
    FaultCleared,
    /// `locum stop` or a signal.
    Stopped,
    /// `locum switchover`.
    Switchover,
    /// This node cannot serve, and another one may: the texts of all that hold.
    Unfit { reasons: String },
    /// Nobody took over what was offered.
    NoSuccessor,
    /// A reload removed the instance.
    Removed,
}

impl Cause {
    /// The master before us, where it goes on answering for a while (V-240).
    pub fn predecessor(&self) -> Option<IpAddr> {
        match self {
            Self::PriorityZero { peer } | Self::Preempted { peer, .. } => Some(*peer),
            Self::Startup
            | Self::Owner
            | Self::MasterSilent { .. }
            | Self::HigherPriority { .. }
            | Self::Adopted
            | Self::LeaseExpired
            | Self::Fault { .. }
            | Self::FaultCleared
            | Self::Stopped
            | Self::Switchover
            | Self::Unfit { .. }
            | Self::NoSuccessor
            | Self::Removed => None,
        }
    }

    /// Why a promotion with this cause made a master (V-237); `before` is the reason until then.
    pub const fn new_master_reason(&self, before: NewMasterReason) -> NewMasterReason {
        match self {
            Self::MasterSilent { .. } => NewMasterReason::NoResponse,
            Self::Preempted { .. } => NewMasterReason::Preempted,
            // What is taken back was never let go.
            Self::NoSuccessor => before,
            // An earlier run's mastership goes on by its own right: nobody was waited for.
            Self::Owner | Self::PriorityZero { .. } | Self::Adopted => NewMasterReason::Priority,
            // None of these makes a master.
            Self::Startup
            | Self::HigherPriority { .. }
            | Self::LeaseExpired
            | Self::Fault { .. }
            | Self::FaultCleared
            | Self::Stopped
            | Self::Switchover
            | Self::Unfit { .. }
            | Self::Removed => before,
        }
    }

    /// As programs read it, without its details.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Owner => "owner",
            Self::MasterSilent { .. } => "master-silent",
            Self::PriorityZero { .. } => "priority-zero",
            Self::Preempted { .. } => "preempted",
            Self::HigherPriority { .. } => "higher-priority",
            Self::Adopted => "adopted",
            Self::LeaseExpired => "lease-expired",
            Self::Fault { .. } => "fault",
            Self::FaultCleared => "fault-cleared",
            Self::Stopped => "stopped",
            Self::Switchover => "switchover",
            Self::Unfit { .. } => "unfit",
            Self::NoSuccessor => "no-successor",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("started"),
            Self::Owner => f.write_str("owns the addresses (priority 255)"),
            Self::MasterSilent { last: Some(peer) } => {
                write!(f, "no advert from {peer} for a whole down interval")
            }
            Self::MasterSilent { last: None } => f.write_str("no advert heard since start"),
            Self::PriorityZero { peer } => write!(f, "{peer} released its mastership"),
            Self::Preempted { peer, priority } => {
                write!(f, "preempted {peer} with lower priority {}", priority.0)
            }
            Self::HigherPriority { peer, priority } => {
                write!(f, "{peer} advertises priority {}", priority.0)
            }
            Self::Adopted => f.write_str("took over what an earlier run had left in place"),
            Self::LeaseExpired => {
                f.write_str("this node did not run for longer than its peers wait")
            }
            Self::Fault { reasons } => f.write_str(reasons),
            Self::FaultCleared => f.write_str("the last fault went away"),
            Self::Stopped => f.write_str("stopped by the operator"),
            Self::Switchover => f.write_str("handed over by the operator"),
            Self::Unfit { reasons } => write!(f, "this node cannot serve {reasons}"),
            Self::NoSuccessor => f.write_str("nobody took over what was offered"),
            Self::Removed => f.write_str("removed from the configuration"),
        }
    }
}
