//! What the control runtime knows: how far the daemon is, and what is under way.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use locum_balancer::BalancerStatus;
use locum_control::Response;
use locum_engine::Reply;
use locum_engine::status::NodeSnapshot;
use locum_plan::Plan;
use locum_vrrp::Time;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hooks::HookQueues;
use super::order_book::{OrderBook, Ordered};
use super::outbox::Outbox;
use super::reading::{PlanReader, Reading};
use crate::configuration::Origin;
use crate::daemon::applier::JobSender;
use crate::daemon::balancer_thread::BalancerJob;
use crate::daemon::election::Dropped;
use crate::daemon::history::History;
use crate::daemon::host::control_socket::ControlSocket;
use crate::daemon::host::log::Log;
use crate::daemon::host::namespace_lock::NamespaceLock;
use crate::daemon::inbox::InboxSender;
use crate::daemon::status::wall_clock::WallClock;

/// What the control runtime works with.
pub struct Handles {
    pub inbox: InboxSender,
    pub applier: JobSender,
    pub balancer: SyncSender<BalancerJob>,
    pub log: Log,
    /// Reports that found no room.
    pub dropped: Arc<Dropped>,
    pub history: History,
    pub origin: Origin,
    pub plan: Arc<Plan>,
    pub socket: ControlSocket,
    pub namespace_lock: NamespaceLock,
}

/// Something that ran beside the task has ended.
pub enum Done {
    Loaded(Reading, Option<oneshot::Sender<Response>>),
    Sent(Sent),
    TakenUp(TakenUp),
    Status(Box<((Time, NodeSnapshot), Option<BalancerStatus>)>),
    /// What is in force of the orders for servers.
    Ordered(Ordered),
    BalancerIdle,
}

pub struct ControlRuntime {
    pub handles: Handles,
    pub hooks: HookQueues,
    pub done: UnboundedSender<Done>,
    pub finished: UnboundedReceiver<Done>,
    pub started: SystemTime,
    pub configured: SystemTime,
    pub reload: Reload,
    pub outbox: Outbox,
    pub order_book: OrderBook,
    /// When things happened, for people.
    pub wall: WallClock,
    pub status_requests: StatusRequests,
    pub phase: StopPhase,
    /// The history knows that log lines cannot be written.
    pub log_is_lost: bool,
    /// When the start or the last reload has settled, and its text is not needed any more.
    pub settles: Option<Instant>,
}

/// How far the end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopPhase {
    Running,
    Stopping { until: Instant },
    Finishing { until: Instant, balancer_is_idle: bool },
}

impl StopPhase {
    pub fn until(self) -> Option<Instant> {
        match self {
            Self::Running => None,
            Self::Stopping { until } | Self::Finishing { until, .. } => Some(until),
        }
    }

    /// The engine says it is done once; afterwards there is nothing to wait for.
    pub fn awaits_engine(self) -> bool {
        match self {
            Self::Running | Self::Stopping { .. } => true,
            Self::Finishing { .. } => false,
        }
    }
}

/// How far the reload under way is.
#[derive(Debug, Default)]
pub struct Reload {
    pub state: ReloadState,
    pub reader: PlanReader,
}

/// A plan that was sent to the engine.
pub struct Sent {
    pub plan: Arc<Plan>,
    pub since: std::time::Instant,
    /// What the engine says about it; `None` when it ended instead.
    pub engine: Option<Reply>,
    pub warnings: String,
    pub answer: Option<oneshot::Sender<Response>>,
}

/// What came of a plan that is in effect.
pub struct TakenUp {
    /// For the log and the history; empty when nothing has changed.
    pub log: String,
    pub is_incomplete: bool,
    pub response: Response,
    pub answer: Option<oneshot::Sender<Response>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReloadState {
    #[default]
    Idle,
    /// Until the files are read and judged; `again` when a signal asked for another meanwhile.
    Reading { again: bool },
    /// Until the engine has it.
    Sending { again: bool },
}

impl ReloadState {
    pub fn and_again(self) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Reading { .. } => Self::Reading { again: true },
            Self::Sending { .. } => Self::Sending { again: true },
        }
    }
}

/// Who waits, and what was answered last.
#[derive(Debug, Default)]
pub struct StatusRequests {
    pub waiting: Vec<oneshot::Sender<Response>>,
    pub last: Option<(Instant, Response)>,
}

impl StatusRequests {
    /// What was answered last is not so any more.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// The inbox of the election is full.
pub fn answer_busy(answer: Option<oneshot::Sender<Response>>) {
    let message = "the daemon is busy: try again".to_owned();
    tracing::error!("{message}");
    if let Some(answer) = answer {
        let _ = answer.send(Response::Error { message });
    }
}
