//! Tests of what changes the process itself: clones, namespaces, ids, mounts, filters. A program without threads, since
//! that is what `clone3` asks for; each test does its work in children of its own, so that none changes another's world.
//!
//! A test says what it needs. What is not there is a SKIP with its reason, and counted; a failure is an exit status of 1.
#![allow(clippy::print_stdout)] // a test program's output is its result

mod cgroups;
mod mounts;
mod net;
mod processes;
mod rights;

use coracle_sys::process::{self, CloneArgs, Cloned, Status};
use coracle_sys::{Errno, creds, fs, libc, poll};
use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// All capabilities over the first user namespace.
    Root,
    /// And a program of this name.
    Program(&'static str),
}

/// How a test ends: well, not at all (with the reason), or badly.
enum Outcome {
    Fine,
    Skip(String),
}

type Check = Result<Outcome, String>;
type Test = (&'static str, Needs, fn() -> Check);

/// What a step gave, or what went wrong in which step.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, String>;
}

impl<T> Doing<T> for coracle_sys::Result<T> {
    fn doing(self, what: &str) -> Result<T, String> {
        self.map_err(|e| format!("{what}: {e}"))
    }
}

fn equal<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

/// Runs `work` in a child with these namespace flags; what it says (nothing, when it is content) comes back.
fn child(flags: u64, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let (pid, said) = begin(&CloneArgs { flags, cgroup: None, sibling: false }, work)?;
    end(pid, said)
}

/// Begins `work` in a child, which lives on while the caller goes on.
fn begin(args: &CloneArgs, work: impl FnOnce() -> Result<(), String>) -> Result<(i32, OwnedFd), String> {
    let (said, say) = poll::pipe().doing("pipe")?;
    match process::clone3(args).doing("clone3")? {
        Cloned::Parent(pid, _) => Ok((pid, said)),
        Cloned::Child => {
            drop(said);
            // A test that fails leaves no child waiting for it.
            let bound = process::set_pdeathsig(libc::SIGKILL).doing("prctl");
            let told = bound
                .and_then(|()| work())
                .map_or_else(|words| fs::write_all(say.as_fd(), words.as_bytes()), Ok);
            process::exit_now(if told.is_ok() { 0 } else { 1 })
        }
    }
}

fn end(pid: i32, said: OwnedFd) -> Result<(), String> {
    let words = fs::read_to_end(said.as_fd(), 1 << 16).doing("hearing from the child")?;
    let status = process::wait(pid, 0).doing("waiting for the child")?;
    match (String::from_utf8_lossy(&words).into_owned(), status) {
        (words, Some((_, Status::Exited(0)))) if words.is_empty() => Ok(()),
        (words, Some((_, Status::Exited(0)))) => Err(words),
        (words, status) => Err(format!("the child ended with {status:?} {words}")),
    }
}

/// A line of /proc/self/status.
fn status(key: &str) -> Result<String, String> {
    let all = std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let line = all.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.map(|l| l.trim().to_owned()).ok_or_else(|| format!("no {key} in /proc/self/status"))
}

fn missing(needs: Needs) -> Option<String> {
    let whole = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|m| m.trim().ends_with("4294967295"));
    let capable = creds::capget().is_ok_and(|sets| sets.effective.count_ones() > 37);
    match needs {
        Needs::Nothing => None,
        _ if !(whole && capable && creds::geteuid() == 0) => Some("needs root of the machine".into()),
        Needs::Program(name) if !found(name) => Some(format!("needs the program {name}")),
        _ => None,
    }
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// For a clone with a new user namespace: hosts may forbid it.
fn forbidden(errno: Errno) -> bool {
    [Errno::EPERM, Errno::ENOSPC, Errno::EACCES, Errno::EUSERS].contains(&errno)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let all = [processes::TESTS, rights::TESTS, mounts::TESTS, cgroups::TESTS, net::TESTS].concat();
    let chosen = all.iter().filter(|t| words.is_empty() || words.iter().any(|w| t.0.contains(w.as_str())));
    let (mut fine, mut skipped, mut failed) = (0, 0, 0);
    for (name, needs, test) in chosen {
        let outcome = missing(*needs).map_or_else(test, |why| Ok(Outcome::Skip(why)));
        let (count, line) = match outcome {
            Ok(Outcome::Fine) => (&mut fine, format!("ok   {name}")),
            Ok(Outcome::Skip(why)) => (&mut skipped, format!("SKIP {name}: {why}")),
            Err(why) => (&mut failed, format!("FAIL {name}: {why}")),
        };
        *count += 1;
        println!("{line}");
    }
    println!("kernel tests: {fine} passed, {skipped} skipped, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
