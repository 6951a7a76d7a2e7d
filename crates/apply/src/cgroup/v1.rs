//! cgroup v1, of a legacy or hybrid host: one hierarchy a controller (or a few), each with the same path.

use super::{c, exists, read, write};
use crate::failure::{Doing, Failure, Result};
use crate::probe;
use coracle_plan::steps::Cgroup as Plan;
use coracle_sys::{Errno, fs};
use std::time::{Duration, Instant};

/// A mounted v1 hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub mount: String,
    /// Its controllers, or `name=...`.
    pub controllers: Vec<String>,
}

/// The mounted hierarchies: proc_pid_mountinfo(5).
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    probe::text(c"/proc/self/mountinfo").lines().filter_map(hierarchy).collect()
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    if fields.next()? != "cgroup" {
        return None;
    }
    let known = |o: &&str| {
        !["rw", "ro", "xattr", "clone_children", "nosuid"].contains(o) && !o.starts_with("release_agent")
    };
    let controllers = fields.nth(1)?.split(',').filter(known).map(str::to_owned).collect();
    Some(Hierarchy { mount: mount.split(' ').nth(4)?.to_owned(), controllers })
}

/// Makes the directory in every hierarchy, writes limits and device rules.
pub(super) fn create(plan: &Plan, path: &str, dirs: &[String], warnings: &mut Vec<String>) -> Result<()> {
    for dir in dirs {
        make(dir).map_err(|f| f.at("linux.cgroupsPath"))?;
    }
    let all = hierarchies();
    for w in &plan.writes {
        let Some(home) = all.iter().find(|h| h.controllers.contains(&w.controller)) else {
            let what = format!(
                "this host mounts no cgroup v1 hierarchy with the {} controller: {} = {} cannot be had; mount it, or remove the limit",
                w.controller, w.file, w.value
            );
            return Err(Failure::says(what).at(&w.origin));
        };
        let dir = format!("{}{path}", home.mount);
        write(&dir, &w.file, &w.value)
            .doing(|| format!("writing {} to {dir}/{}", w.value, w.file))
            .map_err(|f| f.at(&w.origin))?;
    }
    devices(plan, &all, path, warnings)
}

fn devices(plan: &Plan, all: &[Hierarchy], path: &str, _warnings: &mut Vec<String>) -> Result<()> {
    if plan.device_lines.is_empty() {
        return Ok(());
    }
    let Some(home) = all.iter().find(|h| h.controllers.iter().any(|c| c == "devices")) else {
        return Err(Failure::says("this host mounts no devices hierarchy: the device rules cannot be had")
            .at("linux.resources.devices"));
    };
    let dir = format!("{}{path}", home.mount);
    for (allow, line) in &plan.device_lines {
        let file = if *allow { "devices.allow" } else { "devices.deny" };
        write(&dir, file, line)
            .doing(|| format!("writing {line} to {dir}/{file}"))
            .map_err(|f| f.at("linux.resources.devices"))?;
    }
    Ok(())
}

fn make(dir: &str) -> Result<()> {
    let parent = dir.rsplit_once('/').map_or("", |(p, _)| p);
    if !parent.is_empty() && !exists(parent) {
        make(parent)?;
    }
    match fs::mkdirat(fs::cwd(), &c(dir), 0o755) {
        Err(Errno::EEXIST) => {}
        other => other.doing(|| format!("making {dir}"))?,
    }
    // A fresh cpuset takes no process until it has CPUs and memory nodes: cpuset(7).
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(dir, file).is_ok_and(|t| t.is_empty()) {
            let above = read(parent, file).unwrap_or_default();
            write(dir, file, &above).doing(|| format!("writing {above} to {dir}/{file}"))?;
        }
    }
    Ok(())
}

fn freezer(path: &str) -> Option<String> {
    hierarchies()
        .into_iter()
        .find(|h| h.controllers.iter().any(|c| c == "freezer"))
        .map(|h| format!("{}{path}", h.mount))
}

pub(super) fn frozen(path: &str) -> bool {
    freezer(path).and_then(|d| read(&d, "freezer.state").ok()).is_some_and(|t| t != "THAWED")
}

/// v1 tells nobody when it is done: the state is read until it is.
pub(super) fn freeze(path: &str, on: bool) -> Result<()> {
    let dir = freezer(path).ok_or_else(|| Failure::says("this host mounts no freezer hierarchy"))?;
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
