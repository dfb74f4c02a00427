//! How late the machine itself is: witnesses that only sleep, and notice what they slept too long.
//!
//! A machine that stands still, as a virtual one does when its host is busy, makes every silence
//! longer and says nothing about a daemon. What is left after its own lateness is the daemon's.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Once;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::sched::CpuSet;
use nix::unistd::Pid;

/// How often a witness looks at the clock.
const TICK: Duration = Duration::from_millis(1);
/// What waking up costs on a machine that is never late.
const WAKING: Duration = Duration::from_millis(2);

/// A standstill for as long takes a fast master's place away by the rules.
const STANDSTILL: Duration = Duration::from_millis(200);

/// When the machine last stood still.
static LATEST: Mutex<Option<Instant>> = Mutex::new(None);

/// From now on until the end of this process a witness looks for standstills.
pub fn keep_watch() {
    static WITNESS: Once = Once::new();
    WITNESS.call_once(|| {
        thread::spawn(|| {
            loop {
                let before = Instant::now();
                thread::sleep(TICK * 5);
                let slept = before.elapsed();
                if slept > STANDSTILL {
                    eprintln!("the machine stood still for {slept:?}");
                    *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            }
        });
    });
}

/// When the machine last stood still, since [`keep_watch`].
pub fn latest_standstill() -> Option<Instant> {
    *LATEST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Witnesses of one measurement, on every processor, that add up what they slept too long.
pub struct Witnesses {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Witnesses {
    /// One on each processor that this process may use.
    pub fn call() -> Self {
        let own = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("processors");
        let stop = Arc::new(AtomicBool::new(false));
        let usable = (0..CpuSet::count()).filter(|at| own.is_set(*at).unwrap_or(false));
        let threads = usable.map(|at| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(at).expect("a processor's number");
                nix::sched::sched_setaffinity(Pid::from_raw(0), &only).expect("a processor");
                watch(&stop)
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// The sum of all delays since the call, on the processor that was late the most.
    pub fn dismiss(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let late = self.threads.into_iter().map(|witness| witness.join().expect("a witness"));
        late.max().unwrap_or_default()
    }
}

fn watch(stop: &AtomicBool) -> Duration {
    let mut late = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let before = Instant::now();
        thread::sleep(TICK);
        let over = before.elapsed().saturating_sub(TICK);
        if over > WAKING {
            late += over;
        }
    }
    late
}
