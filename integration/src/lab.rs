//! The picture of a test: one client, directors, real servers, and the switch between them, with
//! the faults a switch can have.

use std::net::IpAddr;

use crate::capture::Capture;
use crate::lateness;
use crate::node::Node;
use crate::require::Company;
use crate::require::Turn;
use crate::wait::eventually;
use crate::wait::seconds;

/// How many machines a test wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub directors: u8,
    /// Real servers, on a network of their own behind the directors.
    pub servers: u8,
    pub company: Company,
}

impl Shape {
    /// Two directors, no servers, beside other tests.
    pub const PAIR: Self = Self { directors: 2, servers: 0, company: Company::Shared };
    /// Two directors, alone on the machine: for tests that measure.
    pub const MEASURED_PAIR: Self = Self { directors: 2, servers: 0, company: Company::Alone };
    /// Two directors with two servers behind them.
    pub const SERVICE: Self = Self { directors: 2, servers: 2, company: Company::Shared };
}

/// The machines of a test.
pub struct Lab {
    switch: Node,
    pub client: Node,
    pub directors: Vec<Node>,
    pub servers: Vec<Node>,
    _turn: Turn,
}

/// Address of the client on the front network.
pub const CLIENT: &str = "192.168.1.200";

/// Bridges and their packet filter. Every frame between two ports in `cuts` is dropped.
const SWITCH: &str = "
for bridge in front back; do
    ip link add $bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip link set $bridge up
done
nft -f - <<'END'
table bridge lab {
    set cuts { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname . oifname @cuts drop
    }
}
END
";

impl Lab {
    /// Builds it and waits until every link carries frames and every address is usable.
    pub fn new(shape: Shape) -> Self {
        let turn = Turn::take(shape.company);
        lateness::keep_watch();
        let lab = Self {
            switch: Node::new("switch"),
            client: Node::new("client"),
            directors: (1..=shape.directors).map(|n| Node::new(&format!("lb{n}"))).collect(),
            servers: (1..=shape.servers).map(|n| Node::new(&format!("srv{n}"))).collect(),
            _turn: turn,
        };
        lab.switch.shell(SWITCH);
        lab.plug(&lab.client, "eth0", "front", &[CLIENT, "fd00:1::200"]);
        for (index, director) in lab.directors.iter().enumerate() {
            let front = director_address(index);
            lab.plug(director, "eth0", "front", &[&front, &format!("fd00:1::{:x}", 201 + index)]);
            if shape.servers > 0 {
                lab.plug(director, "eth1", "back", &[&format!("10.0.0.{}", 201 + index)]);
                director.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
            }
        }
        for (index, server) in lab.servers.iter().enumerate() {
            lab.plug(server, "eth0", "back", &[&format!("10.0.0.{}", index + 1)]);
        }
        lab.wait_for_links();
        lab
    }

    /// A cable carries frames some time after the command that brought it up has returned. Until
    /// then the kernel drops what is sent and says that it was sent.
    fn wait_for_links(&self) {
        let ends = self.directors.iter().chain(&self.servers).chain([&self.client, &self.switch]);
        for node in ends {
            eventually("the cables carry frames", seconds(60), || {
                let links = node.run(&["ip", "-oneline", "-details", "link", "show", "up"]);
                match links.lines().find(|link| !carries(link)) {
                    Some(link) => Err(format!("on {}: {link}", node.name())),
                    None => Ok(()),
                }
            });
        }
    }

    /// Connects `node` by a new cable whose far end on the switch is named after the node.
    fn plug(&self, node: &Node, interface: &str, bridge: &str, addresses: &[&str]) {
        let port = port(node, bridge);
        // Made from a namespace in which both process numbers are known.
        let cable = format!(
            "ip link add {port} netns {} type veth peer name {interface} netns {}",
            self.switch.pid(),
            node.pid()
        );
        let made = std::process::Command::new("/bin/sh").args(["-ec", &cable]).status();
        assert!(made.is_ok_and(|status| status.success()), "cannot make a cable: {cable}");
        self.switch.shell(&format!("ip link set {port} master {bridge} up"));
        let mut setup = format!("ip link set {interface} up\n");
        for address in addresses {
            let (prefix, flag) = if address.contains(':') { (64, "nodad") } else { (24, "") };
            setup += &format!("ip addr add {address}/{prefix} dev {interface} {flag}\n");
        }
        node.shell(&setup);
    }

    /// Address of a director on the front network, by its position from 0.
    pub fn address(&self, director: usize) -> IpAddr {
        director_address(director).parse().expect("a director's address")
    }

    /// A director's IPv6 address on the front network.
    pub fn address_v6(&self, director: usize) -> IpAddr {
        format!("fd00:1::{:x}", 201 + director).parse().expect("a director's address")
    }

    /// Records what every machine sends on the front network from now on.
    pub fn capture(&self) -> Capture {
        Capture::start(&self.switch)
    }

    /// The same without what the client sends.
    pub fn capture_without_client(&self) -> Capture {
        Capture::start_without(&self.switch, self.client.mac("eth0"))
    }

    /// Moves the servers to the front network, the first one as 192.168.1.101: one network for all.
    pub fn move_servers_to_front(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            let port = port(server, "back");
            self.switch.shell(&format!("ip link set {port} master front"));
            server.shell(&format!(
                "ip addr flush dev eth0 && ip addr add 192.168.1.{}/24 dev eth0",
                101 + index
            ));
        }
        self.wait_for_links();
    }

    /// A second cable for each server, `eth1` on the front network: the first one as 192.168.1.101 and
    /// fd00:1::101.
    pub fn connect_servers_to_front(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            let number = 101 + index;
            let addresses = [format!("192.168.1.{number}"), format!("fd00:1::{number}")];
            self.plug(server, "eth1", "front", &addresses.each_ref().map(String::as_str));
        }
        self.wait_for_links();
    }

    /// The director stays as it is, and nobody hears it any more: its carrier stays up.
    pub fn silence(&self, director: usize) {
        let port = port(&self.directors[director], "front");
        self.switch.shell(&format!("ip link set {port} nomaster"));
    }

    /// Ends [`Lab::silence`].
    pub fn unsilence(&self, director: usize) {
        let port = port(&self.directors[director], "front");
        self.switch.shell(&format!("ip link set {port} master front"));
    }

    /// Pulls the director's cable: it loses its carrier.
    pub fn unplug(&self, director: usize) {
        let port = port(&self.directors[director], "front");
        self.switch.shell(&format!("ip link set {port} down"));
    }

    /// Ends [`Lab::unplug`].
    pub fn replug(&self, director: usize) {
        let port = port(&self.directors[director], "front");
        self.switch.shell(&format!("ip link set {port} up"));
    }

    /// Drops every frame from one director to another; the client still reaches both.
    pub fn cut(&self, from: usize, to: usize) {
        let (from, to) = (self.directors[from].name(), self.directors[to].name());
        self.switch
            .shell(&format!("nft 'add element bridge lab cuts {{ \"{from}\" . \"{to}\" }}'"));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.switch.shell("nft flush set bridge lab cuts");
    }

    /// Positions of the directors that hold `address`.
    pub fn holders(&self, address: IpAddr) -> Vec<usize> {
        let holding = self.directors.iter().enumerate().filter(|(_, node)| node.holds(address));
        holding.map(|(index, _)| index).collect()
    }
}

/// Whether a line of `ip link` shows an end of a cable that passes on what it is given. At the
/// switch it has to forward as well. Other links do not matter: a bridge without cables stays down.
fn carries(link: &str) -> bool {
    let ready = link.contains("state UP") && !link.contains("qdisc noop ");
    let forwards = !link.contains("bridge_slave") || link.contains("bridge_slave state forwarding");
    !link.contains(" veth ") || ready && forwards
}

/// Name of the switch's end of a node's cable.
fn port(node: &Node, bridge: &str) -> String {
    match bridge {
        "front" => node.name().to_owned(),
        _ => format!("{}-{bridge}", node.name()),
    }
}

fn director_address(index: usize) -> String {
    format!("192.168.1.{}", 201 + index)
}
