//! Signals of this process.

use crate::{Errno, Result, own, syscall};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Blocks every signal; returns the mask before, a bit per signal (number - 1).
pub fn block_all() -> Result<u64> {
    set_mask(u64::MAX)
}

/// `rt_sigprocmask(2)` SIG_SETMASK; returns the mask before.
pub fn set_mask(mask: u64) -> Result<u64> {
    let mut old = 0u64;
    // SAFETY: both are kernel signal sets of eight bytes.
    unsafe {
        syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &mask as *const u64, &mut old as *mut u64, 8)
    }?;
    Ok(old)
}

/// Gives every signal its default action, as a new program expects: an ignored one would stay ignored at execve.
pub fn default_actions() {
    for number in 1..=64 {
        // SAFETY: SIG_DFL installs no code; the numbers that cannot be changed are refused by the kernel.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// `signalfd4(2)` for all signals, close-on-exec.
pub fn signalfd() -> Result<OwnedFd> {
    let mask = u64::MAX;
    // SAFETY: a kernel signal set of eight bytes.
    unsafe { syscall!(libc::SYS_signalfd4, -1i32, &mask as *const u64, 8, libc::SFD_CLOEXEC) }.map(own)
}

/// The next signal's number from a signalfd.
pub fn next_signal(fd: BorrowedFd) -> Result<i32> {
    let mut info = [0u8; 128];
    // SAFETY: room for one signalfd_siginfo (128 bytes).
    let n = unsafe { syscall!(libc::SYS_read, fd.as_raw_fd(), info.as_mut_ptr(), info.len()) }?;
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
