//! Unix sockets: pairs, named ones, and descriptors sent along.

use crate::{Errno, Result, own, syscall};
use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self as n, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};

/// Two ends of a SOCK_SEQPACKET connection.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    n::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// An address for `name` within an open directory, by way of /proc, so that sun_path's 108 bytes always suffice.
fn address(dir: BorrowedFd, name: &str) -> Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())
}

fn unix(kind: SockType) -> Result<OwnedFd> {
    n::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
}

/// A listening SOCK_SEQPACKET socket named `name` in `dir`.
pub fn listen_seqpacket(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let socket = unix(SockType::SeqPacket)?;
    n::bind(socket.as_raw_fd(), &address(dir, name)?)?;
    n::listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

/// A connection to the SOCK_SEQPACKET socket named `name` in `dir`.
pub fn connect_seqpacket(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let socket = unix(SockType::SeqPacket)?;
    n::connect(socket.as_raw_fd(), &address(dir, name)?)?;
    Ok(socket)
}

/// A connection to a SOCK_STREAM socket at `path`, however long the path.
pub fn connect_stream(path: &CStr) -> Result<OwnedFd> {
    let socket = unix(SockType::Stream)?;
    let file = crate::fs::open(path, libc::O_PATH, 0)?;
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    n::connect(socket.as_raw_fd(), &UnixAddr::new(through.as_str())?)?;
    Ok(socket)
}

/// `accept4(2)`, close-on-exec, again after EINTR.
pub fn accept(listener: BorrowedFd) -> Result<OwnedFd> {
    loop {
        // SAFETY: no address is asked for.
        match unsafe { syscall!(libc::SYS_accept4, listener.as_raw_fd(), 0, 0, libc::SOCK_CLOEXEC) } {
            Err(Errno::EINTR) => continue,
            other => return other.map(own),
        }
    }
}

/// Sends one message; never raises SIGPIPE.
pub fn send(fd: BorrowedFd, bytes: &[u8]) -> Result<()> {
    n::send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// Receives one message, again after EINTR; 0 bytes when the other side has closed.
pub fn recv(fd: BorrowedFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match n::recv(fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// Sends bytes (at least one) and one descriptor in one message.
pub fn send_fd(fd: BorrowedFd, bytes: &[u8], passed: BorrowedFd) -> Result<()> {
    let fds = [passed.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    n::sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives one message and the descriptors that came with it (close-on-exec).
pub fn recv_fds(fd: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = n::recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let n::ControlMessageOwned::ScmRights(list) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            fds.extend(list.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, fds))
}
