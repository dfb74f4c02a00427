//! Is a process alive enough to serve anybody, and does it do anything?

use std::fs;

use crate::process::stat_fields;

/// What /proc says of some processes together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Vitals {
    /// All of them that can be seen are stopped, traced or dead.
    pub is_stopped: bool,
    /// One of them has a processor, or waits for one that others have.
    pub is_ready: bool,
    /// Processor time that they have used, in ticks of 10 ms.
    pub ticks: u64,
}

impl Vitals {
    /// `None` when none of them is there, or none may be looked at.
    pub(super) fn of(processes: &[u32]) -> Option<Self> {
        let text = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let all = processes.iter().filter_map(|pid| parse(&text(pid)?));
        all.reduce(|one, other| Self {
            is_stopped: one.is_stopped && other.is_stopped,
            is_ready: one.is_ready || other.is_ready,
            ticks: one.ticks.saturating_add(other.ticks),
        })
    }
}

/// User and system time are fields 14 and 15.
fn parse(stat: &str) -> Option<Vitals> {
    let mut fields = stat_fields(stat)?;
    let state = fields.next()?;
    let (is_stopped, is_ready) = (matches!(state, "T" | "t" | "Z" | "X" | "x"), state == "R");
    let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    let ticks = times.next()?.saturating_add(times.next()?);
    Some(Vitals { is_stopped, is_ready, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_times_are_found_behind_any_name() {
        let line = |state| {
            format!(
                "7 (a) b (c) {state} 1 7 7 0 -1 4194560 165 0 0 0 30 12 0 0 20 0 1 0 22938 8888"
            )
        };
        for (state, is_stopped) in
            [("R", false), ("S", false), ("D", false), ("T", true), ("t", true), ("Z", true)]
        {
            let expected = Vitals { is_stopped, is_ready: state == "R", ticks: 42 };
            assert_eq!(parse(&line(state)), Some(expected), "{state}");
        }
        for end in 0..40 {
            assert_eq!(parse(&line("S")[..end]), None);
        }
    }

    #[test]
    fn one_of_several_that_goes_on_is_enough() {
        let own = std::process::id();
        assert!(!Vitals::of(&[own]).unwrap().is_stopped);
        assert!(!Vitals::of(&[u32::MAX, own]).unwrap().is_stopped);
        assert_eq!(Vitals::of(&[u32::MAX]), None, "there is no such process");
    }
}
