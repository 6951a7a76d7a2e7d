//! The binary protects itself (CVE-2019-5736): before anything of a container can see this process, it runs from a copy
//! of its own file that nobody can write to.
//!
//! A container with all capabilities can reach the file behind /proc/PID/exe of a runtime process in its pid namespace,
//! or name /proc/self/exe as its program. So create, run and exec begin again from a detached read-only mount of the file
//! (no copy, no trace in any mount table; the mount belongs to no namespace, so nobody can make it writable), or, where
//! that needs a right that the caller lacks, from a sealed memfd. When the kernel says that this process could not write
//! to the file anyway (it is such a copy already, or belongs to somebody whom the container cannot become), neither is needed.
//! Most often that was done already when this is reached, before the C library began: `entry` in the sys crate.

use crate::failure::{Doing, Result};
use coracle_sys::{Errno, creds, fs, libc, mount, process};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

const ALL_SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Makes sure that this process runs from a file that no container can change. Returns only when it does.
pub fn protect() -> Result<()> {
    let exe = fs::open(c"/proc/self/exe", libc::O_PATH, 0).doing(|| "opening /proc/self/exe".into())?;
    if safe(&exe) {
        return Ok(());
    }
    let copy =
        detached(&exe).or_else(|_| memfd()).doing(|| "making a read-only copy of this program".into())?;
    let words =
        |list: Vec<Vec<u8>>| list.into_iter().filter_map(|w| CString::new(w).ok()).collect::<Vec<_>>();
    let argv = words(std::env::args_os().map(OsStringExt::into_vec).collect());
    let env = words(std::env::vars_os().map(|(k, v)| [k.into_vec(), v.into_vec()].join(&b'=')).collect());
    let errno = process::exec_fd(copy.as_fd(), &argv, &env);
    Err(errno).doing(|| "starting again from a read-only copy of this program".into())
}

fn safe(exe: &OwnedFd) -> bool {
    let writable = fs::faccessat2(exe.as_fd(), c"", libc::W_OK, libc::AT_EMPTY_PATH | libc::AT_EACCESS);
    match writable {
        // The mode forbids it; an owner could change the mode.
        Err(Errno::EACCES) => fs::fstat(exe.as_fd()).is_ok_and(|s| s.uid != creds::geteuid()),
        Err(Errno::EROFS) => mount::is_mount_root(exe.as_fd()).unwrap_or(false),
        // An access check that the kernel or a filter denies: of a file on disk only the copy is a mount of a single file.
        Err(_) => mount::is_mount_root(exe.as_fd()).unwrap_or(false) || sealed(),
        Ok(()) => sealed(),
    }
}

fn sealed() -> bool {
    fs::open(c"/proc/self/exe", libc::O_RDONLY, 0)
        .and_then(|f| fs::seals(f.as_fd()))
        .is_ok_and(|s| s & ALL_SEALS == ALL_SEALS)
}

fn detached(exe: &OwnedFd) -> coracle_sys::Result<OwnedFd> {
    let copy = mount::open_tree(exe.as_fd(), c"", mount::OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32)?;
    let read_only = mount::MountAttr { set: mount::attr::RDONLY, ..Default::default() };
    mount::mount_setattr(copy.as_fd(), false, &read_only)?;
    Ok(copy)
}

fn memfd() -> coracle_sys::Result<OwnedFd> {
    let from = fs::open(c"/proc/self/exe", libc::O_RDONLY, 0)?;
    let size = fs::fstat(from.as_fd())?.size as usize;
    let copy = fs::memfd_create(c"coracle", libc::MFD_ALLOW_SEALING)?;
    let mut left = size;
    while left > 0 {
        match fs::sendfile(copy.as_fd(), from.as_fd(), left)? {
            0 => return Err(Errno::EIO),
            n => left -= n,
        }
    }
    fs::add_seals(copy.as_fd(), ALL_SEALS)?;
    Ok(copy)
}
