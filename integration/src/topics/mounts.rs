//! Mounts, their options and propagation (config.md, "Mounts"; config-linux.md, "Rootfs Mount Propagation"; mount(8)).

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::harness::{Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    the_default_mounts_are_there;
    the_root_is_the_rootfs_and_nothing_else;
    a_read_only_root_cannot_be_written;
    a_writable_root_can_be_written;
    a_bind_mount_shows_the_source;
    a_read_only_bind_cannot_be_written;
    bind_flags_are_in_force;
    a_sysfs_that_is_the_hosts_has_its_options_below_too known "runc": "refuses it";
    a_recursive_bind_brings_what_is_below;
    bind_beside_rbind_takes_nothing_away;
    options_of_a_cgroup_mount_reach_the_kernel [Need::CgroupV2];
    a_cgroup_mount_of_v1_has_the_containers_part_of_each_hierarchy
        [Need::File("/sys/fs/cgroup/memory/cgroup.procs")]
        known "runc": "the directory above them can be written" known "crun": "runs on no host that has controllers in both";
    a_recursive_read_only_bind_is_read_only_below [Need::Kernel(5, 12)]
        known "runc": "before 1.2 rro is not known";
    tmpfs_options_are_in_force;
    options_may_stand_in_one_word;
    tmpcopyup_copies_what_was_there known "crun": "needs a writable root in old versions";
    a_file_is_bound_over_a_file;
    a_missing_destination_is_made;
    a_relative_destination_is_below_the_root known "crun": "old versions refuse it";
    a_symlink_destination_stays_in_the_rootfs;
    mount_propagation_is_set;
    rootfs_propagation_defaults_to_no_shared_mounts;
    a_shared_bind_shows_on_both_sides;
    rootfs_propagation_shared_and_slave_are_set known "runc": "shared leaves / private" known "crun": "shared also makes the mounts below shared";
    no_mount_of_the_container_reaches_the_host;
    a_missing_bind_source_is_refused;
    an_unknown_file_system_is_refused;
    mounts_come_in_the_order_of_the_list;
}

fn the_default_mounts_are_there(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    let wanted: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &[]),
        ("/dev", "tmpfs", &["nosuid"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    for (point, kind, options) in wanted {
        let mount = look::mount_at(container.pid, point)?;
        check_eq!(mount.kind, kind, "type of {point}");
        for option in options {
            check!(mount.has(option), "{point} lacks {option}: {mount:?}");
        }
    }
    let pts = look::mount_at(container.pid, "/dev/pts")?;
    for option in ["gid=5", "mode=620", "ptmxmode=666"] {
        check!(pts.super_has(option), "/dev/pts lacks {option}: {pts:?}");
    }
    Ok(())
}

fn the_root_is_the_rootfs_and_nothing_else(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    fs::write(bundle.rootfs().join("mark"), "here")?;
    let container = ctx.started(&bundle)?;
    check_eq!(
        fs::read_to_string(format!("/proc/{}/root/mark", container.pid))?,
        "here",
        "a file of the rootfs"
    );
    for mount in look::mounts(container.pid)? {
        let known = ["/", "/proc", "/dev", "/sys"]
            .iter()
            .any(|at| mount.point == *at || mount.point.starts_with(&format!("{at}/")));
        check!(known && !mount.point.contains("oldroot"), "a mount of the host is left: {mount:?}");
    }
    check_eq!(
        look::mounts(container.pid)?.iter().filter(|mount| mount.point == "/").count(),
        1,
        "mounts at /"
    );
    Ok(())
}

fn a_read_only_root_cannot_be_written(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "mkdir", "/new"]);
    check_eq!(ctx.stdout(&bundle)?, "30", "errno of mkdir (EROFS)");
    bundle.args(&["/probe", "wait"]);
    let container = ctx.started(&bundle)?;
    check!(look::mount_at(container.pid, "/")?.has("ro"), "the root mount is not read-only");
    Ok(())
}

fn a_writable_root_can_be_written(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "mkdir", "/new"]).set("/root/readonly", json!(false));
    check_eq!(ctx.stdout(&bundle)?, "0", "errno of mkdir");
    check!(bundle.rootfs().join("new").is_dir(), "what the container made is not in the rootfs");
    Ok(())
}

/// A directory on the host with one file in it.
fn volume(ctx: &Ctx) -> Result<std::path::PathBuf> {
    let directory = ctx.dir.join("volume");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("file"), "from the host")?;
    Ok(directory)
}

fn a_bind_mount_shows_the_source(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.shell("cat /tmp/file; echo new > /tmp/made")?;
    bundle.mount("bind", path(&volume), "/tmp", &["bind"]);
    check_eq!(ctx.stdout(&bundle)?, "from the host", "the file");
    check_eq!(fs::read_to_string(volume.join("made"))?, "new\n", "the file made within");
    Ok(())
}

fn a_read_only_bind_cannot_be_written(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "write", "/tmp/file"]);
    bundle.mount("bind", path(&volume), "/tmp", &["bind", "ro"]);
    check_eq!(ctx.stdout(&bundle)?, "30", "errno of open for writing (EROFS)");
    Ok(())
}

fn bind_flags_are_in_force(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", path(&volume), "/tmp", &["bind", "nosuid", "nodev", "noexec", "noatime"]);
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/tmp")?;
    for option in ["rw", "nosuid", "nodev", "noexec", "noatime"] {
        check!(mount.has(option), "the bind lacks {option}: {mount:?}");
    }
    Ok(())
}

/// The kernel lets nobody mount sysfs in a user namespace for the host's network namespace: the host's is bound, with control
/// groups and more below.
fn a_sysfs_that_is_the_hosts_has_its_options_below_too(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(100_000, 65_536)?.without_namespace("network");
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
    let container = ctx.started(&bundle)?;
    let below = look::mounts(container.pid)?.into_iter().filter(|mount| mount.point.starts_with("/sys"));
    let below: Vec<_> = below.collect();
    check!(below.len() > 1, "nothing is mounted below /sys: {below:?}");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        let wider: Vec<_> = below.iter().filter(|mount| !mount.has(option)).collect();
        check!(wider.is_empty(), "without {option}: {wider:?}");
    }
    Ok(())
}

fn a_recursive_bind_brings_what_is_below(ctx: &Ctx) -> Result {
    for (option, there) in [("rbind", true), ("bind", false)] {
        let mut bundle = ctx.waiting()?;
        bundle.mount("bind", "/proc", "/tmp", &[option]);
        bundle.mount("bind", "/dev", "/var", &[option]);
        let container = ctx.started(&bundle)?;
        check_eq!(
            look::mount_at(container.pid, "/var/pts").is_ok(),
            there,
            "/dev/pts came along with {option}"
        );
    }
    Ok(())
}

fn bind_beside_rbind_takes_nothing_away(ctx: &Ctx) -> Result {
    for options in [["rbind", "bind"], ["bind", "rbind"]] {
        let mut bundle = ctx.waiting()?;
        bundle.mount("bind", "/dev", "/var", &options);
        let container = ctx.started(&bundle)?;
        check!(
            look::mount_at(container.pid, "/var/pts").is_ok(),
            "/dev/pts did not come along with {options:?}"
        );
    }
    Ok(())
}

fn options_of_a_cgroup_mount_reach_the_kernel(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.namespace("cgroup", None);
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "no_such_option"]);
    ctx.refused(&bundle, &[]).map(drop)
}

fn a_cgroup_mount_of_v1_has_the_containers_part_of_each_hierarchy(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    check!(
        look::mount_at(container.pid, "/sys/fs/cgroup")?.has("ro"),
        "the directory of the hierarchies can be written"
    );
    for host in look::mounts(std::process::id())?.into_iter().filter(|mount| mount.kind == "cgroup") {
        let within = look::mount_at(container.pid, &host.point)?;
        check_eq!(within.kind, "cgroup", "what is mounted at {}", host.point);
        check_eq!(
            json!(within.root),
            bundle.spec["linux"]["cgroupsPath"],
            "the group that {} begins at",
            host.point
        );
        check!(within.has("ro"), "{} can be written", host.point);
    }
    Ok(())
}

fn a_recursive_read_only_bind_is_read_only_below(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", "/dev", "/var", &["rbind", "rro"]);
    let container = ctx.started(&bundle)?;
    for point in ["/var", "/var/pts"] {
        check!(look::mount_at(container.pid, point)?.has("ro"), "{point} is not read-only");
    }
    Ok(())
}

fn tmpfs_options_are_in_force(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["nosuid", "size=1m", "mode=0711"]);
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/tmp")?;
    check!(mount.has("nosuid") && mount.super_has("size=1024k") && mount.super_has("mode=711"), "{mount:?}");
    Ok(())
}

/// Options of the file system reach it separated by commas: config.md, Linux mount options.
fn options_may_stand_in_one_word(ctx: &Ctx) -> Result {
    for layer in ["lower", "upper", "work"] {
        fs::create_dir(ctx.dir.join(layer))?;
    }
    fs::write(ctx.dir.join("lower/file"), "lower")?;
    let dir = path(&ctx.dir);
    let layers = format!("lowerdir={dir}/lower,upperdir={dir}/upper,workdir={dir}/work");
    let mut bundle = ctx.shell("cat /var/file; echo made > /var/made")?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["size=1m,mode=0711"]).mount(
        "overlay",
        "overlay",
        "/var",
        &[&layers],
    );
    check_eq!(ctx.stdout(&bundle)?, "lower", "the file of the lower layer");
    check_eq!(
        fs::read_to_string(ctx.dir.join("upper/made"))?,
        "made\n",
        "what was written, in the upper layer"
    );
    bundle.args(&["/probe", "wait"]);
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/tmp")?;
    check!(mount.super_has("size=1024k") && mount.super_has("mode=711"), "{mount:?}");
    Ok(())
}

fn tmpcopyup_copies_what_was_there(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /var/there; echo more > /var/more; stat -c ' %a %u' /var/there")?;
    let there = bundle.rootfs().join("var/there");
    fs::write(&there, "copied")?;
    fs::set_permissions(&there, std::os::unix::fs::PermissionsExt::from_mode(0o754))?;
    std::os::unix::fs::chown(&there, Some(1000), Some(1000))?;
    bundle.mount("tmpfs", "tmpfs", "/var", &["tmpcopyup"]);
    check_eq!(ctx.stdout(&bundle)?, "copied 754 1000", "the file from below the tmpfs, its mode and owner");
    check!(!bundle.rootfs().join("var/more").exists(), "the write went through to the rootfs");
    Ok(())
}

fn a_file_is_bound_over_a_file(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.shell("cat /etc/passwd")?;
    bundle.mount("bind", path(&volume.join("file")), "/etc/passwd", &["bind", "ro"]);
    check_eq!(ctx.stdout(&bundle)?, "from the host", "the file");
    Ok(())
}

fn a_missing_destination_is_made(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.shell("cat /a/b/c/file /d/e")?;
    bundle.mount("bind", path(&volume), "/a/b/c", &["bind"]);
    bundle.mount("bind", path(&volume.join("file")), "/d/e", &["bind"]);
    check_eq!(ctx.stdout(&bundle)?, "from the hostfrom the host", "both files");
    Ok(())
}

fn a_relative_destination_is_below_the_root(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.shell("cat /tmp/file")?;
    bundle.mount("bind", path(&volume), "tmp", &["bind"]);
    check_eq!(ctx.stdout(&bundle)?, "from the host", "the file");
    Ok(())
}

fn a_symlink_destination_stays_in_the_rootfs(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let canary = ctx.dir.join("canary");
    fs::create_dir(&canary)?;
    for target in [path(&canary).to_owned(), format!("../../../../../../../..{}", path(&canary))] {
        let mut bundle = ctx.waiting()?;
        std::os::unix::fs::symlink(target, bundle.rootfs().join("trap"))?;
        bundle.mount("bind", path(&volume), "/trap/x", &["bind"]);
        bundle.write()?;
        // Contained: refused, or mounted below the rootfs where the link leads; never on the host.
        let container = crate::harness::Container::named(ctx, ctx.id(), &bundle.dir);
        ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?;
        check_eq!(fs::read_dir(&canary)?.count(), 0, "entries in the host's directory");
    }
    Ok(())
}

fn mount_propagation_is_set(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    type Holds = fn(&look::Mount) -> bool;
    let words: [(&str, Holds); 3] = [
        ("private", |mount| mount.tags.is_empty()),
        ("shared", |mount| mount.tagged("shared:")),
        ("unbindable", |mount| mount.tagged("unbindable")),
    ];
    for (word, holds) in words {
        let mut bundle = ctx.waiting()?;
        bundle.mount("bind", path(&volume), "/tmp", &["bind", word]);
        let container = ctx.started(&bundle)?;
        let mount = look::mount_at(container.pid, "/tmp")?;
        check!(holds(&mount), "{word} gives {mount:?}");
    }
    Ok(())
}

fn rootfs_propagation_defaults_to_no_shared_mounts(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    for mount in look::mounts(container.pid)? {
        check!(!mount.tagged("shared:"), "a mount of the container is shared: {mount:?}");
    }
    Ok(())
}

fn rootfs_propagation_shared_and_slave_are_set(ctx: &Ctx) -> Result {
    for (word, shared) in [("shared", true), ("slave", false), ("private", false)] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/rootfsPropagation", json!(word));
        let container = ctx.started(&bundle)?;
        check_eq!(
            look::mount_at(container.pid, "/")?.tagged("shared:"),
            shared,
            "root is shared with {word}"
        );
    }
    Ok(())
}

/// With rootfsPropagation shared, as engines set it for a volume that is rshared, the mounts are peers: mount_namespaces(7).
fn a_shared_bind_shows_on_both_sides(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    for (word, peer) in [("rshared", true), ("rslave", false)] {
        let mut bundle = ctx.shell("grep ' /tmp ' /proc/self/mountinfo")?;
        bundle.set("/linux/rootfsPropagation", json!(word));
        bundle.mount("bind", path(&volume), "/tmp", &["rbind", word]);
        bundle.write()?;
        let script = "mount --bind $1 $1 && mount --make-shared $1 && grep \" $1 \" /proc/self/mountinfo && exec $2 --root $3 run --bundle $4 $5";
        let (root, id) = (ctx.state_root(), ctx.id());
        let words = [path(&volume), path(&ctx.runtime), path(&root), path(&bundle.dir), &id];
        let output = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", script, "sh"])
            .args(words)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let groups: Vec<Option<&str>> =
            text.lines().map(|line| line.split(' ').find_map(|tag| tag.strip_prefix("shared:"))).collect();
        check_eq!(groups.len(), 2, "mounts in {text}{}", String::from_utf8_lossy(&output.stderr));
        check_eq!(
            groups[0].is_some() && groups[0] == groups[1],
            peer,
            "{word}: the mounts are peers: {text}"
        );
    }
    Ok(())
}

fn no_mount_of_the_container_reaches_the_host(ctx: &Ctx) -> Result {
    let before = look::mounts(std::process::id())?.len();
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]);
    let _container = ctx.started(&bundle)?;
    let text = look::proc(std::process::id(), "mountinfo")?;
    check!(!text.contains(path(&bundle.dir)), "a mount below the bundle is seen on the host");
    check_eq!(look::mounts(std::process::id())?.len(), before, "mounts of the host");
    Ok(())
}

fn a_missing_bind_source_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("bind", "/nowhere/at/all", "/tmp", &["bind"]);
    ctx.refused(&bundle, &["/nowhere/at/all"]).map(drop)
}

fn an_unknown_file_system_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("nonsensefs", "none", "/tmp", &[]);
    ctx.refused(&bundle, &[]).map(drop)
}

fn mounts_come_in_the_order_of_the_list(ctx: &Ctx) -> Result {
    let volume = volume(ctx)?;
    let mut bundle = ctx.shell("test -e /tmp/inner/file && ls /tmp")?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]).mount("bind", path(&volume), "/tmp/inner", &["bind"]);
    check_eq!(ctx.stdout(&bundle)?, "inner", "what is in /tmp");
    Ok(())
}
