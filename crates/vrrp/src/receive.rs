//! The validation pipeline: a datagram becomes [`Heard`], or a [`Discard`] reason that is counted.
//!
//! The steps are V-100 to V-121 of SPEC.md §5.2, and the first that fails decides the reason. They
//! stand here in that order:
//!
//! ```text
//!   bytes ──► strip_ipv4 ──► find the router by vrid_of ──┬─ none ──► unmatched ──► Discard
//!             V-100          (interface, family, VRID)    │
//!                                                         ▼
//!        Router::receive: verify ──► takes part? ──► admit ──► Heard ──► Accepted
//!                         V-101..V-108   V-109       V-110..V-118,       V-119, V-122
//!                                                    V-120, V-121
//! ```
//!
//! Nothing here keeps state, so that an invalid packet cannot change any (V-127). What depends on
//! the state of the router is in [`Router::receive`](crate::Router::receive).

use std::net::{IpAddr, Ipv4Addr};

use subtle::ConstantTimeEq;

use crate::checksum::{Coverage, is_valid};
use crate::datagram::Datagram;
use crate::discard::Discard;
use crate::packet::{Body, MAX_ADDRESSES, TYPE_ADVERTISEMENT, auth_type};
use crate::settings::{
    Auth, ChecksumForm, ChecksumMode, Family, Interval, Priority, Profile, RouterSettings,
    Transport, UnicastPeer, Version, Vrid,
};

/// An advertisement that passed every check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    pub source: IpAddr,
    pub priority: Priority,
    /// The sender's interval; in version 2 always our own.
    pub interval: Interval,
    /// The form the checksum was valid in; `None` when both or when there is no choice.
    pub form: Option<ChecksumForm>,
    /// Accepted, but the sender's interval is not ours (V-120).
    pub interval_differs: bool,
    /// Accepted, but the sender's addresses are not ours (V-121), or they are IPv6 and the first
    /// is not link-local (V-028).
    pub addresses_differ: bool,
}

impl Heard {
    /// The sender gives up its mastership.
    pub fn is_release(&self) -> bool {
        self.priority == Priority::RELEASE
    }
}

/// What a router has accepted, and what of it an operator may want to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    pub heard: Heard,
    /// We are no owner, and the sender has our priority, so that the address decides (V-163).
    pub is_tie: bool,
    /// We are an owner, and so there should be no other router that speaks (V-119).
    pub is_owner_conflict: bool,
    /// The checksum has another form than those of our own adverts (V-042).
    pub other_form: Option<ChecksumForm>,
    /// The sender is the master now, and another one was until now.
    pub is_new_master: bool,
}

/// The VRID at octet 1 of the message, to find the router by. `None` when the message is too short
/// or says 0: no router can match, see [`unmatched`].
pub fn vrid_of(datagram: &Datagram<'_>) -> Option<Vrid> {
    Body::new(datagram.message, Family::of(&datagram.source))?.vrid()
}

/// Why a datagram that no router of its interface and family matches is discarded: the first of
/// V-101 to V-107 that fails, else V-108. Counted for the interface.
pub fn unmatched(datagram: &Datagram<'_>) -> Discard {
    match wire(datagram, None) {
        Ok(_) => Discard::VridErrors,
        Err(reason) => reason,
    }
}

/// Addresses of `settings` that this advert does not have, and those that it has beyond them: for a
/// person, when they differ (V-121). It allocates, so not for every advert of a flood.
pub fn differing_addresses(
    settings: &RouterSettings,
    datagram: &Datagram<'_>,
) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let body = Body::new(datagram.message, Family::of(&datagram.source));
    let theirs: Vec<IpAddr> = body.iter().flat_map(Body::addresses).collect();
    let ours = &settings.addresses;
    let beyond = |of: &[IpAddr], others: &[IpAddr]| {
        of.iter().filter(|address| !others.contains(address)).copied().collect()
    };
    (beyond(ours, &theirs), beyond(&theirs, ours))
}

/// All steps that do not depend on the router's state: as if it took part (V-109). `own_source` is
/// where our own adverts leave from; `None` while the link has no usable address.
///
/// # Errors
/// The reason of the first step that fails.
pub fn validate(
    settings: &RouterSettings,
    own_source: Option<IpAddr>,
    datagram: &Datagram<'_>,
) -> Result<Heard, Discard> {
    verify(settings, datagram)?.admit(settings, own_source)
}

/// Steps V-101 to V-108: the datagram is a well-formed advert for this router.
///
/// # Errors
/// The reason of the first step that fails.
pub(crate) fn verify<'a>(
    settings: &RouterSettings,
    datagram: &Datagram<'a>,
) -> Result<Verified<'a>, Discard> {
    let verified = wire(datagram, Some(settings))?;
    let ours = verified.body.vrid() == Some(settings.vrid)
        && Family::of(&datagram.source) == settings.family;
    if ours { Ok(verified) } else { Err(Discard::VridErrors) }
}

/// A well-formed advert with a valid checksum: past V-108, before V-109.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified<'a> {
    source: IpAddr,
    destination: IpAddr,
    body: Body<'a>,
    version: Version,
    form: Option<ChecksumForm>,
}

impl Verified<'_> {
    /// Steps V-110 to V-118, V-120 and V-121: the advert may speak to this router.
    ///
    /// # Errors
    /// The reason of the first step that fails.
    pub(crate) fn admit(
        &self,
        settings: &RouterSettings,
        own_source: Option<IpAddr>,
    ) -> Result<Heard, Discard> {
        self.check_endpoints(settings, own_source)?;
        match self.version {
            Version::V2 => self.check_auth(&settings.auth)?,
            Version::V3 => {}
        }
        let interval = self.check_interval(settings)?;
        let addresses_differ = self.check_addresses(settings)?;
        Ok(Heard {
            source: self.source,
            priority: self.body.priority(),
            interval,
            form: self.form,
            interval_differs: interval != settings.interval,
            addresses_differ,
        })
    }

    /// V-110 to V-112.
    fn check_endpoints(
        &self,
        settings: &RouterSettings,
        own_source: Option<IpAddr>,
    ) -> Result<(), Discard> {
        match &settings.transport {
            Transport::Multicast { group } => {
                if self.destination != *group {
                    return Err(Discard::UnexpectedDestination);
                }
            }
            Transport::Unicast { peers, check_source, .. } => {
                if self.destination.is_multicast() {
                    return Err(Discard::UnexpectedDestination);
                }
                // A TTL range says which peer it is for, so it brings the source check (V-330).
                let checked = *check_source || peers.iter().any(|peer| peer.ttl.is_some());
                if checked && find_peer(peers, self.source).is_none() {
                    return Err(Discard::UnknownSource);
                }
            }
        }
        if own_source == Some(self.source) {
            return Err(Discard::OwnSourceRcvd);
        }
        Ok(())
    }

    /// V-113 to V-115. The data of type 0 is ignored (V-341); an authentication header (type 2)
    /// cannot be configured, so it never matches.
    fn check_auth(&self, auth: &Auth) -> Result<(), Discard> {
        let received = self.body.auth_type();
        if received > LAST_AUTH_TYPE {
            return Err(Discard::InvalidAuthType);
        }
        if received != auth_type(auth) {
            return Err(Discard::AuthTypeMismatch);
        }
        match auth {
            Auth::None => Ok(()),
            Auth::Simple(password) => {
                let data = self.body.auth_data().ok_or(Discard::AuthFailures)?;
                // In constant time, so that the answer does not tell how much was right (V-342).
                if bool::from(data.ct_eq(password)) { Ok(()) } else { Err(Discard::AuthFailures) }
            }
        }
    }

    /// V-116 and V-117; the sender's interval otherwise, which in version 3 may differ (V-120).
    fn check_interval(&self, settings: &RouterSettings) -> Result<Interval, Discard> {
        let received = Interval::new(self.version, self.body.centis(self.version))
            .ok_or(Discard::IntervalErrors)?;
        match self.version {
            Version::V2 if received != settings.interval => Err(Discard::IntervalErrors),
            Version::V2 | Version::V3 => Ok(received),
        }
    }

    /// V-118 and V-121; whether the addresses differ from ours otherwise.
    fn check_addresses(&self, settings: &RouterSettings) -> Result<bool, Discard> {
        let tolerant = matches!((self.version, settings.profile), (Version::V2, Profile::Interop));
        if self.body.count() == 0 && !tolerant {
            return Err(Discard::AddressListErrors);
        }
        let differ = !same_addresses(&self.body, &settings.addresses);
        let is_strict_v2 =
            matches!((self.version, settings.profile), (Version::V2, Profile::Strict));
        // RFC 3768 §7.1: what an owner says about its addresses is believed.
        if differ && is_strict_v2 && !self.body.priority().is_owner() {
            return Err(Discard::AddressListErrors);
        }
        Ok(differ || lacks_link_local(&self.body))
    }
}

/// V-101 to V-107. Without settings the VRID is unknown: versions 2 and 3 and both checksum forms
/// are right (V-104).
fn wire<'a>(
    datagram: &Datagram<'a>,
    settings: Option<&RouterSettings>,
) -> Result<Verified<'a>, Discard> {
    let family = Family::of(&datagram.source);
    let body = Body::new(datagram.message, family).ok_or(Discard::PacketLengthErrors)?;
    if !hop_limit_fits(datagram, settings.map(|settings| &settings.transport)) {
        return Err(Discard::IpTtlErrors);
    }
    let version = body.version().ok_or(Discard::VersionErrors)?;
    let expected = match settings {
        Some(settings) => version == settings.version,
        // Version 2 exists over IPv4 only (V-004).
        None => version == Version::V3 || family == Family::V4,
    };
    if !expected {
        return Err(Discard::VersionErrors);
    }
    if body.packet_type() != TYPE_ADVERTISEMENT {
        return Err(Discard::InvalidTypePktsRcvd);
    }
    if !body.has_exact_length(version) {
        return Err(Discard::PacketLengthErrors);
    }
    let form = checksum_form(datagram, version, settings.map(|settings| settings.checksum))?;
    let Datagram { source, destination, .. } = *datagram;
    Ok(Verified { source, destination, body, version, form })
}

/// V-102, V-103, V-330. A hop limit that the kernel did not give fits nowhere.
fn hop_limit_fits(datagram: &Datagram<'_>, transport: Option<&Transport>) -> bool {
    let Some(hop_limit) = datagram.hop_limit else {
        return false;
    };
    if datagram.destination.is_multicast() {
        return hop_limit == u8::MAX;
    }
    let range = match transport {
        Some(Transport::Unicast { peers, .. }) => {
            find_peer(peers, datagram.source).and_then(|peer| peer.ttl)
        }
        Some(Transport::Multicast { .. }) | None => None,
    };
    range.is_none_or(|(least, most)| (least..=most).contains(&hop_limit))
}

/// V-107: the form the checksum is valid in, `None` when both or when there is no choice (V-041).
fn checksum_form(
    datagram: &Datagram<'_>,
    version: Version,
    mode: Option<ChecksumMode>,
) -> Result<Option<ChecksumForm>, Discard> {
    let valid = |form| {
        let coverage = Coverage::of(version, form, datagram.source, datagram.destination);
        is_valid(datagram.message, coverage)
    };
    let message = valid(ChecksumForm::Message);
    let pseudo = valid(ChecksumForm::Pseudo);
    let accepted = match mode {
        Some(ChecksumMode::Pinned(ChecksumForm::Message)) => message,
        Some(ChecksumMode::Pinned(ChecksumForm::Pseudo)) => pseudo,
        Some(ChecksumMode::Auto(_)) | None => message || pseudo,
    };
    match (accepted, message, pseudo) {
        (false, _, _) => Err(Discard::ChecksumErrors),
        (true, true, false) => Ok(Some(ChecksumForm::Message)),
        (true, false, true) => Ok(Some(ChecksumForm::Pseudo)),
        (true, true, true) | (true, false, false) => Ok(None),
    }
}

fn find_peer(peers: &[UnicastPeer], source: IpAddr) -> Option<&UnicastPeer> {
    peers.iter().find(|peer| peer.address == source)
}

/// Same count and same set, in whatever order (V-121). Peers that share a configuration send the
/// same order, so the common case sorts nothing. The other one sorts on the stack: a flood of
/// adverts must not become a flood of allocations.
fn same_addresses(body: &Body<'_>, ours: &[IpAddr]) -> bool {
    if body.count() != ours.len() {
        return false;
    }
    if body.addresses().eq(ours.iter().copied()) {
        return true;
    }
    sorted(body.addresses()).eq(sorted(ours.iter().copied()))
}

/// Each address once, in order; of more than an advert can have, the first ones.
fn sorted(addresses: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = IpAddr> {
    let mut all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); MAX_ADDRESSES];
    let mut count = 0;
    for (slot, address) in all.iter_mut().zip(addresses) {
        *slot = address;
        count += 1;
    }
    all[..count].sort_unstable();
    let mut before = None;
    all.into_iter().take(count).filter(move |address| before.replace(*address) != Some(*address))
}

/// V-028: an IPv6 list begins with the virtual link-local address. RFC 9568 §5.2.9.
fn lacks_link_local(body: &Body<'_>) -> bool {
    match body.addresses().next() {
        Some(IpAddr::V6(first)) => !first.is_unicast_link_local(),
        Some(IpAddr::V4(_)) | None => false,
    }
}

/// 0 none, 1 password, 2 authentication header. RFC 2338 §5.3.6.
const LAST_AUTH_TYPE: u8 = 2;

#[cfg(test)]
mod tests;
