//! HAProxy's own words, short enough for a status line, and ours about its files.

use std::path::PathBuf;

use locum_plan::first_few;

/// Most alerts quoted; what follows the first few repeats that there were errors.
const QUOTED: usize = 5;

/// The alerts among what it printed, without level and pid; all it printed when there are none.
pub(super) fn alerts(lines: &[String]) -> String {
    let alerts: Vec<_> = lines.iter().filter(|line| line.starts_with("[ALERT]")).collect();
    let chosen = if alerts.is_empty() { lines.iter().collect() } else { alerts };
    let quoted: Vec<_> = chosen.into_iter().map(|line| text_of(line)).take(QUOTED).collect();
    if quoted.is_empty() { "it said nothing".to_owned() } else { quoted.join("; ") }
}

/// Whether it could not bind because the address is not there.
pub(super) fn lacks_address(lines: &[String]) -> bool {
    lines.iter().any(|line| line.contains("annot assign requested address"))
}

/// `[ALERT]    (123) : config : parsing [FILE:3] : …` without what precedes `parsing`.
fn text_of(line: &str) -> &str {
    let Some((_, text)) = line.split_once(") : ") else { return line };
    if !line.starts_with('[') {
        return line;
    }
    text.strip_prefix("config : ").unwrap_or(text)
}

/// For the log: why there is another process now.
pub(super) fn taken_up(new: u32, old: u32, changed: &[PathBuf]) -> String {
    let names: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
    let what = match names.as_slice() {
        [] => "its files as they are now".to_owned(),
        names => format!("the changed {}", first_few(names, ", ")),
    };
    format!("haproxy (pid {new}) has taken over from pid {old} with {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_keep_file_and_line_and_lose_the_rest() {
        let lines = [
            "[NOTICE]   (11665) : haproxy version is 2.6.12-1+deb12u4",
            "[ALERT]    (11665) : config : parsing [/etc/a.cfg:3] : nbproc is not supported.",
            "[ALERT]    (11665) : config : Fatal errors found in configuration.",
        ];
        let lines: Vec<_> = lines.map(str::to_owned).to_vec();
        assert_eq!(
            alerts(&lines),
            "parsing [/etc/a.cfg:3] : nbproc is not supported.; \
             Fatal errors found in configuration."
        );
        assert_eq!(alerts(&["haproxy: not found".to_owned()]), "haproxy: not found");
        assert_eq!(alerts(&[]), "it said nothing");
    }

    #[test]
    fn the_first_changed_files_are_named_and_the_rest_counted() {
        let files: Vec<PathBuf> = (1..=7).map(|n| PathBuf::from(format!("/c/{n}.pem"))).collect();
        let text = |count: usize| taken_up(8, 7, &files[..count]);
        let took_over = "haproxy (pid 8) has taken over from pid 7 with";
        assert_eq!(text(0), format!("{took_over} its files as they are now"));
        assert_eq!(text(2), format!("{took_over} the changed /c/1.pem, /c/2.pem"));
        assert!(text(7).ends_with("/c/3.pem, and 4 more"), "{}", text(7));
    }
}
