//! What went wrong while doing: the act, the object, the errno, the place in config.json that asked for it.

use coracle_sys::Errno;
use std::fmt;

/// A failed act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done, to what.
    pub doing: String,
    /// Why the kernel refused.
    pub errno: Option<Errno>,
    /// JSON path of config.json, or empty. Told at the end, unless `doing` has it: callers match the end of some messages.
    pub origin: String,
}

impl Failure {
    /// The kernel refused.
    pub fn errno(doing: impl Into<String>, errno: Errno) -> Failure {
        Failure { doing: doing.into(), errno: Some(errno), origin: String::new() }
    }

    /// Something else than a syscall failed.
    pub fn says(doing: impl Into<String>) -> Failure {
        Failure { doing: doing.into(), errno: None, origin: String::new() }
    }

    /// The same, asked for at this place.
    pub fn at(mut self, origin: &str) -> Failure {
        self.origin = origin.to_owned();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", errno.desc().to_lowercase())?;
        }
        if !self.doing.contains(&self.origin) {
            write!(f, " (asked for by {})", self.origin)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Failure>;

/// Turns an errno into a failure with the act that it refused.
pub(crate) trait Doing<T> {
    /// Names the act.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for coracle_sys::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Failure::errno(what(), errno))
    }
}

/// What refuses a process so: fork(2), EAGAIN.
pub(crate) fn crowded(errno: Errno) -> &'static str {
    match errno {
        Errno::EAGAIN => {
            " (no more processes are allowed: ulimit -u of this user, pids.max of a control group, sysctl kernel.pid_max and kernel.threads-max)"
        }
        _ => "",
    }
}

/// Bytes as text for a message, control characters escaped.
pub(crate) fn text(bytes: &std::ffi::CStr) -> String {
    format!("\"{}\"", bytes.to_bytes().escape_ascii())
}

/// A path of the container, which steps have without the slash that it begins with, as config.json has it.
pub(crate) fn inside(path: &std::ffi::CStr) -> String {
    format!("\"/{}\"", path.to_bytes().escape_ascii())
}
