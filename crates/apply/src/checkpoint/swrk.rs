//! Talking to criu: a child of ours, `criu swrk FD`, takes one request over a socket pair, sends notifications that are
//! answered, and one response (criu.org, "RPC"; messages in criu's images/rpc.proto).

use super::protobuf::{Fields, Message};
use crate::failure::{Doing, Failure, Result};
use coracle_sys::process::{CloneArgs, Cloned, Status};
use coracle_sys::{Errno, fs, process, signal, socket};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Requests and responses: enum criu_req_type.
pub(super) mod kind {
    pub(in super::super) const DUMP: i64 = 1;
    pub(in super::super) const RESTORE: i64 = 2;
    pub(in super::super) const PRE_DUMP: i64 = 4;
    pub(in super::super) const NOTIFY: i64 = 6;
    pub(in super::super) const FEATURE_CHECK: i64 = 9;
}

/// The first number of criu's own descriptors: its socket. What else it is given follows.
pub(super) const SOCKET: i32 = 3;

/// What a caller without PATH means by it: Podman passes none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A criu that waits for its request.
pub(super) struct Criu {
    pub(super) pid: i32,
    socket: OwnedFd,
}

/// What criu asks on the way.
pub(super) struct Notice {
    /// Its name: `post-dump`, `setup-namespaces`, `post-restore`, `orphan-pts-master`, `status-ready`…
    pub(super) script: String,
    /// The init of the container, when it says.
    pub(super) pid: i32,
    /// A terminal's master side.
    pub(super) passed: Option<OwnedFd>,
}

/// Errors: there is none.
pub(super) fn find() -> Result<CString> {
    let path = std::env::var_os("PATH").filter(|p| !p.is_empty()).unwrap_or_else(|| PATH.into());
    let found = std::env::split_paths(&path).map(|dir| dir.join("criu")).find(|p| p.is_file());
    let found: PathBuf = found.ok_or_else(|| {
        Failure::says("criu: executable file not found in $PATH; checkpoints need it (Debian package criu)")
    })?;
    Ok(c(&found))
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}

impl Criu {
    /// Starts criu, born into the control group; it has `given` from descriptor 4 on. `before` is done in the new process.
    pub(super) fn start(
        into: Option<BorrowedFd>,
        given: &[OwnedFd],
        before: &dyn Fn() -> Result<()>,
    ) -> Result<Criu> {
        let program = find()?;
        let (socket, theirs) = socket::seqpacket_pair().doing(|| "making a socket pair".into())?;
        let (report, word) = socket::seqpacket_pair().doing(|| "making a socket pair".into())?;
        let args = CloneArgs { flags: 0, cgroup: into, sibling: false };
        match process::clone3(&args).doing(|| "starting criu".into())? {
            Cloned::Child => {
                let failure = match before() {
                    Ok(()) => become_criu(&program, &theirs, given),
                    Err(failure) => failure,
                };
                crate::wire::say_failed(word.as_fd(), 0, &failure);
                process::exit_now(1)
            }
            Cloned::Parent(pid, _) => {
                drop((theirs, word));
                let criu = Criu { pid, socket };
                match crate::wire::hear(report.as_fd())? {
                    crate::wire::Said::Failed(_, failure) => Err(failure),
                    _ => Ok(criu),
                }
            }
        }
    }

    /// Sends the request and answers what criu asks, until its response.
    /// Errors: what criu says; a notification that `answer` refuses.
    pub(super) fn ask(
        &self,
        kind: i64,
        request: Message,
        mut answer: impl FnMut(Notice) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let doing = || "talking to criu".to_owned();
        socket::send(self.socket.as_fd(), request.number(1, kind).done()).doing(doing)?;
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            let mut passed = match socket::recv_fds(self.socket.as_fd(), &mut buffer) {
                Err(Errno::ECONNRESET) => Vec::new(),
                other => other.doing(doing)?,
            };
            if buffer.is_empty() {
                return Err(Failure::says("criu ended without a word"));
            }
            let response = Fields::of(&buffer);
            if response.number(2) != Some(1) {
                let errno = response.number(7).filter(|n| *n != 0).map(|n| Errno::from_raw(n as i32));
                let message = response.text(9).unwrap_or_default();
                let says = format!("criu failed: {}", message.trim()).trim_end_matches(": ").to_owned();
                return Err(Failure { errno, ..Failure::says(says) });
            }
            if response.number(1) != Some(kind::NOTIFY) {
                return Ok(buffer);
            }
            let notify = response.message(5).unwrap_or(Fields::of(&[]));
            let script = notify.text(1).unwrap_or_default();
            let pid = notify.number(2).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
            answer(Notice { script, pid, passed: passed.pop() })?;
            let done = Message::default().number(1, kind::NOTIFY).number(3, 1);
            socket::send(self.socket.as_fd(), done.done()).doing(doing)?;
        }
    }

    /// Waits for criu's end after its response. Whether it ended well.
    pub(super) fn end(self) -> Result<bool> {
        drop(self.socket);
        let ended = process::wait(self.pid, 0).doing(|| "waiting for criu".into())?;
        Ok(matches!(ended, Some((_, Status::Exited(0)))))
    }
}

/// In the new process: the socket and what is given at their places, signals as a new program expects them.
fn become_criu(program: &CString, socket: &OwnedFd, given: &[OwnedFd]) -> Failure {
    let place = || -> coracle_sys::Result<()> {
        let above = SOCKET + 1 + given.len() as i32;
        let all: Vec<OwnedFd> = std::iter::once(socket)
            .chain(given)
            .map(|fd| fs::dup_from(fd.as_fd(), above))
            .collect::<coracle_sys::Result<_>>()?;
        for (fd, number) in all.iter().zip(SOCKET..) {
            fs::dup_onto(fd.as_fd(), number)?;
        }
        signal::default_actions();
        signal::set_mask(0).map(drop)
    };
    if let Err(errno) = place() {
        return Failure::errno("placing criu's descriptors", errno);
    }
    let words = ["criu", "swrk", "3"].map(|w| CString::new(w).unwrap_or_default());
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(k, v)| CString::new([k.as_encoded_bytes(), b"=", v.as_encoded_bytes()].concat()).ok())
        .collect();
    Failure::errno("starting criu", process::execve(program, &words, &env))
}
