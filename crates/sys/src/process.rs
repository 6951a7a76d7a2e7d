//! Processes: making, becoming another program, waiting, signalling, their attributes.

use crate::{Errno, Result, own, syscall};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What to clone: namespace flags, and the cgroup v2 directory that the child is born into.
pub struct CloneArgs<'a> {
    /// CLONE_NEW* flags.
    pub flags: u64,
    /// A cgroup v2 directory (CLONE_INTO_CGROUP, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a sibling: its parent is ours (CLONE_PARENT), and its end sends the signal that ours would.
    pub sibling: bool,
}

/// Which side of the clone this is.
pub enum Cloned {
    /// The parent: the child's pid and a descriptor for it.
    Parent(i32, OwnedFd),
    /// The child.
    Child,
}

/// struct clone_args, version 2 (Linux 5.7), 88 bytes: clone(2).
#[repr(C)]
#[derive(Default, Clone, Copy)]
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

/// CLONE_INTO_CGROUP.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `long clone3(struct clone_args *args, size_t size)`, clone(2), Linux 5.3: with a copied address space, like fork; the
/// child returns here too, and holds a copy of every descriptor and of all memory.
///
/// Only namespace flags are taken (EINVAL otherwise), so that memory and stack are never shared. The process must have
/// a single thread (debug builds check): no lock of the C library can then be held by somebody who is gone in the child,
/// so that everything may be called there, allocation included. The C library does not learn of this clone: handlers
/// of pthread_atfork(3) do not run (nothing here registers any), and since glibc 2.25 it caches no pid.
///
/// Errors: EPERM without CAP_SYS_ADMIN for a namespace, ENOSPC for too many of them, EAGAIN at a limit on processes, EBUSY
/// for a cgroup that takes no processes itself (it has controllers turned on for those below), ENODEV for one that is being
/// removed, E2BIG before Linux 5.7.
pub fn clone3(args: &CloneArgs) -> Result<Cloned> {
    const NEW: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    const NEW_TOO: i32 = libc::CLONE_NEWUTS | libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP;
    if args.flags & !((NEW | NEW_TOO) as u64) != 0 {
        return Err(Errno::EINVAL);
    }
    debug_assert_eq!(std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count), 1, "one thread");
    let mut pidfd: i32 = -1;
    let mut raw = RawCloneArgs {
        flags: args.flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: if args.sibling { 0 } else { libc::SIGCHLD as u64 },
        ..RawCloneArgs::default()
    };
    if args.sibling {
        raw.flags |= libc::CLONE_PARENT as u64;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: raw is a whole clone_args of the size said, zero where nothing is asked for; its one pointer is to pidfd,
    // which lives until the call returns. The flags let through above share neither memory nor stack nor thread state, so
    // the child runs on its own copy of this very frame, as after fork.
    match unsafe { syscall!(libc::SYS_clone3, &raw mut raw, size_of::<RawCloneArgs>()) }? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent(pid as i32, own(pidfd as usize))),
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// `int execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)`, execveat(2), of an open
/// file (AT_EMPTY_PATH). Returns only when it failed. A script cannot be run from a close-on-exec descriptor (ENOENT).
pub fn exec_fd(fd: BorrowedFd, argv: &[CString], envp: &[CString]) -> Errno {
    let (a, e) = (pointers(argv), pointers(envp));
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: both are null-terminated arrays of terminated strings, borrowed until the call returns, if it does.
    unsafe { syscall!(libc::SYS_execveat, fd.as_raw_fd(), path, a.as_ptr(), e.as_ptr(), flags) }
        .expect_err("a successful exec does not return")
}

/// `int execve(const char *path, char *const argv[], char *const envp[])`, execve(2). Returns only when it failed.
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let (a, e) = (pointers(argv), pointers(envp));
    // SAFETY: both are null-terminated arrays of terminated strings, borrowed until the call returns, if it does.
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

/// `pid_t wait4(pid_t pid, int *wstatus, int options, struct rusage *rusage)`, wait4(2), for one child (or any, with -1),
/// whatever signal its end sends; again after EINTR. `None` when WNOHANG was given and nobody has ended.
/// Errors: ECHILD for no child of ours; EINVAL for flags beside WNOHANG, since a status says only how a child ended.
pub fn wait(pid: i32, flags: i32) -> Result<Option<(i32, Status)>> {
    if flags & !libc::WNOHANG != 0 {
        return Err(Errno::EINVAL);
    }
    let mut status: i32 = 0;
    loop {
        // SAFETY: status is room for one int; no rusage is asked for.
        match unsafe { syscall!(libc::SYS_wait4, pid, &raw mut status, flags | libc::__WALL, 0) } {
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

/// `int pidfd_open(pid_t pid, unsigned int flags)`, pidfd_open(2), Linux 5.3; close-on-exec. Errors: ESRCH.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_pidfd_open, pid, 0) }.map(own)
}

/// `int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)`, pidfd_send_signal(2), Linux 5.1.
/// Signal 0 only asks. Errors: ESRCH once the process is gone, whoever has its pid now.
pub fn pidfd_send_signal(fd: BorrowedFd, signal: i32) -> Result<()> {
    // SAFETY: integers only; the siginfo pointer is null, as allowed.
    unsafe { syscall!(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, 0, 0) }.map(drop)
}

/// `int pidfd_getfd(int pidfd, int targetfd, unsigned int flags)`, pidfd_getfd(2), Linux 5.6: a copy of another process's
/// descriptor, close-on-exec. Errors: EPERM without the right to trace it, EBADF when it has none of that number.
pub fn pidfd_getfd(fd: BorrowedFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_pidfd_getfd, fd.as_raw_fd(), number, 0) }.map(own)
}

/// `int kill(pid_t pid, int sig)`, kill(2). A pid may have changed hands: prefer [`pidfd_send_signal`].
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_kill, pid, signal) }.map(drop)
}

/// `pid_t getpid(void)`, getpid(2).
pub fn getpid() -> i32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getpid() }
}

/// `pid_t getppid(void)`, getpid(2): 0 when the parent is in an outer pid namespace.
pub fn getppid() -> i32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getppid() }
}

/// `pid_t setsid(void)`, setsid(2). Errors: EPERM for a leader of a process group.
pub fn setsid() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { syscall!(libc::SYS_setsid) }.map(drop)
}

/// `int setpgid(pid_t pid, pid_t pgid)`, setpgid(2); 0 means this process, and its own pid.
pub fn setpgid(pid: i32, group: i32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setpgid, pid, group) }.map(drop)
}

/// `void _exit(int status)`, _exit(2): no destructor runs, no buffer is flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing after it can observe anything.
    unsafe { libc::_exit(code) }
}

fn prctl(option: i32, argument: usize) -> Result<usize> {
    // SAFETY: every option used in this file takes one integer and no pointer.
    unsafe { syscall!(libc::SYS_prctl, option, argument) }
}

/// PR_SET_PDEATHSIG, prctl(2): the signal to get when the parent dies; 0 for none. A parent that died before is not
/// noticed. Cleared by a change of ids and by an execve that gains rights.
pub fn set_pdeathsig(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as usize).map(drop)
}

/// PR_SET_DUMPABLE, prctl(2): whether others of the same user may trace this process (CVE-2016-9962); without it /proc/self
/// belongs to root. An execve, and a change of ids or namespaces of users, set it anew.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, usize::from(on)).map(drop)
}

/// PR_GET_DUMPABLE, prctl(2).
pub fn dumpable() -> Result<bool> {
    prctl(libc::PR_GET_DUMPABLE, 0).map(|r| r == 1)
}

/// PR_SET_NO_NEW_PRIVS, prctl(2). Cannot be undone.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// PR_GET_NO_NEW_PRIVS, prctl(2).
pub fn no_new_privs() -> Result<bool> {
    prctl(libc::PR_GET_NO_NEW_PRIVS, 0).map(|r| r == 1)
}

/// PR_SET_CHILD_SUBREAPER, prctl(2): orphans among the descendants become children of this process.
pub fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// PR_SET_NAME, prctl(2): at most 15 bytes count.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: name is terminated and outlives the call; the kernel stops at its end.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr()) }.map(drop)
}

/// `int personality(unsigned long persona)`, personality(2): sets the execution domain. Errors: EINVAL.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: integers only; no flag of it takes effect on mappings that exist.
    unsafe { syscall!(libc::SYS_personality, persona) }.map(drop)
}

/// `int uname(struct utsname *buf)`, uname(2): the kernel's release, its first two numbers.
/// Errors: EINVAL for a release that does not begin with two numbers.
pub fn kernel_release() -> Result<(u32, u32)> {
    let name = nix::sys::utsname::uname()?;
    parse_release(&name.release().to_string_lossy()).ok_or(Errno::EINVAL)
}

fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guarded;
    use std::os::fd::AsFd;

    #[test]
    fn clone3_takes_nothing_that_would_share_memory() {
        for flag in
            [libc::CLONE_VM, libc::CLONE_THREAD, libc::CLONE_SETTLS, libc::CLONE_VFORK, libc::CLONE_FILES]
        {
            let args = CloneArgs { flags: flag as u64, cgroup: None, sibling: false };
            assert_eq!(clone3(&args).err(), Some(Errno::EINVAL), "{flag:#x}");
        }
    }

    #[test]
    fn the_kernel_stays_within_clone_args() {
        assert_eq!(size_of::<RawCloneArgs>(), 88);
        // CLONE_FS and CLONE_NEWNS exclude each other: refused after the structure was read.
        let flags = (libc::CLONE_FS | libc::CLONE_NEWNS) as u64;
        let args = Guarded::new(RawCloneArgs { flags, ..RawCloneArgs::default() });
        // SAFETY: a whole clone_args, at the end of what is mapped; it asks for what cannot be, so nobody is cloned.
        let refused = unsafe { syscall!(libc::SYS_clone3, args.pointer(), size_of::<RawCloneArgs>()) };
        assert_eq!(refused, Err(Errno::EINVAL));
    }

    #[test]
    fn a_status_says_only_how_a_child_ended() {
        assert_eq!(wait(-1, libc::WUNTRACED), Err(Errno::EINVAL));
        assert_eq!((Status::Exited(3).code(), Status::Signaled(9).code()), (3, 137));
    }

    #[test]
    fn a_pidfd_asks_and_copies() {
        let me = pidfd_open(getpid()).expect("pidfd_open");
        assert_eq!(pidfd_send_signal(me.as_fd(), 0), Ok(()));
        let null = crate::fs::open(c"/dev/null", libc::O_RDONLY, 0).expect("/dev/null");
        let copy = pidfd_getfd(me.as_fd(), null.as_raw_fd()).expect("pidfd_getfd");
        assert_eq!(crate::fs::fstat(copy.as_fd()), crate::fs::fstat(null.as_fd()));
        assert_eq!(pidfd_open(i32::MAX).err(), Some(Errno::ESRCH));
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let argv = [c"x".to_owned()];
        assert_eq!(execve(c"/nonexistent", &argv, &[]), Errno::ENOENT);
        let null = crate::fs::open(c"/dev/null", libc::O_RDONLY, 0).expect("/dev/null");
        assert_eq!(exec_fd(null.as_fd(), &argv, &[]), Errno::EACCES);
    }

    #[test]
    fn attributes_are_what_proc_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let field = |key| status.lines().find_map(|l| l.strip_prefix(key)).expect("field").trim().to_owned();
        assert_eq!(field("PPid:"), getppid().to_string());
        assert_eq!(field("NoNewPrivs:"), i32::from(no_new_privs().expect("prctl")).to_string());
    }

    #[test]
    fn the_release_is_two_numbers() {
        for (text, numbers) in
            [("6.1.0-13-amd64", Some((6, 1))), ("5.10", Some((5, 10))), ("6.1-rc2+", Some((6, 1)))]
        {
            assert_eq!(parse_release(text), numbers, "{text}");
        }
        assert_eq!((parse_release("6"), parse_release("six.one")), (None, None));
        assert!(kernel_release().is_ok_and(|release| release >= (5, 10)));
    }
}
