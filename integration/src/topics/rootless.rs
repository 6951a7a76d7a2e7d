//! What an unprivileged user can do (runtime without any privilege of its own; user_namespaces(7), newuidmap(1)).
//! These run as that user, in the virtual machine or on a machine where the tests are started by a user.

use std::path::Path;

use serde_json::json;

use crate::harness::{
    Ctx, Need, Result, check, check_eq,
    context::{path, rootless},
    host, look, tests,
};

tests! {
    a_user_runs_a_container [Need::Unprivileged];
    root_within_is_the_user_outside [Need::Unprivileged];
    a_range_of_ids_is_mapped [Need::Unprivileged];
    a_user_without_a_user_namespace_gets_one [Need::Unprivileged] known "runc": "refuses it";
    the_whole_life_of_a_container [Need::Unprivileged];
    a_created_container_is_entered [Need::Unprivileged];
    a_user_makes_its_container_likelier_to_be_killed [Need::Unprivileged];
    rights_that_a_user_lacks_are_named [Need::Unprivileged, Need::Runtime("coracle")];
    what_nothing_holds_together_is_warned_of [Need::Unprivileged, Need::Runtime("coracle")];
    the_groups_of_others_are_not_seen [Need::Unprivileged];
    spec_rootless_runs_unedited [Need::Unprivileged];
    state_is_where_the_session_is [Need::Unprivileged];
    the_state_of_others_is_not_believed [Need::Unprivileged, Need::Runtime("coracle")];
    limits_hold_in_a_group_that_is_the_users [Need::Unprivileged, Need::Systemd, Need::Controller("pids")];
    who_is_outside_the_users_systemd_enters_a_scope [Need::Root, Need::Systemd, Need::CgroupV2, Need::File(BUS)]
        known "runc": "the process stays outside" known "crun": "fails";
}

/// Of a user whose systemd runs while root's tests do.
const USER: u32 = 1000;
const BUS: &str = "/run/user/1000/bus";

fn a_user_runs_a_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "5"]);
    let output = ctx.run(&bundle)?;
    check_eq!(output.code, 5, "exit status ({})", output.stderr());
    Ok(())
}

fn root_within_is_the_user_outside(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report-and-wait"]);
    let container = ctx.started(&bundle)?;
    check_eq!(container.report()?["ids"]["uid"], json!(0), "uid from within");
    let uid = nix::unistd::geteuid().to_string();
    check_eq!(look::status(container.pid, "Uid")?.split(' ').next(), Some(uid.as_str()), "uid from outside");
    Ok(())
}

fn a_range_of_ids_is_mapped(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let first = host::first_subordinate_id().ok_or("no subordinate ids")?;
    let map = |own: u32| json!([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": first, "size": 65_535}]);
    bundle.set("/linux/uidMappings", map(uid)).set("/linux/gidMappings", map(gid));
    bundle.set("/process/user", json!({"uid": 10, "gid": 20}));
    let container = ctx.started(&bundle)?;
    let outside = (first + 9).to_string();
    check_eq!(
        look::status(container.pid, "Uid")?.split(' ').next(),
        Some(outside.as_str()),
        "uid 10 from outside"
    );
    Ok(())
}

fn a_created_container_is_entered(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    ctx.exec(&container, &[], &["/probe", "exit", "0"])?.succeeded("exec before the start")?;
    container.start()?;
    check_eq!(container.status()?, "running", "status");
    Ok(())
}

fn rights_that_a_user_lacks_are_named(ctx: &Ctx) -> Result {
    for (place, value, right) in [
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": -5}), "CAP_SYS_NICE"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 0}), "CAP_SYS_NICE"),
        ("/process/oomScoreAdj", json!(-1000), "CAP_SYS_RESOURCE"),
    ] {
        let mut bundle = ctx.waiting()?;
        bundle.set(place, value);
        ctx.refused(&bundle, &[right])?;
    }
    Ok(())
}

/// The score of a process that nobody may trace belongs to root, and a user may raise its own all the same: proc_pid_oom_score_adj(5).
fn a_user_makes_its_container_likelier_to_be_killed(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/oomScoreAdj", json!(500));
    let container = ctx.started(&bundle)?;
    check_eq!(look::proc(container.pid, "oom_score_adj")?.trim(), "500", "of init");
    let output = ctx.exec(&container, &[], &["/bin/sh", "-c", "cat /proc/self/oom_score_adj"])?;
    check_eq!(output.succeeded("exec")?.stdout().trim(), "500", "of a process beside it");
    Ok(())
}

/// Without a group and a pid namespace nobody knows which processes are the container's.
fn what_nothing_holds_together_is_warned_of(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]);
    let output = ctx.run(&bundle)?.succeeded("run")?;
    check!(!output.stderr().contains("discouraged"), "with a pid namespace: {}", output.stderr());
    bundle.without_namespace("pid");
    let proc = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.insert(0, proc);
    }
    let output = ctx.run(&bundle)?.succeeded("run without a pid namespace")?;
    let words = "no cgroup and no private pid namespace. Such configuration is strongly discouraged";
    // In the scope of a user's systemd there is a group to hold it together.
    check_eq!(
        output.stderr().contains(words),
        !ctx.host.systemd,
        "whether this is said: {}",
        output.stderr()
    );
    Ok(())
}

/// The kernel lets a user make the other namespaces in one of their own only. As with crun.
fn a_user_without_a_user_namespace_gets_one(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report-and-wait"]);
    bundle.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    let container = ctx.started(&bundle)?;
    check_eq!(container.report()?["ids"]["uid"], json!(0), "uid from within");
    let uid = nix::unistd::geteuid().to_string();
    check_eq!(look::status(container.pid, "Uid")?.split(' ').next(), Some(uid.as_str()), "uid from outside");
    let output = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/uid_map"])?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end(), look::proc(container.pid, "uid_map")?, "map of an exec");
    Ok(())
}

/// Nor, where no group could be made for the container, is their place: /sys may be the host's, bound.
fn the_groups_of_others_are_not_seen(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("cgroup");
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/sys/fs/cgroup")?;
    check!(mount.has("ro"), "it can be written: {mount:?}");
    let within = format!("/proc/{}/root/sys/fs/cgroup/", container.pid);
    check!(!Path::new(&within).join("user.slice").exists(), "the host's groups are in {within}");
    Ok(())
}

fn the_whole_life_of_a_container(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    check_eq!(container.status()?, "created", "status after create");
    container.start()?;
    check_eq!(container.status()?, "running", "status after start");
    container.stop()?;
    container.delete()
}

fn spec_rootless_runs_unedited(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    ctx.call(&["spec", "--rootless", "--bundle", path(&bundle.dir)])?.succeeded("spec --rootless")?;
    bundle.spec = serde_json::from_slice(&std::fs::read(bundle.dir.join("config.json"))?)?;
    // Save for the terminal, which a test has none of.
    bundle.set("/process/terminal", json!(false)).args(&["/probe", "exit", "0"]);
    let output = ctx.run(&bundle)?;
    check_eq!(output.code, 0, "exit status ({})", output.stderr());
    Ok(())
}

/// Whoever makes the directory first, in a place that is open to all, would have hooks run by the next `delete`.
fn the_state_of_others_is_not_believed(ctx: &Ctx) -> Result {
    for words in [&["list"][..], &["state", "bin"], &["kill", "bin"], &["delete", "--force", "bin"]] {
        let mut command = std::process::Command::new(&ctx.runtime);
        command.args(["--root", "/usr"]).args(words);
        let output = ctx.finish(command)?;
        check!(output.code != 0, "{words:?} succeeded");
        check!(
            output.stderr().contains("the state directory of another user"),
            "{words:?}: {}",
            output.stderr()
        );
    }
    Ok(())
}

fn state_is_where_the_session_is(ctx: &Ctx) -> Result {
    // Without --root: below $XDG_RUNTIME_DIR, which is the user's own.
    let mut command = std::process::Command::new(&ctx.runtime);
    command.args(["list", "--quiet"]).stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?.succeeded("list without --root")?;
    check!(output.stderr().is_empty(), "words on stderr: {}", output.stderr());
    Ok(())
}

/// cgroup-v2.rst, Delegation: the group is the user's, and no systemd is asked for anything.
fn limits_hold_in_a_group_that_is_the_users(ctx: &Ctx) -> Result {
    const SCRIPT: &str = r#"
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "/sys/fs/cgroup$own/caller"
echo $$ >"/sys/fs/cgroup$own/caller/cgroup.procs"
sed -i "s|/DELEGATED|$own|" "$BUNDLE/config.json"
"$RUNTIME" --root "$STATE" run --detach --bundle "$BUNDLE" "$ID" || exit 1
group=/sys/fs/cgroup$own/container
echo "limit $(cat "$group/pids.max"), $(wc -l <"$group/cgroup.procs") inside"
"$RUNTIME" --root "$STATE" update --pids-limit 44 "$ID" && echo "limit $(cat "$group/pids.max")"
"$RUNTIME" --root "$STATE" pause "$ID" && echo "frozen $(cat "$group/cgroup.freeze")"
"$RUNTIME" --root "$STATE" delete --force "$ID"
test -d "$group" || echo gone
"#;
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/cgroupsPath", json!("/DELEGATED/container"));
    bundle.set("/linux/resources/pids", json!({"limit": 33})).write()?;
    let mut command = ctx.delegated(SCRIPT, &bundle);
    command.env("ID", ctx.id());
    let output = ctx.finish(command)?.succeeded("the script in a delegated scope")?;
    check_eq!(
        output.stdout(),
        "limit 33, 1 inside\nlimit 44\nfrozen 1\ngone\n",
        "what is seen from outside ({})",
        output.stderr()
    );
    Ok(())
}

/// As in a shell of su(1): between its group and the scope's stands one that is root's, so the user may not move a process
/// over (cgroup-v2.rst, Delegation Containment), and the user's systemd has the machine's do it.
fn who_is_outside_the_users_systemd_enters_a_scope(ctx: &Ctx) -> Result {
    const SCRIPT: &str = r#"
set -eu
as_user() { "$RUNTIME" --root "$STATE" --systemd-cgroup "$@"; }
trap 'as_user delete --force "$ID"; rm -r "$STATE"' EXIT
as_user run --detach --bundle "$BUNDLE" --pid-file "$STATE.pid" "$ID"
for one in self "$(cat "$STATE.pid")"; do
    sed -n 's/^0:://p' "/proc/$one/cgroup"
done
rm "$STATE.pid"
as_user exec "$ID" /bin/sed -n 's/^0:://p' /proc/self/cgroup
"#;
    let mut bundle = ctx.waiting()?;
    rootless(&mut bundle, USER, USER);
    bundle.write()?;
    let (user, directory) = (USER.to_string(), Path::new(BUS).with_file_name(""));
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--init-groups", "/bin/sh", "-c", SCRIPT]);
    command.env("RUNTIME", &ctx.runtime).env("BUNDLE", &bundle.dir).env("ID", ctx.id());
    command.env("STATE", directory.join(ctx.id())).env("XDG_RUNTIME_DIR", &directory);
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={BUS}")).env("HOME", "/");
    let output = ctx.finish(command)?.succeeded("the script as a user")?;
    let printed = output.stdout();
    let [own, init, beside] = printed.lines().collect::<Vec<_>>()[..] else {
        return Err(format!("not three groups: {printed}").into());
    };
    check!(!own.contains("user@"), "the caller is in {own}, its systemd's");
    check!(init.contains(&format!("/user@{USER}.service/")), "init is in {init}");
    check_eq!(
        beside,
        "/",
        "where a process beside init is, as the container's control group namespace has it"
    );
    Ok(())
}
