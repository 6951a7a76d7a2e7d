//! Resource limits of the process (config.md, "rlimits"; getrlimit(2)).

use serde_json::json;

use crate::harness::{Ctx, Need, Result, check, check_eq, look, tests};

tests! {
    each_rlimit_is_set;
    an_rlimit_bites;
    an_unknown_rlimit_is_refused;
    an_rlimit_listed_twice_is_refused
        known "runc": "takes the last" known "crun": "takes the last";
    a_soft_limit_above_the_hard_one_is_refused;
    a_user_namespace_is_no_obstacle [Need::Capability("CAP_SYS_RESOURCE", 24)];
    without_resctrl_its_groups_are_refused [Need::NoFile("/sys/fs/resctrl/schemata")];
    what_was_replaced_of_resctrl_is_said [Need::NoFile("/sys/fs/resctrl/schemata")]
        known "runc": "it is taken" known "crun": "refused in other words";
    a_scheduler_flag_of_every_name_holds known "runc": "shows none of 1.1" known "crun": "knows none of 1.21";
    each_scheduling_policy_holds [Need::Capability("CAP_SYS_NICE", 23), Need::CgroupV2];
    the_io_priority_of_init_holds;
    a_personality_holds;
    a_flag_of_the_personality_is_refused known "runc": "takes it" known "crun": "takes it";
    a_memory_policy_holds [Need::File("/proc/self/numa_maps")]
        known "runc": "from 1.4 on" known "crun": "from 1.26 on";
}

fn each_rlimit_is_set(ctx: &Ctx) -> Result {
    let wanted = [
        ("RLIMIT_NOFILE", "Max open files", 100, 200),
        ("RLIMIT_CORE", "Max core file size", 0, 4096),
        ("RLIMIT_FSIZE", "Max file size", 1_000_000, 2_000_000),
        ("RLIMIT_STACK", "Max stack size", 1_048_576, 8_388_608),
        ("RLIMIT_CPU", "Max cpu time", 100, 200),
        ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 65_536),
    ];
    let mut bundle = ctx.waiting()?;
    let list = wanted.map(|(name, _, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}));
    bundle.set("/process/rlimits", json!(list));
    let container = ctx.started(&bundle)?;
    for (name, line, soft, hard) in wanted {
        check_eq!(look::limit(container.pid, line)?, (soft.to_string(), hard.to_string()), "{name}");
    }
    Ok(())
}

fn an_rlimit_bites(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("ulimit -f; head -c 20000 /dev/zero > /tmp/file; wc -c < /tmp/file")?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_FSIZE", "soft": 8192, "hard": 8192}]));
    check_eq!(ctx.stdout(&bundle)?.lines().last(), Some("8192"), "size of the file that was to be larger");
    Ok(())
}

fn an_unknown_rlimit_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]));
    ctx.refused(&bundle, &["RLIMIT_NONSENSE"]).map(drop)
}

fn an_rlimit_listed_twice_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.push("/process/rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}));
    ctx.refused(&bundle, &["RLIMIT_NOFILE"]).map(drop)
}

fn a_soft_limit_above_the_hard_one_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]));
    ctx.refused(&bundle, &[]).map(drop)
}

/// What root may raise, it may for a container whose own root has no rights over the host.
fn a_user_namespace_is_no_obstacle(ctx: &Ctx) -> Result {
    let (_, own) = look::limit(std::process::id(), "Max open files")?;
    let hard = own.parse::<u64>()? * 2;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(100_000, 65536)?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard}]));
    bundle.set("/process/oomScoreAdj", json!(-500));
    let container = ctx.started(&bundle)?;
    let seen = || -> Result<_> {
        Ok((look::limit(container.pid, "Max open files")?.1, look::proc(container.pid, "oom_score_adj")?))
    };
    check_eq!(seen()?, (hard.to_string(), "-500".to_owned()), "limit and score of init");
    let script = "ulimit -Hn; cat /proc/self/oom_score_adj";
    let output = ctx.call(&["exec", &container.id, "/bin/sh", "-c", script])?.succeeded("exec")?;
    check_eq!(output.stdout(), format!("{hard}\n-500\n"), "limit and score of exec");
    Ok(())
}

fn without_resctrl_its_groups_are_refused(ctx: &Ctx) -> Result {
    for fields in
        [json!({"closID": "gold"}), json!({"l3CacheSchema": "L3:0=f"}), json!({"enableMonitoring": true})]
    {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/intelRdt", fields);
        ctx.refused(&bundle, &["ntel"])?;
    }
    Ok(())
}

fn a_scheduler_flag_of_every_name_holds(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set(
        "/process/scheduler",
        json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    let container = ctx.started(&bundle)?;
    let told = std::process::Command::new("chrt").args(["--pid", &container.pid.to_string()]).output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    check!(told.contains("SCHED_BATCH|SCHED_RESET_ON_FORK"), "chrt: {told}");
    Ok(())
}

/// What a tool of util-linux says of a process.
fn told(tool: &str, pid: u32) -> Result<String> {
    let output = std::process::Command::new(tool).args(["-p", &pid.to_string()]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// On cgroup v1 a group's share of real time is nothing: sched(7), Real-time group scheduling.
fn each_scheduling_policy_holds(ctx: &Ctx) -> Result {
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 20_000_000, "period": 30_000_000});
    for (scheduler, words) in [
        (json!({"policy": "SCHED_FIFO", "priority": 7}), &["SCHED_FIFO", "priority: 7"][..]),
        (json!({"policy": "SCHED_RR", "priority": 3}), &["SCHED_RR", "priority: 3"]),
        (json!({"policy": "SCHED_IDLE"}), &["SCHED_IDLE"]),
        (deadline, &["SCHED_DEADLINE", "1000000/20000000/30000000"]),
    ] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/process/scheduler", scheduler.clone());
        let container = ctx.started(&bundle)?;
        let told = told("chrt", container.pid)?;
        check!(words.iter().all(|word| told.contains(word)), "chrt after {scheduler}: {told}");
    }
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 11}));
    let container = ctx.started(&bundle)?;
    check_eq!(look::stat(container.pid, 19)?, "11", "nice value");
    Ok(())
}

fn the_io_priority_of_init_holds(ctx: &Ctx) -> Result {
    for (class, priority, wanted) in
        [("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"), ("IOPRIO_CLASS_RT", 2, "realtime: prio 2")]
    {
        let mut bundle = ctx.waiting()?;
        bundle.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        let container = ctx.started(&bundle)?;
        check_eq!(told("ionice", container.pid)?.trim(), wanted, "ionice after {class}");
    }
    Ok(())
}

fn what_was_replaced_of_resctrl_is_said(ctx: &Ctx) -> Result {
    for field in ["enableCMT", "enableMBM"] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/intelRdt", json!({field: true}));
        ctx.refused(&bundle, &[field, "enableMonitoring"])?;
    }
    Ok(())
}

/// The specification defines none.
fn a_flag_of_the_personality_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}));
    ctx.refused(&bundle, &["personality", "flag"]).map(drop)
}

fn a_personality_holds(ctx: &Ctx) -> Result {
    // The byte of the domain: personality(2), linux/personality.h. A shell of 64 bits runs in either.
    for (domain, wanted) in [("LINUX", "00"), ("LINUX32", "08")] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/personality", json!({"domain": domain}));
        let container = ctx.started(&bundle)?;
        let seen = look::proc(container.pid, "personality")?;
        check!(seen.trim().ends_with(wanted), "personality after {domain}: {seen}");
    }
    Ok(())
}

fn a_memory_policy_holds(ctx: &Ctx) -> Result {
    for (policy, wanted) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
    ] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/memoryPolicy", policy.clone());
        let container = ctx.started(&bundle)?;
        let maps = look::proc(container.pid, "numa_maps")?;
        check!(
            maps.lines().all(|line| line.split_whitespace().nth(1) == Some(wanted)),
            "numa_maps after {policy}: {maps}"
        );
    }
    Ok(())
}
