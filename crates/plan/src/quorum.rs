//! When a service has enough servers, and what happens when that changes.

/// How many servers are enough.
///
/// ```text
///   0 …        level − hysteresis        level + hysteresis       …
///   └─ lost ───┤  stays what it was      ├─ reached ──────────────►
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    /// At least 1.
    pub level: u32,
    /// Below `level`; 0 turns at `level` in both directions.
    pub hysteresis: u32,
    pub unit: QuorumUnit,
}

/// What is summed over the servers that take connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QuorumUnit {
    Servers,
    /// Their weights, as keepalived does.
    Weight,
}

impl Quorum {
    /// What a server of this weight adds.
    pub const fn worth(self, weight: u32) -> u32 {
        match self.unit {
            QuorumUnit::Servers => (weight > 0) as u32,
            QuorumUnit::Weight => weight,
        }
    }

    /// Whether it is reached with this sum, when it was (or was not) before.
    pub const fn is_reached(self, was_reached: bool, sum: u32) -> bool {
        match was_reached {
            true => sum > 0 && sum >= self.level.saturating_sub(self.hysteresis),
            false => sum >= self.gained_at(),
        }
    }

    /// The sum with which it is reached again after it was lost.
    pub const fn gained_at(self) -> u32 {
        self.level.saturating_add(self.hysteresis)
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self { level: 1, hysteresis: 0, unit: QuorumUnit::Servers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gained at level + hysteresis, lost below level − hysteresis or with nothing left.
    #[test]
    fn a_quorum_stays_what_it_was_between_its_two_ends() {
        let quorum = Quorum { level: 5, hysteresis: 2, unit: QuorumUnit::Weight };
        let turns: Vec<_> = (0..9)
            .map(|sum| (quorum.is_reached(true, sum), quorum.is_reached(false, sum)))
            .collect();
        let (lost, stays, reached) = ((false, false), (true, false), (true, true));
        assert_eq!(turns, [lost, lost, lost, stays, stays, stays, stays, reached, reached]);
        let one = Quorum { level: 2, hysteresis: 2, unit: QuorumUnit::Servers };
        assert!(!one.is_reached(true, 0), "nothing is no quorum");
    }
}
