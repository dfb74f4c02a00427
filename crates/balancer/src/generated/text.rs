//! The haproxy.cfg of services. Pure: the same services give the same text.
//!
//! What changes while it runs is not in it (weights in force, servers that are out): HAProxy reads that
//! from the state file when it starts, and hears it at its socket afterwards. So the text changes only
//! with the configuration (and with the order of servers of which the heaviest has all clients), and a
//! change of it is what a reload is for.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locum_plan::{HeaderVersion, Listener, Name, Persistence, Service, WantedService};

use crate::generated::http;
use crate::generated::lines::ConfigLines;
use crate::generated::usage::{ServerUse, UsedServer, servers};
use crate::generated::word::{section, server, time, word};

/// Entries of a table of clients; the oldest make room. Some 20 MB when it is full.
const CLIENTS: &str = "200k";

/// How long a process that was replaced may go on for connections that do not end: longer than most
/// transfers, and not for ever.
const REPLACED_LIMIT: &str = "12h";

/// Where a HAProxy works and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Surroundings {
    pub socket: PathBuf,
    pub state: PathBuf,
    /// User and group that it becomes once it has its ports; `None`: it stays who it is.
    pub user: Option<(u32, u32)>,
}

/// A configuration, and which lines of it are whose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HaproxyConfig {
    pub text: String,
    /// By the number of the first and of the line after the last, from 1.
    lines: Vec<(Range<usize>, Name)>,
}

impl HaproxyConfig {
    pub(crate) fn of(services: &[Arc<WantedService>], around: &Surroundings) -> Self {
        let mut lines = ConfigLines::default();
        global(&mut lines, around);
        let mut of_services = Vec::new();
        for wanted in services {
            let first = lines.count + 1;
            http::user_lists(&mut lines, &wanted.service);
            frontend(&mut lines, &wanted.service);
            backend(&mut lines, wanted);
            of_services.push((first..lines.count + 1, wanted.service.name.clone()));
        }
        http::stand_ins(&mut lines, services.iter().map(|wanted| &*wanted.service));
        Self { text: lines.text, lines: of_services }
    }

    /// The text without what passwords could be guessed from.
    pub(crate) fn shown(&self) -> String {
        self.text.lines().map(|line| http::shown(line) + "\n").collect()
    }

    /// The services that HAProxy's `words` about the file at `path` are of; none when that cannot be
    /// said.
    pub(crate) fn blamed(&self, words: &str, path: &Path) -> Vec<Name> {
        let lines = lines_named(words, path);
        let is_named = |name: &Name| {
            let section = section(name);
            let forms = [format!("'{section}'"), format!(" {section}: "), format!("'{section}/")];
            forms.iter().any(|form| words.contains(form.as_str()))
        };
        let of_line = |(range, name): &(Range<usize>, Name)| {
            lines.iter().any(|line| range.contains(line)) || is_named(name)
        };
        self.lines.iter().filter(|one| of_line(one)).map(|(_, name)| name.clone()).collect()
    }

    /// The lines that `words` name, as they are: an operator has not written them.
    pub(crate) fn quoted(&self, words: &str, path: &Path) -> String {
        let quoted = lines_named(words, path).into_iter().filter_map(|number| {
            let line = self.text.lines().nth(number.checked_sub(1)?)?;
            Some(format!("; line {number} is `{}`", http::shown(line).trim()))
        });
        quoted.collect()
    }
}

/// Numbers of lines in `FILE:NUMBER`.
fn lines_named(words: &str, path: &Path) -> Vec<usize> {
    let name = format!("{}:", path.display());
    let mut numbers = Vec::new();
    for rest in words.split(name.as_str()).skip(1) {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse()
            && !numbers.contains(&number)
        {
            numbers.push(number);
        }
    }
    numbers
}

fn global(lines: &mut ConfigLines, around: &Surroundings) {
    lines.push("# Made by Locum from its services: what is changed here is lost.");
    lines.push("global");
    let path = |path: &Path| word(&path.to_string_lossy());
    lines.line(format!(
        "stats socket {} mode 600 level admin expose-fd listeners",
        path(&around.socket)
    ));
    lines.line(format!("server-state-file {}", path(&around.state)));
    lines.line(format!("hard-stop-after {REPLACED_LIMIT}"));
    if let Some((user, group)) = around.user {
        lines.line(format!("uid {user}"));
        lines.line(format!("gid {group}"));
    }
    lines.head("defaults");
    lines.line("load-server-state-from-file global");
    // A server that refuses is passed over at once; whether it is up is not for HAProxy to say.
    lines.line("retries 3");
    lines.line("option redispatch 1");
}

/// None where only routes of others lead.
fn frontend(lines: &mut ConfigLines, service: &Service) {
    if service.listen.is_empty() {
        return;
    }
    let (section, limits) = (section(&service.name), &service.limits);
    if limits.per_source.is_some() {
        lines.head(&format!("backend {section}:sources"));
        let kind = table_type(service);
        lines.line(format!("stick-table type {kind} size {CLIENTS} expire 1m store conn_cur"));
    }
    lines.head(&format!("frontend {section}"));
    lines.line(mode(service));
    for address in service.addresses() {
        let only = match address.is_ipv6() && address.ip().is_unspecified() {
            true => " v6only",
            false => "",
        };
        // On a standby the address is not there yet.
        let tls = service.client_tls.as_ref();
        let tls = tls.map(|tls| http::bind_options(tls, address)).unwrap_or_default();
        lines.line(format!("bind {address}{only} transparent{tls}"));
    }
    if let Some(most) = limits.connections {
        lines.line(format!("maxconn {most}"));
    }
    lines.line(format!("timeout client {}", time(limits.idle)));
    lines.line(format!("timeout client-fin {}", time(limits.half_closed)));
    let introduction = &service.introduction;
    if !introduction.accepted.is_empty() {
        let from: Vec<_> = introduction.accepted.iter().map(ToString::to_string).collect();
        let from = from.join(" ");
        lines.line(format!("tcp-request connection expect-proxy layer4 if {{ src {from} }}"));
    }
    if let Some(most) = limits.per_source {
        // Of whoever another proxy speaks for, which is known only once it has spoken.
        let when = if introduction.accepted.is_empty() { "connection" } else { "session" };
        lines.line(format!("tcp-request {when} track-sc0 src table {section}:sources"));
        lines.line(format!("tcp-request {when} reject if {{ sc0_conn_cur gt {most} }}"));
    }
    if let Some(http) = &service.http {
        http::frontend(lines, service, http);
    }
    lines.line(format!("default_backend {section}"));
}

fn mode(service: &Service) -> &'static str {
    if service.http.is_some() { "mode http" } else { "mode tcp" }
}

fn backend(lines: &mut ConfigLines, wanted: &WantedService) {
    let service = &wanted.service;
    lines.head(&format!("backend {}", section(&service.name)));
    lines.line(mode(service));
    let selection: &[&str] = match service.scheduler.name.as_str() {
        "lc" | "wlc" => &["balance leastconn"],
        "fo" => &["balance first"],
        "sh" | "mh" => &["balance source", "hash-type consistent"],
        // The row of capabilities lets no other through.
        _ => &["balance roundrobin"],
    };
    selection.iter().for_each(|line| lines.line(line));
    let limits = &service.limits;
    lines.line(format!("timeout queue {}", time(limits.queue)));
    if let Some(most) = limits.waiting {
        let refuse = match service.http {
            Some(_) => "http-request deny deny_status 503",
            None => "tcp-request content reject",
        };
        lines.line(format!("{refuse} if {{ queue ge {most} }}"));
    }
    lines.line(format!("timeout connect {}", time(limits.connect)));
    lines.line(format!("timeout server {}", time(limits.idle)));
    lines.line(format!("timeout server-fin {}", time(limits.half_closed)));
    if let Some(Persistence { timeout, granularity, .. }) = &service.persistence {
        let kind = table_type(service);
        // HAProxy's times end at 24 days, which are of no use to a client either.
        let seconds = (*timeout).min(24 * 24 * 3600);
        lines.line(format!("stick-table type {kind} size {CLIENTS} expire {seconds}s"));
        let (v4, v6) = (granularity.min(&32), granularity);
        lines.line(format!("stick on src,ipmask({v4},{v6})"));
    }
    if let Some(http) = &service.http {
        http::backend(lines, service, http);
    }
    for one in servers(wanted) {
        let (name, at, weight) = (server(one.address), one.address, one.file_weight);
        let most = one.max.map(|most| format!(" maxconn {most}")).unwrap_or_default();
        let introduced = match one.introduced {
            None => "",
            Some(HeaderVersion::V1) => " send-proxy",
            Some(HeaderVersion::V2) => " send-proxy-v2",
        };
        let more = http::server_options(service, at);
        lines.line(format!("server {name} {at} weight {weight}{most}{introduced}{more}"));
    }
}

/// A table of IPv6 addresses holds IPv4 ones too. Routes may lead from anywhere.
fn table_type(service: &Service) -> &'static str {
    let is_ipv6 = service.listen.is_empty() || service.listen.iter().any(Listener::is_ipv6);
    if is_ipv6 { "ipv6" } else { "ip" }
}

/// How servers are to be used from the start, as HAProxy's `show servers state` writes it, version 1.
pub(crate) fn state(services: &[Arc<WantedService>]) -> String {
    let head = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health \
        srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord \
        srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";
    let mut text = head.to_owned();
    for wanted in services {
        let section = section(&wanted.service.name);
        for (number, one) in (1..).zip(servers(wanted)) {
            let UsedServer { address, usage, file_weight: initial, .. } = one;
            // Running, or out by order.
            let (operation, order, weight) = match usage {
                ServerUse::Takes(weight) => (2, 0, weight),
                ServerUse::Rests | ServerUse::Gone => (0, 1, initial),
            };
            let (name, ip, port) = (server(address), address.ip(), address.port());
            // Without it a server would not be spoken to by TLS, whatever the file says.
            let tls = u8::from(wanted.service.server_tls.is_some());
            // Sections are found by their names: their numbers may be anything.
            text.push_str(&format!(
                "0 {section} {number} {name} {ip} {operation} {order} {weight} {initial} 0 1 0 2 0 0 \
                 0 0 - {port} - {tls} 0 - - 0\n"
            ));
        }
    }
    text
}
