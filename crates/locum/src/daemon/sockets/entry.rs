//! One interface and family: its sockets, what waits for them, and what is wrong with them.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use locum_engine::{Listen, OutgoingAdvert};
use locum_kernel::advert_socket::filter::{
    Foreign, MAX_SOURCES, MessageKind, Ours, Secret, Sources,
};
use locum_kernel::advert_socket::{
    self, AdvertSettings, Filter, Outgoing, ReceiveBatch, SendBatch,
};
use locum_vrrp::packet::TYPE_ADVERTISEMENT;
use locum_vrrp::{Auth, Family, Time, Version};

use super::flood::{Flood, FloodChange, ONE_IN};
use super::opener::{Lanes, Opening};

/// Something wrong with a socket, or right again, for a person.
pub type SocketFault = String;

/// IP protocol number of VRRP. RFC 9568 §5.1.1.4.
const VRRP_PROTOCOL: u8 = 112;

/// Octets of a message without addresses and authentication. RFC 9568 §5.2.
const LEAST_OCTETS: u32 = 8;

/// Where a message of version 2 says how it is authenticated. RFC 2338 §5.1.
const AUTH_TYPE_AT: u32 = 4;

/// What multicast is sent with. RFC 9568 §5.1.1.3.
const GROUP_HOP_LIMIT: u8 = 255;

/// Room for the adverts of 255 masters that send all they have at the same moment, several times
/// over.
const MASTERS_BUFFER: usize = 1 << 20;

/// What can be read in one turn: about a thousand adverts.
const OTHERS_BUFFER: usize = 512 * 1024;

/// Pause before a socket that could not be opened is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// An advert that waits for its socket longer than this is given up: it says what was so then.
/// While the socket is not there nothing is heard either, so the order of adverts is all that
/// counts, and this is less than a peer waits for.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Adverts that wait for their socket: those of all instances that one interface can have, when
/// they begin together.
const MOST_WAITING: usize = 1024;

/// Room for adverts that is kept from one drain to the next: of hundreds that begin together the
/// others can use it meanwhile.
const KEPT_OUTGOING: usize = 16;

/// Reads that fail one after the other before a socket is opened anew; a link that goes down
/// reports that once.
const MAX_READ_ERRORS: u32 = 16;

/// News of one socket come at most this often: an interface whose queue is full now and then must
/// not fill the log.
const REPORT_AGAIN: Duration = Duration::from_secs(10);

/// A new master is known to the filters after this long, so that all instances that change to it
/// together cost one change, and outside of the moment of a takeover.
const MASTERS_SETTLE: Duration = Duration::from_millis(50);

/// The filters follow the masters at most this often: senders that take turns must not keep this
/// thread busy.
const MASTERS_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Entry {
    /// Tells it from others that are or were; never used again.
    pub id: u64,
    pub listen: Listen,
    ours: Ours,
    /// Index of the link that `lanes` belong to; 0 while there is none.
    pub index: u32,
    pub lanes: Option<Lanes>,
    /// The groups they have joined.
    groups: Vec<IpAddr>,
    /// What the opener was asked for and has not answered.
    pub opening: Option<Opening>,
    pub retry_at: Option<Time>,
    /// Adverts to be sent, in order; between two drains those that wait for the socket.
    pub outgoing: Vec<OutgoingAdvert>,
    waiting_since: Option<Time>,
    read_errors: u32,
    flood: Flood,
    /// Those the filters know.
    masters: Vec<IpAddr>,
    /// Those they shall know, and when they shall be told.
    next_masters: Vec<IpAddr>,
    masters_due: Option<Time>,
    masters_changed: Option<Time>,
    /// What was last reported as wrong, so that it is reported once, and when.
    reported: Option<String>,
    reported_at: Option<Time>,
}

impl Entry {
    pub fn new(id: u64, listen: Listen) -> Self {
        Self {
            id,
            ours: ours(&listen),
            listen,
            index: 0,
            lanes: None,
            groups: Vec::new(),
            opening: None,
            retry_at: None,
            outgoing: Vec::new(),
            waiting_since: None,
            read_errors: 0,
            flood: Flood::default(),
            masters: Vec::new(),
            next_masters: Vec::new(),
            masters_due: None,
            masters_changed: None,
            reported: None,
            reported_at: None,
        }
    }

    /// Hears this from now on, with the sockets there are.
    pub fn relisten(&mut self, listen: Listen) {
        if listen == self.listen {
            return;
        }
        self.ours = ours(&listen);
        self.listen = listen;
        // Without room for a filter the old one goes on: one in so many of what is new comes in.
        let _ = self.refilter();
    }

    /// What has to be opened to hear and say what is wanted.
    pub fn wanted(&self) -> Opening {
        let [masters, others] = self.filters();
        let settings = |filter, receive_buffer| AdvertSettings {
            interface: self.listen.interface.to_string(),
            index: self.index,
            family: self.family(),
            protocol: VRRP_PROTOCOL,
            groups: self.listen.groups.clone(),
            filter,
            receive_buffer,
        };
        Opening {
            entry: self.id,
            masters: settings(masters, MASTERS_BUFFER),
            others: settings(others, OTHERS_BUFFER),
        }
    }

    fn family(&self) -> advert_socket::IpFamily {
        match self.listen.family {
            Family::V4 => advert_socket::IpFamily::V4,
            Family::V6 => advert_socket::IpFamily::V6,
        }
    }

    /// Of both lanes.
    fn filters(&self) -> [Filter; 2] {
        let filter = |sources| Filter { sources, foreign: self.foreign() };
        [filter(Sources::Only(self.masters.clone())), filter(Sources::Except(self.masters.clone()))]
    }

    fn foreign(&self) -> Foreign {
        if self.flood.is_on() {
            Foreign::Sample { ours: self.ours.clone(), one_in: ONE_IN }
        } else {
            Foreign::LetIn
        }
    }

    /// Makes the filters those of now. What fails leaves an older filter, which lets in more or
    /// less than need be and nothing wrong.
    fn refilter(&self) -> io::Result<()> {
        let Some(lanes) = &self.lanes else { return Ok(()) };
        let [masters, others] = self.filters();
        lanes.masters.attach(&masters)?;
        lanes.others.attach(&others)
    }

    pub fn follow_masters(&mut self, sources: Vec<IpAddr>, now: Time) {
        self.next_masters = sources;
        self.next_masters.truncate(MAX_SOURCES);
        let settled = now + MASTERS_SETTLE;
        let again = self.masters_changed.map_or(settled, |at| at + MASTERS_AGAIN);
        let differ = self.next_masters != self.masters;
        self.masters_due = differ.then(|| self.masters_due.unwrap_or(settled.max(again)));
    }

    /// When [`Entry::tick`] has something to do.
    pub fn due_at(&self) -> Option<Time> {
        let given_up = self.waiting_since.map(|since| since + LONGEST_WAIT);
        [self.retry_at, self.flood.due_at(), self.masters_due, given_up].into_iter().flatten().min()
    }

    /// What is due, but for opening sockets. Adverts given up go to `unsent`.
    pub fn tick(&mut self, now: Time, unsent: &mut Vec<OutgoingAdvert>) -> Option<SocketFault> {
        if self.waiting_since.is_some_and(|since| now.since(since) >= LONGEST_WAIT) {
            self.give_up(unsent);
        }
        if self.masters_due.is_some_and(|due| due <= now) {
            self.masters_due = None;
            self.masters_changed = Some(now);
            if self.change_masters().is_err() {
                self.masters_due = Some(now + MASTERS_AGAIN);
            }
        }
        let change = self.flood.look(now);
        change.and_then(|change| self.flooded(change))
    }

    /// A datagram in between is heard by both lanes rather than by none.
    fn change_masters(&mut self) -> io::Result<()> {
        if let Some(lanes) = &self.lanes {
            let next = self.next_masters.iter();
            let both = next.chain(&self.masters).copied().collect();
            let filter = |sources| Filter { sources, foreign: self.foreign() };
            lanes.masters.attach(&filter(Sources::Only(both)))?;
            lanes.others.attach(&filter(Sources::Except(self.next_masters.clone())))?;
            lanes.masters.attach(&filter(Sources::Only(self.next_masters.clone())))?;
        }
        self.masters.clone_from(&self.next_masters);
        Ok(())
    }

    fn flooded(&mut self, change: FloodChange) -> Option<SocketFault> {
        // Without room for a filter the old one goes on.
        self.refilter().ok()?;
        let interface = &self.listen.interface;
        Some(match change {
            FloodChange::Began => format!(
                "{interface}: thousands of VRRP datagrams a second that are not for this host or damaged: \
                 the kernel drops them, and only one in {ONE_IN} is counted"
            ),
            FloodChange::Ended => format!(
                "{interface}: few VRRP datagrams that are not for this host or damaged: each is counted again"
            ),
        })
    }

    /// They are not there, or have joined other groups than are wanted, and it was not asked for.
    pub fn needs_sockets(&self) -> bool {
        match (&self.opening, &self.lanes) {
            (Some(opening), _) => opening.others.groups != self.listen.groups,
            (None, Some(_)) => self.groups != self.listen.groups,
            (None, None) => true,
        }
    }

    /// The sockets are there; what they replace is to be closed.
    pub fn opened(&mut self, lanes: Lanes, opening: Opening) -> Option<Lanes> {
        let before = self.lanes.replace(lanes);
        self.retry_at = None;
        self.read_errors = 0;
        if opening != self.wanted() {
            // Without room for a filter the older one goes on.
            let _ = self.refilter();
        }
        self.groups = opening.others.groups;
        before
    }

    pub fn open_failed(
        &mut self,
        error: &io::Error,
        now: Time,
        unsent: &mut Vec<OutgoingAdvert>,
    ) -> Option<SocketFault> {
        self.retry_at = Some(now + RETRY);
        self.give_up(unsent);
        self.changed(Some(explain_open(error)), now)
    }

    /// What is to be closed.
    pub fn close(&mut self) -> Option<Lanes> {
        self.index = 0;
        self.opening = None;
        self.retry_at = None;
        self.lanes.take()
    }

    pub fn give_up(&mut self, unsent: &mut Vec<OutgoingAdvert>) {
        unsent.append(&mut self.outgoing);
        self.waiting_since = None;
    }

    /// Sends what is to be sent, or lets it wait for the socket.
    pub fn send(
        &mut self,
        batch: &mut SendBatch,
        now: Time,
        unsent: &mut Vec<OutgoingAdvert>,
    ) -> Option<SocketFault> {
        let Some(lanes) = &self.lanes else {
            // Without a socket on its way, why has been reported.
            if self.opening.is_none() {
                self.give_up(unsent);
            } else if !self.outgoing.is_empty() {
                let room = MOST_WAITING.min(self.outgoing.len());
                unsent.extend(self.outgoing.drain(room..));
                self.waiting_since.get_or_insert(now);
            }
            return None;
        };
        let mut failed: Vec<(usize, io::Error)> = Vec::new();
        let fails = |at, error| failed.push((at, error));
        // Most often it is one.
        if let [datagram] = &self.outgoing[..] {
            lanes.others.send(batch, &[outgoing(datagram)], fails);
        } else {
            let all: Vec<Outgoing<'_>> = self.outgoing.iter().map(outgoing).collect();
            lanes.others.send(batch, &all, fails);
        }
        self.waiting_since = None;
        let fault = failed.first().and_then(|(at, error)| {
            let datagram = self.outgoing.get(*at)?;
            Some(format!("cannot send adverts to {}: {error}", datagram.destination))
        });
        let mut failed = failed.into_iter().map(|(at, _)| at).peekable();
        for (at, datagram) in self.outgoing.drain(..).enumerate() {
            if failed.next_if_eq(&at).is_some() {
                unsent.push(datagram);
            }
        }
        self.outgoing.shrink_to(KEPT_OUTGOING);
        self.changed(fault, now)
    }

    /// A batch was read: counts what is foreign in it.
    pub fn has_read(&mut self, batch: &ReceiveBatch, now: Time) -> Option<SocketFault> {
        self.read_errors = 0;
        let family = self.family();
        let foreign =
            batch.iter().filter(|(received, octets)| !self.ours.include(family, received, octets));
        let change = self.flood.count(foreign.count() as u32, now);
        change.and_then(|change| self.flooded(change))
    }

    /// Whether the sockets should be opened anew.
    pub fn read_failed(&mut self) -> bool {
        self.read_errors += 1;
        self.read_errors >= MAX_READ_ERRORS
    }

    /// The sentence to report when `fault` is not what was reported last.
    pub fn changed(&mut self, fault: Option<String>, now: Time) -> Option<SocketFault> {
        let is_early = self.reported_at.is_some_and(|at| now.since(at) < REPORT_AGAIN);
        if self.reported == fault || is_early {
            return None;
        }
        let interface = &self.listen.interface;
        let sentence = match &fault {
            Some(fault) => format!("{interface}: {fault}"),
            None => format!("{interface}: adverts can be sent and received again"),
        };
        self.reported = fault;
        self.reported_at = Some(now);
        Some(sentence)
    }
}

fn outgoing(datagram: &OutgoingAdvert) -> Outgoing<'_> {
    Outgoing {
        source: datagram.source,
        destination: datagram.destination,
        ttl: datagram.ttl,
        message: &datagram.message,
    }
}

/// In the words of the filter: version and type are the first octet, the VRID the second. A secret
/// is of version 2: the fifth octet says which kind, and a password stands at the end.
fn ours(listen: &Listen) -> Ours {
    let kind = |version| {
        let number = match version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let secret = listen.auth.as_ref().filter(|_| version == Version::V2).map(|auth| {
            let (kind, tail) = match auth {
                Auth::None => (0, None),
                Auth::Simple(password) => (1, Some(*password)),
            };
            Secret { marker: (AUTH_TYPE_AT, kind), tail }
        });
        let vrids = listen.routers.iter().filter(|(of, _)| *of == version);
        MessageKind {
            first: number << 4 | TYPE_ADVERTISEMENT,
            seconds: vrids.map(|(_, vrid)| vrid.get()).collect(),
            secret,
        }
    };
    Ours {
        kinds: vec![kind(Version::V2), kind(Version::V3)],
        least_octets: LEAST_OCTETS,
        group_hop_limit: GROUP_HOP_LIMIT,
        unicast_hop_limit: listen.unicast_hop_limit,
        checksum_protocol: Some(VRRP_PROTOCOL),
    }
}

fn explain_open(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("cannot open the advert socket: {error}: run as root or with CAP_NET_RAW");
    }
    format!("cannot open the advert socket: {error}, trying again")
}

#[cfg(test)]
mod tests {
    use locum_vrrp::Vrid;

    use super::*;

    fn entry() -> Entry {
        let vrid = |number| Vrid::new(number).unwrap();
        let listen = Listen {
            interface: "v0".into(),
            family: Family::V4,
            groups: Vec::new(),
            routers: vec![(Version::V2, vrid(1)), (Version::V3, vrid(2)), (Version::V3, vrid(3))],
            unicast_hop_limit: Some(0),
            auth: Some(Auth::Simple(*b"password")),
        };
        Entry::new(0, listen)
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_socket_that_fails_now_and_then_is_reported_rarely_and_truly() {
        let mut entry = entry();
        let wrong = || Some("no buffer space".to_owned());
        assert_eq!(entry.changed(wrong(), at(0)).as_deref(), Some("v0: no buffer space"));
        assert_eq!(entry.changed(None, at(10)), None);
        assert_eq!(entry.changed(wrong(), at(20)), None);
        assert_eq!(entry.changed(wrong(), at(20_000)), None, "that was reported");
        assert!(entry.changed(None, at(20_010)).is_some_and(|change| change.contains("again")));
    }

    #[test]
    fn version_vrid_and_password_stand_where_the_filter_looks_for_them() {
        let secret = Some(Secret { marker: (4, 1), tail: Some(*b"password") });
        let kind = |first, vrids: &[u8], secret| MessageKind {
            first,
            seconds: vrids.iter().copied().collect(),
            secret,
        };
        assert!(entry().ours.kinds == [kind(0x21, &[1], secret), kind(0x31, &[2, 3], None)]);
    }

    /// Senders that take turns as master do not make this thread change its filters all the time.
    #[test]
    fn the_filters_follow_the_masters_a_moment_later_and_not_too_often() {
        let mut entry = entry();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut unsent = Vec::new();
        entry.follow_masters(vec![one, other], at(0));
        entry.follow_masters(vec![other], at(20));
        assert_eq!(entry.due_at(), Some(at(50)));
        entry.tick(at(50), &mut unsent);
        assert_eq!((&entry.masters[..], entry.due_at()), (&[other][..], None));
        entry.follow_masters(vec![one], at(60));
        assert_eq!(entry.due_at(), Some(at(1050)));
        entry.follow_masters(vec![other], at(70));
        assert_eq!(entry.due_at(), None, "it is as it was");
        entry.follow_masters((1..=20).map(|n| [10, 0, 0, n].into()).collect(), at(3000));
        entry.tick(at(3050), &mut unsent);
        assert_eq!(entry.masters.len(), MAX_SOURCES);
    }

    #[test]
    fn in_a_flood_foreign_datagrams_are_a_sample() {
        let mut entry = entry();
        let is_lax = |entry: &Entry| entry.wanted().others.filter.foreign == Foreign::LetIn;
        assert!(is_lax(&entry));
        let began = entry.flood.count(u32::MAX, at(0)).and_then(|change| entry.flooded(change));
        assert!(began.is_some_and(|change| change.contains("one in 1024")), "without sockets");
        assert!(!is_lax(&entry));
        assert_eq!(entry.due_at(), Some(at(10_000)));
        let ended = entry.tick(at(10_000), &mut Vec::new());
        assert!(ended.is_some_and(|change| change.contains("each is counted")));
        assert!(is_lax(&entry));
    }
}
