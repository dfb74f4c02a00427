//! The client's view: one UDP request every millisecond on an absolute schedule, and who answered.
//!
//! `ping` slows down while it waits for an answer; this does not, so the number of lost probes is
//! the length of a gap in milliseconds.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

use crate::node::Node;

/// Port of the responders: the echo service's.
const PORT: u16 = 7;
/// When for so long after the last probe no answer has come, the missing ones are lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How soon a thread notices that it shall end.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// Time between two probes.
pub const SPACING: Duration = Duration::from_millis(1);
/// Enough for seconds of probes while a thread is not scheduled.
const BUFFER: usize = 8 << 20;

/// Answers probes on every address of a node, with a number that says which node it is.
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Listens on all addresses of `node`, of both families, also those that come later.
    pub fn start(node: &Node, number: u8) -> Self {
        let socket = socket(node, SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut bytes = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut bytes[1..]) else { continue };
                    bytes[0] = number;
                    // An answer that cannot be sent is a lost probe, and counted as one.
                    let _ = socket.send_to(&bytes[..=length], from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// One on each of `nodes`, numbered by position.
    pub fn on_each(nodes: &[Node]) -> Vec<Self> {
        (0_u8..).zip(nodes).map(|(number, node)| Self::start(node, number)).collect()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

/// A running series of probes.
pub struct Prober {
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<()>,
    answers: Arc<Mutex<Vec<Answer>>>,
    stop_sending: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Answer {
    sequence: usize,
    by: u8,
}

/// What became of the probes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub sent: usize,
    pub lost: usize,
    pub duplicates: usize,
    /// From the first lost probe of a row to the next one that was answered.
    pub longest_silence: Duration,
    /// Who answered, in the order of the probes, each change once.
    pub answered_by: Vec<u8>,
}

impl Prober {
    /// Starts to send from `client` to `target`, one probe every [`SPACING`], until stopped.
    pub fn start(client: &Node, target: IpAddr) -> Self {
        let unspecified: IpAddr = match target {
            IpAddr::V4(_) => [0_u8; 4].into(),
            IpAddr::V6(_) => [0_u8; 16].into(),
        };
        let socket = Arc::new(socket(client, SocketAddr::from((unspecified, 0))));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (stop_sending, stop) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let receiver = thread::spawn({
            let (socket, answers, stop) =
                (Arc::clone(&socket), Arc::clone(&answers), Arc::clone(&stop));
            move || receive(&socket, &answers, &stop)
        });
        let sender = thread::spawn({
            let stop = Arc::clone(&stop_sending);
            move || send(&socket, SocketAddr::from((target, PORT)), &stop)
        });
        Self { sender, receiver, answers, stop_sending, stop }
    }

    /// Number of answers so far.
    pub fn answered(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Who gave the latest answer.
    pub fn latest(&self) -> Option<u8> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.last().map(|answer| answer.by)
    }

    /// Ends it, after the last probes had their time to be answered.
    pub fn stop(self) -> Report {
        self.stop_sending.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender failed");
        let count = || self.answers.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut answered = count();
        loop {
            thread::sleep(PATIENCE);
            // One that answers late is late, and not silent.
            match count() {
                now if now > answered => answered = now,
                _ => break,
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        self.receiver.join().expect("the receiver failed");
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        report(&sent, &answers)
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, stop: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    let start = Instant::now();
    let mut due = start;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += SPACING;
        // The instant before the call: a probe that waits in the kernel for an address was sent.
        let sequence = sent.len() as u64;
        sent.push(Instant::now());
        // A probe that cannot be sent (no route, no neighbour) is a lost one.
        let _ = socket.send_to(&sequence.to_be_bytes(), target);
    }
    sent
}

fn receive(socket: &UdpSocket, answers: &Mutex<Vec<Answer>>, stop: &AtomicBool) {
    let mut bytes = [0; 64];
    loop {
        // Asked before the read: what has come until then is read, however late this runs.
        let last = stop.load(Ordering::Relaxed);
        let Ok((length, _)) = socket.recv_from(&mut bytes) else {
            if last {
                return;
            }
            continue;
        };
        let Some((&by, rest)) = bytes[..length].split_first() else { continue };
        let Ok(sequence) = <[u8; 8]>::try_from(rest) else { continue };
        let Ok(sequence) = usize::try_from(u64::from_be_bytes(sequence)) else { continue };
        answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { sequence, by });
    }
}

fn report(sent: &[Instant], answers: &[Answer]) -> Report {
    let mut counts = vec![0_usize; sent.len()];
    let mut answered_by = Vec::new();
    // Two nodes that answer at nearly the same time may do so in any order.
    let mut answers = answers.to_vec();
    answers.sort_by_key(|answer| answer.sequence);
    for answer in answers {
        if let Some(count) = counts.get_mut(answer.sequence) {
            *count += 1;
        }
        if answered_by.last() != Some(&answer.by) {
            answered_by.push(answer.by);
        }
    }
    let mut longest_silence = Duration::ZERO;
    let mut silent_since = None;
    for (at, count) in sent.iter().zip(&counts) {
        match (*count, silent_since) {
            (0, None) => silent_since = Some(*at),
            (0, Some(_)) => {}
            (_, Some(since)) => {
                longest_silence = longest_silence.max(at.duration_since(since));
                silent_since = None;
            }
            (_, None) => {}
        }
    }
    if let (Some(since), Some(last)) = (silent_since, sent.last()) {
        longest_silence = longest_silence.max(last.duration_since(since) + SPACING);
    }
    Report {
        sent: sent.len(),
        lost: counts.iter().filter(|count| **count == 0).count(),
        duplicates: counts.iter().map(|count| count.saturating_sub(1)).sum(),
        longest_silence,
        answered_by,
    }
}

fn socket(node: &Node, bind: SocketAddr) -> UdpSocket {
    let socket = node.in_network(|| UdpSocket::bind(bind)).expect("cannot bind a probe socket");
    socket.set_read_timeout(Some(READ_TIMEOUT)).expect("cannot set a timeout");
    // Beyond the system's limit.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("cannot set a buffer");
    socket
}
