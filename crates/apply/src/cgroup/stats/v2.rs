//! The kernel's admin-guide/cgroup-v2.rst, the interface files of each controller; accounting/psi.rst.

use super::{number, of, page_sizes, read, table};
use serde_json::{Map, Value, json};

pub(super) fn stats(dir: &str) -> Value {
    json!({
        "cpu": cpu(dir),
        "cpuset": cpuset(dir),
        "memory": memory(dir),
        "pids": pids(dir),
        "blkio": io(dir),
        "hugetlb": hugepages(dir),
    })
}

fn cpu(dir: &str) -> Value {
    let stat = table(dir, "cpu.stat");
    let nanos = |key| of(&stat, key) * 1000;
    let mut out = json!({
        "usage": {"total": nanos("usage_usec"), "kernel": nanos("system_usec"), "user": nanos("user_usec")},
        "throttling": {
            "periods": of(&stat, "nr_periods"),
            "throttledPeriods": of(&stat, "nr_throttled"),
            "throttledTime": nanos("throttled_usec"),
        },
    });
    pressure(dir, "cpu.pressure", &mut out);
    out
}

/// Flags of v1's cpusets, which go-runc's structure wants.
fn cpuset(dir: &str) -> Value {
    json!({
        "cpus": super::list(dir, "cpuset.cpus"), "mems": super::list(dir, "cpuset.mems"),
        "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
        "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
    })
}

fn memory(dir: &str) -> Value {
    let raw = table(dir, "memory.stat");
    let get = |file| number(dir, file).unwrap_or(0);
    let (usage, limit) = (get("memory.current"), get("memory.max"));
    // As v1 counts it: with memory.
    let swap_limit = get("memory.swap.max");
    let both = if swap_limit == u64::MAX { u64::MAX } else { swap_limit.saturating_add(limit) };
    let mut out = json!({
        "cache": of(&raw, "file"),
        "usage": {"limit": limit, "usage": usage, "max": get("memory.peak"), "failcnt": 0},
        "swap": {"limit": both, "usage": get("memory.swap.current") + usage, "failcnt": 0},
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
    });
    pressure(dir, "memory.pressure", &mut out);
    out
}

fn pids(dir: &str) -> Value {
    let counted = number(dir, "pids.current");
    let current = counted.unwrap_or_else(|| {
        let list = read(dir, "cgroup.procs").or_else(|_| read(dir, "cgroup.threads"));
        list.unwrap_or_default().lines().count() as u64
    });
    // No limit has always been 0 here.
    let limit = number(dir, "pids.max").filter(|n| *n != u64::MAX).unwrap_or(0);
    json!({"current": current, "limit": limit})
}

fn io(dir: &str) -> Value {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in read(dir, "io.stat").unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            let value = value.parse::<u64>().unwrap_or(0);
            list.push(json!({"major": major, "minor": minor, "op": op, "value": value}));
        }
    }
    let mut out = json!({});
    for (name, list) in [("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", operations)] {
        if !list.is_empty() {
            out[name] = list.into();
        }
    }
    pressure(dir, "io.pressure", &mut out);
    out
}

fn hugepages(dir: &str) -> Value {
    let one = |size: String| {
        let file = format!("hugetlb.{size}");
        let usage =
            number(dir, &format!("{file}.rsvd.current")).or_else(|| number(dir, &format!("{file}.current")));
        let failures = of(&table(dir, &format!("{file}.events")), "max");
        (size, json!({"usage": usage.unwrap_or(0), "failcnt": failures}))
    };
    page_sizes(dir, ".max").into_iter().map(one).collect::<Map<_, _>>().into()
}

/// Pressure stall information, where the kernel has it.
fn pressure(dir: &str, file: &str, out: &mut Value) {
    let Ok(text) = read(dir, file) else { return };
    let mut psi = Map::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(kind) = words.next() else { continue };
        let mut data = Map::new();
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let value = match key {
                "total" => value.parse::<u64>().map_or(Value::Null, Value::from),
                _ => value.parse::<f64>().map_or(Value::Null, Value::from),
            };
            data.insert(key.into(), value);
        }
        psi.insert(kind.into(), data.into());
    }
    if !psi.is_empty() {
        out["psi"] = psi.into();
    }
}
