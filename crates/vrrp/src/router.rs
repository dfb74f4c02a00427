//! The state machine of one virtual router. RFC 9568 §6.4, with the extensions of spec §8.2.
use crate::settings::Priority;
use std::net::IpAddr;

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
    /// A reload removed the instance.
    Removed,
}
pub enum Action {}
pub enum Event {}
pub struct Router {}
