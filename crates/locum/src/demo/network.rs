//! Machines, cables and addresses: network namespaces, veth pairs and two bridges, made with `ip`.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::sandbox;

/// The virtual address, which the client speaks to.
pub const VIRTUAL_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// A machine of the show, by its place in [`Network::machines`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineId {
    Client,
    Director(usize),
    Server(usize),
}

/// A cable: interface on the machine, bridge it is plugged into, address with prefix length.
type Cable = (&'static str, &'static str, &'static str);

/// Name, place and cables of every machine. Addresses are of the documentation ranges (RFC 5737).
const MACHINES: [(&str, MachineId, &[Cable]); 5] = [
    ("client", MachineId::Client, &[("eth0", "front", "192.0.2.100/24")]),
    (
        "lb1",
        MachineId::Director(0),
        &[("eth0", "front", "192.0.2.1/24"), ("eth1", "back", "198.51.100.1/24")],
    ),
    (
        "lb2",
        MachineId::Director(1),
        &[("eth0", "front", "192.0.2.2/24"), ("eth1", "back", "198.51.100.2/24")],
    ),
    ("srv1", MachineId::Server(0), &[("eth0", "back", "198.51.100.11/24")]),
    ("srv2", MachineId::Server(1), &[("eth0", "back", "198.51.100.12/24")]),
];

/// All machines and the switch between them, which is this process's own namespace.
#[derive(Debug)]
pub struct Network {
    ip: PathBuf,
    machines: Vec<Machine>,
}

/// A machine: a network namespace that lives as long as this value.
#[derive(Debug)]
pub struct Machine {
    name: &'static str,
    place: MachineId,
    cables: &'static [Cable],
    namespace: File,
}

impl Network {
    /// Builds everything; `home` takes the names of the namespaces.
    ///
    /// # Errors
    /// What `ip` or the kernel said.
    pub fn build(home: &Path) -> Result<Self, String> {
        let ip = sandbox::find_ip()?;
        let mut switch = String::from("link set lo up\n");
        for bridge in ["front", "back"] {
            switch += &format!(
                "link add {bridge} type bridge forward_delay 0 mcast_snooping 0\n\
                 link set {bridge} up\n"
            );
        }
        let mut machines = Vec::new();
        for (name, place, cables) in MACHINES {
            let path = home.join(format!("{name}.net"));
            let namespace = make_namespace(&path)
                .map_err(|error| format!("cannot make the network of {name}: {error}"))?;
            for (interface, bridge, _) in cables {
                let port = port(name, bridge);
                switch += &format!(
                    "link add {port} type veth peer name {interface} netns {}\n\
                     link set {port} master {bridge} up\n",
                    path.display()
                );
            }
            machines.push(Machine { name, place, cables, namespace });
        }
        let network = Self { ip, machines };
        network.ip_batch(&switch)?;
        for machine in &network.machines {
            let mut lines = String::from("link set lo up\n");
            for (interface, _, address) in machine.cables {
                lines += &format!("link set {interface} up\naddr add {address} dev {interface}\n");
            }
            machine.enter(|| network.ip_batch(&lines))??;
            // A director that forwards would hide that an address is gone. Inherited from the host
            // by some kernels; where it cannot be written, it is not set either.
            let _ = machine.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "0"));
        }
        Ok(network)
    }

    /// The machine at `place`.
    ///
    /// # Errors
    /// When there is none.
    pub fn machine(&self, place: MachineId) -> Result<&Machine, String> {
        let found = self.machines.iter().find(|machine| machine.place == place);
        found.ok_or_else(|| format!("there is no machine {place:?}"))
    }

    /// Pulls all cables of a machine at the switch.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn unplug(&self, machine: &Machine) -> Result<(), String> {
        self.set_ports(machine, "down")
    }

    /// Plugs them in again.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn plug(&self, machine: &Machine) -> Result<(), String> {
        self.set_ports(machine, "up")
    }

    fn set_ports(&self, machine: &Machine, state: &str) -> Result<(), String> {
        let lines = machine
            .cables
            .iter()
            .map(|(_, bridge, _)| format!("link set {} {state}\n", port(machine.name, bridge)));
        self.ip_batch(&lines.collect::<String>())
    }

    /// Runs lines of `ip` in the namespace of the calling thread, and stops at the first failure.
    fn ip_batch(&self, lines: &str) -> Result<(), String> {
        let failed = |error| format!("cannot run {}: {error}", self.ip.display());
        let mut child = Command::new(&self.ip)
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // When it ends early, it has said why.
            let _ = input.write_all(lines.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("cannot build the network, ip says: {}", said.trim()))
    }
}

impl Machine {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `work` on a thread inside the machine. Sockets made and programs started by it stay
    /// there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| format!("cannot enter {}: {}", self.name, error.desc()))?;
                Ok(work())
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Whether the machine has `address` on one of its interfaces now.
    ///
    /// # Errors
    /// When its addresses cannot be listed.
    pub fn holds(&self, address: Ipv4Addr) -> Result<bool, String> {
        let listed = self.enter(|| {
            nix::ifaddrs::getifaddrs().map(|addresses| {
                addresses
                    .filter_map(|entry| entry.address?.as_sockaddr_in().map(|found| found.ip()))
                    .any(|found| found == address)
            })
        })?;
        listed.map_err(|error| format!("cannot list addresses of {}: {}", self.name, error.desc()))
    }
}

/// Name of the switch's end of a cable.
fn port(machine: &str, bridge: &str) -> String {
    format!("{machine}-{bridge}")
}

/// A network namespace that `ip` finds at `path`.
fn make_namespace(path: &Path) -> std::io::Result<File> {
    File::create(path)?;
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            // Of this thread: the process stays where it is.
            let namespace = "/proc/thread-self/ns/net";
            nix::mount::mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            File::open(path)
        });
        match made.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
