//! cgroup v2: the kernel's admin-guide/cgroup-v2.rst.

use super::{c, read, write};
use crate::failure::{Doing, Failure, Result};
use coracle_plan::steps::Cgroup as Plan;
use coracle_sys::{Errno, bpf, fs, libc, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// Makes the directory with its parents, turns on controllers on the way, writes limits, attaches the device filter.
pub(super) fn create(plan: &Plan, dir: &str, warnings: &mut Vec<String>) -> Result<()> {
    match fs::mkdirat(fs::cwd(), &c(dir), 0o755) {
        Err(Errno::ENOENT) => make_parents(dir)?,
        Err(Errno::EEXIST) => reuse(dir)?,
        other => other.doing(|| format!("making {dir}")).map_err(|f| f.at("linux.cgroupsPath"))?,
    }
    enable(dir);
    for w in &plan.writes {
        write(dir, &w.file, &w.value).map_err(|e| explain(e, w, dir))?;
    }
    if let Some(program) = &plan.devices {
        filter(dir, program).map_err(|f| f.at("linux.resources.devices")).or_else(|f| {
            // Without the right to load programs there is no right to make device nodes either: user_namespaces(7).
            let powerless = f.errno == Some(Errno::EPERM) && plan.optional;
            if powerless {
                warnings.push(format!("{f}; device nodes are refused by the kernel instead"))
            };
            if powerless { Ok(()) } else { Err(f) }
        })?;
    }
    Ok(())
}

fn explain(errno: Errno, w: &coracle_plan::steps::CgroupWrite, dir: &str) -> Failure {
    let doing = match errno {
        Errno::ENOENT | Errno::EACCES => format!(
            "the {} controller is not available in {dir}: there is no {} to write {} to",
            w.controller, w.file, w.value
        ),
        _ => format!("writing {} to {dir}/{}", w.value, w.file),
    };
    Failure::errno(doing, errno).at(&w.origin)
}

fn make_parents(dir: &str) -> Result<()> {
    for (end, _) in dir.match_indices('/').skip_while(|(i, _)| *i <= ROOT.len()).chain([(dir.len(), "")]) {
        match fs::mkdirat(fs::cwd(), &c(&dir[..end]), 0o755) {
            Err(Errno::EEXIST) => {}
            other => {
                other.doing(|| format!("making {}", &dir[..end])).map_err(|f| f.at("linux.cgroupsPath"))?
            }
        }
    }
    Ok(())
}

/// A group that exists may be used when nobody is in it.
fn reuse(dir: &str) -> Result<()> {
    let populated = read(dir, "cgroup.events").is_ok_and(|t| t.contains("populated 1"));
    if populated {
        return Err(Failure::says(format!(
            "{dir} exists and has processes in it; choose another cgroupsPath, or end them"
        ))
        .at("linux.cgroupsPath"));
    }
    Ok(())
}

/// Turns on every controller that the root offers, in each parent, so that the group's files are there.
/// One that was asked for and cannot be turned on shows when its file is written.
fn enable(dir: &str) {
    let mut parents = vec![ROOT];
    parents.extend(dir.match_indices('/').filter(|(i, _)| *i > ROOT.len()).map(|(i, _)| &dir[..i]));
    for parent in parents {
        let available = read(parent, "cgroup.controllers").unwrap_or_default();
        if available.is_empty() {
            return; // what is not offered here is not offered below
        }
        let on = read(parent, "cgroup.subtree_control").unwrap_or_default();
        let missing: Vec<&str> = available.split(' ').filter(|a| !on.split(' ').any(|o| o == *a)).collect();
        let all: Vec<String> = missing.iter().map(|m| format!("+{m}")).collect();
        match write(parent, "cgroup.subtree_control", &all.join(" ")) {
            _ if all.is_empty() => {}
            // Processes in the parent: it would take threaded controllers alone, and its children could then hold no process.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(_) => {
                for one in &all {
                    let _ = write(parent, "cgroup.subtree_control", one);
                }
            }
        }
    }
}

fn filter(dir: &str, program: &[bpf::Insn]) -> Result<()> {
    let group =
        fs::open(&c(dir), libc::O_DIRECTORY | libc::O_RDONLY, 0).doing(|| format!("opening {dir}"))?;
    let loaded = bpf::load_device_program(program).doing(|| "loading the device filter (eBPF)".into())?;
    bpf::attach_device_program(group.as_fd(), loaded.as_fd())
        .doing(|| format!("attaching the device filter to {dir}"))
}

/// Waits until cgroup.events holds a line; the kernel wakes with POLLPRI at each change.
pub(super) fn await_event(dir: &str, line: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    let path = format!("{dir}/cgroup.events");
    loop {
        let events = match fs::open(&c(&path), libc::O_RDONLY, 0) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other.doing(|| format!("opening {path}"))?,
        };
        let now = fs::read_to_end(events.as_fd(), 4096).unwrap_or_default();
        if String::from_utf8_lossy(&now).lines().any(|l| l == line) {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now()).as_millis() as i32;
        if left == 0 {
            return Err(Failure::says(format!("{dir} did not reach \"{line}\" in {limit:?}")));
        }
        let _ = poll::poll(&[(events.as_fd(), libc::POLLPRI)], left);
    }
}
