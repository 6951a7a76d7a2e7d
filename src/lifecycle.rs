//! start, kill, delete, pause, resume.

use crate::cli::{Global, Outcome};
use coracle_apply::lifecycle;
use coracle_plan::steps::Hooks;
use coracle_state::{Entry, Error};

/// Finds a container.
pub(crate) fn entry(global: &Global, id: &str) -> Result<Entry, String> {
    Entry::open(&global.state_root(), id).map_err(|e| e.to_string())
}

/// The hooks of the configuration that the container was created from.
fn hooks(entry: &Entry) -> Hooks {
    let spec = entry.read("config.json").ok().and_then(|bytes| coracle_plan::config::parse(&bytes).ok());
    spec.map(|(spec, _)| coracle_plan::hooks_of(&spec)).unwrap_or_default()
}

/// `coracle start`.
pub(crate) fn start(global: &Global, id: &str) -> Outcome {
    let entry = entry(global, id)?;
    lifecycle::start(&entry, &hooks(&entry)).map(|()| 0).map_err(|f| f.to_string())
}

/// `coracle kill`.
pub(crate) fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Outcome {
    let number = number(signal)?;
    lifecycle::kill(&entry(global, id)?, number, all).map(|()| 0).map_err(|f| f.to_string())
}

/// A signal by number or name, with or without SIG, in any case.
fn number(word: &str) -> Result<i32, String> {
    let unknown = || format!("{word:?} is not a signal; name one such as TERM, SIGKILL or 9");
    if let Ok(n) = word.parse::<i32>() {
        return if (1..=64).contains(&n) { Ok(n) } else { Err(unknown()) };
    }
    let upper = word.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(n) =
        name.strip_prefix("RTMIN").map(|rest| rest.trim_start_matches('+').parse::<i32>().unwrap_or(0))
    {
        return Ok(34 + n);
    }
    coracle_sys::signal::number(name).ok_or_else(unknown)
}

/// `coracle delete`.
pub(crate) fn delete(global: &Global, id: &str, force: bool) -> Outcome {
    let entry = match Entry::open(&global.state_root(), id) {
        Err(Error::Missing(_)) if force => return Ok(0),
        other => other.map_err(|e| e.to_string())?,
    };
    match lifecycle::delete(&entry, force, &hooks) {
        Err(f) if f.origin.starts_with("hooks.") => {
            crate::log::warnings(global, &[f.to_string()]);
            Ok(0)
        }
        other => other.map(|()| 0).map_err(|f| f.to_string()),
    }
}

/// `coracle pause` and `coracle resume`.
pub(crate) fn pause(global: &Global, id: &str, on: bool) -> Outcome {
    lifecycle::pause(&entry(global, id)?, on).map(|()| 0).map_err(|f| f.to_string())
}
