//! What engines give a container unasked: capabilities, mounts, masked paths. Lists only.

use super::{IdRange, Network, Wishes, object};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The search path where an image sets none.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The fourteen that Docker gives: enough to install packages and serve port 80, not to touch the host.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Kernel interfaces under /proc and /sys that tell of, or act on, the whole machine.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/firmware",
];

/// Others that may be read.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Root has them all at once; another user may only come by them (through a set-id program). Never inheritable
/// (CVE-2022-29162).
pub(super) fn capabilities(root: bool, wished: Option<&[String]>) -> Value {
    let all = wished.map_or_else(|| json!(CAPABILITIES), |all| json!(all));
    let now = if root { all.clone() } else { json!([]) };
    json!({"bounding": all, "effective": now, "permitted": now})
}

pub(super) fn mounts(wishes: &Wishes, volumes: Vec<Value>) -> Value {
    let mount = |to: &str, kind: &str, from: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({"destination": to, "type": kind, "source": from, "options": options})
    };
    let shared_net = wishes.ids.is_some() && wishes.network == Network::Host;
    // Without a second group there is no group 5 to give terminals to.
    let has_tty_group = wishes
        .ids
        .as_ref()
        .is_none_or(|ids| ids.groups.iter().any(|r| r.inside <= 5 && 5 - r.inside < r.count));
    let pts = format!(
        "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{}",
        if has_tty_group { ",gid=5" } else { "" }
    );
    let shm = wishes.shm_bytes.unwrap_or(64 << 20);
    let mut all = vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &format!("nosuid,noexec,nodev,mode=1777,size={shm}")),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        // A new sysfs needs a network namespace of one's own user namespace.
        if shared_net {
            mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro")
        } else {
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro")
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ];
    if wishes.network == Network::Host {
        all.extend(
            ["/etc/resolv.conf", "/etc/hosts"].map(|f| mount(f, "bind", f, "rbind,nosuid,noexec,nodev,ro")),
        );
    }
    all.extend(volumes);
    all.extend(wishes.mounts.iter().cloned());
    json!(all)
}

pub(super) fn linux(wishes: &Wishes) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if wishes.network == Network::None {
        namespaces.push("network");
    }
    let hidden = |path: &&str| !wishes.unmask.iter().any(|p| p == "ALL" || p == *path);
    let masked: Vec<&str> =
        MASKED.into_iter().filter(hidden).chain(wishes.mask.iter().map(String::as_str)).collect();
    let readonly: Vec<&str> = READONLY.into_iter().filter(hidden).collect();
    let mut members = vec![("maskedPaths", json!(masked)), ("readonlyPaths", json!(readonly))];
    if !wishes.sysctl.is_empty() {
        members.push(("sysctl", json!(wishes.sysctl.iter().cloned().collect::<BTreeMap<_, _>>())));
    }
    let mut resources = wishes.resources.clone();
    match &wishes.ids {
        // Without privileges there is no device filter to load, and mostly no control group.
        Some(ids) => {
            namespaces.push("user");
            members.push(("uidMappings", mappings(&ids.users)));
            members.push(("gidMappings", mappings(&ids.groups)));
        }
        None => {
            let none = json!({"allow": false, "access": "rwm"});
            let rules: Vec<&Value> = [&none].into_iter().chain(&wishes.devices).collect();
            resources.push(("devices", json!(rules)));
        }
    }
    if !resources.is_empty() {
        members.push(("resources", object(resources)));
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    members.push(("namespaces", json!(namespaces)));
    object(members)
}

/// The same as `linux.uidMappings` or `linux.gidMappings` has it.
pub fn mappings(ranges: &[IdRange]) -> Value {
    let one = |r: &IdRange| json!({"containerID": r.inside, "hostID": r.outside, "size": r.count});
    json!(ranges.iter().map(one).collect::<Vec<_>>())
}
