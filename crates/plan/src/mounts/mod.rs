//! Mounts: config.md, Mounts; config-linux.md, Rootfs Mount Propagation. Options are those of mount(8), as runc reads them.

mod idmap;
mod options;

use crate::inputs::{CgroupMode, Host};
use crate::labels;
use crate::problem::Findings;
use crate::steps::{Act, Bind, Mount, MountKind, Namespaces, Parameter, Step};
use coracle_sys::{libc, mount::attr};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount as Asked, Spec};
pub(crate) use options::each_option;
pub use options::known_options;
use options::{Meaning, change, meaning};
use std::ffi::{CStr, CString};
use std::path::{Component, Path, PathBuf};

const SECTION: &str = "config.md, Mounts";
/// Options of a volume that an engine has followed before it hands them on (relabel, change the owner: buildah-run(1)). A
/// warning would stand in the output of what `buildah run` runs.
const FOR_ENGINES: [&CStr; 3] = [c"z", c"Z", c"U"];

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

/// The same as it is written, `a/../proc` as `proc`: so that what is decided by a name holds where the name leads.
pub(crate) fn place(path: &Path) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    let inside = inside(path);
    for name in inside.split(|b| *b == b'/') {
        match name {
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(b"/".as_slice())
}

/// The same for the destination of a mount. One that is written as a path of the host, through the rootfs, means the place
/// below it, as with runc.
fn destination(asked: &Asked, rootfs: &Path) -> Vec<u8> {
    place(asked.destination().strip_prefix(rootfs).unwrap_or(asked.destination()))
}

/// Everything about the container's mounts that depends on more than one of them.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a Host,
    pub(crate) bundle: &'a Path,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) user_namespace: bool,
    /// Shared mounts may be so with the host: `linux.rootfsPropagation`.
    pub(crate) shared_root: bool,
    pub(crate) cgroup_namespace: bool,
    pub(crate) cgroup_path: String,
    /// `linux.mountLabel`, and the option that gives it to a mount.
    pub(crate) label: Option<CString>,
    /// The option that gives it to a file system.
    pub(crate) context: &'static CStr,
}

impl Surroundings<'_> {
    /// The label and its option.
    fn labelled(&self) -> (&'static CStr, Option<&CString>) {
        (self.context, self.label.as_ref())
    }

    /// Whether a cgroup mount is a new one, and not the host's or a part of it.
    fn cgroup_is_new(&self) -> bool {
        self.host.cgroup != CgroupMode::Legacy && self.cgroup_namespace
    }
}

/// Decides all mounts, in the listed order.
pub(crate) fn plan(spec: &Spec, around: &Surroundings, found: &mut Findings) -> Vec<(Mount, String)> {
    let list = spec.mounts().as_deref().unwrap_or(&[]);
    list.iter()
        .enumerate()
        .map(|(i, m)| (one(m, &format!("mounts[{i}]"), spec, around, found), format!("mounts[{i}]")))
        .collect()
}

fn one(asked: &Asked, at: &str, spec: &Spec, around: &Surroundings, found: &mut Findings) -> Mount {
    let target = destination(asked, &around.rootfs);
    let mut out = Mount { target: found.cstring(at, target.as_slice()), ..Mount::default() };
    if !asked.destination().is_absolute() {
        found.warn(format!(
            "{at}.destination: {:?} is not absolute (config.md, Mounts); taken from the root",
            asked.destination()
        ));
    }
    let mut words = read_options(asked, at, &mut out, found);
    if target.is_empty() && !words.remount {
        // It would lie over a root that is entered below it: nobody would see it.
        found.problem(
            format!("{at}.destination"),
            format!("{:?} is the root file system itself", asked.destination()),
            SECTION,
            "name it in root.path, or mount below it",
        );
    }
    let kind = asked.typ().as_deref().unwrap_or("none");
    if words.bind.is_none() {
        words.bind =
            [("bind", false), ("rbind", true)].iter().find(|(k, _)| *k == kind).map(|(_, deep)| *deep);
    }
    if words.bind.is_some() && !words.remount || kind.starts_with("cgroup") && !around.cgroup_is_new() {
        for (key, _) in words.parameters.iter().filter(|(key, _)| !FOR_ENGINES.contains(&key.as_c_str())) {
            match options::meant(&key.to_string_lossy()) {
                // What confines is not to be left out for a slip of the pen.
                Some(right) => found.problem(
                    format!("{at}.options"),
                    format!("{key:?} is not an option of this mount"),
                    "mount(8)",
                    format!("write {right:?}"),
                ),
                None => found
                    .warn(format!("{at}.options: {key:?} means nothing to a mount of this kind; left out")),
            }
        }
    }
    procfs_stays_procfs(asked, &target, kind, words.bind.is_some(), at, found);
    out.idmap = idmap::plan(asked, words.idmap.take(), at, spec, around.namespaces, found);
    // What is to be read-only gets its own contents first: devices, mount points, copies.
    let filled_later = words.bind.is_none() && (kind == "tmpfs" || target == b"dev");
    out.seal = filled_later && !words.remount && out.attributes.0 & attr::RDONLY != 0;
    if out.seal {
        out.attributes.0 &= !attr::RDONLY;
    }
    out.what = match (words.bind, kind) {
        (bind, _) if words.remount => MountKind::Remount(bind.is_none().then_some(words.parameters)),
        (Some(recursive), _) => {
            let peer = around.shared_root && out.propagation.iter().any(|(flag, _)| *flag == libc::MS_SHARED);
            bind_kind(
                asked,
                Bind { recursive, peer, held: around.user_namespace, ..words.links },
                at,
                around,
                found,
            )
        }
        (None, "cgroup" | "cgroup2") => cgroup(around, words.parameters, &mut out.fallback),
        (None, "none") => {
            found.problem(
                format!("{at}.type"),
                "there is neither a type nor the option bind",
                SECTION,
                "name the file system, such as tmpfs, or add bind",
            );
            return out;
        }
        (None, other) => {
            words.parameters.extend(labels::context(other, around.labelled(), &words.parameters));
            out.label = around.label.clone().filter(|_| other == "mqueue");
            if around.user_namespace && out.label.take().is_some() {
                // Its root belongs to whoever cloned the ipc namespace, and only the owner may label it.
                found.warn(format!(
                    "{at}: message queues in a user namespace keep the policy's label, not linux.mountLabel"
                ));
            }
            filesystem(other, asked, words.parameters, &out, at, found)
        }
    };
    if kind == "sysfs" && around.user_namespace {
        // The kernel lets a user namespace mount sysfs only together with a network namespace of its own: sysfs(5).
        out.fallback =
            Some(MountKind::Bind(Bind { source: c"/sys".into(), recursive: true, ..Bind::default() }));
    }
    out
}

/// What the options say beside attributes and propagation.
#[derive(Default)]
struct Words {
    bind: Option<bool>,
    links: Bind,
    remount: bool,
    idmap: Option<idmap::Word>,
    parameters: Vec<Parameter>,
}

fn read_options(asked: &Asked, at: &str, out: &mut Mount, found: &mut Findings) -> Words {
    let mut words = Words::default();
    for (j, word) in each_option(asked) {
        let at = format!("{at}.options[{j}]");
        let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        match meaning(key) {
            Some(Meaning::IdMap(recursive)) => {
                words.idmap = Some(idmap::Word { recursive, maps: value.map(str::to_owned), at });
            }
            Some(Meaning::Nothing) if key.starts_with(['x', 'X']) => {}
            Some(what) if value.is_none() => match what {
                // Both words together are rbind, in any order: to mount(8) they are flags.
                Meaning::Bind(recursive) => words.bind = Some(recursive || words.bind == Some(true)),
                Meaning::Remount => words.remount = true,
                Meaning::CopyLink => words.links.copy_link = true,
                Meaning::SourceLink => words.links.nofollow = true,
                Meaning::TargetLink => out.nofollow = true,
                Meaning::CopyUp => out.copy_up = true,
                Meaning::Propagation(flag, deep) => out.propagation.push((flag, deep)),
                Meaning::Superblock => words.parameters.push((found.cstring(&at, key), None)),
                other => drop(change(&mut out.attributes, &other)),
            },
            _ if recursively(word, &mut out.recursive_attributes) => {}
            _ => {
                let value = value.map(|v| found.cstring(&at, labels::unquoted(key, v)));
                words.parameters.push((found.cstring(&at, key), value));
            }
        }
    }
    words
}

/// Takes a word such as `rro` into the pair; says whether it was one.
fn recursively(word: &str, pair: &mut (u64, u64)) -> bool {
    let meant = word.strip_prefix('r').and_then(meaning).map(|what| match what {
        // Without the flag of relatime the kernel has relatime, all the same: mount_setattr(2).
        Meaning::NoAtime(_) => Meaning::Atime(attr::RELATIME),
        other => other,
    });
    meant.is_some_and(|what| change(pair, &what))
}

/// Only procfs may stand on /proc, and below it only what cannot deceive a later write there (CVE-2019-16884, CVE-2025-52881).
fn procfs_stays_procfs(asked: &Asked, target: &[u8], kind: &str, bind: bool, at: &str, found: &mut Findings) {
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
    mut bind: Bind,
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
        return MountKind::Bind(bind);
    };
    // A relative source is relative to the bundle: config.md, Mounts.
    let whole = around.bundle.join(source);
    bind.source = match whole.strip_prefix(&around.rootfs) {
        // A part of the rootfs: as the container has it by then, with what is mounted there; its links stay within.
        Ok(below) => {
            bind.inside = true;
            found.cstring(at, inside(below))
        }
        Err(_) => found.cstring(at, whole.as_os_str().as_encoded_bytes()),
    };
    MountKind::Bind(bind)
}

fn cgroup(around: &Surroundings, parameters: Vec<Parameter>, fallback: &mut Option<MountKind>) -> MountKind {
    let bind = |path: String| {
        MountKind::Bind(Bind { source: CString::new(path).unwrap_or_default(), ..Bind::default() })
    };
    let below = |root: &str| bind(format!("{root}{}", around.cgroup_path));
    match around.host.cgroup {
        CgroupMode::Legacy => {
            let mut parameters = vec![(c"mode".into(), Some(c"755".into()))];
            parameters.extend(labels::context("tmpfs", around.labelled(), &[]));
            MountKind::LegacyCgroups(around.cgroup_path.clone(), parameters)
        }
        // A mount of cgroup2 from the first cgroup namespace would reset the options of the host's own (nsdelegate,
        // memory_recursiveprot), and wait for every CPU: there the host's mount is bound, which shows the same.
        _ if !around.cgroup_namespace && !around.user_namespace => bind("/sys/fs/cgroup".into()),
        // Root of a user namespace sees its own part only (CVE-2023-25809). Nothing, where a user without rights over control
        // groups got none: a /sys that is bound would show the host's.
        _ if !around.cgroup_namespace => {
            *fallback = Some(MountKind::Filesystem(c"tmpfs".into(), c"none".into(), nothing(around)));
            below("/sys/fs/cgroup")
        }
        _ => {
            *fallback = Some(below("/sys/fs/cgroup"));
            MountKind::Filesystem(c"cgroup2".into(), c"cgroup".into(), parameters)
        }
    }
}

/// The options of a tmpfs that stays empty.
fn nothing(around: &Surroundings) -> Vec<Parameter> {
    let mut parameters = vec![(c"mode".into(), Some(c"555".into())), (c"ro".into(), None)];
    parameters.extend(labels::context("tmpfs", around.labelled(), &[]));
    parameters
}

fn filesystem(
    kind: &str,
    asked: &Asked,
    mut parameters: Vec<Parameter>,
    mount: &Mount,
    at: &str,
    found: &mut Findings,
) -> MountKind {
    if kind == "devpts" && !parameters.iter().any(|(k, _)| k.as_c_str() == c"newinstance") {
        parameters.push((c"newinstance".into(), None));
    }
    parameters.retain(|(key, _)| kind != "devpts" || key.as_c_str() != c"newinstance");
    let on_device = asked.source().as_ref().is_some_and(|s| s.is_absolute());
    if on_device && mount.attributes.0 & attr::RDONLY != 0 {
        // A device that cannot be written is opened for reading only if the file system is told, not just the mount.
        parameters.push((c"ro".into(), None));
    }
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

/// A step that gives a mount its own propagation again, after that of the root reached everything below.
pub(crate) fn propagation_of(step: &Step) -> Option<Step> {
    let Act::Mount(mount) = &step.act else { return None };
    let (target, propagation) = (mount.target.clone(), mount.propagation.clone());
    let what = MountKind::Again(matches!(&mount.what, MountKind::Bind(bind) if bind.copy_link));
    let again = Mount { target, propagation, nofollow: mount.nofollow, what, ..Mount::default() };
    (!again.propagation.is_empty())
        .then(|| Step { act: Act::Mount(Box::new(again)), origin: step.origin.clone() })
}

/// Whether some mount makes the container's /dev (then default devices and links are put there even if it is a bind).
pub(crate) fn dev_is_bind(spec: &Spec, rootfs: &Path) -> bool {
    let bind = |m: &&Asked| {
        each_option(m).any(|(_, o)| o == "bind" || o == "rbind") || m.typ().as_deref() == Some("bind")
    };
    spec.mounts().iter().flatten().filter(|m| destination(m, rootfs) == b"dev").any(|m| bind(&m))
}

/// Names of the namespaces' kinds, for `features`.
pub fn namespace_kinds() -> [&'static str; 8] {
    ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
}

/// Whether anything is to be mounted, hidden or made read-only.
pub(crate) fn wanted(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let paths =
        |list: Option<&Option<Vec<String>>>| list.is_some_and(|l| l.iter().flatten().next().is_some());
    spec.mounts().iter().flatten().next().is_some()
        || spec.root().as_ref().is_some_and(|r| r.readonly() == Some(true))
        || paths(linux.map(|l| l.masked_paths()))
        || paths(linux.map(|l| l.readonly_paths()))
}

/// Whether a new namespace of the kind is asked for.
pub(crate) fn new_namespace(spec: &Spec, kind: Kind) -> bool {
    crate::namespaces::asked(spec, kind) == Some(true)
}
