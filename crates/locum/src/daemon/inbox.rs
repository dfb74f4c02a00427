//! The one way to the election thread: a bounded queue and a bell that its poll hears.
//!
//! When the queue is full, [`InboxSender::send`] waits, which is right for threads that may be
//! slowed down (the applier, the balancer); the election never waits for them, so it always drains.
//! [`InboxSender::try_send`] gives the message back, for those that must not wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use locum_engine::status::NodeSnapshot;
use locum_engine::{Inherited, Input, OperatorCommand, Reply};
use locum_plan::Plan;
use locum_vrrp::Time;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

use super::sockets::Opened;

/// Messages waiting: a thousand checks that end in the same millisecond.
const QUEUE_MESSAGES: usize = 1024;

/// What other threads say to the election.
#[derive(Debug)]
pub enum Message {
    /// For the engine as it is.
    Input(Input<'static>),
    /// For the engine, one after the other.
    Inputs(Vec<Input<'static>>),
    Command {
        command: OperatorCommand,
        answer: oneshot::Sender<Reply>,
    },
    /// `answer` hears in words what changed, when the plan is in effect.
    Plan {
        plan: Arc<Plan>,
        inherited: Vec<Inherited>,
        answer: oneshot::Sender<Reply>,
    },
    /// Advert sockets were opened, or cannot be.
    Opened(Box<Opened>),
    /// `answer` hears when it was taken too.
    Status {
        answer: oneshot::Sender<(Time, NodeSnapshot)>,
    },
    /// The thread shall end; nothing is handed over.
    End,
}

#[derive(Clone, Debug)]
pub struct InboxSender {
    queue: SyncSender<Message>,
    bell: Arc<EventFd>,
}

#[derive(Debug)]
pub struct InboxReceiver {
    queue: Receiver<Message>,
    bell: Arc<EventFd>,
}

/// # Errors
/// When there is no descriptor left.
pub fn inbox() -> io::Result<(InboxSender, InboxReceiver)> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MESSAGES);
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let sender = InboxSender { queue: sender, bell: Arc::clone(&bell) };
    Ok((sender, InboxReceiver { queue: receiver, bell }))
}

impl InboxSender {
    /// Waits for room. After the election has ended the message is forgotten: the process ends too.
    pub fn send(&self, message: Message) {
        if self.queue.send(message).is_ok() {
            self.ring();
        }
    }

    /// # Errors
    /// The message, when there is no room.
    pub fn try_send(&self, message: Message) -> Result<(), Box<Message>> {
        match self.queue.try_send(message) {
            Ok(()) => self.ring(),
            Err(TrySendError::Full(message)) => return Err(Box::new(message)),
            Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }

    fn ring(&self) {
        ring(&self.bell);
    }
}

fn ring(bell: &EventFd) {
    // It fails only when it has been rung 2^64 - 2 times unheard, and is then ringing already.
    let _ = bell.write(1);
}

impl InboxReceiver {
    /// Rings by itself: messages were left in the queue.
    pub fn ring(&self) {
        ring(&self.bell);
    }

    /// The next message; `None` when there is none now.
    pub fn next(&self) -> Option<Message> {
        self.queue.try_recv().ok()
    }

    /// Stops the bell. Call it before taking messages, so that none is left without a ring.
    pub fn quiet(&self) {
        let _ = self.bell.read();
    }
}

impl AsFd for InboxReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(receiver: &InboxReceiver) -> bool {
        let mut descriptors = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_bell_rings_from_the_first_message_until_it_is_quieted() {
        let (sender, receiver) = inbox().unwrap();
        assert!(!rings(&receiver));
        sender.send(Message::End);
        sender.send(Message::End);
        assert!(rings(&receiver));
        receiver.quiet();
        assert!(!rings(&receiver));
        assert!(receiver.next().is_some() && receiver.next().is_some());
        assert!(receiver.next().is_none());
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let (sender, receiver) = inbox().unwrap();
        (0..QUEUE_MESSAGES).for_each(|_| sender.send(Message::End));
        assert!(
            matches!(sender.try_send(Message::End), Err(back) if matches!(*back, Message::End))
        );
        assert!(receiver.next().is_some());
        assert!(sender.try_send(Message::End).is_ok());
    }
}
