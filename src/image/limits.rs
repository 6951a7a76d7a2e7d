//! How much a container may use: podman's and docker's words, as members of config.json.

use clap::Args;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How much the container may use.
#[derive(Args)]
pub(crate) struct LimitArgs {
    /// Most memory, with K, M or G
    #[arg(short, long, value_name = "SIZE", value_parser = super::size)]
    memory: Option<u64>,
    /// Most memory and swap together; -1 for as much swap as there is
    #[arg(long, value_name = "SIZE", value_parser = swap, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Most processor time, in processors: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u64>,
    /// Processors to run on: 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Share of processor time where it is scarce; 1024 is usual
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Most processes
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// NAME=SOFT[:HARD]: a limit of getrlimit(2), as nofile=1024:2048; -1 for none
    #[arg(long, value_name = "LIMIT", value_parser = ulimit)]
    ulimit: Vec<Value>,
}

/// Of a processor's time, in microseconds: what engines use.
const PERIOD: u64 = 100_000;

impl LimitArgs {
    /// Members of `linux.resources`.
    pub(super) fn resources(&self) -> Vec<(&'static str, Value)> {
        // As much swap as memory, unless something else is asked for: what engines do.
        let swap = || Some(json!(self.memory.filter(|_| counts_swap())?.saturating_mul(2)));
        let swap = self.memory_swap.map_or_else(swap, |n| Some(n.into()));
        let memory = [("limit", self.memory.map(Value::from)), ("swap", swap)];
        let cpu = [
            ("quota", self.cpus.map(Value::from)),
            ("period", self.cpus.map(|_| PERIOD.into())),
            ("cpus", self.cpuset_cpus.clone().map(Value::from)),
            ("shares", self.cpu_shares.map(Value::from)),
        ];
        // Engines take 0 for no limit, too.
        let pids = [("limit", self.pids_limit.map(|n| if n == 0 { -1 } else { n }.into()))];
        let all = [("memory", members(memory)), ("cpu", members(cpu)), ("pids", members(pids))];
        all.into_iter().filter(|(_, of)| !of.is_empty()).map(|(name, of)| (name, of.into())).collect()
    }

    /// `process.rlimits`; of one name, the last counts.
    pub(super) fn rlimits(&self) -> Vec<Value> {
        let later = |at: usize, kind: &Value| self.ulimit[at + 1..].iter().any(|l| l["type"] == *kind);
        let all = self.ulimit.iter().enumerate();
        all.filter(|(at, limit)| !later(*at, &limit["type"])).map(|(_, limit)| limit.clone()).collect()
    }
}

/// Whether swap can be limited: cgroup v1 does so only with `swapaccount=1` on the kernel's command line.
fn counts_swap() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    !v1.exists() || v1.join("memory.memsw.limit_in_bytes").exists()
}

fn members(all: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Map<String, Value> {
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// `1.5`: microseconds of each [`PERIOD`].
fn cpus(text: &str) -> Result<u64, String> {
    let number = text.parse::<f64>().ok().filter(|n| (0.01..=10_000.0).contains(n));
    let number = number.ok_or_else(|| format!("{text:?} is no number of processors; write 0.5 or 2"))?;
    Ok((number * PERIOD as f64) as u64)
}

fn swap(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        size => super::size(size).and_then(|n| i64::try_from(n).map_err(|_| format!("{text} is too much"))),
    }
}

/// `nofile=1024:2048` as an entry of `process.rlimits`.
fn ulimit(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is no limit; write NAME=SOFT[:HARD], as nofile=1024:2048");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("rlimit_").unwrap_or(&name);
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    if !coracle_plan::rlimit_names().any(|known| known == kind) {
        let mut names: Vec<String> = coracle_plan::rlimit_names().map(|n| n[7..].to_lowercase()).collect();
        names.sort_unstable();
        return Err(format!("there is no limit {name:?}; the names are {}", names.join(", ")));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(format!("{text:?}: the soft limit is more than the hard one"));
    }
    Ok(json!({"type": kind, "soft": soft, "hard": hard}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn limits(words: &[&str]) -> Result<LimitArgs, String> {
        Line::try_parse_from([&["x"], words].concat()).map(|l| l.limits).map_err(|e| e.to_string())
    }

    #[test]
    fn resources_as_engines_write_them() {
        let all = "-m 64M --memory-swap -1 --cpus 1.5 --cpuset-cpus 0-1 -c 512 --pids-limit 9";
        let of = limits(&all.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(
            json!(of.resources()),
            json!([
                ["memory", {"limit": 64 << 20, "swap": -1}],
                ["cpu", {"quota": 150_000, "period": 100_000, "cpus": "0-1", "shares": 512}],
                ["pids", {"limit": 9}]
            ])
        );
        for none in ["0", "-1"] {
            assert_eq!(
                limits(&["--pids-limit", none]).unwrap().resources(),
                [("pids", json!({"limit": -1}))]
            );
        }
        for bad in [["--cpus", "-1"], ["--memory", "much"], ["--memory-swap", "-2"]] {
            assert!(limits(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_of_processes() {
        let of = |words: &[&str]| limits(words).map(|l| l.rlimits());
        let all = of(&["--ulimit", "nofile=9", "--ulimit", "core=0:-1", "--ulimit", "RLIMIT_NOFILE=1:2"]);
        assert_eq!(
            all,
            Ok(vec![
                json!({"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX}),
                json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2})
            ])
        );
        for bad in ["nofile", "nofile=", "nofile=2:1", "files=1", "nofile=a", "nofile=-2", "=1"] {
            assert!(of(&["--ulimit", bad]).is_err(), "{bad:?}");
        }
    }
}
