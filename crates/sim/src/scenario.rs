//! What a seed says about the cluster: how many nodes and links, which virtual routers.
//!
//! Every node is given the same instances with its own priorities, as operators do; a reload
//! turns [`Edit`]s into another plan for one node.

use std::sync::Arc;
use std::time::Duration;

use locum_plan as plan;
use locum_plan::Plan;
use locum_vrrp::Family;

use crate::place::{INTERFACES, node_address, node_name};
use crate::random::Random;
use crate::virtual_router::{Edit, VirtualRouter};

#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    pub nodes: usize,
    /// Links per node, each a LAN of its own.
    pub links: usize,
    pub routers: Vec<VirtualRouter>,
    pub delay: Duration,
    pub jitter: Duration,
    /// How much later than its deadline a timeout comes, at most.
    pub tardiness: Duration,
    /// How many faults, before everything is healed.
    pub faults: usize,
}

impl Scenario {
    pub fn new(random: &mut Random) -> Self {
        let nodes = random.between(2, 5) as usize;
        let links = random.pick(&[1, 1, INTERFACES.len()]);
        let routers: Vec<_> = (0..random.pick(&[1, 1, 1, 2, 3]))
            .map(|number| VirtualRouter::new(random, number, nodes, links))
            .collect();
        let shortest = routers.iter().map(VirtualRouter::shortest_interval).min();
        let shortest = shortest.unwrap_or_default();
        let delay = random.span_between(Duration::from_micros(5), shortest / 50);
        Self {
            nodes,
            links,
            routers,
            delay,
            jitter: random.pick(&[Duration::ZERO, delay / 4, delay]),
            tardiness: random.pick(&[Duration::ZERO, Duration::from_micros(20), shortest / 50]),
            faults: random.between(0, 16) as usize,
        }
    }

    /// The longest advertisement interval of any virtual router on any node.
    pub fn longest_interval(&self) -> Duration {
        self.routers.iter().map(VirtualRouter::longest_interval).max().unwrap_or_default()
    }

    /// What a node waits after its start, at most.
    pub fn start_delay(&self) -> Duration {
        self.routers.iter().map(|router| router.start_delay).max().unwrap_or_default()
    }

    /// What this node's operator has written; one edit per virtual router.
    pub fn plan(&self, node: usize, edits: &[Edit]) -> Arc<Plan> {
        let kept = || self.routers.iter().zip(edits).filter(|(_, edit)| !edit.removed);
        Arc::new(Plan {
            node: node_name(node),
            nodes: (0..self.nodes)
                .filter(|peer| *peer != node)
                .map(|peer| plan::Node {
                    name: node_name(peer),
                    address: Some(node_address(peer, Family::V4, 0)),
                })
                .collect(),
            instances: kept()
                .map(|(router, edit)| Arc::new(router.instance(node, self.nodes, edit)))
                .collect(),
            checks: kept().filter_map(|(router, _)| router.check.clone()).collect(),
            services: kept().filter_map(|(router, _)| router.service.clone()).collect(),
            ..Plan::default()
        })
    }
}
