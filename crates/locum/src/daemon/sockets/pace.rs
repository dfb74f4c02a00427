//! Adverts that come one after the other are read together.
//!
//! A thread that is woken for each advert of hundreds that a peer sends in a row costs more than the
//! adverts, on both hosts. So when it has been woken several times in a row it lets the next ones
//! gather for a moment, which is short beside any interval there is.

use std::time::Duration;

use locum_vrrp::Time;

/// Reads within a [`WINDOW`] that cost nothing that matters. With few instances there are more at
/// the shortest intervals alone.
const FEW: u32 = 2;
const WINDOW: Duration = Duration::from_millis(10);

/// For how long adverts may wait after more reads than that: a tenth of the shortest interval
/// (RFC 9568 §5.2.7), and less than the buffers of the sockets hold in a flood.
const GATHER: Duration = Duration::from_millis(1);

/// Of one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    began: Time,
    reads: u32,
    gathers_until: Option<Time>,
}

impl Pace {
    /// Adverts were read.
    pub fn has_read(&mut self, now: Time) {
        if now.since(self.began) >= WINDOW {
            (self.began, self.reads) = (now, 0);
        }
        self.reads = self.reads.saturating_add(1);
        self.gathers_until = (self.reads > FEW).then(|| now + GATHER);
    }

    /// How long the next adverts may wait; `None` when they may not.
    pub fn gathers_for(&self, now: Time) -> Option<Duration> {
        self.gathers_until.map(|until| until.since(now)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adverts_gather_only_after_several_reads_within_a_moment() {
        let at = |us: u64| Time::ZERO + Duration::from_micros(us);
        let mut pace = Pace::default();
        for us in [20_000, 20_100] {
            pace.has_read(at(us));
            assert_eq!(pace.gathers_for(at(us)), None);
        }
        pace.has_read(at(20_200));
        assert_eq!(pace.gathers_for(at(20_200)), Some(GATHER));
        assert_eq!(pace.gathers_for(at(20_900)), Some(Duration::from_micros(300)));
        assert_eq!(pace.gathers_for(at(21_200)), None, "long enough");
        pace.has_read(at(21_300));
        assert_eq!(pace.gathers_for(at(21_300)), Some(GATHER), "they go on");
        pace.has_read(at(30_000));
        assert_eq!(pace.gathers_for(at(30_000)), None, "a moment later");
    }
}
