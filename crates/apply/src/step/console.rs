//! The terminal: made in the container's own devpts, its master side handed to the parent, its other side on 0, 1, 2 and
//! /dev/console. Every descriptor is verified, no path is trusted (CVE-2025-52565).

use super::path;
use crate::failure::{Doing, Failure, Result};
use crate::wire;
use coracle_sys::{Errno, fs, libc, mount, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DEVPTS: i64 = 0x1cd1;

/// Makes the terminal and takes it as this session's.
pub(crate) fn open(
    root: BorrowedFd,
    wire: BorrowedFd,
    size: Option<(u16, u16)>,
    own_mounts: bool,
) -> Result<()> {
    let doing = || "opening a terminal in the container's /dev/pts".to_owned();
    let master = multiplexer(root)?;
    tty::unlock(master.as_fd()).doing(doing)?;
    let slave = tty::peer(master.as_fd()).doing(doing)?;
    if let Some((rows, columns)) = size {
        tty::set_size(slave.as_fd(), rows, columns).doing(|| "setting the terminal's size".into())?;
    }
    wire::say_terminal(wire, master.as_fd())?;
    drop(master);
    if own_mounts {
        device(root, slave.as_fd())?;
    }
    for number in 0..3 {
        fs::dup_onto(slave.as_fd(), number)
            .doing(|| format!("putting the terminal on descriptor {number}"))?;
    }
    tty::make_controlling(slave.as_fd()).doing(|| "taking the controlling terminal".into())
}

fn multiplexer(root: BorrowedFd) -> Result<OwnedFd> {
    let name = c"dev/pts/ptmx";
    let place = path::open(root, name, libc::O_PATH | libc::O_NOFOLLOW)
        .doing(|| "opening /dev/pts/ptmx (a terminal needs a devpts mount there)".into())?;
    let stat = fs::fstat(place.as_fd()).doing(|| "looking at /dev/pts/ptmx".into())?;
    let genuine = fs::file_system(place.as_fd()) == Ok(DEVPTS)
        && stat.kind() == libc::S_IFCHR
        && (stat.rdev_major, stat.rdev_minor) == (5, 2);
    if !genuine {
        return Err(Failure::says(
            "/dev/pts/ptmx of the container is not a terminal multiplexer: a terminal needs a devpts mount there",
        ));
    }
    let opened = path::open(root, name, libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW)
        .doing(|| "opening /dev/pts/ptmx".into())?;
    let again = fs::fstat(opened.as_fd()).doing(|| "looking at /dev/pts/ptmx".into())?;
    if (again.dev, again.ino) != (stat.dev, stat.ino) {
        return Err(Failure::says("/dev/pts/ptmx changed while it was opened"));
    }
    Ok(opened)
}

/// Binds the terminal on /dev/console: a plain file made for it, never through a link (CVE-2026-88264).
fn device(root: BorrowedFd, slave: BorrowedFd) -> Result<()> {
    let doing = || "putting the terminal on /dev/console".to_owned();
    let (dir, name) = path::parent(root, c"dev/console").doing(doing)?;
    match fs::mknodat(dir.as_fd(), &name, libc::S_IFREG | 0o600, 0, 0) {
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
        Err(e) => return Err(e).doing(doing),
    }
    let target = fs::openat(dir.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0).doing(doing)?;
    if fs::fstat(target.as_fd()).doing(doing)?.kind() == libc::S_IFLNK {
        return Err(Failure::says(
            "putting the terminal on /dev/console: it is a symbolic link in the root file system",
        ));
    }
    let copy =
        mount::open_tree(slave, c"", mount::OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32).doing(doing)?;
    mount::move_mount(copy.as_fd(), target.as_fd()).doing(doing)
}
