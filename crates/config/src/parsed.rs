//! What a file asks for: typed, each value with its place, nothing filled in. Both front-ends
//! produce it. What each noun asks stands beside its rows, in [`crate::settings`].

use locum_plan::{Name, Node};

use crate::dialect::Dialect;

pub(crate) use crate::field::Field;
pub(crate) use crate::settings::check::ParsedCheck;
pub(crate) use crate::settings::command::ParsedHooks;
pub(crate) use crate::settings::health::ParsedHealth;
pub(crate) use crate::settings::instance::{ParsedAnnounce, ParsedInstance, TransportKind};
pub(crate) use crate::settings::ipvs::{ParsedIpvs, ParsedSync};
pub(crate) use crate::settings::node::{ParsedHaproxy, ParsedHookSettings, ParsedNode};
pub(crate) use crate::settings::server::ParsedServer;
pub(crate) use crate::settings::service::{ParsedService, Serve};
pub(crate) use crate::settings::transport::ParsedUnicast;

#[derive(Debug)]
pub(crate) struct Parsed {
    pub dialect: Dialect,
    pub node: Name,
    /// The node was found among `nodes`; `false` when it could not be told, which is reported.
    pub is_node_known: bool,
    pub nodes: Vec<Node>,
    pub instances: Vec<ParsedInstance>,
    pub checks: Vec<ParsedCheck>,
    pub services: Vec<ParsedService>,
    pub haproxy: Vec<ParsedHaproxy>,
    pub ipvs: ParsedIpvs,
    pub hooks: ParsedHookSettings,
    pub late_interfaces: LateInterfaces,
}

/// What an interface is that the host does not have yet. Its instance waits for it in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LateInterfaces {
    /// Probably mistyped.
    Missed,
    /// The file says that it comes later.
    Expected,
}
