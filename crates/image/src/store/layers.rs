//! Layers, unpacked once and shared by all containers: one directory each, joined by overlayfs.
//!
//! A layer's directory depends on those below it (what it takes over from them), so it is named by its chain id: the
//! digest of the ids of all layers up to it. Image specification, config.md, "Layer ChainID". Names are the first 24
//! digits, for a mount's options have one page; the whole id stands beside.

use super::{Store, c_path, garbage};
use crate::digest::{Algorithm, Digest};
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::events::{Event, Events};
use crate::layer::apply::{Owners, Style, Summary};
use crate::limits::Limits;
use crate::source::Image;
use crate::unpack::{self, How, ROOTFS};
use coracle_sys::{Errno, fs, libc, mount};
use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Digits of a layer's name.
const DIGITS: usize = 24;
/// The most layers of a mount: overlayfs takes 500, but all names must fit into one page.
const MOST: usize = 127;

/// The chain ids of layers, base first.
pub(crate) fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut all: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        let id = match all.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(Algorithm::Sha256, format!("{below} {diff_id}").as_bytes()),
        };
        all.push(id);
    }
    all
}

/// The name of a layer's directory.
pub(super) fn short(chain: &Digest) -> &str {
    &chain.hex()[..DIGITS]
}

/// Who owns the layers' files, and how overlayfs marks what is hidden.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// As for unpacking.
    pub owners: Owners,
    /// Marks that a user namespace may set.
    pub user: bool,
}

impl Kept {
    /// The directory for layers of this kind.
    pub(super) fn directory(self) -> &'static str {
        if self.owners == Owners::Kept { "layers" } else { "layers-single" }
    }
}

impl Store {
    /// Unpacks the layers that are not there yet, and returns the names of all, base first. Must run in a mount
    /// namespace of its own ([`crate::rootless::workshop`]).
    pub fn unpack(
        &self,
        image: &Image,
        kept: Kept,
        limits: &Limits,
        events: &dyn Events,
    ) -> Result<(Vec<String>, Summary)> {
        if image.layers.len() > MOST {
            fail!(Overlay, "the image has {} layers, and overlayfs joins at most {MOST}", image.layers.len());
        }
        let diff_ids: Vec<Digest> = image.layers.iter().map(|l| l.diff_id.clone()).collect();
        let ids = chain(&diff_ids);
        let names: Vec<String> = ids.iter().map(|id| short(id).to_owned()).collect();
        let path = self.path().join(kept.directory());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .doing(|| format!("make {}", path.display()))?;
        let mut sum = Summary::default();
        if ids.iter().all(|id| is_there(&path, id)) {
            return Ok((names, sum));
        }
        // One at a time: whoever waits finds it done.
        let _lock = self.lock(c"unpack.lock", libc::LOCK_EX)?;
        for (i, id) in ids.iter().enumerate() {
            if is_there(&path, id) {
                continue;
            }
            let (number, of, digest) = (i + 1, ids.len(), id.to_string());
            events.event(Event::Layer { number, of, digest: &digest, bytes: image.layers[i].blob.len() });
            let one = self.one(image, i, &names[..i], kept, limits)?;
            // What a collector that was killed has begun to remove: its chain goes first.
            if path.join(&names[i]).exists() {
                garbage::remove(&path, &names[i])?;
            }
            std::fs::write(path.join(format!(".{}.chain", names[i])), id.to_string())?;
            let (from, to) = (path.join(".new").join("rootfs"), path.join(&names[i]));
            std::fs::rename(&from, &to).doing(|| format!("put {} into place", to.display()))?;
            garbage::remove(&path, ".new")?;
            sum.entries += one.entries;
            sum.bytes += one.bytes;
            sum.devices_skipped += one.devices_skipped;
            sum.xattrs_skipped += one.xattrs_skipped;
        }
        Ok((names, sum))
    }

    fn one(
        &self,
        image: &Image,
        at: usize,
        below: &[String],
        kept: Kept,
        limits: &Limits,
    ) -> Result<Summary> {
        let path = self.path().join(kept.directory());
        // Left by someone who was killed.
        garbage::remove(&path, ".new")?;
        let work = path.join(".new");
        for part in ["", "rootfs", "trash", "lower"] {
            DirBuilder::new()
                .mode(0o700)
                .create(work.join(part))
                .doing(|| format!("make {}", work.display()))?;
        }
        let work: OwnedFd = std::fs::OpenOptions::new().read(true).open(&work)?.into();
        let view = View::open(&path, below, kept)?;
        let how = How {
            owners: kept.owners,
            style: Style::Overlay { user: kept.user },
            lower: view.as_ref().map(|v| v.root.as_fd()),
            limits,
            events: &crate::events::Silent,
        };
        let (summary, _) = unpack::layers(&image.layers[at..=at], work.as_fd(), &how)?;
        // A layer need not name its own root: then it is like the one below.
        if let Some(view) = view.as_ref().filter(|_| !summary.has_root) {
            view.lend(fs::openat(work.as_fd(), ROOTFS, libc::O_RDONLY | libc::O_DIRECTORY, 0)?)?;
        }
        Ok(summary)
    }
}

fn is_there(path: &Path, id: &Digest) -> bool {
    let whole = std::fs::read_to_string(path.join(format!(".{}.chain", short(id))));
    path.join(short(id)).is_dir() && whole.is_ok_and(|w| w == id.to_string())
}

/// What some layers show together.
struct View {
    root: OwnedFd,
    mounted: Option<PathBuf>,
}

impl View {
    fn open(path: &Path, names: &[String], kept: Kept) -> Result<Option<Self>> {
        let (at, mounted) = match names {
            [] => return Ok(None),
            [one] => (path.join(one), None),
            several => {
                let at = path.join(".new/lower");
                mount_overlay(path, several, None, kept.user, &at)?;
                (at.clone(), Some(at))
            }
        };
        let root =
            std::fs::OpenOptions::new().read(true).open(&at).doing(|| format!("open {}", at.display()))?;
        Ok(Some(Self { root: root.into(), mounted }))
    }

    /// Gives a root that no entry has named this one's owner, mode and time.
    fn lend(&self, root: OwnedFd) -> Result<()> {
        let mine = fs::fstat(self.root.as_fd())?;
        fs::fchownat(root.as_fd(), c"", mine.uid, mine.gid, libc::AT_EMPTY_PATH)?;
        fs::fchmod(root.as_fd(), mine.mode & 0o7777)?;
        fs::utimensat(root.as_fd(), c"", [mine.mtime, mine.mtime], libc::AT_EMPTY_PATH)?;
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(path) = self.mounted.as_ref().and_then(|m| c_path(m).ok()) {
            // Best effort: it ends with the mount namespace anyway.
            let _ = mount::umount2(&path, libc::MNT_DETACH);
        }
    }
}

/// The options of an overlay of these layers, base first, below the directory `path`, and perhaps with a writable layer:
/// (upper, work), relative to `path`. `user`: in a user namespace.
pub fn overlay_options(names: &[String], writable: Option<(&str, &str)>, user: bool) -> String {
    let lower: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = writable {
        // Nothing is ever mounted on this upper directory again, so that nothing need be written to disk at the end.
        options += &format!(",upperdir={upper},workdir={work},volatile");
    }
    if user { options + ",userxattr" } else { options }
}

/// Mounts layers on a directory, in the caller's mount namespace.
pub(super) fn mount_overlay(
    path: &Path,
    names: &[String],
    writable: Option<(&str, &str)>,
    user: bool,
    at: &Path,
) -> Result<()> {
    let doing = || "join the layers with overlayfs".to_owned();
    // Not there, not allowed in a user namespace (before Linux 5.11), or not on this file system.
    let cannot = |errno| match errno {
        Errno::ENODEV | Errno::ENOSYS | Errno::EPERM | Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP => {
            Error::new(Kind::Overlay, Error::from(errno).to_string())
        }
        other => other.into(),
    };
    let options = CString::new(overlay_options(names, writable, user)).unwrap_or_default();
    // Names relative to the layers' directory keep the options within their page.
    fs::chdir(&c_path(path)?).doing(doing)?;
    let flags = if writable.is_none() { libc::MS_RDONLY } else { 0 };
    let mounted = mount::mount(Some(c"overlay"), &c_path(at)?, Some(c"overlay"), flags, Some(&options));
    mounted.map_err(cannot).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// config.md, "Layer ChainID": of one layer its diffID; then the digest of "below diffID".
    #[test]
    fn chains() {
        let id = |c: char| format!("sha256:{}", c.to_string().repeat(64)).parse::<Digest>().unwrap();
        let all = chain(&[id('a'), id('b'), id('c')]);
        assert_eq!(all[0], id('a'));
        assert_eq!(all[1], Digest::of(Algorithm::Sha256, format!("{} {}", id('a'), id('b')).as_bytes()));
        assert_eq!(all[2], Digest::of(Algorithm::Sha256, format!("{} {}", all[1], id('c')).as_bytes()));
    }

    #[test]
    fn options_fit_a_page() {
        let names = vec!["0".repeat(DIGITS); MOST];
        let long = format!("../containers/{}/upper", "i".repeat(255));
        assert!(overlay_options(&names, Some((&long, &long)), true).len() < 4096);
        assert_eq!(
            overlay_options(&["a".into(), "b".into()], Some(("u", "w")), false),
            "lowerdir=b:a,upperdir=u,workdir=w,volatile"
        );
    }
}
