//! A series of requests on an absolute schedule, and what became of each.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// Requests sent so far. Clones share the same record.
#[derive(Clone, Debug)]
pub struct Series {
    /// A request without an answer for so long is lost.
    patience: Duration,
    requests: Arc<Mutex<Vec<SentRequest>>>,
}

#[derive(Clone, Copy, Debug)]
struct SentRequest {
    sent: Instant,
    /// Who answered, by number.
    by: Option<u8>,
}

/// What became of a part of a series.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SeriesTally {
    /// Requests whose fate is known.
    pub sent: usize,
    pub lost: usize,
    /// From the first lost request of a row to the next one that was answered.
    pub longest_gap: Duration,
    /// Who answered, in order, each change once.
    pub answered_by: Vec<u8>,
}

impl Series {
    pub fn new(patience: Duration) -> Self {
        Self { patience, requests: Arc::default() }
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Notes a request sent now; the number is the one to answer with.
    pub fn send(&self) -> usize {
        let mut requests = self.lock();
        requests.push(SentRequest { sent: Instant::now(), by: None });
        requests.len() - 1
    }

    /// Notes an answer. One that comes too late, or to nothing, counts for nothing.
    pub fn answer(&self, number: usize, by: u8) {
        if let Some(request) = self.lock().get_mut(number)
            && request.by.is_none()
            && request.sent.elapsed() <= self.patience
        {
            request.by = Some(by);
        }
    }

    /// Number of the next request: a mark to measure from or to.
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    /// What became of the requests in `range`; those that may still be answered are left out.
    pub fn tally(&self, range: Range<usize>) -> SeriesTally {
        let now = Instant::now();
        let requests = self.lock();
        let end = range.end.min(requests.len());
        let known = requests.get(range.start..end).unwrap_or_default().iter().filter(|request| {
            request.by.is_some() || now.duration_since(request.sent) > self.patience
        });
        let mut tally = SeriesTally::default();
        let mut silent_since: Option<Instant> = None;
        let mut last = None;
        for request in known {
            tally.sent += 1;
            last = Some(request.sent);
            if let Some(by) = request.by {
                if tally.answered_by.last() != Some(&by) {
                    tally.answered_by.push(by);
                }
                if let Some(since) = silent_since.take() {
                    let gap = request.sent.duration_since(since);
                    tally.longest_gap = tally.longest_gap.max(gap);
                }
            } else {
                tally.lost += 1;
                silent_since.get_or_insert(request.sent);
            }
        }
        if let (Some(since), Some(last)) = (silent_since, last) {
            tally.longest_gap = tally.longest_gap.max(last.duration_since(since));
        }
        tally
    }

    /// How many answers came from each of `count` sources.
    pub fn answers_by(&self, count: usize) -> Vec<usize> {
        let mut answers = vec![0; count];
        for by in self.lock().iter().filter_map(|request| request.by) {
            if let Some(of_source) = answers.get_mut(usize::from(by)) {
                *of_source += 1;
            }
        }
        answers
    }

    /// The last answer: who gave it, and how long ago its request was sent.
    pub fn last_answer(&self) -> Option<(u8, Duration)> {
        let requests = self.lock();
        requests.iter().rev().find_map(|request| Some((request.by?, request.sent.elapsed())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SentRequest>> {
        // A thread that panicked has left a record that is whole: each change is one store.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests a millisecond apart, all older than any patience.
    fn series(answers: &[Option<u8>]) -> Series {
        let series = Series::new(Duration::ZERO);
        let start = Instant::now() - Duration::from_secs(1);
        *series.lock() = (0..)
            .zip(answers)
            .map(|(place, by)| SentRequest { sent: start + Duration::from_millis(place), by: *by })
            .collect();
        series
    }

    #[test]
    fn a_gap_lasts_from_the_first_lost_request_to_the_next_answered_one() {
        let series = series(&[Some(0), None, None, Some(1), None, Some(1)]);
        let tally = series.tally(0..6);
        assert_eq!((tally.sent, tally.lost), (6, 3));
        assert_eq!(tally.longest_gap, Duration::from_millis(2));
        assert_eq!(tally.answered_by, [0, 1]);
    }

    #[test]
    fn a_gap_that_never_ends_is_a_gap() {
        let tally = series(&[Some(0), None, None, None]).tally(0..4);
        assert_eq!((tally.lost, tally.longest_gap), (3, Duration::from_millis(2)));
    }

    #[test]
    fn only_the_asked_part_is_counted() {
        let series = series(&[None, Some(0), Some(0), None]);
        assert_eq!(series.tally(1..3).lost, 0);
        assert_eq!(series.tally(1..99).sent, 3);
        assert_eq!(series.tally(7..9), SeriesTally::default());
    }

    #[test]
    fn a_late_answer_counts_for_nothing() {
        let series = series(&[None]);
        series.answer(0, 1);
        series.answer(5, 1);
        assert_eq!(series.tally(0..1).lost, 1);
    }

    #[test]
    fn an_open_request_is_neither_answered_nor_lost() {
        let series = Series::new(Duration::from_secs(3600));
        let number = series.send();
        assert_eq!(series.tally(0..1).sent, 0);
        series.answer(number, 1);
        assert_eq!(
            series.tally(0..1),
            SeriesTally { sent: 1, answered_by: vec![1], ..SeriesTally::default() }
        );
        assert_eq!(series.answers_by(2), [0, 1]);
    }
}
