//! Checks that can pass only while somebody is master, tracked by the instance whose master that
//! is: the check waits for the master, and the master for the check.
//!
//! ```text
//!   instance web ──tracks──► check haproxy ──asks for──► haproxy front
//!        ▲                                                    │
//!        └───────────────── runs on its master only ──────────┘
//! ```

use std::net::{IpAddr, SocketAddr};

use locum_plan::{
    Check, Checker, Command, CommandLine, HaproxyFile, Instance, Name, Plan, Question, Standby,
    Tracked,
};

use crate::dialect::Dialect;
use crate::parsed::{Parsed, ParsedInstance};
use crate::settings::track_services::TrackServices;
use crate::span::Report;
use crate::validate::common::strict_in_toml;
use crate::validate::loops::receives;

/// Reports every check that waits for the master of an instance that waits for the check.
pub(super) fn validate(parsed: &Parsed, plan: &Plan, report: &mut Report) {
    for (one, check) in parsed.checks.iter().zip(&plan.checks) {
        let span = one.checker.given().map_or(one.span, |at| at.span);
        let Some(awaited) = awaited(plan, check) else { continue };
        let Dependence { instance, why, is_by_network } = &awaited;
        let trackers: Vec<&Name> =
            plan.instances.iter().filter(|one| tracks(one, check)).map(|one| &one.name).collect();
        let name = &check.name;
        let text = if trackers.contains(instance) {
            format!(
                "check `{name}` can pass only while `{instance}`, which tracks it, has a master: \
                 {why}"
            )
        } else if let Some(tracker) =
            trackers.iter().find(|tracker| waits_for(plan, instance, tracker))
        {
            format!(
                "check `{name}` can pass only while `{instance}` has a master, and that waits for \
                 `{tracker}`, which tracks the check: {why}"
            )
        } else if trackers.is_empty() || !is_by_network {
            // Asked at 127.0.0.1 it follows the other instance's master, which may be meant.
            continue;
        } else {
            let text = format!(
                "check `{name}` says the same on every node, so it decides nothing between them: \
                 {why}"
            );
            report.warning(span, "same-everywhere", text).help(match parsed.dialect {
                Dialect::Toml => {
                    "to follow a service of another instance name it in `track`; what every node \
                     has by itself is asked at 127.0.0.1"
                }
                Dialect::Keepalived => OF_EVERY_NODE,
            });
            continue;
        };
        let is_untracked = |one: &&ParsedInstance| {
            one.track_services.value() == Some(&TrackServices::Nothing)
                && trackers.iter().any(|tracker| ***tracker == *one.name.value)
        };
        let help = match (parsed.dialect, parsed.instances.iter().find(is_untracked)) {
            (Dialect::Keepalived, _) => OF_EVERY_NODE,
            (Dialect::Toml, None) => {
                "leave the check out: an instance tracks what it serves by itself; what every node \
                 has by itself is asked at 127.0.0.1"
            }
            (Dialect::Toml, Some(_)) => {
                "leave the check out, and `track_services = false` with it: an instance tracks what \
                 it serves by itself"
            }
        };
        strict_in_toml(parsed.dialect, span, "master-only-check", text, report).help(help);
    }
}

const OF_EVERY_NODE: &str = "ask what every node has by itself, as at 127.0.0.1";

fn tracks(instance: &Instance, check: &Check) -> bool {
    instance.track.iter().any(|track| track.object.check() == Some(&check.name))
}

/// Whether `instance` tracks a check that passes only while `other` has a master, by itself or
/// through others.
fn waits_for(plan: &Plan, instance: &Name, other: &Name) -> bool {
    let mut seen = vec![instance];
    let mut at = 0;
    while let Some(name) = seen.get(at).copied() {
        at += 1;
        let tracked = plan.instances.iter().filter(|one| one.name == *name);
        let checks = tracked.flat_map(|one| &one.track).filter_map(|track| match &track.object {
            Tracked::Check(check) => plan.checks.iter().find(|one| one.name == *check),
            Tracked::Interface(_) | Tracked::Service(_) | Tracked::Haproxy(_) => None,
        });
        for next in checks.filter_map(|check| awaited(plan, check)) {
            if next.instance == other {
                return true;
            }
            if !seen.contains(&next.instance) {
                seen.push(next.instance);
            }
        }
    }
    false
}

/// The instance that must have a master before a check can pass.
struct Dependence<'a> {
    instance: &'a Name,
    why: String,
    /// Every node asks the same one, over the network.
    is_by_network: bool,
}

fn awaited<'a>(plan: &'a Plan, check: &'a Check) -> Option<Dependence<'a>> {
    match sought(&check.probe.kind)? {
        Sought::Process(name) => of_process(plan, check, name),
        Sought::Host(address, port) => of_address(plan, address, port),
    }
}

/// Every HAProxy of this name runs on masters only, of instances that track the check: one that runs
/// elsewhere too would let it pass.
fn of_process<'a>(plan: &'a Plan, check: &Check, name: &str) -> Option<Dependence<'a>> {
    let runs = |file: &&HaproxyFile| file.program.file_name().is_some_and(|own| own == name);
    let tracking = |file: &HaproxyFile| {
        let mut instances = plan.instances.iter();
        file.standby == Standby::Cold
            && instances.any(|one| Some(&one.name) == file.instance.as_ref() && tracks(one, check))
    };
    if !plan.haproxy.iter().filter(runs).all(tracking) {
        return None;
    }
    let file = plan.haproxy.iter().find(runs)?;
    let instance = file.instance.as_ref()?;
    let why = format!("haproxy `{}` runs on its master alone", file.name);
    Some(Dependence { instance, why, is_by_network: false })
}

fn of_address(plan: &Plan, address: IpAddr, port: Option<u16>) -> Option<Dependence<'_>> {
    let has = |one: &Instance| one.addresses.iter().any(|held| held.address == address);
    if let Some(instance) = plan.instances.iter().find(|one| has(one)) {
        let why = format!("{address} is where its master is");
        return Some(Dependence { instance: &instance.name, why, is_by_network: true });
    }
    let target = SocketAddr::new(address, port?);
    // A warm proxy has its ports on a backup as well.
    let is_of_master = |one: &&locum_plan::Service| {
        one.instance.is_some() && one.standby == Standby::Cold && receives(plan, one, target)
    };
    let service = plan.services.iter().find(is_of_master)?;
    let why = format!("service `{}` is served by its master alone", service.name);
    let instance = service.instance.as_ref()?;
    Some(Dependence { instance, why, is_by_network: !address.is_loopback() })
}

/// What a check needs to find, as far as it can be told.
#[derive(PartialEq, Eq, Debug)]
enum Sought<'a> {
    Process(&'a str),
    /// Somebody who answers at this address, and at this port where there is one.
    Host(IpAddr, Option<u16>),
}

fn sought(checker: &Checker) -> Option<Sought<'_>> {
    match checker {
        Checker::Process { name } => Some(Sought::Process(name)),
        Checker::Ask { target, question: Question::Ping, .. } => {
            Some(Sought::Host(target.ip(), None))
        }
        Checker::Ask { target, .. } => Some(Sought::Host(target.ip(), Some(target.port()))),
        // Of the servers of a service, and of files.
        Checker::ServerScript { .. } | Checker::File { .. } => None,
        Checker::Script(Command { line: CommandLine::Argv(words), .. }) => {
            sought_by(&words.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Checker::Script(Command { line: CommandLine::Shell(line), .. }) => {
            sought_by(&plain_words(line)?)
        }
    }
}

/// The words of a shell line that has nothing else, but for where its output goes.
fn plain_words(line: &str) -> Option<Vec<&str>> {
    let is_output = |word: &&str| {
        let to = word.trim_start_matches(['1', '2', '&']);
        to.strip_prefix('>').is_some_and(|to| to == "/dev/null" || to == "&1")
    };
    let words: Vec<&str> = line.split_whitespace().filter(|word| !is_output(word)).collect();
    let special = "|&;<>()$`\\\"'*?[]#~={}!";
    let is_plain = |word: &&str| !word.contains(|c| special.contains(c));
    words.iter().all(is_plain).then_some(words)
}

/// Programs that everybody uses in checks, in the ways that leave no doubt.
fn sought_by<'a>(words: &[&'a str]) -> Option<Sought<'a>> {
    let (program, arguments) = words.split_first()?;
    let last = arguments.last()?;
    match program.rsplit('/').next()? {
        "killall" | "pidof" | "pgrep" => {
            let options = &arguments[..arguments.len() - 1];
            let asks_for_the_name = match *program.rsplit('/').next()?.as_bytes() {
                [b'k', ..] => options.contains(&"-0") && is_among(options, &["-0", "-q"]),
                [b'p', b'i', ..] => is_among(options, &["-q", "-s", "-x"]),
                _ => options.contains(&"-x") && is_among(options, &["-x", "-c"]),
            };
            (asks_for_the_name && !last.starts_with('-')).then_some(Sought::Process(last))
        }
        "curl" | "wget" => [*last, arguments[0]].into_iter().find_map(host_of_url),
        "nc" | "ncat" | "netcat" => {
            let host = arguments.len().checked_sub(2).map(|at| arguments[at])?;
            Some(Sought::Host(host.parse().ok()?, Some(last.parse().ok()?)))
        }
        "ping" | "ping6" => Some(Sought::Host(last.parse().ok()?, None)),
        _ => None,
    }
}

fn is_among(options: &[&str], known: &[&str]) -> bool {
    options.iter().all(|option| known.contains(option))
}

fn host_of_url(url: &str) -> Option<Sought<'static>> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    if let Ok(target) = authority.parse::<SocketAddr>() {
        return Some(Sought::Host(target.ip(), Some(target.port())));
    }
    let address = authority.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(Sought::Host(address, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_argv(line: &str) -> Option<Sought<'_>> {
        sought_by(&line.split(' ').collect::<Vec<_>>())
    }

    fn host(address: &str, port: Option<u16>) -> Option<Sought<'static>> {
        Some(Sought::Host(address.parse().expect("an address"), port))
    }

    #[test]
    fn a_command_that_plainly_asks_for_a_process_is_understood() {
        let haproxy = || Some(Sought::Process("haproxy"));
        for line in [
            "killall -0 haproxy",
            "/usr/bin/killall -q -0 haproxy",
            "pidof haproxy",
            "pidof -s haproxy",
            "pgrep -x haproxy",
        ] {
            assert_eq!(of_argv(line), haproxy(), "{line}");
        }
        for line in [
            "killall haproxy",
            "killall -0 nginx haproxy",
            "pgrep haproxy",
            "pgrep -f -x haproxy",
            "pgrep -x -u root haproxy",
            "systemctl is-active haproxy",
            "killall",
        ] {
            assert_eq!(of_argv(line), None, "{line}");
        }
    }

    #[test]
    fn a_command_that_plainly_asks_an_address_is_understood() {
        assert_eq!(of_argv("curl -sf http://192.0.2.10/alive"), host("192.0.2.10", Some(80)));
        assert_eq!(of_argv("wget https://[::1]:8443 -q"), host("::1", Some(8443)));
        assert_eq!(of_argv("curl https://[2001:db8::1]/"), host("2001:db8::1", Some(443)));
        assert_eq!(of_argv("nc -z -w 1 192.0.2.10 443"), host("192.0.2.10", Some(443)));
        assert_eq!(of_argv("ping -c 1 192.0.2.10"), host("192.0.2.10", None));
        for line in [
            "curl --interface 192.0.2.10 http://example.com/",
            "curl -e http://192.0.2.10/ http://example.com/",
            "nc -l 443",
            "ping -I 192.0.2.10 example.com",
            "/usr/local/bin/check 192.0.2.10 80",
        ] {
            assert_eq!(of_argv(line), None, "{line}");
        }
    }

    #[test]
    fn a_shell_line_is_understood_when_it_is_one_command() {
        let words = plain_words("curl -sf http://192.0.2.10/ >/dev/null 2>&1");
        assert_eq!(words, Some(vec!["curl", "-sf", "http://192.0.2.10/"]));
        for line in ["curl http://192.0.2.10/ || true", "! pidof haproxy", "pidof $NAME"] {
            assert_eq!(plain_words(line), None, "{line}");
        }
    }
}
