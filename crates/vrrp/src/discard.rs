//! Why an advert is discarded: the reasons of the validation pipeline, in its order (SPEC.md §5.2).

/// Why a datagram was not, or only grudgingly, accepted. One variant per counter of the validation
/// pipeline, in the order in which they can first occur.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Discard {
    /// V-100, V-101, V-106: IP header not sane, or message not as long as it must be.
    PacketLengthErrors,
    /// V-102, V-103, V-330: TTL or hop limit not as required, or unknown.
    IpTtlErrors,
    /// V-104: another version than the instance's; for an unknown VRID neither 2 nor 3.
    VersionErrors,
    /// V-105: not an advertisement.
    InvalidTypePktsRcvd,
    /// V-107.
    ChecksumErrors,
    /// V-108: no instance with this VRID on this interface and family.
    VridErrors,
    /// V-109: the instance takes no part at the moment.
    AdvertsIgnored,
    /// V-110: multicast on a unicast instance, the reverse, or another group.
    UnexpectedDestination,
    /// V-111: not a configured peer.
    UnknownSource,
    /// V-112: our own source address: a loop, or a duplicate address.
    OwnSourceRcvd,
    /// V-113: an authentication type that does not exist.
    InvalidAuthType,
    /// V-114: another authentication type than configured.
    AuthTypeMismatch,
    /// V-115: wrong password.
    AuthFailures,
    /// V-116, V-117; and V-120, where the advert is accepted all the same.
    IntervalErrors,
    /// V-118; and V-028, V-121, where the advert may be accepted all the same.
    AddressListErrors,
    /// V-119: an owner heard an advert.
    OwnerConflicts,
}

impl Discard {
    /// All reasons in pipeline order.
    pub const ALL: [Self; 16] = [
        Self::PacketLengthErrors,
        Self::IpTtlErrors,
        Self::VersionErrors,
        Self::InvalidTypePktsRcvd,
        Self::ChecksumErrors,
        Self::VridErrors,
        Self::AdvertsIgnored,
        Self::UnexpectedDestination,
        Self::UnknownSource,
        Self::OwnSourceRcvd,
        Self::InvalidAuthType,
        Self::AuthTypeMismatch,
        Self::AuthFailures,
        Self::IntervalErrors,
        Self::AddressListErrors,
        Self::OwnerConflicts,
    ];

    /// Name of the counter: the RFC 8347 leaf, or ours where it has none.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::PacketLengthErrors => "packet-length-errors",
            Self::IpTtlErrors => "ip-ttl-errors",
            Self::VersionErrors => "version-errors",
            Self::InvalidTypePktsRcvd => "invalid-type-pkts-rcvd",
            Self::ChecksumErrors => "checksum-errors",
            Self::VridErrors => "vrid-errors",
            Self::AdvertsIgnored => "adverts-ignored",
            Self::UnexpectedDestination => "unexpected-destination",
            Self::UnknownSource => "unknown-source",
            Self::OwnSourceRcvd => "own-source-rcvd",
            Self::InvalidAuthType => "invalid-auth-type",
            Self::AuthTypeMismatch => "auth-type-mismatch",
            Self::AuthFailures => "auth-failures",
            Self::IntervalErrors => "interval-errors",
            Self::AddressListErrors => "address-list-errors",
            Self::OwnerConflicts => "owner-conflicts",
        }
    }
}
