//! Thousands of addresses promoted, renewed and withdrawn together.

mod namespace;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use locum_kernel::netlink::{
    AddressSpec, ApplyError, FactRemoval, KernelFact, KernelScope, MonitorEvent, Netlink,
    RemovalScope, WantedFacts,
};
use nix::time::{ClockId, clock_gettime};
use tokio::time::timeout;

use namespace::{connect, in_namespace, ip, sysctl};

/// Both ends of so many cables, and one address on each for every VRID.
const CABLES: usize = 8;
const VRIDS: u8 = 255;
const INSTANCES: usize = 2 * CABLES * VRIDS as usize;

/// Far above the 200 ms that an idle machine must do it in: others use this one too.
const PROMOTION_LIMIT: Duration = Duration::from_secs(2);

/// How often another program reads all addresses.
const DUMP_PERIOD: Duration = Duration::from_millis(50);

fn links() -> Vec<String> {
    sysctl("ipv6/conf/default/accept_dad", "0");
    for cable in 0..CABLES {
        ip(&format!("link add left{cable} type veth peer name right{cable}"));
        connect(&format!("left{cable}"), &format!("right{cable}"));
    }
    (0..CABLES).flat_map(|cable| [format!("left{cable}"), format!("right{cable}")]).collect()
}

/// One address for each instance, as its only fact.
fn instances(links: &[String]) -> Vec<[KernelFact; 1]> {
    let address = |(link, name): (usize, &String)| {
        let interface: Arc<str> = name.as_str().into();
        (0..VRIDS).map(move |vrid| {
            [KernelFact::Address(AddressSpec {
                interface: Arc::clone(&interface),
                address: [10, 0, link as u8, vrid].into(),
                prefix: 32,
                broadcast: None,
                label: None,
                scope: KernelScope::Global,
                nodad: true,
                noprefixroute: false,
                valid_seconds: Some(60),
            })]
        })
    };
    links.iter().enumerate().flat_map(address).collect()
}

/// Reads all addresses again and again until told to stop; how often it did.
fn keep_dumping(started: &Barrier, stop: &AtomicBool, dumps: &AtomicUsize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let mut netlink = Netlink::connect().expect("netlink");
        let mut ticks = tokio::time::interval(DUMP_PERIOD);
        started.wait();
        while !stop.load(Ordering::Relaxed) {
            netlink.marked_addresses().expect("dump");
            dumps.fetch_add(1, Ordering::Relaxed);
            ticks.tick().await;
        }
    });
}

/// CPU time of this thread, the kernel's work for it included.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("clock").into()
}

fn timed(what: &str, work: impl FnOnce() -> Vec<Result<(), ApplyError>>) {
    let (start, cpu) = (Instant::now(), cpu_time());
    let answers = work();
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    println!("{what} {} instances: {wall:?}, of them {cpu:?} on a core", answers.len());
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(wall < PROMOTION_LIMIT, "{what}: {wall:?}");
}

#[test]
fn all_instances_of_16_links_are_promoted_together_while_another_program_dumps() {
    let test = "all_instances_of_16_links_are_promoted_together_while_another_program_dumps";
    in_namespace(test, || {
        let links = links();
        let (started, stop) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let dumps = Arc::new(AtomicUsize::new(0));
        let dumper = std::thread::spawn({
            let (started, stop, dumps) = (started.clone(), stop.clone(), dumps.clone());
            move || keep_dumping(&started, &stop, &dumps)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async {
            let mut netlink = Netlink::connect().expect("netlink");
            started.wait();
            let instances = instances(&links);
            let holds: Vec<_> =
                instances.iter().map(|hold| WantedFacts { hold, drop: &[] }).collect();
            timed("promote", || netlink.apply_all(&holds));
            assert_eq!(netlink.marked_addresses().expect("dump").len(), INSTANCES);
            timed("renew", || netlink.apply_all(&holds));
            timed("renew one by one", || {
                let halves = holds.iter().take(INSTANCES / 2);
                halves.map(|change| netlink.apply(change)).collect()
            });

            // Nothing of all this is news, and nothing has overrun.
            let (mut reported, cpu) = (0, cpu_time());
            while let Ok(event) = timeout(Duration::from_millis(200), netlink.next()).await {
                let MonitorEvent::Link(_) = event.expect("netlink works") else {
                    panic!("nothing is lost or gone")
                };
                reported += 1;
            }
            println!("reading what the kernel told: {:?} on a core", cpu_time() - cpu);
            assert!(reported <= 3 * (links.len() + 1), "{reported} events");

            let drops: Vec<_> = instances
                .iter()
                .map(|[fact]| [FactRemoval { fact: fact.clone(), whose: RemovalScope::Ours }])
                .collect();
            let drops: Vec<_> = drops.iter().map(|drop| WantedFacts { hold: &[], drop }).collect();
            timed("withdraw", || netlink.apply_all(&drops));
            assert_eq!(netlink.marked_addresses().expect("dump"), []);
        });
        stop.store(true, Ordering::Relaxed);
        dumper.join().expect("the dumper does not panic");
        assert!(dumps.load(Ordering::Relaxed) > 0);
        println!("meanwhile {} dumps", dumps.load(Ordering::Relaxed));
    });
}
