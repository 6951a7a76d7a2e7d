//! Entries become changes of a root file system.
//!
//! Order within a file: written, then its owner, then set-id bits (chown clears them), then attributes (writing and
//! chown clear capabilities), then times. Directories keep mode 0700 until the very end and get their modes,
//! attributes and times then: what is put into them would change the times, and a read-only one could not be filled.

use super::lower::{Lower, Made};
use super::whiteout::{Fresh, Meaning, Names, meaning};
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use crate::limits::Limits;
use crate::names::Place;
use crate::rootfs::{self, Directory, Rootfs};
use crate::tar::{Entry, Input, Reader, What};
use coracle_sys::{Errno, fs, libc};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the image says: as root, or in a user namespace with enough ids.
    Kept,
    /// The caller, whatever the image says: without any id but the own.
    Caller,
}

/// How whiteouts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// All layers go into one tree: whiteouts remove.
    Flat,
    /// One layer for overlayfs: whiteouts become 0:0 devices, opaque directories an attribute (overlayfs.rst,
    /// "whiteouts and opaque directories"); `user` chooses user.overlay over trusted.overlay.
    Overlay {
        /// For a mount with `userxattr`.
        user: bool,
    },
}

/// What an unpacking amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes of all files, holes counted.
    pub bytes: u64,
    /// Device nodes that could not be made without root.
    pub devices_skipped: u64,
    /// Attributes that were dropped, by policy or because the file system has none.
    pub xattrs_skipped: u64,
    /// Entries that a later one of the same layer replaced; an image should have none (layer.md).
    pub duplicates: u64,
    /// The highest user and group id.
    pub highest: (u32, u32),
    /// Whether an entry named the root itself.
    pub has_root: bool,
}

/// A directory's last touches.
pub(super) struct Late {
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Late {
    fn bytes(&self) -> u64 {
        let attributes: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        (self.path.len() + attributes) as u64
    }
}

fn late(path: Vec<u8>, entry: Entry) -> Late {
    Late { path, mode: entry.mode, mtime: entry.mtime, xattrs: entry.xattrs }
}

/// Applies layers, base first.
pub struct Applier {
    rootfs: Rootfs,
    owners: Owners,
    style: Style,
    limits: Limits,
    late: HashMap<u64, Late>,
    /// Bytes of names and attributes in `late`.
    late_bytes: u64,
    /// `None` for the base layer, which has nothing below it.
    fresh: Option<Fresh>,
    /// Names hidden by this layer in overlay style.
    hidden: Names,
    /// What the layers below show together, in overlay style; `None` for the base layer.
    lower: Option<Lower>,
    /// Files of lower layers that were copied up for a link's sake: their paths, and the copies' inodes.
    brought: HashMap<Vec<u8>, u64>,
    summary: Summary,
}

impl Applier {
    /// Applies to this root file system. `lower` is a view of the layers below, for [`Style::Overlay`].
    pub fn new(
        rootfs: Rootfs,
        owners: Owners,
        style: Style,
        lower: Option<OwnedFd>,
        limits: &Limits,
    ) -> Self {
        Self {
            rootfs,
            owners,
            style,
            limits: limits.clone(),
            late: HashMap::new(),
            late_bytes: 0,
            fresh: None,
            hidden: Names::default(),
            lower: lower.map(Lower::new),
            brought: HashMap::new(),
            summary: Summary::default(),
        }
    }

    /// Applies one layer and hands its stream back, behind the archive's end.
    pub fn layer<I: Input>(&mut self, tar: I, base: bool) -> Result<I> {
        self.fresh = (!base && self.style == Style::Flat).then(Fresh::default);
        let mut reader = Reader::new(tar, &self.limits);
        while let Some(entry) = reader.next_entry()? {
            self.count(&entry)?;
            let name = entry.path.clone();
            self.entry(entry, &mut reader).doing(|| format!("unpack {}", shown(&name)))?;
        }
        Ok(reader.into_input())
    }

    /// Gives directories their modes and times, and sums up.
    pub fn finish(mut self) -> Result<Summary> {
        self.hide_brought()?;
        let mut late: Vec<_> = std::mem::take(&mut self.late).into_iter().collect();
        // Children first; those that their owner could not pass through afterwards, last.
        late.sort_by(|(_, a), (_, b)| (is_shut(a.mode), &b.path).cmp(&(is_shut(b.mode), &a.path)));
        for (ino, directory) in late {
            self.touch(ino, &directory).doing(|| format!("finish directory {}", shown(&directory.path)))?;
        }
        if !self.summary.has_root {
            // As engines have it: every user of the container passes through it.
            let (root, flags) = (self.rootfs.directory(b"")?, libc::O_RDONLY | libc::O_DIRECTORY);
            let open = fs::openat(root.fd(), c".", flags, 0).doing(|| "open the root")?;
            fs::fchmod(open.as_fd(), 0o755).doing(|| "finish the root")?;
        }
        Ok(self.summary)
    }

    fn count(&mut self, entry: &Entry) -> Result<()> {
        self.summary.entries += 1;
        self.summary.bytes = self.summary.bytes.saturating_add(entry.size);
        self.summary.highest.0 = self.summary.highest.0.max(entry.uid);
        self.summary.highest.1 = self.summary.highest.1.max(entry.gid);
        if self.summary.entries > self.limits.entries {
            fail!(Limit, "the image has more than {} entries", self.limits.entries);
        }
        if self.summary.bytes > self.limits.total_bytes {
            fail!(
                Limit,
                "the image's files have more than {} bytes; --max-size allows more",
                self.limits.total_bytes
            );
        }
        Ok(())
    }

    fn entry<I: Input>(&mut self, entry: Entry, reader: &mut Reader<I>) -> Result<()> {
        let Some(place) = Place::parse(&entry.path, &self.limits)? else { return self.root(entry) };
        match meaning(&place)? {
            Meaning::Entry => self.make(place, entry, reader),
            Meaning::Hide(name) => self.hide(&place, &name),
            Meaning::Opaque => self.opaque(&place),
            Meaning::Nothing => Ok(()),
        }
    }

    /// The root itself: it stays, and takes the entry's mode and times.
    fn root(&mut self, entry: Entry) -> Result<()> {
        if entry.what != What::Directory {
            fail!(Corrupt, "the root would become something else than a directory");
        }
        let root = self.rootfs.directory(b"")?;
        self.own(root.fd(), c"", &entry, libc::AT_EMPTY_PATH)?;
        self.summary.has_root = true;
        self.keep_late(root.ino, late(Vec::new(), entry))
    }

    fn make<I: Input>(&mut self, place: Place, entry: Entry, reader: &mut Reader<I>) -> Result<()> {
        let parent = self.parent_for(&place)?;
        self.mark(&parent, &place)?;
        match entry.what {
            What::Directory => self.directory(&parent, &place, entry),
            What::File => self.file(&parent, &place, &entry, reader),
            What::Hardlink => self.hardlink(&parent, &place, &entry),
            What::Symlink => {
                let target = CString::new(entry.target.as_slice()).map_err(|_| Errno::EINVAL)?;
                self.replacing(&parent, &place, |dir, name| fs::symlinkat(&target, dir, name))?;
                self.finish_at(&parent, &place, &entry)
            }
            What::Character | What::Block | What::Fifo => self.special(&parent, &place, &entry),
        }
    }

    fn parent_for(&mut self, place: &Place) -> Result<Directory> {
        if self.lower.is_some() {
            return match self.parent_over(&place.parent, true)? {
                Some(parent) => Ok(parent),
                None => fail!(Corrupt, "its directory cannot be made"),
            };
        }
        let parent = self.rootfs.parent_or_new(place)?;
        if let Some(fresh) = &mut self.fresh {
            self.rootfs.take_implied().for_each(|ino| fresh.add_clean(ino));
        }
        Ok(parent)
    }

    /// The directory of an entry over lower layers: what is missing of it in this layer is made as it is below.
    /// Without `make`, `None` for one that is nowhere.
    fn parent_over(&mut self, path: &[u8], make: bool) -> Result<Option<Directory>> {
        let place = Place { parent: path.to_vec(), name: c"-".into() };
        match self.rootfs.parent(&place) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            other => return Ok(Some(other.doing(|| format!("open directory {}", shown(path)))?)),
        }
        let Some(lower) = &mut self.lower else { return Ok(None) };
        let found =
            lower.walk(&self.rootfs, path, make).doing(|| format!("find directory {}", shown(path)))?;
        let Some((directory, made)) = found else { return Ok(None) };
        for Made { directory, late, owner, opaque } in made {
            if self.owners == Owners::Kept {
                let (uid, gid) = owner;
                fs::fchownat(directory.fd(), c"", uid, gid, libc::AT_EMPTY_PATH)?;
            }
            if opaque {
                self.mark_opaque(directory.fd(), c".")?;
            }
            self.keep_late(directory.ino, late)?;
        }
        self.rootfs.remember(path, &directory);
        Ok(Some(directory))
    }

    /// Remembers that this layer brings the name, for its whiteouts.
    fn mark(&mut self, parent: &Directory, place: &Place) -> Result<()> {
        if let Some(fresh) = &mut self.fresh {
            fresh.add_name(parent.ino, place.name());
        }
        Ok(())
    }

    /// Makes something, and again when what stood there has been removed.
    fn replacing<T>(
        &mut self,
        parent: &Directory,
        place: &Place,
        make: impl Fn(BorrowedFd, &CStr) -> Result<T, Errno>,
    ) -> Result<T> {
        match make(parent.fd(), place.name()) {
            Err(Errno::EEXIST) => {
                self.summary.duplicates += u64::from(self.fresh.is_none() && self.style == Style::Flat);
                self.rootfs.remove(parent.fd(), place.name())?;
                Ok(make(parent.fd(), place.name())?)
            }
            other => Ok(other?),
        }
    }

    fn directory(&mut self, parent: &Directory, place: &Place, entry: Entry) -> Result<()> {
        let (dir, name) = (parent.fd(), place.name());
        let made = self.make_directory(dir, name)?;
        self.own(dir, name, &entry, libc::AT_SYMLINK_NOFOLLOW)?;
        let ino = fs::fstatat(dir, name, libc::AT_SYMLINK_NOFOLLOW)?.ino;
        if let Some(fresh) = &mut self.fresh {
            if made { fresh.add_clean(ino) } else { fresh.add_listed(ino) }
        }
        if self.hidden.has(parent.ino, name) {
            self.mark_opaque(dir, name)?;
            if let Some(lower) = &mut self.lower {
                lower.cut(ino);
            }
        }
        self.keep_late(ino, late(place.path(), entry))
    }

    /// Makes a directory; false when there is one already. Anything else, a link too, is replaced.
    fn make_directory(&mut self, dir: BorrowedFd, name: &CStr) -> Result<bool> {
        match fs::mkdirat(dir, name, 0o700) {
            Err(Errno::EEXIST) if is_directory(dir, name) => return Ok(false),
            Err(Errno::EEXIST) => {
                self.rootfs.remove(dir, name)?;
                fs::mkdirat(dir, name, 0o700)?;
            }
            other => other?,
        }
        Ok(true)
    }

    fn keep_late(&mut self, ino: u64, late: Late) -> Result<()> {
        self.late_bytes += late.bytes();
        let before = self.late.insert(ino, late);
        self.late_bytes -= before.map_or(0, |late| late.bytes());
        if self.late_bytes > self.limits.directory_bytes {
            fail!(
                Limit,
                "the names and attributes of the image's directories have more than {} bytes",
                self.limits.directory_bytes
            );
        }
        Ok(())
    }

    fn file<I: Input>(
        &mut self,
        parent: &Directory,
        place: &Place,
        entry: &Entry,
        reader: &mut Reader<I>,
    ) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let mode = entry.mode & 0o777;
        let fd = self.replacing(parent, place, |dir, name| fs::openat(dir, name, flags, mode))?;
        let file = File::from(fd);
        match &entry.sparse {
            None => write_whole(&file, reader)?,
            Some(map) => write_sparse(&file, map, entry.size, reader)?,
        }
        self.settle_file(file.as_fd(), entry)
    }

    /// Owner, mode, attributes and times of a file that has been written, in the order that keeps them.
    fn settle_file(&mut self, file: BorrowedFd, entry: &Entry) -> Result<()> {
        self.own(file, c"", entry, libc::AT_EMPTY_PATH)?;
        if entry.mode & 0o7000 != 0 {
            fs::fchmod(file, entry.mode)?;
        }
        self.xattrs(file, &entry.xattrs)?;
        set_times(file, c"", entry.mtime, libc::AT_EMPTY_PATH)
    }

    /// A further name of a file, of this or of a lower layer. The target's directory is resolved in the root, its last
    /// component never followed (CVE-2026-50163).
    fn hardlink(&mut self, parent: &Directory, place: &Place, entry: &Entry) -> Result<()> {
        let Some(target) = Place::parse(&entry.target, &self.limits)? else {
            fail!(Corrupt, "a hard link to the root");
        };
        if target == *place {
            return Ok(());
        }
        self.bring_up(&target).doing(|| format!("find link target {}", shown(&entry.target)))?;
        let from = self
            .rootfs
            .directory(&target.parent)
            .doing(|| format!("find link target {}", shown(&entry.target)))?;
        let stat = fs::fstatat(from.fd(), target.name(), libc::AT_SYMLINK_NOFOLLOW)
            .doing(|| format!("find link target {}", shown(&entry.target)))?;
        let there = fs::fstatat(parent.fd(), place.name(), libc::AT_SYMLINK_NOFOLLOW);
        if stat.kind() == libc::S_IFDIR {
            fail!(Corrupt, "a hard link to a directory");
        }
        if stat.kind() == libc::S_IFCHR && (stat.rdev_major, stat.rdev_minor) == (0, 0) {
            fail!(Corrupt, "link target {} is hidden by this layer", shown(&entry.target));
        }
        if there.is_ok_and(|there| there.ino == stat.ino) {
            // This layer's own, from now on.
            self.brought.remove(&place.path());
            return Ok(());
        }
        self.replacing(parent, place, |dir, name| fs::linkat(from.fd(), target.name(), dir, name, 0))
    }

    /// Copies a file of a lower layer into this one, unless it is here: a link needs both names on one inode.
    fn bring_up(&mut self, target: &Place) -> Result<()> {
        if self.lower.is_none() {
            return Ok(());
        }
        let Some(parent) = self.parent_over(&target.parent, false)? else { return Ok(()) };
        if fs::fstatat(parent.fd(), target.name(), libc::AT_SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        let Some(lower) = &self.lower else { return Ok(()) };
        let Some(mut entry) = lower.find(&parent, target)? else { return Ok(()) };
        self.copy_up(&parent, target, &mut entry)?;
        let copy = fs::fstatat(parent.fd(), target.name(), libc::AT_SYMLINK_NOFOLLOW)?;
        self.brought.insert(target.path(), copy.ino);
        Ok(())
    }

    fn copy_up(&mut self, parent: &Directory, target: &Place, entry: &mut Entry) -> Result<()> {
        match entry.what {
            What::File => {
                let Some(lower) = &self.lower else { return Ok(()) };
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                let to = fs::openat(parent.fd(), target.name(), flags, entry.mode & 0o777)?;
                let from = lower.open(target)?;
                entry.xattrs = super::lower::xattrs(from.as_fd())?;
                while fs::sendfile(to.as_fd(), from.as_fd(), 1 << 20)? > 0 {}
                self.settle_file(to.as_fd(), entry)
            }
            What::Symlink => {
                let text = CString::new(entry.target.as_slice()).map_err(|_| Errno::EINVAL)?;
                fs::symlinkat(&text, parent.fd(), target.name())?;
                self.finish_at(parent, target, entry)
            }
            _ => self.special(parent, target, entry),
        }
    }

    /// Takes away the names of what was copied up and this layer hides all the same; the links to it stay.
    fn hide_brought(&mut self) -> Result<()> {
        for (path, ino) in std::mem::take(&mut self.brought) {
            let Some(place) = Place::parse(&path, &self.limits)? else { continue };
            let Ok(parent) = self.rootfs.directory(&place.parent) else { continue };
            let there = fs::fstatat(parent.fd(), place.name(), libc::AT_SYMLINK_NOFOLLOW);
            let is_hidden = self.hidden.has(parent.ino, place.name());
            if there.is_ok_and(|there| there.ino == ino) && (is_hidden || self.is_cut(&parent)?) {
                fs::unlinkat(parent.fd(), place.name(), 0)?;
                if is_hidden {
                    fs::mknodat(parent.fd(), place.name(), libc::S_IFCHR, 0, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Whether nothing below shows through a directory, or through one that leads to it.
    fn is_cut(&self, directory: &Directory) -> Result<bool> {
        let Some(lower) = &self.lower else { return Ok(false) };
        let root = self.rootfs.directory(b"")?.ino;
        let mut at = directory.clone();
        while !lower.is_cut(at.ino) {
            if at.ino == root {
                return Ok(false);
            }
            at = Directory::of(open_directory(at.fd(), c"..")?.into())?;
        }
        Ok(true)
    }

    fn special(&mut self, parent: &Directory, place: &Place, entry: &Entry) -> Result<()> {
        let kind = match entry.what {
            What::Character => libc::S_IFCHR,
            What::Block => libc::S_IFBLK,
            _ => libc::S_IFIFO,
        };
        // To overlayfs a 0:0 device is a whiteout: an image must not forge one.
        if entry.what == What::Character && entry.device == (0, 0) {
            self.summary.devices_skipped += 1;
            return Ok(());
        }
        let (mode, (major, minor)) = (kind | (entry.mode & 0o7777), entry.device);
        if kind != libc::S_IFIFO && self.owners == Owners::Caller {
            self.summary.devices_skipped += 1;
            return Ok(());
        }
        match self.replacing(parent, place, |dir, name| fs::mknodat(dir, name, mode, major, minor)) {
            // In a user namespace nobody can make devices; the runtime brings those that a container needs.
            Err(e) if e.kind() == Kind::Os(Errno::EPERM) && kind != libc::S_IFIFO => {
                self.summary.devices_skipped += 1;
                Ok(())
            }
            other => other.and_then(|()| self.finish_at(parent, place, entry)),
        }
    }

    /// Owner and times of what cannot be opened.
    fn finish_at(&mut self, parent: &Directory, place: &Place, entry: &Entry) -> Result<()> {
        self.summary.xattrs_skipped += entry.xattrs.len() as u64;
        self.own(parent.fd(), place.name(), entry, libc::AT_SYMLINK_NOFOLLOW)?;
        set_times(parent.fd(), place.name(), entry.mtime, libc::AT_SYMLINK_NOFOLLOW)
    }

    fn own(&self, dir: BorrowedFd, name: &CStr, entry: &Entry, flags: i32) -> Result<()> {
        if self.owners == Owners::Caller {
            return Ok(());
        }
        fs::fchownat(dir, name, entry.uid, entry.gid, flags)
            .doing(|| format!("give it to user {} and group {}", entry.uid, entry.gid))
    }

    fn xattrs(&mut self, fd: BorrowedFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (name, value) in xattrs {
            if !is_kept(name) {
                self.summary.xattrs_skipped += 1;
                continue;
            }
            let name = CString::new(name.as_slice()).map_err(|_| Errno::EINVAL)?;
            match fs::fsetxattr(fd, &name, value) {
                // No such attributes on this file system, or not without privilege: counted and reported.
                Err(Errno::EOPNOTSUPP | Errno::EPERM) => self.summary.xattrs_skipped += 1,
                other => other.doing(|| format!("set attribute {}", shown(name.to_bytes())))?,
            }
        }
        Ok(())
    }

    fn hide(&mut self, place: &Place, name: &CStr) -> Result<()> {
        match self.style {
            Style::Flat => self.hide_flat(place, name),
            Style::Overlay { .. } => self.hide_overlay(place, name),
        }
    }

    fn hide_flat(&mut self, place: &Place, name: &CStr) -> Result<()> {
        let Some(parent) = self.below(place)? else { return Ok(()) };
        let Some(fresh) = &self.fresh else { return Ok(()) };
        let is_fresh = fresh.has_name(parent.ino, name);
        match fs::fstatat(parent.fd(), name, libc::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.kind() == libc::S_IFDIR => self.purge_child(parent.fd(), name, stat.ino, 0),
            Ok(_) if is_fresh || fresh.is_clean(parent.ino) => Ok(()),
            Ok(_) => self.rootfs.remove(parent.fd(), name),
            Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn opaque(&mut self, place: &Place) -> Result<()> {
        if let Style::Overlay { .. } = self.style {
            let Some(parent) = self.parent_over(&place.parent, false)? else { return Ok(()) };
            let Some(lower) = &mut self.lower else { return Ok(()) };
            lower.cut(parent.ino);
            return self.mark_opaque(parent.fd(), c".");
        }
        let Some(parent) = self.below(place)? else { return Ok(()) };
        self.purge(parent.fd(), parent.ino, 0)
    }

    /// The directory that a whiteout is about, when a lower layer can have something there at all.
    fn below(&mut self, place: &Place) -> Result<Option<Directory>> {
        if self.fresh.is_none() {
            return Ok(None);
        }
        match self.rootfs.parent(place) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes what lower layers have in a directory. Once per layer and directory.
    fn purge(&mut self, dir: BorrowedFd, ino: u64, depth: usize) -> Result<()> {
        let Some(fresh) = &mut self.fresh else { return Ok(()) };
        if !fresh.begin_purge(ino) {
            return Ok(());
        }
        if depth > self.limits.name_components {
            fail!(Limit, "a tree of more than {} directories", self.limits.name_components);
        }
        loop {
            let mut removed = false;
            rootfs::each(dir, |name| {
                let stat = fs::fstatat(dir, name, libc::AT_SYMLINK_NOFOLLOW)?;
                let is_fresh = self.fresh.as_ref().is_some_and(|f| f.has_name(ino, name));
                if stat.kind() == libc::S_IFDIR {
                    self.purge_child(dir, name, stat.ino, depth + 1)?;
                } else if !is_fresh {
                    removed = true;
                    self.rootfs.remove(dir, name)?;
                }
                Ok(())
            })?;
            if !removed {
                return Ok(());
            }
        }
    }

    /// Removes what lower layers have in a directory, and the directory unless this layer has named or filled it.
    fn purge_child(&mut self, dir: BorrowedFd, name: &CStr, ino: u64, depth: usize) -> Result<()> {
        if self.fresh.as_ref().is_some_and(|f| f.is_clean(ino)) {
            return Ok(());
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let child = fs::openat(dir, name, flags, 0)?;
        self.purge(child.as_fd(), ino, depth)?;
        if self.fresh.as_ref().is_some_and(|f| f.is_listed(ino)) {
            return Ok(());
        }
        match fs::unlinkat(dir, name, libc::AT_REMOVEDIR) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn hide_overlay(&mut self, place: &Place, name: &CStr) -> Result<()> {
        // Over nothing there is nothing to hide.
        let Some(parent) = self.parent_over(&place.parent, false)? else { return Ok(()) };
        let Some(lower) = &mut self.lower else { return Ok(()) };
        if !self.hidden.add(parent.ino, name) {
            return Ok(());
        }
        match fs::mknodat(parent.fd(), name, libc::S_IFCHR, 0, 0) {
            // The layer's own entry stands there; a directory must still hide what is below it.
            Err(Errno::EEXIST) if is_directory(parent.fd(), name) => {
                lower.cut(fs::fstatat(parent.fd(), name, libc::AT_SYMLINK_NOFOLLOW)?.ino);
                self.mark_opaque(parent.fd(), name)
            }
            Err(Errno::EEXIST) | Ok(()) => Ok(()),
            Err(e) => Err(unmarkable(e).within("make an overlay whiteout")),
        }
    }

    fn mark_opaque(&self, dir: BorrowedFd, name: &CStr) -> Result<()> {
        let attribute = match self.style {
            Style::Overlay { user: true } => c"user.overlay.opaque",
            _ => c"trusted.overlay.opaque",
        };
        let fd = fs::openat(dir, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
        let marked = fs::fsetxattr(fd.as_fd(), attribute, b"y");
        marked.map_err(unmarkable).doing(|| "mark a directory opaque for overlayfs")
    }

    fn touch(&mut self, ino: u64, late: &Late) -> Result<()> {
        let fd = match self.rootfs.open(&late.path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) {
            Ok(fd) => fd,
            // A later layer has removed or replaced it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if fs::fstat(fd.as_fd())?.ino != ino {
            return Ok(());
        }
        self.xattrs(fd.as_fd(), &late.xattrs)?;
        fs::fchmod(fd.as_fd(), late.mode)?;
        set_times(fd.as_fd(), c"", late.mtime, libc::AT_EMPTY_PATH)
    }
}

/// A file system that lies on overlayfs itself, or has no such attributes, cannot keep its marks.
fn unmarkable(errno: Errno) -> Error {
    match errno {
        Errno::EPERM | Errno::EOPNOTSUPP => Error::new(Kind::Overlay, Error::from(errno).to_string()),
        other => other.into(),
    }
}

/// Whether a directory's owner could not pass through it.
fn is_shut(mode: u32) -> bool {
    mode & 0o700 != 0o700
}

fn is_directory(dir: BorrowedFd, name: &CStr) -> bool {
    fs::fstatat(dir, name, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.kind() == libc::S_IFDIR)
}

/// Attributes that an image may set. Labels belong to the host; overlay's own would forge the union's structure.
fn is_kept(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Access time as modification time, as GNU tar does it.
fn set_times(dir: BorrowedFd, name: &CStr, time: (i64, u32), flags: i32) -> Result<()> {
    let time = (time.0, i64::from(time.1));
    fs::utimensat(dir, name, [time, time], flags).doing(|| "set its times")
}

fn write_whole<I: Input>(mut file: &File, reader: &mut Reader<I>) -> Result<()> {
    loop {
        let piece = reader.data()?;
        if piece.is_empty() {
            return Ok(());
        }
        let n = piece.len();
        file.write_all(piece).doing(|| "write")?;
        reader.consume(n);
    }
}

fn write_sparse<I: Input>(file: &File, map: &[(u64, u64)], size: u64, reader: &mut Reader<I>) -> Result<()> {
    file.set_len(size).doing(|| format!("make a sparse file of {size} bytes"))?;
    for &(start, length) in map {
        let mut done = 0;
        while done < length {
            let piece = reader.data()?;
            let n = piece.len().min(usize::try_from(length - done).unwrap_or(usize::MAX));
            if n == 0 {
                fail!(Corrupt, "a sparse file's data is cut off");
            }
            file.write_all_at(&piece[..n], start + done).doing(|| "write")?;
            reader.consume(n);
            done += n as u64;
        }
    }
    Ok(())
}

/// Opens a directory for an [`Applier`]: O_PATH is enough.
pub fn open_directory(dir: BorrowedFd, name: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    fs::openat(dir, name, flags, 0).doing(|| format!("open {}", shown(name.to_bytes())))
}
