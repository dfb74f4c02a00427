//! What must hold of all that a node has: addresses, announcements of them, services.
//!
//! | rule | says |
//! |---|---|
//! | `announce` | no virtual address is announced that this node does not hold there, or was refused (G-020, G-016) |
//! | `degraded` | status names the addresses that were refused while others are held |
//! | `withdraw` | a node that is not master holds no address once its queue is drained (V-250) |
//! | `serve` | and serves nothing that belongs to the master |
//! | `wake` | nothing is announced by a master whose peers have stopped waiting (V-241) |
//! | `adopt` | a process takes over a lease that is fresh enough, as it is, and no other (V-242) |
//! | `stopped` | a process that may end has withdrawn everything (V-240) |

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    Announcement, Asked, EventKind, Fact, Inherited, Output, Refusal, Removal, Seq,
};
use locum_plan::{Lease, Weight};
use locum_vrrp::{Cause, Role};

use crate::judge::Question;
use crate::virtual_router::VirtualRouter;
use crate::world::World;

/// Linux counts a lease in whole seconds, so its age is not known better.
const COARSENESS: Duration = Duration::from_secs(1);

/// What a process that starts has to make of what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Freshness {
    /// Its peers cannot have taken over: it goes on.
    Fresh,
    /// They may have: it listens first.
    Lost,
    /// Either is right.
    Doubtful,
}

impl World {
    /// What a node holds and serves, once it has done all it was asked to.
    pub fn judge_node(&mut self, node: usize) {
        let host = &self.nodes[node];
        // Before its first plan a process cannot know what is its own.
        if !host.is_drained() || host.applied_plan.is_none() {
            return;
        }
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let role = host.adapter.view(&router.name).map_or(Role::Initialize, |view| view.role);
            if matches!(role, Role::Master | Role::Resigning) {
                continue;
            }
            let mut all = router.addresses.iter().copied().chain([router.extra_address()]);
            let refused = host.unowned_refused || self.watches[node][index].refused;
            if let Some(held) = all.find(|address| host.kernel.holds(*address) && !refused) {
                let detail = format!("{} is {role:?} and holds {held}", router.name);
                self.blame(Some(node), "withdraw", detail);
                return;
            }
            if host.balancer.is_idle() && host.balancer.serves(&router.name) {
                let detail = format!("{} is {role:?} and serves", router.name);
                self.blame(Some(node), "serve", detail);
                return;
            }
        }
    }

    /// Frames leave this node.
    pub fn announced(&mut self, node: usize, frames: &[Announcement]) {
        let (kernel, links) = (&self.nodes[node].kernel, &self.nodes[node].links);
        let is_own = |frame: &Announcement| {
            links
                .iter()
                .any(|link| link.name == frame.interface && link.addresses.contains(&frame.address))
        };
        let is_wrong = |frame: &&Announcement| {
            !is_own(frame)
                && !kernel.holds_on(&frame.interface, frame.address)
                && !kernel.was_taken(frame.address)
        };
        let missing = frames.iter().find(is_wrong).map(|frame| frame.address);
        let name = self.name(node);
        self.trace.line(self.now, &name, || format!("announces {} frames", frames.len()));
        if let Some(address) = missing {
            self.blame(Some(node), "announce", format!("{address} is announced and not held"));
        }
        let speaker = frames.first().and_then(|frame| {
            let mut routers = self.scenario.routers.iter();
            routers.position(|router| router.addresses.contains(&frame.address))
        });
        let Some((last, interval)) = speaker.and_then(|index| self.watches[node][index].advertised)
        else {
            return;
        };
        // What was asked for with the last advert may still have waited for as long as peers do.
        let silence = self.now.since(last);
        if silence > interval * 4 + interval / 256 {
            let detail = format!("announces after {silence:?} of silence");
            self.blame(Some(node), "wake", detail);
        }
    }

    /// Frames the engine asks for: what it knows was refused is not among them.
    pub fn judge_frames(&mut self, node: usize, index: usize, frames: &[Announcement]) {
        let missing = &self.watches[node][index].refused_addresses;
        let refused = frames.iter().find(|frame| missing.contains(&frame.address));
        if let Some(address) = refused.map(|frame| frame.address) {
            let detail = format!("{address} was refused and is to be announced");
            self.blame(Some(node), "announce", detail);
        }
    }

    /// The engine asks the kernel to hold this.
    pub fn note_question(&mut self, node: usize, index: usize, seq: Seq, hold: &Arc<[Fact]>) {
        let before = &self.watches[node][index].question;
        let is_same = before.is_open && !before.is_stale && before.hold == *hold;
        let first = if is_same { before.first } else { seq };
        let question = Question { first, hold: Arc::clone(hold), is_open: true, is_stale: false };
        self.watches[node][index].question = question;
    }

    /// The kernel has answered: status says of each address what became of it.
    pub fn note_applied(
        &mut self,
        node: usize,
        index: usize,
        router: &VirtualRouter,
        seq: Seq,
        result: &Result<Vec<Refusal>, String>,
    ) {
        let watch = &mut self.watches[node][index];
        if !watch.question.is_open || seq < watch.question.first {
            return;
        }
        watch.question.is_open = false;
        let Ok(refusals) = result else { return };
        let is_refused = |asked: Asked, address: IpAddr| {
            refusals.iter().any(|one| (one.asked, one.key.address()) == (asked, Some(address)))
        };
        for address in watch.question.addresses() {
            if is_refused(Asked::Hold, address) {
                watch.refused_addresses.insert(address);
            } else {
                watch.refused_addresses.remove(&address);
            }
        }
        // What a reload has taken out meanwhile is not asked for again.
        let is_wanted = |address: &IpAddr| {
            let mut instances = self.nodes[node].plan.instances.iter();
            // One that is being removed may come back with what it knows.
            let known = instances.find(|instance| instance.name == router.name);
            known.is_none_or(|instance| instance.router.addresses.contains(address))
        };
        watch.refused_addresses.retain(is_wanted);
        let Some(view) = self.nodes[node].adapter.view(&router.name) else { return };
        let stuck = refusals.iter().filter(|one| one.asked == Asked::Drop);
        let mut stuck = stuck.filter_map(|one| one.key.address());
        let hidden = stuck.find(|address| !view.withdrawals_pending.contains(address));
        let shown: BTreeSet<IpAddr> = view.refused.iter().copied().collect();
        // With none of them in place the instance is in fault, which says more.
        let detail = if let Some(address) = hidden {
            format!("{address} stays, and status does not say so")
        } else if view.role == Role::Master && shown != watch.refused_addresses {
            format!("status misses {shown:?}, refused were {:?}", watch.refused_addresses)
        } else {
            return;
        };
        self.blame(Some(node), "degraded", detail);
    }

    /// A kernel that refuses withdrawals again and again is not waited for: the lease ends them.
    pub fn judge_stopped(&mut self, node: usize) {
        let is_refused = self.nodes[node].unowned_refused
            || self.watches[node].iter().any(|watch| watch.refused);
        if !is_refused && !self.nodes[node].kernel.is_empty() {
            let held: Vec<_> = self.nodes[node].kernel.addresses().map(|(_, a)| a).collect();
            self.blame(Some(node), "stopped", format!("the process may end and holds {held:?}"));
        }
    }

    /// What a process that starts now has to make of a virtual router's addresses.
    fn appraise(&self, node: usize, index: usize, router: &VirtualRouter) -> Freshness {
        let host = &self.nodes[node];
        let takeover = self.interval(node, router) * 3;
        let granted = match router.lease {
            Lease::Off => None,
            Lease::Fixed(lease) => Some(lease.as_secs().max(1)),
            Lease::Auto => Some(takeover.as_secs().max(1)),
        };
        let ages = router.addresses.iter().filter_map(|address| {
            let lease = host.kernel.lease(*address)?;
            let same = lease.granted.map(u64::from) == granted && granted.is_some();
            Some((self.now.since(lease.renewed), same))
        });
        let ages: Vec<_> = ages.collect();
        let is_whole = ages.len() == router.addresses.len() && !host.edits[index].removed;
        let runs = |link: usize| host.links[link].running;
        let (own, tracked) = (router.link, router.tracked);
        let is_up = runs(own)
            && router.links().all(|link| host.links[link].index != 0)
            && tracked.is_none_or(|(link, Weight { value, .. })| value != 0 || runs(link));
        // A lease that was set may be shorter than a takeover takes.
        let lasts = takeover.min(Duration::from_secs(granted.unwrap_or(u64::MAX)));
        let is_fresh = |(age, same): &(Duration, bool)| *same && *age + COARSENESS < lasts;
        if is_whole && is_up && ages.iter().all(is_fresh) {
            Freshness::Fresh
        } else if ages.iter().all(|(age, _)| *age > takeover) {
            Freshness::Lost
        } else {
            Freshness::Doubtful
        }
    }

    /// After the first plan of a process; the kernel is still as it was found.
    pub fn judge_adoption(&mut self, node: usize, found: &[Inherited], outputs: &[Output]) {
        for (index, router) in self.scenario.routers.iter().enumerate() {
            let adopts = |output: &Output| {
                matches!(output, Output::Notify(event)
                    if event.instance.as_ref() == Some(&router.name)
                        && matches!(event.kind, EventKind::Transition { cause: Cause::Adopted, .. }))
            };
            let adapter = &self.nodes[node].adapter;
            let is_ours = |removal: &Removal| {
                let held = removal.fact.address();
                held.is_some_and(|held| router.addresses.contains(&held.address.address))
            };
            let drops = |output: &Output| {
                matches!(output, Output::Apply { owner, drop, .. }
                    if adapter.is_of(*owner, &router.name) && drop.iter().any(is_ours))
            };
            let detail = match (self.appraise(node, index, router), outputs.iter().any(adopts)) {
                (Freshness::Fresh, false) => "its lease was fresh and it does not go on",
                (Freshness::Lost, true) => "it goes on with a lost lease",
                (Freshness::Fresh | Freshness::Doubtful, true) if outputs.iter().any(drops) => {
                    "it goes on and drops what it needs"
                }
                (Freshness::Fresh | Freshness::Doubtful, true)
                | (Freshness::Lost | Freshness::Doubtful, false) => continue,
            };
            let detail = format!("{}: {detail}: {found:?}", router.name);
            self.blame(Some(node), "adopt", detail);
            return;
        }
    }
}
