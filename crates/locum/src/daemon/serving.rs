//! The balancer thread: makes what is served equal to what the engine wants, the latest wish first.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use locum_balancer::{Balancer, BalancerSettings, BalancerStatus, Event};
use locum_engine::{Input, Seq};
use locum_plan::{Name, WantedServices};
use tokio::sync::oneshot;

use super::inbox::{InboxSender, Message};

/// Wishes and questions waiting. Of the wishes only the last counts; when there is no room, the
/// election keeps the newest and offers it again.
const QUEUE_WISHES: usize = 64;

/// The backends talk to processes and parse short lines.
const STACK_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub enum Wish {
    /// What this node serves from now on.
    Serve { seq: Seq, wanted: Arc<WantedServices> },
    /// What is served now.
    Status(oneshot::Sender<BalancerStatus>),
    /// Told when nothing runs or drains any more.
    Idle(oneshot::Sender<()>),
}

/// Starts the thread.
///
/// # Errors
/// When it cannot be had.
pub fn start(settings: BalancerSettings, inbox: InboxSender) -> io::Result<SyncSender<Wish>> {
    let (wishes, queue) = mpsc::sync_channel(QUEUE_WISHES);
    thread::Builder::new().name("balancer".to_owned()).stack_size(STACK_BYTES).spawn(
        move || {
            let serving = Serving {
                balancer: Balancer::new(settings),
                inbox,
                idle: Vec::new(),
                seq: None,
                errors: BTreeMap::new(),
            };
            serving.run(&queue);
        },
    )?;
    Ok(wishes)
}

struct Serving {
    balancer: Balancer,
    inbox: InboxSender,
    idle: Vec<oneshot::Sender<()>>,
    /// Number of the level in effect.
    seq: Option<Seq>,
    /// What is wanted and not served, and why: changed by a level, a failure and a recovery.
    errors: BTreeMap<Name, String>,
}

impl Serving {
    fn run(mut self, queue: &Receiver<Wish>) {
        loop {
            let first = match self.balancer.next_tick() {
                Some(wait) => queue.recv_timeout(wait),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(wish) => self.take(wish, queue),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Ticks are due by the clock, not by silence: a stream of wishes must not delay them.
            if self.balancer.next_tick() == Some(Duration::ZERO) {
                self.tick();
            }
            if self.balancer.is_idle() {
                for waiting in self.idle.drain(..) {
                    let _ = waiting.send(());
                }
            }
        }
    }

    /// What changed by itself is told as a new answer to the level in effect.
    fn tick(&mut self) {
        let before = self.errors.clone();
        for event in self.balancer.tick() {
            match event {
                Event::Failed { name, error } => {
                    self.errors.insert(name, error);
                }
                Event::Recovered { name } => {
                    self.errors.remove(&name);
                }
                Event::Note { name, text } => tracing::info!(service = %name, "{text}"),
            }
        }
        if self.errors != before {
            self.answer();
        }
    }

    fn answer(&self) {
        let Some(seq) = self.seq else { return };
        let failed = self.errors.clone().into_iter().collect();
        self.inbox.send(Message::Input(Input::Served { seq, pending: Vec::new(), failed }));
    }

    /// This wish and all that wait behind it; of several levels the last.
    fn take(&mut self, first: Wish, queue: &Receiver<Wish>) {
        let mut latest = None;
        let mut asked = Vec::new();
        for wish in std::iter::once(first).chain(queue.try_iter()) {
            match wish {
                Wish::Serve { seq, wanted } => latest = Some((seq, wanted)),
                Wish::Status(answer) => asked.push(answer),
                Wish::Idle(answer) => self.idle.push(answer),
            }
        }
        if let Some((seq, wanted)) = latest {
            let result = self.balancer.apply(&wanted);
            self.seq = Some(seq);
            self.errors = result.err().unwrap_or_default().into_iter().collect();
            self.answer();
        }
        if !asked.is_empty() {
            let status = self.balancer.status();
            for answer in asked {
                // Whoever asked may have given up waiting.
                let _ = answer.send(status.clone());
            }
        }
    }
}
