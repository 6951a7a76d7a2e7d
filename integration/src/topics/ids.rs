//! Users and groups, and their mappings (config.md, "POSIX-platform Process"; user_namespaces(7)).

use serde_json::json;

use crate::harness::{Ctx, Result, check_eq, look, tests};

tests! {
    user_and_groups_are_set;
    without_a_user_it_is_root;
    no_group_of_the_caller_is_kept;
    mappings_are_written_as_asked;
    a_user_namespace_without_mappings_has_the_callers_ids known "runc": "refuses it";
    root_of_a_user_namespace_is_a_host_user;
    user_within_a_user_namespace_is_mapped;
    an_id_that_is_not_mapped_is_refused;
    umask_is_set;
    umask_defaults_to_0022;
    an_id_beyond_32_bits_is_refused;
    the_id_that_is_none_is_refused;
}

fn user_and_groups_are_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report-and-wait"]);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 44]}));
    let container = ctx.started(&bundle)?;
    let ids = &container.report()?["ids"];
    check_eq!(
        *ids,
        json!({"uid": 1000, "gid": 1001, "euid": 1000, "egid": 1001, "groups": [5, 44]}),
        "ids from within"
    );
    check_eq!(look::status(container.pid, "Uid")?, "1000 1000 1000 1000", "uids");
    check_eq!(look::status(container.pid, "Gid")?, "1001 1001 1001 1001", "gids");
    check_eq!(look::status(container.pid, "Groups")?, "5 44", "groups");
    Ok(())
}

/// The members of the object are REQUIRED; the object itself is not, says the schema.
fn without_a_user_it_is_root(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.remove("/process/user");
    let container = ctx.started(&bundle)?;
    check_eq!(look::status(container.pid, "Uid")?, "0 0 0 0", "uids");
    check_eq!(look::status(container.pid, "Gid")?, "0 0 0 0", "gids");
    Ok(())
}

fn no_group_of_the_caller_is_kept(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    // runc lists the primary group too; what matters is that there is no other.
    let groups = look::status(container.pid, "Groups")?;
    check_eq!(groups.trim_matches('0'), "", "supplementary groups");
    Ok(())
}

/// As with crun. Its root is the caller: what it makes belongs to the caller.
fn a_user_namespace_without_mappings_has_the_callers_ids(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.namespace("user", None).remove("/linux/uidMappings").remove("/linux/gidMappings");
    // Its group is that of a host, 5.
    if let Some(pts) =
        bundle.spec["mounts"].as_array_mut().and_then(|m| m.iter_mut().find(|m| m["type"] == "devpts"))
    {
        pts["options"] = json!(["nosuid", "noexec", "newinstance"]);
    }
    let container = ctx.started(&bundle)?;
    let host = nix::unistd::geteuid();
    for file in ["uid_map", "gid_map"] {
        let map = look::proc(container.pid, file)?;
        let first: Vec<&str> = map.lines().next().unwrap_or_default().split_whitespace().collect();
        check_eq!(first, ["0", &host.to_string(), "1"], "first line of {file}");
    }
    let output = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/uid_map"])?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end(), look::proc(container.pid, "uid_map")?, "map of an exec");
    Ok(())
}

fn mappings_are_written_as_asked(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(300_000, 1000)?;
    let more = json!({"containerID": 5000, "hostID": 400_000, "size": 10});
    bundle.push("/linux/uidMappings", more.clone()).push("/linux/gidMappings", more);
    let container = ctx.started(&bundle)?;
    for file in ["uid_map", "gid_map"] {
        let map = look::proc(container.pid, file)?;
        let words: Vec<&str> = map.split_whitespace().collect();
        check_eq!(words, ["0", "300000", "1000", "5000", "400000", "10"], "{file}");
    }
    Ok(())
}

fn root_of_a_user_namespace_is_a_host_user(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(300_000, 65_536)?.args(&["/probe", "report-and-wait"]);
    let container = ctx.started(&bundle)?;
    check_eq!(container.report()?["ids"]["uid"], json!(0), "uid from within");
    check_eq!(look::status(container.pid, "Uid")?, "300000 300000 300000 300000", "uid from outside");
    check_eq!(look::status(container.pid, "Gid")?, "300000 300000 300000 300000", "gid from outside");
    Ok(())
}

fn user_within_a_user_namespace_is_mapped(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(300_000, 65_536)?.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = ctx.started(&bundle)?;
    check_eq!(look::status(container.pid, "Uid")?, "301000 301000 301000 301000", "uid from outside");
    Ok(())
}

fn an_id_that_is_not_mapped_is_refused(ctx: &Ctx) -> Result {
    for (pointer, value) in [
        ("/process/user/uid", json!(1000)),
        ("/process/user/gid", json!(1000)),
        ("/process/user/additionalGids", json!([1000])),
    ] {
        let mut bundle = ctx.waiting()?;
        bundle.user_namespace(300_000, 1000)?.set(pointer, value);
        let words: &[&str] = if ctx.kind == "coracle" { &["1000 is not mapped"] } else { &[] };
        ctx.refused(&bundle, words).map_err(|e| format!("{pointer}: {e}"))?;
    }
    Ok(())
}

fn umask_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/user/umask", json!(0o027));
    let container = ctx.started(&bundle)?;
    check_eq!(look::status(container.pid, "Umask")?, "0027", "umask");
    Ok(())
}

fn umask_defaults_to_0022(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(look::status(container.pid, "Umask")?, "0022", "umask");
    Ok(())
}

fn an_id_beyond_32_bits_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/user/uid", json!(4_294_967_296_u64));
    ctx.refused(&bundle, &[]).map(drop)
}

/// setresuid(2) and setresgid(2) take the largest number for "as it is", which is root.
fn the_id_that_is_none_is_refused(ctx: &Ctx) -> Result {
    for place in ["/process/user/uid", "/process/user/gid"] {
        let mut bundle = ctx.waiting()?;
        bundle.set(place, json!(u32::MAX));
        ctx.refused(&bundle, &[]).map_err(|e| format!("{place}: {e}"))?;
    }
    Ok(())
}
