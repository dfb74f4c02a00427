//! `check --host`: does this machine have what the plan needs? Looks, and changes nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use locum_config::{Diagnostic, Diagnostics, Loaded, Need, NeedKind, Severity};
use locum_kernel::netlink;
use locum_kernel::own_links::own_links;
use nix::unistd::{AccessFlags, Group, User, access, geteuid};

use crate::obstacles::{Occasion, findings};

/// Adds what is missing; `config` is the plan's own file. All is looked at with the rights of this
/// process.
pub fn check(loaded: &Loaded, config: &str, diagnostics: &mut Diagnostics) {
    for need in &loaded.needs {
        if let Some(missing) = missing(need) {
            diagnostics.push(missing);
        }
    }
    let Some(mut plan) = loaded.plan.as_deref().cloned() else { return };
    // A missing program or file is a need of its own.
    plan.haproxy.retain(|file| {
        find_program(&file.program.to_string_lossy()).is_ok() && File::open(&file.config).is_ok()
    });
    let found = findings(&plan, config, Occasion::Check);
    found.into_iter().for_each(|obstacle| diagnostics.push(obstacle));
}

/// Says whose rights those were, where the daemon has others.
pub fn rights() -> Option<String> {
    let user = geteuid();
    let name = || Some(User::from_uid(user).ok()??.name);
    (!user.is_root()).then(|| {
        let name = name().map(|name| format!(" ({name})")).unwrap_or_default();
        format!(
            "the host was looked at with the rights of user {user}{name}: run it as the daemon's \
             user, which may read more and may bind ports below 1024"
        )
    })
}

fn missing(need: &Need) -> Option<Diagnostic> {
    let at = |code, message: String, help: &str| {
        Some(Diagnostic::at(need.place.clone(), need.severity, code, message).with_help(help))
    };
    match &need.kind {
        NeedKind::Interface(name) => netlink::link_index(name).err().and_then(|_| {
            let message = match need.severity {
                Severity::Error => format!("this machine has no interface {name}"),
                Severity::Warning => {
                    format!("this machine has no interface {name} yet: its instance waits for it")
                }
            };
            at("no-interface", message, "`ip link` lists those there are")
        }),
        NeedKind::Program(name) => match find_program(name) {
            Ok(_) => None,
            Err(reason) => {
                at("no-program", format!("{name}: {reason}"), "install it, or correct the path")
            }
        },
        NeedKind::File(path) => File::open(path).err().and_then(|error| {
            at("no-file", format!("cannot read {path}: {error}"), "create it, or correct the path")
        }),
        NeedKind::User(name) => match User::from_name(name) {
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => {
                at("no-user", format!("there is no user {name}"), "create it, or name another")
            }
        },
        NeedKind::Group(name) => match Group::from_name(name) {
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => {
                at("no-group", format!("there is no group {name}"), "create it, or name another")
            }
        },
        NeedKind::Address(address) if has_address(*address) => None,
        NeedKind::Address(address) => at(
            "no-address",
            format!("no interface has the address {address}"),
            "`ip address` lists those there are",
        ),
    }
}

/// An absolute path as it stands, a name by the directories of PATH.
fn find_program(name: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return executable(Path::new(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).find_map(|directory| executable(&directory.join(name)).ok());
    found.ok_or_else(|| "not found in PATH".to_owned())
}

fn executable(path: &Path) -> Result<PathBuf, String> {
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !found.is_file() {
        return Err("is not a file".to_owned());
    }
    access(path, AccessFlags::X_OK).map_err(|_| "is not executable".to_owned())?;
    Ok(path.to_owned())
}

fn has_address(wanted: std::net::IpAddr) -> bool {
    own_links().iter().any(|link| link.has(wanted))
}

#[cfg(test)]
mod tests {
    use locum_config::Place;

    use super::*;

    fn need(kind: NeedKind) -> Option<&'static str> {
        let place = Place::file("f");
        let severity = Severity::Error;
        missing(&Need { kind, place, severity }).map(|diagnostic| diagnostic.code)
    }

    #[test]
    fn an_interface_that_may_come_later_is_a_warning() {
        let kind = NeedKind::Interface("no-such-if".into());
        let need = Need { kind, place: Place::file("f"), severity: Severity::Warning };
        let found = missing(&need).expect("it is missing");
        assert_eq!((found.severity, found.code), (Severity::Warning, "no-interface"));
        assert!(found.message.ends_with("yet: its instance waits for it"), "{}", found.message);
    }

    #[test]
    fn what_is_there_is_not_reported() {
        assert_eq!(need(NeedKind::Interface("lo".into())), None);
        assert_eq!(need(NeedKind::Program("sh".into())), None);
        assert_eq!(need(NeedKind::Program("/bin/sh".into())), None);
        assert_eq!(need(NeedKind::File("/etc/passwd".into())), None);
        assert_eq!(need(NeedKind::User("root".into())), None);
        assert_eq!(need(NeedKind::Group("root".into())), None);
    }

    #[test]
    fn what_is_missing_is_reported_by_kind() {
        assert_eq!(need(NeedKind::Interface("no-such-if".into())), Some("no-interface"));
        assert_eq!(need(NeedKind::Program("no-such-program".into())), Some("no-program"));
        assert_eq!(need(NeedKind::Program("/etc/passwd".into())), Some("no-program"));
        assert_eq!(need(NeedKind::Program("/etc".into())), Some("no-program"));
        assert_eq!(need(NeedKind::File("/no/such/file".into())), Some("no-file"));
        assert_eq!(need(NeedKind::User("no-such-user".into())), Some("no-user"));
        assert_eq!(need(NeedKind::Group("no-such-group".into())), Some("no-group"));
        assert_eq!(need(NeedKind::Address("192.0.2.77".parse().unwrap())), Some("no-address"));
    }
}
