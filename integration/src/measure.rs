//! One fault seen from the client: probes before, during and after it.

use std::time::Duration;
use std::time::Instant;

use crate::lateness::Witnesses;
use crate::pair::ELECTION;
use crate::pair::Pair;
use crate::probe::Prober;
use crate::probe::Report;
use crate::probe::Responder;
use crate::wait;
use crate::wait::millis;

/// Probes before the fault: enough to know that the path works, addresses resolved.
const BEFORE: Duration = millis(1000);

/// Sends probes to the address of a settled pair for `period`, with `fault` after the first second.
pub fn through(pair: &mut Pair, period: Duration, fault: impl FnOnce(&mut Pair)) -> Report {
    through_with_lateness(pair, period, fault).0
}

/// The same, and how late the machine was meanwhile.
pub fn through_with_lateness(
    pair: &mut Pair,
    period: Duration,
    fault: impl FnOnce(&mut Pair),
) -> (Report, Duration) {
    let _responders = Responder::on_each(&pair.lab.directors);
    warm_up(pair);
    let start = Instant::now();
    let prober = Prober::start(&pair.lab.client, pair.vip());
    let witnesses = Witnesses::call();
    std::thread::sleep(BEFORE);
    fault(pair);
    std::thread::sleep(period.saturating_sub(start.elapsed()));
    let late = witnesses.dismiss();
    (prober.stop(), late)
}

/// A few probes that are not counted: they resolve the address.
fn warm_up(pair: &Pair) {
    let prober = Prober::start(&pair.lab.client, pair.vip());
    wait::until("probes are answered", ELECTION, || prober.answered() > 20);
    prober.stop();
}
