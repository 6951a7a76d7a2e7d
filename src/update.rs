//! update: new limits, from flags or from a file with `linux.resources`.

use crate::cli::{Global, Outcome};
use crate::lifecycle::entry;
use crate::log;
use clap::Args;
use coracle_apply::lifecycle;
use coracle_plan::config::Once;
use serde_json::{Map, Value, json};
use std::io::Read;

/// Change limits of a container
#[derive(Args)]
pub(crate) struct UpdateArgs {
    /// File with the new limits as JSON (linux.resources of config.json), - for standard input; other options are ignored then
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    resources: Option<String>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up beyond the quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// CPU shares
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Period of the real-time quota, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1: only what others leave of the CPU; 0: as usual
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    kernel_memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<String>,
    /// Memory limit, with a suffix such as 512M; -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is kept when others want some
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Schema of the L3 cache, of a container in a class of Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth, of a container in a class of Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Name of the container
    id: String,
}

/// `coracle update`.
pub(crate) fn update(global: &Global, args: &UpdateArgs) -> Outcome {
    let entry = entry(global, &args.id)?;
    let schemata: Vec<String> =
        args.l3_cache_schema.iter().chain(&args.mem_bw_schema).filter(|s| !s.is_empty()).cloned().collect();
    if !schemata.is_empty() {
        lifecycle::update_rdt(&entry, &schemata).map_err(|f| f.to_string())?;
    }
    let new = match &args.resources {
        Some(file) => from_file(file)?,
        None => from_flags(args)?,
    };
    let warnings = lifecycle::update(&entry, &new).map_err(|f| f.to_string())?;
    log::warnings(global, &warnings);
    Ok(0)
}

fn from_file(file: &str) -> Result<Value, String> {
    let mut text = String::new();
    if file == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| format!("reading standard input: {}", log::reason(&e)))?;
    } else {
        text = std::fs::read_to_string(file).map_err(|e| format!("reading {file:?}: {}", log::reason(&e)))?;
    }
    // The first value counts: callers end it with what they like.
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Once>();
    match values.next() {
        Some(Ok(Once(value))) if value.pointer("/linux/resources").is_some() => {
            Err(format!("--resources {file}: is a whole config.json; write its linux.resources alone"))
        }
        Some(Ok(Once(value @ Value::Object(_)))) => Ok(value),
        Some(Ok(_)) => Err(format!("--resources {file}: is not a JSON object")),
        Some(Err(e)) => Err(format!("--resources {file}: {e}")),
        None => Err(format!("--resources {file}: is empty")),
    }
}

fn from_flags(args: &UpdateArgs) -> Result<Value, String> {
    let bytes = |flag: &str, given: &Option<String>| {
        let read = |text: &String| bytes(text).ok_or_else(|| format!("invalid value for {flag}: {text:?}"));
        given.as_ref().filter(|t| !t.is_empty()).map(read).transpose()
    };
    let memory = fields([
        ("limit", bytes("memory", &args.memory)?.map(Value::from)),
        ("reservation", bytes("memory-reservation", &args.memory_reservation)?.map(Value::from)),
        ("swap", bytes("memory-swap", &args.memory_swap)?.map(Value::from)),
        ("kernel", bytes("kernel-memory", &args.kernel_memory)?.map(Value::from)),
        ("kernelTCP", bytes("kernel-memory-tcp", &args.kernel_memory_tcp)?.map(Value::from)),
    ]);
    let cpu = fields([
        ("shares", args.cpu_share.map(Value::from)),
        ("quota", args.cpu_quota.map(Value::from)),
        ("period", args.cpu_period.map(Value::from)),
        ("burst", args.cpu_burst.map(Value::from)),
        ("realtimePeriod", args.cpu_rt_period.map(Value::from)),
        ("realtimeRuntime", args.cpu_rt_runtime.map(Value::from)),
        ("idle", args.cpu_idle.map(Value::from)),
        ("cpus", args.cpuset_cpus.clone().map(Value::from)),
        ("mems", args.cpuset_mems.clone().map(Value::from)),
    ]);
    let pids = fields([("limit", args.pids_limit.map(Value::from))]);
    let block = fields([("weight", args.blkio_weight.map(Value::from))]);
    Ok(json!({"memory": memory, "cpu": cpu, "pids": pids, "blockIO": block}))
}

fn fields<const N: usize>(all: [(&str, Option<Value>); N]) -> Map<String, Value> {
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A number of bytes as engines and people write it: `-1`, `1024`, `1.5g`, `512 MB`, `64MiB`; all of them powers of 1024.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let letter = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|p| *p == letter)?;
    let scale = 1i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(scale),
        Err(_) => number.parse::<f64>().ok().map(|n| (n * scale as f64) as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_with_suffixes() {
        for (text, want) in [
            ("-1", -1),
            ("5", 5),
            ("50M", 50 << 20),
            ("1.5g", 3 << 29),
            ("2 KiB", 2048),
            ("3kb", 3072),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for text in ["", "M", "-2", "5x", "1..5", "5 5", "9999999999999G"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
