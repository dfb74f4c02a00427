//! The daemon: starts the threads around the engine in order, and ends them in order.
//!
//! | thread | module | does |
//! |---|---|---|
//! | election | [`election`] | engine, adverts, deadline; never blocks |
//! | sockets | [`sockets`] | opens and closes advert sockets |
//! | applier | [`applier`] | addresses, announcements, link monitor |
//! | balancer | [`balancer_thread`] | services and their processes |
//! | probe | `locum-check` | checks |
//! | main | [`control_runtime`] | signals, control socket, hooks, history |
//! | log | [`host::log`] | writes lines |
//!
//! A panic anywhere ends the process at once and removes nothing: the lease of the virtual
//! addresses makes the kernel withdraw them unless a restarted daemon adopts them in time.

mod applier;
mod balancer_thread;
mod control_runtime;
mod election;
mod history;
mod host;
mod inbox;
mod sockets;
mod status;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use locum_balancer::BalancerSettings;
use locum_check::Probes;
use locum_config::Loaded;
use locum_engine::Input;
use locum_plan::Plan;
use tokio::sync::{mpsc, oneshot};

use crate::cli::{DaemonArgs, RunArgs};
use crate::configuration::Origin;
use crate::exit;
use crate::obstacles::OWN_PROGRAM;
use crate::terminal::complain;
use control_runtime::{Channels, ControlRuntime, Ending, Handles, OrderBook};
use election::{Dropped, Election, Sinks};
use history::History;
use host::control_socket::{self, ControlSocket};
use host::log::Log;
use host::namespace_lock::NamespaceLock;
use host::panic;
use host::run_dir_lock::RunDirLock;
use host::signals::Signals;
use inbox::{InboxReceiver, InboxSender, Message, inbox};
use sockets::AdvertSockets;

/// Reports on their way to log and history: every instance of a large node changing its role
/// several times. When it is full, the election drops and counts them.
const QUEUE_REPORTS: usize = 4096;

/// Requests waiting; a client whose request finds no room waits.
const QUEUE_CALLS: usize = 32;

/// The engine recurses nowhere and keeps its state on the heap.
const ELECTION_STACK_BYTES: usize = 512 * 1024;

/// Runs until a signal or the control socket asks it to stop.
pub fn run(options: &RunArgs, place: &DaemonArgs) -> ExitCode {
    panic::end_at_panic();
    // Without it more memory stays with the process; nothing else changes.
    let _ = locum_kernel::memory::share_one_arena();
    if let Err(error) = locum_kernel::descriptors::close_on_exec() {
        complain(&format!(
            "locum: hooks and checks inherit the descriptors that locum was started with: {error}\n"
        ));
    }
    let origin = Origin::new(&options.configuration);
    // The rest of it would stay for as long as the daemon runs.
    let Loaded { plan, diagnostics, .. } = origin.load();
    complain(&diagnostics.to_string());
    drop(diagnostics);
    let Some(plan) = plan else {
        complain(&format!("locum: not started: {} has errors\n", origin.path()));
        return exit::ERRORS.into();
    };
    match start(options, place, origin, plan) {
        Ok(Ending::Clean) => ExitCode::SUCCESS,
        Ok(Ending::Forced) => exit::FAILED.into(),
        Err(error) => {
            complain(&format!("locum: {error}\n"));
            exit::FAILED.into()
        }
    }
}

fn start(
    options: &RunArgs,
    place: &DaemonArgs,
    origin: Origin,
    plan: Arc<Plan>,
) -> Result<Ending, String> {
    let lock = RunDirLock::take(&place.run_dir)?;
    let log = Log::start(options.log_format, options.log_level)
        .map_err(|error| format!("cannot start the log: {error}"))?;
    let namespace_lock = NamespaceLock::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the control runtime: {error}"))?;
    let ending =
        runtime.block_on(operate(place, (lock, namespace_lock), origin, plan, log.clone()));
    log.flush();
    ending
}

async fn operate(
    place: &DaemonArgs,
    (lock, namespace_lock): (RunDirLock, NamespaceLock),
    origin: Origin,
    plan: Arc<Plan>,
    log: Log,
) -> Result<Ending, String> {
    let system = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    // Before anything is changed, so that a second daemon or a wrong path ends here.
    let server = control_socket::bind(&place.socket())?;
    let mut signals = Signals::listen().map_err(system("listen to signals"))?;

    let (sender, receiver) = inbox().map_err(system("create the inbox"))?;
    let dropped = Arc::new(Dropped::default());
    let (reports, reported) = mpsc::channel(QUEUE_REPORTS);
    // Unbounded, since a hook must neither be lost nor keep the election waiting. The control runtime
    // empties it at every turn into queues that hold two events for each owner.
    let (hook_sender, hooks) = mpsc::unbounded_channel();
    let (stopped, is_stopped) = oneshot::channel();

    let settings = BalancerSettings {
        run_dir: place.run_dir.clone(),
        locum_program: PathBuf::from(OWN_PROGRAM),
    };
    let balancer = balancer_thread::start(settings, sender.clone())
        .map_err(system("start the balancer thread"))?;
    let probes = probes(sender.clone()).map_err(system("start the probe thread"))?;
    let mut applier =
        applier::spawn(&plan, sender.clone()).map_err(system("start the applier thread"))?;

    let sinks = Sinks {
        applier: applier.jobs.clone(),
        balancer: balancer.clone(),
        probes,
        reports,
        hooks: hook_sender,
        dropped: Arc::clone(&dropped),
        stopped: Some(stopped),
    };
    let sockets = sockets(sender.clone(), &receiver).map_err(system("start the socket thread"))?;
    let election = thread::Builder::new()
        .name("election".to_owned())
        .stack_size(ELECTION_STACK_BYTES)
        .spawn(move || Election::new(receiver, sockets, sinks).run())
        .map_err(system("start the election thread"))?;

    // The links come first: the plan is looked at with what is there.
    let inherited = tokio::select! {
        inherited = applier.ready() => inherited?,
        // Nothing is held yet, so there is nothing to hand over.
        () = signals.stop() => return Ok(Ending::Clean),
    };
    let (order_book, orders) = OrderBook::open(&place.run_dir);
    sender.send(Message::Input(Input::Orders(orders)));
    let (in_effect, is_in_effect) = oneshot::channel();
    let message = Message::Plan { plan: Arc::clone(&plan), inherited, answer: in_effect };
    sender.send(message);
    // It says the same in the log.
    let _ = is_in_effect.await;

    let (calls, called) = mpsc::channel(QUEUE_CALLS);
    let socket = ControlSocket::serve(place.clone(), lock, server, calls);
    let history = History::open(&place.run_dir);
    let handles = Handles {
        inbox: sender.clone(),
        applier: applier.jobs,
        balancer,
        log,
        dropped,
        history,
        origin,
        plan,
        socket,
        namespace_lock,
    };
    let channels =
        Channels { reports: reported, hooks, calls: called, signals, stopped: is_stopped };
    let ending = ControlRuntime::new(handles, order_book).run(channels).await;
    sender.send(Message::End);
    // It takes its next message within microseconds; its probes end with it.
    let _ = election.join();
    Ok(ending)
}

fn sockets(sender: InboxSender, inbox: &InboxReceiver) -> io::Result<AdvertSockets> {
    let deliver = move |opened| sender.send(Message::Opened(Box::new(opened)));
    let sockets = AdvertSockets::start(deliver)?;
    sockets.watch_inbox(inbox.as_fd())?;
    Ok(sockets)
}

fn probes(inbox: InboxSender) -> io::Result<Probes> {
    Probes::spawn(move |outcomes| {
        let all = outcomes.into_iter().map(|(probe, outcome)| Input::Probed { probe, outcome });
        // Without room the outcomes are lost; the next runs of the probes repeat them.
        let _ = inbox.try_send(Message::Inputs(all.collect()));
    })
}
