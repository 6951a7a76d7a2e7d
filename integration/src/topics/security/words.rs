//! What callers say, or have others say through them: ids, users, paths of control groups, values that are too long.

use std::fs;

use serde_json::json;

use super::Canary;
use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    an_id_that_is_a_path_is_refused_everywhere known "crun": "before 1.28 delete removes the parent";
    a_cgroup_path_with_dots_stays_below;
    exec_joins_no_control_group_beside [Need::CgroupV2] known "crun": "before 1.29";
    a_user_of_exec_is_a_number_or_refused known "runc": "a number that is too large is a name to it" known "crun": "before 1.27 1 is root";
    what_spec_writes_has_nothing_inheritable [Need::Command("spec")] known "crun": "1.21 writes ambient ones";
    long_values_arrive_whole_or_are_refused
        known "crun": "1.21 leaves the control group of a refused create";
}

/// crun up to 1.27, youki: the id is a path.
fn an_id_that_is_a_path_is_refused_everywhere(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let container = ctx.started(&bundle)?;
    let long = "a".repeat(300);
    let absolute = path(&canary.at).to_owned();
    let beside = format!("x/../{}", container.id);
    for id in ["", ".", "..", "../canary", "a/b", "./x/../..", &absolute, "a\nb", &long, &beside] {
        let commands: [&[&str]; 12] = [
            &["create", "--bundle", path(&bundle.dir), id],
            &["run", "--bundle", path(&bundle.dir), id],
            &["start", id],
            &["state", id],
            &["kill", id, "KILL"],
            &["delete", id],
            &["delete", "--force", id],
            &["exec", id, "true"],
            &["pause", id],
            &["resume", id],
            &["ps", id],
            &["update", "--pids-limit", "10", id],
        ];
        for words in commands {
            let output = ctx.call(words)?;
            check!(output.code != 0, "{words:?} succeeded");
        }
    }
    canary.untouched()?;
    check_eq!(ctx.records()?, std::slice::from_ref(&container.id), "what is in the state root");
    check_eq!(container.status()?, "running", "status of the container beside");
    Ok(())
}

fn a_cgroup_path_with_dots_stays_below(ctx: &Ctx) -> Result {
    for prefix in ["/coracle-test/../../../..", "..", "/..", "a/../.."] {
        let mut bundle = ctx.waiting()?;
        let name = format!("{}-dots", ctx.id());
        bundle.set("/linux/cgroupsPath", json!(format!("{prefix}/{name}")));
        bundle.write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        // Refused, or cleaned to a path below the root of the hierarchy.
        if container.create(&[]).is_ok() {
            let group = look::cgroup(container.pid, "pids")?;
            check!(
                group.starts_with("/sys/fs/cgroup") && !path(&group).contains(".."),
                "{}",
                group.display()
            );
        }
    }
    Ok(())
}

/// runc before 1.5.2, crun before 1.29: a group beside the container's, by dots or because its name begins with the same letters.
fn exec_joins_no_control_group_beside(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    let group = look::cgroup(container.pid, "")?;
    let name = group.file_name().and_then(|name| name.to_str()).ok_or("no name")?.to_owned();
    let sibling = group.with_file_name(format!("{name}x"));
    fs::create_dir(&sibling)?;
    let ways = [
        format!("../{name}x"),
        "..".into(),
        "../..".into(),
        format!("/../{name}x"),
        "a/../../..".into(),
        "/".repeat(2) + "..",
    ];
    let tried = ways.iter().try_for_each(|way| {
        let output = ctx.exec(&container, &["--cgroup", way], &["cat", "/proc/self/cgroup"])?;
        check!(output.code != 0, "exec --cgroup {way} is accepted: {}", output.stdout());
        Ok(())
    });
    fs::remove_dir(&sibling)?;
    tried
}

/// CVE-2016-3697, CVE-2026-30892, CVE-2024-40635: a number that is not one is looked up as a name, or cut to one that is root's.
fn a_user_of_exec_is_a_number_or_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.capabilities(&["CAP_SETUID", "CAP_SETGID"]);
    fs::write(
        bundle.rootfs().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n1a:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n",
    )?;
    let container = ctx.started(&bundle)?;
    for user in ["0", "1", "65534", "4294967294"] {
        let output = ctx.exec(&container, &["--user", user], &["id", "-u"])?.succeeded(user)?;
        check_eq!(output.stdout().trim(), user, "id -u of --user {user}");
    }
    for user in ["4294967295", "4294967296", "-1", "1:", ":1", "1a", " 1", "", "1:4294967295", "0x1", "1:1:1"]
    {
        let output = ctx.exec(&container, &["--user", user], &["id", "-u"])?;
        check!(output.code != 0, "exec --user {user:?} is accepted: {}", output.stdout());
    }
    Ok(())
}

/// CVE-2022-29162 and its like: inheritable capabilities become a program's that has file capabilities.
fn what_spec_writes_has_nothing_inheritable(ctx: &Ctx) -> Result {
    let directory = ctx.dir.join("spec");
    fs::create_dir_all(&directory)?;
    let mut command = std::process::Command::new(&ctx.runtime);
    command.arg("spec").current_dir(&directory);
    ctx.finish(command)?.succeeded("spec")?;
    let spec: serde_json::Value = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
    for set in ["inheritable", "ambient"] {
        let names = spec["process"]["capabilities"][set].as_array().map_or(0, Vec::len);
        check_eq!(names, 0, "{set} capabilities");
    }
    Ok(())
}

/// CVE-2021-43784: a length that overflows cuts a value, or lets it be read as another one.
fn long_values_arrive_whole_or_are_refused(ctx: &Ctx) -> Result {
    let long = "e".repeat(64 << 10);
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", format!("LONG={long}")]));
    bundle.set("/annotations", json!({"long": "a".repeat(1 << 20)}));
    check_eq!(ctx.report(&bundle)?["env"]["LONG"], json!(long), "a variable of 64 KiB");

    for lines in [300_u32, 5000] {
        let mut bundle = ctx.waiting()?;
        bundle.user_namespace(100_000, 1)?;
        let map: Vec<_> =
            (0..lines).map(|n| json!({"containerID": n * 2, "hostID": 100_000 + n * 2, "size": 1})).collect();
        bundle.set("/linux/uidMappings", json!(map)).set("/linux/gidMappings", json!(map));
        bundle.write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        if container.create(&[]).is_ok() {
            let got = look::proc(container.pid, "uid_map")?.lines().count();
            check_eq!(got, lines as usize, "lines of the map");
        }
    }
    for pointer in ["/process/cwd", "/linux/maskedPaths/0", "/hostname", "/linux/cgroupsPath"] {
        let mut bundle = ctx.waiting()?;
        bundle.set(pointer, json!(format!("/too-long/{}", "p/".repeat(35 << 10))));
        ctx.refused(&bundle, &[]).map_err(|e| format!("{pointer}: {e}"))?;
    }
    let groups = look::cgroups_named("too-long");
    check!(groups.is_empty(), "a refused create leaves {} groups", groups.len());
    Ok(())
}
