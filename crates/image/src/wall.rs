//! The second wall: the kernel confines the extracting thread, so that a mistake in the first wall ([`crate::rootfs`])
//! stays inside the directory that is being filled.
//!
//! Two parts, each where the kernel allows it. Landlock (5.13) forbids opening, making and removing anything
//! elsewhere; it does not govern chmod, chown, times and attributes. Changing the thread's root (CAP_SYS_CHROOT, as
//! root or in a user namespace) leaves no name for anything elsewhere at all. Both bind only the calling thread,
//! landlock_restrict_self(2), unshare(2) CLONE_FS.

use crate::error::{Doing, Result};
use coracle_sys::{fs, libc, namespace};
use landlock::{ABI, Access, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus};
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;

/// Which parts of the wall stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// Landlock holds the thread.
    pub landlock: bool,
    /// The thread's root is the directory.
    pub root: bool,
}

/// Confines the calling thread to `work`, of which `root` is a part that becomes `/`; what is beneath `lower` may be
/// read. Also gives the thread a umask of its own, which is 0: modes are what the image says.
/// Errors: the thread cannot have a file system state of its own (then nothing was confined).
pub fn raise(work: BorrowedFd, root: BorrowedFd, lower: Option<BorrowedFd>) -> Result<Wall> {
    namespace::unshare(libc::CLONE_FS).doing(|| "give the extracting thread a root of its own")?;
    fs::umask(0);
    let confined = confine(work, lower).unwrap_or(false);
    let inside = fs::fchdir(root).and_then(|()| fs::chroot(c".")).is_ok();
    Ok(Wall { landlock: confined, root: inside })
}

fn confine(work: BorrowedFd, lower: Option<BorrowedFd>) -> Result<bool, landlock::RulesetError> {
    let all = AccessFs::from_all(ABI::V3);
    let ruleset = Ruleset::default().handle_access(all)?.create()?;
    let ruleset = ruleset.add_rule(PathBeneath::new(work, all))?;
    let ruleset = match lower {
        Some(lower) => ruleset.add_rule(PathBeneath::new(lower, AccessFs::from_read(ABI::V3)))?,
        None => ruleset,
    };
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// As far as it says that it stands: the kernel may have no Landlock, and a user may not change the root.
    #[test]
    fn who_is_behind_it_reaches_nothing_else() {
        let at = std::env::temp_dir().join(format!("coracle-wall-{}", std::process::id()));
        std::fs::create_dir_all(at.join("rootfs")).unwrap();
        let (work, root) = (File::open(&at).unwrap(), File::open(at.join("rootfs")).unwrap());
        let (outside, host) = (at.join("outside"), File::open("/etc").unwrap());
        std::fs::write(&outside, "").unwrap();
        let behind = std::thread::spawn(move || {
            let wall = raise(work.as_fd(), root.as_fd(), None).unwrap();
            let inside = fs::openat(root.as_fd(), c"made", libc::O_CREAT | libc::O_WRONLY, 0o600);
            let beyond = fs::openat(host.as_fd(), c"passwd", libc::O_RDONLY, 0);
            (wall, inside.is_ok(), beyond.is_ok(), File::open(&outside).is_ok())
        });
        let (wall, inside, beyond, named) = behind.join().unwrap();
        assert!(inside);
        assert_eq!((beyond, named), (!wall.landlock, !wall.root), "{wall:?}");
        assert!(File::open("/etc/passwd").is_ok(), "this thread stands before it");
        std::fs::remove_dir_all(&at).unwrap();
    }
}
