//! The client's probes and requests, and those who answer them.
//!
//! Two series run from the client to the virtual address for the whole show: a datagram every
//! millisecond, answered by the director that has the address, and an HTTP request on a new
//! connection every 20 ms, answered by a real server through the proxy. The probes keep to an absolute
//! schedule, so that a count of lost ones is a length of time. The requests wait for the one before,
//! though not for long, so that a move of the address meets one of them and no more.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use super::network::Machine;
use super::network::VIRTUAL_ADDRESS;
use super::series::Series;

/// Time between two probes.
pub const PROBE_SPACING: Duration = Duration::from_millis(1);
/// Time between two HTTP requests.
pub const REQUEST_SPACING: Duration = Duration::from_millis(20);
/// A probe without an answer for so long is lost; far more than a busy machine needs.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// A user who waits longer for a page calls it down.
const REQUEST_PATIENCE: Duration = Duration::from_secs(1);
/// A client that has waited so long for a page asks once more.
const ASKS_AGAIN: Duration = Duration::from_millis(200);
/// The echo service's port.
const PROBE_PORT: u16 = 7;
/// Of the service, on the virtual address and on the servers.
pub const WEB_PORT: u16 = 80;
/// A real server waits so long for a request that does not come.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);
/// Longest request or answer read; ours are shorter.
const MESSAGE_LIMIT: usize = 1024;
/// More than a second of probes, should a thread not be scheduled.
const SOCKET_BUFFER: usize = 4 << 20;

/// Answers probes on every address of a director, with `number`, also on those that come later.
///
/// # Errors
/// When the socket cannot be made.
pub fn answer_probes(director: &Machine, number: u8) -> Result<(), String> {
    let socket = probe_socket(director, PROBE_PORT)?;
    thread::spawn(move || {
        let mut octets = [0; 64];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut octets[1..]) else { continue };
            octets[0] = number;
            // An answer that cannot be sent is a lost probe, and counted as one.
            let _ = socket.send_to(&octets[..=length], from);
        }
    });
    Ok(())
}

/// Starts to probe the virtual address.
///
/// # Errors
/// When the socket cannot be made.
pub fn probe(client: &Machine) -> Result<Series, String> {
    let series = Series::new(PROBE_PATIENCE);
    let socket = Arc::new(probe_socket(client, 0)?);
    thread::spawn({
        let (series, socket) = (series.clone(), Arc::clone(&socket));
        move || {
            let mut octets = [0; 64];
            loop {
                let Ok((length, _)) = socket.recv_from(&mut octets) else { continue };
                if let [by, number @ ..] = &octets[..length]
                    && let Ok(number) = <[u8; 8]>::try_from(number)
                    && let Ok(number) = usize::try_from(u64::from_be_bytes(number))
                {
                    series.answer(number, *by);
                }
            }
        }
    });
    let probing = series.clone();
    thread::spawn(move || {
        let mut next = Instant::now();
        loop {
            let number = probing.send() as u64;
            // A probe that cannot be sent, for want of a neighbour, is a lost one.
            let _ = socket.send_to(&number.to_be_bytes(), (VIRTUAL_ADDRESS, PROBE_PORT));
            next += PROBE_SPACING;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    Ok(series)
}

fn probe_socket(machine: &Machine, port: u16) -> Result<UdpSocket, String> {
    let made = machine.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        // Beyond the system's limit, for which an old kernel wants more than root of a namespace.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
            socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
        }
        Ok::<_, io::Error>(socket)
    })?;
    made.map_err(|error| format!("cannot make a probe socket on {}: {error}", machine.name()))
}

/// Serves pages that say `number`, on every address of a real server.
///
/// # Errors
/// When the port cannot be taken.
pub fn serve_pages(server: &Machine, number: u8) -> Result<(), String> {
    let listened = server.enter(|| {
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, WEB_PORT))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    })?;
    let listener =
        listened.map_err(|error| format!("cannot listen on {}: {error}", server.name()))?;
    let runtime = runtime()?;
    thread::spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let answered = tokio::time::timeout(SERVER_PATIENCE, serve_page(stream, number));
                // What went wrong is the client's to count.
                tokio::task::spawn_local(async move { answered.await.is_ok() });
            }
        });
    });
    Ok(())
}

/// Answers every path alike, `/health` too.
async fn serve_page(mut stream: TcpStream, number: u8) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < MESSAGE_LIMIT {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: text/plain\r\n\
         Connection: close\r\n\r\n{number}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Starts to ask for pages at the virtual address, each on a connection of its own.
///
/// # Errors
/// When the runtime cannot be made.
pub fn request(client: &Machine) -> Result<Series, String> {
    let series = Series::new(REQUEST_PATIENCE);
    let requesting = series.clone();
    let runtime = runtime()?;
    let work = move || {
        LocalSet::new().block_on(&runtime, async {
            let mut ticks = tokio::time::interval(REQUEST_SPACING);
            // What a machine that stood still has missed is not asked all at once.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut latest = None::<(JoinHandle<()>, Instant)>;
            loop {
                ticks.tick().await;
                let waits = |(asked, at): &(JoinHandle<()>, Instant)| {
                    !asked.is_finished() && at.elapsed() < ASKS_AGAIN
                };
                if latest.as_ref().is_some_and(waits) {
                    continue;
                }
                let number = requesting.send();
                let series = requesting.clone();
                let asked = tokio::task::spawn_local(async move {
                    let page = tokio::time::timeout(series.patience(), fetch_page()).await;
                    if let Ok(Ok(by)) = page {
                        series.answer(number, by);
                    }
                });
                latest = Some((asked, Instant::now()));
            }
        });
    };
    // A thread stays where the one that made it was: every connection is made there.
    client.enter(|| thread::spawn(work))?;
    Ok(series)
}

/// The number of the server that answered.
async fn fetch_page() -> io::Result<u8> {
    let target = SocketAddr::from((VIRTUAL_ADDRESS, WEB_PORT));
    let mut stream = TcpStream::connect(target).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {VIRTUAL_ADDRESS}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MESSAGE_LIMIT as u64).read_to_end(&mut answer).await?;
    let said = answer.last().filter(|_| answer.starts_with(b"HTTP/1.1 200 "));
    let number = said.and_then(|digit| char::from(*digit).to_digit(10));
    number
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| io::Error::other("not a page of ours"))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))
}
