//! Mounts whose ids are mapped (config.md, "uidMappings", "gidMappings", options "idmap" and "ridmap"; mount_setattr(2)).
//! A file's owner is read through /proc/PID/root: what the mount makes of the ids that the file system has.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::harness::{Bundle, Ctx, Need, Result, check_eq, context::path, tests};

tests! {
    a_map_of_its_own_without_user_namespace [Need::Kernel(5, 12)]
        known "crun": "before 1.9 it wants a user namespace" known "runc": "before 1.2 it wants a user namespace";
    a_map_of_its_own_in_a_user_namespace [Need::Kernel(5, 12)] known "runc": "before 1.2 not known";
    the_map_of_the_container_is_taken_when_there_is_no_other [Need::Kernel(5, 12)] known "runc": "before 1.2 not known";
    the_map_of_a_joined_user_namespace [Need::Kernel(5, 12)] known "runc": "before 1.2 not known";
    only_ridmap_reaches_the_mounts_below [Need::Kernel(5, 12)] known "runc": "before 1.2 not known"
        known "crun": "before 1.9 it wants a user namespace";
    a_file_made_through_the_map_gets_the_file_systems_id [Need::Kernel(5, 12)] known "runc": "before 1.2 not known"
        known "crun": "before 1.9 it wants a user namespace";
    crun_spells_the_map_in_the_option [Need::Kernel(5, 12)] known "runc": "the spelling is crun's";
    a_part_of_the_container_is_mapped [Need::Kernel(5, 12)] known "runc": "before 1.2 not known"
        known "crun": "the source is taken from the host";
    empty_maps_are_none;
    without_any_map_it_is_refused known "crun": "before 1.9 it maps nothing";
    half_a_map_is_refused;
}

/// A directory whose file belongs to 1000:2000, with another of the kind mounted below it.
struct Volume(PathBuf);

impl Volume {
    fn new(ctx: &Ctx) -> Result<Volume> {
        let volume = ctx.dir.join("mapped");
        fs::create_dir_all(volume.join("below"))?;
        owned(&volume.join("file"))?;
        std::os::unix::fs::chown(&volume, Some(1000), Some(2000))?;
        Ok(Volume(volume))
    }

    fn with_a_mount_below(self) -> Result<Volume> {
        let below = self.0.join("below");
        mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        owned(&below.join("file"))?;
        Ok(self)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = umount2(&self.0.join("below"), MntFlags::MNT_DETACH);
    }
}

fn owned(file: &std::path::Path) -> Result {
    fs::write(file, "")?;
    Ok(std::os::unix::fs::chown(file, Some(1000), Some(2000))?)
}

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

fn mapped(bundle: &mut Bundle, volume: &Volume, options: &[&str], maps: Option<(Value, Value)>) {
    let mut mount =
        json!({"destination": "/tmp", "type": "bind", "source": path(&volume.0), "options": options});
    if let Some((uids, gids)) = maps {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    bundle.push("/mounts", mount);
}

/// Owner and group, as the host names them.
fn owner(pid: u32, file: &str) -> Result<(u32, u32)> {
    let stat = fs::metadata(format!("/proc/{pid}/root{file}")).map_err(|e| format!("{file}: {e}"))?;
    Ok((stat.uid(), stat.gid()))
}

fn a_map_of_its_own_without_user_namespace(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    let maps = (map(1000, 71000, 5), map(2000, 82000, 5));
    mapped(&mut bundle, &volume, &["bind", "idmap"], Some(maps));
    let container = ctx.started(&bundle)?;
    check_eq!(owner(container.pid, "/tmp/file")?, (71000, 82000), "owner of the file through the mount");
    check_eq!(fs::metadata(volume.0.join("file"))?.uid(), 1000, "owner of the file itself");
    Ok(())
}

fn a_map_of_its_own_in_a_user_namespace(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(100_000, 65536)?;
    mapped(&mut bundle, &volume, &["bind"], Some((map(1000, 100_007, 1), map(2000, 100_008, 1))));
    let container = ctx.started(&bundle)?;
    check_eq!(owner(container.pid, "/tmp/file")?, (100_007, 100_008), "owner of the file");
    Ok(())
}

fn the_map_of_the_container_is_taken_when_there_is_no_other(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.shell("stat -c %u:%g /tmp/file")?;
    bundle.user_namespace(100_000, 65536)?;
    mapped(&mut bundle, &volume, &["bind", "idmap"], None);
    check_eq!(ctx.stdout(&bundle)?, "1000:2000", "owner of the file within");
    Ok(())
}

fn the_map_of_a_joined_user_namespace(ctx: &Ctx) -> Result {
    let mut first = ctx.waiting()?;
    first.user_namespace(100_000, 65536)?;
    let first = ctx.started(&first)?;
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(100_000, 65536)?;
    bundle.namespace("user", Some(&format!("/proc/{}/ns/user", first.pid)));
    bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
    mapped(&mut bundle, &volume, &["bind", "idmap"], None);
    let container = ctx.started(&bundle)?;
    check_eq!(owner(container.pid, "/tmp/file")?, (101_000, 102_000), "owner of the file");
    Ok(())
}

fn only_ridmap_reaches_the_mounts_below(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?.with_a_mount_below()?;
    for (word, below) in [("idmap", (1000, 2000)), ("ridmap", (71000, 82000))] {
        let mut bundle = ctx.waiting()?;
        mapped(&mut bundle, &volume, &["rbind", word], Some((map(1000, 71000, 5), map(2000, 82000, 5))));
        let container = ctx.started(&bundle)?;
        check_eq!(owner(container.pid, "/tmp/file")?, (71000, 82000), "owner of the file, {word}");
        check_eq!(owner(container.pid, "/tmp/below/file")?, below, "owner of the file below, {word}");
    }
    Ok(())
}

fn a_file_made_through_the_map_gets_the_file_systems_id(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.shell("touch /tmp/new")?;
    mapped(&mut bundle, &volume, &["bind", "idmap"], Some((map(1000, 0, 5), map(2000, 0, 5))));
    ctx.stdout(&bundle)?;
    let made = fs::metadata(volume.0.join("new"))?;
    check_eq!((made.uid(), made.gid()), (1000, 2000), "owner of the new file on disk");
    Ok(())
}

fn crun_spells_the_map_in_the_option(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let words = [
        ("idmap=uids=1000-100009-1#5-100010-1;gids=2000-100011-1", (100_009, 100_011)),
        ("idmap=uids=@1000-9-1;gids=@2000-11-1", (100_009, 100_011)),
    ];
    for (word, wanted) in words {
        let mut bundle = ctx.waiting()?;
        bundle.user_namespace(100_000, 65536)?;
        mapped(&mut bundle, &volume, &["bind", word], None);
        let container = ctx.started(&bundle)?;
        check_eq!(owner(container.pid, "/tmp/file")?, wanted, "owner of the file, {word}");
    }
    Ok(())
}

/// The source is a mount that the container got just before: it exists only there.
fn a_part_of_the_container_is_mapped(ctx: &Ctx) -> Result {
    for user_namespace in [false, true] {
        let volume = Volume::new(ctx)?;
        let mut bundle = ctx.waiting()?;
        if user_namespace {
            bundle.user_namespace(100_000, 65536)?;
        }
        // The runtime maps these, and is who gives init its network: sysfs would have it there before.
        bundle.without_mounts("/sys").mount("bind", path(&volume.0), "/var", &["bind"]);
        let inner = Volume(bundle.rootfs().join("var"));
        mapped(&mut bundle, &inner, &["bind"], Some((map(1000, 100_003, 1), map(2000, 100_004, 1))));
        let container = ctx.started(&bundle)?;
        check_eq!(owner(container.pid, "/tmp/file")?, (100_003, 100_004), "owner of the file");
        check_eq!(owner(container.pid, "/var/file")?, (1000, 2000), "owner through the first mount");
    }
    Ok(())
}

fn without_any_map_it_is_refused(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    mapped(&mut bundle, &volume, &["bind", "idmap"], None);
    ctx.refused(&bundle, &[]).map(drop)
}

fn empty_maps_are_none(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    mapped(&mut bundle, &volume, &["bind"], Some((json!([]), json!([]))));
    let container = ctx.started(&bundle)?;
    check_eq!(owner(container.pid, "/tmp/file")?, (1000, 2000), "owner of the file");
    Ok(())
}

fn half_a_map_is_refused(ctx: &Ctx) -> Result {
    let volume = Volume::new(ctx)?;
    let mut bundle = ctx.waiting()?;
    mapped(&mut bundle, &volume, &["bind", "idmap"], Some((map(0, 1000, 5), json!([]))));
    ctx.refused(&bundle, &[]).map(drop)
}
