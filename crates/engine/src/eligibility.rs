//! May an instance take part, and with what priority? Links, sources, trackers and the kernel's
//! word decide together.

use std::net::IpAddr;

use locum_config::plan::{self, TrackInterface};
use locum_vrrp::{Family, Router};

use crate::Engine;
use crate::input::LinkState;
use crate::tracker::{Effect, effect};

/// The verdict over one instance.
#[derive(Debug, Default)]
pub struct Eligibility {
    /// Each a sentence for status; empty when it may take part.
    pub faults: Vec<String>,
    /// The link still carries a farewell.
    pub can_send: bool,
    /// A check without which it may not start has not reported yet.
    pub is_unknown: bool,
    /// Sum of all weights in force, unclamped.
    pub adjustment: i32,
    /// What the sum is made of: object and its part.
    pub parts: Vec<(String, i32)>,
}

impl Engine {
    pub(crate) fn judge(&self, instance: &plan::Instance, presume_up: bool) -> Eligibility {
        let mut verdict = Eligibility::default();
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
            Some(link) => match source(&instance.router, link) {
                Some(_) => verdict.can_send = true,
                None => verdict.faults.push(no_source(&instance.router, interface)),
            },
        }
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
/// A configured source need not be on the link when peers are unicast.
pub fn source(settings: &locum_vrrp::RouterSettings, link: &LinkState) -> Option<IpAddr> {
    if settings.source.is_some() {
        return settings.source;
    }
    link.addresses.iter().copied().find(|address| match (settings.family, address) {
        (Family::V4, IpAddr::V4(_)) => true,
        (Family::V6, IpAddr::V6(address)) => {
            let is_unicast = matches!(settings.transport, locum_vrrp::Transport::Unicast { .. });
            let is_link_local = address.segments()[0] & 0xffc0 == 0xfe80;
            is_link_local != is_unicast
        }
        (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => false,
    })
}

fn no_source(settings: &locum_vrrp::RouterSettings, interface: &str) -> String {
    match settings.family {
        Family::V4 => format!("no IPv4 address on {interface} to send adverts from"),
        Family::V6 => format!("no usable IPv6 address on {interface} to send adverts from"),
    }
}

/// The router's effective priority under an adjustment.
pub fn effective(router: &Router, adjustment: i32) -> locum_vrrp::Priority {
    router.competing(router.settings().priority.adjusted(adjustment))
}
