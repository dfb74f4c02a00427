//! The IPVS backend on a kernel that has it, with `ipvsadm` as the witness. Runs in the guest of the
//! lab, where `LOCUM_LAB_VM` is set: the tables of a machine in use are not for tests.

mod bench;

use std::net::SocketAddr;
use std::process::Command;

use bench::{Bench, edit, finish, serve, service, tick_until, wanted};
use locum_balancer::BalancedState;
use locum_plan::{
    Activity, BackendChoice, BackendKind, Forwarding, Listener, Scheduler, Service, WantedServices,
};

fn ipvsadm(words: &str) -> String {
    let output = Command::new("ipvsadm").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ipvsadm {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn web(backend: BackendChoice) -> Service {
    let servers: Vec<SocketAddr> =
        ["192.168.1.101:80", "192.168.1.102:80"].map(|text| text.parse().unwrap()).to_vec();
    let mut web = service("web", &servers);
    web.listen = vec![Listener::Address("192.168.1.100:80".parse().unwrap())];
    web.backend = backend;
    web.scheduler = Scheduler::named("wlc");
    web.servers.iter_mut().for_each(|server| server.forwarding = Forwarding::Direct);
    web.servers[1].weight = 2;
    web
}

#[test]
fn tables_follow_the_level_and_a_stranger_keeps_its_own() {
    if std::env::var_os("LOCUM_LAB_VM").is_none() {
        eprintln!("not run: for the guest of the lab");
        return;
    }
    ipvsadm("-A -t 10.9.9.9:99 -s rr");
    let foreign = ipvsadm("-Ln");
    let bench = Bench::new();
    let web = web(BackendChoice::Auto);
    let mut crashed = bench.balancer();
    serve(&mut crashed, &wanted(&[&web])).unwrap();
    let status = crashed.status().services.remove(0);
    assert_eq!((status.backend, status.state), (BackendKind::Ipvs, BalancedState::Serving));
    let full = ipvsadm("-Ln");
    assert!(full.contains("TCP  192.168.1.100:80 wlc\n"), "{full}");
    assert!(full.contains("  -> 192.168.1.101:80             Route   1 "), "{full}");
    assert!(full.contains("  -> 192.168.1.102:80             Route   2 "), "{full}");
    // The next daemon owns the table too, and edits it in place.
    drop(crashed);
    let mut balancer = bench.balancer();
    let mut level = wanted(&[&web]);
    edit(&mut level, 0).servers.remove(0);
    serve(&mut balancer, &level).unwrap();
    assert!(!ipvsadm("-Ln").contains("192.168.1.101"));
    // Somebody deletes it: it is put back and said so.
    ipvsadm("-D -t 192.168.1.100:80");
    let notes =
        tick_until(&mut balancer, "the table", |_, _| ipvsadm("-Ln").contains("192.168.1.102:80"));
    assert_eq!(notes.len(), 1, "{notes:?}");
    // A standby has no table, and neither has a node that serves nothing.
    edit(&mut level, 0).activity = Activity::Ready;
    serve(&mut balancer, &level).unwrap();
    assert_eq!(ipvsadm("-Ln"), foreign);
    serve(&mut balancer, &wanted(&[&web])).unwrap();
    drop(balancer);
    finish(bench.balancer());
    assert_eq!(ipvsadm("-Ln"), foreign);
    ipvsadm("-D -t 10.9.9.9:99");
}

#[test]
fn a_scheduler_that_the_kernel_lacks_is_named_and_the_others_are_served() {
    if std::env::var_os("LOCUM_LAB_VM").is_none() {
        eprintln!("not run: for the guest of the lab");
        return;
    }
    let bench = Bench::new();
    let mut balancer = bench.balancer();
    let mut odd = web(BackendChoice::Only(BackendKind::Ipvs));
    odd.name = "odd".into();
    odd.listen = vec![Listener::Address("192.168.1.99:80".parse().unwrap())];
    odd.scheduler = Scheduler::named("nonesuch");
    let good = web(BackendChoice::Only(BackendKind::Ipvs));
    let errors = serve(&mut balancer, &wanted(&[&odd, &good])).unwrap_err();
    assert_eq!((errors.len(), &*errors[0].0), (1, "odd"), "{errors:?}");
    println!("{errors:?}");
    assert!(ipvsadm("-Ln").contains("192.168.1.100:80"));
    serve(&mut balancer, &WantedServices::default()).unwrap();
    assert!(balancer.is_idle(), "{:?}", balancer.status());
    assert!(!ipvsadm("-Ln").contains("192.168.1"));
}
