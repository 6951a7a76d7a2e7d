//! A bundle: a root file system and a config.json that starts from what `runc spec` prints and is modified by pointer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{Result, rootfs};

/// A bundle directory and the config.json that will be written into it.
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) spec: Value,
}

impl Bundle {
    /// A fresh bundle in `dir`, whose process is `args`.
    pub(crate) fn new(dir: PathBuf, store: &Path, spec: Value) -> Result<Bundle> {
        fs::create_dir_all(&dir)?;
        rootfs::make(store, &dir.join("rootfs"))?;
        Ok(Bundle { dir, spec })
    }

    /// The root file system as the host sees it.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Sets the value at a JSON pointer, making objects on the way.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        *place(&mut self.spec, pointer) = value;
        self
    }

    /// Appends to the array at a JSON pointer.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        let array = place(&mut self.spec, pointer);
        if !array.is_array() {
            *array = json!([]);
        }
        if let Some(items) = array.as_array_mut() {
            items.push(value);
        }
        self
    }

    /// Takes the member away that the JSON pointer names.
    pub(crate) fn remove(&mut self, pointer: &str) -> &mut Bundle {
        let (parent, member) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(object) = self.spec.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(member);
        }
        self
    }

    /// The command that the container runs.
    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Bundle {
        self.set("/process/args", json!(args))
    }

    /// A busybox shell command as the container's program.
    pub(crate) fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(&["sh", "-c", script])
    }

    /// Adds a mount before nothing and after all the default ones.
    pub(crate) fn mount(&mut self, kind: &str, source: &str, to: &str, options: &[&str]) -> &mut Bundle {
        let mount = json!({"destination": to, "type": kind, "source": source, "options": options});
        self.push("/mounts", mount)
    }

    /// Replaces the namespace of this kind; `path` is one to join.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Bundle {
        self.without_namespace(kind);
        let mut namespace = json!({"type": kind});
        if let Some(path) = path {
            namespace["path"] = json!(path);
        }
        self.push("/linux/namespaces", namespace)
    }

    /// Leaves out the namespace of this kind: the container shares the runtime's.
    pub(crate) fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        if let Some(list) = self.spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Leaves out the mounts on this path and below it.
    pub(crate) fn without_mounts(&mut self, below: &str) -> &mut Bundle {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with(below)));
        }
        self
    }

    /// Gives all five capability sets the same list.
    pub(crate) fn capabilities(&mut self, names: &[&str]) -> &mut Bundle {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    /// A user namespace with this first host id and size for both kinds of ids, and a rootfs that belongs to it.
    pub(crate) fn user_namespace(&mut self, host: u32, size: u32) -> Result<&mut Bundle> {
        let map = json!([{"containerID": 0, "hostID": host, "size": size}]);
        self.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        chown_tree(&self.rootfs(), host)?;
        Ok(self)
    }

    /// Writes config.json.
    pub(crate) fn write(&self) -> Result {
        fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&self.spec)?)?;
        Ok(())
    }
}

/// Directories only: the linked files are shared between tests and readable by anybody.
fn chown_tree(path: &Path, id: u32) -> Result {
    std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    for entry in
        fs::read_dir(path)?.flatten().filter(|entry| entry.path().is_dir() && !entry.path().is_symlink())
    {
        chown_tree(&entry.path(), id)?;
    }
    Ok(())
}

fn place<'a>(root: &'a mut Value, pointer: &str) -> &'a mut Value {
    pointer.split('/').skip(1).fold(root, |at, word| {
        if let (true, Ok(index)) = (at.is_array(), word.parse::<usize>()) {
            return &mut at[index];
        }
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        &mut at[word]
    })
}

/// What `runc spec` prints, without a terminal; `cgroup` adds the namespace that it adds on cgroup v2.
pub(crate) fn default_spec(cgroup2: bool, cgroups_path: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces = json!([
        {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
    ]);
    if let (true, Some(list)) = (cgroup2, namespaces.as_array_mut()) {
        list.push(json!({"type": "cgroup"}));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "report"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "proving",
        "mounts": default_mounts(),
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn default_mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}
