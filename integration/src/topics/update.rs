//! What changes and shows a container's limits while it runs: `update`, `events`, `ps`, `exec --cgroup`.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    update_takes_flags [Need::Controller("memory"), Need::Controller("cpu"), Need::Controller("pids")];
    update_reads_standard_input [Need::Controller("memory"), Need::Controller("pids")];
    update_keeps_what_it_is_not_told [Need::Controller("memory"), Need::Controller("cpu"), Need::CgroupV2];
    update_that_fails_changes_nothing [Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpuset")];
    update_that_fails_leaves_the_weight_of_io [Need::CgroupV2, Need::Controller("io"), Need::Controller("cpuset")];
    update_replaces_the_device_list [Need::Runtime("coracle")];
    update_of_a_limit_leaves_the_device_list [Need::Runtime("coracle"), Need::Controller("pids")];
    update_checks_what_is_in_use [Need::Controller("memory"), Need::CgroupV2];
    update_of_a_stopped_container_is_refused [Need::Controller("pids")];
    update_of_a_paused_container_leaves_it_paused [Need::Controller("pids")];
    events_stats_has_what_engines_read [Need::Command("events"), Need::Controller("pids")];
    events_tells_of_a_kill_for_memory [Need::Command("events"), Need::Controller("memory")];
    ps_lists_the_processes;
    exec_joins_a_group_below [Need::CgroupV2];
    exec_waits_for_no_frozen_group [Need::CgroupV2, Need::Runtime("coracle")];
    exec_joins_by_controllers_that_are_there [Need::File("/sys/fs/cgroup/freezer/cgroup.procs")];
    exec_follows_init_where_it_must [Need::CgroupV2, Need::Controller("memory")];
}

fn update(ctx: &Ctx, container: &Container, words: &[&str]) -> Result {
    ctx.call(&[&["update"][..], words, &[container.id.as_str()]].concat())?.succeeded("update").map(drop)
}

fn update_from(ctx: &Ctx, container: &Container, new: &Value) -> Result<i32> {
    let mut command = ctx.command(&["update", "--resources", "-", &container.id]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(new.to_string().as_bytes())?;
    }
    Ok(child.wait()?.code().unwrap_or(-1))
}

/// A file of the container's group by its names in v2 and v1.
fn file(ctx: &Ctx, container: &Container, v2: &str, v1: &str) -> Result<String> {
    let name = if ctx.host.cgroup2 { v2 } else { v1 };
    look::cgroup_file(container.pid, name.split('.').next().unwrap_or_default(), name)
}

fn update_takes_flags(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let words = ["--memory", "50M", "--cpu-quota", "20000", "--cpu-period", "50000", "--pids-limit", "33"];
    update(ctx, &container, &words)?;
    check_eq!(file(ctx, &container, "memory.max", "memory.limit_in_bytes")?, "52428800", "memory");
    check_eq!(file(ctx, &container, "pids.max", "pids.max")?, "33", "pids");
    let quota = file(ctx, &container, "cpu.max", "cpu.cfs_quota_us")?;
    check!(quota == "20000 50000" || quota == "20000", "the CPU quota is {quota}");
    update(ctx, &container, &["--pids-limit", "-1"])?;
    check_eq!(file(ctx, &container, "pids.max", "pids.max")?, "max", "pids without a limit");
    Ok(())
}

fn update_reads_standard_input(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let new = json!({"memory": {"limit": 64 << 20, "reservation": 32 << 20}, "pids": {"limit": 44}});
    check_eq!(update_from(ctx, &container, &new)?, 0, "exit status of update --resources -");
    check_eq!(file(ctx, &container, "memory.low", "memory.soft_limit_in_bytes")?, "33554432", "reservation");
    check_eq!(file(ctx, &container, "pids.max", "pids.max")?, "44", "pids");
    Ok(())
}

fn update_that_fails_changes_nothing(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/pids", json!({"limit": 40}));
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    let container = ctx.started(&bundle)?;
    // Whichever order they are written in, something comes before the processor that no machine has.
    let new = json!({"pids": {"limit": 50}, "memory": {"limit": 80 << 20}, "cpu": {"cpus": "8000"}});
    check!(update_from(ctx, &container, &new)? != 0, "an update to a processor that is not there succeeded");
    check_eq!(file(ctx, &container, "pids.max", "pids.max")?, "40", "pids.max");
    let memory = file(ctx, &container, "memory.max", "memory.limit_in_bytes")?;
    check_eq!(memory, (64u64 << 20).to_string(), "memory limit");
    // What failed is not remembered either.
    update(ctx, &container, &["--pids-limit", "60"])?;
    check_eq!(
        file(ctx, &container, "memory.max", "memory.limit_in_bytes")?,
        (64u64 << 20).to_string(),
        "memory limit after the next update"
    );
    Ok(())
}

fn update_that_fails_leaves_the_weight_of_io(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/blockIO", json!({"weight": 300}));
    let container = ctx.started(&bundle)?;
    let weight = || {
        let bfq = look::cgroup_file(container.pid, "", "io.bfq.weight");
        bfq.or_else(|_| look::cgroup_file(container.pid, "", "io.weight"))
    };
    let before = weight()?;
    let new = json!({"blockIO": {"weight": 700}, "unified": {"cpuset.cpus": "8000"}});
    check!(update_from(ctx, &container, &new)? != 0, "an update to a processor that is not there succeeded");
    check_eq!(weight()?, before, "the weight after an update that failed");
    Ok(())
}

fn update_keeps_what_it_is_not_told(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/cpu", json!({"quota": 50_000, "period": 100_000}));
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20, "swap": 96 << 20}));
    keeps(ctx, &bundle)?;
    if ctx.kind != "crun" {
        // As programs in Go may write it, and read it again.
        let resources = bundle.spec["linux"]["resources"].take();
        bundle.remove("/linux/resources").set("/linux/Resources", resources);
        keeps(ctx, &bundle)?;
    }
    Ok(())
}

fn keeps(ctx: &Ctx, bundle: &Bundle) -> Result {
    let container = ctx.started(bundle)?;
    update(ctx, &container, &["--cpu-period", "90000"])?;
    check_eq!(look::cgroup_file(container.pid, "cpu", "cpu.max")?, "50000 90000", "cpu.max");
    update(ctx, &container, &["--memory", "80M"])?;
    check_eq!(
        look::cgroup_file(container.pid, "memory", "memory.max")?,
        (80u64 << 20).to_string(),
        "memory.max"
    );
    check_eq!(
        look::cgroup_file(container.pid, "memory", "memory.swap.max")?,
        (16u64 << 20).to_string(),
        "memory.swap.max: what is left of memory and swap together"
    );
    Ok(())
}

/// /dev/mem-like 1:11 opened by a second process, as an errno.
fn opens(ctx: &Ctx, container: &Container) -> Result<String> {
    let output = ctx.call(&["exec", &container.id, "/probe", "open", "/dev/tested"])?.succeeded("exec")?;
    Ok(output.stdout().trim().to_owned())
}

/// A container with that device, which it may not use.
fn with_a_device(ctx: &Ctx) -> Result<Container<'_>> {
    let mut bundle = ctx.waiting()?;
    bundle.push(
        "/linux/devices",
        json!({"path": "/dev/tested", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}),
    );
    bundle.capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    ctx.started(&bundle)
}

fn the_device() -> Value {
    json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"})
}

fn update_replaces_the_device_list(ctx: &Ctx) -> Result {
    let container = with_a_device(ctx)?;
    let (nothing, one) = (json!({"allow": false, "access": "rwm"}), the_device());
    for (list, want) in [(json!([nothing, one]), "0"), (json!([nothing]), "1"), (json!([one]), "0")] {
        check_eq!(update_from(ctx, &container, &json!({"devices": list}))?, 0, "exit status of update");
        check_eq!(opens(ctx, &container)?, want, "errno of open under {list}");
    }
    Ok(())
}

fn update_of_a_limit_leaves_the_device_list(ctx: &Ctx) -> Result {
    let container = with_a_device(ctx)?;
    check_eq!(update_from(ctx, &container, &json!({"devices": [the_device()]}))?, 0, "exit status of update");
    update(ctx, &container, &["--pids-limit", "50"])?;
    check_eq!(opens(ctx, &container)?, "0", "errno of open after another update");
    Ok(())
}

fn update_checks_what_is_in_use(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let new = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
    check!(update_from(ctx, &container, &new)? != 0, "a limit below what is in use was taken");
    check_eq!(container.status()?, "running", "status");
    Ok(())
}

fn update_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    container.stop()?;
    let output = ctx.call(&["update", "--pids-limit", "9", &container.id])?;
    check!(output.code != 0, "update of a stopped container succeeded");
    Ok(())
}

fn update_of_a_paused_container_leaves_it_paused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    ctx.call(&["pause", &container.id])?.succeeded("pause")?;
    update(ctx, &container, &["--pids-limit", "30"])?;
    check_eq!(container.status()?, "paused", "status");
    check_eq!(file(ctx, &container, "pids.max", "pids.max")?, "30", "pids");
    ctx.call(&["resume", &container.id])?.succeeded("resume").map(drop)
}

fn events_stats_has_what_engines_read(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/pids", json!({"limit": 12}));
    let container = ctx.started(&bundle)?;
    let text = ctx.call(&["events", "--stats", &container.id])?.succeeded("events --stats")?.stdout();
    let begin = format!("{{\"type\":\"stats\",\"id\":\"{}\",", container.id);
    check!(text.starts_with(&begin), "the line begins otherwise than {begin}: {text}");
    let event: Value = serde_json::from_str(&text)?;
    check_eq!(event["data"]["pids"], json!({"current": 1, "limit": 12}), "pids");
    for place in [
        "/data/cpu/usage/total",
        "/data/cpu/usage/user",
        "/data/memory/usage/limit",
        "/data/cpuset/mem_exclusive",
    ] {
        check!(event.pointer(place).is_some_and(Value::is_u64), "no number at {place}: {text}");
    }
    for place in ["/data/blkio", "/data/hugetlb", "/data/intel_rdt"] {
        check!(event.pointer(place).is_some_and(Value::is_object), "no object at {place}: {text}");
    }
    Ok(())
}

fn events_tells_of_a_kill_for_memory(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/resources/memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    let container = ctx.started(&bundle)?;
    let log = ctx.dir.join("events");
    let mut command = ctx.command(&["events", "--interval", "100ms", &container.id]);
    let mut events = command.stdout(fs::File::create(&log)?).spawn()?;
    until("the first stats come", || Ok(fs::read_to_string(&log)?.contains("stats").then_some(())))?;
    let hog = ctx.call(&["exec", &container.id, "/probe", "memory", "128"])?;
    check_eq!(hog.code, 137, "exit status of a program that takes four times its memory");
    let line = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", container.id);
    until("the event is told", || Ok(fs::read_to_string(&log)?.contains(&line).then_some(())))?;
    container.stop()?;
    until("events ends with the container", || Ok(events.try_wait()?))?;
    Ok(())
}

fn ps_lists_the_processes(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("sleep 1000 & echo ready; wait")?)?;
    container.prints("ready")?;
    let text = ctx.call(&["ps", "--format", "json", &container.id])?.succeeded("ps")?.stdout();
    let pids: Vec<u32> = serde_json::from_str(&text)?;
    check_eq!(pids.len(), 2, "processes in {text}");
    check!(pids.contains(&container.pid), "{pids:?} lacks init {}", container.pid);
    Ok(())
}

fn exec_joins_a_group_below(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "")?;
    fs::create_dir(group.join("below"))?;
    let words = ["exec", "--cgroup", "below", &container.id, "/bin/cat", "/proc/self/cgroup"];
    let groups = ctx.call(&words)?.succeeded("exec")?.stdout();
    // A hybrid host has lines for v1's hierarchies besides.
    check_eq!(
        groups.lines().find(|line| line.starts_with("0::")),
        Some("0::/below"),
        "the group, of {groups}"
    );
    for wrong in ["none", "../below"] {
        let output = ctx.call(&["exec", "--cgroup", wrong, &container.id, "/bin/true"])?;
        check!(output.code != 0, "exec joined the group {wrong}");
    }
    Ok(())
}

/// A container that may write to its groups freezes one below its own; what was born there kept exec waiting for ever.
fn exec_waits_for_no_frozen_group(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "")?;
    fs::create_dir_all(group.join("above/below"))?;
    fs::write(group.join("above/cgroup.freeze"), "1")?;
    for below in ["above", "above/below"] {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "5"]).arg(&ctx.runtime).args(["--root", path(&ctx.state_root()), "exec"]);
        command.args(["--cgroup", below, &container.id, "/bin/true"]);
        let output = ctx.finish(command)?;
        check_eq!(output.code, 255, "exit status with {below} ({})", output.stderr());
        check!(output.stderr().contains("is frozen, and what joins it"), "{}", output.stderr());
    }
    fs::write(group.join("above/cgroup.freeze"), "0")?;
    ctx.call(&["exec", "--cgroup", "above/below", &container.id, "/bin/true"])?.succeeded("exec").map(drop)
}

fn exec_joins_by_controllers_that_are_there(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    ctx.call(&["exec", "--cgroup", "freezer:/", &container.id, "/bin/true"])?.succeeded("exec")?;
    let output = ctx.call(&["exec", "--cgroup", "whatever:/", &container.id, "/bin/true"])?;
    check!(output.code != 0, "exec took a controller that no hierarchy has");
    Ok(())
}

/// cgroup-v2.rst, No Internal Process Constraint: a container that gives controllers to groups of its own has none in its root.
fn exec_follows_init_where_it_must(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "")?;
    fs::create_dir(group.join("init"))?;
    fs::write(group.join("init/cgroup.procs"), container.pid.to_string())?;
    fs::write(group.join("cgroup.subtree_control"), "+memory")?;
    let words = ["exec", &container.id, "/bin/cat", "/proc/self/cgroup"];
    check_eq!(ctx.call(&words)?.succeeded("exec")?.stdout().trim(), "0::/init", "the group");
    // Who names the root himself is told why not; engines know these words.
    let output = ctx.call(&["exec", "--cgroup", "/", &container.id, "/bin/true"])?;
    check!(output.code != 0, "exec is in a group that has controllers below");
    let message = output.stderr();
    for words in [" adding pid ", " to cgroups ", path(&group), "evice or resource busy"] {
        check!(message.contains(words), "the message lacks {words:?}: {message}");
    }
    Ok(())
}
