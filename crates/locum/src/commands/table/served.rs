//! What is served, by what, and from which servers: rows of the status page.

use locum_control::StatusDocument;
use locum_control::status::{ServerStatus, ServiceStatus};

use super::{Extent, columns, up_down};
use crate::text::served::{self, ObjectKind, ServedObject, Situation};
use crate::text::{age, thousands};

/// More servers of one service are counted, and only those that are not up shown, so many at most.
pub const MOST_SERVERS: usize = 10;

/// A column of figures that is there where a backend has some.
struct Figures {
    head: &'static str,
    of: fn(&ServerStatus) -> Option<u64>,
    of_service: fn(&ServiceStatus) -> Option<u64>,
    shown: fn(u64) -> String,
}

const FIGURES: [Figures; 4] = [
    Figures {
        head: "INACTIVE",
        of: |server| server.inactive,
        of_service: |_| None,
        shown: |count| count.to_string(),
    },
    Figures {
        head: "CONNS/S",
        of: |server| server.connection_rate,
        of_service: |_| None,
        shown: |count| count.to_string(),
    },
    Figures {
        head: "IN",
        of: |server| Some(server.traffic?.octets_in),
        of_service: |service| Some(service.traffic?.octets_in),
        shown: octets,
    },
    Figures {
        head: "OUT",
        of: |server| Some(server.traffic?.octets_out),
        of_service: |service| Some(service.traffic?.octets_out),
        shown: octets,
    },
];

impl Figures {
    fn cell(&self, figure: Option<u64>) -> String {
        figure.map_or_else(String::new, self.shown)
    }
}

pub fn services(text: &mut String, status: &StatusDocument, extent: Extent) {
    let has = |column: &&Figures| {
        let mut servers = status.services.iter().flat_map(|service| &service.servers);
        servers.any(|server| (column.of)(server).is_some())
            || status.services.iter().any(|service| (column.of_service)(service).is_some())
    };
    let figures: Vec<&Figures> = FIGURES.iter().filter(has).collect();
    let mut header: Vec<String> =
        ["SERVICE", "ADDRESS", "BACKEND", "STATE", "WEIGHT", "CONNS"].map(str::to_owned).to_vec();
    header.extend(figures.iter().map(|column| column.head.to_owned()));
    header.push("LAST RESULT".to_owned());
    let mut rows = vec![header];
    let objects = served::all(status);
    let mut notes = Vec::new();
    for (service, object) in status.services.iter().zip(&objects) {
        notes.resize(rows.len() - 1, String::new());
        notes.push(object.choice.map_or_else(String::new, |why| format!("by choice {why}")));
        let mut row = vec![
            service.name.clone(),
            match service.listen.as_str() {
                "" => "by routes".to_owned(),
                listen => format!("{listen}/{}", service.protocol),
            },
            service.backend.clone().unwrap_or_else(|| "-".to_owned()),
            state(object, &service.state),
            String::new(),
            service.connections.to_string(),
        ];
        row.extend(figures.iter().map(|column| column.cell((column.of_service)(service))));
        row.push(detail(object));
        rows.push(row);
        server_rows(&mut rows, service, extent, &figures);
    }
    columns(text, &rows, notes.into_iter());
}

fn server_rows(
    rows: &mut Vec<Vec<String>>,
    service: &ServiceStatus,
    extent: Extent,
    figures: &[&Figures],
) {
    let row = |server: &ServerStatus| {
        let mut row = vec![
            String::new(),
            format!("  {}", server.address),
            String::new(),
            up_down(server.up).to_owned(),
            weight(server),
            server.connections.to_string(),
        ];
        row.extend(figures.iter().map(|column| column.cell((column.of)(server))));
        row.push(said(server));
        row
    };
    let all = &service.servers;
    if extent == Extent::Whole || all.len() <= MOST_SERVERS {
        rows.extend(all.iter().map(row));
    } else {
        let needs_eyes = |server: &&ServerStatus| {
            server.up != Some(true) || server.unasked || server.order.is_some()
        };
        // Down before ordered, ordered before unknown.
        let mut shown: Vec<&ServerStatus> = all.iter().filter(needs_eyes).collect();
        shown.sort_by_key(|server| (server.up != Some(false), server.order.is_none()));
        shown.truncate(MOST_SERVERS);
        rows.extend(shown.iter().map(|server| row(server)));
        rows.push(sum(all, figures));
    }
    if let Some(sorry) = &service.sorry {
        let mut row = vec![
            String::new(),
            format!("  {}", sorry.address),
            String::new(),
            "sorry".to_owned(),
            String::new(),
            sorry.connections.to_string(),
        ];
        row.extend(figures.iter().map(|_| String::new()));
        let said = if sorry.in_use { "has the clients" } else { "for when the quorum is lost" };
        row.push(said.to_owned());
        rows.push(row);
    }
}

/// Of many servers, how many there are of each kind.
fn sum(all: &[ServerStatus], figures: &[&Figures]) -> Vec<String> {
    let count = |up| all.iter().filter(|server| server.up == up).count();
    let states = [(Some(true), "up"), (Some(false), "DOWN"), (None, "unknown")];
    let ordered = all.iter().filter(|server| server.order.is_some()).count();
    let counts = states.iter().map(|(up, word)| (count(*up), *word));
    let counts = counts.chain([(ordered, "ordered by the operator")]);
    let counts: Vec<String> = counts
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", thousands(count)))
        .collect();
    let connections: u64 = all.iter().map(|server| server.connections).sum();
    let mut row = vec![
        String::new(),
        format!("  all {}", thousands(all.len())),
        String::new(),
        String::new(),
        String::new(),
        connections.to_string(),
    ];
    let total = |column: &Figures| all.iter().filter_map(column.of).reduce(u64::saturating_add);
    row.extend(figures.iter().map(|column| column.cell(total(column))));
    row.push(format!("{} (--all shows each)", counts.join(", ")));
    row
}

/// Three digits and a unit: 999, 1.2k, 34M.
fn octets(count: u64) -> String {
    let units =
        [("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];
    let (unit, size) = units.into_iter().rfind(|(_, size)| count >= *size).unwrap_or(units[0]);
    match (count / size, size) {
        (whole, 1) => whole.to_string(),
        (whole @ 0..10, _) => format!("{whole}.{}{unit}", count % size * 10 / size),
        (whole, _) => format!("{whole}{unit}"),
    }
}

/// The weight in force, beside the configured one where they differ.
fn weight(server: &ServerStatus) -> String {
    let (own, in_force) = (server.weight, server.weight_in_force);
    match (server.up, server.ramp_percent) {
        (Some(false), _) => own.to_string(),
        (_, Some(percent)) => format!("{percent}% to {in_force}"),
        (_, None) if own == in_force => own.to_string(),
        (_, None) => format!("{in_force} of {own}"),
    }
}

/// What an operator has ordered, and what its checks say.
fn said(server: &ServerStatus) -> String {
    let order = match server.order.as_deref() {
        Some("drain") => "drained by the operator",
        Some(_) => "weight by the operator",
        None => return server.detail.clone(),
    };
    match server.detail.is_empty() {
        true => order.to_owned(),
        false => format!("{order}; {}", server.detail),
    }
}

pub fn processes(text: &mut String, status: &StatusDocument) {
    let mut rows =
        vec![["PROCESS", "STATE", "PID", "RESTARTS", "LAST ERROR"].map(str::to_owned).to_vec()];
    let objects = served::all(status);
    let files = || objects.iter().filter(|object| object.kind == ObjectKind::Haproxy);
    for process in &status.processes {
        let file = files().find(|file| {
            process.backend == "haproxy" && file.name == process.name && process.state == "running"
        });
        rows.push(vec![
            process.name.clone(),
            file.map_or_else(|| process.state.clone(), |file| state(file, &process.state)),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.restarts.to_string(),
            process.error.clone().or_else(|| file.map(detail)).unwrap_or_default(),
        ]);
    }
    let has_process =
        |file: &&ServedObject<'_>| status.processes.iter().any(|process| process.name == file.name);
    for file in files().filter(|file| !file.active && !has_process(file)) {
        let (name, nothing) = (file.name.to_owned(), "-".to_owned());
        rows.push(vec![name, state(file, "idle"), nothing, "0".to_owned(), detail(file)]);
    }
    columns(text, &rows, std::iter::empty());
}

/// What clients have of it, in capitals what needs somebody; `otherwise` is what its backend says.
fn state(object: &ServedObject<'_>, otherwise: &str) -> String {
    let word = match object.situation() {
        Situation::Unanswered => "NOT ANSWERING",
        Situation::Sorry => "SORRY",
        Situation::Scarce | Situation::WouldBeScarce => "FEW SERVERS",
        Situation::Incapable => "CANNOT SERVE",
        Situation::Unknown if !object.active => "unverified",
        Situation::Well if object.strained.is_some() => "STRAINED",
        // Verified, and nothing runs.
        Situation::Well if otherwise == "idle" => "standby",
        Situation::Unknown | Situation::Well => otherwise,
    };
    word.to_owned()
}

/// Why; of servers their own rows say it.
fn detail(object: &ServedObject<'_>) -> String {
    let (fitness, losses) = (object.fitness, object.fitness.losses);
    match (object.situation(), object.error) {
        (Situation::Well | Situation::Unknown, _) => match (fitness.hold_ms, object.strained) {
            (Some(left), _) => {
                format!("lost {losses} times of late: counts again in {}", age(left))
            }
            (None, Some(strained)) => strained.to_owned(),
            (None, None) => String::new(),
        },
        (_, Some(error)) => error.to_owned(),
        (_, None) => fitness.detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample;
    use locum_control::status::TrafficStatus;

    fn page(document: &StatusDocument, extent: Extent) -> Vec<String> {
        let mut text = String::new();
        services(&mut text, document, extent);
        processes(&mut text, document);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).filter(|line| !line.is_empty()).collect()
    }

    /// Case: 1,500 servers were 1,500 lines.
    #[test]
    fn of_many_servers_those_that_are_not_up_are_shown_and_all_counted() {
        let mut document = sample::document();
        let server = document.services[0].servers.remove(0);
        document.services[0].servers = vec![server; 1500];
        let line = "all 1,500 0 1,500 up (--all shows each)";
        assert_eq!(page(&document, Extent::Screen)[2..], [line]);
        for (number, server) in document.services[0].servers.iter_mut().enumerate().take(20) {
            server.up = if number == 3 { None } else { Some(false) };
        }
        let lines = page(&document, Extent::Screen);
        assert_eq!(lines.len(), 2 + MOST_SERVERS + 1);
        assert!(lines[2..12].iter().all(|line| line.contains("DOWN")), "{lines:?}");
        assert_eq!(lines[12], "all 1,500 0 1,480 up, 19 DOWN, 1 unknown (--all shows each)");
        assert_eq!(page(&document, Extent::Whole).len(), 2 + 1500);
        document.services[0].servers.truncate(MOST_SERVERS);
        assert_eq!(page(&document, Extent::Screen).len(), 2 + MOST_SERVERS, "as they always were");
    }

    #[test]
    fn why_it_is_served_by_this_backend_stands_below_the_service() {
        let mut document = sample::document();
        document.services.push(document.services[0].clone());
        let why = "www is served by the built-in proxy: IPVS cannot: this kernel has no IPVS";
        document.services[1].backend_choice = Some(why.into());
        let lines = page(&document, Extent::Screen);
        assert_eq!(lines[4], format!("by choice {why}"));
        assert!(lines[3].starts_with("www ") && lines[5].starts_with("10.0.0.1"), "{lines:?}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_weight_in_force_stands_beside_the_configured_one() {
        let mut document = sample::document();
        let row = |document: &StatusDocument| page(document, Extent::Screen).swap_remove(2);
        assert_eq!(row(&document), "10.0.0.1:80 up 2 0 status 200 OK");
        let server = &mut document.services[0].servers[0];
        (server.weight_in_force, server.order) = (0, Some("drain".into()));
        let drained = "10.0.0.1:80 up 0 of 2 0 drained by the operator; status 200 OK";
        assert_eq!(row(&document), drained);
        let server = &mut document.services[0].servers[0];
        (server.weight_in_force, server.ramp_percent) = (2, Some(30));
        (server.order, server.inactive) = (None, Some(17));
        assert_eq!(row(&document), "10.0.0.1:80 up 30% to 2 0 17 status 200 OK");
        let header = &page(&document, Extent::Screen)[0];
        assert_eq!(header, "SERVICE ADDRESS BACKEND STATE WEIGHT CONNS INACTIVE LAST RESULT");
        document.services[0].sorry = Some(locum_control::status::SorryStatus {
            address: ([10, 0, 0, 9], 80).into(),
            in_use: true,
            connections: 4,
        });
        document.services[0].active = true;
        let lines = page(&document, Extent::Screen);
        assert!(lines[1].contains(" SORRY "), "{lines:?}");
        assert_eq!(lines[3], "10.0.0.9:80 sorry 4 has the clients");
    }

    /// The proxy counts for a service, IPVS for each server.
    #[test]
    fn what_was_carried_stands_where_it_is_counted() {
        let traffic = |octets_in, octets_out| {
            Some(TrafficStatus {
                octets_in,
                octets_out,
                octets_in_rate: None,
                octets_out_rate: None,
            })
        };
        let mut document = sample::document();
        document.services[0].traffic = traffic(999, 1_250_000);
        let lines = page(&document, Extent::Screen);
        assert_eq!(lines[0], "SERVICE ADDRESS BACKEND STATE WEIGHT CONNS IN OUT LAST RESULT");
        assert!(lines[1].ends_with(" 0 999 1.2M"), "{lines:?}");
        assert_eq!(lines[2], "10.0.0.1:80 up 2 0 status 200 OK");
        document.services[0].servers[0].traffic = traffic(1_000, 34_900_000_000);
        document.services[0].servers =
            vec![document.services[0].servers.remove(0); MOST_SERVERS + 1];
        let lines = page(&document, Extent::Screen);
        assert_eq!(lines[2], "all 11 0 11k 383G 11 up (--all shows each)");
    }

    #[test]
    fn the_state_is_what_clients_have_of_it_or_would_have() {
        let mut document = sample::document();
        let state_of = |document: &StatusDocument| {
            let line = page(document, Extent::Screen).swap_remove(1);
            line.strip_prefix("www 192.0.2.10:80/tcp - ").unwrap_or(&line).to_owned()
        };
        assert_eq!(state_of(&document), "standby 0");
        document.services[0].fitness.hold_ms = Some(5_000);
        document.services[0].fitness.losses = 3;
        assert_eq!(state_of(&document), "standby 0 lost 3 times of late: counts again in 5.0s");
        let fitness = &mut document.services[0].fitness;
        (fitness.holds, fitness.detail) = (Some(false), "port 80 is taken".into());
        assert_eq!(state_of(&document), "CANNOT SERVE 0 port 80 is taken");
        document.services[0].active = true;
        assert_eq!(state_of(&document), "NOT ANSWERING 0 port 80 is taken");
        let service = &mut document.services[0];
        (service.fitness.holds, service.active) = (None, false);
        service.fitness.hold_ms = None;
        assert_eq!(state_of(&document), "unverified 0");
    }

    #[test]
    fn a_haproxy_that_hangs_is_not_called_running() {
        let mut document = sample::document();
        document.services.clear();
        document.haproxy = vec![sample::haproxy()];
        document.processes = vec![locum_control::status::ProcessStatus {
            name: "front".into(),
            backend: "haproxy".into(),
            state: "running".into(),
            pid: Some(12),
            restarts: 0,
            error: None,
        }];
        let header = "PROCESS STATE PID RESTARTS LAST ERROR".to_owned();
        let shown = |document: &StatusDocument| page(document, Extent::Screen);
        assert_eq!(shown(&document), [header.clone(), "front running 12 0".into()]);
        document.haproxy[0].fitness.holds = Some(false);
        document.haproxy[0].fitness.detail = "it hangs".into();
        assert_eq!(shown(&document), [header.clone(), "front NOT ANSWERING 12 0 it hangs".into()]);
        document.processes.clear();
        document.haproxy[0].active = false;
        assert_eq!(shown(&document), [header.clone(), "front CANNOT SERVE - 0 it hangs".into()]);
        document.haproxy[0].fitness.holds = Some(true);
        assert_eq!(shown(&document), [header, "front standby - 0".into()]);
    }
}
