//! Scopes: what is asked of systemd, and its answers as failures.

use crate::failure::{Failure, Result};
use coracle_plan::inputs::Systemd;
use coracle_plan::steps::Unit as Plan;
use coracle_state::Unit;
use coracle_systemd::{Bus, Error, Property, Value, unit};

use std::{fs, io};

pub use coracle_systemd::Manager;

fn says(e: Error) -> Failure {
    Failure::says(e.to_string())
}

fn bus(user: bool) -> Bus {
    if user { Bus::User(crate::probe::outer_uid()) } else { Bus::System }
}

/// Connects to the machine's systemd or the user's, and asks what the plan must know of it; `weighs`: for weights of I/O, too.
pub fn connect(user: bool, weighs: bool) -> Result<(Manager, Systemd)> {
    let mut manager = Manager::connect(bus(user)).map_err(says)?;
    let version = unit::version(&manager.property("Version").map_err(says)?);
    // The machine's systemd has its root at the root, and says it in an empty word.
    let control_group = if user { manager.property("ControlGroup").map_err(says)? } else { String::new() };
    Ok((manager, Systemd { version, control_group, user, bfq: weighs && bfq()? }))
}

/// Whether the kernel has the I/O scheduler BFQ: each disk lists all that there are, used or not (Documentation/block/switching-sched.rst).
/// Errors: nobody knows; a guess might tell systemd another weight than was asked for.
fn bfq() -> Result<bool> {
    let lists = || -> io::Result<bool> {
        for disk in fs::read_dir("/sys/block")? {
            match fs::read_to_string(disk?.path().join("queue/scheduler")) {
                Ok(list) if list.contains("bfq") => return Ok(true),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(false)
    };
    match lists() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other
            .map_err(|e| Failure::says(format!("asking which I/O schedulers there are, in /sys/block: {e}"))),
    }
}

/// Makes the scope around a process; it is in its group when this returns.
pub(super) fn start(manager: &mut Manager, unit: &Plan, pid: i32) -> Result<()> {
    let mut properties = vec![("PIDs".to_owned(), Value::Array("u".into(), vec![Value::U32(pid as u32)]))];
    properties.extend(unit.properties.iter().cloned());
    manager.start_transient(&unit.name, &properties).map_err(|e| {
        Failure::says(format!("unable to start unit {:?}: {e}", unit.name)).at("linux.cgroupsPath")
    })
}

/// What sets these properties to what they are now.
pub(super) fn before(manager: &mut Manager, unit: &Unit, properties: &[Property]) -> Result<Vec<Property>> {
    let mut names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let mut was = Vec::new();
    for (name, value) in manager.scope_properties(&unit.name, &names).map_err(unset)? {
        // A list that is set is added to what is there, an empty one clears it: org.freedesktop.systemd1(5).
        if let Value::Array(of, _) = &value {
            was.push((name.clone(), Value::Array(of.clone(), Vec::new())));
        }
        was.push((name, value));
    }
    Ok(was)
}

/// Sets properties. Errors: systemd refused; or nobody knows, and they may be set.
pub(super) fn set(manager: &mut Manager, unit: &Unit, properties: &[Property]) -> Result<()> {
    manager.set_properties(&unit.name, properties).map_err(unset)
}

/// Sets properties back: over a connection of its own, for the other one may be what failed.
pub(super) fn restore(unit: &Unit, was: &[Property]) -> Result<()> {
    set(&mut Manager::connect(bus(unit.user)).map_err(says)?, unit, was)
}

fn unset(e: Error) -> Failure {
    Failure::says(format!("unable to set unit properties: {e}"))
}

/// Moves a process into the scope, or the group `below` it.
pub(super) fn attach(unit: &Unit, below: &str, pid: i32) -> Result<()> {
    Manager::connect(bus(unit.user)).and_then(|mut m| m.attach(&unit.name, below, &[pid])).map_err(says)
}

/// Stops the scope and has its failure forgotten.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    Manager::connect(bus(unit.user)).and_then(|mut m| m.stop(&unit.name)).map_err(says)
}
