//! The servers of a HAProxy that runs, kept as the level has them through its socket: never by a reload.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::generated::exchange::{LINE_LIMIT, SocketExchange};
use crate::generated::stats::SeenServers;

/// How often it is asked how its servers are, which is also how soon what a stranger changed is put
/// back.
const LOOK: Duration = Duration::from_secs(1);

/// How often an answer under way is looked for; one takes less than this.
const POLL: Duration = Duration::from_millis(1);

/// One that has not answered after this does not.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct ServerControl {
    socket: PathBuf,
    /// Of whom the rest is known.
    pid: Option<u32>,
    seen: Option<SeenServers>,
    under_way: Option<(SocketExchange, SocketMessage)>,
    look_at: Option<Instant>,
    /// Something was said since it was seen.
    is_stale: bool,
    /// So many commands were said the last time: as many again have no effect, and wait for the next
    /// look.
    tried: usize,
    /// Why it could not be spoken to, the last time.
    pub fault: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SocketMessage {
    Question,
    Commands,
}

impl ServerControl {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            pid: None,
            seen: None,
            under_way: None,
            look_at: None,
            is_stale: true,
            tried: usize::MAX,
            fault: None,
        }
    }

    /// Something else is wanted now.
    pub(super) fn retry(&mut self) {
        self.tried = usize::MAX;
    }

    pub(super) fn seen(&self) -> Option<&SeenServers> {
        self.seen.as_ref()
    }

    /// Goes on as far as it goes without waiting. `pid` is the process that has the socket, `None`
    /// while there is none or it is being replaced; `commands` says what has to be said to make what is
    /// seen what is wanted.
    pub(super) fn step(
        &mut self,
        pid: Option<u32>,
        commands: &dyn Fn(&SeenServers) -> Vec<String>,
        now: Instant,
    ) {
        if self.pid != pid {
            *self = Self { pid, ..Self::new(std::mem::take(&mut self.socket)) };
        }
        if pid.is_none() {
            return;
        }
        if let Some((exchange, said)) = &mut self.under_way {
            match exchange.poll() {
                None if now.saturating_duration_since(exchange.begun) < PATIENCE => return,
                None => return self.fail("it does not answer", now),
                Some(Err(error)) => return self.fail(&error.to_string(), now),
                Some(Ok(answer)) => {
                    let said = *said;
                    self.under_way = None;
                    if let Err(why) = self.take_in(said, &answer, now) {
                        return self.fail(&why, now);
                    }
                }
            }
        }
        let is_due = self.look_at.is_none_or(|at| now >= at);
        if self.is_stale || is_due {
            if !self.is_stale {
                self.tried = usize::MAX;
            }
            if is_due {
                self.begin("show stat", SocketMessage::Question, now);
            }
            return;
        }
        let commands = self.seen.as_ref().map(commands).unwrap_or_default();
        if !commands.is_empty() && commands.len() < self.tried {
            self.tried = commands.len();
            self.begin(&line_of(&commands), SocketMessage::Commands, now);
        }
    }

    fn take_in(&mut self, said: SocketMessage, answer: &str, now: Instant) -> Result<(), String> {
        match said {
            // What came of them is seen next.
            SocketMessage::Commands => {
                self.is_stale = true;
                self.look_at = Some(now);
            }
            SocketMessage::Question => {
                let words = || answer.trim().chars().take(200).collect::<String>();
                let seen = SeenServers::parse(answer);
                self.seen = Some(seen.ok_or_else(|| format!("it answers `{}`", words()))?);
                self.is_stale = false;
                self.fault = None;
                self.look_at = Some(now + LOOK);
            }
        }
        Ok(())
    }

    fn begin(&mut self, line: &str, said: SocketMessage, now: Instant) {
        match SocketExchange::begin(&self.socket, line, now) {
            Ok(exchange) => self.under_way = Some((exchange, said)),
            Err(error) => self.fail(&error.to_string(), now),
        }
    }

    fn fail(&mut self, why: &str, now: Instant) {
        self.under_way = None;
        self.look_at = Some(now + LOOK);
        let socket = self.socket.display();
        self.fault = Some(format!(
            "haproxy cannot be spoken to at {socket}, its servers stay as they are: {why}"
        ));
    }

    /// How soon it should be looked at again; `None` while there is nobody to speak to.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.pid?;
        if let Some((exchange, _)) = &self.under_way {
            // One that hangs is not asked a thousand times a second.
            let passed = now.saturating_duration_since(exchange.begun);
            return Some(POLL.max(passed / 8));
        }
        Some(self.look_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }
}

/// As many as one line holds; the others are said when it is seen that they are still to be said.
fn line_of(commands: &[String]) -> String {
    let mut line = String::new();
    for command in commands {
        if !line.is_empty() && line.len() + command.len() + 1 > LINE_LIMIT {
            break;
        }
        if !line.is_empty() {
            line.push(';');
        }
        line.push_str(command);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_before_it_is_too_long() {
        let commands = vec!["x".repeat(LINE_LIMIT / 2 - 1); 3];
        assert_eq!(line_of(&commands).len(), LINE_LIMIT - 1);
        assert_eq!(line_of(&commands[..1]), commands[0]);
    }
}
