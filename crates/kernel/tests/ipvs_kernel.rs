//! The real IPVS, in a network namespace of its own. Loading its module concerns the whole host, so
//! that this runs only where `LOCUM_KERNEL_VM` says that the host is a throw-away one.

mod namespace;

use std::net::SocketAddr;

use locum_kernel::ipvs::{
    ConnectionTimeouts, DestSpec, ForwardingMethod, IpFamily, IpProtocol, Ipvs, ModuleLoader,
    Reconciliation, ServiceFlags, ServiceId, ServiceSpec, SyncState, SyncThread, Tunnel,
};

use namespace::in_namespace;

type Wanted = Vec<(ServiceSpec, Vec<DestSpec>)>;

fn with_ipvs(test: &str, body: impl FnOnce(&mut Ipvs) + Send + 'static) {
    if std::env::var_os("LOCUM_KERNEL_VM").is_none() {
        println!("skipped: the kernel VM runs this, with LOCUM_KERNEL_VM set");
        return;
    }
    in_namespace(test, || body(&mut Ipvs::open(&ModuleLoader::default()).expect("ipvs")));
}

fn listener(protocol: IpProtocol, address: &str) -> ServiceId {
    ServiceId::listener(protocol, address.parse().expect("address"))
}

fn web() -> ServiceId {
    listener(IpProtocol::Tcp, "192.0.2.10:80")
}

fn dest(address: &str, forwarding: ForwardingMethod, weight: u32) -> DestSpec {
    DestSpec::new(address.parse::<SocketAddr>().expect("address"), forwarding, weight)
}

fn everything() -> Wanted {
    let persistent = ServiceSpec {
        flags: ServiceFlags::PERSISTENT,
        persistence_seconds: 300,
        client_prefix: 24,
        ..ServiceSpec::new(listener(IpProtocol::Tcp, "192.0.2.10:443"), "wlc")
    };
    let one_packet = ServiceSpec {
        flags: ServiceFlags::ONE_PACKET,
        ..ServiceSpec::new(listener(IpProtocol::Udp, "192.0.2.10:53"), "rr")
    };
    let gue = ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080, flags: 1 });
    let limited = DestSpec {
        upper_threshold: 200,
        lower_threshold: 100,
        ..dest("10.0.0.2:8080", ForwardingMethod::Masq, 0)
    };
    vec![
        (
            ServiceSpec::new(web(), "rr"),
            vec![dest("10.0.0.1:8080", ForwardingMethod::Masq, 100), limited],
        ),
        (persistent, vec![dest("10.0.0.1:443", ForwardingMethod::Direct, 1)]),
        (one_packet, vec![dest("10.0.0.1:53", gue, 1)]),
        (
            ServiceSpec::new(listener(IpProtocol::Tcp, "[2001:db8::10]:443"), "wrr"),
            vec![dest("[2001:db8:1::1]:443", ForwardingMethod::Tunnel(Tunnel::Ipip), 1)],
        ),
        (
            ServiceSpec {
                flags: ServiceFlags::FALLBACK.with(ServiceFlags::PORT),
                ..ServiceSpec::new(ServiceId::Mark { family: IpFamily::V4, mark: 77 }, "sh")
            },
            vec![dest("10.0.0.1:0", ForwardingMethod::Direct, 1)],
        ),
    ]
}

fn ids(wanted: &Wanted) -> Vec<ServiceId> {
    wanted.iter().map(|(spec, _)| spec.id).collect()
}

fn observed(ipvs: &mut Ipvs) -> Wanted {
    let services = ipvs.dump().expect("dump");
    let mut seen: Wanted = services
        .into_iter()
        .map(|service| (service.spec, service.dests.into_iter().map(|dest| dest.spec).collect()))
        .collect();
    sort(&mut seen);
    seen
}

fn sort(wanted: &mut Wanted) {
    wanted.sort_by_key(|(spec, _)| spec.id);
    for (_, dests) in wanted {
        dests.sort_by_key(|dest| dest.id);
    }
}

fn applied(count: usize) -> Reconciliation {
    Reconciliation { applied: count, failed: vec![] }
}

#[test]
fn i_033_what_is_wanted_is_observed_and_a_second_time_nothing_is_sent() {
    let test = "i_033_what_is_wanted_is_observed_and_a_second_time_nothing_is_sent";
    with_ipvs(test, |ipvs| {
        assert_eq!(ipvs.version()[..2], [1, 2]);
        let mut wanted = everything();
        assert_eq!(ipvs.reconcile(&wanted, &[]).expect("first"), applied(11));
        sort(&mut wanted);
        assert_eq!(observed(ipvs), wanted);
        assert_eq!(ipvs.reconcile(&wanted, &[]).expect("second"), applied(0));
        assert_eq!(ipvs.reconcile(&[], &ids(&wanted)).expect("removed"), applied(5));
        assert_eq!(observed(ipvs), vec![]);
    });
}

#[test]
fn i_031_changes_are_made_in_place_and_foreign_services_stay() {
    with_ipvs("i_031_changes_are_made_in_place_and_foreign_services_stay", |ipvs| {
        let foreign = vec![(
            ServiceSpec::new(listener(IpProtocol::Tcp, "192.0.2.99:25"), "rr"),
            vec![dest("10.0.0.9:25", ForwardingMethod::Masq, 1)],
        )];
        ipvs.reconcile(&foreign, &[]).expect("foreign");
        let spec = |scheduler: &str| ServiceSpec::new(web(), scheduler);
        let server =
            |host: u8, weight| dest(&format!("10.0.0.{host}:80"), ForwardingMethod::Masq, weight);
        let before = vec![(spec("rr"), vec![server(1, 1), server(2, 1)])];
        ipvs.reconcile(&before, &[]).expect("before");
        // A new scheduler, a new weight, one server comes and one goes.
        let after = vec![(spec("wlc"), vec![server(2, 5), server(3, 1)])];
        assert_eq!(ipvs.reconcile(&after, &ids(&before)).expect("after"), applied(4));
        let mut all = [after, foreign.clone()].concat();
        sort(&mut all);
        assert_eq!(observed(ipvs), all);
        assert_eq!(ipvs.reconcile(&[], &[web()]).expect("removed"), applied(1));
        assert_eq!(observed(ipvs), foreign);
        assert_eq!(ipvs.reconcile(&[], &[web()]).expect("again"), applied(0));
    });
}

#[test]
fn i_036_a_missing_scheduler_is_one_explained_failure_and_the_rest_is_served() {
    let test = "i_036_a_missing_scheduler_is_one_explained_failure_and_the_rest_is_served";
    with_ipvs(test, |ipvs| {
        let server = || vec![dest("10.0.0.1:80", ForwardingMethod::Masq, 1)];
        let other = ServiceSpec::new(listener(IpProtocol::Tcp, "192.0.2.10:81"), "rr");
        let wanted = vec![(ServiceSpec::new(web(), "nosuch"), server()), (other.clone(), server())];
        let report = ipvs.reconcile(&wanted, &[]).expect("half");
        let failures: Vec<_> = report.failed.iter().map(ToString::to_string).collect();
        assert_eq!(
            failures,
            ["cannot add service tcp 192.0.2.10:80: no such file or directory \
              (is there a scheduler \"nosuch\", module ip_vs_nosuch?)"]
        );
        assert_eq!(observed(ipvs), vec![(other, server())]);

        let good = vec![(ServiceSpec::new(web(), "rr"), server())];
        ipvs.reconcile(&good, &[]).expect("good");
        let report = ipvs.reconcile(&wanted[..1], &[]).expect("refused");
        assert_eq!(report.failed.len(), 1);
        assert!(observed(ipvs).contains(&good[0]), "the old scheduler stays");
    });
}

#[test]
fn i_060_timeouts_are_set_each_for_itself() {
    with_ipvs("i_060_timeouts_are_set_each_for_itself", |ipvs| {
        let before = ipvs.timeouts().expect("timeouts");
        assert!(before.tcp > 0 && before.tcp_fin > 0 && before.udp > 0, "{before:?}");
        let udp_alone = ConnectionTimeouts { tcp: 0, tcp_fin: 0, udp: 77 };
        ipvs.set_timeouts(udp_alone).expect("set");
        assert_eq!(ipvs.timeouts().expect("timeouts"), ConnectionTimeouts { udp: 77, ..before });
    });
}

#[test]
fn i_051_threads_follow_the_role_and_a_second_time_nothing_is_sent() {
    with_ipvs("i_051_threads_follow_the_role_and_a_second_time_nothing_is_sent", |ipvs| {
        let thread = |state| SyncThread {
            state,
            interface: "lo".to_owned(),
            id: 51,
            longest: None,
            group: None,
            port: None,
            ttl: None,
        };
        let states = |ipvs: &mut Ipvs| -> Vec<SyncState> {
            ipvs.sync_threads().expect("threads").iter().map(|one| one.state).collect()
        };
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip").success());
        for state in [SyncState::Backup, SyncState::Master, SyncState::Backup] {
            let wanted = [thread(state)];
            assert!(ipvs.reconcile_sync(&wanted, &SyncState::ALL).expect("first") > 0);
            assert_eq!(states(ipvs), [state]);
            assert_eq!(ipvs.reconcile_sync(&wanted, &SyncState::ALL).expect("second"), 0);
        }
        let other = SyncThread { longest: Some(2000), ..thread(SyncState::Backup) };
        assert_eq!(ipvs.reconcile_sync(std::slice::from_ref(&other), &[]).expect("other"), 2);
        assert_eq!(ipvs.sync_threads().expect("threads")[0].longest, Some(2000));
        assert_eq!(ipvs.reconcile_sync(&[other], &[]).expect("the same"), 0);
        let nowhere = SyncThread { interface: "nosuch".into(), ..thread(SyncState::Master) };
        let error = ipvs.reconcile_sync(&[nowhere], &[]).expect_err("no interface").to_string();
        assert!(
            error.starts_with("cannot synchronise connections as master on nosuch: "),
            "{error}"
        );
        assert_eq!(ipvs.reconcile_sync(&[], &SyncState::ALL).expect("removed"), 1);
        assert_eq!(states(ipvs), []);
    });
}
