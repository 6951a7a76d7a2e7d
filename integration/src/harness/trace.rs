//! Running a command under ptrace(2), counting its syscalls and ending one of its processes right before a chosen one.
//!
//! Ending a process before each syscall in turn shows every state that it can leave behind, since what lies between two
//! syscalls changes nothing outside of the process. What is done with that stands in `topics/crash.rs`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Event, Options},
        signal::{Signal, kill, raise},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::Result;

/// How long the command may take; longer, and it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long every process must sleep to count as having come to rest.
const REST: Duration = Duration::from_millis(4);
/// `op` of PTRACE_GET_SYSCALL_INFO at the entry of a syscall.
const ENTRY: u8 = 1;

/// The command's children are traced as it is itself, and an exec is told of.
pub(crate) const OPTIONS: Options = Options::PTRACE_O_TRACEFORK
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEEXEC);

/// Programs that are the container's own: the workload and the hooks.
const FOREIGN: [&str; 2] = ["probe", "true"];
const BIRTHS: [i32; 3] =
    [Event::PTRACE_EVENT_FORK as i32, Event::PTRACE_EVENT_VFORK as i32, Event::PTRACE_EVENT_CLONE as i32];

/// Which of the command's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The process of the command itself.
    Parent,
    /// Its children, of which the last becomes the workload; or the process that was adopted.
    Init,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Syscalls begun by the parent and by the init, until the workload's program took over.
    pub(crate) counts: [usize; 2],
    /// The syscall before which the process was ended, as /proc/PID/syscall has it: number and arguments.
    pub(crate) killed: Option<String>,
    /// The command's exit status, had it one.
    pub(crate) code: Option<i32>,
    /// The processes that neither ended nor came to rest in time, and the syscalls that they are in.
    pub(crate) hung: Option<String>,
}

/// `--stopped PROGRAM ARG ...`: stops so that it can be traced from its first syscall on, then becomes the program.
pub(crate) fn stopped(words: &[String]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else { return ExitCode::from(2) };
    if raise(Signal::SIGSTOP).is_ok() {
        eprintln!("{program}: {}", Command::new(program).args(arguments).exec());
    }
    ExitCode::from(126)
}

/// Runs the command to its end and what it leaves until it rests. `adopt` is a process that the command talks to,
/// counted as its init;
/// `errors` takes its standard error. `kill_at`: which process to end before which of its syscalls, from 1.
pub(crate) fn run(
    command: &Command,
    errors: &Path,
    adopt: Option<u32>,
    kill_at: Option<(Role, usize)>,
) -> Result<Trace> {
    let first = start(command, fs::File::create(errors)?.into(), OPTIONS | Options::PTRACE_O_TRACESYSGOOD)?;
    let mut tracer =
        Tracer { first, kill_at, tracees: BTreeMap::new(), begun: false, trace: Trace::default() };
    tracer.tracee(first);
    if let Some(pid) = adopt {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        seize(pid, OPTIONS | Options::PTRACE_O_TRACESYSGOOD)?;
        tracer.tracee(pid);
        ptrace::interrupt(pid)?;
    }
    tracer.follow()?;
    tracer.let_go();
    Ok(tracer.trace)
}

/// Starts the command under trace, as its `--stopped`: the first that is seen of it is its exec. Nothing is read of what it
/// prints; `errors` takes its standard error.
pub(crate) fn start(command: &Command, errors: Stdio, options: Options) -> Result<Pid> {
    let mut stopped = Command::new(std::env::current_exe()?);
    stopped.arg("--stopped").arg(command.get_program()).args(command.get_args());
    stopped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    if let Some(directory) = command.get_current_dir() {
        stopped.current_dir(directory);
    }
    let first = Pid::from_raw(i32::try_from(stopped.spawn()?.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    seize(first, options)?;
    kill(first, Signal::SIGCONT)?;
    Ok(first)
}

fn seize(pid: Pid, options: Options) -> Result {
    ptrace::seize(pid, options).map_err(|e| format!("ptrace(PTRACE_SEIZE, {pid}): {e}").into())
}

/// How long a sweep of some of the points may take, on however slow a machine.
const BUDGET: Duration = Duration::from_secs(60);

/// At most so many of a command's syscalls, spread over all, in an order that is spread too: where time ends the sweep, it has
/// seen something of every part. `SWEEP=N` takes every Nth, however long that takes.
pub(crate) fn points(total: usize, most: usize) -> impl Iterator<Item = usize> {
    let every = std::env::var("SWEEP").ok().and_then(|n| n.parse::<usize>().ok());
    let stride = every.unwrap_or_else(|| total.div_ceil(most)).max(1);
    let count = total.div_ceil(stride);
    // A step without a common divisor with the count meets each once.
    let divides = |n: usize| (2..=n.min(count)).any(|d| n % d == 0 && count % d == 0);
    let step = (count * 5 / 8..).find(|n| !divides(*n)).unwrap_or(1);
    let began = Instant::now();
    (0..count)
        .map(move |i| 1 + i * step % count * stride)
        .take_while(move |_| every.is_some() || began.elapsed() < BUDGET)
}

struct Tracee {
    /// Its thread group: the process.
    process: Pid,
    /// Whether the workload's program has taken over, or a hook's: what follows is not the runtime's.
    foreign: bool,
}

struct Tracer {
    first: Pid,
    kill_at: Option<(Role, usize)>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Whether the runtime's own program runs.
    begun: bool,
    trace: Trace,
}

impl Tracer {
    /// Until the first process has ended and all others have, or sleep.
    fn follow(&mut self) -> Result {
        let (begin, mut quiet) = (Instant::now(), Instant::now());
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => {
                    if quiet.elapsed() < Duration::from_micros(200) {
                        std::thread::yield_now();
                        continue;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                    let waits = self.tracees.contains_key(&self.first) || !self.asleep();
                    if !waits && (self.tracees.is_empty() || quiet.elapsed() > REST) {
                        return Ok(());
                    }
                    if begin.elapsed() > PATIENCE {
                        self.trace.hung = Some(self.describe());
                        return Ok(());
                    }
                }
                Ok(status) => {
                    self.handle(status);
                    quiet = Instant::now();
                }
                Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(format!("waitpid: {errno}").into()),
            }
        }
    }

    fn describe(&self) -> String {
        let syscall = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let line = |pid: &Pid| {
            let number = u32::try_from(pid.as_raw()).unwrap_or(0);
            format!("{} in {}", super::look::command_line(number), syscall(pid).trim())
        };
        self.tracees.keys().map(line).collect::<Vec<_>>().join(", ")
    }

    fn asleep(&self) -> bool {
        // One that is not there any more was born and reaped before its parent's stop told of the birth.
        let sleeps = |pid: &Pid| {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
        };
        self.tracees.keys().all(sleeps)
    }

    fn handle(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => {
                self.tracees.remove(&pid);
                if pid == self.first {
                    self.trace.code = Some(code);
                }
            }
            WaitStatus::Signaled(pid, _, _) => drop(self.tracees.remove(&pid)),
            WaitStatus::PtraceSyscall(pid) if self.at_syscall(pid) => {}
            WaitStatus::PtraceSyscall(pid) => self.resume(pid, None),
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    self.at_exec(pid);
                } else if let (true, Ok(born)) = (BIRTHS.contains(&event), ptrace::getevent(pid)) {
                    // Known from now on, so that nobody comes to rest before its first stop.
                    self.tracee(Pid::from_raw(born as i32));
                }
                self.resume(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            _ => {}
        }
    }

    fn tracee(&mut self, pid: Pid) -> &mut Tracee {
        self.tracees.entry(pid).or_insert_with(|| Tracee { process: thread_group(pid), foreign: false })
    }

    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        // A tracee may die at any time; the next waitpid says so.
        let _ =
            if self.tracee(pid).foreign { ptrace::cont(pid, signal) } else { ptrace::syscall(pid, signal) };
    }

    fn at_exec(&mut self, pid: Pid) {
        self.begun |= pid == self.first;
        self.tracee(pid).foreign =
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| FOREIGN.contains(&name.trim()));
    }

    /// Counts the entry of a syscall. Whether the process was ended.
    fn at_syscall(&mut self, pid: Pid) -> bool {
        if !self.begun || !ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
            return false;
        }
        let process = self.tracee(pid).process;
        let role = if process == self.first { Role::Parent } else { Role::Init };
        self.trace.counts[role as usize] += 1;
        if self.trace.killed.is_some() || self.kill_at != Some((role, self.trace.counts[role as usize])) {
            return false;
        }
        let syscall = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        self.trace.killed = Some(syscall.split(' ').take(4).collect::<Vec<_>>().join(" "));
        let _ = kill(process, Signal::SIGKILL);
        true
    }

    /// Leaves those that are left to themselves; a command that hangs is ended.
    fn let_go(&mut self) {
        if self.trace.hung.is_some() {
            let _ = kill(self.first, Signal::SIGKILL);
        }
        for pid in std::mem::take(&mut self.tracees).into_keys() {
            let _ = ptrace::interrupt(pid);
            let signal = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
                _ => None,
            };
            let _ = ptrace::detach(pid, signal);
        }
    }
}

fn thread_group(pid: Pid) -> Pid {
    let number = super::look::status(u32::try_from(pid.as_raw()).unwrap_or(0), "Tgid");
    number.ok().and_then(|text| text.parse().ok()).map_or(pid, Pid::from_raw)
}
