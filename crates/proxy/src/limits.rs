//! How many connections the process takes, and who waits for the last one to end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most client connections at a time, whatever the descriptor limit: at some 8 KB of kernel memory
/// for an idle pair of sockets this is half a gigabyte.
pub const CONNECTION_LIMIT: usize = 65_536;

/// Descriptors kept back for listeners, control connections and the runtime.
const RESERVED_DESCRIPTORS: usize = 128;

#[derive(Debug)]
pub struct Limits {
    permits: Arc<Semaphore>,
    limit: usize,
    active: Cell<u64>,
    accept_pauses: Cell<u64>,
    /// Notified when the last connection ended.
    pub idle: Notify,
}

impl Limits {
    /// As many as the hard limit of descriptors allows, two for each connection.
    pub fn of_process() -> Self {
        let descriptors = raise_descriptor_limit();
        let limit =
            (descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).clamp(1, CONNECTION_LIMIT);
        Self::new(limit)
    }

    pub fn new(limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            active: Cell::new(0),
            accept_pauses: Cell::new(0),
            idle: Notify::new(),
        }
    }

    pub fn note_accept_pause(&self) {
        self.accept_pauses.set(self.accept_pauses.get() + 1);
    }

    pub fn accept_pauses(&self) -> u64 {
        self.accept_pauses.get()
    }

    pub fn limit(&self) -> u64 {
        self.limit as u64
    }

    pub fn active(&self) -> u64 {
        self.active.get()
    }
}

/// A client connection under way.
#[derive(Debug)]
pub struct Permit {
    limits: Rc<Limits>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Waits until one more client may be served.
    pub async fn take(limits: &Rc<Limits>) -> Self {
        // The semaphore is never closed; if it were, the limit would no longer hold.
        let permit = limits.permits.clone().acquire_owned().await.ok();
        limits.active.set(limits.active.get() + 1);
        Self { limits: limits.clone(), _permit: permit }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left = self.limits.active.get().saturating_sub(1);
        self.limits.active.set(left);
        if left == 0 {
            self.limits.idle.notify_one();
        }
    }
}

/// The soft limit is made the hard one, which is there for servers; returns what is in force.
fn raise_descriptor_limit() -> usize {
    /// What every Linux gives a process, if it cannot be asked.
    const FALLBACK: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FALLBACK as usize;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let in_force = if raised { hard } else { soft };
    usize::try_from(in_force).unwrap_or(usize::MAX)
}
