//! Requests to the kernel over a netlink socket: batched, answered in order, within a time limit.
//!
//! The kernel carries out a request inside the `send` call, so that its answer is in the socket
//! when `send` returns. Many requests in one `send` cost one system call, and only the last one,
//! which asks for nothing, is acknowledged: a request that fails is answered all the same, and one
//! that does not fail need not be. Their number is bounded because the answers must fit into the
//! receive buffer if all of them fail.

use std::time::{Duration, Instant};
use std::{fmt, io};

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use crate::attribute::{attributes, text};

/// Requests in one `send`. An error takes about 1.3 KiB of the receive buffer, whose default is
/// 208 KiB.
pub(crate) const BATCH_REQUESTS: usize = 128;
const ERROR_OCTETS: usize = 1400;
/// What fits into buffers of the default size.
const SMALLEST_ROOM: usize = BATCH_REQUESTS * ERROR_OCTETS;
/// Dumps come in pieces of at most 32 KiB; the kernel never sends a larger datagram.
pub(crate) const DATAGRAM_OCTETS: usize = 64 * 1024;
/// The answer is there when `send` returns, and only a dump takes longer: a kernel that has not
/// answered by then never will.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32; in host order.
const HEADER_OCTETS: usize = 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// On an answer: the dump changed under way and may lack something.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// On an error: the request is not repeated behind the code but for its header.
const NLM_F_CAPPED: u16 = 0x100;
/// On an error: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why the kernel refused a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelError {
    /// errno, positive.
    pub code: i32,
    /// What the kernel added in words (extended acknowledgement).
    pub message: Option<String>,
}

impl KernelError {
    pub(crate) fn new(errno: Errno) -> Self {
        Self { code: errno as i32, message: None }
    }

    pub(crate) fn errno(&self) -> Errno {
        Errno::from_raw(self.code)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.errno().desc().to_lowercase();
        match &self.message {
            Some(message) => write!(f, "{errno} ({message})"),
            None => f.write_str(&errno),
        }
    }
}

impl std::error::Error for KernelError {}

impl From<KernelError> for io::Error {
    fn from(error: KernelError) -> Self {
        Self::new(io::Error::from_raw_os_error(error.code).kind(), error)
    }
}

/// One request: `flags` without NLM_F_REQUEST and NLM_F_ACK, which are not the caller's concern.
#[derive(Clone, Debug)]
pub(crate) struct NetlinkRequest {
    pub kind: u16,
    pub flags: u16,
    pub body: Vec<u8>,
}

impl NetlinkRequest {
    /// Appends its body; returns its kind and flags.
    fn write(&self, octets: &mut Vec<u8>) -> (u16, u16) {
        octets.extend_from_slice(&self.body);
        (self.kind, self.flags)
    }
}

/// What came back for one request.
#[derive(Debug, Default)]
pub(crate) struct NetlinkAnswer {
    pub messages: Vec<NetlinkMessage>,
    pub error: Option<KernelError>,
    /// The dump is not a snapshot: ask again.
    interrupted: bool,
    complete: bool,
}

impl NetlinkAnswer {
    pub(crate) fn into_result(self) -> Result<Vec<NetlinkMessage>, KernelError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.messages),
        }
    }
}

/// A message without its header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NetlinkMessage {
    pub kind: u16,
    /// Of the socket that asked for the change, in a notification; 0 is the kernel.
    pub port: u32,
    pub body: Vec<u8>,
}

/// A netlink socket for requests.
#[derive(Debug)]
pub(crate) struct NetlinkTransport {
    socket: Socket,
    port: u32,
    sequence: u32,
    limit: Duration,
    /// Room for requests and for answers, kept from one exchange to the next: thousands of leases
    /// are renewed in dozens of them a second.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Octets that fit into the send buffer and the receive buffer for certain.
    room: (usize, usize),
}

impl NetlinkTransport {
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        Self::open_with_limit(protocol, ANSWER_LIMIT)
    }

    fn open_with_limit(protocol: isize, limit: Duration) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        // Both only make errors better; kernels before 4.12 do without.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        SockRef::from(&socket).set_read_timeout(Some(limit))?;
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        let room = (SMALLEST_ROOM, SMALLEST_ROOM);
        Ok(Self { socket, port, sequence: 0, limit, outgoing, incoming, room })
    }

    /// Our address on the netlink bus: notifications of changes we asked for carry it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Carries out all requests in order; one answer each. An error means that the socket itself
    /// failed or the kernel did not answer in time, and that nothing is known about what was done.
    pub(crate) fn exchange(
        &mut self,
        requests: &[NetlinkRequest],
    ) -> io::Result<Vec<NetlinkAnswer>> {
        let mut answers: Vec<NetlinkAnswer> =
            requests.iter().map(|_| NetlinkAnswer::default()).collect();
        self.in_batches(requests, NetlinkRequest::write, |position, raw| {
            take(&mut answers[position], raw)
        })?;
        Ok(answers)
    }

    /// As [`exchange`](Self::exchange), of requests that bring nothing back but errors: `write`
    /// appends the body of one and returns its kind and flags. Those that failed, by position.
    pub(crate) fn carry_out<T>(
        &mut self,
        all: &[T],
        write: impl FnMut(&T, &mut Vec<u8>) -> (u16, u16),
    ) -> io::Result<Vec<(usize, KernelError)>> {
        let mut failed = Vec::new();
        self.in_batches(all, write, |position, raw| {
            if raw.kind == NLMSG_ERROR {
                failed.extend(error_of(raw).map(|error| (position, error)));
            }
        })?;
        Ok(failed)
    }

    /// Sends all in batches; `hear` gets every answer with the position of what it answers.
    fn in_batches<T>(
        &mut self,
        all: &[T],
        mut write: impl FnMut(&T, &mut Vec<u8>) -> (u16, u16),
        mut hear: impl FnMut(usize, &Raw<'_>),
    ) -> io::Result<()> {
        for (at, batch) in all.chunks(BATCH_REQUESTS).enumerate() {
            let first = self.sequence.wrapping_add(1);
            let mut octets = std::mem::take(&mut self.outgoing);
            octets.clear();
            for one in batch {
                self.append(&mut octets, |octets| write(one, octets));
            }
            self.append(&mut octets, |_| (NLMSG_NOOP, NLM_F_ACK));
            let sent = self.send(&octets);
            self.outgoing = octets;
            sent?;
            self.collect(first, batch.len(), |position, raw| {
                hear(at * BATCH_REQUESTS + position, raw);
            })?;
        }
        Ok(())
    }

    /// Carries out all requests or none, between `begin` and `end`. The error is that of the first
    /// request that failed, or of the whole.
    pub(crate) fn transact(
        &mut self,
        begin: &NetlinkRequest,
        requests: &[NetlinkRequest],
        end: &NetlinkRequest,
    ) -> io::Result<Result<(), KernelError>> {
        let Some((last, others)) = requests.split_last() else { return Ok(Ok(())) };
        let last = NetlinkRequest { flags: last.flags | NLM_F_ACK, ..last.clone() };
        let first = self.sequence.wrapping_add(1);
        let mut octets = Vec::new();
        self.encode_next(begin, &mut octets);
        others.iter().chain([&last]).for_each(|request| self.encode_next(request, &mut octets));
        let last = self.sequence;
        self.encode_next(end, &mut octets);
        self.make_room(octets.len(), requests.len());
        self.send(&octets)?;
        // The kernel has answered within `send`: what failed, in order, then the last one. When all
        // of it fails at once there is one error, under the number of the beginning.
        let mut error = None;
        self.read_until(|raw| {
            if raw.kind != NLMSG_ERROR
                || raw.sequence.wrapping_sub(first) > last.wrapping_sub(first)
            {
                return false;
            }
            if error.is_none() {
                error = error_of(raw);
            }
            raw.sequence == last || (raw.sequence == first && error.is_some())
        })?;
        Ok(error.map_or(Ok(()), Err))
    }

    /// The kernel takes a transaction in one piece, and answers each request that fails.
    fn make_room(&mut self, octets: usize, requests: usize) {
        let (out, back) = (octets + octets / 2, requests * ERROR_OCTETS);
        // Doing without the right to it is good enough for what is small.
        if out > self.room.0 && setsockopt(&self.socket, sockopt::SndBufForce, &out).is_ok() {
            self.room.0 = out;
        }
        if back > self.room.1 && setsockopt(&self.socket, sockopt::RcvBufForce, &back).is_ok() {
            self.room.1 = back;
        }
    }

    fn encode_next(&mut self, request: &NetlinkRequest, octets: &mut Vec<u8>) {
        self.append(octets, |octets| request.write(octets));
    }

    /// The next request, whose body, kind and flags come from `write`.
    fn append(&mut self, octets: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> (u16, u16)) {
        self.sequence = self.sequence.wrapping_add(1);
        encode(self.sequence, octets, write);
    }

    /// One dump, repeated while the kernel says that it is not a snapshot.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
    ) -> io::Result<Result<Vec<NetlinkMessage>, KernelError>> {
        // Something that changes faster than this is never seen whole; what was seen last serves.
        const ATTEMPTS: usize = 16;
        let request = NetlinkRequest { kind, flags: NLM_F_DUMP, body: body.to_vec() };
        let mut last = NetlinkAnswer::default();
        for _ in 0..ATTEMPTS {
            let mut octets = Vec::new();
            self.encode_next(&request, &mut octets);
            self.send(&octets)?;
            let first = self.sequence;
            last = self.collect_dump(first)?;
            if !last.interrupted {
                break;
            }
        }
        Ok(last.into_result())
    }

    /// One dump of very many, each handed over as it comes and kept nowhere.
    pub(crate) fn dump_each(
        &mut self,
        kind: u16,
        body: &[u8],
        mut hear: impl FnMut(&[u8]),
    ) -> io::Result<Result<(), KernelError>> {
        let request = NetlinkRequest { kind, flags: NLM_F_DUMP, body: body.to_vec() };
        let mut octets = Vec::new();
        self.encode_next(&request, &mut octets);
        self.send(&octets)?;
        let (sequence, mut end) = (self.sequence, NetlinkAnswer::default());
        self.read_until(|raw| {
            match raw.kind {
                _ if raw.sequence != sequence => {}
                NLMSG_NOOP | NLMSG_ERROR | NLMSG_DONE => take(&mut end, raw),
                _ => hear(raw.body),
            }
            end.complete
        })?;
        Ok(end.into_result().map(drop))
    }

    fn send(&self, octets: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(octets, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands over the answers to `count` requests, each with the position of its request, up to the
    /// acknowledgement of the one that follows them.
    fn collect(
        &mut self,
        first: u32,
        count: usize,
        mut hear: impl FnMut(usize, &Raw<'_>),
    ) -> io::Result<()> {
        let mut complete = false;
        self.read_until(|raw| {
            // Late answers to an earlier exchange that took too long are of no use any more.
            match raw.sequence.wrapping_sub(first) as usize {
                position if position < count => hear(position, raw),
                position => complete |= position == count,
            }
            complete
        })
    }

    fn collect_dump(&mut self, sequence: u32) -> io::Result<NetlinkAnswer> {
        let mut answer = NetlinkAnswer::default();
        self.read_until(|raw| {
            if raw.sequence == sequence {
                take(&mut answer, raw);
            }
            answer.complete
        })?;
        Ok(answer)
    }

    /// Hands over messages until one of them is the last.
    fn read_until(&mut self, is_last: impl FnMut(&Raw<'_>) -> bool) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.incoming);
        buffer.reserve(DATAGRAM_OCTETS);
        let outcome = self.read_into(&mut buffer, is_last);
        self.incoming = buffer;
        outcome
    }

    fn read_into(
        &self,
        buffer: &mut Vec<u8>,
        mut is_last: impl FnMut(&Raw<'_>) -> bool,
    ) -> io::Result<()> {
        let limit = self.limit;
        let late = || {
            let words = format!("the kernel has not answered a request within {limit:?}");
            io::Error::new(io::ErrorKind::TimedOut, words)
        };
        let end = Instant::now() + limit;
        loop {
            match receive(&self.socket, buffer) {
                Ok(false) => {}
                Ok(true) => {
                    // All of the datagram is read: what follows the last one is nobody's.
                    let mut done = false;
                    for raw in NetlinkMessages(buffer) {
                        done |= is_last(&raw);
                    }
                    if done {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
                Err(error) => return Err(error),
            }
            if Instant::now() > end {
                return Err(late());
            }
        }
    }
}

/// Reads one datagram; false when it did not come from the kernel and is to be ignored.
pub(crate) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        buffer.clear();
        return match socket.recv_from(buffer, libc::MSG_TRUNC) {
            Ok((length, _)) if length > buffer.len() => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "netlink datagram was cut"))
            }
            Ok((_, from)) => Ok(from.port_number() == 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Adds one raw message to the answer it belongs to.
fn take(answer: &mut NetlinkAnswer, raw: &Raw<'_>) {
    answer.interrupted |= raw.flags & NLM_F_DUMP_INTR != 0;
    match raw.kind {
        NLMSG_NOOP => {}
        NLMSG_ERROR => {
            answer.error = error_of(raw);
            answer.complete = true;
        }
        NLMSG_DONE => {
            let code = read_i32(raw.body).unwrap_or(0);
            if code < 0 {
                answer.error = Some(KernelError { code: -code, message: None });
            }
            answer.complete = true;
        }
        kind => {
            answer.messages.push(NetlinkMessage { kind, port: raw.port, body: raw.body.to_vec() })
        }
    }
}

/// `None` for an acknowledgement.
fn error_of(raw: &Raw<'_>) -> Option<KernelError> {
    let code = read_i32(raw.body)?;
    if code == 0 {
        return None;
    }
    let request = raw.body.get(4..).unwrap_or_default();
    let repeated = if raw.flags & NLM_F_CAPPED != 0 {
        HEADER_OCTETS
    } else {
        read_i32(request).map_or(0, |length| aligned(length.max(0) as usize))
    };
    let mut message = None;
    if raw.flags & NLM_F_ACK_TLVS != 0 {
        let list = request.get(repeated..).unwrap_or_default();
        let words = attributes(list).find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG);
        message = words.map(|attribute| text(attribute.value));
    }
    Some(KernelError { code: code.wrapping_neg(), message })
}

fn read_i32(octets: &[u8]) -> Option<i32> {
    octets.first_chunk::<4>().map(|octets| i32::from_ne_bytes(*octets))
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Appends a request, whose body, kind and flags come from `write`.
fn encode(sequence: u32, octets: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> (u16, u16)) {
    let start = octets.len();
    octets.resize(start + HEADER_OCTETS, 0);
    let (kind, flags) = write(octets);
    // INVARIANT: bodies are made here and are far smaller than 4 GiB.
    let length = u32::try_from(octets.len() - start).expect("small request");
    let header = &mut octets[start..start + HEADER_OCTETS];
    header[0..4].copy_from_slice(&length.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    octets.resize(aligned(octets.len()), 0);
}

/// A message as it lies in a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub port: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram; ends at the first one that is malformed.
#[derive(Debug)]
pub(crate) struct NetlinkMessages<'a>(pub &'a [u8]);

impl<'a> Iterator for NetlinkMessages<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let header = self.0.first_chunk::<HEADER_OCTETS>()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let body = self.0.get(HEADER_OCTETS..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(Raw { kind: half(4), flags: half(6), sequence: word(8), port: word(12), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        encode(7, &mut octets, |octets| {
            octets.extend_from_slice(body);
            (kind, flags)
        });
        octets
    }

    fn answer_to(octets: &[u8]) -> NetlinkAnswer {
        let mut answer = NetlinkAnswer::default();
        for raw in NetlinkMessages(octets) {
            assert_eq!(raw.sequence, 7);
            take(&mut answer, &raw);
        }
        answer
    }

    #[test]
    fn a_dump_is_complete_at_done_and_keeps_its_messages_in_order() {
        let mut octets = message(20, 2, b"abc");
        octets.extend(message(20, 2, b"defg"));
        assert!(!answer_to(&octets).complete);
        octets.extend(message(NLMSG_DONE, 2, &0i32.to_ne_bytes()));
        let answer = answer_to(&octets);
        assert!(answer.complete && !answer.interrupted);
        let bodies: Vec<_> = answer.messages.iter().map(|message| &message.body[..]).collect();
        assert_eq!(bodies, [&b"abc"[..], b"defg"]);
    }

    #[test]
    fn many_requests_are_answered_each_with_its_own_error() {
        let mut transport = NetlinkTransport::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        // Links whose number is none, but for the first interface, which every namespace has.
        let request = |index: i32| {
            let mut body = vec![0; 16];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            NetlinkRequest { kind: libc::RTM_GETLINK, flags: 0, body }
        };
        let requests: Vec<_> =
            (0..300).map(|at| request(if at % 100 == 7 { 1 } else { -7 })).collect();
        let answers = transport.exchange(&requests).unwrap();
        assert_eq!(answers.len(), 300);
        for (at, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.into_result().is_ok_and(|found| found.len() == 1), at % 100 == 7);
        }
        let failed = transport.carry_out(&requests, NetlinkRequest::write).unwrap();
        let failed: Vec<_> = failed.into_iter().map(|(at, error)| (at, error.errno())).collect();
        let all = (0..300).filter(|at| at % 100 != 7).map(|at| (at, Errno::EINVAL));
        assert_eq!(failed, all.collect::<Vec<_>>());
    }

    #[test]
    fn a_kernel_that_does_not_answer_is_an_error_in_words() {
        let limit = Duration::from_millis(20);
        let protocol = netlink_sys::protocols::NETLINK_ROUTE;
        let mut transport = NetlinkTransport::open_with_limit(protocol, limit).unwrap();
        // Nothing was asked.
        let error = transport.collect(1, 1, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "the kernel has not answered a request within 20ms");
    }

    #[test]
    fn an_interrupted_dump_is_noticed() {
        let mut octets = message(20, NLM_F_DUMP_INTR, b"abc");
        octets.extend(message(NLMSG_DONE, 2, &0i32.to_ne_bytes()));
        assert!(answer_to(&octets).interrupted);
    }

    #[test]
    fn the_kernels_words_are_found_behind_capped_and_whole_requests() {
        let words = b"\x0a\x00\x01\x00no way\x00\x00";
        let mut capped = (-22i32).to_ne_bytes().to_vec();
        capped.extend([0; HEADER_OCTETS]);
        capped.extend(words);
        let mut whole = (-22i32).to_ne_bytes().to_vec();
        whole.extend(message(20, 0, b"body"));
        whole.extend(words);
        for (flags, body) in [(NLM_F_CAPPED | NLM_F_ACK_TLVS, capped), (NLM_F_ACK_TLVS, whole)] {
            let error = answer_to(&message(NLMSG_ERROR, flags, &body)).error;
            let expected = KernelError { code: 22, message: Some("no way".into()) };
            assert_eq!(error.as_ref(), Some(&expected));
            assert_eq!(expected.to_string(), "invalid argument (no way)");
        }
    }

    #[test]
    fn malformed_datagrams_end_early_and_never_panic() {
        let good = message(20, 0, b"abcdefgh");
        for end in 0..good.len() {
            assert_eq!(NetlinkMessages(&good[..end]).count(), 0);
        }
        let mut short = good.clone();
        short[0] = 3;
        assert_eq!(NetlinkMessages(&short).count(), 0);
        let error = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &[0xff; 4]);
        assert_eq!(answer_to(&error).error.map(|error| error.code), Some(1));
    }
}
