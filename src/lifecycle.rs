//! start, kill, stop, delete, pause, resume.

use crate::cli::{Global, Outcome};
use crate::image::Home;
use clap::Args;
use coracle_apply::failure::Failure;
use coracle_apply::{lifecycle, notify};
use coracle_image::config::STOP_SIGNAL;
use coracle_plan::oci::Spec;
use coracle_plan::steps::Hooks;
use coracle_state::{Entry, Error, Record};
use coracle_sys::libc::POLLIN;
use coracle_sys::poll;
use std::os::fd::AsFd;

/// Finds a container.
pub(crate) fn entry(global: &Global, id: &str) -> Result<Entry, String> {
    Entry::open(&global.state_root(), id).map_err(|e| e.to_string())
}

/// The configuration that the container was created from; `None` when create did not come to keep it.
/// Errors: it cannot be read, or is none.
fn spec(entry: &Entry) -> Result<Option<Spec>, String> {
    let bytes = entry.find("config.json").map_err(|e| e.to_string())?;
    let parsed = bytes.map(|bytes| coracle_plan::config::parse(&bytes)).transpose();
    let parsed = parsed.map_err(|e| format!("reading {:?}: {e}", entry.path.join("config.json")))?;
    Ok(parsed.map(|(spec, _)| spec))
}

fn hooks_of(spec: Option<&Spec>) -> Hooks {
    spec.map(coracle_plan::hooks_of).unwrap_or_default()
}

/// The hooks of that configuration.
pub(crate) fn hooks(entry: &Entry) -> Result<Hooks, Failure> {
    spec(entry).map(|spec| hooks_of(spec.as_ref())).map_err(Failure::says)
}

/// Start a created container's program
#[derive(Args)]
pub(crate) struct StartArgs {
    id: String,
}

/// `coracle start`.
pub(crate) fn start(global: &Global, args: &StartArgs) -> Outcome {
    let entry = entry(global, &args.id)?;
    let spec = spec(&entry)?;
    spec.as_ref().map_or(Ok(()), coracle_plan::startable).map_err(|r| format!("config.json: {r}"))?;
    let hooks = hooks_of(spec.as_ref());
    let service = crate::create::notify_socket();
    let listening = service.as_ref().and_then(|_| notify::listen(&entry).transpose()).transpose();
    let listening = listening.map_err(|f| f.to_string())?;
    lifecycle::start(&entry, &hooks).map_err(|f| {
        // runtime.md, Lifecycle, steps 7 and 9: a container whose hook failed is stopped, destroyed, and told poststop.
        let destroyed =
            if f.origin.starts_with("hooks.") { remove(global, &entry, true).map(drop) } else { Ok(()) };
        crate::log::warnings(global, destroyed.err().as_slice());
        f.to_string()
    })?;
    if let Some((socket, service)) = listening.zip(service) {
        let record = entry.record().map_err(|e| e.to_string())?;
        if let Some(init) = record.init().map_err(|e| e.to_string())? {
            notify::relay(&socket, &service, init.pidfd.as_fd(), record.pid).map_err(|f| f.to_string())?;
        }
    }
    Ok(0)
}

/// Send a signal to a container's init (SIGTERM when none is named)
#[derive(Args)]
pub(crate) struct KillArgs {
    /// Send it to all processes of the container
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

/// `coracle kill`.
pub(crate) fn kill(global: &Global, args: &KillArgs) -> Outcome {
    let number = number(&args.signal)?;
    let send = |id: &str| lifecycle::kill(&entry(global, id)?, number, args.all).map_err(|f| f.to_string());
    each(global, &args.which, send)
}

#[derive(Args)]
struct Which {
    /// ID is a regular expression: every container whose name it matches
    #[arg(short, long)]
    regex: bool,
    id: String,
}

/// Does it to every container that is meant, whatever became of those before.
/// Errors: no expression; what failed, of each that did.
fn each(global: &Global, Which { id, regex }: &Which, act: impl Fn(&str) -> Result<(), String>) -> Outcome {
    if !regex {
        return act(id).map(|()| 0);
    }
    let wanted =
        regex_lite::Regex::new(id).map_err(|e| format!("the regular expression {id:?} (--regex): {e}"))?;
    let all = coracle_state::ids(&global.state_root()).map_err(|e| e.to_string())?;
    let named = all.iter().filter(|id| wanted.is_match(id));
    let failed: Vec<String> = named.filter_map(|id| act(id).err().map(|e| format!("{id}: {e}"))).collect();
    if failed.is_empty() { Ok(0) } else { Err(failed.join("; ")) }
}

/// A signal by number or name, with or without SIG, in any case; 0 only asks whether it could be sent: kill(2).
pub(crate) fn number(word: &str) -> Result<i32, String> {
    let unknown = || format!("{word:?} is not a signal; name one such as TERM, SIGKILL or 9");
    if let Ok(n) = word.parse::<i32>() {
        return if (0..=64).contains(&n) { Ok(n) } else { Err(unknown()) };
    }
    let upper = word.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // signal(7), "Real-time signals", as the C library numbers them.
    for (base, first) in [("RTMIN", 34), ("RTMAX", 64)] {
        let Some(rest) = name.strip_prefix(base) else { continue };
        let offset = if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
        let number = offset.and_then(|offset| offset.checked_add(first));
        return number.filter(|n| (34..=64).contains(n)).ok_or_else(unknown);
    }
    coracle_sys::signal::number(name).ok_or_else(unknown)
}

/// How long a killed init may take to be gone, in milliseconds.
const DEATH: i32 = 10_000;

/// End a container: with the signal that its image wants (else SIGTERM), and by force when that has not helped
#[derive(Args)]
pub(crate) struct StopArgs {
    /// Seconds to wait before SIGKILL
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    id: String,
}

/// `coracle stop`: no error for a container that has ended already.
pub(crate) fn stop(global: &Global, StopArgs { time, id }: &StopArgs) -> Outcome {
    let entry = entry(global, id)?;
    let spec = spec(&entry)?;
    let record = entry.record().map_err(|e| e.to_string())?;
    let home = spec.as_ref().and_then(|spec| Home::of(spec, &record));
    let annotations = spec.as_ref().and_then(|spec| spec.annotations().as_ref());
    let wanted = annotations.and_then(|all| all.get(STOP_SIGNAL)).map_or("SIGTERM", |signal| signal);
    let signal = number(wanted).ok().filter(|n| *n != 0).unwrap_or_else(|| {
        crate::log::warnings(
            global,
            &[format!("the image wants to be stopped by {wanted:?}, which is no signal: SIGTERM")],
        );
        coracle_sys::libc::SIGTERM
    });
    if let Some(init) = record.init().map_err(|e| e.to_string())? {
        let patience = i32::try_from(u64::from(*time) * 1000).unwrap_or(i32::MAX);
        for (signal, patience) in [(signal, patience), (coracle_sys::libc::SIGKILL, DEATH)] {
            let sent = lifecycle::kill(&entry, signal, false);
            let ended = poll::poll(&[(init.pidfd.as_fd(), POLLIN)], patience);
            if ended.map_err(|e| format!("waiting for the end of {id}: {e}"))?[0] != 0 {
                break;
            }
            sent.map_err(|f| f.to_string())?;
            if signal == coracle_sys::libc::SIGKILL {
                return Err(format!("{id} is still there {} s after SIGKILL", DEATH / 1000));
            }
        }
    }
    home.map_or(Ok(()), |home| home.ended(global)).map(|()| 0)
}

/// Delete a container
#[derive(Args)]
pub(crate) struct DeleteArgs {
    /// Kill it first if it runs; no error if it does not exist
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    which: Which,
}

/// `coracle delete`.
pub(crate) fn delete(global: &Global, args: &DeleteArgs) -> Outcome {
    each(global, &args.which, |id| match Entry::open(&global.state_root(), id) {
        Err(Error::Missing(_)) if args.force => Ok(()),
        other => {
            let left = remove(global, &other.map_err(|e| e.to_string())?, args.force)?;
            left.map_or(Ok(()), |home| home.ended(global))
        }
    })
}

/// Removes a container; and, of one that was made from an image, its writable layer. Returns where
/// that is if somebody else still has it in hand.
pub(crate) fn remove(global: &Global, entry: &Entry, force: bool) -> Result<Option<Home>, String> {
    let home = std::cell::Cell::new(None);
    let hooks = |entry: &Entry, record: &Record| {
        let spec = spec(entry).map_err(Failure::says)?;
        home.set(spec.as_ref().and_then(|spec| Home::of(spec, record)));
        Ok(hooks_of(spec.as_ref()))
    };
    let deleted = lifecycle::delete(entry, force, &hooks);
    let home = home.take();
    let gone = home.as_ref().map_or(Ok(true), Home::forget);
    told(global, deleted)?;
    let gone = gone?;
    Ok(home.filter(|_| !gone))
}

/// runtime.md, Lifecycle, step 13: that a poststop hook failed is a warning.
pub(crate) fn told(global: &Global, deleted: Result<(), Failure>) -> Result<(), String> {
    match deleted {
        Err(f) if f.origin.starts_with("hooks.") => {
            crate::log::warnings(global, &[f.to_string()]);
            Ok(())
        }
        other => other.map_err(|f| f.to_string()),
    }
}

/// Freeze all processes of a container
#[derive(Args)]
pub(crate) struct PauseArgs {
    id: String,
}

/// Let a paused container go on
#[derive(Args)]
pub(crate) struct ResumeArgs {
    id: String,
}

/// `coracle pause`.
pub(crate) fn pause(global: &Global, args: &PauseArgs) -> Outcome {
    frozen(global, &args.id, true)
}

/// `coracle resume`.
pub(crate) fn resume(global: &Global, args: &ResumeArgs) -> Outcome {
    frozen(global, &args.id, false)
}

fn frozen(global: &Global, id: &str, on: bool) -> Outcome {
    lifecycle::pause(&entry(global, id)?, on).map(|()| 0).map_err(|f| f.to_string())
}
