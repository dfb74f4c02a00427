//! The synchronisation of connections with other directors: which threads of the kernel shall run,
//! and what has to change. Pure.
//!
//! A master's thread sends what becomes of its connections, a backup's takes them in; either may
//! run without the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Where both kinds send and listen unless they are given something else (I-053).
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;
const TTL: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SyncState {
    Master,
    Backup,
}

impl SyncState {
    pub const ALL: [Self; 2] = [Self::Master, Self::Backup];
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

/// One thread of the kernel. Without a number the kernel's own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncThread {
    pub state: SyncState,
    /// The interface that it sends or listens at; at most 15 octets.
    pub interface: String,
    /// Messages of another id are ignored, unless the backup's is 0.
    pub id: u8,
    /// Octets of connections in one datagram; the kernel keeps it between 1024 and what fits.
    pub longest: Option<u16>,
    pub group: Option<IpAddr>,
    pub port: Option<u16>,
    pub ttl: Option<u8>,
}

impl SyncThread {
    /// With the kernel's defaults, as it shows them itself.
    fn whole(&self) -> Self {
        Self {
            group: Some(self.group.unwrap_or(GROUP)),
            port: Some(self.port.filter(|port| *port != 0).unwrap_or(PORT)),
            ttl: Some(self.ttl.filter(|ttl| *ttl != 0).unwrap_or(TTL)),
            ..self.clone()
        }
    }

    /// Whether one that runs is as this one asks. The length follows the interface where nothing is
    /// asked of it.
    fn is_met_by(&self, running: &Self) -> bool {
        let (mut wanted, running) = (self.whole(), running.whole());
        wanted.longest = wanted.longest.or(running.longest);
        wanted == running
    }
}

/// A change of one thread. Its parameters cannot be changed while it runs (I-052).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncChange {
    Start(SyncThread),
    Stop(SyncState),
}

/// What is wanted starts before what is not wanted any more ends, so that no connection is missed
/// between; one with other parameters ends first. Of what runs and is not wanted only `owned` ends.
pub fn sync_changes(
    wanted: &[SyncThread],
    owned: &[SyncState],
    running: &[SyncThread],
) -> Vec<SyncChange> {
    let of = |list: &[SyncThread], state| list.iter().find(|one| one.state == state).cloned();
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for state in SyncState::ALL {
        match (of(wanted, state), of(running, state)) {
            (Some(wanted), Some(running)) if wanted.is_met_by(&running) => {}
            (Some(wanted), Some(_)) => {
                starts.extend([SyncChange::Stop(state), SyncChange::Start(wanted)]);
            }
            (Some(wanted), None) => starts.push(SyncChange::Start(wanted)),
            (None, Some(_)) if owned.contains(&state) => stops.push(SyncChange::Stop(state)),
            (None, Some(_) | None) => {}
        }
    }
    starts.into_iter().chain(stops).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use SyncChange::{Start, Stop};
    use SyncState::{Backup, Master};

    fn thread(state: SyncState) -> SyncThread {
        let interface = "eth0".to_owned();
        SyncThread { state, interface, id: 51, longest: None, group: None, port: None, ttl: None }
    }

    #[test]
    fn i_051_the_threads_follow_the_role_and_no_connection_is_missed_between() {
        let running = [SyncThread { longest: Some(1472), ..thread(Backup).whole() }];
        assert_eq!(
            sync_changes(&[thread(Master)], &SyncState::ALL, &running),
            [Start(thread(Master)), Stop(Backup)]
        );
        assert_eq!(sync_changes(&[thread(Backup)], &SyncState::ALL, &running), []);
        assert_eq!(sync_changes(&[], &SyncState::ALL, &running), [Stop(Backup)]);
        assert_eq!(sync_changes(&[], &[], &running), [], "somebody else's");
    }

    #[test]
    fn i_052_other_parameters_are_another_thread() {
        let running = [thread(Master).whole()];
        let edits: [fn(&mut SyncThread); 5] = [
            |one| one.interface = "eth1".to_owned(),
            |one| one.id = 52,
            |one| one.longest = Some(2000),
            |one| one.group = Some("ff02::51".parse().unwrap()),
            |one| one.port = Some(8849),
        ];
        for edit in edits {
            let mut wanted = thread(Master);
            edit(&mut wanted);
            let expected = [Stop(Master), Start(wanted.clone())];
            assert_eq!(sync_changes(&[wanted], &SyncState::ALL, &running), expected);
        }
        let defaults = SyncThread { port: Some(8848), ttl: Some(1), ..thread(Master) };
        assert_eq!(sync_changes(&[defaults], &SyncState::ALL, &running), []);
    }
}
