//! Mounts: the descriptor-based interface of Linux 5.2 and later, and the few older calls that it does not replace.
//! mount_namespaces(7); fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2), mount_setattr(2).

use crate::{Errno, Result, own, syscall};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// open_tree(2): make a detached copy of the mount.
pub const OPEN_TREE_CLONE: u32 = 1;
/// Apply to the whole tree below.
pub const AT_RECURSIVE: u32 = libc::AT_RECURSIVE as u32;
/// move_mount(2): the source is the descriptor itself.
pub const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
/// move_mount(2): the target is the descriptor itself.
pub const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
/// mount_setattr(2) attributes.
pub mod attr {
    #![allow(missing_docs)] // the kernel's names, explained in mount_setattr(2)
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const ATIME: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

fn pointer(s: Option<&CStr>) -> *const libc::c_char {
    s.map_or(std::ptr::null(), CStr::as_ptr)
}

/// `int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)`, mount(2).
pub fn mount(
    src: Option<&CStr>,
    dst: &CStr,
    fs: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    // SAFETY: every string is terminated or null, as mount(2) allows, and outlives the call. Data is a string too: the
    // kernel copies at most a page of it and stops at the end of what is mapped.
    unsafe { syscall!(libc::SYS_mount, pointer(src), dst.as_ptr(), pointer(fs), flags, pointer(data)) }
        .map(drop)
}

/// `int umount2(const char *target, int flags)`, umount(2). It follows a symbolic link unless UMOUNT_NOFOLLOW is given.
pub fn umount2(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: target is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_umount2, target.as_ptr(), flags) }.map(drop)
}

/// `int pivot_root(const char *new_root, const char *put_old)`, pivot_root(2). With "." for both, the old root lies over
/// the new one afterwards. Errors: EINVAL for a new root that is no mount point, a shared parent, or the initial ramfs.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: both are terminated and outlive the call.
    unsafe { syscall!(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }.map(drop)
}

/// `int open_tree(int dirfd, const char *path, unsigned int flags)`, open_tree(2), Linux 5.2, close-on-exec; `flags` holds
/// OPEN_TREE_CLONE and AT_* flags (AT_SYMLINK_NOFOLLOW among them: without it a last symbolic link is followed).
pub fn open_tree(dir: BorrowedFd, path: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as u32;
    // SAFETY: path is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }.map(own)
}

/// `int move_mount(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned int flags)`, move_mount(2),
/// Linux 5.2: from one descriptor onto another (both paths empty), so that no path is resolved again.
pub fn move_mount(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let (empty, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    // SAFETY: both paths are the empty terminated string.
    unsafe { syscall!(libc::SYS_move_mount, from.as_raw_fd(), empty, to.as_raw_fd(), empty, flags) }.map(drop)
}

/// What `mount_setattr` changes: attributes set and cleared ([`attr`]), propagation (0, or one MS_* type).
/// It is struct mount_attr, version 0, 32 bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0 for no change.
    pub propagation: u64,
    /// Descriptor of a user namespace, with [`attr::IDMAP`].
    pub userns: u64,
}

/// `int mount_setattr(int dirfd, const char *path, unsigned int flags, struct mount_attr *attr, size_t size)`,
/// mount_setattr(2), Linux 5.12, on an open mount; `recursive` includes those below. All change or none.
/// Errors: EPERM for an attribute that a user namespace locked, EINVAL for a descriptor that is no mount's root.
pub fn mount_setattr(fd: BorrowedFd, recursive: bool, what: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    let (empty, size) = (c"".as_ptr(), size_of::<MountAttr>());
    // SAFETY: the path is empty; MountAttr is struct mount_attr (four u64, no padding), of the size said.
    unsafe { syscall!(libc::SYS_mount_setattr, fd.as_raw_fd(), empty, flags, &raw const *what, size) }
        .map(drop)
}

/// `int fsopen(const char *fsname, unsigned int flags)`, fsopen(2), Linux 5.2, close-on-exec. Errors: ENODEV for a file
/// system that the kernel does not have.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: fstype is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }.map(own)
}

/// `int fspick(int dirfd, const char *path, unsigned int flags)`, fspick(2), Linux 5.2, close-on-exec: the configuration of
/// the file system that an open mount root belongs to, for [`fsconfig_reconfigure`].
pub fn fspick(root: BorrowedFd) -> Result<OwnedFd> {
    const CLOEXEC_EMPTY_PATH: u32 = 1 | 8;
    // SAFETY: the path is the empty terminated string.
    unsafe { syscall!(libc::SYS_fspick, root.as_raw_fd(), c"".as_ptr(), CLOEXEC_EMPTY_PATH) }.map(own)
}

/// `int fsconfig(int fd, unsigned int cmd, const char *key, const void *value, int aux)`, fsconfig(2), Linux 5.2.
fn fsconfig(fd: BorrowedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>, aux: i32) -> Result<()> {
    // SAFETY: strings are terminated or null, as each command used below asks; all of them outlive the call.
    unsafe { syscall!(libc::SYS_fsconfig, fd.as_raw_fd(), command, pointer(key), pointer(value), aux) }
        .map(drop)
}

/// FSCONFIG_SET_FLAG, fsconfig(2): a parameter without a value. Errors: EINVAL for one that the file system does not know.
pub fn fsconfig_flag(fd: BorrowedFd, key: &CStr) -> Result<()> {
    fsconfig(fd, 0, Some(key), None, 0)
}

/// FSCONFIG_SET_STRING, fsconfig(2): a parameter with a value of at most 255 bytes (EINVAL above).
pub fn fsconfig_string(fd: BorrowedFd, key: &CStr, value: &CStr) -> Result<()> {
    fsconfig(fd, 1, Some(key), Some(value), 0)
}

/// FSCONFIG_SET_FD, fsconfig(2): a parameter that is an open file, such as overlay's layers (Linux 6.13).
pub fn fsconfig_fd(fd: BorrowedFd, key: &CStr, value: BorrowedFd) -> Result<()> {
    fsconfig(fd, 5, Some(key), None, value.as_raw_fd())
}

/// FSCONFIG_CMD_CREATE, fsconfig(2): makes the superblock, or finds one that is there already.
pub fn fsconfig_create(fd: BorrowedFd) -> Result<()> {
    fsconfig(fd, 6, None, None, 0)
}

/// FSCONFIG_CMD_RECONFIGURE, fsconfig(2): changes the superblock, for every mount of it.
pub fn fsconfig_reconfigure(fd: BorrowedFd) -> Result<()> {
    fsconfig(fd, 7, None, None, 0)
}

/// `int fsmount(int fd, unsigned int flags, unsigned int attr_flags)`, fsmount(2), Linux 5.2, close-on-exec: a detached mount;
/// `attributes` as in [`attr`].
pub fn fsmount(fd: BorrowedFd, attributes: u64) -> Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_fsmount, fd.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) }.map(own)
}

/// What the kernel wrote into the log of an fsopen context: its messages joined by "; ", errors and warnings without the letter
/// that says which they are. fsopen(2). Empty when it said nothing.
pub fn read_log(fd: BorrowedFd) -> String {
    let (mut lines, mut buffer) = (Vec::new(), [0u8; 4096]);
    while let Ok(n) = crate::fs::read(fd, &mut buffer) {
        // A letter for the severity stands before each.
        let line = String::from_utf8_lossy(&buffer[..n]);
        let line = line.trim();
        lines.push(line.strip_prefix("e ").or(line.strip_prefix("w ")).unwrap_or(line).to_owned());
    }
    lines.join("; ")
}

/// `int statx(int dirfd, const char *path, int flags, unsigned int mask, struct statx *buf)`, statx(2), of an open file.
fn statx(fd: BorrowedFd, mask: u32) -> Result<libc::statx> {
    // SAFETY: statx is plain integers, for which all-zero is a value.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is empty; out is room for one statx, 256 bytes in every kernel.
    unsafe { syscall!(libc::SYS_statx, fd.as_raw_fd(), empty, flags, mask, &raw mut out) }?;
    Ok(out)
}

/// Whether the file is the root of a mount (as a detached copy of a single file is): statx(2), Linux 5.8.
/// Errors: EOPNOTSUPP where the kernel cannot tell.
pub fn is_mount_root(fd: BorrowedFd) -> Result<bool> {
    let out = statx(fd, 0)?;
    let bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    if out.stx_attributes_mask & bit == 0 {
        Err(Errno::EOPNOTSUPP)
    } else {
        Ok(out.stx_attributes & bit != 0)
    }
}

/// The id of the mount that the file was opened through, as in mountinfo: statx(2), Linux 5.8.
/// Errors: EOPNOTSUPP where the kernel cannot tell.
pub fn mount_id(fd: BorrowedFd) -> Result<u64> {
    let out = statx(fd, libc::STATX_MNT_ID)?;
    if out.stx_mask & libc::STATX_MNT_ID == 0 { Err(Errno::EOPNOTSUPP) } else { Ok(out.stx_mnt_id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fs, guard::Guarded};
    use std::os::fd::AsFd;

    fn open(path: &CStr) -> OwnedFd {
        fs::open(path, libc::O_PATH, 0).expect("open")
    }

    #[test]
    fn proc_is_a_mount_of_its_own() {
        let (proc, below) = (open(c"/proc"), open(c"/proc/self"));
        assert_eq!((is_mount_root(proc.as_fd()), is_mount_root(below.as_fd())), (Ok(true), Ok(false)));
        assert_eq!(mount_id(proc.as_fd()), mount_id(below.as_fd()));
        let info = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let ids = info.lines().filter(|l| l.split(' ').nth(4) == Some("/proc"));
        let ids: Vec<&str> = ids.filter_map(|l| l.split(' ').next()).collect();
        assert!(ids.contains(&mount_id(proc.as_fd()).expect("id").to_string().as_str()), "{ids:?}");
    }

    #[test]
    fn the_kernel_stays_within_the_structures() {
        assert_eq!((size_of::<MountAttr>(), size_of::<libc::statx>()), (32, 256));
        let proc = open(c"/proc");
        // SAFETY: plain integers, for which all-zero is a value.
        let out = Guarded::new(unsafe { std::mem::zeroed::<libc::statx>() });
        let (fd, empty, flags) = (proc.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: room for one statx, which the page behind it puts to the test.
        unsafe { syscall!(libc::SYS_statx, fd, empty, flags, libc::STATX_BASIC_STATS, out.pointer()) }
            .expect("statx");
        assert_eq!(out.get().stx_ino, fs::fstat(proc.as_fd()).expect("fstat").ino);
        let attr = Guarded::new(MountAttr { set: 1 << 63, ..MountAttr::default() });
        // SAFETY: a whole mount_attr, at the end of what is mapped, that asks for an attribute that does not exist.
        let refused = unsafe { syscall!(libc::SYS_mount_setattr, fd, empty, flags, attr.pointer(), 32) };
        assert!(matches!(refused, Err(Errno::EINVAL | Errno::EPERM)), "{refused:?}");
    }

    #[test]
    fn a_file_system_that_is_not_there_has_no_context() {
        let refused = fsopen(c"no-such-file-system").expect_err("it cannot be there");
        assert!(matches!(refused, Errno::ENODEV | Errno::EPERM), "{refused}");
    }
}
