//! The descriptors a process was started with: for itself, and not for the programs it starts.

use std::io;

use nix::errno::Errno;

/// The first after standard input, output and error.
const FIRST: libc::c_uint = 3;

/// Marks every open descriptor above standard error to be closed when another program is executed.
/// What the process opens itself is opened so anyway.
///
/// # Errors
/// On kernels before 5.11.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: close_range(2) takes three integers and no pointer. With this flag it closes nothing
    // and changes one flag of each descriptor, on which no value in this process depends.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    Errno::result(done)?;
    Ok(())
}
