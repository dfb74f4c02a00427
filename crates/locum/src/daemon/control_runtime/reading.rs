//! Reads a configuration for a reload, and looks whether this host can serve it, HAProxy's opinion of
//! its files included: each on a thread of its own and within its time, so that a dead file system
//! keeps nothing else from running.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use locum_config::{Loaded, Severity};
use locum_plan::Plan;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::configuration::Origin;
use crate::obstacles::{Occasion, findings};

/// How long a file system may take to give the configuration; less than a client waits, also with
/// the next limit added.
const READING_LIMIT: Duration = Duration::from_secs(30);

/// How long HAProxy may take, above its own limit; the rest takes milliseconds.
const HAPROXY_LIMIT: Duration = Duration::from_secs(15);

/// Threads that never came back, before no other is begun.
const MAX_STUCK: usize = 4;

/// What came of reading; the error is for a person.
pub type Reading = Result<Loaded, String>;

/// Where the threads are begun; clones share what hangs.
#[derive(Clone, Debug, Default)]
pub struct PlanReader {
    /// Those that have not come back.
    threads: Arc<AtomicUsize>,
}

impl PlanReader {
    /// A plan only if HAProxy would run every file it names; else findings say why not. What else
    /// this host lacks is a warning.
    pub async fn read(self, origin: Origin) -> Reading {
        let path = origin.path();
        let load = move || origin.load();
        let mut loaded = self.aside(&path, READING_LIMIT, load).await?;
        let serves = |plan: &Arc<Plan>| !plan.haproxy.is_empty() || !plan.services.is_empty();
        let Some(plan) = loaded.plan.clone().filter(serves) else {
            return Ok(loaded);
        };
        let files = plan.haproxy.iter().map(|file| file.config.to_string_lossy().into_owned());
        let what: Vec<String> = [path.clone()].into_iter().chain(files).collect();
        let ask = move || findings(&plan, &path, Occasion::Reload);
        for finding in self.aside(&what.join(", "), HAPROXY_LIMIT, ask).await? {
            if finding.severity == Severity::Error {
                loaded.plan = None;
            }
            loaded.diagnostics.push(finding);
        }
        Ok(loaded)
    }

    /// What `work`, which reads `what`, gives within the limit.
    async fn aside<T: Send + 'static>(
        &self,
        what: &str,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.threads.load(Ordering::Relaxed) >= MAX_STUCK {
            return Err(format!(
                "{what}: {MAX_STUCK} earlier reads still hang: look at its file system"
            ));
        }
        let (sender, receiver) = oneshot::channel();
        let thread = UnderWay::begin(&self.threads);
        let read = move || {
            let result = work();
            drop(thread);
            // Whoever waited may have given up.
            let _ = sender.send(result);
        };
        let started = thread::Builder::new().name("reload".to_owned()).spawn(read);
        started.map_err(|error| format!("{what}: cannot start a thread to read it: {error}"))?;
        match timeout(limit, receiver).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(format!("{what}: its reader ended without a result")),
            Err(_) => Err(format!(
                "{what} could not be read within {} seconds: look at its file system",
                limit.as_secs()
            )),
        }
    }
}

/// A thread, from before its start to the end of its work.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(threads: &Arc<AtomicUsize>) -> Self {
        threads.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(threads))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn reads_that_hang_keep_no_other_waiting_and_are_not_begun_without_end() {
        let reader = PlanReader::default();
        let hung: Vec<_> = (0..MAX_STUCK).map(|_| mpsc::channel::<()>()).collect();
        let mut ends = Vec::new();
        for (end, wait) in hung {
            let stuck = reader.aside("f", Duration::from_millis(1), move || wait.recv()).await;
            assert!(stuck.unwrap_err().contains("could not be read within 0 seconds"));
            ends.push(end);
        }
        let refused = reader.aside("f", LONG, || 1).await;
        assert_eq!(refused, Err("f: 4 earlier reads still hang: look at its file system".into()));
        drop(ends);
        while reader.threads.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        assert_eq!(reader.aside("f", LONG, || 1).await, Ok(1));
    }
}
