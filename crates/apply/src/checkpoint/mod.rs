//! Checkpoint and restore with criu(8): which mounts, descriptors and namespaces of a container come from outside, and so are
//! not in the picture that criu takes, is found in the plan; the rest is criu's.
//!
//! `protobuf` and `swrk` talk to criu, `dump` takes the picture, `restore` makes a container of it, `mounts` is what the two
//! must agree on. Nothing here costs other commands anything.

mod dump;
mod mounts;
mod protobuf;
mod restore;
mod swrk;

use crate::failure::{Doing, Failure, Result};
use coracle_sys::{fs, libc};
use protobuf::Message;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

pub use dump::checkpoint;
pub use restore::{RestoreHow, restore};

/// Where init's descriptors 0, 1 and 2 led, beside criu's own files; the name and form are runc's.
const DESCRIPTORS: &str = "descriptors.json";

/// The criu configuration that is read when no annotation names another.
const CONFIG: &str = "/etc/criu/coracle.conf";

/// What was asked for on the command line: criu(8) explains each.
#[derive(Debug, Default)]
pub struct Options {
    /// Directory of the image.
    pub image: std::path::PathBuf,
    /// Directory of criu's log; the image's when not given.
    pub work: Option<std::path::PathBuf>,
    /// Directory of the image before this one, from the image.
    pub parent: Option<String>,
    /// Only memory, while the container runs on.
    pub pre_dump: bool,
    /// The container runs on afterwards.
    pub leave_running: bool,
    /// Established TCP connections too.
    pub tcp_established: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Close TCP connections on restore.
    pub tcp_close: bool,
    /// Unix sockets to the outside.
    pub ext_unix_sk: bool,
    /// A terminal of the caller's.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// Files that have no name any more.
    pub link_remap: bool,
    /// Memory that the parent image has is taken out there.
    pub auto_dedup: bool,
    /// Memory follows on demand.
    pub lazy_pages: bool,
    /// A descriptor to write a NUL to when the lazy page server is ready.
    pub status_fd: Option<i32>,
    /// Address and port of a page server.
    pub page_server: Option<(String, u16)>,
    /// enum criu_cg_mode.
    pub manage_cgroups: i64,
    /// enum criu_network_lock_method.
    pub network_lock: Option<i64>,
    /// LSM profile of the restored processes.
    pub lsm_profile: Option<String>,
    /// SELinux context of the restored mounts.
    pub lsm_mount_context: Option<String>,
}

impl Options {
    fn work(&self) -> &Path {
        self.work.as_deref().unwrap_or(&self.image)
    }

    /// The fields that dump and restore share: message criu_opts of rpc.proto, by number.
    fn common(&self, image: &OwnedFd, work: &OwnedFd, log: &str, config: Option<&str>) -> Message {
        Message::default()
            .number(1, image.as_raw_fd())
            .switch(4, self.ext_unix_sk)
            .switch(5, self.tcp_established)
            .switch(7, self.shell_job)
            .switch(8, self.file_locks)
            .number(9, 4) // log_level: all that helps to find a failure
            .bytes(10, log)
            .switch(12, true) // notify_scripts
            .switch(16, self.auto_dedup)
            .number(17, work.as_raw_fd())
            .switch(24, true) // manage_cgroups
            .number(34, self.manage_cgroups)
            .number(38, libc::CLONE_NEWNET) // empty_ns: interfaces are the hooks' and engines' business
            .switch(48, self.lazy_pages)
            .switch(50, true) // orphan_pts_master
            .text(51, config)
    }
}

/// The annotation names the configuration; an empty one means none.
fn config(annotations: &std::collections::BTreeMap<String, String>) -> Option<&str> {
    match annotations.get("org.criu.config").map(String::as_str) {
        Some("") => None,
        Some(file) => Some(file),
        None => Some(CONFIG),
    }
}

/// Opens a directory that is made if need be, for the owner alone.
fn directory(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    match fs::mkdirat(fs::cwd(), &name, 0o700) {
        Ok(()) | Err(coracle_sys::Errno::EEXIST) => {}
        Err(errno) => return Err(errno).doing(|| format!("making the directory {path:?}")),
    }
    open(path)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    fs::open(&name, libc::O_DIRECTORY | libc::O_RDONLY, 0).doing(|| format!("opening the directory {path:?}"))
}

/// criu's reasons stand in its log: the first is quoted, unless criu has told it itself, and the whole named.
fn explained(failure: Failure, log: &Path) -> Failure {
    const REASON: &str = "Error (";
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().find(|line| line.contains(REASON) && !failure.doing.contains(REASON));
    let reason = line.map(|l| format!(": {}", l.trim())).unwrap_or_default();
    Failure { doing: format!("{}{reason}; its log is {}", failure.doing, log.display()), ..failure }
}
