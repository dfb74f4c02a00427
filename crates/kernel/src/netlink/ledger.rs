//! What this process holds: the one thing that requests and monitor share.
//!
//! The requests write down what they hold before they ask the kernel; the monitor reads it to tell
//! a loss from a removal on purpose, and voids what a notification contradicts. A void entry makes
//! the next request look at the kernel again instead of trusting it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Interface index and address.
pub(crate) type Key = (u32, IpAddr);

/// One held address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub prefix: u8,
    pub holding: Holding,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holding {
    /// We put it there.
    Ours,
    /// It was there without our mark: hands off.
    Foreign,
    /// Something happened to it: look before touching it.
    Void,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Key, Entry>,
    /// Seen to work. A kernel before 5.18 ignores marks, and their absence says nothing there.
    keeps_marks: bool,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Every critical section leaves the book whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keeps_marks(&self) -> bool {
        self.book().keeps_marks
    }

    pub(crate) fn saw_mark(&self) {
        self.book().keeps_marks = true;
    }

    pub(crate) fn get(&self, key: Key) -> Option<Entry> {
        self.book().entries.get(&key).copied()
    }

    pub(crate) fn set(&self, key: Key, prefix: u8, holding: Holding) {
        self.book().entries.insert(key, Entry { prefix, holding });
    }

    pub(crate) fn forget(&self, key: Key) {
        self.book().entries.remove(&key);
    }

    /// All held addresses of one interface.
    pub(crate) fn of_link(&self, index: u32) -> Vec<(IpAddr, Entry)> {
        let book = self.book();
        let of_link = book.entries.iter().filter(|((at, _), _)| *at == index);
        of_link.map(|((_, address), entry)| (*address, *entry)).collect()
    }

    /// The link is gone with its addresses, and its index will never come back.
    pub(crate) fn forget_link(&self, index: u32) {
        self.book().entries.retain(|(at, _), _| *at != index);
    }

    /// Forgets the entries of every link that does not exist.
    pub(crate) fn keep_links(&self, exists: impl Fn(u32) -> bool) {
        self.book().entries.retain(|(at, _), _| exists(*at));
    }

    /// The monitor saw it disappear. True when it was held: it is lost, not dropped.
    pub(crate) fn disappeared(&self, key: Key, prefix: u8) -> bool {
        match self.book().entries.get_mut(&key) {
            // Another prefix length is another address: the one we have just replaced.
            Some(entry) if entry.prefix == prefix && entry.holding != Holding::Void => {
                entry.holding = Holding::Void;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The monitor saw it without our mark, though the kernel keeps marks.
    pub(crate) fn contradicted(&self, key: Key) {
        let mut book = self.book();
        let keeps_marks = book.keeps_marks;
        if let Some(entry) = book.entries.get_mut(&key)
            && entry.holding == Holding::Ours
            && keeps_marks
        {
            entry.holding = Holding::Void;
        }
    }

    /// Does it count as ours, whatever its mark says?
    pub(crate) fn is_ours(&self, key: Key) -> bool {
        self.get(key).is_some_and(|entry| entry.holding == Holding::Ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (3, IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)));

    #[test]
    fn only_a_held_address_can_be_lost_and_only_once() {
        let ledger = Ledger::default();
        assert!(!ledger.disappeared(KEY, 24));
        ledger.set(KEY, 24, Holding::Ours);
        assert!(!ledger.disappeared(KEY, 32), "the replaced prefix length");
        assert!(ledger.disappeared(KEY, 24));
        assert!(!ledger.disappeared(KEY, 24));
        ledger.set(KEY, 24, Holding::Foreign);
        assert!(ledger.disappeared(KEY, 24), "it counted as held");
    }

    #[test]
    fn a_missing_mark_says_nothing_until_the_kernel_is_known_to_keep_marks() {
        let ledger = Ledger::default();
        ledger.set(KEY, 24, Holding::Ours);
        ledger.contradicted(KEY);
        assert!(ledger.is_ours(KEY));
        ledger.saw_mark();
        ledger.contradicted(KEY);
        assert!(!ledger.is_ours(KEY));
    }

    #[test]
    fn a_link_takes_its_entries_with_it() {
        let ledger = Ledger::default();
        ledger.set(KEY, 24, Holding::Ours);
        ledger.set((4, KEY.1), 24, Holding::Ours);
        ledger.forget_link(3);
        assert_eq!(ledger.get(KEY), None);
        assert!(ledger.is_ours((4, KEY.1)));
    }
}
