//! The facts about the machine that decide which tests can run on it. Read once, changed never.

use std::{fs, path::Path};

/// What this machine is.
pub(crate) struct Host {
    pub(crate) root: bool,
    pub(crate) subordinate_ids: bool,
    pub(crate) cgroup2: bool,
    pub(crate) systemd: bool,
    pub(crate) kernel: (u32, u32),
    /// The effective ones, a bit each.
    pub(crate) capabilities: u64,
    controllers: Vec<String>,
}

impl Host {
    /// Looks at the machine as it is now, in the mount namespace that the tests run in.
    pub(crate) fn look() -> Host {
        let root = nix::unistd::geteuid().is_root() && !in_user_namespace();
        let cgroup2 = Self::has("/sys/fs/cgroup/cgroup.controllers");
        Host {
            root,
            subordinate_ids: !root && first_subordinate_id().is_some(),
            cgroup2,
            systemd: Self::has("/run/systemd/system"),
            kernel: kernel(),
            capabilities: capabilities(),
            controllers: if cgroup2 { v2_controllers() } else { v1_controllers() },
        }
    }

    /// Whether the controller can be used for a container.
    pub(crate) fn controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|c| c == name)
    }

    /// Whether the path exists.
    pub(crate) fn has(path: &str) -> bool {
        Path::new(path).exists()
    }

    /// One line per fact, for `--needs` and for the head of a log.
    pub(crate) fn describe(&self) -> String {
        format!(
            "root {}, subordinate ids {}, cgroup {}, controllers [{}], systemd {}, Linux {}.{}",
            self.root,
            self.subordinate_ids,
            if self.cgroup2 { "v2" } else { "v1 or hybrid" },
            self.controllers.join(" "),
            self.systemd,
            self.kernel.0,
            self.kernel.1,
        )
    }
}

fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// The first of the ids that /etc/subuid gives to this user.
pub(crate) fn first_subordinate_id() -> Option<u32> {
    // By the file: a static binary cannot ask the name service.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = nix::unistd::geteuid().to_string();
    let name = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid))
        .and_then(|line| line.split(':').next());
    let table = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let own = table.lines().find(|line| line.split(':').next() == name)?;
    own.split(':').nth(1)?.parse().ok()
}

/// The controllers that a container's cgroup can be given: as root those of the root cgroup, else those delegated
/// to the user's session.
fn v2_controllers() -> Vec<String> {
    let mut file = "/sys/fs/cgroup/cgroup.controllers".to_owned();
    let uid = nix::unistd::geteuid();
    if !uid.is_root() {
        file = format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
    }
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Version 1 controllers count when a hierarchy of theirs is mounted where runtimes look for it.
fn v1_controllers() -> Vec<String> {
    let mounts = super::look::mounts(std::process::id()).unwrap_or_default();
    let options =
        mounts.into_iter().filter(|mount| mount.kind == "cgroup").flat_map(|mount| mount.super_options);
    options.filter(|option| option != "rw" && !option.contains('=')).collect()
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
