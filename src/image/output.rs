//! Where the output of a container goes that nobody waits for.

use coracle_sys::fs;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Beside config.json.
const NAME: &str = "output";

/// The file for a container's output. Errors: it cannot be made.
pub(super) fn open(bundle: &Path) -> Result<File, String> {
    let path = bundle.join(NAME);
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path);
    file.map_err(|e| format!("making {}: {}", path.display(), crate::log::reason(&e)))
}

/// Standard output and error, put aside while a process is made that is to have others; they come back when it is dropped.
pub(crate) struct Aside([OwnedFd; 2]);

impl Aside {
    /// Errors: one of the two is not open, or there are no descriptors left.
    pub(crate) fn put(other: &File) -> Result<Self, String> {
        let said = |e: &dyn std::fmt::Display| format!("putting standard output aside: {e}");
        let own = |number| {
            let own = fs::inherited(number).map_err(|e| said(&e))?;
            own.try_clone_to_owned().map_err(|e| said(&e))
        };
        let aside = Self([own(1)?, own(2)?]);
        for number in [1, 2] {
            fs::dup_onto(other.as_fd(), number).map_err(|e| said(&e))?;
        }
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for (own, number) in self.0.iter().zip([1, 2]) {
            // It was open there before: this fails for want of nothing.
            let _ = fs::dup_onto(own.as_fd(), number);
        }
    }
}
