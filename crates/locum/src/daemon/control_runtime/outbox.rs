//! Messages to the election that must arrive although its inbox is full now.
//!
//! A stop or a configuration that a signal asked for has nobody who could ask again. It waits here,
//! in order, and is offered again every [`OFFER_AGAIN`]. What waits is bounded by what begins it:
//! one stop in the daemon's life, and one configuration at a time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::daemon::inbox::{InboxSender, Message};

/// Pause before a full inbox is tried again; the election empties it within milliseconds.
pub const OFFER_AGAIN: Duration = Duration::from_millis(10);

pub struct Outbox {
    inbox: InboxSender,
    waiting: VecDeque<Message>,
}

impl Outbox {
    pub fn new(inbox: InboxSender) -> Self {
        Self { inbox, waiting: VecDeque::new() }
    }

    /// Sends, now or as soon as there is room.
    pub fn send(&mut self, message: Message) {
        self.waiting.push_back(message);
        self.offer();
    }

    /// Sends now what there is room for.
    pub fn offer(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            if let Err(back) = self.inbox.try_send(message) {
                return self.waiting.push_front(*back);
            }
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use locum_engine::OperatorCommand;
    use tokio::sync::oneshot;

    use super::*;
    use crate::daemon::inbox::inbox;

    #[test]
    fn a_stop_that_meets_a_full_inbox_arrives_when_there_is_room() {
        let (sender, receiver) = inbox().unwrap();
        while sender.try_send(Message::End).is_ok() {}
        let mut outbox = Outbox::new(sender);
        let (answer, _answered) = oneshot::channel();
        outbox.send(Message::Command { command: OperatorCommand::Stop, answer });
        outbox.send(Message::End);
        outbox.offer();
        assert!(!outbox.is_empty());
        while receiver.next().is_some() {}
        outbox.offer();
        assert!(outbox.is_empty());
        let first = receiver.next();
        assert!(matches!(first, Some(Message::Command { command: OperatorCommand::Stop, .. })));
        assert!(matches!(receiver.next(), Some(Message::End)));
    }
}
