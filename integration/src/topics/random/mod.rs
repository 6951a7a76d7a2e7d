//! Never fail open: random configurations, and a look from outside whether each restriction that was asked for is in force. A
//! create that is refused is fine; one that gives less than was asked is not.
//!
//! `RANDOM_SEED` and `RANDOM_COUNT` choose what is made; each configuration has a seed of its own, which a failure names.
//! `generate` makes them, `observe` looks; the two share config.json and nothing else.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use generate::Made;
use serde_json::Value;

use crate::harness::{
    Container, Ctx, Need, Output, Result, check, check_eq, container::until, context::path, look,
    socket::sent_to, tests,
};

mod generate;
mod observe;

tests! {
    what_is_asked_is_in_force_or_refused [Need::File("/usr/bin/nsenter"), Need::File("/usr/bin/ionice")]
        known "runc": "passes on signals that its caller ignores; leaves rro and rnosuid of a tmpfs out; 1.1 knows no domainname, ioPriority, memoryPolicy"
        known "crun": "passes on signals that its caller ignores; of ro and rw, suid and nosuid the first counts; 1.21 knows no nosymfollow, memoryPolicy";
}

/// How many a run of all tests makes.
const COUNT: u64 = 30;

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
    let words = ["create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file)];
    let output = call(ctx, &words, made.preserved, &container.id)?;
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
    let other = || other(ctx, &container, &made);
    let early = if made.other_is_early { other() } else { Ok(()) };
    let looked = container.start().and_then(|()| observe::init(&container, &made));
    let late = if made.other_is_early { Ok(()) } else { other() };
    drop(container);
    let all = looked.and(early).and(late).map_err(|error| format!("{error}\n  of {}", bundle.dir.display()));
    all?;
    fs::remove_dir_all(&bundle.dir)?;
    Ok(true)
}

/// Runs the runtime with always more descriptors than are to be passed on, and with signals that it ignores and the workload does not.
fn call(ctx: &Ctx, words: &[&str], preserved: u64, id: &str) -> Result<Output> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' INT USR2; exec \"$@\" 3</etc/passwd 4</etc/group 5</etc/hosts 9</etc", "sh"])
        .arg(&ctx.runtime);
    command.arg("--root").arg(ctx.state_root()).args(words).args([
        "--preserve-fds",
        &preserved.to_string(),
        id,
    ]);
    command.stdin(Stdio::null());
    ctx.finish(command)
}

/// Another process in the container. One that is refused is fine, too.
fn other(ctx: &Ctx, container: &Container, made: &Made) -> Result {
    let (file, pid_file) = (ctx.dir.join("process.json"), ctx.dir.join("exec.pid"));
    fs::write(&file, made.other.to_string())?;
    let mut words = vec!["exec", "--detach", "--pid-file", path(&pid_file), "--process", path(&file)];
    // By a short path: an address of a Unix socket has 108 bytes.
    let socket = std::env::temp_dir().join(format!("random-{}", std::process::id()));
    let terminal = made.other["terminal"] == true;
    let listener = terminal.then(|| UnixListener::bind(&socket)).transpose()?;
    if terminal {
        words.extend(["--console-socket", path(&socket)]);
    }
    let output = call(ctx, &words, made.other_preserved, &container.id);
    if terminal {
        fs::remove_file(&socket)?;
    }
    let output = output?;
    if output.code != 0 {
        check!(!output.stderr().trim().is_empty(), "exec failed without a word");
        if std::env::var_os("RANDOM_REFUSED").is_some() {
            println!("exec of {}: refused: {}", made.other, output.stderr().trim());
        }
        return Ok(());
    }
    let pid: u32 = fs::read_to_string(&pid_file)?.parse()?;
    let looked =
        said(&output, listener.as_ref()).and_then(|(report, _terminal)| observe::other(pid, made, &report));
    look::kill_and_reap(pid);
    looked
}

/// What the process prints, to its output or to its terminal, whose end would be the process's too.
fn said(output: &Output, listener: Option<&UnixListener>) -> Result<(Value, Option<File>)> {
    let Some(listener) = listener else {
        let report = until("the probe reports", || Ok(serde_json::from_str(&output.stdout()).ok()))?;
        return Ok((report, None));
    };
    let (_, mut sent) = sent_to(listener)?;
    let terminal = File::from(sent.pop().ok_or("no terminal")?);
    let mut line = String::new();
    BufReader::new(&terminal).read_line(&mut line)?;
    Ok((serde_json::from_str(&line)?, Some(terminal)))
}
