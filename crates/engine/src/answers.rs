//! What the applier and the sockets report back: the kernel's answer to each level, and what left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use locum_plan::Name;
use locum_vrrp::Time;

use crate::Engine;
use crate::input::{Asked, Refusal, SendReport};
use crate::output::{EventKind, Seq};

/// Pause before leftovers that could not be withdrawn are tried again.
const ORPHAN_PAUSE: Duration = Duration::from_secs(30);

impl Engine {
    pub(crate) fn on_applied(
        &mut self,
        now: Time,
        seq: Seq,
        name: &Name,
        result: &Result<Vec<Refusal>, String>,
    ) {
        if name.is_empty() && seq == self.orphans_seq {
            return self.on_orphans_applied(now, result);
        }
        let at = self.instances.iter().position(|s| s.name() == name && s.seq() == seq);
        let Some(at) = at else { return };
        let Some(news) = self.instances[at].applied(seq, result, now) else { return };
        if let Some(error) = news.failed {
            self.note(Some(name.clone()), EventKind::ApplyFailed { error });
        }
        if !news.mended.is_empty() {
            let what = news.mended.join("; ");
            self.note(Some(name.clone()), EventKind::ApplyMended { what });
        }
        if news.is_refused {
            self.review(now, at);
        }
    }

    fn on_orphans_applied(&mut self, now: Time, result: &Result<Vec<Refusal>, String>) {
        let error = match result {
            Ok(refusals) => {
                let refused = || refusals.iter().filter(|refusal| refusal.asked == Asked::Drop);
                self.orphans.retain(|held| refused().any(|refusal| refusal.is_about(held)));
                let Some(first) = refused().next() else { return };
                let Refusal { address, interface, error, .. } = first;
                format!(
                    "cannot withdraw what an earlier run left: {address} on {interface}: {error}"
                )
            }
            Err(error) => error.clone(),
        };
        self.orphans_at = Some(now + ORPHAN_PAUSE);
        self.note(None, EventKind::ApplyFailed { error });
    }

    /// The balancer answers again whenever a service becomes ready, fails or recovers, under the
    /// number of the level it works on. What is pending keeps its error until it is decided.
    pub(crate) fn on_served(&mut self, seq: Seq, pending: &[Name], failed: Vec<(Name, String)>) {
        if seq != self.serve_seq {
            return;
        }
        let mut errors: BTreeMap<Name, String> = failed.into_iter().collect();
        let mut before: HashMap<Name, String> = std::mem::take(&mut self.haproxy_errors);
        for state in &mut self.services {
            if let Some(old) = state.error.take() {
                before.insert(state.service.name.clone(), old);
            }
        }
        for name in pending {
            if let Some(old) = before.get(name) {
                errors.entry(name.clone()).or_insert_with(|| old.clone());
            }
        }
        for state in &mut self.services {
            state.error = errors.get(&state.service.name).cloned();
        }
        let mut news: Vec<EventKind> = Vec::new();
        for (service, error) in &errors {
            if before.get(service) != Some(error) {
                let (service, error) = (service.clone(), error.clone());
                news.push(EventKind::ServeFailed { service, error });
            }
        }
        // What is not wanted any more has not recovered.
        let served = Arc::clone(&self.served);
        let services = served.services.iter().map(|wanted| &wanted.service.name);
        for service in services.chain(served.haproxy.iter().map(|wanted| &wanted.file.name)) {
            if before.contains_key(service) && !errors.contains_key(service) {
                news.push(EventKind::ServeMended { service: service.clone() });
            }
        }
        let is_service = |name: &Name| self.services.iter().any(|s| s.service.name == *name);
        self.haproxy_errors = errors.into_iter().filter(|(name, _)| !is_service(name)).collect();
        for kind in news {
            self.note(None, kind);
        }
    }

    /// A name that a reload gave to another router counts for the one that has it now.
    pub(crate) fn on_sent(&mut self, name: &Name, report: SendReport) {
        let mut named = self.instances.iter_mut().filter(|state| state.name() == name);
        let Some(mut state) = named.next() else { return };
        if state.leaving
            && let Some(successor) = named.next()
        {
            state = successor;
        }
        let counters = &mut state.counters;
        counters.garp_sent += report.garp;
        counters.na_sent += report.na;
        counters.announce_errors += report.announce_errors;
        counters.tx_errors += report.advert_errors;
    }
}
