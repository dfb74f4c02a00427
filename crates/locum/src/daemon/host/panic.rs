//! The end of the daemon after an internal error: it writes one message and aborts, also when the
//! message cannot be written.
//!
//! The message goes straight to standard error, because the log thread may be the one that failed; and not
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
        // Nobody is left who could do anything about a failure.
        let _ = nix::unistd::write(to, words.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::sync::mpsc;
    use std::time::Instant;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn words_that_nobody_reads_delay_the_end_by_a_moment_only() {
        let (mut reader, writer) = io::pipe().unwrap();
        fill(&writer);
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

    /// Set for a process of these tests that is to panic.
    const TO_PANIC: &str = "LOCUM_TEST_TO_PANIC";

    /// Not a test of its own: what the processes started by [`panicking`] do.
    #[test]
    fn panics_when_asked_to() {
        if env::var_os(TO_PANIC).is_none() {
            return;
        }
        end_at_panic();
        let thread = thread::Builder::new().name("applier".to_owned());
        // Longer than a pipe takes in one piece.
        let words = format!("the sky fell{}", "!".repeat(2 * MAX_WORDS));
        let thread = thread.spawn(move || panic!("{words}")).unwrap();
        // Without the hook the panic would end the thread alone, and this process in order.
        let _ = thread.join();
    }

    /// A process in which a thread called applier panics, with this as its standard error.
    fn panicking(stderr: impl Into<Stdio>) -> Child {
        let only = ["--exact", "daemon::host::panic::tests::panics_when_asked_to", "--nocapture"];
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(only).env(TO_PANIC, "1").env("RUST_BACKTRACE", "0");
        command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
    }

    fn end_of(mut process: Child) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > Duration::from_secs(30) {
                process.kill().unwrap();
                process.wait().unwrap();
                panic!("it neither lives nor dies");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_says_where_and_what_becomes_of_the_addresses() {
        let (mut reader, writer) = io::pipe().unwrap();
        let process = panicking(writer);
        let status = end_of(process);
        let mut words = String::new();
        reader.read_to_string(&mut words).unwrap();
        assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{status}: {words}");
        assert!(words.starts_with("locum: internal error in the applier thread: "), "{words}");
        assert!(words.contains("panic.rs:") && words.contains("the sky fell!"), "{words}");
        assert!(words.ends_with("a restarted daemon adopts them\n"), "{words}");
        assert!(words.len() < MAX_WORDS, "{}", words.len());
    }

    #[test]
    fn a_panic_ends_the_process_also_when_nobody_reads_its_words() {
        let (_reader, writer) = io::pipe().unwrap();
        fill(&writer);
        // One that waits for a reader does so for ever.
        let status = end_of(panicking(writer));
        assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{status}");
    }

    /// Leaves no room in the pipe.
    fn fill(pipe: &io::PipeWriter) {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while nix::unistd::write(pipe, &[b'x'; 4096]).is_ok() {}
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    }
}
