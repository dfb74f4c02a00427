//! A status is collected from the engine and the balancer, once for all who ask meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use locum_balancer::BalancerStatus;
use locum_control::Response;
use locum_engine::status::NodeSnapshot;
use locum_vrrp::Time;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::state::{ControlRuntime, Done, answer_busy};
use crate::daemon::balancer_thread::BalancerJob;
use crate::daemon::inbox::Message;
use crate::daemon::status::document::{StatusInputs, compose};

/// How long the balancer may take to say what it serves; it may be starting a HAProxy.
const BALANCER_LIMIT: Duration = Duration::from_secs(1);

/// A status is this fresh: many who ask at once are answered from one look at the engine.
const STATUS_AGE: Duration = Duration::from_millis(20);

/// The clocks are read so often until both are read at nearly the same time: a thread is seldom
/// interrupted just there, and hardly ever twice.
const CLOCK_READINGS: u32 = 5;

impl ControlRuntime {
    pub(super) fn begin_status(&mut self, answer: oneshot::Sender<Response>) {
        if let Some((taken, response)) = &self.status_requests.last
            && taken.elapsed() < STATUS_AGE
        {
            let _ = answer.send(response.clone());
            return;
        }
        self.status_requests.waiting.push(answer);
        if self.status_requests.waiting.len() > 1 {
            return;
        }
        let (engine, from_engine) = oneshot::channel();
        let (balancer, from_balancer) = oneshot::channel();
        let asked = self.handles.inbox.try_send(Message::Status { answer: engine });
        // Without room the balancer's part is missing and the document says so.
        let _ = self.handles.balancer.try_send(BalancerJob::Status(balancer));
        if asked.is_err() {
            return self
                .status_requests
                .waiting
                .drain(..)
                .for_each(|answer| answer_busy(Some(answer)));
        }
        let done = self.done.clone();
        tokio::spawn(async move {
            let balancer = timeout(BALANCER_LIMIT, from_balancer).await;
            if let Ok(engine) = from_engine.await {
                let balancer = balancer.ok().and_then(Result::ok);
                let _ = done.send(Done::Status(Box::new((engine, balancer))));
            }
        });
    }

    pub(super) fn end_status(
        &mut self,
        (taken, engine): &(Time, NodeSnapshot),
        balancer: Option<&BalancerStatus>,
    ) {
        let now = self.read_the_clocks();
        let document = compose(&StatusInputs {
            engine,
            balancer,
            plan: &self.handles.plan,
            config: &self.handles.origin.path(),
            started: self.started,
            configured: self.configured,
            dropped: self.handles.dropped.reports.load(Ordering::Relaxed)
                + self.handles.log.dropped(),
            now,
            taken: *taken,
            wall: &self.wall,
        });
        let response = Response::Status { status: Box::new(document) };
        for answer in self.status_requests.waiting.drain(..) {
            let _ = answer.send(response.clone());
        }
        self.status_requests.last = Some((Instant::now(), response));
    }

    /// The time of day, with its distance to the engine's clock measured.
    fn read_the_clocks(&mut self) -> SystemTime {
        let clock = || Time::from_nanos(locum_kernel::clock::now());
        let mut now = SystemTime::now();
        for _ in 0..CLOCK_READINGS {
            let before = clock();
            now = SystemTime::now();
            if self.wall.measure(before, now, clock()) {
                break;
            }
        }
        now
    }
}
