//! What a plan asks of the host.

use crate::diagnostic::{Place, Severity};

/// Something the host must have for the plan to work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    pub kind: NeedKind,
    pub place: Place,
    /// Of the finding, where the host does not have it.
    pub severity: Severity,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NeedKind {
    /// A network interface of this name.
    Interface(String),
    /// An executable: an absolute path, or a name looked up in PATH.
    Program(String),
    /// A file that can be read.
    File(String),
    /// An entry of the user database.
    User(String),
    /// An entry of the group database.
    Group(String),
    /// An address of this machine, usable as a source.
    Address(std::net::IpAddr),
}
