//! Pages, datagrams and associations over both address families, by every way to a server and every
//! wrapping of a tunnel: one director, and servers with one foot on the clients' network and one behind
//! it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use locum_integration::datagram;
use locum_integration::datagram::DatagramServer;
use locum_integration::lab::CLIENT;
use locum_integration::lab::Shape;
use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::sctp;
use locum_integration::sctp::SctpServer;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;
use locum_integration::web;
use locum_integration::web::WebServer;

use super::INSTANCE;

const VIP_V4: &str = "192.168.1.100";
const VIP_V6: &str = "fd00:1::100";
const CLIENT_V6: &str = "fd00:1::200";

/// What it is called, the address and the port it is asked at, how its servers are reached, and them.
type Way = (&'static str, &'static str, u16, &'static str, [&'static str; 2]);

/// Over TCP and over UDP.
const WAYS: [Way; 6] = [
    ("nat-6", VIP_V6, 80, "nat", [r#""fd00:2::1""#, r#""fd00:2::2""#]),
    ("direct-6", VIP_V6, 81, "direct", [r#""fd00:1::101""#, r#""fd00:1::102""#]),
    ("tunnel-4-in-4", VIP_V4, 82, "tunnel", [GUE_V4, GRE_V4]),
    ("tunnel-6-in-6", VIP_V6, 83, "tunnel", [GUE_V6, GRE_V6]),
    ("tunnel-4-in-6", VIP_V4, 84, "tunnel", [r#""fd00:2::1""#, GUE_V6_OTHER]),
    ("tunnel-6-in-4", VIP_V6, 85, "tunnel", [r#""10.0.0.1""#, GRE_V4]),
];
const GUE_V4: &str = r#"{ address = "10.0.0.1", tunnel = { type = "gue", port = 6080 } }"#;
const GRE_V4: &str = r#"{ address = "10.0.0.2", tunnel = { type = "gre" } }"#;
const GUE_V6: &str = r#"{ address = "fd00:2::1", tunnel = { type = "gue", port = 6080 } }"#;
const GRE_V6: &str = r#"{ address = "fd00:2::2", tunnel = { type = "gre", checksum = "full" } }"#;
const GUE_V6_OTHER: &str = r#"{ address = "fd00:2::2", tunnel = { type = "gue", port = 6080 } }"#;

/// Over SCTP.
const ASSOCIATIONS: [Way; 2] = [
    ("nat-4", VIP_V4, 3868, "nat", [r#""10.0.0.1""#, r#""10.0.0.2""#]),
    ("direct-6", VIP_V6, 3869, "direct", [r#""fd00:1::101""#, r#""fd00:1::102""#]),
];

fn config() -> String {
    let addresses = "excluded_addresses = [\"fd00:1::100/64\"]\n";
    let mut text = format!("{INSTANCE}{addresses}");
    let ways = WAYS.iter().flat_map(|way| [(way, "tcp"), (way, "udp")]);
    for ((name, vip, port, forwarding, servers), protocol) in
        ways.chain(ASSOCIATIONS.iter().map(|way| (way, "sctp")))
    {
        let listen = SocketAddr::new(vip.parse().expect("an address"), *port);
        let servers = servers.join(", ");
        write!(
            text,
            r#"
[[service]]
name = "{name}-{protocol}"
instance = "web"
backend = "ipvs"
listen = "{listen}"
protocol = "{protocol}"
scheduler = "rr"
forwarding = "{forwarding}"
servers = [{servers}]
"#
        )
        .expect("a string takes all");
    }
    text
}

/// What comes for the shared addresses is taken, whatever it is wrapped in, and nobody is told of it;
/// what is answered from an address behind the director goes back by way of it.
const SERVER: &str = "
for module in sctp fou fou6 ipip ip_gre ip6_gre ip6_tunnel sit; do modprobe -q $module || true; done
ip addr add fd00:2::NUMBER/64 dev eth0 nodad
ip rule add from 10.0.0.0/24 lookup 100
ip route add default via 10.0.0.100 table 100
ip -6 rule add from fd00:2::/64 lookup 100
ip -6 route add default via fd00:2::201 table 100
ip fou add port 6080 gue
ip -6 fou add port 6080 gue
ip link add any6 type ip6tnl mode any local fd00:2::NUMBER remote ::
ip link add gre6 type ip6gre local fd00:2::NUMBER remote :: icsum
for link in tunl0 sit0 gre0 gre6 any6; do ip link set $link up; done
for link in all default eth0 eth1 tunl0 gre0; do
    echo 1 > /proc/sys/net/ipv4/conf/$link/arp_ignore
    echo 2 > /proc/sys/net/ipv4/conf/$link/arp_announce
    echo 0 > /proc/sys/net/ipv4/conf/$link/rp_filter
done
ip addr add 192.168.1.100/32 dev lo
ip addr add fd00:1::100/128 dev lo nodad
";

/// What serves on one server.
struct Serving {
    _pages: WebServer,
    _datagrams: DatagramServer,
    _associations: SctpServer,
}

impl Serving {
    /// `number` is the last part of its addresses.
    fn start(server: &Node, number: usize) -> Self {
        server.shell(&SERVER.replace("NUMBER", &number.to_string()));
        let pages = WAYS.map(|(_, _, port, ..)| SocketAddr::from(([0_u16; 8], port)));
        // A translated one is asked at its own address, all others at the shared one.
        let asked = |(_, vip, port, forwarding, _): &Way| -> SocketAddr {
            let own = match *vip {
                VIP_V4 => format!("10.0.0.{number}"),
                _ => format!("fd00:2::{number}"),
            };
            let address = if *forwarding == "nat" { own } else { (*vip).to_owned() };
            SocketAddr::new(address.parse().expect("an address"), *port)
        };
        Self {
            _pages: WebServer::start_at_all(server, &pages),
            _datagrams: DatagramServer::start_at_all(server, &WAYS.each_ref().map(asked)),
            _associations: SctpServer::start(server, &ASSOCIATIONS.each_ref().map(asked)),
        }
    }
}

/// Asks until both servers have answered and nobody has been asked in vain.
fn expect_both(what: &str, servers: &[Node], ask: impl Fn() -> Result<String, String>) {
    wait::eventually(&format!("both servers answer {what}"), ELECTION, || {
        let by: Vec<_> = (0..4).map(|_| ask()).collect();
        let names: BTreeSet<&str> = by.iter().flatten().map(String::as_str).collect();
        if by.iter().all(Result::is_ok) && names.iter().eq(&["srv1", "srv2"]) {
            return Ok(());
        }
        let counted = servers.iter().map(|server| server.shell("ip -s link; nstat -as || true"));
        Err(format!("{by:?}\n{}", counted.collect::<Vec<_>>().join("\n")))
    });
}

#[test]
fn both_families_are_carried_by_every_way_and_wrapping() {
    vm::inside("ipvs::families::both_families_are_carried_by_every_way_and_wrapping", || {
        let mut balanced = Balanced::bare(Shape::SERVICE, &config());
        balanced.lab.connect_servers_to_front();
        let director = &balanced.lab.directors[0];
        director.shell(
            "ip addr add fd00:2::201/64 dev eth1 nodad
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        let servers = balanced.lab.servers.iter().enumerate();
        let _serving: Vec<_> =
            servers.map(|(index, server)| Serving::start(server, index + 1)).collect();
        balanced.start(0);
        let (director, client) = (&balanced.lab.directors[0], &balanced.lab.client);
        wait::eventually("everything is served", ELECTION, || {
            let output = locum_command(director, &["status"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_master = director.holds(balanced.vip());
            if output.status.success() && is_master { Ok(()) } else { Err(text) }
        });
        let servers = &balanced.lab.servers;
        let at = |vip: &str, port| SocketAddr::new(vip.parse().expect("an address"), port);
        for (name, vip, port, ..) in WAYS {
            expect_both(&format!("pages by {name}"), servers, || {
                web::get_at(client, at(vip, port))
            });
            let ask = || datagram::ask_at(client, at(vip, port));
            expect_both(&format!("datagrams by {name}"), servers, ask);
        }
        for (name, vip, port, ..) in ASSOCIATIONS {
            let from = at(if vip == VIP_V4 { CLIENT } else { CLIENT_V6 }, 0);
            let ask = || sctp::ask(client, from, at(vip, port));
            expect_both(&format!("associations by {name}"), servers, ask);
        }
        // Each server was sent its part of each service. The kernel adds up every two seconds.
        wait::eventually("the status shows what each server was sent", ELECTION, || {
            let output = locum_command(director, &["status", "--json"]);
            let status: serde_json::Value =
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            let services = status["services"].as_array().expect("services");
            assert_eq!(services.len(), 2 * WAYS.len() + ASSOCIATIONS.len());
            let mut servers =
                services.iter().flat_map(|one| one["servers"].as_array().into_iter().flatten());
            let is_idle =
                |server: &&serde_json::Value| server["traffic"]["octets_in"].as_u64() == Some(0);
            servers.find(is_idle).map_or(Ok(()), |idle| Err(idle.to_string()))
        });
    });
}
