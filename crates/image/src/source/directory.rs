//! A layout as a directory: every file is opened beneath it, no link followed, regular files only.
//!
//! A layout from elsewhere may hold `index.json -> /etc/shadow` or a FIFO in place of a blob.

use super::Files;
use crate::blob::Blob;
use crate::error::{Doing, Error, Kind, Result};
use coracle_sys::fs::{self, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};
use coracle_sys::libc;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// An open directory of files.
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens it; the path is the caller's own, and may be a link.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open {}", path.display());
        Ok(Self(std::fs::OpenOptions::new().read(true).open(path).doing(doing)?.into()))
    }
}

impl Files for Directory {
    fn file(&self, name: &str) -> Result<Blob> {
        let doing = || format!("open {}", name.escape_debug());
        let path = CString::new(name).map_err(|_| Error::new(Kind::Corrupt, "a NUL in a name"))?;
        // Not blocking: a FIFO opens at once, and is then refused.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
        let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        let fd = fs::openat2(self.0.as_fd(), &path, flags, 0, resolve).doing(doing)?;
        let stat = fs::fstat(fd.as_fd()).doing(doing)?;
        if stat.kind() != libc::S_IFREG {
            return Err(Error::new(Kind::Corrupt, "not a regular file").within(doing()));
        }
        Ok(Blob::new(Arc::new(File::from(fd)), 0, stat.size as u64))
    }

    fn has(&self, name: &str) -> bool {
        let Ok(path) = CString::new(name) else { return false };
        fs::fstatat(self.0.as_fd(), &path, libc::AT_SYMLINK_NOFOLLOW).is_ok()
    }
}
