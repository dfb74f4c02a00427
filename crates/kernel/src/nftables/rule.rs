//! Rules as octets: expressions that load registers, compare, look up and act. Pure.

pub(crate) use super::codec::Rule;
use super::codec::{
    ACCEPT, DROP, JUMP, LIST_ELEMENT, expression, numbers, put_numbers, value, verdict,
};
use crate::attribute::Attributes;
use crate::family::IpFamily;

/// A register of four octets, NFT_REG32_00 and on. What is longer takes those that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register(u32);

const FIRST_REGISTER: u32 = 8;

impl Register {
    /// 0..16.
    pub(crate) const fn new(number: u32) -> Self {
        Self(FIRST_REGISTER + number)
    }

    /// The one behind `octets` octets.
    pub(crate) const fn after(self, octets: u32) -> Self {
        Self(self.0 + octets.div_ceil(4))
    }
}

/// Where a packet is read: NFT_PAYLOAD_*_HEADER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Header {
    Network = 1,
    Transport = 2,
}

/// Where the source and the destination are in the network header.
pub(crate) const fn address_offsets(family: IpFamily) -> (u32, u32) {
    match family {
        IpFamily::V4 => (12, 16),
        IpFamily::V6 => (8, 24),
    }
}

/// What is done with a packet that a rule fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RuleVerdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
}

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, data: &Attributes) -> Self {
        self.0.put(LIST_ELEMENT, expression(name, data).octets());
        self
    }

    /// IPPROTO_* of the packet, behind extension headers too.
    pub(crate) fn if_protocol(self, protocol: u8, scratch: Register) -> Self {
        self.load_meta(META_PROTOCOL, scratch).equals(&[protocol], scratch)
    }

    /// Index of the interface it arrived on.
    pub(crate) fn load_interface(self, to: Register) -> Self {
        const KEY: u32 = 4;
        self.load_meta(KEY, to)
    }

    fn load_meta(self, key: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        self.with("meta", &numbers(&[(DESTINATION, to.0), (KEY, key)]))
    }

    pub(crate) fn load(self, header: Header, offset: u32, octets: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        let list = [(DESTINATION, to.0), (BASE, header as u32), (OFFSET, offset), (LENGTH, octets)];
        self.with("payload", &numbers(&list))
    }

    pub(crate) fn mask(self, mask: &[u8], register: Register) -> Self {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        // INVARIANT: a few octets.
        let length = u32::try_from(mask.len()).expect("a short mask");
        let mut data =
            numbers(&[(SOURCE, register.0), (DESTINATION, register.0), (LENGTH, length)]);
        data.put(MASK, value(mask).octets());
        data.put(XOR, value(&vec![0; mask.len()]).octets());
        self.with("bitwise", &data)
    }

    pub(crate) fn equals(self, octets: &[u8], register: Register) -> Self {
        self.compare(Comparison::Equal, octets, register)
    }

    fn compare(self, how: Comparison, octets: &[u8], register: Register) -> Self {
        const SOURCE: u16 = 1;
        const OPERATION: u16 = 2;
        const DATA: u16 = 3;
        let mut data = numbers(&[(SOURCE, register.0), (OPERATION, how as u32)]);
        data.put(DATA, value(octets).octets());
        self.with("cmp", &data)
    }

    pub(crate) fn if_in(self, set: &str, key: Register) -> Self {
        self.lookup(set, key, &[])
    }

    pub(crate) fn unless_in(self, set: &str, key: Register) -> Self {
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        self.lookup(set, key, &[(FLAGS, INVERTED)])
    }

    /// Fits when the map has the key; what it has for it is in `to`.
    pub(crate) fn map(self, map: &str, key: Register, to: Register) -> Self {
        const DESTINATION: u16 = 3;
        self.lookup(map, key, &[(DESTINATION, to.0)])
    }

    fn lookup(self, set: &str, key: Register, more: &[(u16, u32)]) -> Self {
        const SET: u16 = 1;
        const SOURCE: u16 = 2;
        let mut data = Attributes::default();
        data.put_text(SET, set);
        put_numbers(&mut data, &[(SOURCE, key.0)]);
        put_numbers(&mut data, more);
        self.with("lookup", &data)
    }

    /// Adds the key to the set, or begins its lifetime anew. Does not fit when the set is full.
    pub(crate) fn remember(self, set: &str, key: Register) -> Self {
        self.update(set, key, &[])
    }

    /// Remembers for the key what is in `data`, or begins its lifetime anew. Does not fit when the
    /// map is full.
    pub(crate) fn remember_for(self, map: &str, key: Register, data: Register) -> Self {
        const DATA: u16 = 5;
        self.update(map, key, &[(DATA, data.0)])
    }

    fn update(self, set: &str, key: Register, more: &[(u16, u32)]) -> Self {
        const SET: u16 = 1;
        const OPERATION: u16 = 3;
        const KEY: u16 = 4;
        const UPDATE: u32 = 1;
        let mut data = Attributes::default();
        data.put_text(SET, set);
        put_numbers(&mut data, &[(OPERATION, UPDATE), (KEY, key.0)]);
        put_numbers(&mut data, more);
        self.with("dynset", &data)
    }

    /// Fits for so many packets a second.
    pub(crate) fn at_most(self, packets_per_second: u32) -> Self {
        const RATE: u16 = 1;
        const UNIT: u16 = 2;
        const BURST: u16 = 3;
        const SECOND: u64 = 1;
        let mut data = Attributes::default();
        data.put(RATE, &u64::from(packets_per_second).to_be_bytes());
        data.put(UNIT, &SECOND.to_be_bytes());
        data.put(BURST, &packets_per_second.to_be_bytes());
        self.with("limit", &data)
    }

    /// A copy goes to the host whose address is in `to`, by the interface whose index is in `by`.
    pub(crate) fn copy_to(self, to: Register, by: Option<Register>) -> Self {
        const ADDRESS: u16 = 1;
        const DEVICE: u16 = 2;
        let mut data = numbers(&[(ADDRESS, to.0)]);
        if let Some(by) = by {
            put_numbers(&mut data, &[(DEVICE, by.0)]);
        }
        self.with("dup", &data)
    }

    pub(crate) fn verdict(self, then: RuleVerdict<'_>) -> Self {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        let data = match then {
            RuleVerdict::Accept => verdict(ACCEPT, None),
            RuleVerdict::Drop => verdict(DROP, None),
            RuleVerdict::Jump(chain) => verdict(JUMP, Some(chain)),
        };
        let mut immediate = numbers(&[(DESTINATION, VERDICT_REGISTER)]);
        immediate.put(DATA, data.octets());
        self.with("immediate", &immediate)
    }

    /// IPPROTO_* of the packet.
    pub(crate) fn load_protocol(self, to: Register) -> Self {
        self.load_meta(META_PROTOCOL, to)
    }

    /// Fits when a packet for its destination would be taken by this host.
    pub(crate) fn if_for_this_host(self, scratch: Register) -> Self {
        const DESTINATION: u16 = 1;
        const RESULT: u16 = 2;
        const FLAGS: u16 = 3;
        /// NFT_FIB_RESULT_ADDRTYPE and NFTA_FIB_F_DADDR.
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        let list = [(DESTINATION, scratch.0), (RESULT, ADDRESS_TYPE), (FLAGS, OF_DESTINATION)];
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
        self.with("fib", &numbers(&list)).equals(&local, scratch)
    }

    /// Goes on with what the map has for the key; fits not when it has nothing.
    pub(crate) fn dispatch(self, map: &str, key: Register) -> Self {
        self.map(map, key, Register(VERDICT_REGISTER))
    }

    /// A number from 0 on, below `modulus`: each time the next one.
    pub(crate) fn count_up(self, modulus: u32, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const MODULUS: u16 = 2;
        const KIND: u16 = 3;
        const INCREMENTAL: u32 = 0;
        let list = [(DESTINATION, to.0), (MODULUS, modulus), (KIND, INCREMENTAL)];
        self.with("numgen", &numbers(&list))
    }

    /// A number from 0 on, below `modulus`, that is always the same for the same octets in `from`.
    pub(crate) fn hash(self, from: Register, octets: u32, modulus: u32, to: Register) -> Self {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const MODULUS: u16 = 4;
        const SEED: u16 = 5;
        let list = [
            (SOURCE, from.0),
            (DESTINATION, to.0),
            (LENGTH, octets),
            (MODULUS, modulus),
            // Without one the kernel takes any: directors would not agree.
            (SEED, HASH_SEED),
        ];
        self.with("hash", &numbers(&list))
    }

    /// The connection goes to the address in `address` and the port in the register behind it.
    pub(crate) fn send_to(self, family: IpFamily, address: Register) -> Self {
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const ADDRESS: u16 = 3;
        const PORT: u16 = 5;
        const DESTINATION_NAT: u32 = 1;
        let port = address.after(family.address_octets());
        let list = [
            (KIND, DESTINATION_NAT),
            (FAMILY, u32::from(family.number())),
            (ADDRESS, address.0),
            (PORT, port.0),
        ];
        self.with("nat", &numbers(&list))
    }

    /// The connection has the address of this host as its source from now on.
    pub(crate) fn masquerade(self) -> Self {
        self.with("masq", &Attributes::default())
    }

    /// Fits a connection that was sent somewhere else than it asked for.
    pub(crate) fn if_sent_elsewhere(self, scratch: Register) -> Self {
        const STATUS: u32 = 2;
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        /// IPS_DST_NAT.
        const DESTINATION_NAT: u32 = 1 << 5;
        let rule = self.with("ct", &numbers(&[(DESTINATION, scratch.0), (KEY, STATUS)]));
        let rule = rule.mask(&DESTINATION_NAT.to_ne_bytes(), scratch);
        rule.compare(Comparison::Different, &[0; 4], scratch)
    }

    /// The address that a connection asked for, before it was sent elsewhere.
    pub(crate) fn load_asked_address(self, family: IpFamily, to: Register) -> Self {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const DIRECTION: u16 = 3;
        const ORIGINAL: u8 = 0;
        // NFT_CT_DST_IP and NFT_CT_DST_IP6.
        let key = match family {
            IpFamily::V4 => 20,
            IpFamily::V6 => 22,
        };
        let mut list = numbers(&[(DESTINATION, to.0), (KEY, key)]);
        list.put(DIRECTION, &[ORIGINAL]);
        self.with("ct", &list)
    }
}

/// NFT_META_L4PROTO.
const META_PROTOCOL: u32 = 16;
/// NFT_REG_VERDICT.
const VERDICT_REGISTER: u32 = 0;
/// Any number, the same on every director.
const HASH_SEED: u32 = 0x6c6f_6375;

/// NFT_CMP_*.
#[derive(Clone, Copy)]
enum Comparison {
    Equal = 0,
    Different = 1,
}
