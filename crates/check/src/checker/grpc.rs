//! The gRPC probe: `grpc.health.v1.Health/Check` answers SERVING.
//!
//! Two fields of one octet each are all there is to decode, so they are written out.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use locum_plan::GrpcQuestion;

use super::dial::FirstWord;
use super::http::two::{Connection, describe};
use super::{Answer, Shared, WaitingFor, Whom, dial, tls};

/// A message and its prefix: two octets and five.
const ANSWER_BYTES: usize = 1024;

/// Asks once.
pub(crate) async fn probe(
    whom: Whom<'_>,
    question: &GrpcQuestion,
    shared: &Shared,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let host = question.host.clone().unwrap_or_else(|| whom.target.to_string());
    let stream = dial::connect(whom, FirstWord::Ours).await?;
    let (connection, scheme) = match &question.tls {
        None => {
            *stage = "no response";
            (Connection::open(stream).await?, "http")
        }
        Some(settings) => {
            *stage = tls::SHAKING_HANDS;
            let stream = tls::wrap(stream, settings, true, &host, whom.target, shared).await?;
            *stage = "no response";
            (Connection::open(stream).await?, "https")
        }
    };
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "locum")
        .body(Full::new(message(&question.service)))
        .map_err(|error| Answer::unasked(format!("cannot ask {host}: {error}")))?;
    let response = connection.send(request).await?;
    if response.status() != 200 {
        return Err(Answer::fail(format!("not a gRPC answer: status {}", response.status())));
    }
    let (head, mut body) = response.into_parts();
    let mut answer = Vec::new();
    let mut status = grpc_status(&head.headers);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| describe(&error))?;
        if let Some(data) = frame.data_ref() {
            if answer.len() + data.len() > ANSWER_BYTES {
                return Err(Answer::fail("not an answer to a health check: it is too long"));
            }
            answer.extend_from_slice(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            status = grpc_status(trailers).or(status);
        }
    }
    judge(&answer, status, &question.service)
}

/// `HealthCheckRequest { service = 1 }` with the prefix of a message that is not compressed.
fn message(service: &str) -> Bytes {
    // A name is shorter than 128 octets: its length is one octet.
    let field = match u8::try_from(service.len()) {
        Ok(0) | Err(_) => Vec::new(),
        Ok(length) => [&[0x0a, length], service.as_bytes()].concat(),
    };
    let length = (field.len() as u32).to_be_bytes();
    Bytes::from([&[0][..], &length, &field].concat())
}

/// Number and text.
fn grpc_status(fields: &HeaderMap) -> Option<(u32, String)> {
    let number = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let text = fields.get("grpc-message").and_then(|text| text.to_str().ok());
    Some((number, text.unwrap_or_default().chars().take(120).collect()))
}

fn judge(answer: &[u8], status: Option<(u32, String)>, service: &str) -> Result<Answer, Answer> {
    match status {
        Some((0, _)) => {}
        Some((5, _)) => {
            return Err(Answer::fail(format!("does not know the service \"{service}\"")));
        }
        Some((12, _)) => return Err(Answer::fail("does not answer health checks")),
        Some((number, text)) => return Err(Answer::fail(format!("gRPC status {number}: {text}"))),
        None => return Err(Answer::fail("not a gRPC answer: it has no grpc-status")),
    }
    match answer {
        // Field 1, a number; nothing is UNKNOWN.
        [0, 0, 0, 0, 2, 0x08, 1] => Ok(Answer::pass("SERVING")),
        [0, 0, 0, 0, 2, 0x08, 2] => Err(Answer::fail("NOT_SERVING")),
        [0, 0, 0, 0, 2, 0x08, 3] => Err(Answer::fail("SERVICE_UNKNOWN")),
        [0, 0, 0, 0, 0] => Err(Answer::fail("UNKNOWN")),
        _ => Err(Answer::fail("not an answer to a health check")),
    }
}
