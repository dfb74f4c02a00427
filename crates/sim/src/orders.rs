//! What an operator orders of servers, and what must hold of it.
//!
//! | rule | says |
//! |---|---|
//! | `order` | an order changes no role, priority or address, and what is served has the weights that are ordered once their time has passed, over reloads |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{OperatorCommand, Output, Reply, ServerOrder};
use locum_plan::{Plan, Server, WantedServices};
use locum_vrrp::Time;

use crate::adapter::View;
use crate::judge::Drain;
use crate::node::Stimulus;
use crate::world::World;

/// While a server is on its way, the weights of its whole service are in tenths.
const TENTHS: u32 = 10;

/// Ports that no server has.
const WRONG_PORT: u16 = 81;

/// What the operator of one node has said, and what its process serves.
#[derive(Default)]
pub struct Orders {
    /// The last order for each server, and when its weight is reached.
    given: BTreeMap<SocketAddr, (Option<ServerOrder>, Time)>,
    /// The last level for the balancer.
    level: Option<Arc<WantedServices>>,
}

impl Orders {
    /// A server that has not the weight that it shall have, its weight, and that.
    fn broken(&self, plan: &Plan, now: Time) -> Option<(SocketAddr, u32, u32)> {
        let services = self.level.iter().flat_map(|level| &level.services);
        let mut wanted = services.flat_map(|service| &service.servers);
        wanted.find_map(|wanted| {
            let (order, reached) = self.given.get(&wanted.address)?;
            let own = server(plan, wanted.address)?.weight;
            let due = match order {
                None => own,
                Some(ServerOrder::Drain) => 0,
                Some(ServerOrder::Weight(weight)) => *weight,
            };
            let is_kept = wanted.weight == due || wanted.weight == due * TENTHS;
            (now >= *reached && !is_kept).then_some((wanted.address, wanted.weight, due))
        })
    }
}

/// The server of any service that has this address.
fn server(plan: &Plan, address: SocketAddr) -> Option<&Server> {
    let mut all = plan.services.iter().flat_map(|service| &service.servers);
    all.find(|server| server.address == address)
}

impl World {
    /// The operator says something of a server, or of one that is none.
    pub fn order_server(&mut self, node: usize, over: Duration) {
        let services = self.scenario.routers.iter().filter_map(|router| router.service.as_ref());
        let services: Vec<_> =
            services.map(|one| (one.name.clone(), one.servers.clone())).collect();
        if services.is_empty() {
            return;
        }
        let (service, servers) = self.random.pick(&services);
        let address = self.random.pick(&servers).address;
        let port =
            self.random.pick(&[None, Some(address.port()), Some(address.port()), Some(WRONG_PORT)]);
        let weight = ServerOrder::Weight(self.random.between(0, 5) as u32);
        let drain = Some(ServerOrder::Drain);
        let order = self.random.pick(&[drain, drain, Some(weight), None]);
        let over = self.random.pick(&[Duration::ZERO, over]);
        let address = address.ip();
        self.command(node, OperatorCommand::Server { service, address, port, order, over });
    }

    /// What came of one input, if it was an order; and what holds of all after any.
    pub fn judge_orders(&mut self, node: usize, drain: Drain<'_>) {
        let orders = &mut self.nodes[node].orders;
        for output in drain.outputs {
            if let Output::Serve { wanted, .. } = output {
                orders.level = Some(Arc::clone(wanted));
            }
        }
        match drain.stimulus {
            Stimulus::Plan(plan, _) => {
                orders.given.retain(|address, _| server(plan, *address).is_some());
            }
            Stimulus::Command(_, command) => self.judge_order(node, command, drain),
            _ => {}
        }
        // What is due at this moment may still be to be done.
        let host = &self.nodes[node];
        let is_done = host.adapter.deadline.is_none_or(|deadline| deadline > self.now);
        let broken = is_done.then(|| host.orders.broken(&host.plan, self.now)).flatten();
        if let Some((server, weight, due)) = broken {
            let detail = format!("{server} has weight {weight} and not {due}");
            self.blame(Some(node), "order", detail);
        }
    }

    fn judge_order(&mut self, node: usize, command: &OperatorCommand, drain: Drain<'_>) {
        let OperatorCommand::Server { service, address, port, order, over } = command else {
            return;
        };
        let host = &mut self.nodes[node];
        let mut services = host.plan.services.iter();
        let service = services.find(|one| one.name == *service);
        let mut servers = service.iter().flat_map(|one| &one.servers);
        let meant = servers.find(|one| {
            one.address.ip() == *address && port.is_none_or(|port| port == one.address.port())
        });
        let is_taken = drain
            .outputs
            .iter()
            .any(|output| matches!(output, Output::Reply { reply: Reply::Ok(_), .. }));
        match (meant, is_taken) {
            (Some(server), true) => {
                host.orders.given.insert(server.address, (*order, self.now + *over));
            }
            (None, true) => {
                self.blame(Some(node), "order", "a server that is none was ordered".to_owned());
            }
            (_, false) => {}
        }
        // What was due beside it is another matter, and any input puts the question of a candidate again.
        if drain.due || drain.before.iter().any(|view| view.is_candidate) {
            return;
        }
        let act = drain.outputs.iter().find(|output| match output {
            Output::Serve { .. } | Output::Notify(_) | Output::Reply { .. } => false,
            Output::Deadline(_) => false,
            Output::Hook(hook) => hook.owner.instance().is_some(),
            Output::Announce { .. }
            | Output::Listen(_)
            | Output::Masters(_)
            | Output::Advertise(_)
            | Output::Apply { .. }
            | Output::Probe(_)
            | Output::Stopped => true,
        });
        let views = &self.nodes[node].adapter.views;
        if let Some(output) = act {
            let detail = crate::trace::describe_output(output);
            self.blame(Some(node), "order", format!("it is answered by {detail}"));
        } else if !views.iter().map(View::standing).eq(drain.before.iter().map(View::standing)) {
            self.blame(Some(node), "order", "a role or priority changed".to_owned());
        }
    }
}
