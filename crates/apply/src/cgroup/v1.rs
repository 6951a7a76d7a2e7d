//! cgroup v1, of a legacy or hybrid host: one hierarchy a controller (or a few), each with the same path.

use super::{c, closed, exists, read, told, tree, write};
use crate::failure::{Doing, Failure, Result};
use crate::probe;
use coracle_sys::{Errno, fs};
use std::time::{Duration, Instant};

/// A mounted v1 hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub mount: String,
    /// Its controllers, or `name=...`; none of v2 beside v1.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The mounted hierarchies: proc_pid_mountinfo(5). Each once: one that a container without a mount namespace of its own shows
/// inside is listed again after the host's mount, and is not to be made groups in. Errors: /proc cannot be read.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mut all = mounted()?;
    all.retain(|h| !h.is_v2());
    Ok(all)
}

/// The same with the one of v2 that a hybrid host mounts beside them. It has no controllers; but systemd follows processes by
/// it, and criu dumps none that is in its root alone.
fn mounted() -> Result<Vec<Hierarchy>> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for next in probe::mountinfo()?.lines().filter_map(hierarchy) {
        if found.iter().all(|before| before.controllers != next.controllers) {
            found.push(next);
        }
    }
    Ok(found)
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    let v1 = match fields.next()? {
        "cgroup" => true,
        "cgroup2" => false,
        _ => return None,
    };
    let known = |o: &&str| {
        !["rw", "ro", "xattr", "clone_children", "nosuid"].contains(o) && !o.starts_with("release_agent")
    };
    let controllers = fields.nth(1)?.split(',').filter(known).filter(|_| v1).map(str::to_owned).collect();
    Some(Hierarchy { mount: mount.split(' ').nth(4)?.to_owned(), controllers })
}

/// The group's directories, one a hierarchy; that of v2, which limits nothing here, where it may be written. None, where the
/// hierarchies cannot be told.
pub(super) fn dirs(path: &str) -> Vec<String> {
    let open = |h: &&Hierarchy| !(h.is_v2() && closed(&h.mount));
    mounted().unwrap_or_default().iter().filter(open).map(|h| format!("{}{path}", h.mount)).collect()
}

/// Those of its directories that `exec --cgroup` means: of these controllers, or all.
/// Errors: the name of one that no hierarchy here has.
pub(super) fn chosen(
    all: &[Hierarchy],
    path: &str,
    controllers: Option<&str>,
) -> std::result::Result<Vec<String>, String> {
    let Some(names) = controllers else {
        return Ok(all.iter().map(|h| format!("{}{path}", h.mount)).collect());
    };
    names.split(',').map(|name| home(all, path, name).ok_or_else(|| name.to_owned())).collect()
}

/// The group's directory in the hierarchy of a controller.
pub(super) fn home(all: &[Hierarchy], path: &str, controller: &str) -> Option<String> {
    all.iter().find(|h| h.controllers.iter().any(|c| c == controller)).map(|h| format!("{}{path}", h.mount))
}

/// Other device rules. They are written one by one, the first of which forbids all: meanwhile nobody may look.
pub(super) fn replace_devices(
    lines: &[(bool, String)],
    home: &impl Fn(&str) -> Option<String>,
) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let freezer = home("freezer");
    let thaw = freezer.as_deref().map_or(Ok(false), |dir| frozen(dir).map(|frozen| !frozen))?;
    freeze(freezer.clone(), true)?;
    let done = set_devices(lines, home("devices"));
    if thaw {
        freeze(freezer, false)?;
    }
    done
}

/// Writes device rules.
pub(super) fn set_devices(lines: &[(bool, String)], dir: Option<String>) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let Some(dir) = dir else {
        return Err(Failure::says("this host mounts no devices hierarchy: the device rules cannot be had"));
    };
    for (allow, line) in lines {
        let file = if *allow { "devices.allow" } else { "devices.deny" };
        write(&dir, file, line).doing(|| format!("writing {line} to {dir}/{file}"))?;
    }
    Ok(())
}

/// Makes a directory with its parents. Returns whether it was there already. Errors: what was made is no group that takes
/// processes, and is gone again.
pub(super) fn make(dir: &str) -> coracle_sys::Result<bool> {
    let parent = dir.rsplit_once('/').map_or("", |(p, _)| p);
    if !parent.is_empty() && !exists(parent) {
        make(parent)?;
    }
    let there = match fs::mkdirat(fs::cwd(), &c(dir), 0o755) {
        Err(Errno::EEXIST) => true,
        other => other.map(|()| false)?,
    };
    let usable = inherit_cpuset(dir, parent);
    if usable.is_err() && !there {
        let _ = tree::remove(dir);
    }
    usable.map(|()| there)
}

/// A fresh cpuset takes no process until it has CPUs and memory nodes: cpuset(7).
fn inherit_cpuset(dir: &str, parent: &str) -> coracle_sys::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(dir, file).is_ok_and(|t| t.is_empty()) {
            let mut value = read(parent, file).unwrap_or_default();
            if value.is_empty() {
                // Another runtime has just made the parent, and not come to this yet.
                make(parent)?;
                value = read(parent, file).unwrap_or_default();
            }
            write(dir, file, &value)?;
        }
    }
    Ok(())
}

/// Whether the group with this freezer is frozen, or on its way.
pub(super) fn frozen(dir: &str) -> Result<bool> {
    told(dir, "freezer.state").map(|state| state.is_some_and(|t| t != "THAWED"))
}

/// v1 tells nobody when it is done: the state is read until it is.
pub(super) fn freeze(dir: Option<String>, on: bool) -> Result<()> {
    let dir = dir.ok_or_else(|| Failure::says("this host mounts no freezer hierarchy"))?;
    let word = if on { "FROZEN" } else { "THAWED" };
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        write(&dir, "freezer.state", word).doing(|| format!("writing {word} to {dir}/freezer.state"))?;
        if read(&dir, "freezer.state").is_ok_and(|t| t == word) {
            return Ok(());
        }
        if Instant::now() > end {
            let _ = write(&dir, "freezer.state", "THAWED");
            return Err(Failure::says(format!("{dir} did not become {word} in five seconds")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
