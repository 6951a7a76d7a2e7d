//! config-linux.md, Memory.

use super::SECTION;
use super::resources::Writes;
use crate::problem::Findings;
use crate::steps::Absent;
use oci_spec::runtime::LinuxMemory;

pub(super) fn writes(m: &LinuxMemory, out: &mut Writes, found: &mut Findings) {
    let (limit, swap) = (m.limit().filter(|n| *n != 0), m.swap().filter(|n| *n != 0));
    if out.v2 {
        swap_v2(limit, swap, out, found);
    }
    // v1 holds the limit at or below the one that counts swap too: no limit there comes first, a number after it.
    let unlimited = swap.map_or(limit.is_some_and(|n| n < 0), |n| n < 0);
    if !out.v2 && unlimited {
        out.add("", "memory.memsw.limit_in_bytes", "-1", "memory.swap").absent = Absent::PassOver;
    }
    if let Some(n) = limit {
        out.add("memory.max", "memory.limit_in_bytes", out.limit(n), "memory.limit");
    }
    if let (false, Some(n @ 0..)) = (out.v2, swap) {
        out.add("", "memory.memsw.limit_in_bytes", n, "memory.swap");
    }
    if let Some(n) = m.reservation().filter(|n| *n != 0) {
        out.add("memory.low", "memory.soft_limit_in_bytes", out.limit(n), "memory.reservation");
    }
    only_v1(m, out, found);
}

/// config.json counts memory and swap together, v2 swap alone.
fn swap_v2(limit: Option<i64>, swap: Option<i64>, out: &mut Writes, found: &mut Findings) {
    let value = match (limit, swap) {
        // No limit of memory alone means none of both, as it does in v1.
        (Some(..0), None) | (_, Some(..0)) => "max".into(),
        (_, None) => return,
        (Some(..0), Some(n)) => n.to_string(),
        (Some(l), Some(n)) if n >= l => (n - l).to_string(),
        (Some(l), Some(n)) => {
            found.problem(
                "linux.resources.memory.swap",
                format!("{n} counts memory and swap together, and is below memory.limit {l}"),
                SECTION,
                "raise it, or lower memory.limit",
            );
            return;
        }
        (None, _) => {
            found.problem(
                "linux.resources.memory.swap",
                "unable to set swap limit without memory limit: it counts both together",
                SECTION,
                "set memory.limit",
            );
            return;
        }
    };
    // A kernel without swap accounting has no such file: no limit and no swap are what it does anyway.
    let harmless = value == "max" || value == "0";
    let write = out.add("memory.swap.max", "", value, "memory.swap");
    if harmless {
        write.absent = Absent::PassOver;
    }
}

fn only_v1(m: &LinuxMemory, out: &mut Writes, found: &mut Findings) {
    if m.kernel().is_some_and(|n| n > 0) || m.kernel_tcp().is_some_and(|n| n > 0) {
        found.warn("linux.resources.memory: kernel memory limits are gone from the kernel; left out");
    }
    if out.v2 {
        if m.swappiness().is_some() || m.disable_oom_killer() == Some(true) {
            found.warn(
                "linux.resources.memory: swappiness and disableOOMKiller have no counterpart in cgroup v2; left out",
            );
        }
        return;
    }
    if let Some(n) = m.swappiness() {
        out.add("", "memory.swappiness", n, "memory.swappiness");
    }
    if m.disable_oom_killer() == Some(true) {
        out.add("", "memory.oom_control", "1", "memory.disableOOMKiller");
    }
    if m.use_hierarchy() == Some(true) {
        // Since Linux 5.11 there is nothing else, and older kernels take it for groups without children only.
        out.add("", "memory.use_hierarchy", "1", "memory.useHierarchy").absent = Absent::PassOver;
    }
}
