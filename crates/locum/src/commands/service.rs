//! `service`: what a service of the configuration would be on this host.

use locum_balancer::haproxy_text;

use crate::cli::{DaemonArgs, ServiceCommand};
use crate::configuration::Origin;
use crate::exit;
use crate::terminal::{complain, say};

pub fn run(command: &ServiceCommand, place: &DaemonArgs) -> u8 {
    let ServiceCommand::ShowHaproxy { service, configuration } = command;
    let origin = Origin::as_typed(configuration);
    let loaded = origin.load();
    let Some(plan) = loaded.plan else {
        complain(&loaded.diagnostics.to_string());
        return exit::ERRORS;
    };
    if let Some(text) = haproxy_text(&plan, service, &place.run_dir) {
        say(&text);
        return exit::OK;
    }
    let by_haproxy = plan.services.iter().filter(|one| {
        let name = one.name.to_string();
        haproxy_text(&plan, &name, &place.run_dir).is_some()
    });
    let names: Vec<&str> = by_haproxy.map(|one| &*one.name).collect();
    let others = match names.as_slice() {
        [] => "no service of it is: give it `backend = \"haproxy\"`".to_owned(),
        names => format!("these are: {}", names.join(", ")),
    };
    let is_known = plan.services.iter().any(|one| *one.name == **service);
    let text = if is_known { "is not served by HAProxy" } else { "is no service" };
    complain(&format!("locum: {service} {text} in {}; {others}\n", origin.path()));
    exit::FAILED
}
