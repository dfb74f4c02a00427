//! Which processes are taken for ours.

use super::*;

fn found(start_time: u64, listens: bool) -> Found {
    // No process has this number, so that none of the machine's is taken for it.
    let identity = Identity { pid: u32::MAX, start_time };
    let (name, digest) = ("web".to_owned(), format!("of {start_time}"));
    Found { name, identity, parent: 1, digest, listens }
}

#[test]
fn the_youngest_that_listens_goes_on_and_the_others_finish() {
    let found = vec![found(1, true), found(3, false), found(2, true)];
    let inheritance = choose(ProcessRecord::default(), found);
    let (running, digest) = inheritance.keep.running.unwrap();
    assert_eq!((running.start_time, digest.as_str()), (2, "of 2"));
    let extra: Vec<_> = inheritance.extra.iter().map(|one| one.start_time).collect();
    assert_eq!(extra, [3, 1]);
}

#[test]
fn what_the_state_file_names_stays_what_it_says() {
    let (running, leaving) = (found(1, false), found(2, true));
    let record = ProcessRecord {
        running: Some((running.identity, running.digest.clone())),
        leaving: vec![leaving.identity],
        key: None,
    };
    let inheritance = choose(record.clone(), vec![running, leaving]);
    assert_eq!(inheritance, Inheritance { keep: record, extra: Vec::new() });
}

#[test]
fn only_a_mark_of_this_run_directory_counts() {
    let mark = Mark::new(Path::new("/run/locum"));
    let read = |text: &[u8]| mark.read(text);
    let ours =
        b"PATH=/bin\0LOCUM_HAPROXY=/run/locum/web\0LOCUM_HAPROXY_DIGEST=ab\0LOCUM_HAPROXY_KEY=k\0";
    let (name, digest, key) = ("web".to_owned(), "ab".to_owned(), "k".to_owned());
    assert_eq!(read(ours), Some(Marked { name, digest, key }));
    assert_eq!(read(b"LOCUM_HAPROXY=/run/locum2/web\0LOCUM_HAPROXY_DIGEST=ab\0"), None);
    assert_eq!(read(b"LOCUM_HAPROXY=/run/locum/a/web\0LOCUM_HAPROXY_DIGEST=ab\0"), None);
    assert_eq!(read(b"X=LOCUM_HAPROXY=/run/locum/web\0LOCUM_HAPROXY_DIGEST=ab\0"), None);
}

#[test]
fn any_name_is_one_component_of_a_path_and_comes_back() {
    for name in ["web", "front/edge", "..", ".", "a%2fb", "späti 7", "/"] {
        let text = escaped(name);
        let path = Path::new("/run/locum").join(&text);
        assert_eq!(path.parent(), Some(Path::new("/run/locum")), "{text}");
        assert_eq!(path.file_name().unwrap().to_str(), Some(text.as_str()));
        assert_eq!(unescaped(&text).as_deref(), Some(name));
    }
    assert_eq!(unescaped("%2"), None);
    assert_eq!(unescaped("%zz"), None);
}

#[test]
fn only_our_way_of_starting_one_counts() {
    let is_ours = |words: &[&str]| is_started_by_us((words.join("\0") + "\0").as_bytes());
    assert!(is_ours(&["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]));
    assert!(is_ours(&["haproxy", "-db", "-f", "/etc/edge.cfg", "-sf", "123"]));
    assert!(is_ours(&["/bin/sh", "/usr/local/bin/haproxy", "-db", "-f", "edge.cfg"]));
    assert!(!is_ours(&["sleep", "60"]));
    assert!(!is_ours(&["/etc/haproxy/check.sh", "10.0.0.1", "80"]));
    assert!(!is_ours(&["haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"]));
    assert!(!is_ours(&["-db", "-f", "edge.cfg"]));
    assert!(!is_ours(&[""]));
}

#[test]
fn a_setuid_program_runs_as_nobody_of_ours() {
    assert!(runs_as("Name:\ta\nUid:\t0\t0\t0\t0\n", 0));
    assert!(!runs_as("Name:\ta\nUid:\t1000\t0\t0\t0\n", 0));
    assert!(!runs_as("Name:\ta\n", 0));
}
