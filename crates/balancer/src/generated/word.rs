//! Words of a haproxy.cfg, from what an operator wrote: none of it can end a word or a line.

use std::net::SocketAddr;
use std::time::Duration;

/// HAProxy's timers are whole milliseconds in 31 bits.
const LONGEST: u128 = i32::MAX as u128;

/// One word, whatever it holds. Between single quotes HAProxy takes everything as it is; a quote
/// itself stands between double ones. What no line can hold is refused before it comes here, and is
/// not let through either.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let shown = |c: char| match c {
        '\'' => "'\"'\"'".to_owned(),
        c if c.is_control() => char::REPLACEMENT_CHARACTER.to_string(),
        c => c.to_string(),
    };
    format!("'{}'", text.chars().map(shown).collect::<String>())
}

/// The same where HAProxy puts in what a `%` stands for.
pub(super) fn format_word(text: &str) -> String {
    word(&text.replace('%', "%%"))
}

/// The name of a service as that of a section: HAProxy knows letters, digits and `-_.:` there. Two
/// names are never one, and what follows a `:` that is no hexadecimal digit is no part of a name.
pub(super) fn section(name: &str) -> String {
    let octet = |octet: u8| match octet {
        b'-' | b'_' | b'.' => char::from(octet).to_string(),
        octet if octet.is_ascii_alphanumeric() => char::from(octet).to_string(),
        octet => format!(":{octet:02x}"),
    };
    name.bytes().map(octet).collect()
}

/// The name of a server: its address without what a name cannot hold.
pub(super) fn server(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

/// For HAProxy 0 is for ever, and what is shorter than its unit is its unit.
pub(super) fn time(time: Duration) -> String {
    format!("{}ms", time.as_millis().clamp(1, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sections_are_never_one_and_hold_what_haproxy_knows() {
        assert_eq!(section("shop-1.example_x"), "shop-1.example_x");
        assert_eq!(section("a b"), "a:20b");
        assert_eq!(section("a:20b"), "a:3a20b");
        assert_eq!(section("ä\nuse"), ":c3:a4:0ause");
    }

    #[test]
    fn a_word_stays_one() {
        assert_eq!(word("/api"), "/api");
        assert_eq!(word(""), "''");
        assert_eq!(word("a b#c$d\"e\\f"), "'a b#c$d\"e\\f'");
        assert_eq!(word("a}b{c~d"), "'a}b{c~d'");
        assert_eq!(format_word("/%[src] $x"), "'/%%[src] $x'");
        assert_eq!(word("it's"), "'it'\"'\"'s'");
        assert_eq!(word("a\nb\rc\0d"), "'a\u{fffd}b\u{fffd}c\u{fffd}d'");
    }

    #[test]
    fn times_are_neither_for_ever_nor_too_long() {
        assert_eq!(time(Duration::ZERO), "1ms");
        assert_eq!(time(Duration::from_secs(900)), "900000ms");
        assert_eq!(time(Duration::MAX), "2147483647ms");
    }
}
