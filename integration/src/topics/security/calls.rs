//! What its syscalls show of the runtime: no name of the image leads anywhere by itself.

use std::fs;

use crate::harness::{Container, Ctx, Need, Result, check, container::until, context::path, look, tests};

const STRACE: Need = Need::File("/usr/bin/strace");

tests! {
    no_name_of_the_image_is_followed_before_the_pivot [STRACE];
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

/// A tracer ends when the last process that it traced has.
fn tracers_end() -> Result {
    until("strace ends", || {
        let left = look::descendants(std::process::id());
        Ok((!left.iter().any(|pid| look::command_line(*pid).contains("strace"))).then_some(()))
    })
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
