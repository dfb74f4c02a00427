//! What is wrong with what a node serves: one sentence for each cause, however many services and
//! servers share it.

use std::collections::BTreeMap;

use locum_control::StatusDocument;
use locum_control::status::{QuorumState, ServedFitness, ServerStatus};

use super::{age, first_few, thousands};

/// So many losses of late are no accident.
const FLAPPING: u32 = 3;

/// A service or HAProxy, as status has it.
#[derive(Clone, Copy, Debug)]
pub struct ServedObject<'a> {
    pub kind: ObjectKind,
    pub name: &'a str,
    /// The instance whose addresses it follows.
    pub instance: Option<&'a str>,
    /// It is to be served here now.
    pub active: bool,
    pub fitness: &'a ServedFitness,
    pub error: Option<&'a str>,
    pub strained: Option<&'a str>,
    /// Why it is served by `backend`, where that was a choice with a reason.
    pub choice: Option<&'a str>,
    pub servers: &'a [ServerStatus],
    /// Of a service whose sorry server has the clients: why, and since when.
    pub sorry: Option<&'a QuorumState>,
    /// What serves it.
    pub backend: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectKind {
    Service,
    Haproxy,
}

/// What clients have of it, or would have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Situation {
    /// It is served here, and clients are not answered.
    Unanswered,
    /// It is served here, and its sorry server has the clients.
    Sorry,
    /// It is served here, by fewer servers than its quorum.
    Scarce,
    /// It is not served here, and could not be.
    Incapable,
    /// It is not served here, and would have fewer servers than its quorum.
    WouldBeScarce,
    /// Nobody has looked yet, or not at all that counts.
    Unknown,
    /// Nothing is missing.
    Well,
}

impl Situation {
    /// Clients are not answered as they should be, or would not be.
    pub fn is_lost(self) -> bool {
        match self {
            Self::Unanswered
            | Self::Sorry
            | Self::Scarce
            | Self::Incapable
            | Self::WouldBeScarce => true,
            Self::Unknown | Self::Well => false,
        }
    }
}

/// Services first, then HAProxies.
pub fn all(document: &StatusDocument) -> Vec<ServedObject<'_>> {
    let services = document.services.iter().map(|service| ServedObject {
        kind: ObjectKind::Service,
        name: &service.name,
        instance: service.instance.as_deref(),
        active: service.active,
        fitness: &service.fitness,
        error: service.error.as_deref(),
        strained: service.strained.as_deref(),
        choice: service.backend_choice.as_deref(),
        servers: &service.servers,
        sorry: service.sorry.as_ref().filter(|sorry| sorry.in_use).map(|_| &service.quorum),
        backend: service.backend.as_deref(),
    });
    let haproxy = document.haproxy.iter().map(|file| ServedObject {
        kind: ObjectKind::Haproxy,
        name: &file.name,
        instance: file.instance.as_deref(),
        active: file.active,
        fitness: &file.fitness,
        error: file.error.as_deref(),
        strained: file.strained.as_deref(),
        choice: None,
        servers: &[],
        sorry: None,
        backend: Some("haproxy"),
    });
    services.chain(haproxy).collect()
}

/// What is said of something strained, behind its name; `None`: it is so no more.
pub fn strained(by: Option<&str>) -> String {
    by.map_or_else(|| "is strained no more".to_owned(), |by| format!("is strained: {by}"))
}

impl ServedObject<'_> {
    /// `service www`, as history and hooks name it.
    pub fn title(&self) -> String {
        match self.kind {
            ObjectKind::Service => format!("service {}", self.name),
            ObjectKind::Haproxy => format!("haproxy {}", self.name),
        }
    }

    pub fn situation(&self) -> Situation {
        let has_servers = self.servers.iter().any(|server| server.up != Some(false));
        let is_refused = self.fitness.holds == Some(false);
        let is_unknown = self.fitness.holds.is_none() || self.fitness.populated.is_none();
        match (self.active, self.fitness.populated) {
            (true, _) if is_refused || self.error.is_some() => Situation::Unanswered,
            (false, _) if is_refused || self.error.is_some() => Situation::Incapable,
            (true, _) if self.sorry.is_some() => Situation::Sorry,
            (true, Some(false)) if has_servers => Situation::Scarce,
            (false, Some(false)) if has_servers => Situation::WouldBeScarce,
            (true, Some(false)) => Situation::Unanswered,
            (false, Some(false)) => Situation::Incapable,
            (_, None | Some(true)) if is_unknown => Situation::Unknown,
            (_, None | Some(true)) => Situation::Well,
        }
    }

    /// What is missing, with the servers where it is those.
    pub fn missing(&self) -> String {
        match (self.fitness.holds, self.error) {
            (Some(false), error) => {
                let detail = self.fitness.detail.as_str();
                if detail.is_empty() { error.unwrap_or("nobody says why") } else { detail }
                    .to_owned()
            }
            (None | Some(true), Some(error)) => error.to_owned(),
            (None | Some(true), None) => {
                let down = down(self.servers);
                let detail = self.sorry.map_or(&self.fitness.detail, |quorum| &quorum.shortage);
                if down.is_empty() { detail.clone() } else { format!("{detail}: {}", named(&down)) }
            }
        }
    }

    /// Its servers that are down are said by `missing`.
    fn says_servers(&self) -> bool {
        let is_well = self.fitness.holds != Some(false) && self.error.is_none();
        let is_sorry = self.active && self.sorry.is_some();
        is_well && (is_sorry || self.fitness.populated == Some(false))
    }
}

/// One sentence for each cause: what is not answered here, then what could not be.
pub fn problems(objects: &[ServedObject<'_>]) -> Vec<String> {
    let mut causes: BTreeMap<(Situation, ObjectKind, String), Vec<String>> = BTreeMap::new();
    for object in objects.iter().filter(|object| object.situation().is_lost()) {
        let cause = (object.situation(), object.kind, object.missing());
        causes.entry(cause).or_default().push(object.title());
    }
    let mut all: Vec<String> = causes
        .into_iter()
        .map(|((situation, kind, cause), titles)| {
            let (who, is_one) = (first_few(&titles, ", "), titles.len() == 1);
            format!("{who} {}: {cause}", predicate(situation, kind, is_one))
        })
        .collect();
    all.extend(objects.iter().filter_map(flapping));
    all.extend(objects.iter().filter_map(|object| {
        object.strained.map(|by| format!("{} {}", object.title(), strained(Some(by))))
    }));
    all
}

/// What is said of servers that no sentence about their service has said already.
pub fn server_problems(objects: &[ServedObject<'_>]) -> Vec<String> {
    let services = objects.iter().filter(|object| object.kind == ObjectKind::Service);
    services.flat_map(|service| [unasked(service), downs(service)].into_iter().flatten()).collect()
}

/// What is said of clients of one object, or of several, behind their names.
pub fn predicate(situation: Situation, kind: ObjectKind, is_one: bool) -> String {
    let then = "if this node became master";
    match (situation, kind) {
        (Situation::Unanswered, _) if is_one => "does not answer its clients".to_owned(),
        (Situation::Unanswered, _) => "do not answer their clients".to_owned(),
        (Situation::Sorry, _) if is_one => "sends its clients to its sorry server".to_owned(),
        (Situation::Sorry, _) => "send their clients to their sorry servers".to_owned(),
        (Situation::Scarce, _) => {
            format!("{} too few servers", if is_one { "has" } else { "have" })
        }
        (Situation::Incapable, ObjectKind::Service) => format!("could not be served {then}"),
        (Situation::Incapable, ObjectKind::Haproxy) => format!("could not serve {then}"),
        (Situation::WouldBeScarce, _) => format!("would have too few servers {then}"),
        (Situation::Unknown, _) => "is not known yet".to_owned(),
        (Situation::Well, _) => "is well".to_owned(),
    }
}

/// It comes and goes: of what is away now another sentence says why.
fn flapping(object: &ServedObject<'_>) -> Option<String> {
    let ServedFitness { losses, since_ms, hold_ms, .. } = object.fitness;
    if *losses < FLAPPING {
        return None;
    }
    let state = if object.situation().is_lost() { "lost" } else { "well" };
    let now = format!("{state} for {}", age(*since_ms));
    let held = hold_ms.map_or(String::new(), |left| {
        format!(", and counts as able to serve it in {} unless it fails again", age(left))
    });
    Some(format!(
        "{} comes and goes: lost {losses} times of late, {now}{held}; `locum history` has each \
         time and its reason",
        object.title()
    ))
}

fn downs(service: &ServedObject<'_>) -> Option<String> {
    let down = down(service.servers);
    let name = service.name;
    match down.as_slice() {
        [] => None,
        _ if service.says_servers() => None,
        [server] if server.detail.is_empty() => {
            Some(format!("server {} of {name} is down", server.address))
        }
        [server] => Some(format!("server {} of {name} is down: {}", server.address, server.detail)),
        _ => {
            let (few, all) = (thousands(down.len()), thousands(service.servers.len()));
            Some(format!("{few} of {all} servers of {name} are down: {}", named(&down)))
        }
    }
}

/// A shortage here says nothing of the server, which stays what it was.
fn unasked(service: &ServedObject<'_>) -> Option<String> {
    let unasked: Vec<&ServerStatus> =
        service.servers.iter().filter(|server| server.unasked).collect();
    let name = service.name;
    match unasked.as_slice() {
        [] => None,
        [server] => Some(format!(
            "this node cannot ask server {} of {name}, which counts for what it was before: {}",
            server.address, server.detail
        )),
        _ => Some(format!(
            "this node cannot ask {} of {} servers of {name}, which count for what they were \
             before: {}",
            thousands(unasked.len()),
            thousands(service.servers.len()),
            named(&unasked)
        )),
    }
}

fn down(servers: &[ServerStatus]) -> Vec<&ServerStatus> {
    servers.iter().filter(|server| server.up == Some(false) && !server.unasked).collect()
}

/// By what they say, the most first: `connection refused (10.0.0.1:80, 10.0.0.2:80)`.
fn named(servers: &[&ServerStatus]) -> String {
    let mut by_detail: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for server in servers {
        by_detail.entry(&server.detail).or_default().push(server.address.to_string());
    }
    let mut all: Vec<(&str, Vec<String>)> = by_detail.into_iter().collect();
    all.sort_by_key(|(_, servers)| std::cmp::Reverse(servers.len()));
    let one = |(detail, servers): &(&str, Vec<String>)| match *detail {
        "" => first_few(servers, ", "),
        detail => format!("{detail} ({})", first_few(servers, ", ")),
    };
    first_few(&all.iter().map(one).collect::<Vec<_>>(), "; ")
}

#[cfg(test)]
mod tests {
    use locum_control::status::SorryStatus;

    use super::*;
    use crate::commands::sample;

    fn serving(document: &mut StatusDocument) -> &mut locum_control::status::ServiceStatus {
        let service = &mut document.services[0];
        service.active = true;
        service.state = "serving".into();
        service.fitness.aspect = "answering".into();
        service
    }

    fn said(document: &StatusDocument) -> Vec<String> {
        let objects = all(document);
        let mut said = problems(&objects);
        said.extend(server_problems(&objects));
        said
    }

    fn servers(count: u8) -> Vec<ServerStatus> {
        let one = |number| ServerStatus {
            address: ([10, 0, 0, number], 80).into(),
            weight: 1,
            up: Some(false),
            detail: "connection refused".into(),
            connections: 0,
            ..sample::document().services.remove(0).servers.remove(0)
        };
        (1..=count).map(one).collect()
    }

    #[test]
    fn a_service_on_its_sorry_server_says_so_and_why() {
        let mut document = sample::document();
        let service = serving(&mut document);
        let address = ([10, 0, 0, 9], 80).into();
        service.sorry = Some(SorryStatus { address, in_use: true, connections: 0 });
        service.servers = servers(1);
        service.fitness.populated = Some(false);
        service.fitness.detail = "its only server is down".into();
        service.quorum.shortage = "its only server is down".into();
        let why = "its only server is down: connection refused (10.0.0.1:80)";
        let text = format!("service www sends its clients to its sorry server: {why}");
        assert_eq!(said(&document), [text]);
        // Enough of them take connections, were it not for the operator.
        let service = serving(&mut document);
        service.fitness.populated = Some(true);
        service.servers = servers(2);
        service.servers[0].up = Some(true);
        service.servers[0].order = Some("drain".into());
        let shortage = "none of its 2 servers takes connections (1 drained by the operator)";
        service.quorum.shortage = shortage.into();
        let text = format!(
            "service www sends its clients to its sorry server: {shortage}: connection refused \
             (10.0.0.2:80)"
        );
        assert_eq!(said(&document), [text], "what is down is said once");
    }

    #[test]
    fn what_is_well_is_not_mentioned() {
        let mut document = sample::document();
        assert_eq!(said(&document), [""; 0]);
        serving(&mut document);
        assert_eq!(said(&document), [""; 0]);
        document.services[0].fitness.holds = None;
        assert_eq!(said(&document), [""; 0], "it is about to begin");
    }

    #[test]
    fn the_same_cause_is_another_sentence_on_a_master_and_on_a_standby() {
        let mut document = sample::document();
        document.services[0].fitness.holds = Some(false);
        document.services[0].fitness.detail = "the kernel has no scheduler sh".into();
        let standby = "service www could not be served if this node became master: the kernel has \
                       no scheduler sh";
        assert_eq!(said(&document), [standby]);
        serving(&mut document);
        let master = "service www does not answer its clients: the kernel has no scheduler sh";
        assert_eq!(said(&document), [master]);
    }

    #[test]
    fn one_cause_of_several_services_is_one_sentence() {
        let mut document = sample::document();
        let service = serving(&mut document);
        service.fitness.holds = Some(false);
        service.fitness.detail = "the proxy does not start: no such file".into();
        let mut more = vec![service.clone(); 4];
        for (number, service) in more.iter_mut().enumerate() {
            service.name = format!("s{number}");
        }
        document.services.extend(more);
        let expected = "service www, service s0, service s1, and 2 more do not answer their \
                        clients: the proxy does not start: no such file";
        assert_eq!(said(&document), [expected]);
    }

    #[test]
    fn a_service_without_servers_is_one_sentence_with_its_servers() {
        let mut document = sample::document();
        let service = serving(&mut document);
        service.servers = servers(2);
        service.servers[1].detail = "timed out".into();
        service.fitness.populated = Some(false);
        service.fitness.detail = "none of its 2 servers takes connections".into();
        let expected = "service www does not answer its clients: none of its 2 servers takes \
                        connections: connection refused (10.0.0.1:80); timed out (10.0.0.2:80)";
        assert_eq!(said(&document), [expected]);
        let service = &mut document.services[0];
        service.active = false;
        service.fitness.aspect = "capable".into();
        let standby = expected.replace(
            "does not answer its clients",
            "could not be served if this node became master",
        );
        assert_eq!(said(&document), [standby]);
    }

    #[test]
    fn fewer_servers_than_the_quorum_still_answer() {
        let mut document = sample::document();
        let service = serving(&mut document);
        service.servers = servers(3);
        service.servers[2].up = Some(true);
        service.fitness.populated = Some(false);
        service.fitness.detail = "1 of its 3 servers take connections, and its quorum is 2".into();
        let expected = "service www has too few servers: 1 of its 3 servers take connections, and \
                        its quorum is 2: connection refused (10.0.0.1:80, 10.0.0.2:80)";
        assert_eq!(said(&document), [expected]);
    }

    /// Case: 1,500 servers in one service were 1,499 problems.
    #[test]
    fn many_servers_are_counted_and_a_few_of_them_named() {
        let mut document = sample::document();
        let service = serving(&mut document);
        service.servers = (0..6).flat_map(|_| servers(250)).collect();
        service.servers[7].up = Some(true);
        let expected = "1,499 of 1,500 servers of www are down: connection refused (10.0.0.1:80, \
                        10.0.0.2:80, 10.0.0.3:80, and 1,496 more)";
        assert_eq!(said(&document), [expected]);
        document.services[0].servers.truncate(1);
        let one = "server 10.0.0.1:80 of www is down: connection refused";
        assert_eq!(said(&document), [one]);
    }

    /// What this node cannot ask says nothing of the server, and is no health either.
    #[test]
    fn servers_that_cannot_be_asked_are_said_with_the_reason() {
        let mut document = sample::document();
        let service = serving(&mut document);
        service.servers = servers(2);
        for server in &mut service.servers {
            (server.up, server.unasked) = (Some(true), true);
            server.detail = "no local address or port to connect from".into();
        }
        let expected = "this node cannot ask 2 of 2 servers of www, which count for what they were \
                        before: no local address or port to connect from (10.0.0.1:80, \
                        10.0.0.2:80)";
        assert_eq!(said(&document), [expected]);
        document.services[0].servers.truncate(1);
        let one = "this node cannot ask server 10.0.0.1:80 of www, which counts for what it was \
                   before: no local address or port to connect from";
        assert_eq!(said(&document), [one]);
    }

    #[test]
    fn what_comes_and_goes_is_said_until_it_has_been_well_for_long() {
        let mut document = sample::document();
        document.services[0].fitness.losses = 2;
        assert_eq!(said(&document), [""; 0]);
        let fitness = &mut document.services[0].fitness;
        (fitness.losses, fitness.since_ms, fitness.hold_ms) = (7, 3_000, Some(125_000));
        let expected = "service www comes and goes: lost 7 times of late, well for 3.0s, and \
                        counts as able to serve it in 2m05s unless it fails again; `locum history` \
                        has each time and its reason";
        assert_eq!(said(&document), [expected]);
    }
}
