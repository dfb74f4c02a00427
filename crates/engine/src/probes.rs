//! Which probes run: one per distinct question, whoever asks it.

use std::collections::HashMap;

use locum_plan::Probe;

use crate::ids::ProbeId;
use crate::output::{Output, ProbeChange};

/// Who wants to know a probe's outcome, by position in the engine's lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subscriber {
    Tracker(usize),
    Server { service: usize, server: usize, check: usize },
}

#[derive(Debug, Default)]
pub struct ProbeTable {
    ids: HashMap<Probe, ProbeId>,
    subscribers: HashMap<ProbeId, Vec<Subscriber>>,
    next: ProbeId,
}

impl ProbeTable {
    /// Everybody who asked this; nobody for a probe that was stopped meanwhile.
    pub fn subscribers(&self, probe: ProbeId) -> Vec<Subscriber> {
        self.subscribers.get(&probe).cloned().unwrap_or_default()
    }

    /// From now on exactly these run; a probe that ran before goes on undisturbed.
    pub fn set<'a>(
        &mut self,
        wanted: impl Iterator<Item = (&'a Probe, Subscriber)>,
        out: &mut Vec<Output>,
    ) {
        let mut kept: HashMap<Probe, ProbeId> = HashMap::new();
        let mut started = Vec::new();
        self.subscribers.clear();
        for (probe, subscriber) in wanted {
            let id = match kept.get(probe) {
                Some(id) => *id,
                None => {
                    let id = self.ids.remove(probe).unwrap_or_else(|| {
                        self.next += 1;
                        started.push((self.next, probe.clone()));
                        self.next
                    });
                    kept.insert(probe.clone(), id);
                    id
                }
            };
            // Most questions are asked by one.
            let all = self.subscribers.entry(id).or_insert_with(|| Vec::with_capacity(1));
            all.push(subscriber);
        }
        let mut stopped: Vec<ProbeId> = self.ids.drain().map(|(_, id)| id).collect();
        stopped.sort_unstable();
        out.extend(stopped.into_iter().map(|probe| Output::Probe(ProbeChange::Stop { probe })));
        let start = |(probe, spec)| Output::Probe(ProbeChange::Start { probe, spec });
        out.extend(started.into_iter().map(start));
        self.ids = kept;
    }
}
