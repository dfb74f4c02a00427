//! A machine of the lab: namespaces of its own, and a way to run things inside them.
//!
//! The namespaces live as long as the node's first process, which reads a pipe that only this
//! process writes to: when this process ends, also by `kill -9`, the pipe closes, the first
//! process ends, and the kernel kills everything else in its process namespace and frees the links.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use nix::net::if_::InterfaceFlags;
use nix::sched::CloneFlags;

use crate::process::Process;

/// What the first process of a node does before it goes to wait.
///
/// `SIGCHLD` is ignored so that the kernel reaps orphans: `cat` would not, and `killall -0` counts
/// zombies.
const INIT: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/locum /run/haproxy
for directory in /etc/keepalived /etc/haproxy /var/lib/haproxy /var/log /var/tmp; do
    if [ -d "$directory" ]; then mount -t tmpfs tmpfs "$directory"; fi
done
hostname "$1"
for family in all default; do
    echo 0 > /proc/sys/net/ipv6/conf/$family/accept_dad
    echo 0 > /proc/sys/net/ipv6/conf/$family/router_solicitations
done
ip link set lo up
echo ready
exec env --ignore-signal=CHLD cat
"#;

/// Which namespaces of a node to step into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Sockets and links of the node, with our own files and process numbers.
    Network,
    /// As a process of the node.
    Everything,
}

/// A machine of the lab.
pub struct Node {
    name: String,
    init: Child,
    network: File,
    processes: File,
    mounts: File,
    host_name: File,
    logs: tempfile::TempDir,
    log_number: AtomicU32,
}

/// An address found on a link of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    pub interface: String,
    pub address: IpAddr,
    /// The link is up and has its carrier.
    pub running: bool,
}

impl Node {
    /// A new machine without links, known to itself by the host name `name`.
    ///
    /// # Panics
    /// When the namespaces cannot be made: the test cannot go on.
    pub fn new(name: &str) -> Self {
        let owned = name.to_owned();
        let spawned = thread::spawn(move || {
            let flags = CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWUTS;
            nix::sched::unshare(flags).expect("cannot make namespaces: run as root");
            Command::new("/bin/sh")
                .args(["-c", INIT, "init", &owned])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("cannot start /bin/sh")
        });
        let mut init = spawned.join().expect("cannot make a node");
        // INVARIANT: the pipe was asked for at the spawn above and is taken only here.
        let mut lines = BufReader::new(init.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("cannot read from the first process of a node");
        assert_eq!(
            line, "ready\n",
            "the first process of node {name} failed, see its message above"
        );
        let namespace = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", init.id());
            File::open(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"))
        };
        Self {
            name: name.to_owned(),
            network: namespace("net"),
            processes: namespace("pid_for_children"),
            mounts: namespace("mnt"),
            host_name: namespace("uts"),
            init,
            logs: tempfile::tempdir().expect("cannot make a directory for logs"),
            log_number: AtomicU32::new(0),
        }
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process number of its first process, as seen from here: what `ip link … netns` wants.
    pub fn pid(&self) -> u32 {
        self.init.id()
    }

    /// Where the file that the node knows as `path` (absolute) is found from here.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(path.trim_start_matches('/'))
    }

    /// Writes a file that the node sees as `path`, with its directories.
    pub fn write(&self, path: &str, text: &str) {
        let real = self.path(path);
        if let Some(parent) = real.parent() {
            fs::create_dir_all(parent)
                .unwrap_or_else(|error| panic!("cannot make {path}: {error}"));
        }
        fs::write(&real, text).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }

    /// Writes an executable shell script.
    ///
    /// Another process does: a descriptor of ours that is open for writing while a neighbouring
    /// test forks would make the script "busy" for whoever runs it.
    pub fn write_script(&self, path: &str, text: &str) {
        self.write(&format!("{path}.text"), &format!("#!/bin/sh\n{text}\n"));
        self.shell(&format!("cp {path}.text {path} && chmod 755 {path}"));
    }

    /// Text of a file of the node; `None` if it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// Removes a file of the node, if it is there.
    pub fn remove(&self, path: &str) {
        // A file that is not there is what the caller wants.
        let _ = fs::remove_file(self.path(path));
    }

    /// Runs `work` in the node's network namespace, with our own files and process numbers.
    ///
    /// Sockets made by `work` stay in that namespace for good.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.enter(Reach::Network, work)
    }

    /// Runs `work` in the node's network namespace, with our own files and process numbers, beside
    /// the caller and beyond its end.
    pub fn spawn_in_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let network = self.network.try_clone().expect("cannot copy a descriptor");
        thread::spawn(move || {
            nix::sched::setns(network, CloneFlags::CLONE_NEWNET).expect("cannot enter a namespace");
            work()
        })
    }

    fn enter<T: Send>(&self, reach: Reach, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let stepped = scope.spawn(|| {
                let join = |file: &File, flag| {
                    nix::sched::setns(file, flag)
                        .unwrap_or_else(|error| panic!("cannot enter node {}: {error}", self.name));
                };
                join(&self.network, CloneFlags::CLONE_NEWNET);
                match reach {
                    Reach::Network => {}
                    Reach::Everything => {
                        // The mount namespace can only be changed by a thread that shares its
                        // root and working directory with no other.
                        nix::sched::unshare(CloneFlags::CLONE_FS).expect("cannot unshare");
                        join(&self.host_name, CloneFlags::CLONE_NEWUTS);
                        join(&self.processes, CloneFlags::CLONE_NEWPID);
                        join(&self.mounts, CloneFlags::CLONE_NEWNS);
                    }
                }
                work()
            });
            match stepped.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a command to its end and hands back what it said, whatever its exit status.
    pub fn output(&self, argv: &[&str]) -> Output {
        self.enter(Reach::Everything, || {
            Command::new(argv[0])
                .args(&argv[1..])
                .stdin(Stdio::null())
                .output()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", argv[0]))
        })
    }

    /// Runs a command that must succeed and returns its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, argv: &[&str]) -> String {
        let output = self.output(argv);
        assert!(
            output.status.success(),
            "on {}: {argv:?} failed: {}{}",
            self.name,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a line of shell that must succeed.
    pub fn shell(&self, line: &str) -> String {
        self.run(&["/bin/sh", "-ec", line])
    }

    /// Starts a program that goes on; its output goes to a log of its own.
    pub fn spawn(&self, argv: &[&str]) -> Process {
        let number = self.log_number.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(argv[0]).file_name().unwrap_or_default().to_string_lossy();
        let log = self.logs.path().join(format!("{number}-{program}.log"));
        let open =
            || File::options().create(true).append(true).open(&log).expect("cannot open a log");
        let (out, err) = (open(), open());
        let child = self.enter(Reach::Everything, || {
            Command::new(argv[0])
                .args(&argv[1..])
                .env("RUST_BACKTRACE", "1")
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .spawn()
                .unwrap_or_else(|error| panic!("cannot start {}: {error}", argv[0]))
        });
        Process::new(child, format!("{program} on {}", self.name), log)
    }

    /// All addresses on its links.
    pub fn addresses(&self) -> Vec<Assigned> {
        self.in_network(|| {
            let list = nix::ifaddrs::getifaddrs().expect("cannot list addresses");
            list.filter_map(|entry| {
                let storage = entry.address?;
                let address = storage
                    .as_sockaddr_in()
                    .map(|v4| IpAddr::V4(v4.ip()))
                    .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
                let running =
                    entry.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
                Some(Assigned { interface: entry.interface_name, address, running })
            })
            .collect()
        })
    }

    /// Link address of one of its Ethernet links.
    ///
    /// # Panics
    /// When there is no such link.
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        self.in_network(|| {
            let list = nix::ifaddrs::getifaddrs().expect("cannot list addresses");
            let mut own = list.filter(|entry| entry.interface_name == interface);
            let mac = own.find_map(|entry| entry.address?.as_link_addr()?.addr());
            mac.unwrap_or_else(|| panic!("{} has no link {interface}", self.name))
        })
    }

    /// Whether `address` is on a link that is up and running: who answers for it is master.
    ///
    /// `eth0` must run as well: a macvlan above it may say that it runs when its own link is gone.
    pub fn holds(&self, address: IpAddr) -> bool {
        let all = self.addresses();
        all.iter().any(|assigned| assigned.address == address && assigned.running)
            && all.iter().any(|assigned| assigned.interface == "eth0" && assigned.running)
    }

    /// Whether `address` is on any of its links, running or not.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses().iter().any(|assigned| assigned.address == address)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; either way the wait below leaves no zombie.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}
