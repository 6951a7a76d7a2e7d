//! A group with all below it, which the container may have made itself: under names of any bytes, and further below each
//! other than a path has room for. So none of them is found by its path: one descriptor goes down and up again.

use super::c;
use coracle_sys::{Errno, Result, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Removes a group; fine when it is gone. Errors: EBUSY while it has processes or others below.
pub(super) fn rmdir(dir: &str) -> Result<()> {
    rmdir_at(fs::cwd(), &c(dir))
}

fn rmdir_at(at: BorrowedFd, name: &CStr) -> Result<()> {
    match fs::unlinkat(at, name, libc::AT_REMOVEDIR) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Removes a group and those below, the deepest first; fine when it is gone. Errors: EBUSY while one of them has processes.
pub(super) fn remove(dir: &str) -> Result<()> {
    // Nearly always there is nothing below: the plain call first.
    match rmdir(dir) {
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
        other => return other,
    }
    below(fs::cwd(), &c(dir), &mut |at, name| rmdir_at(at, name))?;
    rmdir(dir)
}

/// The processes of a group and of those below it; none of one that is gone. Errors: one of them could not be read.
pub(super) fn processes(dir: &str) -> Result<Vec<i32>> {
    let mut all = members(fs::cwd(), &c(dir))?;
    let each = &mut |at: BorrowedFd, name: &CStr| members(at, name).map(|more| all.extend(more));
    match below(fs::cwd(), &c(dir), each) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(all),
        Err(e) => Err(e),
    }
}

/// The processes of one group; a threaded one lists none, but its threads: cgroup-v2.rst, Threads.
fn members(at: BorrowedFd, name: &CStr) -> Result<Vec<i32>> {
    match listed(at, name, "cgroup.procs") {
        Err(Errno::EOPNOTSUPP) => {
            Ok(listed(at, name, "cgroup.threads")?.into_iter().filter_map(process_of).collect())
        }
        other => other,
    }
}

/// What a file of a group lists; nothing of one that is gone.
fn listed(at: BorrowedFd, name: &CStr, file: &str) -> Result<Vec<i32>> {
    let file = CString::new([name.to_bytes(), b"/", file.as_bytes()].concat()).unwrap_or_default();
    let text = fs::openat(at, &file, libc::O_RDONLY, 0).and_then(|fd| fs::read_to_end(fd.as_fd(), 1 << 20));
    match text {
        Ok(text) => Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect()),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The process that a thread belongs to: proc_pid_status(5), Tgid.
fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Calls for each group below one, after those below it: with the open group that it stands in, and its name there.
fn below(at: BorrowedFd, top: &CStr, each: &mut dyn FnMut(BorrowedFd, &CStr) -> Result<()>) -> Result<()> {
    let mut here = open(at, top)?;
    // Of each level down to here the names that are left; the last of each is the one that led on.
    let mut left = vec![children(here.as_fd())?];
    while let Some(names) = left.last_mut() {
        match names.last().map(|name| open(here.as_fd(), name)) {
            Some(Ok(next)) => {
                left.push(children(next.as_fd())?);
                here = next;
            }
            Some(Err(Errno::ENOENT)) => drop(names.pop()),
            Some(Err(e)) => return Err(e),
            None => {
                left.pop();
                if let Some(name) = left.last_mut().and_then(Vec::pop) {
                    // A group cannot be moved out of the one that it stands in: cgroups(7).
                    here = open(here.as_fd(), c"..")?;
                    each(here.as_fd(), &name)?;
                }
            }
        }
    }
    Ok(())
}

fn open(at: BorrowedFd, name: &CStr) -> Result<OwnedFd> {
    fs::openat(at, name, libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW, 0)
}

fn children(dir: BorrowedFd) -> Result<Vec<CString>> {
    let directory =
        |n: &CString| fs::fstatat(dir, n, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.kind() == libc::S_IFDIR);
    Ok(fs::read_dir(dir)?.into_iter().filter(directory).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_below_is_removed_however_deep_and_whatever_it_is_called() {
        let top = std::env::temp_dir().join(format!("coracle-tree-{}", std::process::id()));
        std::fs::create_dir(&top).expect("made");
        let name = c"a-name-that-fills-a-path-sooner\xff\x01";
        let mut here = open(fs::cwd(), &c(top.to_str().expect("text"))).expect("open");
        for _ in 0..300 {
            fs::mkdirat(here.as_fd(), c"beside", 0o700).expect("made");
            fs::mkdirat(here.as_fd(), name, 0o700).expect("made");
            here = open(here.as_fd(), name).expect("open");
        }
        drop(here);
        assert_eq!(remove(top.to_str().expect("text")), Ok(()));
        assert!(!top.exists());
        assert_eq!(remove(top.to_str().expect("text")), Ok(()), "gone already");
    }
}
