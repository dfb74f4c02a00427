//! Waits for descriptors and a moment, whichever comes first: one epoll for all of them.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::ppoll;
use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;
use nix::sys::time::TimeSpec;

/// Descriptors reported by one call; those beyond have their turn in the next.
const EVENTS: usize = 64;

/// Each descriptor stays registered until it is removed, and is reported while there is something
/// to read.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    /// The kernel has `epoll_pwait2` (5.11): time limits of nanoseconds in one call.
    precise: bool,
}

impl Poller {
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS], precise: true })
    }

    /// From now on the descriptor is reported as `token`.
    ///
    /// # Errors
    /// When the kernel's limit on watches is reached.
    pub fn add(&self, descriptor: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Reports it no more.
    ///
    /// # Errors
    /// When it is not registered.
    pub fn remove(&self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(descriptor)?)
    }

    /// Tokens of the descriptors that have something to read or an error, when there is one, or
    /// none when `limit` has passed; `None` waits for ever. A signal ends the wait too.
    pub fn wait(&mut self, limit: Option<Duration>) -> impl Iterator<Item = u64> + '_ {
        let count = self.wait_precisely(limit).unwrap_or_else(|| self.wait_in_two_steps(limit));
        self.events.iter().take(count).map(EpollEvent::data)
    }

    /// `None` when the kernel cannot.
    fn wait_precisely(&mut self, limit: Option<Duration>) -> Option<usize> {
        if !self.precise {
            return None;
        }
        let limit = limit.map(KernelTime::from);
        let pointer = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `EpollEvent` is the kernel's structure (transparent over `epoll_event`), of which
        // there are as many as is said; the time limit is null or outlives the call; without a
        // signal mask its size is not looked at.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS as libc::c_int,
                pointer,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Some(count),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) => {
                self.precise = false;
                None
            }
            // A signal: the caller looks at everything and waits again.
            Err(_) => Some(0),
        }
    }

    /// An epoll can be polled itself, by a call that knows nanoseconds.
    fn wait_in_two_steps(&mut self, limit: Option<Duration>) -> usize {
        let mut epoll = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut epoll, limit.map(TimeSpec::from), None) {
            Ok(0) | Err(_) => 0,
            Ok(_) => self.epoll.wait(&mut self.events, EpollTimeout::ZERO).unwrap_or(0),
        }
    }
}

/// Until this descriptor has something to read, or the time has passed.
pub fn wait_for(descriptor: &impl AsFd, limit: Duration) {
    let mut only = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    // After a signal the caller looks at everything and waits again.
    let _ = ppoll(&mut only, Some(TimeSpec::from(limit)), None);
}

/// The kernel's own structure, which is of 64 bits everywhere.
#[repr(C)]
struct KernelTime {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for KernelTime {
    fn from(span: Duration) -> Self {
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanoseconds: span.subsec_nanos().into() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    /// The same expectations of both ways to wait.
    fn each(test: impl Fn(Poller)) {
        for precise in [true, false] {
            let mut poller = Poller::new().unwrap();
            poller.precise &= precise;
            test(poller);
        }
    }

    #[test]
    fn what_can_be_read_is_reported_until_it_is_removed() {
        each(|mut poller| {
            let (mut one, watched) = UnixStream::pair().unwrap();
            let (_other, silent) = UnixStream::pair().unwrap();
            poller.add(&watched, 7).unwrap();
            poller.add(&silent, 8).unwrap();
            assert_eq!(poller.wait(Some(Duration::ZERO)).count(), 0);
            one.write_all(b"x").unwrap();
            for _ in 0..2 {
                assert_eq!(poller.wait(None).collect::<Vec<_>>(), [7]);
            }
            poller.remove(&watched).unwrap();
            assert_eq!(poller.wait(Some(Duration::ZERO)).count(), 0);
        });
    }

    #[test]
    fn a_wait_ends_at_its_limit_and_not_before() {
        each(|mut poller| {
            let limit = Duration::from_micros(1500);
            let begin = Instant::now();
            assert_eq!(poller.wait(Some(limit)).count(), 0);
            assert!(begin.elapsed() >= limit);
        });
    }
}
