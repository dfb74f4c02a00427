//! Owners that are not alone: priority 255 twice in one virtual router (V-175, V-176).
//!
//! Equals are told apart by their addresses, so of two owners the one with the lower address
//! yields. One that does not, because it discards what it hears, would be a second master for
//! ever: then the one with the higher address concedes, and claims its priority again when the
//! other is gone or is an owner no more.

use std::net::IpAddr;
use std::time::Duration;

use super::Router;
use super::event::RouterAction;
use super::state::{Rival, RouterState};
use crate::receive::Heard;
use crate::settings::{Priority, Profile, Version};
use crate::time::Time;

/// What an owner that has conceded competes with: below every other owner, above the rest.
const CONCEDED: Priority = Priority(254);

/// How many of our adverts the other owner may miss before it is taken not to hear us.
const OWN_ADVERTS: u32 = 2;

/// A rival that is silent for this many intervals is gone.
const SILENT_INTERVALS: u32 = 3;

impl Router {
    /// The priority to compete with when settings and trackers say `priority`: an owner that has
    /// conceded to another is none for as long (V-176).
    pub fn competing(&self, priority: Priority) -> Priority {
        if self.conceded.is_some() && priority.is_owner() { CONCEDED } else { priority }
    }

    /// A new priority. An owner that was made an ordinary router has nothing left to concede.
    pub(super) fn set_priority(&mut self, priority: Priority) {
        if !priority.is_owner() {
            self.conceded = None;
        }
        self.priority = self.competing(priority);
    }

    /// V-175. RFC 3768 §7.1 wants it of every owner; there both sides may stay master for ever.
    pub(super) fn ignores_as_owner(&self) -> bool {
        let settings = &self.settings;
        let is_strict_v2 =
            matches!((settings.profile, settings.version), (Profile::Strict, Version::V2));
        self.priority.is_owner() && (settings.owner_ignores_adverts || is_strict_v2)
    }

    /// V-176: whether an owner that is master has heard another one, which has the lower address,
    /// for so long that it must have heard us and does not yield.
    pub(super) fn rival_persists(&mut self, now: Time, heard: &Heard) -> bool {
        let own = self.settings.interval.as_duration();
        let slower = own.max(heard.interval.as_duration());
        let both_own = self.priority.is_owner() && heard.priority.is_owner();
        let RouterState::Master(mastership) = &mut self.state else { return false };
        if !both_own {
            return false;
        }
        let concede_at = now + own * OWN_ADVERTS + one_and_a_fifth(slower);
        let known = mastership.rival.filter(|rival| now <= rival.heard + slower * SILENT_INTERVALS);
        let rival =
            known.map_or(Rival { heard: now, concede_at }, |known| Rival { heard: now, ..known });
        mastership.rival = Some(rival);
        now >= rival.concede_at
    }

    pub(super) fn concede(&mut self, peer: IpAddr, out: &mut Vec<RouterAction>) {
        self.conceded = Some(peer);
        self.change_priority(peer, CONCEDED, out);
    }

    /// The other owner has fallen silent, or says another priority.
    pub(super) fn reclaim(&mut self, out: &mut Vec<RouterAction>) {
        if let Some(peer) = self.conceded.take() {
            self.change_priority(peer, Priority::OWNER, out);
        }
    }

    /// An advert of the owner we have conceded to that is not an owner's any more.
    pub(super) fn reclaim_from(&mut self, heard: &Heard, out: &mut Vec<RouterAction>) {
        if self.conceded == Some(heard.source) && !heard.priority.is_owner() {
            self.reclaim(out);
        }
    }

    fn change_priority(&mut self, peer: IpAddr, to: Priority, out: &mut Vec<RouterAction>) {
        let from = std::mem::replace(&mut self.priority, to);
        out.push(RouterAction::ClaimChanged { from, to, peer });
    }
}

fn one_and_a_fifth(span: Duration) -> Duration {
    span * 6 / 5
}
