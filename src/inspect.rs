//! state, list: what there is, in the forms that engines parse.

use crate::cli::{Global, Outcome};
use crate::lifecycle::entry;
use clap::Args;
use coracle_apply::lifecycle;
use coracle_state::{Entry, Error, Record, Stage};
use coracle_sys::{Errno, fs};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Prints to standard output, where nobody can be told if that fails.
pub(crate) fn print(text: &str) {
    let _ = answer(text);
}

/// Prints what was asked for to standard output; a reader that went away is no error.
/// Errors: it was not written, to a full disk perhaps: half an answer must not pass for one.
pub(crate) fn answer(text: &str) -> Result<(), String> {
    let stdout = fs::inherited(1).and_then(|fd| fs::write_all(fd, text.as_bytes()));
    match stdout {
        Ok(()) | Err(Errno::EPIPE | Errno::EBADF) => Ok(()),
        Err(e) => Err(format!("writing to standard output: {}", e.desc().to_lowercase())),
    }
}

/// The state of runtime.md and what runc adds to it, in runc's order: some read it as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    oci_version: String,
    id: String,
    pid: i32,
    status: &'static str,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    /// The unit of systemd that holds it, by crun's name.
    #[serde(rename = "systemd-scope", skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

fn describe(entry: &Entry, record: Record) -> Result<State, String> {
    let (status, pid) = lifecycle::status(entry, &record).map_err(|f| f.to_string())?;
    Ok(State {
        oci_version: record.oci_version,
        id: record.id,
        pid,
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        scope: record.unit.map(|unit| unit.name),
        annotations: record.annotations,
        owner: String::new(),
    })
}

/// How long `state` waits for the end of a create that goes on: whoever asks until there is a container wants to hear what
/// became of it. A hook, for which create waits in turn, hears `creating` then.
const PATIENCE: Duration = Duration::from_millis(500);

/// Print the state of a container as JSON
#[derive(Args)]
pub(crate) struct StateArgs {
    id: String,
}

/// `coracle state`.
pub(crate) fn state(global: &Global, args: &StateArgs) -> Outcome {
    let entry = settled(global, &args.id)?;
    // Without one it is reserved, and nothing more: being created, or left by a create that died at once.
    let record = entry.written().map_err(|e| e.to_string())?.unwrap_or_else(|| unwritten(&entry));
    let state = describe(&entry, record)?;
    answer(&serde_json::to_string_pretty(&state).map_err(|e| e.to_string())?).map(|()| 0)
}

fn settled(global: &Global, id: &str) -> Result<Entry, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let entry = entry(global, id)?;
        // One that is reserved alone may not be locked yet.
        let settled = entry.record().is_ok_and(|record| record.stage == Stage::Created || !entry.busy());
        if settled || Instant::now() >= end {
            return Ok(entry);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn unwritten(entry: &Entry) -> Record {
    Record {
        oci_version: "1.0.2".into(),
        id: entry.id.clone(),
        bundle: Default::default(),
        rootfs: Default::default(),
        created: crate::clock::now(),
        stage: Stage::Creating,
        pid: 0,
        start_time: 0,
        cgroup: None,
        cgroup_v1: false,
        unit: None,
        rdt: None,
        shared_pids: false,
        own_clocks: false,
        root_mount: None,
        annotations: Default::default(),
        owner: coracle_sys::creds::geteuid(),
    }
}

/// List containers
#[derive(Args)]
pub(crate) struct ListArgs {
    /// table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Only their names
    #[arg(short, long)]
    quiet: bool,
}

/// `coracle list`.
pub(crate) fn list(global: &Global, args: &ListArgs) -> Outcome {
    let root = global.state_root();
    if global.root.is_some() && !root.exists() {
        return Err(format!("opening the state directory {root:?}: no such file or directory"));
    }
    let (mut states, mut unknown) = (Vec::new(), Vec::new());
    for id in coracle_state::ids(&root).map_err(|e| e.to_string())? {
        let record = Entry::open(&root, &id).and_then(|entry| entry.record().map(|record| (entry, record)));
        match record {
            Ok((entry, record)) => {
                let owner = user(record.owner);
                match describe(&entry, record) {
                    Ok(state) => states.push(State { owner, ..state }),
                    Err(e) => unknown.push(e),
                }
            }
            // One that vanishes meanwhile, or is damaged, does not keep the others from being listed; nor what is no directory.
            Err(Error::Missing(_) | Error::Io(_, _, Errno::ENOTDIR | Errno::ELOOP)) => {}
            Err(e @ Error::Damaged(..)) => crate::log::warnings(global, &[e.to_string()]),
            Err(e) => unknown.push(e.to_string()),
        }
    }
    let text = if args.quiet {
        states.iter().map(|s| format!("{}\n", s.id)).collect()
    } else if args.format == "json" {
        let all = Some(states).filter(|s| !s.is_empty());
        format!("{}\n", serde_json::to_string(&all).map_err(|e| e.to_string())?)
    } else {
        let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
        rows.extend(states.into_iter().map(|s| {
            let bundle = s.bundle.display().to_string();
            [s.id, s.pid.to_string(), s.status.to_owned(), bundle, s.created, s.owner]
        }));
        table(&rows)
    };
    answer(&text)?;
    if unknown.is_empty() { Ok(0) } else { Err(unknown.join("; ")) }
}

/// A user's name from /etc/passwd, read as text: no name service is asked.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&uid.to_string().as_str()));
    found.map_or_else(|| format!("#{uid}"), |f| f[0].to_owned())
}

/// Columns as wide as their widest cells.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line =
        |r: &[String; N]| r.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}   ")).collect::<String>();
    rows.iter().map(|r| format!("{}\n", line(r).trim_end())).collect()
}
