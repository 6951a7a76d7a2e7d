//! events: what a container uses, and when the kernel killed in it for want of memory, as lines of JSON in runc's shape.

use crate::cli::{Global, Outcome};
use crate::inspect::{answer, print};
use crate::lifecycle::entry;
use clap::Args;
use coracle_apply::lifecycle;
use serde_json::{Value, json};

/// Print what a container uses, and when the kernel kills in it for want of memory, as JSON
#[derive(Args)]
pub(crate) struct EventsArgs {
    /// How often, such as 5s or 100ms
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// What it uses now, and no more
    #[arg(long)]
    stats: bool,
    id: String,
}

/// `coracle events`.
pub(crate) fn events(global: &Global, EventsArgs { interval, stats, id }: &EventsArgs) -> Outcome {
    let entry = entry(global, id)?;
    let interval = milliseconds(interval).filter(|ms| *ms > 0).ok_or_else(|| no_interval(interval))?;
    if *stats {
        let data = lifecycle::stats(&entry).map_err(|f| f.to_string())?;
        return answer(&line(id, Some(data))).map(|()| 0);
    }
    lifecycle::events(&entry, interval, &mut |data| print(&line(id, data)))
        .map(|()| 0)
        .map_err(|f| f.to_string())
}

/// One line. The order of its members is runc's: callers look for it at the beginning.
fn line(id: &str, data: Option<Value>) -> String {
    let id = json!(id);
    match data {
        Some(data) => format!("{{\"type\":\"stats\",\"id\":{id},\"data\":{data}}}\n"),
        None => format!("{{\"type\":\"oom\",\"id\":{id}}}\n"),
    }
}

fn no_interval(text: &str) -> String {
    let why = match text.parse::<f64>() {
        Ok(number) if number > 0.0 => format!("it has no unit; write {text}s for seconds"),
        _ => "duration interval must be greater than 0, such as 5s or 100ms".into(),
    };
    format!("--interval {text:?}: {why}")
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `100ms`.
fn milliseconds(text: &str) -> Option<i32> {
    let (mut rest, mut sum) = (text, 0f64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        rest = &rest[end..];
        sum += number * unit;
    }
    (sum > 0.0 && sum < f64::from(i32::MAX)).then(|| sum.ceil() as i32)
}

#[cfg(test)]
mod tests {
    use super::{milliseconds, no_interval};

    #[test]
    fn a_number_alone_lacks_its_unit() {
        assert_eq!(no_interval("5"), "--interval \"5\": it has no unit; write 5s for seconds");
        assert!(no_interval("0").ends_with("must be greater than 0, such as 5s or 100ms"));
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, want) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5h", 5_400_000), ("1us", 1)]
        {
            assert_eq!(milliseconds(text), Some(want), "{text}");
        }
        for text in ["", "5", "0s", "s", "-1s", "5x", "9999999h"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
