//! The Plan: verbs from a closed vocabulary, in order. What is here is all that apply needs; it never sees config.json.

use std::ffi::CString;

/// Everything that create does, decided.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces: which are new, which are joined.
    pub namespaces: Namespaces,
    /// The control group.
    pub cgroup: Cgroup,
    /// Cache and memory bandwidth, when they are asked for.
    pub rdt: Option<Rdt>,
    /// What the child does before it reports, in order.
    pub setup: Vec<Step>,
    /// What the child does after the start, in order; the last one is the exec.
    pub launch: Vec<Step>,
    /// What the parent does to the child that is ready, because it takes rights over the host that the child lacks.
    pub imposed: Vec<Step>,
    /// Programs to run at the points of the lifecycle.
    pub hooks: Hooks,
    /// The terminal, when one was asked for.
    pub terminal: Option<Terminal>,
    /// The CPUs (a bit each) that this process runs on from before the clone; none: as it does now.
    pub first_cpus: Vec<u64>,
    /// What the specification lets pass, but must be said.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the first process is born in its control group; else it waits until it was moved there.
    pub fn born_in_cgroup(&self) -> bool {
        !self.setup.iter().any(|s| matches!(s.act, Act::AwaitCgroup))
    }

    /// Whether the first process asks the runtime for nothing before the start, and the runtime does nothing to it.
    pub fn silent(&self) -> bool {
        let asks = |step: &Step| match &step.act {
            Act::BecomeRoot | Act::AwaitCgroup | Act::CloneAgain(_) | Act::NetDevices(_) | Act::Listen(_) => {
                true
            }
            // Whoever takes the terminal sets it up before a program writes to it.
            Act::Console => true,
            Act::Mount(mount) => mount.idmap.is_some(),
            _ => false,
        };
        let hooks = &self.hooks;
        hooks.create_runtime.is_empty()
            && hooks.create_container.is_empty()
            && self.imposed.is_empty()
            && !self.setup.iter().any(asks)
    }

    /// The network devices that move into the container.
    pub fn net_devices(&self) -> &[NetDevice] {
        let found =
            self.setup.iter().find_map(|s| if let Act::NetDevices(d) = &s.act { Some(d) } else { None });
        found.map_or(&[], Vec::as_slice)
    }

    /// The seccomp filter, when there is one.
    pub fn filter(&self) -> Option<&Filter> {
        self.launch.iter().find_map(|s| if let Act::Seccomp(filter) = &s.act { Some(filter) } else { None })
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
    /// Set the clocks of the time namespace that was just made: text of timens_offsets.
    ClockOffsets(Vec<u8>),
    /// Go on in a sibling, cloned with these flags; this process ends.
    CloneAgain(u64),
    /// A session of its own.
    NewSession,
    /// Write a file below /proc of the host, before the container's file system can interfere: path below /proc, value.
    WriteProc(CString, Vec<u8>),
    /// Standard streams that are the host's /dev/null become the container's.
    NullStreams,
    /// The process's oom_score_adj.
    OomScore(i32),
    /// Keep the host's /proc at hand for [`Act::OpenLabel`]: the container's may be anything.
    KeepProc,
    /// Enter the network namespace that the parent makes meanwhile ([`Namespaces::network`]): it is the first that the parent
    /// sends. Where the parent could not leave and return, this process was born in it, and sets its loopback interface up.
    EnterNetwork,
    /// Set the loopback interface up.
    LoopbackUp,
    /// Show the parent this network namespace, and wait until it has moved the devices into it.
    NetDevices(Vec<NetDevice>),
    /// The CPUs to run on, a bit each; those of the control group's cpuset at most.
    Cpus(Vec<u64>),
    /// A session keyring of this name.
    Keyring(CString),
    /// Open the LSM attribute file (below /proc/self/attr) that [`Act::Confine`] writes later, one after the other; this value
    /// must be one that it takes.
    OpenLabel(CString, Option<CString>),
    /// Make every mount of the copied mount namespace a slave or private (MS_* flags), so that nothing propagates out.
    Sever(u64),
    /// Make the root of the container's init the root (exec): it may lie below that of its mount namespace.
    InitsRoot,
    /// Mount an overlay, seen by this mount namespace alone: the directory that its relative names begin at, its options,
    /// where.
    Overlay(CString, CString, CString),
    /// Attach a copy of the root file system onto itself.
    OpenRoot(CString),
    /// The same in a mount namespace that others see: the copy is private, and all that is mounted goes with it.
    BindRoot(CString),
    /// Open the root file system as it is, where nothing is mounted.
    PlainRoot(CString),
    /// A mount below the root.
    Mount(Box<Mount>),
    /// From here on the mounts that asked for it are read-only: all that belongs into them stands.
    SealMounts,
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
    /// Hide: a file behind /dev/null, a directory behind an empty read-only tmpfs with this SELinux label. A path that does not
    /// exist is passed over.
    Mask(CString, Option<CString>),
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
    /// The working directory, still with the rights of the runtime; what they do not reach is left to [`Act::Chdir`].
    ChdirEarly(CString),
    /// The working directory, unless it was entered already; verified to lie inside the root.
    Chdir(CString),
    /// Make sure that the program exists and may be run.
    FindProgram,
    /// Run the startContainer hooks here.
    StartContainerHooks,
    /// Descriptors from this number on close at the exec, those from 3 up to it stay; signals have their default actions.
    Settle(u32),
    /// Write the LSM label for the next execve.
    Confine(Vec<u8>),
    /// Load the filter that asks an agent, and have the agent told.
    Listen(Listener),
    /// Load the filter.
    Seccomp(Filter),
    /// Become the workload.
    Exec(Program),
}

/// A seccomp filter.
#[derive(Debug, Clone)]
pub struct Filter {
    /// BPF: 8-byte sock_filter records.
    pub program: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
}

/// The agent that decides on notified syscalls: config-linux.md, Seccomp, `listenerPath`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Notifies what it decides on, and lets all else pass. Its load returns the descriptor that the agent gets.
    pub filter: Filter,
    /// Its Unix socket.
    pub path: CString,
    /// What it is told beside.
    pub metadata: String,
    /// sendmsg(2) is among the notified calls: the descriptor is told by its number, for the runtime to fetch.
    pub by_number: bool,
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
#[derive(Debug, Clone, Default)]
pub struct Mount {
    /// Below the root, without a leading slash.
    pub target: CString,
    /// A target that is a link is mounted on, not followed.
    pub nofollow: bool,
    /// What is mounted there.
    pub what: MountKind,
    /// What to try when the kernel refuses the first with EPERM or EBUSY (a user namespace), or there is none (ENOENT: a group
    /// that could not be made): never more than was asked.
    pub fallback: Option<MountKind>,
    /// Whose map the mount's ids pass through.
    pub idmap: Option<IdMapped>,
    /// Attributes of the mount ([`coracle_sys::mount::attr`]): to set, to clear.
    pub attributes: (u64, u64),
    /// The same for everything below it too (`rro` and its kin).
    pub recursive_attributes: (u64, u64),
    /// Propagation types (MS_*), each with whether it reaches everything below.
    pub propagation: Vec<(u64, bool)>,
    /// Copy what the target holds into the fresh tmpfs.
    pub copy_up: bool,
    /// Read-only from [`Act::SealMounts`] on.
    pub seal: bool,
    /// The SELinux label of its root directory, where the file system takes none as a parameter.
    pub label: Option<CString>,
}

/// Kinds of mounts.
#[derive(Debug, Clone)]
pub enum MountKind {
    /// A part of a tree that exists.
    Bind(Bind),
    /// A file system of its own: type, source, parameters.
    Filesystem(CString, CString, Vec<Parameter>),
    /// The container's part (this path) of every v1 hierarchy, each bound into a tmpfs with these parameters.
    LegacyCgroups(String, Vec<Parameter>),
    /// No new mount: attributes of the one that stands there change, and (unless it is a bind) these of its file system.
    Remount(Option<Vec<Parameter>>),
    /// No new mount: the one of an earlier step has its propagation set again. With true, that step may have made a link
    /// instead ([`Bind::copy_link`]), and then there is nothing to set.
    Again(bool),
}

impl Default for MountKind {
    fn default() -> Self {
        MountKind::Bind(Bind::default())
    }
}

/// A parameter of a file system: its name, and its value if it is not just a flag.
pub type Parameter = (CString, Option<CString>);

/// A part of a tree, to be shown elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Bind {
    /// A path of the host; with `inside`, a path below the root, without a leading slash.
    pub source: CString,
    /// With everything mounted below it.
    pub recursive: bool,
    /// Taken from the container's tree as it stands by then.
    pub inside: bool,
    /// A link is taken as what it is.
    pub nofollow: bool,
    /// Where the source is a link, the same link is made instead.
    pub copy_link: bool,
    /// The container has a user namespace: what the host's mount forbids stays forbidden.
    pub held: bool,
    /// Stays a peer of the source, if that is shared: what is mounted below shows on both sides. mount_namespaces(7).
    pub peer: bool,
}

/// Ids of a mount that are shown as others: mount_setattr(2), MOUNT_ATTR_IDMAP.
#[derive(Debug, Clone)]
pub struct IdMapped {
    /// The map.
    pub by: IdSource,
    /// Also for everything mounted below.
    pub recursive: bool,
}

/// Where the map of an id-mapped mount comes from.
#[derive(Debug, Clone)]
pub enum IdSource {
    /// Written out.
    Maps(IdMaps),
    /// The user namespace of this number in [`Namespaces::join`].
    Joined(usize),
}

/// The origin of the mount of the notification socket's directory: the variable of sd_notify(3).
pub const NOTIFY: &str = "NOTIFY_SOCKET";

/// The origin of the search for the program, and of the step that becomes it: the only one of them that follows the start.
pub const PROGRAM: &str = "process.args[0]";

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
    /// How it comes into the root file system.
    pub node: Node,
}

/// How a device node comes into a root file system. In a user namespace mknod(2) makes fifos only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// Made there, with the container's ids.
    Made,
    /// Made by the parent, with the host's ids, and bound there.
    Given,
    /// The host's node of that path, bound there.
    Bound,
}

/// A network device that moves into the container: config-linux.md, Network Devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's network namespace.
    pub name: CString,
    /// Its name in the container's; `%d` stands for the first number that makes it unique.
    pub new_name: CString,
    /// JSON path.
    pub origin: String,
}

/// Namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// CLONE_NEW* flags of the clone.
    pub new: u64,
    /// Whether the parent makes the network namespace, loopback up, while the child is at work: that takes the kernel about as
    /// long as all mounts together.
    pub network: bool,
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
    /// The JSON path of what will change it for all who are in it, which the host must not be.
    pub changed_by: Option<String>,
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

/// What is said where the kernel lets nobody set device rules: in a user namespace, where none can make device nodes either.
pub const NO_DEVICE_RULES: &str = "linux.resources.devices: in a user namespace device rules cannot be set; what the permissions of the device files allow is allowed";

/// The control group.
#[derive(Debug, Clone, Default)]
pub struct Cgroup {
    /// From the root of the mount, with a leading slash; `None`: stay in the caller's.
    pub path: Option<String>,
    /// v2 or v1.
    pub mode: crate::inputs::CgroupMode,
    /// Files to write: name, value, JSON path.
    pub writes: Vec<CgroupWrite>,
    /// Device filter of v2; empty or `None`: everything is allowed.
    pub devices: Option<Vec<coracle_sys::bpf::Insn>>,
    /// The same for v1: lines of devices.deny and devices.allow (allow, line).
    pub device_lines: Vec<(bool, String)>,
    /// Whether config.json has rules beyond those of a container without any.
    pub devices_asked: bool,
    /// No path was asked for: a caller without rights may go without the group, if no limit was asked for either.
    pub optional: bool,
    /// The caller has no rights over the machine.
    pub rootless: bool,
    /// Who owns the group, as the host counts; `None`: whoever makes it.
    pub owner: Option<u32>,
    /// The scope that systemd is to make around the container.
    pub unit: Option<Unit>,
    /// Below `path`: where the container's processes are, and a cgroup namespace of theirs has its root. Empty: in `path` itself.
    pub subgroup: String,
    /// Below `subgroup`: where the processes are moved to after that, the container's to manage. Empty: they stay.
    pub delegated: String,
}

/// A group of the resctrl file system: config-linux.md, IntelRdt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rdt {
    /// Below its mount; empty: its root, which is the default class.
    pub directory: String,
    /// Whose it is.
    pub class: Class,
    /// Lines of `schemata` that a class that is there already must have; a new one gets them.
    pub first: Vec<String>,
    /// Lines to write after them.
    pub schemata: Vec<String>,
    /// The name of a monitoring group of the container's own.
    pub monitor: Option<String>,
}

/// Whose a class of service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The container's: it is made, and removed with it.
    Own,
    /// Anybody's of that name: it is made where it is missing, and stays.
    Shared,
    /// Somebody else's: it must be there.
    Existing,
}

/// A transient unit of systemd.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Its name, such as `libpod-….scope`.
    pub name: String,
    /// Whether the user's systemd has it, not the machine's.
    pub user: bool,
    /// Its properties, without the process.
    pub properties: Vec<coracle_systemd::Property>,
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
    /// What to do where the kernel has no such file.
    pub absent: Absent,
}

/// What to do where the kernel has no such file: never less than was asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Absent {
    /// Fail.
    #[default]
    Refuse,
    /// Go on: the kernel does as asked anyway, or another file has it.
    PassOver,
    /// Write this instead.
    Instead(Box<CgroupWrite>),
}

/// What `update` changes.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Files to write.
    pub writes: Vec<CgroupWrite>,
    /// The same for systemd, where it has the unit.
    pub properties: Vec<coracle_systemd::Property>,
    /// A new device filter for v2; empty: everything is allowed.
    pub devices: Option<Vec<coracle_sys::bpf::Insn>>,
    /// New lines for v1.
    pub device_lines: Vec<(bool, String)>,
    /// checkBeforeUpdate: memory, and memory with swap, that must not be in use already.
    pub unused: Option<(i64, i64)>,
    /// What must be said.
    pub warnings: Vec<String>,
    /// The limits from now on, as JSON: what the next update starts from.
    pub limits: serde_json::Value,
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
    /// Environment, exactly; `None`: that of the process that runs it.
    pub env: Option<Vec<CString>>,
    /// Seconds.
    pub timeout: Option<u32>,
    /// Files of the host that its standard output and standard error are appended to; where there is none, a failure's
    /// message quotes what it printed.
    pub output: [Option<CString>; 2],
    /// JSON path.
    pub origin: String,
}
