//! IPVS in front of HAProxy, from the files of `etc/examples`: on the same pair, and on a second tier.

use std::collections::BTreeSet;

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::process::Process;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;

use super::{route_servers, table};
use crate::examples::text_of;

/// What the first lines of the example ask of the directors.
const DIRECTOR: &str = "
ip addr add 192.168.1.100/32 dev lo
sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
";

/// The HAProxy that a request to this port of the shared address went through.
fn by_way_of(client: &Node, port: u16) -> Result<String, String> {
    let page = format!("http://192.168.1.100:{port}/");
    let output = client.output(&["curl", "-sS", "--max-time", "3", "-D", "-", &page]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let mut lines = said.lines();
    let name =
        lines.find_map(|line| line.to_lowercase().strip_prefix("x-served-by: ").map(str::to_owned));
    name.map(|name| name.trim().to_owned()).ok_or(said)
}

fn expect(balanced: &Balanced, port: u16, names: [&str; 2]) {
    let wanted = BTreeSet::from(names.map(str::to_owned));
    // To wlc a connection that a handover has left half open counts as 256 that are closed, until the
    // kernel forgets it after a minute.
    wait::eventually(&format!("requests to {port} go through {wanted:?}"), ELECTION * 4, || {
        let client = &balanced.lab.client;
        let found: BTreeSet<String> =
            (0..6).map(|_| by_way_of(client, port)).collect::<Result<_, _>>()?;
        let tables = || balanced.lab.directors.iter().map(table).collect::<Vec<_>>().join("\n");
        if found == wanted { Ok(()) } else { Err(format!("{found:?}\n{}", tables())) }
    });
}

#[test]
fn haproxies_of_the_pair_and_of_a_second_tier() {
    vm::inside("ipvs::tandem::haproxies_of_the_pair_and_of_a_second_tier", || {
        let mut balanced = Balanced::new(&text_of("tandem.toml"));
        let file = text_of("tandem-haproxy.cfg");
        route_servers(&balanced.lab);
        let _tier: Vec<Process> = balanced
            .lab
            .servers
            .iter()
            .map(|server| {
                let own = file.replace("bind *:80\n", "bind *:8080\n");
                server.write("/etc/haproxy/haproxy.cfg", &own);
                server.spawn(&["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"])
            })
            .collect();
        for director in &balanced.lab.directors {
            director.shell(DIRECTOR);
            director.write("/etc/haproxy/haproxy.cfg", &file);
        }
        balanced.start(0);
        balanced.start(1);
        expect(&balanced, 80, ["lb1", "lb2"]);
        expect(&balanced, 8080, ["srv1", "srv2"]);
        let shown = table(&balanced.lab.directors[0]);
        assert_eq!(
            (shown.matches("Route").count(), shown.matches("Masq").count()),
            (2, 2),
            "{shown}"
        );
        // The first director goes with its HAProxy, and comes back as master.
        balanced.daemon(0).terminate();
        balanced.daemon(0).wait(ELECTION);
        expect(&balanced, 80, ["lb2", "lb2"]);
        expect(&balanced, 8080, ["srv1", "srv2"]);
        balanced.start(0);
        expect(&balanced, 80, ["lb1", "lb2"]);
    });
}
