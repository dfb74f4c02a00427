//! Which probes run: one per distinct question, whoever asks it.

use std::collections::HashMap;

use locum_config::plan::Probe;

use crate::output::{Output, ProbeChange, ProbeId};

#[derive(Debug, Default)]
pub struct ProbeTable {
    ids: HashMap<Probe, ProbeId>,
    next: ProbeId,
}

impl ProbeTable {
    /// The handle of a running probe.
    pub fn id(&self, probe: &Probe) -> Option<ProbeId> {
        self.ids.get(probe).copied()
    }

    /// From now on exactly these run; a probe that ran before goes on undisturbed.
    pub fn set<'a>(&mut self, wanted: impl Iterator<Item = &'a Probe>, out: &mut Vec<Output>) {
        let mut kept = HashMap::new();
        let mut started = Vec::new();
        for probe in wanted {
            if kept.contains_key(probe) {
                continue;
            }
            let id = self.ids.remove(probe).unwrap_or_else(|| {
                self.next += 1;
                started.push((self.next, probe.clone()));
                self.next
            });
            kept.insert(probe.clone(), id);
        }
        let mut stopped: Vec<ProbeId> = self.ids.drain().map(|(_, id)| id).collect();
        stopped.sort_unstable();
        out.extend(stopped.into_iter().map(|probe| Output::Probe(ProbeChange::Stop { probe })));
        let start = |(probe, spec)| Output::Probe(ProbeChange::Start { probe, spec });
        out.extend(started.into_iter().map(start));
        self.ids = kept;
    }
}
