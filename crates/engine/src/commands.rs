//! What an operator may ask for at run time.

use locum_config::plan::Name;
use locum_vrrp::{Cause, Event as RouterEvent, Role, Time};

use crate::Engine;
use crate::input::{Command, CommandId, Target};
use crate::output::{EventKind, Output, Reply};

impl Engine {
    pub(crate) fn on_command(
        &mut self,
        now: Time,
        id: CommandId,
        command: Command,
        out: &mut Vec<Output>,
    ) {
        let reply = match command {
            Command::Stop => self.stop(now),
            Command::Switchover(target) => self.switchover(now, &target),
        };
        out.push(Output::Reply { id, reply });
    }

    fn stop(&mut self, now: Time) -> Reply {
        self.stopping = true;
        self.levels_touched = true;
        for state in &mut self.instances {
            state.feed(now, RouterEvent::Stop(Cause::Stopped));
        }
        let masters = self.count_role(Role::Resigning);
        self.note(None, EventKind::Note("stopping: asked by the operator".to_owned()));
        Reply::Ok(format!("stopping; {masters} instance(s) to hand over first"))
    }

    fn switchover(&mut self, now: Time, target: &Target) -> Reply {
        if self.stopping {
            return Reply::Refused("this node is stopping and hands over everything".to_owned());
        }
        let name = match target {
            Target::All => return self.switchover_all(now),
            Target::Instance(name) => name,
        };
        let Some(at) = self.instances.iter().position(|s| s.name() == name && !s.leaving) else {
            return Reply::Refused(self.no_such_instance(name));
        };
        match self.instances[at].router.role() {
            Role::Master => {
                self.instances[at].feed(now, RouterEvent::Switchover);
                Reply::Ok(format!(
                    "{name}: mastership is on offer; the addresses stay here until it is taken"
                ))
            }
            role @ (Role::Initialize | Role::Backup | Role::Resigning | Role::Fault) => {
                let master = self.instances[at].router.master();
                let hint = master.map_or(String::new(), |m| format!(": run it on {}", m.address));
                Reply::Refused(format!("{name} is {role} here, only its master hands over{hint}"))
            }
        }
    }

    fn switchover_all(&mut self, now: Time) -> Reply {
        let mut names = Vec::new();
        for state in &mut self.instances {
            if state.router.role() == Role::Master && !state.leaving {
                names.push(state.name().to_string());
                state.feed(now, RouterEvent::Switchover);
            }
        }
        if names.is_empty() {
            return Reply::Refused("this node is master of nothing".to_owned());
        }
        Reply::Ok(format!("mastership is on offer: {}", names.join(", ")))
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
