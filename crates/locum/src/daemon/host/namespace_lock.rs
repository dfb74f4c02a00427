//! One daemon per network namespace.
//!
//! Addresses carry a mark that says "locum", not which daemon: two in one namespace would take
//! each other's addresses for leftovers of an earlier run and withdraw them. The lock of the run
//! directory does not prevent that, because there may be two directories and one may have been removed under
//! a living daemon. An abstract socket does: its names belong to the network namespace, lie in no
//! directory, and go with the process.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};

/// Name of the abstract socket, without its leading NUL.
const NAME: &str = "locum";

/// A name that is taken and refuses to be asked belongs to a daemon that begins or ends right now,
/// or to someone who only holds the name.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Callers dropped at a time. The queue of those who wait holds a few thousand.
const MAX_CALLERS: usize = 4096;

/// Held while this process is the daemon of its network namespace.
#[derive(Debug)]
pub struct NamespaceLock {
    /// `None` when another user sits on the name.
    listener: Option<UnixListener>,
}

/// Who has the name.
enum Holder {
    Daemon { process: i32 },
    Stranger { user: u32 },
    Unknown(io::Error),
}

impl NamespaceLock {
    /// Takes the name. Any user can hold it, and none but root or our own may keep the daemon from
    /// starting that way: then it goes on without, and the log says so.
    ///
    /// # Errors
    /// A sentence for the operator that names the daemon which runs here.
    pub fn take() -> Result<Self, String> {
        let mut tries = 0;
        loop {
            match listen() {
                Ok(listener) => return Ok(Self { listener: Some(listener) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(format!("cannot take the lock of the network namespace: {error}"));
                }
            }
            tries += 1;
            match holder() {
                Holder::Daemon { process } => return Err(refusal(process)),
                Holder::Unknown(_) if tries < TRIES => thread::sleep(TRY_AGAIN),
                Holder::Stranger { user } => {
                    tracing::warn!(
                        "user id {user} holds the abstract socket \"{NAME}\": \
                         a second daemon in this network namespace would not be noticed"
                    );
                    return Ok(Self { listener: None });
                }
                Holder::Unknown(error) => {
                    tracing::warn!(
                        "someone holds the abstract socket \"{NAME}\" and does not say who \
                         ({error}): a second daemon in this network namespace would not be noticed"
                    );
                    return Ok(Self { listener: None });
                }
            }
        }
    }

    /// Closes what others opened to it, so that there is always room for a daemon that asks.
    pub fn drain_backlog(&self) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..MAX_CALLERS {
            if listener.accept().is_err() {
                return;
            }
        }
    }
}

fn listen() -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn holder() -> Holder {
    match ask() {
        Ok((user, process)) if user == 0 || user == nix::unistd::geteuid().as_raw() => {
            Holder::Daemon { process }
        }
        Ok((user, _)) => Holder::Stranger { user },
        Err(error) => Holder::Unknown(error),
    }
}

/// User and process of the listener. Without waiting, which a full queue would make us do.
fn ask() -> io::Result<(u32, i32)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(format!("\0{NAME}"))?)?;
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok((peer.uid(), peer.pid()))
}

/// A process of another process namespace has no number here.
fn refusal(process: i32) -> String {
    let process = if process > 0 { format!(" (process {process})") } else { String::new() };
    format!(
        "a locum daemon{process} already runs in this network namespace: stop it first; \
         a second one would take its addresses away"
    )
}
