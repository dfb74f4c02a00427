//! What an operator orders of servers: it goes to the engine, and what is in force is written down, so
//! that a daemon that is started again goes on with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use locum_control::{Response, ServerRequest};
use locum_engine::{Command, Reply, ServerOrder};
use locum_plan::{Plan, first_few};
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
        let command = find(&self.handles.plan, service, server).and_then(|server| {
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
            Ok(Command::Server { service: service.into(), server, order, over })
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

/// As the configuration takes it.
const MAX_WEIGHT: u32 = 65_535;

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

/// The server that is meant by an address with its port, or without where it is the only one of the
/// service with that address. Else a sentence that says what there is.
fn find(plan: &Plan, service: &str, server: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        // The engine knows whether there is one.
        return Ok(address);
    }
    let address: IpAddr = server.parse().map_err(|_| {
        format!("`{server}` is no server: name its address, as in 10.0.0.1:80 or [2001:db8::1]:80")
    })?;
    let Some(known) = plan.services.iter().find(|known| *known.name == *service) else {
        // Its answer is that there is no such service.
        return Ok(SocketAddr::new(address, 0));
    };
    let all: Vec<SocketAddr> = known.servers.iter().map(|one| one.address).collect();
    let mut found = all.iter().filter(|one| one.ip() == address);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(*only),
        (None, _) => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            let all = first_few(&all, ", ");
            Err(format!("service {service} has no server {address}; it has {all}"))
        }
        (Some(_), Some(_)) => {
            Err(format!("service {service} has several servers {address}: name the port too"))
        }
    }
}

#[cfg(test)]
mod tests {
    use locum_plan::{Server, Service};

    use super::*;

    #[test]
    fn a_server_may_be_named_without_the_port_that_it_alone_has() {
        let listen = SocketAddr::from(([192, 0, 2, 10], 80)).into();
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let servers = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:81", "[2001:db8::1]:80"];
        let servers = servers.map(|text| Server::new(socket(text))).to_vec();
        let services = vec![Service { servers, ..Service::new("www".into(), listen) }];
        let plan = Plan { services, ..Plan::default() };
        let found = |server| find(&plan, "www", server);
        assert_eq!(found("10.0.0.1"), Ok(socket("10.0.0.1:80")));
        assert_eq!(found("2001:db8::1"), Ok(socket("[2001:db8::1]:80")));
        assert_eq!(found("10.0.0.2:81"), Ok(socket("10.0.0.2:81")));
        assert!(found("10.0.0.2").unwrap_err().contains("name the port"));
        assert!(found("10.0.0.9").unwrap_err().contains("and 1 more"));
        assert!(found("srv1").unwrap_err().contains("name its address"));
    }
}
