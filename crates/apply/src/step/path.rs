//! Paths below the container's root: resolved by the kernel within it (openat2, RESOLVE_IN_ROOT), never by string, so that
//! no link of a hostile root file system leads out (CVE-2021-30465, CVE-2024-45310, CVE-2025-52881).

use coracle_sys::{Errno, Result, fs, libc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often a lookup that somebody disturbs by renaming (EAGAIN) is tried again.
const TRIES: u32 = 128;
/// How many links to what does not exist yet are followed.
const LINKS: u32 = 16;

/// Opens within the root.
pub(crate) fn open(root: BorrowedFd, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    let resolve = fs::RESOLVE_IN_ROOT | fs::RESOLVE_NO_MAGICLINKS;
    for _ in 0..TRIES {
        match fs::openat2(root, path, flags, 0, resolve) {
            Err(Errno::EAGAIN) => continue,
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// The directory part and the last name.
fn split(path: &CStr) -> (CString, CString) {
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|b| *b == b'/');
    let (dir, name) = cut.map_or((b"".as_slice(), bytes), |i| (&bytes[..i], &bytes[i + 1..]));
    (c(dir), c(name))
}

/// The directory in which the last name of `path` stands (made if need be), and that name.
pub(crate) fn parent(root: BorrowedFd, path: &CStr) -> Result<(OwnedFd, CString)> {
    let (dir, name) = split(path);
    Ok((directory(root, &dir)?, name))
}

/// Opens a directory, making what is missing (0755).
pub(crate) fn directory(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make(root, path, LINKS, &|dir, name| fs::mkdirat(dir, name, 0o755))
}

/// Opens anything that stands there, or an empty regular file made in its place.
pub(crate) fn file(root: BorrowedFd, path: &CStr) -> Result<OwnedFd> {
    make(root, path, LINKS, &|dir, name| fs::mknodat(dir, name, libc::S_IFREG, 0, 0))
}

type Make<'a> = dyn Fn(BorrowedFd, &CStr) -> Result<()> + 'a;

fn make(root: BorrowedFd, path: &CStr, links: u32, create: &Make) -> Result<OwnedFd> {
    match open(root, path, libc::O_PATH) {
        Err(Errno::ENOENT) if !path.is_empty() => {}
        other => return other,
    }
    let (dir, name) = split(path);
    if name.to_bytes() == b".." {
        return Err(Errno::ENOENT);
    }
    let parent = make(root, &dir, links, &|dir, name| fs::mkdirat(dir, name, 0o755))?;
    match create(parent.as_fd(), &name) {
        Ok(()) => {}
        // A link to what does not exist: make that, within the root.
        Err(Errno::EEXIST) if links > 0 => {
            if let Ok(target) = fs::readlinkat(parent.as_fd(), &name) {
                return make(root, &beside(&dir, &target), links - 1, create);
            }
        }
        Err(e) => return Err(e),
    }
    fs::openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::RESOLVE_BENEATH)
}

/// A link's target as a path from the root.
fn beside(dir: &CStr, target: &[u8]) -> CString {
    match target.strip_prefix(b"/") {
        Some(absolute) => c(absolute),
        None => c(&[dir.to_bytes(), b"/", target].concat()),
    }
}

/// Whether the last name of `path`, directly below the root, is a symbolic link.
pub(crate) fn is_link(root: BorrowedFd, name: &CStr) -> bool {
    fs::fstatat(root, name, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.kind() == libc::S_IFLNK)
}
