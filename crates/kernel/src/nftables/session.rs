//! Transactions with the packet filter.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::codec;
use crate::transport::{KernelError, NetlinkMessage, NetlinkRequest, NetlinkTransport};

/// Why something could not be had of the packet filter.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    #[error("nftables: {0}")]
    Kernel(#[from] KernelError),
    /// Nothing is known about what was done.
    #[error("nftables: netlink: {0}")]
    Socket(#[from] io::Error),
}

impl NftablesError {
    /// Something that was to be new is there already.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Self::Kernel(error) if error.errno() == Errno::EEXIST)
    }

    /// The kernel's error, where it may be that of a part of what was asked.
    ///
    /// # Errors
    /// This one, where no part of it would fare better.
    pub(crate) fn of_parts(self) -> Result<KernelError, Self> {
        match self {
            Self::Kernel(error) if !is_denial(&error) => Ok(error),
            other => Err(other),
        }
    }

    /// For want of CAP_NET_ADMIN.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Kernel(error) if is_denial(error))
    }

    /// A table, set or element that is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Kernel(error) if error.errno() == Errno::ENOENT)
    }
}

fn is_denial(error: &KernelError) -> bool {
    matches!(error.errno(), Errno::EPERM | Errno::EACCES)
}

/// A socket for the packet filter of one network namespace.
#[derive(Debug)]
pub(crate) struct Session(NetlinkTransport);

impl Session {
    pub(crate) fn open() -> io::Result<Self> {
        NetlinkTransport::open(NETLINK_NETFILTER).map(Self)
    }

    /// All requests, or none: the error is that of the first one that failed.
    pub(crate) fn commit(&mut self, requests: &[NetlinkRequest]) -> Result<(), NftablesError> {
        Ok(self.0.transact(&codec::begin(), requests, &codec::end())??)
    }

    /// How often the rules of this network namespace have changed, by whomever.
    pub(crate) fn generation(&mut self) -> Result<Option<u32>, NftablesError> {
        let answers = self.0.exchange(&[codec::get_generation()])?;
        let messages = answers.into_iter().next().unwrap_or_default().into_result()?;
        Ok(messages.iter().find_map(|message| codec::read_generation(&message.body)))
    }

    /// Messages of a dump.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
    ) -> Result<Vec<NetlinkMessage>, NftablesError> {
        Ok(self.0.dump(kind, body)??)
    }
}

/// Acts through `session`, opened when there is none. A socket that failed is not used again.
pub(crate) fn with<T>(
    session: &mut Option<Session>,
    act: impl FnOnce(&mut Session) -> Result<T, NftablesError>,
) -> Result<T, NftablesError> {
    let mut open = match session.take() {
        Some(open) => open,
        None => Session::open()?,
    };
    let outcome = act(&mut open);
    if !matches!(outcome, Err(NftablesError::Socket(_))) {
        *session = Some(open);
    }
    outcome
}
