//! A root file system, held by one descriptor: every name is resolved beneath it by openat2(2).
//!
//! RESOLVE_IN_ROOT makes links resolve as they will in the container, and never outside (CVE-2021-30465 and the like
//! come from doing this with strings). The last component is never followed: what stands there is replaced.

use crate::error::{Doing, Error, Kind, Result, shown};
use crate::names::{Place, c_path};
use coracle_sys::fs::{self, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV};
use coracle_sys::{Errno, libc};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// How names are resolved, always.
const RESOLVE: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
/// How often openat2(2) is asked again when a rename elsewhere on the machine made it doubt `..`.
const PATIENCE: usize = 128;

/// An open directory within the root, with its inode number.
#[derive(Clone)]
pub struct Directory {
    fd: Rc<OwnedFd>,
    /// Its inode number; all of a root file system lies on one device.
    pub ino: u64,
}

impl Directory {
    /// Of an open descriptor.
    pub fn of(fd: Rc<OwnedFd>) -> Result<Self, Errno> {
        let ino = fs::fstat(fd.as_fd())?.ino;
        Ok(Self { fd, ino })
    }

    /// The descriptor, opened O_PATH.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The root, and the directory that was used last: entries of one directory follow each other.
pub struct Rootfs {
    root: OwnedFd,
    trash: OwnedFd,
    last: Option<(Vec<u8>, Directory)>,
    /// Directories that had to be made although no entry named them.
    implied: Vec<u64>,
}

impl Rootfs {
    /// `root` is the root file system; `trash` an empty directory outside of it, on the same file system, in which
    /// trees are taken apart.
    pub fn new(root: OwnedFd, trash: OwnedFd) -> Self {
        Self { root, trash, last: None, implied: Vec::new() }
    }

    /// The root's own descriptor.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a name beneath the root. Links are followed inside it, unless O_NOFOLLOW forbids the last.
    pub fn open(&self, path: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
        beneath(self.root.as_fd(), path, flags)
    }

    /// The directory that holds a place, if there is one.
    pub fn parent(&mut self, place: &Place) -> Result<Directory, Errno> {
        if let Some((path, directory)) = &self.last
            && *path == place.parent
        {
            return Ok(directory.clone());
        }
        let directory = self.directory(&place.parent)?;
        self.last = Some((place.parent.clone(), directory.clone()));
        Ok(directory)
    }

    /// The same, made with all that leads to it when it is missing.
    pub fn parent_or_new(&mut self, place: &Place) -> Result<Directory> {
        match self.parent(place) {
            Err(Errno::ENOENT) => {
                make_path(self.root.as_fd(), &place.parent, &mut self.implied)?;
                Ok(self.parent(place).doing(|| format!("open directory {}", shown(&place.parent)))?)
            }
            other => other.doing(|| format!("open directory {}", shown(&place.parent))),
        }
    }

    /// Opens a directory, O_PATH.
    pub fn directory(&self, path: &[u8]) -> Result<Directory, Errno> {
        directory(self.root.as_fd(), path)
    }

    /// The directories made by [`parent_or_new`](Self::parent_or_new) since the last call.
    pub fn take_implied(&mut self) -> std::vec::Drain<'_, u64> {
        self.implied.drain(..)
    }

    /// Makes `directory` the one that entries of `path` go into, until another is asked for.
    pub fn remember(&mut self, path: &[u8], directory: &Directory) {
        self.last = Some((path.to_vec(), directory.clone()));
    }

    /// Removes whatever stands at `name`, a whole tree too; nothing there is no error.
    pub fn remove(&mut self, dir: BorrowedFd, name: &CStr) -> Result<()> {
        // A removed directory may be on the way to the one that is held.
        self.last = None;
        remove_tree(dir, name, self.trash.as_fd())
    }
}

fn directory(root: BorrowedFd, path: &[u8]) -> Result<Directory, Errno> {
    let fd = beneath(root, path, libc::O_PATH | libc::O_DIRECTORY)?;
    Directory::of(Rc::new(fd))
}

/// Makes a directory beneath `root` and all that leads to it; one that is there is left as it is.
pub fn make_all(root: BorrowedFd, path: &str) -> Result<()> {
    match directory(root, path.as_bytes()) {
        Err(Errno::ENOENT) => {
            let plain: Vec<&str> = path.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
            make_path(root, plain.join("/").as_bytes(), &mut Vec::new())
        }
        other => other.map(drop).doing(|| format!("open directory {} of the image", shown(path.as_bytes()))),
    }
}

/// Makes what is missing of a path without empty components, and adds the inodes of what it made to `made`.
fn make_path(root: BorrowedFd, path: &[u8], made: &mut Vec<u64>) -> Result<()> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]);
    let (mut above, mut start) = (directory(root, b"")?, 0);
    for end in ends {
        above = match directory(root, &path[..end]) {
            Err(Errno::ENOENT) => {
                let name = c_path(&path[start..end])?;
                // A dangling link stands there when mkdir says EEXIST: it is not followed into being.
                fs::mkdirat(above.fd(), &name, 0o755)
                    .doing(|| format!("make directory {}", shown(&path[..end])))?;
                let new = directory(root, &path[..end])?;
                made.push(new.ino);
                new
            }
            other => other.doing(|| format!("open directory {}", shown(&path[..end])))?,
        };
        start = end + 1;
    }
    Ok(())
}

/// Opens a name beneath `root`, resolved as if that were `/`.
pub fn beneath(root: BorrowedFd, path: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
    let path = c_path(path).map_err(|_| Errno::EINVAL)?;
    for _ in 0..PATIENCE {
        match fs::openat2(root, &path, flags, 0, RESOLVE) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Removes a tree of any depth with two descriptors: what is not empty moves into `trash`, which is emptied.
/// Linear: every directory is moved and read at most once. `trash` must lie on the same file system.
pub fn remove_tree(dir: BorrowedFd, name: &CStr, trash: BorrowedFd) -> Result<()> {
    let mut count = 0u64;
    discard(dir, name, trash, &mut count)?;
    while each(trash, |name| empty(trash, name, &mut count))? {}
    Ok(())
}

/// Does something with each name in a directory; a few are held at a time, for there may be millions. Whether there was
/// any: when names were removed, another pass finds what the file system passed over.
pub fn each(dir: BorrowedFd, mut act: impl FnMut(&CStr) -> Result<()>) -> Result<bool> {
    let open = fs::openat(dir, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut any = false;
    loop {
        let names = fs::some_names(open.as_fd())?;
        if names.is_empty() {
            return Ok(any);
        }
        any = true;
        names.iter().try_for_each(|name| act(name))?;
    }
}

/// Removes a name, or moves it into the trash when it is a directory with something in it.
fn discard(dir: BorrowedFd, name: &CStr, trash: BorrowedFd, count: &mut u64) -> Result<()> {
    let context = || format!("remove {}", shown(name.to_bytes()));
    match fs::unlinkat(dir, name, 0) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(Error::from(e).within(context())),
    }
    match fs::unlinkat(dir, name, libc::AT_REMOVEDIR) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        Err(e) => return Err(Error::from(e).within(context())),
    }
    loop {
        *count += 1;
        let to = c_path(count.to_string().as_bytes())?;
        match fs::renameat(dir, name, trash, &to) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            // Moving a directory writes its `..`: one that its owner may not write must be opened first.
            Err(Errno::EACCES) => fs::fchmodat(dir, name, 0o700).doing(context)?,
            Err(e) => return Err(Error::from(e).within(context())),
        }
    }
}

fn empty(trash: BorrowedFd, name: &CStr, count: &mut u64) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let writable = |fd: &OwnedFd| fs::fstat(fd.as_fd()).is_ok_and(|s| s.mode & 0o300 == 0o300);
    let dir = match fs::openat(trash, name, flags, 0) {
        Ok(dir) if writable(&dir) => dir,
        Ok(_) | Err(Errno::EACCES) => {
            fs::fchmodat(trash, name, 0o700)?;
            fs::openat(trash, name, flags, 0)?
        }
        Err(e) => return Err(e.into()),
    };
    while each(dir.as_fd(), |child| discard(dir.as_fd(), child, trash, count))? {}
    fs::unlinkat(trash, name, libc::AT_REMOVEDIR).doing(|| "remove a directory")
}

/// Opens a regular file beneath `root` for reading; never blocks on a FIFO or touches a device. Errors: another kind
/// of file, more than `most` bytes.
pub fn read_file(root: BorrowedFd, path: &str, most: u64) -> Result<Vec<u8>> {
    let fd = beneath(root, path.as_bytes(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
        .doing(|| format!("open {path} of the image"))?;
    let stat = fs::fstat(fd.as_fd())?;
    if stat.kind() != libc::S_IFREG {
        return Err(Error::new(Kind::Corrupt, format!("{path} of the image is no regular file")));
    }
    match fs::read_to_end(fd.as_fd(), most as usize) {
        Err(Errno::EFBIG) => {
            Err(Error::new(Kind::Limit, format!("{path} of the image has more than {most} bytes")))
        }
        other => other.doing(|| format!("read {path} of the image")),
    }
}
