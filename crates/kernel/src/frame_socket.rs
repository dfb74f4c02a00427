//! Ethernet frames out, many in one system call. Receives nothing.

use std::io;
use std::os::fd::AsRawFd;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

/// Frames in one system call: bounds the memory that their headers take.
const BATCH_FRAMES: usize = 64;
const MAC_OCTETS: usize = 6;
/// Two MAC addresses and a type.
const ETHERNET_HEADER_OCTETS: usize = 14;

/// A packet socket that only sends. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct FrameSocket {
    socket: Socket,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// Frames the kernel took.
    pub sent: usize,
    /// Position in the batch and reason of each frame it did not take.
    pub failed: Vec<(usize, io::Error)>,
}

impl FrameSocket {
    pub fn open() -> io::Result<Self> {
        // Protocol 0: the kernel gives us no frames.
        Ok(Self { socket: Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)? })
    }

    /// Sends each frame (complete, from the destination MAC on) on the device with this interface
    /// index, in order. Tags of VLANs and choice of bond members are the device's business (G-024).
    /// One that fails does not stop the others.
    pub fn send_batch(&self, frames: &[(u32, &[u8])]) -> Batch {
        let mut batch = Batch::default();
        let mut next = 0;
        while next < frames.len() {
            let end = frames.len().min(next + BATCH_FRAMES);
            match self.send_some(&frames[next..end]) {
                Ok(sent) => {
                    batch.sent += sent;
                    next += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel stops before the frame it does not take.
                Err(error) => {
                    batch.failed.push((next, error));
                    next += 1;
                }
            }
        }
        batch
    }

    /// Sends as many as the kernel takes, at least one, of at most `BATCH_FRAMES`.
    fn send_some(&self, frames: &[(u32, &[u8])]) -> io::Result<usize> {
        let mut addresses: Vec<_> = frames.iter().map(link_address).collect();
        let mut slices: Vec<_> = frames
            .iter()
            .map(|(_, frame)| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<_> = addresses
            .iter_mut()
            .zip(&mut slices)
            .map(|(address, slice)| {
                // SAFETY: all members are integers or pointers, for which zero is valid.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut *address).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                message.msg_hdr.msg_iov = slice;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: `messages` has as many headers as is said. Each points to one address of the
        // stated size and to one slice of a frame, all of which outlive the call and do not move
        // (`addresses`, `slices` and `frames` are not touched in between). The kernel only reads
        // through them and writes `msg_len` of the headers.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(sent) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => Ok(sent),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Device and destination MAC of a frame.
fn link_address((index, frame): &(u32, &[u8])) -> libc::sockaddr_ll {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        // Indices are positive ints; one that is not names no device.
        sll_ifindex: i32::try_from(*index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: MAC_OCTETS as u8,
        sll_addr: [0; 8],
    };
    if let Some(header) = frame.first_chunk::<ETHERNET_HEADER_OCTETS>() {
        address.sll_addr[..MAC_OCTETS].copy_from_slice(&header[..MAC_OCTETS]);
        address.sll_protocol = u16::from_ne_bytes([header[12], header[13]]);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_address_is_taken_from_the_frame() {
        let frame = [1, 2, 3, 4, 5, 6, 9, 9, 9, 9, 9, 9, 0x08, 0x06, 0, 1];
        let address = link_address(&(7, &frame));
        assert_eq!(address.sll_ifindex, 7);
        assert_eq!(address.sll_addr, [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!(address.sll_protocol, 0x0806_u16.to_be());
        assert_eq!(link_address(&(7, &frame[..13])).sll_protocol, 0, "a cut frame has no type");
    }
}
