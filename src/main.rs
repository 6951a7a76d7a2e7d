#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]
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

#[cfg(not(test))]
coracle_sys::program!(run);

#[cfg_attr(test, expect(dead_code))]
fn run() -> u8 {
    let (global, command) = match cli::parse() {
        Ok(read) => read,
        Err(code) => return code,
    };
    match log::check(&global).and_then(|()| command(&global)) {
        Ok(code) => code,
        Err(message) => {
            log::error(&global, &message);
            1
        }
    }
}
