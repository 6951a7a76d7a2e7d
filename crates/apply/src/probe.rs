//! Host facts, read once: as few syscalls as the plan needs.

use crate::failure::{Doing, Result};
use coracle_plan::inputs::{CgroupMode, Host};
use coracle_sys::{creds, fs, libc};
use std::ffi::CStr;
use std::os::fd::AsFd;

const CGROUP2: i64 = 0x6367_7270;
const TMPFS: i64 = 0x0102_1994;

/// Probes the host.
pub fn host() -> Host {
    let cgroup = match fs::open(c"/sys/fs/cgroup", libc::O_PATH, 0).and_then(|d| fs::file_system(d.as_fd())) {
        Ok(CGROUP2) => CgroupMode::Unified,
        Ok(TMPFS) => CgroupMode::Legacy,
        _ => CgroupMode::None,
    };
    Host { own_cgroup: own_cgroup(cgroup), ..host_with(cgroup) }
}

/// The same where it is known how control groups are mounted, and none is made below the caller's own.
pub fn host_with(cgroup: CgroupMode) -> Host {
    let capabilities = creds::capget().map_or(0, |s| s.effective);
    Host {
        euid: creds::geteuid(),
        egid: creds::getegid(),
        capabilities,
        last_capability: last_capability(capabilities),
        cgroup,
        own_cgroup: String::new(),
        selinux: selinux(),
        systemd: None,
    }
}

/// As libselinux tells: its file system stands there, and this process has a label. Before a policy is loaded every process is
/// `kernel`, and the kernel takes any label for that.
fn selinux() -> bool {
    let there = fs::open(c"/sys/fs/selinux", libc::O_PATH, 0).and_then(|d| fs::file_system(d.as_fd()));
    there == Ok(libc::SELINUX_MAGIC)
        && !matches!(text(c"/proc/self/attr/current").trim_matches('\0'), "" | "kernel")
}

/// The kernel's highest capability: root's own set shows it, else the bounding set is asked.
fn last_capability(effective: u64) -> u32 {
    let guess = 63 - effective.max(1).leading_zeros();
    (guess.max(38)..63).take_while(|n| creds::capbset_read(*n).is_ok()).last().unwrap_or(40)
}

/// A small file of the host, as text; empty when it cannot be read.
pub(crate) fn text(path: &CStr) -> String {
    read(path).unwrap_or_default()
}

/// The same where it matters that it cannot be read.
pub(crate) fn read(path: &CStr) -> coracle_sys::Result<String> {
    let file = fs::open(path, libc::O_RDONLY, 0)?;
    fs::read_to_end(file.as_fd(), 8 << 20).map(|b| String::from_utf8_lossy(&b).into_owned())
}

/// The mounts of this process, a line each: proc_pid_mountinfo(5). Errors: /proc cannot be read.
pub(crate) fn mountinfo() -> Result<String> {
    read(c"/proc/self/mountinfo").doing(|| "reading /proc/self/mountinfo".into())
}

/// cgroups(7), /proc/pid/cgroup: `0::/path` of v2, `n:controllers:/path` of v1. Empty where it cannot be read.
fn own_cgroup(mode: CgroupMode) -> String {
    let Ok(file) = read(c"/proc/self/cgroup") else { return String::new() };
    let wanted = |line: &&str| match mode {
        CgroupMode::Legacy => {
            line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "memory" || c == "pids"))
        }
        _ => line.starts_with("0::"),
    };
    file.lines().find(wanted).and_then(|l| l.splitn(3, ':').nth(2)).unwrap_or("/").to_owned()
}

/// Whether this process is in a user namespace other than the first: there the first does not map all ids onto themselves.
pub fn in_user_namespace() -> bool {
    let map = text(c"/proc/self/uid_map");
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// This process's user as the namespace around its own counts, which in a user namespace is the one whose session it is.
pub fn outer_uid() -> u32 {
    let (map, euid) = (text(c"/proc/self/uid_map"), creds::geteuid());
    let outside = map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [inside, outside, length] = numbers[..] else { return None };
        let offset = euid.checked_sub(inside).filter(|o| *o < length)?;
        outside.checked_add(offset)
    });
    outside.unwrap_or(euid)
}
