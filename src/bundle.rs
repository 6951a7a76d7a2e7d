//! A bundle on disk: config.md and bundle.md. Read and checked before anything is touched.

use coracle_plan::config;
use coracle_plan::oci::Spec;
use std::path::{Path, PathBuf};

/// A bundle that was read.
pub(crate) struct Bundle {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Its configuration file.
    pub(crate) file: PathBuf,
    /// config.json, byte by byte.
    pub(crate) bytes: Vec<u8>,
    /// What it says.
    pub(crate) spec: Spec,
    /// What had to be left out of it.
    pub(crate) warnings: Vec<String>,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
}

fn io(doing: &str, path: &Path, error: &std::io::Error) -> String {
    let reason = error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |n| coracle_sys::Errno::from_raw(n).desc().to_lowercase());
    format!("{doing} {path:?}: {reason}")
}

/// Reads the bundle in a directory; the configuration has this path from there.
pub(crate) fn read(directory: &Path, config: &Path) -> Result<Bundle, String> {
    let path = directory.canonicalize().map_err(|e| io("opening the bundle", directory, &e))?;
    let file = path.join(config);
    let bytes = std::fs::read(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{}; make one with: coracle spec --bundle {}", io("reading", &file, &e), path.display())
        }
        _ => io("reading", &file, &e),
    })?;
    let (spec, warnings) =
        config::parse(&bytes).map_err(|refusal| format!("{}: {refusal}", file.display()))?;
    let rootfs = spec.root().as_ref().map(|r| path.join(r.path())).unwrap_or_default();
    Ok(Bundle { path, file, bytes, spec, warnings, rootfs })
}

impl Bundle {
    /// The root file system must be a directory, not a link to one: what stands behind a link can be exchanged.
    pub(crate) fn check_rootfs(&self) -> Result<(), String> {
        let found = std::fs::symlink_metadata(&self.rootfs)
            .map_err(|e| format!("root.path: {}", io("opening the root file system", &self.rootfs, &e)))
            .map_err(|what| {
                format!("{what} (config.md, Root); name a directory, from the bundle's or from the root")
            })?;
        match found.file_type() {
            kind if kind.is_symlink() => Err(format!(
                "root.path: {:?} is a symbolic link (config.md, Root); name the directory itself",
                self.rootfs
            )),
            kind if !kind.is_dir() => Err(format!(
                "root.path: {:?} is not a directory (config.md, Root); name one, from the bundle's or from the root",
                self.rootfs
            )),
            _ => Ok(()),
        }
    }
}
