//! What a service asks of who reads the HTTP of its clients, or ends their TLS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::Name;

/// A service whose requests are looked at, each for itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpService {
    /// Of those that come in at its own addresses; the first that fits counts, before any route.
    pub redirects: Vec<HttpRedirect>,
    /// Likewise: the first that fits. What none fits is for the servers of the service itself.
    pub routes: Vec<HttpRoute>,
    pub stats: Option<StatsPage>,
    /// Servers are told who asks, by which protocol and at which port.
    pub forwarded: bool,
    /// Who may ask its servers, wherever the request came in.
    pub access: Option<HttpAccess>,
    pub cookie: Option<StickyCookie>,
    /// Its servers are spoken to in HTTP/2.
    pub server_http2: bool,
    /// For a client to say what it asks.
    pub request_timeout: Duration,
    /// A connection that has become something else (WebSocket) ends when nothing moved for this long.
    pub tunnel_timeout: Duration,
}

/// Requests that another service has: one of the same instance that stands by alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRoute {
    /// Never empty.
    pub when: Vec<RequestCondition>,
    pub service: Name,
}

/// Requests that are answered with another place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRedirect {
    /// Empty: all.
    pub when: Vec<RequestCondition>,
    pub to: RedirectTarget,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedirectTarget {
    /// The same by https, for who did not ask so.
    Https,
    /// The path and what follows it behind this; no blanks, no control characters.
    Prefix(String),
    /// Likewise, as a whole.
    Location(String),
}

/// What has to hold of a request: all conditions of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestCondition {
    pub part: RequestPart,
    pub comparison: RequestMatch,
    /// One of them; never empty but for [`RequestMatch::Present`]. No control characters.
    pub values: Vec<String>,
    pub ignores_case: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestPart {
    /// The name that was asked, without a port.
    Host,
    /// Without what follows a `?`.
    Path,
    /// With it.
    PathAndQuery,
    /// Any field of this name, which is a token of HTTP.
    Header(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestMatch {
    Is,
    Begins,
    Ends,
    Contains,
    /// The name itself or a part of it between dots.
    Domain,
    /// A regular expression, which both Rust's regex and PCRE know.
    Matches,
    Present,
}

/// A client stays with the server that a cookie of it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StickyCookie {
    /// A token of HTTP.
    pub name: String,
    pub mode: CookieMode,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CookieMode {
    /// It is added to answers, and no server sees it.
    #[default]
    Insert,
    /// The servers set it, and its value becomes ours.
    Rewrite,
    /// The servers set it, and ours stands before their value.
    Prefix,
}

/// Who is asked for a name and a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAccess {
    /// What a browser shows; printable ASCII without quotes.
    pub realm: String,
    /// Never empty.
    pub users: Vec<HttpUser>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpUser {
    /// Printable ASCII without blanks and colons.
    pub name: String,
    pub password: PasswordHash,
}

/// A password as crypt(3) keeps it: `$6$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Kinds of hashes that a password is guessed from neither quickly nor at once.
    const KINDS: [&str; 6] = ["$5$", "$6$", "$y$", "$2a$", "$2b$", "$2y$"];

    /// # Errors
    /// For what is none, or one of a kind that is too weak; nothing of it is in the text.
    pub fn new(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "./$=,".contains(c);
        let is_known = Self::KINDS.iter().any(|kind| text.starts_with(kind));
        if !is_known || text.len() > 256 || !text.chars().all(fits) || text.split('$').count() < 4 {
            let kinds = Self::KINDS.join(", ");
            return Err(format!("it is no hash of a password that begins with one of {kinds}"));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What somebody could guess a password from appears in no log.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// A page with the numbers of all services that share a HAProxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsPage {
    /// From its slash on; printable, without blanks.
    pub path: String,
    pub access: HttpAccess,
    /// A browser asks again after so many seconds; `None`: when its user does.
    pub refresh: Option<Duration>,
}

/// How clients are spoken to by TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientTls {
    /// Each has a certificate, its chain and its key, in PEM, or is a directory of such; the one for the
    /// name that a client asks is used, else the first. Never empty.
    pub certificates: Vec<PathBuf>,
    /// Those that it listens on by TLS; empty: all.
    pub ports: Vec<u16>,
    /// In the order of preference; empty: nothing is negotiated.
    pub alpn: Vec<String>,
}

impl ClientTls {
    pub fn is_spoken_at(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

/// How servers are spoken to by TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerTls {
    /// The host name that they are asked for (SNI), and that their certificates have to be for where
    /// these are verified.
    pub name: Option<String>,
    pub trust: ServerTrust,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerTrust {
    /// Authorities that the host trusts; then there is a name.
    System,
    /// Those in this file; likewise.
    File(PathBuf),
    /// Anybody.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_strong_hash_and_shown_nowhere() {
        let hash = PasswordHash::new("$6$salt$abc./DEF").unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(***)");
        assert!(PasswordHash::new("$2y$10$abcdefghijklmnopqrstuv").is_ok());
        for text in ["", "secret", "$1$salt$abc", "$6$", "$6$salt$ab c", "$6$s$a\nb", "$6$s$a'b"] {
            let refused = PasswordHash::new(text).unwrap_err();
            assert!(text.is_empty() || !refused.contains(&format!("`{text}")), "{refused}");
        }
    }
}
