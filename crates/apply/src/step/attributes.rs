//! Attributes and propagation of mounts: mount_setattr(2), and before Linux 5.12 the remount of mount(2), which does the
//! same for one mount that is attached. What a whole tree must have, it has, or that is an error.

use crate::failure::{Doing, Failure, Result};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether mount_setattr was found missing; a child learns it from its parent.
static MISSING: AtomicBool = AtomicBool::new(false);

/// What can be set only once the mount is attached.
#[derive(Default)]
pub(crate) struct Later(Vec<(bool, MountAttr)>);

/// Sets them on a detached mount; where the kernel cannot, notes them for when it is attached.
pub(crate) fn set(
    mount: BorrowedFd,
    recursive: bool,
    what: &MountAttr,
    later: &mut Later,
) -> coracle_sys::Result<()> {
    if !MISSING.load(Ordering::Relaxed) {
        match mount::mount_setattr(mount, recursive, what) {
            Err(Errno::ENOSYS) => MISSING.store(true, Ordering::Relaxed),
            other => return other,
        }
    }
    later.0.push((recursive, *what));
    Ok(())
}

/// The same for one mount; where it is locked what was to be cleared, that stays, which is stricter.
pub(crate) fn set_or_stricter(
    mount: BorrowedFd,
    what: &MountAttr,
    later: &mut Later,
) -> coracle_sys::Result<()> {
    set(mount, false, what, later)
        .or_else(|e| if e == Errno::EPERM { set(mount, false, &only_set(what), later) } else { Err(e) })
}

/// Without what is cleared for its own sake; the bits of the access time are cleared to be set.
fn only_set(what: &MountAttr) -> MountAttr {
    let atime = if what.set & attr::ATIME != 0 { attr::ATIME } else { 0 };
    MountAttr { clear: what.clear & atime, ..*what }
}

/// Sets them on a mount that is attached.
pub(crate) fn set_attached(mount: BorrowedFd, recursive: bool, what: &MountAttr) -> Result<()> {
    let mut later = Later::default();
    set(mount, recursive, what, &mut later).doing(|| "mount_setattr".into())?;
    later.attached(mount)
}

impl Later {
    /// What the parent could not set on what it opened.
    pub(crate) fn of_parent() -> Later {
        let slave = MountAttr { propagation: libc::MS_SLAVE, ..Default::default() };
        Later(if MISSING.load(Ordering::Relaxed) { vec![(true, slave)] } else { Vec::new() })
    }

    /// Now that the mount is attached.
    pub(crate) fn attached(self, mount: BorrowedFd) -> Result<()> {
        self.0.into_iter().try_for_each(|(recursive, what)| remount(mount, recursive, &what))
    }
}

fn remount(at: BorrowedFd, recursive: bool, what: &MountAttr) -> Result<()> {
    let place = Place::enter(at)?;
    if what.set | what.clear != 0 {
        if recursive && has_mounts_below(at)? {
            return Err(Failure::says(
                "what is mounted below would keep its options: setting them for a whole tree takes mount_setattr, Linux 5.12",
            ));
        }
        let now = fs::fstatfs(at).doing(|| "looking at the mount's options".into())?.flags;
        let change = |what: &MountAttr| {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | merged(now, what);
            mount::mount(None, &place.name, None, flags, None)
        };
        change(what)
            .or_else(|e| if e == Errno::EPERM { change(&only_set(what)) } else { Err(e) })
            .doing(|| "remounting (mount_setattr needs Linux 5.12)".into())?;
    }
    if what.propagation != 0 {
        let deep = if recursive { libc::MS_REC } else { 0 };
        mount::mount(None, &place.name, None, what.propagation | deep, None)
            .doing(|| "setting the propagation (mount_setattr needs Linux 5.12)".into())?;
    }
    Ok(())
}

/// The MS_* flags of a remount, which replaces all of them: those there are (ST_*, statfs(2)), changed.
fn merged(now: u64, what: &MountAttr) -> u64 {
    const BITS: [(u64, u64, u64); 6] = [
        (1, attr::RDONLY, libc::MS_RDONLY),
        (2, attr::NOSUID, libc::MS_NOSUID),
        (4, attr::NODEV, libc::MS_NODEV),
        (8, attr::NOEXEC, libc::MS_NOEXEC),
        (0x800, attr::NODIRATIME, libc::MS_NODIRATIME),
        (0x2000, attr::NOSYMFOLLOW, 0x100),
    ];
    let mut flags = 0;
    for (st, bit, ms) in BITS {
        if (now & st != 0 && what.clear & bit == 0) || what.set & bit != 0 {
            flags |= ms;
        }
    }
    let (noatime, relatime) = (now & 0x400 != 0, now & 0x1000 != 0);
    flags
        | match what.set & attr::ATIME {
            attr::NOATIME => libc::MS_NOATIME,
            attr::STRICTATIME => libc::MS_STRICTATIME,
            _ if what.clear & attr::ATIME != 0 => libc::MS_RELATIME,
            _ if noatime => libc::MS_NOATIME,
            _ if relatime => libc::MS_RELATIME,
            _ => libc::MS_STRICTATIME,
        }
}

/// A name that means the mount itself, whatever lies on any path: `.` in a directory, a link of procfs to a file.
struct Place {
    name: CString,
}

impl Place {
    fn enter(at: BorrowedFd) -> Result<Place> {
        let doing = || "entering the mount".to_owned();
        if fs::fstat(at).doing(doing)?.kind() == libc::S_IFDIR {
            fs::fchdir(at).doing(doing)?;
            return Ok(Place { name: c".".into() });
        }
        let links = proc_file(c"self/fd", libc::O_PATH | libc::O_DIRECTORY).doing(doing)?;
        fs::fchdir(links.as_fd()).doing(doing)?;
        Ok(Place { name: CString::new(at.as_raw_fd().to_string()).unwrap_or_default() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::chdir(c"/");
    }
}

/// A file of a procfs on which nothing can lie: one of our own, or, where a user namespace may not have one, that on
/// /proc, which must be one.
fn proc_file(path: &CStr, flags: i32) -> coracle_sys::Result<OwnedFd> {
    let own = mount::fsopen(c"proc").and_then(|context| {
        mount::fsconfig_create(context.as_fd())?;
        mount::fsmount(context.as_fd(), 0)
    });
    let proc = own.or_else(|_| crate::child::host_proc())?;
    fs::openat2(proc.as_fd(), path, flags, 0, fs::RESOLVE_BENEATH | fs::RESOLVE_NO_XDEV)
}

fn has_mounts_below(at: BorrowedFd) -> Result<bool> {
    let doing = || "looking for mounts below".to_owned();
    let id = mount::mount_id(at).doing(doing)?.to_string();
    let info = proc_file(c"self/mountinfo", libc::O_RDONLY).doing(doing)?;
    let text = fs::read_to_end(info.as_fd(), 64 << 20).doing(doing)?;
    Ok(String::from_utf8_lossy(&text).lines().any(|l| l.split(' ').nth(1) == Some(&id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remount_keeps_what_it_was_not_asked_to_change() {
        let read_only = MountAttr { set: attr::RDONLY, ..Default::default() };
        assert_eq!(
            merged(2 | 8 | 0x1000, &read_only),
            libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_RELATIME
        );
        let exec = MountAttr { clear: attr::NOEXEC, ..Default::default() };
        assert_eq!(merged(8 | 0x400, &exec), libc::MS_NOATIME);
    }

    #[test]
    fn access_times_change_as_a_whole() {
        let strict = MountAttr { set: attr::STRICTATIME, clear: attr::ATIME, ..Default::default() };
        assert_eq!(merged(0x400, &strict), libc::MS_STRICTATIME);
        let relative = MountAttr { set: attr::RELATIME, clear: attr::ATIME, ..Default::default() };
        assert_eq!(merged(0x400, &relative), libc::MS_RELATIME);
    }
}
