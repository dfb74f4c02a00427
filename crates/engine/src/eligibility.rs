//! May an instance take part, and with what priority? Links, sources, trackers and the kernel's
//! word decide together.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan as plan;
use locum_plan::{Name, TrackInterface};
use locum_vrrp::packet::capacity;
use locum_vrrp::{Family, LinkCondition, Priority, Router, RouterSettings, Transport};

use crate::Engine;
use crate::input::LinkState;
use crate::tracker::{Effect, effect};

/// The verdict over one instance.
#[derive(Debug)]
pub struct Eligibility {
    /// Each a sentence for status; empty when it may take part.
    pub faults: Vec<String>,
    /// The link it speaks on; ready, it still carries a farewell.
    pub link: LinkCondition,
    /// A check without which it may not start has not reported yet.
    pub is_unknown: bool,
    /// Sum of all weights in force, unclamped.
    pub adjustment: i32,
    /// What the sum is made of: object and its part.
    pub parts: Vec<(String, i32)>,
}

impl Engine {
    pub(crate) fn judge(&self, instance: &plan::Instance, presume_up: bool) -> Eligibility {
        let mut verdict = Eligibility {
            faults: Vec::new(),
            link: LinkCondition::Down,
            is_unknown: false,
            adjustment: 0,
            parts: Vec::new(),
        };
        self.judge_link(instance, &mut verdict);
        for track in &instance.track_interfaces {
            self.judge_tracked_interface(track, &mut verdict);
        }
        for track in &instance.track {
            let Some(at) = self.tracker_index.get(&track.check) else { continue };
            let tracker = &self.trackers[*at];
            if tracker.ignored {
                continue;
            }
            let is_presumed = presume_up && !tracker.level.reported;
            let up = if is_presumed { Some(true) } else { tracker.level.up };
            let weight = track.weight.unwrap_or(tracker.check.weight);
            let detail = &tracker.level.detail;
            let fault = || format!("check {} is failing: {detail}", track.check);
            verdict.add(effect(weight, up), format!("check {}", track.check), fault);
        }
        verdict
    }

    fn judge_link(&self, instance: &plan::Instance, verdict: &mut Eligibility) {
        let interface = &instance.interface;
        match self.links.get(interface) {
            None | Some(LinkState { index: 0, .. }) => {
                verdict.faults.push(format!("interface {interface} does not exist"));
            }
            Some(link) if !link.running => {
                verdict.faults.push(format!("interface {interface} is down or has no carrier"));
            }
            Some(link) => match source(&instance.router, link, &self.links) {
                Some(_) => verdict.link = LinkCondition::Ready,
                None => {
                    verdict.link = LinkCondition::NoSource;
                    verdict.faults.push(no_source(&instance.router, interface));
                }
            },
        }
        verdict.faults.extend(self.links.get(interface).and_then(|link| {
            let router = &instance.router;
            let most = capacity(router.version, router.family, link.mtu);
            let fits = link.mtu == 0 || router.addresses.len() <= most;
            (!fits).then(|| too_many(most, link))
        }));
        let devices = instance.addresses.iter().filter_map(|address| address.device.as_ref());
        for device in devices.filter(|device| *device != interface) {
            if self.links.get(device).is_none_or(|link| link.index == 0) {
                verdict.faults.push(format!("interface {device} of an address does not exist"));
            }
        }
    }

    fn judge_tracked_interface(&self, track: &TrackInterface, verdict: &mut Eligibility) {
        let name = &track.interface;
        let up = self.links.get(name).is_some_and(|link| link.index != 0 && link.running);
        let fault = || format!("tracked interface {name} is {}", if up { "up" } else { "down" });
        verdict.add(effect(track.weight, Some(up)), format!("interface {name}"), fault);
    }
}

impl Eligibility {
    /// The link still carries a farewell.
    pub fn can_send(&self) -> bool {
        self.link == LinkCondition::Ready
    }

    fn add(&mut self, effect: Effect, object: String, fault: impl Fn() -> String) {
        match effect {
            Effect::Adjust(0) => {}
            Effect::Adjust(part) => {
                self.adjustment += part;
                self.parts.push((object, part));
            }
            Effect::Fault => self.faults.push(fault()),
            Effect::Unknown => self.is_unknown = true,
        }
    }
}

/// V-050: the configured source, else the first address of the family; for IPv6 a link-local one.
/// Never a virtual address, unless the router owns it.
///
/// V-051: a configured source that this host does not have is none. Nothing that a peer sends to it
/// arrives, so that its holder would be a second master, whatever ip_nonlocal_bind lets it send. It
/// may be on another link than `link`, as the address of a loopback is, unless it is link-local.
pub fn source(
    settings: &RouterSettings,
    link: &LinkState,
    links: &HashMap<Name, LinkState>,
) -> Option<IpAddr> {
    if let Some(configured) = settings.source {
        let has = |link: &LinkState| link.addresses.contains(&configured);
        let is_found = has(link) || !is_link_local(configured) && links.values().any(has);
        return is_found.then_some(configured);
    }
    let is_virtual =
        |address: &IpAddr| !settings.priority.is_owner() && settings.addresses.contains(address);
    let mut own = link.addresses.iter().copied().filter(|address| !is_virtual(address));
    own.find(|address| match (settings.family, address) {
        (Family::V4, IpAddr::V4(_)) => true,
        (Family::V6, IpAddr::V6(address)) => {
            let is_unicast = matches!(settings.transport, Transport::Unicast { .. });
            address.is_unicast_link_local() != is_unicast
        }
        (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => false,
    })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// V-030: a datagram that does not leave would make a master that nobody hears.
fn too_many(most: usize, link: &LinkState) -> String {
    format!(
        "an advert with these addresses is too long for {}, MTU {}: advertise at most {most} and \
         exclude the others",
        link.name, link.mtu
    )
}

fn no_source(settings: &RouterSettings, interface: &str) -> String {
    if let Some(source) = settings.source {
        let place = if is_link_local(source) { interface } else { "this host" };
        return format!("{source}, the configured source of adverts, is no address of {place}");
    }
    match settings.family {
        Family::V4 => format!("no IPv4 address on {interface} to send adverts from"),
        Family::V6 => format!("no usable IPv6 address on {interface} to send adverts from"),
    }
}

/// The router's effective priority under an adjustment.
pub fn effective(router: &Router, adjustment: i32) -> Priority {
    router.competing(router.settings().priority.adjusted(adjustment))
}
