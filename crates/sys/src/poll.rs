//! Waiting for descriptors, and pipes.

use crate::{Errno, Result, own, syscall};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `poll(2)`: what is ready of each descriptor, in order (POLLIN, POLLHUP, ...); all zero when the time
/// (milliseconds, -1 for ever) ran out. EINTR counts as nothing ready.
pub fn poll(wanted: &[(BorrowedFd, i16)], timeout: i32) -> Result<Vec<i16>> {
    let mut set: Vec<libc::pollfd> = wanted
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    // SAFETY: set is an array of that many pollfds.
    match unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) } {
        r if r >= 0 => Ok(set.iter().map(|p| p.revents).collect()),
        _ if Errno::last() == Errno::EINTR => Ok(vec![0; wanted.len()]),
        _ => Err(Errno::last()),
    }
}

/// `pipe2(2)`, close-on-exec: the end to read, the end to write.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    unsafe { syscall!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC) }?;
    Ok((own(ends[0] as usize), own(ends[1] as usize)))
}
