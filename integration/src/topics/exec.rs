//! exec: another process in a running container, from process.json or from flags; and what its caller gets.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{
    Container, Ctx, Need, Output, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    the_exit_status_is_the_programs;
    a_failure_of_the_runtime_is_255 known "crun": "is 1";
    a_process_file_may_leave_user_and_cwd_out [Need::Runtime("coracle")];
    the_file_alone_says_the_environment;
    flags_change_what_config_json_says known "crun": "has no additional-gids";
    a_program_that_is_missing_is_named_as_engines_expect;
    a_terminal_is_relayed_line_by_line [Need::Runtime("coracle")];
    a_detached_process_is_known_by_its_pid_file;
    a_file_without_capabilities_means_the_containers;
    what_the_file_says_holds known "runc": "before 1.2 no umask, score or policy" known "crun": "has no oom score";
    rlimits_of_the_file_hold known "runc": "before 1.1.13 built with a newer Go the soft limit is raised";
    the_io_priority_of_the_file_holds known "runc": "before 1.2 not" known "crun": "1.8 has none";
    the_cpus_of_the_file_hold known "runc": "before 1.3 ignores the field";
    the_callers_cpus_are_not_the_containers known "runc": "before 1.4 keeps them" known "crun": "before 1.24 keeps them";
    cpus_that_are_none_are_refused known "runc": "before 1.3 ignores the field" known "crun": "waits for ever";
    capabilities_of_flags_reach_no_inheritable_set;
    capabilities_of_flags_are_ambient_where_they_are_inheritable
        known "runc": "before 1.3 never ambient" known "crun": "never ambient";
    preserved_descriptors_stand_from_3_on;
    the_oom_score_is_the_containers known "crun": "is the caller's";
    a_profile_is_taken_on [Need::File("/sys/kernel/security/apparmor/profiles"), Need::File("/usr/sbin/apparmor_parser")];
    nobody_runs_without_the_profile [Need::File("/sys/kernel/security/apparmor/profiles")];
    without_apparmor_profiles_are_refused [Need::NoFile("/sys/kernel/security/apparmor/profiles")];
}

/// `exec` of a process that is written to a file.
fn exec_file(ctx: &Ctx, container: &Container, process: &Value) -> Result<Output> {
    let file = ctx.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    ctx.exec(container, &["--process", path(&file)], &[])
}

/// The same, but it is left running: its pid.
fn exec_and_leave(ctx: &Ctx, container: &Container, process: &Value) -> Result<u32> {
    let (file, pid_file) = (ctx.dir.join("process.json"), ctx.dir.join("exec.pid"));
    fs::write(&file, process.to_string())?;
    let flags = ["--detach", "--pid-file", path(&pid_file), "--process", path(&file)];
    ctx.exec(container, &flags, &[])?.succeeded("exec")?;
    Ok(fs::read_to_string(&pid_file)?.parse()?)
}

fn the_exit_status_is_the_programs(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    for code in [0, 1, 126, 127, 255] {
        let got = ctx.exec(&container, &[], &["/probe", "exit", &code.to_string()])?.code;
        check_eq!(got, code, "exit status");
    }
    let killed = ctx.exec(&container, &[], &["/bin/sh", "-c", "kill -KILL $$"])?.code;
    check_eq!(killed, 137, "exit status after SIGKILL");
    Ok(())
}

fn a_failure_of_the_runtime_is_255(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(ctx.exec(&container, &[], &["/nowhere"])?.code, 255, "exit status");
    Ok(())
}

fn a_process_file_may_leave_user_and_cwd_out(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let process = json!({"args": ["/bin/sh", "-c", "id -u; pwd"]});
    let output = exec_file(ctx, &container, &process)?.succeeded("exec")?;
    check_eq!(output.stdout(), "0\n/\n", "user and directory");
    Ok(())
}

fn the_file_alone_says_the_environment(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.push("/process/env", json!("FROM=config"));
    let container = ctx.started(&bundle)?;
    let process = json!({"args": ["/bin/sh", "-c", "echo \"[$FROM][$A][$HOME]\""], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "env": ["A=1", "PATH=/bin", "A=2", "HOME="]});
    let output = exec_file(ctx, &container, &process)?.succeeded("exec")?;
    // The last value of a name counts; HOME is never empty.
    let text = output.stdout();
    check!(text.starts_with("[][2][/"), "environment: {text}");
    Ok(())
}

fn flags_change_what_config_json_says(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let flags = ["--env", "A=1", "--cwd", "/tmp", "--user", "1000:1001", "-g", "5", "-g", "6"];
    let script = "echo $A $(pwd) $(id -u) $(id -g) $(id -G)";
    let output = ctx.exec(&container, &flags, &["/bin/sh", "-c", script])?.succeeded("exec")?;
    check_eq!(output.stdout(), "1 /tmp 1000 1001 1001 5 6\n", "what the flags say");
    Ok(())
}

fn a_program_that_is_missing_is_named_as_engines_expect(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let message = ctx.exec(&container, &[], &["nowhere"])?.stderr();
    check!(
        message.contains("executable file") && message.contains("not found in $PATH"),
        "message: {message}"
    );
    let message = ctx.exec(&container, &[], &["/nowhere"])?.stderr();
    check!(message.to_lowercase().contains("no such file or directory"), "message: {message}");
    Ok(())
}

/// Neither --detach nor --console-socket: the runtime makes the terminal and relays it, as CRI-O and BuildKit want.
fn a_terminal_is_relayed_line_by_line(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let output = ctx.exec(&container, &["--tty"], &["/bin/sh", "-c", "tty; echo two"])?;
    check_eq!(output.succeeded("exec --tty")?.stdout(), "/dev/pts/0\ntwo\n", "output");
    Ok(())
}

fn a_detached_process_is_known_by_its_pid_file(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let file = ctx.dir.join("exec.pid");
    ctx.exec(&container, &["--detach", "--pid-file", path(&file)], &["/probe", "wait"])?.succeeded("exec")?;
    let pid: u32 = fs::read_to_string(&file)?.parse()?;
    check_eq!(look::namespace(pid, "pid")?, look::namespace(container.pid, "pid")?, "pid namespace");
    check_eq!(look::status(pid, "PPid")?, std::process::id().to_string(), "parent");
    look::kill_and_reap(pid);
    Ok(())
}

/// Both peers do so; what names no capability at all, an empty object, gets none.
fn a_file_without_capabilities_means_the_containers(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.capabilities(&["CAP_KILL", "CAP_SYSLOG"]);
    let container = ctx.started(&bundle)?;
    let mut process = json!({"args": ["/bin/grep", "CapEff", "/proc/self/status"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    for (capabilities, want) in [(None, 1u64 << 5 | 1 << 34), (Some(json!({})), 0)] {
        if let Some(sets) = capabilities {
            process["capabilities"] = sets;
        }
        let text = exec_file(ctx, &container, &process)?.succeeded("exec")?.stdout();
        let set = text.split_whitespace().nth(1).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        check_eq!(set, Some(want), "effective set ({text})");
    }
    Ok(())
}

/// Another process than the container's own in every respect: what exec gives is as create gives it.
fn what_the_file_says_holds(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let kill = ["CAP_KILL"];
    let process = json!({"args": ["/probe", "wait"], "cwd": "/tmp", "env": ["WHO=exec", "PATH=/bin"],
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [5, 44], "umask": 0o27},
        "capabilities": {"bounding": kill, "effective": kill, "permitted": kill, "inheritable": kill, "ambient": kill},
        "noNewPrivileges": true, "oomScoreAdj": 333, "scheduler": {"policy": "SCHED_BATCH", "nice": 5}});
    let pid = exec_and_leave(ctx, &container, &process)?;
    let held = || -> Result {
        let wanted = [
            ("Uid", "1000 1000 1000 1000"),
            ("Gid", "1001 1001 1001 1001"),
            ("Groups", "5 44"),
            ("Umask", "0027"),
            ("NoNewPrivs", "1"),
        ];
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| (set, "0000000000000020"));
        for (name, value) in wanted.into_iter().chain(sets) {
            check_eq!(look::status(pid, name)?, value, "{name}");
        }
        let of = |file: &str| format!("/proc/{pid}/{file}");
        check_eq!(fs::read_to_string(of("oom_score_adj"))?, "333\n", "oom score");
        check_eq!(fs::read_link(of("cwd"))?.display().to_string(), "/tmp", "working directory");
        check!(fs::read_to_string(of("environ"))?.starts_with("WHO=exec\0"), "environment");
        check_eq!(look::stat(pid, 19)?, "5", "nice value");
        check_eq!(look::stat(pid, 41)?, "3", "policy");
        Ok(())
    };
    let held = held();
    look::kill_and_reap(pid);
    held
}

fn rlimits_of_the_file_hold(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let process = json!({"args": ["/bin/sh", "-c", "ulimit -n"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]});
    check_eq!(exec_file(ctx, &container, &process)?.succeeded("exec")?.stdout(), "77\n", "open files");
    Ok(())
}

fn the_io_priority_of_the_file_holds(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let process = json!({"args": ["/probe", "wait"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}});
    let pid = exec_and_leave(ctx, &container, &process)?;
    let told = std::process::Command::new("ionice").args(["-p", &pid.to_string()]).output()?;
    look::kill_and_reap(pid);
    check!(String::from_utf8_lossy(&told.stdout).starts_with("idle"), "ionice: {told:?}");
    Ok(())
}

/// The CPUs that this test may use, as the kernel lists them.
fn cpus() -> Result<String> {
    look::status(std::process::id(), "Cpus_allowed_list")
}

const CPUS: &str = "sed -n 's/^Cpus_allowed_list:\\t//p' /proc/self/status";

fn the_cpus_of_the_file_hold(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let all = cpus()?;
    let last = all.rsplit([',', '-']).next().unwrap_or("0").to_owned();
    let process = |affinity| {
        json!({"args": ["/bin/sh", "-c", CPUS], "cwd": "/", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0}, "execCPUAffinity": affinity})
    };
    for (affinity, wanted) in [
        (json!({"final": last}), &last),
        (json!({"initial": "0", "final": last}), &last),
        (json!({"initial": last}), &last),
        (json!({"initial": "0", "final": all}), &all),
        (json!({}), &all),
    ] {
        let output = exec_file(ctx, &container, &process(affinity.clone()))?.succeeded("exec")?;
        check_eq!(output.stdout().trim_end(), wanted, "CPUs after {affinity}");
    }
    Ok(())
}

fn the_callers_cpus_are_not_the_containers(ctx: &Ctx) -> Result {
    let bundle = ctx.shell(&format!("{CPUS}; exec /probe wait"))?;
    bundle.write()?;
    let (id, at) = (ctx.id(), path(&bundle.dir).to_owned());
    let container = Container::named(ctx, id.clone(), &bundle.dir);
    let pinned = |words: &[&str]| {
        let mut command = std::process::Command::new("taskset");
        command.args(["--cpu-list", "0"]).arg(&ctx.runtime).arg("--root").arg(ctx.state_root());
        command.args(words).stdin(std::process::Stdio::null());
        ctx.finish(command)
    };
    let run = pinned(&["run", "--detach", "--bundle", &at, &id])?.succeeded("run")?;
    until("the workload has printed", || Ok(run.stdout().contains('\n').then_some(())))?;
    check_eq!(run.stdout().trim_end(), cpus()?, "CPUs of init");
    let output = pinned(&["exec", &container.id, "/bin/sh", "-c", CPUS])?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end(), cpus()?, "CPUs of another process");
    Ok(())
}

fn cpus_that_are_none_are_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    for (affinity, words) in [
        (json!({"initial": "8000"}), ["nitial", "invalid argument"]),
        (json!({"final": "8000"}), ["inal", "invalid argument"]),
        (json!({"final": "first"}), ["first", ""]),
    ] {
        let process = json!({"args": ["/probe", "exit", "0"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "execCPUAffinity": affinity});
        let output = exec_file(ctx, &container, &process)?;
        check_eq!(output.code, 255, "exit status");
        check!(words.iter().all(|w| output.stderr().contains(w)), "message: {}", output.stderr());
    }
    Ok(())
}

fn capabilities_of_flags_reach_no_inheritable_set(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let script = "grep -E '^Cap(Inh|Eff)' /proc/self/status | tr -d '\\n'";
    let output = ctx.exec(&container, &["--cap", "CAP_SYS_PTRACE"], &["/bin/sh", "-c", script])?;
    let text = output.succeeded("exec")?.stdout();
    let set = |name: &str| -> Option<u64> {
        let hex = text.split("Cap").find_map(|part| part.strip_prefix(name))?;
        u64::from_str_radix(hex.trim_start_matches(':').trim(), 16).ok()
    };
    check_eq!(set("Inh"), Some(0), "inheritable set ({text})");
    check!(set("Eff").is_some_and(|bits| bits >> 19 & 1 == 1), "effective set ({text})");
    Ok(())
}

fn capabilities_of_flags_are_ambient_where_they_are_inheritable(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    for (set, names) in [
        ("inheritable", json!(["CAP_CHOWN", "CAP_SYSLOG"])),
        ("permitted", json!(["CAP_KILL", "CAP_CHOWN"])),
        ("effective", json!(["CAP_KILL"])),
        ("bounding", json!(["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"])),
        ("ambient", json!(["CAP_CHOWN"])),
    ] {
        bundle.set(&format!("/process/capabilities/{set}"), names);
    }
    let container = ctx.started(&bundle)?;
    let script = "grep ^Cap /proc/self/status | tr -d '\\n\\t'";
    // The numbers of capabilities: CHOWN 0, KILL 5, SYS_PTRACE 19, SYSLOG 34.
    for (flags, sets) in [
        (
            ["--cap", "CAP_SYSLOG"],
            [0x4_0000_0001_u64, 0x4_0000_0021, 0x4_0000_0021, 0x4_0000_0021, 0x4_0000_0001],
        ),
        (["--cap", "CAP_SYS_PTRACE"], [0x4_0000_0001, 0x8_0021, 0x8_0021, 0x4_0008_0021, 0x1]),
    ] {
        let output = ctx.exec(&container, &flags, &["/bin/sh", "-c", script])?.succeeded("exec")?;
        let named = ["Inh", "Prm", "Eff", "Bnd", "Amb"].iter().zip(sets);
        let wanted: String = named.map(|(name, bits)| format!("Cap{name}:{bits:016x}")).collect();
        check_eq!(output.stdout(), wanted, "sets after {flags:?}");
    }
    Ok(())
}

fn preserved_descriptors_stand_from_3_on(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    fs::write(ctx.dir.join("given"), "given")?;
    let script = format!(
        "exec 3<{given}; exec {runtime} --root {root} exec --preserve-fds 1 {id} /bin/sh -c 'cat <&3; ls /proc/self/fd | wc -l'",
        given = ctx.dir.join("given").display(),
        runtime = ctx.runtime.display(),
        root = ctx.state_root().display(),
        id = container.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?.succeeded("exec")?;
    // 0, 1, 2, 3 and the directory that ls reads.
    check_eq!(output.stdout(), "given5\n", "descriptors");
    Ok(())
}

/// An engine's own score, which its containers' processes would inherit, is often the OOM killer's last choice.
fn the_oom_score_is_the_containers(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/oomScoreAdj", json!(321));
    let container = ctx.started(&bundle)?;
    let output = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/oom_score_adj"])?.succeeded("exec")?;
    check_eq!(output.stdout().trim(), "321", "oom_score_adj by flags");
    let process = json!({"args": ["/bin/cat", "/proc/self/oom_score_adj"], "oomScoreAdj": 432, "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let output = exec_file(ctx, &container, &process)?.succeeded("exec")?;
    check_eq!(output.stdout().trim(), "432", "oom_score_adj of the file");
    Ok(())
}

/// Two profiles in the kernel, until this ends. They forbid nothing but one directory each.
struct Profiles(String);

impl Profiles {
    fn load(ctx: &Ctx) -> Result<Profiles> {
        let one = |name: &str, dir: &str| {
            format!(
                "profile {name} flags=(attach_disconnected) {{ file, capability, signal, ptrace, mount, network, deny {dir}** rw, }}\n"
            )
        };
        let text = one("coracle-test-one", "/etc/") + &one("coracle-test-two", "/var/");
        let profiles = Profiles(ctx.dir.join("profiles").display().to_string());
        fs::write(&profiles.0, text)?;
        profiles.parser("--replace")?;
        Ok(profiles)
    }

    fn parser(&self, what: &str) -> Result {
        let output = std::process::Command::new("/usr/sbin/apparmor_parser")
            .args([what, "--skip-cache", &self.0])
            .output()?;
        check!(
            output.status.success(),
            "apparmor_parser {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        let _ = self.parser("--remove");
    }
}

/// What a process is confined by, as the host sees it, and what it says of itself.
fn a_profile_is_taken_on(ctx: &Ctx) -> Result {
    let _profiles = Profiles::load(ctx)?;
    for (user, no_new_privs) in [(false, true), (false, false), (true, true)] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/process/apparmorProfile", json!("coracle-test-one"));
        bundle.set("/process/noNewPrivileges", json!(no_new_privs));
        if user {
            bundle.user_namespace(100_000, 65536)?;
        }
        let args = ["sh", "-c", "cat /proc/self/attr/current > /tmp/hook"];
        bundle.set("/hooks/startContainer", json!([{"path": "/bin/sh", "args": args}]));
        bundle.mount("tmpfs", "tmpfs", "/tmp", &[]);
        let container = ctx.started(&bundle)?;
        let hook = fs::read_to_string(format!("/proc/{}/root/tmp/hook", container.pid))?;
        check_eq!(hook.trim(), "coracle-test-one (enforce)", "profile of a startContainer hook");
        let name = |pid| look::proc(pid, "attr/current");
        check_eq!(name(container.pid)?, "coracle-test-one (enforce)", "profile of init");
        let words = ["/bin/cat", "/proc/self/attr/current"];
        let output = ctx.exec(&container, &[], &words)?.succeeded("exec")?;
        check_eq!(output.stdout().trim(), "coracle-test-one (enforce)", "profile of an exec");
        let output = ctx.exec(&container, &["--apparmor", "coracle-test-two"], &words)?.succeeded("exec")?;
        check_eq!(output.stdout().trim(), "coracle-test-two (enforce)", "profile of the flag");
        let process = json!({"args": words, "cwd": "/", "user": {"uid": 0, "gid": 0}});
        let output = exec_file(ctx, &container, &process)?.succeeded("exec --process")?;
        check_eq!(output.stdout().trim(), "coracle-test-one (enforce)", "profile where the file has none");
        let output = ctx.exec(&container, &[], &["/bin/cat", "/etc/passwd"])?;
        check!(output.code != 0, "what the profile forbids is read");
    }
    Ok(())
}

fn nobody_runs_without_the_profile(ctx: &Ctx) -> Result {
    nothing_runs_under(ctx, "nowhere-known")?;
    let container = ctx.started(&ctx.waiting()?)?;
    let missing = ctx.exec(&container, &["--apparmor", "nowhere-known"], &["/bin/echo", "ran"])?;
    check!(
        missing.code != 0 && !missing.stdout().contains("ran"),
        "exec under a profile that is not loaded succeeds"
    );
    Ok(())
}

fn without_apparmor_profiles_are_refused(ctx: &Ctx) -> Result {
    nothing_runs_under(ctx, "unconfined")
}

fn nothing_runs_under(ctx: &Ctx, profile: &str) -> Result {
    let mut bundle = ctx.shell("echo ran")?;
    bundle.set("/process/apparmorProfile", json!(profile));
    let output = ctx.run(&bundle)?;
    check!(
        output.code != 0 && !output.stdout().contains("ran"),
        "run under the profile {profile:?}, which is not there, succeeds"
    );
    Ok(())
}
