//! What a container uses, in the shape of runc's `events --stats`: nanoseconds and bytes, u64's largest for no limit. What
//! the host does not count is absent or 0.

mod v1;
mod v2;

use super::{Cgroup, read};
use serde_json::{Map, Value, json};

impl Cgroup {
    /// The `data` of a stats event.
    pub fn stats(&self) -> Value {
        let mut data = if self.v2 { v2::stats(&self.dirs[0]) } else { v1::stats(&self.path) };
        data["intel_rdt"] = json!({});
        data["network_interfaces"] = Value::Null;
        data
    }
}

/// The `data` of a stats event of a container without a group, of which nothing is counted. It is not null: programs in Go go
/// through it without a look.
pub(crate) fn nothing() -> Value {
    let topics = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"];
    let mut data: Map<String, Value> =
        topics.map(|topic| (topic.to_owned(), json!({}))).into_iter().collect();
    data.insert("network_interfaces".into(), Value::Null);
    Value::Object(data)
}

/// A file that is one number; `max` is the largest there is.
fn number(dir: &str, file: &str) -> Option<u64> {
    let text = read(dir, file).ok()?;
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// A file of lines `key number`.
fn table(dir: &str, file: &str) -> Map<String, Value> {
    let text = read(dir, file).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse::<u64>().ok()?.into()))
    };
    text.lines().filter_map(pair).collect()
}

fn of(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// cpuset(7)'s list format as numbers.
fn list(dir: &str, file: &str) -> Vec<u16> {
    let text = read(dir, file).unwrap_or_default();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Sizes of huge pages that this group counts, as its files name them: `hugetlb.2MB.` and so on.
fn page_sizes(dir: &str, file: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(file)?.to_owned());
    let mut sizes: Vec<String> = names.filter_map(|e| size(e.file_name().into_string().ok()?)).collect();
    sizes.retain(|s| !s.contains('.'));
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_not_counted_has_the_same_topics() {
        let topics = |value: &Value| -> BTreeSet<String> {
            value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
        };
        let mut counted = v2::stats("/nowhere");
        counted["intel_rdt"] = json!({});
        counted["network_interfaces"] = Value::Null;
        assert_eq!(topics(&nothing()), topics(&counted));
    }

    #[test]
    fn files_become_numbers() {
        let dir = std::env::temp_dir().join(format!("coracle-stats-{}", coracle_sys::process::getpid()));
        std::fs::create_dir_all(&dir).expect("directory");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("file");
        write("memory.max", "max\n");
        write("cpu.stat", "usage_usec 5\nuser_usec 2\nsystem_usec 3\nnr_throttled 1\n");
        write("cpuset.cpus", "0-2,7\n");
        write(
            "cpu.pressure",
            "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        );
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        write("hugetlb.2MB.max", "max");
        write("hugetlb.2MB.rsvd.max", "max");
        let path = dir.to_str().expect("text");
        assert_eq!((number(path, "memory.max"), number(path, "none")), (Some(u64::MAX), None));
        assert_eq!(list(path, "cpuset.cpus"), [0, 1, 2, 7]);
        assert_eq!(page_sizes(path, ".max"), ["2MB"]);
        let stats = v2::stats(path);
        assert_eq!(stats["cpu"]["usage"], json!({"total": 5000, "user": 2000, "kernel": 3000}));
        assert_eq!(stats["cpu"]["psi"]["some"]["avg10"], json!(0.5));
        assert_eq!(stats["cpu"]["psi"]["full"]["total"], json!(1));
        assert_eq!(
            stats["blkio"]["ioServiceBytesRecursive"][1],
            json!({"major": 8, "minor": 0, "op": "Write", "value": 2})
        );
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
