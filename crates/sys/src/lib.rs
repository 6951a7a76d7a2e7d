//! The kernel's interface, and the only crate of Coracle with `unsafe` code.
//!
//! What belongs here: one function per syscall (or one thin use of nix), `Errno` out, no fallback inside, no word
//! of the OCI specifications. File descriptors are owned or borrowed, never bare integers, and close-on-exec.
//! What does not: policy, messages, a decision between two ways of doing a thing.
//!
//! Each function's doc gives the C signature and the man page. Pages of section 2 and 3 are those of Linux man-pages;
//! "Linux 5.8" is the first kernel that has the call; before it the call fails with `ENOSYS` unless said otherwise.
//!
//! Three invariants carry most of the `unsafe` blocks:
//! 1. A `&CStr` is terminated and a slice is readable (`&mut`: writable) for its length, both for as long as the borrow,
//!    which outlasts the call; the kernel keeps no pointer of ours after a syscall returns.
//! 2. A syscall that takes integers only cannot touch memory of ours.
//! 3. A structure that the kernel extends from version to version is passed with its size, whole, and zeroed before it is
//!    filled. Where the kernel writes without regard for that size, it is passed larger than any kernel's (see [`bpf`]).

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the kernel structures here are laid out for 64-bit Linux");

pub mod bpf;
pub mod creds;
#[doc(hidden)]
pub mod entry;
pub mod fs;
pub mod keyring;
pub mod limits;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod poll;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tty;

#[cfg(test)]
mod guard;

pub use libc;
pub use nix::errno::Errno;

/// What every function of this crate returns: the value, or the errno that the kernel gave.
pub type Result<T> = std::result::Result<T, Errno>;

/// One raw syscall; the result is the kernel's, -1 turned into `Errno`. `long syscall(long number, ...)`, syscall(2).
///
/// # Safety
/// Every pointer argument must be valid for what this syscall reads or writes through it.
pub(crate) unsafe fn syscall6(number: libc::c_long, a: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller vouches for the pointers; glibc's syscall(2) wrapper takes any six words.
    let r = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if r < 0 { Err(Errno::last()) } else { Ok(r as usize) }
}

/// `syscall!(SYS_x, a, b, ...)`: up to six words, the missing ones zero.
macro_rules! syscall {
    ($number:expr $(, $arg:expr)* $(,)?) => {{
        let given = [$($arg as usize),*];
        let mut words = [0usize; 6];
        words[..given.len()].copy_from_slice(&given);
        $crate::syscall6($number, words)
    }};
}
pub(crate) use syscall;

/// Takes ownership of a descriptor number that a syscall has just returned.
pub(crate) fn own(fd: usize) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: called only with the fresh descriptor that a successful syscall returned; nobody else owns it.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) }
}
