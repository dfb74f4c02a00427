//! What this host has run out of: no fault of a server, whatever was asked of it.

use std::io;

use nix::errno::Errno;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// Of the process, or of the host.
    Descriptors,
    Memory,
    /// Every local port is in use towards this one server.
    Ports,
}

impl Shortage {
    /// `None` when the error is another one.
    pub fn of(error: &io::Error) -> Option<Self> {
        let errno = error.raw_os_error().map(Errno::from_raw)?;
        if [Errno::EMFILE, Errno::ENFILE].contains(&errno) {
            Some(Self::Descriptors)
        } else if [Errno::ENOBUFS, Errno::ENOMEM].contains(&errno) {
            Some(Self::Memory)
        } else if errno == Errno::EADDRNOTAVAIL {
            Some(Self::Ports)
        } else {
            None
        }
    }

    /// For the operator: what is short, and what to do.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Descriptors => {
                "no descriptors are left, raise the limit of open files (LimitNOFILE)"
            }
            Self::Memory => "the kernel has no memory for sockets, see net.ipv4.tcp_mem",
            Self::Ports => {
                "no local ports are left towards a server, widen net.ipv4.ip_local_port_range"
            }
        }
    }

    /// Another server may be reached all the same.
    pub fn is_of_one_server(self) -> bool {
        match self {
            Self::Ports => true,
            Self::Descriptors | Self::Memory => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_is_no_shortage_of_ours() {
        let of = |errno: Errno| Shortage::of(&io::Error::from(errno));
        assert_eq!(of(Errno::EMFILE), Some(Shortage::Descriptors));
        assert_eq!(of(Errno::ENFILE), Some(Shortage::Descriptors));
        assert_eq!(of(Errno::ENOMEM), Some(Shortage::Memory));
        assert_eq!(of(Errno::ENOBUFS), Some(Shortage::Memory));
        assert_eq!(of(Errno::EADDRNOTAVAIL), Some(Shortage::Ports));
        for errno in [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EHOSTUNREACH] {
            assert_eq!(of(errno), None, "{errno}");
        }
    }
}
