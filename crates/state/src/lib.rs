#![forbid(unsafe_code)]
//! The record of a container on disk: `<root>/<id>/record.json`, and beside it `lock`, `config.json` (as it was at create)
//! and `start` (the socket on which init waits).
//!
//! A record is written to a temporary name and renamed, so that a reader sees it whole or not at all. It is written before
//! the first side effect (intent), so that whatever dies, `delete` knows what may be left. Every command that changes
//! something holds the lock (flock(2)), which the kernel releases with the process.

pub mod kept;

use coracle_sys::{Errno, fs, libc, process};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that a waiting init holds, by runc's name: whoever searches a created container's descriptors for one that leaked
/// knows that this one is meant.
const WAITING: &CStr = c"exec.fifo";

/// How far a container has come, as far as the disk knows; whether its init still lives, only the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Create has begun and not ended.
    Creating,
    /// Create has ended well. Whether init still waits for start, the lock on `waiting` tells, which init holds until its exec.
    Created,
}

/// What later commands need of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// ociVersion of its config.json.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When create began, RFC 3339, UTC.
    pub created: String,
    /// How far it came.
    pub stage: Stage,
    /// Init as the host sees it; 0 before there is one.
    pub pid: i32,
    /// Init's start time, clock ticks since boot: tells it from another process with its pid. proc_pid_stat(5).
    pub start_time: u64,
    /// Control group from the mount's root.
    pub cgroup: Option<String>,
    /// Whether that is a v1 path.
    pub cgroup_v1: bool,
    /// The scope of systemd that the group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Its groups of the resctrl file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Rdt>,
    /// Whether this container shares a pid namespace, so that init's death does not end the others.
    pub shared_pids: bool,
    /// Whether init has a time namespace that config.json does not ask for: criu restores clocks so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_clocks: bool,
    /// The mount that the root file system lay on, where the container's mounts are made in the runtime's own mount
    /// namespace, on top of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// Annotations of config.json.
    pub annotations: BTreeMap<String, String>,
    /// Who created it.
    pub owner: u32,
}

/// Groups of the resctrl file system that a container's processes belong to, below its mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdt {
    /// The class of service; empty: the default one.
    pub class: String,
    /// Whether the class ends with the container.
    pub own: bool,
    /// The monitoring group within it, which ends with the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Whether the user's systemd has it, not the machine's.
    pub user: bool,
}

/// Why a container cannot be had from disk.
#[derive(Debug)]
pub enum Error {
    /// The id cannot name a container.
    BadId(String),
    /// No container at this path.
    Missing(PathBuf),
    /// The id is taken.
    Exists(String),
    /// The record cannot be read as one.
    Damaged(String, String),
    /// The kernel refused: doing what, to which path.
    Io(&'static str, PathBuf, Errno),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadId(id) => write!(
                f,
                "invalid container ID format: {id:?}: {}; use letters, digits, _ + - and . (- and . not first), at most 255",
                fault(id).unwrap_or_default()
            ),
            // The last words are runc's, by which engines know it.
            Error::Missing(path) => write!(
                f,
                "container {:?} is not in {} (--root chooses another directory, list shows what is there): container does not exist",
                path.file_name().unwrap_or_default(),
                path.parent().unwrap_or(path).display()
            ),
            Error::Exists(id) => {
                write!(f, "container with given ID already exists: {id:?}; delete it, or choose another id")
            }
            Error::Damaged(id, why) => {
                write!(f, "the record of container {id:?} is damaged ({why}); delete --force removes it")
            }
            Error::Io(doing, path, errno) => write!(f, "{doing} {path:?}: {}", errno.desc().to_lowercase()),
        }
    }
}

impl std::error::Error for Error {}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// A container's directory below the state root.
#[derive(Debug)]
pub struct Entry {
    /// The container's id.
    pub id: String,
    /// The directory's path.
    pub path: PathBuf,
    dir: OwnedFd,
    /// Whether this process has locked it.
    held: Cell<bool>,
}

/// Refuses what cannot be one plain name in a directory. In every command, not only create (a peer's delete of `..`
/// removed its parent directory).
pub fn check_id(id: &str) -> Result<()> {
    fault(id).map_or(Ok(()), |_| Err(Error::BadId(id.to_owned())))
}

/// What is wrong with an id. A point in front is that of directories of the state root which are no container's.
fn fault(id: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let bad = id.chars().find(|c| !fine(*c)).or(id.chars().next().filter(|c| "-.".contains(*c)));
    match bad {
        Some(c) => Some(format!("invalid character {c:?}")),
        None if id.is_empty() => Some("it is empty".into()),
        None if id.len() > 255 => Some(format!("it has {} characters", id.len())),
        None => None,
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}

fn name(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

const OPENING: &str = "opening the state directory (--root or XDG_RUNTIME_DIR chooses it)";

/// Opens the state root, making it (and its parents) for the owner alone if need be.
fn root(path: &Path) -> Result<OwnedFd> {
    let open = || fs::open(&c(path), libc::O_DIRECTORY | libc::O_RDONLY, 0);
    match open() {
        Err(Errno::ENOENT) => {}
        other => {
            return other.map_err(|e| Error::Io(OPENING, path.into(), e));
        }
    }
    for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        match fs::mkdirat(fs::cwd(), &c(part), if part == path { 0o700 } else { 0o711 }) {
            Ok(()) | Err(Errno::EEXIST | Errno::EROFS | Errno::EISDIR) => {}
            Err(e) => {
                return Err(Error::Io(
                    "making the state directory (--root or XDG_RUNTIME_DIR chooses it)",
                    part.into(),
                    e,
                ));
            }
        }
    }
    open().map_err(|e| Error::Io(OPENING, path.into(), e))
}

/// Somebody else's directory (made first, in a place open to all) is not believed: hooks that stand there would be run.
fn own(path: &Path, root: OwnedFd) -> Result<OwnedFd> {
    let euid = coracle_sys::creds::geteuid();
    match fs::fstat(root.as_fd()) {
        Ok(s) if euid != 0 && s.uid != euid => {
            Err(Error::Io("using the state directory of another user", path.into(), Errno::EPERM))
        }
        Ok(_) => Ok(root),
        Err(e) => Err(Error::Io("looking at the state directory", path.into(), e)),
    }
}

impl Entry {
    /// Takes an id: makes its directory and locks it.
    pub fn reserve(root_path: &Path, id: &str) -> Result<(Entry, Lock)> {
        check_id(id)?;
        let root = own(root_path, root(root_path)?)?;
        loop {
            match fs::mkdirat(root.as_fd(), &name(id), 0o700) {
                Ok(()) => {}
                Err(Errno::EEXIST) => match Entry::in_root(root.as_fd(), root_path, id) {
                    Ok(entry) if entry.discard_unborn() => continue,
                    Err(Error::Missing(_)) => continue,
                    _ => return Err(Error::Exists(id.into())),
                },
                Err(e) => return Err(Error::Io("making", root_path.join(id), e)),
            }
            let entry = Entry::in_root(root.as_fd(), root_path, id);
            match entry.and_then(|entry| entry.lock().map(|lock| (entry, lock))) {
                // Before the lock was had, somebody took it for what a command had left that died.
                Err(Error::Missing(_)) => {}
                Err(e) => {
                    // Of no descriptors or locks that are left, say. It is empty: nobody has written anything yet.
                    let _ = fs::unlinkat(root.as_fd(), &name(id), libc::AT_REMOVEDIR);
                    return Err(e);
                }
                // Another's, made where ours was.
                Ok((entry, _)) if entry.read("record.json").is_ok() => return Err(Error::Exists(id.into())),
                taken => return taken,
            }
        }
    }

    /// Removes the directory if no container belongs to it: no command works on it, and there is no record, which create
    /// writes before its first side effect. Returns whether it is gone.
    pub fn discard_unborn(&self) -> bool {
        let Ok(own) = fs::openat(self.dir(), c".", libc::O_DIRECTORY | libc::O_RDONLY, 0) else {
            return false;
        };
        fs::flock(own.as_fd(), libc::LOCK_EX | libc::LOCK_NB).is_ok()
            && fs::fstat(own.as_fd()).is_ok_and(|s| s.nlink > 0)
            && matches!(self.read("record.json"), Err(Errno::ENOENT))
            && self.remove().is_ok()
    }

    /// Finds a container.
    pub fn open(root_path: &Path, id: &str) -> Result<Entry> {
        check_id(id)?;
        match fs::open(&c(root_path), libc::O_DIRECTORY | libc::O_RDONLY, 0) {
            Ok(root) => Entry::in_root(own(root_path, root)?.as_fd(), root_path, id),
            Err(Errno::ENOENT) => Err(Error::Missing(root_path.join(id))),
            Err(e) => Err(Error::Io(OPENING, root_path.into(), e)),
        }
    }

    fn in_root(root: BorrowedFd, root_path: &Path, id: &str) -> Result<Entry> {
        let path = root_path.join(id);
        match fs::openat(root, &name(id), libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_RDONLY, 0) {
            Ok(dir) => Ok(Entry { id: id.into(), path, dir, held: Cell::new(false) }),
            Err(Errno::ENOENT) => Err(Error::Missing(path)),
            Err(e) => Err(Error::Io("opening", path, e)),
        }
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Locks the container for one command; waits while another has it. A container that was deleted meanwhile is missing.
    fn lock(&self) -> Result<Lock> {
        fs::flock(self.dir(), libc::LOCK_EX).map_err(|e| self.unlockable(e))?;
        self.locked()
    }

    /// As `lock`, for so long at most: `None` when another command has it still.
    pub fn lock_within(&self, patience: Duration) -> Result<Option<Lock>> {
        let (end, mut pause) = (Instant::now() + patience, Duration::from_micros(200));
        loop {
            match fs::flock(self.dir(), libc::LOCK_EX | libc::LOCK_NB) {
                Ok(()) => return self.locked().map(Some),
                Err(Errno::EWOULDBLOCK) if Instant::now() < end => std::thread::sleep(pause),
                Err(Errno::EWOULDBLOCK) => return Ok(None),
                Err(e) => return Err(self.unlockable(e)),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn locked(&self) -> Result<Lock> {
        if fs::fstat(self.dir()).map_err(|e| self.unlockable(e))?.nlink == 0 {
            return Err(Error::Missing(self.path.clone()));
        }
        let fd = fs::dup_from(self.dir(), 3).map_err(|e| self.unlockable(e))?;
        self.held.set(true);
        Ok(Lock { fd })
    }

    fn unlockable(&self, errno: Errno) -> Error {
        Error::Io("locking", self.path.clone(), errno)
    }

    /// The process that has the container's lock, as proc_locks(5) tells; `None`: nobody has, or it cannot be seen from here.
    pub fn holder(&self) -> Option<i32> {
        let inode = fs::fstat(self.dir()).ok()?.ino.to_string();
        let locks = fs::open(c"/proc/locks", libc::O_RDONLY, 0).ok()?;
        let locks = fs::read_to_end(locks.as_fd(), 16 << 20).ok()?;
        String::from_utf8_lossy(&locks).lines().find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else { return None };
            // Its device may be given by another number than stat(2) gives (btrfs): the inode's has to do.
            (file.rsplit(':').next() == Some(&inode)).then(|| pid.parse().ok().filter(|pid| *pid > 0))?
        })
    }

    /// Whether another command is working on this container now.
    pub fn busy(&self) -> bool {
        if self.held.get() {
            return false;
        }
        match fs::openat(self.dir(), c".", libc::O_DIRECTORY | libc::O_RDONLY, 0) {
            Ok(own) => fs::flock(own.as_fd(), libc::LOCK_SH | libc::LOCK_NB) == Err(Errno::EWOULDBLOCK),
            Err(_) => false,
        }
    }

    /// Reads a file of the directory.
    pub fn read(&self, file: &str) -> std::result::Result<Vec<u8>, Errno> {
        let fd = fs::openat(self.dir(), &name(file), libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
        fs::read_to_end(fd.as_fd(), 64 << 20)
    }

    /// Writes a file of the directory, whole or not at all.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let failed = |e| Error::Io("writing", self.path.join(file), e);
        let (new, temporary) = (name(file), name(&format!(".{file}.new")));
        let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_NOFOLLOW;
        let fd = fs::openat(self.dir(), &temporary, flags, 0o600).map_err(failed)?;
        fs::write_all(fd.as_fd(), bytes).map_err(failed)?;
        // Exchanged, not replaced: ext4 writes a file out at once that replaces another (auto_da_alloc in its documentation),
        // and a record is mostly gone before it would ever be written out.
        match fs::exchange(self.dir(), &temporary, &new) {
            Ok(()) => fs::unlinkat(self.dir(), &temporary, 0).map_err(failed),
            // None is there yet; or a file system that cannot exchange.
            Err(_) => fs::renameat(self.dir(), &temporary, self.dir(), &new).map_err(failed),
        }
    }

    /// Reads a file of the directory that may not be there. Errors: the kernel refused, which says nothing of that.
    pub fn find(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match self.read(file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(Error::Io("reading", self.path.join(file), e)),
        }
    }

    /// The record; `None` where create has not come to write one.
    /// Errors: it cannot be understood (`Damaged`); the kernel refused.
    pub fn written(&self) -> Result<Option<Record>> {
        let Some(bytes) = self.find("record.json")? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::Damaged(self.id.clone(), e.to_string()))
    }

    /// The record. Errors: as those of `written`; there is none (`Damaged`).
    pub fn record(&self) -> Result<Record> {
        self.written()?.ok_or_else(|| Error::Damaged(self.id.clone(), "it has no record.json".into()))
    }

    /// Writes the record.
    pub fn save(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| Error::Damaged(self.id.clone(), e.to_string()))?;
        self.write("record.json", &bytes)
    }

    /// Removes the directory and everything in it (it is flat).
    pub fn remove(&self) -> Result<()> {
        let failed = |e| Error::Io("removing", self.path.clone(), e);
        let again = fs::openat(self.dir(), c".", libc::O_DIRECTORY | libc::O_RDONLY, 0);
        for file in again.and_then(|d| fs::read_dir(d.as_fd())).map_err(failed)? {
            match fs::unlinkat(self.dir(), &file, 0) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) => remove_directory(self.dir(), &file).map_err(failed)?,
                Err(e) => return Err(failed(e)),
            }
        }
        match fs::unlinkat(fs::cwd(), &c(&self.path), libc::AT_REMOVEDIR) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

/// A directory of files only.
fn remove_directory(at: BorrowedFd, name: &CStr) -> std::result::Result<(), Errno> {
    let flags = libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW;
    let directory = fs::openat(at, name, flags, 0)?;
    for file in fs::read_dir(directory.as_fd())? {
        fs::unlinkat(directory.as_fd(), &file, 0)?;
    }
    fs::unlinkat(at, name, libc::AT_REMOVEDIR)
}

/// Held while a command works on a container; released when dropped.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The entry's own descriptor shares the lock: it is let go here, not when the last copy closes.
        let _ = fs::flock(self.fd.as_fd(), libc::LOCK_UN);
    }
}

/// The ids below a state root, sorted; none when the root does not exist.
pub fn ids(root_path: &Path) -> Result<Vec<String>> {
    let root = match fs::open(&c(root_path), libc::O_DIRECTORY | libc::O_RDONLY, 0) {
        Ok(root) => own(root_path, root)?,
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        Err(e) => {
            return Err(Error::Io(OPENING, root_path.into(), e));
        }
    };
    let names = fs::read_dir(root.as_fd()).map_err(|e| Error::Io("listing", root_path.into(), e))?;
    let mut ids: Vec<String> =
        names.into_iter().filter_map(|n| n.into_string().ok()).filter(|n| check_id(n).is_ok()).collect();
    ids.sort();
    Ok(ids)
}

/// A process that is surely the recorded one.
#[derive(Debug)]
pub struct Init {
    /// A descriptor for it: signals sent through it never reach another process.
    pub pidfd: OwnedFd,
    /// Its pid.
    pub pid: i32,
}

/// State letter and start time of a process: proc_pid_stat(5), fields 3 and 22. `None` when there is no such process.
fn process_facts(pid: i32) -> std::result::Result<Option<(u8, u64)>, Errno> {
    let mut buffer = [0u8; 1024];
    let read = fs::open(&name(&format!("/proc/{pid}/stat")), libc::O_RDONLY, 0)
        .and_then(|fd| fs::read(fd.as_fd(), &mut buffer));
    match read {
        Ok(n) => parse_stat(&buffer[..n]).map(Some).ok_or(Errno::EIO),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

fn unknown(pid: i32, e: Errno) -> Error {
    Error::Io("asking after the process", format!("/proc/{pid}").into(), e)
}

fn parse_stat(text: &[u8]) -> Option<(u8, u64)> {
    // The command's name may hold spaces and parentheses: count from the last one.
    let end = text.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = text.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Record {
    /// Notes down that this process is init.
    /// Errors: the kernel does not tell when it began; without that, whoever asks later takes it for dead.
    pub fn set_init(&mut self, pid: i32) -> Result<()> {
        let facts = process_facts(pid).and_then(|facts| facts.ok_or(Errno::ESRCH));
        let (_, start) = facts.map_err(|e| unknown(pid, e))?;
        (self.pid, self.start_time) = (pid, start);
        Ok(())
    }

    /// Init, if it lives: first the descriptor, then the start time, so that the pid cannot change hands in between.
    /// Errors: the kernel could not say (too many open files, no memory): that is not the same as dead.
    pub fn init(&self) -> Result<Option<Init>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let failed = |e| unknown(self.pid, e);
        let pidfd = match process::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            // No such process; or the number is a thread's by now. pidfd_open(2).
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let facts = process_facts(self.pid).map_err(failed)?;
        let alive =
            facts.is_some_and(|(state, start)| start == self.start_time && !matches!(state, b'Z' | b'X'));
        Ok(alive.then_some(Init { pidfd, pid: self.pid }))
    }

    /// The state of runtime.md, as hooks get it on standard input.
    pub fn state_json(&self, status: &str, pid: i32) -> Vec<u8> {
        self.state_value(status, pid).to_string().into_bytes()
    }

    /// The container process state of config-linux.md, as a seccomp agent gets it with the listener: `pid` is the filtered
    /// process, which is init unless a record says otherwise.
    pub fn process_state_json(&self, status: &str, pid: i32, metadata: &str) -> Vec<u8> {
        let init = if self.pid > 0 { self.pid } else { pid };
        serde_json::json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": metadata,
            "state": self.state_value(status, init),
        })
        .to_string()
        .into_bytes()
    }

    fn state_value(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version, "id": self.id, "status": status, "bundle": self.bundle, "annotations": self.annotations,
        });
        if pid > 0 {
            state["pid"] = pid.into();
        }
        state
    }
}

impl Entry {
    /// A descriptor that holds the lock by which init is known to wait: it keeps it until it becomes the workload.
    pub fn waiting(&self) -> Result<OwnedFd> {
        let failed = |e| Error::Io("making", self.path.join("exec.fifo"), e);
        let fd = fs::openat(self.dir(), WAITING, libc::O_CREAT | libc::O_RDWR | libc::O_NOFOLLOW, 0o600)
            .map_err(failed)?;
        fs::flock(fd.as_fd(), libc::LOCK_EX | libc::LOCK_NB).map_err(failed)?;
        Ok(fd)
    }

    fn waits(&self) -> Result<bool> {
        let open = fs::openat(self.dir(), WAITING, libc::O_RDWR | libc::O_NOFOLLOW, 0);
        match open.and_then(|fd| fs::flock(fd.as_fd(), libc::LOCK_SH | libc::LOCK_NB)) {
            Ok(()) | Err(Errno::ENOENT) => Ok(false),
            Err(Errno::EWOULDBLOCK) => Ok(true),
            Err(e) => Err(Error::Io("asking after the lock of", self.path.join("exec.fifo"), e)),
        }
    }

    /// Status in runtime.md's words, from what the kernel says now, and init if it lives.
    /// Errors: the kernel could not say whether init lives, or waits.
    pub fn status(&self, record: &Record) -> Result<(&'static str, Option<Init>)> {
        Ok(match (record.init()?, record.stage) {
            (None, Stage::Creating) if self.busy() => ("creating", None),
            (None, _) => ("stopped", None),
            (Some(init), Stage::Creating) if self.busy() => ("creating", Some(init)),
            // Init outlives create only once all is done but the last line of the record.
            (Some(init), _) => (if self.waits()? { "created" } else { "running" }, Some(init)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", ".a", "a/b", "../x", "/abs", "a\nb", "-f", &"a".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id("web-1_a.b+c").is_ok());
    }

    #[test]
    fn an_id_is_taken_once_and_gone_after_removal() {
        let root = std::env::temp_dir().join(format!("coracle-state-{}", process::getpid()));
        let (entry, _lock) = Entry::reserve(&root, "a").expect("reserved");
        assert!(matches!(Entry::reserve(&root, "a"), Err(Error::Exists(_))));
        assert!(matches!(entry.record(), Err(Error::Damaged(..))));
        assert_eq!(ids(&root).expect("list"), ["a"]);
        entry.remove().expect("removed");
        assert!(matches!(Entry::open(&root, "a"), Err(Error::Missing(_))));
        std::fs::remove_dir(&root).expect("empty");
    }

    #[test]
    fn what_died_before_its_record_gives_the_id_back() {
        let root = std::env::temp_dir().join(format!("coracle-unborn-{}", process::getpid()));
        let (entry, lock) = Entry::reserve(&root, "a").expect("reserved");
        assert!(!entry.discard_unborn(), "somebody works on it");
        let other = Entry::open(&root, "a").expect("opened");
        assert!(matches!(other.lock_within(Duration::from_millis(5)), Ok(None)));
        assert_eq!(other.holder(), Some(process::getpid()));
        assert!(matches!(Entry::reserve(&root, "a"), Err(Error::Exists(_))));
        drop(lock);
        let (again, lock) = Entry::reserve(&root, "a").expect("nobody works on it, and it has no record");
        assert!(matches!(entry.lock(), Err(Error::Missing(_))));
        again.write("record.json", b"whatever").expect("written");
        drop(lock);
        assert!(!again.discard_unborn(), "it has a record");
        assert!(matches!(Entry::reserve(&root, "a"), Err(Error::Exists(_))));
        again.remove().expect("removed");
        std::fs::remove_dir(&root).expect("empty");
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let (state, start) = process_facts(process::getpid()).expect("read").expect("own stat");
        assert!(b"RS".contains(&state) && start > 0);
    }

    #[test]
    fn nobody_is_noted_down_whose_start_is_not_known() {
        let json = r#"{"ociVersion": "1.2.0", "id": "a", "bundle": "/", "rootfs": "/", "created": "", "stage": "creating",
            "pid": 0, "startTime": 0, "cgroup": null, "cgroupV1": false, "sharedPids": false, "annotations": {}, "owner": 0}"#;
        let mut record: Record = serde_json::from_str(json).expect("a record");
        // Beyond PID_MAX_LIMIT: nobody's.
        assert!(matches!(record.set_init(i32::MAX), Err(Error::Io(..))));
        assert_eq!((record.pid, record.start_time), (0, 0));
        record.set_init(process::getpid()).expect("noted");
        assert!(record.init().expect("read").is_some());
    }
}
