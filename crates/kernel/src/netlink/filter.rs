//! Keeps the echo of our own renewals out of the monitor's socket.
//!
//! The kernel tells every listener about every changed address, whoever asked for the change. We
//! know what our own requests did from their answers; with thousands of leases, reading it once
//! more would cost more than renewing them.

use std::io;

use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
    BPF_MISC, BPF_RET, BPF_TAX, BPF_W, RTM_NEWADDR, SKF_AD_NLATTR, SKF_AD_OFF,
};
use socket2::{SockFilter, SockRef};

use super::address::MARK;

/// Where nlmsg_type and nlmsg_pid lie in a datagram.
const TYPE_AT: u32 = 4;
const PORT_AT: u32 = 12;
/// The attributes lie behind struct nlmsghdr and struct ifaddrmsg.
const ATTRIBUTES_AT: u32 = 24;
/// Length and kind, before the value of an attribute.
const VALUE_AT: u32 = 4;

const IFA_FLAGS: u32 = 8;
const IFA_PROTO: u32 = 11;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

const DROP: u32 = 0;
const ACCEPT: u32 = u32::MAX;

/// Lets the socket drop an RTM_NEWADDR with our mark that `own_port` caused. The kernel does not
/// tell who caused a change of an IPv6 address: there the mark is enough. What duplicate address
/// detection has to say passes, and so does everything on a kernel that keeps no marks.
pub(crate) fn drop_own_renewals(socket: &SockRef<'_>, own_port: u32) -> io::Result<()> {
    // Loads read big-endian numbers; netlink's are in host order.
    let new_address = u32::from(RTM_NEWADDR.to_be());
    let in_detection = (IFA_F_TENTATIVE | IFA_F_DADFAILED).to_be();
    // Replaces A, where the attributes begin, by where the one of kind X lies; 0 if nowhere.
    let find_attribute = || plain(BPF_LD | BPF_W | BPF_ABS, (SKF_AD_OFF + SKF_AD_NLATTR) as u32);
    // The last two numbers of a jump are the instructions passed over when it is true and false.
    socket.attach_filter(&[
        /*  0 */ plain(BPF_LD | BPF_H | BPF_ABS, TYPE_AT),
        /*  1 */ jump(BPF_JEQ, new_address, 0, 17),
        /*  2 */ plain(BPF_LD | BPF_W | BPF_ABS, PORT_AT),
        /*  3 */ jump(BPF_JEQ, own_port.to_be(), 1, 0),
        /*  4 */ jump(BPF_JEQ, 0, 0, 14),
        /*  5 */ plain(BPF_LDX | BPF_W | BPF_IMM, IFA_PROTO),
        /*  6 */ plain(BPF_LD | BPF_W | BPF_IMM, ATTRIBUTES_AT),
        /*  7 */ find_attribute(),
        /*  8 */ jump(BPF_JEQ, 0, 10, 0),
        /*  9 */ plain(BPF_MISC | BPF_TAX, 0),
        /* 10 */ plain(BPF_LD | BPF_B | BPF_IND, VALUE_AT),
        /* 11 */ jump(BPF_JEQ, u32::from(MARK), 0, 7),
        /* 12 */ plain(BPF_LDX | BPF_W | BPF_IMM, IFA_FLAGS),
        /* 13 */ plain(BPF_LD | BPF_W | BPF_IMM, ATTRIBUTES_AT),
        /* 14 */ find_attribute(),
        /* 15 */ jump(BPF_JEQ, 0, 3, 0),
        /* 16 */ plain(BPF_MISC | BPF_TAX, 0),
        /* 17 */ plain(BPF_LD | BPF_W | BPF_IND, VALUE_AT),
        /* 18 */ jump(BPF_JSET, in_detection, 0, 1),
        /* 19 */ plain(BPF_RET | BPF_K, ACCEPT),
        /* 20 */ plain(BPF_RET | BPF_K, DROP),
    ])
}

fn plain(code: u32, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, k)
}

fn jump(condition: u32, k: u32, when_true: u8, when_false: u8) -> SockFilter {
    SockFilter::new((BPF_JMP | condition | BPF_K) as u16, when_true, when_false, k)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use netlink_packet_core::Emitable;
    use netlink_packet_route::address::{
        AddressAttribute, AddressFlags, AddressMessage, AddressProtocol,
    };

    use super::*;

    const OWN_PORT: u32 = 4711;

    /// A notification as the kernel writes it.
    fn notification(kind: u16, port: u32, mark: Option<u8>, flags: AddressFlags) -> Vec<u8> {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Address([192, 0, 2, 10].into()));
        message.attributes.push(AddressAttribute::Flags(flags));
        if let Some(mark) = mark {
            message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(mark)));
        }
        let mut octets = vec![0; 16 + message.buffer_len()];
        let length = octets.len() as u32;
        octets[0..4].copy_from_slice(&length.to_ne_bytes());
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets[12..16].copy_from_slice(&port.to_ne_bytes());
        message.emit(&mut octets[16..]);
        octets
    }

    #[test]
    fn only_what_we_renewed_ourselves_is_dropped() {
        let (send, receive) = UnixDatagram::pair().unwrap();
        receive.set_nonblocking(true).unwrap();
        drop_own_renewals(&SockRef::from(&receive), OWN_PORT).unwrap();
        let passes = |octets: &[u8]| {
            // A datagram that the filter of the other end drops counts as sent.
            send.send(octets).unwrap();
            receive.recv(&mut [0; 256]).is_ok()
        };
        let none = AddressFlags::empty();
        let ours = |port, flags| notification(RTM_NEWADDR, port, Some(MARK), flags);
        assert!(!passes(&ours(OWN_PORT, none)));
        assert!(!passes(&ours(0, AddressFlags::Nodad)), "the kernel names nobody for IPv6");
        assert!(passes(&ours(OWN_PORT + 1, none)), "somebody else changed ours");
        assert!(passes(&ours(0, AddressFlags::Tentative | AddressFlags::Dadfailed)));
        for mark in [None, Some(MARK + 1)] {
            let foreign = notification(RTM_NEWADDR, OWN_PORT, mark, none);
            assert!(passes(&foreign), "a secondary address that takes the place of ours");
        }
        assert!(passes(&notification(libc::RTM_DELADDR, OWN_PORT, Some(MARK), none)));
        let whole = ours(OWN_PORT, none);
        for end in 1..whole.len() {
            // Cut short it may pass or not, as long as the next whole one is judged rightly.
            let _ = passes(&whole[..end]);
        }
        assert!(!passes(&whole));
    }
}
