//! When foreign datagrams are so many that the kernel shall drop them.
//!
//! A datagram that is not for us costs next to nothing in the kernel and some microseconds here,
//! but here it is counted and its sender named. So all of them are let in while they are few, and
//! one in [`ONE_IN`] of them while they are many.

use std::time::Duration;

use locum_vrrp::Time;

/// Foreign datagrams within a [`WINDOW`] that a processor does not notice: a percent or two of one.
const MANY: u32 = 2000;
const WINDOW: Duration = Duration::from_secs(1);

/// Of foreign datagrams in a flood, one in this many is let in.
pub const ONE_IN: u32 = 1024;

/// So few of a sample within a [`SAMPLED_WINDOW`] end the flood: about 800 datagrams a second, well
/// below what begins one, so that a steady rate does not make it begin and end all the time.
const FEW: u32 = 8;
const SAMPLED_WINDOW: Duration = Duration::from_secs(10);

/// Of one socket.
#[derive(Clone, Copy, Default, Debug)]
pub struct Flood {
    is_on: bool,
    /// Foreign datagrams since the window began.
    seen: u32,
    began: Option<Time>,
}

/// It began or ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloodChange {
    Began,
    Ended,
}

impl Flood {
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// So many foreign datagrams were read.
    pub fn count(&mut self, foreign: u32, now: Time) -> Option<FloodChange> {
        if foreign == 0 {
            return None;
        }
        let began = *self.began.get_or_insert(now);
        if !self.is_on && now.since(began) >= WINDOW {
            self.began = Some(now);
            self.seen = 0;
        }
        self.seen = self.seen.saturating_add(foreign);
        if self.is_on || self.seen < MANY {
            return None;
        }
        *self = Self { is_on: true, seen: 0, began: Some(now) };
        Some(FloodChange::Began)
    }

    /// When [`Flood::look`] has something to do.
    pub fn due_at(&self) -> Option<Time> {
        self.began.filter(|_| self.is_on).map(|began| began + SAMPLED_WINDOW)
    }

    /// At the end of a window of a flood: whether it is over.
    pub fn look(&mut self, now: Time) -> Option<FloodChange> {
        if self.due_at().is_none_or(|due| now < due) {
            return None;
        }
        if self.seen > FEW {
            self.seen = 0;
            self.began = Some(now);
            return None;
        }
        *self = Self::default();
        Some(FloodChange::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn many_within_a_second_are_a_flood_and_the_same_number_in_two_is_none() {
        let mut flood = Flood::default();
        for ms in (0..10_000).step_by(10) {
            assert_eq!(flood.count(MANY / 101, at(ms)), None, "{ms}");
        }
        assert_eq!(flood.count(MANY, at(20_000)), Some(FloodChange::Began));
        assert_eq!(flood.count(MANY, at(20_001)), None, "it is on already");
        assert!(flood.is_on());
    }

    #[test]
    fn a_flood_ends_when_a_window_has_shown_few() {
        let mut flood = Flood::default();
        assert_eq!(flood.due_at(), None);
        flood.count(MANY, at(1000));
        assert_eq!(flood.due_at(), Some(at(11_000)));
        flood.count(FEW + 1, at(5000));
        assert_eq!(flood.look(at(10_999)), None);
        assert_eq!(flood.look(at(11_000)), None, "it goes on");
        flood.count(FEW, at(12_000));
        assert_eq!(flood.look(at(20_999)), None);
        assert_eq!(flood.look(at(21_000)), Some(FloodChange::Ended));
        assert_eq!((flood.is_on(), flood.due_at()), (false, None));
    }
}
