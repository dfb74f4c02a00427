//! Two directors with a balanced service on their shared address, from one file for both nodes.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::Shape;
use crate::node::Node;
use crate::pair::ELECTION;
use crate::peer::Locum;
use crate::peer::Running;
use crate::require::Company;
use crate::wait;
use crate::web;
use crate::web::WebServer;

/// Longer than a backup takes to end what carried traffic, and less than connections have by default
/// to end by themselves: who waits for them is caught.
const SETTLED: Duration = wait::seconds(20);

/// The address the directors share.
pub const VIP: &str = "192.168.1.100";

/// The instance `web` of both directors, the first one better. Slow enough that a busy machine lets
/// no master lose its place.
pub const INSTANCE: &str = r#"
[nodes.lb1]
[nodes.lb2]

[[instance]]
name = "web"
interface = "eth0"
vrid = 51
priority = { lb1 = 150, lb2 = 100 }
advert_interval = "300ms"
addresses = ["192.168.1.100/24"]
"#;

/// The service `www` of that instance through the built-in proxy.
pub const PROXY: &str = r#"
[[service]]
name = "www"
instance = "web"
listen = "192.168.1.100:80"
backend = "proxy"
scheduler = "rr"
health = { http = "/health", interval = "500ms", timeout = "400ms", rise = 1, fall = 2 }
servers = ["10.0.0.1:80", "10.0.0.2:80"]
"#;

/// The HAProxy `edge` of that instance, whose file is [`HAPROXY_FILE`] or one like it.
pub const HAPROXY: &str = r#"
[[haproxy]]
name = "edge"
instance = "web"
config = "/etc/haproxy/lab.cfg"
"#;

/// For the same servers as [`PROXY`].
pub const HAPROXY_FILE: &str = "
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend web
    bind *:80
    default_backend servers
backend servers
    balance roundrobin
    server srv1 10.0.0.1:80 check inter 500
    server srv2 10.0.0.2:80 check inter 500
";

/// A service or HAProxy of which a backup runs nothing.
pub fn cold(part: &str) -> String {
    format!("{part}standby = \"cold\"\n")
}

/// A part beside an instance with adverts every second: a busy machine costs no master its place, nor
/// a client its connection.
pub fn every_second(part: &str) -> String {
    format!("{}{part}", INSTANCE.replace("300ms", "1s"))
}

/// Directors that serve, and the web servers behind them.
pub struct Balanced {
    running: Vec<Option<Running>>,
    pub web: Vec<WebServer>,
    pub lab: Lab,
    config: String,
}

impl Balanced {
    /// Builds the machines and starts the web servers; no daemon runs yet.
    pub fn new(config: &str) -> Self {
        Self::on(Shape::SERVICE, config)
    }

    /// The same, with nothing else on the machine: for tests that measure.
    pub fn alone(config: &str) -> Self {
        Self::on(Shape { company: Company::Alone, ..Shape::SERVICE }, config)
    }

    /// Builds machines of this shape whose servers run nothing yet.
    pub fn bare(shape: Shape, config: &str) -> Self {
        let (running, config) = (vec![None, None], config.to_owned());
        Self { running, web: Vec::new(), lab: Lab::new(shape), config }
    }

    fn on(shape: Shape, config: &str) -> Self {
        let mut balanced = Self::bare(shape, config);
        balanced.web = balanced.lab.servers.iter().map(WebServer::start).collect();
        balanced
    }

    /// Starts both daemons and waits until a request is answered by way of the first.
    pub fn settled(config: &str) -> Self {
        let mut balanced = Self::new(config);
        balanced.start(0);
        balanced.start(1);
        balanced.expect_service_by(0);
        balanced
    }

    /// Starts the daemon of a director.
    pub fn start(&mut self, director: usize) {
        self.running[director] = None;
        let node = &self.lab.directors[director];
        self.running[director] = Some(Locum::NATIVE.start_with(node, &self.config));
    }

    /// Starts the daemon of a director by way of another program, as `prlimit`, with its arguments.
    pub fn start_under(&mut self, director: usize, wrapper: &[&str]) {
        self.running[director] = None;
        let node = &self.lab.directors[director];
        Locum::NATIVE.configure(node, &self.config);
        self.running[director] = Some(Locum::NATIVE.start_under(node, wrapper));
    }

    /// Starts the daemon of a director over what an earlier run, which must be dead, left behind.
    pub fn start_again(&mut self, director: usize) {
        let again = Locum::NATIVE.start_again(&self.lab.directors[director]);
        self.running[director] = Some(again);
    }

    /// The same of an upgraded daemon: another file of the same program.
    pub fn start_upgraded(&mut self, director: usize) {
        let upgrade = "cp \"$0\" /run/lab/upgraded && exec /run/lab/upgraded \"$@\"";
        let node = &self.lab.directors[director];
        self.running[director] = Some(Locum::NATIVE.start_under(node, &["sh", "-c", upgrade]));
    }

    /// The daemon of a director.
    pub fn daemon(&mut self, director: usize) -> &mut Running {
        self.running[director].as_mut().expect("the daemon was not started")
    }

    /// The shared address.
    pub fn vip(&self) -> IpAddr {
        VIP.parse().expect("an address")
    }

    /// One request through the shared address: the name of the server that answered.
    pub fn get(&self) -> Result<String, String> {
        web::get(&self.lab.client, self.vip())
    }

    /// Waits until this director holds the address and a request through it is answered.
    pub fn expect_service_by(&self, director: usize) {
        let what = format!("lb{} serves", director + 1);
        let mut last = Ok(String::new());
        wait::until(&what, ELECTION, || {
            self.lab.directors[director].holds(self.vip()) && {
                last = self.get();
                last.is_ok()
            }
        });
    }

    /// Waits until both servers answer in turn.
    pub fn expect_both_servers(&self) {
        self.expect_servers(&["srv1", "srv2"]);
    }

    /// Waits until eight requests in a row are answered, by exactly these servers.
    pub fn expect_servers(&self, names: &[&str]) {
        wait::until(&format!("requests go to {names:?}"), ELECTION, || {
            let answers: Result<Vec<String>, String> = (0..8).map(|_| self.get()).collect();
            answers.is_ok_and(|mut answers| {
                answers.sort();
                answers.dedup();
                answers == names
            })
        });
    }
}

/// Nothing on the director carries or waits for traffic.
///
/// # Panics
/// When it still does after [`SETTLED`].
pub fn expect_idle(node: &Node) {
    wait::eventually("nothing serves on the backup", SETTLED, || {
        let (listens, carriers) = (listens(node), carriers(node));
        match listens || !carriers.is_empty() {
            true => Err(format!("listens: {listens}, processes: {carriers:?}")),
            false => Ok(()),
        }
    });
}

/// Whether something on the node listens on TCP port 80.
pub fn listens(node: &Node) -> bool {
    !node.run(&["ss", "-Hltn", "sport = :80"]).trim().is_empty()
}

/// Names of the processes of a node that may carry client traffic: not the daemon itself, nor what has ended.
pub fn carriers(node: &Node) -> Vec<String> {
    let all = node.run(&["ps", "-eo", "args", "--no-headers"]);
    let lines = all.lines().filter(|line| line.contains("haproxy") || line.contains("locum"));
    lines
        .filter(|line| !line.contains(" run ") && !line.contains("defunct"))
        .map(str::to_owned)
        .collect()
}
