//! Lines over a unix socket, and descriptors that come with them in the order in which they are spoken
//! of.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::protocol::LINE_LIMIT;

/// Most descriptors with one line; the kernel passes 253 with one message.
pub const MOST_DESCRIPTORS: usize = 128;

/// Read at once.
const BUFFER_SIZE: usize = 64 * 1024;

/// What has come and was not asked for yet.
#[derive(Debug)]
pub struct LineSocket {
    stream: UnixStream,
    octets: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl LineSocket {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, octets: Vec::new(), descriptors: VecDeque::new() }
    }

    /// The next line, with its end.
    ///
    /// # Errors
    /// Of the socket; `UnexpectedEof` when it has ended, `InvalidData` when the line is longer than
    /// [`LINE_LIMIT`].
    pub async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.octets[seen..].iter().position(|octet| *octet == b'\n') {
                let rest = self.octets.split_off(seen + at + 1);
                return Ok(std::mem::replace(&mut self.octets, rest));
            }
            seen = self.octets.len();
            if seen >= LINE_LIMIT {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.receive().await?;
        }
    }

    /// The next descriptor of those that came with the lines so far.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    async fn receive(&mut self) -> io::Result<()> {
        let Self { stream, octets, descriptors } = self;
        let receive = || -> io::Result<usize> {
            let mut buffer = vec![0; BUFFER_SIZE];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut buffer)];
            let count = recvmsg(&*stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(all) = message {
                    descriptors.extend(all);
                }
            }
            octets.extend_from_slice(&buffer[..count]);
            Ok(count)
        };
        match stream.async_io(Interest::READABLE, receive).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Sends a line, with its end.
    ///
    /// # Errors
    /// Of the socket.
    pub async fn send(&self, line: &[u8]) -> io::Result<()> {
        send(&self.stream, line, &[]).await
    }
}

/// Sends a line, with its end, and at most [`MOST_DESCRIPTORS`] descriptors.
///
/// # Errors
/// Of the socket; what was sent of it cannot be told.
pub async fn send(
    stream: &UnixStream,
    mut line: &[u8],
    mut descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    while !line.is_empty() {
        let send = || -> io::Result<usize> {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
        };
        let count = stream.async_io(Interest::WRITABLE, send).await?;
        // They went with the first octet.
        (line, descriptors) = (&line[count..], &[]);
    }
    Ok(())
}
