//! What became of a hook: a word for programs and a sentence for people.

use locum_check::End;

/// How it ended.
pub fn ran(end: &End) -> (&'static str, String) {
    match end {
        End::Exited(0) => ("ok", "exited with status 0".to_owned()),
        End::Exited(status) => ("failed", format!("exited with status {status}")),
        End::Signalled(signal) => ("failed", format!("killed by signal {signal}")),
        End::TimedOut(limit) => {
            ("timed-out", format!("killed after {}", humantime::format_duration(*limit)))
        }
        End::CannotRun(reason) | End::NoRoom(reason) => ("cannot-run", reason.clone()),
    }
}

/// Never begun, because of this event of its instance.
pub fn superseded(by: u64) -> (&'static str, String) {
    ("superseded", format!("not run: event {by} came first"))
}

/// Not begun yet, for this reason.
pub fn postponed(reason: &str) -> (&'static str, String) {
    ("postponed", format!("not run yet, tried again every second: {reason}"))
}
