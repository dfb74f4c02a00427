//! The lines of a service that reads HTTP or ends TLS. Pure, as all of the file.
//!
//! ```text
//!   frontend  redirects ► the page of statistics ► headers for servers ► routes ► its own servers
//!   backend   name and password ► cookie ► servers
//! ```
//!
//! A route leads to the backend of another service, so what a backend has holds for all that comes
//! there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use locum_plan::{
    ClientTls, CookieMode, HttpAccess, HttpService, Name, RedirectTarget, RequestCondition,
    RequestMatch, RequestPart, ServerTls, ServerTrust, Service,
};
use sha2::{Digest, Sha256};

use crate::generated::lines::ConfigLines;
use crate::generated::word::{format_word, section, time, word};

/// HAProxy's longest time in seconds, where it wants no unit.
const DAY_S: u64 = 86_400;

/// The lists of users that a service asks for passwords.
pub(super) fn user_lists(lines: &mut ConfigLines, service: &Service) {
    let Some(http) = &service.http else { return };
    let lists =
        [("users", http.access.as_ref()), ("stats", http.stats.as_ref().map(|it| &it.access))];
    for (kind, access) in lists {
        let Some(access) = access else { continue };
        lines.head(&format!("userlist {}", user_list(&service.name, kind)));
        for user in &access.users {
            let (name, hash) = (word(&user.name), word(user.password.as_str()));
            lines.line(format!("user {name} password {hash}"));
        }
    }
}

fn user_list(service: &str, kind: &str) -> String {
    format!("{}:{kind}", section(service))
}

/// A line of the file as it may be shown.
pub(super) fn shown(line: &str) -> String {
    let is_user = line.trim_start().starts_with("user ");
    match line.split_once(" password ").filter(|_| is_user) {
        Some((before, _)) => format!("{before} password ***"),
        None => line.to_owned(),
    }
}

/// What follows the address in a `bind` line.
pub(super) fn bind_options(tls: &ClientTls, address: SocketAddr) -> String {
    if !tls.is_spoken_at(address.port()) {
        return String::new();
    }
    let certificates = tls.certificates.iter();
    let mut options: String =
        certificates.map(|path| format!(" crt {}", word(&path.to_string_lossy()))).collect();
    if !tls.alpn.is_empty() {
        options.push_str(&format!(" alpn {}", word(&tls.alpn.join(","))));
    }
    format!(" ssl{options}")
}

/// What becomes of requests that come in at the addresses of a service.
pub(super) fn frontend(lines: &mut ConfigLines, service: &Service, http: &HttpService) {
    lines.line(format!("timeout http-request {}", time(http.request_timeout)));
    for (number, redirect) in (1..).zip(&http.redirects) {
        let mut conditions = rules(lines, &format!("redirect{number}"), &redirect.when);
        let to = match &redirect.to {
            RedirectTarget::Https => {
                conditions.push("!{ ssl_fc }".to_owned());
                "scheme https".to_owned()
            }
            RedirectTarget::Prefix(prefix) => format!("prefix {}", format_word(prefix)),
            RedirectTarget::Location(place) => format!("location {}", format_word(place)),
        };
        let condition = if_all(&conditions);
        lines.line(format!("http-request redirect {to} code {}{condition}", redirect.code));
    }
    if let Some(page) = &http.stats {
        lines.line("stats enable");
        lines.line(format!("stats uri {}", word(&page.path)));
        lines.line("stats hide-version");
        if let Some(refresh) = page.refresh {
            lines.line(format!("stats refresh {}s", refresh.as_secs().clamp(1, DAY_S)));
        }
        lines.line(format!("stats http-request {}", asked(&page.access, &service.name, "stats")));
    }
    if http.forwarded {
        lines.line("option forwardfor");
        lines.line("http-request set-header X-Forwarded-Proto https if { ssl_fc }");
        lines.line("http-request set-header X-Forwarded-Proto http unless { ssl_fc }");
        lines.line("http-request set-header X-Forwarded-Port %[dst_port]");
    }
    for (number, route) in (1..).zip(&http.routes) {
        let conditions = rules(lines, &format!("route{number}"), &route.when);
        lines.line(format!("use_backend {}{}", section(&route.service), if_all(&conditions)));
    }
}

/// Defines what has to hold of a request, and says by which names.
fn rules(lines: &mut ConfigLines, name: &str, when: &[RequestCondition]) -> Vec<String> {
    let mut names = Vec::new();
    for (number, condition) in (1..).zip(when) {
        let rule = format!("{name}.{number}");
        let RequestCondition { part, comparison, values, ignores_case } = condition;
        let sample = match part {
            RequestPart::Host => "req.hdr(host),host_only".to_owned(),
            RequestPart::Path => "path".to_owned(),
            RequestPart::PathAndQuery => "pathq".to_owned(),
            RequestPart::Header(name) => format!("req.hdr({name})"),
        };
        let way = match comparison {
            RequestMatch::Is => "str",
            RequestMatch::Begins => "beg",
            RequestMatch::Ends => "end",
            RequestMatch::Contains => "sub",
            RequestMatch::Domain => "dom",
            RequestMatch::Matches => "reg",
            RequestMatch::Present => "found",
        };
        let case = if *ignores_case { " -i" } else { "" };
        if values.is_empty() {
            lines.line(format!("acl {rule} {sample} -m {way}"));
        }
        // A line holds so many words; one rule may have many lines, of which one is enough.
        for value in values {
            lines.line(format!("acl {rule} {sample} -m {way}{case} -- {}", word(value)));
        }
        names.push(rule);
    }
    names
}

fn if_all(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" if {}", conditions.join(" ")) }
}

/// Asks for a name and a password that are in the list.
fn asked(access: &HttpAccess, service: &str, kind: &str) -> String {
    let (realm, list) = (word(&access.realm), user_list(service, kind));
    format!("auth realm {realm} unless {{ http_auth({list}) }}")
}

/// What holds for all that comes to the servers of a service.
pub(super) fn backend(lines: &mut ConfigLines, service: &Service, http: &HttpService) {
    lines.line(format!("timeout tunnel {}", time(http.tunnel_timeout)));
    if let Some(access) = &http.access {
        lines.line(format!("http-request {}", asked(access, &service.name, "users")));
    }
    if let Some(cookie) = &http.cookie {
        let mode = match cookie.mode {
            // Neither passed on to servers, nor kept by caches, nor seen by scripts.
            CookieMode::Insert => "insert indirect nocache httponly",
            CookieMode::Rewrite => "rewrite",
            CookieMode::Prefix => "prefix",
        };
        let is_hidden = |tls: &ClientTls| service.addresses().all(|at| tls.is_spoken_at(at.port()));
        let is_secure = cookie.mode == CookieMode::Insert
            && !service.listen.is_empty()
            && service.client_tls.as_ref().is_some_and(is_hidden);
        let secure = if is_secure { " secure" } else { "" };
        lines.line(format!("cookie {} {mode}{secure}", word(&cookie.name)));
    }
}

/// What follows the address in a `server` line.
pub(super) fn server_options(service: &Service, address: SocketAddr) -> String {
    let mut options = String::new();
    let http = service.http.as_ref();
    if http.is_some_and(|http| http.cookie.is_some()) {
        options.push_str(&format!(" cookie {}", cookie_value(address)));
    }
    let is_http2 = http.is_some_and(|http| http.server_http2);
    match (&service.server_tls, is_http2) {
        (None, false) => {}
        (None, true) => options.push_str(" proto h2"),
        (Some(tls), is_http2) => {
            options.push_str(&server_tls(tls));
            if is_http2 {
                options.push_str(" alpn h2,http/1.1");
            }
        }
    }
    options
}

fn server_tls(tls: &ServerTls) -> String {
    let mut options = match &tls.trust {
        ServerTrust::Nobody => " ssl verify none".to_owned(),
        ServerTrust::System => " ssl verify required ca-file @system-ca".to_owned(),
        ServerTrust::File(path) => {
            format!(" ssl verify required ca-file {}", word(&path.to_string_lossy()))
        }
    };
    if let Some(name) = &tls.name {
        options.push_str(&format!(" sni {}", word(&format!("str({name})"))));
    }
    options
}

/// The same on every node, and not the address itself.
fn cookie_value(address: SocketAddr) -> String {
    let digest = Sha256::digest(address.to_string().as_bytes());
    hex::encode(digest.iter().take(8).copied().collect::<Vec<u8>>())
}

/// Stands for services that routes lead to and that were left out: HAProxy says 503 of them, and
/// serves the others.
pub(super) fn stand_ins<'a>(
    lines: &mut ConfigLines,
    services: impl Iterator<Item = &'a Service> + Clone,
) {
    let served: BTreeSet<&Name> = services.clone().map(|service| &service.name).collect();
    let routes = services.filter_map(|service| service.http.as_ref()).flat_map(|it| &it.routes);
    let missing: BTreeSet<&Name> =
        routes.map(|route| &route.service).filter(|name| !served.contains(name)).collect();
    for name in missing {
        lines.head(&format!("backend {}", section(name)));
        lines.line("mode http");
    }
}
