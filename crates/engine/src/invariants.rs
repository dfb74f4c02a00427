//! What must hold between the owners of the engine's state, whatever the inputs were.
//!
//! Each owner says what it promises itself; here is what one promises the other. In a debug build
//! every drain looks at the instances it has touched, so that what it costs does not grow with
//! their number; the simulator looks at everything after every input.

use crate::engine::Engine;
use crate::ids::InstanceId;
use crate::promises;

impl Engine {
    /// Everything, between two inputs.
    ///
    /// # Errors
    /// A sentence that says what does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        let ids = self.instances.ids();
        self.check_touched(&ids)?;
        self.instances.check_all()?;
        self.services.check_invariants()?;
        let tracks = self.instances.iter().map(|state| (state.id, &*state.instance));
        self.trackers.check_invariants(tracks)?;
        let masters = self.instances.iter().filter_map(|state| {
            let family = state.router.settings().family;
            Some((&state.instance.interface, family, state.followed?))
        });
        self.masters.check_invariants(masters)?;
        self.check_listening()?;
        self.check_waiting()
    }

    /// What holds of these instances after the drain that has touched them. Some may be gone.
    pub(crate) fn check_touched(&self, ids: &[InstanceId]) -> Result<(), String> {
        for id in ids {
            let Some(state) = self.instances.get(*id) else { continue };
            let checked = self.instances.check_one(*id).and_then(|()| state.check_invariants());
            checked.map_err(|why| format!("{}: {why}", state.name()))?;
            let is_candidate = state.router.candidate().is_some();
            if is_candidate != self.groups.is_undecided(*id) {
                return Err(format!("{}: its question is not the one that waits", state.name()));
            }
        }
        Ok(())
    }

    /// The sockets hear every router that takes part. They may hear one that has handed over a
    /// little longer.
    fn check_listening(&self) -> Result<(), String> {
        let deaf =
            self.instances.iter().filter(|state| !state.router.is_finished()).find(|state| {
                let settings = state.router.settings();
                let router = (settings.version, settings.vrid);
                !self.listening.iter().any(|listen| {
                    (&listen.interface, listen.family)
                        == (&state.instance.interface, settings.family)
                        && listen.routers.contains(&router)
                })
            });
        deaf.map_or(Ok(()), |state| Err(format!("{}: no socket hears its peers", state.name())))
    }

    /// What waits for a later drain belongs to somebody, and has a time.
    fn check_waiting(&self) -> Result<(), String> {
        let is_master = |id: InstanceId| {
            let state = self.instances.get(id);
            state.is_some_and(|state| state.router.holds_addresses())
        };
        let promises = [
            (self.notes.is_empty(), "notifications wait for the next drain"),
            (!self.levels_touched, "levels wait for the next drain"),
            (self.rate.waiting().all(is_master), "frames wait of an instance that holds nothing"),
            (!self.stopped || self.stopping, "it has stopped and was not asked to"),
            (
                self.unowned_at.is_none() || !self.unowned.is_empty(),
                "a time is set to remove what nobody has left",
            ),
        ];
        promises::kept(&promises)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use locum_plan as plan;
    use locum_plan::{Plan, Track, Tracked, VirtualAddress};
    use locum_vrrp::{
        Family, Priority, Role, RouterAction, RouterEvent, RouterSettings, Time, Version, Vrid,
    };

    use super::*;
    use crate::fault::Fault;
    use crate::input::{Input, LinkState};
    use crate::instance::Departure;
    use crate::output::EventKind;

    const START: Time = Time::from_nanos(1_000_000_000);

    fn instance(name: &str, vrid: u8) -> plan::Instance {
        let mut router = RouterSettings::new(Vrid::new(vrid).unwrap(), Family::V4, Version::V3);
        let address = "192.0.2.10".parse().unwrap();
        router.priority = Priority(100);
        router.addresses = vec![address];
        plan::Instance {
            addresses: vec![VirtualAddress::new(address, 24)],
            track: vec![Track { object: Tracked::Interface("eth0".into()), weight: None }],
            keep_connections: true,
            ..plan::Instance::new(name.into(), "eth0".into(), router)
        }
    }

    /// With one instance, after this many tenths of a second.
    fn started(tenths: u32) -> Engine {
        let (mut engine, mut out) = (Engine::new(), Vec::new());
        let link = LinkState {
            name: "eth0".into(),
            index: 2,
            running: true,
            mac: Some([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            addresses: vec!["192.0.2.2".parse().unwrap()],
            forwards_v6: false,
        };
        let plan = Plan {
            node: "lb1".into(),
            instances: vec![Arc::new(instance("web", 51))],
            ..plan::Plan::default()
        };
        let inputs = [
            (START, Input::Link(link)),
            (START, Input::Plan { id: 0, plan: Arc::new(plan), inherited: Vec::new() }),
        ];
        for (now, input) in inputs {
            engine.handle(now, input, &mut out);
        }
        for tenth in 1..tenths {
            let now = START + Duration::from_millis(100) * tenth;
            engine.handle(now, Input::Timeout, &mut out);
        }
        engine
    }

    /// Master of one instance; the kernel has not answered yet.
    fn master() -> (Engine, InstanceId) {
        let (engine, id) = (started(40), InstanceId::new(0));
        assert_eq!(engine.instances[id].router.role(), Role::Master);
        (engine, id)
    }

    #[test]
    fn a_node_that_was_left_alone_keeps_every_promise() {
        assert_eq!(master().0.check_invariants(), Ok(()));
    }

    /// Each promise, with something that breaks it and nothing before it.
    #[test]
    fn every_promise_that_is_broken_is_found() {
        type Break = fn(&mut Engine, InstanceId);
        fn of(engine: &mut Engine, id: InstanceId) -> &mut crate::instance::InstanceState {
            engine.instances.quietly(id).unwrap()
        }
        let breaks: [(&str, Break); 19] = [
            ("its slot is another's", |e, id| of(e, id).id = InstanceId::new(7)),
            ("it is touched and nobody drains it", |e, id| {
                e.instances.touch(id);
            }),
            ("its timer is not its deadline", |e, id| of(e, id).timer = None),
            ("it is counted as what it was", |e, id| of(e, id).counted = Departure::Gone),
            ("its name is another's", |e, id| {
                of(e, id).instance = Arc::new(instance("mail", 51));
            }),
            ("nobody knows whether it leaves", |e, id| of(e, id).leaving = true),
            ("its adverts do not find it", |e, id| {
                of(e, id).instance = Arc::new(instance("web", 52));
            }),
            ("its actions are not carried out", |e, id| {
                of(e, id).actions.push(RouterAction::Announce { repeat: 1 });
            }),
            ("the kernel was told another level than its own", |e, id| {
                let now = START + Duration::from_secs(60);
                let state = of(e, id);
                state.feed(now, RouterEvent::Timeout);
                state.actions.clear();
                state.timer = None;
                e.instances.settle(id);
            }),
            ("it is in fault and master", |e, id| {
                of(e, id).faults.push(Fault::InterfaceMissing { interface: "eth0".into() });
            }),
            ("it follows another master", |e, id| {
                of(e, id).followed = "192.0.2.3".parse().ok();
            }),
            ("its question is not the one that waits", |e, id| {
                *e = started(2);
                let state = of(e, id);
                state.feed(START + Duration::from_millis(3700), RouterEvent::Timeout);
                assert!(state.router.candidate().is_some());
                state.actions.clear();
                e.instances.settle(id);
            }),
            ("interface eth0 has other dependents than those that track it", |e, _| {
                e.trackers.follow(std::iter::empty());
            }),
            ("are followed, masters are", |e, _| {
                let other = "192.0.2.3".parse().ok();
                e.masters.follow(&"eth0".into(), Family::V4, None, other);
            }),
            ("no socket hears its peers", |e, _| e.listening.clear()),
            ("notifications wait for the next drain", |e, _| {
                e.note(None, EventKind::Note(String::new()));
            }),
            ("levels wait for the next drain", |e, _| e.levels_touched = true),
            ("a time is set to remove what nobody has left", |e, _| e.unowned_at = Some(START)),
            ("it has stopped and was not asked to", |e, _| e.stopped = true),
        ];
        for (sentence, break_it) in breaks {
            let (mut engine, id) = master();
            break_it(&mut engine, id);
            let found = engine.check_invariants().expect_err(sentence);
            assert!(found.contains(sentence), "{found} instead of {sentence}");
        }
    }
}
