//! Clones, waiting, exec, signals, descriptors across a clone.

use crate::Needs::{Nothing, Root};
use crate::{Check, Doing, Outcome, Test, begin, child, end, equal, status};
use coracle_sys::process::{self, CloneArgs, Cloned, Status};
use coracle_sys::{Errno, fs, libc, limits, namespace, poll, signal, tty};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("process: a child is seen by its pidfd, waited for once", Nothing, waited_for_once),
    ("process: a signal through a pidfd reaches only that process", Nothing, pidfd_signal),
    ("process: a sibling is its grandparent's child", Nothing, sibling),
    ("process: the death signal comes when the parent dies", Nothing, death_signal),
    ("process: exec of a path and of an open file", Nothing, exec),
    ("process: attributes read back", Nothing, attributes),
    ("process: a namespace of time shifts the next child's clock", Root, time),
    ("signal: ignored signals get their default action, 32 and 33 too", Nothing, default_actions),
    ("signal: blocked signals are read from a descriptor", Nothing, signalfd),
    ("fs: all descriptors but the kept ones are closed", Nothing, close_others),
    ("fs: a descriptor on a chosen number stays at exec", Nothing, dup_onto),
    ("limits: a limit and a policy read back", Nothing, limits),
    ("tty: a terminal becomes the session's", Nothing, controlling),
];

fn plain<'a>() -> CloneArgs<'a> {
    CloneArgs { flags: 0, cgroup: None, sibling: false }
}

/// A child that ends with this code.
fn ends_with(code: i32) -> Result<(i32, OwnedFd), String> {
    match process::clone3(&plain()).doing("clone3")? {
        Cloned::Child => process::exit_now(code),
        Cloned::Parent(pid, pidfd) => Ok((pid, pidfd)),
    }
}

fn waited_for_once() -> Check {
    let (pid, pidfd) = ends_with(7)?;
    equal("readiness", poll::poll(&[(pidfd.as_fd(), libc::POLLIN)], 10_000), Ok(vec![libc::POLLIN]))?;
    equal("status", process::wait(pid, libc::WNOHANG), Ok(Some((pid, Status::Exited(7)))))?;
    equal("the second wait", process::wait(pid, 0), Err(Errno::ECHILD))?;
    Ok(Outcome::Fine)
}

fn pidfd_signal() -> Check {
    let (pid, pidfd) = match process::clone3(&plain()).doing("clone3")? {
        Cloned::Child => loop {
            let _ = poll::poll(&[], -1);
        },
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    equal("nobody has ended", process::wait(pid, libc::WNOHANG), Ok(None))?;
    process::pidfd_send_signal(pidfd.as_fd(), libc::SIGTERM).doing("signal")?;
    equal("status", process::wait(pid, 0), Ok(Some((pid, Status::Signaled(libc::SIGTERM)))))?;
    equal("afterwards", process::pidfd_send_signal(pidfd.as_fd(), 0), Err(Errno::ESRCH))?;
    Ok(Outcome::Fine)
}

fn sibling() -> Check {
    let middle = match process::clone3(&plain()).doing("clone3")? {
        Cloned::Child => match process::clone3(&CloneArgs { sibling: true, ..plain() }) {
            Ok(Cloned::Child) => process::exit_now(5),
            Ok(Cloned::Parent(..)) => process::exit_now(6),
            Err(_) => process::exit_now(1),
        },
        Cloned::Parent(pid, _) => pid,
    };
    equal("the first child", process::wait(middle, 0), Ok(Some((middle, Status::Exited(6)))))?;
    let other = process::wait(-1, 0).doing("waiting for the sibling")?;
    equal("the sibling", other.map(|o| o.1), Some(Status::Exited(5)))?;
    Ok(Outcome::Fine)
}

fn death_signal() -> Check {
    child(0, || {
        process::set_child_subreaper().doing("subreaper")?;
        let (ready, tell) = poll::pipe().doing("pipe")?;
        let middle = match process::clone3(&plain()).doing("clone3")? {
            Cloned::Parent(pid, _) => pid,
            Cloned::Child => match process::clone3(&plain()) {
                Ok(Cloned::Child) => {
                    let _ = process::set_pdeathsig(libc::SIGKILL);
                    let _ = fs::write(tell.as_fd(), b"x");
                    loop {
                        let _ = poll::poll(&[], -1);
                    }
                }
                Ok(Cloned::Parent(..)) => {
                    let heard = fs::read(ready.as_fd(), &mut [0]);
                    process::exit_now(i32::from(heard != Ok(1)))
                }
                Err(_) => process::exit_now(1),
            },
        };
        equal("the middle one", process::wait(middle, 0), Ok(Some((middle, Status::Exited(0)))))?;
        // The orphan came to this process, the subreaper.
        let orphan = process::wait(-1, 0).doing("waiting for the orphan")?;
        equal("the orphan", orphan.map(|o| o.1), Some(Status::Signaled(libc::SIGKILL)))
    })?;
    Ok(Outcome::Fine)
}

fn exec() -> Check {
    let argv =
        ["sh", "-c", "test \"$A\" = b && exit 9"].map(|w| std::ffi::CString::new(w).unwrap_or_default());
    let env = [c"A=b".to_owned()];
    let file = fs::open(c"/bin/sh", libc::O_PATH, 0).doing("/bin/sh")?;
    for by_path in [true, false] {
        let pid = match process::clone3(&plain()).doing("clone3")? {
            Cloned::Child if by_path => process::exit_now(process::execve(c"/bin/sh", &argv, &env) as i32),
            Cloned::Child => process::exit_now(process::exec_fd(file.as_fd(), &argv, &env) as i32),
            Cloned::Parent(pid, _) => pid,
        };
        equal("status", process::wait(pid, 0), Ok(Some((pid, Status::Exited(9)))))?;
    }
    Ok(Outcome::Fine)
}

fn attributes() -> Check {
    child(0, || {
        process::set_name(c"a-name-of-seventeen").doing("name")?;
        equal("name", status("Name")?.as_str(), "a-name-of-seven")?;
        for on in [false, true] {
            process::set_dumpable(on).doing("dumpable")?;
            equal("dumpable", process::dumpable(), Ok(on))?;
        }
        process::setsid().doing("setsid")?;
        equal("session", status("NSsid")?, status("NSpid")?)?;
        equal("a second session", process::setsid(), Err(Errno::EPERM))?;
        equal("a group of one's own", process::setpgid(0, 0), Err(Errno::EPERM))?;
        process::personality(0x0020_0000).doing("personality")?; // ADDR_COMPAT_LAYOUT
        let shown = std::fs::read_to_string("/proc/self/personality").unwrap_or_default();
        equal("personality", shown.trim(), "00200000")
    })?;
    Ok(Outcome::Fine)
}

fn time() -> Check {
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        text.split('.').next().and_then(|t| t.parse::<u64>().ok()).ok_or("no /proc/uptime".to_owned())
    };
    child(0, || {
        let before = uptime()?;
        match namespace::unshare(namespace::CLONE_NEWTIME) {
            Err(Errno::EINVAL) => return Ok(()), // a kernel without CONFIG_TIME_NS; said below
            other => other.doing("unshare")?,
        }
        let offsets = fs::open(c"/proc/self/timens_offsets", libc::O_WRONLY, 0).doing("timens_offsets")?;
        fs::write_all(offsets.as_fd(), b"boottime 1000000 0\n").doing("timens_offsets")?;
        equal("this process", uptime()? < before + 1000, true)?;
        child(0, || equal("its child", uptime()? >= before + 1_000_000, true))
    })?;
    let there = std::path::Path::new("/proc/self/ns/time").exists();
    Ok(if there { Outcome::Fine } else { Outcome::Skip("this kernel has no time namespaces".into()) })
}

/// Ignores a signal, as a careless caller may leave it.
fn ignore(number: i32) {
    let action = [1usize, 0, 0, 0]; // SIG_IGN
    // SAFETY: a whole kernel sigaction that installs no code; the set's size is the kernel's eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), 0usize, 8usize) };
}

fn default_actions() -> Check {
    child(0, || {
        let careless = [libc::SIGHUP, libc::SIGPIPE, 32, 33, 64];
        careless.into_iter().for_each(ignore);
        let ignored = || Ok::<_, String>(u64::from_str_radix(&status("SigIgn")?, 16).unwrap_or(0));
        let wanted = careless.iter().fold(0u64, |set, n| set | 1 << (n - 1));
        equal("before", ignored()? & wanted, wanted)?;
        signal::default_actions();
        equal("afterwards", ignored()?, 0)
    })?;
    Ok(Outcome::Fine)
}

fn signalfd() -> Check {
    child(0, || {
        let before = signal::block_all().doing("block")?;
        let fd = signal::signalfd().doing("signalfd")?;
        process::kill(process::getpid(), libc::SIGUSR1).doing("kill")?;
        equal("ready", poll::poll(&[(fd.as_fd(), libc::POLLIN)], 10_000), Ok(vec![libc::POLLIN]))?;
        equal("signal", signal::next_signal(fd.as_fd()), Ok(libc::SIGUSR1))?;
        signal::set_mask(before).map(drop).doing("restore")?;
        equal("mask", u64::from_str_radix(&status("SigBlk")?, 16), Ok(before))
    })?;
    Ok(Outcome::Fine)
}

fn close_others() -> Check {
    child(0, || {
        let opened: Vec<OwnedFd> = (0..6)
            .map(|_| fs::open(c"/dev/null", libc::O_RDONLY, 0))
            .collect::<Result<_, _>>()
            .doing("open")?;
        let numbers: Vec<i32> = opened.iter().map(AsRawFd::as_raw_fd).collect();
        let far = 500;
        fs::dup_onto(opened[0].as_fd(), far).doing("dup3")?;
        let mut keep = vec![numbers[4], 1, numbers[1], numbers[1], numbers[2]];
        fs::close_others(&mut keep).doing("close_range")?;
        let left: Vec<i32> = numbers.iter().copied().chain([far]).filter(|n| fs::is_open(*n)).collect();
        let outcome = equal("left open", left, vec![numbers[1], numbers[2], numbers[4]]);
        // Some of these numbers are closed: their owners must not close them again.
        std::mem::forget(opened);
        // The pipe on which a child speaks is closed too: its exit status speaks instead.
        process::exit_now(if outcome.is_ok() { 0 } else { 44 })
    })?;
    Ok(Outcome::Fine)
}

fn dup_onto() -> Check {
    let (said, say) = poll::pipe().doing("pipe")?;
    let argv = ["sh", "-c", "echo through >&9; test ! -e /proc/self/fd/8"];
    let argv = argv.map(|w| std::ffi::CString::new(w).unwrap_or_default());
    let pid = match process::clone3(&plain()).doing("clone3")? {
        Cloned::Child => {
            let done = fs::dup_onto(say.as_fd(), 8)
                .and_then(|()| fs::dup_onto(say.as_fd(), 9))
                .and_then(|()| fs::cloexec_range(3, 8));
            process::exit_now(done.map_or(1, |()| process::execve(c"/bin/sh", &argv, &[]) as i32))
        }
        Cloned::Parent(pid, _) => pid,
    };
    drop(say);
    equal("said", fs::read_to_end(said.as_fd(), 100), Ok(b"through\n".to_vec()))?;
    equal("status", process::wait(pid, 0), Ok(Some((pid, Status::Exited(0)))))?;
    Ok(Outcome::Fine)
}

fn limits() -> Check {
    child(0, || {
        let (_, hard) = limits::rlimit(0, libc::RLIMIT_NOFILE).doing("rlimit")?;
        limits::prlimit(0, libc::RLIMIT_NOFILE, 77, hard).doing("prlimit")?;
        equal("limit", limits::rlimit(0, libc::RLIMIT_NOFILE), Ok((77, hard)))?;
        let batch = limits::SchedAttr { policy: libc::SCHED_BATCH as u32, nice: 5, ..Default::default() };
        limits::sched_setattr(&batch).doing("sched_setattr")?;
        let now = limits::sched_getattr(0).doing("sched_getattr")?;
        equal("policy", (now.policy, now.nice), (batch.policy, 5))?;
        let cpus = limits::sched_getaffinity(0).doing("affinity")?;
        let word = cpus.iter().position(|w| *w != 0).ok_or("no CPU")?;
        let mut one = vec![0; cpus.len()];
        one[word] = 1 << cpus[word].trailing_zeros();
        limits::sched_setaffinity(&one).doing("affinity")?;
        equal("affinity", limits::sched_getaffinity(0), Ok(one))
    })?;
    Ok(Outcome::Fine)
}

fn controlling() -> Check {
    let args = plain();
    let (pid, said) = begin(&args, || {
        let master = fs::open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).doing("/dev/ptmx")?;
        tty::unlock(master.as_fd()).doing("unlock")?;
        let slave = tty::peer(master.as_fd()).doing("peer")?;
        equal("outside of a session of one's own", tty::make_controlling(slave.as_fd()), Err(Errno::EPERM))?;
        process::setsid().doing("setsid")?;
        tty::make_controlling(slave.as_fd()).doing("TIOCSCTTY")?;
        let own = fs::open(c"/dev/tty", libc::O_RDWR | libc::O_NOCTTY, 0).doing("/dev/tty")?;
        tty::set_size(master.as_fd(), 5, 6).doing("size")?;
        equal("it is that one", tty::size(own.as_fd()), Ok((5, 6)))?;
        // Its death would send SIGHUP to this session's leader, before it has spoken.
        std::mem::forget(master);
        Ok(())
    })?;
    end(pid, said)?;
    Ok(Outcome::Fine)
}
