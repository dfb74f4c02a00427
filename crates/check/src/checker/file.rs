//! The file probe: a number in a file says whether a server is used, or how much of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locum_plan::{Outcome, ReportedWeight};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{self, Instant};

use super::conversation::excerpt;
use super::{Answer, Shared};

/// A number with its sign and white space around it.
const FILE_BYTES: u64 = 64;

/// Paths that are remembered; beyond, those that nobody reads now are forgotten.
const MOST: usize = 256;

/// One lock for each path: a file on a disk that is stuck is waited for by one thread, however often it
/// is asked for.
#[derive(Default, Debug)]
pub(crate) struct PathLocks(Mutex<HashMap<PathBuf, Arc<AsyncMutex<()>>>>);

impl PathLocks {
    fn of(&self, path: &Path) -> Arc<AsyncMutex<()>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(path) {
            known.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(known.entry(path.to_owned()).or_default())
    }
}

/// Reads the file once, on a thread of its own: its disk may be stuck.
pub(crate) async fn probe(shared: &Shared, path: &Path, factor: i32, timeout: Duration) -> Outcome {
    let begin = Instant::now();
    let owned = path.to_owned();
    let read = async {
        let reading = shared.paths.of(path).lock_owned().await;
        let work = move || {
            let text = read(&owned);
            drop(reading);
            text
        };
        match shared.readers.begin(work).await {
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

/// Nothing is 0, as to keepalived; what is no number says nothing.
fn judge(path: &Path, text: &str, factor: i32) -> Answer {
    let number = match (text.is_empty(), text.parse::<i32>()) {
        (true, _) => 0,
        (false, Ok(number)) => number,
        (false, Err(_)) => {
            return Answer::unasked(format!(
                "{} has \"{}\" in it: write a whole number",
                path.display(),
                excerpt(text.as_bytes())
            ));
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
