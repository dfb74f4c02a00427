//! The words of the control socket. Fields are only ever added; a change that an old client would
//! misread raises [`PROTOCOL_VERSION`].

use serde::{Deserialize, Serialize};

use crate::history::HistoryEntry;
use crate::status::StatusDocument;

/// Version of requests and responses.
pub const PROTOCOL_VERSION: u32 = 1;

/// Longest request line in bytes: a request is a word and a few names.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Most history entries in one response; a client that wants more asks in steps of `since_ms`.
pub const MAX_HISTORY_ENTRIES: usize = 10_000;

/// One question, as `{"version":1,"request":"…"}` with the variant's fields beside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Everything the daemon knows: [`Response::Status`].
    Status,
    /// Read the configuration again: [`Response::Done`], or [`Response::Refused`] with the
    /// diagnostics and the running one unchanged.
    Reload,
    /// Hand everything over and end: [`Response::Done`] when it has begun; the connection closes
    /// when the process has ended.
    Stop,
    /// Hand one instance to its backup, or all: [`Response::Done`] or [`Response::Refused`].
    Switchover {
        /// `null` or absent means every instance.
        #[serde(default)]
        instance: Option<String>,
        /// Node that shall take over; refused unless it is the only other one.
        #[serde(default)]
        to: Option<String>,
        /// Only say what would be done.
        #[serde(default)]
        dry_run: bool,
        /// To whoever is there, also where nobody can serve.
        #[serde(default)]
        force: bool,
    },
    /// Give a server another weight, or its own back: [`Response::Done`] or [`Response::Refused`].
    /// It holds over reloads and restarts of the daemon until another order withdraws it.
    Server {
        service: String,
        /// An address, with its port where several servers of the service have the address.
        server: String,
        #[serde(flatten)]
        order: ServerRequest,
        /// In steps over this time; 0 is at once.
        #[serde(default)]
        over_ms: u64,
    },
    /// What happened: [`Response::History`], oldest first.
    History {
        /// Only what is younger; milliseconds since 1970-01-01 UTC.
        #[serde(default)]
        since_ms: Option<u64>,
    },
}

/// What a server shall have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum ServerRequest {
    /// No new clients; those that it has stay.
    Drain,
    /// Its own weight again.
    Ready,
    /// 0..=65535, in place of its own.
    Weight { weight: u32 },
}

/// One answer, as `{"version":1,"response":"…"}` with the variant's fields beside.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// Answer to [`Request::Status`].
    Status { status: Box<StatusDocument> },
    /// Answer to [`Request::History`].
    History { entries: Vec<HistoryEntry> },
    /// Done, or under way and certain to be done; `message` is for a person.
    Done {
        message: String,
        /// A part of it, named in `message`, could not be done yet and is tried again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        incomplete: bool,
    },
    /// Understood, and nothing was changed; `reason` is for a person and may have several lines.
    Refused { reason: String },
    /// Not understood, or not possible now. The connection is closed after it.
    Error { message: String },
}

/// A request or response with its version, as it stands on a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub version: u32,
    #[serde(flatten)]
    pub body: T,
}

/// Only the version, so that a newer client hears about that before anything else.
#[derive(Debug, Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Reads one request line, without its newline.
///
/// # Errors
/// A sentence for the client: not JSON, another version, an unknown request, a missing field.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    let VersionOnly { version } = serde_json::from_slice(line).map_err(|error| {
        format!("this is not a request: {error}; expected {{\"version\":1,\"request\":\"status\"}}")
    })?;
    if version != PROTOCOL_VERSION {
        return Err(format!(
            "request has protocol version {version}, this daemon speaks {PROTOCOL_VERSION}: \
             use the locum command of the same release"
        ));
    }
    let envelope: Envelope<Request> =
        serde_json::from_slice(line).map_err(|error| format!("request not understood: {error}"))?;
    Ok(envelope.body)
}

/// One line with its newline.
pub(crate) fn to_line<T: Serialize>(body: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Envelope { version: PROTOCOL_VERSION, body })
        .unwrap_or_else(|error| {
            // Only a map with keys that are no strings could fail, and there is none.
            format!("{{\"version\":1,\"response\":\"error\",\"message\":\"{error}\"}}").into_bytes()
        });
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_what_was_written() {
        let requests = [
            Request::Status,
            Request::Reload,
            Request::Stop,
            Request::Switchover {
                instance: Some("web".into()),
                to: None,
                dry_run: true,
                force: false,
            },
            Request::Switchover {
                instance: None,
                to: Some("lb2".into()),
                dry_run: false,
                force: true,
            },
            Request::Server {
                service: "www".into(),
                server: "10.0.0.1:80".into(),
                order: ServerRequest::Weight { weight: 5 },
                over_ms: 30_000,
            },
            Request::History { since_ms: Some(7) },
        ];
        for request in requests {
            let line = to_line(&request);
            assert_eq!(parse_request(&line[..line.len() - 1]), Ok(request));
        }
    }

    #[test]
    fn the_wire_form_is_the_documented_one() {
        assert_eq!(to_line(&Request::Status), b"{\"version\":1,\"request\":\"status\"}\n");
        let line = b"{\"version\":1,\"request\":\"switchover\"}";
        assert_eq!(
            parse_request(line),
            Ok(Request::Switchover { instance: None, to: None, dry_run: false, force: false })
        );
    }

    #[test]
    fn an_order_for_a_server_is_a_word_beside_its_names() {
        let line = b"{\"version\":1,\"request\":\"server\",\"service\":\"www\",\
                     \"server\":\"10.0.0.1\",\"order\":\"drain\"}";
        let (service, server) = ("www".to_owned(), "10.0.0.1".to_owned());
        let order = ServerRequest::Drain;
        assert_eq!(parse_request(line), Ok(Request::Server { service, server, order, over_ms: 0 }));
    }

    #[test]
    fn another_version_is_named_before_the_request_is_read() {
        let error = parse_request(b"{\"version\":9,\"request\":\"teleport\"}").unwrap_err();
        assert!(error.contains("protocol version 9"), "{error}");
    }

    #[test]
    fn an_unknown_request_lists_the_known_ones() {
        let error = parse_request(b"{\"version\":1,\"request\":\"teleport\"}").unwrap_err();
        assert!(error.contains("teleport") && error.contains("switchover"), "{error}");
    }
}
