//! The advert sockets of the election thread: which are wanted, which are open.
//!
//! A socket is opened when the engine listens on its interface and the interface exists, and again
//! when that comes back under another index. Opening and closing happen at start, at a reload and
//! when a link returns, and take as long as the kernel's lock on its interfaces.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use locum_engine::{Datagram, LinkState, Listen};
use locum_kernel::advert_socket::{self, AdvertSettings, AdvertSocket, Received};
use locum_plan::Name;
use locum_vrrp::{Family, Time};

/// IP protocol number of VRRP. RFC 9568 §5.1.1.4.
const VRRP_PROTOCOL: u8 = 112;

/// Pause before a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Reads that fail one after the other before a socket is opened anew; a link that goes down
/// reports that once.
const MAX_READ_ERRORS: u32 = 16;

/// News of one socket come at most this often: an interface whose queue is full now and then must
/// not fill the log.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// The sockets, one per interface and family.
#[derive(Debug, Default)]
pub struct AdvertSockets {
    entries: Vec<Entry>,
    /// Those that exist, whatever is wanted: what is wanted next may lie on any of them.
    links: HashMap<Name, Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    index: u32,
    running: bool,
}

#[derive(Debug)]
struct Entry {
    interface: Name,
    family: Family,
    groups: Vec<IpAddr>,
    /// Index of the link that `socket` belongs to.
    index: u32,
    socket: Option<AdvertSocket>,
    retry_at: Option<Time>,
    read_errors: u32,
    /// What was last told as wrong, so that it is told once, and when.
    told: Option<String>,
    told_at: Option<Time>,
}

/// Something wrong with a socket, or right again, for a person.
pub type Trouble = String;

impl AdvertSockets {
    /// Makes the open sockets exactly these. Returns what could not be opened.
    pub fn listen(&mut self, wanted: Vec<Listen>, now: Time) -> Vec<Trouble> {
        let same = |entry: &Entry, listen: &Listen| {
            (&entry.interface, entry.family, &entry.groups)
                == (&listen.interface, listen.family, &listen.groups)
        };
        self.entries.retain(|entry| wanted.iter().any(|listen| same(entry, listen)));
        for listen in wanted {
            if !self.entries.iter().any(|entry| same(entry, &listen)) {
                self.entries.push(Entry::new(listen));
            }
        }
        self.open_where_needed(now, |entry| entry.socket.is_none())
    }

    /// Follows a link: opens, opens anew, closes or joins again.
    pub fn follow(&mut self, link: &LinkState, now: Time) -> Vec<Trouble> {
        let before = if link.index == 0 {
            self.links.remove(&link.name)
        } else {
            let now = Link { index: link.index, running: link.running };
            self.links.insert(link.name.clone(), now)
        };
        let came_up = link.running && before.is_none_or(|before| !before.running);
        for entry in self.entries.iter_mut().filter(|entry| entry.interface == link.name) {
            if entry.index != link.index {
                entry.close();
            } else if came_up && let Some(socket) = &entry.socket {
                // A switch that forgot us hears of the membership again. What stays wrong shows
                // as silence, which the engine handles.
                entry.groups.iter().for_each(|group| drop(socket.rejoin(*group)));
            }
        }
        self.open_where_needed(now, |entry| entry.interface == link.name && entry.socket.is_none())
    }

    /// Tries again what is due.
    pub fn retry(&mut self, now: Time) -> Vec<Trouble> {
        self.open_where_needed(now, |entry| entry.retry_at.is_some_and(|at| at <= now))
    }

    /// When [`AdvertSockets::retry`] has something to do.
    pub fn retry_at(&self) -> Option<Time> {
        self.entries.iter().filter_map(|entry| entry.retry_at).min()
    }

    /// Descriptors to poll, with the position to give to [`AdvertSockets::receive`].
    pub fn descriptors(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(at, entry)| Some((at, entry.socket.as_ref()?.as_fd())))
    }

    /// The next datagram of the socket at `position`.
    pub fn receive(&mut self, position: usize, buffer: &mut [u8], now: Time) -> Reading {
        let Some(entry) = self.entries.get_mut(position) else { return Reading::Empty };
        let Some(socket) = &entry.socket else { return Reading::Empty };
        match socket.recv(buffer) {
            Ok(Some(received)) => {
                entry.read_errors = 0;
                Reading::Datagram(entry.interface.clone(), entry.family, received)
            }
            Ok(None) => Reading::Empty,
            Err(error) => {
                entry.read_errors += 1;
                if entry.read_errors < MAX_READ_ERRORS {
                    return Reading::Empty;
                }
                entry.close();
                entry.retry_at = Some(now + RETRY);
                match entry.changed(Some(format!("cannot receive adverts: {error}")), now) {
                    Some(trouble) => Reading::Broken(trouble),
                    None => Reading::Empty,
                }
            }
        }
    }

    /// Sends one advert. Without an open socket it is not sent, and why has been told already.
    pub fn send(&mut self, datagram: &Datagram, now: Time) -> Sending {
        let family = Family::of(&datagram.destination);
        let fits =
            |entry: &&mut Entry| entry.interface == datagram.interface && entry.family == family;
        let mut entries = self.entries.iter_mut().filter(fits);
        let Some(entry) = entries.find(|entry| entry.socket.is_some()) else {
            return Sending::Refused(None);
        };
        let Some(socket) = &entry.socket else { return Sending::Refused(None) };
        let sent =
            socket.send(datagram.source, datagram.destination, datagram.ttl, &datagram.message);
        match sent {
            Ok(()) => Sending::Sent(entry.changed(None, now)),
            Err(error) => {
                Sending::Refused(entry.changed(Some(explain_send(&error, datagram)), now))
            }
        }
    }

    fn open_where_needed(&mut self, now: Time, needs: impl Fn(&Entry) -> bool) -> Vec<Trouble> {
        let Self { entries, links } = self;
        let mut troubles = Vec::new();
        for entry in entries.iter_mut().filter(|entry| needs(entry)) {
            let index = links.get(&entry.interface).map_or(0, |link| link.index);
            // Without a link the instance is in fault and says so itself.
            if index == 0 {
                entry.retry_at = None;
                continue;
            }
            troubles.extend(entry.open(index, now));
        }
        troubles
    }
}

/// What became of an advert, and news of its socket for a person: it began to fail, or works again.
#[derive(Debug)]
pub enum Sending {
    Sent(Option<Trouble>),
    Refused(Option<Trouble>),
}

/// What a read gave.
#[derive(Debug)]
pub enum Reading {
    Datagram(Name, Family, Received),
    Empty,
    /// The socket was closed, and why.
    Broken(Trouble),
}

impl Entry {
    fn new(listen: Listen) -> Self {
        Self {
            interface: listen.interface,
            family: listen.family,
            groups: listen.groups,
            index: 0,
            socket: None,
            retry_at: None,
            read_errors: 0,
            told: None,
            told_at: None,
        }
    }

    fn open(&mut self, index: u32, now: Time) -> Option<Trouble> {
        let settings = AdvertSettings {
            interface: self.interface.to_string(),
            index,
            family: match self.family {
                Family::V4 => advert_socket::Family::V4,
                Family::V6 => advert_socket::Family::V6,
            },
            protocol: VRRP_PROTOCOL,
            groups: self.groups.clone(),
        };
        self.index = index;
        self.read_errors = 0;
        match AdvertSocket::open(&settings) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.retry_at = None;
                self.changed(None, now)
            }
            Err(error) => {
                self.socket = None;
                self.retry_at = Some(now + RETRY);
                self.changed(Some(explain_open(&error)), now)
            }
        }
    }

    fn close(&mut self) {
        self.socket = None;
        self.index = 0;
        self.retry_at = None;
    }

    /// The sentence to tell when `trouble` is not what was told last.
    fn changed(&mut self, trouble: Option<String>, now: Time) -> Option<Trouble> {
        let is_early = self.told_at.is_some_and(|at| now.since(at) < TELL_AGAIN);
        if self.told == trouble || is_early {
            return None;
        }
        let interface = &self.interface;
        let sentence = match &trouble {
            Some(trouble) => format!("{interface}: {trouble}"),
            None => format!("{interface}: adverts can be sent and received again"),
        };
        self.told = trouble;
        self.told_at = Some(now);
        Some(sentence)
    }
}

fn explain_open(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("cannot open the advert socket: {error}: run as root or with CAP_NET_RAW");
    }
    format!("cannot open the advert socket: {error}, trying again")
}

fn explain_send(error: &io::Error, datagram: &Datagram) -> String {
    format!("cannot send adverts to {}: {error}", datagram.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(interface: &str, groups: &[&str]) -> Listen {
        Listen {
            interface: interface.into(),
            family: Family::V4,
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            routers: Vec::new(),
            unicast_hop_limit: Some(0),
        }
    }

    #[test]
    fn links_that_went_away_are_forgotten() {
        let mut sockets = AdvertSockets::default();
        for number in 1..=1000 {
            let mut link = LinkState {
                name: format!("veth{number}").as_str().into(),
                index: number,
                running: true,
                mac: None,
                mtu: 1500,
                addresses: Vec::new(),
                forwards_v6: false,
            };
            sockets.follow(&link, Time::ZERO);
            assert_eq!(sockets.links.len(), 1);
            link.index = 0;
            sockets.follow(&link, Time::ZERO);
        }
        assert!(sockets.links.is_empty());
    }

    #[test]
    fn a_socket_that_fails_now_and_then_is_told_of_rarely_and_truly() {
        let mut entry = Entry::new(listen("v0", &[]));
        let wrong = || Some("no buffer space".to_owned());
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        assert_eq!(entry.changed(wrong(), at(0)).as_deref(), Some("v0: no buffer space"));
        assert_eq!(entry.changed(None, at(10)), None);
        assert_eq!(entry.changed(wrong(), at(20)), None);
        assert_eq!(entry.changed(wrong(), at(20_000)), None, "that was told");
        assert!(entry.changed(None, at(20_010)).is_some_and(|news| news.contains("again")));
    }
}
