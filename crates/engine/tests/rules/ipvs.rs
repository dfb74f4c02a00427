//! What is asked of IPVS as a whole follows the role of the instance that it names.

use std::sync::Arc;
use std::time::Duration;

use locum_engine::Output;
use locum_plan::{
    BackendChoice, BackendKind, ConnectionSync, IpvsSettings, Listener, Plan, Service, SyncRole,
    WantedIpvs,
};

use crate::node::{Node, instance, plan};

fn with_sync() -> Plan {
    let sync = ConnectionSync {
        interface: "eth0".into(),
        instance: "web".into(),
        id: 51,
        longest: None,
        group: None,
        port: None,
        ttl: None,
        threshold: None,
        refresh_s: None,
    };
    let listen = Listener::Address("192.0.2.10:80".parse().expect("an address"));
    let mut www = Service::new("www".into(), listen);
    www.instance = Some("web".into());
    www.backend = BackendChoice::Only(BackendKind::Ipvs);
    let ipvs = IpvsSettings { sync: Some(sync), ..IpvsSettings::default() };
    Plan { services: vec![www], ipvs: Arc::new(ipvs), ..plan([instance("web", 51, 100)]) }
}

fn asked(out: &[Output]) -> Option<WantedIpvs> {
    out.iter().rev().find_map(|output| match output {
        Output::Serve { wanted, .. } => Some(wanted.ipvs.clone()),
        _ => None,
    })
}

#[test]
fn i_051_a_backup_hears_of_connections_and_a_master_sends_them() {
    let mut node = Node::with_links();
    let out = node.plan_with(with_sync(), Vec::new()).to_vec();
    assert_eq!(asked(&out).expect("a level").sync, Some(SyncRole::Receiver));
    let out = node.run_for(Duration::from_millis(3700)).to_vec();
    assert_eq!(asked(&out).expect("a level").sync, Some(SyncRole::Sender));
    node.confirm_applies();
    let out = node.link("eth0", false).to_vec();
    assert_eq!(asked(&out).expect("a level").sync, Some(SyncRole::Receiver));
}

#[test]
fn a_reload_changes_what_is_asked_and_one_without_takes_it_back() {
    let mut node = Node::master(with_sync());
    let mut longer = with_sync();
    let ipvs = Arc::make_mut(&mut longer.ipvs);
    ipvs.udp_timeout_s = Some(30);
    let out = node.plan_with(longer, Vec::new()).to_vec();
    let level = asked(&out).expect("a level");
    assert_eq!((level.settings.udp_timeout_s, level.sync), (Some(30), Some(SyncRole::Sender)));
    let none = Plan { ipvs: Arc::default(), ..with_sync() };
    let out = node.plan_with(none, Vec::new()).to_vec();
    assert_eq!(asked(&out), Some(WantedIpvs::default()));
}
