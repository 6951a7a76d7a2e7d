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
    pub master: Option<OwnedFd>,
}

/// Bytes on their way from one descriptor to another.
struct Pump {
    held: Vec<u8>,
    open: bool,
}

impl Pump {
    const NEW: Pump = Pump { held: Vec::new(), open: true };

    fn wants<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Option<(BorrowedFd<'a>, i16)> {
        match (self.open, self.held.is_empty()) {
            (_, false) => Some((to, libc::POLLOUT)),
            (true, true) => Some((from, libc::POLLIN)),
            (false, true) => None,
        }
    }

    /// One read, or one write. Errors: nothing can be written any more.
    fn turn(&mut self, from: BorrowedFd, to: BorrowedFd) -> coracle_sys::Result<()> {
        if self.held.is_empty() {
            let mut buffer = [0u8; 16 * 1024];
            match fs::read(from, &mut buffer) {
                Ok(n) if n > 0 => self.held = buffer[..n].to_vec(),
                Err(Errno::EAGAIN) => {} // another reader of a shared descriptor was first
                _ => self.open = false,  // the end, or EIO: the other side of the terminal closed
            }
            return Ok(());
        }
        match fs::write(to, &self.held) {
            Ok(n) => drop(self.held.drain(..n)),
            Err(Errno::EAGAIN) => {}
            Err(e) => {
                (self.held, self.open) = (Vec::new(), false);
                return Err(e);
            }
        }
        Ok(())
    }
}

/// A terminal that is relayed.
struct Terminal<'a> {
    master: OwnedFd,
    stdin: BorrowedFd<'a>,
    stdout: BorrowedFd<'a>,
    output: Pump,
    input: Pump,
}

impl Terminal<'_> {
    fn wants(&self) -> [Option<(BorrowedFd<'_>, i16)>; 2] {
        let master = self.master.as_fd();
        [self.output.wants(master, self.stdout), self.input.wants(self.stdin, master)]
    }

    fn print(&mut self) -> coracle_sys::Result<()> {
        self.output.turn(self.master.as_fd(), self.stdout)
    }

    fn type_in(&mut self) {
        // Of a terminal that takes nothing any more the output tells.
        let _ = self.input.turn(self.stdin, self.master.as_fd());
    }

    /// What the workload wrote before its end.
    fn drain(&mut self) {
        while self.output.open || !self.output.held.is_empty() {
            let (on, events, limit) = match self.output.held.is_empty() {
                true => (self.master.as_fd(), libc::POLLIN, 0),
                false => (self.stdout, libc::POLLOUT, -1),
            };
            let ready = poll::poll(&[(on, events)], limit).is_ok_and(|r| r[0] != 0);
            if !ready || self.print().is_err() {
                return;
            }
        }
    }
}

/// A terminal that this process is to relay, before anything is written to it: a newline becomes a line's end once, in the
/// terminal that this process writes to, if it is one; and it is as large as the one that this process reads from.
pub(crate) fn own(master: OwnedFd) -> OwnedFd {
    let _ = tty::set_onlcr(master.as_fd(), false);
    if let Ok(stdin) = fs::inherited(0) {
        resize(master.as_fd(), stdin);
    }
    master
}

/// Waits for the end of the workload; everything that comes meanwhile goes to it.
pub fn wait(process: Workload, signals: &OwnedFd) -> Result<Status> {
    let (stdin, stdout) = (fs::inherited(0).ok(), fs::inherited(1).ok());
    let raw = process.master.as_ref().and(stdin).and_then(|fd| tty::make_raw(fd).ok());
    let terminal = process.master.zip(stdin.zip(stdout)).map(|(master, (stdin, stdout))| Terminal {
        master,
        stdin,
        stdout,
        output: Pump::NEW,
        input: Pump::NEW,
    });
    let ended = relay(process.pidfd, process.pid, signals, terminal);
    if let (Some(before), Some(fd)) = (raw, stdin) {
        let _ = tty::restore(fd, &before);
    }
    ended
}

fn relay(pidfd: &OwnedFd, pid: i32, signals: &OwnedFd, mut terminal: Option<Terminal>) -> Result<Status> {
    loop {
        let mut wanted = vec![(pidfd.as_fd(), libc::POLLIN), (signals.as_fd(), libc::POLLIN)];
        let [output, input] = terminal.as_ref().map_or([None, None], Terminal::wants);
        let (prints, types) = (output.is_some(), input.is_some());
        wanted.extend([output, input].into_iter().flatten());
        let ready = poll::poll(&wanted, -1).doing(|| "waiting for the container".into())?;
        if let Some(held) = &mut terminal {
            if types && ready[ready.len() - 1] != 0 {
                held.type_in();
            }
            if prints && ready[2] != 0 && held.print().is_err() {
                // Nobody reads any more: the terminal hangs up. Else the workload would stand in a write for ever.
                terminal = None;
            }
        }
        if ready[1] != 0 {
            pass_on(pidfd, signals, terminal.as_ref());
        }
        if ready[0] != 0 {
            if let Some(terminal) = &mut terminal {
                terminal.drain();
            }
            let status = process::wait(pid, 0).doing(|| "waiting for the container's init".into())?;
            return Ok(status.map_or(Status::Exited(0), |s| s.1));
        }
    }
}

fn pass_on(pidfd: &OwnedFd, signals: &OwnedFd, terminal: Option<&Terminal>) {
    match (signal::next_signal(signals.as_fd()), terminal) {
        (Ok(libc::SIGCHLD | libc::SIGPIPE) | Err(_), _) => {}
        (Ok(libc::SIGWINCH), Some(terminal)) => resize(terminal.master.as_fd(), terminal.stdin),
        (Ok(number), _) => {
            let sent = process::pidfd_send_signal(pidfd.as_fd(), number);
            debug_assert!(matches!(sent, Ok(()) | Err(Errno::ESRCH | Errno::EPERM)));
        }
    }
}

fn resize(master: BorrowedFd, from: BorrowedFd) {
    if let Ok((rows, columns)) = tty::size(from) {
        let _ = tty::set_size(master, rows, columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (one, other) = UnixStream::pair().expect("a pair");
        one.set_nonblocking(true).expect("not to block");
        (one, other)
    }

    #[test]
    fn what_would_block_is_no_end() {
        let (from, _writer) = pair();
        let (to, _reader) = pair();
        let mut pump = Pump::NEW;
        assert!(pump.turn(from.as_fd(), to.as_fd()).is_ok() && pump.open, "nothing to read yet");
        pump.held = vec![0; 64 * 1024];
        while !pump.held.is_empty() {
            let before = pump.held.len();
            assert!(pump.turn(from.as_fd(), to.as_fd()).is_ok(), "no room yet");
            if pump.held.len() == before {
                break;
            }
            pump.held.resize(64 * 1024, 0);
        }
        assert!(pump.open && !pump.held.is_empty(), "what was held is kept");
    }

    #[test]
    fn nobody_who_reads_is_an_error() {
        let (to, reader) = pair();
        drop(reader);
        let mut pump = Pump { held: vec![0], open: true };
        assert!(pump.turn(to.as_fd(), to.as_fd()).is_err() && !pump.open && pump.held.is_empty());
    }
}
