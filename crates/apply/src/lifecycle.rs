//! What later commands do to a container that exists: start, kill, delete, pause, resume, update, events.

use crate::cgroup::oom::Woken;
use crate::cgroup::{Cgroup, nothing_counted, scope};
use crate::failure::{Doing, Failure, Result};
use crate::hooks;
use crate::rdt::Resctrl;
use crate::starting;
use crate::step::root;
use coracle_plan::inputs::CgroupMode;
use coracle_plan::steps::Hooks;
use coracle_state::{Entry, Error, Init, Lock, Record, Stage};
use coracle_sys::{Errno, libc, poll, process, socket};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long init may take to die of SIGKILL.
const DEATH: i32 = 10_000;
/// How long a command waits for another that works on the same container: longer than all they do but a hook that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a signal waits for it.
const HASTE: Duration = Duration::from_secs(1);

fn says(e: coracle_state::Error) -> Failure {
    Failure::says(e.to_string())
}

/// Locks a container, for which another command may be at work on it for some time, but not for ever.
pub(crate) fn locked(entry: &Entry) -> Result<Lock> {
    entry.lock_within(PATIENCE).map_err(says)?.ok_or_else(|| {
        let who = entry.holder().map(|pid| format!(", process {pid},")).unwrap_or_default();
        Failure::says(format!(
            "another command{who} has been at work on container {:?} for {} s, in a hook perhaps: wait for it, or end it, and try again",
            entry.id,
            PATIENCE.as_secs()
        ))
    })
}

/// The control group of a record.
pub fn cgroup(record: &Record) -> Option<Cgroup> {
    record.cgroup.as_deref().map(|path| Cgroup::known(path, record.cgroup_v1, record.unit.clone()))
}

/// Which control groups the container was made in.
pub fn cgroup_mode(record: &Record) -> CgroupMode {
    if record.cgroup_v1 { CgroupMode::Legacy } else { CgroupMode::Unified }
}

/// Status in runtime.md's words, or `paused`; with init's pid, 0 when there is none.
/// Errors: the kernel could not say whether init lives, or is frozen.
pub fn status(entry: &Entry, record: &Record) -> Result<(&'static str, i32)> {
    let (status, init) = entry.status(record).map_err(says)?;
    let pid = init.map_or(0, |i| i.pid);
    let group = cgroup(record).filter(|_| matches!(status, "created" | "running"));
    let frozen = group.map_or(Ok(false), |group| group.frozen())?;
    Ok((if frozen { "paused" } else { status }, pid))
}

/// Starts the workload and runs the poststart hooks.
pub fn start(entry: &Entry, hooks: &Hooks) -> Result<()> {
    let _lock = locked(entry)?;
    let record = entry.record().map_err(says)?;
    let pid = match status(entry, &record)? {
        ("created", pid) => pid,
        (status, _) => return Err(Failure::says(not_to_start(&entry.id, status))),
    };
    let wire = socket::connect_seqpacket(entry.dir(), "start")
        .doing(|| "connecting to the container's init".into())?;
    starting::wait(wire.as_fd(), None).inspect_err(|_| stop(&record))?;
    hooks::run(&hooks.poststart, &record.state_json("running", pid), Some(&record.bundle)).inspect_err(|_| {
        // runtime.md, Lifecycle: a failed poststart hook stops the container.
        stop(&record);
    })
}

/// Why a container in this state cannot be started, in runc's words, and what can be done.
fn not_to_start(id: &str, status: &str) -> String {
    match status {
        "stopped" => {
            format!("cannot start a container that has stopped: {id:?}; delete it, and create it anew")
        }
        "creating" => format!("cannot start a container whose create did not finish: {id:?}; delete it"),
        "paused" => format!("cannot start a paused container: {id:?}; resume it first"),
        _ => format!("cannot start an already running container: {id:?}; exec runs another program in it"),
    }
}

/// The last words are runc's, by which engines know it.
fn ended(entry: &Entry) -> Failure {
    Failure::says(format!(
        "container {:?} has ended (delete removes what is left): container not running",
        entry.id
    ))
}

fn stop(record: &Record) {
    if let Ok(Some(init)) = record.init() {
        let _ = process::pidfd_send_signal(init.pidfd.as_fd(), libc::SIGKILL);
        let _ = poll::poll(&[(init.pidfd.as_fd(), libc::POLLIN)], DEATH);
    }
}

/// Sends a signal to init, or to all processes.
/// Errors: "container not running" when init is gone (except with `all`, as engines expect).
pub fn kill(entry: &Entry, signal: i32, all: bool) -> Result<()> {
    let _lock = match entry.lock_within(HASTE).map_err(says)? {
        // Of one that runs, a poststart hook must not keep signals away.
        None if entry.record().is_ok_and(|record| record.stage == Stage::Created) => None,
        None => Some(locked(entry)?),
        lock => lock,
    };
    let record = entry.record().map_err(says)?;
    let group = cgroup(&record);
    let everyone = all || record.shared_pids && signal == libc::SIGKILL;
    let sent = group.filter(|_| everyone).map_or(Ok(()), |group| group.signal_all(signal));
    match record.init().map_err(says)? {
        Some(init) => send(&record, &init, signal)?,
        None if everyone => {}
        None => return Err(ended(entry)),
    }
    sent
}

/// Sends a signal to init; SIGKILL so that it is heard.
fn send(record: &Record, init: &Init, signal: i32) -> Result<()> {
    match process::pidfd_send_signal(init.pidfd.as_fd(), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(e) => return Err(Failure::errno(format!("sending signal {signal} to process {}", init.pid), e)),
    }
    // On v1 a frozen process dies only once it thaws.
    match cgroup(record).filter(|_| record.cgroup_v1 && signal == libc::SIGKILL) {
        Some(group) if group.frozen()? => group.freeze(false),
        _ => Ok(()),
    }
}

/// Removes a container. Without `force` it must not be running, and its hooks must be known.
pub fn delete(entry: &Entry, force: bool, hooks: &dyn Fn(&Entry, &Record) -> Result<Hooks>) -> Result<()> {
    let _lock = locked(entry)?;
    let record = match entry.written() {
        Ok(Some(record)) => record,
        // Nothing else was done yet.
        Ok(None) => return entry.remove().map_err(says),
        // There is nothing to find the rest by.
        Err(Error::Damaged(..)) if force => return entry.remove().map_err(says),
        Err(e) => return Err(says(e)),
    };
    let (status, _) = status(entry, &record)?;
    if !force && matches!(status, "running" | "paused") {
        return Err(Failure::says(format!(
            "cannot delete container {} that is not stopped: {status}; kill it first, or use --force",
            record.id
        )));
    }
    if let Some(init) = record.init().map_err(says)? {
        send(&record, &init, libc::SIGKILL)?;
        let died = poll::poll(&[(init.pidfd.as_fd(), libc::POLLIN)], DEATH);
        if died.doing(|| format!("waiting for the end of process {}", init.pid))?[0] == 0 {
            return Err(Failure::says(format!(
                "process {} did not die of SIGKILL in {} s (it may hang in the kernel); try again",
                init.pid,
                DEATH / 1000
            )));
        }
    }
    if let Some(group) = cgroup(&record) {
        group.remove()?;
    }
    release(&record)?;
    // runtime.md, Lifecycle: a failed poststop hook is a warning, and the rest goes on.
    let hooked = match hooks(entry, &record) {
        Ok(hooks) => hooks::poststop(&hooks.poststop, &record),
        Err(unknown) if force => Err(unknown.at("hooks.poststop")),
        Err(unknown) => return Err(unknown),
    };
    entry.remove().map_err(says)?;
    hooked
}

/// Gives back what else there is of a container: mounts in the runtime's own mount namespace, classes of Intel RDT.
pub(crate) fn release(record: &Record) -> Result<()> {
    detach(record)?;
    record.rdt.as_ref().map_or(Ok(()), |groups| Resctrl::open()?.remove(groups))
}

/// Takes the container's mounts off the runtime's own mount namespace, where it has none of its own.
pub(crate) fn detach(record: &Record) -> Result<()> {
    let Some(before) = record.root_mount else { return Ok(()) };
    let path = CString::new(record.rootfs.as_os_str().as_encoded_bytes()).unwrap_or_default();
    root::detach(&path, before)
}

/// Freezes or thaws the processes.
pub fn pause(entry: &Entry, on: bool) -> Result<()> {
    let _lock = locked(entry)?;
    let record = entry.record().map_err(says)?;
    match (status(entry, &record)?.0, on) {
        ("running", true) | ("paused", false) | ("created", true) => {}
        ("stopped", _) => return Err(ended(entry)),
        (status, true) => {
            let what = if status == "paused" { "paused already (resume lets it go on)" } else { status };
            return Err(Failure::says(format!("container {:?} is {what}: container not running", entry.id)));
        }
        (status, false) => {
            return Err(Failure::says(format!("container {:?} is {status}: container not paused", entry.id)));
        }
    }
    let group = cgroup(&record)
        .ok_or_else(|| Failure::says("the container has no control group of its own: it cannot be paused"))?;
    group.freeze(on)
}

/// The limits in force: those of the last update, else those of config.json.
/// Errors: they cannot be read. What an update adds to others than those in force would take some of these away.
fn limits(entry: &Entry) -> Result<serde_json::Value> {
    let json = |file: &str| -> Result<Option<serde_json::Value>> {
        let bytes = entry.find(file).map_err(says)?;
        let value = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        value.map_err(|e| Failure::says(format!("reading {:?}: {e}", entry.path.join(file))))
    };
    if let Some(last) = json("limits.json")? {
        return Ok(last);
    }
    let config = json("config.json")?;
    Ok(config.and_then(|config| config.pointer("/linux/resources").cloned()).unwrap_or_default())
}

/// Changes limits of a container that is not stopped. Returns what must be said.
/// Errors: what is wrong with the new limits; what the kernel or systemd refused.
pub fn update(entry: &Entry, new: &serde_json::Value) -> Result<Vec<String>> {
    let _lock = locked(entry)?;
    let record = entry.record().map_err(says)?;
    if status(entry, &record)?.0 == "stopped" {
        return Err(ended(entry));
    }
    let group = cgroup(&record).ok_or_else(|| {
        Failure::says("the container has no control group of its own: nothing can be limited")
    })?;
    let before = limits(entry)?;
    let weighs = |limits: &serde_json::Value| limits.get("blockIO").or(limits.get("unified")).is_some();
    let weighs = weighs(&before) || weighs(new);
    let systemd = record.unit.as_ref().map(|unit| scope::connect(unit.user, weighs)).transpose()?;
    let (mut bus, facts) = systemd.unzip();
    let update = coracle_plan::update(&before, new, cgroup_mode(&record), facts.as_ref())
        .map_err(|refusal| Failure::says(refusal.to_string()))?;
    let keep =
        |limits: &serde_json::Value| entry.write("limits.json", limits.to_string().as_bytes()).map_err(says);
    group.update(&update, bus.as_mut(), &|| keep(&update.limits)).inspect_err(|_| {
        let _ = keep(&before);
    })?;
    Ok(update.warnings)
}

/// Changes the schemata of a container's class of service: resctrl.rst, Schemata files.
/// Errors: it was created without linux.intelRdt; what the kernel refused.
pub fn update_rdt(entry: &Entry, lines: &[String]) -> Result<()> {
    let _lock = locked(entry)?;
    let record = entry.record().map_err(says)?;
    let groups = record.rdt.as_ref().ok_or_else(|| {
        Failure::says("the container belongs to no class of service; create it with linux.intelRdt")
    })?;
    Resctrl::open()?.update(groups, lines)
}

/// What a container uses: the data of a stats event. Errors: it is stopped.
pub fn stats(entry: &Entry) -> Result<serde_json::Value> {
    let (record, _) = running(entry)?;
    Ok(cgroup(&record).map_or_else(nothing_counted, |g| g.stats()))
}

/// Tells of events until the container is over: `None` for a kill for want of memory, else what it uses, each `interval`
/// milliseconds. Errors: it is stopped, or cannot be watched.
pub fn events(entry: &Entry, interval: i32, tell: &mut dyn FnMut(Option<serde_json::Value>)) -> Result<()> {
    let (record, init) = running(entry)?;
    let group = cgroup(&record)
        .ok_or_else(|| Failure::says("the container has no control group of its own to watch"))?;
    let mut watch = group.watch()?;
    let period = Duration::from_millis(interval.unsigned_abs().into());
    let mut next = Instant::now() + period;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        match watch.wait(init.pidfd.as_fd(), i32::try_from(left.as_millis()).unwrap_or(i32::MAX))? {
            Woken::Oom => tell(None),
            Woken::End => return Ok(()),
            Woken::Time if Instant::now() >= next => {
                next = Instant::now() + period;
                tell(Some(group.stats()));
            }
            Woken::Time => {}
        }
    }
}

fn running(entry: &Entry) -> Result<(Record, coracle_state::Init)> {
    let record = entry.record().map_err(says)?;
    let init = record.init().map_err(says)?;
    let gone = || Failure::says(format!("container with id {} is not running", record.id));
    let init = init.ok_or_else(gone)?;
    Ok((record, init))
}
