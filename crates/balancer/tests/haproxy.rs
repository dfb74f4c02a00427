//! The HAProxy backend with Debian's HAProxy and the published `haproxy.cfg`.

mod bench;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{
    Bench, Client, failure, finish, fresh_address, get, has_haproxy, kill, serve, start_server,
    strain, tick_until,
};
use locum_balancer::{Balancer, ObstacleKind, ProcessState, Progress, verify};
use locum_plan::{Activity, HaproxyFile, Name, Plan, Standby, WantedHaproxy, WantedServices};
use nix::sys::signal::Signal;

/// The published file as it stands; a test replaces addresses and paths of the host, and without
/// root the lines that need it.
const PUBLISHED: &str = include_str!("data/haproxy.cfg");

/// Says so and returns false where there is no HAProxy, unless the tests must not be skipped.
struct Site {
    bench: Bench,
    listen: SocketAddr,
    config: PathBuf,
}

impl Site {
    fn new(letter: char) -> Self {
        let bench = Bench::new();
        let config = bench.path("haproxy.cfg");
        let site = Self { listen: fresh_address(), config, bench };
        site.write(&site.published(letter));
        site
    }

    /// The published file without the line that HAProxy refuses since 2.5, with all its web servers
    /// being one of ours.
    fn published(&self, letter: char) -> String {
        self.adapted(start_server(letter))
            .lines()
            .filter(|line| line.trim() != "nbproc 1")
            .collect::<Vec<_>>()
            .join("\n")
            + "\n"
    }

    fn adapted(&self, server: SocketAddr) -> String {
        let directory = self.bench.directory.path().to_str().unwrap();
        let text = PUBLISHED
            .replace("/var/lib/haproxy/stats", &format!("{directory}/stats"))
            .replace("/var/lib/haproxy", directory)
            .replace("/var/run", directory)
            .replace("bind *:80\n", &format!("bind {}\n", self.listen))
            .replace("0.0.0.0:8090", &fresh_address().to_string());
        let mut text = ["192.168.1.8:80", "192.168.1.9:80", "192.168.1.10:80", "192.168.1.3:80"]
            .iter()
            .fold(text, |text, address| text.replace(address, &server.to_string()));
        if !nix::unistd::geteuid().is_root() {
            text = text
                .replace(&format!("    chroot {directory}\n"), "")
                .replace("    user haproxy\n    group haproxy\n", "");
        }
        text
    }

    fn write(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
    }

    fn wanted(&self) -> WantedServices {
        let file = HaproxyFile {
            name: Name::from("allen"),
            instance: None,
            config: self.config.clone(),
            program: Path::new("haproxy").to_owned(),
            standby: Standby::Cold,
            answer: None,
        };
        let haproxy = vec![WantedHaproxy { file: Arc::new(file), activity: Activity::Active }];
        WantedServices { haproxy, ..WantedServices::default() }
    }

    fn start(&self) -> Balancer {
        let mut balancer = self.bench.balancer();
        serve(&mut balancer, &self.wanted()).unwrap();
        balancer
    }
}

fn pid(balancer: &mut Balancer) -> u32 {
    balancer.status().processes[0].pid.unwrap()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The corpse of a child whose owner was dropped stays until the test ends.
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.starts_with(" Z"))
}

#[test]
fn the_published_file_serves_while_wanted_and_nothing_is_left_after() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut balancer = site.start();
    assert_eq!(get(site.listen).unwrap(), 'a');
    let status = balancer.status().processes.remove(0);
    assert_eq!((status.state, status.error), (ProcessState::Running, None));
    // `daemon` and `pidfile` stand in the file; the supervised process neither forks nor writes.
    assert!(!site.bench.path("haproxy.pid").exists());
    serve(&mut balancer, &site.wanted()).unwrap();
    assert_eq!(Some(pid(&mut balancer)), status.pid);
    finish(balancer);
    assert!(get(site.listen).is_err());
}

#[test]
fn a_refused_file_shows_haproxys_own_words_and_the_old_one_serves_on() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let good = fs::read_to_string(&site.config).unwrap();
    let mut balancer = site.start();
    let (before, mut client) = (pid(&mut balancer), Client::connect(site.listen).unwrap());
    assert_eq!(client.get().unwrap(), 'a');
    let bad = site.adapted(site.listen);
    let line = 1 + bad.lines().position(|line| line.trim() == "nbproc 1").unwrap();
    site.write(&bad);
    serve(&mut balancer, &site.wanted()).unwrap();
    let expected = format!("parsing [{}:{line}] : nbproc is not supported", site.config.display());
    let strain = strain(&balancer, "allen").unwrap();
    assert!(strain.starts_with("serves on as it is, a change is not taken up: "), "{strain}");
    assert!(strain.contains(&expected), "{strain}");
    let status = balancer.status().processes.remove(0);
    assert_eq!(status.error, Some(strain));
    assert_eq!(status.state, ProcessState::Running);
    assert_eq!(get(site.listen).unwrap(), 'a');
    assert_eq!(pid(&mut balancer), before);
    // The file is put right again: nothing is restarted.
    site.write(&good);
    serve(&mut balancer, &site.wanted()).unwrap();
    assert_eq!(pid(&mut balancer), before);
    assert_eq!(balancer.progress().strained, []);
    finish(balancer);
}

#[test]
fn a_changed_file_is_taken_over_without_refusing_a_client() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut balancer = site.start();
    let before = pid(&mut balancer);
    site.write(&site.published('b'));
    let listen = site.listen;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // The first answer comes before anything changes.
    let first = get(listen).unwrap();
    let clients = std::thread::spawn(move || {
        let mut letters = vec![first];
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            letters.push(get(listen).unwrap());
        }
        letters
    });
    serve(&mut balancer, &site.wanted()).unwrap();
    assert_ne!(pid(&mut balancer), before);
    tick_until(&mut balancer, "the new file's server", |_, _| get(listen).unwrap() == 'b');
    tick_until(&mut balancer, "the old one's end", |_, _| {
        !Path::new(&format!("/proc/{before}")).exists()
    });
    drop(stop);
    let letters = clients.join().unwrap();
    assert_eq!(letters.first(), Some(&'a'));
    assert!(letters.len() > 10, "{letters:?}");
    finish(balancer);
}

#[test]
fn after_the_role_is_lost_connections_finish_and_no_new_ones_begin() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    site.write(&format!(
        "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    \
         timeout server 1m\nlisten web\n    bind {}\n    server a {}\n",
        site.listen,
        start_server('a'),
    ));
    let mut balancer = site.start();
    let mut client = Client::connect(site.listen).unwrap();
    assert_eq!(client.get().unwrap(), 'a');
    serve(&mut balancer, &WantedServices::default()).unwrap();
    tick_until(&mut balancer, "a closed listener", |_, _| Client::connect(site.listen).is_err());
    assert_eq!(client.get().unwrap(), 'a');
    assert_eq!(balancer.status().processes[0].state, ProcessState::Stopping);
    drop(client);
    tick_until(&mut balancer, "the end", |balancer, _| balancer.is_idle());
}

/// A death alone is no reason for a handover: it is known at once whether it can be started again.
#[test]
fn one_that_dies_is_started_again_and_has_not_failed() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut balancer = site.start();
    let before = pid(&mut balancer);
    kill(before, Signal::SIGKILL);
    let mut states = Vec::new();
    let notes = tick_until(&mut balancer, "the recovery", |balancer, _| {
        let progress = balancer.progress();
        states.push(progress.pending.len());
        assert_eq!((progress.failed, progress.strained), (Vec::new(), Vec::new()));
        progress.pending.is_empty() && balancer.status().processes[0].pid != Some(before)
    });
    assert!(states.contains(&1), "it was pending meanwhile");
    assert!(notes.iter().any(|note| note.text.contains("was killed by SIGKILL")), "{notes:?}");
    assert_eq!(get(site.listen).unwrap(), 'a');
    assert_eq!(balancer.status().processes[0].restarts, 1);
    finish(balancer);
}

#[test]
fn one_that_dies_and_cannot_be_started_again_has_failed_soon_and_recovers() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut balancer = site.start();
    kill(pid(&mut balancer), Signal::SIGKILL);
    let killed = Instant::now();
    // As soon as it is dead its port is free.
    let squatter = loop {
        match std::net::TcpListener::bind(site.listen) {
            Ok(squatter) => break squatter,
            Err(_) => assert!(killed.elapsed() < bench::PATIENCE),
        }
    };
    tick_until(&mut balancer, "the failure", |balancer, _| {
        failure(balancer, "allen").is_some_and(|error| error.contains("cannot bind socket"))
    });
    let known = killed.elapsed();
    println!("known {known:?} after the kill");
    // What a handover may count on is 300 ms; this machine may have other things to do.
    assert!(known < Duration::from_secs(2), "{known:?}");
    drop(squatter);
    tick_until(&mut balancer, "service", |balancer, _| {
        balancer.progress() == Progress::default() && get(site.listen).is_ok()
    });
    finish(balancer);
}

/// The port of a new bind line is a stranger's: the old process serves, and nothing has failed.
#[test]
fn a_change_that_cannot_be_started_is_a_strain_until_it_can() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut balancer = site.start();
    let before = pid(&mut balancer);
    let second = fresh_address();
    let squatter = std::net::TcpListener::bind(second).unwrap();
    let text = site.published('b').replacen(
        &format!("bind {}\n", site.listen),
        &format!("bind {}\n    bind {second}\n", site.listen),
        1,
    );
    site.write(&text);
    balancer.apply(&site.wanted());
    tick_until(&mut balancer, "the refusal", |balancer, _| {
        assert_eq!(balancer.progress().failed, []);
        strain(balancer, "allen").is_some_and(|error| error.contains("cannot bind socket"))
    });
    let status = balancer.status().processes.remove(0);
    assert_eq!((status.state, status.pid), (ProcessState::Running, Some(before)));
    assert_eq!(get(site.listen).unwrap(), 'a');
    // The old one dies: what cannot be started now is all there is, and that is a failure.
    kill(before, Signal::SIGKILL);
    tick_until(&mut balancer, "the failure", |balancer, _| {
        failure(balancer, "allen").is_some_and(|error| error.contains("cannot bind socket"))
    });
    drop(squatter);
    tick_until(&mut balancer, "service", |balancer, _| {
        balancer.progress() == Progress::default() && get(second).is_ok()
    });
    finish(balancer);
}

#[test]
fn a_daemon_that_crashed_and_came_back_keeps_it_and_can_stop_it() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut crashed = site.start();
    let before = pid(&mut crashed);
    drop(crashed);
    let mut restarted = site.start();
    assert_eq!(pid(&mut restarted), before);
    kill(before, Signal::SIGKILL);
    tick_until(&mut restarted, "another one", |balancer, _| {
        balancer.status().processes[0].pid.is_some_and(|pid| pid != before)
    });
    tick_until(&mut restarted, "service", |_, _| get(site.listen).is_ok());
    drop(restarted);
    // This time it comes back as a backup.
    finish(site.bench.balancer());
    assert!(get(site.listen).is_err());
}

/// What a crash between a start and the next save, or an emptied run directory, leaves: a process
/// and nothing that names it.
fn forget(site: &Site) {
    fs::remove_file(site.bench.path("balancer-haproxy.json")).unwrap();
}

#[test]
fn one_that_no_file_names_is_known_by_its_mark_and_kept() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut crashed = site.start();
    let before = pid(&mut crashed);
    drop(crashed);
    forget(&site);
    let mut restarted = site.start();
    assert_eq!(pid(&mut restarted), before);
    // This time it comes back as a backup.
    drop(restarted);
    forget(&site);
    finish(site.bench.balancer());
    assert!(get(site.listen).is_err());
}

#[test]
fn one_that_no_file_names_and_that_runs_another_content_is_replaced() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut crashed = site.start();
    let before = pid(&mut crashed);
    drop(crashed);
    forget(&site);
    site.write(&site.published('b'));
    let mut restarted = site.start();
    assert_ne!(pid(&mut restarted), before);
    tick_until(&mut restarted, "the old one's end", |_, _| !is_alive(before));
    assert_eq!(get(site.listen).unwrap(), 'b');
    finish(restarted);
}

#[test]
fn of_two_that_no_file_names_one_is_kept_and_a_strangers_is_not_touched() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let mut crashed = site.start();
    let older = pid(&mut crashed);
    drop(crashed);
    let start = |run_dir: &Path| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&site.config);
        command.env("LOCUM_HAPROXY", run_dir.join("allen")).env("LOCUM_HAPROXY_DIGEST", "00");
        command.spawn().unwrap()
    };
    let mut stranger = start(Path::new("/nonexistent"));
    let mut younger = start(site.bench.directory.path());
    forget(&site);
    let mut restarted = site.start();
    let kept = pid(&mut restarted);
    // The younger one if it listened already; one with another content is replaced in turn.
    tick_until(&mut restarted, "the end of the extra one", |_, _| {
        (older == kept || !is_alive(older)) && younger.try_wait().unwrap().is_some()
    });
    assert!(is_alive(kept));
    assert_eq!(stranger.try_wait().unwrap(), None);
    finish(restarted);
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn the_same_level_notices_a_changed_file_and_takes_over_only_a_good_one() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let text = |letter| {
        format!(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    \
             timeout server 1m\nlisten web\n    bind {}\n    server a {}\n",
            site.listen,
            start_server(letter),
        )
    };
    site.write(&text('a'));
    let wanted = site.wanted();
    let mut balancer = site.bench.balancer();
    serve(&mut balancer, &wanted).unwrap();
    let first = pid(&mut balancer);
    let mut client = Client::connect(site.listen).unwrap();
    assert_eq!(client.get().unwrap(), 'a');

    site.write(&text('b').replace("mode tcp", "mode carrier-pigeon"));
    serve(&mut balancer, &wanted).unwrap();
    let refused = strain(&balancer, "allen").unwrap();
    assert!(refused.contains("haproxy refuses"), "{refused}");
    assert!(refused.contains("carrier-pigeon"), "{refused}");
    // Told again, it says so again.
    serve(&mut balancer, &wanted).unwrap();
    assert_eq!(strain(&balancer, "allen"), Some(refused));
    assert_eq!((pid(&mut balancer), get(site.listen).unwrap()), (first, 'a'));

    site.write(&text('b'));
    serve(&mut balancer, &wanted).unwrap();
    assert_ne!(pid(&mut balancer), first);
    tick_until(&mut balancer, "the new server", |_, _| get(site.listen).unwrap() == 'b');
    assert_eq!(client.get().unwrap(), 'a', "the connection made before goes on");
    drop(client);
    finish(balancer);
}

#[test]
fn an_address_in_use_is_reported_in_haproxys_words_and_tried_again() {
    if !has_haproxy() {
        return;
    }
    let site = Site::new('a');
    let squatter = std::net::TcpListener::bind(site.listen).unwrap();
    let mut balancer = site.bench.balancer();
    serve(&mut balancer, &site.wanted()).unwrap_err();
    let error = balancer.status().processes[0].error.clone().unwrap();
    assert!(error.contains("cannot bind socket"), "{error}");
    drop(squatter);
    tick_until(&mut balancer, "service", |_, _| get(site.listen).is_ok());
    finish(balancer);
}

#[test]
fn files_are_judged_in_haproxys_words_before_anything_runs_from_them() {
    if !has_haproxy() {
        return;
    }
    let (good, bad) = (Site::new('a'), Site::new('b'));
    let text = fs::read_to_string(&bad.config).unwrap() + "    no_such_word\n";
    bad.write(&text);
    let (missing, line) = (good.bench.path("missing.cfg"), text.lines().count());
    let file = |name: &str, config: &PathBuf, program: &str| HaproxyFile {
        name: Name::from(name),
        instance: None,
        config: config.clone(),
        program: program.into(),
        standby: Standby::Cold,
        answer: None,
    };
    let files = [
        file("a", &good.config, "haproxy"),
        file("b", &bad.config, "haproxy"),
        file("c", &missing, "haproxy"),
        file("d", &good.config, "/nonexistent/haproxy"),
    ];
    let plan = Plan { haproxy: files.to_vec(), ..Plan::default() };
    let refused = verify(&plan, Path::new("/proc/self/exe"));
    let names: Vec<_> = refused.iter().map(|one| (&*one.name, one.kind)).collect();
    let kinds = [ObstacleKind::Refused, ObstacleKind::NotRun, ObstacleKind::NotRun];
    assert_eq!(names, ["b", "c", "d"].into_iter().zip(kinds).collect::<Vec<_>>());
    let texts: Vec<_> = refused.iter().map(|one| &one.text).collect();
    let (config, missing) = (bad.config.display(), missing.display());
    assert!(texts[0].starts_with(&format!("haproxy refuses {config}: ")), "{texts:?}");
    assert!(texts[0].contains(&format!("[{config}:{line}]")), "{texts:?}");
    assert!(texts[0].contains("no_such_word"), "{texts:?}");
    assert!(texts[1].starts_with(&format!("cannot read {missing}: ")), "{texts:?}");
    assert!(texts[2].contains("cannot run /nonexistent/haproxy"), "{texts:?}");
    assert!(get(good.listen).is_err(), "nothing was started");
}

#[test]
fn checks_that_hang_are_given_up_together() {
    let bench = Bench::new();
    let program = bench.path("hung");
    // Copied by another process: a descriptor of ours that is open for writing while a neighbouring
    // test forks would make the program "busy".
    let text = bench.path("text");
    fs::write(&text, "#!/bin/sh\nexec sleep 600\n").unwrap();
    assert!(Command::new("cp").args([&text, &program]).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let name = Name::from("edge");
    let file = HaproxyFile {
        name,
        instance: None,
        config: bench.path("edge.cfg"),
        program,
        standby: Standby::Cold,
        answer: None,
    };
    fs::write(&file.config, "").unwrap();
    let named = |name: &str| HaproxyFile { name: Name::from(name), ..file.clone() };
    let haproxy = ["a", "b", "c"].map(named).to_vec();
    let start = Instant::now();
    let refused = verify(&Plan { haproxy, ..Plan::default() }, Path::new("/proc/self/exe"));
    assert!(start.elapsed() < Duration::from_secs(15), "one after the other");
    assert_eq!(refused.len(), 3);
    assert!(refused[2].text.contains("took longer than 10 s"), "{refused:?}");
}

#[test]
fn a_missing_file_or_program_is_named() {
    let bench = Bench::new();
    let file = |config: PathBuf, program: &str| {
        let (name, program) = (Name::from("none"), PathBuf::from(program));
        let file = HaproxyFile {
            name,
            instance: None,
            config,
            program,
            standby: Standby::Cold,
            answer: None,
        };
        WantedServices {
            haproxy: vec![WantedHaproxy { file: Arc::new(file), activity: Activity::Active }],
            ..WantedServices::default()
        }
    };
    let mut balancer = bench.balancer();
    let missing = bench.path("missing.cfg");
    let errors = serve(&mut balancer, &file(missing.clone(), "haproxy")).unwrap_err();
    assert!(errors[0].1.starts_with(&format!("cannot read {}", missing.display())), "{errors:?}");
    fs::write(&missing, "global\n").unwrap();
    let errors = serve(&mut balancer, &file(missing, "/nonexistent/haproxy")).unwrap_err();
    assert!(errors[0].1.contains("cannot run /nonexistent/haproxy"), "{errors:?}");
    assert!(matches!(balancer.status().processes[0].state, ProcessState::Waiting { .. }));
    finish(balancer);
}
