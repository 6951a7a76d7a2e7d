//! What the kernel says of a running container, beside what its config.json asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::Command,
};

use serde_json::Value;

use super::generate::{CALLS, Made};
use crate::harness::{
    Container, Result, check, check_eq,
    look::{self, Mount},
};

/// The container's own process.
pub(super) fn init(container: &Container, made: &Made) -> Result {
    process(container.pid, &made.bundle.spec, made.ids, made.preserved, &container.report()?)
}

/// The other one: as if it were the container's own. What it does not say of capabilities and the score, the container's process says.
pub(super) fn other(pid: u32, made: &Made, report: &Value) -> Result {
    let mut spec = made.bundle.spec.clone();
    let own = std::mem::replace(&mut spec["process"], made.other.clone());
    for field in ["capabilities", "oomScoreAdj"] {
        if made.other.get(field).is_none() {
            spec["process"][field] = own[field].clone();
        }
    }
    process(pid, &spec, made.ids, made.other_preserved, report)
        .map_err(|error| format!("exec of {}: {error}", made.other).into())
}

fn process(pid: u32, spec: &Value, ids: u32, preserved: u64, report: &Value) -> Result {
    let mut wrong = Vec::new();
    let mut note = |result: Result| wrong.extend(result.err().map(|error| error.to_string()));
    note(namespaces(pid, spec, ids));
    note(names(pid, spec));
    note(identity(pid, spec, ids));
    note(capabilities(pid, spec, ids != 0));
    note(limits(pid, spec));
    note(scheduling(pid, spec));
    note(surroundings(pid, spec, preserved));
    note(mounts(pid, spec));
    note(hidden(pid, spec));
    note(profile(pid, spec, report));
    note(resources(pid, spec));
    check!(wrong.is_empty(), "{}", wrong.join("\n  "));
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> Vec<String> {
    list(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

fn namespaces(pid: u32, spec: &Value, ids: u32) -> Result {
    for (name, file) in KINDS {
        let asked = list(&spec["linux"]["namespaces"]).any(|n| n["type"] == name);
        let new = look::namespace(pid, file)? != look::own_namespace(file)?;
        check_eq!(new, asked, "a new {name} namespace");
    }
    if ids != 0 {
        for file in ["uid_map", "gid_map"] {
            let map = look::proc(pid, file)?;
            check_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &ids.to_string(), "65536"], "{file}");
        }
    }
    if let Some(offsets) = spec["linux"]["timeOffsets"].as_object() {
        let text = look::proc(pid, "timens_offsets")?;
        for (clock, offset) in offsets {
            let line = text.lines().find(|line| line.starts_with(clock.as_str())).unwrap_or_default();
            let got: Vec<&str> = line.split_whitespace().skip(1).collect();
            let want = [offset["secs"].to_string(), offset["nanosecs"].as_u64().unwrap_or(0).to_string()];
            check_eq!(got, want, "offset of the clock {clock}");
        }
    }
    Ok(())
}

/// A file of /proc/sys, read in the container's namespaces through the host's /proc.
fn sysctl(pid: u32, file: &str) -> Result<String> {
    let mut command = Command::new("/usr/bin/nsenter");
    command.args(["-t", &pid.to_string(), "--net", "--ipc", "--uts", "cat", &format!("/proc/sys/{file}")]);
    Ok(String::from_utf8_lossy(&command.output()?.stdout).trim().to_owned())
}

fn names(pid: u32, spec: &Value) -> Result {
    for field in ["hostname", "domainname"] {
        if let Some(name) = spec[field].as_str() {
            check_eq!(sysctl(pid, &format!("kernel/{field}"))?, name, "{field}");
        }
    }
    for (key, value) in spec["linux"]["sysctl"].as_object().into_iter().flatten() {
        check_eq!(Value::String(sysctl(pid, &key.replace('.', "/"))?), *value, "sysctl {key}");
    }
    Ok(())
}

fn identity(pid: u32, spec: &Value, ids: u32) -> Result {
    let user = &spec["process"]["user"];
    let outside = |value: &Value| ids + u32::try_from(value.as_u64().unwrap_or(0)).unwrap_or(u32::MAX);
    for (field, key) in [("Uid", "uid"), ("Gid", "gid")] {
        let id = outside(&user[key]).to_string();
        check_eq!(look::status(pid, field)?, [id.as_str(); 4].join(" "), "{key}");
    }
    let got: BTreeSet<String> = look::status(pid, "Groups")?.split_whitespace().map(str::to_owned).collect();
    let want: BTreeSet<String> = list(&user["additionalGids"]).map(|gid| outside(gid).to_string()).collect();
    check_eq!(got, want, "supplementary groups");
    let umask = user["umask"].as_u64().unwrap_or(0o022);
    check_eq!(look::status(pid, "Umask")?, format!("{umask:04o}"), "umask");
    let privileges = spec["process"]["noNewPrivileges"] == true;
    check_eq!(look::status(pid, "NoNewPrivs")?, i32::from(privileges).to_string(), "no_new_privs");
    Ok(())
}

/// The numbers of capability.h, which are those of the table: 0 to 40 in order, but for one that nobody asks for (CAP_SYS_RESOURCE).
fn bits(names: &Value) -> u64 {
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE \
        NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
        SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG \
        WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";
    let number =
        |name: &str| NAMES.split_whitespace().position(|known| name.strip_prefix("CAP_") == Some(known));
    words(names).iter().filter_map(|name| number(name)).fold(0, |set, n| set | 1 << n)
}

fn capabilities(pid: u32, spec: &Value, user_namespace: bool) -> Result {
    let set =
        |pid: u32, field: &str| -> Result<u64> { Ok(u64::from_str_radix(&look::status(pid, field)?, 16)?) };
    let own = std::process::id();
    let (can_bound, can) =
        if user_namespace { (u64::MAX, u64::MAX) } else { (set(own, "CapBnd")?, set(own, "CapPrm")?) };
    let asked = |name: &str| bits(&spec["process"]["capabilities"][name]);
    let bounding = asked("bounding") & can_bound;
    let (permitted, inheritable) = (asked("permitted") & can, asked("inheritable") & can);
    let ambient = asked("ambient") & permitted & inheritable;
    // capabilities(7), Transformation of capabilities during execve: root's programs have all that the bounding set leaves.
    let root = spec["process"]["user"]["uid"] == 0;
    let mut gained = if root { bounding | inheritable } else { 0 };
    if spec["process"]["noNewPrivileges"] == true {
        gained &= permitted;
    }
    let held = gained | ambient;
    let want = [bounding, held, held, inheritable, ambient];
    let mut got = [0; 5];
    for (got, field) in got.iter_mut().zip(["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"]) {
        *got = set(pid, field)?;
    }
    let hex = |sets: [u64; 5]| sets.map(|set| format!("{set:x}"));
    check_eq!(hex(got), hex(want), "bounding, effective, permitted, inheritable, ambient");
    Ok(())
}

const LIMITS: [(&str, &str); 14] = [
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_STACK", "Max stack size"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
];

fn limits(pid: u32, spec: &Value) -> Result {
    for limit in list(&spec["process"]["rlimits"]) {
        let (name, line) =
            LIMITS.iter().find(|(name, _)| limit["type"] == *name).ok_or("an unknown limit")?;
        let want = (limit["soft"].to_string(), limit["hard"].to_string());
        check_eq!(look::limit(pid, line)?, want, "{name}");
    }
    if let Some(score) = spec["process"]["oomScoreAdj"].as_i64() {
        check_eq!(look::proc(pid, "oom_score_adj")?, score.to_string(), "oom_score_adj");
    }
    Ok(())
}

fn scheduling(pid: u32, spec: &Value) -> Result {
    let field = |number: usize| look::stat(pid, number);
    let scheduler = &spec["process"]["scheduler"];
    if let Some(policy) = scheduler["policy"].as_str() {
        let names = ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "", "SCHED_IDLE"];
        let number = names.iter().position(|name| *name == policy).unwrap_or(99);
        check_eq!(field(41)?, number.to_string(), "scheduling policy");
        let (priority, nice) = (&scheduler["priority"], &scheduler["nice"]);
        check_eq!(field(40)?, priority.as_u64().unwrap_or(0).to_string(), "real-time priority");
        if number == 0 || number == 3 {
            check_eq!(field(19)?, nice.as_u64().unwrap_or(0).to_string(), "nice");
        }
    }
    if let Some(class) = spec["process"]["ioPriority"]["class"].as_str() {
        let got = Command::new("/usr/bin/ionice").args(["-p", &pid.to_string()]).output()?;
        let got = String::from_utf8_lossy(&got.stdout).trim().to_owned();
        let level = &spec["process"]["ioPriority"]["priority"];
        let want = match class {
            "IOPRIO_CLASS_RT" => format!("realtime: prio {level}"),
            "IOPRIO_CLASS_BE" => format!("best-effort: prio {level}"),
            _ => "idle".into(),
        };
        check_eq!(got, want, "I/O priority");
    }
    if let Some(domain) = spec["linux"]["personality"]["domain"].as_str() {
        let want = if domain == "LINUX32" { "00000008" } else { "00000000" };
        check_eq!(look::proc(pid, "personality")?, want, "personality");
    }
    if let Some(mode) = spec["linux"]["memoryPolicy"]["mode"].as_str() {
        let maps = look::proc(pid, "numa_maps")?;
        let word = mode.trim_start_matches("MPOL_").to_lowercase().replace("preferred", "prefer");
        check!(maps.contains(&word), "memory policy {mode}: {}", maps.lines().next().unwrap_or_default());
    }
    Ok(())
}

fn surroundings(pid: u32, spec: &Value, preserved: u64) -> Result {
    let mut open = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        open.insert(entry.file_name().to_string_lossy().into_owned(), fs::read_link(entry.path())?);
    }
    let numbers: Vec<String> = (0..3 + preserved).map(|n| n.to_string()).collect();
    check_eq!(open.keys().cloned().collect::<Vec<_>>(), numbers, "open descriptors");
    let files = ["/etc/passwd", "/etc/group", "/etc/hosts"];
    for (number, file) in (3..3 + preserved).zip(files) {
        check_eq!(open[&number.to_string()], Path::new(file), "descriptor {number}");
    }
    for field in ["SigBlk", "SigIgn"] {
        // The probe itself ignores SIGPIPE, as every program of its language does.
        let set = u64::from_str_radix(&look::status(pid, field)?, 16)? & !(1 << 12);
        check_eq!(set, 0, "{field}, as if from the caller");
    }
    check_eq!(look::stat(pid, 6)?, pid.to_string(), "session");
    let terminal = spec["process"]["terminal"] == true;
    check_eq!(look::stat(pid, 7)? != "0", terminal, "a controlling terminal");
    let on_one = (0..3).all(|number| open[&number.to_string()].starts_with("/dev/pts"));
    check_eq!(on_one, terminal, "descriptors 0 to 2 on a terminal");
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"))?;
    check!(spec["process"]["cwd"].as_str() == cwd.to_str(), "working directory {}", cwd.display());
    let split = |text: &str| text.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>();
    check_eq!(split(&look::proc(pid, "environ")?), words(&spec["process"]["env"]), "environment");
    check_eq!(split(&look::proc(pid, "cmdline")?), words(&spec["process"]["args"]), "arguments");
    Ok(())
}

/// Of words that exclude each other, which holds: the last.
fn last<'a>(options: &'a [String], words: &[&str]) -> Option<&'a str> {
    options.iter().rev().map(String::as_str).find(|option| words.contains(option))
}

/// A path as the kernel shows it: `a/../b` is /b.
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if name == ".." {
            names.pop();
        } else {
            names.push(name);
        }
    }
    format!("/{}", names.join("/"))
}

fn mounts(pid: u32, spec: &Value) -> Result {
    let all = look::mounts(pid)?;
    let top =
        |at: &str| all.iter().rfind(|mount| mount.point == at).ok_or(format!("nothing is mounted on {at}"));
    let read_only: Vec<String> = words(&spec["linux"]["readonlyPaths"])
        .iter()
        .chain(&words(&spec["linux"]["maskedPaths"]))
        .map(|at| clean(at))
        .collect();
    let asked: Vec<&Value> = list(&spec["mounts"]).collect();
    for (i, mount) in asked.iter().enumerate() {
        let at = clean(mount["destination"].as_str().unwrap_or_default());
        let covered = asked[i + 1..].iter().any(|later| {
            let later = clean(later["destination"].as_str().unwrap_or_default());
            later == "/" || at == later || at.starts_with(&format!("{later}/"))
        });
        if covered || read_only.iter().any(|hidden| at == *hidden || at.starts_with(&format!("{hidden}/"))) {
            continue;
        }
        let got = top(&at)?;
        one_mount(got, mount, spec["root"]["readonly"] == true && at == "/")?;
    }
    if !asked.iter().any(|mount| mount["destination"] == "/") {
        let root = top("/")?;
        check_eq!(root.has("ro"), spec["root"]["readonly"] == true, "a read-only root");
        if let Some(word) = spec["linux"]["rootfsPropagation"].as_str() {
            propagation(root, word)?;
        }
    }
    Ok(())
}

fn propagation(got: &Mount, word: &str) -> Result {
    let holds = match word.trim_start_matches('r') {
        "shared" => got.tagged("shared:") && !got.tagged("unbindable"),
        "unbindable" => got.tagged("unbindable") && !got.tagged("shared:"),
        "private" => got.tags.is_empty(),
        _ => !got.tagged("shared:"),
    };
    check!(holds, "{word} gives {got:?}");
    Ok(())
}

fn one_mount(got: &Mount, asked: &Value, root_read_only: bool) -> Result {
    let options = words(&asked["options"]);
    let pairs: [(&str, [&str; 3]); 5] = [
        ("ro", ["ro", "rw", "rro"]),
        ("nosuid", ["nosuid", "suid", "rnosuid"]),
        ("nodev", ["nodev", "dev", "rnodev"]),
        ("noexec", ["noexec", "exec", ""]),
        ("nosymfollow", ["nosymfollow", "symfollow", ""]),
    ];
    for (flag, [on, off, deep]) in pairs {
        // The recursive words come after the others, whatever their places.
        let wants = last(&options, &[on, off]) == Some(on) || options.iter().any(|option| option == deep);
        let has = got.has(flag) || got.super_has(flag) && flag == "ro";
        check!(!wants || has, "{flag} is not in force: {asked} gives {got:?}");
        let plainly_off =
            last(&options, &[on, off]) == Some(off) && !options.iter().any(|option| option == deep);
        check!(
            !plainly_off || !got.has(flag) || root_read_only,
            "{flag} although {off} was asked: {asked} gives {got:?}"
        );
    }
    match last(&options, &["noatime", "relatime", "strictatime"]) {
        Some("noatime") => check!(got.has("noatime"), "{asked} gives {got:?}"),
        Some("relatime") => check!(got.has("relatime"), "{asked} gives {got:?}"),
        Some(_) => check!(!got.has("relatime") && !got.has("noatime"), "{asked} gives {got:?}"),
        None => {}
    }
    if last(&options, &["nodiratime", "diratime"]) == Some("nodiratime") {
        check!(got.has("nodiratime") || got.has("noatime"), "{asked} gives {got:?}");
    }
    let words = ["private", "rprivate", "slave", "shared", "rshared", "unbindable"];
    if let Some(word) = last(&options, &words) {
        propagation(got, word)?;
    }
    let kind = asked["type"].as_str().unwrap_or_default();
    check!(
        kind == "bind" || kind == "cgroup" || kind == "sysfs" || got.kind == kind,
        "{asked} gives {got:?}"
    );
    for option in options.iter().filter(|option| option.starts_with("size=") && kind == "tmpfs") {
        let kib = option.trim_start_matches("size=").trim_end_matches('k').parse::<u64>().unwrap_or(0);
        check!(got.super_has(&format!("size={kib}k")), "{asked} gives {got:?}");
    }
    if let Some(mode) =
        options.iter().find_map(|option| option.strip_prefix("mode=")).filter(|_| kind == "tmpfs")
    {
        // The kernel shows 1777, its own default, by saying nothing.
        let mode = mode.trim_start_matches('0');
        check!(
            mode == "1777"
                || got.super_has(&format!("mode={mode}"))
                || got.super_has(&format!("mode={mode:0>3}")),
            "{asked} gives {got:?}"
        );
    }
    Ok(())
}

fn hidden(pid: u32, spec: &Value) -> Result {
    if list(&spec["mounts"]).any(|mount| mount["destination"] == "/") {
        return Ok(()); // what lies below it is another tree
    }
    let masked: Vec<String> = words(&spec["linux"]["maskedPaths"]).iter().map(|at| clean(at)).collect();
    let all = look::mounts(pid)?;
    let within = |at: &str, list: &[String]| {
        list.iter().any(|above| at == above || at.starts_with(&format!("{above}/")))
    };
    for at in &masked {
        let outside = format!("/proc/{pid}/root{at}");
        let others: Vec<String> = masked.iter().filter(|other| *other != at).cloned().collect();
        let Ok(data) = fs::metadata(&outside) else { continue };
        if within(at, &others) {
            continue;
        }
        if data.is_dir() {
            let mount = all.iter().rfind(|mount| mount.point == *at).ok_or(format!("{at} is not masked"))?;
            check!(mount.kind == "tmpfs" && mount.has("ro"), "{at} is masked by {mount:?}");
            check_eq!(fs::read_dir(&outside)?.count(), 0, "entries of the masked {at}");
        } else {
            let null = data.file_type().is_char_device() && data.rdev() == nix::sys::stat::makedev(1, 3);
            check!(null, "{at} is not masked");
        }
    }
    for at in words(&spec["linux"]["readonlyPaths"]).iter().map(|at| clean(at)) {
        let there = fs::symlink_metadata(format!("/proc/{pid}/root{at}")).is_ok();
        if !there || within(&at, &masked) {
            continue;
        }
        for mount in
            all.iter().filter(|mount| mount.point == at || mount.point.starts_with(&format!("{at}/")))
        {
            let null = mount.root.ends_with("/null");
            check!(mount.has("ro") || null, "{at} is not read-only: {mount:?}");
        }
        check!(all.iter().any(|mount| mount.point == at), "{at} is not read-only: nothing is mounted there");
    }
    Ok(())
}

fn profile(pid: u32, spec: &Value, report: &Value) -> Result {
    let profile = &spec["linux"]["seccomp"];
    if profile.is_null() {
        check_eq!(look::status(pid, "Seccomp")?, "0", "seccomp mode");
        return Ok(());
    }
    check_eq!(look::status(pid, "Seccomp")?, "2", "seccomp mode");
    check_eq!(look::status(pid, "Seccomp_filters")?, "1", "seccomp filters");
    for (name, syscalls) in CALLS {
        let rule = list(&profile["syscalls"]).find(|rule| words(&rule["names"]) == syscalls);
        if let Some(rule) = rule {
            let errno = rule["errnoRet"].as_i64().unwrap_or(1);
            check_eq!(report[name].as_i64(), Some(errno), "{name} under {rule}");
        }
    }
    Ok(())
}

fn resources(pid: u32, spec: &Value) -> Result {
    let asked = &spec["linux"]["resources"];
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let is = |controller: &str, file: &str, want: &str| -> Result {
        let got = look::cgroup_file(pid, controller, file)?;
        check_eq!(got, want, "{file}");
        Ok(())
    };
    let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or("?");
    let groups = look::proc(pid, "cgroup")?;
    check!(
        groups.lines().any(|line| line.ends_with(path)),
        "the control group {path} is not among {groups:?}"
    );
    if let Some(limit) = asked["pids"]["limit"].as_i64() {
        is("pids", "pids.max", &limit.to_string())?;
    }
    if let Some(limit) = asked["memory"]["limit"].as_i64() {
        let limit = limit - limit % 4096;
        is("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }, &limit.to_string())?;
        let reservation = asked["memory"]["reservation"].as_i64().unwrap_or(0);
        let file = if v2 { "memory.low" } else { "memory.soft_limit_in_bytes" };
        is("memory", file, &(reservation - reservation % 4096).to_string())?;
    }
    if let Some(quota) = asked["cpu"]["quota"].as_i64() {
        let period = asked["cpu"]["period"].as_i64().unwrap_or(100_000);
        if v2 {
            is("cpu", "cpu.max", &format!("{quota} {period}"))?;
        } else {
            is("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
            is("cpu", "cpu.cfs_period_us", &period.to_string())?;
            is("cpu", "cpu.shares", &asked["cpu"]["shares"].to_string())?;
        }
    }
    if let Some(cpus) = asked["cpu"]["cpus"].as_str() {
        is("cpuset", "cpuset.cpus", cpus)?;
        check_eq!(look::status(pid, "Cpus_allowed_list")?, cpus, "CPUs");
    }
    for limit in list(&asked["hugepageLimits"]) {
        let size = limit["pageSize"].as_str().unwrap_or_default();
        let file = if v2 { format!("hugetlb.{size}.max") } else { format!("hugetlb.{size}.limit_in_bytes") };
        is("hugetlb", &file, &limit["limit"].to_string())?;
    }
    Ok(())
}
