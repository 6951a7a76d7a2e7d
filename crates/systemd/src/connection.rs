//! A connection to a bus: SASL, calls one after the other, signals kept for whoever asks. Every wait has an end.

use crate::address::Socket;
use crate::message::{self, Call, FIXED, Message};
use crate::{Error, Result, Value};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// How long one act of systemd may take: runc waits as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// An open connection.
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Bytes that came in and were not read yet.
    ahead: Vec<u8>,
    /// Signals that came while something else was waited for.
    signals: VecDeque<(String, Vec<Value>)>,
}

/// Connects to the first socket that answers, and proves who this is.
pub(crate) fn open(sockets: &[Socket]) -> Result<Connection> {
    let mut tried = Vec::new();
    for socket in sockets {
        match connect(socket) {
            Ok(stream) => {
                let mut new = Connection { stream, serial: 0, ahead: Vec::new(), signals: VecDeque::new() };
                new.authenticate()?;
                return Ok(new);
            }
            Err(e) => {
                let name = match socket {
                    Socket::Path(path) => path.display().to_string(),
                    Socket::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
                };
                tried.push(format!("{name}: {}", words(&e)));
            }
        }
    }
    Err(Error::NoBus(tried.join("; ")))
}

fn connect(socket: &Socket) -> std::io::Result<UnixStream> {
    match socket {
        Socket::Path(path) => {
            let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
            Ok(UnixStream::from(coracle_sys::socket::connect_stream_within(&path, LIMIT)?))
        }
        Socket::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

/// An error in the style of strace, without Rust's own decoration.
fn words(e: &std::io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), |n| coracle_sys::Errno::from_raw(n).desc().to_lowercase())
}

impl Connection {
    /// D-Bus Specification, Authentication Protocol. EXTERNAL without a name: the kernel tells the bus who this is, so that
    /// it works from within a user namespace too. All lines at once, as every bus since 2004 can take them.
    fn authenticate(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", "authentication")?;
        loop {
            let line = self.line(end)?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                _ => return Err(Error::Refused(line)),
            }
        }
    }

    fn line(&mut self, end: Instant) -> Result<String> {
        loop {
            if let Some(n) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..n]).into_owned();
                self.ahead.drain(..n + 2);
                return Ok(line);
            }
            if self.ahead.len() > 16384 {
                return Err(Error::Broken("an endless line instead of an answer".into()));
            }
            self.fill(end, "authentication")?;
        }
    }

    fn send(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Late(what.into(), LIMIT),
            _ => Error::Broken(words(&e)),
        };
        self.stream.set_write_timeout(Some(LIMIT)).and_then(|()| self.stream.write_all(bytes)).map_err(failed)
    }

    fn fill(&mut self, end: Instant, what: &str) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Late(what.into(), LIMIT));
            }
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(Error::Broken("closed by the other side".into())),
                Ok(n) => {
                    self.ahead.extend(&buffer[..n]);
                    return Ok(());
                }
                Err(e)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted]
                        .contains(&e.kind()) => {}
                Err(e) => return Err(Error::Broken(words(&e))),
            }
        }
    }

    fn receive(&mut self, end: Instant, what: &str) -> Result<Message> {
        let broken = || Error::Broken("what came is not D-Bus".into());
        let mut wanted = FIXED;
        loop {
            if let Some(fixed) = self.ahead.first_chunk::<FIXED>() {
                wanted = message::length(fixed).ok_or_else(broken)?;
            }
            if self.ahead.len() >= wanted {
                let bytes: Vec<u8> = self.ahead.drain(..wanted).collect();
                return message::parse(&bytes).ok_or_else(broken);
            }
            self.fill(end, what)?;
        }
    }

    /// Calls a method and waits for its answer; `what` names it in errors.
    pub(crate) fn call(&mut self, call: &Call, what: &str) -> Result<Vec<Value>> {
        let end = Instant::now() + LIMIT;
        self.serial += 1;
        let serial = self.serial;
        self.send(&call.bytes(serial), what)?;
        loop {
            match self.receive(end, what)? {
                Message::Return(answers, body) if answers == serial => return Ok(body),
                Message::Error(answers, name, words) if answers == serial => {
                    return Err(Error::Answer(what.into(), name, words));
                }
                Message::Signal(member, body) => self.signals.push_back((member, body)),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` takes.
    pub(crate) fn signal<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&str, &[Value]) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + LIMIT;
        loop {
            while let Some((member, body)) = self.signals.pop_front() {
                if let Some(found) = wanted(&member, &body) {
                    return Ok(found);
                }
            }
            if let Message::Signal(member, body) = self.receive(end, what)? {
                self.signals.push_back((member, body));
            }
        }
    }
}
