//! Compiled seccomp programs, kept below the state root, for compiling one takes longer than all the rest of a start.
//!
//! Whoever can write there can change any container's record as well; a file that somebody else owns or may write to is
//! not believed. The directory's name cannot be a container's id.

use coracle_sys::{creds, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const DIRECTORY: &CStr = c"@seccomp";
/// Programs kept at most; then all are dropped, for profiles rarely change.
const MOST: usize = 64;

fn open(root: &Path, make: bool) -> Option<OwnedFd> {
    let root = CString::new(root.as_os_str().as_encoded_bytes()).ok()?;
    let root = fs::open(&root, libc::O_DIRECTORY | libc::O_RDONLY, 0).ok()?;
    if make {
        let _ = fs::mkdirat(root.as_fd(), DIRECTORY, 0o700);
    }
    let dir =
        fs::openat(root.as_fd(), DIRECTORY, libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW, 0).ok()?;
    private(&dir).then_some(dir)
}

fn private(fd: &OwnedFd) -> bool {
    fs::fstat(fd.as_fd()).is_ok_and(|s| s.uid == creds::geteuid() && s.mode & 0o022 == 0)
}

/// The program kept under this key.
pub fn get(root: &Path, key: &str) -> Option<Vec<u8>> {
    let dir = open(root, false)?;
    let file =
        fs::openat(dir.as_fd(), &CString::new(key).ok()?, libc::O_RDONLY | libc::O_NOFOLLOW, 0).ok()?;
    let program = fs::read_to_end(file.as_fd(), 1 << 20).ok()?;
    (private(&file) && !program.is_empty() && program.len() % 8 == 0).then_some(program)
}

/// Keeps a program. That it cannot be kept costs time, nothing else.
pub fn put(root: &Path, key: &str, program: &[u8]) {
    let _ = try_put(root, key, program);
}

fn try_put(root: &Path, key: &str, program: &[u8]) -> Option<()> {
    let dir = open(root, true)?;
    let names = fs::read_dir(dir.as_fd()).ok()?;
    if names.len() >= MOST {
        for name in &names {
            let _ = fs::unlinkat(dir.as_fd(), name, 0);
        }
    }
    let temporary = CString::new(format!(".{key}.{}", coracle_sys::process::getpid())).ok()?;
    let file =
        fs::openat(dir.as_fd(), &temporary, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o600).ok()?;
    let written = fs::write_all(file.as_fd(), program).ok();
    let renamed = written
        .and_then(|()| fs::renameat(dir.as_fd(), &temporary, dir.as_fd(), &CString::new(key).ok()?).ok());
    renamed.or_else(|| fs::unlinkat(dir.as_fd(), &temporary, 0).ok())
}

#[cfg(test)]
mod tests {
    use super::{get, put};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_may_write_to_is_not_believed() {
        let root = std::env::temp_dir().join(format!("coracle-kept-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory");
        put(&root, "key", &[7; 8]);
        let dir = root.join("@seccomp");
        for (place, own) in [(dir.join("key"), 0o600), (dir, 0o700)] {
            let set = |mode| fs::set_permissions(&place, Permissions::from_mode(mode)).expect("its mode");
            for others in [0o020, 0o002] {
                set(own | others);
                assert_eq!(get(&root, "key"), None, "{} is writable for others", place.display());
            }
            set(own);
            assert_eq!(get(&root, "key"), Some(vec![7; 8]), "{}", place.display());
        }
        fs::remove_dir_all(&root).expect("removed");
    }
}
