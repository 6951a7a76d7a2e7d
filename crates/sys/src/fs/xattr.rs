//! Extended attributes: xattr(7). None of these follows a last symbolic link. To stay within an open directory, name the
//! file by [`super::proc_fd_path`] of that directory with one component more: only links of /proc are followed then.

use crate::{Errno, Result, syscall};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)`, setxattr(2): not for O_PATH
/// descriptors (EBADF).
pub fn fsetxattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> Result<()> {
    let (bytes, size) = (value.as_ptr(), value.len());
    // SAFETY: name is terminated, value readable for its length.
    unsafe { syscall!(libc::SYS_fsetxattr, fd.as_raw_fd(), name.as_ptr(), bytes, size, 0) }.map(drop)
}

/// `int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)`, setxattr(2).
pub fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    let (bytes, size) = (value.as_ptr(), value.len());
    // SAFETY: both strings terminated, value readable for its length.
    unsafe { syscall!(libc::SYS_lsetxattr, path.as_ptr(), name.as_ptr(), bytes, size, 0) }.map(drop)
}

/// `ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)`, getxattr(2).
/// Errors: ENODATA when there is none of that name, EOPNOTSUPP.
pub fn lgetxattr(path: &CStr, name: &CStr) -> Result<Vec<u8>> {
    // SAFETY: both strings terminated; the callee's room is writable for its length.
    whole(|to, size| unsafe { syscall!(libc::SYS_lgetxattr, path.as_ptr(), name.as_ptr(), to, size) })
}

/// `ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)`, getxattr(2).
pub fn fgetxattr(fd: BorrowedFd, name: &CStr) -> Result<Vec<u8>> {
    // SAFETY: name is terminated; the callee's room is writable for its length.
    whole(|to, size| unsafe { syscall!(libc::SYS_fgetxattr, fd.as_raw_fd(), name.as_ptr(), to, size) })
}

/// `ssize_t flistxattr(int fd, char *list, size_t size)`, listxattr(2): the names, in the kernel's order.
pub fn flistxattr(fd: BorrowedFd) -> Result<Vec<CString>> {
    // SAFETY: the callee's room is writable for its length.
    names(&whole(|to, size| unsafe { syscall!(libc::SYS_flistxattr, fd.as_raw_fd(), to, size) })?)
}

/// `ssize_t llistxattr(const char *path, char *list, size_t size)`, listxattr(2): the names, in the kernel's order.
pub fn llistxattr(path: &CStr) -> Result<Vec<CString>> {
    // SAFETY: path is terminated; the callee's room is writable for its length.
    names(&whole(|to, size| unsafe { syscall!(libc::SYS_llistxattr, path.as_ptr(), to, size) })?)
}

fn names(list: &[u8]) -> Result<Vec<CString>> {
    list.split_inclusive(|byte| *byte == 0)
        .map(|name| CString::from_vec_with_nul(name.to_vec()).map_err(|_| Errno::EIO))
        .collect()
}

/// A value whose size is asked for first (with room for nothing), and again when it has grown in between (ERANGE).
fn whole(mut call: impl FnMut(*mut u8, usize) -> Result<usize>) -> Result<Vec<u8>> {
    loop {
        let mut value = vec![0u8; call(std::ptr::null_mut(), 0)?];
        match call(value.as_mut_ptr(), value.len()) {
            Ok(n) if n <= value.len() => {
                value.truncate(n);
                return Ok(value);
            }
            Ok(_) | Err(Errno::ERANGE) => continue, // it was empty when asked, and is not any more; or it grew
            Err(e) => return Err(e),
        }
    }
}
