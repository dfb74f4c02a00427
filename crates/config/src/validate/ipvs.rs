//! Rules of `[ipvs]`, and between it and the services.

use locum_plan::{BackendKind, Forwarding, Plan, WantedServer};

use crate::need::NeedKind;
use crate::parsed::Parsed;
use crate::span::Report;
use crate::validate::common::known_instance;

pub(super) fn validate(parsed: &Parsed, plan: &Plan, report: &mut Report) {
    let sync = &parsed.ipvs.sync;
    let Some(span) = sync.span else { return };
    known_instance(&sync.instance, plan.instances.iter().map(|i| &*i.name), report);
    if let Some(interface) = sync.interface.given() {
        report.need(interface.span, NeedKind::Interface(interface.value.clone()));
    }
    if let Some(group) = sync.group.given().filter(|at| !at.value.is_multicast()) {
        let text = format!("{} is no multicast address", group.value);
        report.error(group.span, "bad-group", text).help("leave it out for 224.0.0.81");
    }
    // I-017: the kernel refuses one of the two.
    let crosses = plan.services.iter().find(|service| {
        let by_ipvs = service.backend.candidates(service).first() == Some(&BackendKind::Ipvs);
        let is_tunnel = |server: &WantedServer| server.forwarding == Forwarding::Tunnel;
        let mut tunnels = service.reached().filter(is_tunnel);
        by_ipvs && tunnels.any(|server| service.crosses(&server))
    });
    if let Some(service) = crosses {
        let text = format!(
            "the kernel synchronises no connections while a tunnel leads to the other address family, \
             as in service `{}`",
            service.name
        );
        report.error(span, "sync-family", text).help("leave out `sync`, or that server");
    }
}
