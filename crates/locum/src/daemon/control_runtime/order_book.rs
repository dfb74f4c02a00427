//! The orders for servers as they are written down.

use std::net::SocketAddr;
use std::path::Path;

use locum_balancer::StateFile;
use locum_control::Response;
use locum_engine::status::NodeSnapshot;
use locum_engine::{ServerOrder, StandingOrder};
use locum_vrrp::Time;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Where in the run directory they are.
const FILE: &str = "servers.json";

/// One order as the file has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WrittenOrder {
    service: String,
    server: SocketAddr,
    /// `null`: it is drained.
    weight: Option<u32>,
}

/// The file, and how new it is.
#[derive(Debug)]
pub struct OrderBook {
    pub file: StateFile,
    /// When the engine was looked at for what is written there.
    pub taken: Time,
    /// There may be some in force.
    pub has_any: bool,
}

/// What the engine has in force, after an order or a reload.
pub struct Ordered {
    pub taken: Time,
    pub orders: Vec<WrittenOrder>,
    /// What is to be said, and to whom, when it is written down.
    pub reply: Option<(String, oneshot::Sender<Response>)>,
}

impl OrderBook {
    /// With what an earlier run has left, for the engine.
    pub fn open(run_dir: &Path) -> (Self, Vec<StandingOrder>) {
        let file = StateFile::new(run_dir.join(FILE));
        let written: Vec<WrittenOrder> = file.load().unwrap_or_default();
        let orders: Vec<StandingOrder> = written.iter().map(WrittenOrder::standing).collect();
        let has_any = !orders.is_empty();
        (Self { file, taken: Time::from_nanos(0), has_any }, orders)
    }
}

impl WrittenOrder {
    fn standing(&self) -> StandingOrder {
        let order = self.weight.map_or(ServerOrder::Drain, ServerOrder::Weight);
        StandingOrder { service: self.service.as_str().into(), server: self.server, order }
    }

    /// Those that are in force.
    pub fn all(status: &NodeSnapshot) -> Vec<Self> {
        let all = status.services.iter().flat_map(|service| {
            service.servers.iter().filter_map(|server| {
                let weight = match server.order? {
                    ServerOrder::Drain => None,
                    ServerOrder::Weight(weight) => Some(weight),
                };
                Some(Self { service: service.name.to_string(), server: server.address, weight })
            })
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_is_no_order() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(OrderBook::open(directory.path()).1, []);
        std::fs::write(directory.path().join(FILE), "[{\"service\":").unwrap();
        assert_eq!(OrderBook::open(directory.path()).1, []);
        let line = r#"[{"service":"www","server":"10.0.0.1:80","weight":null},
                       {"service":"www","server":"10.0.0.2:80","weight":7}]"#;
        std::fs::write(directory.path().join(FILE), line).unwrap();
        let orders: Vec<_> =
            OrderBook::open(directory.path()).1.into_iter().map(|one| one.order).collect();
        assert_eq!(orders, [ServerOrder::Drain, ServerOrder::Weight(7)]);
    }
}
