//! Does a process listen for TCP clients yet? HAProxy in the foreground does not tell when it is
//! ready, its sockets do.

use std::collections::HashSet;
use std::fs;

/// True once one of its sockets listens. False also when /proc does not let us see.
pub(super) fn is_listening(pid: u32) -> bool {
    let inodes = socket_inodes(pid);
    !inodes.is_empty()
        && ["tcp", "tcp6"].iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            text.lines().filter_map(listening_inode).any(|inode| inodes.contains(inode))
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

/// The inode of a line of /proc/PID/net/tcp whose state (field 4) is LISTEN, 0A.
fn listening_inode(line: &str) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    (fields.nth(3)? == "0A").then_some(())?;
    // State is field 4, the inode field 10.
    fields.nth(5)
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
    }

    #[test]
    fn only_listening_lines_count() {
        let line = "   1: 0100007F:46A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18444 1";
        assert_eq!(listening_inode(line), Some("18444"));
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening_inode("  sl  local_address rem_address   st"), None);
    }
}
