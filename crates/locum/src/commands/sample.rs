//! A status document with one of each, for the tests of what is shown.

use locum_control::rfc8347::Rfc8347;
use locum_control::status::{
    Adjustment, CheckStatus, HaproxyStatus, InstanceStatus, PeerStatus, QuorumState,
    RefusedAddress, ServedFitness, ServerStatus, ServiceStatus, StatusDocument,
};
use locum_control::{HistoryEntry, Record};

const SINCE: &str = "2026-01-02T03:04:05.000Z";

pub fn document() -> StatusDocument {
    StatusDocument {
        version: "0.1.0".into(),
        pid: 7,
        node: "lb1".into(),
        now: "2026-01-02T03:06:10.000Z".into(),
        started: SINCE.into(),
        config: "/etc/locum/locum.toml".into(),
        digest: "0123abcdef".into(),
        configured: SINCE.into(),
        stopping: false,
        healthy: false,
        problems: vec!["check haproxy fails: exited with status 1".into()],
        instances: vec![instance()],
        checks: vec![CheckStatus {
            name: "haproxy".into(),
            up: Some(false),
            detail: "exited with status 1".into(),
            since: SINCE.into(),
            since_ms: 126_000,
            ignored: false,
        }],
        services: vec![ServiceStatus {
            name: "www".into(),
            listen: "192.0.2.10:80".into(),
            protocol: "tcp".into(),
            scheduler: "wlc".into(),
            active: false,
            backend: None,
            backend_choice: None,
            state: "idle".into(),
            error: None,
            instance: Some("web".into()),
            fitness: fitness(),
            strained: None,
            connections: 0,
            accepted: 0,
            waiting: None,
            traffic: None,
            quorum: QuorumState::default(),
            sorry: None,
            servers: vec![ServerStatus {
                address: ([10, 0, 0, 1], 80).into(),
                weight: 2,
                up: Some(true),
                detail: "status 200 OK".into(),
                unasked: false,
                connections: 0,
                weight_in_force: 2,
                ramp_percent: None,
                order: None,
                inactive: None,
                connection_rate: None,
                traffic: None,
            }],
        }],
        haproxy: Vec::new(),
        processes: Vec::new(),
        unmatched: Vec::new(),
        dropped: 0,
    }
}

fn instance() -> InstanceStatus {
    let peer = [192, 0, 2, 2].into();
    InstanceStatus {
        name: "web".into(),
        interface: "eth0".into(),
        vrid: 51,
        family: "ipv4".into(),
        version: 3,
        role: "backup".into(),
        since: SINCE.into(),
        since_ms: 125_000,
        cause: "192.0.2.2 advertises priority 100".into(),
        cause_kind: "higher-priority".into(),
        base_priority: 150,
        effective_priority: 90,
        adjustments: vec![Adjustment { name: "check haproxy".into(), value: -60 }],
        interval_ms: 1000,
        source: Some([192, 0, 2, 1].into()),
        master: Some(peer),
        peer: Some(PeerStatus { address: peer, priority: 100, unfit: false, heard_ms: 340 }),
        addresses: vec!["192.0.2.10/24".into()],
        rfc8347: Rfc8347 {
            state: "backup".into(),
            is_owner: false,
            last_adv_source: Some(peer),
            up_datetime: Some(SINCE.into()),
            master_down_interval: 364,
            skew_time: 648_437,
            last_event: "vrrp-event-higher-priority-backup".into(),
            new_master_reason: "no-response".into(),
        },
        ..InstanceStatus::default()
    }
}

/// One that serves here.
pub fn haproxy() -> HaproxyStatus {
    let aspect = "answering".to_owned();
    HaproxyStatus {
        name: "front".into(),
        active: true,
        error: None,
        instance: Some("web".into()),
        fitness: ServedFitness { aspect, since: SINCE.into(), ..fitness() },
        strained: None,
    }
}

/// Of what could be served, or is.
fn fitness() -> ServedFitness {
    ServedFitness {
        aspect: "capable".into(),
        holds: Some(true),
        populated: Some(true),
        since: SINCE.into(),
        since_ms: 125_000,
        ..ServedFitness::default()
    }
}

/// What the kernel says about an address of the other family.
pub fn refused() -> RefusedAddress {
    RefusedAddress {
        address: "2001:db8::10/64".into(),
        interface: "eth0".into(),
        error: "permission denied".into(),
        again_ms: 4_200,
    }
}

pub fn history() -> Vec<HistoryEntry> {
    vec![HistoryEntry {
        at_ms: 0,
        at: SINCE.into(),
        pid: 7,
        event: 3,
        instance: Some("web".into()),
        text: String::new(),
        record: Record::Transition {
            from: "master".into(),
            to: "backup".into(),
            cause: "higher-priority".into(),
            cause_text: "192.0.2.2 advertises priority 100".into(),
            priority: 90,
        },
    }]
}
