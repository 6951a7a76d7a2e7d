//! Exec: another process in a container that runs. A short plan over the same steps; nothing is recorded of it.

use crate::cgroup::Cgroup;
use crate::child::{self, Prepared};
use crate::failure::{Doing, Failure, Result, text};
use crate::parent::{at_step, check_inputs, clone, open_joins, started};
use crate::wire::{self, Said};
use crate::{lifecycle, pid_file};
use coracle_plan::steps::Plan;
use coracle_state::Record;
use coracle_sys::process::Cloned;
use coracle_sys::{libc, process, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A process that was started in a container.
pub struct Running {
    /// The process.
    pub pidfd: OwnedFd,
    /// Its pid as the host sees it.
    pub pid: i32,
    /// The terminal's master side, when this process relays it.
    pub master: Option<OwnedFd>,
}

/// Starts the process. Errors: what failed; then the process is gone.
pub fn exec(plan: &Plan, record: &Record, pid_file: Option<&Path>, preserve_fds: u32) -> Result<Running> {
    check_inputs(preserve_fds)?;
    let joins = open_joins(plan)?;
    if record.init().is_none() {
        // What was just opened by init's pid may have been another's.
        return Err(Failure::says("cannot exec in a stopped container"));
    }
    let console = plan.terminal.as_ref().and_then(|t| t.socket.as_ref());
    let console = console
        .map(|path| {
            socket::connect_stream(path).doing(|| format!("connecting to the console socket {}", text(path)))
        })
        .transpose()?;
    let group = lifecycle::cgroup(record);
    let (ours, theirs) = socket::seqpacket_pair().doing(|| "making a socket pair".into())?;
    let prepared = Prepared {
        plan,
        record,
        wire: theirs,
        listener: None,
        waiting: None,
        joins,
        opened: Vec::new(),
        preserve_fds,
    };
    let (pid, pidfd) = match clone(plan, group.as_ref())? {
        Cloned::Child => child::run(prepared),
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(prepared);
    let mut running = Running { pidfd, pid, master: None };
    let begun = running.begin(plan, group.as_ref(), console.as_ref(), &ours).and_then(|()| {
        pid_file.map_or(Ok(()), |file| pid_file::write(file, running.pid))?;
        socket::send(ours.as_fd(), wire::GO).doing(|| "starting the process".into())?;
        started(ours.as_fd(), plan)
    });
    begun.inspect_err(|_| {
        let _ = process::pidfd_send_signal(running.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(running.pid, 0);
    })?;
    Ok(running)
}

impl Running {
    fn begin(
        &mut self,
        plan: &Plan,
        group: Option<&Cgroup>,
        console: Option<&OwnedFd>,
        wire: &OwnedFd,
    ) -> Result<()> {
        loop {
            match wire::hear(wire.as_fd())? {
                Said::Ready => return Ok(()),
                Said::Waits => {
                    group.map_or(Ok(()), |g| g.attach(self.pid))?;
                    socket::send(wire.as_fd(), wire::GO).doing(|| "answering the new process".into())?;
                }
                Said::Again(pid) => {
                    process::wait(self.pid, 0).doing(|| "waiting for the first process".into())?;
                    self.pidfd = process::pidfd_open(pid).doing(|| format!("opening process {pid}"))?;
                    self.pid = pid;
                }
                Said::Terminal(fd) => match console {
                    Some(socket) => socket::send_fd(socket.as_fd(), b"/dev/ptmx", fd.as_fd())
                        .doing(|| "sending the terminal to the console socket".into())?,
                    None => self.master = Some(fd),
                },
                Said::Failed(step, failure) => return Err(at_step(plan, step, failure)),
                Said::Hooks | Said::Nothing => {
                    return Err(Failure::says("the new process died before it was ready"));
                }
            }
        }
    }
}
