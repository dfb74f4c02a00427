//! What keeps a plan from being served by this host, as findings: at `check --host` and before a
//! reload. The daemon judges its standby by the same.

use std::path::Path;

use locum_balancer::{Obstacle, ObstacleKind, verify};
use locum_config::{Diagnostic, Place, Severity};
use locum_plan::Plan;

/// The program of this very process, also when an upgrade has replaced or removed its file: a proxy
/// started later is of the daemon's own release.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Why it is asked, and what a host that lacks something means then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// Whether it can work at all.
    Check,
    /// Whether to go on with this plan instead of the one before: a host that lacks something lacked
    /// it before, or may be mended.
    Reload,
}

/// A finding for each obstacle, at the file of its HAProxy or at `config`, the plan's own file. An
/// error is what nothing should be run from. Waits for HAProxy, some ten seconds at most.
pub fn findings(plan: &Plan, config: &str, occasion: Occasion) -> Vec<Diagnostic> {
    let found = verify(plan, Path::new(OWN_PROGRAM)).into_iter();
    found.map(|obstacle| finding(plan, config, &obstacle, occasion)).collect()
}

fn finding(plan: &Plan, config: &str, obstacle: &Obstacle, occasion: Occasion) -> Diagnostic {
    let Obstacle { name, kind, text } = obstacle;
    let of_host = match occasion {
        Occasion::Check => Severity::Error,
        Occasion::Reload => Severity::Warning,
    };
    let (code, severity) = match kind {
        ObstacleKind::Refused => ("haproxy-refuses", Severity::Error),
        ObstacleKind::NotRun => ("haproxy-not-run", Severity::Error),
        ObstacleKind::Host => ("host-lacks", of_host),
        ObstacleKind::Port => ("port-taken", of_host),
        ObstacleKind::Doubt => ("some-unanswered", Severity::Warning),
    };
    match plan.haproxy.iter().find(|file| file.name == *name) {
        Some(file) => {
            Diagnostic::at(Place::file(file.config.to_string_lossy()), severity, code, text)
        }
        None => {
            let text = format!("service {name}: {text}");
            Diagnostic::at(Place::file(config), severity, code, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;

    use locum_plan::{BackendChoice, BackendKind, HaproxyFile, Listener, Name, Service, Standby};

    use super::*;

    fn lines(plan: &Plan, occasion: Occasion) -> Vec<String> {
        let found = findings(plan, "locum.toml", occasion);
        found.iter().map(Diagnostic::headline).collect()
    }

    #[test]
    fn a_refusal_is_an_error_in_haproxys_words_and_a_good_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let program = path("haproxy");
        let says = "[ALERT]    (7) : config : parsing [bad.cfg:3] : no such word.";
        let script = format!(
            "#!/bin/sh\ncase \"$3\" in */good.cfg) ;; *) echo '{says}' >&2; exit 1;; esac\n"
        );
        // Copied by another process: a descriptor of ours that is open for writing while a
        // neighbouring test forks would make the program "busy".
        fs::write(path("text"), script).unwrap();
        assert!(Command::new("cp").args([&path("text"), &program]).status().unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str, config: &str, program: &Path| {
            fs::write(path(config), "").unwrap();
            HaproxyFile {
                name: Name::from(name),
                instance: None,
                config: path(config),
                program: program.to_owned(),
                standby: Standby::Cold,
                answer: None,
            }
        };
        let nowhere = PathBuf::from("/no/such/haproxy");
        let haproxy = vec![
            file("a", "good.cfg", &program),
            file("b", "bad.cfg", &program),
            file("c", "good.cfg", &nowhere),
        ];
        let plan = Plan { haproxy, ..Plan::default() };
        for occasion in [Occasion::Check, Occasion::Reload] {
            let lines = lines(&plan, occasion);
            assert_eq!(lines.len(), 2, "{lines:?}");
            let bad = path("bad.cfg");
            let bad = bad.display();
            let expected = format!(
                "{bad}: error: haproxy refuses {bad}: parsing [bad.cfg:3] : no such word. \
                 [haproxy-refuses]"
            );
            assert_eq!(lines[0], expected);
            assert!(lines[1].contains("error: cannot run /no/such/haproxy: "), "{lines:?}");
            assert!(lines[1].ends_with("is haproxy installed? [haproxy-not-run]"), "{lines:?}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_an_error_to_a_check_and_keeps_no_reload_from_going_on() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listener::Address(stranger.local_addr().unwrap());
        let mut www = Service::new(Name::from("www"), listen);
        www.backend = BackendChoice::Only(BackendKind::Proxy);
        let plan = Plan { services: vec![www], ..Plan::default() };
        for (occasion, severity) in [(Occasion::Check, "error"), (Occasion::Reload, "warning")] {
            let lines = lines(&plan, occasion);
            assert_eq!(lines.len(), 1, "{lines:?}");
            let start = format!("locum.toml: {severity}: service www: ");
            assert!(lines[0].starts_with(&start), "{lines:?}");
            assert!(lines[0].ends_with("or use another port [port-taken]"), "{lines:?}");
        }
    }
}
