//! Opens, joins and closes advert sockets, on a thread of its own: all of that waits for the
//! kernel's lock on its interfaces, which another program may hold for seconds.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use locum_kernel::advert_socket::{AdvertSettings, AdvertSocket};

/// Requests waiting: a few for every interface of a large node. Without room the one who asks tries
/// again later.
const QUEUE_REQUESTS: usize = 1024;

/// It calls the kernel and keeps nothing.
const STACK_BYTES: usize = 256 * 1024;

/// The two sockets of one interface and family. They share what arrives by its source, so that
/// other senders, however many, leave the masters' adverts their room.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// Hears the masters that our instances follow.
    pub masters: Arc<AdvertSocket>,
    /// Hears everybody else, and sends.
    pub others: Arc<AdvertSocket>,
}

#[derive(Debug)]
pub enum OpenerRequest {
    Open(Box<Opening>),
    /// Join the groups afresh. What stays wrong shows as silence, which the engine handles.
    Rejoin(Lanes, Vec<IpAddr>),
    /// The last to hold a socket closes it.
    Close(Lanes),
}

/// What to open, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Handed back with the result.
    pub entry: u64,
    pub masters: AdvertSettings,
    pub others: AdvertSettings,
}

/// The answer to a [`OpenerRequest::Open`].
#[derive(Debug)]
pub struct Opened {
    pub opening: Opening,
    pub result: io::Result<Lanes>,
}

/// Way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Opener {
    requests: SyncSender<OpenerRequest>,
}

impl Opener {
    /// `open` opens one socket and may take its time; `deliver` takes every answer.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        open: impl Fn(&AdvertSettings) -> io::Result<AdvertSocket> + Send + 'static,
        deliver: impl Fn(Opened) + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, asked) = sync_channel(QUEUE_REQUESTS);
        thread::Builder::new()
            .name("sockets".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&asked, open, deliver))?;
        Ok(Self { requests })
    }

    /// # Errors
    /// The request, when there is no room.
    pub fn ask(&self, request: OpenerRequest) -> Result<(), OpenerRequest> {
        // The thread ends after this, so there is no other reason.
        self.requests.try_send(request).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(request)
            | std::sync::mpsc::TrySendError::Disconnected(request) => request,
        })
    }
}

fn run(
    asked: &Receiver<OpenerRequest>,
    open: impl Fn(&AdvertSettings) -> io::Result<AdvertSocket>,
    deliver: impl Fn(Opened),
) {
    while let Ok(request) = asked.recv() {
        match request {
            OpenerRequest::Open(opening) => {
                let both = || {
                    let masters = Arc::new(open(&opening.masters)?);
                    Ok(Lanes { masters, others: Arc::new(open(&opening.others)?) })
                };
                let result = both();
                deliver(Opened { opening: *opening, result });
            }
            OpenerRequest::Rejoin(lanes, groups) => {
                for group in groups {
                    let _ = lanes.masters.rejoin(group);
                    let _ = lanes.others.rejoin(group);
                }
            }
            OpenerRequest::Close(lanes) => drop(lanes),
        }
    }
}
