//! A fact: one thing that the kernel has or has not, under a key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::address::AddressSpec;

/// Something the kernel can be made to have.
///
/// The variants stand in the order in which they depend on each other: what an earlier one needs
/// is there before, and goes after, what a later one builds on it. A new kind of fact is a
/// variant here and in [`KernelFactKey`], its octets, and its place in the observed table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KernelFact {
    Address(AddressSpec),
}

impl KernelFact {
    /// Name of the interface it is on.
    pub(crate) fn interface(&self) -> &Arc<str> {
        let Self::Address(spec) = self;
        &spec.interface
    }

    /// Its key, on the interface with this index.
    pub(crate) fn key(&self, index: u32) -> KernelFactKey {
        let Self::Address(spec) = self;
        KernelFactKey::Address { index, address: spec.address }
    }
}

impl From<AddressSpec> for KernelFact {
    fn from(spec: AddressSpec) -> Self {
        Self::Address(spec)
    }
}

impl fmt::Display for KernelFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Address(AddressSpec { interface, address, prefix, .. }) = self;
        write!(f, "{address}/{prefix} on {interface}")
    }
}

/// What there can be only one of. Ordered as [`KernelFact`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum KernelFactKey {
    /// With any prefix length.
    Address { index: u32, address: IpAddr },
}

/// What one instance wants of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct WantedFacts<'a> {
    /// What shall be there: added, or renewed when it is ours. An address that is there without
    /// our mark is left alone and counts as held, whatever its prefix length.
    pub hold: &'a [KernelFact],
    /// What shall not be there. What is in `hold` too is held.
    pub drop: &'a [FactRemoval],
}

/// A fact that shall not be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FactRemoval {
    /// Identified by its key alone: an address goes whatever its prefix length.
    pub fact: KernelFact,
    pub whose: RemovalScope,
}

/// Whose fact is removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RemovalScope {
    /// Only what carries our mark, or was put there by this process.
    Ours,
    /// Whoever put it there.
    Anyones,
}
