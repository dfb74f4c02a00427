//! The end after an internal error: a few words, then at once, whatever becomes of the words.
//!
//! They go straight to standard error, because the log thread may be the one that failed; and not
//! through the standard library's lock on it, because that thread may hold it while it waits for a
//! reader that was stopped. A daemon that hung here would be neither alive nor dead to its peers.

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::PanicHookInfo;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a slow reader may take to make room for the words.
const ROOM_LIMIT_MS: u8 = 100;

/// If the words still wait after this, they are given up: another thread filled the pipe between
/// the question for room and the write.
const WORDS_LIMIT: Duration = Duration::from_secs(1);

/// A pipe with any room takes this many bytes in one piece (PIPE_BUF).
const MAX_WORDS: usize = 4096;

/// From now on a panic in any thread ends the process.
pub fn end_at_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // Without the thread the words below are all that could wait.
        let _ = thread::Builder::new().spawn(|| {
            thread::sleep(WORDS_LIMIT);
            std::process::abort();
        });
        say(io::stderr().as_fd(), &last_words(panic));
        std::process::abort();
    }));
}

fn last_words(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let mut words = String::new();
    // Writing to a string does not fail.
    let _ = write!(words, "locum: internal error in the {name} thread: {panic}");
    words.truncate(words.floor_char_boundary(MAX_WORDS / 2));
    words.push_str(
        "\nlocum: ending at once; virtual addresses stay until their lease runs out, \
         a restarted daemon adopts them\n",
    );
    words
}

/// Writes when there is room for it.
fn say(to: BorrowedFd<'_>, words: &str) {
    let mut ready = [PollFd::new(to, PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::from(ROOM_LIMIT_MS)) == Ok(1) {
        // There is nobody left to tell.
        let _ = nix::unistd::write(to, words.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn words_that_nobody_reads_delay_the_end_by_a_moment_only() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            say(writer.as_fd(), "words");
            done.send(writer).unwrap();
        });
        let writer = is_done.recv_timeout(Duration::from_secs(10)).expect("it does not wait");

        let mut full = vec![0; 1 << 20];
        assert!(reader.read(&mut full).unwrap() > 0);
        say(writer.as_fd(), "words");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("words"));
    }
}
