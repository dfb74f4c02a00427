//! Which probes run: one per distinct question, whoever asks it.

use std::collections::HashMap;

use locum_plan::Probe;

use crate::ids::ProbeId;
use crate::output::{Output, ProbeChange};

/// Who wants to know a probe's outcome, by position in the engine's lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    Tracker(usize),
    Server { service: usize, server: usize, check: usize },
}

#[derive(Debug, Default)]
pub struct ProbeTable {
    ids: HashMap<Probe, ProbeId>,
    askers: HashMap<ProbeId, Vec<Asker>>,
    next: ProbeId,
}

impl ProbeTable {
    /// Everybody who asked this; nobody for a probe that was stopped meanwhile.
    pub fn askers(&self, probe: ProbeId) -> Vec<Asker> {
        self.askers.get(&probe).cloned().unwrap_or_default()
    }

    /// From now on exactly these run; a probe that ran before goes on undisturbed.
    pub fn set<'a>(
        &mut self,
        wanted: impl Iterator<Item = (&'a Probe, Asker)>,
        out: &mut Vec<Output>,
    ) {
        let mut kept: HashMap<Probe, ProbeId> = HashMap::new();
        let mut started = Vec::new();
        self.askers.clear();
        for (probe, asker) in wanted {
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
            self.askers.entry(id).or_default().push(asker);
        }
        let mut stopped: Vec<ProbeId> = self.ids.drain().map(|(_, id)| id).collect();
        stopped.sort_unstable();
        out.extend(stopped.into_iter().map(|probe| Output::Probe(ProbeChange::Stop { probe })));
        let start = |(probe, spec)| Output::Probe(ProbeChange::Start { probe, spec });
        out.extend(started.into_iter().map(start));
        self.ids = kept;
    }
}
