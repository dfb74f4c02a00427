//! The HTTP probe: a GET is answered with one of the expected statuses.
//!
//! The status line decides; of the body only a little is read, so that a well-behaved server
//! sees an orderly end. What a hostile one sends is bounded in bytes and in time.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use locum_plan::{Outcome, StatusRange, Verdict};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use super::tcp;

/// Status line and header fields together; what common servers accept themselves.
const HEADER_BYTES: usize = 16 * 1024;

/// Header fields of one response; the usual limit of servers for requests.
const HEADER_FIELDS: usize = 100;

/// Of the body, read at most this much ...
const BODY_BYTES: usize = 64 * 1024;

/// ... for at most this long, since the verdict waits for it.
const BODY_TIME: Duration = Duration::from_millis(50);

const DEFAULT_PORT: u16 = 80;

/// One request, as the plan describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Get<'a> {
    pub(crate) target: SocketAddr,
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
    pub(crate) expect: &'a [StatusRange],
}

type Answer = (Verdict, String);

/// Asks once.
pub(crate) async fn probe(get: Get<'_>, timeout: Duration) -> Outcome {
    let begin = Instant::now();
    let deadline = begin + timeout;
    let answer = match request(get) {
        // Boxed: all probes share one future type, and most are not HTTP.
        Ok(request) => time::timeout_at(deadline, Box::pin(exchange(get, request, deadline))).await,
        Err(reason) => Ok((Verdict::CannotRun, reason)),
    };
    let (verdict, detail) = answer
        .unwrap_or_else(|_| (Verdict::Fail, format!("no response: timed out after {timeout:?}")));
    Outcome { verdict, detail, took: begin.elapsed(), weight: None }
}

fn request(get: Get<'_>) -> Result<Request<Empty<Bytes>>, String> {
    let host = match get.host {
        Some(host) => host.to_owned(),
        None if get.target.port() == DEFAULT_PORT && get.target.is_ipv4() => {
            get.target.ip().to_string()
        }
        None => get.target.to_string(),
    };
    if !get.path.starts_with('/') {
        return Err(format!("the path \"{}\" does not start with a slash", get.path));
    }
    Request::get(get.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "locum")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("cannot ask for \"{}\": {error}", get.path))
}

async fn exchange(get: Get<'_>, request: Request<Empty<Bytes>>, deadline: Instant) -> Answer {
    let stream = match TcpStream::connect(get.target).await {
        Ok(stream) => stream,
        Err(error) => return tcp::refusal(&error),
    };
    let handshake = http1::Builder::new()
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_FIELDS)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return (Verdict::Fail, describe(&error)),
    };
    let talk = async {
        match sender.send_request(request).await {
            Ok(response) => {
                let answer = judge(&response, get.expect);
                let patience = deadline.min(Instant::now() + BODY_TIME);
                let _rest_is_not_wanted =
                    time::timeout_at(patience, skim(response.into_body())).await;
                answer
            }
            Err(error) => (Verdict::Fail, describe(&error)),
        }
    };
    // The connection may end before the response it delivered has been looked at.
    let drive = async {
        let _reported_by_the_request_too = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = talk => answer,
        never = drive => match never {},
    }
}

fn judge(response: &Response<Incoming>, expect: &[StatusRange]) -> Answer {
    let status = response.status();
    let wanted = |range: &StatusRange| (range.first..=range.last).contains(&status.as_u16());
    let verdict = if expect.iter().any(wanted) { Verdict::Pass } else { Verdict::Fail };
    let detail = match status.canonical_reason() {
        Some(reason) => format!("status {} {reason}", status.as_u16()),
        None => format!("status {}", status.as_u16()),
    };
    (verdict, detail)
}

/// Reads a body and throws it away, up to the limit.
async fn skim(mut body: Incoming) {
    let mut left = BODY_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// Says what went wrong, without the wrapping of the library.
fn describe(error: &hyper::Error) -> String {
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return tcp::refusal(io).1;
    }
    if error.is_incomplete_message() {
        return "the server closed the connection without a response".into();
    }
    if error.is_parse() {
        return format!("not an HTTP response: {error}");
    }
    error.to_string()
}
