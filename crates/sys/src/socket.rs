//! Unix sockets: pairs, named ones, and descriptors sent along. unix(7), cmsg(3).
//!
//! All are close-on-exec; what is received is too; nothing here raises SIGPIPE (EPIPE instead).

use crate::{Errno, Result, own, syscall};
use std::ffi::CStr;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self as n, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};

fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd)> {
    n::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
}

/// `int socketpair(int domain, int type, int protocol, int sv[2])`, socketpair(2): two ends of a SOCK_SEQPACKET connection,
/// which keeps messages apart and shows the end of the other side.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair(SockType::SeqPacket)
}

/// The same of a SOCK_STREAM connection.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair(SockType::Stream)
}

/// An address for `name` within an open directory, by way of /proc, so that sun_path's 108 bytes always suffice.
fn address(dir: BorrowedFd, name: &str) -> Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())
}

/// The address of an existing socket, however long its path: through an O_PATH descriptor of the socket file itself.
/// The descriptor must stay open as long as the address is used.
fn long_address(path: &CStr) -> Result<(OwnedFd, UnixAddr)> {
    let file = crate::fs::open(path, libc::O_PATH, 0)?;
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file, UnixAddr::new(through.as_str())?))
}

fn unix(kind: SockType) -> Result<OwnedFd> {
    n::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
}

fn bound(kind: SockType, dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    n::bind(socket.as_raw_fd(), &address(dir, name)?)?;
    Ok(socket)
}

/// A listening SOCK_SEQPACKET socket named `name` in `dir`: socket(2), bind(2), listen(2).
/// Errors: EADDRINUSE when something of that name is there.
pub fn listen_seqpacket(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let socket = bound(SockType::SeqPacket, dir, name)?;
    n::listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

/// A SOCK_DGRAM socket named `name` in `dir`, as sd_notify(3) sends to. Errors: as [`listen_seqpacket`].
pub fn bind_datagram(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    bound(SockType::Datagram, dir, name)
}

/// A connection to the SOCK_SEQPACKET socket named `name` in `dir`: connect(2).
/// Errors: ENOENT, ECONNREFUSED when nobody listens.
pub fn connect_seqpacket(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let socket = unix(SockType::SeqPacket)?;
    n::connect(socket.as_raw_fd(), &address(dir, name)?)?;
    Ok(socket)
}

fn connect(kind: SockType, path: &CStr) -> Result<OwnedFd> {
    let socket = unix(kind)?;
    let (_open, address) = long_address(path)?;
    n::connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// A connection to a SOCK_STREAM socket at `path`, however long the path.
pub fn connect_stream(path: &CStr) -> Result<OwnedFd> {
    connect(SockType::Stream, path)
}

/// The same, which gives up after a time: SO_SNDTIMEO of socket(7) holds for connect(2) too, and stays for what is sent.
/// Errors: EAGAIN when the time is up.
pub fn connect_stream_within(path: &CStr, limit: std::time::Duration) -> Result<OwnedFd> {
    let socket = unix(SockType::Stream)?;
    let limit = nix::sys::time::TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()));
    n::setsockopt(&socket, n::sockopt::SendTimeout, &limit)?;
    let (_open, address) = long_address(path)?;
    n::connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// A SOCK_DGRAM socket that sends to the one at `path`, however long the path.
pub fn connect_datagram(path: &CStr) -> Result<OwnedFd> {
    connect(SockType::Datagram, path)
}

/// `int accept4(int sockfd, struct sockaddr *addr, socklen_t *len, int flags)`, accept(2), close-on-exec, again after EINTR.
pub fn accept(listener: BorrowedFd) -> Result<OwnedFd> {
    loop {
        // SAFETY: no address is asked for: both pointers are null, as allowed.
        match unsafe { syscall!(libc::SYS_accept4, listener.as_raw_fd(), 0, 0, libc::SOCK_CLOEXEC) } {
            Err(Errno::EINTR) => continue,
            other => return other.map(own),
        }
    }
}

/// `int shutdown(int sockfd, int how)`, shutdown(2), SHUT_WR: the other side reads the end, and may still answer.
pub fn end_sending(fd: BorrowedFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_shutdown, fd.as_raw_fd(), libc::SHUT_WR) }.map(drop)
}

/// `ssize_t send(int sockfd, const void *buf, size_t len, int flags)`, send(2): one message. Not for streams, which may
/// take a part only. Errors: EPIPE when the other side is gone.
pub fn send(fd: BorrowedFd, bytes: &[u8]) -> Result<()> {
    n::send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// `ssize_t recv(int sockfd, void *buf, size_t len, int flags)`, recv(2): one message, again after EINTR; 0 bytes when the
/// other side has closed. What does not fit into the buffer is lost.
pub fn recv(fd: BorrowedFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match n::recv(fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// `ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags)`, send(2): bytes (at least one) and descriptors (at
/// most 253, unix(7)) in one message.
pub fn send_fds(fd: BorrowedFd, bytes: &[u8], passed: &[BorrowedFd]) -> Result<()> {
    let fds: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[] } else { &control[..] };
    n::sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// The same with one descriptor.
pub fn send_fd(fd: BorrowedFd, bytes: &[u8], passed: BorrowedFd) -> Result<()> {
    send_fds(fd, bytes, &[passed])
}

/// `ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags)`, recv(2): one message and the descriptors that came with it
/// (close-on-exec), again after EINTR; no bytes when the other side has closed. The message takes the place of what the
/// buffer holds; what does not fit into its capacity is lost.
/// Errors: EMSGSIZE when more than four descriptors came; all of them are closed then, so that none is passed over in silence.
pub fn recv_fds(fd: BorrowedFd, buffer: &mut Vec<u8>) -> Result<Vec<OwnedFd>> {
    loop {
        match recv_fds_once(fd, buffer) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// By recvmsg(2) itself: nix gives an error for a message with too many descriptors and leaves those that came open.
fn recv_fds_once(fd: BorrowedFd, buffer: &mut Vec<u8>) -> Result<Vec<OwnedFd>> {
    buffer.clear();
    let mut space = [0u64; CONTROL / 8]; // u64 for the alignment of cmsghdr
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.capacity() };
    // SAFETY: msghdr is integers and pointers, for which all-zero (null) is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (space.as_mut_ptr().cast(), CONTROL as _);
    // SAFETY: message points at one part and at the control space, each with its length, alive until the end of this function.
    let n = unsafe { syscall!(libc::SYS_recvmsg, fd.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) }?;
    // SAFETY: the kernel has written so many bytes, and no more than fit.
    unsafe { buffer.set_len(n) };
    // SAFETY: the kernel has just filled message.
    let fds = unsafe { passed(&message) };
    if message.msg_flags & libc::MSG_CTRUNC != 0 { Err(Errno::EMSGSIZE) } else { Ok(fds) }
}

/// Room for a control message of four descriptors: a header of 16 bytes, four numbers of 4. cmsg(3).
const CONTROL: usize = 32;

/// Takes the descriptors that came with a message.
///
/// # Safety
/// `message` must be as recvmsg filled it, with its control space, and its descriptors must not have been taken before.
unsafe fn passed(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the control space is as the kernel filled it; the macro looks no further than msg_controllen.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR gave lies whole within the space, aligned as in C.
        let h = unsafe { *header };
        if (h.cmsg_level, h.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the data of a header stands behind it.
            let (data, head) = unsafe { (libc::CMSG_DATA(header), libc::CMSG_LEN(0) as usize) };
            for at in 0..(h.cmsg_len as usize - head) / size_of::<RawFd>() {
                // SAFETY: cmsg_len says that this many numbers are there; they may stand at any alignment. Each is
                // a descriptor that the kernel has just made for us; nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) });
            }
        }
        // SAFETY: as CMSG_FIRSTHDR above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use std::ffi::CString;
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    /// A directory whose path alone is longer than sun_path.
    fn far() -> (PathBuf, OwnedFd) {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("coracle-socket-{}-{count}", std::process::id()));
        let path = base.join("d".repeat(120));
        std::fs::create_dir_all(&path).expect("mkdir");
        let dir = fs::open(&c(&path), libc::O_DIRECTORY | libc::O_PATH, 0).expect("open");
        (path, dir)
    }

    fn c(path: &std::path::Path) -> CString {
        CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL")
    }

    fn away(path: PathBuf) {
        std::fs::remove_dir_all(path.parent().expect("base")).expect("removed");
    }

    fn null() -> OwnedFd {
        fs::open(c"/dev/null", libc::O_RDWR, 0).expect("/dev/null")
    }

    #[test]
    fn messages_stay_apart_and_the_end_is_seen() {
        let (a, b) = seqpacket_pair().expect("pair");
        send(a.as_fd(), b"one").expect("send");
        send(a.as_fd(), b"two").expect("send");
        let mut buffer = [0; 16];
        assert_eq!(recv(b.as_fd(), &mut buffer), Ok(3));
        assert_eq!((recv(b.as_fd(), &mut buffer), &buffer[..3]), (Ok(3), b"two".as_slice()));
        end_sending(a.as_fd()).expect("shutdown");
        assert_eq!(recv(b.as_fd(), &mut buffer), Ok(0));
        send(b.as_fd(), b"answer").expect("the other way is open");
        assert_eq!(recv(a.as_fd(), &mut buffer), Ok(6));
        drop(a);
        assert_eq!(send(b.as_fd(), b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn a_name_is_reached_however_deep_it_lies() {
        let (path, dir) = far();
        let listener = listen_seqpacket(dir.as_fd(), "s").expect("listen");
        assert_eq!(listen_seqpacket(dir.as_fd(), "s").err(), Some(Errno::EADDRINUSE));
        let client = connect_seqpacket(dir.as_fd(), "s").expect("connect");
        let server = accept(listener.as_fd()).expect("accept");
        send(client.as_fd(), b"hello").expect("send");
        assert_eq!(recv(server.as_fd(), &mut [0; 8]), Ok(5));
        drop(listener);
        assert_eq!(connect_seqpacket(dir.as_fd(), "s").err(), Some(Errno::ECONNREFUSED));
        assert_eq!(connect_seqpacket(dir.as_fd(), "t").err(), Some(Errno::ENOENT));
        away(path);
    }

    #[test]
    fn a_datagram_carries_descriptors_to_a_long_path() {
        let (path, dir) = far();
        let server = bind_datagram(dir.as_fd(), "notify").expect("bind");
        let client = connect_datagram(&c(&path.join("notify"))).expect("connect");
        let device = null();
        send_fds(client.as_fd(), b"READY=1", &[device.as_fd(), device.as_fd()]).expect("send");
        let mut message = b"what was there before".to_vec();
        let fds = recv_fds(server.as_fd(), &mut message).expect("receive");
        assert_eq!((message.as_slice(), fds.len()), (b"READY=1".as_slice(), 2));
        assert_eq!(fs::fstat(fds[1].as_fd()), fs::fstat(device.as_fd()));
        assert_eq!(connect_stream(&c(&path.join("notify"))).err(), Some(Errno::EPROTOTYPE));
        away(path);
    }

    #[test]
    fn too_many_descriptors_are_an_error_and_leave_none_open() {
        let (a, b) = stream_pair().expect("pair");
        // Something that only this test holds open: a pipe shows its end when no copy of the writing side is left.
        let (read, write) = crate::poll::pipe().expect("pipe");
        send_fds(a.as_fd(), b"x", &[write.as_fd(); 5]).expect("send");
        drop(write);
        let mut buffer = Vec::with_capacity(8);
        assert_eq!(recv_fds(b.as_fd(), &mut buffer).err(), Some(Errno::EMSGSIZE));
        let hung_up = crate::poll::poll(&[(read.as_fd(), libc::POLLIN)], 0).expect("poll");
        assert_eq!(hung_up, [libc::POLLHUP], "a copy of the writing end is still open");
        let device = null();
        send_fd(a.as_fd(), b"x", device.as_fd()).expect("send");
        assert_eq!(recv_fds(b.as_fd(), &mut buffer).expect("receive").len(), 1);
        send_fds(a.as_fd(), b"x", &[]).expect("send");
        assert_eq!(recv_fds(b.as_fd(), &mut buffer).expect("receive").len(), 0);
    }
}
