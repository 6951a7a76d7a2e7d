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

/// What can be set only once the mount is attached: also for what is mounted below it, and what to try one after the other
/// while the kernel refuses with EPERM.
#[derive(Default)]
pub(crate) struct Later(Vec<(bool, Vec<MountAttr>)>);

/// Sets them on a detached mount; where the kernel cannot, notes them for when it is attached.
pub(crate) fn set(
    mount: BorrowedFd,
    recursive: bool,
    what: &MountAttr,
    later: &mut Later,
) -> coracle_sys::Result<()> {
    first(mount, recursive, vec![*what], later)
}

fn first(
    mount: BorrowedFd,
    recursive: bool,
    tries: Vec<MountAttr>,
    later: &mut Later,
) -> coracle_sys::Result<()> {
    if !MISSING.load(Ordering::Relaxed) {
        match permitted(&tries, |what| mount::mount_setattr(mount, recursive, what)) {
            Err(Errno::ENOSYS) => MISSING.store(true, Ordering::Relaxed),
            other => return other,
        }
    }
    later.0.push((recursive, tries));
    Ok(())
}

fn permitted(
    tries: &[MountAttr],
    act: impl Fn(&MountAttr) -> coracle_sys::Result<()>,
) -> coracle_sys::Result<()> {
    tries.iter().map(act).find(|done| *done != Err(Errno::EPERM)).unwrap_or(Err(Errno::EPERM))
}

/// The options of a bind mount, as runc and crun have them: who names any gets these and no others (mount(8) with `--bind -o`);
/// only the way in which times of access are kept stays when it is not named. Where the kernel has locked what the source has
/// (mount_namespaces(7)), that stays, which is stricter. `held`: the container has a user namespace of its own, so that its
/// kernel would lock it if the parent, with more rights, had not opened the source: what is not named stays, and what would be
/// taken away by name is refused with EPERM.
pub(crate) fn set_bind(
    mount: BorrowedFd,
    what: &MountAttr,
    held: bool,
    later: &mut Later,
) -> coracle_sys::Result<()> {
    const PLAIN: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
    let now = of_statfs(fs::fstatfs(mount)?.flags);
    let clearing = |more: u64| MountAttr { clear: what.clear | more & !what.set, ..*what };
    // Nothing locks this one.
    let named = clearing(now & attr::NOSYMFOLLOW);
    if held {
        if takes_away(now, what) && !(now & attr::RDONLY != 0 && read_only_below(mount, now, what)?) {
            return Err(Errno::EPERM);
        }
        return first(
            mount,
            false,
            vec![MountAttr { clear: named.clear & !attr::NODIRATIME, ..named }],
            later,
        );
    }
    let times = if names_times(what) { attr::ATIME | attr::NODIRATIME & !what.set } else { 0 };
    let exact = clearing(now & PLAIN);
    first(mount, false, vec![MountAttr { clear: exact.clear | times, ..exact }, named, only_set(what)], later)
}

fn names_times(what: &MountAttr) -> bool {
    what.clear & attr::ATIME != 0 || what.set & attr::NODIRATIME != 0
}

/// Whether a mount with the attributes `now` would lose one that the kernel can lock. The times of access are locked as one:
/// what is named of them must be what there is.
fn takes_away(now: u64, what: &MountAttr) -> bool {
    let all = attr::ATIME | attr::NODIRATIME;
    let plain = what.clear & now & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
    plain != 0 || names_times(what) && what.set & all != now & all
}

/// Whether it is the file system that is read-only, and not the mount: then nothing is taken away with the word rw.
fn read_only_below(mount: BorrowedFd, now: u64, what: &MountAttr) -> coracle_sys::Result<bool> {
    if takes_away(now & !attr::RDONLY, what) {
        return Ok(false);
    }
    let writable = MountAttr { clear: attr::RDONLY, ..Default::default() };
    Ok(mount::mount_setattr(mount, false, &writable).is_ok()
        && of_statfs(fs::fstatfs(mount)?.flags) & attr::RDONLY != 0)
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
        Later(if MISSING.load(Ordering::Relaxed) { vec![(true, vec![slave])] } else { Vec::new() })
    }

    /// Now that the mount is attached.
    pub(crate) fn attached(self, mount: BorrowedFd) -> Result<()> {
        self.0.into_iter().try_for_each(|(recursive, tries)| remount(mount, recursive, &tries))
    }
}

fn remount(at: BorrowedFd, recursive: bool, tries: &[MountAttr]) -> Result<()> {
    let place = Place::enter(at)?;
    if tries.iter().any(|what| what.set | what.clear != 0) {
        if recursive && has_mounts_below(at)? {
            return Err(Failure::says(
                "what is mounted below would keep its options: setting them for a whole tree takes mount_setattr, Linux 5.12",
            ));
        }
        let now = fs::fstatfs(at).doing(|| "looking at the mount's options".into())?.flags;
        let now = of_statfs(now);
        let change = |what: &MountAttr| {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | merged(now, what);
            mount::mount(None, &place.name, None, flags, None)
        };
        permitted(tries, change).doing(|| "remounting (mount_setattr needs Linux 5.12)".into())?;
    }
    let propagation = tries.first().map_or(0, |what| what.propagation);
    if propagation != 0 {
        let deep = if recursive { libc::MS_REC } else { 0 };
        mount::mount(None, &place.name, None, propagation | deep, None)
            .doing(|| "setting the propagation (mount_setattr needs Linux 5.12)".into())?;
    }
    Ok(())
}

/// What statfs(2) says (ST_*), as an attribute, and as a flag of mount(2).
const BITS: [(u64, u64, u64); 6] = [
    (1, attr::RDONLY, libc::MS_RDONLY),
    (2, attr::NOSUID, libc::MS_NOSUID),
    (4, attr::NODEV, libc::MS_NODEV),
    (8, attr::NOEXEC, libc::MS_NOEXEC),
    (0x800, attr::NODIRATIME, libc::MS_NODIRATIME),
    (0x2000, attr::NOSYMFOLLOW, 0x100),
];

/// The attributes that a mount has by the flags of statfs(2).
fn of_statfs(flags: u64) -> u64 {
    let times = match flags & (0x400 | 0x1000) {
        0 => attr::STRICTATIME,
        0x1000 => attr::RELATIME,
        _ => attr::NOATIME,
    };
    BITS.iter().filter(|(st, ..)| flags & st != 0).fold(times, |all, (_, bit, _)| all | bit)
}

/// The MS_* flags of a remount, which replaces all of them: the attributes there are, changed.
fn merged(now: u64, what: &MountAttr) -> u64 {
    let attributes = now & !what.clear | what.set;
    let flags = BITS.iter().filter(|(_, bit, _)| attributes & bit != 0).fold(0, |all, (.., ms)| all | ms);
    flags
        | match attributes & attr::ATIME {
            attr::NOATIME => libc::MS_NOATIME,
            attr::STRICTATIME => libc::MS_STRICTATIME,
            _ => libc::MS_RELATIME,
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
            merged(of_statfs(2 | 8 | 0x1000), &read_only),
            libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_RELATIME
        );
        let exec = MountAttr { clear: attr::NOEXEC, ..Default::default() };
        assert_eq!(merged(of_statfs(8 | 0x400), &exec), libc::MS_NOATIME);
    }

    #[test]
    fn access_times_change_as_a_whole() {
        let strict = MountAttr { set: attr::STRICTATIME, clear: attr::ATIME, ..Default::default() };
        assert_eq!(merged(of_statfs(0x400), &strict), libc::MS_STRICTATIME);
        let relative = MountAttr { set: attr::RELATIME, clear: attr::ATIME, ..Default::default() };
        assert_eq!(merged(of_statfs(0x400), &relative), libc::MS_RELATIME);
    }

    #[test]
    fn what_is_locked_is_not_taken_away() {
        let asked = |set, clear| MountAttr { set, clear, ..Default::default() };
        let now = of_statfs(1 | 4 | 0x800 | 0x1000);
        assert!(takes_away(now, &asked(0, attr::RDONLY)));
        assert!(!takes_away(now, &asked(attr::NOSUID, attr::NOEXEC)));
        assert!(takes_away(now, &asked(attr::RELATIME, attr::ATIME)), "nodiratime is one with relatime");
        assert!(takes_away(now, &asked(attr::NOATIME, attr::ATIME)));
        assert!(!takes_away(now, &asked(attr::NODIRATIME, 0)));
    }
}
