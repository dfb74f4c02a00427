//! The handles by which the engine and those that carry out its outputs speak of one thing.

/// Which instance; the same through all reloads, and never given to another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId(pub(crate) u32);

impl InstanceId {
    /// The instance of this number, counted from 0 in the order in which the engine met them.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// On whose behalf the kernel shall have something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    Instance(InstanceId),
    /// What an earlier run left and no instance of the plan has.
    Nobody,
}

/// Number of an `Apply` or `Serve`, rising; their results carry it back.
pub type Seq = u64;

/// Handle of a probe; stays the same while its [`locum_plan::Probe`] does. Probes that ask the same are one.
pub type ProbeId = u32;

/// The caller's handle for a [`crate::Output::Reply`].
pub type CommandId = u64;
