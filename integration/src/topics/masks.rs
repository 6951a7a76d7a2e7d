//! Masked and read-only paths, sysctl (config-linux.md, "Masked Paths", "Readonly Paths", "Sysctl").

use std::fs;

use serde_json::json;

use crate::harness::{Ctx, Result, check, check_eq, look, tests};

tests! {
    a_masked_file_is_empty;
    a_masked_directory_is_empty_and_read_only;
    the_default_masks_are_in_force;
    a_read_only_path_cannot_be_written;
    a_relative_read_only_path_is_below_the_root;
    a_read_only_path_keeps_its_flags;
    the_root_itself_can_be_a_read_only_path;
    a_missing_path_is_passed_over;
    sysctl_is_set;
    a_sysctl_of_the_host_is_refused;
}

fn a_masked_file_is_empty(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::write(bundle.rootfs().join("etc/secret"), "secret")?;
    bundle.push("/linux/maskedPaths", json!("/etc/secret")).args(&["/probe", "read", "/etc/secret"]);
    let text = ctx.stdout(&bundle)?;
    check_eq!(text, "\"\"", "what is read from the masked file");
    Ok(())
}

fn a_masked_directory_is_empty_and_read_only(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("ls -A /home | wc -l; mkdir /home/x 2>/dev/null || echo refused")?;
    fs::write(bundle.rootfs().join("home/secret"), "secret")?;
    bundle.push("/linux/maskedPaths", json!("/home")).set("/root/readonly", json!(false));
    check_eq!(ctx.stdout(&bundle)?, "0\nrefused", "entries, and an attempt to write");
    Ok(())
}

fn the_default_masks_are_in_force(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi", "/sys/firmware"]
    {
        if fs::metadata(path).is_ok() {
            let mount = look::mount_at(container.pid, path)?;
            check!(mount.kind == "tmpfs" || mount.root.contains("null"), "{path} is masked by {mount:?}");
        }
    }
    Ok(())
}

fn the_root_itself_can_be_a_read_only_path(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("touch /x 2>/dev/null && echo written || echo refused")?;
    bundle.set("/root/readonly", json!(false)).push("/linux/readonlyPaths", json!("/"));
    check_eq!(ctx.stdout(&bundle)?, "refused", "an attempt to write to the root");
    Ok(())
}

fn a_read_only_path_cannot_be_written(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "write", "/proc/sys/net/ipv4/ip_forward"]);
    check_eq!(ctx.stdout(&bundle)?, "30", "errno of open for writing (EROFS)");
    Ok(())
}

fn a_relative_read_only_path_is_below_the_root(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/var", &[]);
    bundle.push("/linux/readonlyPaths", json!("var")).push("/linux/readonlyPaths", json!("no/such/path"));
    let container = ctx.started(&bundle)?;
    check!(look::mount_at(container.pid, "/var")?.has("ro"), "/var can be written");
    Ok(())
}

fn a_read_only_path_keeps_its_flags(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/var", &["nosuid", "nodev", "noexec"]);
    bundle.push("/linux/readonlyPaths", json!("/var"));
    let container = ctx.started(&bundle)?;
    let mount = look::mount_at(container.pid, "/var")?;
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        check!(mount.has(option), "/var lacks {option}: {mount:?}");
    }
    Ok(())
}

fn a_missing_path_is_passed_over(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("true")?;
    bundle
        .push("/linux/maskedPaths", json!("/proc/no/such"))
        .push("/linux/readonlyPaths", json!("/proc/no/such"));
    ctx.stdout(&bundle).map(drop)
}

fn sysctl_is_set(ctx: &Ctx) -> Result {
    let mut bundle = ctx.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni")?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234"}));
    check_eq!(ctx.stdout(&bundle)?, "1\n1234", "both values");
    Ok(())
}

fn a_sysctl_of_the_host_is_refused(ctx: &Ctx) -> Result {
    let before = fs::read_to_string("/proc/sys/vm/swappiness")?;
    for (key, value) in
        [("vm.swappiness", "1"), ("kernel.core_pattern", "|/bin/evil"), ("kernel/../vm/swappiness", "1")]
    {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/sysctl", json!({key: value}));
        ctx.refused(&bundle, &[])?;
    }
    check_eq!(fs::read_to_string("/proc/sys/vm/swappiness")?, before, "the host's swappiness");
    Ok(())
}
