//! Files and directories, relative to a descriptor: open, make, link, look at, change.
//! path_resolution(7), openat2(2).
//!
//! What is done with a file once it is open stands in `descriptor`, extended attributes in `xattr`; both appear here.

mod descriptor;
mod xattr;

pub use descriptor::*;
pub use xattr::*;

use crate::{Errno, Result, own, syscall};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

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
    // SAFETY: AT_FDCWD is not a descriptor but a constant that every *at syscall understands; nobody can close it. It is
    // not -1, the one value that a BorrowedFd must not have.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// `long openat2(int dirfd, const char *path, struct open_how *how, size_t size)`, openat2(2), Linux 5.6, close-on-exec.
/// `mode` counts with O_CREAT and must be 0 without (EINVAL); so must be flags that the kernel does not know.
/// Errors: EXDEV for a path that leaves where it must stay, ELOOP for a forbidden link, EAGAIN when `..` raced a rename.
pub fn openat2(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain integers, for which all-zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC) as u32);
    how.mode = u64::from(mode);
    how.resolve = resolve;
    let (fd, size) = (dir.as_raw_fd(), size_of::<libc::open_how>());
    // SAFETY: path is terminated, and how a whole open_how of the size said; both outlive the call.
    unsafe { syscall!(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, size) }.map(own)
}

/// `int openat(int dirfd, const char *path, int flags, mode_t mode)`, open(2), close-on-exec. Follows symbolic links unless
/// `flags` says O_NOFOLLOW, which counts for the last component only.
pub fn openat(dir: BorrowedFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_openat, dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) }
        .map(own)
}

/// The same from the working directory.
pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(cwd(), path, flags, mode)
}

/// `int mkdirat(int dirfd, const char *path, mode_t mode)`, mkdir(2). The umask takes bits of the mode away.
pub fn mkdirat(dir: BorrowedFd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_mkdirat, dir.as_raw_fd(), path.as_ptr(), mode) }.map(drop)
}

/// `int mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)`, mknod(2): `mode` holds the type bits (S_IFCHR,
/// S_IFBLK, S_IFIFO, S_IFREG) and the permissions. Errors: EPERM without CAP_MKNOD over the first user namespace; EINVAL for
/// a number beyond the kernel's 12 bits (major) and 20 bits (minor), which it would cut.
pub fn mknodat(dir: BorrowedFd, path: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Errno::EINVAL);
    }
    let dev = libc::makedev(major, minor);
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_mknodat, dir.as_raw_fd(), path.as_ptr(), mode, dev) }.map(drop)
}

/// `int symlinkat(const char *target, int dirfd, const char *path)`, symlink(2).
pub fn symlinkat(target: &CStr, dir: BorrowedFd, path: &CStr) -> Result<()> {
    // SAFETY: both paths are terminated and outlive the call.
    unsafe { syscall!(libc::SYS_symlinkat, target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) }.map(drop)
}

/// `ssize_t readlinkat(int dirfd, const char *path, char *buf, size_t size)`, readlink(2); an empty path reads the link that
/// an O_PATH descriptor is open on. A link holds at most 4095 bytes; one of /proc is cut there (ENAMETOOLONG).
pub fn readlinkat(dir: BorrowedFd, path: &CStr) -> Result<Vec<u8>> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let (fd, room) = (dir.as_raw_fd(), buffer.len());
    // SAFETY: path is terminated; the buffer is writable for the length given.
    let n = unsafe { syscall!(libc::SYS_readlinkat, fd, path.as_ptr(), buffer.as_mut_ptr(), room) }?;
    if n == room { Err(Errno::ENAMETOOLONG) } else { Ok(buffer[..n].to_vec()) }
}

/// `int unlinkat(int dirfd, const char *path, int flags)`, unlink(2); `flags` is 0 or AT_REMOVEDIR.
pub fn unlinkat(dir: BorrowedFd, path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_unlinkat, dir.as_raw_fd(), path.as_ptr(), flags) }.map(drop)
}

/// `int renameat2(int olddirfd, const char *old, int newdirfd, const char *new, unsigned int flags)`, rename(2), with no
/// flags: what stands there is replaced, at once.
pub fn renameat(dir: BorrowedFd, from: &CStr, dir2: BorrowedFd, to: &CStr) -> Result<()> {
    renameat2(dir, from, dir2, to, 0)
}

/// `int renameat2(...)`, rename(2), with RENAME_EXCHANGE: two names of one directory change places, at once. Errors: ENOENT when
/// one is not there, EINVAL where the file system cannot.
pub fn exchange(dir: BorrowedFd, one: &CStr, other: &CStr) -> Result<()> {
    renameat2(dir, one, dir, other, libc::RENAME_EXCHANGE)
}

fn renameat2(dir: BorrowedFd, from: &CStr, dir2: BorrowedFd, to: &CStr, flags: u32) -> Result<()> {
    let (old, new) = (dir.as_raw_fd(), dir2.as_raw_fd());
    // SAFETY: both paths are terminated and outlive the call.
    unsafe { syscall!(libc::SYS_renameat2, old, from.as_ptr(), new, to.as_ptr(), flags) }.map(drop)
}

/// `int linkat(int olddirfd, const char *old, int newdirfd, const char *new, int flags)`, link(2); `flags` 0 never follows
/// a last symbolic link.
pub fn linkat(dir: BorrowedFd, from: &CStr, dir2: BorrowedFd, to: &CStr, flags: i32) -> Result<()> {
    let (old, new) = (dir.as_raw_fd(), dir2.as_raw_fd());
    // SAFETY: both paths are terminated and outlive the call.
    unsafe { syscall!(libc::SYS_linkat, old, from.as_ptr(), new, to.as_ptr(), flags) }.map(drop)
}

/// What stat(2) tells of an inode.
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
    /// Last modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, i64),
}

impl Stat {
    /// The type bits (S_IFDIR, S_IFREG, ...).
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// [`fstatat`] of the open file itself.
pub fn fstat(fd: BorrowedFd) -> Result<Stat> {
    fstatat(fd, c"", libc::AT_EMPTY_PATH)
}

/// `int fstatat(int dirfd, const char *path, struct stat *buf, int flags)`, stat(2). Follows a last symbolic link unless
/// `flags` says AT_SYMLINK_NOFOLLOW.
pub fn fstatat(dir: BorrowedFd, path: &CStr, flags: i32) -> Result<Stat> {
    let mut out = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: path is terminated; out is room for one stat, in the layout that this C function fills.
    if unsafe { libc::fstatat(dir.as_raw_fd(), path.as_ptr(), out.as_mut_ptr(), flags) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: it was filled; and its bytes were zero before, which is a value of every field.
    let s = unsafe { out.assume_init() };
    #[allow(clippy::unnecessary_cast)] // 32 bits on aarch64
    let nlink = s.st_nlink as u64;
    Ok(Stat {
        dev: s.st_dev,
        ino: s.st_ino,
        mode: s.st_mode,
        nlink,
        uid: s.st_uid,
        gid: s.st_gid,
        rdev_major: libc::major(s.st_rdev),
        rdev_minor: libc::minor(s.st_rdev),
        size: s.st_size,
        mtime: (s.st_mtime, s.st_mtime_nsec),
    })
}

/// What statfs(2) tells of a file system and of the mount that a file was opened through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// The file system's magic number.
    pub magic: i64,
    /// ST_* flags of the mount (ST_RDONLY, ST_NOSUID, ...).
    pub flags: u64,
}

/// `int fstatfs(int fd, struct statfs *buf)`, statfs(2).
pub fn fstatfs(fd: BorrowedFd) -> Result<StatFs> {
    let mut out = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: out is room for one statfs64, in the layout that this C function fills.
    if unsafe { libc::fstatfs64(fd.as_raw_fd(), out.as_mut_ptr()) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: it was filled; and its bytes were zero before, which is a value of every field.
    let s = unsafe { out.assume_init() };
    Ok(StatFs { magic: s.f_type, flags: s.f_flags as u64 })
}

/// The magic number of procfs: statfs(2).
pub const PROCFS: i64 = libc::PROC_SUPER_MAGIC;

/// The magic number alone.
pub fn file_system(fd: BorrowedFd) -> Result<i64> {
    fstatfs(fd).map(|s| s.magic)
}

/// `int fchmod(int fd, mode_t mode)`, chmod(2): not for O_PATH descriptors (EBADF).
pub fn fchmod(fd: BorrowedFd, mode: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fchmod, fd.as_raw_fd(), mode) }.map(drop)
}

/// `int fchmodat(int dirfd, const char *path, mode_t mode)`, chmod(2), following a symbolic link at the end of `path`.
pub fn fchmodat(dir: BorrowedFd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_fchmodat, dir.as_raw_fd(), path.as_ptr(), mode) }.map(drop)
}

/// `int fchmodat2(int dirfd, const char *path, mode_t mode, unsigned int flags)`, chmod(2), Linux 6.6: with AT_EMPTY_PATH for
/// O_PATH descriptors too, with AT_SYMLINK_NOFOLLOW never through a link (EOPNOTSUPP for one).
pub fn fchmodat2(dir: BorrowedFd, path: &CStr, mode: u32, flags: i32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_fchmodat2, dir.as_raw_fd(), path.as_ptr(), mode, flags) }.map(drop)
}

/// `int fchownat(int dirfd, const char *path, uid_t owner, gid_t group, int flags)`, chown(2); `u32::MAX` leaves an id as it
/// is. Follows a last symbolic link unless `flags` says AT_SYMLINK_NOFOLLOW. Clears set-user-ID bits.
pub fn fchownat(dir: BorrowedFd, path: &CStr, uid: u32, gid: u32, flags: i32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_fchownat, dir.as_raw_fd(), path.as_ptr(), uid, gid, flags) }.map(drop)
}

/// `int faccessat2(int dirfd, const char *path, int mode, int flags)`, access(2), Linux 5.8; by the real ids unless `flags`
/// says AT_EACCESS.
pub fn faccessat2(dir: BorrowedFd, path: &CStr, mode: i32, flags: i32) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_faccessat2, dir.as_raw_fd(), path.as_ptr(), mode, flags) }.map(drop)
}

/// `int utimensat(int dirfd, const char *path, const struct timespec times[2], int flags)`, utimensat(2): access and
/// modification time, as (seconds, nanoseconds).
pub fn utimensat(dir: BorrowedFd, path: &CStr, times: [(i64, i64); 2], flags: i32) -> Result<()> {
    let t = times.map(|(sec, nsec)| libc::timespec { tv_sec: sec, tv_nsec: nsec });
    // SAFETY: two timespecs and a terminated string, alive through the call.
    unsafe { syscall!(libc::SYS_utimensat, dir.as_raw_fd(), path.as_ptr(), t.as_ptr(), flags) }.map(drop)
}

/// `int fchdir(int fd)`, chdir(2).
pub fn fchdir(fd: BorrowedFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fchdir, fd.as_raw_fd()) }.map(drop)
}

/// `int chdir(const char *path)`, chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_chdir, path.as_ptr()) }.map(drop)
}

/// `int chroot(const char *path)`, chroot(2). The working directory stays where it is.
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_chroot, path.as_ptr()) }.map(drop)
}

/// `long getcwd(char *buf, unsigned long size)`, getcwd(2): the kernel's own text, which begins with "(unreachable)" when
/// the directory is outside the root. Errors: ENOENT for a directory that was removed.
pub fn getcwd() -> Result<Vec<u8>> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length given.
    let n = unsafe { syscall!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    Ok(buffer[..n.saturating_sub(1)].to_vec())
}

/// `mode_t umask(mode_t mask)`, umask(2); returns the mask before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: integers only; cannot fail.
    unsafe { libc::umask(mask) }
}

/// All names in an open directory without `.` and `..`, from its current position.
pub fn read_dir(fd: BorrowedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    loop {
        let mut more = some_names(fd)?;
        if more.is_empty() {
            return Ok(names);
        }
        names.append(&mut more);
    }
}

/// `ssize_t getdents64(int fd, void *dirp, size_t count)`, getdents(2): the next names in an open directory without `.`
/// and `..`, at most 32 KiB of them; none at its end.
pub fn some_names(fd: BorrowedFd) -> Result<Vec<CString>> {
    // Not cleared: that would bring in eight pages, of which a small directory needs one.
    let (mut names, mut buffer) = (Vec::new(), Vec::<u8>::with_capacity(32 * 1024));
    while names.is_empty() {
        // SAFETY: the buffer is writable for its capacity.
        let n = unsafe {
            syscall!(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.capacity())
        }?;
        if n == 0 {
            break;
        }
        // SAFETY: the kernel has written so many bytes, and no more than fit.
        unsafe { buffer.set_len(n) };
        add_names(&buffer, &mut names).ok_or(Errno::EIO)?;
    }
    Ok(names)
}

/// struct linux_dirent64: inode 8, offset 8, length 2, type 1, name. Nothing when an entry is not whole.
fn add_names(mut entries: &[u8], names: &mut Vec<CString>) -> Option<()> {
    const NAME: usize = 19;
    while !entries.is_empty() {
        let length = usize::from(u16::from_ne_bytes([*entries.get(16)?, *entries.get(17)?]));
        let name = CStr::from_bytes_until_nul(entries.get(NAME..length)?).ok()?;
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        entries = &entries[length..];
    }
    Some(())
}

#[cfg(test)]
mod tests;
