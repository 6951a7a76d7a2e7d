//! cgroups: where the container is, which limits are set, and that they bite (config-linux.md, "Control groups").
//! Each resource is read back from the kernel's own file, with the names of version 2 or 1 as the host has them.

use std::{fs, path::Path, process::Stdio};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    an_absolute_path_is_where_it_says;
    a_path_with_dots_stays_below_where_it_begins known "crun": "goes out of the hierarchy, and fails";
    the_hierarchy_of_v2_beside_v1_is_joined
        [Need::File("/sys/fs/cgroup/unified/cgroup.procs")] known "crun": "runs on no host that has controllers in both";
    a_path_is_found_where_none_is_given;
    the_container_is_alone_in_its_cgroup [Need::CgroupV2];
    init_is_in_its_cgroup_when_create_returns [Need::CgroupV2];
    a_cgroup_namespace_begins_at_the_cgroup [Need::CgroupV2];
    a_delegated_group_has_the_processes [Need::CgroupV2] known "runc": "does not know the annotation";
    memory_limit_is_set [Need::Controller("memory")];
    memory_reservation_and_swap_are_set [Need::Controller("memory")];
    memory_limit_bites [Need::Controller("memory")];
    pids_limit_is_set [Need::Controller("pids")];
    pids_limit_bites [Need::Controller("pids")];
    cpu_quota_and_period_are_set [Need::Controller("cpu")];
    cpu_shares_become_weight [Need::Controller("cpu"), Need::CgroupV2];
    cpu_quota_bites [Need::Controller("cpu"), Need::CgroupV2];
    cpuset_is_set [Need::Controller("cpuset")];
    a_controller_that_is_taken_back_meanwhile_is_turned_on_again
        [Need::CgroupV2, Need::Controller("memory"), Need::File("/usr/bin/strace")] known "runc": "fails" known "crun": "fails";
    unified_is_written [Need::CgroupV2, Need::Controller("memory")];
    an_unknown_unified_key_is_refused [Need::CgroupV2];
    a_limit_without_its_controller_is_refused [Need::CgroupV2];
    a_group_without_a_cgroup_file_system_is_refused;
    a_group_in_use_is_refused_and_left_alone known "crun": "shares it";
    a_group_in_use_outlives_a_runtime_that_dies [Need::CgroupV2, Need::File("/usr/bin/strace")]
        known "runc": "takes it";
    sub_cgroups_are_removed_with_it [Need::CgroupV2];
    a_group_that_gave_controllers_is_taken [Need::CgroupV2] known "runc": "it is busy" known "crun": "it is busy";
    threaded_groups_take_a_container [Need::CgroupV2]
        known "runc": "cannot list the processes of one that exists" known "crun": "fails";
    a_threaded_group_has_the_limits_of_threads [Need::CgroupV2, Need::Controller("pids"), Need::Controller("cpu")]
        known "runc": "refuses any limit there";
    a_threaded_group_in_use_is_refused [Need::CgroupV2]
        known "runc": "takes none that exists" known "crun": "shares it";
    a_limit_below_a_threaded_group_is_refused_by_name [Need::CgroupV2] known "runc": "in other words" known "crun": "in other words";
    kill_reaches_forks_of_forks;
    a_huge_page_limit_is_set [Need::CgroupV2, Need::Controller("hugetlb"), Need::Controller("memory")];
    io_limits_are_set [Need::CgroupV2, Need::Controller("io")];
    a_systemd_scope_holds_the_container [Need::Systemd, Need::CgroupV2];
    state_names_the_systemd_scope [Need::Systemd, Need::CgroupV2] known "runc": "does not";
}

/// So does systemd with a group of which it knows nothing, when the last of its own units with a use for the controller ends.
fn a_controller_that_is_taken_back_meanwhile_is_turned_on_again(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let (parent, id) = (format!("/coracle-test/{}", ctx.id()), ctx.id());
    let group = format!("/sys/fs/cgroup{parent}/{id}");
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    bundle.set("/linux/cgroupsPath", json!(format!("{parent}/{id}"))).write()?;
    let container = Container::named(ctx, id, &bundle.dir);
    let file = format!("{group}/memory.max");
    let slow = ["-P", &file, "-e", "inject=openat:delay_enter=2000000:when=1"];
    let mut command = ctx.traced(&slow, &["create", "--bundle", path(&bundle.dir), &container.id]);
    let log = fs::File::create(bundle.dir.join("log"))?;
    let mut child = command.stdout(Stdio::null()).stderr(log).spawn()?;
    until("the limit can be written", || Ok(std::path::Path::new(&file).exists().then_some(())))?;
    fs::write(format!("/sys/fs/cgroup{parent}/cgroup.subtree_control"), "-memory")?;
    check!(child.wait()?.success(), "create: {}", fs::read_to_string(bundle.dir.join("log"))?);
    check_eq!(fs::read_to_string(&file)?.trim(), "67108864", "memory.max");
    drop(container);
    fs::remove_dir(format!("/sys/fs/cgroup{parent}"))?;
    Ok(())
}

fn the_hierarchy_of_v2_beside_v1_is_joined(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let path = format!("/coracle-test/{}", ctx.id());
    bundle.set("/linux/cgroupsPath", json!(path));
    let container = ctx.started(&bundle)?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    check!(groups.lines().any(|line| line == format!("0::{path}")), "{path} is not in {groups}");
    container.stop()?;
    container.delete()?;
    let left = format!("/sys/fs/cgroup/unified{path}");
    check!(!std::path::Path::new(&left).exists(), "{left} was left");
    Ok(())
}

fn an_absolute_path_is_where_it_says(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    let want = bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let group = look::cgroup(container.pid, "pids")?;
    check!(group.ends_with(want.trim_start_matches('/')), "{} is not at {want}", group.display());
    Ok(())
}

/// As `docker run --cgroup-parent ../../x` asks; moby's own tests do.
fn a_path_with_dots_stays_below_where_it_begins(ctx: &Ctx) -> Result {
    for dots in ["/../../none/../", "../../none/../"] {
        let mut bundle = ctx.waiting()?;
        let want = bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
        bundle.set("/linux/cgroupsPath", json!(format!("{dots}{want}")));
        let container = ctx.started(&bundle)?;
        let group = look::cgroup(container.pid, "pids")?;
        check!(group.ends_with(want.trim_start_matches('/')), "{} is not at {want}", group.display());
        check!(group.is_dir(), "{} is not below the hierarchy's top", group.display());
    }
    Ok(())
}

fn a_path_is_found_where_none_is_given(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.remove("/linux/cgroupsPath");
    let container = ctx.started(&bundle)?;
    let group = look::cgroup(container.pid, "pids")?;
    check!(group.ends_with(&container.id), "the cgroup {} is not named after the container", group.display());
    container.stop()?;
    container.delete()?;
    check!(!group.exists(), "cgroup {} is left", group.display());
    Ok(())
}

fn the_container_is_alone_in_its_cgroup(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(
        look::cgroup_file(container.pid, "", "cgroup.procs")?,
        container.pid.to_string(),
        "processes in the cgroup"
    );
    Ok(())
}

fn init_is_in_its_cgroup_when_create_returns(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.create(&bundle)?;
    let before = look::cgroup(container.pid, "")?;
    container.start()?;
    check_eq!(look::cgroup(container.pid, "")?, before, "cgroup after start and before");
    Ok(())
}

fn a_cgroup_namespace_begins_at_the_cgroup(ctx: &Ctx) -> Result {
    let report = ctx.report(&ctx.bundle()?)?;
    let lines = report["cgroup"].as_array().cloned().unwrap_or_default();
    check!(lines.contains(&json!("0::/")), "/proc/self/cgroup from within: {lines:?}");
    Ok(())
}

/// crun(1): init and what exec adds are in it, below the group that has the limits and is the root of the container's view.
fn a_delegated_group_has_the_processes(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /proc/self/cgroup; exec sleep 1000")?;
    let top = format!("/coracle-test/{}", ctx.id());
    bundle
        .set("/linux/cgroupsPath", json!(top))
        .set("/annotations", json!({"run.oci.delegate-cgroup": "a/b"}));
    let container = ctx.started(&bundle)?;
    container.prints("0::/a/b\n")?;
    let exec = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/cgroup"])?.succeeded("exec")?;
    check!(exec.stdout().ends_with("0::/a/b\n"), "group of exec's process: {}", exec.stdout());
    let group = look::cgroup(container.pid, "")?;
    check!(group.ends_with(format!("{}/a/b", &top[1..])), "init is in {}", group.display());
    ctx.call(&["pause", &container.id])?.succeeded("pause")?;
    check_eq!(
        fs::read_to_string(group.join("../../cgroup.freeze"))?.trim(),
        "1",
        "the freezer of the group above"
    );
    ctx.call(&["resume", &container.id])?.succeeded("resume")?;
    container.stop()?;
    container.delete()?;
    check!(!Path::new("/sys/fs/cgroup").join(&top[1..]).exists(), "{top} is left");
    Ok(())
}

const MEMORY: u64 = 64 << 20;

fn memory_limit_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/memory", json!({"limit": MEMORY}));
    let container = ctx.started(&bundle)?;
    let file = if ctx.host.cgroup2 { "memory.max" } else { "memory.limit_in_bytes" };
    check_eq!(look::cgroup_file(container.pid, "memory", file)?, MEMORY.to_string(), "{file}");
    Ok(())
}

fn memory_reservation_and_swap_are_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set(
        "/linux/resources/memory",
        json!({"limit": MEMORY, "reservation": MEMORY / 2, "swap": MEMORY * 2}),
    );
    let container = ctx.started(&bundle)?;
    // Version 1's limit is of memory and swap together, version 2's of swap alone.
    let wanted = if ctx.host.cgroup2 {
        [("memory.low", MEMORY / 2), ("memory.swap.max", MEMORY)]
    } else {
        [("memory.soft_limit_in_bytes", MEMORY / 2), ("memory.memsw.limit_in_bytes", MEMORY * 2)]
    };
    for (file, value) in wanted {
        match look::cgroup_file(container.pid, "memory", file) {
            Ok(text) => check_eq!(text, value.to_string(), "{file}"),
            // A kernel without swap accounting has no file to look at.
            Err(error) => check!(file.contains("sw"), "{error}"),
        }
    }
    Ok(())
}

fn memory_limit_bites(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "memory", "128"]);
    bundle.set("/linux/resources/memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    check_eq!(ctx.run(&bundle)?.code, 137, "exit status of a program that takes four times its memory");
    bundle.args(&["/probe", "memory", "8"]);
    check_eq!(ctx.stdout(&bundle)?, "8", "mebibytes within the limit");
    Ok(())
}

fn pids_limit_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    let container = ctx.started(&bundle)?;
    check_eq!(look::cgroup_file(container.pid, "pids", "pids.max")?, "77", "pids.max");
    Ok(())
}

fn pids_limit_bites(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "children", "40"]).set("/linux/resources/pids", json!({"limit": 20}));
    let held: u32 = ctx.stdout(&bundle)?.parse()?;
    check!((1..20).contains(&held), "{held} children under a limit of 20 processes");
    Ok(())
}

fn cpu_quota_and_period_are_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/cpu", json!({"quota": 20_000, "period": 50_000}));
    let container = ctx.started(&bundle)?;
    if ctx.host.cgroup2 {
        check_eq!(look::cgroup_file(container.pid, "cpu", "cpu.max")?, "20000 50000", "cpu.max");
    } else {
        check_eq!(look::cgroup_file(container.pid, "cpu", "cpu.cfs_quota_us")?, "20000", "cpu.cfs_quota_us");
        check_eq!(
            look::cgroup_file(container.pid, "cpu", "cpu.cfs_period_us")?,
            "50000",
            "cpu.cfs_period_us"
        );
    }
    Ok(())
}

fn cpu_shares_become_weight(ctx: &Ctx) -> Result {
    // The ends of both scales, and the default: the linear formula gives 39 for it, the newer one 100.
    for (shares, weights) in [(2, ["1", "1"]), (262_144, ["10000", "10000"]), (1024, ["39", "100"])] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/resources/cpu", json!({"shares": shares}));
        let container = ctx.started(&bundle)?;
        let got = look::cgroup_file(container.pid, "cpu", "cpu.weight")?;
        check!(weights.contains(&got.as_str()), "{shares} shares became a weight of {got}");
    }
    Ok(())
}

fn cpu_quota_bites(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("while :; do :; done")?;
    bundle.set("/linux/resources/cpu", json!({"quota": 10_000, "period": 100_000}));
    let container = ctx.started(&bundle)?;
    until("the kernel throttles", || {
        let text = look::cgroup_file(container.pid, "cpu", "cpu.stat")?;
        let throttled = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        Ok((throttled.unwrap_or("0").parse::<u64>()? > 2).then_some(()))
    })
}

fn cpuset_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"}));
    let container = ctx.started(&bundle)?;
    check_eq!(look::cgroup_file(container.pid, "cpuset", "cpuset.cpus")?, "0", "cpuset.cpus");
    check_eq!(look::status(container.pid, "Cpus_allowed_list")?, "0", "processors that init may use");
    Ok(())
}

fn unified_is_written(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/unified", json!({"memory.high": "33554432"}));
    let container = ctx.started(&bundle)?;
    check_eq!(look::cgroup_file(container.pid, "memory", "memory.high")?, "33554432", "memory.high");
    Ok(())
}

fn an_unknown_unified_key_is_refused(ctx: &Ctx) -> Result {
    for key in ["nonsense.max", "../memory.max", "memory.nonsense"] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/resources/unified", json!({key: "1"}));
        ctx.refused(&bundle, &[])?;
    }
    Ok(())
}

/// Where the machine lacks a controller that a limit needs, silence would be to fail open. The words are not those by which
/// Podman knows that the container's program is missing (`getOCIRuntimeError` of libpod/oci_util.go).
fn a_limit_without_its_controller_is_refused(ctx: &Ctx) -> Result {
    let limits = [
        ("memory", json!({"limit": MEMORY})),
        ("pids", json!({"limit": 10})),
        ("cpu", json!({"quota": 10_000})),
    ];
    for (controller, limit) in limits {
        let mut bundle = ctx.waiting()?;
        bundle.set(&format!("/linux/resources/{controller}"), limit);
        if ctx.host.controller(controller) {
            drop(ctx.create(&bundle)?);
        } else {
            let said = ctx.refused(&bundle, &[controller])?.stderr();
            check!(
                !said.to_lowercase().contains("no such file or directory"),
                "an engine takes it for a program: {said}"
            );
            check!(ctx.kind != "coracle" || said.contains("remove the limit, or have"), "no way out: {said}");
        }
    }
    Ok(())
}

fn a_group_in_use_is_refused_and_left_alone(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let first = ctx.started(&bundle)?;
    let mut second = ctx.waiting()?;
    let shared = bundle.spec.pointer("/linux/cgroupsPath").cloned().unwrap_or_default();
    second.set("/linux/cgroupsPath", shared);
    ctx.refused(&second, &["not empty"])?;
    check_eq!(first.status()?, "running", "status of the container whose group it is");
    Ok(())
}

/// Had the container been written down by then, its delete would end whoever is in the group.
fn a_group_in_use_outlives_a_runtime_that_dies(ctx: &Ctx) -> Result {
    let first = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(first.pid, "")?;
    let mut second = ctx.waiting()?;
    second.set("/linux/cgroupsPath", json!(format!("/{}", group.strip_prefix("/sys/fs/cgroup")?.display())));
    second.write()?;
    let container = Container::named(ctx, ctx.id(), &second.dir);
    let words = ["create", "--bundle", path(&second.dir), &container.id];
    let output = ctx.finish(ctx.traced(&["-P", path(&group), "-e", "inject=mkdirat:signal=KILL"], &words))?;
    check!(output.code != 0, "create took the group");
    drop(container);
    check_eq!(first.status()?, "running", "status of the container whose group it is");
    Ok(())
}

fn sub_cgroups_are_removed_with_it(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "")?;
    fs::create_dir_all(group.join("left/deeper"))?;
    container.stop()?;
    container.delete()?;
    check!(!group.exists(), "cgroup {} is left", group.display());
    Ok(())
}

/// As another container leaves the group above its own: cgroup-v2.rst, No Internal Process Constraint.
fn a_group_that_gave_controllers_is_taken(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let name = bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
    let mut below = ctx.waiting()?;
    below.set("/linux/cgroupsPath", json!(format!("{name}/below")));
    let other = ctx.create(&below)?;
    let message = ctx.refused(&bundle, &[])?.stderr();
    check!(message.contains(&name), "the message does not name the group: {message}");
    other.stop()?;
    other.delete()?;
    ctx.started(&bundle).map(drop)
}

/// A group with a threaded one, "inner", below it: its path, and a bundle whose container is to be at this place in it.
fn threaded(ctx: &Ctx, place: &str) -> Result<(String, Bundle)> {
    let top = format!("/coracle-test/{}", ctx.id());
    let inner = format!("/sys/fs/cgroup{top}/inner");
    fs::create_dir_all(&inner)?;
    fs::write(format!("{inner}/cgroup.type"), "threaded")?;
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/cgroupsPath", json!(format!("{top}/{place}")));
    Ok((top, bundle))
}

/// Takes it away again: "inner" where a container has not taken it along.
fn remove_threaded(top: &str) -> Result {
    let inner = format!("/sys/fs/cgroup{top}/inner");
    if Path::new(&inner).exists() {
        fs::remove_dir(inner)?;
    }
    Ok(fs::remove_dir(format!("/sys/fs/cgroup{top}"))?)
}

/// cgroup-v2.rst, Threads: what is below a threaded group is threaded as well, and lists no processes.
fn threaded_groups_take_a_container(ctx: &Ctx) -> Result {
    for place in ["beside", "inner", "inner/below"] {
        let (top, mut bundle) = threaded(ctx, place)?;
        // The end of init is then not the end of all.
        bundle.without_namespace("pid");
        let container = ctx.started(&bundle)?;
        let group = look::cgroup(container.pid, "")?;
        check!(group.ends_with(place), "init is in {}", group.display());
        check_eq!(fs::read_to_string(group.join("cgroup.type"))?, "threaded\n", "its type");
        let second = ctx.call(&["exec", "--detach", "--pid-file", "pid", &container.id, "/probe", "wait"])?;
        second.succeeded("exec")?;
        let second: u32 = fs::read_to_string(ctx.dir.join("pid"))?.trim().parse()?;
        check_eq!(look::cgroup(second, "")?, group, "group of exec's process");
        let listed = ctx.call(&["ps", "--format", "json", &container.id])?.succeeded("ps")?.stdout();
        let mut listed: Vec<u32> = serde_json::from_str(&listed)?;
        listed.sort_unstable();
        check_eq!(listed, vec![container.pid, second], "ps");
        ctx.call(&["pause", &container.id])?.succeeded("pause")?;
        check_eq!(container.status()?, "paused", "status");
        ctx.call(&["resume", &container.id])?.succeeded("resume")?;
        ctx.call(&["delete", "--force", &container.id])?.succeeded("delete --force")?;
        check!(look::is_dead(second), "exec's process lives on");
        check!(!group.exists(), "{} is left", group.display());
        remove_threaded(&top)?;
    }
    Ok(())
}

fn a_threaded_group_has_the_limits_of_threads(ctx: &Ctx) -> Result {
    let (top, mut bundle) = threaded(ctx, "beside")?;
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    bundle.set("/linux/resources/cpu", json!({"quota": 50000, "period": 100_000}));
    let container = ctx.started(&bundle)?;
    let group = look::cgroup(container.pid, "")?;
    check_eq!(fs::read_to_string(group.join("pids.max"))?, "77\n", "pids.max");
    check_eq!(fs::read_to_string(group.join("cpu.max"))?, "50000 100000\n", "cpu.max");
    container.stop()?;
    container.delete()?;
    remove_threaded(&top)
}

fn a_threaded_group_in_use_is_refused(ctx: &Ctx) -> Result {
    let (top, bundle) = threaded(ctx, "inner")?;
    let first = ctx.started(&bundle)?;
    let mut second = ctx.waiting()?;
    second.set("/linux/cgroupsPath", bundle.spec["linux"]["cgroupsPath"].clone());
    ctx.refused(&second, &[])?;
    check_eq!(first.status()?, "running", "status of the container whose group it is");
    first.stop()?;
    first.delete()?;
    remove_threaded(&top)
}

fn a_limit_below_a_threaded_group_is_refused_by_name(ctx: &Ctx) -> Result {
    let (top, mut bundle) = threaded(ctx, "beside")?;
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    ctx.refused(&bundle, &["memory", "below a threaded group"])?;
    remove_threaded(&top)
}

/// A limit is in force or an error, and the device rules of every engine's configuration are limits.
fn a_group_without_a_cgroup_file_system_is_refused(ctx: &Ctx) -> Result {
    // The test is a process of its own, and its mounts end with it.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
    let mut bundle = ctx.waiting()?;
    ctx.refused(&bundle, &["cgroup"])?;
    bundle.remove("/linux/cgroupsPath");
    bundle.set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    ctx.refused(&bundle, &["cgroup"]).map(drop)
}

fn a_systemd_scope_holds_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let id = ctx.id();
    bundle.set("/linux/cgroupsPath", json!(format!("system.slice:proving:{id}")));
    bundle.set("/linux/resources/pids", json!({"limit": 55})).write()?;
    let mut container = Container::named(ctx, id, &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let words = ["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file)];
    ctx.call(&[&words[..], &[&container.id]].concat())?.succeeded("create")?;
    container.pid = fs::read_to_string(&pid_file)?.parse()?;
    container.start()?;
    let scope = format!("proving-{}.scope", container.id);
    let group = look::cgroup(container.pid, "")?;
    check!(path(&group).contains(&format!("system.slice/{scope}")), "the cgroup is {}", group.display());
    let names = "TasksMax,Slice,Delegate,DefaultDependencies";
    let shown =
        std::process::Command::new("systemctl").args(["show", "--property", names, &scope]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in ["TasksMax=55", "Slice=system.slice", "Delegate=yes", "DefaultDependencies=no"] {
        check!(shown.lines().any(|l| l == line), "systemd does not say {line} of the scope, but {shown}");
    }
    container.stop()?;
    container.delete()?;
    check!(!group.exists(), "cgroup {} is left", group.display());
    Ok(())
}

/// As crun's does, for whoever wants to ask systemd about the container.
fn state_names_the_systemd_scope(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    bundle.set("/linux/cgroupsPath", json!(format!(":proving:{}", container.id))).write()?;
    ctx.call(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &container.id])?
        .succeeded("create")?;
    check_eq!(container.state()?["systemd-scope"], json!(format!("proving-{}.scope", container.id)), "scope");
    Ok(())
}

fn kill_reaches_forks_of_forks(ctx: &Ctx) -> Result {
    let container =
        ctx.started(&ctx.shell("(setsid sleep 1000 & setsid sleep 1000 &) ; echo ready; sleep 1000")?)?;
    container.prints("ready")?;
    let group = look::cgroup(container.pid, "pids")?;
    container.stop()?;
    until("the cgroup is empty", || {
        Ok(fs::read_to_string(group.join("cgroup.procs"))?.is_empty().then_some(()))
    })
}

/// Every size that the kernel has: use, and reservations where it counts them.
fn a_huge_page_limit_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 8_388_608}]));
    let container = ctx.started(&bundle)?;
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        check_eq!(look::cgroup_file(container.pid, "hugetlb", file)?, "8388608", "{file}");
    }
    Ok(())
}

fn io_limits_are_set(ctx: &Ctx) -> Result {
    let device = look::disk()?;
    let (major, minor) = device.split_once(':').ok_or("a device number")?;
    let (major, minor): (u64, u64) = (major.parse()?, minor.parse()?);
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let mut bundle = ctx.waiting()?;
    bundle.set(
        "/linux/resources/blockIO",
        json!({
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
        }),
    );
    let container = ctx.started(&bundle)?;
    let line = format!("{device} rbps=1048576 wbps=2097152 riops=100 wiops=200");
    check_eq!(look::cgroup_file(container.pid, "io", "io.max")?, line, "io.max");
    Ok(())
}
