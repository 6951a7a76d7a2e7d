//! Masked and read-only paths: config-linux.md. Done after the root was changed, on the container's own tree.

use super::attributes::{self, Later};
use super::path;
use crate::failure::{Doing, Failure, Result, inside};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What masks are made of, kept between the steps.
#[derive(Default)]
pub(crate) struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

fn found(root: BorrowedFd, path: &CStr) -> Result<Option<OwnedFd>> {
    match path::open(root, path, libc::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => other.doing(|| format!("opening {}", inside(path))).map(Some),
    }
}

fn clone(fd: BorrowedFd) -> coracle_sys::Result<OwnedFd> {
    mount::open_tree(fd, c"", mount::OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32)
}

/// Makes a path read-only with all below it.
pub(crate) fn read_only(root: BorrowedFd, what: &CStr) -> Result<()> {
    let Some(target) = found(root, what)? else { return Ok(()) };
    let doing = || format!("making {} read-only", inside(what));
    let copy = mount::open_tree(
        target.as_fd(),
        c"",
        mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE | libc::AT_EMPTY_PATH as u32,
    )
    .doing(doing)?;
    let (read_only, mut later) = (MountAttr { set: attr::RDONLY, ..Default::default() }, Later::default());
    attributes::set(copy.as_fd(), true, &read_only, &mut later).doing(doing)?;
    mount::move_mount(copy.as_fd(), target.as_fd()).doing(doing)?;
    later.attached(copy.as_fd()).map_err(|f| Failure { doing: format!("{}: {}", doing(), f.doing), ..f })
}

impl Masks {
    /// Hides a path.
    pub(crate) fn mask(&mut self, root: BorrowedFd, what: &CStr, label: Option<&CStr>) -> Result<()> {
        let Some(target) = found(root, what)? else { return Ok(()) };
        let doing = || format!("masking {}", inside(what));
        let is_dir = fs::fstat(target.as_fd()).doing(doing)?.kind() == libc::S_IFDIR;
        if is_dir {
            self.cover_directory(target.as_fd(), label)
        } else {
            self.cover_file(root, target.as_fd())
        }
        .map_err(|f| Failure { doing: format!("{}: {}", doing(), f.doing), ..f })
    }

    fn cover_file(&mut self, root: BorrowedFd, target: BorrowedFd) -> Result<()> {
        let copy = clone(self.null(root)?.as_fd()).doing(|| "copying the mount of /dev/null".into())?;
        mount::move_mount(copy.as_fd(), target).doing(|| "mounting /dev/null on it".into())
    }

    /// The first directory gets the tmpfs itself, every further one a copy: before Linux 6.15 a mount can be copied only
    /// once it is attached (open_tree(2)).
    fn cover_directory(&mut self, target: BorrowedFd, label: Option<&CStr>) -> Result<()> {
        let doing = || "mounting an empty tmpfs on it".to_owned();
        match &self.empty {
            Some(first) => mount::move_mount(clone(first.as_fd()).doing(doing)?.as_fd(), target).doing(doing),
            None => {
                let first = empty(label)?;
                mount::move_mount(first.as_fd(), target).doing(doing)?;
                self.empty = Some(first);
                Ok(())
            }
        }
    }

    /// The container's /dev/null, verified to be the kernel's: a link or another node there would turn a mask into a
    /// bind of what the image chose (CVE-2025-31133).
    fn null(&mut self, root: BorrowedFd) -> Result<&OwnedFd> {
        if self.null.is_none() {
            let fd = fs::openat2(
                root,
                c"dev/null",
                libc::O_PATH | libc::O_NOFOLLOW,
                0,
                fs::RESOLVE_IN_ROOT | fs::RESOLVE_NO_MAGICLINKS,
            )
            .doing(|| "opening /dev/null of the container, which hides masked files".into())?;
            let stat = fs::fstat(fd.as_fd()).doing(|| "looking at /dev/null".into())?;
            if stat.kind() != libc::S_IFCHR || (stat.rdev_major, stat.rdev_minor) != (1, 3) {
                return Err(Failure::says(
                    "/dev/null of the container is not the null device: masked files cannot be hidden behind it",
                ));
            }
            self.null = Some(fd);
        }
        Ok(self.null.as_ref().expect("set above"))
    }
}

/// One empty read-only tmpfs for all directories.
fn empty(label: Option<&CStr>) -> Result<OwnedFd> {
    let doing = || "making an empty tmpfs".to_owned();
    let context = mount::fsopen(c"tmpfs").doing(doing)?;
    let fixed = [(c"nr_blocks", c"1"), (c"nr_inodes", c"1"), (c"mode", c"755")];
    for (key, value) in fixed.into_iter().chain(label.map(|label| (c"context", label))) {
        mount::fsconfig_string(context.as_fd(), key, value).doing(doing)?;
    }
    mount::fsconfig_create(context.as_fd()).doing(doing)?;
    mount::fsmount(context.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC).doing(doing)
}
