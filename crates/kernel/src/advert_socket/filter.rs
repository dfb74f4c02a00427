//! Which datagrams a raw socket lets in: a classic BPF program, built here and run by the kernel.
//!
//! ```text
//!   sent to another ──► source: of this socket? ──► length ─► hop limit ─► kind ─► checksum ─► let in
//!   MAC, loopback           │ no                       │          │         │         │
//!        │                  ▼                          └──────────┴─────────┴─────────┴─► foreign:
//!        └──────────────► drop                                                      one in so many
//! ```
//!
//! A program that takes away foreign datagrams spares the whole way to this process, but it also
//! hides them. So a sample of them is let in, and the caller decides when foreign datagrams are so
//! many that a sample is enough.

mod assembler;

use std::net::IpAddr;

use socket2::SockFilter;

use super::batch::Received;
use super::family::IPV4_HEADER_OCTETS;
use assembler::Instruction;
use assembler::code;

use crate::family::IpFamily;

/// More sources than this are treated like any other: each costs every datagram a comparison.
pub const MAX_SOURCES: usize = 8;

/// Where the fields of an IPv4 header begin, and of an IPv6 header. RFC 791 §3.1, RFC 8200 §3.
const V4_HOP_LIMIT: u32 = 8;
const V4_SOURCE: u32 = 12;
const V4_DESTINATION: u32 = 16;
const V6_HOP_LIMIT: u32 = 7;
const V6_SOURCE: u32 = 8;
const V6_DESTINATION: u32 = 24;
/// First octet of multicast destinations. Class E, which IPv4 has above them, reaches no socket.
const V4_MULTICAST: u32 = 224;
const V6_MULTICAST: u32 = 0xff;

/// What a socket lets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    pub sources: Sources,
    pub foreign: Foreign,
}

/// Whose datagrams. Two sockets with `Only` and `Except` of the same list share what arrives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sources {
    Any,
    /// Of the first [`MAX_SOURCES`] of these.
    Only(Vec<IpAddr>),
    Except(Vec<IpAddr>),
}

/// What becomes of datagrams that cannot be for us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Foreign {
    LetIn,
    /// One of this many, at random, of those that are not as described.
    Sample {
        ours: Ours,
        one_in: u32,
    },
}

/// Longest message whose checksum a program adds up: each word of it is an instruction or six.
/// Longer ones are let in.
const MAX_SUMMED_OCTETS: u32 = 96;
const SHORTEST_SUMMED_OCTETS: u32 = 8;

/// What is for us, as far as the octets can tell.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ours {
    pub kinds: Vec<MessageKind>,
    /// Fewest octets of a message.
    pub least_octets: u32,
    /// Least TTL or hop limit of what was sent to a group.
    pub group_hop_limit: u8,
    /// The same for what was sent to an address of this host; `None` when that is never for us.
    pub unicast_hop_limit: Option<u8>,
    /// Messages are whole words of 32 bits with an Internet checksum (RFC 1071), over themselves or
    /// over a pseudo header with this protocol number and themselves. `None` is not examined.
    pub checksum_protocol: Option<u8>,
}

/// Messages that begin alike.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MessageKind {
    pub first: u8,
    /// Which second octets may follow.
    pub seconds: OctetSet,
    pub secret: Option<Secret>,
}

/// What messages of one kind have to know: an octet of its own and the last eight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// Position in the message, and value.
    pub marker: (u32, u8),
    /// `None` when the marker alone counts.
    pub tail: Option<[u8; 8]>,
}

/// Without the secret.
impl std::fmt::Debug for MessageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageKind").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Ours {
    /// What the program would say of a datagram, with its octets as the socket delivers them.
    pub fn include(&self, family: IpFamily, received: &Received, octets: &[u8]) -> bool {
        let message = match family {
            IpFamily::V4 => {
                let header = octets.first().map_or(0, |first| usize::from(first & 0xf) * 4);
                octets.get(header..).unwrap_or_default()
            }
            IpFamily::V6 => octets,
        };
        let &[first, second, ..] = message else { return false };
        let least = if received.destination.is_multicast() {
            Some(self.group_hop_limit)
        } else {
            self.unicast_hop_limit
        };
        let is_of = |kind: &MessageKind| {
            kind.first == first
                && kind.seconds.contains(second)
                && kind.secret.is_none_or(|secret| secret.is_in(message))
        };
        message.len() >= self.least_octets as usize
            && least.is_some_and(|least| received.hop_limit.is_some_and(|limit| limit >= least))
            && self.kinds.iter().any(is_of)
            && self.checksum_protocol.is_none_or(|protocol| {
                let has_options = family == IpFamily::V4 && octets.len() > message.len() + 20;
                has_options || sums_up(message, received, protocol)
            })
    }
}

impl Secret {
    fn is_in(&self, message: &[u8]) -> bool {
        let (at, value) = self.marker;
        message.get(at as usize) == Some(&value)
            && self.tail.is_none_or(|tail| message.ends_with(&tail))
    }
}

/// Whether the checksum is right in either form, as far as a program would find out.
fn sums_up(message: &[u8], received: &Received, protocol: u8) -> bool {
    let summed = SHORTEST_SUMMED_OCTETS as usize..=MAX_SUMMED_OCTETS as usize;
    if !summed.contains(&message.len()) || !message.len().is_multiple_of(4) {
        return message.len() > MAX_SUMMED_OCTETS as usize;
    }
    let sum = |octets: &[u8]| -> u32 {
        octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    let is_right = |sum: u32| {
        let folded = (sum >> 16) + (sum & 0xffff);
        (folded >> 16) + (folded & 0xffff) == 0xffff
    };
    let alone = sum(message);
    let pseudo = address(received.source) + address(received.destination);
    is_right(alone) || is_right(alone + pseudo + u32::from(protocol) + message.len() as u32)
}

/// A set of octets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OctetSet([u32; 8]);

impl OctetSet {
    pub fn insert(&mut self, octet: u8) {
        self.0[usize::from(octet >> 5)] |= 1 << (octet & 31);
    }

    pub fn contains(&self, octet: u8) -> bool {
        self.0[usize::from(octet >> 5)] & (1 << (octet & 31)) != 0
    }
}

impl FromIterator<u8> for OctetSet {
    fn from_iter<I: IntoIterator<Item = u8>>(octets: I) -> Self {
        let mut set = Self::default();
        octets.into_iter().for_each(|octet| set.insert(octet));
        set
    }
}

/// Nothing at all, for a socket that is not ready yet.
pub const DEAF: [SockFilter; 1] = [SockFilter::new(code::RETURN, 0, 0, 0)];

/// The program of `filter` for a raw socket of `family`.
pub fn program(family: IpFamily, filter: &Filter) -> Vec<SockFilter> {
    assemble(family, filter).into_iter().map(Instruction::into_kernel).collect()
}

fn assemble(family: IpFamily, filter: &Filter) -> Vec<Instruction> {
    let mut program = FilterProgram::new();
    program.drop_what_was_sent_to_others();
    match &filter.sources {
        Sources::Any => {}
        Sources::Only(sources) => {
            program.compare_sources(family, sources, Label::Examine);
            program.jump(Label::Drop);
        }
        Sources::Except(sources) => program.compare_sources(family, sources, Label::Drop),
    }
    program.place(Label::Examine);
    if let Foreign::Sample { ours, one_in } = &filter.foreign {
        program.examine(family, ours);
        program.place(Label::Foreign);
        program.load(code::LOAD_WORD, ancillary(libc::SKF_AD_RANDOM));
        program.when(code::IF_GREATER, u32::MAX / (*one_in).max(1), Label::Drop);
    }
    program.place(Label::LetIn);
    program.load(code::RETURN, u32::MAX);
    program.place(Label::Drop);
    program.load(code::RETURN, 0);
    program.finish()
}

/// A place in the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    /// The source is one of ours.
    Examine,
    /// The hop limit is right.
    Kind,
    /// The first octet is that of this kind.
    Second(usize),
    /// A holds 32 bits of the set of this kind, X which of them counts.
    Bit(usize),
    /// The kind is right.
    Checksum,
    /// The message has so many octets, of which these are the last to be added up.
    Word(u32),
    Foreign,
    LetIn,
    Drop,
}

type FilterProgram = assembler::Program<Label>;

impl FilterProgram {
    /// Frames that were sent to the broadcast MAC, that the interface only saw because it is in
    /// promiscuous mode, or that came round by the loopback. None of them is a datagram sent to
    /// this socket by the protocol's rules, so no counter of bad datagrams misses one.
    fn drop_what_was_sent_to_others(&mut self) {
        const BROADCAST: u32 = 1;
        const OTHER_HOST: u32 = 3;
        const LOOPBACK: u32 = 5;
        self.load(code::LOAD_WORD, ancillary(libc::SKF_AD_PKTTYPE));
        for kind in [BROADCAST, OTHER_HOST, LOOPBACK] {
            self.when(code::IF_EQUAL, kind, Label::Drop);
        }
    }

    /// Goes to `then` when the datagram is of one of these sources.
    fn compare_sources(&mut self, family: IpFamily, sources: &[IpAddr], then: Label) {
        for source in sources.iter().take(MAX_SOURCES) {
            match (family, source) {
                (IpFamily::V4, IpAddr::V4(source)) => {
                    self.load(code::LOAD_WORD, V4_SOURCE);
                    self.when(code::IF_EQUAL, u32::from(*source), then);
                }
                (IpFamily::V6, IpAddr::V6(source)) => {
                    let words = source.octets();
                    let words = words.chunks_exact(4).zip((0..).step_by(4));
                    // From a word that differs past the rest of this source: two instructions for
                    // each word still to come, and the jump.
                    for (word, offset) in words {
                        let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
                        let rest = 2 * ((12 - offset) / 4) + 1;
                        self.load(code::LOAD_WORD, network_header(V6_SOURCE + offset));
                        let jf = rest as u8;
                        self.skip(code::IF_EQUAL, word, 0, jf);
                    }
                    self.jump(then);
                }
                // Nothing of the other family arrives here.
                (IpFamily::V4, IpAddr::V6(_)) | (IpFamily::V6, IpAddr::V4(_)) => {}
            }
        }
    }

    /// Ends where foreign datagrams go. For IPv4 the program sees the IP header, for IPv6 the message alone; there
    /// the header is reached by its own offset.
    fn examine(&mut self, family: IpFamily, ours: &Ours) {
        match family {
            IpFamily::V4 => {
                self.load(code::LOAD_HEADER_LENGTH, 0);
                self.load(code::LOAD_LENGTH, 0);
                self.load(code::SUBTRACT_INDEX, 0);
            }
            // X is 0 in the beginning.
            IpFamily::V6 => self.load(code::LOAD_LENGTH, 0),
        }
        // Two octets are read below.
        self.unless(code::IF_AT_LEAST, ours.least_octets.max(2), Label::Foreign);
        self.examine_hop_limit(family, ours);
        self.place(Label::Kind);
        self.load(code::LOAD_OCTET_INDEXED, 0);
        for (number, kind) in ours.kinds.iter().enumerate() {
            self.when(code::IF_EQUAL, u32::from(kind.first), Label::Second(number));
        }
        self.jump(Label::Foreign);
        for (number, kind) in ours.kinds.iter().enumerate() {
            self.place(Label::Second(number));
            self.look_up(number, &kind.seconds);
            if let Some(secret) = &kind.secret {
                self.examine_secret(family, secret);
            }
            self.jump(Label::Checksum);
        }
        self.place(Label::Checksum);
        match ours.checksum_protocol {
            Some(protocol) => self.add_up(family, protocol),
            None => self.jump(Label::LetIn),
        }
    }

    /// Goes to [`Label::Kind`] or [`Label::Foreign`].
    fn examine_hop_limit(&mut self, family: IpFamily, ours: &Ours) {
        let (destination, hop_limit, multicast) = match family {
            IpFamily::V4 => (V4_DESTINATION, V4_HOP_LIMIT, V4_MULTICAST),
            IpFamily::V6 => {
                let [destination, limit] = [V6_DESTINATION, V6_HOP_LIMIT].map(network_header);
                (destination, limit, V6_MULTICAST)
            }
        };
        self.load(code::LOAD_OCTET, destination);
        // To a group: past the three or one instructions for unicast.
        let unicast = if ours.unicast_hop_limit.is_some() { 4 } else { 1 };
        self.skip(code::IF_AT_LEAST, multicast, unicast, 0);
        match ours.unicast_hop_limit {
            Some(least) => {
                self.load(code::LOAD_OCTET, hop_limit);
                self.when(code::IF_AT_LEAST, u32::from(least), Label::Kind);
                self.jump(Label::Foreign);
            }
            None => self.jump(Label::Foreign),
        }
        self.load(code::LOAD_OCTET, hop_limit);
        self.unless(code::IF_AT_LEAST, u32::from(ours.group_hop_limit), Label::Foreign);
    }

    /// Goes on when the message's second octet is in the set, else to [`Label::Foreign`].
    fn look_up(&mut self, kind: usize, set: &OctetSet) {
        const OCTET: u32 = 0;
        self.load(code::LOAD_OCTET_INDEXED, 1);
        self.load(code::STORE, OCTET);
        self.load(code::AND, 31);
        self.load(code::MOVE_TO_INDEX, 0);
        self.load(code::RECALL, OCTET);
        self.load(code::SHIFT_RIGHT, 5);
        for (number, bits) in (0..).zip(set.0).filter(|(_, bits)| *bits != 0) {
            self.skip(code::IF_EQUAL, number, 0, 2);
            self.load(code::LOAD_CONSTANT, bits);
            self.jump(Label::Bit(kind));
        }
        self.jump(Label::Foreign);
        self.place(Label::Bit(kind));
        self.load(code::SHIFT_RIGHT_INDEX, 0);
        self.unless(code::IF_ANY_BIT, 1, Label::Foreign);
    }

    /// Goes on when it is in the message, else to [`Label::Foreign`].
    fn examine_secret(&mut self, family: IpFamily, secret: &Secret) {
        let (at, marker) = secret.marker;
        self.load_message_start(family);
        self.load(code::LOAD_OCTET_INDEXED, at);
        self.unless(code::IF_EQUAL, u32::from(marker), Label::Foreign);
        let Some(tail) = secret.tail else { return };
        self.load(code::LOAD_LENGTH, 0);
        self.load(code::SUBTRACT, tail.len() as u32);
        self.load(code::MOVE_TO_INDEX, 0);
        for (at, octet) in (0..).zip(tail) {
            self.load(code::LOAD_OCTET_INDEXED, at);
            self.unless(code::IF_EQUAL, u32::from(octet), Label::Foreign);
        }
    }

    fn load_message_start(&mut self, family: IpFamily) {
        match family {
            IpFamily::V4 => self.load(code::LOAD_HEADER_LENGTH, 0),
            IpFamily::V6 => self.load(code::LOAD_INDEX_CONSTANT, 0),
        }
    }

    /// Goes to [`Label::LetIn`] when the checksum is right in either form, or cannot be added up
    /// here; else it goes on.
    fn add_up(&mut self, family: IpFamily, protocol: u8) {
        const SUM: u32 = 1;
        let (start, addresses) = match family {
            IpFamily::V4 => (IPV4_HEADER_OCTETS as u32, (V4_SOURCE..V4_SOURCE + 8).step_by(2)),
            IpFamily::V6 => (0, (V6_SOURCE..V6_SOURCE + 32).step_by(2)),
        };
        if family == IpFamily::V4 {
            // A header with options puts the message elsewhere.
            self.load(code::LOAD_HEADER_LENGTH, 0);
            self.load(code::MOVE_FROM_INDEX, 0);
            self.unless(code::IF_EQUAL, start, Label::LetIn);
        }
        self.load(code::LOAD_LENGTH, 0);
        self.load(code::SUBTRACT, start);
        self.load(code::LOAD_INDEX_CONSTANT, 0);
        for octets in (SHORTEST_SUMMED_OCTETS..=MAX_SUMMED_OCTETS).step_by(4) {
            self.when(code::IF_EQUAL, octets, Label::Word(octets));
        }
        self.when(code::IF_GREATER, MAX_SUMMED_OCTETS, Label::LetIn);
        self.jump(Label::Foreign);
        // From the last word to the first; X has the sum.
        for octets in (4..=MAX_SUMMED_OCTETS).rev().step_by(4) {
            self.place(Label::Word(octets));
            self.add_half(start + octets - 2);
            self.add_half(start + octets - 4);
        }
        self.load(code::STORE_INDEX, SUM);
        self.load(code::MOVE_FROM_INDEX, 0);
        self.fold();
        self.when(code::IF_EQUAL, 0xffff, Label::LetIn);
        self.load(code::RECALL_INDEX, SUM);
        for at in addresses {
            self.add_half(match family {
                IpFamily::V4 => at,
                IpFamily::V6 => network_header(at),
            });
        }
        self.load(code::LOAD_LENGTH, 0);
        self.load(code::SUBTRACT, start);
        self.load(code::ADD, u32::from(protocol));
        self.load(code::ADD_INDEX, 0);
        self.fold();
        self.when(code::IF_EQUAL, 0xffff, Label::LetIn);
    }

    /// X += the 16 bits at this position.
    fn add_half(&mut self, at: u32) {
        self.load(code::LOAD_HALF, at);
        self.load(code::ADD_INDEX, 0);
        self.load(code::MOVE_TO_INDEX, 0);
    }

    /// A becomes its 16-bit ones' complement sum; twice, for the carry of the first time.
    fn fold(&mut self) {
        const UNFOLDED: u32 = 2;
        for _ in 0..2 {
            self.load(code::STORE, UNFOLDED);
            self.load(code::SHIFT_RIGHT, 16);
            self.load(code::MOVE_TO_INDEX, 0);
            self.load(code::RECALL, UNFOLDED);
            self.load(code::AND, 0xffff);
            self.load(code::ADD_INDEX, 0);
        }
    }
}

const fn ancillary(what: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + what) as u32
}

/// An octet of the IP header, wherever the program's own view begins.
const fn network_header(offset: u32) -> u32 {
    (libc::SKF_NET_OFF as u32).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixDatagram;

    use socket2::SockRef;

    use super::*;

    const GROUP: [u8; 4] = [224, 0, 0, 18];
    const OWN: [u8; 4] = [192, 0, 2, 1];
    const PEER: [u8; 4] = [192, 0, 2, 2];

    fn ours() -> Ours {
        Ours {
            kinds: vec![kind(0x21, &[9, 255]), kind(0x31, &[1, 31, 32, 200])],
            least_octets: 8,
            group_hop_limit: 255,
            unicast_hop_limit: Some(254),
            checksum_protocol: None,
        }
    }

    fn kind(first: u8, seconds: &[u8]) -> MessageKind {
        MessageKind { first, seconds: seconds.iter().copied().collect(), secret: None }
    }

    /// So rarely let in that no test sees one.
    fn only_ours(ours: Ours) -> Foreign {
        Foreign::Sample { ours, one_in: u32::MAX }
    }

    fn datagram(source: [u8; 4], destination: [u8; 4], ttl: u8, message: &[u8]) -> Vec<u8> {
        let total = u8::try_from(20 + message.len()).unwrap();
        let mut octets = vec![0x45, 0xc0, 0, total, 0, 0, 0, 0, ttl, 112, 0, 0];
        octets.extend(source);
        octets.extend(destination);
        octets.extend(message);
        octets
    }

    /// Lets the kernel run the IPv4 program: a local datagram socket shows it all octets too.
    struct Kernel {
        sender: UnixDatagram,
        filtered: UnixDatagram,
    }

    impl Kernel {
        fn new(filter: &Filter) -> Self {
            let (sender, filtered) = UnixDatagram::pair().unwrap();
            filtered.set_nonblocking(true).unwrap();
            SockRef::from(&filtered).attach_filter(&program(IpFamily::V4, filter)).unwrap();
            Self { sender, filtered }
        }

        fn lets_in(&self, octets: &[u8]) -> bool {
            self.sender.send(octets).unwrap();
            self.filtered.recv(&mut [0; 2000]).is_ok()
        }
    }

    fn received(octets: &[u8]) -> Received {
        let address = |at: usize| -> IpAddr {
            Ipv4Addr::from(<[u8; 4]>::try_from(&octets[at..at + 4]).unwrap()).into()
        };
        Received {
            source: address(12),
            destination: address(16),
            hop_limit: Some(octets[8]),
            truncated: false,
        }
    }

    /// Every second octet with every first one that matters; the kernel and [`Ours::include`] agree.
    #[test]
    fn only_known_kinds_are_let_in() {
        let kernel = Kernel::new(&Filter { sources: Sources::Any, foreign: only_ours(ours()) });
        for first in [0, 0x21, 0x31, 0x32, 0xff] {
            for second in 0..=255 {
                let octets = datagram(PEER, GROUP, 255, &[first, second, 0, 0, 0, 0, 0, 0]);
                let expected = match first {
                    0x21 => [9, 255].contains(&second),
                    0x31 => [1, 31, 32, 200].contains(&second),
                    _ => false,
                };
                assert_eq!(kernel.lets_in(&octets), expected, "{first} {second}");
                let verdict = ours().include(IpFamily::V4, &received(&octets), &octets);
                assert_eq!(verdict, expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_too_short_or_came_too_far_is_foreign() {
        let message = [0x31, 200, 0, 0, 0, 0, 0, 0];
        let with_options = |ttl| {
            let mut octets = datagram(PEER, GROUP, ttl, &[]);
            octets[0] = 0x46;
            octets.extend([1; 4]);
            octets.extend(message);
            octets
        };
        let never_unicast = Ours { unicast_hop_limit: None, ..ours() };
        let any_distance = Ours { unicast_hop_limit: Some(0), ..ours() };
        let cases = [
            ("eight octets", ours(), datagram(PEER, GROUP, 255, &message), true),
            ("seven octets", ours(), datagram(PEER, GROUP, 255, &message[..7]), false),
            ("none", ours(), datagram(PEER, GROUP, 255, &[]), false),
            ("group, one hop", ours(), datagram(PEER, GROUP, 254, &message), false),
            ("unicast, one hop", ours(), datagram(PEER, OWN, 254, &message), true),
            ("unicast, two hops", ours(), datagram(PEER, OWN, 253, &message), false),
            ("unicast, hops", any_distance, datagram(PEER, OWN, 0, &message), true),
            ("no unicast", never_unicast.clone(), datagram(PEER, OWN, 255, &message), false),
            ("group, no unicast", never_unicast, datagram(PEER, GROUP, 255, &message), true),
            ("header with options", ours(), with_options(255), true),
            ("header with options, one hop", ours(), with_options(254), false),
        ];
        for (what, ours, octets, expected) in cases {
            let filter = Filter { sources: Sources::Any, foreign: only_ours(ours.clone()) };
            assert_eq!(Kernel::new(&filter).lets_in(&octets), expected, "{what}");
            assert_eq!(ours.include(IpFamily::V4, &received(&octets), &octets), expected, "{what}");
        }
    }

    #[test]
    fn two_sockets_share_what_arrives_by_its_source() {
        let source = |number: u8| [192, 0, 2, number];
        let listed: Vec<IpAddr> =
            (1..=20).map(|number| Ipv4Addr::from(source(number)).into()).collect();
        let kernel = |sources| Kernel::new(&Filter { sources, foreign: Foreign::LetIn });
        let only = kernel(Sources::Only(listed.clone()));
        let except = kernel(Sources::Except(listed));
        for number in 0..=30 {
            let octets = datagram(source(number), GROUP, 255, b"message");
            let is_listed = (1..=MAX_SOURCES as u8).contains(&number);
            assert_eq!(only.lets_in(&octets), is_listed, "{number}");
            assert_eq!(except.lets_in(&octets), !is_listed, "{number}");
        }
        let nobody = kernel(Sources::Only(Vec::new()));
        assert!(!nobody.lets_in(&datagram(PEER, GROUP, 255, b"message")));
    }

    /// RFC 1071, over what is given first and the message.
    fn with_checksum(mut message: Vec<u8>, pseudo: &[u8]) -> Vec<u8> {
        message[6..8].fill(0);
        let pairs = pseudo.chunks(2).chain(message.chunks(2));
        let mut sum: u32 =
            pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        message[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        message
    }

    /// Both forms, every length; every octet that is wrong is found.
    #[test]
    fn a_wrong_checksum_is_foreign() {
        let ours = Ours { checksum_protocol: Some(112), ..ours() };
        let filter = Filter { sources: Sources::Any, foreign: only_ours(ours.clone()) };
        let kernel = Kernel::new(&filter);
        let check = |message: &[u8], expected: bool, what: &str| {
            let octets = datagram(PEER, GROUP, 255, message);
            assert_eq!(kernel.lets_in(&octets), expected, "{what}, {} octets", message.len());
            let verdict = ours.include(IpFamily::V4, &received(&octets), &octets);
            assert_eq!(verdict, expected, "{what}, {} octets", message.len());
        };
        for octets in (8..=96_u8).step_by(4) {
            let message: Vec<u8> = (0..octets).map(|at| at.wrapping_mul(211) ^ 0xf0).collect();
            let message = [&[0x31, 200][..], &message[2..]].concat();
            let mut pseudo = [PEER, GROUP].concat();
            pseudo.extend([0, 112, 0, octets]);
            for pseudo in [&pseudo[..], &[]] {
                let right = with_checksum(message.clone(), pseudo);
                check(&right, true, "right");
                for at in 2..right.len() {
                    let mut wrong = right.clone();
                    wrong[at] ^= 0x10;
                    check(&wrong, false, "wrong");
                }
            }
        }
        let long = |octets: usize| [&[0x31, 200][..], &vec![0x5a; octets - 2]].concat();
        check(&long(100), true, "too long to be added up");
        check(&long(10), false, "no whole words");
        let mut options = datagram(PEER, GROUP, 255, &[]);
        options[0] = 0x46;
        options.extend([1; 4]);
        options.extend(long(8));
        assert!(kernel.lets_in(&options));
        assert!(ours.include(IpFamily::V4, &received(&options), &options));
    }

    #[test]
    fn what_does_not_know_the_secret_of_its_kind_is_foreign() {
        let secret = Some(Secret { marker: (4, 1), tail: Some(*b"password") });
        let marked = Some(Secret { marker: (4, 0), tail: None });
        let kinds = vec![
            MessageKind { secret, ..kind(0x21, &[9]) },
            MessageKind { secret: marked, ..kind(0x31, &[9]) },
        ];
        let ours = Ours { kinds, ..ours() };
        let filter = Filter { sources: Sources::Any, foreign: only_ours(ours.clone()) };
        let kernel = Kernel::new(&filter);
        let cases = [
            (0x21, 1, b"password", true),
            (0x21, 1, b"passwore", false),
            (0x21, 1, b"qassword", false),
            (0x21, 0, b"password", false),
            (0x31, 0, b"whatever", true),
            (0x31, 1, b"whatever", false),
        ];
        for (first, marker, tail, expected) in cases {
            let message =
                [&[first, 9, 0, 1, marker, 0, 0, 0, 192, 0, 2, 1][..], &tail[..]].concat();
            let octets = datagram(PEER, GROUP, 255, &message);
            assert_eq!(kernel.lets_in(&octets), expected, "{first} {marker}");
            assert_eq!(ours.include(IpFamily::V4, &received(&octets), &octets), expected);
        }
        assert!(!format!("{ours:?}").contains("112"), "the secret is not shown");
    }

    #[test]
    fn of_foreign_datagrams_a_sample_is_let_in() {
        let foreign = Foreign::Sample { ours: ours(), one_in: 4 };
        let kernel = Kernel::new(&Filter { sources: Sources::Any, foreign });
        let octets = datagram(PEER, GROUP, 255, &[0x31, 77, 0, 0, 0, 0, 0, 0]);
        let seen = (0..4000).filter(|_| kernel.lets_in(&octets)).count();
        // 1000 with a standard deviation of 27.
        assert!((700..1300).contains(&seen), "{seen}");
    }

    /// Whatever is asked for, the kernel takes the program, and it stays small.
    #[test]
    fn the_longest_program_is_accepted() {
        let secret = Some(Secret { marker: (4, 3), tail: Some([3; 8]) });
        let kinds = (0..4).map(|first| MessageKind { first, seconds: (0..=255).collect(), secret });
        let checksum_protocol = Some(112);
        let foreign = only_ours(Ours { kinds: kinds.collect(), checksum_protocol, ..ours() });
        let v4 = Ipv4Addr::from(PEER).into();
        let filter = Filter { sources: Sources::Except(vec![v4; 20]), foreign };
        assert!(Kernel::new(&filter).lets_in(&datagram(OWN, GROUP, 255, &[3; 100])));
        let filter =
            Filter { sources: Sources::Only(vec!["fe80::1".parse().unwrap(); 20]), ..filter };
        let (_, socket) = UnixDatagram::pair().unwrap();
        let program = program(IpFamily::V6, &filter);
        SockRef::from(&socket).attach_filter(&program).unwrap();
        assert!(program.len() < 900, "{}", program.len());
    }

    #[test]
    fn jumps_are_counted_from_the_next_instruction() {
        let filter = Filter { sources: Sources::Any, foreign: Foreign::LetIn };
        let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
        let expected = [
            step(code::LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
            step(code::IF_EQUAL, 0, 1, 1),
            step(code::ALWAYS, 0, 0, 5),
            step(code::IF_EQUAL, 0, 1, 3),
            step(code::ALWAYS, 0, 0, 3),
            step(code::IF_EQUAL, 0, 1, 5),
            step(code::ALWAYS, 0, 0, 1),
            step(code::RETURN, 0, 0, u32::MAX),
            step(code::RETURN, 0, 0, 0),
        ];
        assert_eq!(assemble(IpFamily::V4, &filter), expected);
    }
}
