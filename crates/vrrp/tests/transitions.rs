//! Every state × event, as a table that is reviewed like code: `transitions.snap`.
//!
//! V-200..V-203, V-210..V-216, V-220..V-227, V-240..V-242,
//! V-270..V-274. `scripts/bless` writes the table anew;
//! without it any difference fails.

// The snapshot is a file; only the library itself touches none.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use locum_vrrp::receive::Heard;
use locum_vrrp::{
    Cause, Family, Fitness, Interval, Preempt, Priority, Router, RouterAction, RouterEvent,
    RouterSettings, Time, Version, Vrid,
};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const LOW: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HIGH: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
const START: Time = Time::from_nanos(100_000_000_000);

#[test]
fn every_state_meets_every_event_as_reviewed() {
    let mut table = String::from(HEADER);
    for (version, preempt) in [
        (Version::V3, Preempt::After(Duration::ZERO)),
        (Version::V3, Preempt::Never),
        (Version::V2, Preempt::After(Duration::ZERO)),
    ] {
        writeln!(table, "\n## {version:?}, {preempt:?}, priority 100, 1 s").expect("a string");
        for (state, prepare) in STATES {
            writeln!(table, "\n{state}").expect("a string");
            for (name, event) in events() {
                let (mut router, now) = prepare(settings(version, preempt));
                let before = router.clone();
                let mut actions = Vec::new();
                let at = match name {
                    "timeout, due" => router.deadline().unwrap_or(now),
                    "timeout, asleep for 10 s" => now + Duration::from_secs(10),
                    _ => now,
                };
                router.handle(at, event, &mut actions);
                let line = describe(&before, &router, at, &actions);
                writeln!(table, "  {name:<26} {line}").expect("a string");
            }
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transitions.snap");
    if std::env::var_os("LOCUM_BLESS").is_some() {
        std::fs::write(&file, &table).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(&file).unwrap_or_default();
    let difference = table.lines().zip(reviewed.lines()).find(|(new, old)| new != old);
    assert!(table == reviewed, "differs from {}: {difference:?}", file.display());
}

const HEADER: &str = "\
# state
#   event                      next role (holds = addresses in the kernel), deadline; actions
";

type Prepare = fn(RouterSettings) -> (Router, Time);

const STATES: [(&str, Prepare); 16] = [
    ("Initialize", |settings| (Router::new(settings, START), START)),
    ("Initialize, start delay", |mut settings| {
        settings.start_delay = Duration::from_secs(5);
        after(settings, &[RouterEvent::Eligible])
    }),
    ("Fault", |settings| {
        after(settings, &[RouterEvent::Fault { reasons: "link".into(), can_send: false }])
    }),
    ("Backup", |settings| after(settings, &[RouterEvent::Eligible])),
    ("Backup, master released", |settings| {
        after(settings, &[RouterEvent::Eligible, RouterEvent::Heard(&heard(HIGH, 0))])
    }),
    ("Backup, lower master seen", |settings| {
        after(settings, &[RouterEvent::Eligible, RouterEvent::Heard(&heard(HIGH, 50))])
    }),
    ("Backup, unfit", |settings| after(settings, &[RouterEvent::Eligible, UNFIT])),
    ("Backup, unfit, master offers", |settings| {
        let [master, release] = [50, 0].map(|priority| heard(HIGH, priority));
        after(
            settings,
            &[
                RouterEvent::Eligible,
                UNFIT,
                RouterEvent::Heard(&master),
                RouterEvent::Heard(&release),
            ],
        )
    }),
    ("Candidate, silent master", |settings| due(after(settings, &[RouterEvent::Eligible]))),
    ("Candidate, lower master seen", |settings| {
        due(after(settings, &[RouterEvent::Eligible, RouterEvent::Heard(&heard(HIGH, 50))]))
    }),
    ("Candidate, owner at start", |settings| {
        let owner = RouterSettings { priority: Priority::OWNER, ..settings };
        after(owner, &[RouterEvent::Eligible])
    }),
    ("Master", |settings| after(settings, &[RouterEvent::Adopt])),
    ("Resigning, stopped", |settings| {
        after(settings, &[RouterEvent::Adopt, RouterEvent::Stop(Cause::Stopped)])
    }),
    ("Resigning, switchover", |settings| {
        after(settings, &[RouterEvent::Adopt, RouterEvent::Switchover { claim: None }])
    }),
    ("Resigning, better advert", |settings| {
        after(settings, &[RouterEvent::Adopt, RouterEvent::Heard(&heard(HIGH, 150))])
    }),
    ("Stopped", |settings| {
        after(settings, &[RouterEvent::Eligible, RouterEvent::Stop(Cause::Stopped)])
    }),
];

/// It serves more than masters of priority 40, and no other.
const UNFIT: RouterEvent<'static> =
    RouterEvent::Fitness(Fitness::Unfit { outranks: Priority(40), offers: Priority(80) });

fn events() -> Vec<(&'static str, RouterEvent<'static>)> {
    let better =
        |priority, source| -> &'static Heard { Box::leak(Box::new(heard(source, priority))) };
    let changed =
        RouterSettings { priority: Priority(120), ..settings(Version::V3, Preempt::Never) };
    vec![
        ("timeout, early", RouterEvent::Timeout),
        ("timeout, due", RouterEvent::Timeout),
        ("timeout, asleep for 10 s", RouterEvent::Timeout),
        ("heard 0", RouterEvent::Heard(better(0, HIGH))),
        ("heard 50", RouterEvent::Heard(better(50, HIGH))),
        ("heard 100, lower address", RouterEvent::Heard(better(100, LOW))),
        ("heard 100, higher address", RouterEvent::Heard(better(100, HIGH))),
        ("heard 150", RouterEvent::Heard(better(150, LOW))),
        ("eligible", RouterEvent::Eligible),
        ("fault, link carries", RouterEvent::Fault { reasons: "check".into(), can_send: true }),
        ("fault, link gone", RouterEvent::Fault { reasons: "link".into(), can_send: false }),
        ("priority 40", RouterEvent::Priority(Priority(40))),
        ("priority 140", RouterEvent::Priority(Priority(140))),
        ("adopt", RouterEvent::Adopt),
        ("grant", RouterEvent::Grant),
        ("refuse", RouterEvent::Refuse),
        ("stop", RouterEvent::Stop(Cause::Stopped)),
        ("resume", RouterEvent::Resume),
        ("switchover", RouterEvent::Switchover { claim: None }),
        ("fit", RouterEvent::Fitness(Fitness::Fit)),
        ("unfit", UNFIT),
        ("offer", RouterEvent::Offer { reasons: "haproxy front".into() }),
        ("settings", RouterEvent::Settings(changed.into(), Priority(120))),
    ]
}

fn settings(version: Version, preempt: Preempt) -> RouterSettings {
    let vrid = Vrid::new(51).expect("1..=255");
    RouterSettings { preempt, ..RouterSettings::new(vrid, Family::V4, version) }
}

fn heard(source: IpAddr, priority: u8) -> Heard {
    Heard {
        source,
        priority: Priority(priority),
        interval: Interval::DEFAULT,
        form: None,
        interval_differs: false,
        addresses_differ: false,
    }
}

/// The router after these events, one millisecond apart.
fn after(settings: RouterSettings, events: &[RouterEvent<'_>]) -> (Router, Time) {
    let mut router = Router::new(settings, START);
    router.set_source(Some(OWN));
    let mut now = START;
    for event in events {
        router.handle(now, event.clone(), &mut Vec::new());
        now += Duration::from_millis(1);
    }
    (router, now)
}

/// A moment after its deadline has come.
fn due((mut router, _): (Router, Time)) -> (Router, Time) {
    let now = router.deadline().expect("it waits");
    router.handle(now, RouterEvent::Timeout, &mut Vec::new());
    (router, now + Duration::from_millis(1))
}

fn describe(before: &Router, router: &Router, now: Time, actions: &[RouterAction]) -> String {
    let holds = if router.holds_addresses() { " holds" } else { "" };
    let deadline = match (router.deadline(), before.deadline()) {
        (None, _) => "none".to_owned(),
        (Some(new), Some(old)) if new == old => "kept".to_owned(),
        (Some(new), _) => format!("{:.3}ms", new.since(now).as_secs_f64() * 1000.0),
    };
    let actions: Vec<String> = actions.iter().map(action).collect();
    let candidate = if router.candidate().is_some() { "Candidate, " } else { "" };
    let role = router.role();
    format!("{candidate}{role:?}{holds}, {deadline}; {}", actions.join(", "))
}

fn action(action: &RouterAction) -> String {
    match action {
        RouterAction::Advertise { priority } => format!("advertise {}", priority.0),
        RouterAction::Changed { from, to, cause } => format!("{from:?} → {to:?} ({cause})"),
        RouterAction::Propose { cause } => format!("propose ({cause})"),
        RouterAction::Announce { repeat } => format!("announce ×{repeat}"),
        RouterAction::ConflictBegan { .. } => "conflict began".to_owned(),
        RouterAction::ConflictEnded { .. } => "conflict ended".to_owned(),
        RouterAction::ClaimChanged { from, to, .. } => format!("claim {} → {}", from.0, to.0),
        RouterAction::Late { by } => format!("late by {by:?}"),
    }
}
