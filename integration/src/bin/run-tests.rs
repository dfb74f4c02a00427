//! All tests of the workspace, side by side: `scripts/test` runs them by this.
//!
//! `cargo test` runs one test binary after the other, and most of ours wait for timers and not for a
//! processor. Here they run at the same time, in two stages:
//!
//! ```text
//!   1   guests │ lab, without its measured part │ every other binary, as many as processors
//!   2   the measured part of the lab, then the demonstration, each alone on the machine
//! ```
//!
//! What a binary says is printed when it has ended, as `cargo test` would, and at the end the time
//! that each has taken.

use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// The lab's binary, and the modules of it that are run apart.
const LAB: &str = "lab";
const GUESTS: &str = "ipvs::";
const MEASURED: &str = "measured::";
/// It counts how long clients go without an answer. A daemon that is killed takes seconds to be gone
/// where many namespaces come and go: the kernel waits for all of them when it closes its sockets.
const DEMONSTRATION: &str = "demo of locum";
/// Guests at the same time, per processor: they wait for elections most of their time.
const GUEST_THREADS: usize = 4;
/// Other tests of the lab, which have as long as the guests take. More of them make and unmake so many
/// namespaces that the kernel keeps a director waiting for longer than a lease.
const LAB_THREADS: usize = 2;
/// How often the running ones are looked at.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let start = Instant::now();
    match run() {
        Ok(ended) => {
            report(&ended, start.elapsed());
            match ended.iter().all(|one| one.passed) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("run-tests: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One process that runs tests.
struct Job {
    label: String,
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    /// Tests at the same time within it; its own choice if `None`.
    threads: Option<usize>,
}

struct Running {
    job: Job,
    child: Child,
    output: PathBuf,
    start: Instant,
}

struct Ended {
    label: String,
    took: Duration,
    passed: bool,
}

fn run() -> io::Result<Vec<Ended>> {
    let processors = thread::available_parallelism()?.get();
    let (lab, others): (Vec<Job>, Vec<Job>) =
        built()?.into_iter().partition(|job| job.label.starts_with(&format!("{LAB} ")));
    let (demonstration, others): (Vec<Job>, Vec<Job>) =
        others.into_iter().partition(|job| job.label == DEMONSTRATION);
    if lab.len() != 1 || demonstration.len() != 1 {
        return Err(io::Error::other(format!("there are no tests `{LAB}` or `{DEMONSTRATION}`")));
    }
    let part = |name: &str, arguments: &[&str], threads: usize| -> Vec<Job> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let apart = |job: &Job| Job {
            label: format!("{}, {name}", job.label),
            program: job.program.clone(),
            arguments: arguments.clone(),
            directory: job.directory.clone(),
            threads: Some(threads),
        };
        lab.iter().map(apart).collect()
    };
    let mut at_once = part("guests", &[GUESTS], GUEST_THREADS * processors);
    at_once.extend(part(
        "shared",
        &["--skip", GUESTS, "--skip", MEASURED],
        LAB_THREADS * processors,
    ));
    let mut queue = VecDeque::from(others);
    queue.push_back(documentation());

    let outputs = tempfile::tempdir()?;
    let mut ended = stage(at_once, queue, processors, outputs.path())?;
    let measured = part("measured", &[MEASURED], 1);
    for alone in [measured, demonstration] {
        ended.extend(stage(alone, VecDeque::new(), 0, outputs.path())?);
    }
    Ok(ended)
}

/// Starts all of `at_once`, and beside them those of `queue`, no more than `limit` of these at the
/// same time; ends when all have ended.
fn stage(
    at_once: Vec<Job>,
    mut queue: VecDeque<Job>,
    limit: usize,
    outputs: &Path,
) -> io::Result<Vec<Ended>> {
    let mut running = Vec::new();
    for job in at_once {
        running.push((false, Running::start(job, outputs)?));
    }
    let mut ended = Vec::new();
    loop {
        let queued = running.iter().filter(|(queued, _)| *queued).count();
        for job in queue.drain(..queue.len().min(limit.saturating_sub(queued))) {
            running.push((true, Running::start(job, outputs)?));
        }
        let mut at = 0;
        while at < running.len() {
            match running[at].1.look()? {
                None => at += 1,
                Some(passed) => {
                    let (_, job) = running.remove(at);
                    let labels = running.iter().map(|(_, other)| other.job.label.as_str());
                    ended.push(job.finish(passed, &labels.collect::<Vec<_>>())?);
                }
            }
        }
        if running.is_empty() && queue.is_empty() {
            return Ok(ended);
        }
        thread::sleep(LOOK);
    }
}

impl Running {
    fn start(job: Job, outputs: &Path) -> io::Result<Self> {
        let output = outputs.join(job.label.replace('/', "-"));
        let file = File::create(&output)?;
        let mut command = Command::new(&job.program);
        command
            .args(&job.arguments)
            .current_dir(&job.directory)
            .env("CARGO_MANIFEST_DIR", &job.directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        if let Some(threads) = job.threads {
            command.env("RUST_TEST_THREADS", threads.to_string());
        }
        let child = command.spawn()?;
        Ok(Self { job, child, output, start: Instant::now() })
    }

    /// Whether it has passed, once it has ended.
    fn look(&mut self) -> io::Result<Option<bool>> {
        Ok(self.child.try_wait()?.map(|status| status.success()))
    }

    fn finish(self, passed: bool, running: &[&str]) -> io::Result<Ended> {
        let took = self.start.elapsed();
        let text = String::from_utf8_lossy(&fs::read(&self.output)?).into_owned();
        println!("     Running {} ({})", self.job.label, self.job.program.display());
        println!("{}", text.trim_end());
        println!("     {} s; still running: {}\n", took.as_secs(), running.join(", "));
        Ok(Ended { label: self.job.label, took, passed })
    }
}

/// Builds all test binaries.
fn built() -> io::Result<Vec<Job>> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--no-run", "--quiet"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other("the tests cannot be built"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let jobs = messages.filter_map(|message: serde_json::Value| {
        let executable = message["executable"].as_str()?;
        if message["profile"]["test"] != true {
            return None;
        }
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let directory = manifest.parent()?.to_owned();
        let package = directory.file_name()?.to_string_lossy().into_owned();
        let target = message["target"]["name"].as_str()?;
        let kind = match message["target"]["kind"][0].as_str()? {
            "test" => "",
            kind => &format!(" {kind}"),
        };
        Some(Job {
            label: format!("{target}{kind} of {package}"),
            program: executable.into(),
            arguments: Vec::new(),
            directory,
            threads: None,
        })
    });
    Ok(jobs.collect())
}

/// The examples in the documentation, which cargo builds and runs itself.
fn documentation() -> Job {
    Job {
        label: "documentation".to_owned(),
        program: env!("CARGO").into(),
        arguments: ["test", "--doc", "--workspace", "--quiet"].map(str::to_owned).to_vec(),
        directory: locum_integration::require::workspace(),
        threads: None,
    }
}

fn report(ended: &[Ended], took: Duration) {
    let mut sorted: Vec<&Ended> = ended.iter().collect();
    sorted.sort_by_key(|one| std::cmp::Reverse(one.took));
    println!("seconds per binary:");
    for one in sorted {
        let result = if one.passed { "" } else { "   FAILED" };
        println!("{:6.1}  {}{result}", one.took.as_secs_f64(), one.label);
    }
    let failed = ended.iter().filter(|one| !one.passed).count();
    println!("{} binaries in {} s, {failed} failed", ended.len(), took.as_secs());
}
