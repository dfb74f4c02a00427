//! What a command writes: read to the end, kept up to a limit.
//!
//! The pipe is always drained, so that a script which prints more than anyone wants to know is
//! neither blocked nor killed for it, and costs the same memory as one that prints 4 KiB.

use std::io;

use nix::unistd;
use tokio::net::unix::pipe::Receiver;

/// Kept from the start of the output: the first message is usually the cause.
const HEAD_BYTES: usize = 2048;

/// Kept from the end of the output: the last message is usually the result.
const TAIL_BYTES: usize = 2048;

/// One read; a quarter of the pipe's default size, and on the stack only while reading.
const READ_BYTES: usize = 16 * 1024;

/// Longest excerpt in a probe's detail, in characters: one line of a terminal.
const EXCERPT_CHARS: usize = 120;

/// Read at most this much after the command has ended: the default size of a pipe, so all that
/// it can have written. A process it left behind may write for ever.
const LATE_BYTES: u64 = 64 * 1024;

/// The reading end of a command's output, and what was kept of it.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    /// `None` after the end of file.
    pipe: Option<Receiver>,
    kept: Kept,
}

impl CommandOutput {
    pub(crate) fn new(pipe: Receiver) -> Self {
        Self { pipe: Some(pipe), kept: Kept::default() }
    }

    /// Reads once. After the end of the output it never returns, so that the caller can wait for
    /// other things beside it. May be dropped and called again.
    pub(crate) async fn read(&mut self) {
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        if pipe.readable().await.is_err() {
            self.pipe = None;
            return;
        }
        self.read_ready();
    }

    /// Takes what is in the pipe now, without waiting for those who still hold it open. Asks the
    /// kernel itself, since news of the last words may not have come through the event queue yet.
    pub(crate) fn finish(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let enough = self.kept.total + LATE_BYTES;
        let mut buffer = [0; READ_BYTES];
        while self.kept.total < enough {
            match unistd::read(pipe, &mut buffer) {
                Ok(0) => return self.pipe = None,
                Ok(length) => self.kept.push(&buffer[..length]),
                // Empty, and somebody may still write.
                Err(_) => return,
            }
        }
    }

    /// Reads and throws away until nobody holds the pipe any more.
    pub(crate) async fn discard(mut self) {
        while self.pipe.is_some() {
            self.read().await;
        }
    }

    /// Somebody may still write.
    pub(crate) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    fn read_ready(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut buffer = [0; READ_BYTES];
        match pipe.try_read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(length) => self.kept.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.pipe = None,
        }
    }
}

/// The first and the last bytes of a text of any length.
#[derive(Default, Debug)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(rest);
    }

    /// All of it, or both ends with a note of how much is missing between them.
    pub(crate) fn text(&self) -> String {
        let left_out = self.total - (self.head.len() + self.tail.len()) as u64;
        if left_out == 0 {
            // Together, since a character may lie across the border.
            return String::from_utf8_lossy(&[&self.head[..], &self.tail[..]].concat()).into();
        }
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&self.tail);
        format!("{head}\n[... {left_out} bytes left out ...]\n{tail}")
    }

    /// The first line that says something, fit for a log line.
    pub(crate) fn first_line(&self) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        let line = head.lines().map(str::trim).find(|line| !line.is_empty())?;
        let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Some(line.chars().take(EXCERPT_CHARS).map(printable).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(chunks: &[&[u8]]) -> Kept {
        let mut kept = Kept::default();
        for chunk in chunks {
            kept.push(chunk);
        }
        kept
    }

    #[test]
    fn short_output_is_kept_whole() {
        assert_eq!(kept(&[b"one\n", b"two\n"]).text(), "one\ntwo\n");
    }

    #[test]
    fn a_character_across_the_border_of_head_and_tail_survives() {
        let mut text = "x".repeat(HEAD_BYTES - 1);
        text.push('ü');
        text.push_str("end");
        assert_eq!(kept(&[text.as_bytes()]).text(), text);
    }

    #[test]
    fn long_output_keeps_its_ends_and_says_how_much_is_missing() {
        let text = [&b"first\n"[..], &[b'.'; 10_000], b"\nlast"].concat();
        for size in [1, 7, 1000, 3000, text.len()] {
            let kept = kept(&text.chunks(size).collect::<Vec<_>>());
            let shown = kept.text();
            let missing = text.len() - HEAD_BYTES - TAIL_BYTES;
            assert!(shown.starts_with("first\n."), "{shown}");
            assert!(shown.ends_with(".\nlast"), "{shown}");
            assert!(shown.contains(&format!("[... {missing} bytes left out ...]")), "{shown}");
            assert!(kept.head.len() <= HEAD_BYTES && kept.tail.len() <= TAIL_BYTES);
        }
    }

    #[test]
    fn the_first_line_is_short_printable_and_not_blank() {
        assert_eq!(
            kept(&[b"\n \n  no route \x1b[31m\nmore"]).first_line().as_deref(),
            Some("no route \u{fffd}[31m")
        );
        assert_eq!(kept(&[&[b'a'; 4000]]).first_line().map(|line| line.len()), Some(EXCERPT_CHARS));
        assert_eq!(kept(&[b"\n\n"]).first_line(), None);
    }
}
