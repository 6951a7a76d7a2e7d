//! Writing limits into the kernel's files.

use super::{read, write};
use crate::failure::{Failure, Result};
use coracle_plan::steps::{Absent, CgroupWrite, Update};
use coracle_sys::Errno;

/// Writes all, each into the directory that `home` gives for its controller. Some limits must not cross each other (memory
/// and memory with swap, quota and burst), and which comes first depends on what is there: what the kernel calls invalid or
/// busy is tried once more after the others.
pub(super) fn write_all(writes: &[CgroupWrite], home: impl Fn(&str) -> Option<String>) -> Result<()> {
    let mut again = Vec::new();
    for w in writes {
        match one(w, &home) {
            Err(f) if writes.len() > 1 && matches!(f.errno, Some(Errno::EINVAL | Errno::EBUSY)) => {
                again.push(w)
            }
            other => other?,
        }
    }
    again.into_iter().try_for_each(|w| one(w, &home))
}

fn one(w: &CgroupWrite, home: &impl Fn(&str) -> Option<String>) -> Result<()> {
    let Some(dir) = home(&w.controller) else {
        let what = format!(
            "this host mounts no cgroup v1 hierarchy with the {} controller: {} = {} cannot be had; mount it, or remove the limit",
            w.controller, w.file, w.value
        );
        return Err(Failure::says(what).at(&w.origin));
    };
    match (write(&dir, &w.file, &w.value), &w.absent) {
        (Ok(()), _) | (Err(Errno::ENOENT), Absent::PassOver) => Ok(()),
        (Err(Errno::ENOENT), Absent::Instead(other)) => one(other, home),
        (Err(errno), _) => Err(explain(errno, w, &dir)),
    }
}

/// Without its controller a file is missing; creating one is what the kernel then refuses (EACCES, EPERM).
fn explain(errno: Errno, w: &CgroupWrite, dir: &str) -> Failure {
    let missing = matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::EPERM);
    let controllers = read(dir, "cgroup.controllers").unwrap_or_default();
    let available = controllers.split(' ').any(|c| c == w.controller);
    let doing = if missing && !available && w.controller != "cgroup" {
        format!(
            "the {} controller is not available in {dir}: there is no {} to write {} to",
            w.controller, w.file, w.value
        )
    } else {
        format!("writing {} to {dir}/{}", w.value, w.file)
    };
    Failure::errno(doing, errno).at(&w.origin)
}

/// checkBeforeUpdate: a limit below what is in use would have the kernel kill for it. Where nothing can be read, nothing is
/// known to be in use.
pub(super) fn unused(dir: &str, update: &Update) -> Result<()> {
    let Some((limit, swap)) = update.unused else { return Ok(()) };
    let used = read(dir, "memory.current").or_else(|_| read(dir, "memory.usage_in_bytes"));
    let Some(used) = used.ok().and_then(|t| t.parse::<i64>().ok()) else { return Ok(()) };
    for (name, value) in [("memory+swap", swap), ("memory", limit)] {
        if value > 0 && value <= used {
            return Err(Failure::says(format!("rejecting {name} limit {value} <= usage {used}"))
                .at("linux.resources.memory.checkBeforeUpdate"));
        }
    }
    Ok(())
}
