//! The store: pulled images, their layers unpacked once and shared, and the containers that run on them.
//!
//! ```text
//! images/       an OCI layout, which other tools can read and fill: skopeo copy oci:/var/lib/coracle/images:NAME …
//! partial/      downloads that are not whole yet: never looked for by the name of a blob
//! layers/       root file systems of single layers for overlayfs, by chain id; .N.chain holds the whole id
//! containers/   one directory a container: its bundle and its writable layer
//! ```
//!
//! Whoever reads or adds holds `lock` shared; whoever collects garbage holds it alone. What is not whole has another
//! name or lies elsewhere until a rename makes it whole, so that a death at any moment leaves nothing to be mistaken.

pub mod containers;
mod garbage;
pub mod layers;

pub use containers::Container;
pub use garbage::Removed;

use crate::digest::Digest;
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::limits::Limits;
use crate::manifest::{Descriptor, Document, ImageConfig, Index, Manifest};
use crate::platform::Platform;
use crate::source::{Directory, Files, Image, Query, Source};
use coracle_sys::{Errno, creds, fs, libc};
use std::ffi::{CStr, CString};
use std::fs::DirBuilder;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const LOCK: &CStr = c"lock";
const INDEX_LOCK: &CStr = c"index.lock";

/// An open store.
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

/// A lock on a store, or a part of it; let go by dropping.
pub struct Hold(#[allow(dead_code)] OwnedFd);

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Under this name it was pulled; empty if it has none.
    pub name: String,
    /// Its manifest's digest.
    pub digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as its maker says.
    pub created: Option<String>,
    /// Compressed bytes of configuration and layers.
    pub bytes: u64,
}

/// What is written last of a new store.
const LAYOUT: &str = "images/oci-layout";

/// Something in a directory that is no part of a store, nor of a file system's own.
fn strange(path: &Path) -> std::io::Result<Option<std::ffi::OsString>> {
    const OWN: [&str; 8] =
        ["images", "partial", "layers", "containers", "lock", "index.lock", "containers.lock", "lost+found"];
    let mut names = std::fs::read_dir(path)?.flatten().map(|entry| entry.file_name());
    Ok(names.find(|name| !OWN.iter().any(|own| name == own)))
}

impl Store {
    /// Where the caller's store is: $CORACLE_STORE, else /var/lib/coracle for root, else $XDG_DATA_HOME/coracle.
    /// Errors: no home directory.
    pub fn usual() -> Result<PathBuf> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = var("CORACLE_STORE") {
            return Ok(path);
        }
        if creds::geteuid() == 0 {
            return Ok("/var/lib/coracle".into());
        }
        let data = var("XDG_DATA_HOME").or_else(|| var("HOME").map(|h| h.join(".local/share")));
        match data {
            Some(path) => Ok(path.join("coracle")),
            None => fail!(Usage, "neither XDG_DATA_HOME nor HOME says where to keep images; --store does"),
        }
    }

    /// The caller's store at this path, if it has been made.
    pub fn existing(path: &Path) -> Result<Option<Self>> {
        path.join(LAYOUT).exists().then(|| Store::open(path)).transpose()
    }

    /// Opens a store, and makes it if it is not there. Nobody else may look into it: root file systems hold set-id
    /// programs (CVE-2021-41103). Errors: the directory holds something else, which others may have to look into; it is
    /// somebody else's, whose links would lead root anywhere.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open store {}", path.display());
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path).doing(doing);
        make(path)?;
        // Without links, as the records of containers have it: by that they are found again.
        let path = path.canonicalize().doing(doing)?;
        let dir: OwnedFd = std::fs::OpenOptions::new().read(true).open(&path).doing(doing)?.into();
        let owner = fs::fstat(dir.as_fd()).doing(doing)?.uid;
        if owner != creds::geteuid() {
            let path = path.display();
            fail!(Usage, "store {path} belongs to user {owner}, not to you; choose another, or chown(1) it");
        }
        if !path.join(LAYOUT).exists() {
            if let Some(name) = strange(&path).doing(doing)? {
                fail!(
                    Usage,
                    "{} is no store of images, and {} lies in it: a store has a directory of its own, which may not exist yet",
                    path.display(),
                    name.to_string_lossy().escape_debug()
                );
            }
        }
        for part in ["images/blobs/sha256", "partial", "layers", "containers"] {
            make(&path.join(part))?;
        }
        fs::fchmod(dir.as_fd(), 0o700).doing(doing)?;
        let store = Self { path, dir };
        if !store.path.join(LAYOUT).exists() {
            let _hold = store.hold()?;
            let _lock = store.lock(INDEX_LOCK, libc::LOCK_EX)?;
            // Whoever was here first may have pulled something already.
            store.replace("images/index.json", br#"{"schemaVersion":2,"manifests":[]}"#, true)?;
            store.replace(LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#, true)?;
        }
        Ok(store)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its OCI layout.
    pub fn images_path(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Keeps others from collecting garbage.
    pub fn hold(&self) -> Result<Hold> {
        self.lock(LOCK, libc::LOCK_SH)
    }

    fn lock(&self, name: &CStr, how: i32) -> Result<Hold> {
        let doing = || format!("lock {} in {}", name.to_string_lossy(), self.path.display());
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
        let file = fs::openat(self.dir.as_fd(), name, flags, 0o600).doing(doing)?;
        loop {
            match fs::flock(file.as_fd(), how) {
                Err(Errno::EINTR) => {}
                other => return other.map(|()| Hold(file)).doing(doing),
            }
        }
    }

    /// Writes a file and renames it into place. `keep`: one that is there already stays.
    fn replace(&self, name: &str, bytes: &[u8], keep: bool) -> Result<()> {
        let to = self.path.join(name);
        if keep && to.exists() {
            return Ok(());
        }
        self.place(&to, bytes)
    }

    /// Writes a file aside and renames it into place. The caller [holds](Store::hold) the store.
    pub(crate) fn place(&self, to: &Path, bytes: &[u8]) -> Result<()> {
        // A random name: threads share a process id, and so do processes of two pid namespaces.
        let name = format!("partial/.new-{:016x}", std::hash::RandomState::new().hash_one(bytes.len()));
        let aside = self.path.join(name);
        std::fs::write(&aside, bytes).doing(|| format!("write {}", aside.display()))?;
        std::fs::rename(&aside, to).doing(|| format!("write {}", to.display()))
    }

    fn files(&self) -> Result<Directory> {
        Directory::open(&self.images_path())
    }

    fn index(&self) -> Result<Index> {
        let bytes = self.files()?.file("index.json")?.bytes()?;
        Index::parse(&bytes, &Limits::default()).doing(|| format!("store {}", self.path.display()))
    }

    /// Changes the list of images; two at once do so one after the other.
    fn change(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<()> {
        // A collector takes what is written aside for a dead command's.
        let _hold = self.hold()?;
        let _lock = self.lock(INDEX_LOCK, libc::LOCK_EX)?;
        let mut index = self.index()?;
        change(&mut index.manifests);
        index.schema_version = 2;
        let text = serde_json::to_vec(&index).map_err(|e| Error::new(Kind::Corrupt, e.to_string()))?;
        self.replace("images/index.json", &text, false)
    }

    /// Gives a manifest a name, in place of what had it for the same platform.
    pub(crate) fn name(&self, name: &str, mut descriptor: Descriptor) -> Result<()> {
        descriptor.annotations.insert("org.opencontainers.image.ref.name".into(), name.into());
        self.change(|all| {
            all.retain(|d| d.tag() != Some(name) || d.platform != descriptor.platform);
            all.push(descriptor);
        })
    }

    /// Everything that has a name or is listed. One that cannot be read is left out.
    pub fn images(&self) -> Result<Vec<Stored>> {
        let files = self.files()?;
        let all = self.index()?.manifests;
        Ok(all.iter().filter_map(|d| stored(&files, d).ok()).collect())
    }

    /// The image of this name, for a platform (the host's by default). `None`: none of that name.
    pub fn image(&self, name: &str, platform: Option<&Platform>, limits: &Limits) -> Result<Option<Image>> {
        if !self.index()?.manifests.iter().any(|d| d.tag() == Some(name)) {
            return Ok(None);
        }
        let query = Query { tag: Some(name.to_owned()), digest: None, platform: platform.cloned() };
        let source = Source::open(&self.images_path().to_string_lossy(), limits)?;
        source.image(&query).map(Some)
    }

    /// Takes a name away, or with a digest (or its first digits) all names of an image. Returns the names.
    /// Errors: none such; the digits fit several images.
    pub fn forget(&self, name: &str) -> Result<Vec<String>> {
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let whole = name.parse::<crate::reference::Reference>().map(|r| r.to_string());
        let named =
            |d: &Descriptor| d.tag().is_some_and(|t| t == name || whole.as_ref().is_ok_and(|w| w == t));
        let all = self.index()?.manifests;
        let mut gone: Vec<&Descriptor> = all.iter().filter(|d| named(d)).collect();
        if gone.is_empty() && is_id {
            gone = all.iter().filter(|d| d.digest.hex().starts_with(digits)).collect();
            if gone.iter().any(|d| d.digest != gone[0].digest) {
                fail!(Ambiguous, "{name} begins several images' digests; give more of it");
            }
        }
        if gone.is_empty() {
            fail!(NotFound, "there is no image {} in the store", name.escape_debug());
        }
        self.change(|list| list.retain(|d| !gone.contains(&d)))?;
        Ok(gone.iter().map(|d| d.tag().map_or_else(|| d.digest.to_string(), str::to_owned)).collect())
    }

    /// A small blob of the layout, verified.
    fn blob(files: &Directory, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let blob = files.file(&descriptor.digest.blob_path())?;
        if blob.len() > Limits::default().json_bytes {
            fail!(Limit, "blob {} is too large", descriptor.digest);
        }
        let bytes = blob.bytes()?;
        descriptor.check(&bytes)?;
        Ok(bytes)
    }
}

fn stored(files: &Directory, descriptor: &Descriptor) -> Result<Stored> {
    let manifest = manifest_of(files, descriptor)?;
    let config = ImageConfig::parse(&Store::blob(files, &manifest.config)?, manifest.layers.len())?;
    Ok(Stored {
        name: descriptor.tag().unwrap_or_default().to_owned(),
        digest: descriptor.digest.clone(),
        bytes: manifest.layers.iter().map(|l| l.size).fold(manifest.config.size, u64::saturating_add),
        platform: config.platform,
        created: config.created,
    })
}

fn manifest_of(files: &Directory, descriptor: &Descriptor) -> Result<Manifest> {
    match Document::parse(&Store::blob(files, descriptor)?, &descriptor.media_type, &Limits::default())? {
        Document::Manifest(manifest) => Ok(*manifest),
        Document::Index(_) => fail!(Unsupported, "an index"),
    }
}

/// A path for the kernel.
fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new(Kind::Usage, "a NUL in a path"))
}
