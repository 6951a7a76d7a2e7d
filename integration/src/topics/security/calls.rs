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
}

/// All calls of these kinds that creating the container takes, a line each.
fn calls(ctx: &Ctx, container: &Container, bundle: &str, kinds: &str) -> Result<String> {
    let file = ctx.dir.join("calls");
    let mut command = std::process::Command::new("/usr/bin/strace");
    command.args(["-D", "-f", "-qqq", "-s", "4096", "-o", path(&file), "-e", &format!("trace={kinds}")]);
    command.arg(&ctx.runtime).arg("--root").arg(ctx.state_root());
    command.args(["create", "--bundle", bundle, &container.id]).stdin(std::process::Stdio::null());
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
