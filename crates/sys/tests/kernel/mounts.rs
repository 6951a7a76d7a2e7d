//! Mounts, in mount namespaces of their own.

use crate::Needs::Root;
use crate::{Check, Doing, Outcome, Test, child, equal};
use coracle_sys::mount::{self, MountAttr, attr};
use coracle_sys::{Errno, creds, fs, libc, namespace, net, process};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("mount: a file system is made, attached, changed, taken away", Root, made),
    ("mount: the kernel's log says what was wrong", Root, log),
    ("mount: a copy of a tree is detached and read-only", Root, copied),
    ("mount: the root is changed and the old one is gone", Root, pivoted),
    ("mount: the older calls", Root, older),
    ("namespace: all kinds at once, entered by another", Root, all_kinds),
];

const NEWNS: u64 = libc::CLONE_NEWNS as u64;

/// Work in a mount namespace from which nothing reaches the host's.
pub(crate) fn apart(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    child(NEWNS, || {
        mount::mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None).doing("making / private")?;
        work()
    })
}

fn tmpfs(attributes: u64) -> Result<OwnedFd, String> {
    let context = mount::fsopen(c"tmpfs").doing("fsopen")?;
    mount::fsconfig_string(context.as_fd(), c"size", c"1m").doing("size")?;
    mount::fsconfig_create(context.as_fd()).doing("create")?;
    mount::fsmount(context.as_fd(), attributes).doing("fsmount")
}

fn make(dir: BorrowedFd, name: &CStr) -> Result<(), Errno> {
    fs::openat(dir, name, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o600).map(drop)
}

fn path(name: &CStr) -> Result<OwnedFd, String> {
    fs::open(name, libc::O_PATH, 0).doing("opening a mount point")
}

fn made() -> Check {
    apart(|| {
        let detached = tmpfs(attr::NODEV)?;
        equal("it is a root", mount::is_mount_root(detached.as_fd()), Ok(true))?;
        let flags = fs::fstatfs(detached.as_fd()).doing("statfs")?.flags;
        equal("nodev", flags & libc::ST_NODEV, libc::ST_NODEV)?;
        let before = mount::mount_id(path(c"/tmp")?.as_fd()).doing("mount_id")?;
        mount::move_mount(detached.as_fd(), path(c"/tmp")?.as_fd()).doing("move_mount")?;
        let now = mount::mount_id(path(c"/tmp")?.as_fd()).doing("mount_id")?;
        equal("another mount", now != before, true)?;
        equal("the one that was made", mount::mount_id(detached.as_fd()), Ok(now))?;
        equal("writable", make(detached.as_fd(), c"a"), Ok(()))?;
        let read_only = MountAttr { set: attr::RDONLY, ..Default::default() };
        mount::mount_setattr(detached.as_fd(), false, &read_only).doing("mount_setattr")?;
        equal("read-only", make(detached.as_fd(), c"b"), Err(Errno::EROFS))?;
        let picked = mount::fspick(detached.as_fd()).doing("fspick")?;
        mount::fsconfig_string(picked.as_fd(), c"size", c"2m").doing("size")?;
        mount::fsconfig_reconfigure(picked.as_fd()).doing("reconfigure")?;
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = info.lines().find(|l| l.starts_with(&format!("{now} "))).unwrap_or_default();
        equal("resized", line.contains("size=2048k"), true)?;
        mount::umount2(c"/tmp", libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW).doing("umount")?;
        equal("the old one again", mount::mount_id(path(c"/tmp")?.as_fd()), Ok(before))
    })?;
    Ok(Outcome::Fine)
}

fn log() -> Check {
    apart(|| {
        let context = mount::fsopen(c"tmpfs").doing("fsopen")?;
        equal("nothing to say", mount::read_log(context.as_fd()).as_str(), "")?;
        equal("unknown", mount::fsconfig_flag(context.as_fd(), c"nonsense"), Err(Errno::EINVAL))?;
        let said = mount::read_log(context.as_fd());
        equal(
            "it names the parameter, without a letter before",
            (said.starts_with("e "), said.contains("nonsense")),
            (false, true),
        )?;
        let (fd, refused) = (path(c"/")?, Err(Errno::EINVAL));
        equal("no file wanted", mount::fsconfig_fd(context.as_fd(), c"size", fd.as_fd()), refused)
    })?;
    Ok(Outcome::Fine)
}

fn copied() -> Check {
    apart(|| {
        let tree = tmpfs(0)?;
        fs::mkdirat(tree.as_fd(), c"d", 0o700).doing("mkdir")?;
        let whole = mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE;
        equal(
            "of a detached tree",
            mount::open_tree(tree.as_fd(), c"d", whole).is_ok(),
            mount_of_detached(),
        )?;
        mount::move_mount(tree.as_fd(), path(c"/tmp")?.as_fd()).doing("move_mount")?;
        let copy = mount::open_tree(tree.as_fd(), c"d", whole).doing("open_tree")?;
        equal("a root of its own", mount::is_mount_root(copy.as_fd()), Ok(true))?;
        let read_only = MountAttr { set: attr::RDONLY, propagation: libc::MS_PRIVATE, ..Default::default() };
        mount::mount_setattr(copy.as_fd(), true, &read_only).doing("mount_setattr")?;
        equal("read-only", make(copy.as_fd(), c"x"), Err(Errno::EROFS))?;
        let original = fs::openat(tree.as_fd(), c"d", libc::O_PATH, 0).doing("open")?;
        equal("the original is not", make(original.as_fd(), c"x"), Ok(()))?;
        equal("both are one", fs::fstat(copy.as_fd()), fs::fstat(original.as_fd()))
    })?;
    Ok(Outcome::Fine)
}

/// Since Linux 6.15 a copy may be made of a tree that is attached nowhere.
fn mount_of_detached() -> bool {
    process::kernel_release().is_ok_and(|release| release >= (6, 15))
}

fn pivoted() -> Check {
    apart(|| {
        let root = tmpfs(0)?;
        mount::move_mount(root.as_fd(), path(c"/tmp")?.as_fd()).doing("move_mount")?;
        fs::mkdirat(root.as_fd(), c"only", 0o700).doing("mkdir")?;
        fs::fchdir(root.as_fd()).doing("fchdir")?;
        mount::pivot_root(c".", c".").doing("pivot_root")?;
        mount::umount2(c".", libc::MNT_DETACH).doing("umount")?;
        fs::chdir(c"/").doing("chdir")?;
        let names = fs::open(c"/", libc::O_RDONLY, 0).and_then(|d| fs::read_dir(d.as_fd())).doing("list")?;
        equal("the root", (names, fs::getcwd()), (vec![c"only".to_owned()], Ok(b"/".to_vec())))?;
        fs::chroot(c"/only").doing("chroot")?;
        equal("outside of it", fs::getcwd(), Ok(b"(unreachable)/".to_vec()))
    })?;
    Ok(Outcome::Fine)
}

fn older() -> Check {
    apart(|| {
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount::mount(Some(c"name"), c"/tmp", Some(c"tmpfs"), flags, Some(c"size=1m,mode=0711"))
            .doing("mount")?;
        let dir = path(c"/tmp")?;
        equal("mode", fs::fstat(dir.as_fd()).doing("stat")?.mode & 0o7777, 0o711)?;
        let seen = fs::fstatfs(dir.as_fd()).doing("statfs")?;
        equal(
            "type and flags",
            (seen.magic, seen.flags & 7),
            (0x0102_1994, libc::ST_NOSUID | libc::ST_NODEV),
        )?;
        equal("a device", fs::mknodat(dir.as_fd(), c"null", libc::S_IFCHR | 0o600, 1, 3), Ok(()))?;
        let node = fs::fstatat(dir.as_fd(), c"null", libc::AT_SYMLINK_NOFOLLOW).doing("stat")?;
        equal("its number", (node.kind(), node.rdev_major, node.rdev_minor), (libc::S_IFCHR, 1, 3))?;
        equal("it does not open", fs::openat(dir.as_fd(), c"null", 0, 0).err(), Some(Errno::EACCES))?;
        fs::fchownat(dir.as_fd(), c"null", 5, 6, libc::AT_SYMLINK_NOFOLLOW).doing("chown")?;
        let node = fs::fstatat(dir.as_fd(), c"null", 0).doing("stat")?;
        equal("its owner", (node.uid, node.gid), (5, 6))?;
        drop((dir, node));
        mount::umount2(c"/tmp", 0).doing("umount")
    })?;
    Ok(Outcome::Fine)
}

fn all_kinds() -> Check {
    let kinds = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
    ];
    let flags = kinds.iter().fold(libc::CLONE_NEWPID, |all, kind| all | kind) as u64;
    child(flags, || {
        equal("the first process", (process::getpid(), process::getppid()), (1, 0))?;
        namespace::sethostname(b"all-kinds").doing("sethostname")?;
        equal(
            "interfaces",
            net::interfaces().doing("dump")?.iter().any(|(_, name)| name.as_c_str() == c"lo"),
            true,
        )?;
        // Another process enters by this one's namespaces; /proc is still the host's, so they are opened there.
        let open = |name: &str| std::ffi::CString::new(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let files =
            ["mnt", "uts", "ipc", "net", "cgroup"].map(|name| fs::open(&open(name), libc::O_RDONLY, 0));
        child((libc::CLONE_NEWUTS | libc::CLONE_NEWNET) as u64, || {
            namespace::sethostname(b"elsewhere").doing("sethostname")?;
            for (kind, file) in kinds.iter().zip(files) {
                let file = file.doing("namespace file")?;
                equal("kind", namespace::kind(file.as_fd()), Ok(*kind))?;
                equal(
                    "the wrong kind",
                    namespace::setns(file.as_fd(), libc::CLONE_NEWPID),
                    Err(Errno::EINVAL),
                )?;
                namespace::setns(file.as_fd(), *kind).doing("setns")?;
            }
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            equal("name", (name.trim(), creds::geteuid()), ("all-kinds", 0))
        })
    })?;
    Ok(Outcome::Fine)
}
