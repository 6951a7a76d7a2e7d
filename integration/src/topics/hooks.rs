//! The six kinds of hooks: when, where, with what on standard input (config.md, "POSIX-platform Hooks").

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Bundle, Container, Ctx, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    hooks_run_in_their_order_and_at_their_points known "runc": "1.1 runs poststart at the end of create";
    run_waits_for_each_hook_before_it_goes_on;
    each_hook_gets_the_state_on_standard_input
        known "runc": "1.1 runs poststart at the end of create"
        known "crun": "tells hooks in the container of a process 0";
    each_hook_runs_in_its_namespaces;
    a_hook_has_the_environment_it_asks_for known "crun": "old versions add the caller's";
    hook_arguments_are_the_whole_argv;
    a_failing_prestart_hook_fails_create;
    a_failing_create_runtime_hook_fails_create;
    a_failing_start_container_hook_fails_start known "crun": "start returns before its failure";
    a_failing_poststart_hook_destroys_the_container known "runc": "stops it and keeps it";
    a_run_whose_hook_fails_leaves_nothing;
    a_failing_poststop_hook_does_not_fail_run;
    a_failing_poststop_hook_does_not_stop_delete;
    a_hook_that_takes_too_long_is_ended;
    a_poststart_hook_that_hangs_keeps_no_signal_away;
    a_runtime_that_dies_during_a_hook_takes_init_along known "runc": "init goes on until its hook ends" known "crun": "init goes on until its hook ends";
    poststop_runs_after_the_container_is_gone;
    what_hooks_print_goes_to_the_files_of_the_annotations known "runc": "the annotations are crun's";
    the_files_of_the_annotations_lead_nowhere_else known "crun": "follows the link";
    a_hook_that_asks_for_the_state_gets_it known "runc": "says created" known "crun": "says that there is no container";
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Adds a hook of this kind: a script for the host's or the container's /bin/sh.
fn hook(bundle: &mut Bundle, kind: &str, script: &str) {
    bundle.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
}

/// A log that host and container can both write, since createContainer still sees the host's files and startContainer
/// only the bundle's: it is bound at the same path.
fn log(ctx: &Ctx, bundle: &mut Bundle) -> PathBuf {
    let directory = ctx.dir.join("hooklog");
    let _ = fs::create_dir_all(&directory);
    bundle.mount("bind", path(&directory), path(&directory), &["bind"]);
    directory.join("log")
}

fn hooks_run_in_their_order_and_at_their_points(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let log = log(ctx, &mut bundle);
    let file = path(&log).to_owned();
    bundle.shell(&format!("echo workload >> {file}; sleep 1000"));
    for kind in KINDS {
        hook(&mut bundle, kind, &format!("echo {kind} 1 >> {file}"));
        hook(&mut bundle, kind, &format!("echo {kind} 2 >> {file}"));
    }
    let lines =
        || -> Result<Vec<String>> { Ok(fs::read_to_string(&log)?.lines().map(str::to_owned).collect()) };
    let container = ctx.create(&bundle)?;
    let created = [
        "prestart 1",
        "prestart 2",
        "createRuntime 1",
        "createRuntime 2",
        "createContainer 1",
        "createContainer 2",
    ];
    check_eq!(lines()?, created, "hooks up to the end of create");
    container.start()?;
    until("the workload runs", || Ok(lines()?.contains(&"workload".to_owned()).then_some(())))?;
    let mut started = lines()?.split_off(created.len());
    check_eq!(started[..2], ["startContainer 1", "startContainer 2"], "hooks before the workload");
    started.retain(|line| line.starts_with("poststart"));
    check_eq!(started, ["poststart 1", "poststart 2"], "hooks at the end of start");
    container.stop()?;
    check!(!fs::read_to_string(&log)?.contains("poststop"), "poststop ran before delete");
    container.delete()?;
    let mut stopped = lines()?;
    check_eq!(stopped.split_off(stopped.len() - 2), ["poststop 1", "poststop 2"], "hooks of delete");
    Ok(())
}

/// What the probe saved in each hook, by kind.
fn saved(ctx: &Ctx) -> Result<(Value, u32, Bundle)> {
    let mut bundle = ctx.waiting()?;
    let log = log(ctx, &mut bundle);
    fs::copy(std::env::current_exe()?, log.with_file_name("probe"))?;
    for kind in KINDS {
        let program = log.with_file_name("probe");
        let file = log.with_file_name(kind);
        let args = json!(["probe", "save-stdin", path(&file)]);
        bundle.push(
            &format!("/hooks/{kind}"),
            json!({"path": path(&program), "args": args, "env": ["HOOK=yes"]}),
        );
    }
    bundle.set("/annotations", json!({"org.example.key": "value"}));
    let container = ctx.started(&bundle)?;
    let pid = container.pid;
    let mut all = json!({"id": container.id, "namespaces": {}});
    for (kind, link) in [("mount", "mnt"), ("network", "net"), ("pid", "pid")] {
        all["namespaces"][kind] = json!(look::namespace(pid, link)?);
    }
    container.stop()?;
    container.delete()?;
    for kind in KINDS {
        let text =
            fs::read_to_string(log.with_file_name(kind)).map_err(|e| format!("{kind} saved nothing: {e}"))?;
        all[kind] = serde_json::from_str(&text)?;
    }
    Ok((all, pid, bundle))
}

fn each_hook_gets_the_state_on_standard_input(ctx: &Ctx) -> Result {
    let (all, pid, bundle) = saved(ctx)?;
    for kind in KINDS {
        let state = &all[kind]["state"];
        check_eq!(state["id"], all["id"], "{kind}: id");
        check_eq!(state["bundle"], json!(path(&bundle.dir)), "{kind}: bundle");
        check!(state["ociVersion"].is_string(), "{kind}: ociVersion is {}", state["ociVersion"]);
        check_eq!(state["annotations"]["org.example.key"], json!("value"), "{kind}: annotation");
        let statuses: &[&str] = match kind {
            "prestart" | "createRuntime" | "createContainer" => &["creating", "created"],
            "startContainer" => &["created"],
            "poststart" => &["running"],
            _ => &["stopped"],
        };
        let status = state["status"].as_str().unwrap_or("absent");
        check!(statuses.contains(&status), "{kind}: status is {status}");
        // As the hook sees it: runtime.md, State. In a pid namespace of its own init is 1.
        match kind {
            "createContainer" | "startContainer" => check_eq!(state["pid"], json!(1), "{kind}: pid"),
            "prestart" | "createRuntime" | "poststart" => check_eq!(state["pid"], json!(pid), "{kind}: pid"),
            _ => {}
        }
    }
    Ok(())
}

fn each_hook_runs_in_its_namespaces(ctx: &Ctx) -> Result {
    let (all, ..) = saved(ctx)?;
    for kind in KINDS {
        let within = matches!(kind, "createContainer" | "startContainer");
        let mount = &all[kind]["namespaces"]["mnt"];
        check_eq!(
            *mount == all["namespaces"]["mount"],
            within,
            "{kind} is in the container's mount namespace"
        );
        check_eq!(
            *mount == json!(look::own_namespace("mnt")?),
            !within,
            "{kind} is in the runtime's mount namespace"
        );
        let network = &all[kind]["namespaces"]["net"];
        check_eq!(*network == all["namespaces"]["network"], within, "{kind} is in the container's network");
        check_eq!(
            *network == json!(look::own_namespace("net")?),
            !within,
            "{kind} is in the runtime's network"
        );
    }
    Ok(())
}

fn a_hook_has_the_environment_it_asks_for(ctx: &Ctx) -> Result {
    let (all, ..) = saved(ctx)?;
    for kind in ["createRuntime", "createContainer", "poststart", "poststop"] {
        check_eq!(all[kind]["env"], json!({"HOOK": "yes"}), "{kind}: environment");
    }
    Ok(())
}

fn hook_arguments_are_the_whole_argv(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("argv");
    let script = format!("echo \"$0 $1\" > {}", path(&file));
    bundle.push(
        "/hooks/createRuntime",
        json!({"path": "/bin/sh", "args": ["any-name", "-c", script, "zero", "one"]}),
    );
    let _container = ctx.create(&bundle)?;
    check_eq!(fs::read_to_string(&file)?, "zero one\n", "what the hook saw");
    Ok(())
}

fn a_failing_prestart_hook_fails_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    hook(&mut bundle, "prestart", "exit 3");
    ctx.refused(&bundle, &[]).map(drop)
}

fn a_failing_create_runtime_hook_fails_create(ctx: &Ctx) -> Result {
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = ctx.waiting()?;
        hook(&mut bundle, kind, "exit 3");
        ctx.refused(&bundle, &[])?;
    }
    Ok(())
}

fn a_failing_start_container_hook_fails_start(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("echo ran")?;
    hook(&mut bundle, "startContainer", "exit 3");
    let container = ctx.create(&bundle)?;
    let output = ctx.call(&["start", &container.id])?;
    container.wait()?;
    check_eq!(container.stdout(), "", "the workload ran although its hook failed; output");
    // The failure comes after the moment that runc's start waits for; it is seen by the container's end.
    check!(output.code != 0 || container.status()? == "stopped", "start succeeded and the container lives");
    Ok(())
}

fn a_failing_poststart_hook_destroys_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("poststop");
    hook(&mut bundle, "poststart", "exit 3");
    hook(&mut bundle, "poststop", &format!("touch {}", path(&file)));
    let container = ctx.create(&bundle)?;
    check!(ctx.call(&["start", &container.id])?.code != 0, "start succeeds although its hook failed");
    check_eq!(container.wait()?, 137, "the end of init");
    check!(ctx.call(&["state", &container.id])?.code != 0, "the container is still there");
    check!(file.exists(), "poststop did not run");
    Ok(())
}

fn a_run_whose_hook_fails_leaves_nothing(ctx: &Ctx) -> Result {
    for kind in ["startContainer", "poststart"] {
        let mut bundle = ctx.waiting()?;
        let file = ctx.dir.join(kind);
        hook(&mut bundle, kind, "exit 3");
        hook(&mut bundle, "poststop", &format!("touch {}", path(&file)));
        bundle.write()?;
        let output = ctx.call(&["run", "--bundle", path(&bundle.dir), &ctx.id()])?;
        check!(output.code != 0, "run succeeds although its {kind} hook failed");
        let left = ctx.left()?;
        check!(left.is_empty(), "after a {kind} hook that failed: {}", left.join("; "));
        check!(file.exists(), "poststop did not run after {kind}");
    }
    Ok(())
}

/// Between create and start nobody waits in a run: the slow hooks of the one do, all the same.
fn run_waits_for_each_hook_before_it_goes_on(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let log = log(ctx, &mut bundle);
    let file = path(&log).to_owned();
    bundle.shell(&format!("echo workload >> {file}"));
    for kind in ["prestart", "createRuntime"] {
        hook(&mut bundle, kind, &format!("sleep 0.2; echo {kind} >> {file}"));
    }
    for kind in ["createContainer", "startContainer"] {
        hook(&mut bundle, kind, &format!("echo {kind} >> {file}"));
    }
    ctx.run(&bundle)?.succeeded("run")?;
    let lines = fs::read_to_string(&log)?;
    check_eq!(lines, "prestart\ncreateRuntime\ncreateContainer\nstartContainer\nworkload\n", "the order");
    Ok(())
}

fn a_failing_poststop_hook_does_not_fail_run(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    hook(&mut bundle, "poststop", "exit 3");
    bundle.args(&["/probe", "exit", "7"]);
    check_eq!(ctx.run(&bundle)?.code, 7, "exit status of run");
    Ok(())
}

fn a_failing_poststop_hook_does_not_stop_delete(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("second");
    hook(&mut bundle, "poststop", "exit 3");
    hook(&mut bundle, "poststop", &format!("touch {}", path(&file)));
    let container = ctx.started(&bundle)?;
    container.stop()?;
    container.delete()?;
    check!(ctx.call(&["state", &container.id])?.code != 0, "the container is still there");
    Ok(())
}

fn a_hook_that_takes_too_long_is_ended(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let args = json!(["sleep", "1000"]);
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/sleep", "args": args, "timeout": 1}));
    ctx.refused(&bundle, &[]).map(drop)
}

/// Whoever wants to be rid of a container whose start never comes back.
fn a_poststart_hook_that_hangs_keeps_no_signal_away(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("hangs");
    hook(&mut bundle, "poststart", &format!("echo hangs > {}; exec sleep 20", path(&file)));
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    container.create(&[])?;
    let init = container.pid;
    let mut start = ctx.command(&["start", &container.id]).stderr(Stdio::null()).spawn()?;
    until("the hook runs", || Ok(file.exists().then_some(())))?;
    let begin = Instant::now();
    ctx.call(&["kill", &container.id, "KILL"])?.succeeded("kill during the hook")?;
    until("init is dead", || Ok(look::is_dead(init).then_some(())))?;
    check!(begin.elapsed() < Duration::from_secs(8), "it took {} ms", begin.elapsed().as_millis());
    start.kill()?;
    start.wait()?;
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete --force")?;
    look::kill_and_reap_all();
    Ok(())
}

/// Init does not go on by itself, while it waits for something else than the runtime.
fn a_runtime_that_dies_during_a_hook_takes_init_along(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let (told, file) = (ctx.dir.join("told"), log(ctx, &mut bundle));
    hook(&mut bundle, "createRuntime", &format!("cat > {}", path(&told)));
    hook(&mut bundle, "createContainer", &format!("echo hangs > {}; exec sleep 20", path(&file)));
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let words = ["create", "--bundle", path(&bundle.dir), &container.id];
    let mut create = ctx.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("the hook runs", || Ok(file.exists().then_some(())))?;
    let state: Value = serde_json::from_slice(&fs::read(&told)?)?;
    let init = state["pid"].as_u64().ok_or("the hook was told no pid")? as u32;
    check!(!look::is_dead(init), "init is not there");
    let begin = Instant::now();
    create.kill()?;
    create.wait()?;
    until("init is dead", || Ok(look::is_dead(init).then_some(())))?;
    check!(begin.elapsed() < Duration::from_secs(8), "it took {} ms", begin.elapsed().as_millis());
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete --force")?;
    look::kill_and_reap_all();
    Ok(())
}

fn poststop_runs_after_the_container_is_gone(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("poststop");
    // The init process must be dead when the hook asks.
    let script = format!("echo ran > {}", path(&file));
    hook(&mut bundle, "poststop", &script);
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    container.create(&[])?;
    container.start()?;
    let group = look::cgroup(container.pid, "pids")?;
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete --force")?;
    check_eq!(fs::read_to_string(&file)?, "ran\n", "what the hook wrote during delete --force");
    check!(!group.exists(), "cgroup {} is left", group.display());
    Ok(())
}

fn what_hooks_print_goes_to_the_files_of_the_annotations(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let (out, err) = (ctx.dir.join("hooks.out"), ctx.dir.join("hooks.err"));
    fs::write(&out, "before\n")?;
    bundle
        .set("/annotations", json!({"run.oci.hooks.stdout": path(&out), "run.oci.hooks.stderr": path(&err)}));
    let kinds = ["prestart", "createContainer", "poststart", "poststop"];
    for kind in kinds {
        hook(&mut bundle, kind, &format!("echo {kind}; echo {kind} failed >&2"));
    }
    let container = ctx.started(&bundle)?;
    container.stop()?;
    container.delete()?;
    let lines = |end: &str| -> String { kinds.iter().map(|kind| format!("{kind}{end}\n")).collect() };
    check_eq!(fs::read_to_string(&out)?, format!("before\n{}", lines("")), "what hooks said");
    check_eq!(fs::read_to_string(&err)?, lines(" failed"), "what hooks complained of");
    Ok(())
}

/// They may lie in a volume, where the container puts a link to a file of the host, or a pipe that nobody reads.
fn the_files_of_the_annotations_lead_nowhere_else(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let (out, host) = (ctx.dir.join("hooks.out"), ctx.dir.join("host"));
    fs::write(&host, "")?;
    bundle.set("/annotations", json!({"run.oci.hooks.stdout": path(&out)}));
    hook(&mut bundle, "poststop", "echo said");
    for what in ["ln -s host hooks.out", "mkfifo hooks.out"] {
        let container = ctx.started(&bundle)?;
        container.stop()?;
        Command::new("sh").args(["-c", what]).current_dir(&ctx.dir).status()?;
        let mut delete = Command::new("timeout");
        delete.args(["-s", "KILL", "5"]).arg(&ctx.runtime).args(["--root", path(&ctx.state_root())]);
        delete.args(["delete", &container.id]);
        let deleted = ctx.finish(delete)?;
        check_eq!(deleted.code, 0, "exit status of delete after {what} ({})", deleted.stderr());
        check_eq!(fs::read_to_string(&host)?, "", "the host's file after {what}");
        fs::remove_file(&out)?;
    }
    Ok(())
}

/// It cannot wait for the end of a create that waits for it.
fn a_hook_that_asks_for_the_state_gets_it(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let file = ctx.dir.join("answer");
    let (runtime, root) = (path(&ctx.runtime).to_owned(), ctx.state_root());
    hook(
        &mut bundle,
        "createRuntime",
        &format!(
            "{runtime} --root {} state $(sed 's/.*\"id\":\"\\([^\"]*\\).*/\\1/') >{}",
            path(&root),
            path(&file)
        ),
    );
    let container = ctx.create(&bundle)?;
    let state: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    check_eq!(
        (&state["id"], &state["status"]),
        (&json!(container.id), &json!("creating")),
        "state in a hook"
    );
    check_eq!(container.status()?, "created", "status after create");
    Ok(())
}
