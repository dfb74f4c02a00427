//! What an operator orders of servers: it goes to the engine, and what is in force is written down, so
//! that a daemon that is started again goes on with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use locum_control::{Response, ServerRequest};
use locum_engine::{OperatorCommand, Reply, ServerOrder};
use locum_plan::MAX_WEIGHT;
use tokio::sync::oneshot;

use super::order_book::{Ordered, WrittenOrder};
use super::state::{ControlRuntime, Done, answer_busy};
use crate::daemon::inbox::{InboxSender, Message};

/// Longer than any server needs, and far below what a clock could not hold.
const LONGEST_RAMP: Duration = Duration::from_secs(24 * 3600);

impl ControlRuntime {
    /// `server` is an address, with its port or without.
    pub(super) fn order_server(
        &mut self,
        service: &str,
        server: &str,
        request: ServerRequest,
        over_ms: u64,
        answer: oneshot::Sender<Response>,
    ) {
        let command = parse(server).and_then(|(address, port)| {
            let over = Duration::from_millis(over_ms);
            if over > LONGEST_RAMP {
                return Err("a weight changes within a day at most".to_owned());
            }
            let order = match request {
                ServerRequest::Drain => Some(ServerOrder::Drain),
                ServerRequest::Ready => None,
                ServerRequest::Weight { weight } if weight <= MAX_WEIGHT => {
                    Some(ServerOrder::Weight(weight))
                }
                ServerRequest::Weight { weight } => {
                    return Err(format!("a weight is 0 to {MAX_WEIGHT}, not {weight}"));
                }
            };
            Ok(OperatorCommand::Server { service: service.into(), address, port, order, over })
        });
        let command = match command {
            Ok(command) => command,
            Err(reason) => {
                let _ = answer.send(Response::Refused { reason });
                return;
            }
        };
        let (reply, replied) = oneshot::channel();
        let inbox = self.handles.inbox.clone();
        if inbox.try_send(Message::Command { command, answer: reply }).is_err() {
            return answer_busy(Some(answer));
        }
        self.order_book.has_any = true;
        self.status_requests.forget();
        let done = self.done.clone();
        tokio::spawn(async move {
            let message = match replied.await {
                Ok(Reply::Ok(message)) => message,
                Ok(Reply::Refused(reason)) => {
                    let _ = answer.send(Response::Refused { reason });
                    return;
                }
                Err(_) => {
                    let message = "the daemon is ending".to_owned();
                    let _ = answer.send(Response::Error { message });
                    return;
                }
            };
            let reply = Some((message, answer));
            if let Some(ordered) = in_force(&inbox, reply).await {
                let _ = done.send(Done::Ordered(ordered));
            }
        });
    }

    /// A plan may have left out servers that were ordered something.
    pub(super) fn review_orders(&mut self) {
        if !self.order_book.has_any {
            return;
        }
        let (inbox, done) = (self.handles.inbox.clone(), self.done.clone());
        tokio::spawn(async move {
            if let Some(ordered) = in_force(&inbox, None).await {
                let _ = done.send(Done::Ordered(ordered));
            }
        });
    }

    pub(super) fn end_ordering(&mut self, ordered: Ordered) {
        let Ordered { taken, orders, reply } = ordered;
        let mut failure = None;
        // What a later look has found is written already.
        if taken >= self.order_book.taken {
            self.order_book.taken = taken;
            self.order_book.has_any = !orders.is_empty();
            failure = self.order_book.file.try_save(&orders).err();
        }
        if let Some(error) = &failure {
            tracing::error!("orders for servers cannot be written down: {error}");
        }
        let Some((mut message, answer)) = reply else { return };
        if let Some(error) = &failure {
            message.push_str(&format!(
                "; but it cannot be written down, and a restart would forget it: {error}"
            ));
        }
        let _ = answer.send(Response::Done { message, incomplete: failure.is_some() });
    }
}

/// What the engine has in force now; `None` when it ends.
async fn in_force(
    inbox: &InboxSender,
    reply: Option<(String, oneshot::Sender<Response>)>,
) -> Option<Ordered> {
    let (answer, answered) = oneshot::channel();
    if inbox.try_send(Message::Status { answer }).is_err() {
        if let Some((message, answer)) = reply {
            let message = format!("{message}; but it is not written down: the daemon is busy");
            let _ = answer.send(Response::Done { message, incomplete: true });
        }
        return None;
    }
    let (taken, status) = answered.await.ok()?;
    Some(Ordered { taken, orders: WrittenOrder::all(&status), reply })
}

/// An address, with its port or without.
fn parse(server: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok((address.ip(), Some(address.port())));
    }
    let address = server.parse().map_err(|_| {
        format!("`{server}` is no server: name its address, as in 10.0.0.1:80 or [2001:db8::1]:80")
    })?;
    Ok((address, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_a_port_or_without() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(parse("10.0.0.1:80"), Ok((v4, Some(80))));
        assert_eq!(parse("10.0.0.1"), Ok((v4, None)));
        assert_eq!(parse("[2001:db8::1]:80"), Ok((v6, Some(80))));
        assert_eq!(parse("2001:db8::1"), Ok((v6, None)));
        assert!(parse("srv1").unwrap_err().contains("name its address"));
    }
}
