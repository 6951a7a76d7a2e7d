//! What goes to --log and to standard error. An error goes to both: engines read one or the other.

mod daemon;

use crate::cli::Global;
use crate::clock;
use std::io::Write;

/// How much is said; the numbers are syslog's severities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error = 3,
    Warning = 4,
    Debug = 7,
}

/// Why the system refused, in the words that all other errors have.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let known = error.raw_os_error().map(coracle_sys::Errno::from_raw);
    known.map_or_else(|| error.to_string(), |errno| errno.desc().to_lowercase())
}

/// Reports the error that ends the command.
pub(crate) fn error(global: &Global, message: &str) {
    report(global, Level::Error, message);
}

/// Reports that execve(2) refused the program, after all was set up. Without a log standard error has the bare sentence, as
/// from a shell: there the program's own words would be, and callers of runc compare the line.
pub(crate) fn last_words(global: &Global, message: &str) {
    if global.json() || global.log.as_deref().is_some_and(|log| !log.is_empty()) {
        return error(global, message);
    }
    let _ = std::io::stderr().write_all(format!("{message}\n").as_bytes());
}

/// Reports what the user must know though the command goes on.
pub(crate) fn warnings(global: &Global, list: &[String]) {
    list.iter().for_each(|text| report(global, Level::Warning, text));
}

/// Reports each line, when --debug asks for more.
pub(crate) fn debug(global: &Global, text: impl FnOnce() -> String) {
    if wanted(global) >= Level::Debug {
        text().lines().for_each(|line| report(global, Level::Debug, line.trim()));
    }
}

/// How far a process got, for --debug: with the words for it in runc's debug log, which people and suites search.
pub(crate) mod reached {
    pub(crate) const CLONE: &str = "nsexec container setup: a process is made in its namespaces";
    pub(crate) const READY: &str = "child process in init(): all is set up but the program";
    pub(crate) const START: &str = "init: closing the pipe to signal completion, to become the program";
    pub(crate) const JOINED: &str = "child process in init(): it joined the container (setns_init: about to exec), and is the program now";
}

/// How much is to be said. A JSON log holds errors only, unless more was asked for by name: engines take any record in it for
/// the reason of a failure.
fn wanted(global: &Global) -> Level {
    match global.log_level.as_deref() {
        _ if global.debug => Level::Debug,
        Some("debug") => Level::Debug,
        Some("error") => Level::Error,
        None if global.json() && global.log.is_some() => Level::Error,
        _ => Level::Warning,
    }
}

fn report(global: &Global, level: Level, message: &str) {
    if level > wanted(global) {
        return;
    }
    let line = if global.json() { json(level, message) } else { text(level, message) };
    let Some(log) = global.log.as_deref().filter(|log| !log.is_empty()) else {
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    let written = match log.split_once(':') {
        Some(("journald", name)) => daemon::journal(name, level as u8, message),
        Some(("syslog", name)) => daemon::syslog(name, level as u8, message),
        Some(("file", path)) => append(path, &line),
        _ => append(log, &line),
    };
    if level == Level::Error {
        let _ = std::io::stderr().write_all(format!("{message}\n").as_bytes());
    } else if written.is_err() {
        // The only place left to say it.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Makes sure that the log can be written, before anything is done that nobody would hear of.
/// Errors: the file and why.
pub(crate) fn check(global: &Global) -> Result<(), String> {
    let Some(log) = global.log.as_deref().filter(|log| !log.is_empty()) else { return Ok(()) };
    let path = match log.split_once(':') {
        Some(("journald" | "syslog", _)) => return Ok(()),
        Some(("file", path)) => path,
        _ => log,
    };
    append(path, "").map_err(|e| format!("opening the log {path:?} (--log): {}", reason(&e)))
}

fn append(path: &str, line: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Debug => "debug",
    }
}

fn json(level: Level, message: &str) -> String {
    format!("{}\n", serde_json::json!({"level": word(level), "msg": message, "time": clock::now()}))
}

/// A line for each line of the message: a configuration can have many mistakes.
fn text(level: Level, message: &str) -> String {
    let head = format!("time=\"{}\" level={}", clock::now(), word(level));
    message.lines().map(|line| format!("{head} msg={line:?}\n")).collect()
}
