//! Is a client of a running HAProxy answered? Asked as a client, from this host, once a second at each of its
//! listeners, and judged by [`crate::haproxy::judgement`].
//!
//! Driven by the balancer's ticks: nothing here waits, and there is no thread. An inquiry that was
//! not accepted in time stays in the queue of its listener, as the only one of ours there: those who
//! wait behind it wait for the same reason, and the moment it is accepted is the end of the failure.
//!
//! Where a server would hear of it (TCP mode without TLS), nobody is asked while no client waits: an
//! empty connection each second is a fault in many a server's log.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use locum_kernel::sock_diag::{SockDiag, TcpListening};
use locum_plan::HttpTarget;

use crate::haproxy::inquiry::{
    ANSWER_LIMIT, Expected, Inquiry, InquiryReply, InquiryStage, reachable,
};
use crate::haproxy::judgement::{
    Evidence, Failing, Judgement, MissHistory, Observation, Overload, PATIENCE,
};
use crate::haproxy::listening::{servers, waits_at};
use crate::haproxy::own_host::OwnHost;
use crate::haproxy::standing::Standing;
use crate::haproxy::text::{Bind, Mode};
use crate::haproxy::vitals::Vitals;
use crate::listeners::heard_at;

/// From one inquiry to the next at the same listener.
const INTERVAL: Duration = Duration::from_secs(1);

/// Listeners that are asked; the first ones of the file.
const LISTENER_LIMIT: usize = 16;

/// A debugger that looks at it lets it go on sooner.
const STOPPED_AFTER: Duration = Duration::from_millis(500);

/// Processor time from which a process works, in ticks of 10 ms for each second. One that only waits
/// uses none.
const WORKING_TICKS: u64 = 5;

/// Of one process, while it serves.
#[derive(Debug)]
pub(super) struct Liveness {
    pid: u32,
    binds: Vec<Bind>,
    answer: Option<HttpTarget>,
    servers: Vec<u32>,
    stopped_since: Option<Instant>,
    is_stopped: bool,
    asked: Vec<AskedListener>,
}

/// One listener.
#[derive(Debug)]
struct AskedListener {
    bound: SocketAddr,
    expected: Expected,
    /// Asked only when somebody waits there.
    is_quiet: bool,
    inquiry: Option<Inquiry>,
    next_at: Instant,
    history: MissHistory,
    asked_at: Instant,
    /// At the last look: when, and the processor time and length of the queue then.
    mark: QueueMark,
}

#[derive(Clone, Copy, Debug)]
struct QueueMark {
    at: Instant,
    ticks: u64,
    waiting: u32,
}

impl Liveness {
    /// Of the process that was started from a file with these `binds`. `answer` is where an operator
    /// wants to be answered.
    pub(super) fn new(pid: u32, binds: &[Bind], answer: Option<&HttpTarget>, now: Instant) -> Self {
        let mut listeners = listeners(binds, answer);
        listeners.truncate(LISTENER_LIMIT);
        let mark = QueueMark { at: now, ticks: 0, waiting: 0 };
        let asked = listeners.into_iter().map(|(bound, expected, is_quiet)| AskedListener {
            bound,
            expected,
            is_quiet,
            inquiry: None,
            next_at: now,
            history: MissHistory::new(now),
            asked_at: now,
            mark,
        });
        Self {
            pid,
            binds: binds.to_vec(),
            answer: answer.cloned(),
            servers: servers(pid),
            stopped_since: None,
            is_stopped: false,
            asked: asked.collect(),
        }
    }

    /// Whether it would be made the same for these.
    pub(super) fn is_of(&self, pid: u32, binds: &[Bind], answer: Option<&HttpTarget>) -> bool {
        self.pid == pid && self.binds == binds && self.answer.as_ref() == answer
    }

    /// Looks and asks, as far as that goes without waiting.
    pub(super) fn poll(&mut self, host: &mut OwnHost, now: Instant) {
        let vitals = Vitals::of(&self.servers).unwrap_or_else(|| {
            // A master has started other workers.
            self.servers = servers(self.pid);
            Vitals::default()
        });
        self.stopped_since = match self.stopped_since {
            _ if !vitals.is_stopped => None,
            None => Some(now),
            since => since,
        };
        self.is_stopped = self
            .stopped_since
            .is_some_and(|since| now.saturating_duration_since(since) >= STOPPED_AFTER);
        for asked in &mut self.asked {
            asked.poll(&self.servers, vitals, host, now);
        }
    }

    /// Nobody is asked for a while: what was under way is of no use.
    pub(super) fn pause(&mut self) {
        self.asked.iter_mut().for_each(|asked| asked.inquiry = None);
    }

    /// It does nothing any more, not even what it is told: at none of its listeners.
    pub(super) fn hangs(&self, now: Instant) -> bool {
        let mut judgements = self.asked.iter().map(|asked| asked.history.judgement(now));
        self.is_stopped
            || !self.asked.is_empty()
                && judgements.all(|judgement| match judgement {
                    Judgement::Failed(failing) => match failing {
                        Failing::Spins | Failing::Unanswering | Failing::Unaccepting => true,
                        Failing::Rejects(_) | Failing::Refuses => false,
                    },
                    Judgement::Answers | Judgement::Strained(_) => false,
                })
    }

    /// What its clients have of it, by the worst of its listeners.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let pid = self.pid;
        if self.is_stopped {
            return Standing::Failed(format!(
                "haproxy (pid {pid}) is stopped and answers nobody: let it go on with kill -CONT \
                 {pid}, or end it, and it is started again"
            ));
        }
        let judgements = self.asked.iter().map(|asked| (asked.history.judgement(now), asked.bound));
        let Some((judgement, bound)) = judgements.max_by_key(|(judgement, _)| *judgement) else {
            return Standing::Answers;
        };
        match judgement {
            Judgement::Answers => Standing::Answers,
            Judgement::Strained(strain) => Standing::Strained(strain_text(strain, bound)),
            Judgement::Failed(failing) => Standing::Failed(failing_text(failing, bound, pid)),
        }
    }
}

impl AskedListener {
    fn poll(&mut self, servers: &[u32], vitals: Vitals, host: &mut OwnHost, now: Instant) {
        if self.inquiry.is_none() && now >= self.next_at {
            self.next_at = now + INTERVAL;
            self.begin(vitals.ticks, host, now);
        }
        let Some(inquiry) = &mut self.inquiry else { return };
        let reply = inquiry.poll(&self.expected, host.diag());
        let stage = match reply {
            InquiryReply::Waits(stage) => stage,
            InquiryReply::Answered => {
                // One miss alone is nothing.
                let took = now.saturating_duration_since(self.asked_at);
                let is_late = took >= 2 * ANSWER_LIMIT;
                let seen = if is_late { Observation::Late } else { Observation::Answered };
                return self.end(Some(seen), now);
            }
            InquiryReply::Refused => return self.end(Some(Observation::Refused), now),
            InquiryReply::Rejected(status) => {
                return self.end(Some(Observation::Rejected(status)), now);
            }
            InquiryReply::NotAsked => return self.end(None, now),
        };
        if now.saturating_duration_since(self.mark.at) < ANSWER_LIMIT {
            return;
        }
        let queue = waiting_at(self.bound, host.diag());
        let waiting = queue.iter().map(|listener| listener.waiting).sum();
        let used = vitals.ticks.saturating_sub(self.mark.ticks);
        let evidence = Evidence {
            watched: match stage {
                InquiryStage::Connecting | InquiryStage::Queued => {
                    let inodes: Vec<u32> = queue.iter().map(|listener| listener.inode).collect();
                    waits_at(servers, &inodes)
                }
                InquiryStage::Accepted => None,
            },
            progress: vitals.is_ready || used >= WORKING_TICKS || waiting < self.mark.waiting,
        };
        self.mark = QueueMark { at: now, ticks: vitals.ticks, waiting };
        match stage {
            InquiryStage::Queued => self.history.add(Observation::Unaccepted(evidence), now),
            // The kernel tries again later and later; a new one is heard sooner.
            InquiryStage::Connecting => self.end(Some(Observation::Unaccepted(evidence)), now),
            InquiryStage::Accepted => {
                self.history.add(Observation::Unanswered(evidence), now);
                if now.saturating_duration_since(self.asked_at) >= PATIENCE {
                    self.end(None, now);
                }
            }
        }
    }

    fn begin(&mut self, ticks: u64, host: &mut OwnHost, now: Instant) {
        let queue = waiting_at(self.bound, host.diag());
        let waiting = queue.iter().map(|listener| listener.waiting).sum();
        self.asked_at = now;
        self.mark = QueueMark { at: now, ticks, waiting };
        if self.is_quiet && waiting == 0 && !queue.is_empty() {
            return self.end(Some(Observation::Answered), now);
        }
        let is_local = |address: IpAddr| host.has(address, now);
        // Whoever has no such address has no such clients.
        let Some(to) = reachable(self.bound, is_local) else { return };
        match Inquiry::ask(to) {
            Ok(inquiry) => self.inquiry = Some(inquiry),
            Err(InquiryReply::Refused) => self.end(Some(Observation::Refused), now),
            Err(_) => {}
        }
    }

    fn end(&mut self, seen: Option<Observation>, now: Instant) {
        self.inquiry = None;
        if let Some(seen) = seen {
            self.history.add(seen, now);
        }
    }
}

/// The kernel's listeners that clients of that address come to.
fn waiting_at(bound: SocketAddr, diag: Option<&mut SockDiag>) -> Vec<TcpListening> {
    let found = diag.and_then(|diag| diag.listeners(bound.port()).ok()).unwrap_or_default();
    heard_at(bound, &found)
}

/// Where to ask for what, and whether only when somebody waits.
fn listeners(binds: &[Bind], answer: Option<&HttpTarget>) -> Vec<(SocketAddr, Expected, bool)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    if let Some(answer) = answer {
        seen.insert(answer.address);
        let host = answer.host.clone().unwrap_or_else(|| answer.address.to_string());
        let path = &answer.path;
        let say = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let expected = Expected::Status { say: say.into_bytes(), good: 200..=399 };
        found.push((answer.address, expected, false));
    }
    for bind in binds.iter().filter(|bind| bind.interface.is_none()) {
        let before: &[u8] = if bind.accept_proxy { b"PROXY UNKNOWN\r\n" } else { b"" };
        let (expected, is_quiet) = match (bind.mode, &bind.monitor_uri) {
            (Mode::Internal, _) => continue,
            (Mode::Tcp | Mode::Http, _) if bind.tls => (Expected::Acceptance, false),
            (Mode::Http, _) if bind.http2 => (Expected::Acceptance, false),
            (Mode::Tcp, _) => (Expected::Acceptance, true),
            (Mode::Http, None) => (Expected::word(before), false),
            (Mode::Http, Some(path)) => {
                let request = format!("GET {path} HTTP/1.0\r\n\r\n");
                let say = [before, request.as_bytes()].concat();
                (Expected::Status { say, good: 200..=299 }, false)
            }
        };
        for address in &bind.addresses {
            if seen.insert(*address) {
                found.push((*address, expected.clone(), is_quiet));
            }
        }
    }
    found
}

fn strain_text(strain: Overload, bound: SocketAddr) -> String {
    match strain {
        Overload::Busy => {
            format!("haproxy is overloaded: clients at {bound} wait for over a second")
        }
        Overload::Full => format!(
            "haproxy is full: clients at {bound} wait until others have left, as maxconn of its file \
             says"
        ),
    }
}

fn failing_text(failing: Failing, bound: SocketAddr, pid: u32) -> String {
    let remedy = format!("end it (pid {pid}), and it is started again");
    match failing {
        Failing::Rejects(None) => {
            format!("haproxy closes connections at {bound} where it shall answer with a status")
        }
        Failing::Rejects(Some(status)) => {
            format!("haproxy answers with status {status} at {bound}, its clients are not served")
        }
        Failing::Spins => {
            format!("haproxy has answered nobody at {bound} for half a minute: {remedy}")
        }
        Failing::Unanswering => {
            format!("haproxy hangs, clients at {bound} get no answer: {remedy}")
        }
        Failing::Unaccepting => {
            format!("haproxy hangs, it accepts no clients at {bound}: {remedy}")
        }
        Failing::Refuses => {
            format!("haproxy refuses clients at {bound}: is a frontend of it disabled?")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::SockaddrStorage;

    use super::*;
    use crate::haproxy::text::binds;

    #[test]
    fn each_listener_is_asked_what_it_answers_without_a_server() {
        let text = "
            listen http
                mode http
                bind :80
                bind :81 accept-proxy
                bind :82 ssl crt x
                bind :83 proto h2
                bind :84 interface eth0
                bind :80
                bind /run/x.sock
            listen monitored
                mode http
                monitor-uri /alive
                bind :90 accept-proxy
            listen tcp
                bind :91
                bind :92 ssl crt x
            peers p
                bind :93
        ";
        let said = |expected: &Expected| match expected {
            Expected::Acceptance => String::new(),
            Expected::Word { say } | Expected::Status { say, .. } => {
                String::from_utf8(say.clone()).unwrap()
            }
        };
        let answer = HttpTarget {
            address: ([10, 0, 0, 1], 80).into(),
            host: Some("x.example".to_owned()),
            path: "/p?q".to_owned(),
        };
        let found = listeners(&binds(text), Some(&answer));
        let found: Vec<_> =
            found.iter().map(|(at, what, quiet)| (at.port(), said(what), *quiet)).collect();
        let request = "GET /p?q HTTP/1.1\r\nHost: x.example\r\nConnection: close\r\n\r\n";
        let expected = [
            (80, request, false),
            (80, "LOCUM\r\n\r\n", false),
            (81, "PROXY UNKNOWN\r\nLOCUM\r\n\r\n", false),
            (82, "", false),
            (83, "", false),
            (90, "PROXY UNKNOWN\r\nGET /alive HTTP/1.0\r\n\r\n", false),
            (91, "", true),
            (92, "", false),
        ];
        assert_eq!(found, expected.map(|(port, said, quiet)| (port, said.to_owned(), quiet)));
    }

    /// One that is full and waits, beside one at the same port of the other family.
    #[test]
    fn the_queue_of_one_family_is_none_of_the_other() {
        use nix::sys::socket::{
            AddressFamily, Backlog, SockFlag, SockType, bind, listen, setsockopt, socket, sockopt,
        };
        let v4 = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let at_v4 = v4.local_addr().unwrap();
        let at_v6 = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, at_v4.port()));
        let v6 = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let v6 = v6.unwrap();
        setsockopt(&v6, sockopt::Ipv6V6Only, &true).unwrap();
        bind(v6.as_raw_fd(), &SockaddrStorage::from(at_v6)).unwrap();
        listen(&v6, Backlog::new(8).unwrap()).unwrap();
        let waits = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, at_v4.port()));
        let _client = std::net::TcpStream::connect(waits).unwrap();
        let mut diag = SockDiag::open().unwrap();
        let mut queues = |bound| {
            let found = waiting_at(bound, Some(&mut diag));
            found.iter().map(|one| one.waiting).collect::<Vec<_>>()
        };
        assert_eq!(queues(at_v6), [1]);
        assert_eq!(queues(at_v4), [0]);
    }
}
