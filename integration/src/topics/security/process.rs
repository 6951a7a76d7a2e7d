//! What a process of the container can reach of the runtime while that is at work in it.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, tests};

tests! {
    the_working_directory_cannot_leave_through_a_leaked_file;
    exec_cannot_leave_through_a_leaked_file known "crun": "1.21 never ends";
    the_runtime_binary_cannot_be_written_from_within;
    the_copy_is_begun_before_the_c_library [Need::File("/usr/bin/strace"), Need::Runtime("coracle")];
    an_exec_is_out_of_reach_until_it_is_the_program [Need::File("/usr/bin/strace")];
    init_holds_no_directory_of_the_host_while_it_waits
        known "runc": "has a procfs of its own open" known "crun": "closes its caller's at the exec only";
    a_process_with_inits_old_pid_is_left_alone [Need::File("/proc/sys/kernel/ns_last_pid")];
    a_closed_stream_is_no_file_of_the_runtime known "runc": "hands over /sys/fs/cgroup" known "crun": "refuses";
    a_reader_that_went_away_is_no_signal [Need::Runtime("coracle")];
}

/// The runtime, called by somebody who leaks directories of the host on 3 and 9, and a file on 4. One digit: sh knows no more.
fn leaking(ctx: &Ctx, words: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec timeout 20 \"$@\" 3</bin 4</etc/passwd 9</bin", "sh"]).arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(words).stdin(Stdio::null());
    command
}

/// CVE-2024-21626: a directory of the host left open by the runtime or its caller.
fn the_working_directory_cannot_leave_through_a_leaked_file(ctx: &Ctx) -> Result {
    for number in 3..20 {
        let mut bundle = ctx.shell("pwd; ls")?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}"))).write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let words = ["run", "--bundle", path(&bundle.dir), &container.id];
        let output = ctx.finish(leaking(ctx, &words))?;
        check!(output.code != 0, "cwd /proc/self/fd/{number} is accepted: {}", output.stdout());
    }
    Ok(())
}

/// The same way out for exec: by its working directory, and by its program's path.
fn exec_cannot_leave_through_a_leaked_file(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let output = ctx.finish(leaking(ctx, &["exec", "--cwd", &cwd, &container.id, "/bin/pwd"]))?;
        // Where it is the container's own root that is still open, nothing is gained.
        let inside = output.code != 0 || output.stdout() == "/\n";
        check!(inside, "exec in {cwd} is accepted: {}", output.stdout());
        let program = format!("/proc/self/fd/{number}/true");
        let output = ctx.finish(leaking(ctx, &["exec", &container.id, &program]))?;
        check!(output.code != 0, "exec of {program} is accepted");
    }
    Ok(())
}

/// CVE-2019-5736: a container with all capabilities of a bundle's list holds on to what an exec runs before it is the program,
/// and to /proc/self/exe as the program itself, and writes to it once nobody runs it any more.
fn the_runtime_binary_cannot_be_written_from_within(ctx: &Ctx) -> Result {
    let copy = ctx.dir.join("runtime");
    fs::copy(&ctx.runtime, &copy)?;
    let before = fs::read(&copy)?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "overwrite"]).set("/root/readonly", json!(false));
    // Its own copy: all root file systems share the file, and an attack that succeeds must not end the other tests.
    let (shared, own) = (bundle.dir.join("rootfs/bin/busybox"), bundle.dir.join("busybox"));
    fs::copy(&shared, &own)?;
    fs::rename(&own, &shared)?;
    bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    let container = ctx.started(&bundle)?;
    container.prints("watching")?;
    // All of it in a shell: a program that runs the copy holds off whoever would write to it.
    let state = path(&ctx.dir).to_owned() + "/state";
    let script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do for p in /bin/true /proc/self/exe; do \
                  \"$1\" --root \"$2\" exec \"$3\" $p --version; done; sleep 0.02; done; sleep 0.3";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(&copy).args([&state, &container.id]).stdin(Stdio::null());
    ctx.finish(command)?;
    let said = container.stdout();
    check!(said.contains(" runs "), "the attacker never saw the runtime, so nothing is proved");
    check!(fs::read(&copy)? == before && !said.contains("written"), "the runtime's file was changed: {said}");
    Ok(())
}

/// The same in time: the program that can be written to begins again before it has done anything else. (A build without
/// optimization does so later.)
fn the_copy_is_begun_before_the_c_library(ctx: &Ctx) -> Result {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    }
    let (copy, calls) = (ctx.dir.join("runtime"), ctx.dir.join("calls"));
    fs::copy(&ctx.runtime, &copy)?;
    // The second as on a read-only mount, which others can make writable.
    let read_only = ["-e", "inject=faccessat2:error=EROFS:when=1"];
    for (how, seen) in [(&[][..], &["faccessat2"][..]), (&read_only[..], &["faccessat2", "statx"][..])] {
        let mut command = Command::new("/usr/bin/strace");
        command.args(["-qqq", "-o", path(&calls)]).args(how).arg(&copy).args(["create", "--help"]);
        command.stdin(Stdio::null());
        ctx.finish(command)?.succeeded("create --help")?;
        let text = fs::read_to_string(&calls)?;
        let wanted = [&["execve", "openat"], seen, &["open_tree", "mount_setattr", "execveat"]].concat();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split('(').next()).take(wanted.len()).collect();
        check_eq!(names, wanted, "what the program does first");
        check_eq!(text.matches("execveat(").count(), 1, "how often it begins again");
    }
    Ok(())
}

/// CVE-2016-9962: a process of the same user looks at each process that enters, from its first moment to its exec; strace
/// makes some of the moments longer. What may be looked at can be read, traced and made to hand out its descriptors.
fn an_exec_is_out_of_reach_until_it_is_the_program(ctx: &Ctx) -> Result {
    for apart in [false, true] {
        let mut bundle = ctx.bundle()?;
        if apart {
            bundle.user_namespace(100_000, 65536)?;
        }
        bundle.args(&["/probe", "spy"]);
        let container = ctx.started(&bundle)?;
        container.prints("watching")?;
        for _ in 0..20 {
            ctx.exec(&container, &[], &["/bin/true"])?.succeeded("exec")?;
        }
        for call in ["umask", "capset", "setns", "setresuid,setuid", "faccessat2,faccessat", "execve"] {
            let delay = format!("inject={call}:delay_enter=4000:delay_exit=4000");
            let flags = ["-f", "-e", &format!("trace={call}"), "-e", &delay];
            let command = ctx.traced(&flags, &["exec", &container.id, "/bin/true"]);
            ctx.finish(command)?.succeeded(call)?;
        }
        check_eq!(container.stdout(), "watching\n", "what a process within saw (user namespace: {apart})");
    }
    Ok(())
}

/// CVE-2024-21626 once more, from outside: whatever is resolved between the change of root and the start, no directory that a
/// link of /proc/self/fd could lead out through is open.
fn init_holds_no_directory_of_the_host_while_it_waits(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let words = ["create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file), &container.id];
    ctx.finish(leaking(ctx, &words))?.succeeded("create")?;
    let pid = fs::read_to_string(&pid_file)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let is_directory = fs::metadata(entry.path()).is_ok_and(|data| data.is_dir());
        let what = fs::read_link(entry.path())?;
        check!(!is_directory, "init has the directory {} open", what.display());
        check!(what.to_str() != Some("/etc/passwd"), "init has its caller's file open");
    }
    Ok(())
}

/// What is opened while a standard stream is closed takes its number: a file of the host would be the container's stream.
fn a_closed_stream_is_no_file_of_the_runtime(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec timeout 20 \"$@\" <&- >&- 2>&-", "sh"]).arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(["create", "--bundle", path(&bundle.dir)]);
    command.args(["--pid-file", path(&pid_file), &container.id]);
    ctx.finish(command)?.succeeded("create")?;
    let pid = fs::read_to_string(&pid_file)?;
    for stream in 0..3 {
        let what = fs::read_link(format!("/proc/{pid}/fd/{stream}"))?;
        check_eq!(what.to_str(), Some("/dev/null"), "descriptor {stream}");
    }
    Ok(())
}

/// An answer that nobody reads is given all the same; who asked hears so by the exit code.
fn a_reader_that_went_away_is_no_signal(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let (answer, reader) = std::os::unix::net::UnixStream::pair()?;
    drop(reader);
    let mut command = ctx.command(&["state", &container.id]);
    let status = command.stdout(std::os::fd::OwnedFd::from(answer)).status()?;
    check_eq!(status.code(), Some(0), "the end of state: {status}");
    Ok(())
}

/// The pid of an init that is gone becomes another's, who is not to be killed, frozen, entered or taken for it.
fn a_process_with_inits_old_pid_is_left_alone(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    container.stop()?;
    let mut decoy = with_pid(container.pid)?;
    let id = container.id.as_str();
    check_eq!(container.status()?, "stopped", "status");
    let commands: [&[&str]; 8] = [
        &["kill", id, "KILL"],
        &["kill", "--all", id, "KILL"],
        &["start", id],
        &["exec", id, "/bin/true"],
        &["pause", id],
        &["ps", id],
        &["delete", id],
        &["delete", "--force", id],
    ];
    let mut ended = None;
    for words in commands {
        let output = ctx.call(words)?;
        let reached = matches!(words[0], "start" | "exec") && output.code == 0;
        if reached || decoy.try_wait()?.is_some() {
            ended = ended.or(Some(words[0]));
        }
    }
    decoy.kill()?;
    decoy.wait()?;
    check!(ended.is_none(), "{} took another process for init", ended.unwrap_or_default());
    Ok(())
}

/// A process that sleeps under this pid: whoever else is quicker gets it for a moment.
fn with_pid(pid: u32) -> Result<Child> {
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let mut child = Command::new("/bin/sleep").arg("60").spawn()?;
        if child.id() == pid {
            return Ok(child);
        }
        child.kill()?;
        child.wait()?;
    }
    Err(format!("pid {pid} is never free").into())
}
