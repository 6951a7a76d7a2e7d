//! A bundle directory is filled so that nothing half-made is ever mistaken for whole.
//!
//! The mark of a whole bundle is config.json, which is renamed into place last. While it is being filled, a locked
//! file `.coracle-unpack` lies in it and all work happens in `.coracle-work`. Who finds the file with its text in it
//! and nobody's lock on it cleans up after someone who was killed, and begins anew.

use crate::error::{Doing, Error, Result, fail};
use crate::layer::apply::Summary;
use crate::rootfs::remove_tree;
use crate::source::Image;
use crate::unpack::{self, How, ROOTFS, TRASH};
use crate::wall::Wall;
use coracle_sys::{Errno, fs, libc};
use std::ffi::CStr;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const MARK: &CStr = c".coracle-unpack";
const WORK: &CStr = c".coracle-work";
const CONFIG: &CStr = c"config.json";

/// Fills `bundle` with `rootfs` and `config.json`. `configure` writes the latter; it is handed the root file system.
/// Errors: there is a bundle already, or someone at work on it; anything that unpacking says. The directory is left
/// as it was found.
pub fn fill(
    image: &Image,
    bundle: &Path,
    how: &How,
    configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>,
) -> Result<(Summary, Wall)> {
    let made = make_directory(bundle)?;
    let filled = Filling::begin(bundle).and_then(|filling| filling.fill(image, how, configure));
    if made && filled.is_err() {
        // Best effort: not empty, if someone else has put something there.
        std::fs::remove_dir(bundle).ok();
    }
    filled.doing(|| format!("unpack into {}", bundle.display()))
}

/// Removes config.json first, then the rest: a bundle that is not whole is none. Other files in it stay, and it with them.
pub fn remove(bundle: &Path) -> Result<()> {
    let doing = || format!("remove {}", bundle.display());
    let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(bundle).doing(doing)?.into();
    fs::unlinkat(dir.as_fd(), CONFIG, 0).doing(doing)?;
    let filling = Filling { _lock: lock(dir.as_fd())?, dir };
    filling.clean(true).doing(doing)?;
    fs::unlinkat(filling.dir.as_fd(), MARK, 0).doing(doing)?;
    // Best effort: not empty, if someone else has put something there.
    std::fs::remove_dir(bundle).ok();
    Ok(())
}

/// Nobody else may look into a bundle: its root file system holds set-id programs (CVE-2021-41103).
fn make_directory(bundle: &Path) -> Result<bool> {
    match DirBuilder::new().mode(0o700).create(bundle) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::from(e).within(format!("make directory {}", bundle.display()))),
    }
}

/// A bundle that is being filled; the lock goes with it.
struct Filling {
    dir: OwnedFd,
    _lock: OwnedFd,
}

impl Filling {
    fn begin(bundle: &Path) -> Result<Self> {
        let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(bundle)?.into();
        let lock = lock(dir.as_fd())?;
        let filling = Self { dir, _lock: lock };
        if fs::fstat(filling._lock.as_fd())?.size > 0 {
            filling.clean(true)?;
        }
        for name in [CONFIG, ROOTFS] {
            if fs::fstatat(filling.dir.as_fd(), name, libc::AT_SYMLINK_NOFOLLOW).is_ok() {
                fs::unlinkat(filling.dir.as_fd(), MARK, 0).ok();
                fail!(
                    Busy,
                    "there is already a {}; remove it, or choose another directory",
                    name.to_string_lossy()
                );
            }
        }
        fs::fchmod(filling.dir.as_fd(), 0o700).doing(|| "close the directory to others")?;
        fs::write_all(filling._lock.as_fd(), b"being unpacked\n")?;
        Ok(filling)
    }

    fn fill(
        self,
        image: &Image,
        how: &How,
        configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>,
    ) -> Result<(Summary, Wall)> {
        let filled = self.try_fill(image, how, configure);
        let cleaned = self.clean(filled.is_err());
        let unmarked = fs::unlinkat(self.dir.as_fd(), MARK, 0).map_err(Error::from);
        let done = filled?;
        cleaned.and(unmarked)?;
        Ok(done)
    }

    fn try_fill(
        &self,
        image: &Image,
        how: &How,
        configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>,
    ) -> Result<(Summary, Wall)> {
        let dir = self.dir.as_fd();
        let work = make_work(dir)?;
        let done = unpack::layers(&image.layers, work.as_fd(), how)?;
        let root = unpack_root(work.as_fd())?;
        let config = configure(root.as_fd())?;
        write_file(work.as_fd(), CONFIG, &config)?;
        fs::renameat(work.as_fd(), ROOTFS, dir, ROOTFS).doing(|| "put rootfs into place")?;
        fs::renameat(work.as_fd(), CONFIG, dir, CONFIG).doing(|| "put config.json into place")?;
        Ok(done)
    }

    /// Removes the work directory; and what a failed or killed attempt has put into place.
    fn clean(&self, failed: bool) -> Result<()> {
        let dir = self.dir.as_fd();
        let whole = fs::fstatat(dir, CONFIG, libc::AT_SYMLINK_NOFOLLOW).is_ok();
        if failed && !whole && fs::fstatat(dir, ROOTFS, libc::AT_SYMLINK_NOFOLLOW).is_ok() {
            make_work(dir)?;
            fs::renameat(
                dir,
                ROOTFS,
                fs::openat(dir, WORK, libc::O_PATH | libc::O_NOFOLLOW, 0)?.as_fd(),
                c"failed",
            )?;
        }
        remove_work(dir)
    }
}

/// Locks the mark. Errors: someone else holds it.
fn lock(dir: BorrowedFd) -> Result<OwnedFd> {
    loop {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
        let mark = fs::openat(dir, MARK, flags, 0o600).doing(|| "make the lock file")?;
        match fs::flock(mark.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            Err(Errno::EWOULDBLOCK) => fail!(Busy, "someone else is unpacking there"),
            other => other?,
        }
        // Whoever held it before has removed it: lock the one that is there now.
        if fs::fstat(mark.as_fd())?.nlink > 0 {
            return Ok(mark);
        }
    }
}

fn make_work(dir: BorrowedFd) -> Result<OwnedFd> {
    for (path, name) in [(None, WORK), (Some(WORK), ROOTFS), (Some(WORK), TRASH)] {
        let opened = path.map(|p| fs::openat(dir, p, libc::O_PATH | libc::O_NOFOLLOW, 0)).transpose()?;
        match fs::mkdirat(opened.as_ref().map_or(dir, |fd| fd.as_fd()), name, 0o700) {
            Err(Errno::EEXIST) => {}
            other => other.doing(|| format!("make directory {}", name.to_string_lossy()))?,
        }
    }
    fs::openat(dir, WORK, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
        .doing(|| "open the work directory")
}

fn unpack_root(work: BorrowedFd) -> Result<OwnedFd> {
    Ok(fs::openat(work, ROOTFS, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?)
}

/// Removes the work directory with what is in it; none is no error.
fn remove_work(dir: BorrowedFd) -> Result<()> {
    let work = match fs::openat(dir, WORK, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0) {
        Ok(work) => work,
        Err(Errno::ENOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match fs::mkdirat(work.as_fd(), TRASH, 0o700) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let trash = fs::openat(work.as_fd(), TRASH, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    for name in fs::read_dir(work.as_fd())?.iter().filter(|name| name.as_c_str() != TRASH) {
        remove_tree(work.as_fd(), name, trash.as_fd())?;
    }
    fs::unlinkat(work.as_fd(), TRASH, libc::AT_REMOVEDIR)?;
    Ok(fs::unlinkat(dir, WORK, libc::AT_REMOVEDIR)?)
}

/// Writes a new file, 0644.
pub fn write_file(dir: BorrowedFd, name: &CStr, bytes: &[u8]) -> Result<()> {
    let doing = || format!("write {}", name.to_string_lossy());
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let fd = fs::openat(dir, name, flags, 0o644).doing(doing)?;
    fs::write_all(fd.as_fd(), bytes).doing(doing)
}
