//! As whom a process of ours serves, once it has what only root may have.

use std::fs;
use std::sync::OnceLock;

use nix::unistd::{User, geteuid};

/// Of whom an operator has made no other user.
const NOBODY: &str = "nobody";

/// User and group of HAProxy's own package, or of whoever stands for nobody. `None` when this process
/// may become neither: HAProxy stays who we are.
pub(crate) fn of_haproxy() -> Option<(u32, u32)> {
    // Once: names may be known by another host that takes its time.
    static FOUND: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *FOUND.get_or_init(|| find(&["haproxy", NOBODY]))
}

/// The same of the built-in proxy.
pub(crate) fn of_proxy() -> Option<(u32, u32)> {
    static FOUND: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *FOUND.get_or_init(|| find(&["locum-proxy", NOBODY]))
}

fn find(users: &[&str]) -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let known = users.iter().filter_map(|name| User::from_name(name).ok().flatten());
    let mut numbers = known.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    let is_mapped = |map: &str, number: u32| {
        // In a user namespace there may be no other user than root.
        fs::read_to_string(map).map_or(true, |text| maps(&text, number))
    };
    numbers.find(|(user, group)| {
        is_mapped("/proc/self/uid_map", *user) && is_mapped("/proc/self/gid_map", *group)
    })
}

/// Whether a number is in one of the ranges of a user namespace: `FIRST OUTSIDE COUNT` a line.
fn maps(text: &str, number: u32) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (words.next(), words.next(), words.next())
        else {
            return false;
        };
        number.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_mapped_by_any_of_the_ranges() {
        assert!(maps("         0          0 4294967295\n", 65_534));
        assert!(!maps("0 1000 1\n", 65_534));
        assert!(maps("0 1000 1\n1 100000 65536\n", 65_534));
        assert!(!maps("", 0));
    }
}
