//! May an instance take part, and with what priority? Links, sources, trackers and the kernel's
//! word decide together.

use std::collections::HashMap;
use std::net::IpAddr;

use locum_plan as plan;
use locum_plan::Name;
use locum_vrrp::packet::capacity;
use locum_vrrp::{Family, LinkCondition, Priority, Router, RouterSettings, Time, Transport};

use crate::fault::{Fault, PriorityPart};
use crate::fitness::{Incumbency, Loss};
use crate::input::LinkState;
use crate::tracker::{TrackerTally, Trackers};

/// The verdict over one instance.
#[derive(Debug)]
pub struct Eligibility {
    /// Empty when it may take part.
    pub faults: Vec<Fault>,
    /// The link it speaks on; ready, it still carries a farewell.
    pub link: LinkCondition,
    /// A check without which it may not start has not reported yet.
    pub is_unknown: bool,
    /// What is added to the base priority.
    pub parts: Vec<PriorityPart>,
    /// What of its services and HAProxies this node cannot serve.
    pub loss: Loss,
}

/// As who an instance is judged.
#[derive(Clone, Copy, Debug)]
pub struct Perspective {
    /// A check that has not reported yet counts as up.
    pub presume_up: bool,
    pub incumbency: Incumbency,
    pub now: Time,
}

impl Eligibility {
    pub fn of(
        instance: &plan::Instance,
        links: &HashMap<Name, LinkState>,
        trackers: &Trackers,
        perspective: Perspective,
    ) -> Self {
        let (link, mut faults) = Self::of_link(instance, links);
        let tracked = trackers.judge(&instance.track, perspective.presume_up);
        let TrackerTally { faults: of_trackers, mut parts, is_unknown } = tracked;
        faults.extend(of_trackers);
        let mut loss = Loss::default();
        if let Some(policy) = instance.policy() {
            loss = Loss::of(
                policy,
                |object| trackers.served(object),
                perspective.incumbency,
                perspective.now,
            );
            let checks = parts.iter().map(|part| part.part).sum();
            parts.extend(loss.part(&policy.ranking, instance.router.priority, checks));
        }
        Self { faults, link, is_unknown, parts, loss }
    }

    fn of_link(
        instance: &plan::Instance,
        links: &HashMap<Name, LinkState>,
    ) -> (LinkCondition, Vec<Fault>) {
        let interface = &instance.interface;
        let router = &instance.router;
        let mut condition = LinkCondition::Down;
        let mut faults = Vec::new();
        match links.get(interface) {
            None | Some(LinkState { index: 0, .. }) => {
                faults.push(Fault::InterfaceMissing { interface: interface.clone() });
            }
            Some(link) if !link.running => {
                faults.push(Fault::InterfaceDown { interface: interface.clone() });
            }
            Some(link) => match source(router, link, links) {
                Some(_) => condition = LinkCondition::Ready,
                None => {
                    condition = LinkCondition::NoSource;
                    faults.push(no_source(router, interface));
                }
            },
        }
        if let Some(link) = links.get(interface) {
            let most = capacity(router.version, router.family, link.mtu);
            if link.mtu != 0 && router.addresses.len() > most {
                let (interface, mtu) = (interface.clone(), link.mtu);
                faults.push(Fault::TooManyAddresses { interface, mtu, most });
            }
        }
        let devices = instance.addresses.iter().filter_map(plan::VirtualAddress::device);
        for device in devices.filter(|device| *device != interface) {
            if links.get(device).is_none_or(|link| link.index == 0) {
                faults.push(Fault::DeviceMissing { device: device.clone() });
            }
        }
        (condition, faults)
    }

    /// The link still carries a farewell.
    pub fn can_send(&self) -> bool {
        self.link == LinkCondition::Ready
    }

    /// Sum of all weights in force, unclamped.
    pub fn adjustment(&self) -> i32 {
        self.parts.iter().map(|part| part.part).sum()
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

fn no_source(settings: &RouterSettings, interface: &Name) -> Fault {
    match settings.source {
        Some(source) => {
            let interface = is_link_local(source).then(|| interface.clone());
            Fault::SourceNotHere { source, interface }
        }
        None => Fault::NoSource { interface: interface.clone(), family: settings.family },
    }
}

/// The router's effective priority under an adjustment.
pub fn effective(router: &Router, adjustment: i32) -> Priority {
    router.competing(router.settings().priority.adjusted(adjustment))
}
