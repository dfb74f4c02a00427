//! The witness: what each machine sent on the front network, and when, from a packet socket on the
//! switch.
//!
//! It decodes with code of its own, so that an error in our codec cannot vouch for itself.

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::LinkAddr;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockaddrLike as _;
use nix::sys::socket::recvmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use socket2::SockFilter;

use crate::node::Node;

/// `ETH_P_ALL` of `linux/if_ether.h`: every frame, also those a bridge takes before IP sees them.
const EVERY_PROTOCOL: u16 = 0x0003;
/// `PACKET_OUTGOING` of `linux/if_packet.h`: what the switch itself passes on.
const OUTGOING: u8 = 4;
/// Deep enough for the announcements of thousands of addresses at once, and for seconds of probes at
/// 1 kHz to and fro, while the reader is not scheduled.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How soon the reader notices that it shall end.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// A VRRP advertisement as it was on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    pub version: u8,
    pub vrid: u8,
    pub priority: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Source address of the frame.
    pub mac: [u8; 6],
}

/// What a frame was, as far as the lab cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Advert(Advert),
    /// An ARP packet whose sender and target address are the same.
    GratuitousArp {
        address: Ipv4Addr,
    },
    /// A neighbour advertisement that nobody asked for.
    UnsolicitedNeighbour {
        address: Ipv6Addr,
    },
}

/// A frame, who sent it, and when the switch got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub at: Instant,
    /// Name of the node at that port.
    pub from: String,
    pub kind: Kind,
}

/// A running capture; ends when dropped.
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to record at the ports of `switch`.
    pub(crate) fn start(switch: &Node) -> Self {
        Self::start_with(switch, &[])
    }

    /// The same without what comes from this address: the kernel drops that, so that a flood from
    /// there costs nothing.
    pub(crate) fn start_without(switch: &Node, mac: [u8; 6]) -> Self {
        let [_, _, low @ ..] = mac;
        // Load the last four bytes of the source; drop if they are these, else take all.
        let filter = [
            SockFilter::new(0x20, 0, 0, 8),
            SockFilter::new(0x15, 0, 1, u32::from_be_bytes(low)),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        Self::start_with(switch, &filter)
    }

    fn start_with(switch: &Node, filter: &[SockFilter]) -> Self {
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, ports) = switch.in_network(|| {
            let protocol = socket2::Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            let socket =
                socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(protocol))
                    .expect("cannot open a packet socket");
            let ports: Vec<(usize, String)> = nix::net::if_::if_nameindex()
                .expect("cannot list ports")
                .iter()
                .map(|port| (port.index() as usize, port.name().to_string_lossy().into_owned()))
                .filter(|(_, name)| !["lo", "front", "back"].contains(&name.as_str()))
                .collect();
            (socket, ports)
        });
        if !filter.is_empty() {
            socket.attach_filter(filter).expect("cannot attach a filter");
        }
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("cannot set a buffer");
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("cannot ask for timestamps");
        socket.set_read_timeout(Some(READ_TIMEOUT)).expect("cannot set a timeout");
        let reader = std::thread::spawn({
            let (frames, stop) = (Arc::clone(&frames), Arc::clone(&stop));
            move || read(&socket, &ports, &frames, &stop)
        });
        Self { frames, stop, reader: Some(reader) }
    }

    /// Everything recorded so far, in order of arrival.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The adverts of a node, with their times.
    pub fn adverts(&self, from: &str) -> Vec<(Instant, Advert)> {
        let sent = self.frames().into_iter().filter(|frame| frame.from == from);
        sent.filter_map(|frame| match frame.kind {
            Kind::Advert(advert) => Some((frame.at, advert)),
            Kind::GratuitousArp { .. } | Kind::UnsolicitedNeighbour { .. } => None,
        })
        .collect()
    }

    /// When a node announced `address` to its neighbours.
    pub fn announcements(&self, from: &str, address: IpAddr) -> Vec<Instant> {
        let sent = self.frames().into_iter().filter(|frame| frame.from == from);
        sent.filter_map(|frame| {
            let announced = match frame.kind {
                Kind::Advert(_) => return None,
                Kind::GratuitousArp { address } => IpAddr::V4(address),
                Kind::UnsolicitedNeighbour { address } => IpAddr::V6(address),
            };
            (announced == address).then_some(frame.at)
        })
        .collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // A panic of the reader has been printed.
            let _ = reader.join();
        }
    }
}

fn read(
    socket: &socket2::Socket,
    ports: &[(usize, String)],
    frames: &Mutex<Vec<Frame>>,
    stop: &AtomicBool,
) {
    let mut bytes = [0_u8; 2048];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut clocks = Clocks::read();
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<LinkAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let Ok(message) = received else {
            // A timeout: look at `stop` again, and at the clocks, one of which may have been set.
            clocks = Clocks::read();
            continue;
        };
        let Some(link) = message.address.filter(|link| link.len() > 0) else { continue };
        let Some((_, port)) = ports.iter().find(|(index, _)| *index == link.ifindex()) else {
            continue;
        };
        if link.pkttype() == OUTGOING {
            continue;
        }
        let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let length = message.bytes;
        if let Some(kind) = decode(&bytes[..length]) {
            let frame = Frame { at: clocks.instant(stamp), from: port.clone(), kind };
            frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        }
    }
}

/// Both clocks at one moment, and not at each frame: the time between two frames is the kernel's
/// alone.
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The kernel's wall clock time stamp as an instant; now if there is none.
    fn instant(&self, stamp: Option<Duration>) -> Instant {
        let Some(stamp) = stamp.map(|since| SystemTime::UNIX_EPOCH + since) else {
            return Instant::now();
        };
        match stamp.duration_since(self.wall) {
            Ok(after) => self.monotonic + after,
            Err(before) => self.monotonic.checked_sub(before.duration()).unwrap_or(self.monotonic),
        }
    }
}

pub(crate) fn decode(frame: &[u8]) -> Option<Kind> {
    let mac: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let payload = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(payload.first()? & 0x0f) * 4;
            let address = |at: usize| {
                let octets: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            match payload.get(9)? {
                // An authentication header (RFC 4302) may come before VRRP.
                51 => {
                    let length = (usize::from(*payload.get(header + 1)?) + 2) * 4;
                    advert(payload.get(header + length..)?, address(12)?, address(16)?, mac)
                }
                112 => advert(payload.get(header..)?, address(12)?, address(16)?, mac),
                _ => None,
            }
        }
        [0x08, 0x06] => {
            let sender: [u8; 4] = payload.get(14..18)?.try_into().ok()?;
            let target: [u8; 4] = payload.get(24..28)?.try_into().ok()?;
            (sender == target).then(|| Kind::GratuitousArp { address: Ipv4Addr::from(sender) })
        }
        [0x86, 0xdd] => {
            let address = |at: usize| {
                let octets: [u8; 16] = payload.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets))
            };
            match (payload.get(6)?, payload.get(40)?) {
                (112, _) => {
                    advert(payload.get(40..)?, address(8)?.into(), address(24)?.into(), mac)
                }
                // RFC 4861 §4.4: the solicited flag is the second bit after the checksum.
                (58, 136) if payload.get(44)? & 0x40 == 0 => {
                    Some(Kind::UnsolicitedNeighbour { address: address(48)? })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn advert(bytes: &[u8], source: IpAddr, destination: IpAddr, mac: [u8; 6]) -> Option<Kind> {
    let [first, vrid, priority, ..] = *bytes else { return None };
    let advert = Advert { version: first >> 4, vrid, priority, source, destination, mac };
    (first & 0x0f == 1).then_some(Kind::Advert(advert))
}
