//! The control socket, and when the process ends: told to serve nothing, asked by SIGTERM, or left
//! alone by every controller for too long. In each case listeners close at once and connections
//! finish within their drain time first.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{LINE_LIMIT, Orphan, ProgramFile, ProxyRequest, ProxyStart, ProxyStatus};
use nix::sys::signal::SigSet;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::arguments::Settings;
use crate::log;
use crate::sandbox;
use crate::shares::Shares;
use crate::succession::{Estate, ProxyBefore};
use crate::table::Table;

/// Why the proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("another proxy answers on {0}, stop it or use another --run-dir")]
    Occupied(PathBuf),
    #[error("cannot listen on {path}: {source}")]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot watch for signals: {0}")]
    Signal(#[source] io::Error),
    #[error("no proxy answers on {path}, whose place is to be taken: {source}")]
    Predecessor { path: PathBuf, source: io::Error },
}

/// Pause of accepting controllers after an error; they are few and try again.
const CONTROL_PAUSE: Duration = Duration::from_millis(100);

/// No longer than the shortest time limit that can be configured, so that this timer is the next to end.
const TICK: Duration = Duration::from_millis(100);

/// How often it is looked whether the proxy before this one has ended, beside what a balancer asks.
const PREDECESSOR_POLL: Duration = Duration::from_secs(1);

struct Control {
    table: Mutex<Table>,
    /// The proxy whose place this one takes.
    before: Mutex<Option<ProxyBefore>>,
    /// Another reference to the connection of the proxy that has taken this one's place.
    successor: RefCell<Option<BlockingStream>>,
    /// Controllers connected now.
    controllers: Cell<usize>,
    /// How long to go on without one; for ever when `None`.
    orphan_timeout: Cell<Option<Duration>>,
    /// A controller came or went, or a level was sent.
    changed: Notify,
}

/// Runs the proxy; must be called within a `LocalSet`.
pub async fn serve(settings: Settings) -> Result<(), Error> {
    // A daemon may have blocked signals in the thread that started this process.
    let _ = SigSet::empty().thread_set_mask();
    let shares = Rc::new(Shares::of_process());
    let control = Rc::new(Control {
        table: Mutex::new(Table::new(shares.clone())),
        before: Mutex::new(predecessor(&settings)?),
        successor: RefCell::default(),
        controllers: Cell::new(0),
        orphan_timeout: Cell::new(settings.orphan_timeout),
        changed: Notify::new(),
    });
    let terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let listener = listen(&settings.socket).await?;
    let program = ProgramFile::of(Path::new("/proc/self/exe"));
    let options = Settings::options(settings.account);
    {
        let mut table = control.table.lock().await;
        table.start = ProxyStart { program, options };
        table.unconfined = sandbox::enter(&settings.socket, settings.account);
    }
    let acceptor = spawn_local(accept_controllers(control.clone(), listener));
    spawn_local(tick(shares.clone()));
    watch(&control, &shares, terminate).await;
    acceptor.abort();
    // A newer proxy cannot be there yet: it would have found this one answering, unless it has its place.
    // Another user's directory lets nobody else do this: then the balancer does.
    if !control.table.lock().await.has_handed_over() {
        let _ = std::fs::remove_file(&settings.socket);
    }
    say_last_word(&control).await;
    Ok(())
}

/// Tells whoever has taken our place what has been done here: it counts on.
async fn say_last_word(control: &Control) {
    let Some(mut successor) = control.successor.take() else { return };
    let status = answer(control, Controller::Successor, Ok(ProxyRequest::Status), b"").await;
    if let Ok(mut line) = serde_json::to_vec(&status) {
        line.push(b'\n');
        // One that does not read counts what it heard last.
        let _ = successor.write_all(&line);
    }
}

fn predecessor(settings: &Settings) -> Result<Option<ProxyBefore>, Error> {
    let connect = |path: &PathBuf| {
        ProxyBefore::connect(path)
            .map_err(|source| Error::Predecessor { path: path.clone(), source })
    };
    settings.predecessor.as_ref().map(connect).transpose()
}

/// Wakes the runtime now and then while there are connections. A timer that is the next one to end
/// makes the runtime wake itself with two system calls, and without this one the time limit of each
/// new connection would be.
async fn tick(shares: Rc<Shares>) {
    loop {
        if shares.active() == 0 {
            shares.busy.notified().await;
        }
        sleep(TICK).await;
    }
}

/// A path left by a proxy that died is taken over, one that answers is not.
async fn listen(path: &Path) -> Result<UnixListener, Error> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(Error::Occupied(path.to_owned()));
    }
    let listener = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever may connect decides what is served.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listener().map_err(|source| Error::Listen { path: path.to_owned(), source })
}

/// Returns when the process shall end.
async fn watch(control: &Control, shares: &Shares, mut terminate: Signal) {
    let mut alone_since = Some(Instant::now());
    loop {
        let before = control.before.lock().await.as_ref().is_some_and(ProxyBefore::is_finishing);
        if !before && control.table.lock().await.is_over() {
            return;
        }
        let orphaned_at = alone_since.zip(control.orphan_timeout.get());
        // One too long for the clock is for ever.
        let orphaned_at = orphaned_at.and_then(|(since, timeout)| since.checked_add(timeout));
        tokio::select! {
            () = control.changed.notified() => {
                alone_since = match (control.controllers.get(), alone_since) {
                    (0, None) => Some(Instant::now()),
                    (0, Some(since)) => Some(since),
                    (_, _) => None,
                };
            }
            () = shares.idle.notified() => {}
            () = sleep(PREDECESSOR_POLL), if before => {
                if let Some(before) = &mut *control.before.lock().await {
                    before.look().await;
                }
            }
            () = at(orphaned_at) => {
                tracing::warn!("no daemon for longer than its lease: serving ends");
                control.table.lock().await.apply(&[]).await;
                alone_since = None;
            }
            _ = terminate.recv() => {
                tracing::info!("asked to terminate: serving ends");
                control.table.lock().await.apply(&[]).await;
            }
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn accept_controllers(control: Rc<Control>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                control.controllers.set(control.controllers.get() + 1);
                control.changed.notify_one();
                let control = control.clone();
                spawn_local(async move {
                    // A controller that breaks off in the middle comes back and says it again.
                    let _ = converse(&control, stream).await;
                    control.controllers.set(control.controllers.get().saturating_sub(1));
                    control.changed.notify_one();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a controller");
                sleep(CONTROL_PAUSE).await;
            }
        }
    }
}

/// Answers every line until the controller hangs up or sends more than a line may hold.
async fn converse(control: &Control, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut controller = Controller::Balancer;
    loop {
        line.clear();
        let limit = LINE_LIMIT as u64;
        if (&mut reader).take(limit).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let request = serde_json::from_slice(&line);
        if let Ok(ProxyRequest::HandOver) = request {
            // Whoever does not get all of it has taken nothing: the next level opens anew.
            let (estate, status) = hand_over(control).await;
            controller = Controller::Successor;
            let stream = writer.as_ref().as_fd().try_clone_to_owned().ok();
            control.successor.replace(stream.map(BlockingStream::from));
            estate.send(writer.as_ref(), status).await?;
        } else {
            let mut answer =
                serde_json::to_vec(&answer(control, controller, request, &line).await)?;
            answer.push(b'\n');
            writer.write_all(&answer).await?;
        }
        control.changed.notify_one();
    }
}

fn set_orphan_timeout(control: &Control, orphan: Orphan) {
    match orphan {
        Orphan::Unchanged => {}
        Orphan::ForEver => control.orphan_timeout.set(None),
        Orphan::Milliseconds(ms) => control.orphan_timeout.set(Some(Duration::from_millis(ms))),
    }
}

/// Who asks at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Controller {
    Balancer,
    /// A proxy that has taken our place.
    Successor,
}

async fn hand_over(control: &Control) -> (Estate, ProxyStatus) {
    let mut table = control.table.lock().await;
    let estate = table.hand_over().await;
    tracing::info!(connections = table.status().active, "another proxy takes over");
    (estate, ProxyStatus { log: log::take(), ..table.status() })
}

async fn answer(
    control: &Control,
    controller: Controller,
    request: serde_json::Result<ProxyRequest>,
    line: &[u8],
) -> ProxyStatus {
    let mut table = control.table.lock().await;
    let mut before = control.before.lock().await;
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            let error = Some(format!("cannot read the request: {error}"));
            return ProxyStatus { error, ..table.status() };
        }
    };
    let changes = matches!(request, ProxyRequest::Serve { .. } | ProxyRequest::Update { .. });
    if changes && controller == Controller::Balancer {
        table.take_back();
    }
    let mut status = match &request {
        ProxyRequest::Serve { services, orphan } => {
            if let Some(before) = &mut *before {
                match before.hand_over().await {
                    Ok(estate) => table.inherit(estate.unwrap_or_default()),
                    Err(error) => {
                        let error =
                            format!("the proxy before this one does not hand over: {error}");
                        return ProxyStatus { error: Some(error), ..table.status() };
                    }
                }
            }
            set_orphan_timeout(control, *orphan);
            table.apply(services).await;
            table.status()
        }
        ProxyRequest::Update { set, remove, orphan } => {
            set_orphan_timeout(control, *orphan);
            table.update(set, remove).await;
            let is_named = |name: &str| {
                set.iter().any(|spec| spec.name == name) || remove.iter().any(|n| n == name)
            };
            table.status_of(is_named)
        }
        ProxyRequest::Status | ProxyRequest::HandOver => table.status(),
    };
    if let Some(before) = &mut *before {
        before.join(&request, line, &mut status).await;
    }
    status.log.extend(log::take());
    status
}
