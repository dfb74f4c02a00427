//! The local API and its client: a Unix socket, one JSON object per line in each direction.
//!
//! ```text
//!   client ──► {"version":1,"request":"status"}\n
//!   daemon ──► {"version":1,"response":"status","status":{…}}\n
//! ```
//!
//! This crate owns the words on the wire, the socket and its limits. What a request means is the
//! daemon's business: it takes [`Call`]s from a channel and answers each. The socket may stay open
//! for further requests; they are answered in order.
//!
//! Who may speak: processes of the daemon's own user and root, as the kernel identifies them
//! (SO_PEERCRED).
//!
//! | module | owns |
//! |---|---|
//! | [`protocol`] | requests, responses, the version |
//! | [`status`] | the document of `locum status --json` |
//! | [`history`] | one line of `locum history --json` |
//! | [`server`] | the socket: limits, time-outs, credentials |
//! | [`client`] | one blocking call |

pub mod client;
pub mod history;
pub mod protocol;
pub mod rfc8347;
pub mod server;
pub mod status;

pub use client::{Client, ClientError};
pub use history::{HistoryEntry, Record};
pub use protocol::{MAX_REQUEST_BYTES, PROTOCOL_VERSION, Request, Response, ServerRequest};
pub use server::{Call, ControlServer, ServerError, SocketPlace};
pub use status::StatusDocument;
