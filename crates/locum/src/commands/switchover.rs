//! `switchover`: asks the daemon, and then says what came of it. What is on offer may be taken by
//! nobody, and whoever gave the command has to know before the night shift ends.

use std::thread;
use std::time::{Duration, Instant};

use locum_control::client::{ANSWER_TIMEOUT, COMMAND_TIMEOUT};
use locum_control::status::InstanceStatus;
use locum_control::{Client, ClientError, Request, Response, StatusDocument};
use locum_vrrp::Cause;

use super::{no_answer, not_done};
use crate::cli::{DaemonArgs, SwitchoverArgs};
use crate::exit;
use crate::terminal::{complain, say};
use crate::text::{age, millis};

/// Between two looks; a status is made from one look at the engine.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// After that it is said that nothing has come of it yet: two longest skews and what a successor
/// needs to be ready are over, at any interval, when as many intervals have passed besides.
const LIMIT: Duration = Duration::from_secs(10);
const LIMIT_INTERVALS: u64 = 3;

pub fn run(options: &SwitchoverArgs, place: &DaemonArgs) -> u8 {
    match hand_over(options, place) {
        Ok(code) => code,
        Err(error) => no_answer(&error),
    }
}

fn hand_over(options: &SwitchoverArgs, place: &DaemonArgs) -> Result<u8, ClientError> {
    let mut client = Client::connect(&place.socket())?;
    // Of all instances those that this node is master of now.
    let before = match client.call(&Request::Status, ANSWER_TIMEOUT)? {
        Response::Status { status } => status,
        other => return Ok(not_done(other)),
    };
    let is_meant = |one: &&InstanceStatus| match &options.instance {
        Some(name) => one.name == *name,
        None => one.role == "master",
    };
    let mut watched: Vec<Watched> =
        before.instances.iter().filter(is_meant).map(Watched::of).collect();
    let (instance, to) = (options.instance.clone(), options.to.clone());
    let SwitchoverArgs { dry_run, force, .. } = *options;
    let begun = Instant::now();
    let request = Request::Switchover { instance, to, dry_run, force };
    match client.call(&request, COMMAND_TIMEOUT)? {
        Response::Done { message, .. } => say(&format!("{message}\n")),
        other => return Ok(not_done(other)),
    }
    if dry_run {
        return Ok(exit::OK);
    }
    let intervals = watched.iter().map(|one| one.interval_ms).max().unwrap_or(0);
    let limit = LIMIT + Duration::from_millis(intervals.saturating_mul(LIMIT_INTERVALS));
    let mut code = exit::OK;
    while !watched.is_empty() {
        thread::sleep(LOOK_INTERVAL);
        let asked = begun.elapsed();
        let status = match client.call(&Request::Status, ANSWER_TIMEOUT)? {
            Response::Status { status } => status,
            other => return Ok(not_done(other)),
        };
        watched.retain_mut(|one| match one.look(&status, millis(asked)) {
            Some(Ok(taken)) => {
                say(&format!("{taken}\n"));
                false
            }
            Some(Err(reason)) => {
                complain(&format!("locum: {reason}\n"));
                code = exit::FAILED;
                false
            }
            None => true,
        });
        if begun.elapsed() > limit && !watched.is_empty() {
            let names: Vec<&str> = watched.iter().map(|one| &*one.name).collect();
            complain(&format!(
                "locum: {}: not over after {}: look at `locum status`\n",
                names.join(", "),
                age(millis(limit))
            ));
            return Ok(exit::FAILED);
        }
    }
    Ok(code)
}

/// An instance that is being handed over.
struct Watched {
    name: String,
    interval_ms: u64,
    /// When its successor was heard first, in milliseconds after the command.
    taken_ms: Option<u64>,
}

impl Watched {
    fn of(instance: &InstanceStatus) -> Self {
        let InstanceStatus { name, interval_ms, .. } = instance;
        Self { name: name.clone(), interval_ms: *interval_ms, taken_ms: None }
    }

    /// What has come of it, `asked_ms` after the command; `None` while it is under way.
    fn look(&mut self, status: &StatusDocument, asked_ms: u64) -> Option<Result<String, String>> {
        let name = &self.name;
        let Some(instance) = status.instances.iter().find(|one| one.name == *name) else {
            return Some(Err(format!("{name} is not in the configuration any more")));
        };
        let successor = instance.peer.as_ref().filter(|peer| peer.priority != 0);
        if let Some(peer) = successor.filter(|peer| peer.heard_ms < asked_ms) {
            self.taken_ms.get_or_insert(asked_ms - peer.heard_ms);
        }
        // What was so before is no answer: a status may be some milliseconds old.
        if instance.role != "resigning" && instance.since_ms > asked_ms {
            return None;
        }
        match instance.role.as_str() {
            "resigning" => None,
            "backup" => {
                let after = age(self.taken_ms.unwrap_or(asked_ms));
                let by = instance.master.map_or(String::new(), |address| format!(" by {address}"));
                Some(Ok(format!("{name}: taken{by} after {after}")))
            }
            "master" if instance.cause_kind == Cause::NoSuccessor.word() => Some(Err(format!(
                "{name}: nobody took it, so this node is master again: the others are gone, in fault \
                 or cannot serve it; look at `locum status` there"
            ))),
            role => Some(Err(format!("{name} is {role} here now: {}", instance.cause))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample;

    /// As it is `since_ms` after it took this role, when the peer was heard `heard_ms` ago.
    fn status(role: &str, since_ms: u64, heard_ms: u64) -> StatusDocument {
        let mut document = sample::document();
        let instance = &mut document.instances[0];
        (instance.role, instance.since_ms) = (role.into(), since_ms);
        if let Some(peer) = &mut instance.peer {
            peer.heard_ms = heard_ms;
        }
        document
    }

    #[test]
    fn the_successor_is_named_with_the_time_until_its_first_advert() {
        let mut one = Watched::of(&sample::document().instances[0]);
        assert_eq!(one.look(&status("master", 90_000, 120_000), 50), None, "from before");
        assert_eq!(one.look(&status("resigning", 60, 120_000), 100), None);
        assert_eq!(one.look(&status("resigning", 700, 50), 750), None, "heard, and it goes on");
        let taken = one.look(&status("backup", 20, 430), 1_150);
        assert_eq!(taken, Some(Ok("web: taken by 192.0.2.2 after 0.7s".to_owned())));
    }

    #[test]
    fn what_nobody_took_is_a_failure_that_says_where_to_look() {
        let mut one = Watched::of(&sample::document().instances[0]);
        let mut document = status("master", 10, 120_000);
        document.instances[0].cause_kind = Cause::NoSuccessor.word().to_owned();
        let said = one.look(&document, 2_200).and_then(Result::err).unwrap_or_default();
        assert!(said.starts_with("web: nobody took it, so this node is master again"), "{said}");
        document.instances[0].role = "fault".into();
        document.instances[0].cause_kind = "fault".into();
        document.instances[0].cause = "interface eth0 is down or has no carrier".into();
        let said = one.look(&document, 2_300).and_then(Result::err).unwrap_or_default();
        assert_eq!(said, "web is fault here now: interface eth0 is down or has no carrier");
        document.instances.clear();
        assert!(one.look(&document, 2_400).is_some_and(|end| end.is_err()));
    }
}
