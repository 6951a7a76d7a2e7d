//! The workload's program, arguments, environment, directory: config.md, Process.

use crate::problem::Findings;
use crate::steps::Program;
use oci_spec::runtime::Process;

const SECTION: &str = "config.md, Process";

/// The program of a process.
pub fn program(process: &Process, found: &mut Findings) -> Program {
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
    let env = process
        .env()
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, e)| found.cstring(&format!("process.env[{i}]"), e.as_str()))
        .collect();
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
