//! Whether a stranger has the port of a listener of ours.
//!
//! A wrong yes would take a node out of service. So a port counts as taken only if somebody listens
//! at it, nobody of ours does, and the kernel refuses one more listener there.

use std::fs;
use std::io;
use std::net::SocketAddr;

use locum_kernel::ports::{self, PortSharing, SocketOwner};
use locum_kernel::sock_diag::{SockDiag, TcpListening};

use crate::haproxy::is_our_haproxy;
use crate::listeners::meets;
use crate::process::status_field;

/// Listeners of this host at one moment, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    listeners: Vec<TcpListening>,
    /// By inode; of the listeners that were asked about, as long as they listen.
    owners: Vec<(u32, PortOwner)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum PortOwner {
    Ours,
    Stranger(SocketOwner),
    /// Not to be seen by us.
    Hidden,
}

impl Ports {
    pub(crate) fn read(&mut self) {
        // What cannot be read is in nobody's way.
        self.listeners = SockDiag::open().and_then(|mut it| it.all_listeners()).unwrap_or_default();
        let listeners = &self.listeners;
        self.owners.retain(|(inode, _)| listeners.iter().any(|one| one.inode == *inode));
    }

    /// Who keeps a listener of ours from `wanted`, as a sentence.
    pub(crate) fn stranger_at(
        &mut self,
        wanted: SocketAddr,
        sharing: PortSharing,
    ) -> Option<String> {
        let near = self.listeners.iter().filter(|one| meets(one.local, wanted));
        let near: Vec<TcpListening> = near.copied().collect();
        if near.is_empty() {
            return None;
        }
        self.look_up(&near);
        let is_near = |inode: u32| near.iter().any(|one| one.inode == inode);
        let owners = self.owners.iter().filter(|(inode, _)| is_near(*inode));
        let owners: Vec<&PortOwner> = owners.map(|(_, owner)| owner).collect();
        if owners.contains(&&PortOwner::Ours) {
            return None;
        }
        let stranger = owners.iter().find_map(|owner| match owner {
            PortOwner::Stranger(stranger) => {
                Some(format!("{} (pid {})", stranger.name, stranger.pid))
            }
            PortOwner::Ours | PortOwner::Hidden => None,
        });
        // Without the right to look into every process, it may be one of ours.
        let stranger = match stranger {
            Some(stranger) => stranger,
            None if sees_all() => "a process that /proc does not show".to_owned(),
            None => return None,
        };
        match ports::try_bind(wanted, sharing) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Some(format!(
                "{stranger} listens on {}: stop it, or use another port",
                near[0].local
            )),
            Err(_) | Ok(()) => None,
        }
    }

    fn look_up(&mut self, sockets: &[TcpListening]) {
        let mut unknown: Vec<u32> = sockets.iter().map(|one| one.inode).collect();
        unknown.retain(|inode| !self.owners.iter().any(|(known, _)| known == inode));
        if unknown.is_empty() {
            return;
        }
        let found = ports::owners(&unknown);
        for inode in unknown {
            let all = || found.iter().filter(|(of, _)| *of == inode).map(|(_, owner)| owner);
            let is_ours = all().any(|one| is_our_haproxy(one.pid) || is_our_proxy(one.pid));
            let owner = match all().next() {
                Some(_) if is_ours => PortOwner::Ours,
                Some(stranger) => PortOwner::Stranger(stranger.clone()),
                None => PortOwner::Hidden,
            };
            self.owners.push((inode, owner));
        }
    }
}

/// The arguments that [`crate::proxy`] gives it.
fn is_our_proxy(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|octet| *octet == 0).skip(1);
    words.next() == Some(b"proxy") && words.next() == Some(b"--socket")
}

/// CAP_SYS_PTRACE, by which a process may look into those of all users.
fn sees_all() -> bool {
    const BIT: u64 = 1 << 19;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status_field(&status, "CapEff:")
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .is_some_and(|set| set & BIT != 0)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stranger_is_named_as_long_as_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ports = Ports::default();
        let mut stranger = |sharing| {
            ports.read();
            ports.stranger_at(address, sharing)
        };
        let found = stranger(PortSharing::Alone).unwrap();
        let own = format!("(pid {}) listens on {address}: stop it,", std::process::id());
        assert!(found.contains(&own), "{found}");
        assert_eq!(stranger(PortSharing::Shared).unwrap(), found);
        drop(listener);
        // A neighbouring test that forks keeps it for a moment.
        let begun = Instant::now();
        while stranger(PortSharing::Alone).is_some() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is gone");
            std::thread::yield_now();
        }
    }
}
