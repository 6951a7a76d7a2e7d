//! Files and directories, always relative to a descriptor: open, make, link, change, read, write.

use crate::{Errno, Result, own, syscall};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Resolve as if the directory were the root: `..` and absolute links stay inside. openat2(2).
pub const RESOLVE_IN_ROOT: u64 = libc::RESOLVE_IN_ROOT;
/// Refuse a path that leaves the directory. openat2(2).
pub const RESOLVE_BENEATH: u64 = libc::RESOLVE_BENEATH;
/// Refuse every symbolic link on the way. openat2(2).
pub const RESOLVE_NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;
/// Refuse links of the /proc/self/fd kind. openat2(2).
pub const RESOLVE_NO_MAGICLINKS: u64 = libc::RESOLVE_NO_MAGICLINKS;
/// Refuse to cross a mount. openat2(2).
pub const RESOLVE_NO_XDEV: u64 = libc::RESOLVE_NO_XDEV;

/// The working directory, as the *at syscalls name it (AT_FDCWD).
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor but a constant that every *at syscall understands; it never closes.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// `openat2(2)`, close-on-exec.
pub fn openat2(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain integers, for which all-zero is a value (and what the kernel wants of unknown fields).
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    let size = std::mem::size_of::<libc::open_how>();
    // SAFETY: path is a terminated string and how a whole open_how; both outlive the call.
    unsafe {
        syscall!(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &how as *const libc::open_how, size)
    }
    .map(own)
}

/// `openat(2)`, close-on-exec.
pub fn openat(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_openat, dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) }
        .map(own)
}

/// `open(2)`, close-on-exec.
pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(cwd(), path, flags, mode)
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: BorrowedFd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_mkdirat, dir.as_raw_fd(), path.as_ptr(), mode) }.map(drop)
}

/// `mknodat(2)`: `mode` holds the type bits (S_IFCHR, S_IFBLK, S_IFIFO, S_IFREG) and the permissions.
pub fn mknodat(dir: BorrowedFd, path: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    let dev = libc::makedev(major, minor);
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_mknodat, dir.as_raw_fd(), path.as_ptr(), mode, dev) }.map(drop)
}

/// `symlinkat(2)`.
pub fn symlinkat(target: &CStr, dir: BorrowedFd, path: &CStr) -> Result<()> {
    // SAFETY: both paths are terminated strings that outlive the call.
    unsafe { syscall!(libc::SYS_symlinkat, target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) }.map(drop)
}

/// `readlinkat(2)`; an empty path reads the link that an O_PATH descriptor is open on.
pub fn readlinkat(dir: BorrowedFd, path: &CStr) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length given.
    let n = unsafe {
        syscall!(libc::SYS_readlinkat, dir.as_raw_fd(), path.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    }?;
    buffer.truncate(n);
    Ok(buffer)
}

/// `unlinkat(2)`; `flags` is 0 or AT_REMOVEDIR.
pub fn unlinkat(dir: BorrowedFd, path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_unlinkat, dir.as_raw_fd(), path.as_ptr(), flags) }.map(drop)
}

/// `renameat2(2)`, replacing what stands there.
pub fn renameat(dir: BorrowedFd, from: &CStr, dir2: BorrowedFd, to: &CStr) -> Result<()> {
    // SAFETY: both paths are terminated strings that outlive the call.
    unsafe { syscall!(libc::SYS_renameat2, dir.as_raw_fd(), from.as_ptr(), dir2.as_raw_fd(), to.as_ptr(), 0) }
        .map(drop)
}

/// `linkat(2)`; `flags` 0 never follows a symbolic link.
pub fn linkat(dir: BorrowedFd, from: &CStr, dir2: BorrowedFd, to: &CStr, flags: i32) -> Result<()> {
    // SAFETY: both paths are terminated strings that outlive the call.
    unsafe {
        syscall!(libc::SYS_linkat, dir.as_raw_fd(), from.as_ptr(), dir2.as_raw_fd(), to.as_ptr(), flags)
    }
    .map(drop)
}

/// What fstat(2) tells of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device that holds the inode.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u64,
    /// Owner, as seen in this user namespace.
    pub uid: u32,
    /// Group, as seen in this user namespace.
    pub gid: u32,
    /// Major number, of a device node.
    pub rdev_major: u32,
    /// Minor number, of a device node.
    pub rdev_minor: u32,
    /// Bytes.
    pub size: i64,
}

impl Stat {
    /// The type bits (S_IFDIR, S_IFREG, ...).
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// `fstat(2)`.
pub fn fstat(fd: BorrowedFd) -> Result<Stat> {
    fstatat(fd, c"", libc::AT_EMPTY_PATH)
}

/// `newfstatat(2)`.
pub fn fstatat(dir: BorrowedFd, path: &CStr, flags: i32) -> Result<Stat> {
    let mut out = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: out is room for one stat; path is a terminated string.
    if unsafe { libc::fstatat(dir.as_raw_fd(), path.as_ptr(), out.as_mut_ptr(), flags) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel has filled it; and all-zero is a value of stat.
    let s = unsafe { out.assume_init() };
    Ok(Stat {
        dev: s.st_dev,
        ino: s.st_ino,
        mode: s.st_mode,
        nlink: s.st_nlink,
        uid: s.st_uid,
        gid: s.st_gid,
        rdev_major: libc::major(s.st_rdev),
        rdev_minor: libc::minor(s.st_rdev),
        size: s.st_size,
    })
}

/// `fstatfs(2)`: the file system's magic number.
pub fn file_system(fd: BorrowedFd) -> Result<i64> {
    let mut out = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: out is room for one statfs.
    if unsafe { libc::fstatfs(fd.as_raw_fd(), out.as_mut_ptr()) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel has filled it.
    Ok(unsafe { out.assume_init() }.f_type)
}

/// `fchmod(2)`: not for O_PATH descriptors.
pub fn fchmod(fd: BorrowedFd, mode: u32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fchmod, fd.as_raw_fd(), mode) }.map(drop)
}

/// `fchmodat(2)`, following a symbolic link at the end of `path`.
pub fn fchmodat(dir: BorrowedFd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_fchmodat, dir.as_raw_fd(), path.as_ptr(), mode) }.map(drop)
}

/// `fchownat(2)`; `u32::MAX` leaves an id as it is.
pub fn fchownat(dir: BorrowedFd, path: &CStr, uid: u32, gid: u32, flags: i32) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_fchownat, dir.as_raw_fd(), path.as_ptr(), uid, gid, flags) }.map(drop)
}

/// `faccessat2(2)`.
pub fn faccessat2(dir: BorrowedFd, path: &CStr, mode: i32, flags: i32) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_faccessat2, dir.as_raw_fd(), path.as_ptr(), mode, flags) }.map(drop)
}

/// `read(2)`, again after EINTR.
pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the buffer is writable for the length given.
        match unsafe { syscall!(libc::SYS_read, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) } {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// `write(2)`, again after EINTR.
pub fn write(fd: BorrowedFd, bytes: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: the slice is readable for the length given.
        match unsafe { syscall!(libc::SYS_write, fd.as_raw_fd(), bytes.as_ptr(), bytes.len()) } {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// Writes until nothing is left.
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

/// `fchdir(2)`.
pub fn fchdir(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fchdir, fd.as_raw_fd()) }.map(drop)
}

/// `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_chdir, path.as_ptr()) }.map(drop)
}

/// `chroot(2)`.
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_chroot, path.as_ptr()) }.map(drop)
}

/// `getcwd(2)`: the kernel's own text, which begins with "(unreachable)" when the directory is outside the root.
pub fn getcwd() -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length given.
    let n = unsafe { syscall!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    buffer.truncate(n.saturating_sub(1));
    Ok(buffer)
}

/// `umask(2)`; returns the mask before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail and touches no memory of ours.
    unsafe { libc::umask(mask) }
}

/// `flock(2)`.
pub fn flock(fd: BorrowedFd, operation: i32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_flock, fd.as_raw_fd(), operation) }.map(drop)
}

/// `fcntl(2)` F_SETFD: whether the descriptor closes at execve.
pub fn set_cloexec(fd: BorrowedFd, on: bool) -> Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_SETFD, flag) }.map(drop)
}

/// Whether this process has descriptor number `fd` open.
pub fn is_open(fd: i32) -> bool {
    // SAFETY: plain integers; F_GETFD changes nothing.
    unsafe { syscall!(libc::SYS_fcntl, fd, libc::F_GETFD) }.is_ok()
}

/// `fcntl(2)` F_GET_SEALS.
pub fn seals(fd: BorrowedFd) -> Result<i32> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_GET_SEALS) }.map(|s| s as i32)
}

/// `fcntl(2)` F_ADD_SEALS.
pub fn add_seals(fd: BorrowedFd, seals: i32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.map(drop)
}

/// `memfd_create(2)`, close-on-exec.
pub fn memfd_create(name: &CStr, flags: u32) -> Result<OwnedFd> {
    // SAFETY: name is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_memfd_create, name.as_ptr(), flags | libc::MFD_CLOEXEC) }.map(own)
}

/// `sendfile(2)` from the file's own position; returns the bytes moved.
pub fn sendfile(to: BorrowedFd, from: BorrowedFd, count: usize) -> Result<usize> {
    // SAFETY: plain integers; the offset pointer is null.
    unsafe { syscall!(libc::SYS_sendfile, to.as_raw_fd(), from.as_raw_fd(), 0, count) }
}

/// `dup3(2)` onto a chosen number, without close-on-exec.
pub fn dup_onto(from: BorrowedFd, number: i32) -> Result<()> {
    if from.as_raw_fd() == number {
        return set_cloexec(from, false);
    }
    // SAFETY: plain integers. Callers pass a number that no OwnedFd of theirs holds (0, 1, 2 before exec).
    unsafe { syscall!(libc::SYS_dup3, from.as_raw_fd(), number, 0) }.map(drop)
}

/// `fcntl(2)` F_DUPFD_CLOEXEC: a copy numbered `least` or above.
pub fn dup_from(fd: BorrowedFd, least: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.map(own)
}

/// `close_range(2)` with CLOSE_RANGE_CLOEXEC: every descriptor from `first` to `last` closes at execve.
pub fn cloexec_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: marks descriptors, closes none.
    unsafe { syscall!(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) }.map(drop)
}

/// Borrows a descriptor that was open before this program began (0, 1, 2, or one that the caller passed).
/// Errors: EBADF when it is not open.
pub fn inherited(number: i32) -> Result<BorrowedFd<'static>> {
    if number < 0 || !is_open(number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is open now and came from the caller, so no OwnedFd of this program holds or closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// `fsync(2)`.
pub fn fsync(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fsync, fd.as_raw_fd()) }.map(drop)
}

/// The names in an open directory without `.` and `..`, by `getdents64(2)`, from its current position.
pub fn read_dir(fd: BorrowedFd) -> Result<Vec<CString>> {
    const NAME: usize = 19; // d_ino 8, d_off 8, d_reclen 2, d_type 1: getdents(2)
    let (mut names, mut buffer) = (Vec::new(), vec![0u8; 32 * 1024]);
    loop {
        // SAFETY: the buffer is writable for the length given.
        let n = unsafe { syscall!(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) }?;
        if n == 0 {
            return Ok(names);
        }
        let mut rest = &buffer[..n];
        while rest.len() > NAME {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = CStr::from_bytes_until_nul(&rest[NAME..length]).map_err(|_| Errno::EIO)?;
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            rest = &rest[length..];
        }
    }
}

/// The path by which /proc names an open descriptor of this process.
pub fn proc_fd_path(fd: impl AsFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).expect("digits hold no NUL")
}

/// `utimensat(2)`: access and modification time, as (seconds, nanoseconds).
pub fn utimensat(dir: BorrowedFd, path: &CStr, times: [(i64, i64); 2], flags: i32) -> Result<()> {
    let t = times.map(|(sec, nsec)| libc::timespec { tv_sec: sec, tv_nsec: nsec });
    // SAFETY: two timespecs and a terminated string, both outlive the call.
    unsafe { syscall!(libc::SYS_utimensat, dir.as_raw_fd(), path.as_ptr(), t.as_ptr(), flags) }.map(drop)
}

/// `fsetxattr(2)`: not for O_PATH descriptors.
pub fn fsetxattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: name is terminated, value readable for its length.
    unsafe { syscall!(libc::SYS_fsetxattr, fd.as_raw_fd(), name.as_ptr(), value.as_ptr(), value.len(), 0) }
        .map(drop)
}

/// `lsetxattr(2)`.
pub fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: both strings terminated, value readable for its length.
    unsafe { syscall!(libc::SYS_lsetxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), 0) }
        .map(drop)
}

/// Closes every descriptor above 2 but these: `close_range(2)` between them.
///
/// For a child right after its clone: it drops what the parent holds (locks among it) without the destructors, which
/// would act on what is shared with the parent. The child must not use an owner of a closed number afterwards.
pub fn close_others(keep: &mut [i32]) -> Result<()> {
    keep.sort_unstable();
    let mut first = 3u32;
    for &number in keep.iter().filter(|n| **n >= 3) {
        if number as u32 > first {
            // SAFETY: plain integers; see above for whose descriptors these are.
            unsafe { syscall!(libc::SYS_close_range, first, number - 1, 0) }?;
        }
        first = first.max(number as u32 + 1);
    }
    // SAFETY: the same.
    unsafe { syscall!(libc::SYS_close_range, first, u32::MAX, 0) }.map(drop)
}
