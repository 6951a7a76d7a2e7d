//! What nothing needs any more goes: blobs that no image has, layers that neither an image nor a container has, what an
//! interrupted command left.

use super::{LOCK, Store, manifest_of};
use crate::digest::Digest;
use crate::error::{Doing, Result};
use crate::manifest::ImageConfig;
use crate::rootfs::remove_tree;
use crate::store::layers::{chain, short};
use coracle_sys::{Errno, fs, libc};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::CString;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A broken download is kept so long, for whoever pulls again.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What was removed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unpacked layers.
    pub layers: u64,
}

/// What is needed.
#[derive(Default)]
struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<String>,
}

impl Store {
    /// Collects garbage. `None`: someone is pulling or unpacking; it is left to the next time. Must run where the
    /// layers' files can be removed ([`crate::rootless::workshop`]).
    pub fn collect(&self) -> Result<Option<Removed>> {
        let _alone = match self.lock(LOCK, libc::LOCK_EX | libc::LOCK_NB) {
            Err(e) if e.kind() == crate::Kind::Os(Errno::EWOULDBLOCK) => return Ok(None),
            other => other?,
        };
        let needed = self.needed()?;
        let mut removed = Removed::default();
        for algorithm in ["sha256", "sha512"] {
            let directory = self.images_path().join("blobs").join(algorithm);
            for (name, entry) in entries(&directory) {
                let digest = format!("{algorithm}:{name}").parse::<Digest>();
                if digest.is_ok_and(|d| needed.blobs.contains(&d)) {
                    continue;
                }
                removed.blobs += 1;
                removed.bytes += entry.metadata().map_or(0, |m| m.len());
                std::fs::remove_file(entry.path()).doing(|| format!("remove {}", entry.path().display()))?;
            }
        }
        self.partial();
        for directory in ["layers", "layers-single"] {
            removed.layers += self.unneeded_layers(directory, &needed.layers)?;
        }
        Ok(Some(removed))
    }

    /// Everything that the images and the containers have. An image that cannot be read keeps nothing: it cannot run.
    fn needed(&self) -> Result<Needed> {
        let files = self.files()?;
        let mut needed = Needed::default();
        for descriptor in self.index()?.manifests {
            needed.blobs.insert(descriptor.digest.clone());
            let Ok(manifest) = manifest_of(&files, &descriptor) else { continue };
            needed.blobs.insert(manifest.config.digest.clone());
            needed.blobs.extend(manifest.layers.iter().map(|l| l.digest.clone()));
            let bytes = Store::blob(&files, &manifest.config);
            let config = bytes.and_then(|bytes| ImageConfig::parse(&bytes, manifest.layers.len()));
            let ids = config.map(|c| chain(&c.rootfs.diff_ids)).unwrap_or_default();
            needed.layers.extend(ids.iter().map(|d| short(d).to_owned()));
        }
        for container in self.containers()? {
            needed.layers.extend(container.layers);
        }
        Ok(needed)
    }

    fn partial(&self) {
        let old = |m: std::fs::Metadata| {
            m.modified().is_ok_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age > KEPT))
        };
        for (name, entry) in entries(&self.path().join("partial")) {
            // Names with a dot are of writers that hold the lock while they write.
            if name.starts_with('.') || entry.metadata().is_ok_and(old) {
                std::fs::remove_file(entry.path()).ok();
            }
        }
    }

    fn unneeded_layers(&self, directory: &str, needed: &HashSet<String>) -> Result<u64> {
        let path = self.path().join(directory);
        let mut count = 0;
        // A layer whose chain is gone is none: the chains go first, for death may come between any two.
        let mut all = entries(&path);
        all.sort_by_key(|(name, _)| !name.starts_with('.'));
        for (name, _) in all {
            let is_chain = name.starts_with('.') && name.ends_with(".chain");
            let of = name.trim_start_matches('.').trim_end_matches(".chain");
            if needed.contains(of) && (is_chain || !name.starts_with('.')) {
                continue;
            }
            count += u64::from(!name.starts_with('.'));
            remove(&path, &name)?;
        }
        Ok(count)
    }
}

/// Removes whatever has this name in a directory; nothing there is no error.
pub(super) fn remove(directory: &Path, name: &str) -> Result<()> {
    let doing = || format!("remove {}", directory.join(name).display());
    let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(directory).doing(doing)?.into();
    let (trash, bin) = trash(dir.as_fd()).doing(doing)?;
    let name = CString::new(name).unwrap_or_default();
    remove_tree(dir.as_fd(), &name, bin.as_fd()).doing(doing)?;
    fs::unlinkat(dir.as_fd(), &trash, libc::AT_REMOVEDIR).doing(doing)
}

/// A new directory to take trees apart in, locked: one that nobody locks was left by a command that died.
fn trash(dir: BorrowedFd) -> Result<(CString, OwnedFd)> {
    loop {
        let name = format!(".trash-{:016x}", RandomState::new().hash_one(std::process::id()));
        let name = CString::new(name).unwrap_or_default();
        fs::mkdirat(dir, &name, 0o700)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let bin = match fs::openat(dir, &name, flags, 0) {
            // A sweeper was faster: another one.
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        match fs::flock(bin.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) if fs::fstat(bin.as_fd())?.nlink > 0 => return Ok((name, bin)),
            Ok(()) | Err(Errno::EWOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn entries(directory: &Path) -> Vec<(String, std::fs::DirEntry)> {
    let list = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let named =
        |e: std::fs::DirEntry| Some((std::str::from_utf8(e.file_name().as_bytes()).ok()?.to_owned(), e));
    list.filter_map(named).collect()
}
