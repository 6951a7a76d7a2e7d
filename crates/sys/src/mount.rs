//! Mounts: the descriptor-based interface of Linux 5.2 and later, and the few older calls that it does not replace.

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

/// `mount(2)`.
pub fn mount(
    src: Option<&CStr>,
    dst: &CStr,
    fs: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    // SAFETY: every string is terminated or null, as mount(2) allows, and outlives the call.
    unsafe { syscall!(libc::SYS_mount, pointer(src), dst.as_ptr(), pointer(fs), flags, pointer(data)) }
        .map(drop)
}

/// `umount2(2)`.
pub fn umount2(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: target is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_umount2, target.as_ptr(), flags) }.map(drop)
}

/// `pivot_root(2)`.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: both are terminated strings that outlive the call.
    unsafe { syscall!(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }.map(drop)
}

/// `open_tree(2)`, close-on-exec; `flags` holds OPEN_TREE_CLONE and AT_* flags.
pub fn open_tree(dir: BorrowedFd, path: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as u32;
    // SAFETY: path is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }.map(own)
}

/// `move_mount(2)` from one descriptor onto another.
pub fn move_mount(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are the empty terminated string.
    unsafe {
        syscall!(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), to.as_raw_fd(), c"".as_ptr(), flags)
    }
    .map(drop)
}

/// What `mount_setattr` changes: attributes set and cleared ([`attr`]), propagation (0, or one MS_* type).
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

/// `mount_setattr(2)` on an open mount; `recursive` includes those below.
pub fn mount_setattr(fd: BorrowedFd, recursive: bool, what: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    let size = std::mem::size_of::<MountAttr>();
    // SAFETY: MountAttr has the layout of struct mount_attr (four u64), and size says so.
    unsafe {
        syscall!(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, what as *const MountAttr, size)
    }
    .map(drop)
}

/// `fsopen(2)`, close-on-exec.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: fstype is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_fsopen, fstype.as_ptr(), 1) }.map(own)
}

fn fsconfig(fd: BorrowedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
    // SAFETY: strings are terminated or null, as each command of fsconfig(2) asks.
    unsafe { syscall!(libc::SYS_fsconfig, fd.as_raw_fd(), command, pointer(key), pointer(value), 0) }
        .map(drop)
}

/// `fsconfig(2)` FSCONFIG_SET_STRING.
pub fn fsconfig_string(fd: BorrowedFd, key: &CStr, value: &CStr) -> Result<()> {
    fsconfig(fd, 1, Some(key), Some(value))
}

/// `fsconfig(2)` FSCONFIG_SET_FLAG.
pub fn fsconfig_flag(fd: BorrowedFd, key: &CStr) -> Result<()> {
    fsconfig(fd, 0, Some(key), None)
}

/// `fsconfig(2)` FSCONFIG_CMD_CREATE.
pub fn fsconfig_create(fd: BorrowedFd) -> Result<()> {
    fsconfig(fd, 6, None, None)
}

/// `fsmount(2)`, close-on-exec; `attributes` as in [`attr`].
pub fn fsmount(fd: BorrowedFd, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_fsmount, fd.as_raw_fd(), 1, attributes) }.map(own)
}

/// What the kernel wrote into the log of an fsopen context: fsopen(2). Empty when it said nothing.
pub fn read_log(fd: BorrowedFd) -> String {
    let (mut lines, mut buffer) = (Vec::new(), [0u8; 1024]);
    while let Ok(n) = crate::fs::read(fd, &mut buffer) {
        lines.push(String::from_utf8_lossy(&buffer[..n]).trim().to_owned());
    }
    lines.join("; ")
}

/// Whether the file is the root of a mount (as a detached copy of a single file is): statx(2), Linux 5.8.
pub fn is_mount_root(fd: BorrowedFd) -> Result<bool> {
    // SAFETY: statx is plain integers, for which all-zero is a value.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: out is room for one statx; the path is the empty string.
    let r = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, 0, &mut out) };
    if r < 0 {
        return Err(Errno::last());
    }
    Ok(out.stx_attributes & 0x2000 != 0)
}
