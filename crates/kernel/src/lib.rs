//! Speak to Linux: addresses, links, sockets, IPVS.
