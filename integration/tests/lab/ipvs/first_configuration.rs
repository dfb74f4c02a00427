//! The first configuration that anybody writes, on a kernel that has IPVS: names of hosts over UDP,
//! pages over TCP, the director itself among the servers, and nothing said about backend, forwarding
//! or the servers' own routes. It serves, or one sentence says what to change; and it does then.

use std::collections::BTreeSet;

use locum_integration::datagram;
use locum_integration::datagram::DatagramServer;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Locum;
use locum_integration::peer::locum_command;
use locum_integration::require;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;
use locum_integration::web::WebServer;

const HEAD: &str = r#"
[nodes.lb1]
[nodes.lb2]

[[instance]]
name = "web"
interface = "eth0"
vrid = 51
priority = { lb1 = 150, lb2 = 100 }
"#;

/// On one network with the clients.
const BESIDE: [&str; 2] = ["192.168.1.101", "192.168.1.102"];
/// On a network of their own.
const BEHIND: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// Questions to each service in one round: more than it has servers.
const QUESTIONS: usize = 6;

/// Rounds until each server must have been asked: one that was down for a moment has fewer
/// connections than the others and is sent all questions of the first ones.
const ROUNDS: usize = 10;

/// `addresses` are those of the instance; `forwarding` is a line of `dns`, or nothing.
fn config(addresses: &str, servers: [&str; 2], forwarding: &str) -> String {
    let [one, other] = servers;
    format!(
        r#"{HEAD}
addresses = [{addresses}]

[[service]]
name = "dns"
instance = "web"
listen = "192.168.1.100:53"
protocol = "udp"
{forwarding}
health = {{ tcp = true, port = 53, interval = "500ms", fall = 2 }}
servers = ["{one}:53", "{other}:53"]

[[service]]
name = "www"
instance = "web"
listen = "192.168.1.100:80"
health = {{ http = "/", interval = "500ms", fall = 2 }}
servers = ["{one}:80", "{other}:80", "192.168.1.201:80"]
"#
    )
}

const ONE_NETWORK: &str = r#""192.168.1.100/24""#;
const ROUTED: &str = r#""192.168.1.100/24", { address = "10.0.0.100/24", device = "eth1" }"#;

/// A pair and all that it serves.
struct Layout {
    balanced: Balanced,
    servers: Vec<DatagramServer>,
    _own: WebServer,
}

impl Layout {
    /// `forwards` is net.ipv4.ip_forward of both directors.
    fn new(config: &str, forwards: bool) -> Self {
        let balanced = Balanced::new(config);
        for director in &balanced.lab.directors {
            forward(director, forwards);
        }
        let own = &balanced.lab.directors[0];
        let own = WebServer::start_at(own, "192.168.1.201:80".parse().expect("an address"));
        let servers = balanced.lab.servers.iter().map(DatagramServer::start).collect();
        Self { balanced, servers, _own: own }
    }

    fn one_network(config: &str, forwards: bool) -> Self {
        let layout = Self::new(config, forwards);
        layout.balanced.lab.move_servers_to_front();
        layout
    }

    fn routed(config: &str, forwards: bool) -> Self {
        let layout = Self::new(config, forwards);
        for server in &layout.balanced.lab.servers {
            server.run(&["ip", "route", "add", "default", "via", "10.0.0.100"]);
        }
        layout
    }

    fn director(&self, director: usize) -> &Node {
        &self.balanced.lab.directors[director]
    }

    /// Starts one after the other: of two that cannot serve all, who is master stays it.
    fn start(&mut self) {
        self.balanced.start(0);
        self.expect_known(0);
        self.balanced.expect_service_by(0);
        self.balanced.start(1);
    }

    /// Waits until this one is master and has asked all servers.
    fn expect_known(&self, director: usize) {
        let node = self.director(director);
        wait::eventually("it is known what is served", ELECTION, || {
            let status = status(node);
            let services = status["services"].as_array().cloned().unwrap_or_default();
            let is_known = services.iter().all(|service| {
                let servers = service["servers"].as_array().cloned().unwrap_or_default();
                !service["fitness"]["holds"].is_null()
                    && servers.iter().all(|server| server["up"] == true)
            });
            let is_master = status["instances"][0]["role"] == "master";
            let is_there = services.len() == 2 && is_known && is_master;
            if is_there { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// The servers of `dns` take what is for the shared address itself, and nobody hears of it.
    fn answer_directly(&mut self) {
        self.servers.clear();
        for server in &self.balanced.lab.servers {
            server.shell(
                "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore\n\
                 echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce\n\
                 ip addr add 192.168.1.100/32 dev lo",
            );
            self.servers.push(DatagramServer::start_at(server, self.balanced.vip()));
        }
    }

    /// Who answered the questions to `www`.
    fn ask_www(&self) -> Answers {
        Answers::of((0..QUESTIONS).map(|_| self.balanced.get()))
    }

    fn ask_dns(&self) -> Answers {
        let (client, vip) = (&self.balanced.lab.client, self.balanced.vip());
        Answers::of((0..QUESTIONS).map(|_| datagram::ask(client, vip)))
    }

    /// Every question is answered, those to `www` by the director and both servers, those to `dns`
    /// by the two.
    fn expect_answers(&self) {
        expect_all_by(&["lb1", "srv1", "srv2"], || self.ask_www());
        expect_all_by(&["srv1", "srv2"], || self.ask_dns());
    }
}

/// Asks until each of `names` has answered, and nobody else; every question is answered.
fn expect_all_by(names: &[&str], ask: impl Fn() -> Answers) {
    let wanted: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    let mut by = BTreeSet::new();
    for _ in 0..ROUNDS {
        let answers = ask();
        assert_eq!(answers.unanswered, 0, "{answers:?}");
        by.extend(answers.by);
        if by == wanted {
            return;
        }
    }
    panic!("answers came from {by:?} and not from {wanted:?}");
}

/// What became of some questions.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answers {
    by: BTreeSet<String>,
    unanswered: usize,
}

impl Answers {
    fn of(answers: impl Iterator<Item = Result<String, String>>) -> Self {
        let (mut by, mut unanswered) = (BTreeSet::new(), 0);
        for answer in answers {
            match answer {
                Ok(name) => drop(by.insert(name)),
                Err(_) => unanswered += 1,
            }
        }
        Self { by, unanswered }
    }

    fn none() -> Self {
        Self { by: BTreeSet::new(), unanswered: QUESTIONS }
    }
}

fn forward(node: &Node, forwards: bool) {
    node.shell(&format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(forwards)));
}

fn status(node: &Node) -> serde_json::Value {
    let output = locum_command(node, &["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Exit code and text of `locum status`.
fn shown(node: &Node) -> (Option<i32>, String) {
    let output = locum_command(node, &["status"]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Exit code and text of `locum check --host` for this file.
fn check(node: &Node, config: &str) -> (Option<i32>, String) {
    Locum::NATIVE.configure(node, config);
    let binary = require::locum().to_string_lossy();
    let output = node.output(&[&*binary, "check", "--host", "-c", "/run/lab/locum.toml"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The kernel's tables name this service: IPVS serves it.
fn is_in_table(node: &Node, service: &str) -> bool {
    node.run(&["ipvsadm", "-Ln"]).contains(service)
}

/// Waits until `locum status` ends with this code and says all of this.
fn expect_status(node: &Node, code: i32, says: &[&str]) {
    wait::eventually(&format!("status says {says:?}"), ELECTION, || {
        let (found, text) = shown(node);
        let is_said = found == Some(code) && says.iter().all(|part| text.contains(part));
        if is_said { Ok(()) } else { Err(format!("{found:?}: {text}")) }
    });
}

/// What `locum check --host` says of this file on both directors.
fn expect_check(layout: &Layout, config: &str, code: i32, says: &[&str]) {
    for node in &layout.balanced.lab.directors {
        let (found, text) = check(node, config);
        assert_eq!(found, Some(code), "{text}");
        // The last line counts them.
        let lines = text.lines().filter(|line| line.contains(": service ")).count();
        assert_eq!(lines, says.len(), "{text}");
        assert!(says.iter().all(|part| text.contains(part)), "{says:?} is not in {text}");
    }
}

/// Served by the proxy is what can be, and the rest is said to be refused with all that has to be
/// changed: which is changed then, one way after the other.
#[test]
fn one_network_is_served_as_far_as_it_can_be() {
    vm::inside("ipvs::first_configuration::one_network_is_served_as_far_as_it_can_be", || {
        const CAUSE: &str = "by nat the answers of 192.168.1.101:53, 192.168.1.102:53 would not come \
                             back through this host, because they are on the network of \
                             192.168.1.100:53, where clients are: put servers on a network behind \
                             this host";
        const DIRECT: &str = ", or use forwarding = \"direct\" with 192.168.1.100 on the loopback of \
                              each, hidden by net.ipv4.conf.all.arp_ignore=1 and arp_announce=2";
        let nat = config(ONE_NETWORK, BESIDE, "backend = \"ipvs\"");
        let mut layout = Layout::one_network(&nat, false);
        let cannot = format!("IPVS cannot: {CAUSE} and set net.ipv4.ip_forward=1{DIRECT}");
        // Left to itself it serves both.
        expect_check(&layout, &config(ONE_NETWORK, BESIDE, ""), 0, &[]);
        expect_check(&layout, &nat, 2, &[&format!("error: service dns: {cannot}")]);
        layout.balanced.start(0);
        layout.expect_known(0);
        layout.balanced.expect_service_by(0);
        // It cannot serve all and offers its place: who starts at that moment takes the release for
        // that of one that stops.
        wait::until("the place that nobody took is taken back", ELECTION, || {
            layout.balanced.daemon(0).log().matches("Entering MASTER STATE").count() == 2
        });
        layout.balanced.start(1);
        expect_all_by(&["lb1", "srv1", "srv2"], || layout.ask_www());
        assert_eq!(layout.ask_dns(), Answers::none());
        let unanswered = format!("service dns does not answer its clients: {cannot}");
        expect_status(layout.director(0), 1, &[&unanswered]);
        let incapable =
            format!("service dns could not be served if this node became master: {cannot}");
        expect_status(layout.director(1), 1, &[&incapable]);
        let log = layout.balanced.daemon(0).log();
        let why = "www is served by the built-in proxy: IPVS cannot: by nat the answers of ";
        assert!(log.contains(why), "{log}");

        // Half of the first way: clients of other networks would be answered, those of this are not.
        for director in &layout.balanced.lab.directors {
            forward(director, true);
        }
        let doubt = format!("not for all clients: {CAUSE}{DIRECT}");
        expect_check(&layout, &nat, 1, &[&format!("warning: service dns: {doubt}")]);
        expect_status(layout.director(0), 1, &[&format!("service dns is strained: {doubt}")]);
        assert!(is_in_table(layout.director(0), "UDP  192.168.1.100:53"));
        assert_eq!(layout.ask_dns(), Answers::none());

        // The second way, which needs nothing forwarded.
        for director in &layout.balanced.lab.directors {
            forward(director, false);
        }
        layout.answer_directly();
        let direct = config(ONE_NETWORK, BESIDE, "forwarding = \"direct\"");
        expect_check(&layout, &direct, 0, &[]);
        for director in &layout.balanced.lab.directors {
            let reload = locum_command(director, &["reload"]);
            assert!(reload.status.success(), "{reload:?}");
        }
        layout.expect_known(0);
        expect_status(layout.director(0), 0, &["healthy"]);
        layout.expect_answers();
    });
}

#[test]
fn servers_behind_a_director_that_does_not_forward_are_served_by_the_proxy() {
    const NAME: &str = "ipvs::first_configuration::servers_behind_a_director_that_does_not_forward_\
                        are_served_by_the_proxy";
    vm::inside(NAME, || {
        const CANNOT: &str = "IPVS cannot: by nat the answers of 10.0.0.1:53, 10.0.0.2:53 are \
                              forwarded by this host, which net.ipv4.ip_forward=0 forbids: set it \
                              to 1";
        let auto = config(ROUTED, BEHIND, "");
        let mut layout = Layout::routed(&auto, false);
        // Where it can only be IPVS, it is said what to do.
        let kernel = config(ROUTED, BEHIND, "scheduler = \"lblc\"");
        expect_check(&layout, &kernel, 2, &[&format!("error: service dns: {CANNOT}")]);
        expect_check(&layout, &auto, 0, &[]);
        layout.start();
        layout.expect_answers();
        expect_status(layout.director(0), 0, &["healthy"]);
        expect_status(layout.director(1), 0, &["healthy"]);
        let log = layout.balanced.daemon(0).log();
        let why = "dns is served by the built-in proxy: IPVS cannot: by nat the answers of ";
        assert!(log.contains(why), "{log}");

        for director in &layout.balanced.lab.directors {
            forward(director, true);
        }
        expect_check(&layout, &kernel, 0, &[]);
        // What serves stays where it is.
        assert!(!is_in_table(layout.director(0), "192.168.1.100"));
        layout.expect_answers();
    });
}

#[test]
fn servers_behind_a_director_that_forwards_are_served_by_the_kernel() {
    const NAME: &str = "ipvs::first_configuration::servers_behind_a_director_that_forwards_are_\
                        served_by_the_kernel";
    vm::inside(NAME, || {
        let config = config(ROUTED, BEHIND, "");
        let mut layout = Layout::routed(&config, true);
        expect_check(&layout, &config, 0, &[]);
        layout.start();
        expect_status(layout.director(0), 0, &["healthy"]);
        for service in ["UDP  192.168.1.100:53 wlc", "TCP  192.168.1.100:80 wlc"] {
            assert!(is_in_table(layout.director(0), service), "{service}");
        }
        layout.expect_answers();

        // To the other director the first one is a server beside the clients.
        expect_status(layout.director(1), 0, &["healthy"]);
        layout.balanced.daemon(0).terminate();
        layout.expect_known(1);
        layout.balanced.expect_service_by(1);
        expect_status(layout.director(1), 0, &["healthy"]);
        assert!(!is_in_table(layout.director(1), "TCP"));
        layout.expect_answers();
    });
}

/// Each scheduler that IPVS is known for, and one that nobody has: what the verification says of it
/// is what the kernel says when it is asked for a table, once what there is of modules is loaded.
#[test]
fn a_scheduler_is_missing_exactly_where_the_kernel_has_none() {
    const NAME: &str = "ipvs::first_configuration::a_scheduler_is_missing_exactly_where_the_kernel_\
                        has_none";
    vm::inside(NAME, || {
        const SCHEDULERS: [&str; 15] = [
            "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq",
            "twos", "wlcc",
        ];
        let service = |(index, scheduler): (usize, &&str)| {
            let port = 8000 + index;
            format!(
                "\n[[service]]\nname = \"{scheduler}\"\ninstance = \"web\"\nbackend = \"ipvs\"\n\
                 listen = \"192.168.1.100:{port}\"\nscheduler = \"{scheduler}\"\n\
                 servers = [\"10.0.0.1:80\"]\n"
            )
        };
        let services: String = SCHEDULERS.iter().enumerate().map(service).collect();
        let config = format!("{HEAD}addresses = [{ONE_NETWORK}]\n{services}");
        let mut layout = Layout::routed(&config, true);
        // The modules are loaded only after they were looked for.
        let (code, text) = check(layout.director(1), &config);
        let witness = layout.director(0);
        let has_none = |scheduler: &&&str| {
            // Not by IPVS, which holds its lock while it waits for the module: one that has a part
            // in each namespace (lblc) waits for namespaces that end, and these for the lock.
            witness.output(&["modprobe", &format!("ip_vs_{scheduler}")]);
            let table = ["ipvsadm", "-A", "-t", "203.0.113.1:80", "-s", scheduler];
            let is_there = witness.output(&table).status.success();
            if is_there {
                witness.run(&["ipvsadm", "-C"]);
            }
            !is_there
        };
        let missing: Vec<&str> = SCHEDULERS.iter().filter(has_none).copied().collect();
        assert_eq!(missing, ["twos", "wlcc"], "this kernel");
        let sentence = |scheduler: &str| {
            format!(
                "service {scheduler}: IPVS cannot: the kernel has no scheduler `{scheduler}`: \
                 install its module ip_vs_{scheduler}, or use another scheduler"
            )
        };
        assert_eq!(code, Some(2), "{text}");
        assert_eq!(text.matches(": error: ").count(), missing.len(), "{text}");
        assert!(missing.iter().all(|scheduler| text.contains(&sentence(scheduler))), "{text}");

        // A daemon that runs says the same, and counts as unable to serve them.
        layout.balanced.start(0);
        let unfit = "this node cannot serve service twos, service wlcc";
        expect_status(layout.director(0), 1, &[unfit, "the kernel has no scheduler `twos`"]);
    });
}
