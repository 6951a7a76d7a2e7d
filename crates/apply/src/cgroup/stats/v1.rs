//! The kernel's admin-guide/cgroup-v1: cpuacct, cpusets, memory, pids, blkio-controller, hugetlb.

use super::super::v1::{Hierarchy, hierarchies};
use super::{list, number, of, page_sizes, read, table};
use serde_json::{Map, Value, json};

/// Ticks in cpuacct.stat: USER_HZ, 100 on every architecture that Rust's std runs on.
const TICK: u64 = 10_000_000;

pub(super) fn stats(path: &str) -> Value {
    let all = hierarchies().unwrap_or_default();
    let home = |controller: &str| {
        let has = |h: &&Hierarchy| h.controllers.iter().any(|c| c == controller);
        all.iter().find(has).map(|h| format!("{}{path}", h.mount)).unwrap_or_default()
    };
    let pids = home("pids");
    json!({
        "cpu": cpu(&home("cpuacct"), &home("cpu")),
        "cpuset": cpuset(&home("cpuset")),
        "memory": memory(&home("memory")),
        "pids": {
            "current": number(&pids, "pids.current").unwrap_or(0),
            "limit": number(&pids, "pids.max").filter(|n| *n != u64::MAX).unwrap_or(0),
        },
        "blkio": io(&home("blkio")),
        "hugetlb": hugepages(&home("hugetlb")),
    })
}

fn numbers(dir: &str, file: &str) -> Vec<u64> {
    read(dir, file).unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn cpu(acct: &str, cpu: &str) -> Value {
    let (ticks, stat) = (table(acct, "cpuacct.stat"), table(cpu, "cpu.stat"));
    // Lines of `cpu user system`, after a heading.
    let all = read(acct, "cpuacct.usage_all").unwrap_or_default();
    let column = |n: usize| -> Vec<u64> {
        all.lines().skip(1).filter_map(|l| l.split(' ').nth(n)?.parse().ok()).collect()
    };
    json!({
        "usage": {
            "total": number(acct, "cpuacct.usage").unwrap_or(0),
            "percpu": numbers(acct, "cpuacct.usage_percpu"),
            "percpu_user": column(1),
            "percpu_kernel": column(2),
            "kernel": of(&ticks, "system") * TICK,
            "user": of(&ticks, "user") * TICK,
        },
        "throttling": {
            "periods": of(&stat, "nr_periods"),
            "throttledPeriods": of(&stat, "nr_throttled"),
            "throttledTime": of(&stat, "throttled_time"),
        },
    })
}

fn cpuset(dir: &str) -> Value {
    let mut out = json!({"cpus": list(dir, "cpuset.cpus"), "mems": list(dir, "cpuset.mems")});
    for name in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
    ] {
        out[name] = number(dir, &format!("cpuset.{name}")).unwrap_or(0).into();
    }
    let level = read(dir, "cpuset.sched_relax_domain_level").ok().and_then(|t| t.parse::<i64>().ok());
    out["sched_relax_domain_level"] = level.unwrap_or(0).into();
    out
}

fn memory(dir: &str) -> Value {
    let raw = table(dir, "memory.stat");
    let entry = |kind: &str| {
        let get = |file: &str| number(dir, &format!("memory.{kind}{file}")).unwrap_or(0);
        json!({
            "limit": get("limit_in_bytes"),
            "usage": get("usage_in_bytes"),
            "max": get("max_usage_in_bytes"),
            "failcnt": get("failcnt"),
        })
    };
    json!({
        "cache": of(&raw, "cache"),
        "usage": entry(""),
        "swap": entry("memsw."),
        "kernel": entry("kmem."),
        "kernelTCP": entry("kmem.tcp."),
        "raw": raw,
    })
}

/// Lines of `major:minor operation value`, and one of the sum.
fn devices(dir: &str, file: &str) -> Vec<Value> {
    let text = read(dir, file).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split([' ', ':']);
        let (major, minor) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
        let (op, value) = (words.next()?, words.next()?.parse::<u64>().ok()?);
        Some(json!({"major": major, "minor": minor, "op": op, "value": value}))
    };
    text.lines().filter_map(line).collect()
}

fn io(dir: &str) -> Value {
    let mut out = json!({});
    for (name, bfq, throttle) in [
        ("ioServiceBytesRecursive", "io_service_bytes_recursive", "io_service_bytes_recursive"),
        ("ioServicedRecursive", "io_serviced_recursive", "io_serviced_recursive"),
    ] {
        let mut list = devices(dir, &format!("blkio.bfq.{bfq}"));
        if list.is_empty() {
            list = devices(dir, &format!("blkio.throttle.{throttle}"));
        }
        if !list.is_empty() {
            out[name] = list.into();
        }
    }
    out
}

fn hugepages(dir: &str) -> Value {
    let one = |size: String| {
        let get = |file: &str| {
            let reserved = number(dir, &format!("hugetlb.{size}.rsvd.{file}"));
            reserved.or_else(|| number(dir, &format!("hugetlb.{size}.{file}"))).unwrap_or(0)
        };
        let value = json!({"usage": get("usage_in_bytes"), "max": get("max_usage_in_bytes"), "failcnt": get("failcnt")});
        (size, value)
    };
    page_sizes(dir, ".limit_in_bytes").into_iter().map(one).collect::<Map<_, _>>().into()
}
