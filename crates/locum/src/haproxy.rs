//! HAProxy's opinion of the files of a plan, as findings: at `check --host` and before a reload.

use locum_balancer::{HaproxyRefusal, haproxy_refuses};
use locum_config::{Diagnostic, Place, Severity};
use locum_plan::HaproxyFile;

/// An error for each file that HAProxy would not run. Waits for it, some ten seconds at most.
pub fn findings(files: &[HaproxyFile]) -> Vec<Diagnostic> {
    let refused = haproxy_refuses(files).into_iter();
    refused.map(|(file, refusal)| finding(file, &refusal)).collect()
}

fn finding(file: &HaproxyFile, refusal: &HaproxyRefusal) -> Diagnostic {
    let (code, message) = match refusal {
        HaproxyRefusal::Refused { words, .. } => {
            ("haproxy-refuses", format!("haproxy refuses it: {words}"))
        }
        HaproxyRefusal::NotRun { .. } | HaproxyRefusal::TooSlow { .. } => {
            ("haproxy-not-run", refusal.to_string())
        }
    };
    Diagnostic::at(Place::file(file.config.to_string_lossy()), Severity::Error, code, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_refusal_is_an_error_in_haproxys_words_and_a_good_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("haproxy");
        let says = "[ALERT]    (7) : config : parsing [bad.cfg:3] : no such word.";
        let script =
            format!("#!/bin/sh\n[ \"$3\" = good.cfg ] || {{ echo '{says}' >&2; exit 1; }}\n");
        // Copied by another process: a descriptor of ours that is open for writing while a
        // neighbouring test forks would make the program "busy".
        let text = directory.path().join("text");
        fs::write(&text, script).unwrap();
        assert!(Command::new("cp").args([&text, &program]).status().unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let file = |config: &str, program| HaproxyFile {
            name: "edge".into(),
            instance: None,
            config: config.into(),
            program,
            standby: locum_plan::Standby::Cold,
            answer: None,
        };
        let files = [
            file("good.cfg", program.clone()),
            file("bad.cfg", program),
            file("good.cfg", "/no/such/haproxy".into()),
        ];
        let lines: Vec<_> = findings(&files).iter().map(Diagnostic::headline).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let expected = "bad.cfg: error: haproxy refuses it: parsing [bad.cfg:3] : no such word. \
                        [haproxy-refuses]";
        assert_eq!(lines[0], expected);
        assert!(
            lines[1].starts_with("good.cfg: error: cannot run /no/such/haproxy: "),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("is haproxy installed? [haproxy-not-run]"), "{lines:?}");
    }
}
