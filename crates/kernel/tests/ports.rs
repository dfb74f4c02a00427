//! What the kernel says of listeners, and whether it lets one more in.

mod namespace;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use locum_kernel::ports::{PortSharing, SocketOwner, owners, try_bind};
use locum_kernel::sock_diag::{SockDiag, TcpListening};
use namespace::in_namespace;
use socket2::{Domain, Socket, Type};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn all_listeners() -> Vec<TcpListening> {
    SockDiag::open().expect("a socket").all_listeners().expect("an answer")
}

fn refused(text: &str, sharing: PortSharing) -> bool {
    match try_bind(address(text), sharing) {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{text}");
            true
        }
    }
}

#[test]
fn listeners_are_seen_with_their_owner_and_keep_others_away() {
    in_namespace("listeners_are_seen_with_their_owner_and_keep_others_away", || {
        assert_eq!(all_listeners(), []);
        let one = TcpListener::bind("127.0.0.1:8080").expect("free");
        let six = TcpListener::bind("[::1]:8081").expect("free");
        let seen = all_listeners();
        let addresses: Vec<_> = seen.iter().map(|one| one.local.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:8080", "[::1]:8081"]);
        let inodes: Vec<u32> = seen.iter().map(|one| one.inode).collect();
        let owners = owners(&inodes);
        for inode in inodes {
            let is_ours =
                |(of, owner): &(u32, SocketOwner)| *of == inode && owner.pid == std::process::id();
            assert!(owners.iter().any(is_ours), "{owners:?}");
        }
        for sharing in [PortSharing::Alone, PortSharing::Shared] {
            assert!(refused("127.0.0.1:8080", sharing));
            assert!(refused("0.0.0.0:8080", sharing));
            assert!(refused("[::1]:8081", sharing));
            assert!(!refused("127.0.0.2:8080", sharing));
            // An address that is not here, and one of the other family.
            assert!(!refused("192.0.2.1:8080", sharing));
            assert!(!refused("[2001:db8::1]:8081", sharing));
            assert!(!refused("[::]:8080", sharing));
        }
        drop((one, six));
        assert!(!refused("127.0.0.1:8080", PortSharing::Alone), "nothing is left bound");
        assert_eq!(all_listeners(), []);
    });
}

#[test]
fn who_shares_its_port_lets_in_who_does_too() {
    in_namespace("who_shares_its_port_lets_in_who_does_too", || {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        other.set_reuse_port(true).expect("an option");
        other.bind(&address("0.0.0.0:8080").into()).expect("free");
        other.listen(1).expect("free");
        assert!(!refused("192.0.2.1:8080", PortSharing::Shared));
        assert!(refused("192.0.2.1:8080", PortSharing::Alone));
    });
}
