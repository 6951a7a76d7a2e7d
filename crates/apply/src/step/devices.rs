//! Device nodes and links below the root's /dev: config-linux.md, Default Devices, Devices.

use super::attributes::{self, Later};
use super::{mounts, path};
use crate::failure::{Doing, Failure, Result, inside, text};
use coracle_plan::steps::{Bind, Device, Node};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An image's link can make /dev a directory of the host that config.json shares with the container: nothing is made or
/// removed there (as in CVE-2026-41579, where it was made before the root changed). `own`: the container's mounts.
pub(crate) fn refuse_shared(root: BorrowedFd, own: &[u64]) -> Result<()> {
    let doing = || "opening /dev".to_owned();
    let id = |fd: BorrowedFd| mount::mount_id(fd).doing(doing);
    let dev = id(path::directory(root, c"dev").doing(doing)?.as_fd())?;
    if dev == id(root)? || own.contains(&dev) {
        return Ok(());
    }
    Err(Failure::says(
        "filling /dev: a symbolic link in the root file system makes it a directory of the host; mount a tmpfs on /dev, or correct the link",
    ))
}

/// Makes a node; one that exists must be the very same. `given` is one that the parent has made, as a mount of its own.
pub(crate) fn node(root: BorrowedFd, d: &Device, given: Option<OwnedFd>) -> Result<()> {
    let name = || format!("making the device {}", inside(&d.path));
    match (d.node, given) {
        (Node::Made, _) => {}
        (_, Some(given)) => return attach(root, d, part(root, d, given)?.as_fd()),
        (_, None) => return bind(root, d),
    }
    let (dir, last) = path::parent(root, &d.path).doing(name)?;
    match fs::mknodat(dir.as_fd(), &last, d.kind | d.mode, d.major, d.minor) {
        Ok(()) if d.uid == 0 && d.gid == 0 => Ok(()),
        Ok(()) => fs::fchownat(dir.as_fd(), &last, d.uid, d.gid, libc::AT_SYMLINK_NOFOLLOW).doing(name),
        Err(Errno::EEXIST) => same(dir.as_fd(), &last, d),
        // The runtime itself is in a user namespace, as for a user's Buildah, or without CAP_MKNOD: mknod(2).
        Err(Errno::EPERM) if d.kind != libc::S_IFIFO => bind(root, d),
        Err(e) => Err(e).doing(name),
    }
}

fn same(dir: BorrowedFd, name: &CStr, d: &Device) -> Result<()> {
    let found = fs::fstatat(dir, name, libc::AT_SYMLINK_NOFOLLOW)
        .doing(|| format!("looking at {}", inside(&d.path)))?;
    if found.kind() == d.kind
        && (d.kind == libc::S_IFIFO || (found.rdev_major, found.rdev_minor) == (d.major, d.minor))
    {
        return Ok(());
    }
    Err(Failure::says(format!(
        "making the device {}: something else of that name is there already, in the root file system or by another entry of linux.devices; remove one of the two",
        inside(&d.path)
    )))
}

fn bind(root: BorrowedFd, d: &Device) -> Result<()> {
    let host = CString::new([b"/", d.path.to_bytes()].concat()).unwrap_or_default();
    let node = mounts::clone_tree(&Bind { source: host.clone(), ..Bind::default() })
        .doing(|| format!("opening the host's {}", text(&host)))?;
    let stat = fs::fstat(node.as_fd()).doing(|| format!("looking at {}", text(&host)))?;
    if stat.kind() != d.kind || (stat.rdev_major, stat.rdev_minor) != (d.major, d.minor) {
        return Err(Failure::says(format!(
            "the host's {} is not the device {}:{} that was asked for",
            text(&host),
            d.major,
            d.minor
        )));
    }
    attach(root, d, node.as_fd())
}

fn attach(root: BorrowedFd, d: &Device, node: BorrowedFd) -> Result<()> {
    let mut later = Later::default();
    let target = path::file(root, &d.path).doing(|| format!("making the mount point {}", inside(&d.path)))?;
    // Nothing that a device holds is a program.
    let strict = MountAttr { set: attr::NOSUID | attr::NOEXEC, ..Default::default() };
    let doing = || format!("binding the device {}", inside(&d.path));
    attributes::set(node, false, &strict, &mut later).doing(doing)?;
    mount::move_mount(node, target.as_fd()).doing(doing)?;
    later.attached(node)
}

/// The name of a node on a file system of its own.
const NODE: &CStr = c"node";

/// A node on a file system of its own, which nothing else is on and nobody else sees, as a mount that is not attached:
/// what may make nodes makes it for one that may not. Before Linux 6.15 that file system, of which [`part`] takes the node.
pub(crate) fn give(d: &Device) -> Result<OwnedFd> {
    let doing = || for_stranger(d);
    let context = mount::fsopen(c"tmpfs").doing(doing)?;
    mount::fsconfig_create(context.as_fd()).doing(doing)?;
    let place = mount::fsmount(context.as_fd(), 0).doing(doing)?;
    fs::mknodat(place.as_fd(), NODE, d.kind | d.mode, d.major, d.minor).doing(doing)?;
    fs::fchmodat(place.as_fd(), NODE, d.mode).doing(doing)?;
    fs::fchownat(place.as_fd(), NODE, d.uid, d.gid, libc::AT_SYMLINK_NOFOLLOW).doing(doing)?;
    match mount::open_tree(place.as_fd(), NODE, mount::OPEN_TREE_CLONE) {
        Err(Errno::EINVAL) => Ok(place),
        other => other.doing(doing),
    }
}

/// The node of what [`give`] gave whole: a part can then be had only of what is attached. That is over the root as long as it
/// takes, where names are looked up below the root's own descriptor.
fn part(root: BorrowedFd, d: &Device, given: OwnedFd) -> Result<OwnedFd> {
    let doing = || for_stranger(d);
    if fs::fstat(given.as_fd()).doing(doing)?.kind() != libc::S_IFDIR {
        return Ok(given);
    }
    mount::move_mount(given.as_fd(), root).doing(doing)?;
    let node = mount::open_tree(given.as_fd(), NODE, mount::OPEN_TREE_CLONE).doing(doing);
    mount::umount2(&fs::proc_fd_path(&given), libc::MNT_DETACH).doing(doing)?;
    node
}

fn for_stranger(d: &Device) -> String {
    format!("making the device {} for the user namespace", inside(&d.path))
}

/// Makes a link; what is there stays.
pub(crate) fn link(root: BorrowedFd, at: &CStr, target: &CStr) -> Result<()> {
    let (dir, name) = path::parent(root, at).doing(|| format!("opening the directory of {}", inside(at)))?;
    match fs::symlinkat(target, dir.as_fd(), &name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e).doing(|| format!("making the link {}", inside(at))),
    }
}

/// The multiplexer of the container's own devpts.
pub(crate) fn ptmx(root: BorrowedFd) -> Result<()> {
    let (dir, name) = path::parent(root, c"dev/ptmx").doing(|| "opening /dev".into())?;
    match fs::unlinkat(dir.as_fd(), &name, 0) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(e).doing(|| "removing the old /dev/ptmx".into()),
    }
    fs::symlinkat(c"pts/ptmx", dir.as_fd(), &name).doing(|| "making the link /dev/ptmx".into())
}
