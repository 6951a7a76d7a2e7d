//! Control groups: made before the clone, found again by path, killed and removed. v2 here and in `v2`, v1 in `v1`.

mod v1;
mod v2;

use crate::failure::{Doing, Failure, Result};
use coracle_plan::inputs::CgroupMode;
use coracle_plan::steps::Cgroup as Plan;
use coracle_sys::{Errno, fs, libc};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) use v1::hierarchies;

/// How long a group may take to become empty after its processes were killed.
const EMPTY: Duration = Duration::from_secs(10);

/// A control group of a container.
pub struct Cgroup {
    /// From the mount's root.
    pub path: String,
    /// Its directories: one of v2, or one a v1 hierarchy.
    dirs: Vec<String>,
    v2: bool,
}

pub(crate) fn c(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

/// Writes a value into a file of a group in one write.
pub(crate) fn write(dir: &str, file: &str, value: &str) -> coracle_sys::Result<()> {
    let fd = fs::open(&c(&format!("{dir}/{file}")), libc::O_WRONLY, 0)?;
    fs::write(fd.as_fd(), value.as_bytes()).map(drop)
}

/// Reads a file of a group, without the newline at its end.
pub(crate) fn read(dir: &str, file: &str) -> coracle_sys::Result<String> {
    let fd = fs::open(&c(&format!("{dir}/{file}")), libc::O_RDONLY, 0)?;
    fs::read_to_end(fd.as_fd(), 1 << 20).map(|b| String::from_utf8_lossy(&b).trim_end().to_owned())
}

impl Cgroup {
    /// Finds a container's group by what its record says.
    pub fn known(path: &str, legacy: bool) -> Cgroup {
        let dirs = match legacy {
            false => vec![format!("{}{path}", v2::ROOT)],
            true => hierarchies().iter().map(|h| format!("{}{path}", h.mount)).collect(),
        };
        Cgroup { path: path.to_owned(), dirs, v2: !legacy }
    }

    /// Makes the group and sets its limits. `None` when none is asked for, or none can be had and none is needed (then the
    /// warning says so).
    pub fn create(plan: &Plan, warnings: &mut Vec<String>) -> Result<Option<Cgroup>> {
        let Some(path) = &plan.path else { return Ok(None) };
        let cgroup = Cgroup::known(path, plan.mode == CgroupMode::Legacy);
        let made = if cgroup.v2 {
            v2::create(plan, &cgroup.dirs[0], warnings)
        } else {
            v1::create(plan, path, &cgroup.dirs, warnings)
        };
        match made {
            Ok(()) => Ok(Some(cgroup)),
            Err(failure) => {
                let _ = cgroup.remove();
                let refused = matches!(failure.errno, Some(Errno::EACCES | Errno::EPERM | Errno::EROFS));
                if plan.optional && refused && plan.writes.is_empty() {
                    warnings.push(format!("{failure}; the container runs in the caller's control group"));
                    return Ok(None);
                }
                Err(failure)
            }
        }
    }

    /// The directory to clone into, of v2.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>> {
        if !self.v2 {
            return Ok(None);
        }
        let dir = &self.dirs[0];
        fs::open(&c(dir), libc::O_DIRECTORY | libc::O_RDONLY, 0).doing(|| format!("opening {dir}")).map(Some)
    }

    /// Moves a process in, where it could not be born in.
    pub fn attach(&self, pid: i32) -> Result<()> {
        for dir in self.dirs.iter().filter(|d| exists(d)) {
            write(dir, "cgroup.procs", &pid.to_string())
                .doing(|| format!("moving process {pid} into {dir}"))?;
        }
        Ok(())
    }

    /// All processes of the group and of those below it.
    pub fn processes(&self) -> Vec<i32> {
        let mut all = Vec::new();
        for dir in &self.dirs {
            for below in tree(dir) {
                all.extend(
                    read(&below, "cgroup.procs")
                        .unwrap_or_default()
                        .lines()
                        .filter_map(|l| l.parse::<i32>().ok()),
                );
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Sends a signal to every process.
    pub fn signal_all(&self, signal: i32) {
        if signal == libc::SIGKILL && self.v2 && write(&self.dirs[0], "cgroup.kill", "1").is_ok() {
            return;
        }
        for pid in self.processes() {
            let _ = coracle_sys::process::kill(pid, signal);
        }
    }

    /// Whether it is frozen.
    pub fn frozen(&self) -> bool {
        if self.v2 {
            read(&self.dirs[0], "cgroup.freeze").is_ok_and(|t| t == "1")
        } else {
            v1::frozen(&self.path)
        }
    }

    /// Freezes or thaws; returns when it is done.
    pub fn freeze(&self, on: bool) -> Result<()> {
        if !self.v2 {
            return v1::freeze(&self.path, on);
        }
        let dir = &self.dirs[0];
        write(dir, "cgroup.freeze", if on { "1" } else { "0" })
            .doing(|| format!("writing {dir}/cgroup.freeze"))?;
        let wanted = if on { "frozen 1" } else { "frozen 0" };
        v2::await_event(dir, wanted, EMPTY)
    }

    /// Kills what is in it, waits until it is empty, removes it and all below. Fine when it is gone already.
    pub fn remove(&self) -> Result<()> {
        if !self.dirs.iter().any(|d| exists(d)) {
            return Ok(());
        }
        if self.v2 {
            self.signal_all(libc::SIGKILL);
            let _ = write(&self.dirs[0], "cgroup.freeze", "0");
        } else {
            let _ = v1::freeze(&self.path, false);
        }
        let end = Instant::now() + EMPTY;
        loop {
            let left = self.dirs.iter().find_map(|dir| rmdir_tree(dir).err().map(|e| (dir, e)));
            match left {
                None => return Ok(()),
                Some((_, Errno::EBUSY)) if Instant::now() < end => self.empty(),
                Some((dir, errno)) => return Err(Failure::errno(format!("removing {dir}"), errno)),
            }
        }
    }

    fn empty(&self) {
        self.signal_all(libc::SIGKILL);
        if self.v2 {
            let _ = v2::await_event(&self.dirs[0], "populated 0", Duration::from_millis(100));
        } else {
            // v1 has no event to wait for.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn exists(dir: &str) -> bool {
    fs::fstatat(fs::cwd(), &c(dir), 0).is_ok()
}

/// A directory and those below, deepest first.
fn tree(dir: &str) -> Vec<String> {
    let mut out = Vec::new();
    let list = fs::open(&c(dir), libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW, 0)
        .and_then(|d| children(d.as_fd()));
    for name in list.unwrap_or_default() {
        out.extend(tree(&format!("{dir}/{name}")));
    }
    out.push(dir.to_owned());
    out
}

fn children(dir: BorrowedFd) -> coracle_sys::Result<Vec<String>> {
    let directory =
        |n: &CString| fs::fstatat(dir, n, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.kind() == libc::S_IFDIR);
    Ok(fs::read_dir(dir)?.into_iter().filter(directory).filter_map(|n| n.into_string().ok()).collect())
}

fn rmdir_tree(dir: &str) -> coracle_sys::Result<()> {
    let rmdir = |d: &str| match fs::unlinkat(fs::cwd(), &c(d), libc::AT_REMOVEDIR) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    };
    // Nearly always there is nothing below: the plain call first.
    match rmdir(dir) {
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => tree(dir).iter().try_for_each(|d| rmdir(d)),
        other => other,
    }
}
