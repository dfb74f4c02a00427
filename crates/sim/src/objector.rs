//! Whoever has a say, besides the routers, when an instance of this node would become master: a
//! group, an arbiter somewhere else. It decides at once, late, or never.

use std::collections::BTreeMap;
use std::time::Duration;

use locum_engine::{Arbiter, Decision};
use locum_plan::Name;
use locum_vrrp::{Cause, Time};

/// How it decides now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Whatever is proposed is granted at once.
    Willing,
    /// It decides so when this much time has passed since it was asked.
    Slow(Duration, Decision),
    /// It is asked and never decides.
    Mute,
}

#[derive(Debug)]
pub struct Objector {
    pub mood: Mood,
    /// Since when it owes an answer.
    asked: BTreeMap<Name, Time>,
}

impl Default for Objector {
    fn default() -> Self {
        Self { mood: Mood::Willing, asked: BTreeMap::new() }
    }
}

impl Objector {
    /// When it will have decided something that it has been asked.
    pub fn decides_at(&self) -> Option<Time> {
        match self.mood {
            Mood::Slow(after, _) => self.asked.values().min().map(|asked| *asked + after),
            Mood::Willing | Mood::Mute => None,
        }
    }

    /// Only these are still candidates: nobody waits for the other answers.
    pub fn retain(&mut self, is_candidate: impl Fn(&Name) -> bool) {
        self.asked.retain(|name, _| is_candidate(name));
    }
}

impl Arbiter for Objector {
    fn decide(&mut self, now: Time, instance: &Name, _: &Cause) -> Decision {
        let asked = *self.asked.entry(instance.clone()).or_insert(now);
        match self.mood {
            Mood::Willing => Decision::Grant,
            Mood::Slow(after, decision) if now >= asked + after => decision,
            Mood::Slow(..) | Mood::Mute => Decision::Defer,
        }
    }
}
