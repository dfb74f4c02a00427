//! Sentences for an operator about what a router met on the wire or in its own timing.

use std::time::Duration;

use locum_vrrp::{ChecksumForm, Discard};

/// A plan took effect.
pub fn reloaded(added: usize, changed: usize, removed: usize, unchanged: usize) -> String {
    format!(
        "configuration in effect: {added} added, {changed} changed, {removed} removed, \
         {unchanged} unchanged"
    )
}

/// V-059.
pub fn late(by: Duration) -> String {
    format!(
        "an advert left {} ms late, because this node did not run in time: peers may have taken over",
        by.as_millis()
    )
}

/// V-042: the peer's checksum form, where it is not ours.
pub fn checksum_form(theirs: ChecksumForm) -> &'static str {
    match theirs {
        ChecksumForm::Message => {
            "its checksum covers the message alone (RFC 9568), ours the addresses too (RFC 5798)"
        }
        ChecksumForm::Pseudo => {
            "its checksum covers the addresses too (RFC 5798), ours the message alone (RFC 9568)"
        }
    }
}

/// What an operator should look at when datagrams are discarded for this reason.
pub fn discard(reason: Discard) -> &'static str {
    match reason {
        Discard::PacketLengthErrors => "the packet is not as long as it says",
        Discard::IpTtlErrors => "the TTL is not 255: the packet was forwarded or forged",
        Discard::VersionErrors => "the peer speaks another VRRP version",
        Discard::InvalidTypePktsRcvd => "the packet is no advertisement",
        Discard::ChecksumErrors => "the checksum is wrong",
        Discard::VridErrors => "the VRID is not ours",
        Discard::AdvertsIgnored => "this instance takes no part at the moment",
        Discard::UnexpectedDestination => "multicast and unicast peers are mixed",
        Discard::UnknownSource => "the sender is not a configured peer",
        Discard::OwnSourceRcvd => "our own address sent it: a loop or a duplicate address",
        Discard::InvalidAuthType => "the authentication type does not exist",
        Discard::AuthTypeMismatch => "the peer authenticates in another way",
        Discard::AuthFailures => "the password is wrong",
        Discard::IntervalErrors => "the peer's advertisement interval is not ours",
        Discard::AddressListErrors => "the peer's address list is not ours",
        Discard::OwnerConflicts => "another router speaks for the addresses this one owns",
    }
}
