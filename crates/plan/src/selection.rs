//! How a server is chosen for a client.

use crate::name::Name;

/// Scheduler by its IPVS name; [`crate::Capabilities::schedulers`] says who knows which.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scheduler {
    pub name: String,
    pub flags: SchedulerFlags,
}

impl Scheduler {
    /// Without flags.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), flags: SchedulerFlags::default() }
    }

    /// Whether weights above 0 decide who gets clients; of a scheduler nobody here knows, yes.
    pub fn is_weighted(&self) -> bool {
        !matches!(self.name.as_str(), "rr" | "lc" | "dh")
    }
}

/// Options of a scheduler, as `ipvsadm --sched-flags` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SchedulerFlags {
    /// flag-1: of sh and mh, another server where the chosen one takes no connections.
    pub fallback: bool,
    /// flag-2: of sh and mh, the source port counts too.
    pub port: bool,
    /// flag-3, which no scheduler of the kernel reads.
    pub third: bool,
}

impl SchedulerFlags {
    pub const fn any(self) -> bool {
        self.fallback || self.port || self.third
    }
}

/// A client stays with its server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Persistence {
    /// Seconds after its last connection, at least 1.
    pub timeout: u32,
    /// Clients whose addresses are equal in so many leading bits stay together: 1..=128; of an IPv4
    /// address 32 and more are the whole of it.
    pub granularity: u8,
    /// What tells one client from another beside the address, such as `sip` (its Call-ID).
    pub engine: Option<Name>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendKind;

    /// In the kernel: who compares no weights but with 0 (`ip_vs_rr.c`, `ip_vs_lc.c`, `ip_vs_dh.c`).
    #[test]
    fn all_schedulers_but_three_look_at_weights() {
        let all = BackendKind::Ipvs.capabilities().schedulers;
        let is_blind = |name: &&&str| !Scheduler::named(**name).is_weighted();
        let blind: Vec<&&str> = all.iter().filter(is_blind).collect();
        assert_eq!(blind, [&"rr", &"lc", &"dh"]);
        assert!(Scheduler::named("of-my-own").is_weighted());
    }
}
