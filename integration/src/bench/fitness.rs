//! What serves on the master fails while its daemon lives: how soon that is known, and when a client
//! is answered again; and that the same failure on both directors moves nothing.

use std::fmt;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::lab::Lab;
use crate::lab::Shape;
use crate::node::Node;
use crate::outage;
use crate::outage::Knocks;
use crate::pair::ELECTION;
use crate::pair::FIRST;
use crate::pair::SECOND;
use crate::peer::Keepalived;
use crate::peer::Locum;
use crate::peer::Running;
use crate::peer::locum_command;
use crate::process::Process;
use crate::require;
use crate::require::Company;
use crate::service::HAPROXY;
use crate::service::HAPROXY_FILE;
use crate::service::PROXY;
use crate::service::VIP;
use crate::service::every_second;
use crate::wait;
use crate::wait::millis;
use crate::wait::seconds;
use crate::web;
use crate::web::WebServer;

/// From the failure; what has not come about by then never will.
const PATIENCE: Duration = seconds(15);
/// The promise: from the moment it is known.
const ANSWERED: Duration = millis(1500);

/// Who keeps the address. keepalived stands beside a HAProxy that runs on both directors all the
/// time, with the script that is usual for that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Ours,
    Curl,
    Pgrep,
}

const KEEPERS: [Keeper; 3] = [Keeper::Ours, Keeper::Curl, Keeper::Pgrep];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    PortTaken,
    Stopped,
    ServersLost,
    CertificateGone,
    ProgramRefused,
}

const BLOWS: [Blow; 5] = [
    Blow::PortTaken,
    Blow::Stopped,
    Blow::ServersLost,
    Blow::CertificateGone,
    Blow::ProgramRefused,
];

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PortTaken => "HAProxy killed, its port taken",
            Self::Stopped => "HAProxy stopped",
            Self::ServersLost => "servers out of reach",
            Self::CertificateGone => "certificate gone, HAProxy killed",
            Self::ProgramRefused => "proxy killed, its program refused",
        })
    }
}

impl Blow {
    fn kills(self) -> bool {
        match self {
            Self::PortTaken | Self::CertificateGone | Self::ProgramRefused => true,
            Self::Stopped | Self::ServersLost => false,
        }
    }

    /// Ours only: what serves. Where both are struck, what is struck has to run on both.
    fn config(self) -> String {
        let part = match self {
            Self::PortTaken | Self::CertificateGone => HAPROXY.to_owned(),
            Self::Stopped => format!("{HAPROXY}standby = \"warm\"\n"),
            Self::ServersLost | Self::ProgramRefused => PROXY.to_owned(),
        };
        every_second(&part)
    }
}

fn keepalived_config(keeper: Keeper, director: usize) -> String {
    let script = match keeper {
        Keeper::Pgrep => "/usr/bin/pgrep -x haproxy",
        Keeper::Ours | Keeper::Curl => "/usr/bin/curl -sf -m 1 -o /dev/null http://127.0.0.1/",
    };
    let priority = [FIRST, SECOND][director];
    format!(
        "global_defs {{
    router_id LAB
    vrrp_version 3
    script_user root
}}
vrrp_script serves {{
    script \"{script}\"
    interval 1
    timeout 2
    fall 2
    rise 2
    weight -60
}}
vrrp_instance web {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        {VIP}/24
    }}
    track_script {{
        serves
    }}
}}
"
    )
}

/// Two directors that are about to be struck.
struct Site {
    // The daemons end before the machines they run on.
    daemons: Vec<Running>,
    beside: Vec<Process>,
    strangers: Vec<TcpListener>,
    _web: Vec<WebServer>,
    lab: Lab,
    keeper: Keeper,
}

impl Site {
    /// Waits until the first director serves and the other one could.
    fn settled(keeper: Keeper, blow: Blow, company: Company) -> Self {
        let lab = Lab::new(Shape { company, ..Shape::SERVICE });
        let web = lab.servers.iter().map(WebServer::start).collect();
        let (daemons, beside, strangers) = (Vec::new(), Vec::new(), Vec::new());
        let mut site = Self { daemons, beside, strangers, _web: web, lab, keeper };
        for director in [0, 1] {
            site.start(blow, director);
        }
        let vip = VIP.parse().expect("an address");
        wait::lasting("lb1 alone is master", ELECTION, seconds(4), || site.lab.holders(vip) == [0]);
        wait::until("the first director serves", ELECTION, || {
            web::get(&site.lab.client, vip).is_ok()
        });
        if keeper == Keeper::Ours {
            wait::until("the other one could", ELECTION, || is_ready(&site.lab.directors[1]));
        }
        site
    }

    fn start(&mut self, blow: Blow, director: usize) {
        let node = &self.lab.directors[director];
        outage::issue_certificate(node, "lab.example");
        let file = match blow {
            Blow::CertificateGone => outage::with_certificate(),
            Blow::PortTaken | Blow::Stopped | Blow::ServersLost | Blow::ProgramRefused => {
                HAPROXY_FILE.to_owned()
            }
        };
        node.write("/etc/haproxy/lab.cfg", &file);
        if self.keeper == Keeper::Ours {
            Locum::NATIVE.configure(node, &blow.config());
            // From a file of its own, which can be taken from it.
            let copy = "cp \"$0\" /run/lab/program && exec /run/lab/program \"$@\"";
            let daemon = Locum::NATIVE.start_under(node, &["/bin/sh", "-ec", copy]);
            self.daemons.push(daemon);
        } else {
            self.beside.push(node.spawn(&["haproxy", "-db", "-f", "/etc/haproxy/lab.cfg"]));
            let config = keepalived_config(self.keeper, director);
            self.daemons.push(Keepalived.start_with(node, &config));
        }
    }

    fn strike(&mut self, blow: Blow, director: usize) {
        let node = &self.lab.directors[director];
        let haproxy = |signal: &str| {
            node.shell(&format!("pgrep -x haproxy | xargs -r kill -{signal}"));
        };
        match blow {
            Blow::PortTaken => {
                // Nobody starts another one before the port is taken.
                self.daemons[director].pause();
                haproxy("KILL");
                self.strangers.push(outage::take_port(node));
                self.daemons[director].resume();
            }
            Blow::Stopped => haproxy("STOP"),
            Blow::ServersLost => outage::lose_servers(node),
            Blow::CertificateGone => {
                node.remove(outage::CERTIFICATE);
                haproxy("KILL");
            }
            Blow::ProgramRefused if self.keeper == Keeper::Ours => {
                // The brackets keep the pattern from matching the shell that it stands in.
                let proxy = "pgrep -f '[p]roxy --socket' | xargs -r kill -KILL";
                node.shell(&format!("chmod 644 /run/lab/program; {proxy}"));
            }
            Blow::ProgramRefused => haproxy("KILL"),
        }
        if let (true, Some(dead)) = (blow.kills(), self.beside.get_mut(director)) {
            // Until it has been waited for it looks alive to who counts processes.
            dead.wait(ELECTION);
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let output = locum_command(node, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let instance = &status["instances"][0];
    instance["role"] == "backup" && instance["effective_priority"] == instance["base_priority"]
}

/// From the failure on; `None` is never.
#[derive(Clone, Copy)]
struct Course {
    known: Option<Duration>,
    answered: Option<Duration>,
}

fn course(keeper: Keeper, blow: Blow) -> Course {
    let mut site = Site::settled(keeper, blow, Company::Alone);
    let capture = site.lab.capture_without_client();
    let vip = VIP.parse().expect("an address");
    let knocks = Knocks::start(&site.lab.client, vip);
    thread::sleep(seconds(1));
    let from = Instant::now();
    site.strike(blow, 0);
    let struck = Instant::now();
    while knocks.answered_since(struck).is_none() && struck.elapsed() < PATIENCE {
        thread::sleep(millis(5));
    }
    let known = outage::known(&capture, "lb1", FIRST, from);
    let after = |at: Instant| at.saturating_duration_since(struck);
    Course { known: known.map(after), answered: knocks.answered_since(struck).map(after) }
}

fn changes_in(keeper: Keeper, blow: Blow, period: Duration) -> usize {
    let mut site = Site::settled(keeper, blow, Company::Shared);
    let capture = site.lab.capture_without_client();
    site.strike(blow, 1);
    site.strike(blow, 0);
    thread::sleep(period);
    outage::masters(&capture).len().saturating_sub(1)
}

/// Each failure on the master `runs` times, and on both for a while where that is asked for.
pub fn fitness(runs: u32, both_for: Option<Duration>) -> bool {
    if !require::lab(&["nft", "haproxy", "keepalived", "curl", "pgrep", "openssl"]) {
        return false;
    }
    println!("seconds until the failure is known (on the wire) and until a client is answered");
    println!("{:36}{:>14}{:>20}{:>20}", "", "locum", "keepalived, curl", "keepalived, pgrep");
    let mut met = true;
    for blow in BLOWS {
        for _ in 0..runs {
            let courses = KEEPERS.map(|keeper| course(keeper, blow));
            let [ours, curl, pgrep] = courses.map(shown);
            println!("{blow:36}{ours:>14}{curl:>20}{pgrep:>20}");
            met &= is_kept(courses[0]);
        }
    }
    if let Some(period) = both_for {
        println!("the same on both: how often the master is another in {period:?}");
        // All beside each other: they wait.
        let changes = thread::scope(|scope| {
            let pairs = BLOWS.map(|blow| KEEPERS.map(|keeper| (keeper, blow)));
            let running = pairs.map(|row| {
                row.map(|(keeper, blow)| scope.spawn(move || changes_in(keeper, blow, period)))
            });
            running.map(|row| row.map(|one| one.join().expect("a pair that was watched")))
        });
        for (blow, [ours, curl, pgrep]) in BLOWS.into_iter().zip(changes) {
            println!("{blow:36}{ours:>14}{curl:>20}{pgrep:>20}");
            met &= ours == 0;
        }
    }
    met
}

fn is_kept(course: Course) -> bool {
    let times = course.known.zip(course.answered);
    times.is_some_and(|(known, answered)| answered.saturating_sub(known) <= ANSWERED)
}

fn shown(course: Course) -> String {
    let [known, answered] = [course.known, course.answered]
        .map(|time| time.map_or("never".to_owned(), |time| format!("{:.2}", time.as_secs_f64())));
    format!("{known} {answered}")
}
