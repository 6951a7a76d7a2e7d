//! Mounts: config.md, Mounts; config-linux.md, Rootfs Mount Propagation. Options are those of mount(8), as runc reads them.

use crate::inputs::{CgroupMode, Host};
use crate::problem::Findings;
use crate::steps::{Mount, MountKind};
use coracle_sys::{libc, mount::attr};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount as Asked, Spec};
use std::ffi::CString;
use std::path::{Component, Path};

const SECTION: &str = "config.md, Mounts";

/// What an option word means.
enum Meaning {
    Set(u64),
    Clear(u64),
    Atime(u64),
    Propagation(u64, bool),
    Bind(bool),
    CopyUp,
    Nothing,
    Superblock,
}

fn meaning(word: &str) -> Option<Meaning> {
    use Meaning::*;
    Some(match word {
        "ro" => Set(attr::RDONLY),
        "rw" => Clear(attr::RDONLY),
        "nosuid" => Set(attr::NOSUID),
        "suid" => Clear(attr::NOSUID),
        "nodev" => Set(attr::NODEV),
        "dev" => Clear(attr::NODEV),
        "noexec" => Set(attr::NOEXEC),
        "exec" => Clear(attr::NOEXEC),
        "nodiratime" => Set(attr::NODIRATIME),
        "diratime" => Clear(attr::NODIRATIME),
        "nosymfollow" => Set(attr::NOSYMFOLLOW),
        "symfollow" => Clear(attr::NOSYMFOLLOW),
        "relatime" | "atime" | "nostrictatime" => Atime(attr::RELATIME),
        "noatime" => Atime(attr::NOATIME),
        "strictatime" | "norelatime" => Atime(attr::STRICTATIME),
        "bind" => Bind(false),
        "rbind" => Bind(true),
        "private" => Propagation(libc::MS_PRIVATE, false),
        "rprivate" => Propagation(libc::MS_PRIVATE, true),
        "slave" => Propagation(libc::MS_SLAVE, false),
        "rslave" => Propagation(libc::MS_SLAVE, true),
        "shared" => Propagation(libc::MS_SHARED, false),
        "rshared" => Propagation(libc::MS_SHARED, true),
        "unbindable" => Propagation(libc::MS_UNBINDABLE, false),
        "runbindable" => Propagation(libc::MS_UNBINDABLE, true),
        "tmpcopyup" => CopyUp,
        "defaults" | "async" | "nomand" | "silent" | "loud" | "noiversion" | "nolazytime" | "norbind" => {
            Nothing
        }
        "sync" | "dirsync" | "mand" | "lazytime" | "iversion" => Superblock,
        _ => return None,
    })
}

/// The words that [`plan`] understands, for `features`; the recursive ones among them.
pub fn known_options() -> Vec<String> {
    let plain = "ro rw nosuid suid nodev dev noexec exec nodiratime diratime nosymfollow symfollow relatime atime nostrictatime \
        noatime strictatime norelatime bind rbind private rprivate slave rslave shared rshared unbindable runbindable tmpcopyup \
        defaults async nomand silent loud noiversion nolazytime sync dirsync mand lazytime iversion";
    let recursive = "rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rnosymfollow rsymfollow rrelatime \
        ratime rnostrictatime rnoatime rstrictatime rnorelatime";
    let mut all: Vec<String> =
        plain.split_whitespace().chain(recursive.split_whitespace()).map(str::to_owned).collect();
    all.sort();
    all
}

/// Sets or clears in a (set, clear) pair; the later word wins.
fn change(pair: &mut (u64, u64), what: &Meaning) -> bool {
    match *what {
        Meaning::Set(bit) => *pair = (pair.0 | bit, pair.1 & !bit),
        Meaning::Clear(bit) => *pair = (pair.0 & !bit, pair.1 | bit),
        // All three atime modes share bits, so that the old one is cleared: mount_setattr(2).
        Meaning::Atime(mode) => *pair = (pair.0 & !attr::ATIME | mode, pair.1 | attr::ATIME),
        _ => return false,
    }
    true
}

/// A path inside the container without its leading slash, `.` left out; `..` is resolved by the kernel in the root.
pub(crate) fn inside(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for part in path.components() {
        let name: &[u8] = match part {
            Component::Normal(name) => name.as_encoded_bytes(),
            Component::ParentDir => b"..",
            _ => continue,
        };
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
    }
    out
}

/// Everything about the container's mounts that depends on more than one of them.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a Host,
    pub(crate) bundle: &'a Path,
    pub(crate) user_namespace: bool,
    pub(crate) cgroup_namespace: bool,
    pub(crate) cgroup_path: String,
}

/// Decides all mounts, in the listed order.
pub(crate) fn plan(spec: &Spec, around: &Surroundings, found: &mut Findings) -> Vec<(Mount, String)> {
    let list = spec.mounts().as_deref().unwrap_or(&[]);
    list.iter()
        .enumerate()
        .map(|(i, m)| (one(m, &format!("mounts[{i}]"), around, found), format!("mounts[{i}]")))
        .collect()
}

fn one(asked: &Asked, at: &str, around: &Surroundings, found: &mut Findings) -> Mount {
    let mut out = Mount {
        target: found.cstring(at, inside(asked.destination())),
        what: MountKind::Bind(CString::default(), false),
        fallback: None,
        attributes: (0, 0),
        recursive_attributes: (0, 0),
        propagation: Vec::new(),
        copy_up: false,
    };
    if !asked.destination().is_absolute() {
        found.warn(format!(
            "{at}.destination: {:?} is not absolute (config.md, Mounts); taken from the root",
            asked.destination()
        ));
    }
    let (bind, parameters) = options(asked, at, &mut out, found);
    let kind = asked.typ().as_deref().unwrap_or("none");
    procfs_stays_procfs(asked, kind, bind.is_some(), at, found);
    let id_mapped = asked.uid_mappings().is_some() || asked.gid_mappings().is_some();
    if id_mapped {
        found.problem(
            format!("{at}.uidMappings"),
            "id-mapped mounts are not built yet",
            SECTION,
            "remove the maps, or use a user namespace",
        );
    }
    out.what = match (bind, kind) {
        (Some(recursive), _) => bind_kind(asked, recursive, at, around, found),
        (None, "bind") => bind_kind(asked, false, at, around, found),
        (None, "rbind") => bind_kind(asked, true, at, around, found),
        (None, "cgroup" | "cgroup2") => cgroup(around, &mut out.fallback),
        (None, "none") => {
            found.problem(
                format!("{at}.type"),
                "there is neither a type nor the option bind",
                SECTION,
                "name the file system, such as tmpfs, or add bind",
            );
            return out;
        }
        (None, other) => filesystem(other, asked, parameters, at, found),
    };
    if kind == "sysfs" && around.user_namespace {
        // The kernel lets a user namespace mount sysfs only together with a network namespace of its own: sysfs(5).
        out.fallback = Some(MountKind::Bind(c"/sys".into(), true));
    }
    out
}

type Parameters = Vec<(CString, Option<CString>)>;

fn options(asked: &Asked, at: &str, out: &mut Mount, found: &mut Findings) -> (Option<bool>, Parameters) {
    let (mut bind, mut parameters) = (None, Vec::new());
    for (j, word) in asked.options().iter().flatten().enumerate() {
        let at = format!("{at}.options[{j}]");
        if let Some(what) = meaning(word) {
            match what {
                Meaning::Bind(recursive) => bind = Some(recursive),
                Meaning::CopyUp => out.copy_up = true,
                Meaning::Propagation(flag, deep) => out.propagation.push((flag, deep)),
                Meaning::Superblock => parameters.push((found.cstring(&at, word.as_str()), None)),
                other => drop(change(&mut out.attributes, &other)),
            }
        } else if word
            .strip_prefix('r')
            .and_then(meaning)
            .is_some_and(|w| change(&mut out.recursive_attributes, &w))
        {
        } else if matches!(word.as_str(), "idmap" | "ridmap") {
            found.problem(&at, "id-mapped mounts are not built yet", SECTION, "remove it");
        } else {
            let (key, value) = word.split_once('=').map_or((word.as_str(), None), |(k, v)| (k, Some(v)));
            let value = value.map(|v| found.cstring(&at, v));
            parameters.push((found.cstring(&at, key), value));
        }
    }
    (bind, parameters)
}

/// Only procfs may stand on /proc, and below it only what cannot deceive a later write there (CVE-2019-16884, CVE-2025-52881).
fn procfs_stays_procfs(asked: &Asked, kind: &str, bind: bool, at: &str, found: &mut Findings) {
    let target = inside(asked.destination());
    let Some(below) = target.strip_prefix(b"proc".as_slice()) else { return };
    let allowed: [&[u8]; 10] = [
        b"/cpuinfo",
        b"/diskstats",
        b"/meminfo",
        b"/stat",
        b"/swaps",
        b"/uptime",
        b"/loadavg",
        b"/slabinfo",
        b"/sys/kernel/ns_last_pid",
        b"/sys/crypto/fips_enabled",
    ];
    let proc_source = asked.source().as_deref().is_some_and(|s| s.starts_with("/proc"));
    let fine = match below {
        b"" => kind == "proc" || bind && proc_source,
        _ if below[0] != b'/' => true,
        _ => allowed.contains(&below),
    };
    if !fine {
        found.problem(
            format!("{at}.destination"),
            format!("{:?} would hide part of /proc from the runtime and the container", asked.destination()),
            "CVE-2019-16884",
            "mount it outside /proc, or mount proc there",
        );
    }
}

fn bind_kind(
    asked: &Asked,
    recursive: bool,
    at: &str,
    around: &Surroundings,
    found: &mut Findings,
) -> MountKind {
    let Some(source) = asked.source() else {
        found.problem(
            format!("{at}.source"),
            "a bind mount needs a source",
            SECTION,
            "name the host's file or directory",
        );
        return MountKind::Bind(CString::default(), recursive);
    };
    // A relative source is relative to the bundle: config.md, Mounts.
    let whole = around.bundle.join(source);
    MountKind::Bind(found.cstring(at, whole.as_os_str().as_encoded_bytes()), recursive)
}

fn cgroup(around: &Surroundings, fallback: &mut Option<MountKind>) -> MountKind {
    let below = |root: &str| CString::new(format!("{root}{}", around.cgroup_path)).unwrap_or_default();
    match around.host.cgroup {
        CgroupMode::Legacy => MountKind::LegacyCgroups(around.cgroup_path.clone()),
        // A mount of cgroup2 from the first cgroup namespace would reset the options of the host's own (nsdelegate,
        // memory_recursiveprot), and wait for every CPU: there the host's mount is bound, which shows the same.
        _ if !around.cgroup_namespace && !around.user_namespace => {
            MountKind::Bind(c"/sys/fs/cgroup".into(), false)
        }
        // Root of a user namespace sees its own part only (CVE-2023-25809).
        _ if !around.cgroup_namespace => MountKind::Bind(below("/sys/fs/cgroup"), false),
        _ => {
            *fallback = Some(MountKind::Bind(below("/sys/fs/cgroup"), false));
            MountKind::Filesystem(c"cgroup2".into(), c"cgroup".into(), Vec::new())
        }
    }
}

fn filesystem(
    kind: &str,
    asked: &Asked,
    mut parameters: Parameters,
    at: &str,
    found: &mut Findings,
) -> MountKind {
    if kind == "devpts" && !parameters.iter().any(|(k, _)| k.as_c_str() == c"newinstance") {
        parameters.push((c"newinstance".into(), None));
    }
    parameters.retain(|(key, _)| kind != "devpts" || key.as_c_str() != c"newinstance");
    let source = asked.source().as_ref().map_or(kind.as_bytes(), |s| s.as_os_str().as_encoded_bytes());
    MountKind::Filesystem(found.cstring(at, kind), found.cstring(at, source), parameters)
}

/// The MS_* flags of `linux.rootfsPropagation`.
pub(crate) fn root_propagation(spec: &Spec, found: &mut Findings) -> Option<u64> {
    let word = spec.linux().as_ref()?.rootfs_propagation().as_deref().filter(|w| !w.is_empty())?;
    match meaning(word) {
        Some(Meaning::Propagation(flag, deep)) => Some(flag | if deep { libc::MS_REC } else { 0 }),
        _ => {
            found.problem(
                "linux.rootfsPropagation",
                format!("{word:?} is not a propagation"),
                "config-linux.md, Rootfs Mount Propagation",
                "use shared, slave, private or unbindable",
            );
            None
        }
    }
}

/// Whether some mount makes the container's /dev (then default devices and links are put there even if it is a bind).
pub(crate) fn dev_is_bind(spec: &Spec) -> bool {
    let bind = |m: &&Asked| {
        m.options().iter().flatten().any(|o| o == "bind" || o == "rbind")
            || m.typ().as_deref() == Some("bind")
    };
    spec.mounts().iter().flatten().filter(|m| inside(m.destination()) == b"dev").any(|m| bind(&m))
}

/// Names of the namespaces' kinds, for `features`.
pub fn namespace_kinds() -> [&'static str; 8] {
    ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
}

/// Whether a new namespace of the kind is asked for.
pub(crate) fn new_namespace(spec: &Spec, kind: Kind) -> bool {
    crate::namespaces::asked(spec, kind) == Some(true)
}
