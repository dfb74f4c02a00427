//! What RFC 8347 reports of a virtual router beside its state: why it became master last
//! (V-237), and what happened to it last (V-238).

/// Leaf `new-master-reason`: why this router became master the last time. The same values are in
/// RFC 6527.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum NewMasterReason {
    /// It has never been master.
    #[default]
    NotMaster,
    /// By right of its priority: an owner, or the master released its mastership to it.
    Priority,
    /// It was heard to be better than the master there was.
    Preempted,
    /// Nobody was heard.
    NoResponse,
}

impl NewMasterReason {
    /// The value as the YANG module spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotMaster => "not-master",
            Self::Priority => "priority",
            Self::Preempted => "preempted",
            Self::NoResponse => "no-response",
        }
    }
}

/// Leaf `last-event`: the identities derived from `vrrp-event-type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum LastEvent {
    /// Nothing yet.
    #[default]
    None,
    /// It began to take part.
    Startup,
    /// It was asked to stop.
    Shutdown,
    /// A master heard a better router.
    HigherPriorityBackup,
    /// The down timer of a backup ran out.
    MasterTimeout,
    InterfaceUp,
    InterfaceDown,
    NoPrimaryIpAddress,
    PrimaryIpAddress,
    NoVirtualIpAddresses,
    VirtualIpAddresses,
    /// The time that lower masters are left alone is over.
    PreemptHoldTimeout,
    /// A lower router was heard as master.
    LowerPriorityMaster,
    /// An owner took what is its own without waiting.
    OwnerPreempt,
}

impl LastEvent {
    /// The identity as the YANG module spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "vrrp-event-none",
            Self::Startup => "vrrp-event-startup",
            Self::Shutdown => "vrrp-event-shutdown",
            Self::HigherPriorityBackup => "vrrp-event-higher-priority-backup",
            Self::MasterTimeout => "vrrp-event-master-timeout",
            Self::InterfaceUp => "vrrp-event-interface-up",
            Self::InterfaceDown => "vrrp-event-interface-down",
            Self::NoPrimaryIpAddress => "vrrp-event-no-primary-ip-address",
            Self::PrimaryIpAddress => "vrrp-event-primary-ip-address",
            Self::NoVirtualIpAddresses => "vrrp-event-no-virtual-ip-addresses",
            Self::VirtualIpAddresses => "vrrp-event-virtual-ip-addresses",
            Self::PreemptHoldTimeout => "vrrp-event-preempt-hold-timeout",
            Self::LowerPriorityMaster => "vrrp-event-lower-priority-master",
            Self::OwnerPreempt => "vrrp-event-owner-preempt",
        }
    }
}

/// The link a router speaks on, as far as its events go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkCondition {
    Down,
    /// Up, without an address to send adverts from.
    NoSource,
    Ready,
}

/// Both leaves of one router.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouterReport {
    pub new_master_reason: NewMasterReason,
    pub last_event: LastEvent,
    /// As last observed.
    link: Option<LinkCondition>,
}

impl RouterReport {
    /// A link that is ready when first seen is no event, and one that stays as it is neither.
    pub fn observe_link(&mut self, link: LinkCondition) {
        let event = match (self.link, link) {
            (None, LinkCondition::Ready) => None,
            (Some(before), now) if before == now => None,
            (_, LinkCondition::Down) => Some(LastEvent::InterfaceDown),
            (_, LinkCondition::NoSource) => Some(LastEvent::NoPrimaryIpAddress),
            (Some(LinkCondition::NoSource), LinkCondition::Ready) => {
                Some(LastEvent::PrimaryIpAddress)
            }
            (Some(LinkCondition::Down | LinkCondition::Ready), LinkCondition::Ready) => {
                Some(LastEvent::InterfaceUp)
            }
        };
        self.link = Some(link);
        self.last_event = event.unwrap_or(self.last_event);
    }

    /// Addresses were there before, or not, and are now, or not.
    pub fn observe_addresses(&mut self, had: bool, has: bool) {
        match (had, has) {
            (true, false) => self.last_event = LastEvent::NoVirtualIpAddresses,
            (false, true) => self.last_event = LastEvent::VirtualIpAddresses,
            (true, true) | (false, false) => {}
        }
    }
}
