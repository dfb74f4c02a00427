//! Pages and datagrams by each way to a server: masqueraded, as they are, and through a tunnel.

use std::collections::BTreeSet;

use locum_integration::datagram;
use locum_integration::datagram::DatagramServer;
use locum_integration::pair::ELECTION;
use locum_integration::peer::locum_command;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;
use locum_integration::web::Requests;

use super::{route_servers, slowly, table};

fn services(forwarding: &str, servers: [&str; 2]) -> String {
    let [one, other] = servers;
    let instance = slowly();
    format!(
        r#"{instance}
[[service]]
name = "www"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:80"
scheduler = "rr"
forwarding = "{forwarding}"
servers = ["{one}", "{other}"]

[[service]]
name = "dns"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:53"
protocol = "udp"
scheduler = "rr"
forwarding = "{forwarding}"
servers = ["{one}", "{other}"]
"#
    )
}

/// A server takes what is for the shared address itself, whatever it comes wrapped in, and tells
/// nobody of it.
const HIDDEN: &str = "
for link in all default eth0; do
    echo 1 > /proc/sys/net/ipv4/conf/$link/arp_ignore
    echo 2 > /proc/sys/net/ipv4/conf/$link/arp_announce
    echo 0 > /proc/sys/net/ipv4/conf/$link/rp_filter
done
ip addr add 192.168.1.100/32 dev lo
";

const UNWRAPPED: &str = "
modprobe -q ipip || true
ip link show tunl0 || ip link add tunl0 type ipip
ip link set tunl0 up
echo 0 > /proc/sys/net/ipv4/conf/tunl0/rp_filter
";

fn expect_both(forwarding: &str, balanced: &mut Balanced, datagrams: &[DatagramServer]) {
    assert_eq!(datagrams.len(), 2);
    balanced.start(0);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    let (client, vip) = (&balanced.lab.client, balanced.vip());
    wait::eventually(&format!("datagrams are answered by {forwarding}"), ELECTION, || {
        let answers = (0..6).map(|_| datagram::ask(client, vip));
        let by: BTreeSet<String> = answers.collect::<Result<_, _>>()?;
        match by == BTreeSet::from(["srv1".to_owned(), "srv2".to_owned()]) {
            true => Ok(()),
            false => Err(format!("{by:?}")),
        }
    });
    let shown = table(&balanced.lab.directors[0]);
    assert_eq!(shown.matches(forwarding).count(), 4, "{shown}");
}

/// In a guest it may take longer to serve than a predecessor waits for: both nodes say so.
fn is_too_slow(balanced: &mut Balanced) -> bool {
    let mut said = (0..2).map(|director| balanced.daemon(director).log());
    said.any(|log| log.contains(" all the same: "))
}

/// There and back while clients ask.
fn expect_handovers_that_cut_no_request(balanced: &mut Balanced) {
    balanced.start(1);
    wait::eventually("the other director could serve", ELECTION, || {
        let output = locum_command(&balanced.lab.directors[1], &["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    });
    let requests = Requests::start(&balanced.lab.client, balanced.vip());
    for (from, to) in [(0, 1), (1, 0)] {
        let output = locum_command(&balanced.lab.directors[from], &["switchover", "web"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        balanced.expect_service_by(to);
    }
    let (answered, failed) = requests.stop();
    let is_excused = is_too_slow(balanced);
    assert!(failed.is_empty() || is_excused, "{failed:?}, {answered} answered");
    assert!(answered > 20, "only {answered} answered");
}

#[test]
fn pages_and_datagrams_come_masqueraded() {
    vm::inside("ipvs::ways::pages_and_datagrams_come_masqueraded", || {
        let mut balanced = Balanced::new(&services("nat", ["10.0.0.1", "10.0.0.2"]));
        route_servers(&balanced.lab);
        let datagrams: Vec<_> = balanced.lab.servers.iter().map(DatagramServer::start).collect();
        expect_both("Masq", &mut balanced, &datagrams);
    });
}

#[test]
fn pages_and_datagrams_come_as_they_are_and_through_a_tunnel() {
    const NAME: &str = "ipvs::ways::pages_and_datagrams_come_as_they_are_and_through_a_tunnel";
    vm::inside(NAME, || {
        for (forwarding, shown, setup) in [("direct", "Route", ""), ("tunnel", "Tunnel", UNWRAPPED)]
        {
            let servers = ["192.168.1.101", "192.168.1.102"];
            let mut balanced = Balanced::new(&services(forwarding, servers));
            balanced.lab.move_servers_to_front();
            let vip = balanced.vip();
            let datagrams = balanced.lab.servers.iter().map(|server| {
                server.shell(&format!("{setup}{HIDDEN}"));
                DatagramServer::start_at(server, vip)
            });
            let datagrams: Vec<_> = datagrams.collect();
            expect_both(shown, &mut balanced, &datagrams);
            expect_handovers_that_cut_no_request(&mut balanced);
        }
    });
}
