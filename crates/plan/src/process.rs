//! The workload's program, arguments, environment, directory: config.md, Process.

use crate::problem::{Findings, Problem, Refusal};
use crate::steps::Program;
use oci_spec::runtime::{Process, Spec};

const SECTION: &str = "config.md, Process";

/// A process that asks for nothing, in the place of one that config.json leaves out.
pub(crate) fn nothing() -> Process {
    crate::config::process(b"{}").unwrap_or_default().0
}

/// Whether there is something to start: config.json may leave `process` out until then.
/// Errors: there is not.
pub fn startable(spec: &Spec) -> Result<(), Refusal> {
    match spec.process() {
        Some(_) => Ok(()),
        None => Err(Refusal(vec![Problem {
            at: "process".into(),
            what: "is missing: there is nothing to start".into(),
            section: SECTION,
            hint: "add it, with args and cwd, and create the container anew".into(),
        }])),
    }
}

/// Each name once, with its last value (an image's, then what the user says); an empty HOME is none. With the places.
fn environment(list: &[String]) -> Vec<(usize, &str)> {
    let name = |line: &str| line.split_once('=').map_or(line, |(n, _)| n).to_owned();
    let mut seen = std::collections::HashSet::new();
    let mut out: Vec<(usize, &str)> = list.iter().map(String::as_str).enumerate().collect();
    out.reverse();
    out.retain(|(_, line)| seen.insert(name(line)) && *line != "HOME=");
    out.reverse();
    out
}

/// Whether a line of an environment is a name, = and a value: environ(7).
pub fn names_a_variable(line: &str) -> bool {
    line.find('=').is_some_and(|at| at > 0)
}

/// The program of a process, with what is added to its environment.
pub fn program(process: &Process, added: &[String], found: &mut Findings) -> Program {
    let args = process.args().as_deref().unwrap_or(&[]);
    if args.is_empty() {
        found.problem(
            "process.args",
            "is empty: there is no program to run",
            SECTION,
            "name a program, such as [\"sh\"]",
        );
    }
    let argv = args
        .iter()
        .enumerate()
        .map(|(i, a)| found.cstring(&format!("process.args[{i}]"), a.as_str()))
        .collect();
    let given = process.env().as_deref().unwrap_or(&[]);
    for (i, line) in given.iter().enumerate().filter(|(_, line)| !names_a_variable(line)) {
        found.problem(
            format!("process.env[{i}]"),
            format!("{line:?} is not NAME=VALUE"),
            SECTION,
            "write a name, = and its value, which may be empty",
        );
    }
    let all = [given, added].concat();
    let env = environment(&all);
    let env = env.into_iter().map(|(i, e)| found.cstring(&format!("process.env[{i}]"), e)).collect();
    if !process.cwd().is_absolute() {
        found.problem(
            "process.cwd",
            format!("{:?} is not an absolute path", process.cwd()),
            SECTION,
            "write it from the root, such as /",
        );
    }
    Program { argv, env }
}

#[cfg(test)]
mod tests {
    use super::environment;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let list = ["A=1", "B=2", "A=3", "HOME=/x", "HOME="].map(str::to_owned);
        let kept: Vec<&str> = environment(&list).into_iter().map(|(_, line)| line).collect();
        assert_eq!(kept, ["B=2", "A=3"]);
    }
}
