//! Keys that people try and that are not there, with what to do instead: of other programs, of
//! features that somebody else has, and words that mean a key of ours.

/// What to do about `key` in the table of this noun (see [`crate::settings`]; `None` is the whole
/// file).
pub(crate) fn hint(noun: Option<&str>, key: &str) -> Option<&'static str> {
    let found = match noun {
        None => DOCUMENT,
        Some("instance") => INSTANCE,
        Some("check") => CHECK,
        Some("service") => SERVICE,
        Some("server") => SERVER,
        Some("health") => HEALTH,
        Some("http") => HTTP,
        Some("route" | "redirect") => RULE,
        Some(_) => &[],
    };
    let is_named = |(keys, _): &&Hint| keys.contains(&key);
    found.iter().chain(common(noun)).find(is_named).map(|(_, text)| *text)
}

/// Keys that are alike, and the text for all of them.
type Hint = (&'static [&'static str], &'static str);

/// What is asked of a service as well as of one of its servers.
fn common(noun: Option<&str>) -> &'static [Hint] {
    match noun {
        Some("service" | "server") => SERVED,
        _ => &[],
    }
}

const DOCUMENT: &[Hint] = &[
    (&["vrrp_instance", "vrrp"], "a virtual router is an [[instance]]"),
    (&["vrrp_script"], "a check of this node is a [check.NAME]"),
    (&["virtual_server", "backend", "frontend", "listen"], "a balanced service is a [[service]]"),
    (
        &["global_defs", "global", "defaults"],
        "there are no settings for all: each table has its own",
    ),
];

const INSTANCE: &[Hint] = &[
    (&["state", "initial_state"], "there is none: the node of the highest priority becomes master"),
    (&["nopreempt"], "that is `preempt = false`"),
    (&["preempt_delay"], "that is `preempt = \"30s\"`"),
    (&["vip", "vips", "virtual_ip", "address"], "that is `addresses`"),
    (&["authentication", "password", "auth_pass"], "that is `auth`"),
    (&["use_vmac", "vmac"], "there is no virtual MAC: the addresses move by gratuitous ARP"),
    (&["services", "servers"], "a balanced service is a [[service]] with `instance = NAME`"),
];

const CHECK: &[Hint] = &[
    (&["https", "ssl", "tls"], "that is `http = \"https://127.0.0.1/\"`"),
    (&["icmp"], "that is `ping = true` with an `address`"),
    (&["command", "exec", "cmd"], "that is `script`"),
    (&["url", "uri"], "that is `http`"),
];

const SERVED: &[Hint] = &[
    (
        &["send_proxy", "send-proxy", "send_proxy_v2", "send-proxy-v2", "proxy_protocol"],
        "that is `send_proxy` of the service: \"v1\" or \"v2\"",
    ),
    (
        &["backup", "spare", "sorry_server", "fallback"],
        "that is `sorry` of the service: it has the clients while the quorum is lost",
    ),
];

const SERVICE: &[Hint] = &[
    (
        &["ssl", "cert", "crt", "certificate", "certificates"],
        "that is `tls`, with `backend = \"haproxy\"`; other backends pass TLS on as it is",
    ),
    (
        &[
            "routes",
            "route",
            "acl",
            "use_backend",
            "cookie",
            "redirects",
            "redirect",
            "auth",
            "stats",
        ],
        "that is in [service.http], with `backend = \"haproxy\"`",
    ),
    (&["mode"], "with [service.http] it is HTTP, without it TCP"),
    (
        &["persistence_timeout", "sticky", "affinity", "stick_table"],
        "that is `persistence`; `scheduler = \"sh\"` sends an address to the same server each time",
    ),
    (&["ops"], "that is `one_packet`"),
    (&["mark", "fw_mark"], "that is `fwmark`"),
    (&["port", "bind", "address"], "that is in `listen`, as in \"192.0.2.10:80\""),
    (&["check", "checks", "health_check", "healthcheck"], "that is `health`"),
    (&["maxconn", "max_conn"], "that is `max_connections`"),
    (&["balance", "algorithm", "lb"], "that is `scheduler`"),
    (&["vip", "virtual_ip"], "that is in `listen`; the [[instance]] has the address"),
];

const SERVER: &[Hint] = &[
    (&["ssl", "tls", "verify", "sni"], "that is `server_tls` of the service"),
    (&["cookie"], "that is `cookie` in [service.http]: each server has a value by itself"),
    (&["port"], "that is in `address`, as in \"10.0.0.1:80\""),
    (&["maxconn", "max_conn", "uthreshold"], "that is `max_connections`"),
    (&["lthreshold"], "that is `min_connections`"),
    (&["inhibit_on_failure"], "that is `failed = \"quiesce\"`"),
    (&["check", "checks", "health_check", "healthcheck"], "that is `health`"),
    (&["name", "host"], "a server is known by its `address`: names are not looked up"),
];

const HTTP: &[Hint] = &[
    (&["acl", "acls", "use_backend"], "that is `routes`"),
    (&["forwardfor", "forwarded_for"], "that is `forwarded`"),
    (&["httpchk", "check", "health"], "that is `health` of the service"),
    (&["users", "realm", "userlist"], "that is in `auth`"),
    (&["compression", "cache"], "not available: a HAProxy that [[haproxy]] runs has it"),
    (&["maxconn", "max_connections"], "that is `max_connections` of a server"),
];

const RULE: &[Hint] = &[
    (&["path_beg", "path_prefix"], "that is `path_begins`"),
    (&["path_end", "path_suffix"], "that is `path_ends`"),
    (&["path_reg", "path_regex"], "that is `path_matches`"),
    (&["hdr_reg", "host_reg", "host_regex"], "that is `host_matches`, or a header's `matches`"),
    (&["hdr_dom", "domain"], "that is `host_domain`"),
    (&["url_sub", "query"], "that is `url_contains`"),
    (&["hdr", "header"], "that is `headers`"),
    (&["backend", "pool", "use_backend", "to"], "that is `service`, or of a redirect `location`"),
    (&["nocase"], "that is `ignore_case`"),
];

const HEALTH: &[Hint] = &[
    (&["ssl", "tls"], "that is `https = \"/health\"`"),
    (&["shell", "command", "exec"], "that is `script = [\"PROGRAM\", …]`"),
    (&["process"], "a process of this node is for a [check.NAME]"),
    (&["path", "uri"], "that is `http`"),
    (&["status", "status_code", "code"], "that is `expect`"),
];
