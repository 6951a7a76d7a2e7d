//! Kernels before Linux 5.12, which have no mount_setattr(2): what a container gets is the same, or it is refused. Both are
//! made on this machine, once with the syscall and once without.

use std::fs;

use serde_json::json;

use crate::harness::{
    Bundle, Ctx, Need, Result, check, check_eq,
    context::{path, tracers_end},
    look, tests,
};

const STRACE: Need = Need::File("/usr/bin/strace");

tests! {
    mounts_are_the_same_without_mount_setattr [STRACE, Need::Runtime("coracle")];
    and_in_a_user_namespace [STRACE, Need::Runtime("coracle")];
    nothing_reaches_the_host [STRACE, Need::Runtime("coracle")];
    what_takes_the_syscall_is_refused [STRACE, Need::Runtime("coracle")];
    a_missing_syscall_is_made_up_for_or_named [STRACE, Need::Runtime("coracle")];
    a_filter_around_the_runtime_is_survived_or_named [STRACE, Need::Runtime("coracle")];
    no_more_processes_is_said [STRACE, Need::Runtime("coracle")];
}

/// A bundle that asks for all that the syscall is used for.
fn demanding(ctx: &Ctx) -> Result<Bundle> {
    demanding_but_for_times(ctx, &["noatime"], &["strictatime"])
}

/// Times of access as the sources have them, which a user namespace cannot change: mount_namespaces(7).
fn demanding_but_for_times(ctx: &Ctx, one: &[&str], two: &[&str]) -> Result<Bundle> {
    let volume = ctx.dir.join("volume");
    fs::create_dir_all(&volume)?;
    fs::write(volume.join("file"), "")?;
    let mut bundle = ctx.waiting()?;
    bundle.mount(
        "bind",
        path(&volume),
        "/tmp",
        &[&["bind", "ro", "nosuid", "noexec", "private"], one].concat(),
    );
    bundle.mount("bind", path(&volume.join("file")), "/var/one", &["bind", "ro", "nodev"]);
    bundle.mount("bind", path(&volume), "/var/two", &[&["rbind", "rro", "rshared"], two].concat());
    bundle.mount("tmpfs", "tmpfs", "/var/three", &["ro", "nodiratime", "unbindable"]);
    bundle.push("/linux/readonlyPaths", json!("/etc/passwd"));
    Ok(bundle)
}

/// Every mount of the container: where, what, its options and how it propagates.
fn seen(ctx: &Ctx, bundle: &Bundle) -> Result<Vec<String>> {
    let container = ctx.started(bundle)?;
    let mounts = look::mounts(container.pid)?;
    let line = |mount: &look::Mount| {
        let tags: Vec<&str> = mount.tags.iter().map(|tag| tag.split(':').next().unwrap_or("")).collect();
        format!("{} {} {} {}", mount.point, mount.kind, mount.options.join(","), tags.join(","))
    };
    let lines = mounts.iter().map(line).collect();
    drop(container);
    tracers_end()?;
    Ok(lines)
}

fn same(ctx: &Ctx, bundle: &Bundle) -> Result {
    let with = seen(ctx, bundle)?;
    ctx.missing.set(Some("mount_setattr"));
    let without = seen(ctx, bundle)?;
    ctx.missing.set(None);
    check!(with.iter().any(|line| line.starts_with("/etc/passwd ")), "no read-only path: {with:?}");
    check_eq!(without.join("\n"), with.join("\n"), "mounts without mount_setattr, and with it");
    Ok(())
}

fn mounts_are_the_same_without_mount_setattr(ctx: &Ctx) -> Result {
    let mut bundle = demanding(ctx)?;
    same(ctx, &bundle)?;
    for word in ["private", "shared", "unbindable"] {
        bundle.set("/linux/rootfsPropagation", json!(word));
        same(ctx, &bundle)?;
    }
    Ok(())
}

fn and_in_a_user_namespace(ctx: &Ctx) -> Result {
    let mut bundle = demanding_but_for_times(ctx, &[], &[])?;
    bundle.user_namespace(100_000, 65536)?;
    same(ctx, &bundle)
}

fn nothing_reaches_the_host(ctx: &Ctx) -> Result {
    let before = look::proc(std::process::id(), "mountinfo")?;
    ctx.missing.set(Some("mount_setattr"));
    let mut bundle = demanding_but_for_times(ctx, &[], &[])?;
    bundle.user_namespace(100_000, 65536)?;
    bundle.mount("tmpfs", "tmpfs", "/tmp/below", &[]);
    fs::create_dir_all(ctx.dir.join("volume/below"))?;
    seen(ctx, &bundle)?;
    ctx.missing.set(None);
    check_eq!(look::proc(std::process::id(), "mountinfo")?, before, "mounts of the host");
    Ok(())
}

fn what_takes_the_syscall_is_refused(ctx: &Ctx) -> Result {
    ctx.missing.set(Some("mount_setattr"));
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", "/dev", "/var", &["rbind", "rro"]);
    ctx.refused(&bundle, &["mount_setattr", "5.12", "mounts[7]"])?;
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", path(&ctx.dir), "/var", &["bind", "idmap"]);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    bundle.set("/mounts/7/uidMappings", map.clone()).set("/mounts/7/gidMappings", map);
    ctx.refused(&bundle, &["mount_setattr", "5.12", "mounts[7]"])?;
    ctx.missing.set(None);
    tracers_end()
}

/// What a run says without some syscalls; `None`: it runs as ever. docs/kernel-features.md has the reasons.
const WITHOUT: [(&str, Option<&str>); 11] = [
    ("clone3", Some("cloning the container's init")),
    ("openat2", Some("asked for by mounts[0]")),
    ("close_range", Some("closing the runtime's descriptors")),
    ("open_tree", Some("asked for by root.path")),
    ("move_mount", Some("asked for by root.path")),
    ("fsopen", Some("asked for by mounts[0]")),
    ("fsconfig", Some("asked for by mounts[0]")),
    ("fsmount", Some("asked for by mounts[0]")),
    ("statx", Some("asked for by mounts[0]")),
    ("execveat", Some("starting again from a read-only copy of this program")),
    ("faccessat2", None),
];

/// The binary protects itself by a sealed copy then, of which it cannot ask either whether it could be written to.
const SEALED: (&str, Option<&str>) = ("faccessat2,mount_setattr", None);

fn a_missing_syscall_is_made_up_for_or_named(ctx: &Ctx) -> Result {
    each_without(ctx, &[&WITHOUT[..], &[SEALED]].concat(), "ENOSYS", "function not implemented")
}

/// As container engines of before these syscalls have it, around an engine that runs in their containers.
fn a_filter_around_the_runtime_is_survived_or_named(ctx: &Ctx) -> Result {
    each_without(ctx, &WITHOUT, "EPERM", "operation not permitted")
}

/// fork(2): EAGAIN says that there are enough, not which limit it was.
fn no_more_processes_is_said(ctx: &Ctx) -> Result {
    each_without(ctx, &[("clone3", Some("(no more processes are allowed: ulimit -u"))], "EAGAIN", "try again")
}

fn each_without(ctx: &Ctx, cases: &[(&str, Option<&str>)], error: &str, meaning: &str) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "7"]).write()?;
    for (calls, said) in cases {
        ctx.missing.set(Some(format!("{calls}:{error}").leak()));
        let output = ctx.run(&bundle)?;
        ctx.missing.set(None);
        tracers_end()?;
        check_eq!(output.code == 7, said.is_none(), "a run without {calls}: {}", output.stderr());
        let words = said.map_or(Vec::new(), |said| vec![said, meaning]);
        for word in words {
            check!(output.stderr().contains(word), "without {calls}: no {word:?} in {:?}", output.stderr());
        }
    }
    Ok(())
}
