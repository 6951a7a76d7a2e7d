//! Containers made from images: a bundle whose root file system is an overlay that only the container's own mount
//! namespace has. Nothing is left to unmount after any death.
//!
//! `containers/ID` holds config.json, an empty `rootfs` to mount on, `upper` and `work`, and `container.json`, which is
//! written last and says what the container needs. While the command that made it runs, it holds the directory's lock: a
//! directory without a lock and without a container is what was left of one.

use super::layers::{Kept, mount_overlay, overlay_options};
use super::{Hold, Store, c_path, garbage};
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::events::Events;
use crate::layer::apply::{Style, Summary};
use crate::limits::Limits;
use crate::source::Image;
use crate::unpack::{self, How};
use coracle_sys::{Errno, fs, libc, mount};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const NOTE: &str = "container.json";

/// What a container needs of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The image's name.
    pub image: String,
    /// The layers' names, base first.
    pub layers: Vec<String>,
    /// Where the runtime keeps its state.
    pub state: PathBuf,
    /// Whether it goes when its program has ended.
    pub remove: bool,
    /// The directory of the layers.
    pub directory: String,
    /// The overlay's options; empty where the container has a copy of the image.
    pub options: String,
}

/// A container's directory, while it is worked on.
pub struct Place {
    /// The bundle.
    pub path: PathBuf,
    _lock: Hold,
}

impl Store {
    /// Where a container's bundle is.
    pub fn container_path(&self, id: &str) -> PathBuf {
        self.path().join("containers").join(id)
    }

    /// Makes a container's directory. `id` is a container id (it holds no slash). Errors: there is one.
    pub fn reserve(&self, id: &str) -> Result<Place> {
        let _lock = self.lock(c"containers.lock", libc::LOCK_EX)?;
        let path = self.container_path(id);
        let doing = || format!("make {}", path.display());
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                fail!(Busy, "there is a container called {id} already; delete it, or choose another --name")
            }
            other => other.doing(doing)?,
        }
        let lock = lock(&path)?;
        let Some(lock) = lock else { fail!(Busy, "someone else is at work on a container called {id}") };
        for part in ["rootfs", "upper", "work"] {
            DirBuilder::new()
                .mode(if part == "work" { 0o700 } else { 0o755 })
                .create(path.join(part))
                .doing(doing)?;
        }
        Ok(Place { path, _lock: lock })
    }

    /// What the overlay of a container is to be; without layers it has a copy ([`Store::copy`]).
    pub fn container(
        &self,
        id: &str,
        image: &str,
        layers: Vec<String>,
        kept: Kept,
        state: &Path,
        remove: bool,
    ) -> Container {
        let (upper, work) = (format!("../containers/{id}/upper"), format!("../containers/{id}/work"));
        let options = match layers.is_empty() {
            true => String::new(),
            false => overlay_options(&layers, Some((&upper, &work)), kept.user),
        };
        Container {
            id: id.to_owned(),
            image: image.to_owned(),
            layers,
            state: state.to_owned(),
            remove,
            directory: kept.directory().to_owned(),
            options,
        }
    }

    /// Mounts a container's root file system in the caller's own mount namespace, for `work` to look into it and to add
    /// what the configuration needs.
    pub fn look_into<T>(
        &self,
        container: &Container,
        kept: Kept,
        work: impl FnOnce(BorrowedFd) -> Result<T>,
    ) -> Result<T> {
        let path = self.container_path(&container.id);
        let layers = self.path().join(&container.directory);
        self.like_the_top(container, &layers, &path)?;
        // A work directory that a volatile overlay has used cannot be used again: this one is for now.
        let now = path.join("now");
        DirBuilder::new().mode(0o700).create(&now).doing(|| format!("make {}", now.display()))?;
        let (upper, scratch) =
            (format!("../containers/{}/upper", container.id), format!("../containers/{}/now", container.id));
        let at = path.join("rootfs");
        mount_overlay(&layers, &container.layers, Some((&upper, &scratch)), kept.user, &at)?;
        let root: OwnedFd = std::fs::OpenOptions::new()
            .read(true)
            .open(&at)
            .doing(|| format!("open {}", at.display()))?
            .into();
        let done = work(root.as_fd());
        drop(root);
        mount::umount2(&c_path(&at)?, 0).doing(|| "take the overlay off again")?;
        garbage::remove(&path, "now")?;
        done
    }

    /// Unpacks an image into a container's own root file system, and returns that: where overlayfs cannot be had.
    pub fn copy(
        &self,
        id: &str,
        image: &Image,
        kept: Kept,
        limits: &Limits,
        events: &dyn Events,
    ) -> Result<(OwnedFd, Summary)> {
        let path = self.container_path(id);
        let doing = || format!("copy the image into {}", path.display());
        DirBuilder::new().mode(0o700).create(path.join("trash")).doing(doing)?;
        let open = |path: &Path| -> Result<OwnedFd> {
            Ok(std::fs::OpenOptions::new().read(true).open(path).doing(doing)?.into())
        };
        let how = How { owners: kept.owners, style: Style::Flat, lower: None, limits, events };
        let (summary, _) = unpack::layers(&image.layers, open(&path)?.as_fd(), &how).doing(doing)?;
        Ok((open(&path.join("rootfs"))?, summary))
    }

    /// The upper directory's owner and mode are the root's.
    fn like_the_top(&self, container: &Container, layers: &Path, path: &Path) -> Result<()> {
        let Some(top) = container.layers.last() else { fail!(Unsupported, "an image without layers") };
        let open = |path: PathBuf| -> Result<OwnedFd> {
            Ok(std::fs::OpenOptions::new()
                .read(true)
                .open(&path)
                .doing(|| format!("open {}", path.display()))?
                .into())
        };
        let (top, upper) = (open(layers.join(top))?, open(path.join("upper"))?);
        let stat = fs::fstat(top.as_fd())?;
        fs::fchownat(upper.as_fd(), c"", stat.uid, stat.gid, libc::AT_EMPTY_PATH)?;
        Ok(fs::fchmod(upper.as_fd(), stat.mode & 0o7777)?)
    }

    /// Writes down what a container needs: from now on it is whole.
    pub fn note(&self, container: &Container) -> Result<()> {
        let text = serde_json::to_vec(container).map_err(|e| Error::new(Kind::Corrupt, e.to_string()))?;
        self.replace(&format!("containers/{}/{NOTE}", container.id), &text, false)
    }

    /// All whole containers.
    pub fn containers(&self) -> Result<Vec<Container>> {
        Ok(self.names()?.iter().filter_map(|id| self.noted(id)).collect())
    }

    /// What a container needs; `None`: it is not whole, or not there.
    pub fn noted(&self, id: &str) -> Option<Container> {
        let bytes = std::fs::read(self.container_path(id).join(NOTE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn names(&self) -> Result<Vec<String>> {
        let path = self.path().join("containers");
        let list = std::fs::read_dir(&path).doing(|| format!("read {}", path.display()))?;
        Ok(list.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    /// Removes a container's directory, which the caller has reserved or claimed. Must run where its files can be removed
    /// ([`crate::rootless::workshop`]).
    pub fn forget_container(&self, name: &str) -> Result<()> {
        garbage::remove(&self.path().join("containers"), name)
    }

    /// What commands that died left, for the caller to remove: containers' directories on which nobody works and of which
    /// `exists` (given state root and id) knows no container, and what was being removed. With `only`, nothing but that
    /// container's. Nobody else is handed the same while the caller keeps it.
    pub fn leftovers(
        &self,
        only: Option<&str>,
        exists: impl Fn(&Path, &str) -> bool,
    ) -> Result<Vec<Claimed>> {
        let _lock = self.lock(c"containers.lock", libc::LOCK_EX)?;
        let mut left = Vec::new();
        for name in self.names()? {
            if only.is_some_and(|id| id != name) {
                continue;
            }
            let Some(lock) = lock(&self.container_path(&name))? else { continue };
            if self.noted(&name).is_none_or(|c| !exists(&c.state, &name)) {
                left.push(Claimed { name, _lock: lock });
            }
        }
        Ok(left)
    }

    /// Containers that were to go with their programs, and on which no command works.
    pub fn passing(&self) -> Result<Vec<Container>> {
        let idle = |c: &Container| matches!(lock(&self.container_path(&c.id)), Ok(Some(_)));
        Ok(self.containers()?.into_iter().filter(|c| c.remove && idle(c)).collect())
    }
}

/// A container's directory that the holder alone removes, or what is left of one.
pub struct Claimed {
    /// Its name within the store's containers.
    pub name: String,
    _lock: Hold,
}

/// Locks a container's directory; `None`: someone holds it, or it is gone.
fn lock(path: &Path) -> Result<Option<Hold>> {
    let doing = || format!("lock {}", path.display());
    let dir: OwnedFd = match std::fs::OpenOptions::new().read(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(doing)?.into(),
    };
    match fs::flock(dir.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
        Err(Errno::EWOULDBLOCK) => return Ok(None),
        other => other.doing(doing)?,
    }
    let there = fs::fstat(dir.as_fd()).doing(doing)?.nlink > 0;
    Ok(there.then_some(Hold(dir)))
}

/// The store and id of a bundle that lies in one; `None` for any other bundle. Looks at the path before the disk.
pub fn of_bundle(bundle: &Path) -> Option<(PathBuf, String)> {
    let id = bundle.file_name()?.to_str()?.to_owned();
    let containers = bundle.parent().filter(|p| p.ends_with("containers"))?;
    bundle.join(NOTE).exists().then(|| containers.parent().map(|store| (store.to_owned(), id)))?
}
