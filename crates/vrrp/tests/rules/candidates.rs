//! A router asks before it becomes master (V-270..V-274).

use std::time::Duration;

use locum_vrrp::{
    Cause, Interval, Preempt, Priority, Role, Router, RouterAction, RouterEvent, RouterSettings,
    Time, Version,
};

use crate::bench::{Bench, HIGH, LOW, OWN, heard, sent, settings};

/// One that has asked and waits: nobody answers here unless the test does.
struct Candidate {
    router: Router,
    now: Time,
}

impl Candidate {
    /// The down timer of a backup with these settings has just run out.
    fn of(settings: RouterSettings) -> Self {
        let mut router = Bench::eligible(settings).router;
        let now = router.deadline().expect("it waits");
        let mut out = Vec::new();
        router.handle(now, RouterEvent::Timeout, &mut out);
        let cause = Cause::MasterSilent { last: None };
        assert_eq!(out, [RouterAction::Propose { cause }], "V-270");
        Self { router, now }
    }

    fn new() -> Self {
        Self::of(settings(Version::V3, 100))
    }

    fn feed(&mut self, event: RouterEvent<'_>) -> Vec<RouterAction> {
        let mut out = Vec::new();
        self.router.handle(self.now, event, &mut out);
        out
    }
}

fn changes(actions: &[RouterAction]) -> Vec<(Role, Role)> {
    let change = |action: &RouterAction| match action {
        RouterAction::Changed { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    actions.iter().filter_map(change).collect()
}

/// V-270: nothing of a master is true of it.
#[test]
fn candidate_is_a_backup_to_everybody_else() {
    let candidate = Candidate::new();
    assert_eq!(candidate.router.role(), Role::Backup);
    assert!(!candidate.router.holds_addresses());
    let (cause, until) = candidate.router.candidate().expect("it has asked");
    assert_eq!(*cause, Cause::MasterSilent { last: None });
    assert_eq!(candidate.router.deadline(), Some(until));
}

/// V-271: what a promotion does, in its order.
#[test]
fn grant_makes_it_master_for_the_reason_it_gave() {
    let mut candidate = Candidate::new();
    candidate.now += Duration::from_millis(20);
    let out = candidate.feed(RouterEvent::Grant);
    let cause = Cause::MasterSilent { last: None };
    assert_eq!(
        out,
        [
            RouterAction::Advertise { priority: Priority(100) },
            RouterAction::Changed { from: Role::Backup, to: Role::Master, cause },
            RouterAction::Announce { repeat: 5 },
        ]
    );
    assert_eq!(candidate.router.candidate(), None);
}

/// V-272: it listens for a down interval and asks again; why it wanted to stays visible until then.
#[test]
fn refusal_makes_it_listen_before_it_asks_again() {
    let mut candidate = Candidate::new();
    assert_eq!(candidate.feed(RouterEvent::Refuse), []);
    let cause = Cause::MasterSilent { last: None };
    assert_eq!(candidate.router.refused(), Some((candidate.now, &cause)));
    assert_eq!((candidate.router.role(), candidate.router.candidate()), (Role::Backup, None));
    let due = candidate.router.deadline().expect("it waits");
    assert_eq!(due, candidate.now + candidate.router.down_interval());
    candidate.now = due;
    assert_eq!(candidate.feed(RouterEvent::Timeout), [RouterAction::Propose { cause }]);
    assert_eq!(candidate.router.refused(), None);
}

/// V-273: 300 ms, and never longer than the most impatient peer waits.
#[test]
fn answer_that_does_not_come_is_a_grant() {
    for (centis, limit_ms) in [(100, 300), (11, 300), (10, 300), (5, 150), (1, 30)] {
        let interval = Interval::new(Version::V3, centis).expect("in range");
        let settings = RouterSettings { interval, ..settings(Version::V3, 100) };
        let mut candidate = Candidate::of(settings);
        let asked = candidate.now;
        let until = candidate.router.deadline().expect("it waits");
        assert_eq!(until.since(asked).as_millis(), limit_ms, "{centis}");
        candidate.now = until - Duration::from_nanos(1);
        assert_eq!(candidate.feed(RouterEvent::Timeout), []);
        candidate.now = until;
        assert_eq!(changes(&candidate.feed(RouterEvent::Timeout)), [(Role::Backup, Role::Master)]);
    }
}

/// V-273: one that slept cannot tell that nobody has answered, nor that nobody has spoken.
#[test]
fn candidate_that_slept_listens_once_more() {
    let mut candidate = Candidate::new();
    candidate.now += Duration::from_secs(10);
    assert_eq!(candidate.feed(RouterEvent::Timeout), []);
    assert_eq!((candidate.router.role(), candidate.router.candidate()), (Role::Backup, None));
    candidate.now = candidate.router.deadline().expect("it listens");
    assert!(matches!(candidate.feed(RouterEvent::Timeout)[..], [RouterAction::Propose { .. }]));
}

/// V-274: what a backup accepts as its master, a candidate does too.
#[test]
fn accepted_advert_ends_the_candidacy() {
    for (preempt, source, priority, ends) in [
        (Preempt::After(Duration::ZERO), HIGH, 150, true),
        (Preempt::After(Duration::ZERO), LOW, 100, true),
        (Preempt::After(Duration::ZERO), HIGH, 99, false),
        (Preempt::After(Duration::from_secs(60)), HIGH, 99, true),
        (Preempt::Never, HIGH, 99, true),
    ] {
        let mut candidate = Candidate::of(RouterSettings { preempt, ..settings(Version::V3, 100) });
        assert_eq!(candidate.feed(RouterEvent::Heard(&heard(source, priority))), []);
        assert_eq!(candidate.router.candidate().is_none(), ends, "{preempt:?} {priority}");
        let expected = if ends { vec![] } else { vec![(Role::Backup, Role::Master)] };
        assert_eq!(changes(&candidate.feed(RouterEvent::Grant)), expected, "a late answer is none");
    }
}

/// V-274: who gives up does not hold back who would take over.
#[test]
fn release_does_not_end_the_candidacy() {
    let mut candidate = Candidate::new();
    let until = candidate.router.deadline();
    candidate.feed(RouterEvent::Heard(&heard(HIGH, 0)));
    assert!(candidate.router.candidate().is_some());
    assert_eq!(candidate.router.deadline(), until);
}

/// V-270, V-200: an owner asks at its start, hears what is said meanwhile, and was no backup before.
#[test]
fn owner_asks_at_its_start() {
    for (answer, change) in [
        (RouterEvent::Grant, (Role::Initialize, Role::Master)),
        (RouterEvent::Refuse, (Role::Initialize, Role::Backup)),
        (RouterEvent::Heard(&heard(HIGH, 255)), (Role::Initialize, Role::Backup)),
        (RouterEvent::Stop(Cause::Stopped), (Role::Initialize, Role::Initialize)),
    ] {
        let mut bench = Bench::new(settings(Version::V3, 255));
        let mut out = Vec::new();
        bench.router.handle(bench.now, RouterEvent::Eligible, &mut out);
        assert_eq!(out, [RouterAction::Propose { cause: Cause::Owner }]);
        out.clear();
        bench.router.handle(bench.now, answer.clone(), &mut out);
        assert_eq!(changes(&out), [change], "{answer:?}");
    }
}

/// V-270: what must not wait does not ask.
#[test]
fn adoption_and_a_release_that_nobody_took_do_not_ask() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.router.set_source(Some(OWN));
    let mut out = Vec::new();
    bench.router.handle(bench.now, RouterEvent::Adopt, &mut out);
    assert_eq!(bench.router.role(), Role::Master, "V-242");
    bench.router.handle(bench.now, RouterEvent::Switchover { claim: None }, &mut out);
    while let Some(due) = bench.router.deadline().filter(|_| bench.router.role() == Role::Resigning)
    {
        bench.router.handle(due, RouterEvent::Timeout, &mut out);
    }
    assert_eq!(bench.router.role(), Role::Master, "V-240");
    assert!(!out.iter().any(|action| matches!(action, RouterAction::Propose { .. })), "{out:?}");
    assert_eq!(sent(&out), [100, 0, 0, 100]);
}

/// V-215, V-210: what ends a backup ends a candidate.
#[test]
fn fault_and_stop_end_the_candidacy() {
    let mut candidate = Candidate::new();
    let fault = RouterEvent::Fault { reasons: "link".into(), can_send: true };
    assert_eq!(changes(&candidate.feed(fault)), [(Role::Backup, Role::Fault)]);
    assert_eq!(candidate.feed(RouterEvent::Grant), []);
    let mut candidate = Candidate::new();
    let out = candidate.feed(RouterEvent::Stop(Cause::Stopped));
    assert_eq!(changes(&out), [(Role::Backup, Role::Initialize)]);
    assert_eq!(sent(&out), [0_u8; 0], "it was not master");
    assert!(candidate.router.is_finished());
}

/// V-275, V-240: a predecessor answers for as long as its successor may take until it serves, and
/// the margin; a late answer to its release makes it no shorter.
#[test]
fn releasing_master_answers_until_the_successor_must_be_ready() {
    for (centis, heard_ms, handover_ms) in
        [(100, 0, 400), (100, 2050, 400), (5, 0, 250), (1, 0, 130)]
    {
        let interval = Interval::new(Version::V3, centis).expect("in range");
        let mut bench = Bench::new(RouterSettings { interval, ..settings(Version::V3, 100) });
        bench.feed(RouterEvent::Adopt);
        bench.feed(RouterEvent::Stop(Cause::Stopped));
        bench.run(heard_ms);
        bench.hear(LOW, 50);
        bench.run(handover_ms - 1);
        assert!(bench.router.holds_addresses(), "{centis} {heard_ms}");
        bench.run(1);
        assert!(!bench.router.holds_addresses(), "{centis} {heard_ms}");
    }
}

/// V-223: no otherwise where the better advert ends the mastership.
#[test]
fn master_that_hears_a_better_one_answers_until_that_must_be_ready() {
    let mut bench = Bench::new(settings(Version::V3, 100));
    bench.feed(RouterEvent::Adopt);
    bench.hear(HIGH, 150);
    bench.run(399);
    assert!(bench.router.holds_addresses());
    bench.run(1);
    assert_eq!((bench.router.holds_addresses(), bench.router.role()), (false, Role::Backup));
}

/// G-026: after the predecessor must have withdrawn, whenever that is.
#[test]
fn one_more_announcement_follows_the_withdrawal_of_the_predecessor() {
    for (centis, after_ms) in [(100, 550), (5, 400), (1, 280)] {
        let interval = Interval::new(Version::V3, centis).expect("in range");
        let mut bench = Bench::new(RouterSettings { interval, ..settings(Version::V3, 100) });
        bench.feed(RouterEvent::Adopt);
        let announced =
            |out: &[RouterAction]| out.iter().any(|a| matches!(a, RouterAction::Announce { .. }));
        assert!(!announced(&bench.run(after_ms - 1)), "{centis}");
        assert!(bench.run(1).contains(&RouterAction::Announce { repeat: 1 }), "{centis}");
    }
}
