//! What an instance follows, and what that does to it.

use std::fmt;

use crate::name::Name;

/// One object an instance tracks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    pub object: Tracked,
    /// Weight of this pairing; the object's own when `None`.
    pub weight: Option<Weight>,
}

/// What can be tracked: each is up, down or not known yet. A new kind is a variant and its words
/// here, a source of its state in the engine's trackers, and a key in the settings.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Tracked {
    /// A check of the plan; its own weight unless the pairing has one.
    Check(Name),
    /// The carrier of a network interface; a fault while down unless the pairing has a weight.
    Interface(Name),
    /// A service: whether this node could serve it, and where it does, whether clients are
    /// answered.
    Service(Name),
    /// A HAProxy, as a service.
    Haproxy(Name),
}

impl Tracked {
    pub fn name(&self) -> &Name {
        match self {
            Self::Check(name)
            | Self::Interface(name)
            | Self::Service(name)
            | Self::Haproxy(name) => name,
        }
    }

    /// The check that decides, where it is one.
    pub fn check(&self) -> Option<&Name> {
        if let Self::Check(name) = self { Some(name) } else { None }
    }

    /// The network interface whose carrier decides, where it is one.
    pub fn interface(&self) -> Option<&Name> {
        if let Self::Interface(name) = self { Some(name) } else { None }
    }

    /// A sentence on what it is: `check app is failing`, `tracked interface eth1 is up`.
    pub fn sentence(&self, up: bool) -> String {
        match (self, up) {
            (Self::Check(name), true) => format!("check {name} succeeds"),
            (Self::Check(name), false) => format!("check {name} is failing"),
            (Self::Interface(name), true) => format!("tracked interface {name} is up"),
            (Self::Interface(name), false) => format!("tracked interface {name} is down"),
            (Self::Service(name), true) => format!("service {name} can be served"),
            (Self::Service(name), false) => format!("service {name} cannot be served"),
            (Self::Haproxy(name), true) => format!("haproxy {name} can serve"),
            (Self::Haproxy(name), false) => format!("haproxy {name} cannot serve"),
        }
    }
}

/// As operators read it in the status and in the history: `check app`, `interface eth1`.
impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(name) => write!(f, "check {name}"),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Haproxy(name) => write!(f, "haproxy {name}"),
        }
    }
}

/// What a tracked object does to a priority: 0 failing is a fault; positive is added while up;
/// negative is subtracted while down. `reverse` swaps up and down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weight {
    /// −253..=253.
    pub value: i16,
    pub reverse: bool,
}
