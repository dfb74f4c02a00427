//! How often things happened to one virtual router. RFC 8347, SPEC.md §5.2 and §15.
//!
//! Names are the RFC 8347 leaves where there is one.

use crate::discard::Discard;
use crate::receive::Accepted;
use crate::settings::ChecksumForm;

/// Counters of one instance, or of what no instance of an interface matched. Never reset by a
/// reload (V-400). Those that RFC 8347 keeps for the whole router (checksum, version, VRID and TTL
/// errors) are the sum over all of them.
///
/// They count what was read from a socket. That is all there is, unless datagrams that are not for
/// this host or damaged (errors of version, type, VRID, TTL, length, checksum, authentication) come
/// by thousands a second: then the kernel drops those but for a sample.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By reason. Most instances never discard anything and have none.
    discards: Option<Box<[u64; Discard::ALL.len()]>>,
    /// Adverts that passed the pipeline (V-122).
    pub advertisement_rcvd: u64,
    /// Adverts sent, once for all unicast copies (V-057).
    pub advertisement_sent: u64,
    pub priority_zero_pkts_rcvd: u64,
    pub priority_zero_pkts_sent: u64,
    /// Times this router became master; 32 bits in RFC 8347.
    pub master_transitions: u32,
    /// Adverts the kernel refused to send.
    pub tx_errors: u64,
    /// Adverts not sent for want of a source address (V-051).
    pub tx_no_source: u64,
    /// Accepted with a checksum over the message alone (V-042).
    pub checksum_form_message: u64,
    /// Accepted with a checksum over pseudo header and message (V-042).
    pub checksum_form_pseudo: u64,
    /// Gratuitous ARP frames sent (G-022).
    pub garp_sent: u64,
    /// Unsolicited neighbour advertisements sent (G-022).
    pub na_sent: u64,
    /// Announcements the kernel refused to send (G-022).
    pub announce_errors: u64,
}

impl Counters {
    /// Counts one occurrence of `reason`.
    pub fn record(&mut self, reason: Discard) {
        self.discards.get_or_insert_default()[reason as usize] += 1;
    }

    /// Counts an advert that passed the pipeline, and in what it differs from our settings:
    /// V-028, V-042, V-119, V-120, V-121, V-122.
    pub fn record_accepted(&mut self, accepted: &Accepted) {
        let heard = &accepted.heard;
        self.advertisement_rcvd += 1;
        if heard.is_release() {
            self.priority_zero_pkts_rcvd += 1;
        }
        match heard.form {
            Some(ChecksumForm::Message) => self.checksum_form_message += 1,
            Some(ChecksumForm::Pseudo) => self.checksum_form_pseudo += 1,
            None => {}
        }
        if heard.interval_differs {
            self.record(Discard::IntervalErrors);
        }
        if heard.addresses_differ {
            self.record(Discard::AddressListErrors);
        }
        if accepted.is_owner_conflict {
            self.record(Discard::OwnerConflicts);
        }
    }

    /// How often `reason` occurred.
    pub fn occurrences(&self, reason: Discard) -> u64 {
        self.discards.as_ref().map_or(0, |all| all[reason as usize])
    }

    /// Every counter with its name, in a fixed order, for status and metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let discards = self.discards.as_deref().copied().unwrap_or_default();
        let rest = [
            ("advertisement-rcvd", self.advertisement_rcvd),
            ("advertisement-sent", self.advertisement_sent),
            ("priority-zero-pkts-rcvd", self.priority_zero_pkts_rcvd),
            ("priority-zero-pkts-sent", self.priority_zero_pkts_sent),
            ("master-transitions", u64::from(self.master_transitions)),
            ("tx-errors", self.tx_errors),
            ("tx-no-source", self.tx_no_source),
            ("checksum-form-message", self.checksum_form_message),
            ("checksum-form-pseudo", self.checksum_form_pseudo),
            ("garp-sent", self.garp_sent),
            ("na-sent", self.na_sent),
            ("announce-errors", self.announce_errors),
        ];
        let named = Discard::ALL.into_iter().map(Discard::reason);
        rest.into_iter().chain(named.zip(discards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::Heard;
    use crate::settings::{Interval, Priority, Version};

    /// V-123: each counter is its own.
    #[test]
    fn recording_a_reason_counts_that_one_alone() {
        for reason in Discard::ALL {
            let mut counters = Counters::default();
            counters.record(reason);
            let counted: Vec<_> = counters.iter().filter(|(_, value)| *value > 0).collect();
            assert_eq!(counted, [(reason.reason(), 1)]);
            assert_eq!(counters.occurrences(reason), 1);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Counters::default().iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// V-042, V-119, V-120, V-121, V-122.
    #[test]
    fn accepted_advert_counts_what_differs() {
        let mut counters = Counters::default();
        let heard = Heard {
            source: std::net::Ipv4Addr::LOCALHOST.into(),
            priority: Priority::RELEASE,
            interval: Interval::new(Version::V3, 1).unwrap(),
            form: Some(ChecksumForm::Message),
            interval_differs: true,
            addresses_differ: true,
        };
        counters.record_accepted(&Accepted {
            heard,
            is_tie: false,
            is_owner_conflict: true,
            other_form: heard.form,
            is_new_master: true,
        });
        let counted: Vec<_> = counters.iter().filter(|(_, value)| *value > 0).collect();
        assert_eq!(
            counted,
            [
                ("advertisement-rcvd", 1),
                ("priority-zero-pkts-rcvd", 1),
                ("checksum-form-message", 1),
                ("interval-errors", 1),
                ("address-list-errors", 1),
                ("owner-conflicts", 1),
            ]
        );
    }
}
