//! What can go wrong, in kinds that a program can match and words that a person can act on.
//!
//! Names that come out of an image are shown through [`shown`]: a newline or an escape sequence in a file's name
//! never reaches the terminal.

use coracle_sys::Errno;
use std::fmt;

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel refused.
    Os(Errno),
    /// No such image, tag, blob, user or platform.
    NotFound,
    /// Several images or platforms fit; the message lists them.
    Ambiguous,
    /// The image is damaged or contradicts itself: digest, size, diffID, format.
    Corrupt,
    /// A limit was passed.
    Limit,
    /// Well-formed, but not something that this program can read or run.
    Unsupported,
    /// overlayfs cannot join the layers here: a copy of them can do without it.
    Overlay,
    /// Someone else is at work on the same bundle or store, or it is already there.
    Busy,
    /// The registry did not answer, or not as one; or the connection broke.
    Network,
    /// The registry answered that it will not.
    Refused,
    /// The registry answered that it cannot now, and said after how many seconds to ask again (0: did not say).
    Later(u64),
    /// The caller asked for something that makes no sense.
    Usage,
}

/// A failure: its kind, and what was being done, outermost first.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    text: String,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind, in these words.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same failure, with what was being done put in front.
    pub fn within(mut self, doing: impl fmt::Display) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(Kind::Os(errno), errno.desc().to_lowercase())
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            // Readers of this crate hand their own errors through io::Error; take them out again.
            None => match e.downcast::<Error>() {
                Ok(own) => own,
                Err(e) => Self::new(Kind::Corrupt, e.to_string()),
            },
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> Self {
        std::io::Error::other(e)
    }
}

/// Adds what was being done to a failure.
pub trait Doing<T> {
    /// Puts the words in front of the failure's own; they are made only when there is one.
    fn doing<D: fmt::Display>(self, words: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<D: fmt::Display>(self, words: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().within(words()))
    }
}

/// Bytes from an image, quoted for a message: control characters escaped, at most 200 characters.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let head = &bytes[..bytes.len().min(MOST)];
    let dots = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{}{dots}\"", head.escape_ascii())
}

/// Shorthand for `Err(Error::new(kind, format!(...)))`.
macro_rules! fail {
    ($kind:ident, $($text:tt)*) => {
        return Err($crate::error::Error::new($crate::error::Kind::$kind, format!($($text)*)))
    };
}
pub(crate) use fail;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(shown(b"a\n\x1b[31mb"), "\"a\\n\\x1b[31mb\"");
        assert!(shown(&[b'x'; 500]).len() < 210);
    }

    #[test]
    fn an_own_error_survives_a_reader() {
        let e: Error = std::io::Error::from(Error::new(Kind::Limit, "too big")).into();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Limit, "too big"));
        assert_eq!(
            Error::from(Errno::ENOENT).within("open x").to_string(),
            "open x: no such file or directory"
        );
    }
}
