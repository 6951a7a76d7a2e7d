//! Capabilities, no_new_privs, environment, working directory and the open files of the workload
//! (config.md, "Process"; capabilities(7)).

use serde_json::{Value, json};

use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    what_is_inheritable_must_be_bounded;
    what_was_left_out_is_said_with_a_refusal;
    each_capability_set_is_as_asked;
    no_capabilities_means_none;
    a_user_keeps_only_ambient_capabilities;
    no_ambient_capability_of_the_caller_is_kept [Need::File("/usr/bin/setpriv")];
    no_new_privs_is_as_asked;
    the_session_keyring_is_its_own [Need::File("/proc/keys")];
    the_environment_is_the_configs;
    home_is_given_where_it_is_missing known "crun": "old versions leave HOME to the caller's";
    the_path_of_the_config_finds_the_program;
    the_working_directory_is_set;
    a_missing_working_directory_is_made;
    what_a_waiting_init_holds_leads_nowhere [Need::Runtime("coracle")];
    exactly_three_files_are_open;
    the_callers_pipes_belong_to_the_workload known "runc": "leaves the group";
    preserved_files_are_kept_and_no_others;
    a_leaked_file_does_not_reach_the_workload;
    no_signal_is_blocked;
    arguments_arrive_as_they_are;
    oom_score_is_set;
    an_unknown_capability_is_never_granted known "crun": "old versions fail";
}

/// Numbers from include/uapi/linux/capability.h.
const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;

fn sets(pid: u32) -> Result<[u64; 5]> {
    let mut sets = [0; 5];
    for (set, field) in sets.iter_mut().zip(["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"]) {
        *set = u64::from_str_radix(&look::status(pid, field)?, 16)?;
    }
    Ok(sets)
}

fn each_capability_set_is_as_asked(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "inheritable": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "ambient": ["CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_KILL"]
        }),
    );
    // A user other than root, so that execve(2) gives nothing that is not ambient.
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = ctx.started(&bundle)?;
    let want = [CHOWN | KILL | NET_BIND_SERVICE | NET_RAW, KILL, KILL, KILL | NET_BIND_SERVICE, KILL];
    check_eq!(sets(container.pid)?, want, "bounding, effective, permitted, inheritable, ambient");
    Ok(())
}

/// Else root's programs, and those with file capabilities, have what the bounding set forbids.
fn what_is_inheritable_must_be_bounded(ctx: &Ctx) -> Result {
    for bounding in [json!(["CAP_NET_RAW"]), json!([])] {
        let mut bundle = ctx.waiting()?;
        bundle.set(
            "/process/capabilities",
            json!({"bounding": bounding, "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        );
        ctx.refused(&bundle, &["cap"])?;
    }
    Ok(())
}

/// It can be why: here, what bounding lacks was there, misspelt.
fn what_was_left_out_is_said_with_a_refusal(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/capabilities", json!({"bounding": ["CAP_KILLS"], "inheritable": ["CAP_KILL"]}));
    ctx.refused(&bundle, &["[CAP_KILLS]"]).map(drop)
}

fn no_capabilities_means_none(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/capabilities", json!({}));
    let container = ctx.started(&bundle)?;
    check_eq!(sets(container.pid)?, [0; 5], "bounding, effective, permitted, inheritable, ambient");
    Ok(())
}

fn a_user_keeps_only_ambient_capabilities(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = ctx.started(&bundle)?;
    let [bounding, effective, permitted, inheritable, ambient] = sets(container.pid)?;
    check!(bounding != 0, "the bounding set is empty");
    check_eq!(
        [effective, permitted, inheritable, ambient],
        [0; 4],
        "effective, permitted, inheritable, ambient"
    );
    Ok(())
}

/// One that is permitted and inheritable stays ambient, if it was, until somebody clears it: capabilities(7).
fn no_ambient_capability_of_the_caller_is_kept(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("grep -E '^Cap(Inh|Amb)' /proc/self/status | cut -f 2")?;
    bundle.capabilities(&["CAP_KILL"]).remove("/process/capabilities/ambient").write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut command = std::process::Command::new("/usr/bin/setpriv");
    command.args(["--inh-caps", "+kill", "--ambient-caps", "+kill"]).arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(["run", "--bundle", path(&bundle.dir), &container.id]);
    command.stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?.succeeded("run")?;
    let want = format!("{KILL:016x}\n{:016x}\n", 0);
    check_eq!(output.stdout(), want, "inheritable and ambient");
    Ok(())
}

/// session-keyring(7): with the caller's, a container could read and change what is in it.
fn the_session_keyring_is_its_own(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/linux/maskedPaths").args(&["/probe", "read", "/proc/keys"]).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let output = ctx.call(&["run", "--bundle", path(&bundle.dir), &container.id])?.succeeded("run")?;
    let keys: String = serde_json::from_str(&output.stdout())?;
    let own = keys.lines().find(|line| line.contains(&container.id));
    let own = own.ok_or_else(|| format!("no keyring of the container's among {keys:?}"))?;
    // keyctl_setperm(3): all for who possesses it and for its owner; what runc gives.
    let permissions = own.split_whitespace().nth(4);
    check!(ctx.kind == "crun" || permissions == Some("3f3f0000"), "permissions {permissions:?}");
    Ok(())
}

fn no_new_privs_is_as_asked(ctx: &Ctx) -> Result {
    for (asked, got) in [(true, "1"), (false, "0")] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/process/noNewPrivileges", json!(asked));
        let container = ctx.started(&bundle)?;
        check_eq!(look::status(container.pid, "NoNewPrivs")?, got, "NoNewPrivs");
    }
    Ok(())
}

fn the_environment_is_the_configs(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "HOME=/tmp", "A=1", "EMPTY=", "WITH=a=b c"]));
    let environment = ctx.report(&bundle)?["env"].take();
    check_eq!(
        environment,
        json!({"PATH": "/bin", "HOME": "/tmp", "A": "1", "EMPTY": "", "WITH": "a=b c"}),
        "environment"
    );
    Ok(())
}

fn home_is_given_where_it_is_missing(ctx: &Ctx) -> Result {
    for (uid, home) in [(0, "/root"), (1000, "/home/user")] {
        let mut bundle = ctx.bundle()?;
        bundle.set("/process/user", json!({"uid": uid, "gid": uid}));
        check_eq!(ctx.report(&bundle)?["env"]["HOME"], json!(home), "HOME of uid {uid}");
    }
    Ok(())
}

fn the_path_of_the_config_finds_the_program(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    std::fs::create_dir(bundle.rootfs().join("odd"))?;
    std::os::unix::fs::symlink("/probe", bundle.rootfs().join("odd/oddprobe"))?;
    bundle.args(&["oddprobe", "exit", "11"]).set("/process/env", json!(["PATH=/nowhere:/odd"]));
    check_eq!(ctx.run(&bundle)?.code, 11, "exit status");
    Ok(())
}

fn the_working_directory_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", json!("/etc"));
    check_eq!(ctx.report(&bundle)?["cwd"], json!("/etc"), "working directory");
    Ok(())
}

fn a_missing_working_directory_is_made(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", json!("/made/here")).set("/root/readonly", json!(false));
    check_eq!(ctx.report(&bundle)?["cwd"], json!("/made/here"), "working directory");
    Ok(())
}

fn descriptors(report: &Value) -> Vec<String> {
    report["fds"].as_object().map(|fds| fds.keys().cloned().collect()).unwrap_or_default()
}

/// Before the start init holds its connections and the file that says that it waits; no directory of the host (CVE-2024-21626).
fn what_a_waiting_init_holds_leads_nowhere(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    let mut held = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", container.pid))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().parse::<u32>()? > 2 {
            held.push(std::fs::read_link(entry.path())?.to_string_lossy().into_owned());
        }
    }
    check!(held.iter().any(|target| target.ends_with("/exec.fifo")), "{held:?} lacks exec.fifo");
    let meant = |target: &&String| {
        let connection = ["socket:[", "pipe:[", "anon_inode:"];
        connection.iter().any(|c| target.starts_with(c)) || target.ends_with("/exec.fifo")
    };
    check_eq!(held.iter().find(|target| !meant(target)), None, "what else is held");
    Ok(())
}

fn exactly_three_files_are_open(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report-and-wait"]);
    let container = ctx.started(&bundle)?;
    check_eq!(descriptors(&container.report()?), ["0", "1", "2"], "open files from within");
    let mut outside: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", container.pid))? {
        outside.push(entry?.file_name().to_string_lossy().into_owned());
    }
    outside.sort();
    check_eq!(outside, ["0", "1", "2"], "open files from outside");
    Ok(())
}

/// Runs the report with files opened on the runtime's descriptors by a shell, as the redirections say.
fn report_with(ctx: &Ctx, flags: &[&str], redirections: &str) -> Result<Value> {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &format!("exec \"$@\" {redirections}"), "sh"]).arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).arg("run").args(flags);
    command.args(["--bundle", path(&bundle.dir), &container.id]).stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?.succeeded("run")?;
    Ok(serde_json::from_str(&output.stdout())?)
}

fn preserved_files_are_kept_and_no_others(ctx: &Ctx) -> Result {
    let report = report_with(ctx, &["--preserve-fds", "2"], "3</etc/hostname 4</etc/passwd 5</etc/group")?;
    check_eq!(descriptors(&report), ["0", "1", "2", "3", "4"], "open files");
    check_eq!(report["fds"]["4"], json!("/etc/passwd"), "what is on 4");
    Ok(())
}

fn a_leaked_file_does_not_reach_the_workload(ctx: &Ctx) -> Result {
    let report = report_with(ctx, &[], "3</etc 9</etc")?;
    check_eq!(descriptors(&report), ["0", "1", "2"], "open files");
    Ok(())
}

/// A program inherits what its caller blocks, unless the runtime sees to it: execve(2).
fn no_signal_is_blocked(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut command = std::process::Command::new("/usr/bin/env");
    command.arg("--block-signal=USR2").arg(&ctx.runtime).arg("--root").arg(ctx.state_root());
    command.args(["run", "--bundle", path(&bundle.dir), &container.id]).stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?.succeeded("run")?;
    let report: Value = serde_json::from_str(&output.stdout())?;
    check_eq!(report["status"]["SigBlk"], json!("0000000000000000"), "blocked signals");
    Ok(())
}

fn arguments_arrive_as_they_are(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&[
        "/bin/sh",
        "-c",
        "for a; do echo \"<$a>\"; done",
        "sh",
        "",
        "a b",
        "$HOME",
        "*",
        "-x",
        "ü\n",
    ]);
    check_eq!(ctx.stdout(&bundle)?, "<>\n<a b>\n<$HOME>\n<*>\n<-x>\n<ü\n>", "arguments");
    Ok(())
}

fn oom_score_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/oomScoreAdj", json!(321));
    let container = ctx.started(&bundle)?;
    check_eq!(look::proc(container.pid, "oom_score_adj")?, "321", "oom_score_adj");
    Ok(())
}

fn an_unknown_capability_is_never_granted(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_NONSENSE"]));
    bundle.set("/process/capabilities/permitted", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/effective", json!(["CAP_KILL"]));
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    // A warning and the rest, or a refusal; config.md leaves both.
    if container.create(&[]).is_ok() {
        check_eq!(sets(container.pid)?[0] & !KILL, 0, "bounding set beyond CAP_KILL before start");
    }
    Ok(())
}

/// So that it can open them anew, as /dev/stdout.
fn the_callers_pipes_belong_to_the_workload(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("stat -L -c %u:%g /proc/self/fd/1; echo again >/proc/self/fd/1")?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001})).write()?;
    let id = ctx.id();
    let mut command = ctx.command(&["run", "--bundle", path(&bundle.dir), &id]);
    let output = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).output()?;
    check_eq!(String::from_utf8_lossy(&output.stdout), "1000:1001\nagain\n", "owner of a pipe");
    Ok(())
}
