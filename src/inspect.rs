//! state, list, ps: what there is, in the forms that engines parse.

use crate::cli::{Global, Outcome};
use crate::lifecycle::entry;
use coracle_apply::lifecycle;
use coracle_state::{Entry, Record};
use serde_json::{Value, json};
use std::io::Write;

/// Prints to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn describe(entry: &Entry, record: &Record) -> Value {
    let (status, pid) = lifecycle::status(entry, record);
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": "",
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

/// `coracle state`.
pub(crate) fn state(global: &Global, id: &str) -> Outcome {
    let entry = entry(global, id)?;
    let record = match entry.record() {
        Ok(record) => record,
        // Reserved, and nothing more: being created, or left by a create that died at once.
        Err(_) if entry.read("record.json").is_err() => unwritten(&entry),
        Err(e) => return Err(e.to_string()),
    };
    print(&serde_json::to_string_pretty(&describe(&entry, &record)).map_err(|e| e.to_string())?);
    Ok(0)
}

fn unwritten(entry: &Entry) -> Record {
    Record {
        oci_version: "1.0.2".into(),
        id: entry.id.clone(),
        bundle: Default::default(),
        rootfs: Default::default(),
        created: crate::clock::now(),
        stage: coracle_state::Stage::Creating,
        pid: 0,
        start_time: 0,
        cgroup: None,
        cgroup_v1: false,
        shared_pids: false,
        annotations: Default::default(),
        owner: coracle_sys::creds::geteuid(),
    }
}

/// `coracle list`.
pub(crate) fn list(global: &Global, as_json: bool, quiet: bool) -> Outcome {
    let root = global.state_root();
    let mut states = Vec::new();
    for id in coracle_state::ids(&root).map_err(|e| e.to_string())? {
        // One that vanishes meanwhile, or is damaged, does not keep the others from being listed.
        let Ok(entry) = Entry::open(&root, &id) else { continue };
        match entry.record() {
            Ok(record) => states.push((describe(&entry, &record), record.owner)),
            Err(e) => crate::log::warnings(global, &[e.to_string()]),
        }
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    if quiet {
        states.iter().for_each(|(s, _)| print(&format!("{}\n", text(&s["id"]))));
    } else if as_json {
        let all: Vec<Value> = states
            .into_iter()
            .map(|(mut s, owner)| {
                s["owner"] = json!(user(owner));
                s
            })
            .collect();
        print(&if all.is_empty() { "null\n".to_owned() } else { format!("{}\n", Value::from(all)) });
    } else {
        let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
        rows.extend(states.iter().map(|(s, owner)| {
            [
                text(&s["id"]),
                text(&s["pid"]),
                text(&s["status"]),
                text(&s["bundle"]),
                text(&s["created"]),
                user(*owner),
            ]
        }));
        print(&table(&rows));
    }
    Ok(0)
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

fn table(rows: &[[String; 6]]) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line =
        |r: &[String; 6]| r.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}   ")).collect::<String>();
    rows.iter().map(|r| format!("{}\n", line(r).trim_end())).collect()
}

/// `coracle ps`.
pub(crate) fn ps(global: &Global, id: &str, as_json: bool) -> Outcome {
    let entry = entry(global, id)?;
    let record = entry.record().map_err(|e| e.to_string())?;
    let group = lifecycle::cgroup(&record)
        .ok_or("the container has no control group of its own to list the processes of")?;
    let pids = group.processes();
    if as_json {
        print(&format!("{}\n", json!(pids)));
    } else {
        print("PID\n");
        pids.iter().for_each(|pid| print(&format!("{pid}\n")));
    }
    Ok(0)
}
