//! One container under test. Dropping it removes it with `delete --force`, whatever the test did.

use std::os::unix::process::ExitStatusExt;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use serde_json::Value;

use super::{Ctx, Result, check, check_eq, context::path};

/// How long the kernel and a runtime may take for what they do by themselves.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command's exit and what it, or a container that it left behind, has printed so far.
pub(crate) struct Output {
    /// The exit status; 128 + n for a signal, as a shell says it.
    pub(crate) code: i32,
    out: PathBuf,
    err: PathBuf,
}

impl Output {
    pub(crate) fn new(status: &ExitStatus, out: PathBuf, err: PathBuf) -> Output {
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Output { code, out, err }
    }

    /// Standard output up to now.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Standard error up to now.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Fails the test unless the command succeeded.
    pub(crate) fn succeeded(self, what: &str) -> Result<Output> {
        check_eq!(self.code, 0, "{what} ({})", self.stderr().trim());
        Ok(self)
    }
}

/// A container that exists, or whose id is at least spoken for.
pub(crate) struct Container<'a> {
    ctx: &'a Ctx,
    /// Its id.
    pub(crate) id: String,
    /// The init process, as the pid file named it; 0 before `create`.
    pub(crate) pid: u32,
    /// What `create` and then the workload print.
    pub(crate) output: Option<Output>,
    bundle: PathBuf,
}

impl<'a> Container<'a> {
    /// A name for a container, so that whatever becomes of it is removed.
    pub(crate) fn named(ctx: &'a Ctx, id: String, bundle: &Path) -> Container<'a> {
        Container { ctx, id, pid: 0, output: None, bundle: bundle.to_owned() }
    }

    /// `create`, which must succeed and write the pid file.
    pub(crate) fn create(&mut self, flags: &[&str]) -> Result {
        let pid_file = self.ctx.dir.join(format!("{}.pid", self.id));
        let mut words = vec!["create", "--bundle", path(&self.bundle), "--pid-file", path(&pid_file)];
        words.extend(flags);
        words.push(&self.id);
        self.output = Some(self.ctx.call(&words)?.succeeded("create")?);
        let text = fs::read_to_string(&pid_file).map_err(|e| format!("pid file after create: {e}"))?;
        self.pid = text.parse().map_err(|e| format!("pid file {text:?}: {e}"))?;
        Ok(())
    }

    /// `start`, which must succeed, and the moment after it in which init becomes the workload by execve(2).
    pub(crate) fn start(&self) -> Result {
        let link = format!("/proc/{}/exe", self.pid);
        // An init that is untraceable shows its program to root only: for a user the end of `start` is the moment.
        let before = fs::read_link(&link).ok();
        self.ctx.call(&["start", &self.id])?.succeeded("start")?;
        until("init becomes the workload", || {
            let now = fs::read_link(&link).ok();
            Ok((before.is_none() || now != before).then_some(()))
        })
    }

    /// `state`, which must succeed and print JSON.
    pub(crate) fn state(&self) -> Result<Value> {
        let output = self.ctx.call(&["state", &self.id])?.succeeded("state")?;
        Ok(serde_json::from_str(&output.stdout())?)
    }

    /// The `status` that `state` prints.
    pub(crate) fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().unwrap_or("absent").to_owned())
    }

    /// `kill`, which must succeed.
    pub(crate) fn kill(&self, signal: &str) -> Result {
        self.ctx.call(&["kill", &self.id, signal])?.succeeded("kill").map(drop)
    }

    /// `delete`, which must succeed.
    pub(crate) fn delete(&self) -> Result {
        self.ctx.call(&["delete", &self.id])?.succeeded("delete").map(drop)
    }

    /// `kill` with SIGKILL and the wait for it.
    pub(crate) fn stop(&self) -> Result {
        self.kill("KILL")?;
        self.wait().map(drop)
    }

    /// The init process's end, which comes to the test because it is a subreaper: code, or 128 + n for a signal.
    pub(crate) fn wait(&self) -> Result<i32> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        until("the init process ends", || match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(128 + signal as i32)),
            Ok(_) => Ok(None),
            Err(errno) => Err(format!("waiting for the init process {pid}: {errno}").into()),
        })
    }

    /// What the workload has printed up to now.
    pub(crate) fn stdout(&self) -> String {
        self.output.as_ref().map(Output::stdout).unwrap_or_default()
    }

    /// Waits until the workload has printed `words`.
    pub(crate) fn prints(&self, words: &str) -> Result {
        until(&format!("the workload prints {words:?}"), || Ok(self.stdout().contains(words).then_some(())))
    }

    /// The probe's report, once the workload has printed all of it.
    pub(crate) fn report(&self) -> Result<Value> {
        until("the probe reports", || Ok(serde_json::from_str(&self.stdout()).ok()))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        match self.ctx.call(&["delete", "--force", &self.id]) {
            Ok(output) if output.code == 0 => {}
            // crun up to 1.27 and youki say no to an id that is not there; so be it.
            Ok(output) if !self.ctx.state_root().join(&self.id).exists() && self.ctx.kind != "coracle" => {
                drop(output)
            }
            Ok(output) => {
                self.ctx.complain(format!("delete --force {}: {}", self.id, output.stderr().trim()))
            }
            Err(error) => self.ctx.complain(format!("delete --force {}: {error}", self.id)),
        }
        if self.pid != 0 {
            let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(0));
            let gone = until("deleted init is gone", || {
                Ok((waitpid(pid, Some(WaitPidFlag::WNOHANG)) != Ok(WaitStatus::StillAlive)).then_some(()))
            });
            if gone.is_err() {
                self.ctx.complain(format!("the init process of {} outlived delete --force", self.id));
            }
        }
    }
}

/// Looks again every few milliseconds until there is an answer; an error names what did not come about.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        check!(begin.elapsed() < PATIENCE, "{PATIENCE:?} and no sign that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
