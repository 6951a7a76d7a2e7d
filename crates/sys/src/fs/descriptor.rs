//! What is done with an open file, and with the descriptor that stands for it: read, write, lock, copy, seal, close.

use crate::{Errno, Result, own, syscall};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `ssize_t read(int fd, void *buf, size_t count)`, read(2), again after EINTR; 0 at the end.
pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the buffer is writable for the length given.
        match unsafe { syscall!(libc::SYS_read, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) } {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// `ssize_t pread(int fd, void *buf, size_t count, off_t offset)`, pread(2): from a place of the file, whose own position
/// stays. Again after EINTR; 0 at the end.
pub fn pread(fd: BorrowedFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let (number, room) = (fd.as_raw_fd(), buffer.len());
    loop {
        // SAFETY: the buffer is writable for the length given.
        match unsafe { syscall!(libc::SYS_pread64, number, buffer.as_mut_ptr(), room, offset) } {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// `ssize_t write(int fd, const void *buf, size_t count)`, write(2), again after EINTR.
pub fn write(fd: BorrowedFd, bytes: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: the slice is readable for the length given.
        match unsafe { syscall!(libc::SYS_write, fd.as_raw_fd(), bytes.as_ptr(), bytes.len()) } {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// Writes until nothing is left. Errors: EIO when the kernel takes nothing and gives no reason.
pub fn write_all(fd: BorrowedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes)? {
            0 => return Err(Errno::EIO),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// Reads until the end of the file, at most `limit` bytes (EFBIG beyond).
pub fn read_to_end(fd: BorrowedFd, limit: usize) -> Result<Vec<u8>> {
    let mut all = Vec::with_capacity(4096);
    loop {
        if all.len() == all.capacity() {
            all.reserve(all.len().max(4096));
        }
        let start = all.len();
        all.resize(all.capacity(), 0);
        let n = read(fd, &mut all[start..])?;
        all.truncate(start + n);
        if all.len() > limit {
            return Err(Errno::EFBIG);
        }
        if n == 0 {
            return Ok(all);
        }
    }
}

/// `int ftruncate(int fd, off_t length)`, truncate(2).
pub fn ftruncate(fd: BorrowedFd, length: u64) -> Result<()> {
    // SAFETY: integers only; nothing here maps files into memory, which a shorter file would take away.
    unsafe { syscall!(libc::SYS_ftruncate, fd.as_raw_fd(), length) }.map(drop)
}

/// `int fsync(int fd)`, fsync(2).
pub fn fsync(fd: BorrowedFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fsync, fd.as_raw_fd()) }.map(drop)
}

/// `int flock(int fd, int operation)`, flock(2), again after EINTR: LOCK_SH, LOCK_EX, LOCK_UN, with LOCK_NB EWOULDBLOCK
/// instead of waiting. The lock belongs to the open file, so that copies of the descriptor, a child's too, hold it as well.
pub fn flock(fd: BorrowedFd, operation: i32) -> Result<()> {
    loop {
        // SAFETY: integers only.
        match unsafe { syscall!(libc::SYS_flock, fd.as_raw_fd(), operation) } {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

/// `ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t count)`, sendfile(2), from the file's own position;
/// returns the bytes moved, 0 at the end.
pub fn sendfile(to: BorrowedFd, from: BorrowedFd, count: usize) -> Result<usize> {
    // SAFETY: integers only; the offset pointer is null, as allowed.
    unsafe { syscall!(libc::SYS_sendfile, to.as_raw_fd(), from.as_raw_fd(), 0, count) }
}

/// `int memfd_create(const char *name, unsigned int flags)`, memfd_create(2), close-on-exec.
pub fn memfd_create(name: &CStr, flags: u32) -> Result<OwnedFd> {
    // SAFETY: name is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_memfd_create, name.as_ptr(), flags | libc::MFD_CLOEXEC) }.map(own)
}

/// F_GET_SEALS, fcntl(2): F_SEAL_* bits. Errors: EINVAL for a file that cannot have any.
pub fn seals(fd: BorrowedFd) -> Result<i32> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_GET_SEALS) }.map(|s| s as i32)
}

/// F_ADD_SEALS, fcntl(2). Errors: EPERM when sealing is sealed, EBUSY when F_SEAL_WRITE meets a writable mapping.
pub fn add_seals(fd: BorrowedFd, seals: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.map(drop)
}

/// F_SETFD, fcntl(2): whether the descriptor closes at execve.
pub fn set_cloexec(fd: BorrowedFd, on: bool) -> Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_SETFD, flag) }.map(drop)
}

/// Whether this process has descriptor number `fd` open.
pub fn is_open(fd: i32) -> bool {
    // SAFETY: integers only; F_GETFD changes nothing.
    unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) }.is_ok()
}

/// Whether descriptor number `fd` is one that came through the exec that began this program: open, and not close-on-exec, as
/// all are that this program opens itself.
pub fn is_passed(fd: i32) -> bool {
    // SAFETY: integers only; F_GETFD changes nothing.
    unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) }
        .is_ok_and(|flags| flags as i32 & libc::FD_CLOEXEC == 0)
}

/// Borrows a descriptor that was open before this program began (0, 1, 2, or one that the caller passed).
/// Errors: EBADF when it is not open.
pub fn inherited(number: i32) -> Result<BorrowedFd<'static>> {
    if number < 0 || !is_open(number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is open now, not -1, and came from the caller, so no OwnedFd of this program holds or closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// `int dup3(int oldfd, int newfd, int flags)`, dup(2), onto a chosen number, without close-on-exec. What was open there is
/// closed: the number must be the caller's (0, 1, 2 before an exec), never one that an OwnedFd holds.
pub fn dup_onto(from: BorrowedFd, number: i32) -> Result<()> {
    if from.as_raw_fd() == number {
        return set_cloexec(from, false);
    }
    // SAFETY: integers only; see above for whose number that is.
    unsafe { syscall!(libc::SYS_dup3, from.as_raw_fd(), number, 0) }.map(drop)
}

/// F_DUPFD_CLOEXEC, fcntl(2): a copy numbered `least` or above.
pub fn dup_from(fd: BorrowedFd, least: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.map(own)
}

/// `int close_range(unsigned int first, unsigned int last, int flags)`, close_range(2), with CLOSE_RANGE_CLOEXEC (Linux 5.11):
/// every descriptor from `first` to `last` closes at execve.
pub fn cloexec_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: integers only; marks descriptors, closes none.
    unsafe { syscall!(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) }.map(drop)
}

/// Closes every descriptor above 2 but these: close_range(2) between them, Linux 5.9.
///
/// For a child right after its clone: it drops what the parent holds (locks among it) without the destructors, which
/// would act on what is shared with the parent. The child must not use an owner of a closed number afterwards.
pub fn close_others(keep: &mut [i32]) -> Result<()> {
    keep.sort_unstable();
    let mut first = 3u32;
    for &number in keep.iter().filter(|n| **n >= 3) {
        if number as u32 > first {
            // SAFETY: integers only; see above for whose descriptors these are.
            unsafe { syscall!(libc::SYS_close_range, first, number - 1, 0) }?;
        }
        first = first.max(number as u32 + 1);
    }
    // SAFETY: the same.
    unsafe { syscall!(libc::SYS_close_range, first, u32::MAX, 0) }.map(drop)
}

/// The path by which /proc names an open descriptor of this process.
pub fn proc_fd_path(fd: impl AsFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).expect("digits hold no NUL")
}
