//! What needs an operator, one sentence each.

use locum_control::StatusDocument;
use locum_control::status::{DiscardedStatus, RefusedAddress, ServerStatus, ServiceStatus};

use super::first_few;

/// What an operator should look at, the worst first.
pub fn problems(document: &StatusDocument, balancer_is_silent: bool) -> Vec<String> {
    let mut all = Vec::new();
    for instance in document.instances.iter().filter(|one| !one.faults.is_empty()) {
        let reasons = instance.faults.join("; ");
        all.push(format!("{} cannot take part: {reasons}", instance.name));
    }
    for instance in &document.instances {
        if !instance.stuck.is_empty() {
            let what = refusals(&instance.stuck);
            all.push(format!("{} must not hold and cannot withdraw {what}", instance.name));
        }
        if !instance.missing.is_empty() {
            let what = refusals(&instance.missing);
            all.push(format!("{} goes on without {what}", instance.name));
        }
        if !instance.unwanted.is_empty() {
            let (what, name) = (instance.unwanted.join(", "), &instance.name);
            all.push(format!(
                "{name} is {} here, and {what} is here all the same: clients may reach the wrong \
                 node; something else has put it there",
                instance.role
            ));
        }
        if instance.apply_late {
            let name = &instance.name;
            all.push(format!("{name} waits for the kernel: this node is overloaded"));
        }
    }
    for instance in &document.instances {
        if let Some(DiscardedStatus { source, reason, .. }) = &instance.discarded {
            let danger = if instance.role == "master" { ", which may be master too" } else { "" };
            let name = &instance.name;
            all.push(format!("{name} discards the adverts of {source}{danger}: {reason}"));
        }
    }
    for service in &document.services {
        if let Some(error) = &service.error {
            all.push(format!("service {} is not served: {error}", service.name));
        }
    }
    for service in document.services.iter().filter(|service| has_no_server(service)) {
        all.push(format!("service {} has no server that is up", service.name));
    }
    for service in &document.services {
        if let Some(strained) = &service.strained {
            all.push(format!("service {} is strained: {strained}", service.name));
        }
    }
    for file in &document.haproxy {
        if let Some(error) = &file.error {
            all.push(format!("haproxy {}: {error}", file.name));
        }
    }
    for process in document.processes.iter().filter(|process| process.state == "waiting") {
        let error = process.error.as_deref().unwrap_or("ended");
        all.push(format!("process {} does not run: {error}", process.name));
    }
    for check in &document.checks {
        if check.ignored {
            all.push(format!(
                "check {} cannot be run and is ignored: {}",
                check.name, check.detail
            ));
        } else if check.up == Some(false) {
            all.push(format!("check {} fails: {}", check.name, check.detail));
        }
    }
    for service in &document.services {
        for server in service.servers.iter().filter(|server| server.up == Some(false)) {
            let ServerStatus { address, detail, .. } = server;
            all.push(format!("server {address} of {} is down: {detail}", service.name));
        }
    }
    if balancer_is_silent {
        all.push("the balancer is busy: what it serves is not shown".to_owned());
    }
    all
}

/// Its clients are turned away.
fn has_no_server(service: &ServiceStatus) -> bool {
    let mut servers = service.servers.iter();
    !service.servers.is_empty() && servers.all(|server| server.up == Some(false))
}

/// The first few in full.
fn refusals(all: &[RefusedAddress]) -> String {
    let one = |refused: &RefusedAddress| {
        format!("{} on {}: {}", refused.address, refused.interface, refused.error)
    };
    first_few(&all.iter().map(one).collect::<Vec<_>>(), "; ")
}
