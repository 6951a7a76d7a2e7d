//! The Plan: verbs from a closed vocabulary, in order. What is here is all that apply needs; it never sees config.json.

use std::ffi::CString;

/// Everything that create does, decided.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces: which are new, which are joined.
    pub namespaces: Namespaces,
    /// The control group.
    pub cgroup: Cgroup,
    /// What the child does before it reports, in order.
    pub setup: Vec<Step>,
    /// What the child does after the start, in order; the last one is the exec.
    pub launch: Vec<Step>,
    /// Programs to run at the points of the lifecycle.
    pub hooks: Hooks,
    /// The terminal, when one was asked for.
    pub terminal: Option<Terminal>,
    /// What the specification lets pass, but must be said.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The seccomp program, when there is one.
    pub fn seccomp_program(&self) -> Option<&[u8]> {
        self.launch
            .iter()
            .find_map(|s| if let Act::Seccomp(program, _) = &s.act { Some(program.as_slice()) } else { None })
    }
}

/// One act of the child, and the place in config.json that asked for it.
#[derive(Debug)]
pub struct Step {
    /// What to do.
    pub act: Act,
    /// JSON path; empty where the specification itself asks.
    pub origin: String,
}

/// The verbs.
#[derive(Debug)]
pub enum Act {
    /// Enter the namespace that the parent opened as number so and so of [`Namespaces::join`].
    Enter(usize),
    /// Wait until the parent has written the id maps, then become root of the new user namespace.
    BecomeRoot,
    /// Wait until the parent has moved this process into its control group.
    AwaitCgroup,
    /// New namespaces for this process (or, of pid and time, its next child): CLONE_NEW* flags.
    Unshare(i32),
    /// Go on in a sibling, cloned with these flags; this process ends.
    CloneAgain(u64),
    /// A session of its own.
    NewSession,
    /// Write a file below /proc of the host, before the container's file system can interfere: path below /proc, value.
    WriteProc(CString, Vec<u8>),
    /// Set the loopback interface up.
    LoopbackUp,
    /// A session keyring of this name.
    Keyring(CString),
    /// Open the LSM attribute file (below /proc/self/attr) that [`Act::Confine`] writes later.
    OpenLabel(CString),
    /// Make every mount of the copied mount namespace a slave or private (MS_* flags), so that nothing propagates out.
    Sever(u64),
    /// Take the root of the mount namespace that was entered as the root (exec).
    ThisRoot,
    /// Attach a copy of the root file system onto itself: path, recursive propagation of the copy (MS_* flag).
    OpenRoot(CString),
    /// A mount below the root.
    Mount(Mount),
    /// A device node below the root.
    Device(Device),
    /// A symbolic link below the root: where, target. One that exists already stays.
    Link(CString, CString),
    /// /dev/ptmx, a link to pts/ptmx in the container's own /dev.
    Ptmx,
    /// Report; the parent runs its hooks; then run the createContainer hooks here.
    CreateContainerHooks,
    /// Make sure that the working directory is there, below the root.
    WorkingDir(CString),
    /// The terminal on 0, 1, 2 and, when the container has /dev, on /dev/console.
    Console,
    /// Make the root the root: pivot_root(2).
    Pivot,
    /// Make the root the root where pivot_root cannot: move it over `/`, chroot (`--no-pivot`).
    MoveRoot,
    /// Make the root the root without a mount namespace of one's own.
    Chroot,
    /// The root mount read-only.
    ReadonlyRoot,
    /// The propagation of the root mount (MS_* flags).
    RootPropagation(u64),
    /// Read-only from here on; a path that does not exist is passed over.
    Readonly(CString),
    /// Hide: a file behind /dev/null, a directory behind an empty read-only tmpfs. A path that does not exist is passed over.
    Mask(CString),
    /// The name of the host.
    Hostname(Vec<u8>),
    /// The NIS domain name.
    Domainname(Vec<u8>),
    /// A resource limit: number, soft, hard.
    Rlimit(u32, u64, u64),
    /// Scheduling policy.
    Scheduler(coracle_sys::limits::SchedAttr),
    /// I/O priority: class, level.
    IoPriority(u32, u32),
    /// Execution domain.
    Personality(u64),
    /// NUMA policy: mode with flags, nodes.
    MemoryPolicy(u32, Vec<u64>),
    /// The file creation mask.
    Umask(u32),
    /// Drop from the bounding set all but these.
    Bounding(u64),
    /// uid, gid, supplementary gids; `None` leaves the groups (setgroups denied in this user namespace).
    Ids(u32, u32, Option<Vec<u32>>),
    /// Effective, permitted, inheritable, ambient; capabilities that must stay until the seccomp filter is loaded.
    Capabilities(Capabilities),
    /// No execve grants privileges from here on.
    NoNewPrivs,
    /// The working directory; verified to lie inside the root.
    Chdir(CString),
    /// Make sure that the program exists and may be run.
    FindProgram,
    /// Run the startContainer hooks here.
    StartContainerHooks,
    /// Descriptors from this number on close at the exec, those from 3 up to it stay; signals have their default actions.
    Settle(u32),
    /// Write the LSM label for the next execve.
    Confine(Vec<u8>),
    /// Load the filter: BPF program, flags.
    Seccomp(Vec<u8>, u64),
    /// Become the workload.
    Exec(Program),
}

/// The four sets that an exec'ing process sets itself, a bit per capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
    /// Kept effective and permitted beside them, for a later step.
    pub meanwhile: u64,
}

/// The workload.
#[derive(Debug, Clone)]
pub struct Program {
    /// The arguments; the first names the program.
    pub argv: Vec<CString>,
    /// The environment.
    pub env: Vec<CString>,
}

/// A mount.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Below the root, without a leading slash.
    pub target: CString,
    /// What is mounted there.
    pub what: MountKind,
    /// What to try when the kernel refuses the first with EPERM or EBUSY (a user namespace): never more than was asked.
    pub fallback: Option<MountKind>,
    /// Attributes of the mount ([`coracle_sys::mount::attr`]): to set, to clear.
    pub attributes: (u64, u64),
    /// The same for everything below it too (`rro` and its kin).
    pub recursive_attributes: (u64, u64),
    /// Propagation types (MS_*), each with whether it reaches everything below.
    pub propagation: Vec<(u64, bool)>,
    /// Copy what the target holds into the fresh tmpfs.
    pub copy_up: bool,
}

/// Kinds of mounts.
#[derive(Debug, Clone)]
pub enum MountKind {
    /// A part of the host's tree: path, with everything mounted below it.
    Bind(CString, bool),
    /// A file system of its own: type, source, parameters (a value or a flag).
    Filesystem(CString, CString, Vec<(CString, Option<CString>)>),
    /// The container's part (this path) of every v1 hierarchy, each bound into a tmpfs.
    LegacyCgroups(String),
}

/// A device node.
#[derive(Debug, Clone)]
pub struct Device {
    /// Below the root, without a leading slash.
    pub path: CString,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    /// Numbers.
    pub major: u32,
    /// Numbers.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the host's node instead: in a user namespace mknod(2) is refused.
    pub bind: bool,
}

/// Namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// CLONE_NEW* flags of the clone.
    pub new: u64,
    /// Joined by path, in the order of entering.
    pub join: Vec<Join>,
    /// Maps of a new user namespace: uid_map, gid_map, as the kernel's files take them.
    pub maps: Option<IdMaps>,
    /// A new time namespace with these offsets (text of timens_offsets).
    pub time: Option<String>,
}

/// A namespace that exists.
#[derive(Debug)]
pub struct Join {
    /// CLONE_NEW* flag.
    pub kind: i32,
    /// Its file.
    pub path: CString,
    /// JSON path.
    pub origin: String,
}

/// Id maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    /// Lines of `inside outside length`.
    pub uids: String,
    /// Lines of `inside outside length`.
    pub gids: String,
    /// Forbid setgroups(2) (a caller without privileges maps its own group only).
    pub deny_setgroups: bool,
}

/// A terminal.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// Rows and columns, when config.json gives them.
    pub size: Option<(u16, u16)>,
    /// Who takes the master side; `None`: this process relays.
    pub socket: Option<CString>,
}

/// The control group.
#[derive(Debug, Clone, Default)]
pub struct Cgroup {
    /// From the root of the mount, with a leading slash; `None`: stay in the caller's.
    pub path: Option<String>,
    /// v2 or v1.
    pub mode: crate::inputs::CgroupMode,
    /// Files to write: name, value, JSON path.
    pub writes: Vec<CgroupWrite>,
    /// Device filter; `None`: none was asked for.
    pub devices: Option<Vec<coracle_sys::bpf::Insn>>,
    /// The same for v1: lines of devices.deny and devices.allow (allow, line).
    pub device_lines: Vec<(bool, String)>,
    /// A cgroup that cannot be made is a warning, not an error (rootless, and no limit asked for).
    pub optional: bool,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupWrite {
    /// Controller, such as `memory`.
    pub controller: String,
    /// File, such as `memory.max`.
    pub file: String,
    /// Text to write.
    pub value: String,
    /// JSON path.
    pub origin: String,
}

/// Programs to run at points of the lifecycle: runtime.md, Lifecycle.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// prestart, then createRuntime: by the parent, before the root is changed.
    pub create_runtime: Vec<Hook>,
    /// By the child, before the root is changed.
    pub create_container: Vec<Hook>,
    /// By the child, after start, before the workload.
    pub start_container: Vec<Hook>,
    /// By whoever starts, after the workload began.
    pub poststart: Vec<Hook>,
    /// By whoever deletes, afterwards.
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Absolute path.
    pub path: CString,
    /// Arguments; the first is the name.
    pub argv: Vec<CString>,
    /// Environment, exactly.
    pub env: Vec<CString>,
    /// Seconds.
    pub timeout: Option<u32>,
    /// JSON path.
    pub origin: String,
}
