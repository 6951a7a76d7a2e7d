//! The other end of a Unix socket that the runtime connects to: messages that carry descriptors. unix(7), SCM_RIGHTS.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Result, container::until};

/// The one message of the one connection that comes: its bytes and its descriptors.
pub(crate) fn sent_to(listener: &UnixListener) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    listener.set_nonblocking(true)?;
    let (connection, _) = until("the runtime connects to the socket", || Ok(listener.accept().ok()))?;
    connection.set_nonblocking(false)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 16 * 1024];
    let message = recvmsg(&connection, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty())?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(got) = part {
            descriptors.extend(got);
        }
    }
    bytes.truncate(message.bytes);
    Ok((bytes, descriptors))
}
