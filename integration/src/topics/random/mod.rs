//! Never fail open: random configurations, and a look from outside whether each restriction that was asked for is in force. A
//! create that is refused is fine; one that gives less than was asked is not.
//!
//! `RANDOM_SEED` and `RANDOM_COUNT` choose what is made; each configuration has a seed of its own, which a failure names.
//! `generate` makes them, `observe` looks; the two share config.json and nothing else.

use std::{
    fs,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::harness::{Container, Ctx, Need, Result, check, check_eq, context::path, tests};

mod generate;
mod observe;

tests! {
    what_is_asked_is_in_force_or_refused [Need::File("/usr/bin/nsenter"), Need::File("/usr/bin/ionice")]
        known "runc": "passes on signals that its caller ignores; leaves rro and rnosuid of a tmpfs out; 1.1 knows no domainname, ioPriority, memoryPolicy"
        known "crun": "passes on signals that its caller ignores; of ro and rw, suid and nosuid the first counts; 1.21 knows no nosymfollow, memoryPolicy";
}

/// How many a run of all tests makes.
const COUNT: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn what_is_asked_is_in_force_or_refused(ctx: &Ctx) -> Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (first, count) = (number("RANDOM_SEED").unwrap_or(now), number("RANDOM_COUNT").unwrap_or(COUNT));
    let (mut made, mut wrong) = (0, Vec::new());
    for seed in first..first + count {
        match one(ctx, seed) {
            Ok(true) => made += 1,
            Ok(false) => {}
            Err(error) => wrong.push(format!("RANDOM_SEED={seed} RANDOM_COUNT=1: {error}")),
        }
    }
    println!("seeds {first} to {}, {made} of {count} containers made", first + count - 1);
    check!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A generator whose every configuration is refused would prove nothing.
    check!(count < 10 || made * 2 > count, "{made} of {count} were made");
    Ok(())
}

/// Makes one; says whether it was not refused.
fn one(ctx: &Ctx, seed: u64) -> Result<bool> {
    let made = generate::bundle(ctx, seed)?;
    let bundle = &made.bundle;
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    let pid_file = ctx.dir.join("random.pid");
    let preserve = made.preserved.to_string();
    let words =
        ["create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file), "--preserve-fds", &preserve];
    // Always more descriptors than are to be passed on; and signals that the caller ignores, the workload does not.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' INT USR2; exec \"$@\" 3</etc/passwd 4</etc/group 5</etc/hosts 9</etc", "sh"])
        .arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(words).arg(&container.id).stdin(Stdio::null());
    let output = ctx.finish(command)?;
    if output.code != 0 {
        check!(!output.stderr().trim().is_empty(), "create failed without a word");
        if std::env::var_os("RANDOM_REFUSED").is_some() {
            println!("RANDOM_SEED={seed}: refused: {}", output.stderr().trim());
        }
        drop(container);
        fs::remove_dir_all(&bundle.dir)?;
        return Ok(false);
    }
    container.output = Some(output);
    container.pid = fs::read_to_string(&pid_file)?.parse()?;
    check_eq!(container.status()?, "created", "status");
    let looked = container.start().and_then(|()| observe::compare(&container, &made));
    drop(container);
    if looked.is_ok() {
        fs::remove_dir_all(&bundle.dir)?;
    }
    looked.map(|()| true)
}
