//! Random configurations: mostly ones that can be had, for a refusal shows little. Everything comes from the seed.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Bundle, Ctx, Result, context::path, look};

/// A configuration, and what stands on the command line beside it.
pub(super) struct Made {
    pub(super) bundle: Bundle,
    pub(super) preserved: u64,
    /// The first id of the user namespace, as the host counts.
    pub(super) ids: u32,
    /// Another process for the container, whether it comes before the start, and how many descriptors it is given.
    pub(super) other: Value,
    pub(super) other_is_early: bool,
    pub(super) other_preserved: u64,
}

/// splitmix64, by Sebastiano Vigna: small, and every seed is as good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below this.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Once in so many.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// Each with this chance, in their order.
    fn some<T: Clone>(&mut self, list: &[T], once_in: u64) -> Vec<T> {
        list.iter().filter(|_| self.once_in(once_in)).cloned().collect()
    }
}

const CAPABILITIES: [&str; 40] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

pub(super) fn bundle(ctx: &Ctx, seed: u64) -> Result<Made> {
    let mut r = Random(seed);
    let mut bundle = ctx.bundle()?;
    let ids = namespaces(&mut r, &mut bundle)?;
    identity(&mut r, &mut bundle, ids != 0);
    limits(&mut r, &mut bundle);
    mounts(&mut r, ctx, &mut bundle)?;
    hidden(&mut r, &mut bundle)?;
    profile(&mut r, &mut bundle);
    scheduling(&mut r, ctx, &mut bundle);
    resources(&mut r, ctx, &mut bundle);
    let preserved = r.below(4);
    let (other, other_is_early, other_preserved) = (process(&mut r, ctx, ids != 0), r.once_in(2), r.below(4));
    Ok(Made { bundle, preserved, ids, other, other_is_early, other_preserved })
}

/// A process.json, made as the container's own process is.
fn process(r: &mut Random, ctx: &Ctx, user_namespace: bool) -> Value {
    let mut bundle = Bundle { dir: ctx.dir.clone(), spec: json!({}) };
    bundle.args(&["/probe", "try-and-wait", "/tmp"]);
    identity(r, &mut bundle, user_namespace);
    limits(r, &mut bundle);
    own_scheduling(r, ctx, &mut bundle);
    // What is not there is made for the container's own process only.
    bundle.set("/process/cwd", json!(r.one(&["/", "/etc", "/proc", "/dev/shm"])));
    bundle.set("/process/terminal", json!(r.once_in(3)));
    for (field, once_in) in [("noNewPrivileges", 4), ("oomScoreAdj", 3), ("rlimits", 4)] {
        if r.once_in(once_in) {
            bundle.remove(&format!("/process/{field}"));
        }
    }
    bundle.spec["process"].take()
}

fn namespaces(r: &mut Random, bundle: &mut Bundle) -> Result<u32> {
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        if r.once_in(8) {
            bundle.without_namespace(kind);
        }
    }
    let has = |bundle: &Bundle, kind: &str| {
        bundle.spec["linux"]["namespaces"].to_string().contains(&format!("\"{kind}\""))
    };
    if has(bundle, "uts") {
        bundle.set("/hostname", json!(format!("host{}", r.below(1000))));
        if r.once_in(3) {
            bundle.set("/domainname", json!(format!("domain{}", r.below(1000))));
        }
    } else if !r.once_in(4) {
        bundle.remove("/hostname");
    }
    let mut ids = 0;
    if r.once_in(4) {
        ids = 100_000 + r.below(1000) as u32 * 1000;
        bundle.user_namespace(ids, 65536)?;
    }
    if r.once_in(6) {
        bundle.namespace("time", None);
        bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": r.below(100_000)}, "boottime": {"secs": r.below(100_000), "nanosecs": 7}}));
    }
    let mut sysctl = json!({});
    let settings: [(&str, &str, u64); 6] = [
        ("network", "net.ipv4.ip_forward", 2),
        ("network", "net.core.somaxconn", 5000),
        ("network", "net/ipv4/conf/lo/rp_filter", 2),
        ("ipc", "kernel.shmmni", 4096),
        ("ipc", "kernel.msgmax", 8192),
        ("ipc", "fs.mqueue.msg_max", 10),
    ];
    for (kind, key, end) in settings {
        if r.once_in(5) && (has(bundle, kind) || r.once_in(6)) {
            sysctl[key] = json!((1 + r.below(end)).to_string());
        }
    }
    bundle.set("/linux/sysctl", sysctl);
    Ok(ids)
}

fn identity(r: &mut Random, bundle: &mut Bundle, user_namespace: bool) {
    let id = |r: &mut Random| *r.one(&[0, 0, 1, 1000, 65534, 1 + r.0 as u32 % 60000]);
    let mut groups: Vec<u32> = (0..r.below(4)).map(|_| id(r)).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut user = json!({"uid": id(r), "gid": id(r), "additionalGids": groups});
    if r.once_in(2) {
        user["umask"] = json!(r.below(0o1000));
    }
    bundle.set("/process/user", user);
    bundle.set("/process/noNewPrivileges", json!(r.once_in(2)));
    let bounding = r.some(&CAPABILITIES, 2);
    let permitted = r.some(&bounding, 2);
    let mut sets = json!({
        "bounding": bounding, "permitted": permitted, "effective": r.some(&permitted, 2),
        "inheritable": r.some(&bounding, 3), "ambient": r.some(&permitted, 3),
    });
    for set in ["bounding", "ambient", "inheritable"] {
        if let (true, Some(sets)) = (r.once_in(8), sets.as_object_mut()) {
            sets.remove(set);
        }
    }
    if let (true, Some(sets)) = (sets.get("bounding").is_none(), sets.as_object_mut()) {
        sets.remove("inheritable"); // what is inheritable must be bounded, or is refused
    }
    bundle.set("/process/capabilities", sets);
    if r.once_in(10) {
        bundle.remove("/process/capabilities");
    }
    bundle.set("/process/cwd", json!(r.one(&["/", "/etc", "/proc", "/dev/shm", "/made/by/the/runtime"])));
    bundle.set("/process/env", json!(["PATH=/bin", format!("A={}", r.below(100)), "HOME=/x"]));
    bundle.set("/root/readonly", json!(r.once_in(2)));
    if !user_namespace || r.once_in(2) {
        bundle.set("/process/oomScoreAdj", json!(500 + r.below(501)));
    }
}

fn limits(r: &mut Random, bundle: &mut Bundle) {
    // Lower than any machine has them: to raise one needs a capability that not every runner has.
    let all: [(&str, u64, u64); 14] = [
        ("RLIMIT_CPU", 1000, 100_000),
        ("RLIMIT_FSIZE", 1 << 24, 1 << 30),
        ("RLIMIT_DATA", 1 << 28, 1 << 32),
        ("RLIMIT_STACK", 1 << 20, 1 << 23),
        ("RLIMIT_CORE", 0, 1 << 20),
        ("RLIMIT_RSS", 1 << 28, 1 << 32),
        ("RLIMIT_NOFILE", 64, 1024),
        ("RLIMIT_MEMLOCK", 0, 1 << 15),
        ("RLIMIT_AS", 1 << 32, 1 << 40),
        ("RLIMIT_LOCKS", 10, 1000),
        ("RLIMIT_SIGPENDING", 10, 1000),
        ("RLIMIT_MSGQUEUE", 1000, 100_000),
        ("RLIMIT_NICE", 0, 1),
        // The kernel adds a second to a soft limit that a real-time process has used up: too long for one to.
        ("RLIMIT_RTTIME", 10_000_000, 1_000_000_000),
    ];
    let mut list = Vec::new();
    for (name, least, end) in all {
        if r.once_in(4) {
            let hard = least + r.below(end - least);
            list.push(json!({"type": name, "hard": hard, "soft": least + r.below(hard - least + 1)}));
        }
    }
    bundle.set("/process/rlimits", json!(list));
}

const FLAGS: [&str; 18] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
    "symfollow",
    "rro",
    "rnosuid",
    "rnodev",
];

fn mounts(r: &mut Random, ctx: &Ctx, bundle: &mut Bundle) -> Result {
    let volume = ctx.dir.join(format!("volume{}", ctx.id()));
    fs::create_dir_all(volume.join("below"))?;
    fs::write(volume.join("file"), "")?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["mode=1777"]);
    for n in 0..r.below(5) {
        let mut options: Vec<String> = r.some(&FLAGS, 5).into_iter().map(str::to_owned).collect();
        if r.once_in(3) {
            options
                .push((*r.one(&["private", "rprivate", "slave", "shared", "rshared", "unbindable"])).into());
        }
        let at = match r.below(8) {
            0 => format!("/made{n}/a/b"),
            1 => format!("relative{n}"),
            2 => format!("/none{n}/../dots{n}"),
            3 if r.once_in(6) => "/".into(),
            _ => format!("/mnt{n}"),
        };
        let (kind, source) = match r.below(4) {
            0 => {
                options.extend([
                    format!("size={}k", 4 * (1 + r.below(100))),
                    format!("mode={:o}", r.below(0o1000)),
                ]);
                ("tmpfs", "tmpfs".to_owned())
            }
            1 => ("bind", volume.join("file").display().to_string()),
            _ => ("bind", path(&volume).to_owned()),
        };
        if kind == "bind" {
            options.push((*r.one(&["bind", "rbind"])).into());
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        bundle.mount(kind, &source, &at, &options);
    }
    if r.once_in(3) {
        let word = *r.one(&["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"]);
        bundle.set("/linux/rootfsPropagation", json!(word));
    }
    Ok(())
}

fn hidden(r: &mut Random, bundle: &mut Bundle) -> Result {
    fs::write(bundle.rootfs().join("etc/secret"), "secret")?;
    fs::create_dir_all(bundle.rootfs().join("home/secrets/deep"))?;
    let candidates = [
        "/etc/secret",
        "/etc/passwd",
        "/home/secrets",
        "/home",
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/acpi",
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/sys/firmware",
        "/sys/devices",
        "/none",
        "/usr",
        "/var",
        "/etc/../etc/group",
    ];
    bundle.set("/linux/maskedPaths", json!(r.some(&candidates, 4)));
    bundle.set("/linux/readonlyPaths", json!(r.some(&candidates, 4)));
    Ok(())
}

/// What `attempts` of the probe tries.
pub(super) const CALLS: [(&str, &[&str]); 7] = [
    ("mkdir", &["mkdir", "mkdirat"]),
    ("symlink", &["symlink", "symlinkat"]),
    ("link", &["link", "linkat"]),
    ("chmod", &["chmod", "fchmodat", "fchmodat2"]),
    ("rename", &["rename", "renameat", "renameat2"]),
    ("unlink", &["unlink", "unlinkat"]),
    ("rmdir", &["rmdir", "unlinkat"]),
];

fn profile(r: &mut Random, bundle: &mut Bundle) {
    bundle.args(&["/probe", "try-and-wait", "/tmp"]);
    if r.once_in(2) {
        return;
    }
    let rule = |r: &mut Random, names: &[&str]| -> Value {
        let mut rule = json!({"names": names, "action": "SCMP_ACT_ERRNO"});
        if r.once_in(2) {
            rule["errnoRet"] = json!(60 + r.below(40));
        }
        rule
    };
    // unlinkat stands in two of them: only one of these may be there.
    let calls: Vec<_> = r.some(&CALLS, 3);
    let both = calls.iter().filter(|(_, names)| names.contains(&"unlinkat")).count() > 1;
    let rules: Vec<Value> =
        calls.iter().filter(|(name, _)| !both || *name != "rmdir").map(|(_, names)| rule(r, names)).collect();
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    if r.once_in(2) {
        profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    }
    if r.once_in(3) {
        profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    }
    bundle.set("/linux/seccomp", profile);
}

/// What of it is the process's alone.
fn own_scheduling(r: &mut Random, ctx: &Ctx, bundle: &mut Bundle) {
    if r.once_in(3) {
        let policies = ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE", "SCHED_FIFO", "SCHED_RR"];
        // A group of v1 has no share of real time, and refuses the last two.
        let often = if ctx.host.cgroup2 || r.once_in(4) { &policies[..] } else { &policies[..3] };
        let policy = *r.one(often);
        let mut scheduler = json!({"policy": policy});
        if ["SCHED_FIFO", "SCHED_RR"].contains(&policy) {
            scheduler["priority"] = json!(1 + r.below(90));
        } else {
            scheduler["nice"] = json!(r.below(20));
        }
        if r.once_in(3) {
            scheduler["flags"] = json!(["SCHED_FLAG_RESET_ON_FORK"]);
        }
        bundle.set("/process/scheduler", scheduler);
    }
    if r.once_in(3) {
        let class = *r.one(&["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]);
        bundle.set("/process/ioPriority", json!({"class": class, "priority": r.below(8)}));
    }
}

fn scheduling(r: &mut Random, ctx: &Ctx, bundle: &mut Bundle) {
    own_scheduling(r, ctx, bundle);
    if r.once_in(4) {
        bundle.set("/linux/personality", json!({"domain": r.one(&["LINUX", "LINUX32"])}));
    }
    if r.once_in(5) && look::proc(std::process::id(), "numa_maps").is_ok() {
        bundle.set(
            "/linux/memoryPolicy",
            json!({"mode": r.one(&["MPOL_BIND", "MPOL_PREFERRED", "MPOL_INTERLEAVE"]), "nodes": "0"}),
        );
    }
}

/// Limits that the machine's controllers know, by the specification's names.
fn resources(r: &mut Random, ctx: &Ctx, bundle: &mut Bundle) {
    let has = |name: &str| ctx.host.controller(name);
    if has("pids") && r.once_in(2) {
        bundle.set("/linux/resources/pids", json!({"limit": 10 + r.below(1000)}));
    }
    if has("memory") && r.once_in(2) {
        let limit = (64 + r.below(64)) << 20;
        bundle.set("/linux/resources/memory", json!({"limit": limit, "reservation": limit / 2}));
    }
    if has("cpu") && r.once_in(2) {
        bundle.set(
            "/linux/resources/cpu",
            json!({"shares": 100 + r.below(1000), "quota": 10_000 + r.below(90_000), "period": 100_000}),
        );
    }
    if has("cpuset") && r.once_in(3) {
        bundle.set("/linux/resources/cpu/cpus", json!("0"));
    }
    if has("hugetlb") && r.once_in(2) {
        bundle.set(
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": r.below(100) << 21}]),
        );
    }
}
