//! From an advert socket to the router it is for, or to the counter that says why not.

use std::net::IpAddr;

use locum_vrrp::datagram::strip_ipv4;
use locum_vrrp::receive::{self, Accepted};
use locum_vrrp::{ChecksumForm, Datagram, Discard, Family, Time};

use crate::Engine;
use crate::explain;
use crate::input::Packet;
use crate::instance::Discarded;
use crate::output::EventKind;

impl Engine {
    pub(crate) fn on_packet(&mut self, now: Time, packet: Packet<'_>) {
        let datagram = match datagram(&packet) {
            Ok(datagram) => datagram,
            Err(reason) => return self.count_unmatched(packet.interface, reason),
        };
        let found = receive::vrid_of(&datagram).and_then(|vrid| {
            self.index.find(packet.interface, vrid, datagram.source, &self.instances)
        });
        let Some(at) = found else {
            return self.count_unmatched(packet.interface, receive::unmatched(&datagram));
        };
        let state = &mut self.instances[at];
        match state.receive(now, &datagram) {
            Ok(accepted) => self.on_accepted(at, &accepted),
            Err(reason) => {
                state.counters.record(reason);
                if reason != Discard::AdvertsIgnored {
                    state.discarded = Some(Discarded { at: now, source: datagram.source, reason });
                }
                self.tell(at, reason, datagram.source);
            }
        }
    }

    fn count_unmatched(&mut self, interface: &str, reason: Discard) {
        match self.unmatched.get_mut(interface) {
            Some(counters) => counters.record(reason),
            None => self.unmatched.entry(interface.into()).or_default().record(reason),
        }
    }

    fn on_accepted(&mut self, at: usize, accepted: &Accepted) {
        let state = &mut self.instances[at];
        let Accepted { heard, .. } = accepted;
        state.counters.record_accepted(accepted);
        if accepted.is_new_master {
            // What it does wrong is news again (V-124).
            state.told.clear();
            state.told_tie = false;
        }
        if accepted.is_tie && !std::mem::replace(&mut state.told_tie, true) {
            let what = format!("it has our priority {}, so the address decides", heard.priority.0);
            let name = state.name().clone();
            self.note(Some(name), EventKind::Mismatch { peer: heard.source, what });
        }
        if let Some(theirs) = accepted.other_form {
            self.tell_form(at, heard.source, theirs);
        }
        if heard.interval_differs {
            self.tell(at, Discard::IntervalErrors, heard.source);
        }
        if heard.addresses_differ {
            self.tell(at, Discard::AddressListErrors, heard.source);
        }
        if accepted.is_owner_conflict {
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
        Family::V4 => strip_ipv4(packet.bytes),
        Family::V6 => Ok(Datagram {
            source: packet.source,
            destination: packet.destination,
            hop_limit: packet.hop_limit,
            message: packet.bytes,
        }),
    }
}
