//! What differs between the sockets of the two families.

use std::io;

pub const IPV4_HEADER_OCTETS: usize = 20;

pub fn wrong_family() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "address is not of the socket's family")
}
