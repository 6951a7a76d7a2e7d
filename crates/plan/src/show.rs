//! A plan as text, for `coracle plan` and for tests: one line a step, with the place in config.json that asked for it.

use crate::steps::{Act, Plan, Step};
use std::fmt::Write;

/// The whole plan.
pub fn show(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |text: String, origin: &str| {
        let _ =
            if origin.is_empty() { writeln!(out, "  {text}") } else { writeln!(out, "  {text}  [{origin}]") };
    };
    line(format!("clone with namespaces {:#x}", plan.namespaces.new), "linux.namespaces");
    for join in &plan.namespaces.join {
        line(format!("open {:?} to join", join.path), &join.origin);
    }
    if let Some(path) = &plan.cgroup.path {
        line(format!("control group {path} ({:?})", plan.cgroup.mode), "linux.cgroupsPath");
    }
    for w in &plan.cgroup.writes {
        line(format!("write {} to {}", w.value, w.file), &w.origin);
    }
    if plan.cgroup.devices.is_some() || !plan.cgroup.device_lines.is_empty() {
        line("filter devices".into(), "linux.resources.devices");
    }
    for s in &plan.setup {
        line(act(s), &s.origin);
    }
    line("report; wait for start".into(), "");
    for s in &plan.launch {
        line(act(s), &s.origin);
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

/// One step in words; long programs by their length.
pub fn act(step: &Step) -> String {
    match &step.act {
        Act::Seccomp(program, flags) => {
            format!("load a seccomp filter of {} instructions, flags {flags:#x}", program.len() / 8)
        }
        Act::Hostname(name) => format!("Hostname({:?})", String::from_utf8_lossy(name)),
        Act::Domainname(name) => format!("Domainname({:?})", String::from_utf8_lossy(name)),
        Act::WriteProc(path, value) => {
            format!("write {:?} to /proc/{}", String::from_utf8_lossy(value), path.to_string_lossy())
        }
        Act::Exec(program) => format!("exec {:?}", program.argv),
        Act::Bounding(keep) => format!("bounding set {keep:#x}"),
        other => format!("{other:?}"),
    }
}
