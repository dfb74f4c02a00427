//! Move octets between a client and a server until both directions ended.
//!
//! The directions are independent: an end of file is passed on as such and the other direction goes
//! on, which request-and-close protocols need. All connections share one buffer, since one thread
//! runs them: an idle connection holds none. Only what a slow receiver does not take at once is
//! kept, and nothing more is read until it is gone.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

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

/// Small writes are sent at once and dead peers are noticed. Errors are of no consequence here.
pub fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Ends a connection so that its peer sees an error, not a regular end: an answer cut short must
/// not pass for a whole one.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Where the octets moved are added up.
#[derive(Clone, Copy, Debug)]
pub struct Meter<'a> {
    /// From the client to the server, and back.
    pub bytes_in: &'a Cell<u64>,
    pub bytes_out: &'a Cell<u64>,
    pub movement: &'a Movement,
}

/// Relays both directions. An error in one direction ends both.
pub async fn relay(client: &TcpStream, server: &TcpStream, meter: Meter<'_>) -> io::Result<()> {
    let Meter { bytes_in, bytes_out, movement } = meter;
    tokio::try_join!(
        pump(client, server, bytes_in, movement),
        pump(server, client, bytes_out, movement)
    )
    .map(drop)
}

async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    moved: &Cell<u64>,
    movement: &Movement,
) -> io::Result<()> {
    loop {
        // A sender that is always ready must not keep the others waiting.
        consume_budget().await;
        from.readable().await?;
        match copy_once(from, to) {
            Ok(Copied::End) => {
                movement.half_close();
                return finish(to);
            }
            Ok(Copied::All(count)) => moved.set(moved.get() + count as u64),
            Ok(Copied::Part { read, rest }) => {
                write_all(to, &rest, movement).await?;
                moved.set(moved.get() + read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        movement.note();
    }
}

enum Copied {
    End,
    All(usize),
    Part { read: usize, rest: Vec<u8> },
}

/// One read and one write; the common case needs no more.
fn copy_once(from: &TcpStream, to: &TcpStream) -> io::Result<Copied> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = from.try_read(buffer)?;
        if read == 0 {
            return Ok(Copied::End);
        }
        let written = match to.try_write(&buffer[..read]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written == read {
            return Ok(Copied::All(read));
        }
        Ok(Copied::Part { read, rest: buffer[written..read].to_vec() })
    })
}

async fn write_all(to: &TcpStream, mut rest: &[u8], movement: &Movement) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => {
                rest = &rest[written..];
                movement.note();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
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
