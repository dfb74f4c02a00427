//! HTTP/2 on the wire: one request on a connection of its own.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use locum_plan::HttpPage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::super::{Answer, WaitingFor};
use super::one::{HEAD_BYTES, broken};
use super::wanted::WantedBody;

const READING: WaitingFor = "its body did not end";

/// Window of a stream and of the connection: what a server may send that nobody has read.
const WINDOW: u32 = 64 * 1024;

/// Asks on this connection, which is closed afterwards.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    scheme: &str,
    host: &str,
    page: &HttpPage,
    mut wanted: WantedBody<'_>,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let payload = page.payload.clone().unwrap_or_default();
    let request = Request::builder()
        .method(page.method.name())
        .uri(format!("{scheme}://{host}{}", page.path))
        .header(header::USER_AGENT, "locum")
        .header(header::ACCEPT, "*/*")
        .body(Full::new(Bytes::from(payload)))
        .map_err(|error| Answer::unasked(format!("cannot ask for {}: {error}", page.path)))?;
    let connection = Connection::open(stream).await?;
    let response = connection.send(request).await?;
    let status = response.status().as_u16();
    if let Some(answer) = wanted.judge_status(status) {
        return Ok(answer);
    }
    *stage = READING;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| describe(&error))?;
        if let Some(data) = frame.data_ref()
            && wanted.take(data)?
        {
            break;
        }
    }
    Ok(wanted.judge(status))
}

/// A connection and the tasks that serve it, which end with it.
pub(crate) struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    _tasks: Arc<ConnectionTasks>,
}

impl Connection {
    pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
    ) -> Result<Self, Answer> {
        let tasks = Arc::<ConnectionTasks>::default();
        let executor = TiedExecutor(Arc::downgrade(&tasks));
        let (sender, connection) = http2::Builder::new(executor.clone())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEAD_BYTES as u32)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| describe(&error))?;
        executor.execute(async {
            let _reported_by_the_request_too = connection.await;
        });
        Ok(Self { sender, _tasks: tasks })
    }

    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Answer> {
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| describe(&error))?;
        sender.send_request(request).await.map_err(|error| describe(&error))
    }
}

/// Tasks that end when nobody holds this any more: a server that never closes must not keep a run's
/// connection alive.
type ConnectionTasks = Mutex<JoinSet<()>>;

/// Does not hold them: the tasks have it themselves, and would never end.
#[derive(Clone)]
struct TiedExecutor(Weak<ConnectionTasks>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for TiedExecutor {
    fn execute(&self, future: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(future);
        }
    }
}

/// Says what went wrong, without the wrapping of the library.
pub(crate) fn describe(error: &hyper::Error) -> Answer {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return broken(error);
        }
        if inner.source().is_none() {
            return Answer::fail(format!("not an HTTP/2 response: {inner}"));
        }
        source = inner.source();
    }
    Answer::fail(format!("not an HTTP/2 response: {error}"))
}
