//! The seccomp filter (config-linux.md, "Seccomp"; seccomp(2)).

use serde_json::{Value, json};

use crate::harness::{Bundle, Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    without_a_profile_there_is_no_filter;
    a_profile_is_in_force;
    an_errno_is_returned;
    an_errno_of_ones_own_is_returned;
    a_kill_ends_the_process;
    arguments_are_compared;
    a_default_that_denies_is_in_force;
    a_syscall_newer_than_the_profile_is_unknown known "crun": "it is denied";
    a_hook_in_the_container_is_filtered_too known "crun": "before 1.16";
    without_flags_speculation_is_the_kernels_choice [Need::Runtime("coracle")];
    an_errno_for_an_action_without_one_is_refused known "runc": "it is ignored" known "crun": "it is ignored";
    it_works_without_no_new_privs;
    an_unknown_action_is_refused;
    an_unknown_operator_is_refused;
    a_denied_syscall_that_nobody_knows_is_refused known "runc": "allows it" known "crun": "allows it";
    an_allowed_syscall_that_nobody_knows_passes;
    an_annotation_refuses_every_unknown_syscall known "runc": "an annotation of crun's";
}

fn profiled(ctx: &Ctx, default: &str, rules: Value) -> Result<Bundle> {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/seccomp", json!({"defaultAction": default, "syscalls": rules}));
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]);
    bundle.args(&["/probe", "mkdir", "/tmp/x"]);
    Ok(bundle)
}

fn without_a_profile_there_is_no_filter(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(look::status(container.pid, "Seccomp")?, "0", "seccomp mode");
    Ok(())
}

fn a_profile_is_in_force(ctx: &Ctx) -> Result {
    let mut bundle =
        profiled(ctx, "SCMP_ACT_ALLOW", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]))?;
    bundle.args(&["/probe", "wait"]);
    let container = ctx.started(&bundle)?;
    check_eq!(look::status(container.pid, "Seccomp")?, "2", "seccomp mode");
    check_eq!(look::status(container.pid, "Seccomp_filters")?, "1", "number of filters");
    Ok(())
}

fn an_errno_is_returned(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    check_eq!(ctx.stdout(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?)?, "1", "errno of mkdir (EPERM)");
    check_eq!(
        ctx.stdout(&profiled(ctx, "SCMP_ACT_ALLOW", json!([]))?)?,
        "0",
        "errno of mkdir without the rule"
    );
    Ok(())
}

fn an_errno_of_ones_own_is_returned(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]);
    check_eq!(ctx.stdout(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?)?, "99", "errno of mkdir");
    Ok(())
}

fn a_kill_ends_the_process(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    let output = ctx.run(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?)?;
    check_eq!(output.code, 128 + 31, "exit status of run (SIGSYS)");
    Ok(())
}

fn arguments_are_compared(ctx: &Ctx) -> Result {
    // socket(AF_UNIX = 1, ...): the first argument decides.
    for (value, errno) in [(1, "77"), (2, "2")] {
        let rules = json!([{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}]);
        let mut bundle = profiled(ctx, "SCMP_ACT_ALLOW", rules)?;
        bundle.args(&["/probe", "connect", "/tmp/no-such-socket"]);
        check_eq!(ctx.stdout(&bundle)?, errno, "errno of connecting when family {value} is denied");
    }
    Ok(())
}

/// What the runtime itself and a static program need to get to the denied call.
fn needed() -> Value {
    json!([
        "execve",
        "exit",
        "exit_group",
        "brk",
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "madvise",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "poll",
        "ppoll",
        "sigaltstack",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "write",
        "writev",
        "read",
        "open",
        "openat",
        "openat2",
        "close",
        "close_range",
        "fstat",
        "newfstatat",
        "statx",
        "fcntl",
        "futex",
        "prctl",
        "capset",
        "capget",
        "setuid",
        "setgid",
        "setgroups",
        "getpid",
        "gettid",
        "getppid",
        "stat",
        "lstat",
        "fstatfs",
        "epoll_ctl",
        "epoll_pwait",
        "nanosleep",
        "clock_nanosleep",
        "tgkill",
        "sched_yield",
        "getdents64",
        "faccessat",
        "faccessat2",
        "access",
        "chdir",
        "fchdir",
        "getcwd",
        "sendmsg",
        "sendto",
        "recvfrom",
        "recvmsg",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "poll",
        "dup3",
        "ioctl",
        "umask",
        "uname",
        "lseek"
    ])
}

fn a_default_that_denies_is_in_force(ctx: &Ctx) -> Result {
    let rules = json!([{"names": needed(), "action": "SCMP_ACT_ALLOW"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ERRNO", rules)?;
    bundle.set("/linux/seccomp/defaultErrnoRet", json!(88));
    check_eq!(ctx.stdout(&bundle)?, "88", "errno of mkdir, which the profile does not name");
    Ok(())
}

fn a_syscall_newer_than_the_profile_is_unknown(ctx: &Ctx) -> Result {
    let newer = ["openat2", "close_range", "faccessat2"];
    let mut names: Vec<Value> = needed().as_array().cloned().unwrap_or_default();
    names.retain(|name| !newer.iter().any(|newer| name == newer));
    names.push("clone".into());
    let rules = json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ERRNO", rules.clone())?;
    bundle.args(&["/probe", "thread"]);
    check_eq!(ctx.stdout(&bundle)?, "0", "errno of making a thread");
    // With a call beyond it in the profile, clone3 is one that the profile denies.
    let rules = json!([rules[0], {"names": ["faccessat2"], "action": "SCMP_ACT_ALLOW"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ERRNO", rules)?;
    bundle.args(&["/probe", "thread"]);
    check_eq!(ctx.stdout(&bundle)?, "1", "errno of making a thread (EPERM)");
    Ok(())
}

fn a_hook_in_the_container_is_filtered_too(ctx: &Ctx) -> Result {
    for no_new_privs in [true, false] {
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]);
        let mut bundle = profiled(ctx, "SCMP_ACT_ALLOW", rules)?;
        bundle.set("/process/noNewPrivileges", json!(no_new_privs));
        let script = "grep -q 'Seccomp:.2' /proc/self/status && ! mkdir /tmp/made";
        bundle.set("/hooks/startContainer", json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]));
        check_eq!(ctx.stdout(&bundle)?, "77", "errno of mkdir in the workload");
    }
    Ok(())
}

/// On kernels that still mitigate for whoever has a filter, the flag keeps the workload fast; the choice shows in `plan`.
fn without_flags_speculation_is_the_kernels_choice(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    for (flags, shown) in
        [(None, "0x4"), (Some(json!([])), "0x0"), (Some(json!(["SECCOMP_FILTER_FLAG_LOG"])), "0x2")]
    {
        let mut bundle = profiled(ctx, "SCMP_ACT_ALLOW", rules.clone())?;
        if let Some(flags) = flags {
            bundle.set("/linux/seccomp/flags", flags);
        }
        bundle.write()?;
        let plan = ctx.call(&["plan", path(&bundle.dir)])?.succeeded("plan")?.stdout();
        check!(plan.contains(&format!("flags {shown} ")), "{plan}");
    }
    Ok(())
}

fn an_errno_for_an_action_without_one_is_refused(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]);
    ctx.refused(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?, &["linux.seccomp.syscalls[0].errnoRet"]).map(drop)
}

fn it_works_without_no_new_privs(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ALLOW", rules)?;
    bundle.set("/process/noNewPrivileges", json!(false));
    check_eq!(ctx.stdout(&bundle)?, "1", "errno of mkdir (EPERM)");
    bundle.args(&["/probe", "wait"]);
    let container = ctx.started(&bundle)?;
    check!(look::status(container.pid, "NoNewPrivs")? == "0", "the filter brought no_new_privs along");
    Ok(())
}

fn an_unknown_action_is_refused(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NONSENSE"}]);
    ctx.refused(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?, &["SCMP_ACT_NONSENSE"]).map(drop)
}

fn an_unknown_operator_is_refused(ctx: &Ctx) -> Result {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE"}]}]);
    ctx.refused(&profiled(ctx, "SCMP_ACT_ALLOW", rules)?, &["SCMP_CMP_NONSENSE"]).map(drop)
}

fn a_denied_syscall_that_nobody_knows_is_refused(ctx: &Ctx) -> Result {
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        let rules = json!([{"names": ["mkdir", "mkdirr"], "action": "SCMP_ACT_ERRNO"}]);
        let bundle = profiled(ctx, default, rules)?;
        ctx.refused(&bundle, &["linux.seccomp.syscalls[0].names[1]", "mkdirr"])?;
    }
    Ok(())
}

fn an_allowed_syscall_that_nobody_knows_passes(ctx: &Ctx) -> Result {
    let mut names = needed();
    names.as_array_mut().ok_or("names")?.push(json!("mkdirr"));
    let rules = json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ERRNO", rules)?;
    bundle.args(&["/probe", "exit", "0"]);
    check_eq!(ctx.run(&bundle)?.code, 0, "exit status");
    Ok(())
}

/// Also where the profile was compiled, and kept, without the annotation.
fn an_annotation_refuses_every_unknown_syscall(ctx: &Ctx) -> Result {
    let mut names = needed();
    names.as_array_mut().ok_or("names")?.push(json!("mkdirr"));
    let rules = json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
    let mut bundle = profiled(ctx, "SCMP_ACT_ERRNO", rules)?;
    bundle.args(&["/probe", "exit", "0"]);
    bundle.set("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": "0"}));
    check_eq!(ctx.run(&bundle)?.code, 0, "exit status");
    bundle.set("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    ctx.refused(&bundle, &["mkdirr"]).map(drop)
}
