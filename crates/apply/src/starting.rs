//! From the start until init is the workload: failures, and the listener of a seccomp filter, which goes to its agent.
//! config-linux.md, Seccomp, The Container Process State; seccomp_unotify(2).

use crate::failure::{Doing, Failure, Result, text};
use crate::parent::at_step;
use crate::wire::{self, Said};
use coracle_plan::steps::Plan;
use coracle_state::Record;
use coracle_sys::{process, socket};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Who starts.
pub(crate) struct Starting<'a> {
    pub(crate) wire: BorrowedFd<'a>,
    pub(crate) pid: i32,
    /// Absent where it would be opened for this alone.
    pub(crate) pidfd: Option<BorrowedFd<'a>>,
    pub(crate) record: &'a Record,
    /// The container's status in runtime.md's words.
    pub(crate) status: &'static str,
}

/// A connection to the agent, and what it is to be told beside.
struct Agent(OwnedFd, String);

impl Starting<'_> {
    /// Waits until the workload has begun. Errors: what failed; of `plan`, when the step is to be named.
    pub(crate) fn wait(&self, plan: Option<&Plan>) -> Result<()> {
        let mut agent = None;
        loop {
            match wire::hear(self.wire)? {
                Said::Nothing => return Ok(()),
                Said::Failed(step, failure) => {
                    return Err(plan.map_or(failure.clone(), |plan| at_step(plan, step, failure)));
                }
                Said::Agent(path, metadata) => agent = Some(connect(&path, metadata)?),
                Said::Listener(fd) => self.hand_over(agent.take(), &fd)?,
                Said::ListenerNumber(number) => {
                    self.hand_over(agent.take(), &self.fetch(number)?)?;
                }
                other => {
                    return Err(Failure::says(format!(
                        "the container's init said {other:?} instead of starting"
                    )));
                }
            }
            socket::send(self.wire, wire::GO).doing(|| "answering the container's init".into())?;
        }
    }

    fn fetch(&self, number: i32) -> Result<OwnedFd> {
        let doing = || "fetching the seccomp listener (pidfd_getfd)".to_owned();
        match (self.pidfd, self.record.init()) {
            (Some(pidfd), _) => process::pidfd_getfd(pidfd, number).doing(doing),
            (None, Ok(Some(init))) => process::pidfd_getfd(init.pidfd.as_fd(), number).doing(doing),
            (None, _) => Err(Failure::says("the container's init ended while it started")),
        }
    }

    fn hand_over(&self, agent: Option<Agent>, listener: &OwnedFd) -> Result<()> {
        let Some(Agent(connection, metadata)) = agent else {
            return Err(Failure::says("a seccomp listener without an agent"));
        };
        let message = self.record.process_state_json(self.status, self.pid, &metadata);
        socket::send_fd(connection.as_fd(), &message, listener.as_fd())
            .doing(|| "sending the listener to the seccomp agent".into())
            .map_err(|f| f.at("linux.seccomp.listenerPath"))
    }
}

fn connect(path: &CStr, metadata: String) -> Result<Agent> {
    let connection = socket::connect_stream(path)
        .doing(|| {
            format!("failed to connect with seccomp agent specified in the seccomp profile, {}", text(path))
        })
        .map_err(|f| f.at("linux.seccomp.listenerPath"))?;
    Ok(Agent(connection, metadata))
}
