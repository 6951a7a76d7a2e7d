//! Signals of this process: mask, dispositions, signals read from a descriptor. signal(7). One is handled here.

use crate::{Errno, Result, own, syscall};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Bytes of the kernel's signal set: a bit per signal, number - 1. (The C library's is larger.)
const SET: usize = size_of::<u64>();

/// Blocks every signal that can be; returns the mask before, a bit per signal (number - 1).
pub fn block_all() -> Result<u64> {
    set_mask(u64::MAX)
}

/// `int rt_sigprocmask(int how, const sigset_t *set, sigset_t *old, size_t size)`, sigprocmask(2), SIG_SETMASK; returns the
/// mask before. Of the calling thread.
pub fn set_mask(mask: u64) -> Result<u64> {
    let mut old = 0u64;
    // SAFETY: both are kernel signal sets of the size given, and live through the call.
    unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, SET) }?;
    Ok(old)
}

/// Gives every signal its default action, as a new program expects: an ignored one would stay ignored at execve.
/// By `rt_sigaction(2)` itself: the C library refuses the two signals that it keeps for itself (32, 33), but a caller
/// may have ignored them.
pub fn default_actions() {
    const STRUCT_SIGACTION: [usize; 4] = [0; 4]; // handler (SIG_DFL is 0), flags, restorer, mask
    for number in 1..=64 {
        // SAFETY: a whole kernel sigaction, all zero: SIG_DFL, which installs no code. No old one is asked for.
        // SIGKILL and SIGSTOP are refused, and have their default action anyway.
        let _ = unsafe { syscall!(libc::SYS_rt_sigaction, number, STRUCT_SIGACTION.as_ptr(), 0, SET) };
    }
}

/// Has SIGTERM end this process, with status 143, even where it is the init of a pid namespace: to that one the kernel
/// delivers only signals that it handles (pid_namespaces(7)). execve(2) takes the handler off.
pub fn end_on_sigterm() {
    extern "C" fn end(number: i32) {
        // SAFETY: _exit(2) is async-signal-safe, and does not return.
        unsafe { libc::_exit(128 + number) }
    }
    // SAFETY: all zero is a sigaction without flags and with an empty mask; the handler is a function of the type that one
    // without SA_SIGINFO must have, and makes one async-signal-safe call. No old action is asked for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut());
    }
}

/// `int signalfd4(int fd, const sigset_t *mask, size_t size, int flags)`, signalfd(2), for all signals, close-on-exec.
/// It gives those that are blocked.
pub fn signalfd() -> Result<OwnedFd> {
    let mask = u64::MAX;
    // SAFETY: a kernel signal set of the size given, alive through the call.
    unsafe { syscall!(libc::SYS_signalfd4, -1i32, &raw const mask, SET, libc::SFD_CLOEXEC) }.map(own)
}

/// The next signal's number from a signalfd: the first field of struct signalfd_siginfo.
pub fn next_signal(fd: BorrowedFd) -> Result<i32> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    let n = crate::fs::read(fd, &mut info)?;
    if n < 4 {
        return Err(Errno::EIO);
    }
    Ok(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}

/// A signal's number by its name without SIG: signal(7).
pub fn number(name: &str) -> Option<i32> {
    use std::str::FromStr;
    nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        assert_eq!(
            (number("KILL"), number("TERM"), number("WINCH")),
            (Some(9), Some(15), Some(libc::SIGWINCH))
        );
        assert_eq!((number("SIGKILL"), number("kill"), number("")), (None, None, None));
    }

    #[test]
    fn the_mask_is_this_threads_and_reads_back() {
        // In a thread of its own, since others must keep theirs.
        std::thread::spawn(|| {
            let before = block_all().expect("block");
            let unblockable = 1u64 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
            assert_eq!(set_mask(before).expect("restore"), !unblockable);
        })
        .join()
        .expect("thread");
    }
}
