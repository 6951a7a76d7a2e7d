//! spec: a config.json to begin with.

use crate::cli::{Global, Outcome};
use clap::Args;
use coracle_apply::probe;
use coracle_plan::inputs::CgroupMode;
use coracle_sys::creds;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Write a config.json to begin with
#[derive(Args)]
pub(crate) struct SpecArgs {
    /// Bundle directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a user without privileges
    #[arg(long)]
    rootless: bool,
}

/// `coracle spec`: a config.json that is there stays.
pub(crate) fn spec(_: &Global, SpecArgs { bundle, rootless }: &SpecArgs) -> Outcome {
    let file = bundle.join("config.json");
    if file.symlink_metadata().is_ok() {
        return Err(format!("{file:?} exists; remove it first"));
    }
    let text = serde_json::to_string_pretty(&default(*rootless)).map_err(|e| e.to_string())?;
    std::fs::write(&file, format!("{text}\n")).map_err(|e| {
        // Half of it would stand in the way of the next attempt.
        let _ = std::fs::remove_file(&file);
        format!("writing {file:?}: {}", crate::log::reason(&e))
    })?;
    Ok(0)
}

fn default(rootless: bool) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "coracle",
        "mounts": mounts(rootless),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if probe::host().cgroup != CgroupMode::Unified {
        // As runc: tools that were written for cgroup v1 look for their groups by the host's paths.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("an array above");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    }
    if rootless {
        let linux = spec["linux"].as_object_mut().expect("an object above");
        linux.remove("resources");
        let namespaces = linux["namespaces"].as_array_mut().expect("an array above");
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
        linux
            .insert("uidMappings".into(), json!([{"containerID": 0, "hostID": creds::geteuid(), "size": 1}]));
        linux
            .insert("gidMappings".into(), json!([{"containerID": 0, "hostID": creds::getegid(), "size": 1}]));
    }
    spec
}

fn mounts(rootless: bool) -> Value {
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    // Without a second id there is no group 5 to give terminals to.
    let pts = if rootless { &pts[..5] } else { &pts[..] };
    let sys = match rootless {
        true => {
            json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        }
        false => {
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
        }
    };
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ])
}
