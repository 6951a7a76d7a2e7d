//! The new network namespace, made by the runtime while init is at work: network_namespaces(7).

use crate::failure::{Doing, Failure, Result};
use crate::wire;
use coracle_sys::{Errno, fs, libc, namespace, net};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The network namespace that the runtime belongs to.
pub(crate) struct Home(OwnedFd);

/// The network namespace that this process is in.
pub(crate) fn current() -> Result<OwnedFd> {
    fs::open(c"/proc/self/ns/net", libc::O_RDONLY, 0)
        .doing(|| "opening the network namespace /proc/self/ns/net".into())
}

impl Home {
    /// Where this process is now.
    pub(crate) fn here() -> Result<Home> {
        current().map(Home)
    }

    /// The same; none where it could not be entered again: root of a user namespace has no right to one from outside. setns(2).
    pub(crate) fn to_return_to() -> Result<Option<Home>> {
        let home = Home::here()?;
        match home.enter() {
            Ok(()) => Ok(Some(home)),
            Err(Errno::EPERM) => Ok(None),
            other => other.map(|()| None).doing(|| "entering the runtime's own network namespace".into()),
        }
    }

    fn enter(&self) -> coracle_sys::Result<()> {
        namespace::setns(self.0.as_fd(), libc::CLONE_NEWNET)
    }

    /// Does something in the network namespace that `leave` goes to. This process has one thread, so all of it goes there, and
    /// comes back.
    pub(crate) fn away<T>(
        &self,
        leave: impl FnOnce() -> Result<()>,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        leave()?;
        let done = act();
        self.enter().doing(|| "returning to the runtime's network namespace".into())?;
        done
    }

    /// Makes a new one, gives it to init and sets its loopback interface up. Errors: what failed; then the namespace ends with
    /// init.
    pub(crate) fn make(&self, init: BorrowedFd) -> Result<OwnedFd> {
        let unshare = || {
            namespace::unshare(libc::CLONE_NEWNET).map_err(|e| {
                let full = " (the limit /proc/sys/user/max_net_namespaces is reached)";
                let hint = if e == Errno::ENOSPC { full } else { "" };
                Failure::errno(format!("making a network namespace{hint}"), e)
            })
        };
        self.away(unshare, || {
            let made = current()?;
            match wire::give_network(init, made.as_fd()) {
                // Of one that has failed already, the reason comes next.
                Err(f) if f.errno == Some(Errno::EPIPE) => {}
                other => other?,
            }
            net::loopback_up().doing(|| "setting the loopback interface up".into())?;
            Ok(made)
        })
    }
}

impl AsFd for Home {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Init's part.
pub(crate) fn join(runtime: BorrowedFd) -> Result<()> {
    let namespace = wire::await_network(runtime)?;
    namespace::setns(namespace.as_fd(), libc::CLONE_NEWNET).doing(|| "entering the network namespace".into())
}
