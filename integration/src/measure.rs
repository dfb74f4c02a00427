//! One fault seen from the client: probes before, during and after it.

use std::time::Duration;
use std::time::Instant;

use crate::pair::Pair;
use crate::probe::Prober;
use crate::probe::Report;
use crate::probe::Responder;
use crate::wait;
use crate::wait::millis;
use crate::wait::seconds;

/// Probes before the fault: enough to know that the path works, addresses resolved.
const BEFORE: Duration = millis(1000);

/// Sends probes to the address of a settled pair for `period`, with `fault` after the first second.
pub fn through(pair: &mut Pair, period: Duration, fault: impl FnOnce(&mut Pair)) -> Report {
    let _responders = Responder::on_each(&pair.lab.directors);
    warm_up(pair);
    let start = Instant::now();
    let prober = Prober::start(&pair.lab.client, pair.vip());
    std::thread::sleep(BEFORE);
    fault(pair);
    std::thread::sleep(period.saturating_sub(start.elapsed()));
    prober.stop()
}

/// A few probes that are not counted: they resolve the address.
fn warm_up(pair: &Pair) {
    let prober = Prober::start(&pair.lab.client, pair.vip());
    wait::until("probes are answered", seconds(5), || prober.answered() > 20);
    prober.stop();
}
