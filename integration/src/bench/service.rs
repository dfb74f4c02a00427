//! What a client with a new connection every few milliseconds meets when the master hands over, and
//! when its host dies.

use std::thread;
use std::time::Duration;

use super::connections::Connections;
use super::connections::Outcomes;
use crate::pair::ELECTION;
use crate::peer::locum_command;
use crate::service::Balanced;
use crate::service::HAPROXY;
use crate::service::HAPROXY_FILE;
use crate::service::INSTANCE;
use crate::service::PROXY;
use crate::wait;
use crate::wait::seconds;

/// Connections before the master leaves, and after the other one serves.
const AROUND: Duration = seconds(1);

/// A way to carry traffic, and whether the backup is ready for it.
struct Way {
    label: &'static str,
    config: &'static str,
    standby: &'static str,
}

const WAYS: [Way; 4] = [
    Way { label: "HAProxy, cold", config: HAPROXY, standby: "cold" },
    Way { label: "HAProxy, warm", config: HAPROXY, standby: "warm" },
    Way { label: "proxy, cold", config: PROXY, standby: "cold" },
    Way { label: "proxy, warm", config: PROXY, standby: "warm" },
];

/// `runs` planned handovers and `deaths` of the master's host through each way to carry traffic.
pub fn service(runs: u32, deaths: u32) -> bool {
    println!("new connections, one every 5 ms, adverts every second");
    println!("{:34}  answered   refused  timed out    failed", "");
    let mut met = true;
    for way in &WAYS {
        let planned = handovers(way, runs);
        show(way, &format!("{runs} handovers"), &planned);
        met &= (planned.refused, planned.timed_out, planned.failed) == (0, 0, 0);
        let mut died = Outcomes::default();
        (0..deaths).for_each(|_| died.extend(death(way)));
        show(way, &format!("{deaths} deaths"), &died);
        met &= died.refused == 0;
    }
    met
}

fn show(way: &Way, event: &str, outcomes: &Outcomes) {
    println!(
        "{:16} {event:16}  {:9} {:9} {:10} {:9}  {}",
        way.label,
        outcomes.answered,
        outcomes.refused,
        outcomes.timed_out,
        outcomes.failed,
        outcomes.reason.as_deref().unwrap_or_default()
    );
}

/// Both directors, the first one serving by way of both servers, and the other one ready.
fn settled(way: &Way) -> Balanced {
    let slow = INSTANCE.replace("300ms", "1s");
    let config = format!("{slow}{}standby = \"{}\"\n", way.config, way.standby);
    let mut balanced = Balanced::new(&config);
    for director in &balanced.lab.directors {
        director.write("/etc/haproxy/lab.cfg", HAPROXY_FILE);
    }
    balanced.start(0);
    balanced.start(1);
    balanced.expect_service_by(0);
    balanced.expect_both_servers();
    balanced
}

/// The two directors hand over to each other in turn.
fn handovers(way: &Way, runs: u32) -> Outcomes {
    let balanced = settled(way);
    let mut outcomes = Outcomes::default();
    for run in 0..runs {
        let from = usize::from(run % 2 == 1);
        let connections = Connections::start(&balanced.lab.client, balanced.vip());
        thread::sleep(AROUND);
        let answer = locum_command(&balanced.lab.directors[from], &["switchover", "web"]);
        let error = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "no switchover: {error}");
        expect_alone(&balanced, 1 - from);
        thread::sleep(AROUND);
        outcomes.extend(connections.stop());
    }
    outcomes
}

/// The master's host stands still, and its cable is cut.
fn death(way: &Way) -> Outcomes {
    let balanced = settled(way);
    let connections = Connections::start(&balanced.lab.client, balanced.vip());
    thread::sleep(AROUND);
    balanced.lab.silence(0);
    // All but the shell that says so, and the first process, which only waits.
    balanced.lab.directors[0].output(&["/bin/sh", "-c", "kill -STOP -1"]);
    wait::until("the other director serves", ELECTION, || {
        balanced.lab.directors[1].holds(balanced.vip()) && balanced.get().is_ok()
    });
    thread::sleep(AROUND);
    connections.stop()
}

fn expect_alone(balanced: &Balanced, director: usize) {
    let what = format!("lb{} alone is master", director + 1);
    wait::until(&what, ELECTION, || balanced.lab.holders(balanced.vip()) == [director]);
}
