//! What can go wrong between this process and systemd, in words that say who did not do what.

use std::fmt;
use std::time::Duration;

/// Why systemd did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// There is no bus to talk to: what was tried, and why it failed.
    NoBus(String),
    /// The bus did not let this user in: its answer.
    Refused(String),
    /// No answer: what was waited for, how long.
    Late(String, Duration),
    /// The connection broke, or carried what is not D-Bus.
    Broken(String),
    /// systemd's own answer: what was asked, error name, message.
    Answer(String, String, String),
    /// The job ended otherwise than "done": unit, result.
    Job(String, String),
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether it is systemd's answer with this error name (the part after the last dot).
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Error::Answer(_, full, _) if full.rsplit('.').next() == Some(name))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBus(what) => write!(f, "no D-Bus connection to systemd: {what}"),
            Error::Refused(answer) => write!(f, "the D-Bus daemon refused this user: {answer:?}"),
            Error::Late(what, limit) => {
                write!(f, "systemd did not answer within {} s: {what}", limit.as_secs())
            }
            Error::Broken(what) => write!(f, "the D-Bus connection to systemd broke: {what}"),
            Error::Answer(what, name, message) => write!(f, "systemd refused {what}: {message} ({name})"),
            Error::Job(unit, result) => write!(f, "systemd's job for {unit} ended with {result:?}"),
        }
    }
}

impl std::error::Error for Error {}
