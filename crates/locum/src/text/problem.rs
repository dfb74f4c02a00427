//! What needs an operator, one sentence each.

use std::net::IpAddr;

use locum_control::StatusDocument;
use locum_control::status::{
    DiscardedStatus, InstanceStatus, ProcessStatus, RefusedAddress, UnfitObject,
};

use super::served::{self, ObjectKind, ServedObject};
use super::{age, first_few};

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
        all.extend(addresses_differ(instance));
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
    let objects = served::all(document);
    all.extend(served::problems(&objects));
    all.extend(document.instances.iter().filter_map(|instance| unfit(instance, &objects)));
    let waiting = document.processes.iter().filter(|process| process.state == "waiting");
    for process in waiting.filter(|process| !is_explained(process, &objects)) {
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
    all.extend(served::server_problems(&objects));
    if balancer_is_silent {
        all.push("the balancer is busy: what it serves is not shown".to_owned());
    }
    all
}

/// One of two nodes has an address that the other one has not, and nobody notices until it moves.
fn addresses_differ(instance: &InstanceStatus) -> Vec<String> {
    let name = &instance.name;
    let master = instance.master.map_or_else(|| "the master".to_owned(), |it| it.to_string());
    let list =
        |all: &[IpAddr]| first_few(&all.iter().map(ToString::to_string).collect::<Vec<_>>(), ", ");
    let advice =
        "give it the same addresses on all nodes, or another VRID if these are two clusters";
    let mut all = Vec::new();
    if !instance.nowhere.is_empty() {
        let what = list(&instance.nowhere);
        all.push(format!(
            "{name}: {what} is on no node: {master} is master and does not have it; {advice}"
        ));
    }
    if !instance.lacking.is_empty() {
        let what = list(&instance.lacking);
        all.push(format!(
            "{name}: {what} would be on no node if this node became master: only {master} has it; \
             {advice}"
        ));
    }
    all
}

/// What that costs its instance in the election. What has recovered and does not count yet, or has
/// not been looked at, nobody has to come for.
fn unfit(instance: &InstanceStatus, objects: &[ServedObject<'_>]) -> Option<String> {
    let is_lost = |unfit: &&UnfitObject| {
        let mut all = objects.iter();
        all.any(|object| object.title() == unfit.object && object.situation().is_lost())
    };
    let lost: Vec<String> =
        instance.unfit.iter().filter(is_lost).map(|unfit| unfit.object.clone()).collect();
    if lost.is_empty() || !instance.faults.is_empty() {
        return None;
    }
    let (own, base) = (instance.effective_priority, instance.base_priority);
    let what = first_few(&lost, ", ");
    let name = &instance.name;
    let next = unfit_outlook(instance);
    Some(format!(
        "{name} competes with priority {own} of {base} because this node cannot serve {what}{next}"
    ))
}

/// What comes of it for a master, and for a backup; begins with its punctuation.
pub fn unfit_outlook(instance: &InstanceStatus) -> String {
    match (instance.role.as_str(), instance.offer_in_ms) {
        ("master", Some(left)) => format!("; it offers its mastership again in {}", age(left)),
        ("resigning", _) => "; its mastership is on offer now".to_owned(),
        ("backup", _) => backup_outlook(instance),
        (_, _) => String::new(),
    }
}

/// By the master's advert; of the other nodes a backup hears nothing.
fn backup_outlook(instance: &InstanceStatus) -> String {
    let master = instance.peer.as_ref().filter(|peer| peer.priority > 0);
    match master {
        // What keeps it from a lower master has a sentence of its own.
        Some(peer) if peer.priority < instance.effective_priority => String::new(),
        Some(peer) if peer.unfit => format!(
            "; its master {} cannot serve all of it either (priority {}) and stays: of such nodes the \
             one that can serve more comes first, then the configured order",
            peer.address, peer.priority
        ),
        Some(peer) => {
            format!("; {} comes first with priority {}", peer.address, peer.priority)
        }
        None => "; any node that can serve comes first".to_owned(),
    }
}

/// What it serves says already why it does not run.
fn is_explained(process: &ProcessStatus, objects: &[ServedObject<'_>]) -> bool {
    let is_of = |object: &&ServedObject<'_>| match object.kind {
        ObjectKind::Haproxy => process.backend == "haproxy" && process.name == object.name,
        ObjectKind::Service => {
            process.backend == "proxy" && object.backend == Some(process.backend.as_str())
        }
    };
    objects.iter().filter(is_of).any(|object| object.situation().is_lost())
}

/// The first few in full.
fn refusals(all: &[RefusedAddress]) -> String {
    let one = |refused: &RefusedAddress| {
        format!("{} on {}: {}", refused.address, refused.interface, refused.error)
    };
    first_few(&all.iter().map(one).collect::<Vec<_>>(), "; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample;

    /// The service of the sample, served here and not answering.
    fn failing() -> StatusDocument {
        let mut document = sample::document();
        document.checks.clear();
        let service = &mut document.services[0];
        (service.active, service.state) = (true, "failed".into());
        service.error = Some("the proxy does not start: no such file".into());
        service.backend = Some("proxy".into());
        service.fitness.aspect = "answering".into();
        service.fitness.holds = Some(false);
        service.fitness.detail = "the proxy does not start: no such file".into();
        document
    }

    fn process(name: &str, backend: &str, error: &str) -> ProcessStatus {
        ProcessStatus {
            name: name.into(),
            backend: backend.into(),
            state: "waiting".into(),
            pid: None,
            restarts: 3,
            error: Some(error.into()),
        }
    }

    /// Case: the process, the service and its servers spoke of one fault.
    #[test]
    fn one_fault_is_one_sentence() {
        let mut document = failing();
        document.processes = vec![process("proxy", "proxy", "no such file")];
        let service =
            "service www does not answer its clients: the proxy does not start: no such file";
        assert_eq!(problems(&document, false), [service]);
        document.services.clear();
        assert_eq!(problems(&document, false), ["process proxy does not run: no such file"]);
    }

    /// Case: a change that HAProxy cannot take up while the former one serves on.
    #[test]
    fn a_haproxy_that_serves_on_is_strained_and_not_down() {
        let mut document = failing();
        document.services.clear();
        let refused = "serves on as it is, a change is not taken up: cannot bind :8081";
        document.haproxy = vec![sample::haproxy()];
        document.haproxy[0].strained = Some(refused.into());
        document.processes = vec![process("front", "haproxy", "cannot bind :8081")];
        document.processes[0].state = "running".into();
        let strained = format!("haproxy front is strained: {refused}");
        assert_eq!(problems(&document, false), [strained]);
        let front = &mut document.haproxy[0];
        (front.strained, front.error) = (None, Some("haproxy does not start: no such file".into()));
        document.processes[0].state = "waiting".into();
        let down =
            "haproxy front does not answer its clients: haproxy does not start: no such file";
        assert_eq!(problems(&document, false), [down]);
    }

    #[test]
    fn an_instance_that_cannot_serve_says_what_comes_of_it() {
        let mut document = failing();
        let instance = &mut document.instances[0];
        let unfit = |object: &str| UnfitObject { object: object.into(), detail: String::new() };
        instance.unfit = vec![unfit("service www")];
        (instance.base_priority, instance.effective_priority) = (100, 1);
        let last = |document: &StatusDocument| problems(document, false).pop().unwrap_or_default();
        let begin = "web competes with priority 1 of 100 because this node cannot serve service \
                     www; ";
        assert_eq!(last(&document), format!("{begin}192.0.2.2 comes first with priority 100"));
        let peer = document.instances[0].peer.as_mut().expect("a master");
        (peer.priority, peer.unfit) = (2, true);
        let both = "its master 192.0.2.2 cannot serve all of it either (priority 2) and stays: of \
                    such nodes the one that can serve more comes first, then the configured order";
        assert_eq!(last(&document), format!("{begin}{both}"));
        let released = document.instances[0].peer.take();
        assert_eq!(last(&document), format!("{begin}any node that can serve comes first"));
        document.instances[0].peer = released;
        document.instances[0].role = "master".into();
        document.instances[0].offer_in_ms = Some(40_000);
        assert_eq!(last(&document), format!("{begin}it offers its mastership again in 40s"));
        document.instances[0].role = "resigning".into();
        assert_eq!(last(&document), format!("{begin}its mastership is on offer now"));
    }

    /// Case: the second address of a backup was on no node, and all was healthy.
    #[test]
    fn an_address_that_the_master_does_not_have_is_on_no_node() {
        let mut document = sample::document();
        document.checks.clear();
        document.instances[0].nowhere = vec![[192, 0, 2, 11].into()];
        let advice =
            "give it the same addresses on all nodes, or another VRID if these are two clusters";
        let nowhere = "web: 192.0.2.11 is on no node: 192.0.2.2 is master and does not have it";
        assert_eq!(problems(&document, false), [format!("{nowhere}; {advice}")]);
        document.instances[0].lacking = std::mem::take(&mut document.instances[0].nowhere);
        let lacking = "web: 192.0.2.11 would be on no node if this node became master: only \
                       192.0.2.2 has it";
        assert_eq!(problems(&document, false), [format!("{lacking}; {advice}")]);
    }

    /// It is over by itself.
    #[test]
    fn a_recovery_that_does_not_count_yet_needs_nobody() {
        let mut document = sample::document();
        document.checks.clear();
        let held = UnfitObject { object: "service www".into(), detail: String::new() };
        document.instances[0].unfit = vec![held];
        assert_eq!(problems(&document, false), [""; 0]);
    }
}
