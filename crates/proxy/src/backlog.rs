//! How many clients wait in the kernel to be accepted at a listener.
//!
//! Asked over sock_diag, for one socket: /proc/net/tcp would be read through for it, with all
//! connections there are.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Of `struct nlmsghdr`, then of `struct inet_diag_req_v2`.
const HEADER: usize = 16;
const REQUEST: usize = 56;

/// Where `struct inet_diag_msg` says the state, and the clients that wait.
const STATE_AT: usize = HEADER + 1;
const WAITING_AT: usize = HEADER + 56;

/// The kernel answers at once, within the call.
const PATIENCE: Duration = Duration::from_millis(100);

/// `None` when the kernel cannot tell, as without its tcp_diag.
pub fn waiting(listen: SocketAddr) -> Option<u64> {
    let mut answer = [0; 1024];
    let length = ask(listen, &mut answer).ok()?;
    read(answer.get(..length)?)
}

fn ask(listen: SocketAddr, answer: &mut [u8]) -> io::Result<usize> {
    let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, protocol)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&request(listen))?;
    socket.read(answer)
}

fn request(listen: SocketAddr) -> [u8; HEADER + REQUEST] {
    let mut octets = [0; HEADER + REQUEST];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        octets[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&((HEADER + REQUEST) as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: one question on a socket of its own needs neither.
    put(&[0; 8]);
    let (family, address) = match listen.ip() {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (AF_INET, octets)
        }
        IpAddr::V6(address) => (AF_INET6, address.octets()),
    };
    put(&[family, IPPROTO_TCP, 0, 0]);
    put(&(1_u32 << TCP_LISTEN).to_ne_bytes());
    put(&listen.port().to_be_bytes());
    put(&[0; 2]);
    put(&address);
    // The other end and the interface: whatever they are.
    put(&[0; 16 + 4]);
    put(&NO_COOKIE);
    octets
}

/// What the answer says of a listener; another socket or an error is none.
fn read(answer: &[u8]) -> Option<u64> {
    let kind = answer.get(4..6)?;
    if kind != SOCK_DIAG_BY_FAMILY.to_ne_bytes() || answer.get(STATE_AT) != Some(&TCP_LISTEN) {
        return None;
    }
    let waiting = answer.get(WAITING_AT..WAITING_AT + 4)?;
    Some(u64::from(u32::from_ne_bytes(waiting.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn clients_that_nobody_accepts_are_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let listen = listener.local_addr().unwrap();
            if waiting(listen).is_none() {
                eprintln!("skipped: this kernel has no sock_diag for TCP");
                return;
            }
            assert_eq!(waiting(listen), Some(0));
            let held: Vec<_> = (0..3).map(|_| TcpStream::connect(listen).unwrap()).collect();
            assert_eq!(waiting(listen), Some(3));
            drop((listener, held));
            assert_eq!(waiting(listen), None, "nobody listens");
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_or_of_another_kind_says_nothing() {
        let mut answer = [0; WAITING_AT + 4];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[STATE_AT] = TCP_LISTEN;
        answer[WAITING_AT..].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(read(&answer), Some(7));
        for length in 0..answer.len() {
            assert_eq!(read(&answer[..length]), None, "{length} octets");
        }
        answer[STATE_AT] = 1;
        assert_eq!(read(&answer), None, "an established connection");
    }
}
