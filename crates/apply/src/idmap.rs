//! Mounts whose ids are mapped: mount_setattr(2), MOUNT_ATTR_IDMAP. The map is that of a user namespace, made for it where
//! none exists; only who may do anything to the file system may map it, so that it is the parent who does.

use crate::failure::{Doing, Failure, Result, text};
use crate::parent::write_maps;
use coracle_plan::steps::{IdMapped, IdMaps, IdSource, Plan};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::process::{self, CloneArgs, Cloned};
use coracle_sys::{Errno, fs, libc, poll};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Maps the ids of a detached tree.
pub(crate) fn apply(plan: &Plan, tree: BorrowedFd, what: &IdMapped) -> Result<()> {
    let namespace = match &what.by {
        IdSource::Joined(i) => {
            let path = &plan.namespaces.join[*i].path;
            fs::open(path, libc::O_RDONLY, 0).doing(|| format!("opening the namespace {}", text(path)))?
        }
        IdSource::Maps(maps) => namespace(maps)?,
    };
    let map = MountAttr {
        set: attr::IDMAP,
        userns: std::os::fd::AsRawFd::as_raw_fd(&namespace) as u64,
        ..MountAttr::default()
    };
    mount::mount_setattr(tree, what.recursive, &map).map_err(|e| {
        let why = match e {
            Errno::EINVAL => " (maybe the filesystem used doesn't support idmap mounts on this kernel)",
            Errno::EPERM => " (it takes privileges over the file system, which a rootless caller lacks; and a mount cannot be mapped twice)",
            Errno::ENOSYS => " (mount_setattr needs Linux 5.12)",
            _ => "",
        };
        Failure::errno(format!("mapping the ids of the mount{why}"), e)
    })
}

/// A user namespace with this map. The process that it took to make it ends here.
fn namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let doing = || "making a user namespace for an id-mapped mount".to_owned();
    let (told, tell) = poll::pipe().doing(doing)?;
    let args = CloneArgs { flags: libc::CLONE_NEWUSER as u64, cgroup: None, sibling: false };
    match process::clone3(&args).doing(doing)? {
        Cloned::Child => {
            drop(tell);
            // Until the other end closes, be it by the parent's death.
            let _ = poll::poll(&[(told.as_fd(), 0)], -1);
            process::exit_now(0)
        }
        Cloned::Parent(pid, _) => {
            let path = CString::new(format!("/proc/{pid}/ns/user")).unwrap_or_default();
            let made = write_maps(pid, maps).and_then(|()| fs::open(&path, libc::O_RDONLY, 0).doing(doing));
            drop(tell);
            let _ = process::wait(pid, 0);
            made
        }
    }
}
