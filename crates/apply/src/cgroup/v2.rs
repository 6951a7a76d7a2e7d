//! cgroup v2: the kernel's admin-guide/cgroup-v2.rst.

use super::{c, read, told, write};
use crate::failure::{Doing, Failure, Result};
use crate::probe;
use coracle_plan::steps::Cgroup as Plan;
use coracle_sys::{Errno, bpf, fs, libc, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// Makes the directory with its parents. Returns whether it was there already.
pub(super) fn make(dir: &str) -> coracle_sys::Result<bool> {
    match fs::mkdirat(fs::cwd(), &c(dir), 0o755) {
        Err(Errno::ENOENT) => {}
        Err(Errno::EEXIST) => return Ok(true),
        other => return other.map(|()| false),
    }
    for level in above(dir).chain([dir]) {
        match fs::mkdirat(fs::cwd(), &c(level), 0o755) {
            Err(Errno::EEXIST) => {}
            other => other?,
        }
    }
    Ok(false)
}

/// The groups between the root and this one, the highest first.
fn above(dir: &str) -> impl Iterator<Item = &str> {
    dir.match_indices('/').map(|(end, _)| &dir[..end]).filter(|level| level.len() > ROOT.len())
}

/// A group that gives controllers to groups below it takes no process (cgroup-v2.rst, No Internal Process Constraint): one that
/// was there, and has none below it any more, stops giving them. Errors: it has some.
pub(super) fn withdraw(dir: &str) -> Result<()> {
    let given = told(dir, "cgroup.subtree_control")?.unwrap_or_default();
    if given.is_empty() {
        return Ok(());
    }
    // A directory has a link of its own, one in its parent, and one in each below it.
    let alone = fs::fstatat(fs::cwd(), &c(dir), 0).is_ok_and(|s| s.nlink == 2);
    let back: Vec<String> = given.split(' ').map(|controller| format!("-{controller}")).collect();
    let done = if alone { write(dir, "cgroup.subtree_control", &back.join(" ")) } else { Err(Errno::EBUSY) };
    let what = || {
        format!(
            "container's cgroup {dir} gives controllers ({given}) to groups below it, and so takes no process; remove those, or choose another cgroupsPath"
        )
    };
    done.doing(what).map_err(|f| f.at("linux.cgroupsPath"))
}

/// Turns on controllers on the way, `again` those that are on, and hands the group to its owner.
pub(super) fn hand_over(plan: &Plan, dir: &str, again: bool) -> Result<()> {
    enable(dir, again);
    plan.owner.map_or(Ok(()), |owner| own(dir, owner))
}

/// config-linux.md, Cgroup ownership: the directory, and the files that the kernel names as delegatable.
fn own(dir: &str, uid: u32) -> Result<()> {
    let listed = probe::text(c"/sys/kernel/cgroup/delegate");
    let files: Vec<&str> = match listed.is_empty() {
        true => vec!["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"],
        false => listed.lines().collect(),
    };
    let whole = files.iter().map(|f| format!("{dir}/{f}")).chain([dir.to_owned()]);
    for path in whole {
        match fs::fchownat(fs::cwd(), &c(&path), uid, u32::MAX, libc::AT_SYMLINK_NOFOLLOW) {
            // Not every listed file is in every group.
            Ok(()) | Err(Errno::ENOENT) => {}
            other => other
                .doing(|| format!("giving {path} to user {uid}"))
                .map_err(|f| f.at("process.user.uid"))?,
        }
    }
    Ok(())
}

/// Turns on every controller that the root offers, in each parent, so that the group's files are there.
/// One that was asked for and cannot be turned on shows when its file is written. `again`: those that are on, too. The kernel
/// names one that is being turned on before its files are there, and a write waits for that; but for every group that is
/// on its way out as well, which is long.
fn enable(dir: &str, again: bool) {
    for parent in [ROOT].into_iter().chain(above(dir)) {
        let available = read(parent, "cgroup.controllers").unwrap_or_default();
        if available.is_empty() {
            return; // what is not offered here is not offered below
        }
        let on =
            if again { String::new() } else { read(parent, "cgroup.subtree_control").unwrap_or_default() };
        let off = available.split(' ').filter(|one| !on.split(' ').any(|other| other == *one));
        let all: Vec<String> = off.map(|one| format!("+{one}")).collect();
        if all.is_empty() {
            continue;
        }
        match write(parent, "cgroup.subtree_control", &all.join(" ")) {
            // Processes in the parent: it would take threaded controllers alone, and its children could then hold no process.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {} // the parent is somebody else's
            Err(_) => {
                for one in &all {
                    let _ = write(parent, "cgroup.subtree_control", one);
                }
            }
        }
    }
}

/// Below a threaded group only threaded ones take processes: those on the way that are neither become so, and have limits of
/// cpu, cpuset and pids alone. cgroup-v2.rst, Threads.
pub(super) fn join_threads(dir: &str) -> Result<()> {
    for level in above(dir).chain([dir]) {
        if told(level, "cgroup.type")?.is_some_and(|kind| kind == "domain invalid") {
            write(level, "cgroup.type", "threaded")
                .doing(|| format!("making {level} threaded, as the group above it is"))
                .map_err(|f| f.at("linux.cgroupsPath"))?;
        }
    }
    Ok(())
}

fn open(dir: &str) -> Result<OwnedFd> {
    fs::open(&c(dir), libc::O_DIRECTORY | libc::O_RDONLY, 0).doing(|| format!("opening {dir}"))
}

/// Attaches a device filter; an empty one is none.
pub(super) fn set_filter(dir: &str, program: &[bpf::Insn]) -> Result<()> {
    if program.is_empty() {
        return Ok(());
    }
    attach(open(dir)?.as_fd(), dir, program).map(drop)
}

fn attach(group: BorrowedFd, dir: &str, program: &[bpf::Insn]) -> Result<OwnedFd> {
    let loaded = bpf::load_device_program(program).doing(|| "loading the device filter (eBPF)".into())?;
    bpf::attach_device_program(group, loaded.as_fd())
        .doing(|| format!("attaching the device filter to {dir}"))?;
    Ok(loaded)
}

/// Puts a filter in the place of the one in force: the new one first, so that at no moment more is allowed.
/// Errors: what was refused; then the one in force still is.
pub(super) fn replace_filter(dir: &str, program: &[bpf::Insn]) -> Result<()> {
    let group = open(dir)?;
    let doing = || format!("replacing the device filter of {dir}");
    let mut old = Vec::new();
    for id in bpf::device_programs(group.as_fd()).doing(doing)? {
        match bpf::program_by_id(id) {
            // Others' programs (systemd's, a GPU tool's) are not ours to remove.
            Ok(one) if bpf::program_name(one.as_fd()).doing(doing)? == bpf::NAME => old.push(one),
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(Failure::errno(doing(), e)),
        }
    }
    let new = if program.is_empty() { None } else { Some(attach(group.as_fd(), dir, program)?) };
    let detach = |one: &OwnedFd| bpf::detach_device_program(group.as_fd(), one.as_fd());
    old.iter().try_for_each(detach).doing(doing).inspect_err(|_| {
        let _ = new.as_ref().map(detach);
    })
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
        let now = match fs::read_to_end(events.as_fd(), 4096) {
            Err(Errno::ENODEV) => return Ok(()),
            other => other.doing(|| format!("reading {path}"))?,
        };
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
