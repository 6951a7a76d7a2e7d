//! `--used PROGRAM ARG ...`: runs a command and prints the functions that it and its children call, each once, in the
//! order of their first calls. `integration/layout` makes the linker's order of functions from that.
//!
//! Every function of the program begins with a breakpoint, which is taken away where a process comes upon it. That needs a
//! program linked to fixed addresses, with its symbols, and this architecture's breakpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileExt,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    libc::c_int,
    sys::{
        ptrace::{self, Event},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::harness::{Result, trace};

/// The instruction int3 (Intel SDM, volume 2, INT3): one byte, after which the process stops with SIGTRAP.
const BREAKPOINT: u8 = 0xcc;

/// Runs the command and prints the list.
pub(crate) fn main(words: &[String]) -> ExitCode {
    match words.split_first().map(|(program, arguments)| run(program, arguments)) {
        Some(Ok(names)) => {
            names.iter().for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            eprintln!("coracle-integration --used: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::from(2),
    }
}

fn run(program: &str, arguments: &[String]) -> Result<Vec<String>> {
    let code = Code::read(program)?;
    let first = trace::start(Command::new(program).args(arguments), Stdio::inherit(), trace::OPTIONS)?;
    let mut used =
        Used { code: &code, tracees: BTreeSet::from([first]), seen: BTreeSet::new(), order: Vec::new() };
    let status = used.follow(first)?;
    used.tracees.remove(&first);
    used.let_go();
    if status != 0 {
        return Err(format!("{program} {}: exit status {status}", arguments.join(" ")).into());
    }
    Ok(used.order)
}

/// A program's code, as the file has it and with the breakpoints.
struct Code {
    address: u64,
    plain: Vec<u8>,
    planted: Vec<u8>,
    functions: BTreeMap<u64, Vec<String>>,
}

impl Code {
    fn read(program: &str) -> Result<Code> {
        let (offset, address, size) = executable_segment(&output("readelf", &["-lW", program])?)?;
        let mut plain = vec![0; size];
        fs::File::open(program)?.read_exact_at(&mut plain, offset)?;
        let mut planted = plain.clone();
        let mut functions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (at, name) in symbols(&output("readelf", &["-sW", program])?) {
            let index = at.checked_sub(address).and_then(|index| usize::try_from(index).ok());
            if let Some(byte) = index.and_then(|index| planted.get_mut(index)) {
                *byte = BREAKPOINT;
                functions.entry(at).or_default().push(name.to_owned());
            }
        }
        if functions.is_empty() {
            return Err(format!("{program}: no symbols of functions").into());
        }
        Ok(Code { address, plain, planted, functions })
    }

    fn is(&self, code: &[u8]) -> bool {
        code.iter()
            .zip(&self.plain)
            .zip(&self.planted)
            .all(|((byte, plain), planted)| byte == plain || byte == planted)
    }

    /// The byte that a breakpoint stands in for, if the address is a function's.
    fn first_byte(&self, at: u64) -> Option<u8> {
        self.functions.get(&at)?;
        self.plain.get(usize::try_from(at - self.address).ok()?).copied()
    }
}

fn memory(pid: Pid) -> std::io::Result<fs::File> {
    fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Offset in the file, address and size of the segment that may be executed, from `readelf -lW`.
fn executable_segment(headers: &str) -> Result<(u64, u64, usize)> {
    let number = |word: &&str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let segment = headers.lines().filter(|line| line.contains(" R E ")).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, offset, address, _, size, ..] = words.as_slice() else { return None };
        let size = usize::try_from(number(size)?).ok()?;
        (*kind == "LOAD").then_some((number(offset)?, number(address)?, size))
    });
    segment.ok_or_else(|| "no segment that may be executed".into())
}

/// Addresses and names of the functions, from `readelf -sW`. What else has a name in the code may be data.
fn symbols(list: &str) -> impl Iterator<Item = (u64, &str)> {
    list.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        matches!(words.nth(1)?, "FUNC" | "IFUNC").then_some((at, words.nth(3)?))
    })
}

/// A command under trace.
struct Used<'a> {
    code: &'a Code,
    tracees: BTreeSet<Pid>,
    seen: BTreeSet<u64>,
    order: Vec<String>,
}

impl Used<'_> {
    /// Until the first process has ended; with its exit status.
    fn follow(&mut self, first: Pid) -> Result<c_int> {
        loop {
            let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Exited(pid, status) if pid == first => return Ok(status),
                WaitStatus::Signaled(pid, signal, _) if pid == first => return Ok(128 + signal as c_int),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                    self.tracees.remove(&pid);
                    continue;
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == Event::PTRACE_EVENT_EXEC as c_int {
                        self.write_code(pid, &self.code.planted);
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => (pid, (!self.called(pid, signal)).then_some(signal)),
                _ => continue,
            };
            self.tracees.insert(pid);
            // It may have been killed meanwhile; the next waitpid says so.
            let _ = ptrace::cont(pid, signal);
        }
    }

    /// Gives a process this code, if the code that it has is the program's, with breakpoints or without; a protected copy
    /// of the program is the program too.
    fn write_code(&self, pid: Pid, bytes: &[u8]) {
        let mut code = vec![0; bytes.len()];
        let Ok(memory) = memory(pid) else { return };
        if memory.read_exact_at(&mut code, self.code.address).is_ok() && self.code.is(&code) {
            let _ = memory.write_all_at(bytes, self.code.address);
        }
    }

    /// Whether the signal is that of a breakpoint of ours; if so, the function is noted and the process may go on.
    fn called(&mut self, pid: Pid, signal: Signal) -> bool {
        if signal != Signal::SIGTRAP {
            return false;
        }
        let Ok(mut registers) = ptrace::getregs(pid) else { return false };
        let at = registers.rip.wrapping_sub(1);
        let Some(byte) = self.code.first_byte(at) else { return false };
        registers.rip = at;
        let put_back = memory(pid).and_then(|memory| memory.write_all_at(&[byte], at));
        if put_back.is_err() || ptrace::setregs(pid, registers).is_err() {
            return false;
        }
        if self.seen.insert(at) {
            self.order.extend(self.code.functions[&at].iter().cloned());
        }
        true
    }

    /// Leaves the others, such as an init that waits for `start`, to themselves, without breakpoints.
    fn let_go(&mut self) {
        for pid in std::mem::take(&mut self.tracees) {
            if ptrace::interrupt(pid).is_err() {
                continue;
            }
            let signal = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, signal)) => (!self.called(pid, signal)).then_some(signal),
                _ => None,
            };
            self.write_code(pid, &self.code.plain);
            let _ = ptrace::detach(pid, signal);
        }
    }
}
