//! Bad input: refused before anything is touched, with a sentence that names the place (runtime.md, "Errors").

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, tests};

tests! {
    no_config_json;
    no_bundle;
    broken_json;
    broken_json_names_the_line [Need::Runtime("coracle")];
    wrong_types;
    wrong_types_name_the_place [Need::Runtime("coracle")];
    all_wrong_types_are_named_at_once [Need::Runtime("coracle")];
    a_member_that_is_there_twice [Need::Runtime("coracle")];
    no_rootfs;
    a_rootfs_that_is_a_file;
    a_rootfs_that_is_a_symlink_never_leaves_it;
    no_arguments;
    a_missing_program;
    a_missing_program_in_the_path;
    a_missing_program_is_told_last known "runc": "before 1.2 without the last words" known "crun": "in other words";
    a_program_that_the_kernel_refuses known "crun": "in other words";
    what_fails_in_init_says_so known "runc": "before 1.2 without the last words" known "crun": "in other words";
    a_program_that_is_a_directory;
    a_program_that_may_not_be_executed;
    a_relative_working_directory
        known "runc": "before 1.2 it is taken as one" known "crun": "is taken as one";
    a_working_directory_that_its_user_cannot_enter
        known "crun": "before 1.9 refused";
    an_id_with_a_slash_or_dots known "crun": "before 1.28 dots are an id like any other";
    an_id_in_use;
    an_unknown_flag;
    an_unknown_command;
    a_version_of_the_future known "runc": "reads on" known "crun": "reads on";
    the_log_is_one_json_object;
    stderr_has_the_message_despite_the_log;
    a_refusal_leaves_the_id_free;
}

fn no_config_json(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    ctx.refused_as_written(&bundle.dir, &["config.json"]).map(drop)
}

fn no_bundle(ctx: &Ctx) -> Result {
    ctx.refused_as_written(&ctx.dir.join("nowhere"), &["nowhere"]).map(drop)
}

fn broken_json(ctx: &Ctx) -> Result {
    for text in ["", "{", "[]", "null", "{\"ociVersion\": \"1.0.2\",}", "\u{0}"] {
        let bundle = ctx.bundle()?;
        fs::write(bundle.dir.join("config.json"), text)?;
        ctx.refused_as_written(&bundle.dir, &[])?;
    }
    Ok(())
}

fn broken_json_names_the_line(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    fs::write(bundle.dir.join("config.json"), "{\n\"ociVersion\": \"1.0.2\"\n\"process\": {}}")?;
    ctx.refused_as_written(&bundle.dir, &["config.json", "line 3"]).map(drop)
}

fn wrong_type(ctx: &Ctx, pointer: &str, value: Value, words: &[&str]) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set(pointer, value);
    ctx.refused(&bundle, words).map_err(|e| format!("{pointer}: {e}").into()).map(drop)
}

fn wrong_types(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/process/args", json!("true"), &[])?;
    wrong_type(ctx, "/process/user/uid", json!("root"), &[])?;
    wrong_type(ctx, "/mounts", json!({}), &[])?;
    wrong_type(ctx, "/linux/namespaces", json!("pid"), &[])?;
    wrong_type(ctx, "/root", json!([]), &[])
}

fn wrong_types_name_the_place(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/process/args", json!("true"), &["process.args"])?;
    wrong_type(ctx, "/process/user/uid", json!("root"), &["process.user.uid"])?;
    wrong_type(ctx, "/mounts/2/options", json!(7), &["mounts[2].options"])?;
    wrong_type(ctx, "/linux/resources", json!("none"), &["linux.resources"])
}

fn all_wrong_types_are_named_at_once(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle
        .set("/process/args/1", json!(7))
        .set("/process/cwd", json!(false))
        .set("/mounts/1/options", json!("ro"));
    bundle
        .set("/linux/namespaces/2/type", json!("moon"))
        .set("/linux/resources/memory", json!({"limit": "much"}));
    let places =
        ["process.args[1]", "process.cwd", "mounts[1].options", "linux.namespaces[2].type", "memory.limit"];
    let message = ctx.refused(&bundle, &places)?.stderr();
    check_eq!(message.lines().count(), places.len(), "lines of {message}");
    Ok(())
}

fn a_member_that_is_there_twice(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    fs::write(
        bundle.dir.join("config.json"),
        r#"{"ociVersion": "1.0.2", "root": {"path": "a"}, "root": {"path": "b"}}"#,
    )?;
    ctx.refused_as_written(&bundle.dir, &["duplicate field", "root"]).map(drop)
}

fn no_rootfs(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/root/path", json!("no-such-rootfs"), &["no-such-rootfs"])?;
    let mut bundle = ctx.waiting()?;
    bundle.remove("/root");
    ctx.refused(&bundle, &["root"])?;
    bundle.set("/root", json!({}));
    ctx.refused(&bundle, &["root"]).map(drop)
}

fn a_rootfs_that_is_a_file(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    fs::write(bundle.dir.join("file"), "")?;
    bundle.set("/root/path", json!("file"));
    ctx.refused(&bundle, &[]).map(drop)
}

/// runc and crun follow the link; the promise is refusal. What nobody may do is to touch what is beside it.
fn a_rootfs_that_is_a_symlink_never_leaves_it(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    std::os::unix::fs::symlink("rootfs", bundle.dir.join("link"))?;
    bundle.set("/root/path", json!("link"));
    if ctx.kind == "coracle" {
        return ctx.refused(&bundle, &["link"]).map(drop);
    }
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?;
    check!(bundle.dir.join("link").is_symlink(), "the link is no longer one");
    Ok(())
}

fn no_arguments(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/process/args", json!([]), &["args"])
}

fn a_missing_program(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["/no/such/program"]);
    // Docker and Podman turn these words into exit status 127.
    let output = ctx.refused(&bundle, &["/no/such/program"])?;
    let message = output.stderr();
    check!(message.to_lowercase().contains("no such file or directory"), "message: {message}");
    Ok(())
}

/// The file is there, but not what is to read it: execve(2) says so after the start. A terminal shows the one sentence.
fn a_program_that_the_kernel_refuses(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let script = bundle.rootfs().join("script");
    fs::write(&script, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    bundle.args(&["/script"]);
    let output = ctx.run(&bundle)?;
    check!(output.code != 0, "it ended with 0");
    // Where the program's own words would stand: runc's line, and nothing else.
    check_eq!(output.stderr(), "exec /script: no such file or directory\n", "message");
    Ok(())
}

fn a_missing_program_in_the_path(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["no-such-program"]);
    let output = ctx.refused(&bundle, &["no-such-program"])?;
    check!(
        output.stderr().contains("executable file") && output.stderr().contains("not found in $PATH"),
        "message: {}",
        output.stderr()
    );
    Ok(())
}

/// Podman's suite expects these words of runc, with Podman's own right behind them.
fn a_missing_program_is_told_last(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&[""]);
    let message = ctx.refused(&bundle, &[])?.stderr();
    let told = message.contains("create failed: unable to start container process: ")
        && message.trim_end().trim_end_matches('"').ends_with("executable file not found in $PATH");
    check!(told, "message: {message}");
    Ok(())
}

/// Callers tell by runc's words whether the container's init failed; a file cannot be mounted on a directory.
fn what_fails_in_init_says_so(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let mount = json!({"destination": "/etc", "type": "bind", "source": "/etc/passwd", "options": ["bind"]});
    bundle.push("/mounts", mount);
    ctx.refused(
        &bundle,
        &[
            "create failed: unable to start container process: error during container init: ",
            "error mounting ",
            "etc",
        ],
    )
    .map(drop)
}

fn a_program_that_is_a_directory(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["/etc"]);
    ctx.refused(&bundle, &["/etc"]).map(drop)
}

fn a_program_that_may_not_be_executed(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["/etc/passwd"]);
    let message = ctx.refused(&bundle, &["/etc/passwd"])?.stderr();
    check!(message.to_lowercase().contains("permission denied"), "message: {message}");
    Ok(())
}

fn a_relative_working_directory(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/process/cwd", json!("etc"), &["cwd"])
}

/// The runtime goes there while it is still root: images have WORKDIR /root, and run as somebody else.
fn a_working_directory_that_its_user_cannot_enter(ctx: &Ctx) -> Result {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = ctx.waiting()?;
    fs::create_dir(bundle.rootfs().join("closed"))?;
    fs::set_permissions(bundle.rootfs().join("closed"), fs::Permissions::from_mode(0o700))?;
    bundle.set("/process/cwd", json!("/closed")).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/process/capabilities", json!({}));
    let container = ctx.started(&bundle)?;
    let cwd = fs::read_link(format!("/proc/{}/cwd", container.pid))?;
    check!(cwd.ends_with("closed"), "working directory: {}", cwd.display());
    Ok(())
}

fn an_id_with_a_slash_or_dots(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let long = "x".repeat(1025);
    fs::write(ctx.dir.join("canary"), "")?;
    for id in ["..", ".", "a/b", "../x", "/abs", "a b", "", "new\nline", &long] {
        for words in [
            vec!["create", "--bundle", path(&bundle.dir), id],
            vec!["state", id],
            vec!["kill", id, "KILL"],
            vec!["delete", id],
        ] {
            check!(ctx.call(&words)?.code != 0, "{words:?} succeeds");
        }
        ctx.call(&["delete", "--force", id])?;
        check!(
            ctx.dir.join("canary").exists() && ctx.state_root().exists(),
            "delete --force {id:?} removed what is not its own"
        );
    }
    check_eq!(ctx.records()?, Vec::<String>::new(), "entries below the state root");
    Ok(())
}

fn an_id_in_use(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    let output = ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?;
    check!(output.code != 0, "create with an id in use succeeds");
    check!(output.stderr().contains("exist"), "message: {}", output.stderr());
    check_eq!(container.status()?, "running", "status of the one that has the id");
    Ok(())
}

fn an_unknown_flag(ctx: &Ctx) -> Result {
    let output = ctx.call(&["create", "--no-such-flag", "x"])?;
    check!(output.code != 0, "an unknown flag is accepted");
    let all = output.stderr() + &output.stdout();
    check!(all.contains("no-such-flag"), "the message does not name it: {all}");
    Ok(())
}

fn an_unknown_command(ctx: &Ctx) -> Result {
    check!(ctx.call(&["no-such-command"])?.code != 0, "an unknown command is accepted");
    Ok(())
}

fn a_version_of_the_future(ctx: &Ctx) -> Result {
    wrong_type(ctx, "/ociVersion", json!("2.0.0"), &["2.0.0"])
}

/// A failing create with `--log`: what it wrote there and on stderr.
fn logged(ctx: &Ctx) -> Result<(String, String)> {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["/no/such/program"]).write()?;
    let log = ctx.dir.join("log.json");
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut command = std::process::Command::new(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(["--log", path(&log), "--log-format", "json", "create"]);
    command.args(["--bundle", path(&bundle.dir), &container.id]);
    let output = ctx.finish(command)?;
    check!(output.code != 0, "create succeeds");
    Ok((fs::read_to_string(&log)?, output.stderr()))
}

fn the_log_is_one_json_object(ctx: &Ctx) -> Result {
    let (log, _) = logged(ctx)?;
    let records: Vec<Value> = log.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let errors: Vec<&Value> = records.iter().filter(|record| record["level"] == "error").collect();
    check_eq!(errors.len(), 1, "records of level error in {log}");
    check!(errors[0]["msg"].as_str().is_some_and(|text| text.contains("/no/such/program")), "{log}");
    let time = errors[0]["time"].as_str().unwrap_or_default();
    check!(time.len() >= 20 && time.contains('T'), "time is {time:?}");
    if ctx.kind == "coracle" {
        check_eq!(records.len(), 1, "records in {log}");
        check_eq!(errors[0].as_object().map(serde_json::Map::len), Some(3), "members of the record");
    }
    Ok(())
}

fn stderr_has_the_message_despite_the_log(ctx: &Ctx) -> Result {
    let (_, stderr) = logged(ctx)?;
    check!(stderr.contains("/no/such/program"), "stderr: {stderr:?}");
    Ok(())
}

fn a_refusal_leaves_the_id_free(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.args(&["/no/such/program"]).write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    check!(container.create(&[]).is_err(), "create succeeds");
    bundle.args(&["/probe", "wait"]).write()?;
    container.create(&[])?;
    check_eq!(container.status()?, "created", "status");
    Ok(())
}
