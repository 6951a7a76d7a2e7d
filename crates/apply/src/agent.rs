//! The agent that decides on syscalls: told of a container by whoever makes its process, and given the listener of the filter.
//! config-linux.md, Seccomp, The Container Process State; seccomp_unotify(2).

use crate::failure::{Doing, Failure, Result, text};
use crate::wire::Handed;
use coracle_state::Record;
use coracle_sys::{process, socket};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connection to the agent, and what it is to be told beside.
pub(crate) struct Agent(OwnedFd, String);

/// Whose syscalls it decides on.
pub(crate) struct Asking<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) record: &'a Record,
    /// The container's status in runtime.md's words.
    pub(crate) status: &'static str,
}

impl Agent {
    /// Connects before the filter is loaded: without an agent nobody would answer.
    pub(crate) fn connect(path: &CStr, metadata: String) -> Result<Agent> {
        let connection = socket::connect_stream(path)
            .doing(|| {
                format!(
                    "failed to connect with seccomp agent specified in the seccomp profile, {}",
                    text(path)
                )
            })
            .map_err(|f| f.at("linux.seccomp.listenerPath"))?;
        Ok(Agent(connection, metadata))
    }
}

/// Gives the listener to the agent that was connected to.
pub(crate) fn give(agent: Option<Agent>, listener: Handed, asking: &Asking) -> Result<()> {
    let Some(Agent(connection, metadata)) = agent else {
        return Err(Failure::says("a seccomp listener without an agent"));
    };
    let listener = match listener {
        Handed::Here(fd) => fd,
        Handed::There(number) => process::pidfd_getfd(asking.pidfd, number)
            .doing(|| "fetching the seccomp listener (pidfd_getfd)".into())?,
    };
    let message = asking.record.process_state_json(asking.status, asking.pid, &metadata);
    socket::send_fd(connection.as_fd(), &message, listener.as_fd())
        .doing(|| "sending the listener to the seccomp agent".into())
        .map_err(|f| f.at("linux.seccomp.listenerPath"))
}
