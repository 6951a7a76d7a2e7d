//! End-to-end tests of an OCI runtime: the container is looked at from outside, whatever the runtime says of itself.
//!
//! `RUNTIME=/usr/sbin/runc coracle-integration` aims them at another runtime, which proves the test itself.
//! What belongs here is the choice between the faces of this one binary: the runner, one test in a process of
//! its own (`--run-one`), the probe that runs inside containers, the helpers that hooks and sockets need, and the
//! list of the functions that a command calls (`--used`).
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test runner's product is its output")]

mod harness;
mod options;
mod probe;
mod runner;
mod topics;
#[cfg(target_arch = "x86_64")]
mod used;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Inside a container the binary is /probe; nothing of the runner may run there.
    if std::env::args().next().is_some_and(|name| name.ends_with("probe")) {
        return probe::main(&words);
    }
    match words.split_first() {
        Some((word, rest)) if word == "--probe" => probe::main(rest),
        Some((word, rest)) if word == "--stopped" => harness::trace::stopped(rest),
        Some((word, rest)) if word == "--run-one" => runner::one(rest),
        #[cfg(target_arch = "x86_64")]
        Some((word, rest)) if word == "--used" => used::main(rest),
        _ => options::parse(&words).map_or_else(usage, |options| runner::main(&options)),
    }
}

fn usage(mistake: String) -> ExitCode {
    eprintln!("{mistake}\n\n{}", options::USAGE);
    ExitCode::from(2)
}
