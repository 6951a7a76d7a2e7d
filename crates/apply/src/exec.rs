//! Exec: another process in a container that runs. A short plan over the same steps; nothing is recorded of it.

use crate::agent::{self, Agent, Asking};
use crate::cgroup::Cgroup;
use crate::child::{self, Prepared};
use crate::failure::{Doing, Failure, Result, text};
use crate::parent::{at_step, clone, connect_pidfd_socket, open_joins, send_pidfd};
use crate::rdt::Resctrl;
use crate::wire::{self, Said};
use crate::{lifecycle, pid_file, relay, starting};
use coracle_plan::steps::Plan;
use coracle_state::Record;
use coracle_sys::process::Cloned;
use coracle_sys::{Errno, fs, libc, limits, process, socket};
use std::ffi::CString;
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

/// How exec was asked for.
#[derive(Default)]
pub struct ExecHow<'a> {
    /// Where to write the process's pid.
    pub pid_file: Option<&'a Path>,
    /// Descriptors for the process, from 3 on.
    pub preserve_fds: u32,
    /// A Unix socket that takes a pidfd of the process.
    pub pidfd_socket: Option<&'a Path>,
    /// Groups below the container's to join, as [`Cgroup::below`] has them; none: the container's own.
    pub cgroup: &'a [String],
    /// Whether the container is paused, and the process is to wait for its resume.
    pub paused: bool,
    /// Whether init is in a group below the container's, and the process is to be there too.
    pub with_init: bool,
}

/// Starts the process. Errors: what failed; then the process is gone.
pub fn exec(plan: &Plan, record: &Record, how: &ExecHow) -> Result<Running> {
    let joins = open_joins(plan)?;
    let place = CString::new(format!("/proc/{}/root", record.pid)).unwrap_or_default();
    let root = fs::open(&place, libc::O_PATH | libc::O_DIRECTORY, 0)
        .doing(|| format!("opening the root of the container's init, {}", text(&place)))?;
    if record.init().map_err(|e| Failure::says(e.to_string()))?.is_none() {
        // What was just opened by init's pid may have been another's.
        return Err(Failure::says("cannot exec in a stopped container"));
    }
    let console = plan.terminal.as_ref().and_then(|t| t.socket.as_ref());
    let console = console
        .map(|path| {
            socket::connect_stream(path).doing(|| format!("connecting to the console socket {}", text(path)))
        })
        .transpose()?;
    let pidfd_socket = how.pidfd_socket.map(connect_pidfd_socket).transpose()?;
    let group = lifecycle::cgroup(record);
    let mut group = match group {
        Some(group) if !how.cgroup.is_empty() => Some(group.below(how.cgroup)?),
        None if !how.cgroup.is_empty() => {
            return Err(Failure::says("--cgroup: the container has no control group of its own"));
        }
        Some(group) if how.with_init => group.of_init(record.pid).or(Some(group)),
        other => other,
    };
    let resctrl = record.rdt.as_ref().map(|groups| Ok((Resctrl::open()?, groups))).transpose()?;
    let (ours, theirs) = socket::seqpacket_pair().doing(|| "making a socket pair".into())?;
    let prepared = Prepared {
        plan,
        network: false,
        record,
        wire: theirs,
        listener: None,
        waiting: None,
        joins,
        root: Some(root),
        opened: Vec::new(),
        preserve_fds: how.preserve_fds,
    };
    if !plan.first_cpus.is_empty() {
        // Of this process, which the new one takes them from: it is born in the control group.
        limits::sched_setaffinity(&plan.first_cpus)
            .doing(|| "choosing the CPUs to run on (sched_setaffinity)".into())
            .map_err(|f| f.at("process.execCPUAffinity.initial"))?;
    }
    let moves = |group: &Option<Cgroup>| group.as_ref().filter(|_| !how.paused).map_or(Ok(()), Cgroup::moves);
    moves(&group)?;
    let mut cloned = clone(plan, group.as_ref(), plan.namespaces.new);
    let moved = |f: &Failure| matches!(f.errno, Some(Errno::EBUSY | Errno::ENOENT));
    if how.cgroup.is_empty() && cloned.as_ref().is_err_and(moved) {
        // The container has made groups of its own and moved init there, or init was moved and its group removed.
        group = group.and_then(|group| group.of_init(record.pid));
        moves(&group)?;
        cloned = clone(plan, group.as_ref(), plan.namespaces.new);
    }
    let (pid, pidfd) = match cloned? {
        Cloned::Child => child::run(prepared),
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(prepared);
    let mut running = Running { pidfd, pid, master: None };
    let limited = resctrl.map_or(Ok(()), |(resctrl, groups)| resctrl.join(groups, pid));
    let begun = limited.and_then(|()| running.begin(plan, record, group.as_ref(), console.as_ref(), &ours));
    let begun = begun.and_then(|()| {
        how.pid_file.map_or(Ok(()), |file| pid_file::write(file, running.pid))?;
        pidfd_socket.map_or(Ok(()), |socket| send_pidfd(&socket, &running.pidfd))?;
        socket::send(ours.as_fd(), wire::GO).doing(|| "starting the process".into())?;
        starting::wait(ours.as_fd(), Some(plan))
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
        record: &Record,
        group: Option<&Cgroup>,
        console: Option<&OwnedFd>,
        wire: &OwnedFd,
    ) -> Result<()> {
        let answer = || socket::send(wire.as_fd(), wire::GO).doing(|| "answering the new process".into());
        let mut agent = None;
        loop {
            match wire::hear(wire.as_fd())? {
                Said::Ready => return child::impose(plan, self.pid),
                Said::Waits => {
                    group.map_or(Ok(()), |g| g.attach(self.pid))?;
                    answer()?;
                }
                Said::Again(pid) => {
                    process::wait(self.pid, 0).doing(|| "waiting for the first process".into())?;
                    self.pidfd = process::pidfd_open(pid).doing(|| format!("opening process {pid}"))?;
                    self.pid = pid;
                }
                Said::Terminal(fd) => match console {
                    Some(socket) => socket::send_fd(socket.as_fd(), b"/dev/ptmx", fd.as_fd())
                        .doing(|| "sending the terminal to the console socket".into())?,
                    None => self.master = Some(relay::own(fd)),
                },
                Said::Agent(path, metadata) => {
                    agent = Some(Agent::connect(&path, metadata)?);
                    answer()?;
                }
                Said::Listener(fd) => {
                    let (pid, pidfd) = (self.pid, self.pidfd.as_fd());
                    agent::give(agent.take(), fd, &Asking { pid, pidfd, record, status: "running" })?;
                    answer()?;
                }
                Said::Failed(step, failure) => return Err(at_step(plan, step, failure)),
                _ => {
                    return Err(Failure::says("the new process died before it was ready"));
                }
            }
        }
    }
}
