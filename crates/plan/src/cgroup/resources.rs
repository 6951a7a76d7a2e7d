//! Limits as the kernel's files take them: config-linux.md, the sections from Memory to Unified; the kernel's
//! admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1.

use super::{SECTION, io, memory};
use crate::inputs::CgroupMode;
use crate::problem::Findings;
use crate::steps::{Absent, CgroupWrite};
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxNetwork, LinuxResources};

/// Collects writes.
pub(super) struct Writes {
    pub(super) list: Vec<CgroupWrite>,
    pub(super) v2: bool,
}

impl Writes {
    /// One file, by its names in v2 and v1; the controller is the first word of each.
    pub(super) fn add(&mut self, v2: &str, v1: &str, value: impl ToString, origin: &str) -> &mut CgroupWrite {
        let new = write(if self.v2 { v2 } else { v1 }, value, origin);
        self.list.push(new);
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// The value that means no limit.
    pub(super) fn limit(&self, n: i64) -> String {
        match n {
            0.. => n.to_string(),
            _ if self.v2 => "max".into(),
            _ => "-1".into(),
        }
    }
}

/// A write that must succeed.
pub(super) fn write(file: &str, value: impl ToString, origin: &str) -> CgroupWrite {
    CgroupWrite {
        controller: file.split('.').next().unwrap_or_default().into(),
        file: file.into(),
        value: value.to_string(),
        origin: format!("linux.resources.{origin}"),
        absent: Absent::Refuse,
    }
}

/// What the limits are in the kernel's files, in the order to write them.
pub(crate) fn writes(r: &LinuxResources, mode: CgroupMode, found: &mut Findings) -> Vec<CgroupWrite> {
    let mut out = Writes { list: Vec::new(), v2: mode == CgroupMode::Unified };
    if let Some(m) = r.memory() {
        memory::writes(m, &mut out, found);
    }
    if let Some(c) = r.cpu() {
        cpu(c, &mut out, found);
    }
    if let Some(p) = r.pids() {
        // config-linux.md, PIDs: 0 is a limit. systemd knows none below 1, and a container has at least one process.
        let value = if p.limit() < 0 { "max".into() } else { p.limit().max(1).to_string() };
        out.add("pids.max", "pids.max", value, "pids.limit");
    }
    if let Some(b) = r.block_io() {
        io::writes(b, &mut out, found);
    }
    for (i, h) in r.hugepage_limits().iter().flatten().enumerate() {
        hugepages(h, i, &mut out, found);
    }
    for (name, limit) in r.rdma().iter().flatten() {
        if name.is_empty() || name.contains(char::is_whitespace) {
            found.problem(
                "linux.resources.rdma",
                format!("{name:?} is not the name of a device"),
                "config-linux.md, RDMA",
                "name one of those in /sys/class/infiniband",
            );
        }
        if limit.hca_handles().is_none() && limit.hca_objects().is_none() {
            found.problem(
                format!("linux.resources.rdma.{name}"),
                "limits nothing",
                "config-linux.md, RDMA",
                "add hcaHandles or hcaObjects, or remove it",
            );
        }
        let text = |n: Option<u32>| n.map_or("max".to_owned(), |n| n.to_string());
        let value = format!(
            "{name} hca_handle={} hca_object={}",
            text(limit.hca_handles()),
            text(limit.hca_objects())
        );
        out.add("rdma.max", "rdma.max", value, &format!("rdma.{name}"));
    }
    if let Some(n) = r.network() {
        network(n, &mut out, found);
    }
    unified(r, &mut out, found);
    out.list
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

/// The kernel's default period: cgroup-v2.rst, cpu.max.
const PERIOD: u64 = 100_000;

fn cpu(c: &LinuxCpu, out: &mut Writes, found: &mut Findings) {
    let idle = c.idle().is_some_and(|n| n == 1);
    if let Some(n) = c.idle() {
        out.add("cpu.idle", "cpu.idle", n, "cpu.idle");
    }
    if let Some(n) = c.shares().filter(|n| *n != 0) {
        if idle {
            // The kernel refuses a weight for an idle group.
            found.warn(
                "linux.resources.cpu: unable to apply both CPU weight (shares) and idle; shares are left out",
            );
        } else {
            let value = if out.v2 { weight(n) } else { n };
            out.add("cpu.weight", "cpu.shares", value, "cpu.shares");
        }
    }
    if let Some(n) = c.burst() {
        out.add("cpu.max.burst", "cpu.cfs_burst_us", n, "cpu.burst");
    }
    bandwidth(c, out);
    realtime(c, out, found);
    if let Some(cpus) = c.cpus().as_ref().filter(|v| !v.is_empty()) {
        out.add("cpuset.cpus", "cpuset.cpus", cpus, "cpu.cpus");
    }
    if let Some(mems) = c.mems().as_ref().filter(|v| !v.is_empty()) {
        out.add("cpuset.mems", "cpuset.mems", mems, "cpu.mems");
    }
}

fn bandwidth(c: &LinuxCpu, out: &mut Writes) {
    let (quota, period) = (c.quota().filter(|n| *n != 0), c.period().filter(|n| *n != 0));
    if out.v2 {
        if quota.is_some() || period.is_some() {
            let most = quota.filter(|n| *n > 0).map_or("max".into(), |n| n.to_string());
            let origin = if quota.is_some() { "cpu.quota" } else { "cpu.period" };
            out.add("cpu.max", "", format!("{most} {}", period.unwrap_or(PERIOD)), origin);
        }
        return;
    }
    if let Some(n) = period {
        out.add("", "cpu.cfs_period_us", n, "cpu.period");
    }
    if let Some(n) = quota {
        out.add("", "cpu.cfs_quota_us", n, "cpu.quota");
    }
}

fn realtime(c: &LinuxCpu, out: &mut Writes, found: &mut Findings) {
    let (period, runtime) =
        (c.realtime_period().filter(|n| *n != 0), c.realtime_runtime().filter(|n| *n != 0));
    if out.v2 {
        if period.is_some() || runtime.is_some() {
            let field = if runtime.is_some() { "realtimeRuntime" } else { "realtimePeriod" };
            found.problem(
                format!("linux.resources.cpu.{field}"),
                "cgroup v2 has no real-time limits",
                SECTION,
                "remove realtimeRuntime and realtimePeriod",
            );
        }
        return;
    }
    if let Some(n) = period {
        out.add("", "cpu.rt_period_us", n, "cpu.realtimePeriod");
    }
    if let Some(n) = runtime {
        out.add("", "cpu.rt_runtime_us", n, "cpu.realtimeRuntime");
    }
}

/// Pages, and reservations of them where the kernel counts these too (Linux 5.7): config-linux.md, Huge page limits.
fn hugepages(h: &LinuxHugepageLimit, i: usize, out: &mut Writes, found: &mut Findings) {
    let (size, origin) = (h.page_size(), format!("hugepageLimits[{i}]"));
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    if !number.is_some_and(|n| !n.is_empty() && !n.starts_with('0') && n.bytes().all(|b| b.is_ascii_digit()))
    {
        found.problem(
            format!("linux.resources.{origin}.pageSize"),
            format!("{size:?} is not a size of pages"),
            "config-linux.md, Huge page limits",
            "write a number and KB, MB or GB, such as 2MB",
        );
    }
    let v1 = format!("hugetlb.{size}.limit_in_bytes");
    out.add(&format!("hugetlb.{size}.max"), &v1, h.limit(), &origin);
    let v1 = format!("hugetlb.{size}.rsvd.limit_in_bytes");
    out.add(&format!("hugetlb.{size}.rsvd.max"), &v1, h.limit(), &origin).absent = Absent::PassOver;
}

fn network(n: &LinuxNetwork, out: &mut Writes, found: &mut Findings) {
    let class = n.class_id().filter(|c| *c != 0);
    let priorities = n.priorities().as_deref().unwrap_or_default();
    if out.v2 {
        if class.is_some() || !priorities.is_empty() {
            let field = if class.is_some() { "classID" } else { "priorities" };
            found.problem(
                format!("linux.resources.network.{field}"),
                "cgroup v2 has no network classes",
                SECTION,
                "remove it, or boot with cgroup v1",
            );
        }
        return;
    }
    if let Some(class) = class {
        out.add("", "net_cls.classid", class, "network.classID");
    }
    for p in priorities {
        out.add("", "net_prio.ifpriomap", format!("{} {}", p.name(), p.priority()), "network.priorities");
    }
}

/// Files of every group by which processes are moved, frozen or killed, or groups changed: cgroup-v2.rst, Core Interface Files.
const SWITCHES: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.freeze",
    "cgroup.kill",
    "cgroup.subtree_control",
    "cgroup.type",
];

/// Files by name: config-linux.md, Unified. They override what other limits say; a value of several lines is written
/// line by line, as files with a line for each device want it.
fn unified(r: &LinuxResources, out: &mut Writes, found: &mut Findings) {
    let mut all: Vec<_> = r.unified().iter().flatten().collect();
    all.sort();
    let idle = r.unified().as_ref().and_then(|u| u.get("cpu.idle")).is_some_and(|v| v.trim() == "1");
    for (file, value) in all {
        let at = format!("linux.resources.unified.{file}");
        if file.contains(['/', '\0']) || !file.contains('.') || file.starts_with('.') {
            found.problem(
                &at,
                format!("the specified key has not the form CONTROLLER.VALUE `{file}`"),
                SECTION,
                "name a file such as memory.high",
            );
        }
        if SWITCHES.contains(&file.as_str()) {
            found.problem(
                &at,
                "is no limit, but does something to the group itself or to its processes",
                SECTION,
                "remove it",
            );
        }
        if !out.v2 {
            found.problem(
                &at,
                "invalid configuration: this host has cgroup v1",
                SECTION,
                "use the limits by name, or boot with cgroup v2",
            );
        }
        if idle && file == "cpu.weight" {
            found.warn("linux.resources.unified: unable to apply both cpu.weight and cpu.idle; cpu.weight is left out");
            continue;
        }
        let keyed = ["io.max", "io.weight", "io.bfq.weight", "io.latency", "rdma.max", "misc.max"];
        if !keyed.contains(&file.as_str()) {
            out.list.retain(|w| w.file != *file);
        }
        let lines: Vec<&str> = value.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        for line in if lines.is_empty() { vec![""] } else { lines } {
            out.add(file, file, line, &format!("unified.{file}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writes of a JSON text, as `file=value`.
    pub(crate) fn of(json: &str, mode: CgroupMode) -> Result<Vec<String>, String> {
        let resources = serde_json::from_str(json).expect("resources");
        let mut found = Findings::default();
        let list = writes(&resources, mode, &mut found);
        match found.problems.first() {
            Some(p) => Err(p.to_string()),
            None => Ok(list.iter().map(|w| format!("{}={}", w.file, w.value)).collect()),
        }
    }

    #[test]
    fn shares_and_weights_meet_at_their_ends_and_default() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
    }

    /// input → files of v2, files of v1.
    #[test]
    fn a_table_of_limits() {
        for (json, v2, v1) in [
            (
                r#"{"memory":{"limit":64,"reservation":32,"swap":96}}"#,
                "memory.swap.max=32 memory.max=64 memory.low=32",
                "memory.limit_in_bytes=64 memory.memsw.limit_in_bytes=96 memory.soft_limit_in_bytes=32",
            ),
            (
                r#"{"memory":{"limit":64,"swap":64}}"#,
                "memory.swap.max=0 memory.max=64",
                "memory.limit_in_bytes=64 memory.memsw.limit_in_bytes=64",
            ),
            (
                r#"{"memory":{"limit":64,"swap":-1}}"#,
                "memory.swap.max=max memory.max=64",
                "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=64",
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                "memory.swap.max=max memory.max=max",
                "memory.memsw.limit_in_bytes=-1 memory.limit_in_bytes=-1",
            ),
            (r#"{"memory":{"limit":0}}"#, "", ""),
            (
                r#"{"cpu":{"shares":1024,"quota":5000}}"#,
                "cpu.weight=100 cpu.max=5000 100000",
                "cpu.shares=1024 cpu.cfs_quota_us=5000",
            ),
            (
                r#"{"cpu":{"quota":-1,"period":50000}}"#,
                "cpu.max=max 50000",
                "cpu.cfs_period_us=50000 cpu.cfs_quota_us=-1",
            ),
            (
                r#"{"cpu":{"burst":7,"idle":1,"cpus":"0-1","mems":"0"}}"#,
                "cpu.idle=1 cpu.max.burst=7 cpuset.cpus=0-1 cpuset.mems=0",
                "cpu.idle=1 cpu.cfs_burst_us=7 cpuset.cpus=0-1 cpuset.mems=0",
            ),
            (r#"{"pids":{"limit":0}}"#, "pids.max=1", "pids.max=1"),
            (r#"{"pids":{"limit":-1}}"#, "pids.max=max", "pids.max=max"),
            (r#"{"blockIO":{"weight":750}}"#, "io.bfq.weight=750", "blkio.bfq.weight=750"),
            (
                r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}]}}"#,
                "io.bfq.weight=8:0 500",
                "blkio.bfq.weight_device=8:0 500",
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}]}}"#,
                "io.max=8:0 rbps=9",
                "blkio.throttle.read_bps_device=8:0 9",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#,
                "hugetlb.2MB.max=4096 hugetlb.2MB.rsvd.max=4096",
                "hugetlb.2MB.limit_in_bytes=4096 hugetlb.2MB.rsvd.limit_in_bytes=4096",
            ),
            (
                r#"{"rdma":{"mlx":{"hcaHandles":3}}}"#,
                "rdma.max=mlx hca_handle=3 hca_object=max",
                "rdma.max=mlx hca_handle=3 hca_object=max",
            ),
        ] {
            assert_eq!(of(json, CgroupMode::Unified).expect(json).join(" "), v2, "{json}");
            assert_eq!(of(json, CgroupMode::Legacy).expect(json).join(" "), v1, "{json}");
        }
    }

    #[test]
    fn what_only_v1_has() {
        for (json, files) in [
            (
                r#"{"memory":{"swappiness":60,"disableOOMKiller":true,"useHierarchy":true}}"#,
                "memory.swappiness=60 memory.oom_control=1 memory.use_hierarchy=1",
            ),
            (
                r#"{"cpu":{"realtimeRuntime":5,"realtimePeriod":10}}"#,
                "cpu.rt_period_us=10 cpu.rt_runtime_us=5",
            ),
            (
                r#"{"network":{"classID":7,"priorities":[{"name":"eth0","priority":3}]}}"#,
                "net_cls.classid=7 net_prio.ifpriomap=eth0 3",
            ),
            (
                r#"{"blockIO":{"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"leafWeight":20}]}}"#,
                "blkio.leaf_weight=10 blkio.leaf_weight_device=8:0 20",
            ),
        ] {
            assert_eq!(of(json, CgroupMode::Legacy).expect(json).join(" "), files, "{json}");
        }
    }

    #[test]
    fn what_is_left_out_is_said() {
        let (both, v2) = ([CgroupMode::Unified, CgroupMode::Legacy].as_slice(), &[CgroupMode::Unified]);
        for (json, modes) in [
            (r#"{"memory":{"kernel":64}}"#, both),
            (r#"{"memory":{"kernelTCP":64}}"#, both),
            (r#"{"memory":{"swappiness":60}}"#, v2),
            (r#"{"memory":{"disableOOMKiller":true}}"#, v2),
        ] {
            for mode in modes {
                let mut found = Findings::default();
                let list = writes(&serde_json::from_str(json).expect("resources"), *mode, &mut found);
                assert_eq!((list.len(), found.warnings.len()), (0, 1), "{json}, {mode:?}");
            }
        }
    }

    #[test]
    fn unified_overrides() {
        let json =
            r#"{"memory":{"limit":64},"unified":{"memory.max":"99","io.max":"8:0 rbps=1\n8:16 wbps=2\n"}}"#;
        assert_eq!(
            of(json, CgroupMode::Unified).expect("writes"),
            ["io.max=8:0 rbps=1", "io.max=8:16 wbps=2", "memory.max=99"]
        );
    }

    #[test]
    fn what_a_version_does_not_have_is_refused() {
        for (json, mode) in [
            (r#"{"unified":{"memory.high":"1"}}"#, CgroupMode::Legacy),
            (r#"{"unified":{"../memory.max":"1"}}"#, CgroupMode::Unified),
            (r#"{"unified":{"nonsense":"1"}}"#, CgroupMode::Unified),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, CgroupMode::Unified),
            (r#"{"network":{"classID":1}}"#, CgroupMode::Unified),
            (r#"{"blockIO":{"leafWeight":10}}"#, CgroupMode::Unified),
            (r#"{"memory":{"swap":10}}"#, CgroupMode::Unified),
            (r#"{"memory":{"limit":20,"swap":10}}"#, CgroupMode::Unified),
        ] {
            assert!(of(json, mode).is_err(), "{json}");
        }
    }
}
