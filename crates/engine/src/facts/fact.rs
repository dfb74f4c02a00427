//! One fact: something the kernel shall have, told apart from others by its key.

use std::fmt;
use std::net::IpAddr;

use locum_plan as plan;
use locum_plan::Name;
use locum_vrrp::Time;

/// Something the kernel shall have on behalf of an instance.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Fact {
    Address(HeldAddress),
    /// While both hosts have the address after a handover. Ends by itself. Apart, because there are
    /// few, and for a short while.
    Handover(Box<Handover>),
}

/// What tells facts apart: the same key is the same fact, in whatever form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FactKey {
    /// The kernel may know it with several prefix lengths; for us it is one.
    Address { interface: Name, address: IpAddr },
    /// An address goes to one predecessor, whatever it is on.
    Handover { address: IpAddr },
}

/// A virtual address as the kernel shall have it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HeldAddress {
    pub interface: Name,
    pub address: plan::VirtualAddress,
    /// Seconds until the kernel drops it by itself; `None` is never.
    pub lease_seconds: Option<u32>,
}

/// Connections of an address that did not begin here go on at the host that had it before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Handover {
    pub interface: Name,
    pub address: IpAddr,
    /// Source of the predecessor's adverts, on this interface.
    pub host: IpAddr,
    pub until: Time,
}

/// A fact that must not be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    pub fact: Fact,
    pub whose: Whose,
}

/// Whose facts a removal takes away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whose {
    /// What carries our mark, and nothing else.
    Ours,
    /// Whoever put it there: a virtual address of an instance that is not master here.
    Anyones,
}

/// One fact of an `Apply` that the kernel did not do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub asked: Asked,
    pub key: FactKey,
    /// The kernel's words.
    pub error: String,
}

/// What was asked of the kernel for one fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To add or to renew it: it is not in place, or will run out.
    Hold,
    /// To remove it: it is still there.
    Drop,
}

impl Fact {
    pub fn key(&self) -> FactKey {
        match self {
            Self::Address(held) => FactKey::Address {
                interface: held.interface.clone(),
                address: held.address.address,
            },
            Self::Handover(handover) => FactKey::Handover { address: handover.address },
        }
    }

    /// The same fact, in whatever form.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(two)) => {
                one.address.address == two.address.address && one.interface == two.interface
            }
            (Self::Handover(one), Self::Handover(two)) => one.address == two.address,
            (Self::Address(_), Self::Handover(_)) | (Self::Handover(_), Self::Address(_)) => false,
        }
    }

    /// Seconds until the kernel drops it by itself; `None` is never.
    pub fn lease_seconds(&self) -> Option<u32> {
        match self {
            Self::Address(held) => held.lease_seconds,
            Self::Handover(_) => None,
        }
    }

    /// The link whose change may change the kernel's mind about it.
    pub fn interface(&self) -> &Name {
        match self {
            Self::Address(held) => &held.interface,
            Self::Handover(handover) => &handover.interface,
        }
    }

    /// What is on [`interface`](Self::interface), for those that name both apart.
    pub fn what(&self) -> String {
        match self {
            Self::Address(HeldAddress {
                address: plan::VirtualAddress { address, prefix, .. },
                ..
            }) => {
                format!("{address}/{prefix}")
            }
            Self::Handover(_) => self.to_string(),
        }
    }

    /// The address that this fact is, for those that announce it.
    pub fn address(&self) -> Option<&HeldAddress> {
        match self {
            Self::Address(held) => Some(held),
            Self::Handover(_) => None,
        }
    }

    /// The handover that this fact is.
    pub fn handover(&self) -> Option<&Handover> {
        match self {
            Self::Handover(handover) => Some(handover),
            Self::Address(_) => None,
        }
    }
}

impl FactKey {
    /// The address, where the fact is one.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Handover { .. } => None,
        }
    }

    /// The interface it is on, where that tells it from others.
    pub const fn interface(&self) -> Option<&Name> {
        match self {
            Self::Address { interface, .. } => Some(interface),
            Self::Handover { .. } => None,
        }
    }

    pub(crate) fn is_of(&self, fact: &Fact) -> bool {
        match (self, fact) {
            (Self::Address { interface, address }, Fact::Address(held)) => {
                *address == held.address.address && *interface == held.interface
            }
            (Self::Handover { address }, Fact::Handover(handover)) => *address == handover.address,
            (Self::Address { .. }, Fact::Handover(_))
            | (Self::Handover { .. }, Fact::Address(_)) => false,
        }
    }
}

/// As sentences name it.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(held) => held.fmt(f),
            Self::Handover(handover) => {
                let Handover { address, host, .. } = &**handover;
                write!(f, "connections of {address} that began at {host}")
            }
        }
    }
}

impl fmt::Display for HeldAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan::VirtualAddress { address, prefix, .. } = &self.address;
        write!(f, "{address}/{prefix} on {}", self.interface)
    }
}

impl fmt::Display for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { interface, address } => write!(f, "{address} on {interface}"),
            Self::Handover { address } => write!(f, "connections of {address}"),
        }
    }
}
