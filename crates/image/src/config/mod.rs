//! An image's configuration becomes a bundle's: Image specification, conversion.md, and what people expect beyond it.
//!
//! What an image may decide: its program, environment, directory, user, and a few annotations that are words only.
//! What it may not: anything that a runtime acts on. Annotations and labels go through a list of allowed names, for a
//! runtime may be steered by some (CVE-2024-3154, CVE-2026-94603).

mod defaults;
pub mod seccomp;
pub mod users;

use crate::error::{Result, fail, shown};
use crate::manifest::{Annotations, Execution};
use crate::rootfs;
use crate::source::Image;
pub use defaults::{CAPABILITIES, mappings};
use serde_json::{Map, Value, json};
use std::os::fd::BorrowedFd;

/// Which network the container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// One of its own, with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A run of user or group ids: in the container, on the host, how many. user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids that a user without privileges has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User ids.
    pub users: Vec<IdRange>,
    /// Group ids.
    pub groups: Vec<IdRange>,
}

/// What the caller wants otherwise than the image says.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Replaces the image's Cmd, when not empty.
    pub args: Vec<String>,
    /// Replaces Entrypoint, and takes Cmd away too.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// `user[:group]` instead of the image's.
    pub user: Option<String>,
    /// Directory to start in, instead of the image's.
    pub cwd: Option<String>,
    /// Host name; the default is `coracle`.
    pub hostname: Option<String>,
    /// With a terminal.
    pub terminal: bool,
    /// With a read-only root.
    pub readonly: bool,
    /// With no_new_privs.
    pub no_new_privileges: bool,
    /// Its network.
    pub network: Network,
    /// The id ranges of a user without privileges; `None` for root.
    pub ids: Option<Ids>,
    /// Further mounts, in config.json's form, after the usual ones.
    pub mounts: Vec<Value>,
    /// The capabilities, if not [`CAPABILITIES`].
    pub capabilities: Option<Vec<String>>,
    /// Further members of `linux.resources`.
    pub resources: Vec<(&'static str, Value)>,
    /// Rules for devices beyond those that every container has: entries of `linux.resources.devices`.
    pub devices: Vec<Value>,
    /// `process.rlimits`.
    pub rlimits: Vec<Value>,
    /// `linux.sysctl`.
    pub sysctl: Vec<(String, String)>,
    /// Annotations, whatever the image says.
    pub annotations: Vec<(String, String)>,
    /// A system call filter instead of the default one; `Some(None)` for none.
    pub seccomp: Option<Option<Value>>,
    /// A profile of AppArmor.
    pub apparmor: Option<String>,
    /// Paths that are hidden by default and shall not be; `ALL` for all of them.
    pub unmask: Vec<String>,
    /// Further paths that are hidden.
    pub mask: Vec<String>,
    /// The size of /dev/shm.
    pub shm_bytes: Option<u64>,
    /// Words that stand before the program's: an init with its options.
    pub init: Vec<String>,
}

/// The annotation with the signal that a program wants to be ended by: conversion.md.
pub const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The bundle's configuration, and what the user should know of it: one line for each wish of the image that was not
/// followed. Makes the working directory and the volumes' directories, where they are missing.
/// Errors: no program; an unknown user; a hostile passwd or group file.
pub fn config(image: &Image, wishes: &Wishes, root: BorrowedFd) -> Result<(Value, Vec<String>)> {
    let mut notes = Vec::new();
    let run = &image.config.config;
    let user = users::lookup(root, wishes.user.as_deref().unwrap_or(&run.user))?;
    check_mapped(&user, wishes)?;
    let cwd = absolute(wishes.cwd.as_deref().unwrap_or(&run.working_dir));
    for directory in run.volumes.keys().map(|v| absolute(v)).chain([cwd.clone()]) {
        rootfs::make_all(root, &directory)?;
    }
    let mut process = json!({
        "terminal": wishes.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args(image, run, wishes)?,
        "env": environment(run, wishes, &user.home, &mut notes),
        "cwd": cwd,
        "capabilities": defaults::capabilities(user.uid == 0, wishes.capabilities.as_deref()),
        "noNewPrivileges": wishes.no_new_privileges,
    });
    if !wishes.rlimits.is_empty() {
        process["rlimits"] = json!(wishes.rlimits);
    }
    if let Some(profile) = &wishes.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": wishes.readonly},
        "hostname": wishes.hostname.as_deref().unwrap_or("coracle"),
        "mounts": defaults::mounts(wishes, kept_writable(run, wishes, &mut notes)),
        "annotations": annotations(image, wishes, &mut notes),
        "linux": defaults::linux(wishes),
    });
    let usual = || seccomp::profile(wishes.capabilities.as_deref().unwrap_or_default());
    if let Some(filter) = wishes.seccomp.clone().unwrap_or_else(|| Some(usual())) {
        spec["linux"]["seccomp"] = filter;
    }
    Ok((spec, notes))
}

/// What an image calls its volumes stays writable under a read-only root: in memory, beginning with what the image has
/// there. Under a writable root they need no more than their directories.
fn kept_writable(run: &Execution, wishes: &Wishes, notes: &mut Vec<String>) -> Vec<Value> {
    let taken = |to: &str| wishes.mounts.iter().any(|m| m["destination"] == to);
    let all = run.volumes.keys().map(|v| absolute(v));
    let volumes: Vec<String> = all.filter(|v| is_own(v) && !taken(v)).collect();
    if !wishes.readonly || volumes.is_empty() {
        return Vec::new();
    }
    notes.push(format!(
        "the root is read-only, and what is written to the image's volumes is kept in memory: {}",
        volumes.iter().map(|v| shown(v.as_bytes())).collect::<Vec<_>>().join(", ")
    ));
    let mount = |to: &String| json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "tmpcopyup"]});
    volumes.iter().map(mount).collect()
}

/// Whether a path is the image's to mount on: not the root, nor what the kernel and the runtime fill.
fn is_own(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let first = parts.first().is_some_and(|p| !["proc", "sys", "dev"].contains(p));
    first && !parts.contains(&"..") && !path.contains('\0')
}

/// A user without privileges can only become an id that is mapped.
fn check_mapped(user: &users::User, wishes: &Wishes) -> Result<()> {
    let Some(ids) = &wishes.ids else { return Ok(()) };
    let within =
        |ranges: &[IdRange], id: u32| ranges.iter().any(|r| id >= r.inside && id - r.inside < r.count);
    if within(&ids.users, user.uid) && within(&ids.groups, user.gid) {
        return Ok(());
    }
    fail!(
        Unsupported,
        "the image runs as {}:{}, for which there is no id here; --user 0 runs it as you",
        user.uid,
        user.gid
    )
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn args(image: &Image, run: &Execution, wishes: &Wishes) -> Result<Vec<String>> {
    let (entrypoint, cmd) = match &wishes.entrypoint {
        Some(entrypoint) => (entrypoint, &wishes.args),
        None if wishes.args.is_empty() => (&run.entrypoint, &run.cmd),
        None => (&run.entrypoint, &wishes.args),
    };
    let args = [entrypoint.as_slice(), cmd].concat();
    if args.is_empty() {
        fail!(Usage, "image {} names no program to run; name one", shown(image.name.as_bytes()));
    }
    if args.iter().any(|a| a.contains('\0')) {
        fail!(Corrupt, "an argument of the image holds a NUL");
    }
    Ok([wishes.init.clone(), args].concat())
}

/// The image's, then the caller's, then what is usual where neither says it. A line without `=` would take the value
/// from the caller's own environment in some tools (CVE-2026-57231): it is dropped.
fn environment(run: &Execution, wishes: &Wishes, home: &str, notes: &mut Vec<String>) -> Vec<String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in run.env.iter().chain(&wishes.env) {
        match line.split_once('=') {
            Some((name, value)) if !name.is_empty() && !line.contains('\0') => set(&mut all, name, value),
            _ => notes.push(format!(
                "environment {} of the image is not NAME=value: left out",
                shown(line.as_bytes())
            )),
        }
    }
    let usual = [("PATH", defaults::PATH), ("HOME", home)]
        .into_iter()
        .chain(wishes.terminal.then_some(("TERM", "xterm")));
    for (name, value) in usual {
        if !all.iter().any(|(n, _)| n == name) {
            set(&mut all, name, value);
        }
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn set(all: &mut Vec<(String, String)>, name: &str, value: &str) {
    match all.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => value.clone_into(old),
        None => all.push((name.to_owned(), value.to_owned())),
    }
}

/// Names that only describe. Everything else is left out.
const DESCRIBING: [&str; 2] = ["org.opencontainers.image.", "org.label-schema."];
/// Bare names in common use.
const BARE: [&str; 9] =
    ["maintainer", "vendor", "version", "description", "name", "license", "url", "summary", "release"];
/// The most bytes of one value.
const MOST: usize = 4096;

/// What the configuration implies, then the manifest's annotations, then the labels: the last win (conversion.md); and over
/// all of them the caller's.
fn annotations(image: &Image, wishes: &Wishes, notes: &mut Vec<String>) -> Value {
    let mut all = implied(image);
    let mut left_out = 0;
    for (name, value) in image.annotations.iter().chain(&image.config.config.labels) {
        let describes = BARE.contains(&name.as_str()) || DESCRIBING.iter().any(|p| name.starts_with(p));
        if describes && value.len() <= MOST && !name.contains('\0') && !value.contains('\0') {
            all.insert(name.clone(), value.clone());
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        notes.push(format!("{left_out} labels or annotations of the image are not passed on"));
    }
    all.extend(wishes.annotations.iter().cloned());
    json!(all)
}

/// conversion.md, "Annotation Fields".
fn implied(image: &Image) -> Annotations {
    let config = &image.config;
    let ports: Vec<&str> = config.config.exposed_ports.keys().map(String::as_str).collect();
    let features = config.os_features.join(",");
    let values = [
        ("os", config.platform.os.as_str()),
        ("architecture", &config.platform.architecture),
        ("variant", &config.platform.variant),
        ("os.version", config.os_version.as_deref().unwrap_or_default()),
        ("os.features", &features),
        ("author", config.author.as_deref().unwrap_or_default()),
        ("created", config.created.as_deref().unwrap_or_default()),
        ("stopSignal", &config.config.stop_signal),
        ("exposedPorts", &ports.join(",")),
    ]
    .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()));
    values.into_iter().filter(|(_, v)| !v.is_empty() && v.len() <= MOST && !v.contains('\0')).collect()
}

/// An object from pairs.
fn object(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests;
