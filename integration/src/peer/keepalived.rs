//! keepalived as a peer, and the configuration language that Locum shares with it.

use std::fmt::Write as _;

use super::Peer;
use super::Preempt;
use super::Router;
use super::Running;
use super::Version;
use crate::node::Node;

const PATH: &str = "/run/lab/keepalived.conf";
/// The numbers in stale ones may belong to strangers by now, and keepalived then refuses to start.
const PID_FILES: [&str; 3] = ["/run/lab/main.pid", "/run/lab/vrrp.pid", "/run/lab/checkers.pid"];

/// Debian's keepalived, its VRRP process only unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalived;

impl Keepalived {
    /// Starts it with a configuration of one's own.
    pub fn start_with(self, node: &Node, config: &str) -> Running {
        self.start_as(node, config, &["--log-detail"])
    }

    fn start_as(self, node: &Node, config: &str, options: &[&str]) -> Running {
        node.write(PATH, config);
        PID_FILES.iter().for_each(|file| node.remove(file));
        let [main, vrrp, checkers] = PID_FILES;
        let mut argv = vec![
            "keepalived",
            "--vrrp",
            "--dont-fork",
            "--log-console",
            "--use-file",
            PATH,
            "--pid",
            main,
            "--vrrp_pid",
            vrrp,
            "--checkers_pid",
            checkers,
        ];
        argv.extend(options);
        Running::new(self.label(), vec![node.spawn(&argv)])
    }
}

impl Peer for Keepalived {
    fn label(&self) -> &'static str {
        "keepalived"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["keepalived"]
    }

    fn start(&self, node: &Node, routers: &[Router]) -> Running {
        self.start_with(node, &render(routers))
    }
}

/// The same without its detailed log, whose lines cost more than the election: for comparisons.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuietKeepalived;

impl Peer for QuietKeepalived {
    fn label(&self) -> &'static str {
        Keepalived.label()
    }

    fn programs(&self) -> &'static [&'static str] {
        Keepalived.programs()
    }

    fn start(&self, node: &Node, routers: &[Router]) -> Running {
        Keepalived.start_as(node, &render(routers), &[])
    }
}

/// The routers in keepalived's language.
///
/// # Panics
/// When they differ in version: the language has one per file.
pub(super) fn render(routers: &[Router]) -> String {
    let version = routers.first().expect("no router").version;
    assert!(routers.iter().all(|router| router.version == version), "one version per file");
    let number = match version {
        Version::V2 => 2,
        Version::V3 => 3,
    };
    let mut text = format!(
        "global_defs {{\n    router_id LAB\n    vrrp_version {number}\n    script_user root\n}}\n"
    );
    routers.iter().for_each(|router| render_one(&mut text, router));
    text
}

fn render_one(text: &mut String, router: &Router) {
    let name = &router.name;
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{arguments}");
    };
    if let Some(check) = &router.check {
        line(format_args!("vrrp_script check_{name} {{"));
        line(format_args!("    script \"{}\"", check.script));
        line(format_args!("    interval {}", check.interval.as_secs()));
        line(format_args!("    weight {}\n}}", check.weight));
    }
    line(format_args!("vrrp_instance {name} {{\n    state BACKUP"));
    line(format_args!("    interface {}", router.interface));
    line(format_args!("    virtual_router_id {}", router.vrid));
    line(format_args!("    priority {}", router.priority));
    line(format_args!("    advert_int {}", router.interval.as_secs_f64()));
    match router.preempt {
        Preempt::Yes => {}
        Preempt::No => line(format_args!("    nopreempt")),
        Preempt::After(delay) => line(format_args!("    preempt_delay {}", delay.as_secs())),
    }
    if let Some(password) = &router.password {
        line(format_args!("    authentication {{\n        auth_type PASS"));
        line(format_args!("        auth_pass {password}\n    }}"));
    }
    if let Some(unicast) = &router.unicast {
        line(format_args!("    unicast_src_ip {}\n    unicast_peer {{", unicast.source));
        unicast.peers.iter().for_each(|peer| line(format_args!("        {peer}")));
        line(format_args!("    }}"));
    }
    line(format_args!("    virtual_ipaddress {{"));
    for (address, prefix) in &router.addresses {
        line(format_args!("        {address}/{prefix}"));
    }
    line(format_args!("    }}"));
    if router.check.is_some() {
        line(format_args!("    track_script {{\n        check_{name}\n    }}"));
    }
    line(format_args!("}}"));
}
