//! What a service does with HTTP and TLS, in the plan's words.

use std::sync::Arc;

use locum_plan::{
    ClientTls, HttpAccess, HttpRedirect, HttpRoute, HttpService, HttpUser, Name, RedirectTarget,
    RequestCondition, RequestMatch, RequestPart, ServerTls, ServerTrust, StatsPage, StickyCookie,
};

use crate::dialect::Dialect;
use crate::field::Field;
use crate::parsed::ParsedService;
use crate::settings::http::{self as of_http, ParsedAccess, ParsedHttp};
use crate::settings::requests::{self as of_rule, ParsedHeader, ParsedRule};
use crate::settings::tls as of_tls;
use crate::span::At;

pub(super) fn http(parsed: &ParsedService, dialect: Dialect) -> Option<Arc<HttpService>> {
    let http = parsed.http.value()?;
    let routes = http.routes.list().iter().filter_map(|at| {
        let service = Name::from(at.value.service.value()?.as_str());
        Some(HttpRoute { when: conditions(&at.value, dialect), service })
    });
    let redirects = http.redirects.list().iter().filter_map(|at| redirect(&at.value, dialect));
    Some(Arc::new(HttpService {
        redirects: redirects.collect(),
        routes: routes.collect(),
        stats: http.stats.value().and_then(|page| stats(page, dialect)),
        forwarded: of_http::FORWARDED.of(http, dialect),
        access: http.auth.value().map(|auth| access(auth, dialect)),
        cookie: cookie(http, dialect),
        server_http2: of_http::SERVER_HTTP2.of(http, dialect),
        request_timeout: of_http::REQUEST_TIMEOUT.of(http, dialect),
        tunnel_timeout: of_http::TUNNEL_TIMEOUT.of(http, dialect),
    }))
}

pub(super) fn client_tls(parsed: &ParsedService) -> Option<ClientTls> {
    let tls = parsed.tls.value()?;
    let texts = |all: &[At<String>]| all.iter().map(|at| at.value.clone()).collect();
    let alpn = match (tls.alpn.given(), parsed.http.is_absent()) {
        (Some(at), _) => texts(&at.value),
        (None, true) => Vec::new(),
        (None, false) => vec!["h2".to_owned(), "http/1.1".to_owned()],
    };
    Some(ClientTls {
        certificates: tls.certificates.list().iter().map(|at| at.value.clone()).collect(),
        ports: tls.ports.list().iter().map(|at| at.value).collect(),
        alpn,
    })
}

pub(super) fn server_tls(parsed: &ParsedService, dialect: Dialect) -> Option<ServerTls> {
    let tls = parsed.server_tls.value()?;
    let trust = match (of_tls::VERIFY.of(tls, dialect), tls.ca.value()) {
        (false, _) => ServerTrust::Nobody,
        (true, Some(ca)) => ServerTrust::File(ca.clone()),
        (true, None) => ServerTrust::System,
    };
    Some(ServerTls { name: tls.name.value().cloned(), trust })
}

fn redirect(rule: &ParsedRule, dialect: Dialect) -> Option<HttpRedirect> {
    let to = match (&rule.scheme, &rule.prefix, &rule.location) {
        (Field::Given(_), _, _) => RedirectTarget::Https,
        (_, Field::Given(prefix), _) => RedirectTarget::Prefix(prefix.value.clone()),
        (_, _, Field::Given(location)) => RedirectTarget::Location(location.value.clone()),
        // Reported by the rules.
        _ => return None,
    };
    let code = of_rule::CODE.of(rule, dialect);
    Some(HttpRedirect { when: conditions(rule, dialect), to, code })
}

fn conditions(rule: &ParsedRule, dialect: Dialect) -> Vec<RequestCondition> {
    use RequestMatch::{Begins, Contains, Domain, Ends, Is, Matches};
    use RequestPart::{Host, Path, PathAndQuery};
    let ignores_case = of_rule::IGNORE_CASE.of(rule, dialect);
    let fields = [
        (&rule.host, Host, Is),
        (&rule.host_domain, Host, Domain),
        (&rule.host_matches, Host, Matches),
        (&rule.path, Path, Is),
        (&rule.path_begins, Path, Begins),
        (&rule.path_ends, Path, Ends),
        (&rule.path_matches, Path, Matches),
        (&rule.url_contains, PathAndQuery, Contains),
    ];
    let of_fields = fields.into_iter().filter_map(|(field, part, comparison)| {
        let values = texts(field)?;
        // Names of hosts have no case.
        let ignores_case = ignores_case || part == Host;
        Some(RequestCondition { part, comparison, values, ignores_case })
    });
    let of_headers = rule.headers.list().iter().filter_map(|at| header(&at.value, ignores_case));
    of_fields.chain(of_headers).collect()
}

fn header(parsed: &ParsedHeader, ignores_case: bool) -> Option<RequestCondition> {
    let part = RequestPart::Header(parsed.name.value()?.clone());
    let mut ways = parsed.ways().into_iter();
    let way = ways.find_map(|(field, comparison)| Some((texts(field)?, comparison)));
    let (values, comparison) = way.unwrap_or((Vec::new(), RequestMatch::Present));
    Some(RequestCondition { part, comparison, values, ignores_case })
}

fn texts(field: &Field<Vec<At<String>>>) -> Option<Vec<String>> {
    field.given().map(|at| at.value.iter().map(|at| at.value.clone()).collect())
}

fn cookie(http: &ParsedHttp, dialect: Dialect) -> Option<StickyCookie> {
    let cookie = http.cookie.value()?;
    let name = cookie.name.value()?.clone();
    Some(StickyCookie { name, mode: of_http::COOKIE_MODE.of(cookie, dialect) })
}

fn stats(parsed: &ParsedAccess, dialect: Dialect) -> Option<StatsPage> {
    let path = parsed.path.value()?.clone();
    let refresh = parsed.refresh.value().copied();
    Some(StatsPage { path, access: access(parsed, dialect), refresh })
}

fn access(parsed: &ParsedAccess, dialect: Dialect) -> HttpAccess {
    let users = parsed.users.list().iter().filter_map(|at| {
        let (name, password) = (at.value.name.value()?, at.value.password.value()?);
        Some(HttpUser { name: name.clone(), password: password.clone() })
    });
    HttpAccess { realm: of_http::REALM.of(parsed, dialect), users: users.collect() }
}
