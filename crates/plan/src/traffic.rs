//! What a service carries, and how it reaches its servers.

use std::num::NonZeroU16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As a sentence names it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As configuration and status write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Forwarding {
    Nat,
    Direct,
    Tunnel,
}

/// How packets are wrapped for a server behind a tunnel; means nothing for other ways.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Encapsulation {
    #[default]
    Ipip,
    /// Generic UDP encapsulation, to this UDP port of the server.
    Gue { port: NonZeroU16, checksum: TunnelChecksum },
    /// Never with [`TunnelChecksum::Remote`].
    Gre { checksum: TunnelChecksum },
}

impl Encapsulation {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue { .. } => "gue",
            Self::Gre { .. } => "gre",
        }
    }
}

/// What protects the outer packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TunnelChecksum {
    #[default]
    None,
    Full,
    /// Computed by the receiver: the remote checksum offload of GUE.
    Remote,
}
