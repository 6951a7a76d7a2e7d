//! Terminals: ioctl_tty(2), termios(3).

use crate::{Errno, Result, own};
use nix::sys::termios::{self, SetArg, Termios};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

fn ioctl<T>(fd: BorrowedFd, request: u64, argument: *mut T) -> Result<i32> {
    // SAFETY: callers pass the structure that the request reads or fills, or null where it takes an integer.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if r < 0 { Err(Errno::last()) } else { Ok(r) }
}

/// TIOCSPTLCK 0: lets the other side be opened.
pub fn unlock(ptmx: BorrowedFd) -> Result<()> {
    let mut zero = 0i32;
    ioctl(ptmx, libc::TIOCSPTLCK, &mut zero).map(drop)
}

/// TIOCGPTPEER: the other side of this very pty, whatever any path says (Linux 4.13).
pub fn peer(ptmx: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    ioctl(ptmx, libc::TIOCGPTPEER, flags as usize as *mut u8).map(|fd| own(fd as usize))
}

/// TIOCSWINSZ: rows and columns.
pub fn set_size(fd: BorrowedFd, rows: u16, columns: u16) -> Result<()> {
    let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(fd, libc::TIOCSWINSZ, &mut size).map(drop)
}

/// TIOCGWINSZ: rows and columns.
pub fn size(fd: BorrowedFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    ioctl(fd, libc::TIOCGWINSZ, &mut size)?;
    Ok((size.ws_row, size.ws_col))
}

/// TIOCSCTTY: makes it the controlling terminal of this session.
pub fn make_controlling(fd: BorrowedFd) -> Result<()> {
    ioctl(fd, libc::TIOCSCTTY, std::ptr::null_mut::<u8>()).map(drop)
}

/// Whether it is a terminal.
pub fn is_terminal(fd: BorrowedFd) -> bool {
    termios::tcgetattr(fd).is_ok()
}

/// Puts the terminal into raw mode; returns what to restore.
pub fn make_raw(fd: BorrowedFd) -> Result<Termios> {
    let before = termios::tcgetattr(fd)?;
    let mut raw = before.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(fd, SetArg::TCSANOW, &raw)?;
    Ok(before)
}

/// Restores what [`make_raw`] returned.
pub fn restore(fd: BorrowedFd, before: &Termios) -> Result<()> {
    termios::tcsetattr(fd, SetArg::TCSANOW, before)
}
