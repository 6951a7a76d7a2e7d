//! The program: found before the start, so that create tells; and the directory that it starts in.

use super::path;
use crate::failure::{Doing, Failure, Result, text};
use coracle_plan::steps::{PROGRAM, Program};
use coracle_sys::{Errno, fs, libc, process, signal};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Enters the working directory; it must lie inside the root (CVE-2024-21626).
pub(crate) fn enter(cwd: &CStr) -> Result<()> {
    fs::chdir(cwd).doing(|| format!("chdir {}", text(cwd)))?;
    match fs::getcwd() {
        Ok(now) if now.starts_with(b"/") => Ok(()),
        _ => Err(Failure::says(format!("chdir {}: it lies outside the container's root", text(cwd)))),
    }
}

/// Finds the program as execvp(3) would, with the container's own PATH.
/// The words are those that engines look for; Podman also that nothing follows them, so the place stands before.
pub(crate) fn find(program: &Program) -> Result<CString> {
    search(program).map_err(|f| Failure { doing: format!("{PROGRAM}: {}", f.doing), ..f })
}

fn search(program: &Program) -> Result<CString> {
    let Some(name) = program.argv.first() else {
        return Err(Failure::says("exec: \"\": executable file not found in $PATH"));
    };
    if name.to_bytes().contains(&b'/') {
        return usable(name).map(|()| name.clone());
    }
    let path = program.env.iter().rev().find_map(|e| e.to_bytes().strip_prefix(b"PATH="));
    let mut refused = None;
    for dir in path.unwrap_or_default().split(|b| *b == b':').filter(|d| !d.is_empty() && !name.is_empty()) {
        let whole = CString::new([dir, b"/", name.to_bytes()].concat()).unwrap_or_default();
        match usable(&whole) {
            Ok(()) => return Ok(whole),
            Err(f) if f.errno == Some(Errno::EACCES) => refused = Some(f),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        let path = path.map_or("process.env has no PATH".into(), |p| format!("PATH is {}", p.escape_ascii()));
        Failure::says(format!("{path}: exec: {}: executable file not found in $PATH", text(name)))
    }))
}

fn usable(path: &CStr) -> Result<()> {
    let stat = fs::fstatat(fs::cwd(), path, 0)
        .map_err(|e| Failure::errno(format!("exec: {0}: stat {0}", text(path)), e))?;
    if stat.kind() == libc::S_IFDIR {
        return Err(Failure::errno(format!("exec: {}: is a directory", text(path)), Errno::EACCES));
    }
    match fs::faccessat2(fs::cwd(), path, libc::X_OK, libc::AT_EACCESS) {
        // Not known before Linux 5.8, or to a filter around the runtime: the exec will tell.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        other => other.map_err(|e| Failure::errno(format!("{}exec: {}", barred(path, &stat), text(path)), e)),
    }
}

/// Why a file may not be executed.
fn barred(path: &CStr, stat: &fs::Stat) -> String {
    let mode = stat.mode & 0o7777;
    let mount = fs::open(path, libc::O_PATH, 0).and_then(|file| fs::fstatfs(file.as_fd()));
    if mode & 0o111 == 0 {
        format!("its mode {mode:04o} lets nobody execute it (chmod +x does): ")
    } else if mount.is_ok_and(|m| m.flags & libc::ST_NOEXEC != 0) {
        "it lies on a mount with the option noexec: ".into()
    } else {
        format!("its owner {}:{} and mode {mode:04o} do not let this user execute it: ", stat.uid, stat.gid)
    }
}

/// Signals as a new program expects them. Descriptors need nothing: those that are passed on came through an exec and go
/// through the next one; whatever else the caller left open was closed when this process began; what the runtime opened
/// since, which may fill a gap between those that are passed on, closes by itself at the exec.
pub(crate) fn settle() -> Result<()> {
    signal::default_actions();
    signal::set_mask(0).map(drop).doing(|| "unblocking signals".into())
}

/// The longest /etc/passwd that is read.
const PASSWD: usize = 1 << 20;

/// `HOME=` for a program whose environment has none: the user's directory in the container's /etc/passwd (a regular file, read
/// without waiting, bounded: the image is hostile), or `/`.
pub(crate) fn home(root: BorrowedFd, program: &Program, uid: u32) -> Option<CString> {
    if program.env.iter().any(|e| e.to_bytes().starts_with(b"HOME=")) {
        return None;
    }
    let open = || path::open(root, c"etc/passwd", libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY);
    let regular = |fd: &OwnedFd| fs::fstat(fd.as_fd()).is_ok_and(|s| s.kind() == libc::S_IFREG);
    let text = open()
        .ok()
        .filter(regular)
        .and_then(|fd| fs::read_to_end(fd.as_fd(), PASSWD).ok())
        .unwrap_or_default();
    let uid = uid.to_string();
    let line = text.split(|b| *b == b'\n').map(|l| l.split(|b| *b == b':').collect::<Vec<_>>());
    let found = line.into_iter().find(|f| f.len() > 5 && f[2] == uid.as_bytes() && f[5].starts_with(b"/"));
    CString::new([b"HOME=".as_slice(), found.map_or(b"/".as_slice(), |f| f[5])].concat()).ok()
}

/// Becomes the workload. Where it does not, the line goes where the program would have written, and is word for word runc's, hint
/// or none: callers compare it.
pub(crate) fn exec(path: &CStr, program: &Program, home: Option<CString>) -> Failure {
    let env: Vec<CString> = program.env.iter().cloned().chain(home).collect();
    let errno = process::execve(path, &program.argv, &env);
    Failure::errno(format!("exec {}", path.to_bytes().escape_ascii()), errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_sys::namespace;

    /// CVE-2024-21626, without the guard before this one: every descriptor of the caller is closed. In a thread with a root and
    /// a directory of its own, as root only.
    #[test]
    fn a_directory_outside_the_root_is_refused() {
        let thread = std::thread::spawn(|| {
            let outside = fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0).expect("the root");
            namespace::unshare(libc::CLONE_FS).expect("a root of its own");
            if fs::chroot(c"/proc") == Err(Errno::EPERM) {
                return;
            }
            fs::fchdir(outside.as_fd()).expect("out of the root");
            let failure = enter(c".").expect_err("outside").to_string();
            assert!(failure.contains("outside the container's root"), "{failure}");
            fs::chdir(c"/").expect("back");
            enter(c"self").expect("within");
        });
        thread.join().expect("the thread");
    }
}
