//! The file that a caller asks to find init's pid in. It gets its name last (open(2), O_TMPFILE): a reader sees it whole
//! or not at all, and a runtime that is killed on the way leaves nothing beside it.

use crate::failure::{Doing, Result};
use coracle_sys::{Errno, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The pid in decimal, nothing else; whole or not at all. Where the file system cannot make a file without a name, it
/// has another one first.
pub(crate) fn write(file: &Path, pid: i32) -> Result<()> {
    let directory = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (directory, name) = (c(directory), c(file));
    let doing = || format!("writing the pid file {file:?}");
    match fs::open(&directory, libc::O_TMPFILE | libc::O_WRONLY, 0o644) {
        Ok(fd) => {
            fs::write_all(fd.as_fd(), pid.to_string().as_bytes()).doing(doing)?;
            give_name(&fd, &name).doing(doing)
        }
        Err(Errno::EOPNOTSUPP) => write_and_rename(file, &name, pid).doing(doing),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}

fn give_name(fd: &OwnedFd, name: &CStr) -> coracle_sys::Result<()> {
    let own = fs::proc_fd_path(fd);
    let link = || fs::linkat(fs::cwd(), &own, fs::cwd(), name, libc::AT_SYMLINK_FOLLOW);
    match link() {
        Err(Errno::EEXIST) => fs::unlinkat(fs::cwd(), name, 0).and_then(|()| link()),
        other => other,
    }
}

fn write_and_rename(file: &Path, name: &CStr, pid: i32) -> coracle_sys::Result<()> {
    let last = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = c(&file.with_file_name(format!(".{last}")));
    // A file of that name is somebody else's, or what a runtime left that was killed here.
    let _ = fs::unlinkat(fs::cwd(), &temporary, 0);
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    let fd = fs::open(&temporary, flags, 0o644)?;
    fs::write_all(fd.as_fd(), pid.to_string().as_bytes())?;
    fs::renameat(fs::cwd(), &temporary, fs::cwd(), name)
}
