//! What plan() is given beside config.json: what was asked on the command line, and what kind of host this is.

use std::path::PathBuf;

/// The command line of create, run or exec, after reading.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The container's name.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// Descriptors passed on beyond 0, 1, 2: they stand from 3 on.
    pub preserve_fds: u32,
    /// A Unix socket that takes the terminal's master side.
    pub console_socket: Option<PathBuf>,
    /// Move the root over `/` and chroot, where pivot_root is impossible (initramfs).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Whether create and start are one command, with this terminal.
    pub foreground: bool,
    /// Whether init reports and waits for a start from another process.
    pub detached: bool,
    /// The compiled program of this very seccomp profile, when it was kept from an earlier time.
    pub compiled: Option<Vec<u8>>,
    /// What to mount on the root file system's directory first, in the container's own mount namespace.
    pub overlay: Option<Overlay>,
    /// Whether init has a time namespace besides those of config.json (exec).
    pub own_clocks: bool,
    /// Whether the caller has no rights over the machine's control groups (`--rootless`, or by its user id).
    pub rootless: bool,
    /// Whether the caller wants none (`--cgroup-manager disabled`).
    pub no_cgroups: bool,
    /// What the caller's surroundings add to the workload's environment: NAME=VALUE.
    pub environment: Vec<String>,
    /// A directory to show at /run/notify, which will be there when mounts are made.
    pub notify: Option<PathBuf>,
    /// Exec: the process cannot be born in the container's control group, and is moved there.
    pub moved_into_cgroup: bool,
}

/// A union of an image's layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The directory that relative names in the options begin at, absolute.
    pub directory: PathBuf,
    /// Options of overlayfs.
    pub options: String,
}

/// How control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupMode {
    /// Only cgroup v2.
    Unified,
    /// v1 hierarchies, perhaps with v2 beside them without the usual controllers.
    Legacy,
    /// None mounted at /sys/fs/cgroup.
    #[default]
    None,
}

/// Host facts, probed once.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// How control groups are mounted.
    pub cgroup: CgroupMode,
    /// The cgroup that the runtime itself is in (v2, or v1's pids/devices hierarchy), from the mount's root. Empty: not known.
    pub own_cgroup: String,
    /// Whether SELinux is in force: a policy is loaded.
    pub selinux: bool,
    /// systemd, when it is to make the control group (`--systemd-cgroup`).
    pub systemd: Option<Systemd>,
}

/// What is known of the systemd that is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemd {
    /// Its version, such as 257.
    pub version: u32,
    /// Its own control group; empty for the machine's.
    pub control_group: String,
    /// Whether it is a user's.
    pub user: bool,
    /// Whether this kernel has the I/O scheduler BFQ, whose weights systemd converts from its own.
    pub bfq: bool,
}

impl Host {
    /// Whether the caller may do what only CAP_SYS_ADMIN may.
    pub fn admin(&self) -> bool {
        self.capabilities & 1 << 21 != 0
    }
}
