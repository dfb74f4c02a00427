//! Which datagrams a raw socket lets in: a classic BPF program, built here and run by the kernel.
//!
//! ```text
//!   sent to another ──► source: of this socket? ──► length ──► hop limit ──► kind ──► let in
//!   MAC, loopback           │ no                       │           │           │
//!        │                  ▼                          └───────────┴───────────┴──► foreign:
//!        └──────────────► drop                                                 one in so many
//! ```
//!
//! A program that takes away foreign datagrams spares the whole way to this process, but it also
//! hides them. So a sample of them is let in, and the caller decides when foreign datagrams are so
//! many that a sample is enough.

use std::net::IpAddr;

use socket2::SockFilter;

use super::Family;
use super::Received;

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

/// What is for us, as far as a few octets can tell.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ours {
    /// First octet of a message, and which second octets may follow it.
    pub kinds: Vec<(u8, OctetSet)>,
    /// Fewest octets of a message.
    pub least_octets: u32,
    /// Least TTL or hop limit of what was sent to a group.
    pub group_hop_limit: u8,
    /// The same for what was sent to an address of this host; `None` when that is never for us.
    pub unicast_hop_limit: Option<u8>,
}

impl Ours {
    /// What the program would say of a datagram, with its octets as the socket delivers them.
    pub fn include(&self, family: Family, received: &Received, octets: &[u8]) -> bool {
        let message = match family {
            Family::V4 => {
                let header = octets.first().map_or(0, |first| usize::from(first & 0xf) * 4);
                octets.get(header..).unwrap_or_default()
            }
            Family::V6 => octets,
        };
        let &[first, second, ..] = message else { return false };
        let least = if received.destination.is_multicast() {
            Some(self.group_hop_limit)
        } else {
            self.unicast_hop_limit
        };
        message.len() >= self.least_octets as usize
            && least.is_some_and(|least| received.hop_limit.is_some_and(|limit| limit >= least))
            && self.kinds.iter().any(|(kind, seconds)| *kind == first && seconds.contains(second))
    }
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
pub fn program(family: Family, filter: &Filter) -> Vec<SockFilter> {
    assemble(family, filter).into_iter().map(Instruction::into_kernel).collect()
}

fn assemble(family: Family, filter: &Filter) -> Vec<Instruction> {
    let mut program = Program::default();
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

/// Operations of the classic BPF that are used here. A is the accumulator, X the index register.
mod code {
    /// A = word or octet at `k`.
    pub const LOAD_WORD: u16 = 0x20;
    pub const LOAD_OCTET: u16 = 0x30;
    /// A = octet at X + `k`.
    pub const LOAD_OCTET_INDEXED: u16 = 0x50;
    /// A = `k`.
    pub const LOAD_CONSTANT: u16 = 0x00;
    /// A = octets of what the program sees.
    pub const LOAD_LENGTH: u16 = 0x80;
    /// X = 4 * (low half of the octet at `k`): the length of an IPv4 header.
    pub const LOAD_HEADER_LENGTH: u16 = 0xb1;
    /// M[`k`] = A; A = M[`k`].
    pub const STORE: u16 = 0x02;
    pub const RECALL: u16 = 0x60;
    /// X = A.
    pub const MOVE_TO_INDEX: u16 = 0x07;
    pub const SUBTRACT_INDEX: u16 = 0x1c;
    pub const AND: u16 = 0x54;
    pub const SHIFT_RIGHT: u16 = 0x74;
    pub const SHIFT_RIGHT_INDEX: u16 = 0x7c;
    /// Jumps: `jt` further when it holds for A and `k`, else `jf`.
    pub const ALWAYS: u16 = 0x05;
    pub const IF_EQUAL: u16 = 0x15;
    pub const IF_GREATER: u16 = 0x25;
    pub const IF_AT_LEAST: u16 = 0x35;
    pub const IF_ANY_BIT: u16 = 0x45;
    pub const RETURN: u16 = 0x06;
}

/// One instruction in the kernel's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

impl Instruction {
    const fn into_kernel(self) -> SockFilter {
        SockFilter::new(self.code, self.jt, self.jf, self.k)
    }
}

/// A place in the program that lies ahead of all jumps to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    /// The source is one of ours.
    Examine,
    /// The hop limit is right.
    Kind,
    /// The first octet is that of this kind.
    Second(usize),
    /// A holds 32 bits of the set, X which of them counts.
    Bit,
    Foreign,
    LetIn,
    Drop,
}

/// A program under construction.
#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    /// Positions of unconditional jumps, and where they go.
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

impl Program {
    fn load(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction { code, jt: 0, jf: 0, k });
    }

    fn jump(&mut self, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.load(code::ALWAYS, 0);
    }

    /// Goes to `to` when the condition holds. Its own jump cannot reach further than 255
    /// instructions, an unconditional one can.
    fn when(&mut self, code: u16, k: u32, to: Label) {
        self.instructions.push(Instruction { code, jt: 0, jf: 1, k });
        self.jump(to);
    }

    fn unless(&mut self, code: u16, k: u32, to: Label) {
        self.instructions.push(Instruction { code, jt: 1, jf: 0, k });
        self.jump(to);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.instructions.len()));
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            // INVARIANT: every label that is jumped to is placed later in the same program.
            let (_, target) = self.places.iter().find(|(one, _)| *one == label).expect("placed");
            self.instructions[at].k = (target - at - 1) as u32;
        }
        self.instructions
    }

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
    fn compare_sources(&mut self, family: Family, sources: &[IpAddr], then: Label) {
        for source in sources.iter().take(MAX_SOURCES) {
            match (family, source) {
                (Family::V4, IpAddr::V4(source)) => {
                    self.load(code::LOAD_WORD, V4_SOURCE);
                    self.when(code::IF_EQUAL, u32::from(*source), then);
                }
                (Family::V6, IpAddr::V6(source)) => {
                    let words = source.octets();
                    let words = words.chunks_exact(4).zip((0..).step_by(4));
                    // From a word that differs past the rest of this source: two instructions for
                    // each word still to come, and the jump.
                    for (word, offset) in words {
                        let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
                        let rest = 2 * ((12 - offset) / 4) + 1;
                        self.load(code::LOAD_WORD, network_header(V6_SOURCE + offset));
                        let jf = rest as u8;
                        let jump = Instruction { code: code::IF_EQUAL, jt: 0, jf, k: word };
                        self.instructions.push(jump);
                    }
                    self.jump(then);
                }
                // Nothing of the other family arrives here.
                (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => {}
            }
        }
    }

    /// Ends in a jump. For IPv4 the program sees the IP header, for IPv6 the message alone; there
    /// the header is reached by its own offset.
    fn examine(&mut self, family: Family, ours: &Ours) {
        match family {
            Family::V4 => {
                self.load(code::LOAD_HEADER_LENGTH, 0);
                self.load(code::LOAD_LENGTH, 0);
                self.load(code::SUBTRACT_INDEX, 0);
            }
            // X is 0 in the beginning.
            Family::V6 => self.load(code::LOAD_LENGTH, 0),
        }
        // Two octets are read below.
        self.unless(code::IF_AT_LEAST, ours.least_octets.max(2), Label::Foreign);
        self.examine_hop_limit(family, ours);
        self.place(Label::Kind);
        self.load(code::LOAD_OCTET_INDEXED, 0);
        for (number, (first, _)) in ours.kinds.iter().enumerate() {
            self.when(code::IF_EQUAL, u32::from(*first), Label::Second(number));
        }
        self.jump(Label::Foreign);
        for (number, (_, seconds)) in ours.kinds.iter().enumerate() {
            self.place(Label::Second(number));
            self.look_up(seconds);
        }
        self.place(Label::Bit);
        self.load(code::SHIFT_RIGHT_INDEX, 0);
        self.when(code::IF_ANY_BIT, 1, Label::LetIn);
    }

    /// Goes to [`Label::Kind`] or [`Label::Foreign`].
    fn examine_hop_limit(&mut self, family: Family, ours: &Ours) {
        let (destination, hop_limit, multicast) = match family {
            Family::V4 => (V4_DESTINATION, V4_HOP_LIMIT, V4_MULTICAST),
            Family::V6 => {
                let [destination, limit] = [V6_DESTINATION, V6_HOP_LIMIT].map(network_header);
                (destination, limit, V6_MULTICAST)
            }
        };
        self.load(code::LOAD_OCTET, destination);
        // To a group: past the three or one instructions for unicast.
        let unicast = if ours.unicast_hop_limit.is_some() { 4 } else { 1 };
        let jump = Instruction { code: code::IF_AT_LEAST, jt: unicast, jf: 0, k: multicast };
        self.instructions.push(jump);
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

    /// With the 32 bits of `set` that the message's second octet is among to [`Label::Bit`].
    fn look_up(&mut self, set: &OctetSet) {
        const OCTET: u32 = 0;
        self.load(code::LOAD_OCTET_INDEXED, 1);
        self.load(code::STORE, OCTET);
        self.load(code::AND, 31);
        self.load(code::MOVE_TO_INDEX, 0);
        self.load(code::RECALL, OCTET);
        self.load(code::SHIFT_RIGHT, 5);
        for (number, bits) in (0..).zip(set.0).filter(|(_, bits)| *bits != 0) {
            let skip = Instruction { code: code::IF_EQUAL, jt: 0, jf: 2, k: number };
            self.instructions.push(skip);
            self.load(code::LOAD_CONSTANT, bits);
            self.jump(Label::Bit);
        }
        self.jump(Label::Foreign);
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
            kinds: vec![
                (0x21, [9, 255].into_iter().collect()),
                (0x31, [1, 31, 32, 200].into_iter().collect()),
            ],
            least_octets: 8,
            group_hop_limit: 255,
            unicast_hop_limit: Some(254),
        }
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
            SockRef::from(&filtered).attach_filter(&program(Family::V4, filter)).unwrap();
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
                let told = ours().include(Family::V4, &received(&octets), &octets);
                assert_eq!(told, expected, "{first} {second}");
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
            assert_eq!(ours.include(Family::V4, &received(&octets), &octets), expected, "{what}");
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
        let kinds = (0..4).map(|first| (first, (0..=255).collect())).collect();
        let foreign = only_ours(Ours { kinds, ..ours() });
        let v4 = Ipv4Addr::from(PEER).into();
        let filter = Filter { sources: Sources::Except(vec![v4; 20]), foreign };
        assert!(Kernel::new(&filter).lets_in(&datagram(OWN, GROUP, 255, &[3; 8])));
        let filter =
            Filter { sources: Sources::Only(vec!["fe80::1".parse().unwrap(); 20]), ..filter };
        let (_, socket) = UnixDatagram::pair().unwrap();
        let program = program(Family::V6, &filter);
        SockRef::from(&socket).attach_filter(&program).unwrap();
        assert!(program.len() < 300, "{}", program.len());
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
        assert_eq!(assemble(Family::V4, &filter), expected);
    }
}
