//! The CPUs that a process runs on: config.md, Linux Process, `execCPUAffinity`; sched_setaffinity(2).

use crate::limits;
use crate::problem::Findings;
use crate::steps::{Act, Step};
use oci_spec::runtime::Process;

const AT: &str = "process.execCPUAffinity";

/// All that the kernel knows.
const ALL: [u64; 128] = [u64::MAX; 128];

/// Whoever called may be confined to some CPUs (taskset(1), a service's CPUAffinity=). That is nothing of the container's:
/// its control group's cpuset alone counts.
pub(crate) fn all() -> Step {
    Step { act: Act::Cpus(ALL.into()), origin: String::new() }
}

/// Of a process that exec starts: the CPUs before it is in the control group, and what sets those after.
pub(crate) fn of_exec(process: &Process, found: &mut Findings) -> (Vec<u64>, Option<Step>) {
    let Some(asked) = process.exec_cpu_affinity() else { return (Vec::new(), Some(all())) };
    let mut list = |text: &Option<String>, name| {
        limits::list(text.as_deref().unwrap_or(""), &format!("{AT}.{name}"), found)
    };
    let (first, last) = (list(asked.initial(), "initial"), list(asked.cpu_affinity_final(), "final"));
    let step = Step { act: Act::Cpus(last.clone()), origin: format!("{AT}.final") };
    (first, (!last.is_empty()).then_some(step))
}

/// config.json's is for exec, but a mistake in it is one of now.
pub(crate) fn check(process: &Process, found: &mut Findings) {
    of_exec(process, found);
}
