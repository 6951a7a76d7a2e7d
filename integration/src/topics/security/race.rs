//! Names that somebody exchanges while the runtime uses them: an image or a volume that another container has too.
//! `ATTACKS=20000` makes as many rounds; a few show a name that is not guarded at all.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::{Canary, without_mounts};
use crate::harness::{Container, Ctx, Result, check, check_eq, context::path, look, tests};

tests! {
    a_mount_point_that_becomes_a_link_stays_in_the_root;
    a_dev_null_that_is_exchanged_masks_or_fails;
    a_working_directory_that_becomes_a_link_stays_in_the_root;
}

fn rounds() -> u32 {
    std::env::var("ATTACKS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Exchanges two names until it is dropped.
struct Exchanging {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchanging {
    fn start(one: PathBuf, other: PathBuf) -> Exchanging {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let exchange = move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE);
            }
        };
        Exchanging { stop, thread: Some(std::thread::spawn(exchange)) }
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// CVE-2021-30465, CVE-2024-45310: between the look at a mount point and the mount, and between the directories that are made
/// for it, one of them becomes a link to the host.
fn a_mount_point_that_becomes_a_link_stays_in_the_root(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    for target in canary.targets() {
        let volume = ctx.dir.join(ctx.id());
        fs::create_dir_all(volume.join("a"))?;
        fs::write(ctx.dir.join("file"), "")?;
        symlink(&target, volume.join("link"))?;
        let _exchanging = Exchanging::start(volume.join("a"), volume.join("link"));
        let mut made = 0;
        for round in 0..rounds() {
            let mut bundle = ctx.waiting()?;
            bundle.mount("bind", path(&volume), "/tmp", &["rbind"]);
            bundle.mount("tmpfs", "tmpfs", &format!("/tmp/a/d{round}/e"), &[]);
            bundle.mount("bind", path(&ctx.dir.join("file")), &format!("/tmp/a/f{round}"), &["bind"]);
            bundle.write()?;
            let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
            if container.create(&[]).is_ok() {
                made += 1;
                // One that went to the host's tree went away with it.
                let mounts = look::mounts(container.pid)?;
                let ends = [format!("/d{round}/e"), format!("/f{round}")];
                let there = |end: &String| mounts.iter().any(|mount| mount.point.ends_with(end.as_str()));
                check!(ends.iter().all(there), "round {round}: a mount is not in the container");
            }
            drop(container);
            canary.untouched()?;
            fs::remove_dir_all(&bundle.dir)?;
        }
        check!(made > 0, "every create failed");
    }
    Ok(())
}

/// CVE-2025-31133, with the exchange between the look at /dev/null and its use.
fn a_dev_null_that_is_exchanged_masks_or_fails(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    without_mounts(&mut bundle, "/dev");
    bundle.set("/linux/maskedPaths", json!(["/etc/secret"]));
    fs::write(bundle.rootfs().join("etc/secret"), "secret")?;
    let dev = bundle.rootfs().join("dev");
    let null = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&dev.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null)?;
    symlink("/etc/passwd", dev.join("other"))?;
    bundle.write()?;
    let _exchanging = Exchanging::start(dev.join("null"), dev.join("other"));
    for round in 0..rounds() {
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        if container.create(&[]).is_ok() {
            let data = fs::metadata(format!("/proc/{}/root/etc/secret", container.pid))?;
            let null = data.file_type().is_char_device() && data.rdev() == null;
            check!(null, "round {round}: the secret is hidden behind another file");
        }
    }
    Ok(())
}

/// CVE-2024-45310 for the working directory, which is made where it is missing.
fn a_working_directory_that_becomes_a_link_stays_in_the_root(ctx: &Ctx) -> Result {
    let canary = Canary::new(ctx)?;
    let volume = ctx.dir.join("volume");
    fs::create_dir_all(volume.join("a"))?;
    symlink(&canary.at, volume.join("link"))?;
    let _exchanging = Exchanging::start(volume.join("a"), volume.join("link"));
    for round in 0..rounds() {
        let mut bundle = ctx.shell("pwd")?;
        bundle.mount("bind", path(&volume), "/tmp", &["rbind"]);
        bundle.set("/process/cwd", json!(format!("/tmp/a/w{round}/x")));
        let output = ctx.run(&bundle)?;
        check!(!output.stdout().contains("unreachable"), "round {round}: {}", output.stdout());
        canary.untouched()?;
        fs::remove_dir_all(&bundle.dir)?;
    }
    check_eq!(fs::read_dir(&canary.at)?.count(), 1, "entries in the host's directory");
    Ok(())
}
