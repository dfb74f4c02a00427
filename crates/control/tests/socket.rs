//! The control socket against clients that behave and clients that do not.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use locum_control::{
    Call, Client, ClientError, ControlServer, MAX_REQUEST_BYTES, Request, Response, ServerError,
};

/// Longer than any answer takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A server on a thread of its own, whose daemon answers every request with its name.
struct Daemon {
    directory: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(owner: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = ControlServer::bind(&path, owner).unwrap();
                let (calls, mut called) = tokio::sync::mpsc::channel::<Call>(4);
                tokio::spawn(async move {
                    while let Some(call) = called.recv().await {
                        let message = format!("{:?}", call.request);
                        let _ = call.answer.send(Response::Done { message, incomplete: false });
                    }
                });
                ready.send(()).unwrap();
                tokio::select! { () = server.serve(calls) => {}, _ = stopped => {} }
            });
        });
        is_ready.recv().unwrap();
        Self { directory, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn answers(&self) {
        let response = Client::connect(&self.path()).unwrap().call(&Request::Reload, LIMIT);
        assert_eq!(
            response.unwrap(),
            Response::Done { message: "Reload".into(), incomplete: false }
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

fn line_from(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn one_connection_carries_several_requests_in_order() {
    let daemon = Daemon::start(own_uid());
    let mut client = Client::connect(&daemon.path()).unwrap();
    for request in [Request::Status, Request::Stop, Request::Reload] {
        let expected = Response::Done { message: format!("{request:?}"), incomplete: false };
        assert_eq!(client.call(&request, LIMIT).unwrap(), expected);
    }
}

#[test]
fn bad_json_gets_an_explanation_and_the_connection_is_closed() {
    let daemon = Daemon::start(own_uid());
    let mut stream = daemon.raw();
    stream.write_all(b"hello\n").unwrap();
    let line = line_from(&stream);
    assert!(line.contains("\"response\":\"error\"") && line.contains("not a request"), "{line}");
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    daemon.answers();
}

#[test]
fn an_unknown_request_gets_an_explanation() {
    let daemon = Daemon::start(own_uid());
    let mut stream = daemon.raw();
    stream.write_all(b"{\"version\":1,\"request\":\"teleport\"}\n").unwrap();
    let line = line_from(&stream);
    assert!(line.contains("teleport"), "{line}");
    daemon.answers();
}

#[test]
fn a_line_without_end_is_cut_off_at_the_limit() {
    let daemon = Daemon::start(own_uid());
    let mut stream = daemon.raw();
    stream.write_all(&vec![b'x'; MAX_REQUEST_BYTES]).unwrap();
    let line = line_from(&stream);
    assert!(line.contains("longer than"), "{line}");
    daemon.answers();
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_line_delays_nobody() {
    let daemon = Daemon::start(own_uid());
    let mut slow = daemon.raw();
    slow.write_all(b"{\"version\":1,").unwrap();
    daemon.answers();
    slow.write_all(b"\"request\":\"status\"}\n").unwrap();
    assert!(line_from(&slow).contains("Status"));
}

#[test]
fn clients_over_the_limit_are_refused_and_places_come_back() {
    let daemon = Daemon::start(own_uid());
    let held: Vec<_> = (0..32)
        .map(|_| {
            let mut client = Client::connect(&daemon.path()).unwrap();
            client.call(&Request::Status, LIMIT).unwrap();
            client
        })
        .collect();
    let refused = Client::connect(&daemon.path()).unwrap().call(&Request::Status, LIMIT).unwrap();
    assert!(matches!(refused, Response::Error { ref message } if message.contains("32 clients")));
    drop(held);
    let begun = std::time::Instant::now();
    loop {
        let mut client = Client::connect(&daemon.path()).unwrap();
        match client.call(&Request::Status, LIMIT).unwrap() {
            Response::Done { .. } => break,
            other => assert!(begun.elapsed() < LIMIT, "still {other:?}"),
        }
    }
}

#[test]
fn the_socket_is_closed_to_other_users() {
    let daemon = Daemon::start(own_uid());
    let mode = std::fs::metadata(daemon.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_socket_nobody_answers_on_is_replaced_and_one_in_use_is_not() {
    let daemon = Daemon::start(own_uid());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let busy = ControlServer::bind(&daemon.path(), 0).unwrap_err();
    assert!(matches!(busy, ServerError::Busy { .. }), "{busy}");

    let stale = daemon.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    drop(ControlServer::bind(&stale, 0).unwrap());
    assert!(!stale.exists(), "a server removes its socket");

    let file = daemon.directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let refused = ControlServer::bind(&file, 0).unwrap_err();
    assert!(matches!(refused, ServerError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn without_a_daemon_the_error_says_what_to_do() {
    let error = Client::connect(Path::new("/nonexistent/control.sock")).unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }));
    assert!(error.to_string().contains("locum run"), "{error}");
}

#[tokio::test]
async fn a_server_knows_its_file_from_another_at_its_path_and_leaves_that_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let first = ControlServer::bind(&path, 0).unwrap();
    let place = first.place();
    assert!(place.is_held());
    std::fs::remove_file(&path).unwrap();
    assert!(!place.is_held());
    let second = ControlServer::bind(&path, 0).unwrap();
    assert!(!place.is_held() && second.place().is_held());
    drop(first);
    assert!(second.place().is_held());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_no_socket_differs_from_a_daemon_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let refused = Client::connect(directory.path()).unwrap_err();
    assert!(matches!(refused, ClientError::NotASocket { .. }), "{refused}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = Client::connect(&file).unwrap_err();
    assert!(refused.to_string().contains("is not a socket"), "{refused}");
    // What a daemon that was killed leaves.
    let left = directory.path().join("left");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let refused = Client::connect(&left).unwrap_err();
    assert!(matches!(refused, ClientError::NoDaemon { .. }), "{refused}");
}

#[test]
fn a_path_too_long_for_a_socket_is_reported_with_the_limit() {
    let long = format!("/run/{}", "x".repeat(103));
    let refused = Client::connect(Path::new(&long)).unwrap_err();
    assert!(matches!(refused, ClientError::TooLong { .. }), "{refused}");
    assert!(refused.to_string().contains("at most 107 bytes"), "{refused}");
    let longest = Client::connect(Path::new(&long[..107])).unwrap_err();
    assert!(matches!(longest, ClientError::NoDaemon { .. }), "{longest}");
}
