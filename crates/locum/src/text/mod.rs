//! Sentences for operators, all in one place: what happened, what needs them, and why.
//!
//! | module | says |
//! |---|---|
//! | [`event`] | what happened: the log line and the entry of the history |
//! | [`fitness`] | what is served, or could be, and what that does to the election |
//! | [`hook`] | what became of a hook |
//! | [`problem`] | what needs an operator |
//! | [`reload`] | what a reload took up |
//! | [`served`] | what is wrong with what is served |
//! | [`why`] | how each instance came to its role and priority |

pub mod event;
pub mod fitness;
pub mod hook;
pub mod problem;
pub mod reload;
pub mod served;
pub mod why;

use std::time::Duration;

pub use locum_plan::{first_few, thousands};

/// A span of milliseconds with the one or two units that matter.
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{seconds}.{}s", ms % 1000 / 100),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

/// For a document: whole milliseconds.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_show_the_units_that_matter() {
        let spans = [340, 9_900, 59_000, 61_000, 7_380_000, 90_000_000];
        let words: Vec<String> = spans.into_iter().map(age).collect();
        assert_eq!(words, ["0.3s", "9.9s", "59s", "1m01s", "2h03m", "1d01h"]);
    }

    #[test]
    fn of_a_long_list_the_first_few_are_shown_and_the_rest_is_counted() {
        let all: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(first_few(&all, " "), "a b c and 2 more");
        assert_eq!(first_few(&all[..3], "; "), "a; b; c");
        assert_eq!(first_few(&[], "; "), "");
        assert_eq!([0, 999, 1_000, 1_234_067].map(thousands), ["0", "999", "1,000", "1,234,067"]);
    }
}
