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

/// What the files of an update say before it: file, the key that is written of one that has several, text.
pub(super) struct Before(Vec<(String, String, String, String)>);

impl Before {
    /// Reads them; what cannot be read cannot be put back.
    pub(super) fn read(writes: &[CgroupWrite], home: impl Fn(&str) -> Option<String>) -> Before {
        let one = |w: &CgroupWrite| {
            let dir = home(&w.controller)?;
            let text = read(&dir, &w.file).ok()?;
            let key = match w.value.split_once(' ') {
                None if w.file.ends_with("weight") => "default",
                None => &w.value,
                Some((key, _)) => key,
            };
            Some((dir, w.file.clone(), key.to_owned(), text))
        };
        // Which of two files is written, is seen in writing.
        let both = |w: &CgroupWrite| match &w.absent {
            Absent::Instead(other) => [one(w), one(other)],
            _ => [one(w), None],
        };
        Before(writes.iter().flat_map(both).flatten().collect())
    }

    /// Puts them back, the last first: limits that must not cross did not on the way there.
    pub(super) fn restore(&self) {
        for (dir, file, key, text) in self.0.iter().rev() {
            let lines = text.lines().filter(|line| !keyed(file) || line.split(' ').next() == Some(key));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            if lines.is_empty() {
                // Nothing was set: of a device the defaults, else an empty list.
                lines.push(match file.as_str() {
                    "io.max" => format!("{key} rbps=max wbps=max riops=max wiops=max"),
                    "io.weight" | "io.bfq.weight" => format!("{key} default"),
                    _ if keyed(file) => format!("{key} 0"),
                    _ => "\n".to_owned(),
                });
            }
            for line in lines {
                let _ = write(dir, file, &line);
            }
        }
    }
}

/// Whether a file has a line a device, of which the update says one.
fn keyed(file: &str) -> bool {
    ["io.", "blkio.", "rdma."].iter().any(|start| file.starts_with(start))
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
        // BFQ refuses a disk that has another scheduler so: the cost model may weigh that one.
        (Err(Errno::ENOENT | Errno::EOPNOTSUPP), Absent::Instead(other)) => one(other, home),
        (Err(errno), _) => Err(explain(errno, w, &dir)),
    }
}

/// Without its controller a file is missing; creating one is what the kernel then refuses (EACCES, EPERM). The first is said
/// without its errno: engines read "no such file or directory" as a program that is not there, and exit with 127.
fn explain(errno: Errno, w: &CgroupWrite, dir: &str) -> Failure {
    let missing = matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::EPERM);
    let controllers = read(dir, "cgroup.controllers").unwrap_or_default();
    let available = controllers.split(' ').any(|c| c == w.controller);
    if !missing || available || w.controller == "cgroup" {
        let mut doing = format!("writing {} to {dir}/{}", w.value, w.file);
        if errno == Errno::ENOENT && w.controller == "hugetlb" {
            doing += " (/sys/kernel/mm/hugepages lists the sizes of this host)";
        }
        return Failure::errno(doing, errno).at(&w.origin);
    }
    let doing = format!(
        "the requested cgroup controller `{}` is not available in {dir}: there is no {} to write {} to",
        w.controller, w.file, w.value
    );
    let threaded = read(dir, "cgroup.type").is_ok_and(|kind| kind == "threaded");
    let hint = match controllers.trim() {
        _ if threaded => " (it is below a threaded group: choose another cgroupsPath, or remove the limit)".into(),
        "" => " (no controller is: remove the limit, or have the groups above hand theirs down by cgroup.subtree_control)".into(),
        some => format!(" (available are: {some}; remove the limit, or have the groups above hand it down by cgroup.subtree_control)"),
    };
    let doing = doing + &hint;
    match errno {
        Errno::ENOENT => Failure::says(doing),
        refused => Failure::errno(doing, refused),
    }
    .at(&w.origin)
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
