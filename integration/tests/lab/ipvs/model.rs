//! Everything that `ipvsadm` can ask of a table, asked of it and written as services of ours: the
//! kernel has the same of both.

use locum_integration::node::Node;
use locum_integration::pair::ELECTION;
use locum_integration::service::Balanced;
use locum_integration::vm;
use locum_integration::wait;

use super::INSTANCE;

/// What our services are called in the words of `ipvsadm`.
const SCRIPT: &str = "
ipvsadm -A -t 192.168.1.100:443 -s wlc -p 300 -M 255.255.255.0
ipvsadm -a -t 192.168.1.100:443 -r 192.168.1.101 -g -w 3
ipvsadm -a -t 192.168.1.100:443 -r 192.168.1.102 -g -w 1
ipvsadm -A -u 192.168.1.100:5060 -s rr -p 60 --pe sip
ipvsadm -a -u 192.168.1.100:5060 -r 10.0.0.1:5061 -m -w 1
ipvsadm -A -t 192.168.1.100:8443 -s sh -b sh-port,sh-fallback
ipvsadm -a -t 192.168.1.100:8443 -r 10.0.0.1 -m -w 1 -x 200 -y 100
ipvsadm -A -u 192.168.1.100:53 -s rr -o
ipvsadm -a -u 192.168.1.100:53 -r 10.0.0.1 -m -w 1
ipvsadm -A -f 7 -s wrr -p 360
ipvsadm -a -f 7 -r 10.0.0.1:0 -g -w 2
ipvsadm -A -f 8 -6 -s rr
ipvsadm -a -f 8 -6 -r [2001:db8:1::1]:0 -g -w 1
ipvsadm -A -t 10.0.0.100:8080 -s wrr
ipvsadm -a -t 10.0.0.100:8080 -r 10.0.0.1:80 -m -w 1
ipvsadm -A -t 10.0.0.101:8080 -s wrr
ipvsadm -a -t 10.0.0.101:8080 -r 10.0.0.1:80 -m -w 1
ipvsadm -A -t 192.168.1.100:0 -s rr -p 120
ipvsadm -a -t 192.168.1.100:0 -r 10.0.0.1:0 -g -w 1
ipvsadm -A -t 192.168.1.100:81 -s rr
ipvsadm -a -t 192.168.1.100:81 -r 10.0.0.1 -i -w 1
ipvsadm -a -t 192.168.1.100:81 -r 10.0.0.2 -i --tun-type gue --tun-port 6080 --tun-nocsum -w 1
ipvsadm -a -t 192.168.1.100:81 -r 10.0.0.3 -i --tun-type gre --tun-csum -w 1
ipvsadm -a -t 192.168.1.100:81 -r [2001:db8:1::1]:81 -i -w 1
ipvsadm -A --sctp-service 192.168.1.100:3868 -s rr
ipvsadm -a --sctp-service 192.168.1.100:3868 -r 10.0.0.1 -m -w 1
ipvsadm -A -t [2001:db8::10]:80 -s wlc -p 30 -M 64
ipvsadm -a -t [2001:db8::10]:80 -r [2001:db8:1::1]:80 -m -w 1
";

const SERVICES: &str = r#"
[[service]]
name = "persistent"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:443"
scheduler = "wlc"
persistence = { timeout = "5m", granularity = 24 }
forwarding = "direct"
servers = [{ address = "192.168.1.101", weight = 3 }, { address = "192.168.1.102" }]

[[service]]
name = "sip"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:5060"
protocol = "udp"
scheduler = "rr"
persistence = { timeout = "1m", engine = "sip" }
servers = ["10.0.0.1:5061"]

[[service]]
name = "hashed"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:8443"
scheduler = "sh"
scheduler_flags = ["sh-port", "sh-fallback"]
servers = [{ address = "10.0.0.1", max_connections = 200, min_connections = 100 }]

[[service]]
name = "one-packet"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:53"
protocol = "udp"
scheduler = "rr"
one_packet = true
servers = ["10.0.0.1"]

[[service]]
name = "marked"
instance = "web"
backend = "ipvs"
fwmark = 7
scheduler = "wrr"
persistence = "6m"
forwarding = "direct"
servers = [{ address = "10.0.0.1", weight = 2 }]

[[service]]
name = "marked-6"
instance = "web"
backend = "ipvs"
fwmark = 8
family = "ipv6"
scheduler = "rr"
forwarding = "direct"
servers = ["2001:db8:1::1"]

[[service]]
name = "range"
instance = "web"
backend = "ipvs"
listen = "10.0.0.100-101:8080"
scheduler = "wrr"
servers = ["10.0.0.1:80"]

[[service]]
name = "every-port"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:0"
scheduler = "rr"
persistence = "2m"
forwarding = "direct"
servers = ["10.0.0.1"]

[[service]]
name = "tunnels"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:81"
scheduler = "rr"
forwarding = "tunnel"
servers = [
    "10.0.0.1",
    { address = "10.0.0.2", tunnel = { type = "gue", port = 6080 } },
    { address = "10.0.0.3", tunnel = { type = "gre", checksum = "full" } },
    "[2001:db8:1::1]:81",
]

[[service]]
name = "sctp"
instance = "web"
backend = "ipvs"
listen = "192.168.1.100:3868"
protocol = "sctp"
scheduler = "rr"
servers = ["10.0.0.1"]

[[service]]
name = "six"
instance = "web"
backend = "ipvs"
listen = "[2001:db8::10]:80"
scheduler = "wlc"
persistence = { timeout = "30s", granularity = 64 }
servers = ["[2001:db8:1::1]:80"]
"#;

/// All that `ipvsadm` says of the tables, each line with the service it is of: their order is that of
/// the kernel's hash, which differs from namespace to namespace.
fn everything(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for words in [&["-Ln"][..], &["-Ln", "--thresholds"], &["-Ln", "--tun-info"], &["-Sn"]] {
        let text = node.run(&[&["ipvsadm"], words].concat());
        let mut service = String::new();
        for line in text.lines() {
            if !line.trim_start().starts_with("->") {
                service = line.trim().to_owned();
            }
            all.push(format!("{words:?} {service} | {}", line.trim()));
        }
    }
    all.sort();
    all
}

#[test]
fn tables_of_every_kind_equal_those_of_ipvsadm() {
    vm::inside("ipvs::model::tables_of_every_kind_equal_those_of_ipvsadm", || {
        let witness = Node::new("witness");
        witness.shell(SCRIPT);
        let wanted = everything(&witness);
        assert!(wanted.iter().any(|line| line.contains("gue")), "{wanted:#?}");
        let mut balanced = Balanced::new(&format!("{INSTANCE}{SERVICES}"));
        balanced.start(0);
        let master = &balanced.lab.directors[0];
        wait::eventually("the tables are those of ipvsadm", ELECTION, || {
            let found = everything(master);
            let missing: Vec<_> = wanted.iter().filter(|line| !found.contains(line)).collect();
            let extra: Vec<_> = found.iter().filter(|line| !wanted.contains(line)).collect();
            match missing.is_empty() && extra.is_empty() {
                true => Ok(()),
                false => Err(format!("missing {missing:#?}\nextra {extra:#?}")),
            }
        });
    });
}
