//! SELinux labels of the process, of its keyring and of mounts, on a host where SELinux is in force: the machine's own boot
//! for it, or a Fedora. The policy must know container_t and container_file_t; forbidden_t is one that nobody may become.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use serde_json::json;

use crate::harness::{
    Bundle, Container, Ctx, Need, Output, Result, check, check_eq, context::path, look, tests,
};

const SELINUX: Need = Need::File("/sys/fs/selinux/enforce");
const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const MOUNTS: &str = "system_u:object_r:container_file_t:s0:c1,c2";
const FORBIDDEN: &str = "system_u:system_r:forbidden_t:s0";

tests! {
    init_has_the_label [SELINUX];
    exec_has_the_containers_label [SELINUX];
    exec_has_the_label_of_the_flag [SELINUX];
    exec_has_the_label_of_its_file [SELINUX];
    a_label_in_a_user_namespace [SELINUX];
    nobody_runs_without_the_label [SELINUX] known "crun": "1.21 leaves an init that delete --force does not end";
    a_label_that_is_none_is_refused_by_create [SELINUX, Need::Runtime("coracle")];
    hooks_in_the_container_have_the_label [SELINUX];
    the_keyring_has_the_label [SELINUX, Need::File("/usr/bin/keyctl")] known "crun": "1.21 gives it the runtime's";
    mounts_have_the_label [SELINUX];
    an_annotation_says_how_mounts_are_labelled [SELINUX] known "runc": "the annotation is crun's";
    a_mask_has_the_label [SELINUX];
    a_context_of_the_options_stays [SELINUX, Need::Runtime("coracle")];
    long_options_and_a_context_go_together [SELINUX];
    without_a_label_nothing_is_labelled [SELINUX];
    without_selinux_labels_are_refused [Need::NoFile("/sys/fs/selinux/enforce")];
}

fn labelled(ctx: &Ctx) -> Result<Bundle> {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/selinuxLabel", json!(PROCESS)).set("/linux/mountLabel", json!(MOUNTS));
    Ok(bundle)
}

/// As the host sees it.
fn label(pid: u32) -> Result<String> {
    Ok(look::proc(pid, "attr/current")?.trim_end_matches('\0').to_owned())
}

fn init_has_the_label(ctx: &Ctx) -> Result {
    for no_new_privs in [true, false] {
        let mut bundle = labelled(ctx)?;
        bundle.set("/process/noNewPrivileges", json!(no_new_privs));
        let container = ctx.started(&bundle)?;
        check_eq!(label(container.pid)?, PROCESS, "init's label, no_new_privs {no_new_privs}");
    }
    Ok(())
}

fn exec_has_the_containers_label(ctx: &Ctx) -> Result {
    let container = ctx.started(&labelled(ctx)?)?;
    let output = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/attr/current"])?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end_matches('\0'), PROCESS, "label of an exec");
    let output = exec_file(ctx, &container, None)?.succeeded("exec --process")?;
    check_eq!(output.stdout().trim_end_matches('\0'), PROCESS, "label of an exec whose file has none");
    Ok(())
}

fn exec_has_the_label_of_the_flag(ctx: &Ctx) -> Result {
    let other = "system_u:system_r:container_t:s0:c3";
    let container = ctx.started(&labelled(ctx)?)?;
    let words = ["/bin/cat", "/proc/self/attr/current"];
    let output = ctx.exec(&container, &["--process-label", other], &words)?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end_matches('\0'), other, "label of an exec");
    check_eq!(label(container.pid)?, PROCESS, "init's label");
    Ok(())
}

fn exec_file(ctx: &Ctx, container: &Container, label: Option<&str>) -> Result<Output> {
    let mut process =
        json!({"args": ["/bin/cat", "/proc/self/attr/current"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    if let Some(label) = label {
        process["selinuxLabel"] = json!(label);
    }
    let file = ctx.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    ctx.call(&["exec", "--process", path(&file), &container.id])
}

fn exec_has_the_label_of_its_file(ctx: &Ctx) -> Result {
    let other = "system_u:system_r:container_t:s0:c3";
    let container = ctx.started(&labelled(ctx)?)?;
    let output = exec_file(ctx, &container, Some(other))?.succeeded("exec --process")?;
    check_eq!(output.stdout().trim_end_matches('\0'), other, "label of an exec");
    Ok(())
}

fn a_label_in_a_user_namespace(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.user_namespace(100_000, 65536)?;
    let container = ctx.started(&bundle)?;
    check_eq!(label(container.pid)?, PROCESS, "init's label");
    let shm = look::mount_at(container.pid, "/dev/shm")?;
    check!(shm.super_options.join(",").contains(MOUNTS), "/dev/shm: {:?}", shm.super_options);
    let output = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/attr/current"])?.succeeded("exec")?;
    check_eq!(output.stdout().trim_end_matches('\0'), PROCESS, "label of an exec");
    Ok(())
}

/// A label that the policy forbids is an end, not a container without it.
fn nobody_runs_without_the_label(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.set("/process/selinuxLabel", json!(FORBIDDEN));
    let output = ctx.run(&bundle)?;
    check!(output.code != 0, "run with a label that the policy forbids succeeds");
    let container = ctx.started(&labelled(ctx)?)?;
    let output = ctx.exec(&container, &["--process-label", FORBIDDEN], &["/bin/echo", "ran"])?;
    check!(output.code != 0, "exec with a label that the policy forbids succeeds");
    check!(!output.stdout().contains("ran"), "the program ran: {}", output.stdout());
    let output = ctx.exec(&container, &["--process-label", "nonsense"], &["/bin/echo", "ran"])?;
    check!(output.code != 0 && !output.stdout().contains("ran"), "exec with nonsense for a label succeeds");
    Ok(())
}

fn a_label_that_is_none_is_refused_by_create(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.set("/process/selinuxLabel", json!("system_u:system_r:nobody_knows_t:s0"));
    ctx.refused(&bundle, &["nobody_knows_t", "process.selinuxLabel"])?;
    let mut bundle = labelled(ctx)?;
    bundle.set("/linux/mountLabel", json!("system_u:object_r:nobody_knows_t:s0"));
    ctx.refused(&bundle, &["context", "nobody_knows_t"])?;
    Ok(())
}

/// They are programs of the image; those before run outside, and are the runtime's.
fn hooks_in_the_container_have_the_label(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    let args = ["sh", "-c", "cat /proc/self/attr/current > /tmp/hook"];
    bundle.set("/hooks/startContainer", json!([{"path": "/bin/sh", "args": args}]));
    bundle.set("/root/readonly", json!(false));
    let outside = ctx.dir.join("outside");
    let write = format!("cat /proc/self/attr/current > {}", path(&outside));
    bundle.set("/hooks/createContainer", json!([{"path": "/bin/sh", "args": ["sh", "-c", write]}]));
    let own = label(std::process::id())?;
    let container = ctx.started(&bundle)?;
    let hook = fs::read_to_string(bundle.rootfs().join("tmp/hook"))?;
    check_eq!(hook.trim_end_matches('\0'), PROCESS, "label of a startContainer hook");
    let hook = fs::read_to_string(outside)?;
    check_eq!(hook.trim_end_matches('\0'), own, "label of a createContainer hook");
    check_eq!(label(container.pid)?, PROCESS, "init's label");
    Ok(())
}

/// Only who is in the session can ask: the host's own program, shown to the container with its libraries.
fn the_keyring_has_the_label(ctx: &Ctx) -> Result {
    let command = ["/usr/bin/keyctl", "security", "@s"];
    let mut bundle = labelled(ctx)?;
    for dir in ["/usr", "/lib", "/lib64"] {
        bundle.mount("bind", dir, dir, &["bind", "ro"]);
    }
    let container = ctx.started(&bundle)?;
    let output = ctx.exec(&container, &[], &command)?.succeeded("exec")?;
    check_eq!(
        output.stdout().trim().trim_end_matches('\0'),
        PROCESS,
        "label of the session keyring of an exec"
    );
    drop(container);
    bundle.args(&command);
    let output = ctx.run(&bundle)?.succeeded("run")?;
    check_eq!(output.stdout().trim().trim_end_matches('\0'), PROCESS, "label of the session keyring");
    Ok(())
}

/// Podman's `--security-opt label=nested` has it: the container may then label files itself.
fn an_annotation_says_how_mounts_are_labelled(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.set("/annotations", json!({"run.oci.mount_context_type": "rootcontext"}));
    bundle.mount("tmpfs", "tmpfs", "/var", &["size=1m"]);
    let container = ctx.started(&bundle)?;
    let options = look::mount_at(container.pid, "/var")?.super_options.join(",").replace('"', "");
    check!(options.contains(&format!("rootcontext={MOUNTS}")), "options of the tmpfs: {options}");
    bundle.set("/annotations", json!({"run.oci.mount_context_type": "somecontext"}));
    ctx.refused(&bundle, &[]).map(drop)
}

fn mounts_have_the_label(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.mount("tmpfs", "tmpfs", "/var", &["tmpcopyup", "size=1m"]);
    let (lower, upper, work) = (ctx.dir.join("lower"), ctx.dir.join("upper"), ctx.dir.join("work"));
    for dir in [&lower, &upper, &work] {
        fs::create_dir_all(dir)?;
    }
    let volume = ctx.dir.join("volume");
    fs::create_dir_all(&volume)?;
    bundle.mount("bind", path(&volume), "/srv", &["bind"]);
    let options = [
        format!("lowerdir={}", path(&lower)),
        format!("upperdir={}", path(&upper)),
        format!("workdir={}", path(&work)),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    bundle.mount("overlay", "overlay", "/mnt", &options);
    let container = ctx.started(&bundle)?;
    let context = format!("context={MOUNTS}");
    let says = |point: &str| -> Result<bool> {
        let mount = look::mount_at(container.pid, point)?;
        // Quoted where the label has commas, and split at them like every option.
        Ok(mount.super_options.join(",").replace('"', "").contains(&context))
    };
    for point in ["/dev", "/dev/pts", "/dev/shm", "/var", "/mnt"] {
        check!(says(point)?, "{point} has no {context}: {:?}", look::mount_at(container.pid, point)?);
    }
    for point in ["/proc", "/sys", "/srv", "/sys/fs/cgroup"] {
        check!(!says(point)?, "{point} has {context}");
    }
    // Seen from outside: what lies in them has it, and the message queues too, which take no option.
    for point in ["dev/mqueue", "dev/shm", "dev/null", "var"] {
        check_eq!(file_label(&container, point)?, MOUNTS, "label of {point}");
    }
    let own = file_label(&container, "srv")?;
    check!(own != MOUNTS, "a bind mount is labelled anew: {own}");
    Ok(())
}

fn file_label(container: &Container, point: &str) -> Result<String> {
    let place = format!("/proc/{}/root/{point}", container.pid);
    let output = Command::new("stat").args(["-c", "%C", &place]).output()?;
    check!(output.status.success(), "stat {place}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn a_mask_has_the_label(ctx: &Ctx) -> Result {
    let mut bundle = labelled(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/etc", "/var"]));
    let container = ctx.started(&bundle)?;
    for point in ["etc", "var"] {
        check_eq!(file_label(&container, point)?, MOUNTS, "label of the mask of {point}");
        let inside = fs::metadata(format!("/proc/{}/root/{point}", container.pid))?;
        check!(inside.mode() & 0o170_000 == 0o040_000, "{point} is no directory");
    }
    Ok(())
}

/// As engines write it, with the quotes of mount(8).
fn a_context_of_the_options_stays(ctx: &Ctx) -> Result {
    let other = "system_u:object_r:container_file_t:s0:c2,c3";
    for value in [format!("context=\"{other}\""), format!("context={other}")] {
        let mut bundle = labelled(ctx)?;
        bundle.mount("tmpfs", "tmpfs", "/var", &["size=1m", &value]);
        let container = ctx.started(&bundle)?;
        check_eq!(file_label(&container, "var")?, other, "label of a mount with {value}");
    }
    Ok(())
}

/// More than fsconfig(2) takes goes the old way, where a label with commas has quotes.
fn long_options_and_a_context_go_together(ctx: &Ctx) -> Result {
    let layers: Vec<String> =
        (0..8).map(|n| ctx.dir.join(format!("{n:a>40}")).display().to_string()).collect();
    for dir in layers.iter().map(String::as_str).chain(["upper", "work"]) {
        fs::create_dir_all(ctx.dir.join(dir))?;
    }
    let options = [
        format!("lowerdir={}", layers.join(":")),
        format!("upperdir={}", path(&ctx.dir.join("upper"))),
        format!("workdir={}", path(&ctx.dir.join("work"))),
    ];
    let mut bundle = labelled(ctx)?;
    bundle.mount("overlay", "overlay", "/mnt", &options.iter().map(String::as_str).collect::<Vec<_>>());
    let container = ctx.started(&bundle)?;
    check_eq!(file_label(&container, "mnt")?, MOUNTS, "label of the overlay");
    Ok(())
}

fn without_a_label_nothing_is_labelled(ctx: &Ctx) -> Result {
    let container = ctx.started(&ctx.waiting()?)?;
    check_eq!(label(container.pid)?, label(std::process::id())?, "init's label");
    let labelled =
        look::mounts(container.pid)?.into_iter().find(|m| m.super_options.join(",").contains("context="));
    check!(labelled.is_none(), "a mount has a label that nobody asked for: {labelled:?}");
    Ok(())
}

fn without_selinux_labels_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/selinuxLabel", json!(PROCESS));
    check!(ctx.run(&bundle)?.code != 0, "run with a label on a host without SELinux succeeds");
    let container = ctx.started(&ctx.waiting()?)?;
    let output = ctx.exec(&container, &["--process-label", PROCESS], &["/bin/echo", "ran"])?;
    check!(output.code != 0 && !output.stdout().contains("ran"), "exec with a label succeeds");
    Ok(())
}
