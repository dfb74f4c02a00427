//! What an address is asked over the network, and from where.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::introduction::HeaderVersion;
use crate::name::Name;
use crate::traffic::Protocol;

/// What an address is asked over the network. A new kind is a variant here, with its words in
/// `Display`, its run in `check`, and its keys in the settings of questions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Question {
    /// Passes when the connection is accepted.
    Tcp,
    /// Passes when every page is answered as it should be.
    Http(Arc<HttpQuestion>),
    /// Passes when the answer has a record.
    Dns(Arc<DnsQuestion>),
    /// Passes when a mail server greets and answers EHLO or HELO of a host of this name.
    Smtp { helo: Arc<str> },
    /// Passes when a datagram is answered, or where no answer is wanted is not refused.
    Udp(Arc<UdpQuestion>),
    /// Passes when an ICMP echo request is answered; the port means nothing.
    Ping,
    /// Passes when MySQL or MariaDB greets, and lets this user in, who has no password.
    Mysql { user: Option<Arc<str>> },
    /// Passes when PostgreSQL takes connections, and those of this user.
    Postgres { user: Option<Arc<PostgresUser>> },
    /// Passes when Redis answers PING, after AUTH with this password.
    Redis { password: Option<Arc<str>> },
    /// What HAProxy's agent at this address says, the weight of its server too.
    Agent,
    /// Passes when `grpc.health.v1.Health/Check` answers SERVING.
    Grpc(Arc<GrpcQuestion>),
}

impl Question {
    /// What carries it, and its port therefore is one of; `None` is without ports.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Tcp
            | Self::Http(_)
            | Self::Smtp { .. }
            | Self::Mysql { .. }
            | Self::Postgres { .. }
            | Self::Redis { .. }
            | Self::Agent
            | Self::Grpc(_) => Some(Protocol::Tcp),
            Self::Dns(question) if question.is_tcp => Some(Protocol::Tcp),
            Self::Dns(_) | Self::Udp(_) => Some(Protocol::Udp),
            Self::Ping => None,
        }
    }

    /// With its article, as in "a TCP check".
    pub fn title(&self) -> &'static str {
        match self {
            Self::Tcp => "a TCP",
            Self::Http(question) if question.tls.is_some() => "an HTTPS",
            Self::Http(_) => "an HTTP",
            Self::Dns(_) => "a DNS",
            Self::Smtp { .. } => "an SMTP",
            Self::Udp(_) => "a UDP",
            Self::Ping => "a ping",
            Self::Mysql { .. } => "a MySQL",
            Self::Postgres { .. } => "a PostgreSQL",
            Self::Redis { .. } => "a Redis",
            Self::Agent => "an agent",
            Self::Grpc(_) => "a gRPC",
        }
    }

    /// As operators read it in the log, of this address.
    pub(crate) fn describe(&self, target: SocketAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => write!(f, "tcp {target}"),
            Self::Http(question) => {
                let scheme = if question.tls.is_some() { "https" } else { "http" };
                let path = question.pages.first().map_or("", |page| page.path.as_str());
                write!(f, "{scheme} {target}{path}")
            }
            Self::Dns(question) => write!(f, "dns {target} {}", question.name),
            Self::Smtp { .. } => write!(f, "smtp {target}"),
            Self::Udp(_) => write!(f, "udp {target}"),
            Self::Ping => write!(f, "ping {}", target.ip()),
            Self::Mysql { .. } => write!(f, "mysql {target}"),
            Self::Postgres { .. } => write!(f, "postgres {target}"),
            Self::Redis { .. } => write!(f, "redis {target}"),
            Self::Agent => write!(f, "agent {target}"),
            Self::Grpc(question) => write!(f, "grpc {target} {}", question.service),
        }
    }
}

/// Where a connection or a datagram of a check comes from, and what it says of that. All of it absent is as the kernel
/// chooses.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct CheckSource {
    /// Local address; port 0 is any.
    pub source: Option<SocketAddr>,
    /// Sent out of this interface alone (SO_BINDTODEVICE).
    pub interface: Option<Name>,
    /// Mark of the packets for routing and filters (SO_MARK).
    pub mark: Option<u32>,
    /// Said ahead of everything else, by the PROXY protocol, where the server expects to be told who
    /// comes: nobody does.
    pub header: Option<HeaderVersion>,
}

/// Pages that are asked one after the other, each on a connection of its own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpQuestion {
    /// At least one.
    pub pages: Vec<HttpPage>,
    pub version: HttpVersion,
    /// `None` is without encryption.
    pub tls: Option<Tls>,
}

impl HttpQuestion {
    /// GET of one page by HTTP/1.1 without encryption.
    pub fn get(path: impl Into<String>, host: Option<String>, expect: Vec<StatusRange>) -> Self {
        let page = HttpPage { path: path.into(), host, expect, ..HttpPage::default() };
        Self { pages: vec![page], version: HttpVersion::Http11, tls: None }
    }
}

/// One request, and what its answer must be. Redirects are answers like others: they are not
/// followed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct HttpPage {
    pub method: HttpMethod,
    /// Begins with a slash.
    pub path: String,
    /// Value of the Host header; the address that is asked when absent.
    pub host: Option<String>,
    /// Body of a POST.
    pub payload: Option<String>,
    /// The status is in one of these.
    pub expect: Vec<StatusRange>,
    /// The body of the answer has this text.
    pub text: Option<String>,
    pub pattern: Option<BodyPattern>,
    /// Of the whole body, without header and transfer coding.
    pub digest: Option<BodyDigest>,
}

impl HttpPage {
    /// Whether the body must be read to judge the answer.
    pub const fn wants_body(&self) -> bool {
        self.text.is_some() || self.pattern.is_some() || self.digest.is_some()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum HttpMethod {
    #[default]
    Get,
    Head,
    Post,
}

impl HttpMethod {
    /// As it is written in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpVersion {
    Http10,
    Http11,
    /// By ALPN with TLS, with prior knowledge without.
    Http2,
}

/// A regular expression that is looked for in a body.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BodyPattern {
    /// With its flags in front, as in `(?i)ok`. It has been compiled once: it is one.
    pub regex: String,
    /// Passes where it is not found, instead of where it is.
    pub is_unwanted: bool,
    /// A match begins at this octet of the body or behind it.
    pub first: u32,
    /// It begins at this octet at the latest; `None` is anywhere.
    pub last: Option<u32>,
}

/// Digest of a body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BodyDigest {
    /// What keepalived's genhash prints.
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

/// How a server proves who it is, and we who we are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tls {
    /// Name sent for SNI and looked for in the certificate; where absent, that of the Host header
    /// without its port, or nothing is sent and the address is looked for.
    pub name: Option<String>,
    /// Whether a name is sent at all.
    pub sends_name: bool,
    pub trust: Trust,
    /// Our certificate and its key, as files in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Whose certificates are taken.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Trust {
    /// Of the authorities that this host trusts.
    System,
    /// Of the authorities in this file, in PEM.
    File(PathBuf),
    /// Of anybody, expired or of another name: what keepalived's SSL_GET does.
    Anybody,
}

/// A name that is looked up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DnsQuestion {
    /// With or without the dot at its end; `.` is the root.
    pub name: String,
    pub record: DnsRecord,
    /// Over TCP at once, and not only when an answer is too long for a datagram.
    pub is_tcp: bool,
}

/// Kind of a record. RFC 1035 §3.2.2 and RFC 3596.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DnsRecord {
    A,
    Ns,
    Cname,
    Soa,
    Ptr,
    Mx,
    Txt,
    Aaaa,
    Srv,
}

impl DnsRecord {
    /// TYPE on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Ptr => 12,
            Self::Mx => 15,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// A datagram, and what must come back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UdpQuestion {
    pub payload: Vec<u8>,
    /// `None`: nothing has to come, only no refusal.
    pub reply: Option<UdpReply>,
}

/// An answer that is wanted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct UdpReply {
    /// How it begins: octets, and of each the bits that count.
    pub pattern: Vec<(u8, u8)>,
    /// Octets.
    pub shortest: usize,
    pub longest: Option<usize>,
}

/// Who logs in to PostgreSQL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PostgresUser {
    pub user: String,
    pub database: String,
}

/// A service that is asked for by gRPC's health protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GrpcQuestion {
    /// Empty is the server as a whole; at most 127 octets.
    pub service: String,
    /// Value of `:authority`; the address when absent.
    pub host: Option<String>,
    pub tls: Option<Tls>,
}

/// Inclusive range of HTTP status codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

/// `200-299`, or `204` alone.
impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}
