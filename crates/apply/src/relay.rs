//! A foreground run: signals go to the workload, the terminal is relayed, the end is waited for.

use crate::failure::{Doing, Result};
use coracle_sys::process::Status;
use coracle_sys::{Errno, fs, libc, poll, process, signal, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process of a container that this one waits for.
pub struct Workload<'a> {
    /// The process.
    pub pidfd: &'a OwnedFd,
    /// Its pid.
    pub pid: i32,
    /// Its terminal's master side.
    pub master: Option<&'a OwnedFd>,
}

/// Bytes on their way from one descriptor to another.
struct Pump<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    held: Vec<u8>,
    open: bool,
}

impl Pump<'_> {
    fn wants(&self) -> Option<(BorrowedFd<'_>, i16)> {
        match (self.open, self.held.is_empty()) {
            (_, false) => Some((self.to, libc::POLLOUT)),
            (true, true) => Some((self.from, libc::POLLIN)),
            (false, true) => None,
        }
    }

    fn turn(&mut self) {
        if self.held.is_empty() {
            let mut buffer = [0u8; 16 * 1024];
            match fs::read(self.from, &mut buffer) {
                Ok(n) if n > 0 => self.held = buffer[..n].to_vec(),
                _ => self.open = false, // the end, or EIO: the other side of the terminal closed
            }
            return;
        }
        match fs::write(self.to, &self.held) {
            Ok(n) => drop(self.held.drain(..n)),
            Err(_) => (self.held, self.open) = (Vec::new(), false),
        }
    }
}

/// A terminal that this process is to relay, before anything is written to it: a newline becomes a line's end once, in the
/// terminal that this process writes to, if it is one.
pub(crate) fn own(master: OwnedFd) -> OwnedFd {
    let _ = tty::set_onlcr(master.as_fd(), false);
    master
}

/// Waits for the end of the workload; everything that comes meanwhile goes to it.
pub fn wait(process: &Workload, signals: &OwnedFd) -> Result<Status> {
    let terminal = process.master;
    let stdin = fs::inherited(0).ok();
    let raw = terminal.and(stdin).and_then(|fd| tty::make_raw(fd).ok());
    let ended = relay(process, signals, terminal, stdin);
    if let (Some(before), Some(fd)) = (raw, stdin) {
        let _ = tty::restore(fd, &before);
    }
    ended
}

fn relay(
    workload: &Workload,
    signals: &OwnedFd,
    terminal: Option<&OwnedFd>,
    stdin: Option<BorrowedFd>,
) -> Result<Status> {
    let mut pumps = Vec::new();
    if let (Some(master), Some(stdin), Ok(stdout)) = (terminal, stdin, fs::inherited(1)) {
        resize(master.as_fd(), stdin);
        pumps.push(Pump { from: master.as_fd(), to: stdout, held: Vec::new(), open: true });
        pumps.push(Pump { from: stdin, to: master.as_fd(), held: Vec::new(), open: true });
    }
    loop {
        let mut wanted = vec![(workload.pidfd.as_fd(), libc::POLLIN), (signals.as_fd(), libc::POLLIN)];
        let active: Vec<usize> = (0..pumps.len()).filter(|i| pumps[*i].wants().is_some()).collect();
        wanted.extend(active.iter().filter_map(|i| pumps[*i].wants()));
        let ready = poll::poll(&wanted, -1).doing(|| "waiting for the container".into())?;
        drop(wanted);
        for (slot, i) in active.iter().enumerate() {
            if ready[slot + 2] != 0 {
                pumps[*i].turn();
            }
        }
        if ready[1] != 0 {
            pass_on(workload, signals, terminal, stdin);
        }
        if ready[0] != 0 {
            if let Some(output) = pumps.first_mut() {
                drain(output);
            }
            let status =
                process::wait(workload.pid, 0).doing(|| "waiting for the container's init".into())?;
            return Ok(status.map_or(Status::Exited(0), |s| s.1));
        }
    }
}

/// What the workload wrote before its end.
fn drain(output: &mut Pump) {
    while output.open || !output.held.is_empty() {
        let readable = poll::poll(&[(output.from, libc::POLLIN)], 0).is_ok_and(|r| r[0] & libc::POLLIN != 0);
        if output.held.is_empty() && !readable {
            return;
        }
        output.turn();
    }
}

fn pass_on(workload: &Workload, signals: &OwnedFd, terminal: Option<&OwnedFd>, stdin: Option<BorrowedFd>) {
    match (signal::next_signal(signals.as_fd()), terminal, stdin) {
        (Ok(libc::SIGCHLD | libc::SIGPIPE), _, _) | (Err(_), _, _) => {}
        (Ok(libc::SIGWINCH), Some(master), Some(stdin)) => resize(master.as_fd(), stdin),
        (Ok(number), _, _) => {
            let sent = process::pidfd_send_signal(workload.pidfd.as_fd(), number);
            debug_assert!(matches!(sent, Ok(()) | Err(Errno::ESRCH | Errno::EPERM)));
        }
    }
}

fn resize(master: BorrowedFd, from: BorrowedFd) {
    if let Ok((rows, columns)) = tty::size(from) {
        let _ = tty::set_size(master, rows, columns);
    }
}
