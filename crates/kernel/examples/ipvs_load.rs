//! How long it takes to load tables of 1,000 services with 10 servers each, beside `ipvsadm -R`, and how
//! many writes a change of one of the servers is. `scripts/bench ipvs` runs it in a guest: it empties
//! the tables of the network namespace that it runs in.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use locum_kernel::ipvs::{
    DestSpec, ForwardingMethod, IpProtocol, Ipvs, ModuleLoader, ServiceId, ServiceSpec,
};

const SERVICES: u16 = 1000;
const SERVERS: u8 = 10;
const TURNS: usize = 5;

type Wanted = Vec<(ServiceSpec, Vec<DestSpec>)>;

fn wanted() -> Wanted {
    let service = |number: u16| {
        let listen = SocketAddr::from(([192, 0, 2, 10], 1000 + number));
        let dest = |host| {
            let address = SocketAddr::from(([10, 0, 0, host], 1000 + number));
            DestSpec::new(address, ForwardingMethod::Masq, 1)
        };
        let spec = ServiceSpec::new(ServiceId::listener(IpProtocol::Tcp, listen), "wrr");
        (spec, (1..=SERVERS).map(dest).collect())
    };
    (0..SERVICES).map(service).collect()
}

/// The same in the words of `ipvsadm`.
fn script() -> String {
    let mut text = String::new();
    for port in 1000..1000 + SERVICES {
        let _ = writeln!(text, "-A -t 192.0.2.10:{port} -s wrr");
        for host in 1..=SERVERS {
            let _ = writeln!(text, "-a -t 192.0.2.10:{port} -r 10.0.0.{host}:{port} -m -w 1");
        }
    }
    text
}

fn ipvsadm(option: &str, input: Stdio) {
    let status = Command::new("ipvsadm").arg(option).stdin(input).status();
    assert!(status.is_ok_and(|status| status.success()), "ipvsadm {option}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let path = std::env::temp_dir().join("locum-ipvs-load");
    fs::write(&path, script()).expect("a file");
    let mut ipvs = Ipvs::open(&ModuleLoader::default()).expect("ipvs");
    let mut wanted = wanted();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let file = fs::File::open(&path).expect("a file");
        theirs.push(timed(|| ipvsadm("-R", file.into())));
        let by_ipvsadm = ipvs.reconcile(&wanted, &[]).expect("tables");
        assert_eq!((by_ipvsadm.applied, by_ipvsadm.failed.len()), (0, 0), "it is the same");
        ipvsadm("-C", Stdio::null());
        ours.push(timed(|| {
            let report = ipvs.reconcile(&wanted, &[]).expect("tables");
            assert_eq!(report.applied, usize::from(SERVICES) * (1 + usize::from(SERVERS)));
        }));
        wanted[0].1[0].weight = 2;
        let changed = ipvs.reconcile(&wanted, &[]).expect("tables");
        assert_eq!((changed.applied, changed.failed.len()), (1, 0), "one write");
        wanted[0].1[0].weight = 1;
        ipvsadm("-C", Stdio::null());
    }
    let (ours, theirs) = (median(ours).as_secs_f64(), median(theirs).as_secs_f64());
    println!(
        "{SERVICES} services of {SERVERS} servers: {:.0} ms, ipvsadm -R {:.0} ms, {:.2} times as fast; \
         one of the servers changed: 1 write",
        ours * 1000.0,
        theirs * 1000.0,
        theirs / ours
    );
}
