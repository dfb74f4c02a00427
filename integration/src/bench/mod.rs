//! The promised numbers, ours beside keepalived's in one run.
//!
//! Each measurement takes the contestants in turn, so that a busy minute hurts both, prints what it
//! found, and says whether the promise was kept.

pub mod balance;
pub mod checks;
pub mod connections;
pub mod crash;
pub mod election;
pub mod fitness;
pub mod fleet;
pub mod flood;
pub mod handover;
pub mod ipvs;
pub mod load;
pub mod promotion;
pub mod service;
pub mod soak;
pub mod watch;

use std::time::Duration;

use crate::lab::Shape;
use crate::node::Node;
use crate::pair::FIRST;
use crate::pair::Kinds;
use crate::pair::Pair;
use crate::pair::SECOND;
use crate::pair::VIP;
use crate::peer::Locum;
use crate::peer::QuietKeepalived;
use crate::peer::Router;
use crate::process::Process;

/// Clock ticks per second of `/proc/PID/stat`: fixed at 100 on Linux for x86 and Arm.
const TICKS_PER_SECOND: f64 = 100.0;

/// The two that are compared, each with itself.
pub const CONTESTANTS: [Kinds; 2] = [
    Kinds { first: &Locum::NATIVE, second: &Locum::NATIVE },
    Kinds { first: &QuietKeepalived, second: &QuietKeepalived },
];

/// The router of most measurements: adverts every second.
fn router(director: usize) -> Router {
    Router::new(51, [FIRST, SECOND][director], &[VIP])
}

fn settled(kinds: Kinds, router: impl Fn(usize) -> Router) -> Pair {
    Pair::settled(Shape::MEASURED_PAIR, kinds, router)
}

/// A time for a table, or that there was none.
fn shown(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1000.0))
}

/// The value below which `share` of all lie; zero of none.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (sorted.len() as f64 * share).floor() as usize;
    sorted.get(at.min(last)).copied().unwrap_or_default()
}

/// A web server for thousands of connections, with one worker and these words beside its page.
fn nginx(node: &Node, locations: &str) -> Process {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path /run/lab/nginx-{kind};\n"));
    let file = format!(
        "user root;\npid /run/lab/nginx.pid;\nerror_log stderr;\nworker_processes 1;\n\
         worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 100000000;\n{}\
         server {{ listen 80 backlog=4096; location / {{ return 200 \"it works\"; }} {locations} }}\n}}\n",
        paths.concat()
    );
    node.write("/run/lab/nginx.conf", &file);
    node.spawn(&["nginx", "-c", "/run/lab/nginx.conf", "-g", "daemon off;"])
}

#[cfg(test)]
mod tests {
    use super::quantile;
    use crate::wait::millis;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=1000).map(millis).collect();
        assert_eq!(quantile(&values, 0.5), millis(501));
        assert_eq!(quantile(&values, 0.999), millis(1000));
        assert_eq!(quantile(&values[..1], 0.999), millis(1));
        assert_eq!(quantile(&[], 0.5), millis(0));
    }
}
