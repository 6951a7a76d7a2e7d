//! The other end of a Unix socket that the runtime connects to: messages that carry descriptors, unix(7), SCM_RIGHTS; a bus
//! that breaks off.

use std::{
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
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

/// Where the connection that a client makes to a bus through another socket breaks off: at the message with this word, which
/// the bus still gets, or not. Connections after that one hold.
#[derive(Clone, Copy)]
pub(crate) struct BreakOff {
    pub(crate) word: &'static str,
    pub(crate) heard: bool,
}

/// Passes on to the bus at `to` what comes to `listener`, for as long as the test runs.
pub(crate) fn breaking_bus(listener: UnixListener, to: PathBuf, at: BreakOff) {
    thread::spawn(move || {
        let mut at = Some(at);
        for client in listener.incoming().flatten() {
            // One after the other, as the runtime makes them.
            if pass_on(client, &to, at).unwrap_or(false) {
                at = None;
            }
        }
    });
}

/// One connection to its end. Whether it was broken off.
fn pass_on(mut client: UnixStream, to: &Path, at: Option<BreakOff>) -> io::Result<bool> {
    let mut bus = UnixStream::connect(to)?;
    let (mut answers, mut back) = (bus.try_clone()?, client.try_clone()?);
    thread::spawn(move || io::copy(&mut answers, &mut back));
    let mut message = vec![0; 1 << 20];
    loop {
        // The runtime writes a message at once, and waits for its answer.
        let length = client.read(&mut message)?;
        let said = &message[..length];
        let end = at.filter(|at| said.windows(at.word.len()).any(|word| word == at.word.as_bytes()));
        if let Some(end) = end {
            client.shutdown(Shutdown::Both)?;
            if !end.heard {
                bus.shutdown(Shutdown::Both)?;
                return Ok(true);
            }
        }
        if length == 0 {
            bus.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        bus.write_all(said)?;
        if end.is_some() {
            return Ok(true);
        }
    }
}
