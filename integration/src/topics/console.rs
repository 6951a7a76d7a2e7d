//! The terminal: a pseudo-terminal in the container, whose other end comes through the console socket
//! (config.md, "terminal", "consoleSize"; unix(7), SCM_RIGHTS).

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Stdio,
};

use serde_json::json;

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, container::until, context::path, look,
    socket::sent_to, tests,
};

tests! {
    the_console_socket_gets_the_terminal;
    the_terminal_is_the_controlling_one;
    dev_console_is_the_terminal;
    the_terminal_has_its_size;
    the_terminal_belongs_to_the_user known "crun": "in old versions";
    input_and_signals_go_through_the_terminal;
    a_terminal_without_a_socket_is_refused_by_create;
    a_socket_without_a_terminal_is_refused known "crun": "ignores it";
    run_on_a_terminal_relays_it [Need::File("/usr/bin/script")];
    a_relayed_terminal_is_set_up_before_the_program_writes [Need::File("/usr/bin/strace")] known "runc": "wants a terminal of its own";
    a_reader_that_went_away_hangs_the_terminal_up known "runc": "wants a terminal of its own";
}

/// A container with a terminal, and the end that the console socket got.
fn on_a_terminal<'a>(ctx: &'a Ctx, bundle: &mut Bundle) -> Result<(Container<'a>, File)> {
    bundle.set("/process/terminal", json!(true));
    // By a short path: an address of a Unix socket has 108 bytes.
    let socket = std::env::temp_dir().join(format!("console-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let container = ctx.create_with(&["--console-socket", path(&socket)], bundle);
    std::fs::remove_file(&socket)?;
    let master = receive(&listener)?;
    Ok((container?, File::from(master)))
}

/// The one descriptor of the one message that comes.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let (message, mut got) = sent_to(listener)?;
    // conmon wants a payload of 1 to 4095 bytes and exactly one descriptor.
    check!((1..4096).contains(&message.len()), "the message has {} bytes", message.len());
    check_eq!(got.len(), 1, "descriptors in the message");
    got.pop().ok_or_else(|| "no descriptor".into())
}

/// Reads the terminal until it has said the words; a terminal whose container has ended gives EIO.
fn reads(master: &mut File, words: &str) -> Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(words) {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => return Err(format!("the terminal ended without {words:?}: {text:?}").into()),
            Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    Ok(text)
}

fn the_console_socket_gets_the_terminal(ctx: &Ctx) -> Result {
    let (container, mut master) =
        on_a_terminal(ctx, &mut ctx.shell("test -t 0 && test -t 1 && test -t 2 && echo all-$((1+2))")?)?;
    container.start()?;
    reads(&mut master, "all-3")?;
    check_eq!(container.wait()?, 0, "exit status");
    Ok(())
}

fn the_terminal_is_the_controlling_one(ctx: &Ctx) -> Result {
    let (container, mut master) =
        on_a_terminal(ctx, &mut ctx.shell("echo to-tty > /dev/tty; echo done-$((1+2)); sleep 1000")?)?;
    container.start()?;
    check!(reads(&mut master, "done-3")?.contains("to-tty"), "/dev/tty is another terminal");
    check_eq!(look::stat(container.pid, 6)?, container.pid.to_string(), "session of init");
    check!(look::stat(container.pid, 7)? != "0", "init has no controlling terminal");
    Ok(())
}

fn dev_console_is_the_terminal(ctx: &Ctx) -> Result {
    let (container, mut master) =
        on_a_terminal(ctx, &mut ctx.shell("echo to-console > /dev/console; echo done-$((1+2))")?)?;
    container.start()?;
    check!(reads(&mut master, "done-3")?.contains("to-console"), "/dev/console is another terminal");
    Ok(())
}

fn the_terminal_has_its_size(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("stty size; echo done-$((1+2))")?;
    bundle.set("/process/consoleSize", json!({"height": 33, "width": 121}));
    let (container, mut master) = on_a_terminal(ctx, &mut bundle)?;
    container.start()?;
    let text = reads(&mut master, "done-3")?;
    check!(text.contains("33 121"), "stty size says {text:?}");
    Ok(())
}

fn the_terminal_belongs_to_the_user(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("stat -c %u $(readlink /proc/self/fd/0); echo done-$((1+2))")?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (container, mut master) = on_a_terminal(ctx, &mut bundle)?;
    container.start()?;
    let text = reads(&mut master, "done-3")?;
    check!(text.starts_with("1000"), "owner of the terminal: {text:?}");
    Ok(())
}

fn input_and_signals_go_through_the_terminal(ctx: &Ctx) -> Result {
    let script = "trap 'echo got-int-$((1+2)); exit 4' INT; read line; echo \"line=$line.\"; while :; do sleep 0.05; done";
    let (container, mut master) = on_a_terminal(ctx, &mut ctx.shell(script)?)?;
    container.start()?;
    master.write_all(b"hello\n")?;
    reads(&mut master, "line=hello.")?;
    master.write_all(b"\x03")?;
    reads(&mut master, "got-int-3")?;
    check_eq!(container.wait()?, 4, "exit status after ^C");
    Ok(())
}

fn a_terminal_without_a_socket_is_refused_by_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/terminal", json!(true));
    ctx.refused(&bundle, &[]).map(drop)
}

fn a_socket_without_a_terminal_is_refused(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let socket = ctx.dir.join("s");
    let _listener = UnixListener::bind(&socket)?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let output = ctx.call(&[
        "create",
        "--bundle",
        path(&bundle.dir),
        "--console-socket",
        path(&socket),
        &container.id,
    ])?;
    check!(output.code != 0, "create with a console socket and no terminal succeeds");
    Ok(())
}

fn run_on_a_terminal_relays_it(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("test -t 0 && echo is-a-tty; stty size; exit 6")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let words = format!(
        "stty rows 33 columns 77; before=$(stty -g); {} --root {} run --bundle {} {}; code=$?; [ \"$(stty -g)\" = \"$before\" ] && echo as before; exit $code",
        path(&ctx.runtime),
        path(&ctx.state_root()),
        path(&bundle.dir),
        container.id
    );
    // script(1) gives it a terminal to be started from.
    let mut command = std::process::Command::new("/usr/bin/script");
    command.args(["-qec", &words, "/dev/null"]).stdin(std::process::Stdio::null());
    let output = ctx.finish(command)?;
    check_eq!(output.code, 6, "exit status ({})", output.stdout());
    for word in ["is-a-tty", "33 77", "as before"] {
        check!(output.stdout().contains(word), "the output lacks {word:?}: {:?}", output.stdout());
    }
    Ok(())
}

/// A runtime that is slow to take the terminal: the program's newlines are not doubled, for they become a line's end once, where
/// the output goes to.
fn a_relayed_terminal_is_set_up_before_the_program_writes(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("echo one; echo two")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let id = ctx.id();
    let slow = ["-e", "trace=recvmsg", "-e", "inject=recvmsg:delay_enter=300000"];
    let command = ctx.traced(&slow, &["run", "--bundle", path(&bundle.dir), &id]);
    let output = ctx.finish(command)?.succeeded("run")?;
    check_eq!(output.stdout(), "one\ntwo\n", "output");
    Ok(())
}

/// Else the program would stand in a write for ever, and the runtime with it.
fn a_reader_that_went_away_hangs_the_terminal_up(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("while echo y; do :; done")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let id = ctx.id();
    let mut run = ctx.command(&["run", "--bundle", path(&bundle.dir), &id]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut first = [0; 1];
    run.stdout.take().ok_or("no output")?.read_exact(&mut first)?;
    check_eq!(&first, b"y", "what the program wrote");
    let ended = until("the run ends", || Ok(run.try_wait()?));
    if ended.is_err() {
        run.kill()?;
        run.wait()?;
    }
    ended.map(drop)
}
