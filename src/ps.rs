//! ps: the processes of a container, as a list of pids, or as the host's ps(1) shows them.

use crate::cli::{Global, Outcome};
use crate::inspect::answer;
use crate::lifecycle::entry;
use clap::Args;
use coracle_apply::lifecycle;
use serde_json::json;
use std::process::Command;

/// List the processes of a container
#[derive(Args)]
pub(crate) struct PsArgs {
    /// table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    id: String,
    /// Options for ps (default -ef)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// `coracle ps`.
pub(crate) fn ps(global: &Global, args: &PsArgs) -> Outcome {
    let entry = entry(global, &args.id)?;
    let record = entry.record().map_err(|e| e.to_string())?;
    let group = lifecycle::cgroup(&record)
        .ok_or("the container has no control group of its own to list the processes of")?;
    let pids = group.processes().map_err(|f| f.to_string())?;
    if args.format == "json" {
        // None at all is what Go writes for an empty list, and what callers read.
        let list = if pids.is_empty() { "null\n".to_owned() } else { format!("{}\n", json!(pids)) };
        return answer(&list).map(|()| 0);
    }
    let default = ["-ef".to_owned()];
    let options = if args.options.is_empty() { &default[..] } else { &args.options };
    let output = Command::new("ps")
        .args(options)
        .output()
        .map_err(|e| format!("running ps: {}", crate::log::reason(&e)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("ps: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    answer(&only(&text, &pids)?).map(|()| 0)
}

/// The heading, and the lines of these processes.
fn only(text: &str, pids: &[i32]) -> Result<String, String> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or("couldn't find PID field in ps output")?;
    let theirs = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok([heading].into_iter().chain(lines.filter(theirs)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn lines_are_chosen_by_their_pid() {
        let text = "UID PID CMD\nroot 1 init 7\nroot 7 sh\n";
        assert_eq!(only(text, &[7]).expect("a table"), "UID PID CMD\nroot 7 sh\n");
        assert!(only("no heading\n", &[7]).is_err());
    }
}
