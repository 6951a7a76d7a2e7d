//! What `state` and `list` print, and the record on disk (runtime.md, "State").

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::harness::{Ctx, Need, Result, check, check_eq, context::path, tests};

tests! {
    state_has_the_fields_of_the_specification;
    state_has_the_annotations;
    state_of_a_missing_container_is_refused;
    a_stopped_container_has_no_pid;
    an_init_that_was_killed_by_others_is_stopped;
    list_shows_each_container;
    list_as_json_is_the_states;
    list_quiet_is_the_ids known "crun": "adds a header in old versions";
    list_of_nothing_is_empty;
    the_record_is_not_for_others;
    features_are_json [Need::Command("features")];
    spec_writes_a_config_that_runs;
    spec_does_not_overwrite;
    version_says_which_specification;
}

fn state_has_the_fields_of_the_specification(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.create(&bundle)?;
    let state = container.state()?;
    check_eq!(state["id"], json!(container.id), "id");
    check_eq!(state["pid"], json!(container.pid), "pid");
    check_eq!(state["bundle"], json!(path(&bundle.dir)), "bundle");
    check_eq!(state["status"], json!("created"), "status");
    check!(
        state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")),
        "ociVersion: {}",
        state["ociVersion"]
    );
    // RFC 3339 in UTC: engines decode it into a time.
    let created = state["created"].as_str().unwrap_or_default();
    check!(created.len() >= 20 && created.contains('T') && created.ends_with('Z'), "created: {created}");
    Ok(())
}

fn state_has_the_annotations(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.example.one": "1", "org.example.two": ""}));
    let container = ctx.create(&bundle)?;
    let annotations = container.state()?["annotations"].take();
    check_eq!(annotations, json!({"org.example.one": "1", "org.example.two": ""}), "annotations");
    Ok(())
}

fn state_of_a_missing_container_is_refused(ctx: &Ctx) -> Result {
    let output = ctx.call(&["state", "never-was"])?;
    check!(output.code != 0, "state of nothing succeeds");
    check_eq!(output.stdout(), "", "standard output");
    // The words that containerd and Podman look for.
    check!(output.stderr().contains("does not exist"), "message: {}", output.stderr());
    Ok(())
}

fn a_stopped_container_has_no_pid(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.shell("true")?)?;
    container.wait()?;
    let state = container.state()?;
    check_eq!(state["status"], json!("stopped"), "status");
    check!(state["pid"].is_null() || state["pid"] == 0, "pid of a stopped container: {}", state["pid"]);
    Ok(())
}

fn an_init_that_was_killed_by_others_is_stopped(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(container.pid)?),
        nix::sys::signal::SIGKILL,
    )?;
    // First a zombie, which is what an engine that is slow to ask has.
    crate::harness::container::until("init is a zombie", || {
        Ok(crate::harness::look::is_zombie(container.pid).then_some(()))
    })?;
    check_eq!(container.status()?, "stopped", "status of a zombie");
    container.wait()?;
    check_eq!(container.status()?, "stopped", "status after the zombie");
    container.delete()
}

fn list_shows_each_container(ctx: &Ctx) -> Result {
    let created = ctx.create(&ctx.waiting()?)?;
    let running = ctx.started(&ctx.waiting()?)?;
    let table = ctx.call(&["list"])?.succeeded("list")?.stdout();
    let row =
        |id: &str| table.lines().find(|line| line.starts_with(id)).map(str::to_owned).unwrap_or_default();
    check!(row(&created.id).contains("created"), "no row of the created container:\n{table}");
    check!(row(&running.id).contains("running"), "no row of the running container:\n{table}");
    check!(row(&running.id).contains(&running.pid.to_string()), "no pid in the row:\n{table}");
    Ok(())
}

fn list_as_json_is_the_states(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let list: Value =
        serde_json::from_str(&ctx.call(&["list", "--format", "json"])?.succeeded("list")?.stdout())?;
    check_eq!(list.as_array().map(Vec::len), Some(1), "entries in {list}");
    for (field, want) in
        [("id", json!(container.id)), ("pid", json!(container.pid)), ("status", json!("running"))]
    {
        check_eq!(list[0][field], want, "{field}");
    }
    Ok(())
}

fn list_quiet_is_the_ids(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    let text = ctx.call(&["list", "--quiet"])?.succeeded("list --quiet")?.stdout();
    check_eq!(text.trim(), container.id, "output");
    Ok(())
}

fn list_of_nothing_is_empty(ctx: &Ctx) -> Result {
    let text = ctx.call(&["list", "--quiet"])?.succeeded("list --quiet")?.stdout();
    check_eq!(text.trim(), "", "output");
    Ok(())
}

fn the_record_is_not_for_others(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    let directory = ctx.state_root().join(&container.id);
    let mode = fs::metadata(&directory)?.permissions().mode();
    check_eq!(mode & 0o066, 0, "mode of {} ({mode:o})", directory.display());
    Ok(())
}

fn features_are_json(ctx: &Ctx) -> Result {
    let output = ctx.call(&["features"])?.succeeded("features")?;
    check_eq!(output.stderr(), "", "words on stderr");
    let features: Value = serde_json::from_str(&output.stdout())?;
    for field in ["ociVersionMin", "ociVersionMax"] {
        check!(
            features[field].as_str().is_some_and(|version| !version.is_empty()),
            "{field}: {}",
            features[field]
        );
    }
    let namespaces = features["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    check!(namespaces.contains(&json!("user")), "linux.namespaces: {namespaces:?}");
    Ok(())
}

fn spec_writes_a_config_that_runs(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    ctx.call(&["spec", "--bundle", path(&bundle.dir)])?.succeeded("spec")?;
    let cgroups_path = bundle.spec["linux"]["cgroupsPath"].take();
    bundle.spec = serde_json::from_slice(&fs::read(bundle.dir.join("config.json"))?)?;
    check_eq!(bundle.spec["process"]["terminal"], json!(true), "process.terminal");
    bundle.set("/process/terminal", json!(false)).args(&["/probe", "report"]);
    bundle.set("/linux/cgroupsPath", cgroups_path);
    let report = ctx.report(&bundle)?;
    check_eq!(report["status"]["NoNewPrivs"], json!("1"), "NoNewPrivs");
    check_eq!(report["status"]["CapInh"], json!("0000000000000000"), "CapInh");
    Ok(())
}

fn spec_does_not_overwrite(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    fs::write(bundle.dir.join("config.json"), "precious")?;
    check!(
        ctx.call(&["spec", "--bundle", path(&bundle.dir)])?.code != 0,
        "spec over an existing file succeeds"
    );
    check_eq!(fs::read_to_string(bundle.dir.join("config.json"))?, "precious", "config.json");
    Ok(())
}

fn version_says_which_specification(ctx: &Ctx) -> Result {
    let text = ctx.call(&["--version"])?.succeeded("--version")?.stdout();
    let first = text.lines().next().unwrap_or_default();
    check!(first.starts_with(&format!("{} version ", ctx.kind)), "first line: {first}");
    check!(text.lines().any(|line| line.starts_with("spec: ")), "no line with the specification: {text}");
    Ok(())
}
