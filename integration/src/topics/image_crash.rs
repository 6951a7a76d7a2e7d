//! What reads images is ended by SIGKILL before one of its syscalls, at many of them: nothing half-made is taken for whole,
//! and the next run cleans up and succeeds. `SWEEP=N` ends it before every Nth, a slow
//! machine takes fewer. Pulls are in registry.rs.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    Ctx, Layout, Need, Result, check, check_eq,
    container::until,
    image::{call, kept, store},
    tests,
    trace::{self, Role},
};

const OURS: Need = Need::Runtime("coracle");
/// Points of one sweep.
const POINTS: usize = 50;

tests! {
    unpack [OURS];
    run_parent [OURS];
    run_children [OURS];
    rmi [OURS];
    as_a_user_unpack [OURS, Need::Unprivileged];
}

/// Two layers, of which the second takes something away, and a program that the tracer knows.
fn image(ctx: &Ctx) -> Result<String> {
    let mut layout = Layout::new(ctx, "image")?;
    let root = ctx.dir.join("more");
    fs::create_dir_all(root.join("added/deep"))?;
    fs::write(root.join("added/deep/file"), "x".repeat(100_000))?;
    fs::write(root.join(".wh.home"), "")?;
    layout.layer(&root, &["added", ".wh.home"])?;
    layout.finish(&json!({"Cmd": ["/probe", "exit", "5"]}))
}

/// Everything about a tree, as GNU tar sees it.
fn digest(tree: &Path) -> Result<String> {
    let script = "tar --sort=name --numeric-owner --xattrs --xattrs-include='*' --format=posix \
        --pax-option=delete=atime,delete=ctime -cf - . | sha256sum";
    let output = Command::new("sh").args(["-c", script]).current_dir(tree).output()?;
    check!(
        output.status.success() && output.stderr.is_empty(),
        "tar: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// By time: newuidmap(1), which is set-id, gives nothing to who is traced. Of `run` the like is in image.rs.
fn as_a_user_unpack(ctx: &Ctx) -> Result {
    let (image, bundle) = (image(ctx)?, ctx.dir.join("bundle"));
    let words = ["unpack", &image, "bundle"];
    let mut half_made = 0;
    for milliseconds in [1, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 400, 600] {
        let mut child = ctx.command(&words).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(milliseconds));
        child.kill()?;
        child.wait()?;
        if !bundle.join("config.json").exists() {
            half_made += usize::from(bundle.exists());
            // Its child, which holds the lock, dies a moment later.
            until("unpack succeeds", || Ok((call(ctx, &words)?.code == 0).then_some(())))?;
        }
        let run = call(ctx, &["run", "--bundle", "bundle", &ctx.id()])?;
        check_eq!(run.code, 5, "run after a death at {milliseconds} ms ({})", run.stderr());
        call(ctx, &["rmi", "./bundle"])?.succeeded("rmi")?;
        check!(!bundle.exists(), "the bundle is still there after a death at {milliseconds} ms");
    }
    println!("{half_made} deaths left something");
    Ok(())
}

fn unpack(ctx: &Ctx) -> Result {
    let (image, bundle, errors) = (image(ctx)?, ctx.dir.join("bundle"), ctx.dir.join("traced"));
    let words = ["unpack", &image, "bundle"];
    let total = trace::run(&ctx.command(&words), &errors, None, None)?.counts[Role::Parent as usize];
    check!(total > 100, "only {total} syscalls: {}", fs::read_to_string(&errors)?);
    let wanted = digest(&bundle.join("rootfs"))?;
    call(ctx, &["rmi", "./bundle"])?.succeeded("rmi")?;
    let mut half_made = 0;
    for point in trace::points(total, POINTS) {
        let trace = trace::run(&ctx.command(&words), &errors, None, Some((Role::Parent, point)))?;
        let at = format!("a death at {point} of {total} ({:?})", trace.killed);
        check!(trace.hung.is_none(), "{at}: hangs: {:?}", trace.hung);
        // Whole or not: config.json says which, and only what is not whole is made anew.
        if !bundle.join("config.json").exists() {
            half_made += usize::from(bundle.exists());
            call(ctx, &words)?.succeeded(&format!("unpack after {at}"))?;
        }
        let run = call(ctx, &["run", "--bundle", "bundle", &ctx.id()])?;
        check_eq!(run.code, 5, "run after {at} ({})", run.stderr());
        check_eq!(digest(&bundle.join("rootfs"))?, wanted, "the tree after {at}");
        call(ctx, &["rmi", "./bundle"])?.succeeded(&format!("rmi after {at}"))?;
        check!(!bundle.exists(), "{at}: the bundle is still there");
    }
    check!(half_made > 3, "only {half_made} deaths left anything: what was swept?");
    Ok(())
}

fn run_parent(ctx: &Ctx) -> Result {
    sweep_run(ctx, Role::Parent)
}

/// The processes that unpack, and the container's init.
fn run_children(ctx: &Ctx) -> Result {
    sweep_run(ctx, Role::Init)
}

fn sweep_run(ctx: &Ctx, role: Role) -> Result {
    let (image, errors, id) = (image(ctx)?, ctx.dir.join("traced"), ctx.id());
    let at = store(ctx).display().to_string();
    let words = ["run", "--store", &at, "--image", &image, "--rm", "--name", &id];
    let total = trace::run(&ctx.command(&words), &errors, None, None)?.counts[role as usize];
    check!(total > 100, "only {total} syscalls: {}", fs::read_to_string(&errors)?);
    for point in trace::points(total, POINTS) {
        call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
        for directory in ["layers", "containers"] {
            let left: Vec<_> =
                fs::read_dir(store(ctx).join(directory))?.flatten().map(|e| e.file_name()).collect();
            check!(left.is_empty(), "left in {directory} of the store: {left:?}");
        }
        let trace = trace::run(&ctx.command(&words), &errors, None, Some((role, point)))?;
        let at = format!("a death at {point} of {total} ({:?})", trace.killed);
        check!(trace.hung.is_none(), "{at}: hangs: {:?}", trace.hung);
        // A container that had begun to run is one.
        call(ctx, &["delete", "--force", &id])?.succeeded(&format!("delete after {at}"))?;
        let again = ctx.call(&words)?;
        check_eq!(again.code, 5, "run after {at} ({})", again.stderr());
        check_eq!(kept(ctx, "containers")?.len(), 0, "containers left after {at}");
    }
    Ok(())
}

/// What is left of images that were being removed is no image, and goes the next time.
fn rmi(ctx: &Ctx) -> Result {
    let (image, errors) = (image(ctx)?, ctx.dir.join("traced"));
    let at = store(ctx).display().to_string();
    let fill = || ctx.call(&["run", "--store", &at, "--image", &image, "--rm"]);
    fill()?;
    let remove = ctx.command(&["rmi", "--store", &at, "--all"]);
    let mut total = [0, 0];
    for role in [Role::Parent, Role::Init] {
        fill()?;
        total[role as usize] = trace::run(&remove, &errors, None, None)?.counts[role as usize];
        for point in trace::points(total[role as usize], POINTS) {
            check_eq!(fill()?.code, 5, "run after an rmi that was killed");
            let trace = trace::run(&remove, &errors, None, Some((role, point)))?;
            check!(trace.hung.is_none(), "hangs: {:?}", trace.hung);
            let again = fill()?;
            check_eq!(again.code, 5, "run after a death at {point} ({:?}, {})", trace.killed, again.stderr());
            ctx.call(&["rmi", "--store", &at, "--all"])?.succeeded("the next rmi")?;
            let left: Vec<_> =
                fs::read_dir(store(ctx).join("layers"))?.flatten().map(|e| e.file_name()).collect();
            check!(left.is_empty(), "left after a death at {point} ({:?}): {left:?}", trace.killed);
        }
    }
    check!(total.iter().sum::<usize>() > 100, "only {total:?} syscalls");
    Ok(())
}
