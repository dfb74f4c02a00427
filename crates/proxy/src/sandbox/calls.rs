//! seccomp: the system calls that serving takes, and no other one.
//!
//! One that is refused is unknown (ENOSYS) to whoever tries it: a C library that would rather use
//! a newer call falls back, and no client loses its connection because of one.

use std::collections::BTreeMap;

use libc::c_long;
use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    #[error("no list of calls for this machine: {0}")]
    Filter(#[from] BackendError),
    #[error("this kernel does not filter calls (CONFIG_SECCOMP_FILTER): {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Whatever its arguments.
const ALLOWED: &[c_long] = &[
    // Sockets that are there.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // What moves through them.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_splice,
    libc::SYS_write,
    libc::SYS_writev,
    // Descriptors.
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_sched_yield,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Chance, signals that come, and the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_unlinkat,
];

/// Older forms of the same, which newer machines do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_gettimeofday,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Restricts this thread.
///
/// # Errors
/// Every call is still allowed; new privileges may have been ruled out.
pub fn restrict() -> Result<(), CallsError> {
    Ok(seccompiler::apply_filter(&program()?)?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let all = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        all.map(|call| (*call, Vec::new())).collect();
    rules.extend(limited()?);
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(Errno::ENOSYS as u32),
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}

/// With some arguments alone; one of the rules of a call must hold.
fn limited() -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let is = |argument, value: i32| condition(argument, Eq, value);
    let never_executable =
        || SeccompRule::new(vec![condition(2, MaskedEq(libc::PROT_EXEC as u64), 0)?]);
    let family = |family| SeccompRule::new(vec![is(0, family)?]);
    Ok(vec![
        (
            libc::SYS_socket,
            vec![
                family(libc::AF_INET)?,
                family(libc::AF_INET6)?,
                // How many wait at a listener.
                SeccompRule::new(vec![is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_SOCK_DIAG)?])?,
                // Which addresses there are. Without CAP_NET_ADMIN nothing can be changed by it.
                SeccompRule::new(vec![is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_ROUTE)?])?,
            ],
        ),
        (libc::SYS_ioctl, vec![SeccompRule::new(vec![condition(1, Eq, libc::FIONBIO)?])?]),
        (libc::SYS_mmap, vec![never_executable()?]),
        (libc::SYS_mprotect, vec![never_executable()?]),
        // By which a process ends itself when it has found itself in disorder.
        (libc::SYS_tgkill, vec![SeccompRule::new(vec![is(0, nix::unistd::getpid().as_raw())?])?]),
    ])
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: impl TryInto<u64>,
) -> Result<SeccompCondition, BackendError> {
    // None of the values above is negative.
    let value = value.try_into().unwrap_or(u64::MAX);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use locum_kernel::sock_diag::SockDiag;
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn connections_are_served_and_nothing_else_is_done() {
        // The thread alone is restricted, and ends.
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("new");
        let tried = thread::spawn(move || {
            restrict().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            if let Ok(mut kernel) = SockDiag::open() {
                let _ = kernel.listeners(listener.local_addr().unwrap().port());
            }
            assert!(nix::ifaddrs::getifaddrs().unwrap().next().is_some());
            let refused = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::ENOSYS as i32));
            };
            refused(File::open("/dev/null").map(drop));
            refused(File::create(new).map(drop));
            refused(Command::new("true").spawn().map(drop));
            refused(UnixStream::connect("/nowhere").map(drop));
            refused(Socket::new(Domain::PACKET, Type::RAW, None).map(drop));
            refused(thread::Builder::new().spawn(|| ()).map(drop));
        });
        tried.join().unwrap();
    }
}
