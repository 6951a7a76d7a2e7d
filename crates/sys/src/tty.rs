//! Terminals: ioctl_tty(2), pts(4), termios(3).

use crate::{Errno, Result, own};
use nix::sys::termios::{self, OutputFlags, SetArg};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The settings of a terminal, for [`restore`].
pub use nix::sys::termios::Termios;

/// `int ioctl(int fd, unsigned long op, ...)`, ioctl(2).
///
/// # Safety
/// `argument` must be valid for what the request reads or writes through it, or what it takes in a pointer's place.
unsafe fn ioctl<T>(fd: BorrowedFd, request: libc::Ioctl, argument: *mut T) -> Result<i32> {
    // SAFETY: the caller vouches for the argument.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if r < 0 { Err(Errno::last()) } else { Ok(r) }
}

/// TIOCSPTLCK 0: lets the other side be opened.
pub fn unlock(ptmx: BorrowedFd) -> Result<()> {
    let mut zero = 0i32;
    // SAFETY: reads one int.
    unsafe { ioctl(ptmx, libc::TIOCSPTLCK, &raw mut zero) }.map(drop)
}

/// TIOCGPTPEER: the other side of this very pty, whatever any path says (Linux 4.13); close-on-exec, and never made the
/// controlling terminal by opening it.
pub fn peer(ptmx: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is not a pointer but the open flags; the result is a fresh descriptor.
    unsafe { ioctl(ptmx, libc::TIOCGPTPEER, flags as usize as *mut u8) }.map(|fd| own(fd as usize))
}

/// TIOCGPTN: the N of /dev/pts/N. Errors: ENOTTY for a descriptor that is not the master side of a pty.
pub fn number(ptmx: BorrowedFd) -> Result<u32> {
    let mut number = 0u32;
    // SAFETY: writes one unsigned int.
    unsafe { ioctl(ptmx, libc::TIOCGPTN, &raw mut number) }?;
    Ok(number)
}

/// TIOCSWINSZ: rows and columns.
pub fn set_size(fd: BorrowedFd, rows: u16, columns: u16) -> Result<()> {
    let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads one winsize.
    unsafe { ioctl(fd, libc::TIOCSWINSZ, &raw mut size) }.map(drop)
}

/// TIOCGWINSZ: rows and columns.
pub fn size(fd: BorrowedFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: writes one winsize.
    unsafe { ioctl(fd, libc::TIOCGWINSZ, &raw mut size) }?;
    Ok((size.ws_row, size.ws_col))
}

/// TIOCSCTTY: makes it the controlling terminal of this session. Errors: EPERM when this process does not lead the session,
/// or the terminal has another.
pub fn make_controlling(fd: BorrowedFd) -> Result<()> {
    // SAFETY: the argument is not a pointer but 0: do not steal the terminal.
    unsafe { ioctl(fd, libc::TIOCSCTTY, std::ptr::null_mut::<u8>()) }.map(drop)
}

/// Whether it is a terminal: isatty(3).
pub fn is_terminal(fd: BorrowedFd) -> bool {
    termios::tcgetattr(fd).is_ok()
}

/// Puts the terminal's input into raw mode; its output is processed as before. Returns what to restore: cfmakeraw(3),
/// tcsetattr(3) TCSANOW.
pub fn make_raw(fd: BorrowedFd) -> Result<Termios> {
    let before = termios::tcgetattr(fd)?;
    let mut raw = before.clone();
    termios::cfmakeraw(&mut raw);
    raw.output_flags = before.output_flags;
    termios::tcsetattr(fd, SetArg::TCSANOW, &raw)?;
    Ok(before)
}

/// Restores what [`make_raw`] returned.
pub fn restore(fd: BorrowedFd, before: &Termios) -> Result<()> {
    termios::tcsetattr(fd, SetArg::TCSANOW, before)
}

/// ONLCR: whether each newline that is written becomes a carriage return and a newline.
pub fn set_onlcr(fd: BorrowedFd, on: bool) -> Result<()> {
    let mut settings = termios::tcgetattr(fd)?;
    settings.output_flags.set(OutputFlags::ONLCR, on);
    termios::tcsetattr(fd, SetArg::TCSANOW, &settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use std::os::fd::AsFd;

    fn pty() -> (OwnedFd, OwnedFd) {
        let master = fs::open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).expect("/dev/ptmx");
        unlock(master.as_fd()).expect("unlock");
        let slave = peer(master.as_fd()).expect("peer");
        (master, slave)
    }

    /// What the master side reads after a line was written to the slave.
    fn written(master: &OwnedFd, slave: &OwnedFd) -> Vec<u8> {
        fs::write_all(slave.as_fd(), b"x\n").expect("write");
        let mut buffer = [0; 16];
        let n = fs::read(master.as_fd(), &mut buffer).expect("read");
        buffer[..n].to_vec()
    }

    #[test]
    fn the_peer_is_the_pty_of_that_number() {
        let (master, slave) = pty();
        let stat = fs::fstat(slave.as_fd()).expect("fstat");
        let number = number(master.as_fd()).expect("number");
        // Unix98 slaves have majors 136 to 143, 256 minors each: devices.txt.
        assert_eq!((stat.rdev_major, stat.rdev_minor), (136 + number / 256, number % 256));
        assert_eq!(super::number(slave.as_fd()), Err(Errno::ENOTTY));
    }

    #[test]
    fn the_size_reads_back_on_the_other_side() {
        let (master, slave) = pty();
        set_size(master.as_fd(), 33, 121).expect("set");
        assert_eq!(size(slave.as_fd()), Ok((33, 121)));
    }

    #[test]
    fn raw_mode_and_onlcr_change_what_is_written() {
        let (master, slave) = pty();
        assert_eq!(written(&master, &slave), b"x\r\n");
        set_onlcr(slave.as_fd(), false).expect("onlcr");
        assert_eq!(written(&master, &slave), b"x\n");
        set_onlcr(slave.as_fd(), true).expect("onlcr");
        let before = make_raw(slave.as_fd()).expect("raw");
        assert_eq!(written(&master, &slave), b"x\r\n");
        fs::write_all(master.as_fd(), b"\r").expect("write");
        let mut key = [0; 4];
        assert_eq!(fs::read(slave.as_fd(), &mut key), Ok(1), "no line is waited for");
        assert_eq!(key[0], b'\r', "a key stays what it is");
        restore(slave.as_fd(), &before).expect("restore");
        assert_eq!(written(&master, &slave), b"x\r\n");
    }

    #[test]
    fn only_a_terminal_is_one() {
        let (master, slave) = pty();
        assert!(is_terminal(master.as_fd()) && is_terminal(slave.as_fd()));
        let null = fs::open(c"/dev/null", libc::O_RDWR, 0).expect("/dev/null");
        assert!(!is_terminal(null.as_fd()));
        assert_eq!(unlock(null.as_fd()), Err(Errno::ENOTTY));
    }
}
