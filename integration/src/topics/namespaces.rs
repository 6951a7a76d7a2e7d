//! Namespaces new, shared and joined by path (config-linux.md, "Namespaces"; namespaces(7)).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::harness::{
    Bundle, Ctx, Need, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    listed_namespaces_are_new;
    an_empty_path_is_none known "crun": "opens it";
    unlisted_namespaces_are_the_callers;
    namespaces_are_joined_by_path;
    a_pid_namespace_is_joined_by_path;
    a_host_namespace_by_path_is_not_changed known "crun": "changes the host's";
    the_hosts_mounts_by_path_are_not_changed
        known "runc": "the host's root is the container's" known "crun": "the host's root is the container's";
    a_mount_namespace_is_joined_by_path
        known "runc": "does its mounts in the joined namespace and refuses" known "crun": "sets up the joined one anew";
    a_user_namespace_is_joined_by_path known "runc": "before 1.2 it wants mappings besides";
    a_time_namespace_has_its_offsets [Need::Namespace("time")]
        known "runc": "before 1.2 there is no time namespace";
    a_time_namespace_beside_a_user_namespace_has_its_offsets [Need::Namespace("time")]
        known "runc": "before 1.2 there is no time namespace" known "crun": "1.21 opens its file too late";
    a_new_user_namespace_and_namespaces_of_the_hosts known "runc": "before 1.2 exec enters the user namespace first";
    a_joined_user_namespace_and_namespaces_of_the_hosts known "runc": "before 1.2 it wants mappings besides";
    without_a_mount_namespace_delete_takes_the_mounts_off known "runc": "leaves them" known "crun": "leaves them";
    init_is_process_1;
    without_a_pid_namespace_init_has_the_hosts_pid;
    the_loopback_is_up;
    the_network_is_there_when_it_is_bound;
    the_network_is_there_when_hooks_look;
    hostname_and_domainname_are_set
        known "runc": "before 1.2 domainname is ignored" known "crun": "refuses domainname in old versions";
    a_namespace_path_that_is_none_is_refused known "runc": "leaves the cgroup of a refused create on version 2";
    a_namespace_path_of_another_kind_is_refused;
    a_namespace_listed_twice_is_refused;
    an_unknown_namespace_is_refused;
}

const KINDS: [(&str, &str); 5] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt")];

fn listed_namespaces_are_new(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.namespace("cgroup", None);
    let container = ctx.started(&bundle)?;
    for (_, link) in KINDS.into_iter().chain([("cgroup", "cgroup")]) {
        check!(
            look::namespace(container.pid, link)? != look::own_namespace(link)?,
            "the {link} namespace is the test's own"
        );
    }
    check_eq!(look::namespace(container.pid, "user")?, look::own_namespace("user")?, "user namespace");
    Ok(())
}

/// As a member that is absent is written by programs in Go.
fn an_empty_path_is_none(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("uts").namespace("uts", Some(""));
    let container = ctx.started(&bundle)?;
    check!(look::namespace(container.pid, "uts")? != look::own_namespace("uts")?, "it is the test's own");
    Ok(())
}

fn unlisted_namespaces_are_the_callers(ctx: &Ctx) -> Result {
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        let mut bundle = ctx.waiting()?;
        bundle.without_namespace(kind).remove("/hostname");
        if kind == "network" {
            bind_sys(&mut bundle);
        }
        if kind == "ipc" {
            without_mqueue(&mut bundle)?;
        }
        let container = ctx.started(&bundle)?;
        check_eq!(look::namespace(container.pid, link)?, look::own_namespace(link)?, "{link} namespace");
    }
    Ok(())
}

/// A new sysfs shows the network namespace's owner; binding is what engines do then.
fn bind_sys(bundle: &mut Bundle) {
    let sys = json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]});
    bundle.set("/mounts/5", sys);
    bundle.spec["mounts"].as_array_mut().map(Vec::pop);
}

fn without_mqueue(bundle: &mut Bundle) -> Result {
    let mounts = bundle.spec["mounts"].as_array_mut().ok_or("mounts")?;
    mounts.retain(|mount| mount["type"] != "mqueue");
    Ok(())
}

fn namespaces_are_joined_by_path(ctx: &Ctx) -> Result {
    let first = ctx.started(&ctx.waiting()?)?;
    let mut bundle = ctx.waiting()?;
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle.namespace(kind, Some(&format!("/proc/{}/ns/{link}", first.pid)));
    }
    bundle.remove("/hostname");
    let second = ctx.started(&bundle)?;
    for link in ["net", "ipc", "uts"] {
        check_eq!(look::namespace(second.pid, link)?, look::namespace(first.pid, link)?, "{link} namespace");
    }
    check!(
        look::namespace(second.pid, "pid")? != look::namespace(first.pid, "pid")?,
        "pid namespace is shared"
    );
    Ok(())
}

fn a_pid_namespace_is_joined_by_path(ctx: &Ctx) -> Result {
    let first = ctx.started(&ctx.waiting()?)?;
    let mut bundle = ctx.waiting()?;
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", first.pid)));
    let second = ctx.started(&bundle)?;
    check_eq!(look::namespace(second.pid, "pid")?, look::namespace(first.pid, "pid")?, "pid namespace");
    check!(
        look::status(second.pid, "NSpid")? != format!("{} 1", second.pid),
        "the second is process 1 there"
    );
    Ok(())
}

fn a_mount_namespace_is_joined_by_path(ctx: &Ctx) -> Result {
    // One in which the bundle is still to be found, as a container's own is not.
    let mut holder = std::process::Command::new("unshare").args(["--mount", "sleep", "1000"]).spawn()?;
    let joined = joins_mount_namespace(ctx, holder.id());
    holder.kill()?;
    holder.wait()?;
    joined
}

fn joins_mount_namespace(ctx: &Ctx, holder: u32) -> Result {
    until("unshare has unshared", || {
        Ok((look::namespace(holder, "mnt")? != look::own_namespace("mnt")?).then_some(()))
    })?;
    let mut bundle = ctx.waiting()?;
    bundle.namespace("mount", Some(&format!("/proc/{holder}/ns/mnt"))).set("/mounts", json!([]));
    bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths").set("/root/readonly", json!(false));
    let container = ctx.started(&bundle)?;
    check_eq!(look::namespace(container.pid, "mnt")?, look::namespace(holder, "mnt")?, "mount namespace");
    let root = std::fs::read_link(format!("/proc/{}/root", container.pid))?;
    check!(
        root.ends_with("rootfs") || root == std::path::Path::new("/"),
        "root of the workload: {}",
        root.display()
    );
    container.stop()
}

fn a_user_namespace_is_joined_by_path(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?;
    let first = ctx.started(&bundle)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?;
    bundle.namespace("user", Some(&format!("/proc/{}/ns/user", first.pid)));
    bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
    // As Kubernetes has it: what is bound lies where only root of the host gets to.
    let closed = ctx.dir.join("closed");
    fs::create_dir_all(closed.join("volume"))?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    bundle.mount("bind", path(&closed.join("volume")), "/tmp", &["bind"]);
    let second = ctx.started(&bundle)?;
    check_eq!(look::namespace(second.pid, "user")?, look::namespace(first.pid, "user")?, "user namespace");
    check_eq!(look::status(second.pid, "Uid")?, "200000 200000 200000 200000", "uid as the host sees it");
    Ok(())
}

fn a_time_namespace_has_its_offsets(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /proc/uptime; sleep 1000")?;
    bundle.namespace("time", None);
    bundle.set("/linux/timeOffsets/boottime", json!({"secs": 864_000, "nanosecs": 0}));
    let container = ctx.started(&bundle)?;
    container.prints(".")?;
    let uptime: f64 = container.stdout().split_whitespace().next().unwrap_or("0").parse()?;
    check!(uptime.total_cmp(&864_000.0).is_gt(), "uptime in the container is {uptime}");
    check!(
        look::namespace(container.pid, "time")? != look::own_namespace("time")?,
        "time namespace is the test's own"
    );
    Ok(())
}

fn a_time_namespace_beside_a_user_namespace_has_its_offsets(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?.namespace("time", None);
    bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 7881, "nanosecs": 2_718_281}}));
    let container = ctx.started(&bundle)?;
    let offsets = look::proc(container.pid, "timens_offsets")?;
    let words: Vec<&str> = offsets.split_whitespace().collect();
    check_eq!(words, ["monotonic", "7881", "2718281", "boottime", "0", "0"], "offsets");
    check!(
        look::namespace(container.pid, "time")? != look::own_namespace("time")?,
        "time namespace is the test's own"
    );
    Ok(())
}

/// Those of a container without a user namespace belong to the host's.
fn joins_those_of(bundle: &mut Bundle, other: u32) -> Result {
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle.namespace(kind, Some(&format!("/proc/{other}/ns/{link}")));
    }
    bundle.remove("/hostname");
    bind_sys(bundle);
    without_mqueue(bundle)
}

fn shares(container: u32, other: u32) -> Result {
    for link in ["net", "ipc", "uts"] {
        check_eq!(look::namespace(container, link)?, look::namespace(other, link)?, "{link} namespace");
    }
    Ok(())
}

fn a_new_user_namespace_and_namespaces_of_the_hosts(ctx: &Ctx) -> Result {
    let other = ctx.started(&ctx.waiting()?)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?;
    joins_those_of(&mut bundle, other.pid)?;
    let container = ctx.started(&bundle)?;
    shares(container.pid, other.pid)?;
    check!(
        look::namespace(container.pid, "user")? != look::own_namespace("user")?,
        "user namespace is the test's own"
    );
    check_eq!(look::status(container.pid, "Uid")?, "200000 200000 200000 200000", "uid as the host sees it");
    let script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net";
    let output = ctx.call(&["exec", &container.id, "sh", "-c", script])?.succeeded("exec")?;
    let wanted =
        [look::namespace(container.pid, "user")?, look::namespace(other.pid, "net")?].map(|n| n + "\n");
    check_eq!(output.stdout(), wanted.concat(), "namespaces of another process in it");
    Ok(())
}

fn a_joined_user_namespace_and_namespaces_of_the_hosts(ctx: &Ctx) -> Result {
    let other = ctx.started(&ctx.waiting()?)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?;
    let owner = ctx.started(&bundle)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?;
    bundle.namespace("user", Some(&format!("/proc/{}/ns/user", owner.pid)));
    bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
    joins_those_of(&mut bundle, other.pid)?;
    let container = ctx.started(&bundle)?;
    shares(container.pid, other.pid)?;
    check_eq!(look::namespace(container.pid, "user")?, look::namespace(owner.pid, "user")?, "user namespace");
    Ok(())
}

fn without_a_mount_namespace_delete_takes_the_mounts_off(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("mount");
    let container = ctx.started(&bundle)?;
    let rootfs = bundle.rootfs();
    let below = || {
        Ok::<_, crate::harness::Error>(
            look::mounts(std::process::id())?
                .iter()
                .filter(|m| std::path::Path::new(&m.point).starts_with(&rootfs))
                .count(),
        )
    };
    check_eq!(look::namespace(container.pid, "mnt")?, look::own_namespace("mnt")?, "mount namespace");
    check!(below()? > 1, "nothing is mounted below {}", rootfs.display());
    let inside = ctx.call(&["exec", &container.id, "/bin/ls", "/"])?.succeeded("exec")?.stdout();
    check!(inside.contains("probe"), "exec sees {inside:?}, not the container's root");
    container.stop()?;
    container.delete()?;
    check_eq!(below()?, 0, "mounts that are left");
    Ok(())
}

fn init_is_process_1(ctx: &Ctx) -> Result {
    check_eq!(ctx.report(&ctx.bundle()?)?["pid"], json!(1), "pid from within");
    Ok(())
}

fn without_a_pid_namespace_init_has_the_hosts_pid(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").args(&["/probe", "report-and-wait"]);
    let container = ctx.started(&bundle)?;
    check_eq!(container.report()?["pid"], json!(container.pid), "pid from within");
    Ok(())
}

fn the_loopback_is_up(ctx: &Ctx) -> Result {
    // The test is a process of its own; the runtime's loopback is down then, and a sysfs of the runtime's would say so.
    unshare(CloneFlags::CLONE_NEWNET)?;
    let flags = ctx.stdout(&ctx.shell("cat /sys/class/net/lo/flags")?)?;
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16)?;
    check!(flags & 1 == 1, "lo's flags are {flags:#x}: IFF_UP is missing");
    Ok(())
}

/// Without sysfs, which is of a network namespace, too.
fn the_network_is_there_when_it_is_bound(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    fs::write(bundle.rootfs().join("network"), "")?;
    bundle.without_mounts("/sys").mount("bind", "/proc/self/ns/net", "/network", &["bind"]);
    let container = ctx.started(&bundle)?;
    let of =
        |file: &str| Ok::<_, std::io::Error>(fs::metadata(format!("/proc/{}/{file}", container.pid))?.ino());
    check_eq!(of("root/network")?, of("ns/net")?, "the namespace that is bound");
    Ok(())
}

fn the_network_is_there_when_hooks_look(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_mounts("/sys");
    let file = ctx.dir.join("network");
    let script = r#"readlink "/proc/$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')/ns/net" >"$0""#;
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script, path(&file)]});
    bundle.push("/hooks/createRuntime", hook);
    let container = ctx.create(&bundle)?;
    check_eq!(fs::read_to_string(&file)?.trim(), look::namespace(container.pid, "net")?, "what the hook saw");
    Ok(())
}

fn hostname_and_domainname_are_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("hostname; cat /proc/sys/kernel/domainname")?;
    bundle.set("/hostname", json!("some-host")).set("/domainname", json!("some.domain"));
    check_eq!(ctx.stdout(&bundle)?, "some-host\nsome.domain", "names");
    Ok(())
}

fn a_namespace_path_that_is_none_is_refused(ctx: &Ctx) -> Result {
    for path in ["/proc/nothing", "/etc/passwd"] {
        let mut bundle = ctx.waiting()?;
        bundle.namespace("network", Some(path));
        ctx.refused(&bundle, &[])?;
    }
    Ok(())
}

fn a_namespace_path_of_another_kind_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.namespace("network", Some("/proc/self/ns/ipc"));
    ctx.refused(&bundle, &[]).map(drop)
}

fn a_namespace_listed_twice_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.push("/linux/namespaces", json!({"type": "uts"}));
    ctx.refused(&bundle, &[]).map(drop)
}

fn an_unknown_namespace_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.push("/linux/namespaces", json!({"type": "nonsense"}));
    ctx.refused(&bundle, &[]).map(drop)
}

/// The runtime runs in namespaces of its own here, for which it is the host.
fn a_host_namespace_by_path_is_not_changed(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.namespace("network", Some("/proc/self/ns/net"));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).write()?;
    let mut command = std::process::Command::new("unshare");
    let script = "echo 0 >/proc/sys/net/ipv4/ip_forward; \"$@\"; echo \"status $?, $(cat /proc/sys/net/ipv4/ip_forward)\"";
    command.args(["--net", "--uts", "sh", "-c", script, "sh"]).arg(&ctx.runtime);
    command.args(["--root", path(&ctx.state_root()), "run", "--bundle", path(&bundle.dir), &ctx.id()]);
    let output = ctx.finish(command)?;
    check!(output.stdout().ends_with("status 1, 0\n"), "{}{}", output.stdout(), output.stderr());
    if ctx.kind == "coracle" {
        let words = "is the net namespace of the host, and linux.sysctl";
        check!(output.stderr().contains(words), "message: {}", output.stderr());
    }
    Ok(())
}

/// The same of the mount namespace: what was mounted there for the container stayed when it had ended.
fn the_hosts_mounts_by_path_are_not_changed(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("true")?;
    bundle.namespace("mount", Some("/proc/self/ns/mnt"));
    bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths").write()?;
    let mut command = std::process::Command::new("unshare");
    let script = "exec 3</proc/self/mountinfo; cat <&3 >before; \"$@\"; exec 3</proc/self/mountinfo; cat <&3 | cmp before - && echo same";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&ctx.runtime);
    command.current_dir(&ctx.dir);
    command.args(["--root", path(&ctx.state_root()), "run", "--bundle", path(&bundle.dir), &ctx.id()]);
    let output = ctx.finish(command)?;
    check!(output.stdout().ends_with("same\n"), "{}{}", output.stdout(), output.stderr());
    Ok(())
}
