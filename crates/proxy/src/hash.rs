//! A hash that is the same on every node and in every release, so that a client keeps its server
//! after a failover.

use std::net::{IpAddr, SocketAddr};

/// FNV-1a, 64 bit, being fed.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Default for Hash {
    fn default() -> Self {
        Self(FNV_OFFSET)
    }
}

impl Hash {
    pub fn feed(self, octets: &[u8]) -> Self {
        let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(FNV_PRIME);
        Self(octets.iter().fold(self.0, step))
    }

    pub fn feed_ip(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.feed(&address.octets()),
            IpAddr::V6(address) => self.feed(&address.octets()),
        }
    }

    pub fn feed_address(self, address: SocketAddr) -> Self {
        self.feed_ip(address.ip()).feed(&address.port().to_be_bytes())
    }

    /// Spreads the low bits of FNV over the whole word (the finaliser of SplitMix64); neighbouring
    /// addresses would otherwise differ in few bits.
    pub fn end(self) -> u64 {
        let word = self.0;
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}
