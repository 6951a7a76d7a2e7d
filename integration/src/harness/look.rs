//! Looking at a process from outside: /proc/PID, its mounts, its namespaces and its cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Error, Result};

/// A field of /proc/PID/status, as the kernel prints it, blanks joined.
pub(crate) fn status(pid: u32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("/proc/{pid}/status has no {field}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A field of /proc/PID/stat after the name, by its number in proc_pid_stat(5), which begins with 3.
pub(crate) fn stat(pid: u32, number: usize) -> Result<String> {
    let text = proc(pid, "stat")?;
    let field = text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(number - 3));
    Ok(field.ok_or_else(|| format!("/proc/{pid}/stat has no field {number}"))?.to_owned())
}

/// A file in /proc/PID without the last newline.
pub(crate) fn proc(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    Ok(fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?.trim_end().to_owned())
}

/// The identity of a namespace: `net:[4026531840]`.
pub(crate) fn namespace(pid: u32, kind: &str) -> Result<String> {
    let path = format!("/proc/{pid}/ns/{kind}");
    Ok(fs::read_link(&path).map_err(|e| format!("{path}: {e}"))?.display().to_string())
}

/// The identity of the test's own namespace.
pub(crate) fn own_namespace(kind: &str) -> Result<String> {
    namespace(std::process::id(), kind)
}

/// A limit from /proc/PID/limits: soft and hard, as printed.
pub(crate) fn limit(pid: u32, name: &str) -> Result<(String, String)> {
    let text = proc(pid, "limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.ok_or_else(|| format!("no limit {name}"))?.split_whitespace().map(str::to_owned);
    Ok((words.next().unwrap_or_default(), words.next().unwrap_or_default()))
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// The root of the mount within its file system.
    pub(crate) root: String,
    /// Where it is, as the process sees it.
    pub(crate) point: String,
    /// Flags of the mount.
    pub(crate) options: Vec<String>,
    /// Propagation: `shared:N`, `master:N`, `unbindable`.
    pub(crate) tags: Vec<String>,
    /// The file system's type.
    pub(crate) kind: String,
    /// Flags of the file system.
    pub(crate) super_options: Vec<String>,
}

impl Mount {
    /// Whether the mount has the flag.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// Whether the file system has the option.
    pub(crate) fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|o| o == option)
    }

    /// Whether a propagation tag begins with the word.
    pub(crate) fn tagged(&self, word: &str) -> bool {
        self.tags.iter().any(|tag| tag.starts_with(word))
    }
}

/// The mounts of a process, in the kernel's order.
pub(crate) fn mounts(pid: u32) -> Result<Vec<Mount>> {
    proc(pid, "mountinfo")?.lines().map(parse_mount).collect()
}

/// The topmost mount at a path of a process.
pub(crate) fn mount_at(pid: u32, point: &str) -> Result<Mount> {
    let found = mounts(pid)?.into_iter().rfind(|mount| mount.point == point);
    found.ok_or_else(|| format!("process {pid} has no mount at {point}").into())
}

fn parse_mount(line: &str) -> Result<Mount> {
    let broken = || Error::from(format!("not a line of mountinfo: {line}"));
    let (left, right) = line.split_once(" - ").ok_or_else(broken)?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let [_, _, _, root, point, options, tags @ ..] = left.as_slice() else { return Err(broken()) };
    let [kind, _, super_options] = right.as_slice() else { return Err(broken()) };
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Ok(Mount {
        root: (*root).into(),
        point: (*point).into(),
        options: list(options),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        kind: (*kind).into(),
        super_options: list(super_options),
    })
}

/// The directory of a process's cgroup: the unified one, or that of a version 1 controller where it is mounted.
pub(crate) fn cgroup(pid: u32, controller: &str) -> Result<PathBuf> {
    let text = proc(pid, "cgroup")?;
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let path = path.trim_start_matches('/');
        if unified && names.is_empty() {
            return Ok(Path::new("/sys/fs/cgroup").join(path));
        }
        if !unified && names.split(',').any(|name| name == controller) {
            return Ok(Path::new("/sys/fs/cgroup").join(controller).join(path));
        }
    }
    Err(format!("process {pid} is in no cgroup of {controller}").into())
}

/// A file of a process's cgroup, trimmed.
pub(crate) fn cgroup_file(pid: u32, controller: &str, file: &str) -> Result<String> {
    let path = cgroup(pid, controller)?.join(file);
    Ok(fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?.trim().to_owned())
}

/// Major and minor number of the machine's first disk, as `8:0`.
pub(crate) fn disk() -> Result<String> {
    let disks = fs::read_dir("/sys/block")?.flatten();
    let mut devices = disks.filter(|disk| disk.path().join("device").exists());
    let disk = devices.next().ok_or("the machine has no disk")?;
    Ok(fs::read_to_string(disk.path().join("dev"))?.trim().to_owned())
}

/// The cgroups with the word in their name that stand where the default bundle asks for them.
pub(crate) fn test_cgroups(word: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    let parents = below.chain([top.to_owned()]).map(|hierarchy| hierarchy.join("coracle-test"));
    let groups = parents.filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
    groups.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(word)).collect()
}

/// Every cgroup directory whose name contains the word.
pub(crate) fn cgroups_named(word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |directory| {
        if directory.file_name().is_some_and(|name| name.to_string_lossy().contains(word)) {
            found.push(directory.to_owned());
        }
    });
    // Deepest first: the order in which they can be removed.
    found.reverse();
    found
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            walk(&entry.path(), visit);
        }
    }
}

/// Children of a process, and theirs, nearest first.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(child) = found.get(next) {
        found.extend(children(*child));
        next += 1;
    }
    found
}

/// Children of all of a process's threads.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Whether the process has ended and only waits to be asked how.
pub(crate) fn is_zombie(pid: u32) -> bool {
    status(pid, "State").is_ok_and(|state| state.starts_with('Z'))
}

/// Whether it is that, or about to be: it has no memory any more, proc_pid_cmdline(5).
pub(crate) fn is_dead(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.is_empty())
}

/// What a process is, for a message.
pub(crate) fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let state = status(pid, "State").unwrap_or_default();
    format!("{pid} ({state}) {}", String::from_utf8_lossy(&words).replace('\0', " "))
}

/// Ends a process of the test's own and takes its end in, where it is a child.
pub(crate) fn kill_and_reap(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
    if pid.as_raw() > 1 {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

/// Ends all that is below this process, and takes their ends in as they come: the init of a pid namespace ends after the
/// others of it, some of which may be children of the test's, too.
pub(crate) fn kill_and_reap_all() {
    for _ in 0..1000 {
        let left = descendants(std::process::id());
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
