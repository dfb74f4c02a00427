//! Dead, hung or merely overloaded: what is made of what was seen at one listener.
//!
//! The difference matters. One that does not answer is a reason to serve elsewhere; one that has too
//! many clients is not, since they would come along.
//!
//! | seen | and | judged |
//! |---|---|---|
//! | the connection is refused | | failed |
//! | an answer that it must not give | | failed |
//! | answered after all | | busy: strained |
//! | not accepted | the process does not wait for clients there | full: strained |
//! | not accepted, or not answered | the process works, or others were accepted | busy: strained, failed after 30 s |
//! | not accepted, or not answered | the process does nothing | hung: failed |
//!
//! Where it is not to be seen whether the process waits for clients, an idle one may be full as well
//! as hung: strained, and failed after 30 s.

use std::time::{Duration, Instant};

/// Misses in a row before anything is made of them; one answer makes up for all.
const FALL: usize = 2;

/// Even a crowd lets somebody in within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What became of one inquiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Observation {
    Answered,
    /// After it had been missed: a client with patience is served.
    Late,
    Refused,
    /// The kernel keeps the connection, or not even that; in time nobody has accepted it.
    Unaccepted(Evidence),
    /// Accepted, and no word in time.
    Unanswered(Evidence),
    /// Answered with this status of HTTP, or none, when that is not what clients are to get.
    Rejected(Option<u16>),
}

/// What the process did while it did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Evidence {
    /// It waits for clients of this listener; `None` when that cannot be seen.
    pub watched: Option<bool>,
    /// It used the processor or waited for it, or the queue of the listener became shorter.
    pub progress: bool,
}

/// What clients of one listener have of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Judgement {
    Answers,
    Strained(Overload),
    Failed(Failing),
}

/// In the order in which one is named before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Overload {
    /// It takes longer than it may, and works.
    Busy,
    /// It takes no further clients until some have left.
    Full,
}

/// In the order in which one is named before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Failing {
    Rejects(Option<u16>),
    /// It works, or seems to, and for 30 s it has answered nobody.
    Spins,
    Unanswering,
    Unaccepting,
    Refuses,
}

/// What was seen at one listener, as much of it as counts.
#[derive(Clone, Debug)]
pub(super) struct MissHistory {
    answered: Instant,
    misses: Vec<Observation>,
}

impl MissHistory {
    /// Nothing is known to be wrong at first.
    pub(super) fn new(now: Instant) -> Self {
        Self { answered: now, misses: Vec::new() }
    }

    pub(super) fn add(&mut self, seen: Observation, now: Instant) {
        match seen {
            Observation::Answered => *self = Self::new(now),
            Observation::Late => {
                *self = Self { answered: now, misses: vec![Observation::Late; FALL] };
            }
            Observation::Refused
            | Observation::Unaccepted(_)
            | Observation::Unanswered(_)
            | Observation::Rejected(_) => {
                if self.misses.len() == FALL {
                    self.misses.remove(0);
                }
                self.misses.push(seen);
            }
        }
    }

    /// The mildest that the last misses agree upon.
    pub(super) fn judgement(&self, now: Instant) -> Judgement {
        if self.misses.len() < FALL {
            return Judgement::Answers;
        }
        let silence = now.saturating_duration_since(self.answered);
        let judgements = self.misses.iter().map(|miss| judge(*miss, silence));
        judgements.min().unwrap_or(Judgement::Answers)
    }
}

/// One miss, by one whose last answer was so long ago.
fn judge(seen: Observation, silence: Duration) -> Judgement {
    let is_long = silence >= PATIENCE;
    let (evidence, hung) = match seen {
        Observation::Answered => return Judgement::Answers,
        Observation::Late => return Judgement::Strained(Overload::Busy),
        Observation::Refused => return Judgement::Failed(Failing::Refuses),
        Observation::Rejected(status) => return Judgement::Failed(Failing::Rejects(status)),
        Observation::Unaccepted(Evidence { watched: Some(false), .. }) => {
            return Judgement::Strained(Overload::Full);
        }
        Observation::Unaccepted(evidence) => (evidence, Failing::Unaccepting),
        // Whoever was accepted is past the listener.
        Observation::Unanswered(evidence) => {
            (Evidence { watched: Some(true), ..evidence }, Failing::Unanswering)
        }
    };
    match (evidence.progress, evidence.watched) {
        (true, _) if is_long => Judgement::Failed(Failing::Spins),
        (true, _) => Judgement::Strained(Overload::Busy),
        (false, None) if !is_long => Judgement::Strained(Overload::Full),
        (false, _) => Judgement::Failed(hung),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Evidence = Evidence { watched: Some(true), progress: false };
    const WORKS: Evidence = Evidence { watched: Some(true), progress: true };
    const CLOSED: Evidence = Evidence { watched: Some(false), progress: false };
    const HIDDEN: Evidence = Evidence { watched: None, progress: false };

    /// Each after a second more.
    fn after(all: &[Observation]) -> Judgement {
        let start = Instant::now();
        let mut history = MissHistory::new(start);
        let mut now = start;
        for seen in all {
            now += Duration::from_secs(1);
            history.add(*seen, now);
        }
        history.judgement(now)
    }

    #[test]
    fn what_is_dead_hung_or_refused_has_failed_and_what_is_full_or_busy_has_not() {
        let full = Judgement::Strained(Overload::Full);
        let busy = Judgement::Strained(Overload::Busy);
        for (seen, expected) in [
            (Observation::Answered, Judgement::Answers),
            (Observation::Refused, Judgement::Failed(Failing::Refuses)),
            (Observation::Rejected(Some(503)), Judgement::Failed(Failing::Rejects(Some(503)))),
            (Observation::Unaccepted(IDLE), Judgement::Failed(Failing::Unaccepting)),
            (Observation::Unaccepted(WORKS), busy),
            (Observation::Unaccepted(CLOSED), full),
            (Observation::Unaccepted(Evidence { progress: true, ..CLOSED }), full),
            (Observation::Unaccepted(HIDDEN), full),
            (Observation::Unaccepted(Evidence { progress: true, ..HIDDEN }), busy),
            (Observation::Unanswered(IDLE), Judgement::Failed(Failing::Unanswering)),
            (Observation::Unanswered(WORKS), busy),
            (Observation::Unanswered(CLOSED), Judgement::Failed(Failing::Unanswering)),
            (Observation::Unanswered(HIDDEN), Judgement::Failed(Failing::Unanswering)),
        ] {
            assert_eq!(after(&[seen]), Judgement::Answers, "one alone: {seen:?}");
            assert_eq!(after(&[seen, seen]), expected, "{seen:?}");
            assert_eq!(after(&[seen, Observation::Answered, seen]), Judgement::Answers, "{seen:?}");
            assert_eq!(after(&[seen, seen, Observation::Answered]), Judgement::Answers, "{seen:?}");
        }
    }

    #[test]
    fn a_full_listener_stays_full_and_everything_else_ends_in_failure() {
        let long = |seen| after(&[seen; 31]);
        assert_eq!(long(Observation::Unaccepted(CLOSED)), Judgement::Strained(Overload::Full));
        assert_eq!(long(Observation::Unaccepted(WORKS)), Judgement::Failed(Failing::Spins));
        assert_eq!(long(Observation::Unanswered(WORKS)), Judgement::Failed(Failing::Spins));
        assert_eq!(long(Observation::Unaccepted(HIDDEN)), Judgement::Failed(Failing::Unaccepting));
        let hidden = Observation::Unaccepted(HIDDEN);
        assert_eq!(after(&[hidden; 29]), Judgement::Strained(Overload::Full));
    }

    #[test]
    fn whoever_answers_late_is_busy_however_long_that_goes_on() {
        let busy = Judgement::Strained(Overload::Busy);
        assert_eq!(after(&[Observation::Late]), busy);
        assert_eq!(after(&[Observation::Late, Observation::Answered]), Judgement::Answers);
        let works = Observation::Unanswered(WORKS);
        assert_eq!(after(&[works, works, Observation::Late].repeat(20)), busy);
        let idle = Observation::Unanswered(IDLE);
        assert_eq!(after(&[idle, idle, Observation::Late]), busy, "it does not hang any more");
    }

    /// A process that pauses now and then is none that hangs.
    #[test]
    fn the_milder_of_two_different_misses_counts() {
        let busy = Judgement::Strained(Overload::Busy);
        assert_eq!(after(&[Observation::Unaccepted(IDLE), Observation::Unaccepted(WORKS)]), busy);
        assert_eq!(after(&[Observation::Unaccepted(WORKS), Observation::Refused]), busy);
        let refused = Judgement::Failed(Failing::Unaccepting);
        assert_eq!(after(&[Observation::Refused, Observation::Unaccepted(IDLE)]), refused);
    }
}
