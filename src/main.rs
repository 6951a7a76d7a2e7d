#![forbid(unsafe_code)]
//! The binary: words in, exit code out. One file a command; no policy and no syscalls here.

mod bundle;
mod checkpoint;
mod cli;
mod clock;
mod create;
mod events;
mod exec;
mod features;
mod image;
mod inspect;
mod lifecycle;
mod log;
mod ps;
mod spec;
mod update;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (global, command) = match cli::parse() {
        Ok(read) => read,
        Err(code) => return code,
    };
    match log::check(&global).and_then(|()| command(&global)) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            log::error(&global, &message);
            ExitCode::FAILURE
        }
    }
}
