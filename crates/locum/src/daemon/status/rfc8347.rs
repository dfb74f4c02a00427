//! From the engine's snapshot of one instance to the leaves of RFC 8347.

use locum_control::rfc8347::Rfc8347;
use locum_engine::status::{PeerSnapshot, StandardSnapshot};
use locum_vrrp::Role;

/// `up` is when the instance began to take part, as text.
pub fn leaves(
    role: Role,
    from: &StandardSnapshot,
    master: Option<&PeerSnapshot>,
    up: Option<String>,
) -> Rfc8347 {
    let centis = from.down_interval.as_millis() / 10;
    Rfc8347 {
        state: state(role).to_owned(),
        is_owner: from.is_owner,
        last_adv_source: master.map(|master| master.address),
        up_datetime: up,
        master_down_interval: u64::try_from(centis).unwrap_or(u64::MAX),
        skew_time: u64::try_from(from.skew.as_micros()).unwrap_or(u64::MAX),
        last_event: from.report.last_event.name().to_owned(),
        new_master_reason: from.report.new_master_reason.name().to_owned(),
    }
}

/// One that resigns has said on the wire that it is master no more; one in fault has no part.
fn state(role: Role) -> &'static str {
    match role {
        Role::Initialize | Role::Fault => "initialize",
        Role::Backup | Role::Resigning => "backup",
        Role::Master => "master",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use locum_vrrp::RouterReport;

    use super::*;

    /// V-401, V-402: names and units are the module's.
    #[test]
    fn leaves_have_the_names_and_units_of_the_module() {
        let from = StandardSnapshot {
            is_owner: true,
            up_age: None,
            down_interval: Duration::from_micros(3_609_375),
            skew: Duration::from_micros(609_375),
            report: RouterReport::default(),
        };
        let json = serde_json::to_value(leaves(Role::Fault, &from, None, None)).unwrap();
        let expected = serde_json::json!({
            "state": "initialize",
            "is-owner": true,
            "last-adv-source": null,
            "up-datetime": null,
            "master-down-interval": 360,
            "skew-time": 609_375,
            "last-event": "vrrp-event-none",
            "new-master-reason": "not-master",
        });
        assert_eq!(json, expected);
    }
}
