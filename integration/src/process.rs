//! A program running on a node: its signals, its descendants, its log.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::wait;

/// Lines of a log shown when a test fails: enough for the last few transitions.
const LOG_TAIL: usize = 60;

/// A running program; killed with its descendants when dropped.
pub struct Process {
    child: Child,
    label: String,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// What some processes take from the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    pub resident_kib: u64,
    pub descriptors: u64,
    pub processes: u64,
}

impl Taken {
    /// Adds that of others.
    pub fn add(&mut self, other: Self) {
        self.resident_kib += other.resident_kib;
        self.descriptors += other.descriptors;
        self.processes += other.processes;
    }
}

/// Whom a signal goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// The program itself.
    Main,
    /// The program and every descendant, as when a whole service is killed.
    Family,
}

impl Process {
    pub(crate) fn new(child: Child, label: String, log: PathBuf) -> Self {
        Self { child, label, log, status: None }
    }

    /// Process number as seen from the host.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`. A process that has ended is left alone.
    pub fn signal(&mut self, whom: Whom, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        let targets = match whom {
            Whom::Main => vec![self.pid()],
            Whom::Family => family(self.pid()),
        };
        for pid in targets {
            // It may have ended since it was listed.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// Its exit status if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap_or_default();
        }
        self.status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait::until(&format!("{} ends", self.label), limit, || self.exited().is_some());
        // INVARIANT: the wait above returned, so the status is there.
        self.status.expect("ended")
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory of the program itself in KiB; 0 when it has ended.
    pub fn resident_kib(&self) -> u64 {
        resident_of(self.pid())
    }

    /// What of that is its own and of no file, in KiB: heap and stacks.
    pub fn own_kib(&self) -> u64 {
        kib_in(&format!("/proc/{}/status", self.pid()), "RssAnon:")
    }

    /// The same of its last descendant: of keepalived the process that speaks VRRP.
    pub fn resident_kib_of_last(&self) -> u64 {
        family(self.pid()).last().map_or(0, |pid| resident_of(*pid))
    }

    /// What the program and its descendants take from the host, in KiB: a page of a file that
    /// several of them have mapped counts once, whoever else has it.
    pub fn whole_kib(&self) -> u64 {
        let mut files: HashMap<String, u64> = HashMap::new();
        let mut anonymous = 0;
        for pid in family(self.pid()) {
            anonymous += kib_in(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:");
            for (file, resident) in mapped_files(pid) {
                let most = files.entry(file).or_default();
                *most = resident.max(*most);
            }
        }
        anonymous + files.values().sum::<u64>()
    }

    /// What the program and each of its descendants takes, by the first two words of how it was started.
    pub fn taken(&self) -> Vec<(String, Taken)> {
        let one = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|octet| *octet == 0).map(String::from_utf8_lossy);
            let program = words.next().unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default().to_owned();
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            let taken = Taken {
                resident_kib: resident_of(pid),
                descriptors: descriptors as u64,
                processes: 1,
            };
            (format!("{program} {}", words.next().unwrap_or_default()), taken)
        };
        family(self.pid())
            .into_iter()
            .map(one)
            .filter(|(_, taken)| taken.resident_kib > 0)
            .collect()
    }

    /// Processor time used so far by the program and its descendants, in clock ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        family(self.pid()).into_iter().filter_map(ticks_of).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Whom::Family, Signal::SIGKILL);
        if thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(LOG_TAIL);
            eprintln!("--- {} (last {LOG_TAIL} lines)", self.label);
            log.lines().skip(skip).for_each(|line| eprintln!("{line}"));
        }
        // Already reaped, or reaped here.
        let _ = self.child.wait();
    }
}

/// The process and all its descendants, parents first.
fn family(root: u32) -> Vec<u32> {
    let mut members = vec![root];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, field(pid, 1)?.try_into().ok()?))
        })
        .collect();
    let mut next = 0;
    while next < members.len() {
        let parent = members[next];
        members.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    members
}

fn resident_of(pid: u32) -> u64 {
    kib_in(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Each part of a file that the process has mapped, by file and place in it, with how much of it is
/// resident, in KiB.
fn mapped_files(pid: u32) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = Vec::new();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kib = || words.get(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words[..] {
            ["Rss:", ..] => all.iter_mut().last().into_iter().for_each(|last| last.1 += kib()),
            // Pages of it that have been written to are the process's own.
            ["Anonymous:", ..] => {
                all.iter_mut().last().into_iter().for_each(|last| last.1 -= kib().min(last.1));
            }
            [range, _, offset, _, inode, ..] if range.contains('-') => {
                all.push((format!("{inode} {offset}"), 0));
            }
            _ => {}
        }
    }
    all.retain(|(file, _)| !file.starts_with("0 "));
    all
}

/// The number after `label` at the start of a line; 0 when the process has ended.
fn kib_in(path: &str, label: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn ticks_of(pid: u32) -> Option<u64> {
    Some(field(pid, 11)? + field(pid, 12)?)
}

/// A numeric field of `/proc/PID/stat`, counted from 0 after the command name.
fn field(pid: u32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(index)?.parse().ok()
}
