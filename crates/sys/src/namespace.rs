//! Namespaces: enter one, leave for a new one, ask what one is, name the host within it. namespaces(7).
//!
//! The new namespaces of a child are flags of [`crate::process::clone3`].

use crate::{Result, own, syscall};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A time namespace (Linux 5.6); its bit is one of clone(2)'s signal bits, so only unshare and setns take it here.
pub const CLONE_NEWTIME: i32 = 0x80;

/// `int setns(int fd, int nstype)`, setns(2). `kind` is the CLONE_NEW* flag that the descriptor must be of (EINVAL
/// otherwise); with a pidfd it is a set of them (Linux 5.8). A pid or time namespace counts for the next child only.
pub fn setns(fd: BorrowedFd, kind: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setns, fd.as_raw_fd(), kind) }.map(drop)
}

/// `int unshare(int flags)`, unshare(2). A pid or time namespace counts for the next child only.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_unshare, flags) }.map(drop)
}

/// NS_GET_NSTYPE, ioctl_nsfs(2): the CLONE_NEW* flag of an open namespace file (Linux 4.11). Errors: ENOTTY for
/// a file that is no namespace.
pub fn kind(fd: BorrowedFd) -> Result<i32> {
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: this request takes no argument.
    unsafe { syscall!(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_NSTYPE) }.map(|r| r as i32)
}

/// NS_GET_USERNS, ioctl_nsfs(2): the user namespace that owns an open namespace (Linux 4.9), close-on-exec.
/// Errors: EPERM when that one lies outside of the caller's; ENOTTY for a file that is no namespace.
pub fn owner(fd: BorrowedFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: u32 = 0xb701;
    // SAFETY: this request takes no argument.
    unsafe { syscall!(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_USERNS) }.map(own)
}

/// `int sethostname(const char *name, size_t len)`, sethostname(2). Errors: EINVAL for more than 64 bytes.
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall!(libc::SYS_sethostname, name.as_ptr(), name.len()) }.map(drop)
}

/// `int setdomainname(const char *name, size_t len)`, setdomainname(2). Errors: EINVAL for more than 64 bytes.
pub fn setdomainname(name: &[u8]) -> Result<()> {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall!(libc::SYS_setdomainname, name.as_ptr(), name.len()) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, fs};
    use std::os::fd::AsFd;

    #[test]
    fn a_namespace_file_says_what_it_is() {
        for (path, flag) in
            [(c"/proc/self/ns/mnt", libc::CLONE_NEWNS), (c"/proc/self/ns/user", libc::CLONE_NEWUSER)]
        {
            let file = fs::open(path, libc::O_RDONLY, 0).expect("namespace file");
            assert_eq!(kind(file.as_fd()), Ok(flag));
        }
    }

    #[test]
    fn another_file_is_no_namespace() {
        let file = fs::open(c"/dev/null", libc::O_RDONLY, 0).expect("/dev/null");
        assert_eq!(kind(file.as_fd()), Err(Errno::ENOTTY));
        assert_eq!(owner(file.as_fd()).err(), Some(Errno::ENOTTY));
        assert_eq!(setns(file.as_fd(), libc::CLONE_NEWNS), Err(Errno::EINVAL));
    }

    #[test]
    fn the_owner_is_a_user_namespace() {
        let file = fs::open(c"/proc/self/ns/uts", libc::O_RDONLY, 0).expect("namespace file");
        match owner(file.as_fd()) {
            Ok(fd) => assert_eq!(kind(fd.as_fd()), Ok(libc::CLONE_NEWUSER)),
            Err(e) => assert_eq!(e, Errno::EPERM, "only a namespace of an outer user namespace is refused"),
        }
    }
}
