//! Move octets between a client and a server until both directions ended.
//!
//! The directions are independent: an end of file is passed on as such and the other direction goes
//! on, which request-and-close protocols need. All connections share one buffer, since one thread
//! runs them: an idle connection holds none. Only what a slow receiver does not take at once is
//! kept, and nothing more is read until it is gone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::movement::Movement;

/// Octets moved at once: large enough that the system calls do not count, small enough that a slow
/// receiver's remainder does not either.
const BUFFER_SIZE: usize = 32 * 1024;

/// A peer that vanished without a word is noticed after idle + interval × probes = 90 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_SIZE]);
}

/// Small writes are sent at once and dead peers are noticed. What a listener has, the kernel gives to
/// each of its clients. Errors are of no consequence here.
pub fn prepare(socket: &Socket) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Ends a connection so that its peer sees an error, not a regular end: an answer cut short must
/// not pass for a whole one.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Where the octets moved are added up.
#[derive(Clone, Copy, Debug)]
pub struct Meter<'a> {
    /// From the client to the server, and back: of the service, and of the server.
    pub bytes_in: [&'a Cell<u64>; 2],
    pub bytes_out: [&'a Cell<u64>; 2],
    pub movement: &'a Movement,
}

/// Relays both directions. An error in one direction ends both.
pub async fn relay(
    client: &mut TcpStream,
    server: &mut TcpStream,
    meter: Meter<'_>,
) -> io::Result<()> {
    let Meter { bytes_in, bytes_out, movement } = meter;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::try_join!(
        pump(from_client, to_server, bytes_in, movement),
        pump(from_server, to_client, bytes_out, movement)
    )
    .map(drop)
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    moved: [&Cell<u64>; 2],
    movement: &Movement,
) -> io::Result<()> {
    loop {
        match poll_fn(|context| copy_once(context, &mut from, &mut to)).await? {
            Copied::End => {
                // The last end is passed on by closing both, which is what comes next.
                let is_last = movement.is_half_closed();
                movement.half_close();
                return if is_last { Ok(()) } else { finish(to.as_ref()) };
            }
            Copied::All(count) => add(moved, count),
            Copied::Part { read, rest } => {
                write_all(&mut to, &rest, movement).await?;
                add(moved, read);
            }
        }
        movement.note();
    }
}

fn add(counters: [&Cell<u64>; 2], count: usize) {
    counters.iter().for_each(|counter| counter.set(counter.get() + count as u64));
}

enum Copied {
    End,
    All(usize),
    Part { read: usize, rest: Vec<u8> },
}

/// One read and one write; the common case needs no more. The halves are polled, because they know
/// that a read which did not fill the buffer has emptied the socket: to be refused by the kernel once
/// more before waiting would cost a system call for each message.
fn copy_once(
    context: &mut Context<'_>,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
) -> Poll<io::Result<Copied>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(Copied::End));
        }
        let written = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        Poll::Ready(Ok(match &read[written..] {
            [] => Copied::All(written),
            rest => Copied::Part { read: read.len(), rest: rest.to_vec() },
        }))
    })
}

async fn write_all(to: &mut WriteHalf<'_>, mut rest: &[u8], movement: &Movement) -> io::Result<()> {
    while !rest.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *to).poll_write(context, rest)).await?;
        rest = &rest[written..];
        movement.note();
    }
    Ok(())
}

/// Passes an end of file on. The receiver may have closed wholly meanwhile: that is no error.
fn finish(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
