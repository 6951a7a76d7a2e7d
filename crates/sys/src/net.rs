//! Network interfaces.

use crate::{Errno, Result, own, syscall};
use std::os::fd::AsRawFd;

/// Sets the loopback interface of this network namespace up: netdevice(7), SIOCSIFFLAGS.
pub fn loopback_up() -> Result<()> {
    // SAFETY: plain integers.
    let socket =
        own(unsafe { syscall!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }?);
    // SAFETY: ifreq is plain data, for which all-zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if r < 0 { Err(Errno::last()) } else { Ok(()) }
}
