//! The messages of rtnetlink(7): netlink(7) headers, bodies, attributes. All as bytes: nothing of the kernel's is read by
//! reference to a structure, so that a short or odd message cannot be read past its end.

use crate::{Errno, Result, own, socket, syscall};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// struct nlmsghdr: length 4, type 2, flags 2, sequence 4, port 4.
const HEADER: usize = 16;
/// struct ifinfomsg.
pub(super) const LINK: usize = 16;
/// struct ifaddrmsg.
pub(super) const ADDRESS: usize = 8;
/// Netlink pads everything to four bytes.
const ALIGNED: usize = 4;

/// The body of a request: a fixed structure and attributes.
pub(super) struct Body(Vec<u8>);

impl Body {
    /// struct ifinfomsg: family 1, pad 1, type 2, index 4, flags 4, change 4. The flags are set, none is cleared.
    pub(super) fn link(index: u32, flags: u32) -> Body {
        Body([0, index, flags, flags].map(u32::to_ne_bytes).concat())
    }

    /// struct ifaddrmsg: family, prefix, flags, scope of one byte each, index 4.
    pub(super) fn address(family: u8, prefix: u8, flags: u8, scope: u8, index: u32) -> Body {
        Body([[family, prefix, flags, scope], index.to_ne_bytes()].concat())
    }

    /// struct rtattr: length 2, type 2, value, padding. Errors: EMSGSIZE for a value whose length those two bytes cannot
    /// hold (CVE-2021-43784).
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> Result<()> {
        let length = u16::try_from(value.len() + 4).map_err(|_| Errno::EMSGSIZE)?;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNED), 0);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Four bytes of a message.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The attributes behind a fixed structure, up to the first that is not whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        // The two highest bits are flags: NLA_F_NESTED, NLA_F_NET_BYTEORDER.
        let (kind, value) = (half(bytes, 2)? & 0x3fff, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(ALIGNED)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One message from the kernel: its type, its flags, its body; and what stands behind it.
fn split(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(ALIGNED)..).unwrap_or_default();
    Some((half(bytes, 4)?, half(bytes, 6)?, body, rest))
}

/// A connection to the kernel's routing tables of the network namespace that this thread was in when it was opened.
pub(super) struct Route(OwnedFd);

impl Route {
    /// socket(2) AF_NETLINK, connected to the kernel, so that nobody else's messages arrive.
    pub(super) fn open() -> Result<Route> {
        let (kind, protocol) = (libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        // SAFETY: integers only.
        let socket = unsafe { syscall!(libc::SYS_socket, libc::AF_NETLINK, kind, protocol) }.map(own)?;
        // SAFETY: sockaddr_nl is plain integers, for which all-zero is a value.
        let mut kernel: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let size = size_of::<libc::sockaddr_nl>();
        // SAFETY: a whole sockaddr_nl of the size given, alive through the call.
        unsafe { syscall!(libc::SYS_connect, socket.as_raw_fd(), &raw const kernel, size) }?;
        Ok(Route(socket))
    }

    fn send(&self, kind: u16, flags: i32, body: Body) -> Result<()> {
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut message = ((HEADER + body.0.len()) as u32).to_ne_bytes().to_vec();
        message.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        message.extend([0; 8]); // one request a socket: no sequence number to tell answers apart; the kernel fills in the port
        message.extend(body.0);
        socket::send(self.0.as_fd(), &message)
    }

    /// Asks for a change and waits for the kernel's word on it.
    pub(super) fn change(&self, kind: u16, flags: i32, body: Body) -> Result<()> {
        self.send(kind, flags | libc::NLM_F_ACK, body)?;
        self.answers(kind).map(drop)
    }

    /// Asks for a whole table: the bodies of all answers of the type `wanted`.
    /// Errors: EAGAIN when the table changed while it was read.
    pub(super) fn dump(&self, kind: u16, wanted: u16, body: Body) -> Result<Vec<Vec<u8>>> {
        self.send(kind, libc::NLM_F_DUMP, body)?;
        self.answers(wanted)
    }

    /// Reads up to the end of a dump, or to the acknowledgement: NLMSG_ERROR, whose body begins with 0 or a negated errno.
    fn answers(&self, wanted: u16) -> Result<Vec<Vec<u8>>> {
        let (mut found, mut interrupted) = (Vec::new(), false);
        let mut buffer = vec![0u8; 32 * 1024]; // the kernel makes no larger part of a dump: netlink_dump()
        loop {
            let n = socket::recv(self.0.as_fd(), &mut buffer)?;
            if n == 0 {
                return Err(Errno::EBADMSG);
            }
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let (kind, flags, body, behind) = split(rest).ok_or(Errno::EBADMSG)?;
                interrupted |= i32::from(flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(kind) {
                    libc::NLMSG_ERROR => return verdict(body).map(|()| found),
                    libc::NLMSG_DONE if interrupted => return Err(Errno::EAGAIN),
                    libc::NLMSG_DONE => return Ok(found),
                    _ if kind == wanted => found.push(body.to_vec()),
                    _ => {}
                }
                rest = behind;
            }
        }
    }
}

fn verdict(body: &[u8]) -> Result<()> {
    match word(body, 0).ok_or(Errno::EBADMSG)? as i32 {
        0 => Ok(()),
        error => Err(Errno::from_raw(-error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_padded_and_in_order() {
        let mut body = Body::link(3, 1);
        body.attribute(3, b"eth0\0").expect("fits");
        body.attribute(28, &[1, 2, 3, 4]).expect("fits");
        assert_eq!(body.bytes().len(), LINK + 12 + 8);
        let read: Vec<_> = attributes(&body.bytes()[LINK..]).collect();
        assert_eq!(read, [(3, b"eth0\0".as_slice()), (28, &[1, 2, 3, 4])]);
    }

    #[test]
    fn a_value_that_overflows_the_length_is_refused() {
        let mut body = Body::link(0, 0);
        assert_eq!(body.attribute(3, &[0; 65532]), Err(Errno::EMSGSIZE));
        assert_eq!(body.attribute(3, &[0; 65531]), Ok(()));
    }

    #[test]
    fn odd_lengths_end_the_reading() {
        // Shorter than its own head, and longer than what is there.
        for length in [0u16, 1, 3, 9] {
            let bytes = [length.to_ne_bytes(), [1, 0], [0, 0], [0, 0]].concat();
            assert_eq!(attributes(&bytes).count(), 0, "length {length}");
        }
        for length in [0u32, 15, 21] {
            let bytes = [length.to_ne_bytes().as_slice(), &[0; 16]].concat();
            assert!(split(&bytes).is_none(), "length {length}");
        }
        let whole = [20u32.to_ne_bytes().as_slice(), &[2, 0, 0, 0], &[0; 8], &(-1i32).to_ne_bytes()].concat();
        let (kind, flags, body, rest) = split(&whole).expect("whole");
        assert_eq!((kind, flags, verdict(body), rest.len()), (2, 0, Err(Errno::EPERM), 0));
    }
}
