//! Syscalls that an agent outside decides on (config-linux.md, "listenerPath", "The Container Process State";
//! seccomp_unotify(2)). The test is the agent: it gets the listener, and lets it go; the kernel then answers ENOSYS.

use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, context::path, look, socket::sent_to, tests,
};

tests! {
    create_sends_the_listener;
    exec_sends_one_of_its_own [Need::Command("exec")];
    without_no_new_privs_too known "runc": "before 1.2 takes no flags";
    sendmsg_itself_can_be_notified;
    what_the_agent_does_not_decide_the_profile_does;
    without_an_agent_nothing_is_created;
    what_cannot_work_is_refused known "crun": "words of its own";
    without_a_notified_call_the_path_is_ignored known "crun": "connects all the same";
}

/// A socket at a short path: an address has 108 bytes.
struct Agent(UnixListener, PathBuf);

impl Agent {
    fn new() -> Result<Agent> {
        let socket = std::env::temp_dir().join(format!("agent-{}", std::process::id()));
        let _ = fs::remove_file(&socket);
        Ok(Agent(UnixListener::bind(&socket)?, socket))
    }

    /// The container process state, and the one descriptor, which must be a listener.
    fn told(&self) -> Result<(Value, OwnedFd)> {
        let (bytes, mut descriptors) = sent_to(&self.0)?;
        check_eq!(descriptors.len(), 1, "descriptors in the message");
        let listener = descriptors.pop().ok_or("no descriptor")?;
        let what = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()))?;
        check!(what.display().to_string().contains("seccomp notify"), "the descriptor is {what:?}");
        Ok((serde_json::from_slice(&bytes)?, listener))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
    }
}

/// A workload that makes a directory, which the agent is asked about, and prints the errno.
fn asking(ctx: &Ctx, agent: &Agent, names: &[&str]) -> Result<Bundle> {
    let mut bundle = ctx.bundle()?;
    bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path(&agent.1), "listenerMetadata": "opaque",
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
        }),
    );
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]);
    bundle.args(&["/probe", "mkdir", "/tmp/x"]);
    Ok(bundle)
}

/// A container of which the agent was told before it was started.
fn started<'a>(ctx: &'a Ctx, bundle: &Bundle, agent: &Agent) -> Result<(Container<'a>, Value, OwnedFd)> {
    let container = ctx.create(bundle)?;
    let (state, listener) = agent.told()?;
    container.start()?;
    Ok((container, state, listener))
}

fn create_sends_the_listener(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let bundle = asking(ctx, &agent, &["mkdir", "mkdirat"])?;
    let (container, state, listener) = started(ctx, &bundle, &agent)?;
    check_eq!(state["fds"], json!(["seccompFd"]), "fds");
    check_eq!(state["metadata"], json!("opaque"), "metadata");
    check_eq!(state["pid"], json!(container.pid), "pid");
    check_eq!(state["state"]["id"], json!(container.id), "state.id");
    check_eq!(state["state"]["pid"], json!(container.pid), "state.pid");
    check_eq!(state["state"]["status"], json!("creating"), "state.status");
    check!(state["ociVersion"].is_string() && state["state"]["bundle"].is_string(), "{state}");
    waits(&container, &listener)?;
    drop(listener);
    container.prints("38")
}

/// The workload stands in the call until the agent answers; the listener tells that there is something to answer.
fn waits(container: &Container, listener: &OwnedFd) -> Result {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    check_eq!(poll(&mut wanted, PollTimeout::from(5000u16))?, 1, "notifications to be read");
    check_eq!(container.stdout(), "", "what the workload printed before the answer");
    check_eq!(look::status(container.pid, "Seccomp")?, "2", "seccomp mode");
    Ok(())
}

fn exec_sends_one_of_its_own(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let mut bundle = asking(ctx, &agent, &["mkdir", "mkdirat"])?;
    bundle.args(&["/probe", "wait"]);
    let (container, _, first) = started(ctx, &bundle, &agent)?;
    let out = ctx.dir.join("exec-out");
    let mut exec = ctx.command(&["exec", &container.id, "/probe", "mkdir", "/tmp/y"]);
    let mut exec = exec.stdout(fs::File::create(&out)?).spawn()?;
    let (state, listener) = agent.told()?;
    check!(state["pid"] != json!(container.pid), "the pid is init's: {state}");
    check_eq!(state["state"]["pid"], json!(container.pid), "state.pid");
    check_eq!(state["state"]["status"], json!("running"), "state.status");
    drop(listener);
    exec.wait()?;
    check_eq!(fs::read_to_string(&out)?.trim(), "38", "errno of mkdir (ENOSYS)");
    drop(first);
    Ok(())
}

fn without_no_new_privs_too(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let mut bundle = asking(ctx, &agent, &["mkdir", "mkdirat"])?;
    bundle.set("/process/noNewPrivileges", json!(false));
    bundle.set(
        "/linux/seccomp/flags",
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]),
    );
    let (container, _, listener) = started(ctx, &bundle, &agent)?;
    check_eq!(look::status(container.pid, "NoNewPrivs")?, "0", "no_new_privs");
    drop(listener);
    container.prints("38")
}

fn sendmsg_itself_can_be_notified(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let bundle = asking(ctx, &agent, &["mkdir", "mkdirat", "sendmsg"])?;
    let (container, _, listener) = started(ctx, &bundle, &agent)?;
    drop(listener);
    container.prints("38")
}

fn what_the_agent_does_not_decide_the_profile_does(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let mut bundle = asking(ctx, &agent, &["swapon"])?;
    bundle.push(
        "/linux/seccomp/syscalls",
        json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}),
    );
    let (container, _, listener) = started(ctx, &bundle, &agent)?;
    drop(listener);
    container.prints("77")
}

fn without_an_agent_nothing_is_created(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let bundle = asking(ctx, &agent, &["mkdir", "mkdirat"])?;
    drop(agent);
    ctx.refused(&bundle, &["seccomp"]).map(drop)
}

fn what_cannot_work_is_refused(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let bundle = asking(ctx, &agent, &["write"])?;
    ctx.refused(&bundle, &["SCMP_ACT_NOTIFY cannot be used for the write syscall"])?;
    let mut bundle = asking(ctx, &agent, &["mkdir"])?;
    bundle.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
    ctx.refused(&bundle, &["SCMP_ACT_NOTIFY cannot be used as default action"])?;
    let mut bundle = asking(ctx, &agent, &["mkdir"])?;
    bundle.remove("/linux/seccomp/listenerPath");
    ctx.refused(&bundle, &[])?;
    let mut bundle = asking(ctx, &agent, &["mkdir"])?;
    bundle
        .set("/linux/seccomp/defaultErrnoRet", json!(3))
        .set("/linux/seccomp/syscalls/0/errnoRet", json!(3));
    let output =
        ctx.refused(&bundle, &["SCMP_ACT_ALLOW returns no errno", "SCMP_ACT_NOTIFY returns no errno"])?;
    check_eq!(output.stderr().matches("returns no errno").count(), 2, "mistakes told");
    Ok(())
}

fn without_a_notified_call_the_path_is_ignored(ctx: &Ctx) -> Result {
    let agent = Agent::new()?;
    let mut bundle = asking(ctx, &agent, &["mkdir"])?;
    bundle.set("/linux/seccomp/syscalls", json!([])).set("/linux/seccomp/listenerPath", json!("/nowhere"));
    check_eq!(ctx.stdout(&bundle)?, "0", "errno of mkdir");
    Ok(())
}
