//! A scope of systemd: its name, its slice, and what systemd is told of the limits, in its own units.
//! systemd.resource-control(5), systemd.scope(5), org.freedesktop.systemd1(5).
//!
//! systemd writes what it knows of again whenever it likes (a reload, a change of another property), so it must know the
//! limits; what it does not know of is written to the group's files alone, where delegation (`Delegate=yes`) protects it.
//! Devices are filtered by a program of ours on v2, which systemd leaves alone; on v1 it must know the rules.

use super::SECTION;
use crate::devices::{self, Rule};
use crate::inputs::{CgroupMode, Request, Systemd};
use crate::problem::Findings;
use crate::steps::{Absent, Cgroup, CgroupWrite, Unit};
use coracle_systemd::{Property, Value, gvariant, unit};
use oci_spec::runtime::Spec;
use std::path::Path;

/// Annotations whose name begins so are properties of the unit.
const ANNOTATION: &str = "org.systemd.property.";

pub(super) fn plan(
    spec: &Spec,
    host: &Systemd,
    asked: Option<&Path>,
    request: &Request,
    rules: &[Rule],
    out: &mut Cgroup,
    found: &mut Findings,
) {
    let text = asked.and_then(|p| p.to_str()).unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", "coracle", request.id.as_str()),
        [slice, prefix, name] => (slice, prefix, name),
        _ => {
            found.problem(
                "linux.cgroupsPath",
                format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
                ),
                SECTION,
                "write it so, or leave --systemd-cgroup out",
            );
            return;
        }
    };
    let default = if host.user { "user.slice" } else { "system.slice" };
    let slice = if slice.is_empty() { default } else { slice };
    let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    let Some(below) = unit::expand_slice(slice).filter(|_| unit::is_scope(&name)) else {
        found.problem(
            "linux.cgroupsPath",
            format!("{text:?} gives the unit {name:?} in the slice {slice:?}, which systemd does not take"),
            SECTION,
            "use letters, digits, : - _ . and @; a slice ends in .slice",
        );
        return;
    };
    // The machine's systemd has its root at the root; a user's has its own group.
    let manager = host.control_group.trim_end_matches('/');
    out.path = Some(format!("{manager}{below}/{name}"));
    out.optional = false;
    let mut properties = basics(slice, &request.id);
    properties.extend(self::properties(&mut out.writes, host));
    if host_devices_matter(out.mode) {
        properties.extend(devices::systemd_rules(rules, found));
    }
    properties.extend(annotations(spec, found));
    out.unit = Some(Unit { name, user: host.user, properties });
}

fn host_devices_matter(mode: CgroupMode) -> bool {
    mode == CgroupMode::Legacy
}

fn basics(slice: &str, id: &str) -> Vec<Property> {
    let yes = |name: &str| (name.to_owned(), Value::Bool(true));
    vec![
        ("Description".into(), Value::str(format!("coracle container {id}"))),
        ("Slice".into(), Value::str(slice)),
        yes("Delegate"),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes("IOAccounting"),
        yes("TasksAccounting"),
        // Without it systemd would stop the container among the first at shutdown, whatever needs it.
        ("DefaultDependencies".into(), Value::Bool(false)),
    ]
}

/// What systemd is told of the writes. It knows quotas in whole per cent only: the file gets the rounded one too, so that
/// both agree.
pub(super) fn properties(writes: &mut [CgroupWrite], host: &Systemd) -> Vec<Property> {
    let version = host.version;
    let mut out = Vec::new();
    let quota_v1 = quota_v1(writes);
    for w in writes.iter_mut() {
        match w.file.as_str() {
            "cpu.max" => bandwidth(w, version, &mut out),
            "cpu.cfs_quota_us" => {
                let (quota, period) = quota_v1;
                w.value = quota_properties(quota, period, version, &mut out)
                    .map_or(w.value.clone(), |n| n.to_string());
            }
            "io.max" => throttles(&w.value, &mut out),
            "io.weight" => weight(&w.value, 1, &mut out),
            "io.bfq.weight" => match &w.absent {
                Absent::Instead(other) if !host.bfq => weight(&other.value, 1, &mut out),
                _ => weight(&w.value, BFQ_STEP, &mut out),
            },
            "cpu.idle" if w.value.trim() == "1" && version >= 252 => {
                out.push(("CPUWeight".into(), Value::U64(0)))
            }
            _ => out.extend(property(w, version)),
        }
    }
    out
}

/// The properties that are one number, or a set of CPUs.
fn property(w: &CgroupWrite, version: u32) -> Option<Property> {
    let name = match w.file.as_str() {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "memory.zswap.max" if version >= 253 => "MemoryZSwapMax",
        "memory.limit_in_bytes" => "MemoryLimit",
        "cpu.weight" => "CPUWeight",
        "cpu.shares" => "CPUShares",
        "pids.max" => return Some(("TasksMax".into(), Value::U64(number(&w.value)?.max(1)))),
        "blkio.weight" if !w.value.contains(':') => "BlockIOWeight",
        "cpuset.cpus" if version >= 244 => return Some(("AllowedCPUs".into(), bits(&w.value)?)),
        "cpuset.mems" if version >= 244 => return Some(("AllowedMemoryNodes".into(), bits(&w.value)?)),
        // A scope takes it at its beginning only.
        "memory.oom.group" if version >= 253 => {
            let policy = if w.value.trim() == "1" { "kill" } else { "continue" };
            return Some(("OOMPolicy".into(), Value::str(policy)));
        }
        _ => return None,
    };
    Some((name.into(), Value::U64(number(&w.value)?)))
}

/// A number, or no limit, which systemd writes as the largest.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" | "-1" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// A list such as `0,2-3` as systemd takes sets: bytes, the lowest bits first. `None` for what is no list: the kernel's file
/// refuses that with its own words.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if last < first || last >= 8192 {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0u8);
        (first..=last).for_each(|n| bytes[n / 8] |= 1 << (n % 8));
    }
    (!bytes.is_empty()).then(|| Value::bytes(&bytes))
}

/// A line of io.max, such as `8:0 rbps=1048576 wiops=max`. systemd finds the device by the numbers in the name alone.
fn throttles(line: &str, out: &mut Vec<Property>) {
    let mut words = line.split_whitespace();
    let device = words.next().unwrap_or_default();
    for (key, limit) in words.filter_map(|w| w.split_once('=')) {
        let name = match key {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => continue, // the kernel's file refuses it with its own words
        };
        let Some(limit) = number(limit) else { continue };
        of_device(name, device, limit, out);
    }
}

fn of_device(name: &str, device: &str, value: u64, out: &mut Vec<Property>) {
    let one = Value::Struct(vec![Value::str(format!("/dev/block/{device}")), Value::U64(value)]);
    match out.iter_mut().find(|(known, _)| known == name) {
        Some((_, Value::Array(_, list))) => list.push(one),
        _ => out.push((name.into(), Value::Array("(st)".into(), vec![one]))),
    }
}

/// Above the default of 100, systemd makes one of BFQ's weights of so many of its own; below, both count alike.
const BFQ_STEP: u64 = 11;

/// A line of a file of weights: `500`, `default 500` or `8:0 500`; `step` of systemd's above the default are one of the file's.
fn weight(line: &str, step: u64, out: &mut Vec<Property>) {
    let (device, text) = line.trim().split_once(' ').unwrap_or(("default", line));
    let Some(weight) = number(text) else { return };
    let weight = weight.min(100) + weight.saturating_sub(100).saturating_mul(step);
    match device {
        "default" => out.push(("IOWeight".into(), Value::U64(weight))),
        device => of_device("IODeviceWeight", device, weight, out),
    }
}

fn bandwidth(w: &mut CgroupWrite, version: u32, out: &mut Vec<Property>) {
    let mut words = w.value.split_whitespace();
    let quota = words.next().and_then(|q| q.parse::<i64>().ok()).unwrap_or(-1);
    let period = words.next().and_then(|p| p.parse().ok()).unwrap_or(100_000);
    if let Some(rounded) = quota_properties(quota, period, version, out) {
        w.value = format!("{rounded} {period}");
    }
}

fn quota_v1(writes: &[CgroupWrite]) -> (i64, u64) {
    let value = |file: &str| writes.iter().find(|w| w.file == file).and_then(|w| w.value.parse::<i64>().ok());
    (value("cpu.cfs_quota_us").unwrap_or(-1), value("cpu.cfs_period_us").unwrap_or(100_000) as u64)
}

/// Microseconds of CPU a second, in steps of a per cent, rounded up. Returns the quota that this is, when there is one.
fn quota_properties(quota: i64, period: u64, version: u32, out: &mut Vec<Property>) -> Option<u64> {
    if version >= 242 {
        out.push(("CPUQuotaPeriodUSec".into(), Value::U64(period)));
    }
    let second = u64::try_from(quota).ok().filter(|q| *q > 0 && period > 0);
    let second =
        second.map(|q| (u128::from(q) * 1_000_000 / u128::from(period)).next_multiple_of(10_000) as u64);
    out.push(("CPUQuotaPerSecUSec".into(), Value::U64(second.unwrap_or(u64::MAX))));
    second.map(|s| (u128::from(s) * u128::from(period) / 1_000_000) as u64)
}

/// Properties by which systemd would put processes of the host into the scope, where `pause` and `delete` reach them.
const MEMBERS: [&str; 2] = ["PIDs", "PIDFDs"];

/// Whoever writes annotations can set any property of the unit but its members, so also run programs as systemd's user
/// (`ExecStopPost` and the like are refused for scopes by systemd itself). SECURITY.md says so.
fn annotations(spec: &Spec, found: &mut Findings) -> Vec<Property> {
    let mut named: Vec<_> = spec.annotations().iter().flatten().collect();
    named.sort();
    let mut out = Vec::new();
    for (key, text) in named {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        if MEMBERS.contains(&name) {
            found.problem(
                format!("annotations[{key:?}]"),
                "would make other processes the container's, to be paused and killed with it",
                "org.freedesktop.systemd1(5)",
                "remove it",
            );
        }
        match gvariant::property(name, text) {
            Ok(property) => out.push(property),
            Err(why) => found.problem(
                format!("annotations[{key:?}]"),
                why,
                "org.freedesktop.systemd1(5)",
                "write the value as gvariant text, such as uint64 90000000 or 'text'",
            ),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::writes;

    fn of(json: &str, version: u32) -> (Vec<Property>, Vec<CgroupWrite>) {
        let resources = serde_json::from_str(json).expect("resources");
        let mut list = writes(&resources, CgroupMode::Unified, &mut Findings::default());
        (properties(&mut list, &Systemd { version, ..Systemd::default() }), list)
    }

    fn n(name: &str, value: u64) -> Property {
        (name.into(), Value::U64(value))
    }

    #[test]
    fn limits_in_systemds_units() {
        let (p, _) = of(r#"{"memory":{"limit":64,"swap":96},"pids":{"limit":0},"cpu":{"shares":1024}}"#, 257);
        assert_eq!(p, [n("MemorySwapMax", 32), n("MemoryMax", 64), n("CPUWeight", 100), n("TasksMax", 1)]);
        let (p, _) = of(r#"{"blockIO":{"weight":750},"unified":{"memory.high":"max"}}"#, 257);
        assert_eq!(p, [n("IOWeight", 7475), n("MemoryHigh", u64::MAX)]);
    }

    #[test]
    fn devices_are_named_by_their_numbers() {
        let (p, _) = of(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9},{"major":8,"minor":16,"rate":7}]},
                "unified":{"io.max":"8:0 wiops=max nonsense=1"}}"#,
            257,
        );
        let one = |minor: u32, limit| {
            Value::Struct(vec![Value::str(format!("/dev/block/8:{minor}")), Value::U64(limit)])
        };
        let all = |name: &str, list| (name.to_owned(), Value::Array("(st)".into(), list));
        assert_eq!(
            p,
            [
                all("IOReadBandwidthMax", vec![one(0, 9), one(16, 7)]),
                all("IOWriteIOPSMax", vec![one(0, u64::MAX)])
            ]
        );
    }

    #[test]
    fn weights_are_such_that_systemd_writes_what_the_file_has() {
        let with = |json: &str, bfq| {
            let resources = serde_json::from_str(json).expect("resources");
            let mut list = writes(&resources, CgroupMode::Unified, &mut Findings::default());
            properties(&mut list, &Systemd { version: 257, bfq, ..Systemd::default() })
        };
        let both = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":50},{"major":8,"minor":16,"weight":1000}]}}"#;
        let all = |common, first, second| {
            let one = |minor: u32, weight| {
                Value::Struct(vec![Value::str(format!("/dev/block/8:{minor}")), Value::U64(weight)])
            };
            let list = Value::Array("(st)".into(), vec![one(0, first), one(16, second)]);
            vec![n("IOWeight", common), ("IODeviceWeight".to_owned(), list)]
        };
        assert_eq!(with(both, false), all(4950, 405, 10_000));
        assert_eq!(with(both, true), all(4500, 50, 10_000));
        let unified = r#"{"unified":{"io.weight":"default 7\n8:0 405\n8:16 9"}}"#;
        assert_eq!(with(unified, true), all(7, 405, 9));
        let unified = r#"{"unified":{"io.bfq.weight":"default 500"}}"#;
        assert_eq!(with(unified, true), [n("IOWeight", 4500)]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_per_cents_in_both_places() {
        let (p, list) = of(r#"{"cpu":{"quota":12345,"period":100000}}"#, 257);
        assert_eq!(p, [n("CPUQuotaPeriodUSec", 100_000), n("CPUQuotaPerSecUSec", 130_000)]);
        assert_eq!(list[0].value, "13000 100000");
        let (p, list) = of(r#"{"cpu":{"quota":-1,"period":50000}}"#, 241);
        assert_eq!((p, list[0].value.as_str()), (vec![n("CPUQuotaPerSecUSec", u64::MAX)], "max 50000"));
    }

    #[test]
    fn sets_are_bytes_with_the_lowest_first() {
        assert_eq!(bits("0, 2-3,9"), Some(Value::bytes(&[0b1101, 0b10])));
        assert_eq!([bits(""), bits("3-1"), bits("x"), bits("0-99999999")], [None, None, None, None]);
    }
}
