//! Mounts: made detached, attached to an open target. config.md, Mounts.

use super::attributes::{self, Later};
use super::path;
use crate::cgroup;
use crate::failure::{Doing, Failure, Result, inside, text};
use coracle_plan::steps::{Bind, Mount, MountKind, Parameter};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes one mount below the root; `opened` is its source, when the parent has opened it, and `map` has the parent map the
/// ids of a tree. Returns the mount, if one was made.
pub(crate) fn mount(
    root: BorrowedFd,
    what: &Mount,
    opened: Option<OwnedFd>,
    map: &dyn Fn(BorrowedFd) -> Result<()>,
) -> Result<Option<OwnedFd>> {
    refuse_links(root, &what.target)?;
    match &what.what {
        MountKind::Bind(bind) if bind.copy_link && copy_link(root, &what.target, bind)? => return Ok(None),
        MountKind::Remount(parameters) => return change(root, what, parameters.as_deref()).map(|()| None),
        MountKind::Again(true) if !is_mounted(root, what) => return Ok(None),
        MountKind::Again(_) => return change(root, what, None).map(|()| None),
        MountKind::Filesystem(fstype, source, parameters) if parameters.iter().any(is_long) => {
            return by_mount(root, what, fstype, source, parameters).map(Some);
        }
        _ => {}
    }
    let peer = matches!(&what.what, MountKind::Bind(bind) if bind.peer);
    let mut later = if opened.is_some() && !peer { Later::of_parent() } else { Later::default() };
    let mapped = opened.is_some() || what.idmap.is_none();
    let first = make(&what.what, what, root, opened, &mut later);
    let made = match (first, &what.fallback) {
        (Err(f), Some(second)) if matches!(f.errno, Some(Errno::EPERM | Errno::EBUSY | Errno::ENOENT)) => {
            let made = make(second, what, root, None, &mut later).map_err(|_| f)?;
            no_wider(made.as_fd(), second, what, &mut later).map(|()| made)
        }
        (other, _) => other,
    }?;
    if !mapped {
        map(made.as_fd())?;
    }
    let is_dir = fs::fstat(made.as_fd()).is_ok_and(|s| s.kind() == libc::S_IFDIR);
    let target = target(root, what, is_dir)?;
    if what.copy_up {
        copy_tree(target.as_fd(), made.as_fd()).doing(|| format!("copying up {}", inside(&what.target)))?;
    }
    mount::move_mount(made.as_fd(), target.as_fd()).map_err(|e| unlike(e, is_dir, target.as_fd(), what))?;
    later.attached(made.as_fd()).map_err(|f| options_of(what, f))?;
    if let MountKind::LegacyCgroups(group, _) = &what.what {
        legacy(root, &what.target, group, what.attributes)?;
    }
    finish(made.as_fd(), what)?;
    Ok(Some(made))
}

/// A new file system has nothing below that could be written, run or used against these options; nor has what is bound in
/// its place.
fn no_wider(made: BorrowedFd, second: &MountKind, what: &Mount, later: &mut Later) -> Result<()> {
    let set = what.attributes.0 & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
    if set == 0 || !matches!(second, MountKind::Bind(bind) if bind.recursive) {
        return Ok(());
    }
    let narrower = MountAttr { set, ..Default::default() };
    attributes::set(made, true, &narrower, later).doing(|| "mount_setattr of what is mounted below".into())
}

/// Why a mount could not be attached. What move_mount(2) calls EINVAL for a file and a directory, mount(2) calls ENOTDIR: Docker
/// knows that one's words, and says what to look at, but takes EISDIR's for a program that cannot be run (exit status 126).
fn unlike(errno: Errno, is_dir: bool, target: BorrowedFd, what: &Mount) -> Failure {
    let kind = |dir| if dir { "a directory" } else { "a file" };
    let onto_dir = fs::fstat(target).is_ok_and(|s| s.kind() == libc::S_IFDIR);
    let doing = format!("error mounting {}", inside(&what.target));
    if onto_dir == is_dir {
        return Failure::errno(doing, errno);
    }
    let kinds = format!("{doing} ({} onto {})", kind(is_dir), kind(onto_dir));
    Failure::errno(kinds, if errno == Errno::EINVAL { Errno::ENOTDIR } else { errno })
}

fn options_of(what: &Mount, f: Failure) -> Failure {
    Failure {
        doing: format!("error mounting {}: setting its options: {}", inside(&what.target), f.doing),
        ..f
    }
}

/// The place to mount on, made if need be.
fn target(root: BorrowedFd, what: &Mount, is_dir: bool) -> Result<OwnedFd> {
    let made = if what.nofollow {
        itself(root, &what.target, is_dir)
    } else if is_dir {
        path::directory(root, &what.target)
    } else {
        path::file(root, &what.target)
    };
    let made = made.doing(|| format!("making the mount point {}", inside(&what.target)))?;
    refuse_procfs(root, &what.target, made.as_fd())?;
    Ok(made)
}

/// What may stand on /proc was decided by its name (coracle_plan, CVE-2019-16884): no link of the image leads another mount there.
fn refuse_procfs(root: BorrowedFd, target: &CStr, place: BorrowedFd) -> Result<()> {
    let named = target == c"proc" || target.to_bytes().starts_with(b"proc/");
    if named || fs::file_system(place) != Ok(fs::PROCFS) {
        return Ok(());
    }
    let resolve = fs::RESOLVE_IN_ROOT | fs::RESOLVE_NO_SYMLINKS;
    fs::openat2(root, target, libc::O_PATH, 0, resolve).map(drop).map_err(|_| {
        Failure::says(format!(
            "mounting on {}: a symbolic link in the root file system leads into /proc",
            inside(target)
        ))
    })
}

/// What stands there, a link included.
fn itself(root: BorrowedFd, path: &CStr, is_dir: bool) -> coracle_sys::Result<OwnedFd> {
    let (dir, name) = path::parent(root, path)?;
    let made = if is_dir {
        fs::mkdirat(dir.as_fd(), &name, 0o755)
    } else {
        fs::mknodat(dir.as_fd(), &name, libc::S_IFREG, 0, 0)
    };
    made.or_else(|e| if e == Errno::EEXIST { Ok(()) } else { Err(e) })?;
    fs::openat2(dir.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::RESOLVE_BENEATH)
}

/// Makes the link that the source is. Says whether it is one.
fn copy_link(root: BorrowedFd, target: &CStr, bind: &Bind) -> Result<bool> {
    let Ok(link) = fs::readlinkat(fs::cwd(), &bind.source) else { return Ok(false) };
    let doing = || format!("making the link {}", inside(target));
    let (dir, name) = path::parent(root, target).doing(doing)?;
    match fs::symlinkat(&CString::new(link.as_slice()).unwrap_or_default(), dir.as_fd(), &name) {
        Err(Errno::EEXIST) if fs::readlinkat(dir.as_fd(), &name) == Ok(link) => Ok(true),
        other => other.doing(doing).map(|()| true),
    }
}

/// What stands at the target.
fn standing(root: BorrowedFd, what: &Mount) -> coracle_sys::Result<OwnedFd> {
    let nofollow = if what.nofollow { libc::O_NOFOLLOW } else { 0 };
    path::open(root, &what.target, libc::O_PATH | nofollow)
}

fn is_mounted(root: BorrowedFd, what: &Mount) -> bool {
    standing(root, what).is_ok_and(|there| mount::is_mount_root(there.as_fd()) == Ok(true))
}

/// Changes the mount that stands there.
fn change(root: BorrowedFd, what: &Mount, parameters: Option<&[Parameter]>) -> Result<()> {
    let doing = || format!("remounting {}", inside(&what.target));
    let nothing = || Failure::says(format!("remounting {}: nothing is mounted there", inside(&what.target)));
    let there = match standing(root, what) {
        Err(Errno::ENOENT) => return Err(nothing()),
        other => other.doing(doing)?,
    };
    if mount::is_mount_root(there.as_fd()) != Ok(true) {
        return Err(nothing());
    }
    if let Some(parameters) = parameters.filter(|p| !p.is_empty()) {
        let context = mount::fspick(there.as_fd()).doing(doing)?;
        set_parameters(context.as_fd(), parameters.iter(), || inside(&what.target))?;
        mount::fsconfig_reconfigure(context.as_fd()).map_err(|e| said(context.as_fd(), e, doing()))?;
    }
    let (set, clear) = what.attributes;
    if set | clear != 0 {
        attributes::set_attached(there.as_fd(), false, &MountAttr { set, clear, ..Default::default() })
            .map_err(|f| options_of(what, f))?;
    }
    finish(there.as_fd(), what)
}

/// A link at /proc or /sys would put the container's procfs elsewhere than where it is written to and masked (CVE-2019-19921).
fn refuse_links(root: BorrowedFd, target: &CStr) -> Result<()> {
    if (target == c"proc" || target == c"sys") && path::is_link(root, target) {
        return Err(Failure::says(format!(
            "{} must be mounted on ordinary directory, and is a symbolic link in the root file system",
            inside(target)
        )));
    }
    Ok(())
}

fn make(
    kind: &MountKind,
    what: &Mount,
    root: BorrowedFd,
    opened: Option<OwnedFd>,
    later: &mut Later,
) -> Result<OwnedFd> {
    match kind {
        MountKind::Bind(source) => bind(root, source, what, opened, later),
        MountKind::Filesystem(fstype, source, parameters) => {
            let mode = inherited_mode(fstype, parameters, root, &what.target)
                .doing(|| format!("looking at {}", text(&what.target)))?;
            let made =
                filesystem(fstype, source, parameters.iter().chain(mode.as_ref()), what, what.attributes.0)?;
            what.label.as_ref().map_or(Ok(()), |label| relabel(made.as_fd(), label)).map(|()| made)
        }
        MountKind::LegacyCgroups(_, parameters) => {
            filesystem(c"tmpfs", c"tmpfs", parameters.iter(), what, what.attributes.0 & !attr::RDONLY)
        }
        MountKind::Remount(_) | MountKind::Again(_) => Err(Failure::says("a remount makes no mount")),
    }
}

/// A detached copy of a part of the tree.
fn bind(
    root: BorrowedFd,
    source: &Bind,
    what: &Mount,
    opened: Option<OwnedFd>,
    later: &mut Later,
) -> Result<OwnedFd> {
    let held = source.held && opened.is_some();
    let copy = match opened {
        Some(fd) => Ok(fd),
        None if source.inside => clone_inside(root, source),
        None => clone_tree(source),
    }
    .doing(|| format!("opening the source {}", text(&source.source)))?;
    let (set, clear) = what.attributes;
    if set | clear != 0 {
        attributes::set_bind(copy.as_fd(), &MountAttr { set, clear, ..Default::default() }, held, later)
            .doing(|| "mount_setattr".into())
            .map_err(|f| options_of(what, f))?;
    }
    Ok(copy)
}

/// `open_tree(2)` of a path of the host.
pub(crate) fn clone_tree(bind: &Bind) -> coracle_sys::Result<OwnedFd> {
    let nofollow = if bind.nofollow { libc::AT_SYMLINK_NOFOLLOW as u32 } else { 0 };
    mount::open_tree(fs::cwd(), &bind.source, clone_flags(bind) | nofollow)
}

/// The same of a path of the container, whose links lead nowhere else.
fn clone_inside(root: BorrowedFd, bind: &Bind) -> coracle_sys::Result<OwnedFd> {
    let nofollow = if bind.nofollow { libc::O_NOFOLLOW } else { 0 };
    let source = path::open(root, &bind.source, libc::O_PATH | nofollow)?;
    mount::open_tree(source.as_fd(), c"", clone_flags(bind) | libc::AT_EMPTY_PATH as u32)
}

fn clone_flags(bind: &Bind) -> u32 {
    mount::OPEN_TREE_CLONE | if bind.recursive { mount::AT_RECURSIVE } else { 0 }
}

/// A tmpfs without a mode takes that of the directory that it covers, as peers do: /tmp stays 1777. Where nothing is there yet,
/// the kernel's own mode stands.
fn inherited_mode(
    fstype: &CStr,
    parameters: &[Parameter],
    root: BorrowedFd,
    target: &CStr,
) -> coracle_sys::Result<Option<Parameter>> {
    if fstype != c"tmpfs" || parameters.iter().any(|(k, _)| k.as_c_str() == c"mode") {
        return Ok(None);
    }
    match path::open(root, target, libc::O_PATH).and_then(|d| fs::fstat(d.as_fd())) {
        Ok(stat) => Ok(Some((c"mode".to_owned(), CString::new(format!("{:o}", stat.mode & 0o7777)).ok()))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn filesystem<'a>(
    fstype: &CStr,
    source: &CStr,
    parameters: impl Iterator<Item = &'a Parameter>,
    what: &Mount,
    attributes: u64,
) -> Result<OwnedFd> {
    let context = mount::fsopen(fstype).doing(|| {
        format!("opening a file system of type {} (/proc/filesystems lists the kernel's)", text(fstype))
    })?;
    let fd = context.as_fd();
    mount::fsconfig_string(fd, c"source", source)
        .map_err(|e| said(fd, e, format!("naming the source {}", text(source))))?;
    let (fs_type, target) = (|| text(fstype), || inside(&what.target));
    set_parameters(fd, parameters, || format!("{} on {}", fs_type(), target()))?;
    let doing = |hint| {
        format!("mounting a file system of type {} from {} on {}{hint}", fs_type(), text(source), target())
    };
    mount::fsconfig_create(fd).map_err(|e| said(fd, e, doing(lacking(fstype, e))))?;
    mount::fsmount(fd, attributes).map_err(|e| said(fd, e, doing("")))
}

/// What a file system that the kernel does not make may want.
fn lacking(fstype: &CStr, errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL if fstype == c"overlay" => {
            " (it wants lowerdir, and upperdir only together with workdir, both on one file system; dmesg may have the kernel's reason)"
        }
        Errno::EPERM if fstype != c"proc" && fstype != c"sysfs" => {
            " (most types want CAP_SYS_ADMIN on the host, not in a user namespace)"
        }
        _ => "",
    }
}

/// Gives the root directory of a mount an SELinux label: selinux(8).
fn relabel(made: BorrowedFd, label: &CStr) -> Result<()> {
    fs::openat(made, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .and_then(|root| fs::fsetxattr(root.as_fd(), c"security.selinux", label.to_bytes()))
        .doing(|| format!("giving it the SELinux label {} (linux.mountLabel)", text(label)))
}

/// The failure with what the kernel wrote into the context's log.
fn said(context: BorrowedFd, errno: Errno, doing: String) -> Failure {
    let log = mount::read_log(context);
    Failure::errno(if log.is_empty() { doing } else { format!("{doing} (the kernel says: {log})") }, errno)
}

fn set_parameters<'a>(
    context: BorrowedFd,
    parameters: impl Iterator<Item = &'a Parameter>,
    of: impl Fn() -> String,
) -> Result<()> {
    for (key, value) in parameters {
        let set = value.as_ref().map_or_else(
            || mount::fsconfig_flag(context, key),
            |value| mount::fsconfig_string(context, key, value),
        );
        match set {
            // Only mount(2) has bits for these, which every file system takes; as parameters just some know them.
            Err(Errno::EINVAL) if [c"iversion", c"acl", c"noacl"].contains(&key.as_c_str()) => {}
            other => {
                other.map_err(|e| {
                    let label = value.as_deref().filter(|_| key.as_bytes().ends_with(b"context"));
                    let option = match (label, value) {
                        (Some(label), _) => format!("{} to the SELinux label {}", text(key), text(label)),
                        (None, Some(value)) => text(&written(key, value)),
                        (None, None) => text(key),
                    };
                    said(context, e, format!("setting the option {option} of {}", of()))
                })?;
            }
        }
    }
    Ok(())
}

/// An option as it stands in config.json.
fn written(key: &CStr, value: &CStr) -> CString {
    CString::new([key.to_bytes(), b"=", value.to_bytes()].concat()).unwrap_or_default()
}

/// fsconfig(2) takes at most 255 bytes; the layers of an overlay may be more.
fn is_long(parameter: &Parameter) -> bool {
    parameter.1.as_ref().is_some_and(|v| v.as_bytes().len() > 255)
}

/// The old way: mount(2), whose options may fill a page, onto the target as the working directory, so that no path is
/// resolved again.
fn by_mount(
    root: BorrowedFd,
    what: &Mount,
    fstype: &CStr,
    source: &CStr,
    parameters: &[Parameter],
) -> Result<OwnedFd> {
    let doing = || format!("mounting a file system of type {} on {}", text(fstype), inside(&what.target));
    let target = target(root, what, true)?;
    let words = parameters.iter().map(|(k, v)| match v {
        // A label may have commas, which separate here: selinux(8).
        Some(v) if k.as_bytes().ends_with(b"context") => [k.as_bytes(), b"=\"", v.as_bytes(), b"\""].concat(),
        Some(v) => [k.as_bytes(), b"=", v.as_bytes()].concat(),
        None => k.as_bytes().to_vec(),
    });
    let data = CString::new(words.collect::<Vec<_>>().join(b",".as_slice())).unwrap_or_default();
    fs::fchdir(target.as_fd()).doing(doing)?;
    let mounted = mount::mount(Some(source), c".", Some(fstype), 0, Some(&data)).doing(doing);
    fs::chdir(c"/").doing(doing)?;
    mounted?;
    let made = path::open(root, &what.target, libc::O_PATH).doing(doing)?;
    if mount::is_mount_root(made.as_fd()) != Ok(true) {
        return Err(Failure::says(format!("{}: the target was exchanged meanwhile", doing())));
    }
    let (set, clear) = what.attributes;
    if set | clear != 0 {
        attributes::set_attached(made.as_fd(), false, &MountAttr { set, clear, ..Default::default() })
            .map_err(|f| options_of(what, f))?;
    }
    finish(made.as_fd(), what)?;
    Ok(made)
}

/// What is set once the mount stands: recursive attributes, propagation in the order given.
fn finish(made: BorrowedFd, what: &Mount) -> Result<()> {
    let (set, clear) = what.recursive_attributes;
    if set | clear != 0 {
        attributes::set_attached(made, true, &MountAttr { set, clear, ..Default::default() })
            .map_err(|f| options_of(what, f))?;
    }
    for (propagation, recursive) in &what.propagation {
        let change = MountAttr { propagation: *propagation, ..Default::default() };
        attributes::set_attached(made, *recursive, &change).map_err(|f| options_of(what, f))?;
    }
    Ok(())
}

/// Makes a mount read-only.
pub(crate) fn seal(made: BorrowedFd) -> Result<()> {
    attributes::set_attached(made, false, &MountAttr { set: attr::RDONLY, ..Default::default() })
}

/// The container's part of each v1 hierarchy, bound below the tmpfs; a link for each controller of a joint one. A hierarchy
/// in which the container has no group of its own (a user may make none) is not shown.
fn legacy(root: BorrowedFd, target: &CStr, group: &str, attributes: (u64, u64)) -> Result<()> {
    for h in cgroup::hierarchies()? {
        let name = h.mount.rsplit('/').next().unwrap_or("").to_owned();
        let at = CString::new(format!("{}/{name}", target.to_string_lossy())).unwrap_or_default();
        let source = CString::new(format!("{}{group}", h.mount)).unwrap_or_default();
        let one = Mount {
            target: at,
            what: MountKind::Bind(Bind { source, ..Bind::default() }),
            attributes,
            ..Mount::default()
        };
        match mount(root, &one, None, &|_| Ok(())) {
            Err(f) if f.errno == Some(Errno::ENOENT) => continue,
            other => drop(other?),
        }
        for controller in h.controllers.iter().filter(|c| **c != name && !c.contains('=')) {
            let link = CString::new(format!("{}/{controller}", target.to_string_lossy())).unwrap_or_default();
            let (dir, link) = path::parent(root, &link).doing(|| format!("opening {}", inside(target)))?;
            let _ = fs::symlinkat(&CString::new(name.as_str()).unwrap_or_default(), dir.as_fd(), &link);
        }
    }
    if attributes.0 & attr::RDONLY != 0 {
        let tmpfs = path::open(root, target, libc::O_PATH).doing(|| format!("opening {}", inside(target)))?;
        seal(tmpfs.as_fd()).map_err(|f| Failure {
            doing: format!("making {} read-only: {}", inside(target), f.doing),
            ..f
        })?;
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
                // Whoever shares the directory may have put a FIFO in its place, which would keep the open waiting.
                let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
                let source = fs::openat(from, &name, flags, 0)?;
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
