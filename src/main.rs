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
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match log::check(&cli.global).and_then(|()| cli.run()) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            log::error(&cli.global, &message);
            ExitCode::FAILURE
        }
    }
}
