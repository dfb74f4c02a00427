//! Reading of line and packet protocols within bounds: SMTP, Redis, the agent, databases.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::dial::FirstWord;
use super::{Answer, Whom, dial};

/// A connection of which so much is read at most.
pub(crate) struct Conversation {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
    left: usize,
}

impl Conversation {
    /// Connects; beyond `limit` octets the target talks too much.
    pub(crate) async fn open(
        whom: Whom<'_>,
        first: FirstWord,
        limit: usize,
    ) -> Result<Self, Answer> {
        let stream = dial::connect(whom, first).await?;
        Ok(Self { stream, buffer: Vec::new(), used: 0, left: limit })
    }

    pub(crate) async fn say(&mut self, octets: &[u8]) -> Result<(), Answer> {
        self.stream.write_all(octets).await.map_err(|error| broken(&error))
    }

    /// The next line, without its end; at the end of the connection what there is.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>, Answer> {
        loop {
            let unused = &self.buffer[self.used..];
            if let Some(end) = unused.iter().position(|octet| *octet == b'\n') {
                let line = unused[..end].strip_suffix(b"\r").unwrap_or(&unused[..end]).to_vec();
                self.used += end + 1;
                return Ok(line);
            }
            if !self.fill().await? {
                let rest = self.buffer.split_off(self.used);
                return match rest.is_empty() {
                    true => Err(closed()),
                    false => Ok(rest),
                };
            }
        }
    }

    /// So many octets.
    pub(crate) async fn octets(&mut self, length: usize) -> Result<Vec<u8>, Answer> {
        while self.buffer.len() - self.used < length {
            if !self.fill().await? {
                return Err(closed());
            }
        }
        let octets = self.buffer[self.used..self.used + length].to_vec();
        self.used += length;
        Ok(octets)
    }

    async fn fill(&mut self) -> Result<bool, Answer> {
        if self.left == 0 {
            return Err(Answer::fail("it sends more than an answer has"));
        }
        self.buffer.reserve(512);
        let read = self.stream.read_buf(&mut self.buffer).await.map_err(|error| broken(&error))?;
        self.left = self.left.saturating_sub(read);
        Ok(read > 0)
    }
}

pub(crate) fn closed() -> Answer {
    Answer::fail("the server closed the connection without an answer")
}

fn broken(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => closed(),
        _ => dial::refusal(error),
    }
}

/// Text of a stranger, fit for a line of a log: short and printable.
pub(crate) fn excerpt(octets: &[u8]) -> String {
    const CHARACTERS: usize = 120;
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let text = String::from_utf8_lossy(octets);
    text.trim().chars().take(CHARACTERS).map(printable).collect()
}
