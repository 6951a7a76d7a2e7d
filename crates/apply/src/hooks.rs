//! Running hooks: config.md, POSIX-platform Hooks. The state stands on standard input; a failing hook is an error.

use crate::failure::{Doing, Failure, Result, crowded};
use coracle_plan::steps::{Filter, Hook};
use coracle_state::Record;
use coracle_sys::process::{CloneArgs, Cloned, Status};
use coracle_sys::{Errno, fs, libc, poll, process, seccomp, signal};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What hooks are run in.
pub(crate) struct Around<'a> {
    /// The environment of those that name none.
    pub(crate) env: &'a [CString],
    /// The working directory.
    pub(crate) dir: Option<&'a CStr>,
    /// A filter that only they have yet.
    pub(crate) filter: Option<&'a Filter>,
}

/// Runs each in order with this state, in this directory (the bundle, where it is still there; this process's when `None`);
/// one that names no environment has this process's.
/// Errors: the first that cannot run, exits non-zero, or outlives its timeout (then it is killed); with what it printed.
pub fn run(hooks: &[Hook], state: &[u8], dir: Option<&Path>) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let env = std::env::vars_os()
        .filter_map(|(k, v)| CString::new([k.as_encoded_bytes(), b"=", v.as_encoded_bytes()].concat()).ok());
    let dir = dir.and_then(|d| CString::new(d.as_os_str().as_encoded_bytes()).ok());
    let around = Around { env: &env.collect::<Vec<_>>(), dir: dir.as_deref(), filter: None };
    run_in(&around, hooks, state)
}

/// Runs all poststop hooks of a container, also after one that failed.
/// Errors: the first failure, which its caller says in a warning: runtime.md, Lifecycle, step 13.
pub fn poststop(hooks: &[Hook], record: &Record) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = record.state_json("stopped", 0);
    let each = hooks.iter().map(|hook| run(std::slice::from_ref(hook), &state, Some(&record.bundle)));
    each.fold(Ok(()), Result::and)
}

/// The same in these surroundings.
pub(crate) fn run_in(around: &Around, hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| one(hook, around, state).map_err(|f| named(hook, f)))
}

/// The words that callers look for: which kind, which one of them.
fn named(hook: &Hook, failure: Failure) -> Failure {
    let (kind, number) = kind(hook);
    let doing = format!("error running {kind} hook #{number}: {}", failure.doing);
    Failure { doing, ..failure }.at(&hook.origin)
}

/// Of which kind a hook is, and which of them.
fn kind(hook: &Hook) -> (&str, &str) {
    let place = hook.origin.trim_start_matches("hooks.").trim_end_matches(']');
    place.split_once('[').unwrap_or((place, "0"))
}

/// How much of what a failed hook printed is quoted.
const QUOTED: usize = 4096;

/// What a failed hook printed, for the message.
fn printed(output: &OwnedFd) -> String {
    let text = fs::open(&fs::proc_fd_path(output), libc::O_RDONLY, 0)
        .and_then(|fd| fs::read_to_end(fd.as_fd(), QUOTED));
    let text = text.map(|b| String::from_utf8_lossy(&b).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { text } else { format!("; it printed: {text}") }
}

fn one(hook: &Hook, around: &Around, state: &[u8]) -> Result<()> {
    let output = fs::memfd_create(c"output", 0).doing(|| "making a file for a hook's output".into())?;
    attempt(hook, around, state, &output).map_err(|f| Failure { doing: f.doing + &printed(&output), ..f })
}

fn attempt(hook: &Hook, around: &Around, state: &[u8], output: &OwnedFd) -> Result<()> {
    let name = || format!("hook {}", crate::failure::text(&hook.path));
    // A memfd, so that a hook that does not read its input cannot make this write wait.
    let input = fs::memfd_create(c"state", 0).doing(name)?;
    fs::write_all(input.as_fd(), state).doing(name)?;
    let input =
        fs::open(&fs::proc_fd_path(&input), libc::O_RDONLY, 0).or_else(|_| rewound(input)).doing(name)?;
    let [stdout, stderr] = [appended(&hook.output[0])?, appended(&hook.output[1])?];
    let streams =
        [input.as_fd(), stdout.as_ref().unwrap_or(output).as_fd(), stderr.as_ref().unwrap_or(output).as_fd()];
    let args = CloneArgs { flags: 0, cgroup: None, sibling: false };
    let (told, tell) = poll::pipe().doing(name)?;
    match process::clone3(&args)
        .map_err(|e| Failure::errno(format!("starting {}{}", name(), crowded(e)), e))?
    {
        Cloned::Child => become_hook(hook, around, &streams, &tell),
        Cloned::Parent(pid, pidfd) => {
            drop(tell);
            let limit = hook.timeout.map_or(-1, |s| i32::try_from(u64::from(s) * 1000).unwrap_or(i32::MAX));
            let ended = poll::poll(&[(pidfd.as_fd(), libc::POLLIN)], limit).doing(name)?;
            if ended[0] == 0 && limit >= 0 {
                let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let status = process::wait(pid, 0).doing(name)?.map(|(_, s)| s);
            match status {
                Some(Status::Exited(0)) => Ok(()),
                _ if ended[0] == 0 && limit >= 0 => Err(Failure::says(format!(
                    "{} did not end within its timeout of {} s and was killed",
                    name(),
                    limit / 1000
                ))),
                Some(Status::Exited(code)) => {
                    if let Some(errno) = refused(&told) {
                        return Err(unrunnable(hook, errno));
                    }
                    let (path, (kind, _)) = (crate::failure::text(&hook.path), kind(hook));
                    Err(Failure::says(format!("{path}: {kind} hook failed with exit code {code}")))
                }
                Some(Status::Signaled(n)) => {
                    Err(Failure::says(format!("{} was killed by signal {n}{}", name(), meaning(n))))
                }
                None => Ok(()),
            }
        }
    }
}

/// Opens a file to append to, and makes it where there is none. It may lie where the container writes, too: a link there would
/// lead the host's root anywhere, and a pipe without a reader let it wait for ever.
fn appended(path: &Option<CString>) -> Result<Option<OwnedFd>> {
    let Some(path) = path else { return Ok(None) };
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY;
    fs::open(path, flags | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0o600)
        .map(Some)
        .doing(|| format!("opening {} for the output of hooks (annotations)", crate::failure::text(path)))
}

/// Where /proc is not there to open the file anew, the same one from its start.
fn rewound(file: OwnedFd) -> coracle_sys::Result<OwnedFd> {
    use std::io::Seek;
    let mut file = std::fs::File::from(file);
    file.rewind().map_err(|e| coracle_sys::Errno::from_raw(e.raw_os_error().unwrap_or(5)))?;
    Ok(file.into())
}

/// Why the kernel did not execute the hook, if so: the other end is closed when it does.
fn refused(told: &OwnedFd) -> Option<Errno> {
    let bytes = fs::read_to_end(told.as_fd(), 4).ok()?;
    Some(Errno::from_raw(i32::from_ne_bytes(bytes.try_into().ok()?)))
}

fn unrunnable(hook: &Hook, errno: Errno) -> Failure {
    let place = format!("{}.path", hook.origin);
    let hint = match errno {
        Errno::ENOENT => format!(" (correct {place}, or what the #! line of the file names)"),
        Errno::EACCES => {
            format!(" (chmod +x makes a file executable, unless its mount is noexec; else correct {place})")
        }
        Errno::ENOEXEC => " (it is neither a script with a #! line nor a program for this machine)".into(),
        _ => String::new(),
    };
    let doing = format!("hook {} could not be run{hint}", crate::failure::text(&hook.path));
    Failure::errno(doing, errno)
}

/// `tell`: has the errno, should it not become the hook.
fn become_hook(hook: &Hook, around: &Around, streams: &[BorrowedFd; 3], tell: &OwnedFd) -> ! {
    for (fd, number) in streams.iter().zip(0..) {
        let _ = fs::dup_onto(*fd, number);
    }
    let _ = fs::close_others(&mut [tell.as_raw_fd()]);
    signal::default_actions();
    let _ = signal::set_mask(0);
    // A bundle that is gone by the time of poststop keeps nobody from cleaning up.
    let _ = around.dir.map_or(Ok(()), fs::chdir);
    let filtered = around.filter.map_or(Ok(None), |f| seccomp::set_filter(&f.program, f.flags));
    let errno = match filtered {
        Ok(_) => process::execve(&hook.path, &hook.argv, hook.env.as_deref().unwrap_or(around.env)),
        Err(errno) => errno,
    };
    let _ = fs::write_all(tell.as_fd(), &(errno as i32).to_ne_bytes());
    process::exit_now(127)
}

/// What a signal says of the container's own settings.
fn meaning(signal: i32) -> &'static str {
    if signal == libc::SIGSYS { " (bad system call: the seccomp filter holds for hooks too)" } else { "" }
}
