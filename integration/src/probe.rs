//! The program inside the container: it looks from within and prints JSON, so that no test depends on a shell.
//! Statically linked and copied into each root file system as /probe. It decides nothing.

use std::{fs, io::Write, process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

/// `/probe WORD ...`
pub(crate) fn main(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["report"] => print(&report()),
        ["report-and-wait"] => {
            print(&report());
            wait()
        }
        ["wait"] => wait(),
        ["try-and-wait", directory] => {
            print(&attempts(directory));
            wait()
        }
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(255)),
        ["open", path] => print(&outcome(fs::File::open(path).map(drop))),
        ["write", path] => print(&outcome(fs::OpenOptions::new().write(true).open(path).map(drop))),
        ["mkdir", path] => print(&outcome(fs::create_dir(path))),
        // The C library tries clone3(2), and clone(2) only after ENOSYS.
        ["thread"] => print(&outcome(std::thread::Builder::new().spawn(|| ()).map(drop))),
        ["read", path] => {
            print(&fs::read_to_string(path).map_or_else(|e| outcome(Err(e)), |text| json!(text)))
        }
        ["memory", mebibytes] => memory(mebibytes.parse().unwrap_or(0)),
        ["children", count] => children(count.parse().unwrap_or(0)),
        ["save-stdin", file] => save_stdin(file),
        ["spy"] => spy(false),
        ["overwrite"] => spy(true),
        ["notify", text] => notify(text),
        ["connect", path] => print(&outcome(std::os::unix::net::UnixStream::connect(path).map(drop))),
        _ => ExitCode::from(64),
    }
}

fn print(value: &Value) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{value}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(74),
    }
}

/// Says something as sd_notify(3) does, and waits.
fn notify(text: &str) -> ExitCode {
    let service = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let said = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(text.as_bytes(), service));
    print(&outcome(said.map(drop)));
    wait()
}

fn wait() -> ExitCode {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// 0, or the errno.
fn outcome(result: std::io::Result<()>) -> Value {
    json!(result.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |()| 0))
}

fn report() -> Value {
    json!({
        "pid": std::process::id(),
        "status": status(),
        "fds": descriptors(),
        "env": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
        "args": std::env::args().collect::<Vec<_>>(),
        "cwd": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        "ids": ids(),
        "hostname": nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        "namespaces": namespaces(),
        "mounts": lines("/proc/self/mountinfo"),
        "cgroup": lines("/proc/self/cgroup"),
        "limits": lines("/proc/self/limits"),
        "devices": listing("/dev"),
    })
}

/// What each of a few calls gives that a profile may forbid, by the names of the syscalls: in a directory that is writable.
fn attempts(directory: &str) -> Value {
    use std::os::unix::fs::PermissionsExt;
    let at = |name: &str| format!("{directory}/{name}");
    let file = fs::write(at("file"), "");
    json!({
        "openat": outcome(file),
        "mkdir": outcome(fs::create_dir(at("made"))),
        "symlink": outcome(std::os::unix::fs::symlink("to", at("link"))),
        "link": outcome(fs::hard_link(at("file"), at("other"))),
        "chmod": outcome(fs::set_permissions(at("file"), fs::Permissions::from_mode(0o600))),
        "rename": outcome(fs::rename(at("other"), at("third"))),
        "unlink": outcome(fs::remove_file(at("third"))),
        "rmdir": outcome(fs::remove_dir(at("made"))),
    })
}

fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn status() -> Value {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let tidy = |value: &str| json!(value.split_whitespace().collect::<Vec<_>>().join(" "));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), tidy(value))).collect::<Map<_, _>>())
}

/// Open descriptors and what they are, without the one that reads the directory.
fn descriptors() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !target.ends_with(format!("{}/fd", std::process::id())) {
            found.insert(
                entry.file_name().to_string_lossy().into_owned(),
                json!(target.display().to_string()),
            );
        }
    }
    Value::Object(found)
}

fn ids() -> Value {
    use nix::unistd::{getegid, geteuid, getgid, getgroups, getuid};
    let groups: Vec<u32> = getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    json!({
        "uid": getuid().as_raw(), "gid": getgid().as_raw(),
        "euid": geteuid().as_raw(), "egid": getegid().as_raw(), "groups": groups
    })
}

fn namespaces() -> Value {
    let links = fs::read_dir("/proc/self/ns").into_iter().flatten().flatten();
    let pairs = links.filter_map(|link| {
        Some((
            link.file_name().to_string_lossy().into_owned(),
            json!(fs::read_link(link.path()).ok()?.display().to_string()),
        ))
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Type, mode, owner and device number of each entry; the target of a link.
fn listing(path: &str) -> Value {
    use std::os::unix::fs::MetadataExt;
    let mut found = Map::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let Ok(data) = fs::symlink_metadata(entry.path()) else { continue };
        let (major, minor) = (nix::sys::stat::major(data.rdev()), nix::sys::stat::minor(data.rdev()));
        let link = fs::read_link(entry.path()).map(|target| target.display().to_string()).ok();
        found.insert(
            entry.file_name().to_string_lossy().into_owned(),
            json!({"mode": data.mode(), "uid": data.uid(), "gid": data.gid(), "device": [major, minor], "link": link}),
        );
    }
    Value::Object(found)
}

/// Touches every page of so many mebibytes.
fn memory(mebibytes: usize) -> ExitCode {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    print(&json!(held.len()))
}

/// Starts so many children and prints how many there were before the kernel said no.
fn children(count: usize) -> ExitCode {
    let start = || std::process::Command::new("/probe").arg("wait").spawn();
    let held: Vec<_> = std::iter::repeat_with(start).take(count).map_while(std::result::Result::ok).collect();
    let code = print(&json!(held.len()));
    for mut child in held {
        let _ = child.kill();
        let _ = child.wait();
    }
    code
}

/// Watches for processes that run another program than those of the tests' root file system, and says what each runs. If
/// `overwrite`, holds on to the program and writes to it as soon as the kernel lets it: while it runs, it does not.
fn spy(overwrite: bool) -> ExitCode {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    const O_PATH: i32 = 0o10_000_000;
    let own = |file: &fs::File| {
        let number = |m: std::io::Result<fs::Metadata>| m.map(|m| (m.dev(), m.ino())).ok();
        ["/probe", "/bin/busybox"].iter().any(|known| number(fs::metadata(known)) == number(file.metadata()))
    };
    let mut held: Vec<fs::File> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    say("watching");
    loop {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let link = entry.path().join("exe");
            let Ok(program) = fs::read_link(&link) else { continue };
            let program = program.display().to_string();
            if ["/probe", "/bin/busybox"].contains(&program.as_str()) {
                continue;
            }
            if overwrite && held.len() < 200 {
                // By now it may have become one of those.
                let program = fs::OpenOptions::new().read(true).custom_flags(O_PATH).open(&link);
                held.extend(program.ok().filter(|program| !own(program)));
            }
            if seen.insert(program.clone()) {
                say(&format!("{pid} runs {program}"));
            }
        }
        for file in &held {
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
            // A sealed file can be opened, but not written.
            let program = fs::OpenOptions::new().write(true).open(again);
            if program.is_ok_and(|mut program| program.write_all(b"evil").is_ok()) {
                say("written");
            }
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// For hooks: appends standard input and what the hook sees to a file, as one line of JSON.
fn save_stdin(file: &str) -> ExitCode {
    let mut text = String::new();
    let read = std::io::Read::read_to_string(&mut std::io::stdin(), &mut text);
    let line = json!({
        "state": serde_json::from_str::<Value>(&text).unwrap_or(Value::Null),
        "read": read.is_ok(),
        "env": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
        "namespaces": namespaces(),
    });
    let append = fs::OpenOptions::new().append(true).create(true).open(file);
    match append.and_then(|mut file| writeln!(file, "{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(74),
    }
}
