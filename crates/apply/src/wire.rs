//! The one socket pair between the runtime and the container's init: a message is one packet.

use crate::failure::{Doing, Failure, Result};
use coracle_plan::steps::Step;
use coracle_sys::{Errno, socket};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What init says.
#[derive(Debug)]
pub(crate) enum Said {
    /// Everything before the start is done.
    Ready,
    /// It waits for the parent: id maps, control group.
    Waits,
    /// The moment of the prestart and createRuntime hooks.
    Hooks,
    /// It goes on under another pid.
    Again(i32),
    /// The mount of this step, detached: its ids are to be mapped.
    Unmapped(usize, OwnedFd),
    /// Its network namespace: devices are to be moved into it.
    Network(OwnedFd),
    /// A seccomp listener comes; its agent's socket, and what that is told beside.
    Agent(CString, String),
    /// The listener.
    Listener(Handed),
    /// The terminal's master side.
    Terminal(OwnedFd),
    /// A step (its number, counted over setup and launch) failed.
    Failed(usize, Failure),
    /// It closed the connection: it became the workload, or died.
    Nothing,
}

/// How a descriptor is handed over.
#[derive(Debug)]
pub(crate) enum Handed {
    /// With the message.
    Here(OwnedFd),
    /// By the number that it has there.
    There(i32),
}

/// The parent's answer.
pub(crate) const GO: &[u8] = b"G";

pub(crate) fn say(fd: BorrowedFd, tag: u8) -> Result<()> {
    socket::send(fd, &[tag]).doing(|| "reporting to the runtime".into())
}

pub(crate) fn say_again(fd: BorrowedFd, pid: i32) -> coracle_sys::Result<()> {
    socket::send(fd, &[b"P", pid.to_ne_bytes().as_slice()].concat())
}

pub(crate) fn say_terminal(fd: BorrowedFd, master: BorrowedFd) -> Result<()> {
    socket::send_fd(fd, b"T", master).doing(|| "handing over the terminal".into())
}

pub(crate) fn say_network(fd: BorrowedFd, namespace: BorrowedFd) -> Result<()> {
    socket::send_fd(fd, b"D", namespace).doing(|| "showing the network namespace".into())
}

/// From the parent.
pub(crate) fn give_network(fd: BorrowedFd, namespace: BorrowedFd) -> Result<()> {
    socket::send_fd(fd, b"W", namespace).doing(|| "handing over the network namespace".into())
}

/// Waits for what [`give_network`] sends.
pub(crate) fn await_network(fd: BorrowedFd) -> Result<OwnedFd> {
    let fds = socket::recv_fds(fd, &mut Vec::with_capacity(8))
        .doing(|| "waiting for the network namespace".into())?;
    fds.into_iter().next().ok_or_else(|| Failure::says("the runtime ended"))
}

pub(crate) fn say_unmapped(fd: BorrowedFd, step: usize, tree: BorrowedFd) -> Result<()> {
    let message = [b"M".as_slice(), &(step as u32).to_ne_bytes()].concat();
    socket::send_fd(fd, &message, tree).doing(|| "having the ids of a mount mapped".into())
}

pub(crate) fn say_agent(fd: BorrowedFd, path: &CStr, metadata: &str) -> Result<()> {
    let message = [b"N", path.to_bytes_with_nul(), metadata.as_bytes()].concat();
    socket::send(fd, &message).doing(|| "naming the seccomp agent".into())
}

/// Under the filter: with the one syscall, sendmsg or write, that is not notified.
pub(crate) fn say_listener(fd: BorrowedFd, listener: BorrowedFd, by_number: bool) -> Result<()> {
    let doing = || "handing over the seccomp listener".to_owned();
    if by_number {
        let message = [b"L".as_slice(), &listener.as_raw_fd().to_ne_bytes()].concat();
        return coracle_sys::fs::write(fd, &message).doing(doing).map(drop);
    }
    socket::send_fd(fd, b"L", listener).doing(doing)
}

pub(crate) fn say_failed(fd: BorrowedFd, step: usize, failure: &Failure) {
    let errno = failure.errno.map_or(0, |e| e as i32);
    let head = [b"F".as_slice(), &(step as u32).to_ne_bytes(), &errno.to_ne_bytes()].concat();
    // Nobody left to tell is no reason to do anything else than end.
    let _ = socket::send(
        fd,
        &[head.as_slice(), failure.doing.as_bytes(), b"\0", failure.origin.as_bytes()].concat(),
    );
}

/// Waits for the parent's go; an end of the connection means that the parent is gone.
pub(crate) fn await_go(fd: BorrowedFd) -> Result<()> {
    let mut buffer = [0u8; 8];
    match socket::recv(fd, &mut buffer).doing(|| "waiting for the runtime".into())? {
        0 => Err(Failure::says("the runtime ended")),
        _ => Ok(()),
    }
}

/// The next message of init.
pub(crate) fn hear(fd: BorrowedFd) -> Result<Said> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut heard = socket::recv_fds(fd, &mut buffer);
    if matches!(heard, Err(Errno::ECONNRESET)) {
        // It ended before it read an answer; that is told once, before what it said itself.
        heard = socket::recv_fds(fd, &mut buffer);
    }
    let mut fds = match heard {
        Err(Errno::ECONNRESET) => Vec::new(),
        other => other.doing(|| "hearing from the container's init".into())?,
    };
    let n = buffer.len();
    let number = |at: usize| i32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap_or_default());
    Ok(match buffer.first() {
        None => Said::Nothing,
        Some(b'R') => Said::Ready,
        Some(b'A') => Said::Waits,
        Some(b'H') => Said::Hooks,
        Some(b'P') if n == 5 => Said::Again(number(1)),
        Some(b'T') if fds.len() == 1 => Said::Terminal(fds.remove(0)),
        Some(b'D') if fds.len() == 1 => Said::Network(fds.remove(0)),
        Some(b'M') if n == 5 && fds.len() == 1 => Said::Unmapped(number(1) as usize, fds.remove(0)),
        Some(b'N') => {
            let text = &buffer[1..n];
            let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
            let metadata = String::from_utf8_lossy(text.get(end + 1..).unwrap_or(&[])).into_owned();
            Said::Agent(CString::new(&text[..end]).unwrap_or_default(), metadata)
        }
        Some(b'L') if fds.len() == 1 => Said::Listener(Handed::Here(fds.remove(0))),
        Some(b'L') if n == 5 => Said::Listener(Handed::There(number(1))),
        Some(b'F') if n >= 9 => {
            let text = String::from_utf8_lossy(&buffer[9..n]).into_owned();
            let (doing, origin) = text.split_once('\0').unwrap_or((&text, ""));
            let errno = (number(5) != 0).then(|| Errno::from_raw(number(5)));
            Said::Failed(number(1) as usize, Failure { doing: doing.into(), errno, origin: origin.into() })
        }
        Some(tag) => {
            return Err(Failure::says(format!(
                "the container's init sent a message {tag} that nobody expects"
            )));
        }
    })
}

/// The place in config.json that a step of the plan came from.
pub(crate) fn origin<'a>(setup: &'a [Step], launch: &'a [Step], number: usize) -> &'a str {
    setup.iter().chain(launch).nth(number).map_or("", |s| &s.origin)
}
