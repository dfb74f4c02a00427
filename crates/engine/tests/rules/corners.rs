//! Rules where two things meet: a reload and a role, a failure and a withdrawal, a restart and a
//! check.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use locum_engine::{
    Fault, Inherited, Input, LinkState, OperatorCommand, Output, Reply, RunMode, Successor, Target,
};
use locum_plan::{Command as Hook, Lease, Plan, Track, Tracked, Unrunnable, Verdict};
use locum_vrrp::{Interval, Preempt, Role, Version, Vrid};

use crate::node::{
    HANDED_OVER, Node, PEER, VIP, advert, instance, is_address, outcome, plan, process_check,
    sent_priorities,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// V-147: the next advert itself would come too late for a multiplier of one.
#[test]
fn a_down_multiplier_of_one_does_not_make_a_master_give_up() {
    let mut web = instance("web", 51, 100);
    Arc::make_mut(&mut web.router).down_multiplier = 1;
    let mut node = Node::master(plan([web]));
    for _ in 0..5 {
        node.sleep(ms(1005));
        node.feed(Input::Timeout);
    }
    assert_eq!(node.role(), Role::Master);
}

/// V-142: the interval learnt from the master is not ours to change.
#[test]
fn a_shorter_interval_of_our_own_does_not_shorten_the_wait_for_a_slow_master() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.hear(PEER, 150);
    let mut faster = instance("web", 51, 100);
    Arc::make_mut(&mut faster.router).interval = Interval::new(Version::V3, 1).expect("in range");
    node.plan_with(plan([faster]), Vec::new());
    node.run_for(ms(900));
    node.hear(PEER, 150);
    node.run_for(ms(900));
    assert_eq!(node.role(), Role::Backup);
}

/// V-250.
#[test]
fn a_withdrawal_that_failed_is_tried_again_and_reported() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.hear(PEER, 150);
    node.run_for(HANDED_OVER);
    let out = node.refuse_applies("no buffer space").to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Notify(_))), "{out:#?}");
    assert_eq!(node.role(), Role::Backup, "a backup that cannot clean up still takes part");
    let out = node.run_for(ms(1001)).to_vec();
    let again = out.iter().any(|o| matches!(o, Output::Apply { drop, .. } if drop.len() == 1));
    assert!(again, "{out:#?}");
    node.confirm_applies();
    let out = node.run_for(ms(2000)).to_vec();
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { .. })), "{out:#?}");
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_kernel_that_refuses() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    node.feed(Input::Command { id: 1, command: OperatorCommand::Stop });
    let mut stopped = node.run_for(ms(2101)).contains(&Output::Stopped);
    for _ in 0..5 {
        stopped |= node.refuse_applies("no").contains(&Output::Stopped);
        stopped |= node.run_for(ms(1001)).contains(&Output::Stopped);
    }
    assert!(stopped);
}

/// Removed by a reload while the kernel does not let go of its address.
#[test]
fn what_an_instance_that_has_left_could_not_withdraw_is_withdrawn_later() {
    let withdraws = |out: &[Output]| {
        out.iter().any(|output| match output {
            Output::Apply { drop, .. } => drop.iter().any(|one| is_address(&one.fact, VIP)),
            _ => false,
        })
    };
    for comes_back in [false, true] {
        let mut node = Node::master(plan([instance("web", 51, 100)]));
        node.plan_with(plan([]), Vec::new());
        node.run_for(ms(2101));
        for _ in 0..5 {
            node.refuse_applies("no buffer space");
            node.run_for(ms(1001));
        }
        assert_eq!(node.status().instances, [], "it is gone");
        let out = if comes_back {
            node.plan_with(plan([instance("web", 51, 100)]), Vec::new()).to_vec()
        } else {
            node.run_for(ms(31_000)).to_vec()
        };
        assert!(withdraws(&out), "comes back {comes_back}: {out:#?}");
        node.confirm_applies();
        // Beyond the time at which it would have been tried again.
        let out = node.run_for(ms(31_000)).to_vec();
        assert!(!withdraws(&out), "{out:#?}");
    }
}

#[test]
fn refusals_in_a_row_keep_an_instance_out_for_longer_each_time() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let mut outs = Vec::new();
    for _ in 0..3 {
        let mut waited = 0;
        while node.role() != Role::Master {
            node.run_for(ms(1000));
            node.confirm_applies_of_nothing();
            waited += 1;
        }
        outs.push(waited);
        node.refuse_applies("permission denied");
    }
    assert!(outs[0] < outs[1] && outs[1] < outs[2], "{outs:?}");
}

#[test]
fn a_link_that_changes_ends_the_pause_after_a_refusal() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.run_for(ms(3610));
    node.refuse_applies("no such device");
    node.run_for(ms(2200));
    assert_eq!(node.role(), Role::Fault);
    node.link("eth0", false);
    node.link("eth0", true);
    assert_eq!(node.role(), Role::Backup);
}

/// V-227.
#[test]
fn an_address_added_to_a_master_is_announced() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let mut more = instance("web", 51, 100);
    let mut second = more.addresses[0].clone();
    second.address = Ipv4Addr::new(192, 0, 2, 11).into();
    more.addresses.push(second);
    let early = node.plan_with(plan([more]), Vec::new()).to_vec();
    assert!(!early.iter().any(|o| matches!(o, Output::Announce { .. })), "{early:#?}");
    let out = node.confirm_applies().to_vec();
    assert!(out.iter().any(|o| matches!(o, Output::Announce { .. })), "{out:#?}");
}

#[test]
fn an_address_that_moves_to_another_device_leaves_the_first() {
    let first = instance("web", 51, 100);
    let mut other = instance("db", 52, 100);
    other.addresses[0].address = Ipv4Addr::new(192, 0, 2, 20).into();
    let mut node = Node::master(plan([first.clone(), other.clone()]));
    let mut web = first;
    let mut moved = web.addresses.remove(0);
    moved.detail(|all| all.device = Some("eth1".into()));
    other.addresses.push(moved);
    let out = node.plan_with(plan([web, other]), Vec::new()).to_vec();
    let leaves = out.iter().any(|output| match output {
        Output::Apply { drop, .. } => {
            drop.iter().any(|removal| &**removal.fact.interface() == "eth0")
        }
        _ => false,
    });
    assert!(leaves, "{out:#?}");
}

#[test]
fn a_check_that_starts_failed_does_not_undo_an_adoption() {
    let mut tracked = tracked(0);
    tracked.checks[0].starts_failed = true;
    let mut node = Node::with_links();
    let inherited = Inherited::address("eth0".into(), VIP.into(), 24, Some(3));
    node.plan_with(tracked, vec![inherited]);
    assert_eq!(node.role(), Role::Master, "as it was before the restart");
    let probe = node.probe();
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) });
    assert_eq!(node.role(), Role::Resigning, "the first report counts");
}

#[test]
fn a_fault_that_passes_before_anybody_took_over_costs_nothing() {
    let mut node = Node::started(tracked(0));
    let probe = node.probe();
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Pass) });
    node.run_for(ms(3700));
    node.confirm_applies();
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) });
    node.run_for(ms(500));
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Pass) });
    let out = node.run_for(ms(3000)).to_vec();
    assert_eq!(node.role(), Role::Master);
    assert!(!out.iter().any(|o| matches!(o, Output::Apply { hold, .. } if hold.is_empty())));
}

/// V-148.
#[test]
fn a_fault_at_start_does_not_shorten_the_start_delay() {
    let mut web = instance("web", 51, 100);
    Arc::make_mut(&mut web.router).start_delay = Duration::from_secs(30);
    let mut node = Node::with_links();
    node.link("eth0", false);
    node.plan_with(plan([web]), Vec::new());
    node.run_for(ms(2000));
    node.link("eth0", true);
    node.run_for(ms(20_000));
    assert_eq!(node.role(), Role::Initialize);
    node.run_for(ms(8_001));
    assert_eq!(node.role(), Role::Backup);
}

/// G-013: a conflict may last; hosts need an announcement, not a storm.
#[test]
fn announcements_in_a_lasting_conflict_are_a_second_apart() {
    let mut web = instance("web", 51, 100);
    Arc::make_mut(&mut web.router).interval = Interval::new(Version::V3, 1).expect("in range");
    let mut node = Node::master(plan([web]));
    node.run_for(ms(10_000));
    let mut bursts = 0;
    for _ in 0..200 {
        let heard = node.hear(PEER, 50).to_vec();
        let run = node.run_for(ms(5)).to_vec();
        let all = heard.iter().chain(&run);
        bursts += all.filter(|o| matches!(o, Output::Announce { .. })).count();
    }
    assert!(bursts <= 2, "{bursts} in a second");
}

#[test]
fn a_check_in_another_rhythm_keeps_what_it_knows() {
    let mut node = Node::started(tracked(-60));
    let probe = node.probe();
    node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) });
    let mut slower = tracked(-60);
    slower.checks[0].probe.interval = Duration::from_secs(5);
    node.plan_with(slower, Vec::new());
    assert_eq!(node.status().instances[0].priority.0, 40);
}

#[test]
fn the_hooks_of_a_name_belong_to_its_new_instance() {
    let mut owner = instance("web", 51, 255);
    Arc::make_mut(&mut owner.hooks).stop = vec![Hook::argv(["/bin/stop"])];
    Arc::make_mut(&mut owner.hooks).master = vec![Hook::argv(["/bin/start"])];
    let mut node = Node::master(plan([owner.clone()]));
    Arc::make_mut(&mut owner.router).vrid = Vrid::new(52).expect("1..=255");
    let mut ran = hooks(node.plan_with(plan([owner]), Vec::new()));
    assert_eq!(ran, [""; 0], "its address is not there yet");
    for _ in 0..3 {
        ran.extend(hooks(node.confirm_applies()));
        ran.extend(hooks(node.run_for(ms(1000))));
    }
    assert_eq!(ran, ["/bin/start"]);
}

#[test]
fn hooks_wait_for_the_kernel_and_keep_their_order() {
    let mut web = instance("web", 51, 100);
    Arc::make_mut(&mut web.hooks).any = vec![Hook::argv(["/bin/any"])];
    let mut node = Node::started(plan([web]));
    let out = node.run_for(ms(3610)).to_vec();
    assert!(!hooks(&out).iter().any(|hook| hook.contains("MASTER")), "{out:#?}");
    assert_eq!(hooks(node.confirm_applies()), ["/bin/any INSTANCE web MASTER 100"]);
    node.hear(PEER, 150);
    assert_eq!(hooks(node.run_for(HANDED_OVER)), [""; 0]);
    assert_eq!(hooks(node.confirm_applies()), ["/bin/any INSTANCE web BACKUP 100"]);
}

#[test]
fn a_backup_that_is_always_late_takes_over_all_the_same() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    node.sleep(ms(8000));
    node.feed(Input::Timeout);
    assert_eq!(node.role(), Role::Backup, "it listens once more");
    node.sleep(ms(8000));
    node.feed(Input::Timeout);
    assert_eq!(node.role(), Role::Master);
}

#[test]
fn a_lower_peer_met_without_preemption_is_left_alone_after_a_link_flap() {
    let mut web = instance("web", 51, 200);
    Arc::make_mut(&mut web.router).preempt = Preempt::Never;
    web.lease = Lease::Off;
    let mut node = Node::master(plan([web]));
    node.link("eth0", false);
    let out = node.link("eth0", true).to_vec();
    assert_eq!(sent_priorities(&out), [0_u8; 0]);
    for _ in 0..5 {
        node.hear(PEER, 90);
        node.run_for(ms(1000));
    }
    assert_eq!(node.role(), Role::Backup);
}

#[test]
fn a_link_that_is_gone_is_forgotten() {
    let mut node = Node::started(plan([instance("web", 51, 100)]));
    let gone = LinkState {
        name: "eth0".into(),
        index: 0,
        running: false,
        mac: None,
        mtu: 0,
        addresses: Vec::new(),
        forwards_v6: false,
    };
    node.feed(Input::Link(gone));
    let missing = Fault::InterfaceMissing { interface: "eth0".into() };
    assert_eq!(node.status().instances[0].faults, [missing]);
}

fn hooks(out: &[Output]) -> Vec<String> {
    let run = |output: &Output| match output {
        Output::Hook(run) => Some(run.command.to_string()),
        _ => None,
    };
    out.iter().filter_map(run).collect()
}

fn tracked(weight: i16) -> Plan {
    let mut web = instance("web", 51, 100);
    web.track = vec![Track { object: Tracked::Check("app".into()), weight: None }];
    let mut plan = plan([web]);
    plan.checks = vec![process_check(weight)];
    plan
}

/// V-124: two routers that do not believe each other are both master, and neither may call that
/// healthy.
#[test]
fn a_router_that_is_not_believed_stands_in_the_status_while_it_is_heard() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    assert_eq!(node.status().instances[0].discarded, None);
    let mut wrong = advert(PEER, 150);
    if let Some(last) = wrong.last_mut() {
        *last ^= 1;
    }
    for _ in 0..30 {
        node.hear_bytes(&wrong);
        node.run_for(ms(1000));
        let status = node.status();
        let other = status.instances[0].discarded.as_ref().expect("it is heard");
        assert_eq!((other.source, other.heard_ago), (PEER, ms(1000)));
        assert!(other.reason.contains("checksum"), "{}", other.reason);
    }
    node.run_for(ms(9_500));
    assert_eq!(node.status().instances[0].discarded, None, "it is gone");
}

#[test]
fn a_switchover_under_way_is_not_refused_as_that_of_a_backup() {
    let mut node = Node::master(plan([instance("web", 51, 100)]));
    let ask = |id| {
        let target = Target::Instance("web".into());
        Input::Command {
            id,
            command: OperatorCommand::Switchover {
                target,
                to: None,
                run: RunMode::Real,
                successor: Successor::Fit,
            },
        }
    };
    node.feed(ask(1));
    let out = node.feed(ask(2)).to_vec();
    let refused = out.iter().any(|output| {
        matches!(output, Output::Reply { reply: Reply::Refused(why), .. }
            if why == "web is being handed over already")
    });
    assert!(refused, "{out:#?}");
}

#[test]
fn a_stop_says_how_much_there_is_to_hand_over() {
    let stop = || Input::Command { id: 1, command: OperatorCommand::Stop };
    let says = |out: &[Output], words: &str| {
        out.iter().any(|output| {
            matches!(output, Output::Reply { reply: Reply::Ok(text), .. } if text == words)
        })
    };
    let mut master = Node::master(plan([instance("web", 51, 100)]));
    assert!(says(master.feed(stop()), "stopping; 1 instance to hand over first"));
    let mut backup = Node::started(plan([instance("web", 51, 100)]));
    assert!(says(backup.feed(stop()), "stopping; nothing to hand over"));
}

/// keepalived goes on without a script that it cannot run.
#[test]
fn a_check_that_cannot_be_run_fails_or_is_left_out_as_the_plan_says() {
    for (unrunnable, priority) in [(Unrunnable::Fails, 40), (Unrunnable::LeftOut, 100)] {
        let mut plan = tracked(-60);
        plan.checks[0].unrunnable = unrunnable;
        let mut node = Node::master(plan);
        let probe = node.probe();
        node.feed(Input::Probed { probe, outcome: outcome(Verdict::CannotRun) });
        let status = node.status();
        assert_eq!(status.instances[0].priority.0, priority);
        assert_eq!(status.checks[0].ignored, unrunnable == Unrunnable::LeftOut);
        node.feed(Input::Probed { probe, outcome: outcome(Verdict::Fail) });
        let status = node.status();
        assert_eq!((status.instances[0].priority.0, status.checks[0].ignored), (40, false));
        node.feed(Input::Probed { probe, outcome: outcome(Verdict::Pass) });
        assert_eq!(node.status().instances[0].priority.0, 100);
        node.feed(Input::Probed { probe, outcome: outcome(Verdict::CannotRun) });
        let status = node.status();
        let shown = (status.instances[0].priority.0, status.checks[0].ignored);
        assert_eq!(shown, (40, false), "its program has gone");
    }
}
