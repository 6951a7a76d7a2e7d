//! The root file system becomes the root: pivot_root(2), or what stands in for it.

use super::attributes::{self, Later};
use crate::failure::{Doing, Failure, Result, text};
use crate::probe;
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes every mount of this namespace a slave or private.
pub(crate) fn sever(flags: u64) -> Result<()> {
    mount::mount(None, c"/", None, libc::MS_REC | flags, None)
        .doing(|| "cutting the mounts' propagation to the host".into())
}

/// Joins an image's layers on a directory. By mount(2): fsconfig(2) takes no value of more than 255 bytes, and names that
/// are relative keep the options within mount(2)'s one page.
pub(crate) fn overlay(from: &CStr, options: &CStr, at: &CStr) -> Result<()> {
    fs::chdir(from).doing(|| format!("entering {}", text(from)))?;
    mount::mount(Some(c"overlay"), at, Some(c"overlay"), 0, Some(options))
        .doing(|| format!("joining the image's layers on {}", text(at)))
}

/// Attaches a copy of the root file system: over itself, or, when the parent opened it, over `/`, whose path needs no right.
pub(crate) fn open(path: &CStr, opened: Option<OwnedFd>) -> Result<OwnedFd> {
    let doing = || format!("mounting the root file system {}", text(path));
    let later = if opened.is_some() { Later::of_parent() } else { Later::default() };
    let (copy, target) = match opened {
        Some(fd) => (fd, fs::open(c"/", libc::O_PATH, 0)),
        None => {
            let target = fs::open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0);
            let copy = mount::open_tree(fs::cwd(), path, mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE)
                .doing(doing)?;
            (copy, target)
        }
    };
    mount::move_mount(copy.as_fd(), target.doing(doing)?.as_fd()).doing(doing)?;
    later.attached(copy.as_fd())?;
    Ok(copy)
}

/// Attaches a private copy of the root file system over itself, where others see it: what is mounted below reaches nobody
/// else's copies, and taking the one mount off takes all of it off.
pub(crate) fn bind(path: &CStr) -> Result<OwnedFd> {
    let doing = || format!("binding the root file system {}", text(path));
    let target = fs::open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).doing(doing)?;
    let copy =
        mount::open_tree(fs::cwd(), path, mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE).doing(doing)?;
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
    let mut later = Later::default();
    attributes::set(copy.as_fd(), true, &private, &mut later).doing(doing)?;
    mount::move_mount(copy.as_fd(), target.as_fd()).doing(doing)?;
    later.attached(copy.as_fd())?;
    Ok(copy)
}

/// The mount that a root file system lies on. `None` where there is no such directory, or the kernel cannot tell.
pub(crate) fn mount_of(path: &CStr) -> Option<u64> {
    let place = fs::open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).ok()?;
    mount::mount_id(place.as_fd()).ok()
}

/// Takes off what [`bind`] attached, with all below it. `before`: the mount that the root file system lay on.
pub(crate) fn detach(path: &CStr, before: u64) -> Result<()> {
    if mount_of(path).is_none_or(|now| now == before) {
        return Ok(());
    }
    match mount::umount2(path, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) {
        // Nothing of ours stands there: what lay below was exchanged meanwhile.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        other => other.doing(|| format!("taking the container's mounts off {}", text(path))),
    }
}

/// Opens the root file system where there is no mount namespace of its own.
pub(crate) fn plain(path: &CStr) -> Result<OwnedFd> {
    fs::open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
        .doing(|| format!("opening the root file system {}", text(path)))
}

/// pivot_root(2) with the old root stacked on the new one, then taken off: no directory for it is needed.
pub(crate) fn pivot(root: BorrowedFd) -> Result<()> {
    fs::fchdir(root).doing(|| "entering the root file system".into())?;
    mount::pivot_root(c".", c".").map_err(|e| {
        let hint = if e == Errno::EINVAL {
            "pivot_root (on an initramfs it is impossible: use --no-pivot)"
        } else {
            "pivot_root"
        };
        Failure::errno(hint, e)
    })?;
    mount::umount2(c".", libc::MNT_DETACH).doing(|| "taking off the old root".into())?;
    fs::chdir(c"/").doing(|| "entering the new root".into())
}

/// For an initramfs, whose root cannot be exchanged: the new root is moved over it. The host's procfs and sysfs stay
/// reachable by nobody: they are taken off or covered first.
pub(crate) fn move_over(root: BorrowedFd) -> Result<()> {
    fs::fchdir(root).doing(|| "entering the root file system".into())?;
    let own = String::from_utf8_lossy(&fs::getcwd().unwrap_or_default()).into_owned();
    for line in probe::mountinfo()?.lines() {
        let (Some(point), Some(kind)) =
            (line.split(' ').nth(4), line.split_once(" - ").and_then(|(_, t)| t.split(' ').next()))
        else {
            continue;
        };
        if !matches!(kind, "proc" | "sysfs") || point.starts_with(&own) {
            continue;
        }
        let at = CString::new(point).unwrap_or_default();
        if mount::umount2(&at, libc::MNT_DETACH).is_err() {
            mount::mount(Some(c"tmpfs"), &at, Some(c"tmpfs"), libc::MS_RDONLY, None)
                .doing(|| format!("covering the host's {point}"))?;
        }
    }
    mount::mount(Some(c"."), c"/", None, libc::MS_MOVE, None)
        .doing(|| "moving the root file system over /".into())?;
    change(root)
}

/// chroot(2) into the root.
pub(crate) fn change(root: BorrowedFd) -> Result<()> {
    fs::fchdir(root).doing(|| "entering the root file system".into())?;
    fs::chroot(c".").doing(|| "changing the root".into())?;
    fs::chdir(c"/").doing(|| "entering the new root".into())
}

/// Makes the root mount read-only.
pub(crate) fn read_only(root: BorrowedFd) -> Result<()> {
    attributes::set_attached(root, false, &MountAttr { set: attr::RDONLY, ..Default::default() })
        .map_err(|f| Failure { doing: format!("making the root read-only: {}", f.doing), ..f })
}

/// Sets the root's propagation.
pub(crate) fn propagation(root: BorrowedFd, flags: u64) -> Result<()> {
    let what = MountAttr { propagation: flags & !libc::MS_REC, ..Default::default() };
    attributes::set_attached(root, flags & libc::MS_REC != 0, &what)
        .map_err(|f| Failure { doing: format!("setting the root's propagation: {}", f.doing), ..f })
}
