//! The wire between the nodes: delay, jitter, loss, duplication, corruption and partitions, each
//! per direction.
//!
//! Knows nothing of VRRP: it carries octets. A link that is slow in one direction or deaf in the
//! other is one entry of a matrix.

use std::net::IpAddr;
use std::time::Duration;

use locum_vrrp::Family;

use crate::random::Random;

/// One direction between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    pub delay: Duration,
    /// Up to this much more, drawn for each frame.
    pub jitter: Duration,
    /// Per mille of frames.
    pub loss: u32,
    pub duplication: u32,
    pub corruption: u32,
    pub blocked: bool,
}

impl Path {
    const fn quiet(delay: Duration, jitter: Duration) -> Self {
        Self { delay, jitter, loss: 0, duplication: 0, corruption: 0, blocked: false }
    }
}

/// A datagram on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub from: usize,
    /// The link it was sent on, and arrives on.
    pub link: usize,
    pub family: Family,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hop_limit: u8,
    /// IPv4: with its IP header. IPv6: the payload.
    pub bytes: Vec<u8>,
    /// What the wire did to it; a receiver must not act on it.
    pub damage: Option<Damage>,
}

/// One octet of the message is not what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    pub position: usize,
    pub was: u8,
}

/// What became of one copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub to: usize,
    pub after: Duration,
    pub frame: Frame,
}

#[derive(Debug)]
pub struct Lan {
    paths: Vec<Vec<Path>>,
    quiet: Path,
}

impl Lan {
    /// Every path alike: this delay, up to this much jitter, nothing lost.
    pub fn new(nodes: usize, delay: Duration, jitter: Duration) -> Self {
        let quiet = Path::quiet(delay, jitter);
        Self { paths: vec![vec![quiet; nodes]; nodes], quiet }
    }

    pub fn path(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.paths[from][to]
    }

    /// As it was in the beginning.
    pub fn heal(&mut self) {
        let quiet = self.quiet;
        for path in self.paths.iter_mut().flatten() {
            *path = quiet;
        }
    }

    /// Cuts every path, both ways, between nodes for which `side` differs.
    pub fn split(&mut self, side: impl Fn(usize) -> bool) {
        for (from, row) in self.paths.iter_mut().enumerate() {
            for (to, path) in row.iter_mut().enumerate() {
                path.blocked |= side(from) != side(to);
            }
        }
    }

    /// The longest a frame takes on a quiet path.
    pub fn longest(&self) -> Duration {
        self.quiet.delay + self.quiet.jitter
    }

    /// Both directions carry everything, unharmed and in good time.
    pub fn joins(&self, one: usize, other: usize) -> bool {
        self.paths[one][other] == self.quiet && self.paths[other][one] == self.quiet
    }

    /// Neither direction carries anything.
    pub fn parts(&self, one: usize, other: usize) -> bool {
        self.paths[one][other].blocked && self.paths[other][one].blocked
    }

    /// No path is disturbed.
    pub fn is_quiet(&self) -> bool {
        let count = self.paths.len();
        (0..count).all(|one| (0..count).all(|other| self.joins(one, other)))
    }

    /// What becomes of one frame from its sender to one receiver: no copy, one or two.
    pub fn carry(&self, random: &mut Random, to: usize, frame: &Frame) -> Vec<Arrival> {
        let path = self.paths[frame.from][to];
        if path.blocked || (path.loss > 0 && random.per_mille(path.loss)) {
            return Vec::new();
        }
        let copies = 1 + usize::from(path.duplication > 0 && random.per_mille(path.duplication));
        (0..copies)
            .map(|_| {
                let mut frame = frame.clone();
                if path.corruption > 0 && random.per_mille(path.corruption) {
                    damage(random, &mut frame);
                }
                Arrival { to, after: path.delay + random.span(path.jitter), frame }
            })
            .collect()
    }
}

/// Flips one bit of the message: one's complement sums find every such error. The IP header is
/// left alone, since a kernel drops a datagram with a bad one.
fn damage(random: &mut Random, frame: &mut Frame) {
    let start = crate::wire::header_length(frame.family);
    let position = start + random.index(frame.bytes.len() - start);
    frame.damage = Some(Damage { position, was: frame.bytes[position] });
    frame.bytes[position] ^= 1 << random.below(8);
}
