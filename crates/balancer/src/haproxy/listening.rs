//! Do clients of a process get an answer yet? HAProxy in the foreground does not tell when it is
//! ready, its sockets do.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};

/// Descriptors looked at, in the order of their numbers: listeners are opened before there are
/// clients, of whom there may be very many.
const DESCRIPTOR_LIMIT: usize = 4096;

/// How far a process has come with its listeners.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Listening {
    /// None listens, or /proc does not let us see.
    No,
    /// One of its sockets listens: the kernel takes clients, and others may still be bound.
    Bound,
    /// It waits for clients on one of them (epoll): all are bound, and it accepts.
    Accepting,
}

/// Of the process or of its workers: a HAProxy told by its file to be a master leaves the clients to
/// these.
pub(super) fn listening(pid: u32) -> Listening {
    let own = of_process(pid);
    if own == Listening::Accepting {
        return own;
    }
    workers(pid).map(of_process).max().map_or(own, |workers| workers.max(own))
}

fn workers(pid: u32) -> impl Iterator<Item = u32> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let numbers = children.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    numbers.collect::<Vec<_>>().into_iter()
}

fn of_process(pid: u32) -> Listening {
    let descriptors = Descriptors::of(pid);
    let listeners = descriptors.listeners(pid, |_| true);
    if listeners.is_empty() {
        Listening::No
    } else if descriptors.polls.iter().any(|poll| waits_on(pid, poll, &listeners)) {
        Listening::Accepting
    } else {
        Listening::Bound
    }
}

/// Whether one of its listening sockets was made by this user: a process that has become another
/// user since keeps them as they are.
pub(super) fn listens_as(pid: u32, user: u32) -> bool {
    !Descriptors::of(pid).listeners(pid, |maker| maker == user).is_empty()
}

/// Those of the process and its workers that have listeners; the process alone when none has.
pub(super) fn servers(pid: u32) -> Vec<u32> {
    let has = |pid: &u32| !Descriptors::of(*pid).listeners(*pid, |_| true).is_empty();
    if has(&pid) {
        return vec![pid];
    }
    let workers: Vec<u32> = workers(pid).filter(has).collect();
    if workers.is_empty() { vec![pid] } else { workers }
}

/// Whether one of these processes waits for clients at a socket with one of these inodes. `None` when
/// their sockets cannot be seen, or they wait by other means than epoll.
pub(super) fn waits_at(servers: &[u32], inodes: &[u32]) -> Option<bool> {
    let inodes: HashSet<String> = inodes.iter().map(u32::to_string).collect();
    let mut found = None;
    for pid in servers {
        let descriptors = Descriptors::of(*pid);
        let ours = descriptors.sockets.iter().filter(|(_, inode)| inodes.contains(inode));
        let numbers: HashSet<&str> = ours.map(|(number, _)| number.as_str()).collect();
        if numbers.is_empty() || descriptors.polls.is_empty() {
            continue;
        }
        if descriptors.polls.iter().any(|poll| waits_on(*pid, poll, &numbers)) {
            return Some(true);
        }
        found = Some(false);
    }
    found
}

/// What a process has open, by descriptor number.
#[derive(Default)]
struct Descriptors {
    /// With their inodes.
    sockets: Vec<(String, String)>,
    /// Those of epoll.
    polls: Vec<String>,
}

impl Descriptors {
    fn of(pid: u32) -> Self {
        let mut found = Self::default();
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
        for entry in entries.flatten().take(DESCRIPTOR_LIMIT) {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let (Some(link), Ok(number)) = (link.to_str(), entry.file_name().into_string()) else {
                continue;
            };
            if let Some(inode) = link.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']')) {
                found.sockets.push((number, inode.to_owned()));
            } else if link == "anon_inode:[eventpoll]" {
                found.polls.push(number);
            }
        }
        found
    }

    /// Numbers of those that listen for TCP clients and were made by the right user.
    fn listeners(&self, pid: u32, is_right: impl Fn(u32) -> bool) -> HashSet<&str> {
        if self.sockets.is_empty() {
            return HashSet::new();
        }
        let mut inodes = HashSet::new();
        for table in ["tcp", "tcp6"] {
            let Ok(file) = fs::File::open(format!("/proc/{pid}/net/{table}")) else { continue };
            // The kernel lists listeners first: connections, of which there may be very many, are
            // not read.
            let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
            let listeners = lines.map_while(|line| listener(&line));
            inodes.extend(listeners.filter(|(maker, _)| is_right(*maker)).map(|(_, inode)| inode));
        }
        let ours = self.sockets.iter().filter(|(_, inode)| inodes.contains(inode));
        ours.map(|(number, _)| number.as_str()).collect()
    }
}

/// Whether epoll descriptor `poll` watches one of these: a `tfd:` line for each it watches.
fn waits_on(pid: u32, poll: &str, descriptors: &HashSet<&str>) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{poll}")).unwrap_or_default();
    let watched = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
    watched
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(|number| descriptors.contains(number))
}

/// User and inode of a line of /proc/PID/net/tcp whose state (field 4) is LISTEN, 0A.
fn listener(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split_ascii_whitespace();
    (fields.nth(3)? == "0A").then_some(())?;
    // State is field 4, the user field 8, the inode field 10.
    let user = fields.nth(3)?.parse().ok()?;
    Some((user, fields.nth(1)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

    use super::*;

    #[test]
    fn a_process_with_a_listener_listens_and_accepts_once_it_waits_for_clients() {
        assert_eq!(listening(0), Listening::No);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::process::id();
        assert_eq!(listening(own), Listening::Bound);
        let user = nix::unistd::geteuid().as_raw();
        assert!(listens_as(own, user));
        assert!(!listens_as(own, user + 1));
        let poll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        assert_eq!(listening(own), Listening::Bound, "nothing is watched yet");
        poll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
        assert_eq!(listening(own), Listening::Accepting);
    }

    #[test]
    fn only_listening_lines_count() {
        let line = "   1: 0100007F:46A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 18444 1";
        assert_eq!(listener(line), Some((7, "18444".to_owned())));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }
}
