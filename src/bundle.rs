//! A bundle on disk: config.md and bundle.md. Read and checked before anything is touched.

use crate::log;
use coracle_image::config::mappings;
use coracle_image::rootless::ids_of_caller;
use coracle_plan::config;
use coracle_plan::oci::{LinuxNamespace, LinuxNamespaceType as Kind, Spec};
use coracle_sys::creds;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A bundle that was read.
pub(crate) struct Bundle {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Its configuration file.
    pub(crate) file: PathBuf,
    /// config.json, byte by byte; with names as the specification has them, and the ids that it leaves to the caller.
    pub(crate) bytes: Vec<u8>,
    /// What it says.
    pub(crate) spec: Spec,
    /// What had to be left out of it.
    pub(crate) warnings: Vec<String>,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
}

fn io(doing: &str, path: &Path, error: &std::io::Error) -> String {
    format!("{doing} {path:?}: {}", log::reason(error))
}

/// Reads the bundle in a directory; the configuration has this path from there.
pub(crate) fn read(directory: &Path, config: &Path) -> Result<Bundle, String> {
    let path = directory.canonicalize().map_err(|e| io("opening the bundle", directory, &e))?;
    let file = path.join(config);
    let mut bytes = std::fs::read(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{}; make one with: coracle spec --bundle {}", io("reading", &file, &e), path.display())
        }
        _ => io("reading", &file, &e),
    })?;
    let understood =
        |bytes: &[u8]| config::read(bytes).map_err(|fault| format!("{}: {fault}", file.display()));
    let config::Read { mut spec, mut warnings, amended } = understood(&bytes)?;
    bytes = amended.unwrap_or(bytes);
    if let Some(completed) = with_own_ids(&bytes, &spec) {
        let told = match user_namespace(&spec) {
            None => Some(ADDED),
            Some(_) => (creds::geteuid() == 0).then_some(MAPPED_ROOT),
        };
        warnings.extend(told.map(str::to_owned));
        bytes = completed;
        spec = understood(&bytes)?.spec;
    }
    let rootfs = spec.root().as_ref().map(|r| path.join(r.path())).unwrap_or_default();
    Ok(Bundle { path, file, bytes, spec, warnings, rootfs })
}

/// What root is told of it.
const MAPPED_ROOT: &str = "linux.uidMappings: a new user namespace without a map has the caller's ids, so its root owns what \
    the host's root owns";

/// What a user is told whose configuration has none.
const ADDED: &str = "linux.namespaces: without a user namespace the kernel lets this user make no other; one with the user's ids is added";

fn user_namespace(spec: &Spec) -> Option<&LinuxNamespace> {
    spec.linux().as_ref()?.namespaces().as_ref()?.iter().find(|n| n.typ() == Kind::User)
}

/// The configuration with the caller's ids in a new user namespace that maps none; and with such a namespace for a caller
/// whom the kernel would let make no other one without it: user_namespaces(7). As with crun. Later commands read it so.
fn with_own_ids(bytes: &[u8], spec: &Spec) -> Option<Vec<u8>> {
    let linux = spec.linux().as_ref()?;
    let namespaces = linux.namespaces().as_deref().unwrap_or(&[]);
    let asked = user_namespace(spec);
    let wanted = match asked {
        Some(user) => user.path().is_none(),
        None => !makes_namespaces() && namespaces.iter().any(|n| n.path().is_none()),
    };
    let maps = [linux.uid_mappings(), linux.gid_mappings()];
    if !wanted || maps.into_iter().flatten().any(|map| !map.is_empty()) {
        return None;
    }
    let ids = ids_of_caller();
    let mut config: Value = serde_json::from_slice(bytes).ok()?;
    let linux = config.get_mut("linux")?.as_object_mut()?;
    if asked.is_none() {
        linux.get_mut("namespaces")?.as_array_mut()?.push(json!({"type": "user"}));
    }
    linux.insert("uidMappings".into(), mappings(&ids.users));
    linux.insert("gidMappings".into(), mappings(&ids.groups));
    serde_json::to_vec(&config).ok()
}

/// Whether the caller may make namespaces of every kind.
fn makes_namespaces() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    creds::geteuid() == 0 || creds::capget().is_ok_and(|sets| sets.effective & CAP_SYS_ADMIN != 0)
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
