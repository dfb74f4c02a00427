//! The balancer thread: makes what is served equal to what the engine wants, the newest level first,
//! and reports how far it has come.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use locum_balancer::{
    Balancer, BalancerSettings, BalancerStatus, Note, Progress, ServeError, SupervisedProcess,
};
use locum_engine::{Input, Seq};
use locum_plan::WantedServices;
use tokio::sync::oneshot;

use super::inbox::{InboxSender, Message};

/// Jobs waiting. Of the levels only the last counts; when there is no room, the election keeps the
/// newest and offers it again.
const QUEUE_JOBS: usize = 64;

/// Notes kept for those who ask what came of a reload: several of each HAProxy on a large director.
const NOTES_KEPT: usize = 256;

/// The backends talk to processes and parse short lines.
const STACK_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub enum BalancerJob {
    /// What this node serves from now on.
    Serve { seq: Seq, wanted: Arc<WantedServices> },
    /// Asks what is served now.
    Status(oneshot::Sender<BalancerStatus>),
    /// Asks to be answered when nothing runs or drains any more.
    Idle(oneshot::Sender<()>),
    /// Asks to be answered when nothing is pending or changes any more, with the notes since then.
    Settle { since: Instant, answer: oneshot::Sender<Settled> },
}

/// What came of a level, as far as it is known: nothing of it is under way.
#[derive(Debug)]
pub struct Settled {
    pub notes: Vec<Note>,
    pub processes: Vec<SupervisedProcess>,
    pub failed: Vec<ServeError>,
}

/// Starts the thread.
///
/// # Errors
/// When it cannot be had.
pub fn start(
    settings: BalancerSettings,
    inbox: InboxSender,
) -> io::Result<SyncSender<BalancerJob>> {
    let (jobs, queue) = mpsc::sync_channel(QUEUE_JOBS);
    thread::Builder::new().name("balancer".to_owned()).stack_size(STACK_BYTES).spawn(
        move || {
            let balancer = Balancer::new(settings);
            let thread = BalancerThread {
                balancer,
                inbox,
                idle: Vec::new(),
                settling: Vec::new(),
                notes: VecDeque::new(),
                reported: None,
            };
            thread.run(&queue);
        },
    )?;
    Ok(jobs)
}

/// Whether the engine hears of what it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerOwed {
    /// It asked.
    Always,
    IfAnother,
}

struct BalancerThread {
    balancer: Balancer,
    inbox: InboxSender,
    idle: Vec<oneshot::Sender<()>>,
    settling: Vec<(Instant, oneshot::Sender<Settled>)>,
    /// The last ones, and when they were noted.
    notes: VecDeque<(Instant, Note)>,
    /// Number of the level in effect, and what was reported of it last.
    reported: Option<(Seq, Progress)>,
}

impl BalancerThread {
    fn run(mut self, queue: &Receiver<BalancerJob>) {
        loop {
            let first = match self.balancer.next_tick() {
                Some(wait) => queue.recv_timeout(wait),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(job) => self.handle(job, queue),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Ticks are due by the clock, not by silence: a stream of jobs must not delay them.
            if self.balancer.next_tick() == Some(Duration::ZERO) {
                self.balancer.tick();
                self.report_change();
            }
            for note in self.balancer.take_notes() {
                tracing::info!(service = %note.name, "{}", note.text);
                if self.notes.len() == NOTES_KEPT {
                    self.notes.pop_front();
                }
                self.notes.push_back((Instant::now(), note));
            }
            self.answer_settled();
            if self.balancer.is_idle() {
                for waiting in self.idle.drain(..) {
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn answer_settled(&mut self) {
        self.settling.retain(|(_, answer)| !answer.is_closed());
        if self.settling.is_empty() {
            return;
        }
        let Progress { pending, failed, .. } = self.balancer.progress();
        if !pending.is_empty() {
            return;
        }
        // Asked last: the proxy is asked for it.
        let processes = self.balancer.status().processes;
        if processes.iter().any(|process| process.is_changing) {
            return;
        }
        for (since, answer) in self.settling.drain(..) {
            let notes = self.notes.iter().filter(|(at, _)| *at >= since);
            let notes = notes.map(|(_, note)| note.clone()).collect();
            let (processes, failed) = (processes.clone(), failed.clone());
            let _ = answer.send(Settled { notes, processes, failed });
        }
    }

    /// Whatever becomes ready, fails or recovers is another answer to the level in effect. Who is
    /// strained serves on: that is no other answer, and said by itself.
    fn report_change(&mut self) {
        let Some((seq, _)) = self.reported else { return };
        self.report(seq, AnswerOwed::IfAnother);
    }

    fn report(&mut self, seq: Seq, answer: AnswerOwed) {
        let progress = self.balancer.progress();
        let before = self.reported.take().map(|(_, before)| before).unwrap_or_default();
        let Progress { pending, failed, strained } = &progress;
        let is_another = (pending, failed) != (&before.pending, &before.failed);
        if answer == AnswerOwed::Always || is_another {
            let (pending, failed) = (pending.clone(), failed.clone());
            self.inbox.send(Message::Input(Input::Served { seq, pending, failed }));
        }
        // After the answer to the level that names them.
        if *strained != before.strained {
            self.inbox.send(Message::Input(Input::Strained { strained: strained.clone() }));
        }
        self.reported = Some((seq, progress));
    }

    /// This job and all that wait behind it; of several levels the last.
    fn handle(&mut self, first: BalancerJob, queue: &Receiver<BalancerJob>) {
        let mut latest = None;
        let mut asked = Vec::new();
        for job in std::iter::once(first).chain(queue.try_iter()) {
            match job {
                BalancerJob::Serve { seq, wanted } => latest = Some((seq, wanted)),
                BalancerJob::Status(answer) => asked.push(answer),
                BalancerJob::Idle(answer) => self.idle.push(answer),
                BalancerJob::Settle { since, answer } => self.settling.push((since, answer)),
            }
        }
        if let Some((seq, wanted)) = latest {
            self.balancer.apply(&wanted);
            self.report(seq, AnswerOwed::Always);
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
