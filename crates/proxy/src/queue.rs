//! Clients that wait until a server has room for them, the first one first.
//!
//! One is woken at a time: who gets a server wakes the next one, which may find room as well.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::QueueStatus;

#[derive(Debug, Default)]
pub struct ServerQueue {
    waiting: RefCell<BTreeMap<u64, Rc<QueuedClient>>>,
    next: Cell<u64>,
    timed_out: Cell<u64>,
    left: Cell<u64>,
    turned_away: Cell<u64>,
}

#[derive(Debug)]
struct QueuedClient {
    since: Instant,
    woken: Notify,
}

/// Why somebody who waited has no server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueEnd {
    /// As many wait as may.
    Full,
    TimedOut,
    /// It is not there any more.
    Left,
}

impl ServerQueue {
    /// Whether nobody waits: who comes may have a server at once.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Waits at the end from now on; `None` where `most` do so already.
    pub fn enter(self: &Rc<Self>, most: Option<u32>) -> Option<QueuePlace> {
        let mut waiting = self.waiting.borrow_mut();
        if most.is_some_and(|most| waiting.len() >= most as usize) {
            return None;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let own = Rc::new(QueuedClient { since: Instant::now(), woken: Notify::new() });
        waiting.insert(number, own.clone());
        Some(QueuePlace { queue: self.clone(), number, own })
    }

    /// There may be room: the first one looks.
    pub fn wake(&self) {
        if let Some((_, first)) = self.waiting.borrow().first_key_value() {
            first.woken.notify_one();
        }
    }

    pub fn note(&self, end: QueueEnd) {
        let counter = match end {
            QueueEnd::Full => &self.turned_away,
            QueueEnd::TimedOut => &self.timed_out,
            QueueEnd::Left => &self.left,
        };
        counter.set(counter.get() + 1);
    }

    pub fn status(&self) -> QueueStatus {
        let waiting = self.waiting.borrow();
        let longest = waiting.first_key_value().map(|(_, first)| first.since.elapsed().as_millis());
        QueueStatus {
            waiting: waiting.len() as u64,
            longest_ms: u64::try_from(longest.unwrap_or(0)).unwrap_or(u64::MAX),
            timed_out: self.timed_out.get(),
            left: self.left.get(),
            turned_away: self.turned_away.get(),
        }
    }
}

/// Somebody waits for as long as this lives.
#[derive(Debug)]
pub struct QueuePlace {
    queue: Rc<ServerQueue>,
    number: u64,
    own: Rc<QueuedClient>,
}

impl QueuePlace {
    pub fn is_first(&self) -> bool {
        let waiting = self.queue.waiting.borrow();
        waiting.first_key_value().is_some_and(|(number, _)| *number == self.number)
    }

    /// Resolves once it was woken since the last time.
    pub async fn woken(&self) {
        self.own.woken.notified().await;
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let was_first = self.is_first();
        self.queue.waiting.borrow_mut().remove(&self.number);
        if was_first {
            self.queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_woken(place: &QueuePlace) -> bool {
        pin!(place.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_first_is_woken_and_who_goes_wakes_the_one_behind() {
        let queue = Rc::<ServerQueue>::default();
        let [first, second, third] = [(); 3].map(|()| queue.enter(Some(3)).unwrap());
        assert!(queue.enter(Some(3)).is_none());
        queue.wake();
        assert!(is_woken(&first) && !is_woken(&second));
        drop(second);
        assert!(!is_woken(&third) && !is_woken(&first), "from the middle nobody is called");
        drop(first);
        assert!(third.is_first() && is_woken(&third));
        drop(third);
        queue.wake();
        assert!(queue.is_empty());
    }

    #[test]
    fn each_end_is_counted_and_the_longest_wait_is_that_of_the_first() {
        let queue = Rc::<ServerQueue>::default();
        assert_eq!(queue.status(), QueueStatus::default());
        let _first = queue.enter(None);
        [QueueEnd::Full, QueueEnd::Left, QueueEnd::TimedOut, QueueEnd::Left]
            .into_iter()
            .for_each(|end| queue.note(end));
        let status = queue.status();
        assert_eq!((status.waiting, status.timed_out), (1, 1));
        assert_eq!((status.left, status.turned_away), (2, 1));
    }
}
