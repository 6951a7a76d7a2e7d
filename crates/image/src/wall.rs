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
