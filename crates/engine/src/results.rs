//! What the applier and the sockets report back: the kernel's answer to each level, and what left.

use std::time::Duration;

use locum_plan::Name;
use locum_vrrp::Time;

use crate::engine::Engine;
use crate::facts::{Answered, Asked, Refusal};
use crate::fitness::Aspect;
use crate::ids::InstanceId;
use crate::ids::{Owner, Seq};
use crate::input::SendReport;
use crate::output::EventKind;
use crate::services::ServedAnswer;

/// Pause before leftovers that could not be withdrawn are tried again.
pub const UNOWNED_PAUSE: Duration = Duration::from_secs(30);

impl Engine {
    pub(crate) fn on_applied(
        &mut self,
        now: Time,
        seq: Seq,
        owner: Owner,
        result: &Result<Vec<Refusal>, String>,
    ) {
        let id = match owner {
            Owner::Instance(id) => id,
            Owner::Nobody if seq == self.unowned_seq => {
                return self.on_unowned_applied(now, result);
            }
            Owner::Nobody => return,
        };
        // The answer to an older level is stale, and so is one for an instance that is gone.
        if self.instances.get(id).is_none_or(|state| !state.facts().awaits(seq)) {
            return;
        }
        let Some(state) = self.instances.quietly(id) else { return };
        let is_renewal = !state.facts().is_outstanding() && !state.announce.is_some();
        let answered = state.applied(result, now);
        if is_renewal && answered == Answered::default() {
            // Thousands of these a second change nothing but when the next one is due.
            return self.instances.settle(id);
        }
        let state = self.instances.touch(id);
        let name = state.name().clone();
        if !answered.failed.is_empty() {
            let error = answered.failed.join("; ");
            self.note(Some(name.clone()), EventKind::ApplyFailed { error });
        }
        if !answered.mended.is_empty() {
            let what = answered.mended.join("; ");
            self.note(Some(name), EventKind::ApplyMended { what });
        }
        if answered.is_refused {
            self.review(now, id);
        }
    }

    fn on_unowned_applied(&mut self, now: Time, result: &Result<Vec<Refusal>, String>) {
        let error = match result {
            Ok(refusals) => {
                let refused = || refusals.iter().filter(|refusal| refusal.asked == Asked::Drop);
                self.unowned.retain(|fact| refused().any(|refusal| refusal.key.is_of(fact)));
                let Some(Refusal { key, error, .. }) = refused().next() else { return };
                format!("cannot withdraw what an earlier run left: {key}: {error}")
            }
            Err(error) => error.clone(),
        };
        self.unowned_at = Some(now + UNOWNED_PAUSE);
        self.note(None, EventKind::ApplyFailed { error });
    }

    /// The balancer answers again whenever something fails or recovers by itself, under the number
    /// of the level in effect.
    pub(crate) fn on_served(
        &mut self,
        now: Time,
        seq: Seq,
        pending: &[Name],
        failed: Vec<(Name, String)>,
    ) {
        let (answers, answering) = self.services.answered(seq, pending, failed);
        for answer in answers {
            self.on_answer(now, answer);
        }
        // Announcements may have waited for these.
        for instance in answering {
            if let Some(id) = self.instances.named(&instance) {
                self.instances.touch(id);
            }
        }
    }

    fn on_answer(&mut self, now: Time, answer: ServedAnswer) {
        let ServedAnswer { object, is_active, holds, detail } = answer;
        let mut before = None;
        let changed = self.trackers.serve(&object, now, |served| {
            before = served.serving;
            served.set_serving(is_active, holds, &detail, now)
        });
        let Some(dependents) = changed else { return };
        // What has been looked at for the first time is news only if it is bad.
        let kind = holds.filter(|holds| !holds || before == Some(false)).map(|holds| {
            let aspect = if is_active { Aspect::Answering } else { Aspect::Capable };
            EventKind::Fitness { object, aspect, holds, detail }
        });
        self.on_tracked(now, kind, dependents);
    }

    pub(crate) fn on_sent(&mut self, id: InstanceId, report: SendReport) {
        let Some(state) = self.instances.quietly(id) else { return };
        let counters = &mut state.counters;
        counters.garp_sent += report.garp;
        counters.na_sent += report.na;
        counters.announce_errors += report.announce_errors;
        counters.tx_errors += report.advert_errors;
    }
}
