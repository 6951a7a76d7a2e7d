//! What systemd agrees with its services on: readiness by sd_notify(3), sockets by sd_listen_fds(3).

use std::{os::unix::net::UnixDatagram, process::Stdio, time::Duration};

use serde_json::json;

use crate::harness::{Bundle, Container, Ctx, Result, check, check_eq, context::path, tests};

tests! {
    start_returns_when_the_container_is_ready known "crun": "1.21 is built without systemd, or names no pid";
    run_detached_returns_when_the_container_is_ready known "crun": "1.21 is built without systemd, or names no pid";
    the_end_of_the_container_ends_the_wait;
    in_a_user_namespace_too known "crun": "1.21 is built without systemd, or names no pid";
    sockets_of_the_caller_are_passed_on;
    sockets_without_a_process_are_passed_on known "runc": "wants LISTEN_PID";
    sockets_of_another_process_are_not known "crun": "does not ask whose they are";
}

/// The service manager's side.
fn manager(ctx: &Ctx) -> Result<UnixDatagram> {
    let socket = UnixDatagram::bind(ctx.dir.join("manager"))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket)
}

fn ready(ctx: &Ctx) -> Result<Bundle> {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "notify", "STATUS=soon\nREADY=1\n"]);
    // For the mount point.
    bundle.set("/root/readonly", json!(false));
    Ok(bundle)
}

/// Everything up to the end of the barrier, which closing the descriptor that comes with it is.
fn heard(manager: &UnixDatagram) -> Result<String> {
    let mut all = String::new();
    let mut buffer = [0u8; 4096];
    while !(all.contains("READY=1") && all.contains("MAINPID=")) {
        let length = manager.recv(&mut buffer)?;
        all += &String::from_utf8_lossy(&buffer[..length]);
        all.push('\n');
    }
    Ok(all)
}

/// Reads to the end what comes after, so that whoever waits for the manager need not.
fn drain(manager: &UnixDatagram) {
    let _ = manager.set_read_timeout(Some(Duration::from_millis(200)));
    while manager.recv(&mut [0; 64]).is_ok() {}
}

fn told(manager: &UnixDatagram, pid: u32) -> Result {
    let all = heard(manager)?;
    check!(
        all.lines().any(|line| line == format!("MAINPID={pid}")),
        "the manager heard {all:?}, not of {pid}"
    );
    check!(!all.contains("STATUS"), "the manager heard what is not about readiness: {all:?}");
    drain(manager);
    Ok(())
}

/// A command with the variable, which waits for the container to be ready.
fn waits(ctx: &Ctx, words: &[&str]) -> Result<std::process::Child> {
    let mut command = ctx.command(words);
    command.env("NOTIFY_SOCKET", ctx.dir.join("manager")).stdout(Stdio::null()).stderr(Stdio::inherit());
    Ok(command.spawn()?)
}

fn started(ctx: &Ctx, bundle: &Bundle) -> Result {
    let manager = manager(ctx)?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    check!(
        waits(ctx, &["create", "--bundle", path(&bundle.dir), &container.id])?.wait()?.success(),
        "create failed"
    );
    let mut start = waits(ctx, &["start", &container.id])?;
    let pid = container.state()?["pid"].as_u64().unwrap_or(0);
    told(&manager, u32::try_from(pid)?)?;
    check!(start.wait()?.success(), "start failed");
    Ok(())
}

fn start_returns_when_the_container_is_ready(ctx: &Ctx) -> Result {
    started(ctx, &ready(ctx)?)
}

fn in_a_user_namespace_too(ctx: &Ctx) -> Result {
    let mut bundle = ready(ctx)?;
    bundle.user_namespace(100_000, 65536)?;
    // Neither root nor the owner of anything.
    bundle.set("/process/user", json!({"uid": 7, "gid": 7}));
    started(ctx, &bundle)
}

fn run_detached_returns_when_the_container_is_ready(ctx: &Ctx) -> Result {
    let manager = manager(ctx)?;
    let bundle = ready(ctx)?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut run = waits(ctx, &["run", "--detach", "--bundle", path(&bundle.dir), &container.id])?;
    let all = heard(&manager)?;
    drain(&manager);
    check!(run.wait()?.success(), "run failed");
    let pid = container.state()?["pid"].to_string();
    check!(all.contains(&format!("MAINPID={pid}")), "the manager heard {all:?}, not of {pid}");
    Ok(())
}

fn the_end_of_the_container_ends_the_wait(ctx: &Ctx) -> Result {
    let _manager = manager(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]).set("/root/readonly", json!(false)).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut run = waits(ctx, &["run", "--detach", "--bundle", path(&bundle.dir), &container.id])?;
    check!(run.wait()?.success(), "run failed");
    Ok(())
}

/// Called as systemd calls it: the socket stands at 3, and the variables name this very process.
fn sockets(ctx: &Ctx, pid: Option<&str>) -> Result<serde_json::Value> {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report"]).write()?;
    let pid = pid.map_or(String::new(), |pid| format!("LISTEN_PID={pid} "));
    let script = format!("exec 3</etc/hostname; unset LISTEN_PID; LISTEN_FDS=1 {pid}exec \"$@\"");
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(&ctx.runtime).arg("--root").arg(ctx.state_root());
    command.args(["run", "--bundle", path(&bundle.dir), &container.id]).stdin(Stdio::null());
    let output = ctx.finish(command)?.succeeded("run")?;
    Ok(serde_json::from_str(&output.stdout())?)
}

fn sockets_of_the_caller_are_passed_on(ctx: &Ctx) -> Result {
    passed_on(&sockets(ctx, Some("$$"))?)
}

/// By a caller that is no service manager, and means the runtime all the same.
fn sockets_without_a_process_are_passed_on(ctx: &Ctx) -> Result {
    passed_on(&sockets(ctx, None)?)
}

fn passed_on(report: &serde_json::Value) -> Result {
    check_eq!(report["env"]["LISTEN_FDS"], json!("1"), "LISTEN_FDS");
    check_eq!(report["env"]["LISTEN_PID"], json!("1"), "LISTEN_PID");
    check!(report["fds"].to_string().contains("\"3\""), "descriptors: {}", report["fds"]);
    Ok(())
}

fn sockets_of_another_process_are_not(ctx: &Ctx) -> Result {
    let report = sockets(ctx, Some("1"))?;
    check!(report["env"]["LISTEN_FDS"].is_null(), "LISTEN_FDS is {}", report["env"]["LISTEN_FDS"]);
    check!(!report["fds"].to_string().contains("\"3\""), "descriptors: {}", report["fds"]);
    Ok(())
}
