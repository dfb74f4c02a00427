//! What the balancer tells the built-in proxy's process, and what it hears back.
//!
//! One JSON object per line over a stream socket on which the proxy listens. The balancer sends a
//! [`ProxyRequest`], the proxy answers each with one [`ProxyStatus`], which says what version of the protocol
//! it speaks. A proxy outlives the daemon it was started by and may meet an older or a newer one, so
//! fields are only ever added, with a default, and unknown ones are ignored. A request that a proxy
//! does not know is answered with an error and changes nothing; the balancer sends it only to a
//! proxy of a version that has it.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Of the protocol as described here. 1 had no versions and no [`ProxyRequest::Update`], 2 no
/// [`ProxyLimits`], 3 neither datagrams nor several addresses, persistence or bounds of a server, and
/// half of the schedulers, 4 no PROXY protocol, 5 neither [`ProxyRequest::HandOver`] nor a queue, a log
/// and headers of single servers.
pub const VERSION: u32 = 6;

/// The oldest version whose requests this proxy carries out.
pub const OLDEST_VERSION: u32 = 1;

/// The first version with [`ProxyRequest::Update`].
pub const UPDATES_SINCE: u32 = 2;

/// The first version that keeps [`ProxyLimits`].
pub const LIMITS_SINCE: u32 = 3;

/// The first version with [`ProxyRequest::HandOver`] and [`ProxyStart`].
pub const HANDOVER_SINCE: u32 = 6;

/// Longest line either side reads, in octets: some 50,000 servers. A longer one is a fault.
pub const LINE_LIMIT: usize = 4 << 20;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum ProxyRequest {
    /// From now on serve exactly these: what is not named is not served any more. Where nothing is
    /// left to serve, the proxy exits once it is drained.
    Serve {
        services: Vec<ProxyService>,
        #[serde(default)]
        orphan: Orphan,
    },
    /// Serve those in `set` as they are here, those named in `remove` no more, and all others as
    /// before. The answer names only the services of the request.
    Update {
        #[serde(default)]
        set: Vec<ProxyService>,
        #[serde(default)]
        remove: Vec<String>,
        #[serde(default)]
        orphan: Orphan,
    },
    /// Only answer.
    Status,
    /// Of a proxy that takes this one's place: the sockets through which clients come are its own from now
    /// on, and what is here finishes within the drain time. What is asked on this connection afterwards
    /// holds for that alone. Answered in several lines, with descriptors.
    HandOver,
}

/// How long the proxy serves on once no balancer is connected: the lease of the virtual addresses,
/// which a reload may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphan {
    /// As the last request said, or as it was started.
    #[default]
    Unchanged,
    ForEver,
    Milliseconds(u64),
}

impl From<Option<Duration>> for Orphan {
    fn from(timeout: Option<Duration>) -> Self {
        match timeout {
            Some(timeout) => {
                Self::Milliseconds(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
            }
            None => Self::ForEver,
        }
    }
}

/// One wanted service. Its name is its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyService {
    pub name: String,
    pub listen: SocketAddr,
    /// Where it listens as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SocketAddr>,
    #[serde(default)]
    pub transport: ProxyTransport,
    /// rr, wrr, lc, wlc, sed, nq, fo, ovf, sh or mh.
    pub scheduler: String,
    /// Clients stay with their servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<ProxyPersistence>,
    /// Each datagram goes to a server of its own.
    #[serde(default)]
    pub one_packet: bool,
    /// How long connections may go on after their server or their service left, milliseconds.
    pub drain_ms: u64,
    /// The port is taken, but connections are refused and those that are there finish within the
    /// drain time: what a warm standby does.
    #[serde(default)]
    pub ready_only: bool,
    #[serde(default)]
    pub limits: ProxyLimits,
    /// Servers are told who a client is ahead of all that it says, those that have nothing of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_proxy: Option<ProxyHeaderVersion>,
    /// Who comes from there says for whom ahead of everything else, and must.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_proxy: Vec<ProxyNetwork>,
    pub servers: Vec<ProxyServer>,
    /// Those that failed and are in `servers` no more: connections to them end now. A proxy that does
    /// not know of it lets them finish within the drain time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<SocketAddr>,
}

impl ProxyService {
    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [self.listen].into_iter().chain(self.also.iter().copied())
    }

    /// The first version whose proxies can serve it.
    pub fn since(&self) -> u32 {
        if self.servers.iter().any(|server| server.send_proxy.is_some()) {
            6
        } else if self.send_proxy.is_some() || !self.accept_proxy.is_empty() {
            5
        } else if self.is_simple() {
            1
        } else {
            4
        }
    }

    fn is_simple(&self) -> bool {
        let plain = |server: &ProxyServer| server.max.is_none() && server.min.is_none();
        self.also.is_empty()
            && self.transport == ProxyTransport::Tcp
            && matches!(self.scheduler.as_str(), "rr" | "wrr" | "lc" | "wlc" | "sh")
            && self.persistence.is_none()
            && self.servers.iter().all(plain)
    }
}

/// Of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyHeaderVersion {
    /// A line of text.
    V1,
    /// Octets.
    V2,
}

/// Addresses that are equal in their leading bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyNetwork {
    pub address: IpAddr,
    /// So many bits, of an IPv4 address 0 to 32, of an IPv6 address 0 to 128.
    pub prefix: u8,
}

impl ProxyNetwork {
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            // At the upper end, as the bits of a prefix are.
            IpAddr::V4(address) => (4, u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (6, address.to_bits()),
        };
        let ((family, ours), (other_family, theirs)) = (bits(self.address), bits(address));
        let differing = 128_u32.saturating_sub(u32::from(self.prefix));
        family == other_family && (ours ^ theirs).checked_shr(differing).unwrap_or(0) == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyTransport {
    #[default]
    Tcp,
    Udp,
}

/// A client stays with its server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyPersistence {
    /// After its last connection, milliseconds.
    pub timeout_ms: u64,
    /// Clients whose addresses are equal in so many leading bits stay together, 1 to 128; of an IPv4
    /// address 32 and more are the whole of it.
    pub prefix: u8,
}

/// How much one service may use, and how long what stands still may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyLimits {
    /// Most client connections at a time; `None`: what its share allows.
    pub connections: Option<u32>,
    /// Most connections to one server at a time; `None`: no such limit.
    pub per_server: Option<u32>,
    /// Most connections of one client address at a time; `None`: no such limit.
    pub per_source: Option<u32>,
    /// Most clients that wait for a server with room at a time; `None`: as many as it can have.
    pub queue: Option<u32>,
    /// One that has waited for this long is turned away, milliseconds.
    pub queue_ms: u64,
    /// A server that has not accepted after this is passed over, milliseconds.
    pub connect_ms: u64,
    /// A connection on which nothing moved for this long ends, milliseconds.
    pub idle_ms: u64,
    /// The same once one side has said all, milliseconds.
    pub half_closed_ms: u64,
}

impl Default for ProxyLimits {
    /// For a balancer that knows none.
    fn default() -> Self {
        Self {
            connections: None,
            per_server: None,
            per_source: None,
            queue: None,
            queue_ms: 60_000,
            connect_ms: 3_000,
            idle_ms: 15 * 60 * 1_000,
            half_closed_ms: 2 * 60 * 1_000,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyServer {
    pub address: SocketAddr,
    /// 0..=65535; 0 takes no new connections.
    pub weight: u32,
    /// With so many connections it gets no new ones, at least 1; `None`: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Once it had the most, it gets new ones below this; `None`: below three quarters of `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// This one is told who a client is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_proxy: Option<ProxyHeaderVersion>,
}

/// What the proxy does at the moment of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Version of the protocol that the proxy speaks.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Oldest version of the protocol that it still understands.
    #[serde(default = "first_version")]
    pub oldest: u32,
    pub pid: u32,
    /// Client connections under way, over all services, leaving ones included.
    pub active: u64,
    /// Most client connections it takes at a time.
    pub limit: u64,
    /// How often accepting paused because descriptors or memory ran out.
    pub accept_pauses: u64,
    /// The request could not be read; nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What of its sandbox the process lacks, for a person; empty where it lacks nothing, and where it
    /// is too old to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfined: Vec<String>,
    /// What it was started as; `None`: it is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<ProxyStart>,
    /// What has been logged since the last answer, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<ProxyLogLine>,
    pub services: Vec<ProxyServiceStatus>,
}

/// A line for the log, of whichever process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyLogLine {
    pub pid: u32,
    pub text: String,
}

/// What a process is that does not change while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProxyStart {
    /// Of its program; `None`: it cannot tell.
    #[serde(default)]
    pub program: Option<ProgramFile>,
    /// The words it was started with, but for those that are of this start alone.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A file, for as long as somebody has it open or runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgramFile {
    pub device: u64,
    pub inode: u64,
}

impl ProgramFile {
    /// The one that this path leads to; `None` when there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyServiceStatus {
    pub name: String,
    pub listen: SocketAddr,
    pub state: ProxyServiceState,
    /// Client connections under way.
    pub active: u64,
    /// Client connections accepted since the proxy started.
    pub accepted: u64,
    /// Clients turned away because no server took them.
    pub refused: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Most client connections that it can have now, with what the other services have.
    #[serde(default)]
    pub limit: u64,
    /// It is full, or was a moment ago, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullStatus>,
    /// Clients turned away because their address had as many connections as one may have.
    #[serde(default)]
    pub crowded: u64,
    /// Clients cut because they did not say for whom they came, and had to.
    #[serde(default)]
    pub headless: u64,
    /// Connections cut because they had passed this service already.
    #[serde(default)]
    pub loops: u64,
    /// The server that the last of them was taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loop_through: Option<SocketAddr>,
    /// Attempts, at servers or to accept, that failed for want of something of this host.
    #[serde(default)]
    pub shortages: u64,
    /// The last of them: what is short and what to do, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<String>,
    /// Connections ended because nothing moved on them.
    #[serde(default)]
    pub timed_out: u64,
    #[serde(default)]
    pub queue: QueueStatus,
    pub servers: Vec<ProxyServerStatus>,
}

/// A service that has as many clients as it can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FullStatus {
    /// For how long, milliseconds.
    pub for_ms: u64,
    /// Clients that wait to be served, as far as the kernel tells.
    pub waiting: u64,
    /// Who has the most of its connections.
    pub busiest: Option<SourceStatus>,
}

/// Clients that wait until a server has room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStatus {
    pub waiting: u64,
    /// How long the first of them has waited, milliseconds.
    pub longest_ms: u64,
    /// Turned away after [`ProxyLimits::queue_ms`], since the proxy started.
    pub timed_out: u64,
    /// Gone before they had a server, since then.
    pub left: u64,
    /// Turned away because as many waited as may, since then.
    pub turned_away: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    pub address: IpAddr,
    pub active: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum ProxyServiceState {
    Listening,
    /// As [`ProxyService::ready_only`] asks.
    Ready,
    /// Not wanted any more: takes no clients, lets the last connections finish.
    Leaving,
    /// Could not listen. The next level tries again.
    Failed {
        error: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyServerStatus {
    pub address: SocketAddr,
    pub weight: u32,
    /// Not wanted any more, or of a service that stands by: its connections end in time.
    pub leaving: bool,
    pub active: u64,
    /// Connections made since the proxy started.
    pub connected: u64,
    /// Attempts that failed or timed out, but for want of something of this host.
    pub failures: u64,
    /// From clients to it, and back, since the proxy started.
    #[serde(default)]
    pub bytes_in: u64,
    #[serde(default)]
    pub bytes_out: u64,
}

/// Of a proxy that does not say.
fn first_version() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_version_is_of_the_first_one() {
        let text = r#"{"pid":7,"active":0,"limit":1,"accept_pauses":0,"services":[]}"#;
        let status: ProxyStatus = serde_json::from_str(text).unwrap();
        assert_eq!((status.version, status.oldest), (1, 1));
        let text = r#"{"version":9,"oldest":3,"pid":7,"active":0,"limit":1,"accept_pauses":0,
                       "services":[],"a_field_of_version_9":true}"#;
        let status: ProxyStatus = serde_json::from_str(text).unwrap();
        assert_eq!((status.version, status.oldest), (9, 3));
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let has = |network: &str, address: &str| {
            let (of, prefix) = network.split_once('/').unwrap();
            let network =
                ProxyNetwork { address: of.parse().unwrap(), prefix: prefix.parse().unwrap() };
            network.contains(address.parse().unwrap())
        };
        assert!(has("192.0.2.0/24", "192.0.2.255") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("192.0.2.7/32", "::ffff:192.0.2.7") && !has("192.0.2.7/32", "192.0.2.6"));
        assert!(has("0.0.0.0/0", "203.0.113.1") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db8::1") && !has("::/0", "192.0.2.1"));
        assert!(has("::1/128", "::1") && !has("::1/128", "::2"));
    }

    #[test]
    fn the_orphan_timeout_is_sent_in_three_ways_and_its_absence_changes_nothing() {
        let read = |orphan: &str| {
            let text = format!(r#"{{"request":"serve","services":[]{orphan}}}"#);
            match serde_json::from_str(&text).unwrap() {
                ProxyRequest::Serve { orphan, .. } => orphan,
                ProxyRequest::Update { .. } | ProxyRequest::Status | ProxyRequest::HandOver => {
                    unreachable!("it serves")
                }
            }
        };
        assert_eq!(read(""), Orphan::Unchanged);
        assert_eq!(read(r#","orphan":"for_ever""#), Orphan::from(None));
        let three = Orphan::from(Some(Duration::from_secs(3)));
        assert_eq!(read(r#","orphan":{"milliseconds":3000}"#), three);
        let request = ProxyRequest::Serve { services: Vec::new(), orphan: three };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ProxyRequest>(&text).unwrap(), request);
    }
}
