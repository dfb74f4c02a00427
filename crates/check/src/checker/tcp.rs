//! The TCP probe: a connection can be opened.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use locum_plan::{Outcome, Verdict};
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

/// Connects once and closes.
pub(crate) async fn probe(target: SocketAddr, timeout: Duration) -> Outcome {
    let begin = Instant::now();
    let (verdict, detail) = match time::timeout(timeout, TcpStream::connect(target)).await {
        Ok(Ok(_)) => (Verdict::Pass, "connected".into()),
        Ok(Err(error)) => refusal(&error),
        Err(_) => (Verdict::Fail, format!("no answer to connect: timed out after {timeout:?}")),
    };
    Outcome { verdict, detail, took: begin.elapsed(), weight: None }
}

/// A target that cannot be reached has failed; a host that cannot try has learnt nothing of it.
pub(crate) fn refusal(error: &io::Error) -> (Verdict, String) {
    let out_of = |what: &str| (Verdict::CannotRun, format!("cannot connect: {what}"));
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => out_of("out of file descriptors: raise LimitNOFILE"),
        Some(Errno::EADDRNOTAVAIL) => out_of("no local address or port to connect from"),
        Some(Errno::ENOMEM | Errno::ENOBUFS) => out_of("out of memory for sockets"),
        // It never will, and no client's connection goes there either.
        Some(Errno::EAFNOSUPPORT) => {
            (Verdict::Fail, "this host does not speak the address family".into())
        }
        Some(errno) => (Verdict::Fail, errno.desc().to_lowercase()),
        None => (Verdict::Fail, error.to_string().to_lowercase()),
    }
}
