//! Processes: making, waiting, signalling, becoming another program.

use crate::{Errno, Result, own, syscall};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What to clone: namespace flags, and the cgroup v2 directory that the child is born into.
pub struct CloneArgs<'a> {
    /// CLONE_NEW* flags.
    pub flags: u64,
    /// A cgroup v2 directory (CLONE_INTO_CGROUP, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a sibling: its parent is ours (CLONE_PARENT). Then no exit signal is given.
    pub sibling: bool,
}

/// Which side of the clone this is.
pub enum Cloned {
    /// The parent: the child's pid and a descriptor for it.
    Parent(i32, OwnedFd),
    /// The child.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct RawCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `clone3(2)` with a copied address space, like fork: the child returns here too.
///
/// Only namespace flags are taken (EINVAL otherwise), so that memory and stack are never shared. The process must have
/// a single thread: no lock of the C library can then be held by somebody who is gone in the child.
pub fn clone3(args: &CloneArgs) -> Result<Cloned> {
    const NEW: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    const NEW_TOO: i32 = libc::CLONE_NEWUTS | libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP;
    let known = (NEW | NEW_TOO) as u64;
    if args.flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    debug_assert_eq!(std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count), 1, "one thread");
    let mut pidfd: i32 = -1;
    let mut raw = RawCloneArgs {
        flags: args.flags | libc::CLONE_PIDFD as u64,
        pidfd: &mut pidfd as *mut i32 as u64,
        exit_signal: if args.sibling { 0 } else { libc::SIGCHLD as u64 },
        ..RawCloneArgs::default()
    };
    if args.sibling {
        raw.flags |= libc::CLONE_PARENT as u64;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    let size = std::mem::size_of::<RawCloneArgs>();
    // SAFETY: raw has the layout of struct clone_args (88 bytes, version 2); without CLONE_VM the child runs on its own
    // copy of this stack; pidfd lives until the call returns.
    match unsafe { syscall!(libc::SYS_clone3, &mut raw as *mut RawCloneArgs, size) }? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent(pid as i32, own(pidfd as usize))),
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// `execveat(2)` of an open file (AT_EMPTY_PATH). Returns only when it failed.
pub fn exec_fd(fd: BorrowedFd, argv: &[CString], envp: &[CString]) -> Errno {
    let (a, e) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays are null-terminated arrays of terminated strings that outlive the call.
    unsafe {
        syscall!(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            a.as_ptr(),
            e.as_ptr(),
            libc::AT_EMPTY_PATH
        )
    }
    .expect_err("a successful exec does not return")
}

/// `execve(2)`. Returns only when it failed.
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let (a, e) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays are null-terminated arrays of terminated strings that outlive the call.
    unsafe { syscall!(libc::SYS_execve, path.as_ptr(), a.as_ptr(), e.as_ptr()) }
        .expect_err("a successful exec does not return")
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Exit code.
    Exited(i32),
    /// Signal number.
    Signaled(i32),
}

impl Status {
    /// The shell's convention: the code, or 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(code) => code,
            Status::Signaled(signal) => 128 + signal,
        }
    }
}

/// `wait4(2)` for one child (or any, with -1); `None` when WNOHANG was given and nobody has ended.
pub fn wait(pid: i32, flags: i32) -> Result<Option<(i32, Status)>> {
    let mut status: i32 = 0;
    loop {
        // SAFETY: status is room for one int; no rusage is asked for.
        match unsafe { syscall!(libc::SYS_wait4, pid, &mut status as *mut i32, flags | libc::__WALL, 0) } {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(who) if libc::WIFSIGNALED(status) => {
                return Ok(Some((who as i32, Status::Signaled(libc::WTERMSIG(status)))));
            }
            Ok(who) => return Ok(Some((who as i32, Status::Exited(libc::WEXITSTATUS(status))))),
        }
    }
}

/// `pidfd_open(2)`.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_pidfd_open, pid, 0) }.map(own)
}

/// `pidfd_send_signal(2)`.
pub fn pidfd_send_signal(fd: BorrowedFd, signal: i32) -> Result<()> {
    // SAFETY: plain integers; the siginfo pointer is null.
    unsafe { syscall!(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, 0, 0) }.map(drop)
}

/// `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_kill, pid, signal) }.map(drop)
}

/// `getpid(2)`.
pub fn getpid() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::getpid() }
}

/// `setsid(2)`.
pub fn setsid() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { syscall!(libc::SYS_setsid) }.map(drop)
}

/// `_exit(2)`: no destructor, no buffer is flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

fn prctl(option: i32, argument: usize) -> Result<usize> {
    // SAFETY: every option used in this file takes one integer and no pointer.
    unsafe { syscall!(libc::SYS_prctl, option, argument) }
}

/// PR_SET_PDEATHSIG: the signal to get when the parent dies; 0 for none.
pub fn set_pdeathsig(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as usize).map(drop)
}

/// PR_SET_DUMPABLE: whether others of the same user may trace this process (CVE-2016-9962).
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, usize::from(on)).map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// PR_SET_CHILD_SUBREAPER.
pub fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// PR_SET_NAME: at most 15 bytes count.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: name is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr()) }.map(drop)
}

/// `personality(2)`.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_personality, persona) }.map(drop)
}
