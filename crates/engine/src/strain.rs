//! What serves and is strained all the same: that it came to be, and that it is over, for the history
//! and for hooks. Nothing of it decides in the election: whoever moves a crowd has it again.
//!
//! A strain may come and go a hundred times a minute. Of one object something is reported at once when
//! nothing was within the last minute; else when that minute is over, if it is another by then.

use std::time::Duration;

use locum_plan::Tracked;
use locum_vrrp::Time;

/// Between two reports of one object.
pub const LEAST_PAUSE: Duration = Duration::from_secs(60);

/// What is strained, and what was reported of it.
#[derive(Debug, Default)]
pub struct StrainedObjects {
    all: Vec<StrainedObject>,
}

#[derive(Debug)]
struct StrainedObject {
    object: Tracked,
    /// By what, for a person; `None` while it is not.
    by: Option<String>,
    reported: Option<String>,
    reported_at: Option<Time>,
}

impl StrainedObject {
    /// When there is something to report.
    fn due(&self) -> Option<Time> {
        let earliest = self.reported_at.map_or(Time::ZERO, |at| at + LEAST_PAUSE);
        (self.by != self.reported).then_some(earliest)
    }
}

impl StrainedObjects {
    /// These are strained now, and no others.
    pub fn set(&mut self, mut strained: Vec<(Tracked, String)>) {
        for known in &mut self.all {
            let at = strained.iter().position(|(object, _)| *object == known.object);
            known.by = at.map(|at| strained.swap_remove(at).1);
        }
        let new = strained.into_iter().map(|(object, by)| StrainedObject {
            object,
            by: Some(by),
            reported: None,
            reported_at: None,
        });
        self.all.extend(new);
    }

    /// Of what is not in the plan any more nothing is said.
    pub fn retain(&mut self, is_known: impl Fn(&Tracked) -> bool) {
        self.all.retain(|one| is_known(&one.object));
    }

    /// What is strained now.
    pub fn iter(&self) -> impl Iterator<Item = &Tracked> {
        self.all.iter().filter(|one| one.by.is_some()).map(|one| &one.object)
    }

    /// When [`StrainedObjects::take_due`] has something to say.
    pub fn deadline(&self) -> Option<Time> {
        self.all.iter().filter_map(StrainedObject::due).min()
    }

    /// What is to be reported now: each object with what strains it, or `None` when that is over.
    pub fn take_due(&mut self, now: Time) -> Vec<(Tracked, Option<String>)> {
        let mut due = Vec::new();
        for one in &mut self.all {
            if one.due().is_some_and(|at| at <= now) {
                one.reported.clone_from(&one.by);
                one.reported_at = Some(now);
                due.push((one.object.clone(), one.by.clone()));
            }
        }
        // Who is well for long begins anew.
        let is_recent = |at: Time| now < at + LEAST_PAUSE;
        self.all.retain(|one| {
            one.by.is_some() || one.due().is_some() || one.reported_at.is_some_and(is_recent)
        });
        due
    }
}
