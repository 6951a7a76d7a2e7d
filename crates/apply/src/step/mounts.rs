//! Mounts: made detached, attached to an open target. config.md, Mounts.

use super::path;
use crate::cgroup;
use crate::failure::{Doing, Failure, Result, text};
use coracle_plan::steps::{Mount, MountKind};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes one mount below the root; `opened` is its source, when the parent has opened it.
pub(crate) fn mount(root: BorrowedFd, what: &Mount, opened: Option<OwnedFd>) -> Result<()> {
    refuse_links(root, &what.target)?;
    let target = |is_dir: bool| {
        let made = if is_dir { path::directory(root, &what.target) } else { path::file(root, &what.target) };
        made.doing(|| format!("making the mount point {}", text(&what.target)))
    };
    let first = make(&what.what, what, root, opened);
    let made = match (first, &what.fallback) {
        (Err(f), Some(second)) if matches!(f.errno, Some(Errno::EPERM | Errno::EBUSY)) => {
            make(second, what, root, None).map_err(|_| f)
        }
        (other, _) => other,
    }?;
    let is_dir = fs::fstat(made.as_fd()).is_ok_and(|s| s.kind() == libc::S_IFDIR);
    let target = target(is_dir)?;
    if what.copy_up {
        copy_tree(target.as_fd(), made.as_fd()).doing(|| format!("copying up {}", text(&what.target)))?;
    }
    mount::move_mount(made.as_fd(), target.as_fd())
        .doing(|| format!("mounting on {}", text(&what.target)))?;
    if let MountKind::LegacyCgroups(group) = &what.what {
        legacy(root, &what.target, group, what.attributes)?;
    }
    finish(made.as_fd(), what)
}

/// A link at /proc or /sys would put the container's procfs elsewhere than where it is written to and masked (CVE-2019-19921).
fn refuse_links(root: BorrowedFd, target: &CStr) -> Result<()> {
    if (target == c"proc" || target == c"sys") && path::is_link(root, target) {
        return Err(Failure::says(format!(
            "mounting on {}: it is a symbolic link in the root file system, and must be an ordinary directory",
            text(target)
        )));
    }
    Ok(())
}

fn make(kind: &MountKind, what: &Mount, root: BorrowedFd, opened: Option<OwnedFd>) -> Result<OwnedFd> {
    match kind {
        MountKind::Bind(source, recursive) => bind(source, *recursive, what, opened),
        MountKind::Filesystem(fstype, source, parameters) => {
            let mode = inherited_mode(fstype, parameters, root, &what.target);
            filesystem(fstype, source, parameters.iter().chain(mode.as_ref()), what.attributes.0)
        }
        MountKind::LegacyCgroups(_) => {
            let mode = (c"mode".to_owned(), Some(c"755".to_owned()));
            filesystem(c"tmpfs", c"tmpfs", [&mode].into_iter(), what.attributes.0 & !attr::RDONLY)
        }
    }
}

/// A detached copy of a part of the tree. Flags that are locked in a user namespace cannot be cleared: they stay, which is
/// stricter than asked.
fn bind(source: &CStr, recursive: bool, what: &Mount, opened: Option<OwnedFd>) -> Result<OwnedFd> {
    let copy = match opened {
        Some(fd) => fd,
        None => clone_tree(source, recursive).doing(|| format!("opening the source {}", text(source)))?,
    };
    let (set, clear) = what.attributes;
    if set | clear != 0 {
        let all = MountAttr { set, clear, ..Default::default() };
        let only_set =
            MountAttr { clear: clear & if set & attr::ATIME != 0 { attr::ATIME } else { 0 }, ..all };
        mount::mount_setattr(copy.as_fd(), false, &all)
            .or_else(|e| {
                if e == Errno::EPERM { mount::mount_setattr(copy.as_fd(), false, &only_set) } else { Err(e) }
            })
            .doing(|| format!("setting the options of {}", text(&what.target)))?;
    }
    Ok(copy)
}

/// `open_tree(2)` of a path of the host.
pub(crate) fn clone_tree(source: &CStr, recursive: bool) -> coracle_sys::Result<OwnedFd> {
    mount::open_tree(
        fs::cwd(),
        source,
        mount::OPEN_TREE_CLONE | if recursive { mount::AT_RECURSIVE } else { 0 },
    )
}

type Parameter = (CString, Option<CString>);

/// A tmpfs without a mode takes that of the directory that it covers, as peers do: /tmp stays 1777.
fn inherited_mode(
    fstype: &CStr,
    parameters: &[Parameter],
    root: BorrowedFd,
    target: &CStr,
) -> Option<Parameter> {
    if fstype != c"tmpfs" || parameters.iter().any(|(k, _)| k.as_c_str() == c"mode") {
        return None;
    }
    let stat = path::open(root, target, libc::O_PATH).and_then(|d| fs::fstat(d.as_fd())).ok()?;
    Some((c"mode".to_owned(), CString::new(format!("{:o}", stat.mode & 0o7777)).ok()))
}

fn filesystem<'a>(
    fstype: &CStr,
    source: &CStr,
    parameters: impl Iterator<Item = &'a Parameter>,
    attributes: u64,
) -> Result<OwnedFd> {
    let context =
        mount::fsopen(fstype).doing(|| format!("opening a file system of type {}", text(fstype)))?;
    let fd = context.as_fd();
    let said = |e: Errno, doing: String| {
        let log = mount::read_log(fd);
        Failure::errno(if log.is_empty() { doing } else { format!("{doing} (the kernel says: {log})") }, e)
    };
    let set = |key: &CStr, value: Option<&CStr>| {
        value.map_or_else(|| mount::fsconfig_flag(fd, key), |v| mount::fsconfig_string(fd, key, v))
    };
    set(c"source", Some(source)).map_err(|e| said(e, format!("naming the source {}", text(source))))?;
    for (key, value) in parameters {
        set(key, value.as_deref())
            .map_err(|e| said(e, format!("setting the option {} of {}", text(key), text(fstype))))?;
    }
    mount::fsconfig_create(fd)
        .map_err(|e| said(e, format!("making a file system of type {}", text(fstype))))?;
    mount::fsmount(fd, attributes)
        .map_err(|e| said(e, format!("mounting a file system of type {}", text(fstype))))
}

/// What is set once the mount stands: recursive attributes, propagation in the order given.
fn finish(made: BorrowedFd, what: &Mount) -> Result<()> {
    let (set, clear) = what.recursive_attributes;
    if set | clear != 0 {
        let all = MountAttr { set, clear, ..Default::default() };
        mount::mount_setattr(made, true, &all)
            .doing(|| format!("setting the recursive options of {}", text(&what.target)))?;
    }
    for (propagation, recursive) in &what.propagation {
        let change = MountAttr { propagation: *propagation, ..Default::default() };
        mount::mount_setattr(made, *recursive, &change)
            .doing(|| format!("setting the propagation of {}", text(&what.target)))?;
    }
    Ok(())
}

/// The container's part of each v1 hierarchy, bound below the tmpfs; a link for each controller of a joint one.
fn legacy(root: BorrowedFd, target: &CStr, group: &str, attributes: (u64, u64)) -> Result<()> {
    for h in cgroup::hierarchies() {
        let name = h.mount.rsplit('/').next().unwrap_or("").to_owned();
        let at = CString::new(format!("{}/{name}", target.to_string_lossy())).unwrap_or_default();
        let source = CString::new(format!("{}{group}", h.mount)).unwrap_or_default();
        let one = Mount {
            target: at,
            what: MountKind::Bind(source, false),
            fallback: None,
            attributes,
            recursive_attributes: (0, 0),
            propagation: Vec::new(),
            copy_up: false,
        };
        mount(root, &one, None)?;
        for controller in h.controllers.iter().filter(|c| **c != name && !c.contains('=')) {
            let link = CString::new(format!("{}/{controller}", target.to_string_lossy())).unwrap_or_default();
            let (dir, link) = path::parent(root, &link).doing(|| format!("opening {}", text(target)))?;
            let _ = fs::symlinkat(&CString::new(name.as_str()).unwrap_or_default(), dir.as_fd(), &link);
        }
    }
    if attributes.0 & attr::RDONLY != 0 {
        let tmpfs = path::open(root, target, libc::O_PATH).doing(|| format!("opening {}", text(target)))?;
        let read_only = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::mount_setattr(tmpfs.as_fd(), false, &read_only)
            .doing(|| format!("making {} read-only", text(target)))?;
    }
    Ok(())
}

/// Copies directories, regular files and links, with owners and modes (tmpcopyup).
fn copy_tree(from: BorrowedFd, to: BorrowedFd) -> coracle_sys::Result<()> {
    let list = fs::openat(from, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    for name in fs::read_dir(list.as_fd())? {
        let stat = fs::fstatat(from, &name, libc::AT_SYMLINK_NOFOLLOW)?;
        match stat.kind() {
            libc::S_IFDIR => {
                fs::mkdirat(to, &name, 0o700)?;
                let open =
                    |dir| fs::openat(dir, &name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0);
                copy_tree(open(from)?.as_fd(), open(to)?.as_fd())?;
            }
            libc::S_IFREG => {
                let source = fs::openat(from, &name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
                let copy = fs::openat(to, &name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600)?;
                while fs::sendfile(copy.as_fd(), source.as_fd(), 1 << 20)? > 0 {}
            }
            libc::S_IFLNK => {
                let target = CString::new(fs::readlinkat(from, &name)?).unwrap_or_default();
                fs::symlinkat(&target, to, &name)?;
            }
            kind => fs::mknodat(to, &name, kind | 0o600, stat.rdev_major, stat.rdev_minor)?,
        }
        fs::fchownat(to, &name, stat.uid, stat.gid, libc::AT_SYMLINK_NOFOLLOW)?;
        if stat.kind() != libc::S_IFLNK {
            fs::fchmodat(to, &name, stat.mode & 0o7777)?;
        }
    }
    Ok(())
}
