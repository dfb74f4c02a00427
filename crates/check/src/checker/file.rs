//! The file probe: a number in a file says whether a server is used, or how much of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use locum_plan::{Outcome, ReportedWeight};
use tokio::time::{self, Instant};

use super::Answer;
use crate::spawn::Launcher;

/// A number with its sign and white space around it.
const FILE_BYTES: u64 = 64;

/// Reads the file once, on a thread of its own: its disk may be stuck.
pub(crate) async fn probe(
    launcher: &Launcher,
    path: &Path,
    factor: i32,
    timeout: Duration,
) -> Outcome {
    let begin = Instant::now();
    let owned = path.to_owned();
    let read = async {
        match launcher.begin(move || read(&owned)).await {
            Ok(receiver) => receiver.await.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(error) => Err(error),
        }
    };
    let answer = match time::timeout_at(begin + timeout, read).await {
        Ok(Ok(text)) => judge(path, &text, factor),
        Ok(Err(error)) => Answer::unasked(format!("cannot read {}: {error}", path.display())),
        Err(_) => Answer::unasked(format!(
            "cannot read {} within {timeout:?}: is its disk stuck?",
            path.display()
        )),
    };
    answer.after(begin.elapsed())
}

/// The start of the file; a file that is not there is empty.
fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// No number is 0, as to keepalived.
fn judge(path: &Path, text: &str, factor: i32) -> Answer {
    let number = match (text.is_empty(), text.parse::<i32>()) {
        (true, _) => 0,
        (false, Ok(number)) => number,
        (false, Err(_)) => {
            return Answer::unasked(format!("{} has no number in it", path.display()));
        }
    };
    match (factor, number) {
        (0, 0) => Answer::pass("0"),
        (0, number) => Answer::fail(format!("{} says {number}", path.display())),
        (factor, number) => {
            let change = number.saturating_mul(factor);
            let weight = Some(ReportedWeight::Added(change));
            Answer { weight, ..Answer::pass(number.to_string()) }
        }
    }
}
