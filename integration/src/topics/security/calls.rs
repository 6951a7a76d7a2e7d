//! What its syscalls show of the runtime: no name of the image leads anywhere by itself, and no failure passes unnoticed.

use std::{collections::BTreeSet, fs};

use crate::harness::{
    Container, Ctx, Need, Result, check,
    context::{path, tracers_end},
    look, tests,
};

const STRACE: Need = Need::File("/usr/bin/strace");

tests! {
    no_name_of_the_image_is_followed_before_the_pivot [STRACE];
    a_syscall_that_fails_is_told_of_or_made_up_for [STRACE, Need::Runtime("coracle")];
    what_later_commands_cannot_learn_or_do_is_an_error [STRACE, Need::Runtime("coracle")];
    what_a_failed_create_leaves_is_told [STRACE, Need::Runtime("coracle")];
    a_hierarchy_of_which_nobody_can_tell_is_not_passed_over [STRACE, Need::File("/sys/fs/cgroup/unified/cgroup.procs"), Need::Runtime("coracle")];
}

/// All calls of these kinds that creating the container takes, a line each.
fn calls(ctx: &Ctx, container: &Container, bundle: &str, kinds: &str) -> Result<String> {
    let file = ctx.dir.join("calls");
    let flags = ["-D", "-f", "-s", "4096", "-o", path(&file), "-e", &format!("trace={kinds}")];
    let command = ctx.traced(&flags, &["create", "--bundle", bundle, &container.id]);
    ctx.finish(command)?.succeeded("create")?;
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete")?;
    tracers_end()?;
    Ok(fs::read_to_string(file)?)
}

/// Below the root file system only the kernel follows names, held within it: openat2 with RESOLVE_IN_ROOT or RESOLVE_BENEATH.
/// Every other call has a descriptor and at most one name.
fn no_name_of_the_image_is_followed_before_the_pivot(ctx: &Ctx) -> Result {
    let volume = ctx.dir.join("volume");
    fs::create_dir_all(&volume)?;
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", path(&volume), "/var/volume/deep", &["bind", "ro"]);
    bundle.mount("tmpfs", "tmpfs", "/tmp/a/b", &["ro", "tmpcopyup"]);
    bundle.push(
        "/linux/devices",
        serde_json::json!({"path": "/dev/net/x", "type": "c", "major": 1, "minor": 3}),
    );
    bundle.set("/process/cwd", "/srv/a/b".into()).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let text = calls(ctx, &container, path(&bundle.dir), "%file,open_tree,move_mount,fspick")?;
    let (before, _) = text.split_once("pivot_root(").ok_or("the trace has no pivot_root")?;
    let below = format!("{}/", path(&bundle.rootfs()));
    let mut held = 0;
    for line in before.lines() {
        if line.contains("openat2(") {
            held += 1;
            let within = line.contains("RESOLVE_IN_ROOT") || line.contains("RESOLVE_BENEATH");
            check!(within, "a lookup that may lead out: {line}");
            continue;
        }
        // What stands first in symlinkat is the text of the new link.
        let skipped = usize::from(line.contains("symlinkat("));
        for name in line.split('"').skip(1).step_by(2).skip(skipped) {
            let many = name.contains('/') && !name.starts_with('/');
            check!(!many && !name.starts_with(&below), "a name that anything may stand behind: {line}");
        }
    }
    check!(held > 10, "only {held} lookups within the root: what was traced?");
    Ok(())
}

/// What cannot fail, and what the C library and Rust's begin with, before the runtime has a word.
const BEFORE: [&str; 21] = [
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "mmap",
    "mprotect",
    "munmap",
    "poll",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "umask",
];

/// With EPERM these have another way to the same end: nodes are bound from the host, and a caller whose capabilities cannot be
/// read gives none.
const OTHERWISE: [&str; 2] = ["capget", "mknodat"];

/// Every syscall in turn fails once, in each process that makes it: either create says so and leaves nothing, or start says so, or
/// the container is what it would have been.
fn a_syscall_that_fails_is_told_of_or_made_up_for(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["ro", "nosuid"]);
    bundle.set("/process/user", serde_json::json!({"uid": 1000, "gid": 1000, "additionalGids": [7]}));
    bundle.set("/process/oomScoreAdj", 500.into()).write()?;
    let traced = Container::named(ctx, ctx.id(), &bundle.dir);
    let text = calls(ctx, &traced, path(&bundle.dir), "all")?;
    let name = |line: &str| line.split_once('(')?.0.rsplit(' ').next().map(str::to_owned);
    let all: BTreeSet<String> = text.lines().filter_map(name).filter(|n| n.chars().all(is_word)).collect();
    check!(all.len() > 50, "only {all:?} were traced");
    let good = seen(&ctx.create(&bundle)?)?;
    let mut wrong = Vec::new();
    for call in all.iter().filter(|call| !BEFORE.contains(&call.as_str())) {
        ctx.missing.set(Some(format!("{call}:EPERM:when=1").leak()));
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        let created = container.create(&[]);
        ctx.missing.set(None);
        let what = match created.map(|()| seen(&container)) {
            Ok(Ok(_)) if OTHERWISE.contains(&call.as_str()) => None,
            Ok(Ok(now)) => (now != good).then(|| format!("another container: {now:?}")),
            // An init that fails while it waits is told of by start.
            Ok(Err(_)) => {
                container.start().is_ok().then(|| "init is gone, and start says nothing".to_owned())
            }
            Err(error) => ctx.left()?.first().map(|left| format!("{left} is left after: {error}")),
        };
        wrong.extend(what.map(|what| format!("{call}: {what}")));
        drop(container);
        tracers_end()?;
    }
    check!(wrong.is_empty(), "\n{}\nwhere {good:?} was wanted", wrong.join("\n"));
    Ok(())
}

fn is_word(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// What the container is, as the kernel tells.
fn seen(container: &Container) -> Result<Vec<String>> {
    let fields =
        ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Umask"];
    let mut all = Vec::new();
    for field in fields {
        all.push(format!("{field} {}", look::status(container.pid, field)?));
    }
    for mount in look::mounts(container.pid)? {
        all.push(format!("{} {} {}", mount.point, mount.kind, mount.options.join(",")));
    }
    all.push(look::proc(container.pid, "oom_score_adj")?);
    let group = look::cgroup(container.pid, "pids")?;
    // Its last name is the container's own.
    all.push(group.parent().map(path).unwrap_or_default().to_owned());
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let own = look::namespace(container.pid, kind)? != look::own_namespace(kind)?;
        all.push(format!("{kind} namespace of its own: {own}"));
    }
    Ok(all)
}

/// A container's status, a command for it, a syscall that this makes, and the file that it makes it for, if only for that one
/// it is to fail: of the container's directory, or of its control group (v2).
const LATER: &[(&str, &[&str], &str, &str)] = &[
    ("created", &["start"], "read", "record.json"),
    ("created", &["start"], "read", "config.json"),
    ("created", &["start"], "flock", "exec.fifo"),
    ("created", &["start"], "read", "cgroup.freeze"),
    ("created", &["state"], "flock", "exec.fifo"),
    ("running", &["state"], "read", "cgroup.freeze"),
    ("running", &["state"], "write", ""),
    ("running", &["kill", "--all"], "read", "record.json"),
    ("running", &["kill", "--all"], "read", "cgroup.procs"),
    ("running", &["kill"], "pidfd_send_signal", ""),
    ("running", &["pause"], "read", "record.json"),
    ("running", &["pause"], "read", "cgroup.events"),
    ("paused", &["resume"], "read", "cgroup.freeze"),
    ("running", &["update", "--resources", "nothing.json"], "read", "config.json"),
    ("running", &["update", "--resources", "nothing.json"], "write", ".limits.json.new"),
    ("running", &["delete", "--force"], "read", "record.json"),
    ("running", &["delete", "--force"], "pidfd_send_signal", ""),
    ("stopped", &["delete"], "read", "record.json"),
    ("stopped", &["delete"], "read", "config.json"),
];

/// What cannot be read is not what is not there: a container whose record a command cannot read still runs, its hooks are still to
/// be run, and whether it is frozen nobody knows. The command fails and changes nothing, and succeeds the next time.
fn what_later_commands_cannot_learn_or_do_is_an_error(ctx: &Ctx) -> Result {
    fs::write(ctx.dir.join("nothing.json"), "{}")?;
    let bundle = ctx.waiting()?;
    for (status, words, call, file) in LATER {
        if file.starts_with("cgroup.") && !ctx.host.cgroup2 {
            continue;
        }
        let container = ctx.create(&bundle)?;
        if *status != "created" {
            container.start()?;
        }
        match *status {
            "paused" => drop(ctx.call(&["pause", &container.id])?.succeeded("pause")?),
            "stopped" => container.stop()?,
            _ => {}
        }
        let before = container.state()?;
        let mut all = words.to_vec();
        all.push(&container.id);
        let dir = match file.starts_with("cgroup.") {
            true => look::cgroup(container.pid, "")?,
            false => ctx.state_root().join(&container.id),
        };
        let failed = ctx.finish(failing(ctx, &all, call, "1", (!file.is_empty()).then(|| dir.join(file))))?;
        let what = format!("{} of one that is {status}, without {call} {file}", words.join(" "));
        check!(failed.code != 0, "{what}, is said to be done");
        let said = failed.stderr();
        let named = ["signal", "output", path(&dir)].iter().any(|name| said.contains(name));
        check!(named, "{what}, is told without a name: {said}");
        check!(container.state()? == before, "{what}, leaves {}", container.state()?);
        ctx.call(&all)?.succeeded("the same command once more")?;
    }
    Ok(())
}

/// Of two failures the second is told too: a name that stays taken is not found out with the next create.
fn what_a_failed_create_leaves_is_told(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", "/nothing/there", "/mnt", &["bind"]).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let dir = ctx.state_root().join(&container.id);
    let words = ["create", "--bundle", path(&bundle.dir), &container.id];
    let failed = ctx.finish(failing(ctx, &words, "getdents64", "1+", Some(dir.clone())))?;
    check!(failed.code != 0 && dir.exists(), "nothing is left: {}", failed.stderr());
    let said = failed.stderr();
    check!(said.contains("/nothing/there") && said.contains(path(&dir)), "it says only: {said}");
    Ok(())
}

/// A hybrid host's hierarchy of v2 may be closed to the caller, and is left out then. That it could not be asked for is not that:
/// else a group stays there for ever.
fn a_hierarchy_of_which_nobody_can_tell_is_not_passed_over(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.waiting()?)?;
    let groups = look::proc(container.pid, "cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no group of v2")?;
    let hierarchy = std::path::Path::new("/sys/fs/cgroup/unified");
    let group = hierarchy.join(own);
    check!(!own.is_empty() && group.is_dir(), "init is in {own:?}");
    let words = ["delete", "--force", &container.id];
    ctx.finish(failing(ctx, &words, "faccessat2", "1+", Some(hierarchy.to_owned())))?.succeeded("delete")?;
    check!(!group.exists(), "{} is left", group.display());
    Ok(())
}

/// The runtime with these words, and a syscall that fails with EIO where it is for this file, as often as strace's `when` says.
fn failing(
    ctx: &Ctx,
    words: &[&str],
    call: &str,
    when: &str,
    file: Option<std::path::PathBuf>,
) -> std::process::Command {
    let (call, inject) = (format!("trace={call}"), format!("inject={call}:error=EIO:when={when}"));
    let mut flags = vec!["-f", "-e", &call, "-e", &inject];
    if let Some(file) = &file {
        flags.extend(["-P", path(file)]);
    }
    ctx.traced(&flags, words)
}
