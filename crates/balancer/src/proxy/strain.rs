//! What an operator has to know of a service that the proxy serves: it is full, it reaches itself, this
//! host runs out of something.
//!
//! The proxy counts. What has grown within the last minute is shown, so that whoever looks after the
//! fact still sees it, and the log has it once a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use locum_plan::ServiceLimits;
use locum_proxy::protocol::{FullStatus, ProxyServiceStatus};

/// How long something that happened is shown, and the least time between two lines of one service in
/// the log.
const RECENT: Duration = Duration::from_secs(60);

/// What is known of the services of one proxy.
#[derive(Debug, Default)]
pub(super) struct Strains {
    services: BTreeMap<String, Seen>,
    /// When the log had a line of a service last. Kept when a proxy is lost: the next one may be full
    /// as well.
    logged: BTreeMap<String, Instant>,
}

/// Of one service.
#[derive(Debug)]
struct Seen {
    crowded: Growth,
    headless: Growth,
    loops: Growth,
    shortages: Growth,
    /// Clients that waited in vain.
    unserved: Growth,
}

/// A counter of the proxy.
#[derive(Clone, Copy, Debug)]
struct Growth {
    count: u64,
    grown_at: Option<Instant>,
}

impl Growth {
    /// What was counted before we looked is no news.
    fn from(count: u64) -> Self {
        Self { count, grown_at: None }
    }

    fn follow(&mut self, count: u64, now: Instant) {
        if count > self.count {
            self.grown_at = Some(now);
        }
        self.count = count;
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.grown_at.is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }
}

/// One thing to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Strain {
    /// What it is and what to do; the same for as long as it lasts.
    pub(super) sentence: String,
    /// How much of it there is now.
    pub(super) figures: String,
}

/// All of them, as a person reads them.
pub(super) fn in_full(strains: &[Strain]) -> Option<String> {
    let one = |Strain { sentence, figures }: &Strain| format!("{sentence} ({figures})");
    let all: Vec<String> = strains.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Without what changes from one look to the next.
pub(super) fn in_short(strains: &[Strain]) -> Option<String> {
    let all: Vec<&str> = strains.iter().map(|strain| strain.sentence.as_str()).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

impl Strains {
    /// Takes in how the proxy says a service is.
    pub(super) fn follow(&mut self, status: &ProxyServiceStatus, now: Instant) {
        let seen = self.services.entry(status.name.clone()).or_insert_with(|| Seen {
            crowded: Growth::from(status.crowded),
            headless: Growth::from(status.headless),
            loops: Growth::from(status.loops),
            shortages: Growth::from(status.shortages),
            unserved: Growth::from(unserved(status)),
        });
        seen.crowded.follow(status.crowded, now);
        seen.headless.follow(status.headless, now);
        seen.loops.follow(status.loops, now);
        seen.shortages.follow(status.shortages, now);
        seen.unserved.follow(unserved(status), now);
    }

    /// Another proxy counts from the beginning.
    pub(super) fn forget(&mut self) {
        self.services.clear();
    }

    /// What there is to know of a service, the worst first.
    pub(super) fn of(
        &self,
        status: &ProxyServiceStatus,
        limits: &ServiceLimits,
        now: Instant,
    ) -> Vec<Strain> {
        let mut all = Vec::new();
        let Some(seen) = self.services.get(&status.name) else { return all };
        if seen.loops.is_recent(now) {
            let through = status.loop_through.map_or_else(String::new, |address| {
                format!(" through {address}: take that server out")
            });
            all.push(Strain {
                sentence: format!("it reaches itself{through}"),
                figures: format!("{} cut so far", status.loops),
            });
        }
        if seen.shortages.is_recent(now) {
            let what = status.shortage.as_deref().unwrap_or("this host has run out of something");
            all.push(Strain {
                sentence: what.to_owned(),
                figures: format!("{} times so far", status.shortages),
            });
        }
        all.extend(status.full.as_ref().map(|full| fullness(status, full, limits)));
        if seen.unserved.is_recent(now) {
            let queue = &status.queue;
            all.push(Strain {
                sentence:
                    "clients are turned away because every server has all the connections that it \
                           may have: raise max_connections of the servers, or add some"
                        .to_owned(),
                figures: format!(
                    "{} after queue_timeout, {} beyond max_waiting so far",
                    queue.timed_out, queue.turned_away
                ),
            });
        }
        if seen.crowded.is_recent(now) {
            let most = limits.per_source.map_or_else(String::new, |most| format!(" of {most}"));
            all.push(Strain {
                sentence: format!(
                    "a client address has its max_connections_per_source{most}, more are turned away"
                ),
                figures: format!("{} so far", status.crowded),
            });
        }
        if seen.headless.is_recent(now) {
            all.push(Strain {
                sentence:
                    "a proxy of `accept_proxy` does not say for whom it comes: have it send the \
                           PROXY protocol, or take it out of the list"
                        .to_owned(),
                figures: format!("{} cut so far", status.headless),
            });
        }
        all
    }

    /// The line for the log, unless this service had one within the last minute.
    pub(super) fn line(&mut self, name: &str, strains: &[Strain], now: Instant) -> Option<String> {
        let text = in_full(strains)?;
        let last = self.logged.get(name);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < RECENT) {
            return None;
        }
        self.logged.insert(name.to_owned(), now);
        // Not the phrase of the history, whose line in the log has no figures.
        Some(format!("service {name}, which is strained: {text}"))
    }
}

fn unserved(status: &ProxyServiceStatus) -> u64 {
    status.queue.timed_out + status.queue.turned_away
}

/// It has as many clients as it can have: by whose limit, and who they are.
fn fullness(status: &ProxyServiceStatus, full: &FullStatus, limits: &ServiceLimits) -> Strain {
    let its_own = limits.connections.is_some_and(|most| u64::from(most) <= status.limit);
    let has_places = status.active < status.limit;
    let sentence = match (its_own, has_places, limits.per_server) {
        (_, true, Some(most)) => format!(
            "every server has its max_connections_per_server of {most}: raise it, or add servers"
        ),
        (_, true, None) => {
            "every server has its max_connections: raise it, or add servers".to_owned()
        }
        (true, _, _) => {
            format!("it has its max_connections of {}: raise it, or add a director", status.limit)
        }
        (false, _, _) => "it has all the connections that its share of descriptors allows: raise \
                          the limit of open files (LimitNOFILE), or lower idle_timeout"
            .to_owned(),
    };
    let mut figures = format!(
        "{} of {} connections, full for {} s, {} waiting",
        status.active,
        status.limit,
        full.for_ms / 1_000,
        full.waiting
    );
    if status.queue.waiting > 0 {
        figures.push_str(&format!(", the first for {} s", status.queue.longest_ms / 1_000));
    }
    if let Some(busiest) = &full.busiest {
        let (count, address) = (busiest.active, busiest.address);
        figures.push_str(&format!(", {count} from {address}"));
    }
    Strain { sentence, figures }
}

#[cfg(test)]
mod tests {
    use locum_proxy::protocol::{ProxyServiceState, QueueStatus, SourceStatus};

    use super::*;

    fn status() -> ProxyServiceStatus {
        ProxyServiceStatus {
            name: "www".to_owned(),
            listen: "192.0.2.10:80".parse().unwrap(),
            state: ProxyServiceState::Listening,
            active: 0,
            accepted: 0,
            refused: 0,
            bytes_in: 0,
            bytes_out: 0,
            limit: 401,
            full: None,
            crowded: 0,
            headless: 0,
            loops: 0,
            loop_through: None,
            shortages: 0,
            shortage: None,
            timed_out: 0,
            queue: QueueStatus::default(),
            servers: Vec::new(),
        }
    }

    fn full() -> ProxyServiceStatus {
        let busiest = SourceStatus { address: "192.0.2.7".parse().unwrap(), active: 402 };
        let full = FullStatus { for_ms: 12_345, waiting: 299, busiest: Some(busiest) };
        ProxyServiceStatus { active: 401, full: Some(full), ..status() }
    }

    #[test]
    fn a_full_service_says_by_whose_limit_since_when_and_who_has_its_places() {
        let mut strains = Strains::default();
        let now = Instant::now();
        strains.follow(&full(), now);
        let text = |status: &ProxyServiceStatus, limits| {
            in_full(&strains.of(status, &limits, now)).unwrap()
        };
        assert_eq!(
            text(&full(), ServiceLimits::default()),
            "it has all the connections that its share of descriptors allows: raise the limit of \
             open files (LimitNOFILE), or lower idle_timeout (401 of 401 connections, full for 12 s, 299 waiting, 402 from \
             192.0.2.7)"
        );
        let own = ServiceLimits { connections: Some(401), ..ServiceLimits::default() };
        assert!(text(&full(), own).starts_with("it has its max_connections of 401: raise it"));
        let each = ServiceLimits { per_server: Some(10), ..ServiceLimits::default() };
        let at_servers = ProxyServiceStatus { active: 20, ..full() };
        assert!(
            text(&at_servers, each).starts_with("every server has its max_connections_per_ser")
        );
        let queue = QueueStatus { waiting: 4, longest_ms: 7_900, ..QueueStatus::default() };
        let bounded = ProxyServiceStatus { queue, ..at_servers };
        assert_eq!(
            text(&bounded, ServiceLimits::default()),
            "every server has its max_connections: raise it, or add servers (20 of 401 connections, full for \
             12 s, 299 waiting, the first for 7 s, 402 from 192.0.2.7)"
        );
        let of = strains.of(&full(), &own, now);
        assert_eq!(
            in_short(&of).unwrap(),
            "it has its max_connections of 401: raise it, or add a director"
        );
    }

    #[test]
    fn what_has_grown_is_shown_for_a_minute_and_what_was_there_before_is_not() {
        let mut strains = Strains::default();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let old = ProxyServiceStatus {
            loops: 7,
            loop_through: Some("192.0.2.10:80".parse().unwrap()),
            shortages: 7,
            shortage: Some("no local ports are left".to_owned()),
            crowded: 7,
            headless: 7,
            queue: QueueStatus { timed_out: 4, turned_away: 3, ..QueueStatus::default() },
            ..status()
        };
        let limits = ServiceLimits { per_source: Some(9), ..ServiceLimits::default() };
        strains.follow(&old, start);
        assert_eq!(strains.of(&old, &limits, start), Vec::new(), "nobody knows when that was");
        let new = ProxyServiceStatus {
            loops: 8,
            shortages: 9,
            crowded: 10,
            headless: 8,
            queue: QueueStatus { turned_away: 5, ..old.queue },
            ..old
        };
        strains.follow(&new, later(1));
        strains.follow(&new, later(30));
        assert_eq!(
            in_full(&strains.of(&new, &limits, later(60))).unwrap(),
            "it reaches itself through 192.0.2.10:80: take that server out (8 cut so far); no \
             local ports are left (9 times so far); clients are turned away because every server has all the \
             connections that it may have: raise max_connections of the servers, or add some (4 after \
             queue_timeout, 5 beyond max_waiting so far); a client address has its \
             max_connections_per_source of 9, more are turned away (10 so far); a proxy of \
             `accept_proxy` does not say for whom it comes: have it send the PROXY protocol, or take \
             it out of the list (8 cut so far)"
        );
        assert_eq!(strains.of(&new, &limits, later(61)), Vec::new());
    }

    #[test]
    fn the_log_has_a_line_of_each_service_once_a_minute() {
        let mut strains = Strains::default();
        let start = Instant::now();
        strains.follow(&full(), start);
        let all = strains.of(&full(), &ServiceLimits::default(), start);
        let mut lines = |name: &str, seconds| {
            strains.line(name, &all, start + Duration::from_secs(seconds)).is_some()
        };
        assert!(lines("www", 0) && lines("mail", 1));
        assert!((1..60).all(|second| !lines("www", second)));
        assert!(lines("www", 60) && !lines("www", 119));
        assert_eq!(strains.line("www", &[], start + Duration::from_secs(200)), None);
    }
}
