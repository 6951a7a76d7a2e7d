//! Device nodes and links in /dev, and which devices may be used (config-linux.md, "Default Devices", "Devices",
//! "Device Whitelist", "Dev symbolic links").

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Bundle, Ctx, Output, Result, check, check_eq, context::path, tests};

tests! {
    the_default_devices_are_there;
    a_runtime_in_a_user_namespace_has_the_hosts;
    rules_that_a_user_namespace_cannot_have_are_said known "runc": "says nothing" known "crun": "says nothing";
    the_default_links_are_there;
    a_listed_device_is_made;
    a_listed_device_is_made_for_a_user_namespace;
    a_listed_multiplexer_is_the_containers_own;
    a_fifo_is_made;
    a_forbidden_device_cannot_be_opened;
    an_allowed_device_can_be_opened;
    the_order_of_rules_counts;
    access_letters_count;
    default_devices_stay_allowed;
    a_default_device_that_is_another_is_refused known "runc": "takes what is there" known "crun": "takes what is there";
    an_unknown_type_of_device_is_refused;
    a_null_stream_is_the_containers_own known "crun": "is the host's";
}

const TYPE: u64 = 0o170_000;
const CHARACTER: u64 = 0o020_000;

fn the_default_devices_are_there(ctx: &Ctx) -> Result {
    let devices = ctx.report(&ctx.bundle()?)?["devices"].take();
    let wanted =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in wanted {
        let device = &devices[name];
        check_eq!(device["device"], json!([major, minor]), "number of /dev/{name}");
        let mode = device["mode"].as_u64().unwrap_or(0);
        check_eq!((mode & TYPE, mode & 0o777), (CHARACTER, 0o666), "type and mode of /dev/{name}");
    }
    Ok(())
}

/// As Buildah calls it for a user: nobody there may make nodes, whatever the capabilities say. mknod(2).
fn a_runtime_in_a_user_namespace_has_the_hosts(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("echo lost >/dev/null && test -c /dev/zero && echo fine")?;
    bundle.remove("/linux/resources");
    // Group 5, the terminals', is not mapped there.
    bundle.set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]));
    bundle.write()?;
    let output = in_a_user_namespace(ctx, &bundle)?;
    check_eq!(output.stdout().trim(), "fine", "what it prints ({})", output.stderr());
    Ok(())
}

fn rules_that_a_user_namespace_cannot_have_are_said(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "3"]).remove("/linux/resources");
    bundle.set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]));
    let nothing = json!({"allow": false, "access": "rwm"});
    let fuse = json!({"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    for (rules, said) in [(json!([nothing]), false), (json!([nothing, fuse]), true)] {
        bundle.set("/linux/resources", json!({ "devices": rules })).write()?;
        let output = in_a_user_namespace(ctx, &bundle)?;
        check_eq!(output.code, 3, "exit status ({})", output.stderr());
        check_eq!(
            output.stderr().contains("device rules cannot be set"),
            said,
            "a warning in {:?}",
            output.stderr()
        );
    }
    Ok(())
}

fn in_a_user_namespace(ctx: &Ctx, bundle: &Bundle) -> Result<Output> {
    let (root, id) = (ctx.state_root(), ctx.id());
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"])
        .args([path(&ctx.runtime), "--root", path(&root), "run", "--bundle", path(&bundle.dir), &id])
        .stdin(Stdio::null());
    ctx.finish(command)
}

fn the_default_links_are_there(ctx: &Ctx) -> Result {
    let devices = ctx.report(&ctx.bundle()?)?["devices"].take();
    let wanted = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in wanted {
        check_eq!(devices[name]["link"], json!(target), "/dev/{name}");
    }
    let ptmx = devices["ptmx"]["link"].as_str().unwrap_or_default();
    check!(ptmx == "pts/ptmx" || ptmx == "/dev/pts/ptmx", "/dev/ptmx leads to {ptmx:?}");
    Ok(())
}

fn a_listed_device_is_made(ctx: &Ctx) -> Result {
    is_made(ctx, ctx.bundle()?)
}

/// Where the container may make none.
fn a_listed_device_is_made_for_a_user_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(100_000, 65_536)?;
    is_made(ctx, bundle)
}

fn is_made(ctx: &Ctx, mut bundle: Bundle) -> Result {
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8});
    bundle.push("/linux/devices", device);
    let device = ctx.report(&bundle)?["devices"]["mine"].take();
    check_eq!(device["device"], json!([1, 5]), "number");
    check_eq!(device["mode"].as_u64().unwrap_or(0) & 0o7777, 0o640, "mode");
    check_eq!((&device["uid"], &device["gid"]), (&json!(7), &json!(8)), "owner");
    Ok(())
}

/// Also in a user namespace, where a device is a mount, which nothing can replace.
fn a_listed_multiplexer_is_the_containers_own(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(100_000, 65_536)?;
    bundle.push("/linux/devices", json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}));
    let ptmx = ctx.report(&bundle)?["devices"]["ptmx"]["link"].take();
    check!(ptmx == "pts/ptmx" || ptmx == "/dev/pts/ptmx", "/dev/ptmx leads to {ptmx:?}");
    Ok(())
}

fn a_fifo_is_made(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}));
    let mode = ctx.report(&bundle)?["devices"]["pipe"]["mode"].as_u64().unwrap_or(0);
    check_eq!(mode & TYPE, 0o010_000, "type of /dev/pipe");
    Ok(())
}

/// What opening /dev/kmsg-like device 1:11 for reading gives under these rules, as an errno.
fn open(ctx: &Ctx, rules: &serde_json::Value, word: &str) -> Result<String> {
    let mut bundle = ctx.bundle()?;
    bundle.push(
        "/linux/devices",
        json!({"path": "/dev/tested", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}),
    );
    bundle.set("/linux/resources/devices", rules.clone()).args(&["/probe", word, "/dev/tested"]);
    bundle.capabilities(&["CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    ctx.stdout(&bundle)
}

fn a_forbidden_device_cannot_be_opened(ctx: &Ctx) -> Result {
    let rules = json!([{"allow": false, "access": "rwm"}]);
    check_eq!(open(ctx, &rules, "open")?, "1", "errno of open (EPERM)");
    Ok(())
}

fn an_allowed_device_can_be_opened(ctx: &Ctx) -> Result {
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    ]);
    check_eq!(open(ctx, &rules, "open")?, "0", "errno of open");
    Ok(())
}

fn the_order_of_rules_counts(ctx: &Ctx) -> Result {
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    ]);
    check_eq!(open(ctx, &rules, "open")?, "1", "errno of open (EPERM)");
    Ok(())
}

fn access_letters_count(ctx: &Ctx) -> Result {
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm"}
    ]);
    check_eq!(open(ctx, &rules, "open")?, "0", "errno of open for reading");
    check_eq!(open(ctx, &rules, "write")?, "1", "errno of open for writing (EPERM)");
    Ok(())
}

fn default_devices_stay_allowed(ctx: &Ctx) -> Result {
    for device in ["null", "zero", "full", "random", "urandom", "ptmx"] {
        let mut bundle = ctx.bundle()?;
        bundle.args(&["/probe", "open", &format!("/dev/{device}")]);
        check_eq!(ctx.stdout(&bundle)?, "0", "errno of opening /dev/{device}");
    }
    Ok(())
}

/// An image without a mount on /dev brings nodes along: what is named zero must be it.
fn a_default_device_that_is_another_is_refused(ctx: &Ctx) -> Result {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let mut bundle = ctx.waiting()?;
    bundle.remove("/linux/maskedPaths").without_mounts("/dev");
    mknod(&bundle.rootfs().join("dev/zero"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 7))?;
    ctx.refused(&bundle, &["zero"]).map(drop)
}

fn an_unknown_type_of_device_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.push("/linux/devices", json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}));
    ctx.refused(&bundle, &[]).map(drop)
}

/// One that is the host's cannot be checkpointed: criu finds no mount of the container that it is on.
fn a_null_stream_is_the_containers_own(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let file = |path: &str| -> Result<_> {
        let found = std::fs::metadata(format!("/proc/{}/{path}", container.pid))?;
        Ok((found.dev(), found.ino()))
    };
    check_eq!(file("fd/0")?, file("root/dev/null")?, "device and inode of standard input");
    Ok(())
}
