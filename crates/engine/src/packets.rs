//! From an advert socket to the router it is for, or to the counter that says why not.

use std::net::IpAddr;

use locum_plan::Name;
use locum_vrrp::counters::Discard;
use locum_vrrp::receive::{self, Datagram, Heard, Local};
use locum_vrrp::{ChecksumForm, Event as RouterEvent, Family, Role, Time};

use crate::Engine;
use crate::explain;
use crate::input::Packet;
use crate::instance::{Discarded, Key};
use crate::output::EventKind;

impl Engine {
    pub(crate) fn on_packet(&mut self, now: Time, packet: Packet<'_>) {
        let interface: Name = packet.interface.into();
        let datagram = match datagram(&packet) {
            Ok(datagram) => datagram,
            Err(reason) => {
                self.unmatched.entry(interface).or_default().record(reason);
                return;
            }
        };
        let found = receive::vrid_of(&datagram).and_then(|vrid| {
            let key = Key { interface: interface.clone(), family: packet.family, vrid };
            self.index.find(&key, datagram.source, &self.instances)
        });
        match found {
            Some(at) => self.on_datagram(now, at, &datagram),
            None => {
                let reason = receive::unmatched(&datagram);
                self.unmatched.entry(interface).or_default().record(reason);
            }
        }
    }

    fn on_datagram(&mut self, now: Time, at: usize, datagram: &Datagram<'_>) {
        let local = Local { own_source: self.source_of(at) };
        let state = &mut self.instances[at];
        let settings = state.router.settings();
        let heard =
            receive::verify(settings, datagram).and_then(|verified| match state.router.role() {
                Role::Initialize | Role::Fault => Err(Discard::AdvertsIgnored),
                Role::Backup | Role::Master | Role::Resigning => verified.admit(settings, &local),
            });
        match heard {
            Ok(heard) => self.on_heard(now, at, &heard),
            Err(reason) => {
                state.counters.record(reason);
                if reason != Discard::AdvertsIgnored {
                    state.discarded = Some(Discarded { at: now, source: datagram.source, reason });
                }
                self.tell(at, reason, datagram.source);
            }
        }
    }

    fn on_heard(&mut self, now: Time, at: usize, heard: &Heard) {
        let state = &mut self.instances[at];
        state.counters.record_heard(heard);
        let own = state.router.priority();
        let form = state.router.form();
        let master = state.router.master().map(|master| master.address);
        state.feed(now, RouterEvent::Heard(heard));
        if state.router.master().map(|master| master.address) != master {
            // Another master: what it does wrong is news again (V-124).
            state.told.clear();
            state.told_tie = false;
        }
        let is_owner = own.is_owner();
        if heard.priority == own && !is_owner && !std::mem::replace(&mut state.told_tie, true) {
            let what = format!("it has our priority {}, so the address decides", own.0);
            let name = state.name().clone();
            self.note(Some(name), EventKind::Mismatch { peer: heard.source, what });
        }
        if let Some(theirs) = heard.form.filter(|theirs| *theirs != form) {
            self.tell_form(at, heard.source, theirs);
        }
        if heard.interval_differs {
            self.tell(at, Discard::IntervalErrors, heard.source);
        }
        if heard.addresses_differ {
            self.tell(at, Discard::AddressListErrors, heard.source);
        }
        if is_owner {
            self.instances[at].counters.record(Discard::OwnerConflicts);
            self.tell(at, Discard::OwnerConflicts, heard.source);
        }
    }

    /// V-042: once per peer, until another one says something else.
    fn tell_form(&mut self, at: usize, peer: IpAddr, theirs: ChecksumForm) {
        let state = &mut self.instances[at];
        if state.told_form.replace(peer) == Some(peer) {
            return;
        }
        let name = state.name().clone();
        let what = explain::checksum_form(theirs).to_owned();
        self.note(Some(name), EventKind::Mismatch { peer, what });
    }

    /// One notification per reason until the role changes (V-124); the counters have the rest.
    fn tell(&mut self, at: usize, reason: Discard, source: IpAddr) {
        let state = &mut self.instances[at];
        // Adverts of others while this instance takes no part are no news.
        if reason == Discard::AdvertsIgnored || !state.told.insert(reason) {
            return;
        }
        let name = state.name().clone();
        let kind = match reason {
            Discard::IntervalErrors | Discard::AddressListErrors => {
                EventKind::Mismatch { peer: source, what: explain::discard(reason).to_owned() }
            }
            Discard::PacketLengthErrors
            | Discard::IpTtlErrors
            | Discard::VersionErrors
            | Discard::InvalidTypePktsRcvd
            | Discard::ChecksumErrors
            | Discard::VridErrors
            | Discard::AdvertsIgnored
            | Discard::UnexpectedDestination
            | Discard::UnknownSource
            | Discard::OwnSourceRcvd
            | Discard::InvalidAuthType
            | Discard::AuthTypeMismatch
            | Discard::AuthFailures
            | Discard::OwnerConflicts => {
                let reason = format!("{} ({})", explain::discard(reason), reason.reason());
                EventKind::Discard { source: Some(source), reason }
            }
        };
        self.note(Some(name), kind);
    }
}

fn datagram<'a>(packet: &Packet<'a>) -> Result<Datagram<'a>, Discard> {
    if packet.truncated {
        return Err(Discard::PacketLengthErrors);
    }
    match packet.family {
        Family::V4 => receive::strip_ipv4(packet.bytes),
        Family::V6 => Ok(Datagram {
            source: packet.source,
            destination: packet.destination,
            hop_limit: packet.hop_limit,
            message: packet.bytes,
        }),
    }
}
