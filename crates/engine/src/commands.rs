//! What an operator may ask for at run time.

use std::time::Duration;

use locum_plan::Name;
use locum_vrrp::{Cause, Fitness, Priority, Role, RouterEvent, Time};

use crate::engine::Engine;
use crate::ids::CommandId;
use crate::ids::InstanceId;
use crate::input::{OperatorCommand, RunMode, Successor, Target};
use crate::instance::InstanceState;
use crate::output::{EventKind, Output, Reply};

/// After that the other nodes may have been repaired.
const UNTAKEN_COUNTS: Duration = Duration::from_secs(60);

/// What a master says of its priority just before it hands over, where nodes that cannot serve let
/// an offer pass and take what a fit master leaves (V-282).
fn claim(state: &InstanceState, successor: Successor) -> Option<Priority> {
    let ranking = state.instance.policy()?.ranking;
    let is_fit = state.router.fitness() == Fitness::Fit;
    match successor {
        Successor::Fit => is_fit.then(|| ranking.offer()),
        Successor::Any => (!is_fit).then_some(state.instance.router.priority),
    }
}

impl Engine {
    pub(crate) fn on_command(
        &mut self,
        now: Time,
        id: CommandId,
        command: OperatorCommand,
        out: &mut Vec<Output>,
    ) {
        let reply = match command {
            OperatorCommand::Stop => self.stop(now),
            OperatorCommand::Server { service, address, port, order, over } => {
                match self.services.find(&service, address, port) {
                    Ok(at) => self.order_server(now, at, order, over),
                    Err(why) => Reply::Refused(why),
                }
            }
            OperatorCommand::Switchover { target, to, run, successor } => {
                let masters = match self.masters_of(&target) {
                    Ok(masters) => masters,
                    Err(reply) => return out.push(Output::Reply { id, reply }),
                };
                let refusal = to.and_then(|node| self.refuse_successor(&node));
                match refusal.or_else(|| self.doubt_successors(now, &masters, successor)) {
                    Some(reply) => reply,
                    None => self.switchover(now, &masters, run, successor),
                }
            }
        };
        out.push(Output::Reply { id, reply });
    }

    fn stop(&mut self, now: Time) -> Reply {
        self.stopping = true;
        self.levels_touched = true;
        for id in self.instances.ids() {
            self.instances.touch(id).feed(now, RouterEvent::Stop(Cause::Stopped));
        }
        let masters = self.count_role(Role::Resigning);
        self.note(None, EventKind::Note("stopping: asked by the operator".to_owned()));
        Reply::Ok(match masters {
            0 => "stopping; nothing to hand over".to_owned(),
            1 => "stopping; 1 instance to hand over first".to_owned(),
            more => format!("stopping; {more} instances to hand over first"),
        })
    }

    /// Hands these instances, of which this node is master, to whoever takes them.
    fn switchover(
        &mut self,
        now: Time,
        masters: &[InstanceId],
        run: RunMode,
        successor: Successor,
    ) -> Reply {
        let names: Vec<&str> = masters.iter().map(|id| &**self.instances[*id].name()).collect();
        let names = names.join(", ");
        match run {
            RunMode::Dry => Reply::Ok(format!(
                "{names}: mastership would be offered; the addresses would stay here until it is \
                 taken, and come back if nobody takes it"
            )),
            RunMode::Real => {
                for id in masters {
                    let state = self.instances.touch(*id);
                    let claim = claim(state, successor);
                    state.feed(now, RouterEvent::Switchover { claim });
                }
                Reply::Ok(format!(
                    "{names}: mastership is on offer; the addresses stay here until it is taken"
                ))
            }
        }
    }

    /// What was offered a short while ago and taken by nobody is not offered to them again, unless
    /// it shall be taken by whoever is there.
    fn doubt_successors(
        &self,
        now: Time,
        masters: &[InstanceId],
        successor: Successor,
    ) -> Option<Reply> {
        if successor == Successor::Any {
            return None;
        }
        let (name, ago) = masters.iter().find_map(|id| {
            let state = &self.instances[*id];
            let (since, cause) = state.router.since();
            let ago = now.since(since);
            let is_untaken = *cause == Cause::NoSuccessor && ago < UNTAKEN_COUNTS;
            (is_untaken && state.instance.policy().is_some()).then(|| (state.name(), ago))
        })?;
        Some(Reply::Refused(format!(
            "{name} was on offer {} s ago and nobody took it: the other nodes cannot serve it, are in \
             fault or gone. Look at `locum status` there; with --force whoever is there takes over",
            ago.as_secs()
        )))
    }

    /// The instances meant, all of them master here; else the refusal.
    fn masters_of(&self, target: &Target) -> Result<Vec<InstanceId>, Reply> {
        if self.stopping {
            let why = "this node is stopping and hands over everything";
            return Err(Reply::Refused(why.to_owned()));
        }
        let all = self.instances.iter().filter(|state| !state.leaving);
        match target {
            Target::All => {
                let masters = all.filter(|state| state.router.role() == Role::Master);
                let masters: Vec<InstanceId> = masters.map(|state| state.id).collect();
                if masters.is_empty() {
                    return Err(Reply::Refused("this node is master of nothing".to_owned()));
                }
                Ok(masters)
            }
            Target::Instance(name) => {
                let mut named = all.filter(|state| state.name() == name);
                let Some(state) = named.next() else {
                    return Err(Reply::Refused(self.no_such_instance(name)));
                };
                match state.router.role() {
                    Role::Master => Ok(vec![state.id]),
                    Role::Resigning => {
                        Err(Reply::Refused(format!("{name} is being handed over already")))
                    }
                    role @ (Role::Initialize | Role::Backup | Role::Fault) => {
                        let master = state.router.master();
                        let hint =
                            master.map_or(String::new(), |m| format!(": run it on {}", m.address));
                        Err(Reply::Refused(format!(
                            "{name} is {role} here, only its master hands over{hint}"
                        )))
                    }
                }
            }
        }
    }

    /// Why `node` cannot be promised the mastership; `None` when it is the only one to take it.
    fn refuse_successor(&self, node: &Name) -> Option<Reply> {
        let plan = self.plan.as_ref()?;
        let others: Vec<&str> =
            plan.nodes.iter().filter(|n| n.name != plan.node).map(|n| &*n.name).collect();
        let why = if *node == plan.node {
            format!("{node} is this node")
        } else if !others.contains(&&**node) {
            format!("the configuration has no node {node}; the others are: {}", others.join(", "))
        } else if others.len() > 1 {
            format!(
                "with {} other nodes the one with the highest priority takes over: raise the \
                 priority of {node} instead",
                others.len()
            )
        } else {
            return None;
        };
        Some(Reply::Refused(why))
    }

    fn count_role(&self, role: Role) -> usize {
        self.instances.iter().filter(|state| state.router.role() == role).count()
    }

    fn no_such_instance(&self, name: &Name) -> String {
        let names: Vec<&str> =
            self.instances.iter().filter(|s| !s.leaving).map(|s| &**s.name()).collect();
        format!("there is no instance {name}; there is {}", names.join(", "))
    }
}
