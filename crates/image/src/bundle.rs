//! A bundle directory is filled so that nothing half-made is ever mistaken for whole.
//!
//! The mark of a whole bundle is config.json, which is renamed into place last. While it is being filled, a locked
//! file `.coracle-unpack` lies in it and all work happens in `.coracle-work`. Who finds the file with its text in it
//! and nobody's lock on it cleans up after someone who was killed, and begins anew. One text is an exception: it says
//! which layers the root file system is of, when all that failed was the configuration (a user that the image does not
//! know); whoever unpacks the same layers goes on from there.

use crate::error::{Doing, Error, Result, fail};
use crate::layer::apply::{Owners, Summary};
use crate::rootfs::remove_tree;
use crate::source::Image;
use crate::store::layers::chain;
use crate::unpack::{self, How, ROOTFS, TRASH};
use crate::wall::Wall;
use coracle_sys::{Errno, fs, libc};
use std::ffi::CStr;
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

const MARK: &CStr = c".coracle-unpack";
const WORK: &CStr = c".coracle-work";
const CONFIG: &CStr = c"config.json";
const BEGUN: &[u8] = b"being unpacked\n";
/// More than any text of the mark.
const TEXT: usize = 1 << 10;
/// More than any config.json.
const MOST: usize = 1 << 24;

/// Fills `bundle` with `rootfs` and `config.json`. `configure` writes the latter; it is handed the root file system.
/// Errors: there is a bundle already, or someone at work on it; anything that unpacking says. The directory is then left
/// as it was found; but when only `configure` failed, the root file system stays for the next attempt.
pub fn fill(
    image: &Image,
    bundle: &Path,
    how: &How,
    configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>,
) -> Result<(Summary, Wall)> {
    let made = make_directory(bundle)?;
    let whole = whole(image, how.owners);
    let filled =
        Filling::begin(bundle, &whole).and_then(|filling| filling.fill(image, how, &whole, configure));
    if made && filled.is_err() {
        // Best effort: not empty, if someone else has put something there.
        std::fs::remove_dir(bundle).ok();
    }
    filled.doing(|| format!("unpack into {}", bundle.display()))
}

/// Whether a directory is the bundle of an image, as its annotations tell, or what an unpacking left that did not come to its
/// end. One that somebody made by hand is theirs.
pub fn is_one(bundle: &Path) -> bool {
    let Ok(dir) = std::fs::OpenOptions::new().read(true).open(bundle).map(OwnedFd::from) else {
        return false;
    };
    let holds = |name: &CStr| fs::fstatat(dir.as_fd(), name, libc::AT_SYMLINK_NOFOLLOW).is_ok();
    holds(MARK) || holds(ROOTFS) && of_an_image(dir.as_fd())
}

fn of_an_image(bundle: BorrowedFd) -> bool {
    let file = fs::openat(bundle, CONFIG, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0);
    let bytes = file.and_then(|file| fs::read_to_end(file.as_fd(), MOST));
    let config: serde_json::Value =
        bytes.ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    config["annotations"].get("org.opencontainers.image.architecture").is_some()
}

/// Removes config.json first, then the rest: a bundle that is not whole is none. Other files in it stay, and it with them.
pub fn remove(bundle: &Path) -> Result<()> {
    let doing = || format!("remove {}", bundle.display());
    let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(bundle).doing(doing)?.into();
    let lock = lock(dir.as_fd()).doing(doing)?;
    match fs::unlinkat(dir.as_fd(), CONFIG, 0) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => Err(e).doing(doing)?,
    }
    let filling = Filling { lock, dir, kept: false };
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

/// The mark's text for a root file system that is whole: which layers it is of, and whose the files are.
fn whole(image: &Image, owners: Owners) -> Vec<u8> {
    let layers: Vec<_> = image.layers.iter().map(|l| l.diff_id.clone()).collect();
    let last = chain(&layers).pop().map(|id| id.to_string()).unwrap_or_default();
    format!("whole {last} {owners:?}\n").into_bytes()
}

/// A bundle that is being filled; the lock goes with it.
struct Filling {
    dir: OwnedFd,
    lock: File,
    /// The root file system is there already.
    kept: bool,
}

impl Filling {
    fn begin(bundle: &Path, whole: &[u8]) -> Result<Self> {
        let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(bundle)?.into();
        let lock = lock(dir.as_fd())?;
        let mut filling = Self { dir, lock, kept: false };
        let text = fs::read_to_end(filling.lock.as_fd(), TEXT).doing(|| "read the lock file")?;
        if !text.is_empty() {
            filling.kept = text == whole && filling.has(ROOTFS) && !filling.has(CONFIG);
            filling.clean(!filling.kept)?;
        }
        for name in [CONFIG, ROOTFS] {
            if filling.has(name) && !filling.kept {
                fs::unlinkat(filling.dir.as_fd(), MARK, 0).ok();
                fail!(
                    Busy,
                    "there is already a {}; remove it, or choose another directory",
                    name.to_string_lossy()
                );
            }
        }
        fs::fchmod(filling.dir.as_fd(), 0o700).doing(|| "close the directory to others")?;
        if !filling.kept {
            filling.mark(BEGUN)?;
        }
        Ok(filling)
    }

    fn has(&self, name: &CStr) -> bool {
        fs::fstatat(self.dir.as_fd(), name, libc::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Writes the mark's text over what it said; it is never empty in between.
    fn mark(&self, text: &[u8]) -> Result<()> {
        let written = self.lock.write_all_at(text, 0).and_then(|()| self.lock.set_len(text.len() as u64));
        written.doing(|| "write the lock file")
    }

    fn fill(
        self,
        image: &Image,
        how: &How,
        whole: &[u8],
        configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>,
    ) -> Result<(Summary, Wall)> {
        let unpacked = if self.kept { Ok(Default::default()) } else { self.unpack(image, how) };
        let (done, configured) = match unpacked {
            Ok(done) => (done, self.configure(configure)),
            Err(e) => {
                let cleaned = self.clean(true);
                fs::unlinkat(self.dir.as_fd(), MARK, 0).ok();
                return Err(cleaned.err().unwrap_or(e));
            }
        };
        let cleaned = self.clean(false);
        if let Err(e) = configured {
            self.mark(whole)?;
            return Err(Error::new(e.kind(), format!("{e} (the root file system is kept for that)")));
        }
        let unmarked = fs::unlinkat(self.dir.as_fd(), MARK, 0).map_err(Error::from);
        cleaned.and(unmarked)?;
        Ok(done)
    }

    /// The layers into `rootfs`.
    fn unpack(&self, image: &Image, how: &How) -> Result<(Summary, Wall)> {
        let work = make_work(self.dir.as_fd())?;
        let done = unpack::layers(&image.layers, work.as_fd(), how)?;
        fs::renameat(work.as_fd(), ROOTFS, self.dir.as_fd(), ROOTFS).doing(|| "put rootfs into place")?;
        Ok(done)
    }

    fn configure(&self, configure: impl FnOnce(BorrowedFd) -> Result<Vec<u8>>) -> Result<()> {
        let dir = self.dir.as_fd();
        let root = fs::openat(dir, ROOTFS, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
            .doing(|| "open rootfs")?;
        let config = configure(root.as_fd())?;
        let work = make_work(dir)?;
        write_file(work.as_fd(), CONFIG, &config)?;
        fs::renameat(work.as_fd(), CONFIG, dir, CONFIG).doing(|| "put config.json into place")
    }

    /// Removes the work directory; and what a failed or killed attempt has put into place.
    fn clean(&self, failed: bool) -> Result<()> {
        let dir = self.dir.as_fd();
        if failed && !self.has(CONFIG) && self.has(ROOTFS) {
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
fn lock(dir: BorrowedFd) -> Result<File> {
    loop {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
        let mark = fs::openat(dir, MARK, flags, 0o600).doing(|| "make the lock file")?;
        match fs::flock(mark.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            Err(Errno::EWOULDBLOCK) => fail!(Busy, "someone else is unpacking there"),
            other => other?,
        }
        // Whoever held it before has removed it: lock the one that is there now.
        if fs::fstat(mark.as_fd())?.nlink > 0 {
            return Ok(mark.into());
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
