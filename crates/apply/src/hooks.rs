//! Running hooks: config.md, POSIX-platform Hooks. The state stands on standard input; a failing hook is an error.

use crate::failure::{Doing, Failure, Result};
use coracle_plan::steps::Hook;
use coracle_sys::process::{CloneArgs, Cloned, Status};
use coracle_sys::{fs, libc, poll, process, signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Runs each in order with this state.
/// Errors: the first that cannot run, exits non-zero, or outlives its timeout (then it is killed).
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| one(hook, state).map_err(|f| f.at(&hook.origin)))
}

fn one(hook: &Hook, state: &[u8]) -> Result<()> {
    let name = || format!("hook {}", crate::failure::text(&hook.path));
    // A memfd, so that a hook that does not read its input cannot make this write wait.
    let input = fs::memfd_create(c"state", 0).doing(name)?;
    fs::write_all(input.as_fd(), state).doing(name)?;
    let input =
        fs::open(&fs::proc_fd_path(&input), libc::O_RDONLY, 0).or_else(|_| rewound(input)).doing(name)?;
    let args = CloneArgs { flags: 0, cgroup: None, sibling: false };
    match process::clone3(&args).doing(|| format!("starting {}", name()))? {
        Cloned::Child => become_hook(hook, input.as_fd()),
        Cloned::Parent(pid, pidfd) => {
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
                Some(Status::Exited(127)) => {
                    Err(Failure::says(format!("{} could not be run, or ended with exit status 127", name())))
                }
                Some(Status::Exited(code)) => {
                    Err(Failure::says(format!("{} failed: exit status {code}", name())))
                }
                Some(Status::Signaled(n)) => {
                    Err(Failure::says(format!("{} was killed by signal {n}", name())))
                }
                None => Ok(()),
            }
        }
    }
}

/// Where /proc is not there to open the file anew, the same one from its start.
fn rewound(file: OwnedFd) -> coracle_sys::Result<OwnedFd> {
    use std::io::Seek;
    let mut file = std::fs::File::from(file);
    file.rewind().map_err(|e| coracle_sys::Errno::from_raw(e.raw_os_error().unwrap_or(5)))?;
    Ok(file.into())
}

fn become_hook(hook: &Hook, input: BorrowedFd) -> ! {
    let _ = fs::dup_onto(input, 0);
    let _ = fs::close_others(&mut []);
    signal::default_actions();
    let _ = signal::set_mask(0);
    let errno = process::execve(&hook.path, &hook.argv, &hook.env);
    let text = format!("hook {}: {}\n", crate::failure::text(&hook.path), errno.desc().to_lowercase());
    if let Ok(stderr) = fs::inherited(2) {
        let _ = fs::write_all(stderr, text.as_bytes());
    }
    process::exit_now(127)
}
