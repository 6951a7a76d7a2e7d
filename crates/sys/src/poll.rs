//! Waiting for descriptors, and pipes.

use crate::{Errno, Result, own, syscall};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `int poll(struct pollfd *fds, nfds_t nfds, int timeout)`, poll(2): what is ready of each descriptor, in order (POLLIN,
/// POLLHUP, ...); all zero when the time (milliseconds, -1 for ever) ran out. EINTR counts as nothing ready.
pub fn poll(wanted: &[(BorrowedFd, i16)], timeout: i32) -> Result<Vec<i16>> {
    let mut set: Vec<libc::pollfd> = wanted
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    // SAFETY: set is an array of that many pollfds, writable through the call.
    match unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) } {
        r if r >= 0 => Ok(set.iter().map(|p| p.revents).collect()),
        _ if Errno::last() == Errno::EINTR => Ok(vec![0; wanted.len()]),
        _ => Err(Errno::last()),
    }
}

/// `int pipe2(int pipefd[2], int flags)`, pipe(2), close-on-exec: the end to read, the end to write.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    unsafe { syscall!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC) }?;
    Ok((own(ends[0] as usize), own(ends[1] as usize)))
}

/// `int eventfd(unsigned int initval, int flags)`, eventfd(2), close-on-exec: a counter that starts at 0, and is ready when
/// it is more.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_eventfd2, 0, libc::EFD_CLOEXEC) }.map(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_is_ready_when_something_is_in_it_and_hangs_up_at_its_end() {
        let (read, write) = pipe().expect("pipe");
        let ready = || poll(&[(read.as_fd(), libc::POLLIN)], 0).expect("poll")[0];
        assert_eq!(ready(), 0);
        fs::write_all(write.as_fd(), b"x").expect("write");
        assert_eq!(ready(), libc::POLLIN);
        let mut one = [0; 4];
        assert_eq!(fs::read(read.as_fd(), &mut one), Ok(1));
        drop(write);
        assert_eq!(ready(), libc::POLLHUP);
    }

    #[test]
    fn descriptors_close_at_exec() {
        let (read, write) = pipe().expect("pipe");
        for fd in [read.as_fd(), write.as_fd()] {
            let info =
                std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).expect("fdinfo");
            let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).expect("flags").trim();
            let flags = i32::from_str_radix(flags, 8).expect("octal");
            assert_ne!(flags & libc::O_CLOEXEC, 0);
        }
    }
}
