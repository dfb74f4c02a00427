//! Why an instance may not take part, and what its priority is made of: as values. Their sentences
//! for operators are the `Display` of each.

use std::fmt;
use std::net::IpAddr;

use locum_plan::{Name, Tracked};
use locum_vrrp::Family;

/// One reason for which an instance cannot take part. It may have several at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The interface of the adverts is not there.
    InterfaceMissing { interface: Name },
    /// The interface of the adverts is down or has no carrier.
    InterfaceDown { interface: Name },
    /// No address of the interface can be the source of adverts (V-050).
    NoSource { interface: Name, family: Family },
    /// The configured source is no address of `interface`, or of this host when `None` (V-051).
    SourceNotHere { source: IpAddr, interface: Option<Name> },
    /// An advert with these addresses would not leave (V-030); `most` of them fit.
    TooManyAddresses { interface: Name, mtu: u32, most: usize },
    /// The device of one of its addresses is not there.
    DeviceMissing { device: Name },
    /// A tracked object of weight 0 is down, or up where its weight is reversed.
    Tracked { object: Tracked, up: bool, detail: String },
    /// The kernel refused all of its addresses, in these words.
    AddressesRefused { error: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceMissing { interface } => {
                write!(f, "interface {interface} does not exist")
            }
            Self::InterfaceDown { interface } => {
                write!(f, "interface {interface} is down or has no carrier")
            }
            Self::NoSource { interface, family } => {
                let kind = match family {
                    Family::V4 => "IPv4 address",
                    Family::V6 => "usable IPv6 address",
                };
                write!(f, "no {kind} on {interface} to send adverts from")
            }
            Self::SourceNotHere { source, interface } => {
                let place = interface.as_deref().unwrap_or("this host");
                write!(f, "{source}, the configured source of adverts, is no address of {place}")
            }
            Self::TooManyAddresses { interface, mtu, most } => write!(
                f,
                "an advert with these addresses is too long for {interface}, MTU {mtu}: advertise \
                 at most {most} and exclude the others"
            ),
            Self::DeviceMissing { device } => {
                write!(f, "interface {device} of an address does not exist")
            }
            Self::Tracked { object, up, detail } => tracked(f, object, *up, detail),
            Self::AddressesRefused { error } => {
                write!(f, "the kernel refused its addresses: {error}")
            }
        }
    }
}

fn tracked(f: &mut fmt::Formatter<'_>, object: &Tracked, up: bool, detail: &str) -> fmt::Result {
    f.write_str(&object.sentence(up))?;
    if up {
        f.write_str(", and its weight is reversed")?;
    }
    if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
}

/// All reasons in one line, as the cause of a role shows them.
pub fn sentence(faults: &[Fault]) -> String {
    join(faults, "; ")
}

/// What one tracked object adds to the base priority, or takes from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriorityPart {
    pub object: Tracked,
    /// Never 0.
    pub part: i32,
}

impl fmt::Display for PriorityPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:+}", self.object, self.part)
    }
}

/// Why the effective priority is another than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PriorityCause {
    /// The tracked objects now add up to this; nothing adjusts it when empty.
    Trackers(Vec<PriorityPart>),
    /// A new plan says so.
    Reload,
    /// V-176: `peer` owns the addresses too and does not yield, so that this owner concedes.
    OwnerConcedes { peer: IpAddr },
    /// V-176: the other owner does not claim the addresses any more.
    OwnerReturns { peer: IpAddr },
}

impl fmt::Display for PriorityCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trackers(parts) if parts.is_empty() => f.write_str("nothing adjusts it"),
            Self::Trackers(parts) => f.write_str(&join(parts, ", ")),
            Self::Reload => f.write_str("the configuration was reloaded"),
            Self::OwnerConcedes { peer } => write!(
                f,
                "{peer} owns the addresses too (priority 255) and does not yield: one of the two \
                 must be given a lower priority"
            ),
            Self::OwnerReturns { peer } => {
                write!(f, "the other owner, {peer}, is gone or owns the addresses no more")
            }
        }
    }
}

fn join(all: &[impl ToString], separator: &str) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}
