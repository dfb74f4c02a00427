//! Which changes turn what the kernel has into what is wanted, and in which order. Pure.
//!
//! The kernel applies each message alone. What clients see in between is decided by the order: what
//! can be edited is never deleted, and what is added comes before what goes (I-032).

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::model::{DestId, DestSpec, ObservedService, Operation, ServiceId, ServiceSpec};
use crate::diff::{Difference, diff};

/// Changes in the order of I-032. `owned` services that are not wanted go; others that are not
/// wanted stay as they are. Of a service or destination wanted twice, the last one counts.
pub(crate) fn plan(
    wanted: &[(ServiceSpec, Vec<DestSpec>)],
    owned: &[ServiceId],
    observed: &[ObservedService],
) -> Vec<Operation> {
    let owned: BTreeSet<_> = owned.iter().collect();
    let wanted: BTreeMap<_, _> =
        wanted.iter().map(|(spec, dests)| (spec.id, (spec, dests))).collect();
    let observed: BTreeMap<_, _> =
        observed.iter().map(|service| (service.spec.id, service)).collect();

    let mut steps = Steps::default();
    for (id, change) in diff(&wanted, &observed) {
        match change {
            Difference::Missing((spec, dests)) => {
                steps.new_services.push(Operation::NewService((*spec).clone()));
                steps.dests(id, dests, &[]);
            }
            Difference::Both((spec, dests), service) => {
                if **spec != service.spec {
                    steps.set_services.push(Operation::SetService((*spec).clone()));
                }
                let there: Vec<_> = service.dests.iter().map(|dest| dest.spec.clone()).collect();
                steps.dests(id, dests, &there);
            }
            Difference::Extra(_) => {
                if owned.contains(&id) {
                    steps.del_services.push(Operation::DelService(id));
                }
            }
        }
    }
    steps.in_order()
}

/// Operations by their place in the order.
#[derive(Default)]
struct Steps {
    set_services: Vec<Operation>,
    new_services: Vec<Operation>,
    new_dests: Vec<Operation>,
    raise_dests: Vec<Operation>,
    lower_dests: Vec<Operation>,
    del_dests: Vec<Operation>,
    del_services: Vec<Operation>,
}

impl Steps {
    fn dests(&mut self, service: ServiceId, wanted: &[DestSpec], observed: &[DestSpec]) {
        let by_id = |specs: &[DestSpec]| -> BTreeMap<DestId, DestSpec> {
            specs.iter().map(|spec| (spec.id, spec.clone())).collect()
        };
        for (id, change) in diff(&by_id(wanted), &by_id(observed)) {
            match change {
                Difference::Missing(spec) => {
                    self.new_dests.push(Operation::NewDest(service, spec.clone()));
                }
                Difference::Both(spec, there) if spec == there => {}
                Difference::Both(spec, there) => {
                    let set = Operation::SetDest(service, spec.clone());
                    if spec.weight < there.weight {
                        self.lower_dests.push(set);
                    } else {
                        self.raise_dests.push(set);
                    }
                }
                Difference::Extra(_) => self.del_dests.push(Operation::DelDest(service, id)),
            }
        }
    }

    fn in_order(self) -> Vec<Operation> {
        [
            self.set_services,
            self.new_services,
            self.new_dests,
            self.raise_dests,
            self.lower_dests,
            self.del_dests,
            self.del_services,
        ]
        .concat()
    }
}

/// What to do about an operation that the kernel refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// Somebody else was faster.
    Instead(Operation),
    /// It is gone, as it should be.
    Done,
    /// A failure to report.
    None,
}

/// I-034. A missing scheduler is ENOENT too (I-036), so that for a service only ESRCH means that it
/// is missing.
pub(crate) fn remedy(operation: &Operation, errno: Errno) -> Remedy {
    match (operation, errno) {
        (Operation::NewService(spec), Errno::EEXIST) => {
            Remedy::Instead(Operation::SetService(spec.clone()))
        }
        (Operation::SetService(spec), Errno::ESRCH) => {
            Remedy::Instead(Operation::NewService(spec.clone()))
        }
        (Operation::NewDest(service, dest), Errno::EEXIST) => {
            Remedy::Instead(Operation::SetDest(*service, dest.clone()))
        }
        (Operation::SetDest(service, dest), Errno::ENOENT | Errno::ESRCH) => {
            Remedy::Instead(Operation::NewDest(*service, dest.clone()))
        }
        (Operation::DelService(_) | Operation::DelDest(..), Errno::ENOENT | Errno::ESRCH) => {
            Remedy::Done
        }
        _ => Remedy::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip_protocol::IpProtocol;
    use crate::ipvs::model::{ForwardingMethod, IpvsTraffic, ObservedDest};

    fn id(port: u16) -> ServiceId {
        ServiceId::listener(IpProtocol::Tcp, ([192, 0, 2, 10], port).into())
    }

    fn service(port: u16, scheduler: &str) -> ServiceSpec {
        ServiceSpec::new(id(port), scheduler)
    }

    fn dest(host: u8, weight: u32) -> DestSpec {
        DestSpec::new(([10, 0, 0, host], 80).into(), ForwardingMethod::Masq, weight)
    }

    fn observed(spec: ServiceSpec, dests: &[DestSpec]) -> ObservedService {
        let dests = dests
            .iter()
            .map(|spec| ObservedDest {
                spec: spec.clone(),
                active_connections: 0,
                inactive_connections: 0,
                persistent_connections: 0,
                traffic: IpvsTraffic::default(),
            })
            .collect();
        ObservedService { spec, dests, traffic: IpvsTraffic::default() }
    }

    /// Operations as short words: "set :80", "new :80 10.0.0.1=5".
    fn words(operations: &[Operation]) -> Vec<String> {
        let name = |id: &ServiceId| match id {
            ServiceId::Listener { port, .. } => format!(":{port}"),
            ServiceId::Mark { mark, .. } => format!("mark {mark}"),
        };
        let dest = |dest: &DestSpec| format!("{}={}", dest.id.address, dest.weight);
        operations
            .iter()
            .map(|operation| match operation {
                Operation::SetService(spec) => format!("set {}", name(&spec.id)),
                Operation::NewService(spec) => format!("new {}", name(&spec.id)),
                Operation::DelService(id) => format!("del {}", name(id)),
                Operation::NewDest(id, spec) => format!("new {} {}", name(id), dest(spec)),
                Operation::SetDest(id, spec) => format!("set {} {}", name(id), dest(spec)),
                Operation::DelDest(id, gone) => format!("del {} {}", name(id), gone.address),
            })
            .collect()
    }

    #[test]
    fn i_033_what_is_as_wanted_generates_no_message() {
        let wanted = [(service(80, "rr"), vec![dest(1, 5), dest(2, 5)])];
        let there = [observed(service(80, "rr"), &[dest(2, 5), dest(1, 5)])];
        assert_eq!(plan(&wanted, &[id(80)], &there), []);
    }

    #[test]
    fn i_033_of_ten_thousand_servers_one_that_changed_is_one_operation() {
        let hosts: Vec<DestSpec> = (1..=10).map(|host| dest(host, 5)).collect();
        let ports = 1000..2000;
        let mut wanted: Vec<_> =
            ports.clone().map(|port| (service(port, "wrr"), hosts.clone())).collect();
        let there: Vec<_> = ports.map(|port| observed(service(port, "wrr"), &hosts)).collect();
        assert_eq!(plan(&wanted, &[], &there), []);
        wanted[500].1[3].weight = 7;
        assert_eq!(words(&plan(&wanted, &[], &there)), ["set :1500 10.0.0.4=7"]);
    }

    #[test]
    fn i_032_everything_at_once_comes_in_the_order_that_keeps_clients_served() {
        let wanted = [
            (service(80, "wlc"), vec![dest(1, 9), dest(2, 0), dest(3, 5), dest(5, 1)]),
            (service(443, "rr"), vec![dest(1, 1)]),
        ];
        let there = [
            observed(service(80, "rr"), &[dest(1, 5), dest(2, 5), dest(4, 5), dest(5, 1)]),
            observed(service(25, "rr"), &[dest(1, 1)]),
        ];
        assert_eq!(
            words(&plan(&wanted, &[id(25)], &there)),
            [
                "set :80",
                "new :443",
                "new :80 10.0.0.3=5",
                "new :443 10.0.0.1=1",
                "set :80 10.0.0.1=9",
                "set :80 10.0.0.2=0",
                "del :80 10.0.0.4",
                "del :25",
            ]
        );
    }

    #[test]
    fn i_032_a_complete_exchange_of_servers_adds_before_it_removes() {
        let wanted = [(service(80, "rr"), vec![dest(2, 1)])];
        let there = [observed(service(80, "rr"), &[dest(1, 1)])];
        assert_eq!(words(&plan(&wanted, &[], &there)), ["new :80 10.0.0.2=1", "del :80 10.0.0.1"]);
    }

    #[test]
    fn i_031_a_foreign_service_is_not_touched_and_a_wanted_one_is_adopted() {
        let there = [
            observed(service(80, "rr"), &[dest(1, 1)]),
            observed(service(25, "rr"), &[dest(1, 1)]),
        ];
        assert_eq!(plan(&[], &[], &there), []);
        let wanted = [(service(80, "rr"), vec![dest(1, 2)])];
        assert_eq!(words(&plan(&wanted, &[], &there)), ["set :80 10.0.0.1=2"]);
    }

    #[test]
    fn i_031_an_owned_service_that_is_gone_already_needs_nothing() {
        assert_eq!(plan(&[], &[id(80)], &[]), []);
    }

    #[test]
    fn i_030_another_port_or_address_is_another_service() {
        let wanted = [(service(81, "rr"), vec![])];
        let there = [observed(service(80, "rr"), &[])];
        assert_eq!(words(&plan(&wanted, &[id(80), id(81)], &there)), ["new :81", "del :80"]);
    }

    #[test]
    fn any_option_of_a_destination_is_edited_in_place() {
        let direct = DestSpec { forwarding: ForwardingMethod::Direct, ..dest(1, 5) };
        let limited = DestSpec { upper_threshold: 100, ..dest(2, 5) };
        let wanted = [(service(80, "rr"), vec![direct, limited])];
        let there = [observed(service(80, "rr"), &[dest(1, 5), dest(2, 5)])];
        assert_eq!(
            words(&plan(&wanted, &[], &there)),
            ["set :80 10.0.0.1=5", "set :80 10.0.0.2=5"]
        );
    }

    #[test]
    fn i_034_who_was_slower_edits_and_what_is_gone_is_done() {
        let new = Operation::NewService(service(80, "rr"));
        let set = Operation::SetService(service(80, "rr"));
        let new_dest = Operation::NewDest(id(80), dest(1, 1));
        let set_dest = Operation::SetDest(id(80), dest(1, 1));
        let del = Operation::DelService(id(80));
        let del_dest = Operation::DelDest(id(80), dest(1, 1).id);
        assert_eq!(remedy(&new, Errno::EEXIST), Remedy::Instead(set.clone()));
        assert_eq!(remedy(&set, Errno::ESRCH), Remedy::Instead(new.clone()));
        assert_eq!(remedy(&new_dest, Errno::EEXIST), Remedy::Instead(set_dest.clone()));
        assert_eq!(remedy(&set_dest, Errno::ENOENT), Remedy::Instead(new_dest.clone()));
        assert_eq!(remedy(&set_dest, Errno::ESRCH), Remedy::Instead(new_dest));
        for gone in [Errno::ENOENT, Errno::ESRCH] {
            assert_eq!(remedy(&del, gone), Remedy::Done);
            assert_eq!(remedy(&del_dest, gone), Remedy::Done);
        }
        // I-036: the scheduler is missing, not the service.
        assert_eq!(remedy(&set, Errno::ENOENT), Remedy::None);
        assert_eq!(remedy(&new, Errno::ENOENT), Remedy::None);
        assert_eq!(remedy(&del, Errno::EPERM), Remedy::None);
    }
}
