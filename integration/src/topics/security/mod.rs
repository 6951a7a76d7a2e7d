//! Attacks that runtimes have fallen for, each with what must hold afterwards: the CVE stands at the test.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::harness::{Bundle, Container, Ctx, Result, check, check_eq, context::path, tests};

tests! {
    the_working_directory_cannot_leave_through_a_leaked_file;
    the_runtime_binary_cannot_be_written_from_within;
    a_mount_over_proc_is_refused known "crun": "in old versions";
    a_proc_that_is_a_symlink_is_refused known "crun": "in old versions resolves it within the root";
    a_dev_null_of_the_image_is_not_trusted
        known "runc": "before 1.2.8 it is" known "crun": "old versions make their own";
    a_dev_that_is_a_symlink_touches_nothing_of_the_host
        known "runc": "before 1.5 ptmx is removed there" known "crun": "before 1.28";
    delete_force_of_dots_removes_nothing known "crun": "before 1.28 it removes the parent";
    a_cgroup_path_with_dots_stays_below;
    a_fifo_for_a_passwd_does_not_hang known "runc": "1.1 opens it" known "crun": "opens it";
}

/// A directory of the host with one file, and a fingerprint of it.
fn canary(ctx: &Ctx) -> Result<PathBuf> {
    let directory = ctx.dir.join("canary");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("ptmx"), "untouched")?;
    Ok(directory)
}

fn untouched(canary: &Path) -> Result {
    let names: Vec<_> = fs::read_dir(canary)?.flatten().map(|entry| entry.file_name()).collect();
    check_eq!(names, ["ptmx"], "names in the host's directory");
    check_eq!(fs::read_to_string(canary.join("ptmx"))?, "untouched", "the host's file");
    Ok(())
}

/// Runs the bundle to its end whatever the runtime makes of it: contained means that the host is as before.
fn contained(ctx: &Ctx, bundle: &Bundle, canary: &Path) -> Result {
    ctx.run(bundle)?;
    untouched(canary)
}

/// CVE-2024-21626: a directory of the host left open by the runtime or its caller.
fn the_working_directory_cannot_leave_through_a_leaked_file(ctx: &Ctx) -> Result {
    for number in (3..20).chain([63]) {
        let mut bundle = ctx.shell("pwd; ls")?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}"))).write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "exec \"$@\" 9</etc 10</ 63</etc", "sh"]).arg(&ctx.runtime);
        command.arg("--root").arg(ctx.state_root()).args([
            "run",
            "--bundle",
            path(&bundle.dir),
            &container.id,
        ]);
        let output = ctx.finish(command)?;
        check!(output.code != 0, "cwd /proc/self/fd/{number} is accepted: {}", output.stdout());
    }
    Ok(())
}

/// CVE-2019-5736: with every capability, from the only moment that the runtime is in the container's reach.
fn the_runtime_binary_cannot_be_written_from_within(ctx: &Ctx) -> Result {
    let copy = ctx.dir.join("runtime");
    fs::copy(&ctx.runtime, &copy)?;
    let before = fs::read(&copy)?;
    let mut bundle = ctx.bundle()?;
    // The program is the runtime itself, by the magic link; and a script that tries each process it sees.
    fs::write(bundle.rootfs().join("attack"), "#!/proc/self/exe\n")?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.rootfs().join("attack"), fs::Permissions::from_mode(0o755))?;
    bundle.set("/root/readonly", json!(false)).without_namespace("pid");
    bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in */runtime*) \
                  echo evil > $p/exe;; esac; done; done 2>/dev/null; true";
    for args in [vec!["/attack"], vec!["sh", "-c", script]] {
        bundle.args(&args).write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let mut command = std::process::Command::new(&copy);
        command.arg("--root").arg(ctx.state_root()).args([
            "run",
            "--bundle",
            path(&bundle.dir),
            &container.id,
        ]);
        ctx.finish(command)?;
        check!(fs::read(&copy)? == before, "the runtime's binary was changed by {args:?}");
    }
    Ok(())
}

/// CVE-2019-16884, CVE-2023-27561: a false /proc swallows what is written for protection.
fn a_mount_over_proc_is_refused(ctx: &Ctx) -> Result {
    for destination in ["/proc", "/proc/self/attr", "/proc/sys"] {
        let mut bundle = ctx.waiting()?;
        bundle.mount("tmpfs", "tmpfs", destination, &[]);
        ctx.refused(&bundle, &[]).map_err(|e| format!("tmpfs on {destination}: {e}"))?;
    }
    Ok(())
}

/// CVE-2019-19921.
fn a_proc_that_is_a_symlink_is_refused(ctx: &Ctx) -> Result {
    for target in ["/tmp", "/", "proc"] {
        let bundle = ctx.waiting()?;
        fs::remove_dir(bundle.rootfs().join("proc"))?;
        symlink(target, bundle.rootfs().join("proc"))?;
        ctx.refused(&bundle, &[])?;
    }
    Ok(())
}

/// CVE-2025-31133: masked paths are binds of /dev/null, which an image without a /dev mount brings along.
fn a_dev_null_of_the_image_is_not_trusted(ctx: &Ctx) -> Result {
    for target in ["/proc/sys/kernel/core_pattern", "/etc/passwd"] {
        let mut bundle = ctx.waiting()?;
        if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
            mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
        }
        symlink(target, bundle.rootfs().join("dev/null"))?;
        bundle.write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        if container.create(&[]).is_ok() {
            // What is masked must then be masked by the real one.
            let mount = crate::harness::look::mount_at(container.pid, "/proc/timer_list")?;
            check!(mount.root.ends_with("/null") || mount.kind == "tmpfs", "masked by {mount:?}");
        }
    }
    Ok(())
}

/// CVE-2026-41579, CVE-2026-47766: what is done in /dev is done wherever the link leads.
fn a_dev_that_is_a_symlink_touches_nothing_of_the_host(ctx: &Ctx) -> Result {
    let canary = canary(ctx)?;
    for target in [path(&canary).to_owned(), format!("../../../../../../../../../..{}", path(&canary))] {
        for with_mounts in [true, false] {
            let mut bundle = ctx.shell("true")?;
            fs::remove_dir(bundle.rootfs().join("dev"))?;
            symlink(&target, bundle.rootfs().join("dev"))?;
            if let (false, Some(mounts)) = (with_mounts, bundle.spec["mounts"].as_array_mut()) {
                mounts
                    .retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
            }
            contained(ctx, &bundle, &canary)?;
        }
    }
    Ok(())
}

/// crun up to 1.27: the id is a path.
fn delete_force_of_dots_removes_nothing(ctx: &Ctx) -> Result {
    let canary = canary(ctx)?;
    for id in ["..", "../canary", ".", "./x/../.."] {
        ctx.call(&["delete", "--force", id])?;
    }
    untouched(&canary)?;
    check!(ctx.state_root().is_dir(), "the state root is gone");
    Ok(())
}

fn a_cgroup_path_with_dots_stays_below(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    let name = format!("{}-dots", ctx.id());
    bundle.set("/linux/cgroupsPath", json!(format!("/coracle-test/../../../../{name}")));
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    // Refused, or cleaned to a path below the root of the hierarchy.
    if container.create(&[]).is_ok() {
        let group = crate::harness::look::cgroup(container.pid, "pids")?;
        check!(group.starts_with("/sys/fs/cgroup") && !path(&group).contains(".."), "{}", group.display());
    }
    Ok(())
}

/// A passwd that never ends a read: the image's business must not hold the runtime up.
fn a_fifo_for_a_passwd_does_not_hang(ctx: &Ctx) -> Result {
    let bundle = ctx.shell("true")?;
    for name in ["passwd", "group"] {
        fs::remove_file(bundle.rootfs().join("etc").join(name))?;
        nix::unistd::mkfifo(&bundle.rootfs().join("etc").join(name), nix::sys::stat::Mode::S_IRWXU)?;
    }
    bundle.write()?;
    let container = Container::named(ctx, ctx.id(), &bundle.dir);
    let mut child = ctx.command(&["run", "--bundle", path(&bundle.dir), &container.id]).spawn()?;
    let ended = crate::harness::container::until("run ends", || Ok(child.try_wait()?.map(drop)));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ended
}
