//! Control groups: config-linux.md, Control groups. Limits become files and texts, for v2 or v1 as the host has it.

use crate::devices;
use crate::inputs::{CgroupMode, Host, Request};
use crate::problem::Findings;
use crate::steps::{Cgroup, CgroupWrite};
use oci_spec::runtime::{LinuxResources, Spec};
use std::path::{Component, Path};

const SECTION: &str = "config-linux.md, Control groups";

/// Decides the control group.
pub(crate) fn plan(spec: &Spec, host: &Host, request: &Request, found: &mut Findings) -> Cgroup {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let mut out = Cgroup { mode: host.cgroup, ..Cgroup::default() };
    let asked = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
    out.path = Some(path(asked.map(|p| p.as_path()), host, request, found));
    if let Some(resources) = resources {
        out.writes = writes(resources, host.cgroup, found);
    }
    if let Some(rules) = devices::rules(spec, found) {
        match host.cgroup {
            CgroupMode::Unified => out.devices = Some(devices::program(&rules)),
            _ => out.device_lines = devices::lines(&rules),
        }
    }
    out.optional = asked.is_none() && (request.rootless || host.euid != 0 || !host.admin());
    if request.rootless && (out.devices.take().is_some() || !out.device_lines.is_empty()) {
        // In a user namespace the kernel itself refuses device nodes; the filter cannot be had there.
        out.device_lines.clear();
    }
    if host.cgroup == CgroupMode::None {
        if let Some(w) = out.writes.first() {
            found.problem(
                &w.origin,
                "no cgroup file system is mounted at /sys/fs/cgroup",
                SECTION,
                "mount one, or remove the limit",
            );
        }
        out.path = None;
    }
    out
}

fn path(asked: Option<&Path>, host: &Host, request: &Request, found: &mut Findings) -> String {
    let own = host.own_cgroup.trim_end_matches('/');
    let Some(asked) = asked.filter(|p| !p.as_os_str().is_empty()) else {
        return format!("{own}/{}", request.id);
    };
    if asked.components().any(|c| c == Component::ParentDir) {
        found.problem(
            "linux.cgroupsPath",
            format!("{asked:?} leaves its place by .."),
            SECTION,
            "write the path without ..",
        );
    }
    let text = asked.to_string_lossy();
    if asked.is_absolute() { text.into_owned() } else { format!("{own}/{text}") }
}

/// What the limits are in the kernel's files.
pub fn writes(r: &LinuxResources, mode: CgroupMode, found: &mut Findings) -> Vec<CgroupWrite> {
    let mut out = Vec::new();
    let v2 = mode == CgroupMode::Unified;
    let mut add = |controller: &str, file: &str, value: String, origin: &str| {
        out.push(CgroupWrite {
            controller: controller.into(),
            file: file.into(),
            value,
            origin: format!("linux.resources.{origin}"),
        });
    };
    let max = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    if let Some(m) = r.memory() {
        memory(m, v2, &mut add, found);
    }
    if let Some(c) = r.cpu() {
        cpu(c, v2, &mut add, found);
    }
    if let Some(p) = r.pids() {
        // 0 and below: unlimited, as runc and every engine mean it.
        add("pids", "pids.max", if p.limit() <= 0 { "max".into() } else { max(p.limit()) }, "pids.limit");
    }
    others(r, v2, &mut add, found);
    for (file, value) in r.unified().iter().flatten() {
        let controller = file.split('.').next().unwrap_or("");
        if file.contains('/') || !file.contains('.') {
            found.problem(
                format!("linux.resources.unified.{file}"),
                "is not the name of a file of a cgroup",
                SECTION,
                "name a file such as memory.high",
            );
        }
        if !v2 {
            found.problem(
                format!("linux.resources.unified.{file}"),
                "this host has cgroup v1",
                SECTION,
                "use the limits by name, or boot with cgroup v2",
            );
        }
        add(controller, file, value.clone(), &format!("unified.{file}"));
    }
    out
}

type Add<'a> = dyn FnMut(&str, &str, String, &str) + 'a;

fn memory(m: &oci_spec::runtime::LinuxMemory, v2: bool, add: &mut Add, found: &mut Findings) {
    let text = |n: i64| {
        if n >= 0 {
            n.to_string()
        } else if v2 {
            "max".into()
        } else {
            "-1".into()
        }
    };
    let (limit, swap) = (m.limit().filter(|n| *n != 0), m.swap().filter(|n| *n != 0));
    if let Some(n) = m.reservation().filter(|n| *n != 0) {
        add(
            "memory",
            if v2 { "memory.low" } else { "memory.soft_limit_in_bytes" },
            text(n),
            "memory.reservation",
        );
    }
    if let Some(n) = limit {
        add("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }, text(n), "memory.limit");
    }
    if let Some(n) = swap {
        // config.json counts memory and swap together, v2 swap alone.
        let value = match limit {
            _ if !v2 || n < 0 => text(n),
            Some(l) if l >= 0 && n >= l => (n - l).to_string(),
            _ => {
                found.problem(
                    "linux.resources.memory.swap",
                    "needs a memory.limit that it is not below",
                    SECTION,
                    "set memory.limit",
                );
                return;
            }
        };
        add(
            "memory",
            if v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" },
            value,
            "memory.swap",
        );
    }
    if !v2 {
        if let Some(n) = m.swappiness() {
            add("memory", "memory.swappiness", n.to_string(), "memory.swappiness");
        }
        if m.disable_oom_killer() == Some(true) {
            add("memory", "memory.oom_control", "1".into(), "memory.disableOOMKiller");
        }
    } else if m.swappiness().is_some() || m.disable_oom_killer() == Some(true) {
        found.warn("linux.resources.memory: swappiness and disableOOMKiller have no counterpart in cgroup v2; left out");
    }
    if m.kernel().is_some_and(|n| n > 0) || m.kernel_tcp().is_some_and(|n| n > 0) {
        found.warn("linux.resources.memory: kernel memory limits are gone from the kernel; left out");
    }
}

/// CPU weight for shares: the current conversion, which keeps 1024 shares at weight 100 (2, 1024, 262144 to 1, 100, 10000).
pub(crate) fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
}

fn cpu(c: &oci_spec::runtime::LinuxCpu, v2: bool, add: &mut Add, found: &mut Findings) {
    if let Some(n) = c.shares().filter(|n| *n != 0) {
        if v2 {
            add("cpu", "cpu.weight", weight(n).to_string(), "cpu.shares");
        } else {
            add("cpu", "cpu.shares", n.to_string(), "cpu.shares");
        }
    }
    let (quota, period) = (c.quota().filter(|n| *n != 0), c.period().filter(|n| *n != 0));
    if v2 && (quota.is_some() || period.is_some()) {
        let quota = quota.filter(|n| *n > 0).map_or("max".into(), |n| n.to_string());
        add(
            "cpu",
            "cpu.max",
            period.map_or(quota.clone(), |p| format!("{quota} {p}")),
            if c.quota().is_some() { "cpu.quota" } else { "cpu.period" },
        );
    }
    if !v2 {
        if let Some(n) = period {
            add("cpu", "cpu.cfs_period_us", n.to_string(), "cpu.period");
        }
        if let Some(n) = quota {
            add("cpu", "cpu.cfs_quota_us", n.to_string(), "cpu.quota");
        }
    }
    if let Some(n) = c.burst() {
        add("cpu", if v2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" }, n.to_string(), "cpu.burst");
    }
    if let Some(n) = c.idle() {
        add("cpu", "cpu.idle", n.to_string(), "cpu.idle");
    }
    for (value, file) in [(c.cpus(), "cpuset.cpus"), (c.mems(), "cpuset.mems")] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            add("cpuset", file, value.clone(), &file.replace("cpuset", "cpu"));
        }
    }
    if c.realtime_runtime().is_some_and(|n| n != 0) || c.realtime_period().is_some_and(|n| n != 0) {
        if v2 {
            found.problem(
                "linux.resources.cpu.realtimeRuntime",
                "cgroup v2 has no real-time limits",
                SECTION,
                "remove realtimeRuntime and realtimePeriod",
            );
        }
        for (value, file) in [
            (c.realtime_period().map(|n| n.to_string()), "cpu.rt_period_us"),
            (c.realtime_runtime().map(|n| n.to_string()), "cpu.rt_runtime_us"),
        ] {
            if let Some(value) = value {
                add("cpu", file, value, "cpu.realtimeRuntime");
            }
        }
    }
}

fn others(r: &LinuxResources, v2: bool, add: &mut Add, found: &mut Findings) {
    if let Some(io) = r.block_io() {
        if let Some(w) = io.weight().filter(|w| *w != 0) {
            // 10 to 1000 of v1 onto 1 to 10000 of v2, linearly.
            let v2_weight = 1 + (u64::from(w).max(10) - 10) * 9999 / 990;
            add(
                if v2 { "io" } else { "blkio" },
                if v2 { "io.weight" } else { "blkio.weight" },
                if v2 { v2_weight.to_string() } else { w.to_string() },
                "blockIO.weight",
            );
        }
        let throttles = [
            (io.throttle_read_bps_device(), "rbps", "read_bps_device", "throttleReadBpsDevice"),
            (io.throttle_write_bps_device(), "wbps", "write_bps_device", "throttleWriteBpsDevice"),
            (io.throttle_read_iops_device(), "riops", "read_iops_device", "throttleReadIOPSDevice"),
            (io.throttle_write_iops_device(), "wiops", "write_iops_device", "throttleWriteIOPSDevice"),
        ];
        for (list, key, old, name) in throttles {
            for (i, d) in list.iter().flatten().enumerate() {
                let (file, value) = if v2 {
                    ("io.max".to_owned(), format!("{}:{} {key}={}", d.major(), d.minor(), d.rate()))
                } else {
                    (format!("blkio.throttle.{old}"), format!("{}:{} {}", d.major(), d.minor(), d.rate()))
                };
                add(if v2 { "io" } else { "blkio" }, &file, value, &format!("blockIO.{name}[{i}]"));
            }
        }
        if io.weight_device().as_ref().is_some_and(|l| !l.is_empty()) || io.leaf_weight().is_some() {
            found.problem(
                "linux.resources.blockIO.weightDevice",
                "weights of single devices and leaf weights are not built yet",
                SECTION,
                "use weight",
            );
        }
    }
    for (i, h) in r.hugepage_limits().iter().flatten().enumerate() {
        let file = if v2 {
            format!("hugetlb.{}.max", h.page_size())
        } else {
            format!("hugetlb.{}.limit_in_bytes", h.page_size())
        };
        add("hugetlb", &file, h.limit().to_string(), &format!("hugepageLimits[{i}]"));
    }
    for (name, limit) in r.rdma().iter().flatten() {
        let text = |n: Option<u32>| n.map_or("max".to_owned(), |n| n.to_string());
        add(
            "rdma",
            "rdma.max",
            format!(
                "{name} hca_handle={} hca_object={}",
                text(limit.hca_handles()),
                text(limit.hca_objects())
            ),
            &format!("rdma.{name}"),
        );
    }
    if let Some(n) = r.network() {
        if v2
            && (n.class_id().is_some_and(|c| c != 0)
                || n.priorities().as_ref().is_some_and(|p| !p.is_empty()))
        {
            found.problem(
                "linux.resources.network",
                "cgroup v2 has no network classes",
                SECTION,
                "remove it",
            );
        }
        if let Some(class) = n.class_id().filter(|_| !v2) {
            add("net_cls", "net_cls.classid", class.to_string(), "network.classID");
        }
        for p in n.priorities().iter().flatten().filter(|_| !v2) {
            add(
                "net_prio",
                "net_prio.ifpriomap",
                format!("{} {}", p.name(), p.priority()),
                "network.priorities",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_and_weights_meet_at_their_ends_and_default() {
        assert_eq!([2, 1024, 262_144].map(super::weight), [1, 100, 10_000]);
    }
}
