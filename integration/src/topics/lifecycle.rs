//! create, start, state, kill, delete and run, with their exit statuses (runtime.md, "Lifecycle" and "Operations").

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::PermissionsExt, unix::net::UnixListener},
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    Container, Ctx, Need, Result, check, check_eq,
    container::until,
    context::{path, tracers_end},
    look,
    socket::sent_to,
    tests,
};

tests! {
    create_start_kill_delete;
    run_returns_the_exit_status;
    run_returns_128_plus_the_signal;
    run_removes_the_container;
    run_keep_leaves_it_stopped [Need::Runtime("coracle")];
    run_detached_returns_at_once;
    run_forwards_signals;
    run_passes_standard_input_and_output;
    pid_file_is_the_bare_number;
    a_pidfd_goes_to_the_socket known "runc": "before 1.2 has no such option" known "crun": "has no such option";
    a_pidfd_goes_to_the_socket_of_the_annotation known "runc": "does not know it";
    create_runs_nothing_of_the_user;
    without_a_process_it_is_created_and_cannot_start
        known "runc": "create wants a process" known "crun": "create wants a process";
    what_other_platforms_have_is_passed_over;
    start_twice_is_refused;
    start_of_a_stopped_container_is_refused;
    a_start_that_fails_leaves_it_stopped [Need::File("/usr/bin/strace")]
        known "runc": "start ends before the failure" known "crun": "start ends before the failure";
    kill_takes_every_spelling_of_a_signal;
    kill_without_a_signal_is_sigterm;
    kill_reaches_a_created_container;
    kill_without_a_signal_reaches_a_created_container known "crun": "init ignores it";
    kill_of_a_stopped_container_is_refused;
    kill_all_reaches_every_process_without_a_pid_namespace;
    delete_ends_what_init_left_without_a_pid_namespace known "runc": "leaves the group";
    delete_of_a_running_container_is_refused;
    delete_force_ends_a_running_container;
    delete_force_of_a_missing_container_is_nothing
        known "crun": "1.8 calls it an error";
    delete_of_a_missing_container_is_refused;
    delete_removes_the_cgroup;
    init_exits_to_the_caller;
    the_runtime_does_not_stay;
    killing_the_runtime_stops_nothing;
    a_paused_container_does_nothing_until_it_is_resumed;
    id_is_free_again_after_delete;
    thirty_containers_leave_nothing;
}

fn create_start_kill_delete(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    check_eq!(container.status()?, "created", "status after create");
    container.start()?;
    check_eq!(container.status()?, "running", "status after start");
    container.kill("KILL")?;
    check_eq!(container.wait()?, 128 + 9, "the end of the init process");
    check_eq!(container.status()?, "stopped", "status after kill");
    container.delete()?;
    check!(ctx.call(&["state", &container.id])?.code != 0, "state of a deleted container succeeds");
    Ok(())
}

fn a_paused_container_does_nothing_until_it_is_resumed(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("while :; do echo on; sleep 0.02; done")?)?;
    container.prints("on")?;
    let call = |word: &str| ctx.call(&[word, &container.id]);
    check!(call("resume")?.code != 0, "a running container was resumed");
    call("pause")?.succeeded("pause")?;
    check_eq!(container.status()?, "paused", "status after pause");
    let before = container.stdout().len();
    std::thread::sleep(Duration::from_millis(300));
    check_eq!(container.stdout().len(), before, "what it had printed after pause, and later");
    check!(call("pause")?.code != 0, "a paused container was paused again");
    call("resume")?.succeeded("resume")?;
    check_eq!(container.status()?, "running", "status after resume");
    until("it goes on", || Ok((container.stdout().len() > before).then_some(())))
}

fn run_returns_the_exit_status(ctx: &Ctx) -> Result {
    for code in [0, 1, 7, 42, 126, 127, 255] {
        let mut bundle = ctx.bundle()?;
        bundle.args(&["/probe", "exit", &code.to_string()]);
        check_eq!(ctx.run(&bundle)?.code, code, "exit status of run");
    }
    Ok(())
}

/// `run` in the background, until `state` says running; `look` acts; then its exit status.
fn run_and(ctx: &Ctx, script: &str, act: impl FnOnce(&Container, u32) -> Result) -> Result<i32> {
    let bundle = ctx.shell(script)?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut child = ctx
        .command(&["run", "--bundle", path(&bundle.dir), &container.id])
        .stdout(fs::File::create(ctx.dir.join("out"))?)
        .spawn()?;
    until("the workload says ready", || {
        Ok(fs::read_to_string(ctx.dir.join("out"))?.contains("ready").then_some(()))
    })?;
    let acted = act(&container, child.id());
    if acted.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    acted?;
    status.code().ok_or_else(|| format!("run itself ended by a signal: {status}").into())
}

fn run_returns_128_plus_the_signal(ctx: &Ctx) -> Result {
    let code = run_and(ctx, "echo ready; sleep 100", |container, _| container.kill("KILL"))?;
    check_eq!(code, 137, "exit status of run whose workload was killed");
    Ok(())
}

fn run_removes_the_container(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    ctx.call(&["run", "--bundle", path(&bundle.dir), &container.id])?.succeeded("run")?;
    check!(ctx.call(&["state", &container.id])?.code != 0, "run left its container");
    Ok(())
}

fn run_keep_leaves_it_stopped(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("exit 3")?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    check_eq!(
        ctx.call(&["run", "--keep", "--bundle", path(&bundle.dir), &container.id])?.code,
        3,
        "run --keep"
    );
    check_eq!(container.status()?, "stopped", "status after run --keep");
    container.delete()
}

fn run_detached_returns_at_once(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let words =
        ["run", "--detach", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file), &container.id];
    ctx.call(&words)?.succeeded("run --detach")?;
    container.pid = fs::read_to_string(&pid_file)?.parse()?;
    check_eq!(container.status()?, "running", "status after run --detach");
    container.stop()
}

fn run_forwards_signals(ctx: &Ctx) -> Result {
    let script = "trap 'exit 5' TERM; trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    for (signal, want) in [("TERM", 5), ("USR1", 6)] {
        let code = run_and(ctx, script, |_, runtime| {
            let status =
                std::process::Command::new("kill").args(["-s", signal, &runtime.to_string()]).status()?;
            check!(status.success(), "kill failed");
            Ok(())
        })?;
        check_eq!(code, want, "exit status after SIG{signal} to the runtime");
    }
    Ok(())
}

fn run_passes_standard_input_and_output(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("cat; echo to-stderr >&2")?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    fs::write(ctx.dir.join("in"), "from-stdin")?;
    let mut command = ctx.command(&["run", "--bundle", path(&bundle.dir), &container.id]);
    command.stdin(fs::File::open(ctx.dir.join("in"))?);
    let output = ctx.finish(command)?.succeeded("run")?;
    check_eq!(output.stdout(), "from-stdin", "standard output");
    check_eq!(output.stderr(), "to-stderr\n", "standard error");
    Ok(())
}

fn pid_file_is_the_bare_number(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    // Go's Atoi, which containerd reads it with, takes neither newline nor blank.
    let text = fs::read(ctx.dir.join(format!("{}.pid", container.id)))?;
    check!(!text.is_empty() && text.iter().all(u8::is_ascii_digit), "pid file is {text:?}");
    check_eq!(container.state()?["pid"], json!(container.pid), "pid of state and of the pid file");
    check_eq!(
        look::status(container.pid, "PPid")?,
        std::process::id().to_string(),
        "parent of the init process"
    );
    Ok(())
}

/// The process that a descriptor sent to the socket stands for: pidfd_open(2), and `Pid` in proc_pid_fdinfo(5).
fn told_to(listener: &UnixListener) -> Result<String> {
    let (_, got) = sent_to(listener)?;
    check_eq!(got.len(), 1, "descriptors in the message");
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", got[0].as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Ok(pid.ok_or_else(|| format!("no pidfd: {info}"))?.trim().to_owned())
}

fn a_pidfd_goes_to_the_socket(ctx: &Ctx) -> Result {
    let socket = ctx.dir.join("s");
    let listener = UnixListener::bind(&socket)?;
    let container = ctx.create_with(&["--pidfd-socket", path(&socket)], &ctx.waiting()?)?;
    check_eq!(told_to(&listener)?, container.pid.to_string(), "the process of create's");
    container.start()?;
    let pid_file = ctx.dir.join("pid");
    let flags = ["--detach", "--pid-file", path(&pid_file), "--pidfd-socket", path(&socket)];
    ctx.exec(&container, &flags, &["/bin/sleep", "1000"])?.succeeded("exec")?;
    let (told, pid) = (told_to(&listener), fs::read_to_string(&pid_file)?);
    look::kill_and_reap(pid.parse()?);
    check_eq!(told?, pid, "the process of exec's");
    Ok(())
}

fn a_pidfd_goes_to_the_socket_of_the_annotation(ctx: &Ctx) -> Result {
    let socket = ctx.dir.join("s");
    let listener = UnixListener::bind(&socket)?;
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"run.oci.pidfd_receiver": path(&socket)}));
    let container = ctx.create(&bundle)?;
    check_eq!(told_to(&listener)?, container.pid.to_string(), "the process");
    Ok(())
}

fn create_runs_nothing_of_the_user(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("echo ran")?;
    bundle.set("/root/readonly", json!(false));
    let container = ctx.create(&bundle)?;
    std::thread::sleep(Duration::from_millis(200));
    check_eq!(container.stdout(), "", "output before start");
    container.start()?;
    container.prints("ran")?;
    check_eq!(container.wait()?, 0, "exit status");
    Ok(())
}

/// config.md, Process: REQUIRED when start is called. All else that config.json asks for is there before (runtime.md, Create).
fn without_a_process_it_is_created_and_cannot_start(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.remove("/process");
    let container = ctx.create(&bundle)?;
    check_eq!(container.status()?, "created", "status after create");
    let mounts = look::mounts(container.pid)?;
    check!(mounts.iter().any(|mount| mount.point == "/dev/shm"), "mounts of the container");
    check_eq!(look::status(container.pid, "CapBnd")?, "0000000000000000", "bounding set of what waits");
    check_eq!(look::status(container.pid, "CapPrm")?, "0000000000000000", "permitted set of what waits");
    let output = ctx.call(&["start", &container.id])?;
    check!(output.code != 0, "start succeeds");
    check!(output.stderr().contains("process: is missing"), "message: {}", output.stderr());
    check_eq!(container.status()?, "created", "status after start");
    container.kill("KILL")?;
    container.wait()?;
    container.delete()?;
    // run starts what it creates: it is refused before it creates.
    let output = ctx.run(&bundle)?;
    check!(output.code != 0, "run succeeds");
    check!(output.stderr().contains("process: is missing"), "message: {}", output.stderr());
    Ok(())
}

/// config.md, Extensibility, Platform-specific configuration.
fn what_other_platforms_have_is_passed_over(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("echo on")?;
    for platform in ["freebsd", "solaris", "vm", "windows", "zos"] {
        bundle.set(&format!("/{platform}"), json!({}));
    }
    bundle.set("/vm/kernel/path", json!("/boot/kernel"));
    bundle.set("/windows/layerFolders", json!(["C:\\layer"]));
    bundle.set("/process/commandLine", json!("cmd /c exit")).set("/process/user/username", json!("somebody"));
    check_eq!(ctx.stdout(&bundle)?, "on", "output");
    Ok(())
}

fn start_twice_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let again = ctx.call(&["start", &container.id])?;
    check!(again.code != 0, "start of a running container succeeds");
    check_eq!(container.status()?, "running", "status after the refused start");
    Ok(())
}

fn start_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("true")?)?;
    container.wait()?;
    check!(ctx.call(&["start", &container.id])?.code != 0, "start of a stopped container succeeds");
    Ok(())
}

/// However long its init takes to end.
fn a_start_that_fails_leaves_it_stopped(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::write(bundle.rootfs().join("program"), "no program")?;
    fs::set_permissions(bundle.rootfs().join("program"), fs::Permissions::from_mode(0o755))?;
    bundle.args(&["/program"]).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let slow = ["-D", "-f", "-e", "inject=exit_group:delay_enter=1000000"];
    let words = ["create", "--bundle", path(&bundle.dir), &container.id];
    ctx.finish(ctx.traced(&slow, &words))?.succeeded("create")?;
    check!(ctx.call(&["start", &container.id])?.code != 0, "a file that is no program was started");
    check_eq!(container.status()?, "stopped", "status at once");
    container.delete()?;
    tracers_end()
}

fn kill_takes_every_spelling_of_a_signal(ctx: &Ctx) -> Result {
    for spelling in ["10", "USR1", "SIGUSR1"] {
        let container =
            ctx.started(&ctx.shell("trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")?)?;
        container.prints("ready")?;
        container.kill(spelling)?;
        check_eq!(container.wait()?, 9, "exit status after kill {spelling}");
    }
    Ok(())
}

fn kill_without_a_signal_is_sigterm(ctx: &Ctx) -> Result {
    let container =
        ctx.started(&ctx.shell("trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done")?)?;
    container.prints("ready")?;
    ctx.call(&["kill", &container.id])?.succeeded("kill")?;
    check_eq!(container.wait()?, 8, "exit status");
    Ok(())
}

fn kill_reaches_a_created_container(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    container.stop()?;
    check_eq!(container.status()?, "stopped", "status of a container killed before start");
    container.delete()
}

/// As process 1 of its namespace it would ignore a signal that it has no handler for: pid_namespaces(7).
fn kill_without_a_signal_reaches_a_created_container(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    ctx.call(&["kill", &container.id])?.succeeded("kill")?;
    container.wait()?;
    check_eq!(container.status()?, "stopped", "status of a container killed before start");
    container.delete()
}

fn kill_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("true")?)?;
    container.wait()?;
    let output = ctx.call(&["kill", &container.id, "KILL"])?;
    check!(output.code != 0, "kill of a stopped container succeeds");
    let message = output.stderr();
    // containerd takes these for "already dead"; anything else is an error to it.
    let phrases = ["container not running", "process already finished", "no such process", "No such process"];
    check!(
        phrases.iter().any(|phrase| message.contains(phrase)),
        "the message is not one engines know: {message}"
    );
    Ok(())
}

fn kill_all_reaches_every_process_without_a_pid_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("trap '' TERM; sleep 1000 & echo ready; wait; sleep 1000")?;
    bundle.without_namespace("pid");
    let container = ctx.started(&bundle)?;
    container.prints("ready")?;
    ctx.call(&["kill", "--all", &container.id, "KILL"])?.succeeded("kill --all")?;
    check_eq!(container.wait()?, 137, "the end of init");
    children_are_killed()
}

/// Orphans come to this process; each must have been killed.
fn children_are_killed() -> Result {
    until("the child is killed", || {
        let left = look::children(std::process::id());
        for pid in &left {
            if look::is_zombie(*pid) {
                look::kill_and_reap(*pid);
            }
        }
        Ok(left.is_empty().then_some(()))
    })
}

fn delete_ends_what_init_left_without_a_pid_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("sleep 1000 &")?;
    bundle.without_namespace("pid");
    let container = ctx.started(&bundle)?;
    check_eq!(container.wait()?, 0, "the end of init");
    check!(!look::children(std::process::id()).is_empty(), "the child of init is gone with it");
    container.delete()?;
    children_are_killed()
}

fn delete_of_a_running_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let output = ctx.call(&["delete", &container.id])?;
    check!(output.code != 0, "delete of a running container succeeds");
    check_eq!(container.status()?, "running", "status after the refused delete");
    Ok(())
}

fn delete_force_ends_a_running_container(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete --force")?;
    check_eq!(container.wait()?, 137, "the end of the init process");
    check!(ctx.call(&["state", &container.id])?.code != 0, "state of a deleted container succeeds");
    Ok(())
}

fn delete_force_of_a_missing_container_is_nothing(ctx: &Ctx) -> Result {
    let output = ctx.call(&["delete", "--force", "never-was"])?.succeeded("delete --force of nothing")?;
    check_eq!(output.stderr(), "", "words on stderr");
    Ok(())
}

fn delete_of_a_missing_container_is_refused(ctx: &Ctx) -> Result {
    let output = ctx.call(&["delete", "never-was"])?;
    check!(output.code != 0, "delete of nothing succeeds");
    let message = output.stderr();
    check!(message.contains("does not exist") || message.contains("No such file"), "message: {message}");
    Ok(())
}

fn delete_removes_the_cgroup(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let group = look::cgroup(container.pid, "pids")?;
    check!(group.is_dir(), "the container's cgroup {} is not there", group.display());
    container.stop()?;
    container.delete()?;
    check!(!group.exists(), "cgroup {} is left after delete", group.display());
    Ok(())
}

fn init_exits_to_the_caller(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("exit 33")?)?;
    check_eq!(container.wait()?, 33, "exit status as the subreaper sees it");
    Ok(())
}

fn the_runtime_does_not_stay(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(look::children(std::process::id()), vec![container.pid], "processes between commands");
    Ok(())
}

/// Those processes of the runtime that do stay, as long as the caller of `run`, `exec` and `events` wants to wait.
fn killing_the_runtime_stops_nothing(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let spawn = |words: &[&str]| {
        ctx.command(words).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()
    };
    let mut commands = vec![spawn(&["run", "--bundle", path(&bundle.dir), &container.id])?];
    let pid = until("it runs", || {
        let state = ctx.call(&["state", &container.id])?;
        let state: serde_json::Value = serde_json::from_str(&state.stdout()).unwrap_or_default();
        Ok((state["status"] == "running").then(|| state["pid"].as_u64()).flatten())
    })?;
    commands.push(spawn(&["exec", &container.id, "/probe", "wait"])?);
    let exec = until("exec runs", || {
        Ok(look::children(commands[1].id())
            .into_iter()
            .find(|p| look::command_line(*p).contains(") /probe ")))
    })?;
    if ctx.has_command("events") {
        commands.push(spawn(&["events", &container.id])?);
    }
    for command in &mut commands {
        command.kill()?;
        command.wait()?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let status = container.status();
    let workload = look::command_line(u32::try_from(pid)?);
    let listed = ctx.call(&["ps", "--format", "json", &container.id]);
    // It is this test's child now: until somebody asks how it ended, the namespace cannot end.
    look::kill_and_reap(exec);
    check_eq!(status?, "running", "status after the end of every process of the runtime");
    check!(workload.contains("/probe"), "the workload is now {workload:?}");
    let listed: Vec<u32> = serde_json::from_str(&listed?.succeeded("ps")?.stdout())?;
    check_eq!(listed.len(), 2, "processes of the container, that of exec among them");
    Ok(())
}

fn id_is_free_again_after_delete(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    bundle.write()?;
    let id = ctx.id();
    for _ in 0..3 {
        let container = Container::named(ctx, id.clone(), &bundle.dir);
        ctx.call(&["run", "--bundle", path(&bundle.dir), &container.id])?.succeeded("run")?;
    }
    Ok(())
}

fn thirty_containers_leave_nothing(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    for _ in 0..30 {
        check_eq!(ctx.run(&bundle)?.code, 0, "run");
    }
    Ok(())
}
