//! Mounts that come from outside: criu puts a name for each into the image, and takes on restore what the name stands for.

use crate::failure::{Doing, Failure, Result, text};
use crate::step::mounts::clone_tree;
use crate::step::path;
use coracle_plan::steps::{Act, Mount, MountKind, Node, Plan};
use coracle_sys::mount::{self, MountAttr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What hides a file.
const NULL: &str = "/dev/null";

/// A mount from outside: where in the container, from what.
pub(super) struct External {
    pub(super) target: String,
    pub(super) source: String,
}

fn string(bytes: &CStr) -> String {
    bytes.to_string_lossy().into_owned()
}

/// All mounts of the plan that come from outside. `root` is the container's, whose links the targets are resolved by.
/// Errors: a name that criu would read as another one (`NAME]:VALUE`), which a link of the image can lead to
/// (CVE-2026-119101).
pub(super) fn external(plan: &Plan, root: BorrowedFd) -> Result<Vec<External>> {
    let mut out = Vec::new();
    for step in &plan.setup {
        match &step.act {
            Act::Mount(mount) => of_mount(mount, root, &mut out),
            Act::Device(device) if device.node != Node::Made => {
                let at = format!("/{}", string(&device.path));
                out.push(External { target: at.clone(), source: at });
            }
            _ => {}
        }
    }
    match out.iter().find(|e| e.target.contains(']')) {
        Some(e) => {
            Err(Failure::says(format!("the mount on {:?} has a name that criu cannot take", e.target)))
        }
        None => Ok(out),
    }
}

fn of_mount(mount: &Mount, root: BorrowedFd, out: &mut Vec<External>) {
    let at = || resolved(root, &mount.target);
    match &mount.what {
        MountKind::Bind(bind) if !bind.inside => {
            let named = string(&bind.source);
            // criu mounts a link itself, not what it leads to: /lib, say, of a host with a merged /usr.
            let followed = std::fs::canonicalize(&named).ok().filter(|_| !bind.nofollow && !bind.copy_link);
            let source = followed.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or(named);
            out.push(External { target: at(), source });
        }
        MountKind::LegacyCgroups(group, _) => {
            out.extend(crate::cgroup::hierarchies().unwrap_or_default().iter().map(|h| External {
                target: format!("{}/{}", at(), h.mount.rsplit('/').next().unwrap_or_default()),
                source: format!("{}{group}", h.mount),
            }))
        }
        _ => {}
    }
}

/// The masked files of the plan that are there.
pub(super) fn masked(plan: &Plan, root: BorrowedFd) -> Vec<External> {
    let is_file = |path: &CStr| {
        let found = path::open(root, path, libc::O_PATH).and_then(|fd| fs::fstat(fd.as_fd()));
        found.is_ok_and(|stat| stat.kind() != libc::S_IFDIR)
    };
    let masked =
        plan.setup.iter().filter_map(|s| if let Act::Mask(path, _) = &s.act { Some(path) } else { None });
    let file = |path: &CString| External { target: format!("/{}", string(path)), source: NULL.into() };
    masked.filter(|path| is_file(path)).map(file).collect()
}

/// Whether the plan hides anything: restore then needs the null device under the name that the image has for it.
pub(super) fn masks(plan: &Plan) -> Option<External> {
    let any = plan.setup.iter().any(|s| matches!(s.act, Act::Mask(..)));
    any.then(|| External { target: NULL.into(), source: NULL.into() })
}

/// A target as the kernel's mount table of the container has it.
fn resolved(root: BorrowedFd, target: &CStr) -> String {
    let place = path::open(root, target, libc::O_PATH);
    let base = fs::readlinkat(fs::cwd(), &fs::proc_fd_path(root)).unwrap_or_default();
    let whole = place.and_then(|fd| fs::readlinkat(fs::cwd(), &fs::proc_fd_path(&fd))).unwrap_or_default();
    let within = whole.strip_prefix(base.as_slice().strip_suffix(b"/").unwrap_or(&base));
    match within {
        Some(within) if !within.is_empty() => String::from_utf8_lossy(within).into_owned(),
        _ => format!("/{}", string(target)),
    }
}

/// In a mount namespace of criu's own: the root file system at a mount that criu accepts (one whose parent is not mounted
/// over), on a tmpfs over a directory that nothing else needs; and in it the places that mounts go to.
pub(super) fn prepare(plan: &Plan, rootfs: &CStr, over: &CStr, at: &CStr) -> Result<()> {
    coracle_sys::namespace::unshare(libc::CLONE_NEWNS)
        .doing(|| "making a mount namespace for criu".into())?;
    crate::step::root::sever(libc::MS_SLAVE)?;
    mount::mount(Some(c"tmpfs"), over, Some(c"tmpfs"), 0, None)
        .doing(|| format!("mounting a tmpfs on {}", text(over)))?;
    let doing = || format!("mounting the root file system {} for criu", text(rootfs));
    fs::mkdirat(fs::cwd(), at, 0o755).doing(doing)?;
    mount::mount(Some(rootfs), at, None, libc::MS_BIND | libc::MS_REC, None).doing(doing)?;
    let root = fs::open(at, libc::O_PATH | libc::O_DIRECTORY, 0).doing(doing)?;
    places(plan, root.as_fd())
}

/// The places that mounts go to, as create makes them: those of mounts within a bind mount too, hence it is there meanwhile.
fn places(plan: &Plan, root: BorrowedFd) -> Result<()> {
    let mounts: Vec<(&Mount, &str)> = plan
        .setup
        .iter()
        .filter_map(|s| if let Act::Mount(m) = &s.act { Some((m.as_ref(), s.origin.as_str())) } else { None })
        .collect();
    let mut binds = Vec::new();
    for (mount, origin) in &mounts {
        if matches!(mount.what, MountKind::LegacyCgroups(..) | MountKind::Remount(_) | MountKind::Again(_))
            || on_a_tmpfs(mount, &mounts)
        {
            continue; // criu brings back what is on a tmpfs
        }
        let place = place(mount, root).map_err(|f| f.at(origin))?;
        binds.extend(place);
    }
    for bind in binds.iter().rev() {
        let at = fs::proc_fd_path(bind);
        mount::umount2(&at, libc::MNT_DETACH).doing(|| "taking a bind mount off again".into())?;
    }
    Ok(())
}

fn on_a_tmpfs(mount: &Mount, all: &[(&Mount, &str)]) -> bool {
    let below = |dir: &CStr| {
        mount.target.to_bytes().strip_prefix(dir.to_bytes()).is_some_and(|r| r.starts_with(b"/"))
    };
    let tmpfs =
        |kind: &MountKind| matches!(kind, MountKind::Filesystem(name, ..) if name.as_c_str() == c"tmpfs");
    all.iter().any(|(other, _)| tmpfs(&other.what) && below(&other.target))
}

/// Makes one place; returns the bind mount that was made on it.
fn place(what: &Mount, root: BorrowedFd) -> Result<Option<OwnedFd>> {
    let doing = || format!("making the place {} for a mount", text(&what.target));
    let outside =
        if let MountKind::Bind(bind) = &what.what { Some(bind).filter(|b| !b.inside) } else { None };
    let Some(bind) = outside else {
        match path::directory(root, &what.target) {
            // Below /proc or /sys, which are not mounted yet.
            Err(Errno::EROFS | Errno::ENOENT) => {}
            other => drop(other.doing(doing)?),
        }
        return Ok(None);
    };
    let tree = clone_tree(bind).doing(|| format!("opening {}", text(&bind.source)))?;
    let directory = fs::fstat(tree.as_fd()).doing(doing)?.kind() == libc::S_IFDIR;
    let place = if directory { path::directory(root, &what.target) } else { path::file(root, &what.target) };
    let place = place.doing(doing)?;
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
    mount::mount_setattr(tree.as_fd(), true, &private).doing(doing)?;
    mount::move_mount(tree.as_fd(), place.as_fd()).doing(doing)?;
    Ok(Some(tree))
}
