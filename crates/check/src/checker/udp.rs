//! The UDP probe: a datagram is sent, and answered where it must be. A target that refuses it
//! (ICMP port unreachable) is down.

use std::time::Duration;

use locum_plan::UdpQuestion;
use socket2::{Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time;

use super::dial;
use super::{Answer, WaitingFor, Whom};

/// The longest datagram that is looked at; one octet more shows that one is longer.
const ANSWER_BYTES: usize = 65_536;

/// So long a refusal is waited for, where no answer is: longer than most round trips, and part of
/// every run.
const REFUSAL: Duration = Duration::from_millis(200);

/// Asks once; `timeout` is that of the whole run.
pub(crate) async fn probe(
    whom: Whom<'_>,
    question: &UdpQuestion,
    timeout: Duration,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    *stage = "no answer";
    let socket = connect(whom)?;
    socket.send(&question.payload).await.map_err(|error| dial::refusal(&error))?;
    let mut answer = Vec::with_capacity(2048);
    let Some(reply) = &question.reply else {
        let patience = REFUSAL.min(timeout / 2);
        return match time::timeout(patience, socket.recv_buf(&mut answer)).await {
            Ok(Ok(_)) => Ok(Answer::pass("answered")),
            Ok(Err(error)) => Err(dial::refusal(&error)),
            Err(_) => Ok(Answer::pass("not refused")),
        };
    };
    answer.reserve(ANSWER_BYTES);
    let length = socket.recv_buf(&mut answer).await.map_err(|error| dial::refusal(&error))?;
    if length < reply.shortest || reply.longest.is_some_and(|longest| length > longest) {
        return Ok(Answer::fail(format!("an answer of {length} octets")));
    }
    let fits = |(octet, wanted): (&u8, &(u8, u8))| octet & wanted.1 == wanted.0 & wanted.1;
    if length < reply.pattern.len() || !answer.iter().zip(&reply.pattern).all(fits) {
        return Ok(Answer::fail("another answer than the wanted one"));
    }
    Ok(Answer::pass("answered"))
}

/// A socket that hears the target alone, and its refusals.
pub(crate) fn connect(whom: Whom<'_>) -> Result<UdpSocket, Answer> {
    let socket = dial::open(whom, Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&whom.target.into()).map_err(|error| dial::refusal(&error))?;
    UdpSocket::from_std(socket.into()).map_err(|error| dial::refusal(&error))
}
