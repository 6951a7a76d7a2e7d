//! What a root file system can be: every name in it may be a trap.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use serde_json::json;

use super::{Canary, contained, without_mounts};
use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    a_mount_over_proc_is_refused known "crun": "in old versions";
    a_link_that_leads_a_mount_over_proc_is_refused known "crun": "1.21 mounts it there";
    a_proc_or_sys_that_is_a_symlink_is_refused;
    a_dev_null_of_the_image_is_not_trusted
        known "runc": "before 1.2.8 it is" known "crun": "old versions make their own";
    a_dev_null_that_is_a_file_of_the_host_is_not_given_away known "crun": "before 1.30 it is";
    a_dev_that_is_a_symlink_touches_nothing_of_the_host
        known "runc": "before 1.5 ptmx is removed there" known "crun": "before 1.28";
    a_link_to_dev_makes_no_device_in_a_volume
        known "runc": "1.5 makes them there" known "crun": "1.21 makes them there";
    a_terminal_of_the_image_is_not_trusted known "crun": "before 1.30";
    a_false_procfs_leaves_nothing_writable;
    what_is_made_in_the_root_stays_in_it;
    no_program_of_the_image_is_run_outside;
    a_fifo_for_a_passwd_does_not_hang known "runc": "opens it" known "crun": "opens it";
    a_passwd_without_end_is_not_read_to_the_end;
    a_mount_point_with_a_name_for_criu_is_not_dumped [Need::Command("checkpoint"), Need::File("/usr/sbin/criu")];
}

/// CVE-2019-16884, CVE-2023-27561: a false /proc swallows what is written for protection.
fn a_mount_over_proc_is_refused(ctx: &Ctx) -> Result {
    let volume = path(&ctx.dir);
    let mounts = [
        ("tmpfs", "tmpfs", "/proc", vec![]),
        ("bind", volume, "/proc", vec!["bind"]),
        ("tmpfs", "tmpfs", "/proc/self/attr", vec![]),
        ("tmpfs", "tmpfs", "/proc/sys", vec![]),
        ("bind", volume, "/proc/sys/net", vec!["bind"]),
        ("bind", "/etc/passwd", "/proc/net/dev", vec!["bind"]),
        ("tmpfs", "tmpfs", "/none/../proc", vec![]),
    ];
    for (kind, source, destination, options) in mounts {
        let mut bundle = ctx.waiting()?;
        bundle.mount(kind, source, destination, &options);
        ctx.refused(&bundle, &[]).map_err(|e| format!("{kind} on {destination}: {e}"))?;
    }
    Ok(())
}

/// The same by a name that only the image knows to mean /proc.
fn a_link_that_leads_a_mount_over_proc_is_refused(ctx: &Ctx) -> Result {
    fs::create_dir_all(ctx.dir.join("volume/self"))?;
    let traps = [
        ("data", "proc", "/data"),
        ("data", "/proc/sys", "/data"),
        ("var/data", "../proc", "/var/data"),
        ("data", "/", "/data/proc"),
    ];
    for (link, target, destination) in traps {
        let mut bundle = ctx.waiting()?;
        symlink(target, bundle.rootfs().join(link))?;
        bundle.mount("bind", path(&ctx.dir.join("volume")), destination, &["bind"]).write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        if container.create(&[]).is_ok() {
            let mounts = look::mounts(container.pid)?;
            let false_ones: Vec<_> = mounts
                .iter()
                .filter(|mount| mount.point.starts_with("/proc") && mount.root.ends_with("/volume"))
                .collect();
            check!(false_ones.is_empty(), "{destination} -> {target}: {false_ones:?}");
        }
    }
    Ok(())
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642.
fn a_proc_or_sys_that_is_a_symlink_is_refused(ctx: &Ctx) -> Result {
    for (name, targets) in [("proc", ["/tmp", "/", "proc"]), ("sys", ["/proc", "/tmp", "sys"])] {
        for target in targets {
            let bundle = ctx.waiting()?;
            fs::remove_dir(bundle.rootfs().join(name))?;
            symlink(target, bundle.rootfs().join(name))?;
            ctx.refused(&bundle, &[]).map_err(|e| format!("{name} -> {target}: {e}"))?;
        }
    }
    Ok(())
}

/// CVE-2025-31133: masked paths are binds of /dev/null, which an image without a /dev mount brings along.
fn a_dev_null_of_the_image_is_not_trusted(ctx: &Ctx) -> Result {
    type Trap = fn(&std::path::Path) -> Result;
    let traps: [(&str, Trap); 6] = [
        ("a link to core_pattern", |at| Ok(symlink("/proc/sys/kernel/core_pattern", at)?)),
        ("a link to passwd", |at| Ok(symlink("/etc/passwd", at)?)),
        ("a FIFO", |at| Ok(mkfifo(at, Mode::S_IRWXU)?)),
        ("a file", |at| Ok(fs::write(at, "")?)),
        ("a directory", |at| Ok(fs::create_dir(at)?)),
        ("/dev/zero", |at| Ok(mknod(at, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5))?)),
    ];
    for (name, trap) in traps {
        let mut bundle = ctx.waiting()?;
        without_mounts(&mut bundle, "/dev");
        fs::write(bundle.rootfs().join("etc/secret"), "secret")?;
        bundle.push("/linux/maskedPaths", json!("/etc/secret"));
        trap(&bundle.rootfs().join("dev/null"))?;
        bundle.write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        if container.create(&[]).is_ok() {
            // What is masked must then be masked by the real one.
            let data = fs::metadata(format!("/proc/{}/root/etc/secret", container.pid))?;
            check!(data.file_type().is_char_device(), "with {name} the file is masked by {data:?}");
        }
    }
    Ok(())
}

/// CVE-2026-88265: what config.json mounts over the image's /dev/null is neither opened nor given to the container's user.
fn a_dev_null_that_is_a_file_of_the_host_is_not_given_away(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    let mut bundle = ctx.shell("echo evil; echo evil >&2")?;
    without_mounts(&mut bundle, "/dev");
    bundle.remove("/linux/maskedPaths").set("/root/readonly", json!(false));
    symlink("/shared", bundle.rootfs().join("dev/null"))?;
    bundle.mount("bind", path(&canary.at.join("ptmx")), "/shared", &["bind"]);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    contained(ctx, &bundle, &canary)
}

/// CVE-2026-41579, CVE-2026-47766: what is done in /dev is done wherever the link leads.
fn a_dev_that_is_a_symlink_touches_nothing_of_the_host(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    for target in canary.targets() {
        for with_mounts in [true, false] {
            let mut bundle = ctx.shell("true")?;
            fs::remove_dir(bundle.rootfs().join("dev"))?;
            symlink(&target, bundle.rootfs().join("dev"))?;
            if !with_mounts {
                without_mounts(&mut bundle, "/dev");
            }
            contained(ctx, &bundle, &canary)?;
        }
    }
    Ok(())
}

/// The same where the link leads to what config.json shares with the container: no node is made there, and no ptmx removed.
fn a_link_to_dev_makes_no_device_in_a_volume(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    type Trap = fn(&Bundle) -> Result;
    let dev_leads_there: Trap = |bundle| {
        fs::remove_dir(bundle.rootfs().join("dev"))?;
        Ok(symlink("/shared", bundle.rootfs().join("dev"))?)
    };
    let traps: [(Trap, bool); 3] = [
        (dev_leads_there, false),
        (|bundle| Ok(symlink("dev", bundle.rootfs().join("shared"))?), false),
        (|bundle| Ok(symlink("dev", bundle.rootfs().join("shared"))?), true),
    ];
    for (trap, with_mounts) in traps {
        let mut bundle = ctx.shell("true")?;
        if !with_mounts {
            without_mounts(&mut bundle, "/dev");
        }
        bundle.set("/root/readonly", json!(false));
        trap(&bundle)?;
        bundle.mount("bind", path(&canary.at), "/shared", &["bind"]);
        contained(ctx, &bundle, &canary)?;
    }
    Ok(())
}

/// CVE-2025-52565, CVE-2026-88264: a terminal is made through the image's /dev/pts/ptmx and bound on its /dev/console.
fn a_terminal_of_the_image_is_not_trusted(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    let host_file = canary.at.join("ptmx");
    for console in [false, true] {
        let mut bundle = ctx.waiting()?;
        without_mounts(&mut bundle, "/dev");
        let dev = bundle.rootfs().join("dev");
        if console {
            bundle.mount("devpts", "devpts", "/dev/pts", &["newinstance", "ptmxmode=0666"]);
            symlink(canary.at.join("made"), dev.join("console"))?;
        } else {
            fs::create_dir(dev.join("pts"))?;
            for name in ["ptmx", "0", "1"] {
                symlink(&host_file, dev.join("pts").join(name))?;
            }
        }
        bundle.set("/process/terminal", json!(true)).write()?;
        let socket = std::env::temp_dir().join(format!("trap-{}", std::process::id()));
        let listener = UnixListener::bind(&socket)?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        let created = container.create(&["--console-socket", path(&socket)]);
        fs::remove_file(&socket)?;
        drop(listener);
        if created.is_ok() {
            let console = look::mount_at(container.pid, "/dev/console")?;
            check_eq!(console.kind, "devpts", "what is mounted on /dev/console");
        }
        drop(container);
        canary.untouched()?;
    }
    Ok(())
}

/// CVE-2026-115521: an image without a mount on /proc brings links of /proc/self/fd along, by which mounts are found again.
fn a_false_procfs_leaves_nothing_writable(ctx: &Ctx) -> Result {
    fs::create_dir_all(ctx.dir.join("volume"))?;
    let mut bundle = ctx.shell("for d in / /tmp /var; do : > $d/x && echo $d; done 2>/dev/null; true")?;
    without_mounts(&mut bundle, "/proc");
    bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    for directory in ["proc/self/fd", "proc/thread-self/fd", "proc/1/fd"] {
        let directory = bundle.rootfs().join(directory);
        fs::create_dir_all(&directory)?;
        for number in 0..64 {
            symlink("/home", directory.join(number.to_string()))?;
        }
    }
    bundle.mount("bind", path(&ctx.dir.join("volume")), "/tmp", &["bind", "ro"]);
    bundle.mount("tmpfs", "tmpfs", "/var", &["ro"]);
    let output = ctx.run(&bundle)?;
    check_eq!(output.stdout(), "", "read-only directories that could be written");
    Ok(())
}

/// CVE-2019-18837, CVE-2025-24965, CVE-2024-45310: mount points and the working directory are made where they are missing, the
/// pid file where the caller says: through no link out of the root, and over no link's end.
fn what_is_made_in_the_root_stays_in_it(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    for target in canary.targets() {
        let mut bundle = ctx.shell("true")?;
        bundle.set("/root/readonly", json!(false)).set("/process/cwd", json!("/etc/cwd/made"));
        for name in ["cwd", "directory", "file", "dangling"] {
            let target = if name == "dangling" { format!("{target}/dangling") } else { target.clone() };
            symlink(target, bundle.rootfs().join("etc").join(name))?;
        }
        bundle.mount("tmpfs", "tmpfs", "/etc/directory/made", &[]);
        bundle.mount("bind", "/etc/passwd", "/etc/file/made", &["bind"]);
        bundle.mount("bind", "/etc/passwd", "/etc/dangling", &["bind"]);
        contained(ctx, &bundle, &canary)?;
        symlink(canary.at.join("ptmx"), bundle.rootfs().join("pid"))?;
        ctx.run_with(&["--pid-file", path(&bundle.rootfs().join("pid"))], &bundle)?;
        canary.untouched()?;
    }
    Ok(())
}

/// CVE-2019-14271, CVE-2026-41567, CVE-2026-84042: a helper, or a library of the name service, taken from the image.
fn no_program_of_the_image_is_run_outside(ctx: &Ctx) -> Result {
    let shared = ctx.dir.join("shared");
    fs::create_dir_all(&shared)?;
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", path(&shared), "/tmp", &["bind"]);
    bundle
        .user_namespace(100_000, 65536)?
        .set("/process/env", json!(["LD_PRELOAD=/lib/trap.so", "PATH=/bin"]));
    let ran = shared.join("ran");
    let trap = format!(
        "#!/bin/sh\n/bin/readlink /proc/self/ns/mnt >> {} || /bin/readlink /proc/self/ns/mnt >> /tmp/ran\n",
        ran.display()
    );
    for directory in ["usr/bin", "usr/sbin", "usr/local/bin", "lib"] {
        let directory = bundle.rootfs().join(directory);
        fs::create_dir_all(&directory)?;
        for name in [
            "newuidmap",
            "newgidmap",
            "criu",
            "passt",
            "pasta",
            "unpigz",
            "xz",
            "nft",
            "ip",
            "modprobe",
            "getent",
            "trap.so",
            "libnss_files.so.2",
        ] {
            fs::write(directory.join(name), &trap)?;
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755))?;
        }
    }
    let container = ctx.started(&bundle)?;
    ctx.exec(&container, &["--user", "1000:1000"], &["/probe", "exit", "0"])?;
    for command in ["ps", "state", "events"] {
        let words: &[&str] = if command == "events" { &["events", "--stats"] } else { &[command] };
        ctx.call(&[words, &[&container.id]].concat())?;
    }
    check!(!ran.exists(), "a program of the image was run: {}", fs::read_to_string(&ran)?);
    Ok(())
}

/// A passwd that never ends a read: the image's business must not hold the runtime up.
fn a_fifo_for_a_passwd_does_not_hang(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    for name in ["passwd", "group"] {
        fs::remove_file(bundle.rootfs().join("etc").join(name))?;
        mkfifo(&bundle.rootfs().join("etc").join(name), Mode::S_IRWXU)?;
    }
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut child = ctx.command(&["run", "--bundle", path(&bundle.dir), &container.id]).spawn()?;
    let ended = until("run ends", || Ok(child.try_wait()?.map(drop)));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ended
}

/// CVE-2024-9676, CVE-2026-61801: a passwd that is huge, or a link to what gives zeros for ever. In 256 MiB, as far as a Go
/// program can begin in that.
fn a_passwd_without_end_is_not_read_to_the_end(ctx: &Ctx) -> Result {
    for huge in [true, false] {
        let bundle = ctx.shell("true")?;
        for name in ["passwd", "group"] {
            let at = bundle.rootfs().join("etc").join(name);
            fs::remove_file(&at)?;
            if huge {
                fs::File::create(&at)?.set_len(8 << 30)?;
            } else {
                symlink("/dev/zero", &at)?;
            }
        }
        bundle.write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let limit = if ctx.kind == "runc" { "true" } else { "ulimit -v 262144" };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{limit}; exec timeout 20 \"$@\""), "sh"]).arg(&ctx.runtime);
        command.arg("--root").arg(ctx.state_root());
        command.args(["run", "--bundle", path(&bundle.dir), &container.id]).stdin(Stdio::null());
        let begin = Instant::now();
        ctx.finish(command)?;
        check!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    }
    Ok(())
}

/// CVE-2026-119101, CVE-2026-115520: criu takes `NAME]:VALUE` apart at the first of these, and would bind a directory of the
/// host's that the image has chosen.
fn a_mount_point_with_a_name_for_criu_is_not_dumped(ctx: &Ctx) -> Result {
    fs::create_dir_all(ctx.dir.join("volume"))?;
    let mut bundle = ctx.waiting()?;
    fs::create_dir_all(bundle.rootfs().join("x]:/etc"))?;
    symlink("/x]:/etc", bundle.rootfs().join("data"))?;
    bundle.mount("bind", path(&ctx.dir.join("volume")), "/data", &["bind"]);
    let container = ctx.started(&bundle)?;
    let image = ctx.dir.join("image");
    let output = ctx.call(&["checkpoint", "--image-path", path(&image), &container.id])?;
    check!(output.code != 0, "it was checkpointed");
    if ctx.kind == "coracle" {
        // Before criu is asked, which may refuse for reasons of its own.
        check!(output.stderr().contains("that criu cannot take"), "{}", output.stderr());
        check!(!image.join("dump.log").exists(), "criu was asked");
    }
    Ok(())
}
