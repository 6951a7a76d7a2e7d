//! What goes to --log and to standard error. An error goes to both: engines read one or the other.

use crate::cli::Global;
use crate::clock;
use std::io::Write;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Warning,
    Error,
}

/// Reports the error that ends the command.
pub(crate) fn error(global: &Global, message: &str) {
    report(global, Level::Error, message);
}

/// Reports what the user must know though the command goes on. A JSON log holds errors only: engines take any record in it
/// for the reason of a failure.
pub(crate) fn warnings(global: &Global, list: &[String]) {
    for text in list {
        report(global, Level::Warning, text);
    }
}

fn report(global: &Global, level: Level, message: &str) {
    let line = if global.json() { json(level, message) } else { text(level, message) };
    let Some(path) = &global.log else {
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    if level == Level::Error || !global.json() {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut f| f.write_all(line.as_bytes()));
    }
    if level == Level::Error {
        let _ = std::io::stderr().write_all(format!("{message}\n").as_bytes());
    }
}

fn word(level: Level) -> &'static str {
    if level == Level::Error { "error" } else { "warning" }
}

fn json(level: Level, message: &str) -> String {
    format!("{}\n", serde_json::json!({"level": word(level), "msg": message, "time": clock::now()}))
}

fn text(level: Level, message: &str) -> String {
    format!("time=\"{}\" level={} msg={message:?}\n", clock::now(), word(level))
}
