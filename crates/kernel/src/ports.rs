//! Whose a listener is, and whether one more would be let in.
//!
//! What is asked of the kernel is of the network namespace of the calling thread.

use std::fs;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// A process that has a socket open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketOwner {
    pub pid: u32,
    /// Of the program, at most 15 octets of it.
    pub name: String,
}

/// Whether a listener shares its port with others that do (SO_REUSEPORT), of the same user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortSharing {
    Alone,
    Shared,
}

/// Who has these sockets open, as far as this process may see, with the socket's inode; a look at
/// every process there is.
pub fn owners(inodes: &[u32]) -> Vec<(u32, SocketOwner)> {
    let mut found = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let mut name = None;
        for descriptor in descriptors.flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let Some(inode) = link.to_str().and_then(inode) else { continue };
            if !inodes.contains(&inode) {
                continue;
            }
            let read = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = name.get_or_insert_with(read).trim_end().to_owned();
            found.push((inode, SocketOwner { pid, name }));
        }
    }
    found
}

/// Of the socket that a descriptor links to.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A socket that has the port of `address`, which this host may not have, and does not listen yet:
/// IP_FREEBIND asks for nothing but that, where the ip_nonlocal_bind sysctl would ask it for every
/// program of the host. An IPv6 listener means IPv6 alone.
///
/// # Errors
/// The kernel's answer; `AddrInUse` when another one listens there.
pub fn bind(address: SocketAddr, sharing: PortSharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier listener are in nobody's way; on Linux, listeners are.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == PortSharing::Shared)?;
    bind_anywhere(&socket, address)?;
    Ok(socket)
}

/// The same for datagrams, which it gets from now on.
///
/// # Errors
/// As there.
pub fn bind_datagrams(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    bind_anywhere(&socket, address)?;
    Ok(socket)
}

fn bind_anywhere(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())
}

/// Whether [`bind`] would get its port now. For a moment it is bound, and nothing listens.
///
/// # Errors
/// As there.
pub fn try_bind(address: SocketAddr, sharing: PortSharing) -> io::Result<()> {
    bind(address, sharing).map(drop)
}
