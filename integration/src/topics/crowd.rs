//! Many containers at once: created, paused, updated, resumed and deleted in parallel batches. That nothing is left, the
//! harness looks for after each test. `CROWD=500` makes as many in the emulated machine too, which is some thirty times slower.

use std::{fs::File, path::Path, process::Stdio};

use serde_json::json;

use crate::harness::{Container, Ctx, Need, Result, check, context::path, tests};

tests! {
    five_hundred_leave_nothing [Need::Controller("pids"), Need::Controller("memory")];
    a_crowd_of_scopes_leaves_nothing [Need::Controller("pids"), Need::Controller("memory"), Need::Systemd];
    as_a_user_a_crowd_of_scopes_leaves_nothing [Need::Unprivileged, Need::Systemd, Need::Controller("pids")];
}

const BATCH: usize = 10;

/// Runs a command for each container, all at the same time.
fn each(ctx: &Ctx, all: &[Container], words: &dyn Fn(&str) -> Vec<String>) -> Result {
    let spawn = |container: &Container| -> Result<_> {
        let words = words(&container.id);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = ctx.dir.join(format!("{}.log", container.id));
        let child = ctx.command(&words).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
        Ok((child, log, words.join(" ")))
    };
    let children: Vec<_> = all.iter().map(spawn).collect::<Result<_>>()?;
    for (mut child, log, words) in children {
        let status = child.wait()?;
        check!(status.success(), "{words}: {}", std::fs::read_to_string(log)?);
    }
    Ok(())
}

fn batch(ctx: &Ctx, bundle: &Path, global: &[&str]) -> Result {
    let all: Vec<_> = (0..BATCH).map(|_| Container::named(ctx, ctx.id(), bundle)).collect();
    each(ctx, &all, &|id| {
        let words = [global, &["run", "--detach", "--bundle", path(bundle), id]].concat();
        words.into_iter().map(str::to_owned).collect()
    })?;
    for command in [&["pause"][..], &["update", "--pids-limit", "30"], &["resume"], &["delete", "--force"]] {
        each(ctx, &all, &|id| [command, &[id]].concat().into_iter().map(str::to_owned).collect())?;
    }
    Ok(())
}

/// How many, where this many take a minute or less.
fn many(ctx: &Ctx, emulated: usize) -> usize {
    let asked = std::env::var("CROWD").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if ctx.host.systemd { emulated } else { 500 })
}

fn crowd(ctx: &Ctx, count: usize, global: &[&str]) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.remove("/linux/cgroupsPath");
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20})).write()?;
    (0..count / BATCH).try_for_each(|_| batch(ctx, &bundle.dir, global))
}

fn five_hundred_leave_nothing(ctx: &Ctx) -> Result {
    crowd(ctx, many(ctx, 200), &[])
}

fn a_crowd_of_scopes_leaves_nothing(ctx: &Ctx) -> Result {
    crowd(ctx, many(ctx, 100), &["--systemd-cgroup"])?;
    no_scope_is_left(ctx, &[])
}

fn as_a_user_a_crowd_of_scopes_leaves_nothing(ctx: &Ctx) -> Result {
    crowd(ctx, many(ctx, 50), &["--systemd-cgroup"])?;
    no_scope_is_left(ctx, &["--user"])
}

fn no_scope_is_left(ctx: &Ctx, whose: &[&str]) -> Result {
    let listed = std::process::Command::new("systemctl")
        .args(whose)
        .args(["list-units", "--all", "--no-legend", "*.scope"])
        .output()?;
    check!(listed.status.success(), "systemctl: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let prefix = ctx.id();
    let prefix = prefix.split('-').next().unwrap_or_default();
    check!(!listed.contains(prefix), "scopes are left: {listed}");
    Ok(())
}
