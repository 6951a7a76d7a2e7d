//! Options of mounts beyond the common ones: what changes a mount that stands, links as sources and targets, what a
//! read-only mount is filled with before (config.md, "Linux mount options"; mount(8); crun(1)).

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::harness::{Bundle, Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    a_read_only_dev_still_gets_its_devices;
    a_read_only_tmpfs_holds_later_mounts;
    tmpcopyup_works_on_a_read_only_tmpfs known "runc": "1.1 writes through to the rootfs" known "crun": "the copy is refused";
    remount_changes_the_mount_that_stands;
    remount_of_nothing_is_refused known "crun": "the root is remounted";
    a_bind_can_be_remounted known "crun": "the source is mounted once more";
    options_of_a_superblock_are_taken;
    a_source_in_the_rootfs_is_the_containers known "crun": "a destination is never a path of the host";
    links_of_a_source_in_the_rootfs_stay_within known "runc": "the source is the host's" known "crun": "the source is the host's";
    an_option_that_an_engine_has_followed_is_no_warning;
    a_link_is_copied known "runc": "the option is crun's" known "crun": "not before 1.4.5";
    a_link_is_the_source known "runc": "the option is crun's";
    a_link_is_the_target known "runc": "the option is crun's" known "crun": "not before 1.9";
    long_options_are_no_trouble known "crun": "an overlay of many layers needs a page";
    an_overlay_shows_both_layers;
    words_of_fstab_are_understood known "runc": "hands them to the kernel" known "crun": "hands them to the kernel";
    a_bind_has_the_options_that_are_named_and_no_others [Need::Root] known "runc": "before 1.2 rw alone is no option"
        known "crun": "1.21 keeps those of the source";
    a_user_namespace_keeps_what_its_source_forbids [Need::Root] known "runc": "before 1.2 sources are opened from within"
        known "crun": "what cannot be had is left out";
    times_of_access_are_as_the_kernel_says known "crun": "1.21 cannot set rstrictatime";
}

/// config.md: what mount(8) recognizes, runtimes should do as mount(8) does.
fn words_of_fstab_are_understood(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let words = ["noauto", "nofail", "_netdev", "x-systemd.automount", "X-mount.mkdir=755", "noacl"];
    bundle.mount("tmpfs", "tmpfs", "/tmp", &words);
    bundle.mount("tmpfs", "tmpfs", "/var", &["user", "exec"]);
    let container = ctx.started(&bundle)?;
    let has = |point: &str| -> Result<Vec<bool>> {
        let mount = look::mount_at(container.pid, point)?;
        Ok(["nosuid", "nodev", "noexec"].iter().map(|option| mount.has(option)).collect())
    };
    check_eq!(has("/tmp")?, [false, false, false], "what words without a meaning here set");
    check_eq!(has("/var")?, [true, true, false], "what user means, where exec stands behind it");
    Ok(())
}

/// A tmpfs with options, for as long as the test runs.
struct Source(PathBuf);

impl Source {
    fn new(ctx: &Ctx, flags: MsFlags) -> Result<Source> {
        let place = ctx.dir.join("source");
        fs::create_dir_all(&place)?;
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let source = Source(place);
        // Of the mount alone: a file system that is read-only would be so whatever is asked.
        let change = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(None::<&str>, &source.0, None::<&str>, change, None::<&str>)?;
        Ok(source)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// What a mount may have of these, as words of one line.
fn options(pid: u32, place: &str) -> Result<String> {
    let mount = look::mount_at(pid, place)?;
    let words = ["ro", "nosuid", "nodev", "noexec", "noatime", "relatime", "nodiratime"];
    Ok(words.into_iter().filter(|word| mount.has(word)).collect::<Vec<_>>().join(","))
}

/// mount(8), `--bind -o`, as runc has it: any option replaces those of the source, but for times of access that are not named.
fn a_bind_has_the_options_that_are_named_and_no_others(ctx: &Ctx) -> Result {
    let all = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let source = Source::new(ctx, all | MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME)?;
    let table = [
        (&["bind"][..], "ro,nosuid,nodev,noexec,noatime,nodiratime"),
        (&["bind", "rprivate"], "ro,nosuid,nodev,noexec,noatime,nodiratime"),
        (&["bind", "rw"], "noatime,nodiratime"),
        (&["bind", "dev"], "noatime,nodiratime"),
        (&["bind", "nosuid", "nodev"], "nosuid,nodev,noatime,nodiratime"),
        (&["bind", "ro", "exec", "atime"], "ro,noatime,nodiratime"),
        (&["bind", "ro", "relatime"], "ro,relatime"),
        (&["bind", "nodiratime", "strictatime"], "nodiratime"),
        (&["bind", "nodiratime"], "relatime,nodiratime"),
    ];
    let mut bundle = ctx.waiting()?;
    for (i, (words, _)) in table.iter().enumerate() {
        bundle.mount("bind", path(&source.0), &format!("/tmp/{i}"), words);
    }
    let container = ctx.started(&bundle)?;
    for (i, (words, wanted)) in table.iter().enumerate() {
        check_eq!(options(container.pid, &format!("/tmp/{i}"))?, *wanted, "options with {words:?}");
    }
    Ok(())
}

/// mount_namespaces(7), "Restrictions on mount namespaces": such options are locked. What is not named of them stays, and to
/// take one away by name is refused.
fn a_user_namespace_keeps_what_its_source_forbids(ctx: &Ctx) -> Result {
    let source = Source::new(ctx, MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOATIME)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(100_000, 65536)?;
    for (place, words) in
        [("/tmp/0", &["bind"][..]), ("/tmp/1", &["bind", "nosuid"]), ("/tmp/2", &["bind", "suid"])]
    {
        bundle.mount("bind", path(&source.0), place, words);
    }
    let container = ctx.started(&bundle)?;
    check_eq!(options(container.pid, "/tmp/0")?, "ro,nodev,noatime", "options with bind alone");
    check_eq!(options(container.pid, "/tmp/1")?, "ro,nosuid,nodev,noatime", "options with nosuid");
    check_eq!(
        options(container.pid, "/tmp/2")?,
        "ro,nodev,noatime",
        "options with suid, which is not forbidden"
    );
    for word in ["rw", "dev", "relatime"] {
        let mut bundle = ctx.waiting()?;
        bundle.user_namespace(100_000, 65536)?;
        let source = path(&source.0);
        bundle.push(
            "/mounts",
            json!({"destination": "/tmp", "type": "bind", "source": source, "options": ["bind", word]}),
        );
        ctx.refused(&bundle, &["error mounting ", "tmp", "operation not permitted"])?;
    }
    Ok(())
}

/// mount(2): without the flag of relatime, and none of the others, the kernel has relatime.
fn times_of_access_are_as_the_kernel_says(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let volume = ctx.dir.join("volume");
    fs::create_dir(&volume)?;
    let words = [
        ("noatime", Some("noatime")),
        ("strictatime", None),
        ("norelatime", Some("relatime")),
        ("nostrictatime", Some("relatime")),
        ("rstrictatime", None),
        ("rnorelatime", Some("relatime")),
    ];
    // A word that only takes one away leaves what the source has; here that must be what the kernel would choose.
    let usual =
        nix::sys::statvfs::statvfs(&volume)?.flags().contains(nix::sys::statvfs::FsFlags::ST_RELATIME);
    let words: Vec<_> =
        words.into_iter().filter(|(_, wanted)| usual || *wanted != Some("relatime")).collect();
    for (word, _) in &words {
        bundle.mount("bind", path(&volume), &format!("/tmp/{word}"), &["rbind", word]);
    }
    let container = ctx.started(&bundle)?;
    for (word, wanted) in words {
        let mount = look::mount_at(container.pid, &format!("/tmp/{word}"))?;
        for option in ["noatime", "relatime"] {
            check_eq!(mount.has(option), wanted == Some(option), "{option} with {word}");
        }
    }
    Ok(())
}

fn a_read_only_dev_still_gets_its_devices(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev");
        let options = dev.and_then(|mount| mount["options"].as_array_mut()).ok_or("the spec has no /dev")?;
        options.push("ro".into());
    }
    let container = ctx.started(&bundle)?;
    check!(look::mount_at(container.pid, "/dev")?.has("ro"), "/dev is not read-only");
    check!(!look::mount_at(container.pid, "/dev/shm")?.has("ro"), "/dev/shm is read-only too");
    check!(fs::metadata(format!("/proc/{}/root/dev/null", container.pid)).is_ok(), "/dev/null is missing");
    Ok(())
}

fn a_read_only_tmpfs_holds_later_mounts(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "mkdir", "/tmp/new"]);
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["ro"]).mount("tmpfs", "tmpfs", "/tmp/a/b", &[]);
    check_eq!(ctx.stdout(&bundle)?, "30", "errno of mkdir (EROFS)");
    bundle.args(&["/probe", "mkdir", "/tmp/a/b/new"]);
    check_eq!(ctx.stdout(&bundle)?, "0", "errno of mkdir in the mount within");
    Ok(())
}

fn tmpcopyup_works_on_a_read_only_tmpfs(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /var/there; ! touch /var/more 2>/dev/null")?;
    fs::write(bundle.rootfs().join("var/there"), "copied")?;
    bundle.mount("tmpfs", "tmpfs", "/var", &["ro", "tmpcopyup"]);
    check_eq!(ctx.stdout(&bundle)?, "copied", "the file from below the tmpfs");
    Ok(())
}

fn remount_changes_the_mount_that_stands(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["size=1m"]);
    bundle.mount("tmpfs", "tmpfs", "/tmp", &["remount", "nosuid", "size=2m"]);
    let container = ctx.started(&bundle)?;
    let mounts = look::mounts(container.pid)?;
    let there: Vec<_> = mounts.iter().filter(|mount| mount.point == "/tmp").collect();
    check_eq!(there.len(), 1, "mounts at /tmp");
    check!(there[0].has("nosuid") && there[0].super_has("size=2048k"), "{:?}", there[0]);
    Ok(())
}

fn remount_of_nothing_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/var", &["remount", "size=2m"]);
    ctx.refused(&bundle, &["var"]).map(drop)
}

fn a_bind_can_be_remounted(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/tmp", &[]).mount("none", "/tmp", "/tmp", &["bind", "remount", "ro"]);
    let container = ctx.started(&bundle)?;
    let mounts = look::mounts(container.pid)?;
    let there: Vec<_> = mounts.iter().filter(|mount| mount.point == "/tmp").collect();
    check!(there.len() == 1 && there[0].has("ro"), "{there:?}");
    Ok(())
}

fn options_of_a_superblock_are_taken(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let words = [
        "defaults",
        "sync",
        "dirsync",
        "lazytime",
        "iversion",
        "silent",
        "loud",
        "noiversion",
        "async",
        "sync",
    ];
    bundle.mount("tmpfs", "tmpfs", "/tmp", &words);
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/tmp")?;
    check!(mount.super_has("sync") && mount.super_has("dirsync") && mount.super_has("lazytime"), "{mount:?}");
    Ok(())
}

/// Source and destination are written as paths of the host through the rootfs, as old engines did.
fn a_source_in_the_rootfs_is_the_containers(ctx: &Ctx) -> Result {
    for user_namespace in [false, true] {
        let mut bundle = ctx.shell("cat /tmp/file")?;
        if user_namespace {
            bundle.user_namespace(100_000, 65536)?;
        }
        let volume = ctx.dir.join("volume");
        fs::create_dir_all(&volume)?;
        fs::write(volume.join("file"), "mounted before")?;
        bundle.mount("bind", path(&volume), "/var", &["bind"]);
        let (from, to) = (bundle.rootfs().join("var"), bundle.rootfs().join("tmp"));
        bundle.mount("bind", path(&from), path(&to), &["bind"]);
        check_eq!(ctx.stdout(&bundle)?, "mounted before", "the file (user namespace {user_namespace})");
    }
    Ok(())
}

fn links_of_a_source_in_the_rootfs_stay_within(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /tmp/passwd")?;
    fs::create_dir(bundle.rootfs().join("var/etc"))?;
    fs::write(bundle.rootfs().join("etc/passwd"), "the container's")?;
    symlink("/etc", bundle.rootfs().join("var/trap"))?;
    let source = bundle.rootfs().join("var/trap");
    bundle.mount("bind", path(&source), "/tmp", &["bind"]);
    check_eq!(ctx.stdout(&bundle)?, "the container's", "the file");
    Ok(())
}

/// buildah-run(1), --volume: Buildah hands z, Z and U on, and shows what the runtime says as output of the program.
fn an_option_that_an_engine_has_followed_is_no_warning(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /var/file")?;
    let volume = ctx.dir.join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("file"), "shown")?;
    bundle.mount("bind", path(&volume), "/var", &["bind", "z", "Z", "U"]);
    let output = ctx.run(&bundle)?;
    check_eq!((output.code, output.stdout().as_str()), (0, "shown"), "what is mounted");
    check_eq!(output.stderr(), "", "what is said besides");
    Ok(())
}

/// A bundle with a link on the host, and what it leads to.
fn with_link(ctx: &Ctx, script: &str, to: &str, options: &[&str]) -> Result<Bundle> {
    let (target, link) = (ctx.dir.join("target"), ctx.dir.join("link"));
    fs::write(&target, "what the link leads to")?;
    let _ = symlink("target", &link);
    let mut bundle = ctx.shell(script)?;
    bundle.mount("bind", path(&link), to, options);
    Ok(bundle)
}

fn a_link_is_copied(ctx: &Ctx) -> Result {
    let bundle = with_link(ctx, "readlink /var/copy", "/var/copy", &["bind", "copy-symlink"])?;
    check_eq!(ctx.stdout(&bundle)?, "target", "the link within");
    // As Podman asks for it with --privileged and no-dereference: after the root's propagation there is no mount to set it of.
    let mut bundle =
        with_link(ctx, "readlink /var/copy", "/var/copy", &["bind", "copy-symlink", "rprivate"])?;
    bundle.set("/linux/rootfsPropagation", json!("rslave"));
    check_eq!(ctx.stdout(&bundle)?, "target", "the link within, with a propagation of the root");
    let bundle = with_link(ctx, "true", "/etc/passwd", &["bind", "copy-symlink"])?;
    ctx.refused(&bundle, &["etc/passwd"]).map(drop)
}

fn a_link_is_the_source(ctx: &Ctx) -> Result {
    let bundle = with_link(ctx, "cat /var/there", "/var/there", &["bind"])?;
    check_eq!(ctx.stdout(&bundle)?, "what the link leads to", "through the link");
    let bundle = with_link(ctx, "readlink /var/there", "/var/there", &["bind", "src-nofollow"])?;
    check_eq!(ctx.stdout(&bundle)?, "target", "the link itself");
    Ok(())
}

fn a_link_is_the_target(ctx: &Ctx) -> Result {
    let options = ["bind", "src-nofollow", "dest-nofollow"];
    let bundle = with_link(ctx, "readlink /var/here; cat /var/other", "/var/here", &options)?;
    symlink("other", bundle.rootfs().join("var/here"))?;
    fs::write(bundle.rootfs().join("var/other"), "untouched")?;
    check_eq!(ctx.stdout(&bundle)?, "target\nuntouched", "the link, and what it led to before");
    let options = ["bind", "src-nofollow", "dest-nofollow", "rprivate"];
    let mut bundle = with_link(ctx, "readlink /var/here", "/var/here", &options)?;
    symlink("other", bundle.rootfs().join("var/here"))?;
    bundle.set("/linux/rootfsPropagation", json!("rslave"));
    check_eq!(ctx.stdout(&bundle)?, "target", "the link, with a propagation of the root");
    Ok(())
}

/// Directories for an overlay: as many lower ones as asked for, each with a file of its own.
fn overlay(ctx: &Ctx, lower: usize) -> Result<String> {
    let base = ctx.dir.join("layers-of-an-overlay-with-a-long-name");
    for name in ["upper", "work"] {
        fs::create_dir_all(base.join(name))?;
    }
    let mut layers = Vec::new();
    for number in 0..lower {
        let layer = base.join(format!("lower{number}"));
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("file{number}")), "")?;
        layers.push(path(&layer).to_owned());
    }
    Ok(format!("{}:", path(&base)) + &layers.join(":"))
}

fn an_overlay_shows_both_layers(ctx: &Ctx) -> Result {
    overlaid(ctx, 2)
}

fn long_options_are_no_trouble(ctx: &Ctx) -> Result {
    overlaid(ctx, 12)
}

fn overlaid(ctx: &Ctx, count: usize) -> Result {
    let all = overlay(ctx, count)?;
    let (base, lower) = all.split_once(':').ok_or("no layers")?;
    // The upper layer must not lie on an overlay itself: a tmpfs serves on any machine.
    let mut bundle = ctx.shell("ls /var | wc -l")?;
    bundle.mount("overlay", "overlay", "/var", &[&format!("lowerdir={lower}"), "ro"]);
    check_eq!(ctx.stdout(&bundle)?, count.to_string(), "files of all layers below {base}");
    Ok(())
}
