//! The command line as engines and scripts use it: spellings of options, what goes to the log and what to standard error,
//! the shapes that are parsed.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, tests};

tests! {
    switches_take_a_value known "crun": "argp has no such form";
    a_repeated_option_counts_once known "runc": "before 1.2 not" known "crun": "only some";
    one_dash_before_no_subreaper [Need::Command("restore")] known "crun": "is containerd's word to runc";
    an_option_without_its_value_says_so;
    a_usage_error_goes_to_the_log_too [Need::Runtime("coracle")];
    the_log_takes_a_scheme [Need::Runtime("coracle")];
    debug_tells_the_steps [Need::Runtime("coracle")];
    debug_tells_how_far_it_got known "runc": "before 1.3 without execCPUAffinity" known "crun": "says other things";
    a_json_log_holds_nothing_but_the_error;
    an_empty_runtime_directory_counts_as_none [Need::Runtime("coracle")];
    list_of_a_missing_root_is_an_error
        known "runc": "before 1.2 an empty list" known "crun": "is an empty list";
    list_in_every_shape known "crun": "its JSON has no ociVersion";
    signal_0_is_a_question known "crun": "is no signal to it";
    an_expression_names_several known "runc": "has no --regex";
    the_version_has_three_lines;
    names_in_another_case_are_taken_as_the_specifications known "crun": "ignores them";
    another_configuration_file_may_be_named [Need::Runtime("coracle")];
    the_name_of_the_program_is_its_own [Need::Runtime("coracle")];
    bash_completes_commands_options_and_containers [Need::Runtime("coracle")];
}

fn switches_take_a_value(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    ctx.call(&["delete", "--force=true", &container.id])?.succeeded("delete --force=true")?;
    let container = ctx.started(&ctx.waiting()?)?;
    check!(ctx.call(&["delete", "--force=false", &container.id])?.code != 0, "--force=false forces");
    Ok(())
}

fn an_expression_names_several(ctx: &Ctx) -> Result {
    let started = || ctx.started(&ctx.waiting()?);
    let (one, two, other) = (started()?, started()?, started()?);
    let both = format!("^({}|{})$", one.id, two.id);
    ctx.call(&["kill", "--regex", &both, "0"])?.succeeded("kill --regex")?;
    ctx.call(&["delete", "--force", "--regex", &both])?.succeeded("delete --regex")?;
    check!(one.state().is_err() && two.state().is_err(), "delete --regex left one that it names");
    check_eq!(other.status()?, "running", "status of one that it does not name");
    check!(ctx.call(&["delete", "--regex", "("])?.code != 0, "a broken expression is taken");
    Ok(())
}

fn a_repeated_option_counts_once(ctx: &Ctx) -> Result {
    let elsewhere = ctx.dir.join("elsewhere");
    let mut command = std::process::Command::new(&ctx.runtime);
    // The last one counts.
    command.args(["--root", path(&elsewhere), "--root", path(&ctx.state_root()), "--debug", "--debug"]);
    command.args(["delete", "--force", "--force", "never-was"]);
    ctx.finish(command)?.succeeded("delete").map(drop)
}

fn one_dash_before_no_subreaper(ctx: &Ctx) -> Result {
    let output = ctx.call(&["restore", "-no-subreaper", "--help"])?;
    check_eq!(output.code, 0, "restore -no-subreaper --help ({})", output.stderr());
    Ok(())
}

fn an_option_without_its_value_says_so(ctx: &Ctx) -> Result {
    let output = ctx.call(&["create", "--bundle"])?;
    check!(output.code != 0, "an option without its value is taken");
    // What Podman and CRI-O probe for.
    let message = output.stderr() + &output.stdout();
    check!(
        message.contains("flag needs an argument") || message.contains("requires an argument"),
        "message: {message}"
    );
    Ok(())
}

/// The records of a JSON log.
fn records(log: &std::path::Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(log)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn a_usage_error_goes_to_the_log_too(ctx: &Ctx) -> Result {
    let log = ctx.dir.join("log");
    let output = ctx.call(&["--log", path(&log), "--log-format=json", "start", "--frob", "x"])?;
    check!(output.code != 0, "an unknown option is taken");
    check!(output.stderr().contains("--frob"), "standard error: {}", output.stderr());
    let records = records(&log)?;
    check_eq!(records.len(), 1, "records in the log");
    check!(records[0]["msg"].as_str().is_some_and(|m| m.contains("--frob")), "record: {}", records[0]);
    Ok(())
}

fn the_log_takes_a_scheme(ctx: &Ctx) -> Result {
    let log = ctx.dir.join("log");
    ctx.call(&["--log", &format!("file:{}", log.display()), "--log-format", "json", "start", "x"])?;
    check_eq!(records(&log)?.len(), 1, "records in file:PATH");
    // Without a journal or a syslog the message still stands on standard error, and nothing is made of that name.
    for scheme in ["journald:x", "syslog:x"] {
        let output = ctx.call(&["--log", scheme, "start", "never-was"])?;
        check!(output.stderr().contains("does not exist"), "standard error: {}", output.stderr());
        check!(!ctx.dir.join(scheme).exists(), "{scheme} became a file");
    }
    Ok(())
}

fn debug_tells_the_steps(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let log = ctx.dir.join("log");
    let words = ["--debug", "--log", path(&log), "run", "--bundle", path(&bundle.dir), &container.id];
    let output = ctx.call(&words)?.succeeded("run")?;
    check_eq!(output.stderr(), "", "standard error");
    let text = fs::read_to_string(&log)?;
    check!(text.contains("level=debug") && text.contains("pivot_root"), "log: {text}");
    Ok(())
}

/// The words of runc's debug log, which its own suite looks for too.
fn debug_tells_how_far_it_got(ctx: &Ctx) -> Result {
    let in_order = |text: &str, words: &[&str]| -> Result {
        let places: Vec<_> = words.iter().map(|w| text.find(w)).collect();
        check!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{words:?} stand at {places:?} of {text}"
        );
        Ok(())
    };
    let bundle = ctx.shell("true")?;
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let output =
        ctx.call(&["--debug", "run", "--bundle", path(&bundle.dir), &container.id])?.succeeded("run")?;
    let completed = "init: closing the pipe to signal completion";
    in_order(&output.stderr(), &["nsexec container setup", "child process in init()", completed])?;
    let container = ctx.started(&ctx.waiting()?)?;
    let process = ctx.dir.join("process.json");
    std::fs::write(
        &process,
        r#"{"args": ["/probe", "exit", "0"], "cwd": "/", "execCPUAffinity": {"initial": "0"}}"#,
    )?;
    let output =
        ctx.call(&["--debug", "exec", "--process", path(&process), &container.id])?.succeeded("exec")?;
    let text = output.stderr();
    in_order(&text, &["nsexec container setup", "child process in init()", "setns_init: about to exec"])?;
    let affinity = text.lines().find(|line| line.contains(": affinity: 0x1"));
    check!(affinity.is_some_and(|line| line.contains("nsexec")), "the first CPUs in {text}");
    Ok(())
}

fn a_json_log_holds_nothing_but_the_error(ctx: &Ctx) -> Result {
    // Something that would be a warning, and an error after it.
    let mut bundle = ctx.waiting()?;
    bundle.push("/process/capabilities/bounding", "CAP_NEVER_WAS".into());
    bundle.args(&["/nowhere"]);
    bundle.write()?;
    let log = ctx.dir.join("log");
    let words = ["--log", path(&log), "--log-format", "json", "create", "--bundle", path(&bundle.dir), "x"];
    check!(ctx.call(&words)?.code != 0, "create succeeds");
    let errors: Vec<Value> = records(&log)?.into_iter().filter(|r| r["level"] == "error").collect();
    check_eq!(errors.len(), 1, "errors in the log");
    if ctx.kind == "coracle" {
        check_eq!(records(&log)?.len(), 1, "records in the log");
    }
    Ok(())
}

fn an_empty_runtime_directory_counts_as_none(ctx: &Ctx) -> Result {
    // As Podman calls: nothing but an empty XDG_RUNTIME_DIR in the environment, and no --root.
    let mut command = std::process::Command::new(&ctx.runtime);
    command.env_clear().env("XDG_RUNTIME_DIR", "").args(["state", "never-was-one"]);
    let output = ctx.finish(command)?;
    check!(output.stderr().contains("does not exist"), "standard error: {}", output.stderr());
    Ok(())
}

fn list_of_a_missing_root_is_an_error(ctx: &Ctx) -> Result {
    let nowhere = ctx.dir.join("nowhere");
    let mut command = std::process::Command::new(&ctx.runtime);
    command.args(["--root", path(&nowhere), "list"]);
    check!(ctx.finish(command)?.code != 0, "the list of a missing root succeeds");
    check!(!nowhere.exists(), "the list made the root");
    Ok(())
}

fn list_in_every_shape(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let id = &container.id;
    for words in [["list", "-q"], ["list", "--quiet"]] {
        check_eq!(ctx.call(&words)?.stdout(), format!("{id}\n"), "{words:?}");
    }
    check_eq!(ctx.call(&["list", "--format", "json", "-q"])?.stdout(), format!("{id}\n"), "json and quiet");
    let text = ctx.call(&["list", "--format=json"])?.stdout();
    // runc's own tests read the line by its order.
    check!(text.starts_with(r#"[{"ociVersion":""#), "list --format json: {text}");
    let list: Value = serde_json::from_str(&text)?;
    check_eq!(list[0]["owner"], "root", "owner");
    check_eq!(list[0]["pid"], container.pid, "pid");
    let table = ctx.call(&["list"])?.stdout();
    check!(table.starts_with("ID"), "table: {table}");
    Ok(())
}

fn signal_0_is_a_question(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    container.kill("0")?;
    container.stop()?;
    let output = ctx.call(&["kill", &container.id, "0"])?;
    check!(output.code != 0 && output.stderr().contains("container not running"), "{}", output.stderr());
    Ok(())
}

fn the_version_has_three_lines(ctx: &Ctx) -> Result {
    let text = ctx.call(&["--version"])?.stdout();
    let lines: Vec<&str> = text.lines().collect();
    check!(lines[0].contains(" version "), "line 1: {}", lines[0]);
    check!(lines[1].starts_with("commit: "), "line 2: {}", lines[1]);
    check!(lines.iter().any(|l| l.starts_with("spec: ")), "text: {text}");
    Ok(())
}

fn another_configuration_file_may_be_named(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("echo other")?;
    bundle.write()?;
    fs::rename(bundle.dir.join("config.json"), bundle.dir.join("other.json"))?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let words = ["run", "--bundle", path(&bundle.dir), "--config", "other.json", &container.id];
    check_eq!(ctx.call(&words)?.succeeded("run")?.stdout(), "other\n", "output");
    Ok(())
}

/// Installed in the place of another runtime it is asked under that one's name: nerdctl wants `runc` in the first line.
fn the_name_of_the_program_is_its_own(ctx: &Ctx) -> Result {
    let link = ctx.dir.join("runc");
    std::os::unix::fs::symlink(&ctx.runtime, &link)?;
    let mut command = std::process::Command::new(&link);
    command.arg("--version");
    let text = ctx.finish(command)?.stdout();
    check!(text.starts_with("runc version "), "--version: {text}");
    Ok(())
}

fn bash_completes_commands_options_and_containers(ctx: &Ctx) -> Result {
    const SCRIPT: &str = concat!(
        include_str!("../../../docs/completions/coracle.bash"),
        "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)); _coracle; printf '%s\\n' \"${COMPREPLY[@]}\""
    );
    let container = ctx.started(&ctx.waiting()?)?;
    let runtime = path(&ctx.runtime);
    let complete = |words: &[&str]| -> Result<Vec<String>> {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", SCRIPT, "bash", runtime]).args(words);
        let output = ctx.finish(command)?.succeeded("bash")?;
        Ok(output.stdout().lines().map(str::to_owned).collect())
    };
    let root = ctx.state_root();
    check_eq!(complete(&["--root", path(&root), "delete", ""])?, [container.id.as_str()], "containers");
    check_eq!(complete(&["ex"])?, ["exec"], "commands");
    check_eq!(complete(&["--cg"])?, ["--cgroup-manager"], "options of all commands");
    check_eq!(complete(&["exec", "--ig"])?, ["--ignore-paused"], "options of a command");
    check_eq!(complete(&["run", "--image", "x", "--na"])?, ["--name"], "options of run --image");
    check_eq!(complete(&["run", "--na"])?, [""], "options of run");
    Ok(())
}

/// What Go reads, and runc so takes: `readOnly` is not to be a writable root.
fn names_in_another_case_are_taken_as_the_specifications(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    for (right, other) in
        [("/root/readonly", "/root/readOnly"), ("/process/noNewPrivileges", "/process/nonewprivileges")]
    {
        let (parent, name) = right.rsplit_once('/').ok_or("a path")?;
        if let Some(map) = bundle.spec.pointer_mut(parent).and_then(Value::as_object_mut) {
            map.remove(name);
        }
        bundle.set(other, json!(true));
    }
    bundle.set("/linux/Sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let script = "touch /x; grep NoNewPrivs /proc/self/status; cat /proc/sys/net/ipv4/ip_forward";
    bundle.args(&["/bin/sh", "-c", script]);
    let output = ctx.run(&bundle)?.succeeded("run")?;
    check!(output.stderr().contains("Read-only file system"), "the root is writable: {}", output.stderr());
    check_eq!(output.stdout(), "NoNewPrivs:\t1\n1\n", "what the container got");
    check!(
        ctx.kind != "coracle" || output.stderr().contains("root.readOnly: is taken for "),
        "no word of it: {}",
        output.stderr()
    );
    Ok(())
}
