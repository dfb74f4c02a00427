//! From an advert socket to the router it is for, or to the counter that says why not.

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::datagram::strip_ipv4;
use locum_vrrp::receive::{self, Accepted};
use locum_vrrp::{ChecksumForm, Datagram, Discard, Family, Heard, Time};

use crate::engine::Engine;
use crate::explain;
use crate::ids::InstanceId;
use crate::input::Packet;
use crate::instance::{Differing, Discarded, InstanceState};
use crate::output::EventKind;

/// Addresses that differ are looked at again after so long: a flood of adverts must not become one of
/// allocations.
const ADDRESSES_KNOWN: Duration = Duration::from_secs(1);

impl Engine {
    pub(crate) fn on_packet(&mut self, now: Time, packet: Packet<'_>) {
        let datagram = match datagram(&packet) {
            Ok(datagram) => datagram,
            Err(reason) => return self.count_unmatched(packet.interface, reason),
        };
        let found = receive::vrid_of(&datagram)
            .and_then(|vrid| self.instances.on_wire(packet.interface, vrid, datagram.source));
        let Some(id) = found else {
            return self.count_unmatched(packet.interface, receive::unmatched(&datagram));
        };
        // What is discarded changes nothing that a drain would look at.
        let Some(state) = self.instances.quietly(id) else { return };
        match state.receive(now, &datagram) {
            Ok(accepted) => {
                follow_addresses(state, now, &accepted, &datagram);
                self.on_accepted(id, &accepted);
            }
            Err(reason) => {
                state.counters.record(reason);
                if reason != Discard::AdvertsIgnored {
                    let discarded = Discarded { at: now, source: datagram.source, reason };
                    **state.discarded.get_or_insert_with(|| Box::new(discarded)) = discarded;
                }
                self.report(id, reason, datagram.source);
            }
        }
    }

    fn count_unmatched(&mut self, interface: &str, reason: Discard) {
        match self.unmatched.get_mut(interface) {
            Some(counters) => counters.record(reason),
            None => self.unmatched.entry(interface.into()).or_default().record(reason),
        }
    }

    fn on_accepted(&mut self, id: InstanceId, accepted: &Accepted) {
        let state = self.instances.touch(id);
        let Accepted { heard, .. } = accepted;
        state.counters.record_accepted(accepted);
        if accepted.is_new_master {
            // What it does wrong is news again.
            state.reported.clear_on_new_master();
        }
        if accepted.is_tie && state.reported.tie() {
            let what = format!("it has our priority {}, so the address decides", heard.priority.0);
            let name = state.name().clone();
            self.note(Some(name), EventKind::Mismatch { peer: heard.source, what });
        }
        if let Some(theirs) = accepted.other_form {
            self.report_form(id, heard.source, theirs);
        }
        if heard.interval_differs {
            self.report(id, Discard::IntervalErrors, heard.source);
        }
        if heard.addresses_differ {
            self.report(id, Discard::AddressListErrors, heard.source);
        }
        if accepted.is_owner_conflict {
            self.report(id, Discard::OwnerConflicts, heard.source);
        }
    }

    fn report_form(&mut self, id: InstanceId, peer: IpAddr, theirs: ChecksumForm) {
        let Some(state) = self.instances.quietly(id) else { return };
        if !state.reported.form(peer) {
            return;
        }
        let name = state.name().clone();
        let what = explain::checksum_form(theirs).to_owned();
        self.note(Some(name), EventKind::Mismatch { peer, what });
    }

    /// One notification per reason; the counters have the rest.
    fn report(&mut self, id: InstanceId, reason: Discard, source: IpAddr) {
        let Some(state) = self.instances.quietly(id) else { return };
        // Adverts of others while this instance takes no part are no news.
        if reason == Discard::AdvertsIgnored || !state.reported.reason(reason) {
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

/// An address that only one of the nodes has is on no node while the other one is master.
fn follow_addresses(
    state: &mut InstanceState,
    now: Time,
    accepted: &Accepted,
    datagram: &Datagram<'_>,
) {
    let Heard { source, addresses_differ, .. } = accepted.heard;
    // What a router advertises that is nobody's master is on no host for long.
    if state.router.master().is_none_or(|master| master.address != source) {
        return;
    }
    if !addresses_differ {
        state.differing = None;
        return;
    }
    let is_known =
        |known: &Differing| known.source == source && now.since(known.seen) < ADDRESSES_KNOWN;
    if let Some(known) = state.differing.as_mut().filter(|known| is_known(known)) {
        known.at = now;
        return;
    }
    let (ours_only, theirs_only) = receive::differing_addresses(state.router.settings(), datagram);
    let differing = Differing { at: now, seen: now, source, ours_only, theirs_only };
    state.differing = Some(Box::new(differing));
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
