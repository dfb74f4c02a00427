//! Does a process listen for TCP clients yet? HAProxy in the foreground does not tell when it is
//! ready, its sockets do.

use std::collections::HashSet;
use std::fs;

/// True once one of its sockets listens. False also when /proc does not let us see.
pub(super) fn is_listening(pid: u32) -> bool {
    has_listener(pid, |_| true)
}

/// As [`is_listening`], of sockets that this user made: a process that has become another user
/// since keeps them as they are.
pub(super) fn listens_as(pid: u32, user: u32) -> bool {
    has_listener(pid, |maker| maker == user)
}

fn has_listener(pid: u32, is_right: impl Fn(u32) -> bool) -> bool {
    let inodes = socket_inodes(pid);
    !inodes.is_empty()
        && ["tcp", "tcp6"].iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            text.lines()
                .filter_map(listener)
                .any(|(maker, inode)| is_right(maker) && inodes.contains(inode))
        })
}

/// The numbers in `socket:[NUMBER]` links of its descriptors.
fn socket_inodes(pid: u32) -> HashSet<String> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// User and inode of a line of /proc/PID/net/tcp whose state (field 4) is LISTEN, 0A.
fn listener(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split_ascii_whitespace();
    (fields.nth(3)? == "0A").then_some(())?;
    // State is field 4, the user field 8, the inode field 10.
    let user = fields.nth(3)?.parse().ok()?;
    Some((user, fields.nth(1)?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_with_a_listener_listens() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_listening(std::process::id()));
        assert!(!is_listening(0));
        let user = nix::unistd::geteuid().as_raw();
        assert!(listens_as(std::process::id(), user));
        assert!(!listens_as(std::process::id(), user + 1));
    }

    #[test]
    fn only_listening_lines_count() {
        let line = "   1: 0100007F:46A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 18444 1";
        assert_eq!(listener(line), Some((7, "18444")));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }
}
