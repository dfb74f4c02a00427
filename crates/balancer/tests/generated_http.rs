//! Services that read HTTP by a HAProxy that is made for them, with Debian's own HAProxy.

mod bench;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bench::{
    Bench, PATIENCE, address, edit, failure, finish, fresh_address, has_haproxy, serve,
    start_server, tick_until, wanted,
};
use locum_balancer::Balancer;
use locum_plan::{
    BackendChoice, BackendKind, ClientTls, CookieMode, HttpAccess, HttpRedirect, HttpRoute,
    HttpService, HttpUser, Name, PasswordHash, RedirectTarget, RequestCondition, RequestMatch,
    RequestPart, Scheduler, Server, ServerTls, ServerTrust, Service, Standby, StatsPage,
    StickyCookie,
};

/// Of `geheim`, with few rounds.
const HASH: &str = "$5$rounds=1000$salt$HeM2DgSDOrvWLnQYVR9.MBgJJSy5t6NkWoZYnm6Vgj4";

fn http() -> HttpService {
    HttpService {
        redirects: Vec::new(),
        routes: Vec::new(),
        stats: None,
        forwarded: true,
        access: None,
        cookie: None,
        server_http2: false,
        request_timeout: Duration::from_secs(10),
        tunnel_timeout: Duration::from_secs(10),
    }
}

/// In front of servers that answer with these letters.
fn service(name: &str, letters: &str, http: HttpService) -> Service {
    let servers = letters.chars().map(|letter| Server::new(start_server(letter)));
    Service {
        backend: BackendChoice::Only(BackendKind::Haproxy),
        scheduler: Scheduler::named("rr"),
        standby: Standby::Warm,
        servers: servers.collect(),
        http: Some(Arc::new(http)),
        ..Service::new(Name::from(name), fresh_address().into())
    }
}

/// The same, where only routes lead to.
fn pool(name: &str, letters: &str) -> Service {
    Service { listen: Vec::new(), ..service(name, letters, http()) }
}

fn when(part: RequestPart, comparison: RequestMatch, values: &[&str]) -> RequestCondition {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    RequestCondition { part, comparison, values, ignores_case: false }
}

fn route(when: RequestCondition, service: &str) -> HttpRoute {
    HttpRoute { when: vec![when], service: Name::from(service) }
}

fn ask(to: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = if headers.contains("Host:") { "" } else { "Host: test\r\n" };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// What the server says, or the status of an answer that is none of a server.
fn said(to: SocketAddr, path: &str, headers: &str) -> String {
    let answer = ask(to, path, headers);
    match answer.starts_with("HTTP/1.1 200") {
        true => answer.chars().last().map(String::from).unwrap_or_default(),
        false => answer.split(' ').nth(1).unwrap_or_default().to_owned(),
    }
}

fn served(balancer: &mut Balancer, services: &[&Service]) {
    serve(balancer, &wanted(services)).unwrap();
}

#[test]
fn requests_are_routed_by_host_path_and_header() {
    if !has_haproxy() {
        return;
    }
    use RequestMatch::{Begins, Contains, Domain, Ends, Is, Matches, Present};
    use RequestPart::{Header, Host, Path, PathAndQuery};
    let routes = vec![
        route(when(Path, Begins, &["/api", "/v2"]), "api"),
        route(RequestCondition { ignores_case: true, ..when(Path, Ends, &[".php"]) }, "php"),
        route(when(Host, Matches, &["^(www.z.cn|z.cn)$"]), "www.z.cn"),
        route(when(Host, Domain, &["bbs.z.cn"]), "bbs"),
        route(when(PathAndQuery, Contains, &["buy_sid="]), "buy"),
        route(when(Header("X-Canary".into()), Is, &["1"]), "canary"),
        route(when(Header("X-There".into()), Present, &[]), "there"),
        HttpRoute {
            when: vec![when(Host, Is, &["both"]), when(Path, Is, &["/both"])],
            service: Name::from("both"),
        },
    ];
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let www = service("www", "a", HttpService { routes, ..http() });
    let pools: Vec<Service> = ["api", "php", "www.z.cn", "bbs", "buy", "canary", "there", "both"]
        .into_iter()
        .zip(["b", "c", "d", "e", "f", "g", "h", "i"])
        .map(|(name, letter)| pool(name, letter))
        .collect();
    let all: Vec<&Service> = [&www].into_iter().chain(&pools).collect();
    served(&mut balancer, &all);
    let cases = [
        ("/", "", "a"),
        ("/api/1", "", "b"),
        ("/v2", "", "b"),
        ("/x/api", "", "a"),
        ("/x.PHP?y", "", "c"),
        ("/", "Host: www.z.cn:8080\r\n", "d"),
        ("/", "Host: www.z.cn.example\r\n", "a"),
        ("/", "Host: old.bbs.z.cn\r\n", "e"),
        ("/", "Host: xbbs.z.cn\r\n", "a"),
        ("/x?a=1&buy_sid=3", "", "f"),
        ("/", "X-Canary: 1\r\n", "g"),
        ("/", "X-Canary: 11\r\n", "a"),
        ("/", "X-There: no\r\n", "h"),
        ("/both", "Host: both\r\n", "i"),
        ("/both", "", "a"),
    ];
    for (path, headers, letter) in cases {
        assert_eq!(said(address(&www), path, headers), letter, "{path} {headers}");
    }
    finish(balancer);
}

/// Whatever an operator writes is compared as it is written, and nothing of it is HAProxy's language.
#[test]
fn what_is_written_stays_what_it_is() {
    if !has_haproxy() {
        return;
    }
    let odd = [
        "/-f",
        "/a b",
        "/a'b",
        "/a\"b",
        "/a\\",
        "/$HOME",
        "/${HOME}",
        "/%[src]",
        "/a#b",
        "/a}",
        "/a{",
        "/it's \"$x\" \\n #%[src] }",
        "--",
        "-i",
        "-f/etc/passwd",
        "!x",
        "or",
        "||",
        "/\u{e4}",
    ];
    let by_header: Vec<HttpRoute> = odd
        .iter()
        .zip('b'..)
        .map(|(value, letter)| {
            let header = RequestPart::Header("X-Odd".into());
            route(when(header, RequestMatch::Is, &[value]), &letter.to_string())
        })
        .collect();
    let to_odd = HttpRedirect {
        when: vec![when(RequestPart::Path, RequestMatch::Is, &["/odd"])],
        to: RedirectTarget::Location("/%[src]'\"\\$HOME#%H".into()),
        code: 307,
    };
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let with_odd = HttpService { routes: by_header, redirects: vec![to_odd], ..http() };
    let www = service("www", "a", with_odd);
    let pools: Vec<Service> =
        odd.iter().zip('b'..).map(|(_, it)| pool(&it.to_string(), &it.to_string())).collect();
    let all: Vec<&Service> = [&www].into_iter().chain(&pools).collect();
    served(&mut balancer, &all);
    assert_eq!(said(address(&www), "/", "X-Odd: other\r\n"), "a");
    for (value, letter) in odd.iter().zip('b'..) {
        let headers = format!("X-Odd: {value}\r\n");
        assert_eq!(said(address(&www), "/", &headers), letter.to_string(), "{value}");
    }
    let answer = ask(address(&www), "/odd", "");
    assert!(answer.contains("location: /%[src]'\"\\$HOME#%H\r\n"), "{answer}");
    assert!(answer.starts_with("HTTP/1.1 307"), "{answer}");
    finish(balancer);
}

#[test]
fn a_cookie_keeps_a_client_on_its_server_while_that_takes_clients() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let cookie = StickyCookie { name: "SRV".into(), mode: CookieMode::Insert };
    let www = service("www", "ab", HttpService { cookie: Some(cookie), ..http() });
    let mut level = wanted(&[&www]);
    serve(&mut balancer, &level).unwrap();
    let answer = ask(address(&www), "/", "");
    let (letter, cookie) = (answer.chars().last().unwrap(), answer.split("SRV=").nth(1).unwrap());
    let value = cookie.split(';').next().unwrap();
    assert!(answer.to_lowercase().contains("httponly"), "{answer}");
    assert!(!answer.contains("127."), "it does not say the address of the server: {answer}");
    let headers = format!("Cookie: SRV={value}\r\n");
    let letters =
        |headers: &str| -> String { (0..6).map(|_| said(address(&www), "/", headers)).collect() };
    assert_eq!(letters(&headers), letter.to_string().repeat(6));
    assert_eq!(letters("").matches(letter).count(), 3);
    let of_first = usize::from(letter == 'b');
    edit(&mut level, 0).servers[of_first].weight = 0;
    balancer.apply(&level);
    let other = if letter == 'a' { "b" } else { "a" };
    tick_until(&mut balancer, "the other server", |_, _| letters(&headers) == other.repeat(6));
    finish(balancer);
}

#[test]
fn requests_are_redirected_and_passwords_are_asked_for() {
    if !has_haproxy() {
        return;
    }
    let users = vec![HttpUser { name: "ada".into(), password: PasswordHash::new(HASH).unwrap() }];
    let access = HttpAccess { realm: "a shop's".into(), users };
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let path = |value: &str| vec![when(RequestPart::Path, RequestMatch::Begins, &[value])];
    let with = |value: &str, to, code| HttpRedirect { when: path(value), to, code };
    let www = service(
        "www",
        "a",
        HttpService {
            redirects: vec![
                with("/to/s", RedirectTarget::Https, 301),
                with("/to/p", RedirectTarget::Prefix("https://other.example".into()), 302),
                with("/to/l", RedirectTarget::Location("/new".into()), 308),
            ],
            routes: vec![route(path("/private")[0].clone(), "private")],
            stats: Some(StatsPage {
                path: "/stats".into(),
                access: access.clone(),
                refresh: Some(Duration::from_secs(5)),
            }),
            ..http()
        },
    );
    let mut private = pool("private", "b");
    private.http = Some(Arc::new(HttpService { access: Some(access), ..http() }));
    served(&mut balancer, &[&www, &private]);
    let location = |path: &str| {
        let answer = ask(address(&www), path, "");
        let place = answer.lines().find_map(|line| line.strip_prefix("location: "));
        format!("{} {}", answer.split(' ').nth(1).unwrap(), place.unwrap_or_default())
    };
    assert_eq!(location("/to/s?x=1"), "301 https://test/to/s?x=1");
    assert_eq!(location("/to/p/q"), "302 https://other.example/to/p/q");
    assert_eq!(location("/to/l/q"), "308 /new");
    assert_eq!(said(address(&www), "/", ""), "a");
    // printf 'ada:geheim' | base64
    let ada = "Authorization: Basic YWRhOmdlaGVpbQ==\r\n";
    let wrong = "Authorization: Basic YWRhOmdlaGVpeA==\r\n";
    for (path, found) in [("/private", "b"), ("/stats/none", "200")] {
        let answer = ask(address(&www), path, "");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("Basic realm=\"a shop's\""), "{answer}");
        assert_eq!(said(address(&www), path, wrong), "401");
        let answer = ask(address(&www), path, ada);
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(HASH), "{answer}");
        assert!(answer.ends_with(found) || answer.contains("Statistics Report"), "{answer}");
    }
    finish(balancer);
}

/// What HAProxy refuses of one service, such as a file that is not there, keeps those beside it from
/// nothing; a route to it says 503.
#[test]
fn a_service_that_routes_lead_to_and_that_is_refused_is_unavailable() {
    if !has_haproxy() {
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let routes = vec![route(when(RequestPart::Path, RequestMatch::Begins, &["/api"]), "api")];
    let www = service("www", "a", HttpService { routes, ..http() });
    let mut api = pool("api", "b");
    let authority = bench.path("ca.pem");
    let trust = ServerTrust::File(authority.clone());
    api.server_tls = Some(ServerTls { name: Some("api.test".into()), trust });
    let level = wanted(&[&www, &api]);
    serve(&mut balancer, &level).unwrap_err();
    tick_until(&mut balancer, "the one that can be", |balancer, _| {
        balancer.progress().pending.is_empty() && failure(balancer, "api").is_some()
    });
    let why = failure(&balancer, "api").unwrap();
    assert!(why.contains("ca.pem"), "{why}");
    assert_eq!(failure(&balancer, "www"), None);
    tick_until(&mut balancer, "www", |_, _| said(address(&www), "/", "") == "a");
    assert_eq!(said(address(&www), "/api", ""), "503");
    finish(balancer);
}

/// A certificate that is not there is the service's own fault, and named.
#[test]
fn a_service_without_its_certificate_is_left_out() {
    if !has_haproxy() {
        return;
    }
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let tls = |file: PathBuf| {
        Some(ClientTls { certificates: vec![file], ports: Vec::new(), alpn: vec!["h2".into()] })
    };
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut www = service("www", "a", http());
    www.client_tls = tls(data.join("first.pem"));
    let mut shop = service("shop", "b", http());
    shop.client_tls = tls(bench.path("missing.pem"));
    serve(&mut balancer, &wanted(&[&www, &shop])).unwrap_err();
    tick_until(&mut balancer, "what becomes of it", |balancer, _| {
        balancer.progress().pending.is_empty()
            && failure(balancer, "shop").is_some_and(|why| why.contains("missing.pem"))
            && failure(balancer, "www").is_none()
    });
    finish(balancer);
}
