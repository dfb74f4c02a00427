//! What happened, one line per event: time, node, input, outputs.
//!
//! Off, it costs nothing; on, it keeps every line. The digest of a trace is how two runs are
//! compared.

use locum_engine::{Event, EventKind, OperatorCommand, Output, ProbeChange, Reply, Target};
use locum_vrrp::Time;

use crate::node::Stimulus;
use crate::place::INTERFACES;
use crate::wire;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trace {
    Off,
    Kept(Vec<String>),
}

impl Trace {
    /// Adds a line, if lines are kept.
    pub fn line(&mut self, now: Time, node: &str, text: impl FnOnce() -> String) {
        if let Self::Kept(lines) = self {
            lines.push(format!("{now} {node:<4} {}", text()));
        }
    }

    pub fn lines(&self) -> &[String] {
        match self {
            Self::Off => &[],
            Self::Kept(lines) => lines,
        }
    }

    /// FNV-1a over all lines.
    pub fn digest(&self) -> u64 {
        let bytes = self.lines().iter().flat_map(|line| line.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

pub fn describe_stimulus(stimulus: &Stimulus) -> String {
    match stimulus {
        Stimulus::Packet(frame) => {
            let message = &frame.bytes[wire::header_length(frame.family)..];
            let damaged = if frame.damage.is_some() { " damaged" } else { "" };
            match message {
                [_, vrid, priority, ..] => {
                    let (from, on) = (frame.from + 1, INTERFACES[frame.link]);
                    format!("packet lb{from} {on} vrid {vrid} prio {priority}{damaged}")
                }
                _ => "packet too short".to_owned(),
            }
        }
        Stimulus::Timeout => "timeout".to_owned(),
        Stimulus::Probed(probe, outcome) => format!("probe {probe} {:?}", outcome.verdict),
        Stimulus::Link(link) => {
            format!("link {} index {} running {}", link.name, link.index, link.running)
        }
        Stimulus::Command(_, OperatorCommand::Server { service, address, order, .. }) => {
            format!("server {address} of {service}: {order:?}")
        }
        Stimulus::FactLost(key) => format!("{key} lost"),
        Stimulus::Applied(seq, owner, result) => match result {
            Ok(refusals) if refusals.is_empty() => format!("applied #{seq} {owner:?}"),
            Ok(refusals) => {
                let refused = refusals.iter().map(|one| format!("{:?} {}", one.asked, one.key));
                format!("applied #{seq} {owner:?} but {:?}", refused.collect::<Vec<_>>())
            }
            Err(error) => format!("applied #{seq} {owner:?}: {error}"),
        },
        Stimulus::Sent(instance, report) => {
            format!("sent {instance:?} {}", report.garp + report.na)
        }
        Stimulus::Served(seq, pending, refused) if pending.is_empty() && refused.is_empty() => {
            format!("served #{seq}")
        }
        Stimulus::Served(seq, pending, refused) => {
            format!("served #{seq} but {refused:?}, {pending:?} are pending")
        }
        Stimulus::Command(_, OperatorCommand::Stop) => "command stop".to_owned(),
        Stimulus::Command(_, OperatorCommand::Switchover { target: Target::All, .. }) => {
            "command switchover all".to_owned()
        }
        Stimulus::Command(
            _,
            OperatorCommand::Switchover { target: Target::Instance(name), .. },
        ) => {
            format!("command switchover {name}")
        }
        Stimulus::Plan(plan, inherited) => {
            let instances: Vec<_> = plan
                .instances
                .iter()
                .map(|i| {
                    format!(
                        "{} prio {} {:?} {} addresses",
                        i.name,
                        i.router.priority.0,
                        i.router.interval,
                        i.addresses.len()
                    )
                })
                .collect();
            let found: Vec<_> = inherited
                .iter()
                .map(|i| format!("{} left {:?}", i.fact.key(), i.valid_seconds))
                .collect();
            format!("plan {instances:?} inherited {found:?}")
        }
    }
}

pub fn describe_output(output: &Output) -> String {
    match output {
        Output::Advertise(datagram) => {
            let priority = datagram.message.get(2).copied().unwrap_or_default();
            format!("advertise {:?} prio {priority}", datagram.instance)
        }
        Output::Apply { seq, owner, hold, drop } => {
            format!("apply #{seq} {owner:?} hold {} drop {}", hold.len(), drop.len())
        }
        Output::Announce { instance, frames, .. } => {
            format!("announce {} of {instance:?}", frames.len())
        }
        Output::Serve { seq, wanted } => {
            let services: Vec<_> = wanted
                .services
                .iter()
                .map(|s| format!("{} {:?} {}", s.service.name, s.activity, s.servers.len()))
                .collect();
            format!("serve #{seq} {services:?}")
        }
        Output::Notify(event) => describe_event(event),
        Output::Hook(hook) => format!("hook of event {}: {}", hook.event, hook.command),
        Output::Probe(ProbeChange::Start { probe, .. }) => format!("probe {probe} start"),
        Output::Probe(ProbeChange::Stop { probe }) => format!("probe {probe} stop"),
        Output::Listen(sockets) => format!("listen {}", sockets.len()),
        Output::Masters(masters) => format!("masters {:?}", masters.sources),
        Output::Reply { reply: Reply::Ok(text), .. } => format!("ok {text:?}"),
        Output::Reply { reply: Reply::Refused(text), .. } => format!("refused {text:?}"),
        Output::Stopped => "stopped".to_owned(),
        Output::Deadline(None) => "no deadline".to_owned(),
        Output::Deadline(Some(at)) => format!("until {at}"),
    }
}

fn describe_event(event: &Event) -> String {
    let instance = event.instance.as_deref().unwrap_or("-");
    match &event.kind {
        EventKind::Transition { from, to, cause, priority } => {
            format!("{instance} {from} to {to} prio {} ({cause})", priority.0)
        }
        other => format!("{instance} {other:?}"),
    }
}
