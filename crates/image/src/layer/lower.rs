//! What the layers below show, for a layer that is unpacked into a directory of its own.
//!
//! A layer may name `etc/x/y` without `etc/x`, go through a link that a lower layer has, or link to a lower layer's
//! file. In its own directory none of these is there; and a directory made for want of one would cover the lower one's
//! owner and mode once overlayfs joins the two (overlayfs.rst, "Upper and Lower"). So what is missing is made as it is
//! below. The view is a mount of the lower layers, or the only one's directory; it is read, never written.

use super::apply::Late;
use crate::error::Result;
use crate::names::{Place, c_path};
use crate::rootfs::{Directory, Rootfs};
use crate::tar::{Entry, What};
use coracle_sys::fs::{
    RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, Stat, fgetxattr, flistxattr,
};
use coracle_sys::{Errno, fs, libc};
use std::collections::HashSet;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Links followed for one name, as the kernel does: path_resolution(7).
const LINKS: usize = 40;

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The view, and the directories of this layer through which nothing of it shows.
pub(super) struct Lower {
    root: OwnedFd,
    cut: HashSet<u64>,
}

/// A directory made after one below.
pub(super) struct Made {
    pub(super) directory: Directory,
    pub(super) late: Late,
    pub(super) owner: (u32, u32),
    /// It stands where this layer hides what is below.
    pub(super) opaque: bool,
}

/// What stands at a name.
enum Found {
    Directory(Option<Stat>),
    Link(Vec<u8>),
    /// A whiteout of this layer, in the way of something that it brings after all.
    Whiteout,
}

impl Lower {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, cut: HashSet::new() }
    }

    /// Nothing below shows through this directory of the layer any more.
    pub(super) fn cut(&mut self, ino: u64) {
        self.cut.insert(ino);
    }

    /// Whether this has been said of it.
    pub(super) fn is_cut(&self, ino: u64) -> bool {
        self.cut.contains(&ino)
    }

    /// The directory that a path leads to, over this layer and the view; links are followed within the root. What this
    /// layer lacks of it is made. Without `make`, `None` for a path that leads nowhere.
    pub(super) fn walk(
        &mut self,
        rootfs: &Rootfs,
        path: &[u8],
        make: bool,
    ) -> Result<Option<(Directory, Vec<Made>)>, Errno> {
        let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
        let (mut at, mut stack, mut made, mut links) = (rootfs.directory(b"")?, Vec::new(), Vec::new(), 0);
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                (at, _) = stack.pop().unwrap_or((at, Vec::new()));
                continue;
            }
            let done = join(stack.last().map_or(&[][..], |(_, p): &(Directory, Vec<u8>)| p), &part);
            let shows = !self.cut.contains(&at.ino) && !stack.iter().any(|(d, _)| self.cut.contains(&d.ino));
            let name = c_path(&part).map_err(|_| Errno::EINVAL)?;
            match self.look(&at, &name, &done, shows)? {
                None if !make => return Ok(None),
                Some(Found::Link(target)) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::ELOOP);
                    }
                    if target.starts_with(b"/") {
                        (at, stack) = (rootfs.directory(b"")?, Vec::new());
                    }
                    parts(&target).collect::<Vec<_>>().into_iter().rev().for_each(|p| todo.push_front(p));
                }
                Some(Found::Directory(None)) => {
                    let next = child(&at, &name)?;
                    stack.push((std::mem::replace(&mut at, next), done));
                }
                Some(Found::Whiteout) if !make => return Ok(None),
                found => {
                    let (below, opaque) = match found {
                        Some(Found::Directory(stat)) => (stat, false),
                        Some(Found::Whiteout) => {
                            fs::unlinkat(at.fd(), &name, 0)?;
                            (None, true)
                        }
                        _ => (None, false),
                    };
                    fs::mkdirat(at.fd(), &name, 0o700)?;
                    let next = child(&at, &name)?;
                    made.push(self.like(&next, &done, below, opaque)?);
                    if opaque {
                        self.cut(next.ino);
                    }
                    stack.push((std::mem::replace(&mut at, next), done));
                }
            }
        }
        Ok(Some((at, made)))
    }

    /// What a name is: in this layer, else in the view (`Directory(Some)`).
    fn look(&self, at: &Directory, name: &CStr, done: &[u8], shows: bool) -> Result<Option<Found>, Errno> {
        match fs::fstatat(at.fd(), name, libc::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => return own(&stat, at.fd(), name).map(Some),
            Err(Errno::ENOENT) if shows => {}
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        }
        let below = match self.view(done, libc::O_PATH | libc::O_NOFOLLOW) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            other => other?,
        };
        let stat = fs::fstat(below.as_fd())?;
        match stat.kind() {
            libc::S_IFDIR => Ok(Some(Found::Directory(Some(stat)))),
            libc::S_IFLNK => Ok(Some(Found::Link(fs::readlinkat(below.as_fd(), c"")?))),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn like(
        &self,
        directory: &Directory,
        path: &[u8],
        below: Option<Stat>,
        opaque: bool,
    ) -> Result<Made, Errno> {
        let late = match below {
            // Of no interest to anyone, but the same each time.
            None => Late { path: path.to_vec(), mode: 0o755, mtime: (0, 0), xattrs: Vec::new() },
            Some(stat) => {
                let open = self.view(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
                let mtime = (stat.mtime.0, u32::try_from(stat.mtime.1).unwrap_or(0));
                Late { path: path.to_vec(), mode: stat.mode & 0o7777, mtime, xattrs: xattrs(open.as_fd())? }
            }
        };
        let owner = below.map_or((0, 0), |s| (s.uid, s.gid));
        Ok(Made { directory: directory.clone(), late, owner, opaque })
    }

    /// What the view has at a place whose directory is open in this layer; its data and attributes are not read.
    pub(super) fn find(&self, parent: &Directory, place: &Place) -> Result<Option<Entry>, Errno> {
        if self.cut.contains(&parent.ino) {
            return Ok(None);
        }
        let file = match self.view(&place.path(), libc::O_PATH | libc::O_NOFOLLOW) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            other => other?,
        };
        let stat = fs::fstat(file.as_fd())?;
        let (what, target) = match stat.kind() {
            libc::S_IFREG => (What::File, Vec::new()),
            libc::S_IFLNK => (What::Symlink, fs::readlinkat(file.as_fd(), c"")?),
            libc::S_IFIFO => (What::Fifo, Vec::new()),
            libc::S_IFCHR => (What::Character, Vec::new()),
            libc::S_IFBLK => (What::Block, Vec::new()),
            _ => return Ok(None),
        };
        Ok(Some(Entry {
            path: place.path(),
            target,
            what,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            mtime: (stat.mtime.0, u32::try_from(stat.mtime.1).unwrap_or(0)),
            device: (stat.rdev_major, stat.rdev_minor),
            size: u64::try_from(stat.size).unwrap_or(0),
            sparse: None,
            xattrs: Vec::new(),
        }))
    }

    /// Opens a name in the view. No link is followed: the names have been resolved, and a link on the way is something
    /// that this layer has put a directory over.
    fn view(&self, path: &[u8], flags: i32) -> Result<OwnedFd, Errno> {
        let path = c_path(path).map_err(|_| Errno::EINVAL)?;
        let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        fs::openat2(self.root.as_fd(), &path, flags, 0, resolve)
    }

    /// A regular file of the view, to read.
    pub(super) fn open(&self, place: &Place) -> Result<OwnedFd, Errno> {
        self.view(&place.path(), libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
    }
}

fn own(stat: &Stat, at: BorrowedFd, name: &CStr) -> Result<Found, Errno> {
    match stat.kind() {
        libc::S_IFDIR => Ok(Found::Directory(None)),
        libc::S_IFLNK => Ok(Found::Link(fs::readlinkat(at, name)?)),
        libc::S_IFCHR if (stat.rdev_major, stat.rdev_minor) == (0, 0) => Ok(Found::Whiteout),
        _ => Err(Errno::ENOTDIR),
    }
}

/// Names and values of all attributes; overlayfs's own are not shown by its mounts, and never copied.
pub(super) fn xattrs(fd: BorrowedFd) -> Result<Attributes, Errno> {
    let names = match flistxattr(fd) {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let read = |name: std::ffi::CString| Some((name.to_bytes().to_vec(), fgetxattr(fd, &name).ok()?));
    Ok(names.into_iter().filter_map(read).collect())
}

fn child(at: &Directory, name: &CStr) -> Result<Directory, Errno> {
    let fd = fs::openat(at.fd(), name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    Directory::of(Rc::new(fd))
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec)
}

fn join(above: &[u8], part: &[u8]) -> Vec<u8> {
    if above.is_empty() { part.to_vec() } else { [above, b"/", part].concat() }
}
