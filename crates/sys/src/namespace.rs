//! Namespaces: enter one, leave for a new one, name the host within it.

use crate::{Result, syscall};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A time namespace; its bit is one of clone(2)'s signal bits, so only unshare and setns take it here.
pub const CLONE_NEWTIME: i32 = 0x80;

/// `setns(2)`; `kind` is a CLONE_NEW* flag that the descriptor must match.
pub fn setns(fd: BorrowedFd, kind: i32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_setns, fd.as_raw_fd(), kind) }.map(drop)
}

/// `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_unshare, flags) }.map(drop)
}

/// `sethostname(2)`.
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall!(libc::SYS_sethostname, name.as_ptr(), name.len()) }.map(drop)
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &[u8]) -> Result<()> {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall!(libc::SYS_setdomainname, name.as_ptr(), name.len()) }.map(drop)
}
