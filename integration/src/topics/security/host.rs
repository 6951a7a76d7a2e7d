//! What of the host must be as it was, whatever a container asks for: its mounts, its control groups.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::symlink},
    },
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::json;

use super::Canary;
use crate::harness::{Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    mounts_of_the_host_stay_as_they_are
        known "runc": "not without a mount namespace" known "crun": "not without a mount namespace";
    a_user_namespace_sees_its_own_control_group_only [Need::CgroupV2]
        known "runc": "sees all, read-only" known "crun": "sees all, read-only";
    no_pivot_leaves_no_procfs_of_the_host;
    groups_that_no_path_reaches_are_removed [Need::CgroupV2] known "runc": "leaves them";
    an_annotation_removes_nothing_of_others;
}

/// runc #2404, #4417, crun 1.15: mounts that reach the host, and a host whose own become private or slave. Each kind of parent,
/// with and without a mount namespace, with each rootfsPropagation.
fn mounts_of_the_host_stay_as_they_are(ctx: &Ctx) -> Result {
    // The test is a process of its own, and its mounts end with it.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let change = |at: &str, flags: MsFlags| mount(None::<&str>, at, None::<&str>, flags, None::<&str>);
    change("/", MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    let words = ["", "shared", "slave", "private", "rshared", "rprivate"];
    let kinds = [MsFlags::MS_SHARED, MsFlags::MS_PRIVATE, MsFlags::MS_SLAVE];
    for kind in kinds {
        for (own, word) in words.iter().map(|word| (true, *word)).chain([(false, "")]) {
            let mut bundle = ctx.shell("true")?;
            mount(Some(&bundle.dir), &bundle.dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            change(path(&bundle.dir), MsFlags::MS_SHARED)?;
            change(path(&bundle.dir), kind)?;
            bundle.set("/linux/rootfsPropagation", json!(word));
            bundle.mount("tmpfs", "tmpfs", "/tmp", &["rshared"]);
            if !own {
                bundle.without_namespace("mount").remove("/linux/rootfsPropagation");
                bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
            }
            let before = look::proc(std::process::id(), "mountinfo")?;
            ctx.run(&bundle)?;
            let after = look::proc(std::process::id(), "mountinfo")?;
            umount2(&bundle.dir, MntFlags::MNT_DETACH)?;
            let told =
                format!("mounts after {kind:?}, own mount namespace {own}, rootfsPropagation {word:?}");
            check_eq!(after, before, "{told}");
        }
    }
    Ok(())
}

/// CVE-2023-25809: without a cgroup namespace, root of a user namespace sees the host's groups, some of which a user may write.
fn a_user_namespace_sees_its_own_control_group_only(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("cgroup").user_namespace(100_000, 65536)?;
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/sys/fs/cgroup")?;
    let own = look::cgroup(container.pid, "")?;
    check!(own.ends_with(mount.root.trim_start_matches('/')) && mount.root.len() > 1, "{mount:?} of {own:?}");
    check!(mount.has("ro"), "it is writable: {mount:?}");
    drop(container);
    bundle.args(&["/probe", "mkdir", "/sys/fs/cgroup/made"]);
    check!(ctx.stdout(&bundle)? != "0", "a group can be made");
    Ok(())
}

/// runc's no_pivot: with the host's procfs still mounted somewhere, even if out of sight, a user namespace in the container may
/// mount another one, without the masks.
fn no_pivot_leaves_no_procfs_of_the_host(ctx: &Ctx) -> Result {
    let script =
        "unshare -U -r -m -p -f sh -c 'mount -t proc none /proc && echo mounted' 2>/dev/null; echo tried";
    // With the real thing, so that no busybox without the options makes the test one that cannot fail.
    let host = Command::new("/bin/busybox").args(["sh", "-c", script]).output()?;
    check!(String::from_utf8_lossy(&host.stdout).contains("tried"), "busybox has no unshare");
    for flags in [&["--no-pivot"][..], &[]] {
        let mut bundle = ctx.shell(script)?;
        bundle.set("/root/readonly", json!(false)).set("/process/noNewPrivileges", json!(false));
        bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"]);
        let output = ctx.run_with(flags, &bundle)?;
        check_eq!(output.stdout(), "tried\n", "what a user namespace within says ({flags:?})");
    }
    Ok(())
}

/// A container that may write to its control group makes more groups below each other than a path has room for, under a name
/// that is no text: nobody could delete it.
fn groups_that_no_path_reaches_are_removed(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "")?;
    let name = OsStr::from_bytes(b"as-long-as-it-is-useless\xff");
    let mut here = OwnedFd::from(fs::File::open(&group)?);
    for _ in 0..200 {
        mkdirat(&here, name, Mode::RWXU)?;
        here = openat(&here, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    }
    drop(here);
    let deleted = ctx.call(&["delete", "--force", &container.id])?;
    let left = group.exists();
    if left {
        Command::new("find").arg(&group).args(["-depth", "-type", "d", "-delete"]).status()?;
    }
    deleted.succeeded("delete --force")?;
    check!(!left, "{} is left", group.display());
    Ok(())
}

/// By this annotation a container's directory in a store of images is found, and engines pass on what people write. What it
/// names may be a volume of the attacker's, with a link in the place of the containers: to whatever else is on the host.
fn an_annotation_removes_nothing_of_others(ctx: &Ctx) -> Result {
    let mut canary = Canary::new(ctx)?;
    fs::create_dir_all(canary.at.join("volume"))?;
    fs::write(canary.at.join("volume/container.json"), "{}")?;
    canary.before = Canary::look(&canary.at)?;
    let store = ctx.dir.join("another");
    fs::create_dir_all(&store)?;
    symlink(&canary.at, store.join("containers"))?;
    let mut bundle = ctx.shell("true")?;
    let place = store.join("containers/volume");
    bundle.set("/annotations", json!({"coracle.container": place}));
    for command in ["stop", "delete"] {
        let container = ctx.started(&bundle)?;
        container.wait()?;
        if command == "delete" || ctx.has_command(command) {
            ctx.call(&[command, &container.id])?.succeeded(command)?;
        }
        canary.untouched()?;
        check_eq!(
            fs::read_dir(&store)?.count(),
            1,
            "names in the directory that is no store, after {command}"
        );
    }
    Ok(())
}
