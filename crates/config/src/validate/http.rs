//! Rules of a service that reads HTTP or ends TLS, alone and beside those that its routes name.

use std::collections::{HashMap, HashSet};

use locum_plan::{BackendChoice, BackendKind, HttpService, Plan, Service};

use crate::field::Field;
use crate::need::NeedKind;
use crate::parsed::{Parsed, ParsedService};
use crate::settings::http::{ParsedAccess, ParsedHttp};
use crate::settings::requests::ParsedRule;
use crate::settings::tls::{ParsedClientTls, ParsedServerTls};
use crate::span::{At, Report, Span};

pub(super) fn validate(parsed: &ParsedService, built: &Service, report: &mut Report) {
    let listens = parsed.listen.given().is_some();
    if let Some(at) = parsed.tls.given() {
        client_tls(&at.value, at.span, built, listens, report);
    }
    if let Some(at) = parsed.server_tls.given() {
        server_tls(&at.value, at.span, report);
    }
    let (Some(at), Some(http)) = (parsed.http.given(), &built.http) else { return };
    if !listens && parsed.listen.is_absent() {
        of_listeners(&at.value, report);
    }
    rules(&at.value, http, report);
    if let (Some(cookie), Some(persistence)) = (at.value.cookie.given(), parsed.persistence.given())
    {
        let text = "a client is kept on its server by a cookie, or by its address";
        report
            .error(cookie.span, "kept-twice", text)
            .see("`persistence`", persistence.span)
            .help("leave one of them out");
    }
    for access in [at.value.auth.given(), at.value.stats.given()].into_iter().flatten() {
        users(&access.value, report);
    }
}

/// What is asked of requests that come in here asks nothing where none do.
fn of_listeners(http: &ParsedHttp, report: &mut Report) {
    let keys = [
        ("routes", http.routes.span()),
        ("redirects", http.redirects.span()),
        ("stats", http.stats.span()),
        ("forwarded", http.forwarded.span()),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let text =
            format!("`{key}` is for requests that come in at the service, and it has no `listen`");
        let finding = report.error(span, "misplaced-key", text);
        finding.help("write it to the service whose routes lead here");
    }
}

fn rules(parsed: &ParsedHttp, http: &HttpService, report: &mut Report) {
    for (at, route) in parsed.routes.list().iter().zip(&http.routes) {
        if route.when.is_empty() {
            let text = "a route says which requests it is for";
            report
                .error(at.span, "missing-key", text)
                .help("add a condition, as in `path_begins = \"/api\"`");
        }
    }
    for at in parsed.redirects.list() {
        let ParsedRule { scheme, prefix, location, .. } = &at.value;
        let targets = [scheme.span(), prefix.span(), location.span()];
        if targets.iter().flatten().count() != 1 {
            let text = "a redirect goes to a `scheme`, a `prefix` or a `location`";
            report.error(at.span, "bad-redirect", text);
        }
    }
}

fn users(access: &ParsedAccess, report: &mut Report) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for at in access.users.list() {
        let Some(name) = at.value.name.given() else { continue };
        if let Some(first) = seen.insert(&name.value, name.span) {
            let text = format!("user `{}` is listed twice", name.value);
            report.error(name.span, "duplicate-name", text).see("first", first);
        }
    }
}

fn client_tls(
    tls: &ParsedClientTls,
    span: Span,
    built: &Service,
    listens: bool,
    report: &mut Report,
) {
    if !listens {
        report.error(span, "misplaced-key", "`tls` is for clients, and there is no `listen`");
    }
    for at in tls.ports.list().iter().filter(|_| listens) {
        if !built.listen.iter().any(|listener| listener.port() == Some(at.value)) {
            let text = format!("the service does not listen at port {}", at.value);
            report.error(at.span, "unknown-port", text);
        }
    }
    for at in tls.certificates.list() {
        report.need(at.span, NeedKind::File(at.value.display().to_string()));
    }
}

fn server_tls(tls: &ParsedServerTls, span: Span, report: &mut Report) {
    match (tls.verify.value(), tls.ca.given()) {
        (Some(false), Some(ca)) => {
            let text = "`ca` means nothing beside `verify = false`";
            report.error(ca.span, "misplaced-key", text);
        }
        (Some(false), None) => {}
        (Some(true) | None, ca) => {
            if let Some(ca) = ca {
                report.need(ca.span, NeedKind::File(ca.value.display().to_string()));
            }
            if tls.name.is_absent() {
                let text = "a certificate is verified to be for a name, and `server_tls` has none";
                report
                    .error(span, "missing-key", text)
                    .help("add the `name` that the servers' certificates are for");
            }
        }
    }
}

/// Every route leads to a service that the same HAProxy serves, and to every service leads something.
pub(super) fn routes(all: &Parsed, plan: &Plan, report: &mut Report) {
    let mut reached: HashSet<&str> = HashSet::new();
    for (parsed, built) in all.services.iter().zip(&plan.services) {
        let Some(http) = parsed.http.value() else { continue };
        for at in http.routes.list() {
            let Some(named) = at.value.service.given() else { continue };
            reached.insert(&named.value);
            route(named, built, plan, report);
        }
    }
    for parsed in &all.services {
        let is_refused = parsed.http.is_absent() || is_reachable(parsed);
        if !is_refused && !reached.contains(parsed.name.value.as_str()) {
            let text = format!(
                "service `{}` has no `listen`, and no route leads to it",
                parsed.name.value
            );
            report
                .error(parsed.span, "missing-key", text)
                .help("name the address and port of its clients, or it in a route");
        }
    }
}

fn is_reachable(parsed: &ParsedService) -> bool {
    let written = |field: &Field<_>| !field.is_absent();
    written(&parsed.listen) || !parsed.fwmark.is_absent()
}

fn route(named: &At<String>, from: &Service, plan: &Plan, report: &mut Report) {
    let name = named.value.as_str();
    let is_http = |one: &&Service| one.http.is_some();
    let Some(to) = plan.services.iter().find(|one| *one.name == *name) else {
        let known: Vec<&str> = plan.services.iter().filter(is_http).map(|one| &*one.name).collect();
        let text = format!("there is no service `{name}`");
        report.error(named.span, "unknown-service", text).suggest(name, known);
        return;
    };
    let by_haproxy = |one: &Service| one.backend == BackendChoice::Only(BackendKind::Haproxy);
    let text = if to.name == from.name {
        "a service has by itself what no route fits".to_owned()
    } else if to.http.is_none() || !by_haproxy(to) {
        format!("service `{name}` reads no HTTP: it needs `http` and `backend = \"haproxy\"`")
    } else if to.instance != from.instance {
        format!("service `{name}` is of another instance, so another HAProxy serves it")
    } else if to.standby != from.standby {
        format!("service `{name}` has another `standby`, so another HAProxy serves it")
    } else {
        return;
    };
    report.error(named.span, "route-elsewhere", text);
}
