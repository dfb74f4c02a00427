//! What this host has of what services need, read once in a round and judged as a value.

use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{self, IpFamily, Ipvs, ModuleLoader};
use locum_kernel::netlink::is_switched_on;
use locum_kernel::nftables::NatBalancer;
use locum_kernel::own_links::{OwnLink, address_bits, own_links, prefix};
use locum_plan::{BackendKind, Service};
use nix::unistd::{AccessFlags, access};

/// How long an answer of the kernel about IPVS holds where no file shows it: asking may run modprobe.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long the list of installed modules holds: it may have thousands of lines.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// There once IPVS is, in every network namespace.
const SIGN: &str = "/proc/net/ip_vs";

/// One host at one moment. Without what could not be read: nobody is refused for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostView {
    /// The kernel has IPVS, or would load it; `Err` says what it lacks.
    pub ipvs: Result<(), String>,
    pub modules: Modules,
    /// The packet filter has what services by address translation need, of each family; `Err` says
    /// what it lacks. Not looked at where no service needs it.
    pub translates_v4: Result<(), String>,
    pub translates_v6: Result<(), String>,
    pub links: Vec<HostLink>,
    /// net.ipv6.conf.all.forwarding, or the like of it on some link.
    pub forwards_v6: bool,
    /// The proxy's program can be run; `Err` says why not.
    pub proxy: Result<(), String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostLink {
    pub own: OwnLink,
    /// net.ipv4.conf.NAME.forwarding.
    pub forwards_v4: bool,
}

impl HostLink {
    /// The network of this link that `address` is in, with its prefix length; an address of this
    /// host that is a network of its own is none.
    pub(crate) fn network_of(&self, address: IpAddr) -> Option<(IpAddr, u8)> {
        let wide = self.own.addresses.iter().filter(|(own, length)| *length < address_bits(*own));
        wide.copied().find(|(own, length)| prefix(*own, *length) == prefix(address, *length))
    }
}

impl HostView {
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.links.iter().any(|link| link.own.has(address))
    }
}

/// Kernel modules of IPVS, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Modules {
    pub loaded: Vec<String>,
    /// Those that the kernel can load or is built with; `None` where no list is to be had.
    pub installed: Option<Vec<String>>,
}

impl Modules {
    fn read(sys: &Path, directory: &Path) -> Self {
        let loaded = fs::read_dir(sys.join("module")).into_iter().flatten().flatten();
        let loaded = loaded.filter_map(|entry| entry.file_name().into_string().ok());
        let list = |name| Some(names(&fs::read_to_string(directory.join(name)).ok()?));
        let both = || Some((list("modules.dep")?, list("modules.builtin")?));
        let installed = both().map(|(loadable, builtin)| [loadable, builtin].concat());
        Self { loaded: loaded.filter(|name| is_ours(name)).collect(), installed }
    }

    /// It is nowhere, for certain: a list that names IPVS itself does not name it.
    pub(crate) fn lack(&self, name: &str) -> bool {
        let has = |list: &Vec<String>, name: &str| list.iter().any(|one| one == name);
        let is_unlisted = |list: &Vec<String>| has(list, "ip_vs") && !has(list, name);
        !has(&self.loaded, name) && self.installed.as_ref().is_some_and(is_unlisted)
    }
}

/// Of `PATH/NAME.ko[.xz][: …]` in each line.
fn names(list: &str) -> Vec<String> {
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
        // The kernel takes both for the same.
        Some(name.replace('-', "_"))
    };
    list.lines().filter_map(name).filter(|name| is_ours(name)).collect()
}

fn is_ours(module: &str) -> bool {
    module.starts_with("ip_vs")
}

/// Reads hosts, and remembers what is dear to read.
#[derive(Debug)]
pub(crate) struct HostReader {
    /// Of the proxy.
    program: PathBuf,
    modules: Option<(Instant, Modules)>,
    loader: ModuleLoader,
    /// What the kernel said when it was asked about IPVS.
    asked: Option<(Instant, Result<(), String>)>,
    filter: NatBalancer,
    /// What the kernel said of its packet filter, for IPv4 and for IPv6.
    tried: [Option<(Instant, Result<(), String>)>; 2],
}

impl HostReader {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            modules: None,
            loader: ModuleLoader::default(),
            asked: None,
            filter: NatBalancer::default(),
            tried: [None, None],
        }
    }

    /// Asking for IPVS may load it.
    pub(super) fn use_loader(&mut self, loader: ModuleLoader) {
        self.loader = loader;
    }

    /// What these services may need; what is dear to look at, only for those that do.
    pub(crate) fn read(&mut self, now: Instant, services: &[Arc<Service>]) -> HostView {
        let modules = self.modules(now);
        let [translates_v4, translates_v6] = [IpFamily::V4, IpFamily::V6].map(|family| {
            let is_of = |service: &Service| {
                service.addresses().any(|listen| IpFamily::of(listen.ip()) == family)
                    && service.backend.candidates(service).contains(&BackendKind::Nftables)
            };
            let is_needed = services.iter().any(|service| is_of(service));
            if is_needed { self.translates(family, now) } else { Ok(()) }
        });
        HostView {
            ipvs: self.ipvs(&modules, now),
            modules,
            translates_v4,
            translates_v6,
            links: links(),
            forwards_v6: forwards_v6(),
            proxy: runnable(&self.program),
        }
    }

    fn modules(&mut self, now: Instant) -> Modules {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < READ_AGAIN;
        if let Some((at, modules)) = &self.modules
            && is_fresh(*at)
        {
            return modules.clone();
        }
        let modules = Modules::read(Path::new("/sys"), &module_directory());
        self.modules = Some((now, modules.clone()));
        modules
    }

    fn translates(&mut self, family: IpFamily, now: Instant) -> Result<(), String> {
        let (at, title) = match family {
            IpFamily::V4 => (0, "IPv4"),
            IpFamily::V6 => (1, "IPv6"),
        };
        // A kernel forgets nothing, and may learn.
        let is_fresh = |asked: Instant| now.saturating_duration_since(asked) < ASK_AGAIN;
        if let Some((asked, answer)) = &self.tried[at]
            && (answer.is_ok() || is_fresh(*asked))
        {
            return answer.clone();
        }
        let answer = match self.filter.missing(family) {
            Ok(Some(missing)) => Err(format!(
                "the packet filter of kernel {} lacks for {title}, built in or as a module: {missing}",
                release()
            )),
            // What cannot be looked at is not missing.
            Ok(None) | Err(_) => Ok(()),
        };
        self.tried[at] = Some((now, answer.clone()));
        answer
    }

    fn ipvs(&mut self, modules: &Modules, now: Instant) -> Result<(), String> {
        let is_listed =
            modules.installed.as_ref().is_some_and(|all| all.iter().any(|it| it == "ip_vs"));
        if is_listed || modules.loaded.iter().any(|it| it == "ip_vs") || Path::new(SIGN).exists() {
            return Ok(());
        }
        if let Some((at, answer)) = &self.asked
            && now.saturating_duration_since(*at) < ASK_AGAIN
        {
            return answer.clone();
        }
        // No file shows it, or one says no: the kernel itself is certain. In a container the modules
        // may be those of a host that we do not see.
        let answer = match Ipvs::open(&self.loader) {
            Err(ipvs::IpvsError::NotSupported) => Err(no_ipvs()),
            Ok(_)
            | Err(
                ipvs::IpvsError::NotPermitted
                | ipvs::IpvsError::Kernel(_)
                | ipvs::IpvsError::Socket(_),
            ) => Ok(()),
        };
        self.asked = Some((now, answer.clone()));
        answer
    }
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

fn module_directory() -> PathBuf {
    Path::new("/lib/modules").join(release())
}

fn no_ipvs() -> String {
    let (release, directory) = (release(), module_directory());
    if directory.exists() {
        format!("kernel {release} has no IPVS, neither built in nor as the module ip_vs")
    } else {
        let directory = directory.display();
        format!(
            "kernel {release} has no IPVS, and {directory} is missing: are its modules installed?"
        )
    }
}

/// All of them, the loopback too: its addresses are this host's as well.
fn links() -> Vec<HostLink> {
    let with_switch = |own: OwnLink| {
        let forwards_v4 =
            is_switched_on(format!("/proc/sys/net/ipv4/conf/{}/forwarding", own.name));
        HostLink { own, forwards_v4 }
    };
    own_links().into_iter().map(with_switch).collect()
}

fn forwards_v6() -> bool {
    const ALL: &str = "/proc/sys/net/ipv6/conf";
    if is_switched_on(format!("{ALL}/all/forwarding")) {
        return true;
    }
    // What newer kernels have beside it.
    let links = fs::read_dir(ALL).into_iter().flatten().flatten();
    links.map(|link| link.path().join("force_forwarding")).any(is_switched_on)
}

/// The program may be a name to look up in PATH, which is not looked at here.
fn runnable(program: &Path) -> Result<(), String> {
    let shown = program.display();
    if !program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(());
    }
    access(program, AccessFlags::X_OK).map_err(|error| format!("cannot run {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_those_of_the_lists_and_what_no_list_names_is_not_lacking() {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        fs::create_dir_all(sys.join("module/ip_vs_odd")).unwrap();
        fs::create_dir_all(sys.join("module/loop")).unwrap();
        let none = Modules::read(&sys, root.path());
        assert_eq!(none.installed, None);
        assert!(!none.lack("ip_vs_wlc"));
        let dep = "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/net/x/libcrc32c.ko.xz\n\
                   kernel/net/netfilter/ipvs/ip_vs_rr.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n\
                   extra/ip-vs-own.ko:\n\n/\n:";
        fs::write(root.path().join("modules.dep"), dep).unwrap();
        assert_eq!(Modules::read(&sys, root.path()).installed, None, "half of the lists");
        fs::write(root.path().join("modules.builtin"), "kernel/x/ip_vs_sh.ko\n").unwrap();
        let all = Modules::read(&sys, root.path());
        for there in ["ip_vs", "ip_vs_rr", "ip_vs_own", "ip_vs_sh", "ip_vs_odd"] {
            assert!(!all.lack(there), "{there}: {all:?}");
        }
        assert!(all.lack("ip_vs_wlc"));
        // Somebody's own build that no list knows: whatever it has is not in the list either.
        fs::write(root.path().join("modules.dep"), "kernel/x/ip_vs_rr.ko:\n").unwrap();
        assert!(!Modules::read(&sys, root.path()).lack("ip_vs_wlc"));
    }

    #[test]
    fn networks_hold_the_addresses_of_their_prefix_and_family() {
        let networks = ["10.77.0.1/24", "192.0.2.9/32", "2001:db8::1/64"].map(|text| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        });
        let own = OwnLink { name: "eth0".into(), is_loopback: false, addresses: networks.to_vec() };
        let link = HostLink { own, forwards_v4: false };
        let found = |address: &str| link.network_of(address.parse().unwrap()).map(|it| it.1);
        assert_eq!(found("10.77.0.200"), Some(24));
        assert_eq!(found("10.77.1.1"), None);
        assert_eq!(found("192.0.2.9"), None);
        assert_eq!(found("2001:db8::ffff"), Some(64));
        assert_eq!(found("2001:db9::1"), None);
    }

    #[test]
    fn this_host_is_read_with_its_links_and_switches() {
        use nix::sched::{CloneFlags, unshare};
        let read = || {
            let mut reader = HostReader::new(Path::new("/proc/self/exe"));
            reader.read(Instant::now(), &[])
        };
        let inside = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                assert!(std::env::var_os("LOCUM_REQUIRE_LAB").is_none(), "no namespace");
                return eprintln!("skipped: no network namespace");
            }
            let ip = |words: &str| {
                let done = std::process::Command::new("ip").args(words.split(' ')).status();
                assert!(done.unwrap().success(), "{words}");
            };
            for words in [
                "link set lo up",
                "link add one type veth peer name other",
                "address add 10.77.0.1/24 dev one",
                "link set one up",
            ] {
                ip(words);
            }
            let before = read();
            assert_eq!(before.proxy, Ok(()));
            let one = before.links.iter().find(|link| link.own.name == "one").unwrap();
            assert_eq!(one.network_of("10.77.0.2".parse().unwrap()).map(|it| it.1), Some(24));
            assert!(!one.forwards_v4 && !before.forwards_v6);
            assert!(before.has_address("10.77.0.1".parse().unwrap()));
            assert!(!before.has_address("10.77.0.2".parse().unwrap()));
            fs::write("/proc/sys/net/ipv4/conf/one/forwarding", "1").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            let after = read();
            let forwarding = after.links.iter().filter(|link| link.forwards_v4);
            assert_eq!(forwarding.map(|link| link.own.name.as_str()).collect::<Vec<_>>(), ["one"]);
            assert!(after.forwards_v6);
            // Whatever is not 0 is on for the kernel.
            fs::write("/proc/sys/net/ipv4/conf/one/forwarding", "2").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "2").unwrap();
            assert_eq!(read(), after);
        });
        inside.join().unwrap();
        let refused = HostReader::new(Path::new("/no/such/locum")).read(Instant::now(), &[]).proxy;
        assert_eq!(
            refused,
            Err("cannot run /no/such/locum: ENOENT: No such file or directory".into())
        );
    }
}
