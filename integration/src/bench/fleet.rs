//! Many virtual routers on two directors that are joined by as many cables as they need.
//!
//! ```text
//!   lb1 ── eth0, eth1, … eth15 ── lb2      255 virtual routers on each link
//! ```

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::capture::Capture;
use crate::node::Node;
use crate::pair::FIRST;
use crate::pair::Kinds;
use crate::pair::SECOND;
use crate::peer::Router;
use crate::peer::Running;
use crate::require::Company;
use crate::require::Turn;

/// Virtual router numbers of one link and family.
const NUMBERS: u16 = 255;
/// Links that the scheme of addresses has room for.
const LINKS: u16 = 100;

/// How many virtual routers, and how often each of them speaks: `2040x1s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub instances: u16,
    pub interval: Duration,
}

impl Size {
    fn links(self) -> u16 {
        self.instances.div_ceil(NUMBERS)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, interval) =
            text.split_once('x').ok_or("a size is INSTANCESxINTERVAL, as 255x100ms")?;
        let instances = count.parse().map_err(|error| format!("{count}: {error}"))?;
        if !(1..=NUMBERS * LINKS).contains(&instances) {
            return Err(format!("1 to {} instances", NUMBERS * LINKS));
        }
        let interval =
            humantime::parse_duration(interval).map_err(|error| format!("{interval}: {error}"))?;
        Ok(Self { instances, interval })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} x {:?}", self.instances, self.interval)
    }
}

/// The two directors; no daemon runs yet.
pub struct Fleet {
    pub directors: [Node; 2],
    size: Size,
    _turn: Turn,
}

impl Fleet {
    /// Makes the machines and their cables.
    pub fn new(size: Size) -> Self {
        let turn = Turn::take(Company::Alone);
        let fleet = Self { directors: [Node::new("lb1"), Node::new("lb2")], size, _turn: turn };
        let [first, second] = [0, 1].map(|at| fleet.directors[at].pid());
        let mut cables = String::new();
        for link in 0..size.links() {
            let _ = writeln!(
                cables,
                "ip link add eth{link} netns {first} type veth peer name eth{link} netns {second}"
            );
        }
        // Made from a namespace in which both process numbers are known.
        let made = std::process::Command::new("/bin/sh").args(["-ec", &cables]).status();
        assert!(made.is_ok_and(|status| status.success()), "cannot make the cables");
        for (director, node) in (1..).zip(&fleet.directors) {
            let mut setup = String::new();
            for link in 0..size.links() {
                let _ = writeln!(
                    setup,
                    "ip addr add 10.{link}.1.{director}/24 dev eth{link}\nip link set eth{link} up"
                );
            }
            node.shell(&setup);
        }
        fleet
    }

    /// The virtual routers of a director, by its position; the first one is better.
    pub fn routers(&self, director: usize) -> Vec<Router> {
        let one = |number: u16| {
            let (link, vrid) = (number / NUMBERS, number % NUMBERS + 1);
            // INVARIANT: a remainder of 255, plus one.
            let vrid = u8::try_from(vrid).expect("a virtual router's number");
            let interface = format!("eth{link}");
            let address = virtual_address(link, vrid);
            Router::new(vrid, [FIRST, SECOND][director], &[&format!("{address}/32")])
                .every(self.size.interval)
                .on(&interface)
        };
        (0..self.size.instances).map(one).collect()
    }

    /// Starts the daemon of a director with all its virtual routers.
    pub fn start(&self, kinds: Kinds, director: usize) -> Running {
        let kind = [kinds.first, kinds.second][director];
        kind.start(&self.directors[director], &self.routers(director))
    }

    /// How many of the virtual addresses each director has.
    pub fn held(&self) -> [usize; 2] {
        [0, 1].map(|at| {
            let all = self.directors[at].addresses();
            all.iter().filter(|assigned| is_virtual(assigned.address)).count()
        })
    }

    /// Records what the other director sends to this one, on all links.
    pub fn capture_at(&self, director: usize) -> Capture {
        Capture::start(&self.directors[director])
    }
}

/// The address of a virtual router.
fn virtual_address(link: u16, vrid: u8) -> IpAddr {
    // INVARIANT: a size has no more links than the scheme has room for.
    let network = 100 + u8::try_from(link).expect("a link's number");
    IpAddr::from([10, network, 0, vrid])
}

/// The address of the virtual router with this number on this interface.
pub fn address_on(interface: &str, vrid: u8) -> Option<IpAddr> {
    let link = interface.strip_prefix("eth")?.parse().ok().filter(|link| *link < LINKS)?;
    Some(virtual_address(link, vrid))
}

/// Whether an address is one that a virtual router has, and not a director's own.
pub fn is_virtual(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10 && v4.octets()[1] >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::millis;

    #[test]
    fn a_size_is_read_and_shown() {
        let size: Size = "1020x100ms".parse().expect("a size");
        assert_eq!(size, Size { instances: 1020, interval: millis(100) });
        assert_eq!((size.links(), size.to_string().as_str()), (4, "1020 x 100ms"));
        for wrong in ["255", "0x1s", "30000x1s", "5x", "x1s"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
