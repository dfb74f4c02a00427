//! HTTP/1.0 and 1.1 on the wire: one request, the head of the answer, and its body.
//!
//! Written for what a check needs and for what it costs: one buffer, no header map, no connection
//! task.

use std::io;
use std::time::Duration;

use locum_plan::{HttpMethod, HttpPage, HttpVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time;

use super::super::{Answer, WaitingFor, tls};
use super::wanted::WantedBody;

/// Status line and header fields together; what common servers accept themselves.
pub(super) const HEAD_BYTES: usize = 16 * 1024;

/// Header fields of one response; the usual limit of servers for requests.
const HEAD_FIELDS: usize = 100;

/// First room for an answer: most heads, and the pages of most checks.
const FIRST_BYTES: usize = 1024;

/// Of a body that nobody looks at, read at most this much ...
const BODY_BYTES: u64 = 64 * 1024;

/// ... for at most this long, since the verdict waits for it.
const BODY_TIME: Duration = Duration::from_millis(50);

/// Longest line with the size of a chunk, with its extensions; and of all trailers together.
const CHUNK_LINE_BYTES: usize = 4096;

const READING: WaitingFor = "its body did not end";

/// The request as it is sent.
pub(super) fn request(
    page: &HttpPage,
    host: &str,
    version: HttpVersion,
) -> Result<Vec<u8>, Answer> {
    if !page.path.starts_with('/') {
        return Err(Answer::unasked(format!("the path \"{}\" does not begin with /", page.path)));
    }
    for (what, text) in [("path", page.path.as_str()), ("host", host)] {
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(Answer::unasked(format!("the {what} {text:?} has a space or a control")));
        }
    }
    let version = if version == HttpVersion::Http10 { "1.0" } else { "1.1" };
    let mut request = Vec::with_capacity(160 + page.path.len() + host.len());
    for part in [
        page.method.name(),
        " ",
        &page.path,
        " HTTP/",
        version,
        "\r\nHost: ",
        host,
        "\r\nUser-Agent: locum\r\nAccept: */*\r\nConnection: close\r\n",
    ] {
        request.extend_from_slice(part.as_bytes());
    }
    if page.method == HttpMethod::Post {
        let payload = page.payload.as_deref().unwrap_or_default();
        let length = format!("Content-Length: {}\r\n\r\n{payload}", payload.len());
        request.extend_from_slice(length.as_bytes());
    } else {
        request.extend_from_slice(b"\r\n");
    }
    Ok(request)
}

/// An answer, and whether all that the server had to say has been read.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) answer: Answer,
    pub(super) is_whole: bool,
}

/// Asks on this connection, which is to be closed afterwards.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    page: &HttpPage,
    mut wanted: WantedBody<'_>,
    stage: &mut WaitingFor,
) -> Result<Exchanged, Answer> {
    // A server that has answered before it has heard all may close: its answer counts.
    let sent = stream.write_all(request).await;
    let mut input = WireReader::new(stream);
    let head = match input.head(page.method).await {
        Ok(head) => head,
        Err(unread) => return Err(sent.err().map_or(unread, |error| broken(&error))),
    };
    match wanted.judge_status(head.status) {
        Some(answer) => {
            let mut rest = BODY_BYTES;
            let mut skim = |bytes: &[u8]| {
                rest = rest.saturating_sub(bytes.len() as u64);
                Ok(rest == 0)
            };
            // So that a well-behaved server sees an orderly end.
            let body = input.body(head.framing, &mut skim);
            let end = time::timeout(BODY_TIME, body).await;
            Ok(Exchanged { answer, is_whole: matches!(end, Ok(Ok(()))) && rest > 0 })
        }
        None => {
            *stage = READING;
            input.body(head.framing, &mut |bytes| wanted.take(bytes)).await?;
            Ok(Exchanged { answer: wanted.judge(head.status), is_whole: false })
        }
    }
}

fn closed() -> Answer {
    Answer::fail("the server closed the connection without a response")
}

/// The connection ended in another way than by its end.
pub(super) fn broken(error: &io::Error) -> Answer {
    match error.kind() {
        // What TLS makes of a connection that is cut, and what whoever writes to one is met with.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => closed(),
        _ => tls::refusal(error, None),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    status: u16,
    framing: Framing,
}

/// How long a body is. RFC 9112 §6.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Open,
}

/// What has been read of a connection and not been used.
struct WireReader<'s, S> {
    stream: &'s mut S,
    buffer: Vec<u8>,
    /// Octets of the buffer before this one have been used.
    used: usize,
}

impl<'s, S: AsyncRead + Unpin> WireReader<'s, S> {
    fn new(stream: &'s mut S) -> Self {
        Self { stream, buffer: Vec::with_capacity(FIRST_BYTES), used: 0 }
    }

    fn unused(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Reads more behind what is there; `false` at the end of the connection.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.drain(..self.used);
            self.used = 0;
            self.buffer.reserve(FIRST_BYTES.max(self.buffer.len()));
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The head of the final answer; those of status 1xx before it are passed over.
    async fn head(&mut self, method: HttpMethod) -> Result<Head, Answer> {
        let mut total = 0;
        loop {
            let parsed = parse(self.unused(), method)?;
            if let Some((length, head)) = parsed {
                self.used += length;
                total += length;
                if !(100..200).contains(&head.status) {
                    return Ok(head);
                }
                continue;
            }
            if total + self.unused().len() >= HEAD_BYTES {
                let text =
                    format!("not an HTTP response: its head is longer than {HEAD_BYTES} octets");
                return Err(Answer::fail(text));
            }
            if !self.fill().await.map_err(|error| broken(&error))? {
                return Err(closed());
            }
        }
    }

    /// Hands the body on, part by part, until `take` has enough or it has ended.
    async fn body(&mut self, framing: Framing, take: &mut Take<'_>) -> Result<(), Answer> {
        match framing {
            Framing::Length(length) => self.octets(length, take).await.map(|_| ()),
            Framing::Open => self.octets(u64::MAX, take).await.map(|_| ()),
            Framing::Chunked => self.chunks(take).await,
        }
    }

    /// So many octets; `u64::MAX` is all there are. `true`: `take` has enough.
    async fn octets(&mut self, mut left: u64, take: &mut Take<'_>) -> Result<bool, Answer> {
        let is_open = left == u64::MAX;
        while left > 0 {
            let ready = self.unused();
            if ready.is_empty() {
                match self.fill().await {
                    Ok(true) => continue,
                    Ok(false) if is_open => return Ok(false),
                    // Without a close_notify, as many servers end.
                    Err(error) if is_open && error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Ok(false);
                    }
                    Ok(false) => return Err(Answer::fail("its body ended early")),
                    Err(error) => return Err(broken_body(&error)),
                }
            }
            let length = ready.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if take(&ready[..length])? {
                return Ok(true);
            }
            self.used += length;
            left -= length as u64;
        }
        Ok(false)
    }

    /// RFC 9112 §7.1.
    async fn chunks(&mut self, take: &mut Take<'_>) -> Result<(), Answer> {
        loop {
            let line = self.line().await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(digits).ok().map(str::trim);
            let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let size = size.filter(|size| *size < u64::MAX);
            let Some(size) = size else {
                return Err(Answer::fail("not an HTTP response: a chunk without a size"));
            };
            if size == 0 {
                // Trailers decide nothing.
                return Ok(());
            }
            if self.octets(size, take).await? {
                return Ok(());
            }
            if !self.line().await?.is_empty() {
                return Err(Answer::fail("not an HTTP response: a chunk that does not end"));
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<Vec<u8>, Answer> {
        loop {
            if let Some(end) = self.unused().iter().position(|byte| *byte == b'\n') {
                let line = &self.unused()[..end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.used += end + 1;
                return Ok(line);
            }
            if self.unused().len() > CHUNK_LINE_BYTES {
                return Err(Answer::fail("not an HTTP response: a chunk without a size"));
            }
            if !self.fill().await.map_err(|error| broken_body(&error))? {
                return Err(Answer::fail("its body ended early"));
            }
        }
    }
}

/// Takes a part of a body; `true` when the rest does not matter.
type Take<'t> = dyn FnMut(&[u8]) -> Result<bool, Answer> + Send + 't;

fn broken_body(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Answer::fail("its body ended early"),
        _ => broken(error),
    }
}

/// Length and meaning of a head that is whole.
fn parse(bytes: &[u8], method: HttpMethod) -> Result<Option<(usize, Head)>, Answer> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Answer::fail(format!("not an HTTP response: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let framing = framing(status, method, response.headers)?;
    Ok(Some((length, Head { status, framing })))
}

/// RFC 9112 §6.3.
fn framing(
    status: u16,
    method: HttpMethod,
    fields: &[httparse::Header<'_>],
) -> Result<Framing, Answer> {
    if method == HttpMethod::Head || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    let mut framing = Framing::Open;
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            // A coding that is not the last one, or another, lasts until the end.
            let last = field.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            return match last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                true => Ok(Framing::Chunked),
                false => Ok(Framing::Open),
            };
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).ok().map(str::trim);
            let length = text.and_then(|digits| digits.parse::<u64>().ok());
            let length = length.filter(|length| *length < u64::MAX);
            match (length, framing) {
                (Some(length), Framing::Length(other)) if length != other => {
                    return Err(Answer::fail("not an HTTP response: two lengths"));
                }
                (Some(length), _) => framing = Framing::Length(length),
                (None, _) => {
                    return Err(Answer::fail("not an HTTP response: a length that is no number"));
                }
            }
        }
    }
    Ok(framing)
}
