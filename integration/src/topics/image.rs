//! From an image to a running container: unpack, run --image, images, rmi. Promises of Coracle alone: no other low-level
//! runtime reads images. Registries are in registry.rs, deaths half-way in image_crash.rs, the unpacked trees in
//! image_trees.rs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Container, Ctx, Layout, Need, Result, check, check_eq, container,
    image::{call, command, kept, run, store},
    rootfs, tests,
};

const OURS: Need = Need::Runtime("coracle");
const RUNC: &str = "/usr/sbin/runc";
const CRUN: &str = "/usr/bin/crun";
const SCRIPT: &str = "/usr/bin/script";

tests! {
    an_unpacked_image_runs_unedited [OURS];
    runc_runs_an_unpacked_image_unedited [OURS, Need::File(RUNC), Need::File(SCRIPT)];
    crun_runs_an_unpacked_image_unedited [OURS, Need::File(CRUN), Need::File(SCRIPT), Need::Capability("CAP_SYS_RESOURCE", 24)];
    one_step_from_image_to_exit_status [OURS];
    layers_are_kept_once_and_nothing_stays_mounted [OURS];
    a_layer_keeps_what_lower_ones_say_of_its_directories [OURS];
    a_user_of_the_image_passes_through_its_root [OURS];
    what_a_container_removes_comes_back_for_the_next [OURS];
    the_whole_life_of_a_container_from_an_image [OURS];
    an_image_in_use_keeps_its_layers [OURS];
    an_image_says_how_it_is_stopped [OURS];
    what_has_ended_leaves_its_name [OURS];
    an_unknown_user_keeps_what_was_unpacked [OURS];
    runs_removals_and_deaths_at_once [OURS];
    host_directories_are_bound [OURS];
    volumes_under_a_readonly_root [OURS];
    without_overlayfs_there_is_a_copy [OURS];
    more_layers_than_overlayfs_joins [OURS];
    root_of_one_id_unpacks [OURS];
    a_user_with_one_id_keeps_all_files [OURS];
    a_terminal_when_asked_for [OURS];
    killed_at_any_moment_the_next_run_succeeds [OURS];
    an_image_cannot_steer_the_runtime [OURS];
    what_cannot_run_leaves_nothing [OURS];
    nobody_else_looks_into_bundles_and_stores [OURS];
    a_directory_that_is_no_store_stays_as_it_is [OURS];
    a_store_behind_a_link_keeps_what_runs [OURS];
    somebody_elses_store_is_refused [OURS];
    as_a_user_an_unpacked_image_runs_unedited [OURS, Need::Unprivileged];
    as_a_user_runc_runs_an_unpacked_image_unedited [OURS, Need::Unprivileged, Need::File(RUNC), Need::File(SCRIPT)];
    as_a_user_crun_runs_an_unpacked_image_unedited [OURS, Need::Unprivileged, Need::File(CRUN), Need::File(SCRIPT)];
    as_a_user_one_step_from_image_to_exit_status [OURS, Need::Unprivileged];
    as_a_user_a_layer_keeps_what_lower_ones_say_of_its_directories [OURS, Need::Unprivileged];
    as_a_user_the_whole_life_of_a_container_from_an_image [OURS, Need::Unprivileged];
    as_a_user_killed_at_any_moment_the_next_run_succeeds [OURS, Need::Unprivileged];
    as_a_user_host_directories_are_bound [OURS, Need::Unprivileged];
    as_a_user_an_image_says_how_it_is_stopped [OURS, Need::Unprivileged];
    as_a_user_an_unknown_user_keeps_what_was_unpacked [OURS, Need::Unprivileged];
    as_a_user_runs_removals_and_deaths_at_once [OURS, Need::Unprivileged];
    as_a_user_volumes_under_a_readonly_root [OURS, Need::Unprivileged];
    as_a_user_a_terminal_when_asked_for [OURS, Need::Unprivileged];
    as_a_user_owners_are_the_images [OURS, Need::Unprivileged];
    as_a_user_without_overlayfs_there_is_a_copy [OURS, Need::Unprivileged];
    as_a_user_an_image_cannot_steer_the_runtime [OURS, Need::Unprivileged];
    as_a_user_pasta_connects [OURS, Need::Unprivileged, Need::File("/usr/bin/pasta"), Need::Writable("/dev/net/tun")];
    words_as_with_engines [OURS];
    as_a_user_words_as_with_engines [OURS, Need::Unprivileged];
    a_detached_container_lets_go_of_its_caller [OURS];
    as_a_user_a_detached_container_lets_go_of_its_caller [OURS, Need::Unprivileged];
    a_link_outlives_its_hidden_target [OURS];
    as_a_user_pasta_publishes [OURS, Need::Unprivileged, Need::File("/usr/bin/pasta"), Need::Writable("/dev/net/tun")];
    pasta_publishes [OURS, Need::File("/usr/bin/pasta"), Need::File("/dev/net/tun")];
    pasta_connects [OURS, Need::File("/usr/bin/pasta"), Need::File("/dev/net/tun")];
}

/// The tests' root file system as an image that runs this script.
fn image(ctx: &Ctx, script: &str) -> Result<String> {
    Layout::new(ctx, "image")?.finish(&json!({"Cmd": ["/bin/sh", "-c", script], "Env": ["COLOUR=blue"]}))
}

fn an_unpacked_image_runs_unedited(ctx: &Ctx) -> Result {
    let image = image(ctx, "echo $COLOUR; exit 3")?;
    let bundle = ctx.dir.join("bundle").display().to_string();
    call(ctx, &["unpack", &image, &bundle])?.succeeded("unpack")?;
    let output = call(ctx, &["run", "--bundle", &bundle, &ctx.id()])?;
    check_eq!(output.code, 3, "exit status ({})", output.stderr());
    check_eq!(output.stdout().trim(), "blue", "output");
    Ok(())
}

fn runc_runs_an_unpacked_image_unedited(ctx: &Ctx) -> Result {
    a_peer_runs_an_unpacked_image_unedited(ctx, RUNC)
}

fn crun_runs_an_unpacked_image_unedited(ctx: &Ctx) -> Result {
    a_peer_runs_an_unpacked_image_unedited(ctx, CRUN)
}

/// config.json holds nothing that only Coracle understands; with a terminal and without.
fn a_peer_runs_an_unpacked_image_unedited(ctx: &Ctx, peer: &str) -> Result {
    let image = image(ctx, "test -t 0 && echo $COLOUR $TERM || echo $COLOUR; id -u; exit 3")?;
    for (bundle, tty, said) in
        [("plain", None, "blue\n0\n"), ("terminal", Some("--tty"), "blue xterm\r\n0\r\n")]
    {
        call(ctx, &[&["unpack"], tty.as_slice(), &[&image, bundle]].concat())?.succeeded("unpack")?;
        let words =
            format!("{peer} --root {} run --bundle {bundle} {}", ctx.dir.join("peer").display(), ctx.id());
        let mut run = Command::new("sh");
        match tty {
            None => run.args(["-c", &words]),
            Some(_) => run.args([
                "-c",
                &format!("exec {SCRIPT} --quiet --return --flush --command '{words}' /dev/null"),
            ]),
        };
        run.current_dir(&ctx.dir).stdin(Stdio::null());
        let output = ctx.finish(run)?;
        check_eq!(output.code, 3, "{peer}, {bundle}: {} {}", output.stdout(), output.stderr());
        check!(output.stdout().ends_with(said), "{peer}, {bundle}: {:?}", output.stdout());
    }
    Ok(())
}

fn one_step_from_image_to_exit_status(ctx: &Ctx) -> Result {
    let image = image(ctx, "echo $COLOUR; exit 3")?;
    let output = run(ctx, &[&image, "--rm"])?;
    check_eq!(
        (output.code, output.stdout().trim()),
        (3, "blue"),
        "what the image says ({})",
        output.stderr()
    );
    let words = [
        &image,
        "--rm",
        "-e",
        "COLOUR=red",
        "--name",
        &ctx.id(),
        "--",
        "/bin/sh",
        "-c",
        "echo $COLOUR; hostname",
    ];
    let output = run(ctx, &words)?;
    check_eq!(output.code, 0, "what the caller says ({})", output.stderr());
    check!(output.stdout().starts_with("red\nit"), "output: {}", output.stdout());
    Ok(())
}

fn layers_are_kept_once_and_nothing_stays_mounted(ctx: &Ctx) -> Result {
    let image = image(ctx, "exit 0")?;
    for _ in 0..3 {
        run(ctx, &[&image, "--rm"])?.succeeded("run --image")?;
    }
    check_eq!(kept(ctx, "layers")?.len(), 1, "layers");
    check_eq!(kept(ctx, "containers")?.len(), 0, "containers left");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    check!(!mounts.contains(&store(ctx).display().to_string()), "something is mounted below the store");
    // Of broken downloads, what is from today may still be made whole.
    fs::create_dir_all(store(ctx).join("partial"))?;
    let days = std::time::Duration::from_secs(24 * 3600);
    for (name, age) in [("old", 2 * days), ("young", days / 2)] {
        let file = fs::File::create(store(ctx).join("partial").join(name))?;
        file.set_modified(std::time::SystemTime::now() - age)?;
    }
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    check_eq!(kept(ctx, "layers")?.len(), 0, "layers that no image needs");
    check_eq!(kept(ctx, "partial")?, ["young"], "downloads that broke off");
    Ok(())
}

/// A second layer that names files without their directories, through a link, and links to a lower layer's file.
fn a_layer_keeps_what_lower_ones_say_of_its_directories(ctx: &Ctx) -> Result {
    let mut layout = Layout::new(ctx, "image")?;
    let make = |name: &str, script: &str| -> Result<PathBuf> {
        let root = ctx.dir.join(name);
        fs::create_dir_all(&root)?;
        let status = Command::new("sh").args(["-ec", script]).current_dir(&root).status()?;
        check!(status.success(), "{script}");
        Ok(root)
    };
    let second = make(
        "second",
        "mkdir -p deep/er real gone; chmod 2751 deep; chmod 700 deep/er; ln -s real link; echo 2 >deep/er/two; echo g >gone/file",
    )?;
    layout.layer(&second, &["deep", "real", "link", "gone"])?;
    let third = make(
        "third",
        "mkdir -p deep/er link; echo 3 >deep/er/three; echo 3 >link/through; : >.wh.gone; mkdir gone; echo n >gone/new",
    )?;
    layout.layer(&third, &["deep/er/three", "link/through", ".wh.gone", "gone/new"])?;
    let image = layout.finish(&json!({"Cmd": ["/bin/sh", "-c",
        "stat -c %a /deep /deep/er; cat /deep/er/two /deep/er/three /real/through; readlink /link; ls /gone"]}))?;
    let output = run(ctx, &[&image, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout(), "2751\n700\n2\n3\n3\nreal\nnew\n", "what the layers show together");
    Ok(())
}

/// No layer names the root, as Buildah writes them.
fn a_user_of_the_image_passes_through_its_root(ctx: &Ctx) -> Result {
    let mut layout = Layout::empty(ctx, "image")?;
    let root = ctx.dir.join("root");
    rootfs::make(&ctx.image_store(), &root)?;
    layout.layer(&root, &["bin", "etc", "probe"])?;
    layout.layer(&root, &["tmp"])?;
    let image =
        layout.finish(&json!({"Cmd": ["/bin/stat", "-c", "%a", "/", "/etc/passwd"], "User": "user"}))?;
    let output = run(ctx, &[&image, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout(), "755\n644\n", "modes");
    // One that a layer names is as it says.
    let named = ctx.dir.join("named");
    fs::create_dir(&named)?;
    fs::set_permissions(&named, fs::Permissions::from_mode(0o711))?;
    std::os::unix::fs::chown(&named, Some(3), Some(4))?;
    layout.tar(&named, "--numeric-owner")?;
    let image = layout.finish(&json!({"Cmd": ["/bin/stat", "-c", "%a %u %g", "/"], "User": "user"}))?;
    let output = run(ctx, &[&image, "--rm"])?.succeeded("run --image of a named root")?;
    check_eq!(output.stdout(), "711 3 4\n", "mode and owner of a root that is named");
    Ok(())
}

fn what_a_container_removes_comes_back_for_the_next(ctx: &Ctx) -> Result {
    let image = image(ctx, "rm -r /home /root && mkdir /root && touch /root/new && ls /root /")?;
    let first = run(ctx, &[&image, "--rm"])?.succeeded("the first run")?;
    check!(!first.stdout().contains("home"), "/home is still there: {}", first.stdout());
    let second = run(ctx, &[&image, "--rm"])?.succeeded("the second run")?;
    check_eq!(first.stdout(), second.stdout(), "the second container's view");
    Ok(())
}

fn the_whole_life_of_a_container_from_an_image(ctx: &Ctx) -> Result {
    let image = image(ctx, "sleep 100")?;
    let id = ctx.id();
    run(ctx, &[&image, "--detach", "--name", &id])?.succeeded("run --image --detach")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    let listed = call(ctx, &["list", "--quiet"])?.succeeded("list")?;
    check_eq!(listed.stdout().trim(), id, "list");
    container::until("the program runs", || {
        Ok(call(ctx, &["state", &id])?.stdout().contains("\"running\"").then_some(()))
    })?;
    let output = call(ctx, &["exec", &id, "/bin/sh", "-c", "echo $COLOUR; touch /made; exit 4"])?;
    check_eq!((output.code, output.stdout().trim()), (4, "blue"), "exec ({})", output.stderr());
    let again = run(ctx, &[&image, "--name", &id])?;
    check!(again.code != 0 && again.stderr().contains(&id), "a name taken twice: {}", again.stderr());
    call(ctx, &["kill", &id, "KILL"])?.succeeded("kill")?;
    container::until("it is stopped", || {
        Ok(call(ctx, &["state", &id])?.stdout().contains("\"stopped\"").then_some(()))
    })?;
    // Not --rm: it stays until it is deleted, and its files with it.
    check_eq!(kept(ctx, "containers")?, vec![id.clone()], "containers");
    call(ctx, &["delete", &id])?.succeeded("delete")?;
    check_eq!(kept(ctx, "containers")?.len(), 0, "containers after delete");
    Ok(())
}

fn an_image_in_use_keeps_its_layers(ctx: &Ctx) -> Result {
    let image = image(ctx, "sleep 100")?;
    for id in [ctx.id(), format!("_{}", ctx.id())] {
        run(ctx, &[&image, "-d", "--name", &id])?.succeeded("run --image")?;
        let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
        call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
        check_eq!(kept(ctx, "layers")?.len(), 1, "layers of a running container");
        let output = call(ctx, &["exec", &id, "/bin/ls", "/etc/passwd"])?;
        check_eq!(output.code, 0, "exec after rmi ({})", output.stderr());
        call(ctx, &["delete", "--force", &id])?.succeeded("delete")?;
        let left = fs::read_dir(store(ctx).join("containers"))?.count();
        check_eq!(left, 0, "directories of containers after delete");
    }
    Ok(())
}

/// Image specification, config.md, "StopSignal": `stop` sends it, and SIGKILL to who does not heed it.
fn an_image_says_how_it_is_stopped(ctx: &Ctx) -> Result {
    let out = ctx.dir.join("out");
    fs::create_dir_all(&out)?;
    let volume = format!("{}:/out", out.display());
    let (layout, id) = (Layout::new(ctx, "image")?, ctx.id());
    for (signal, trapped, heeded) in [
        ("12", "USR2", true),
        ("SIGRTMIN+3", "37", true),
        ("", "TERM", true),
        ("SIGNONSENSE", "TERM", true),
        ("SIGUSR1", "TERM", false),
    ] {
        let script = format!(
            "trap 'echo {trapped} >/out/got; exit 0' {trapped}; : >/out/ready; while :; do sleep 0.1; done"
        );
        let image = layout.finish(&json!({"Cmd": ["/bin/sh", "-c", script], "StopSignal": signal}))?;
        run(ctx, &[&image, "-d", "--rm", "--name", &id, "-v", &volume])?.succeeded("run --image")?;
        let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
        container::until("the program is ready", || Ok(out.join("ready").exists().then_some(())))?;
        let time = if heeded { "60" } else { "0" };
        let output = call(ctx, &["stop", "--time", time, &id])?.succeeded("stop")?;
        check_eq!(output.stderr().contains("SIGNONSENSE"), signal == "SIGNONSENSE", "{}", output.stderr());
        let got = fs::read_to_string(out.join("got")).unwrap_or_default();
        check_eq!(got.trim(), if heeded { trapped } else { "" }, "signal of StopSignal {signal:?}");
        // It was to go with its program.
        check_eq!(fs::read_dir(store(ctx).join("containers"))?.count(), 0, "containers after stop");
        check!(call(ctx, &["state", &id])?.code != 0, "there is still a container");
        for file in ["ready", "got"] {
            fs::remove_file(out.join(file)).ok();
        }
    }
    // One that stays: stopped it is stopped, and to stop it again is no error.
    let image = layout.finish(&json!({"Cmd": ["/probe", "exit", "0"]}))?;
    run(ctx, &[&image, "-d", "--name", &id])?.succeeded("run --image")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    for _ in 0..2 {
        call(ctx, &["stop", &id])?.succeeded("stop of one that has ended")?;
    }
    check!(call(ctx, &["state", &id])?.stdout().contains("\"stopped\""), "state");
    call(ctx, &["delete", &id])?.succeeded("delete").map(drop)
}

/// Another command may just have the container in hand: when stop or delete returns, its name is free all the same.
fn what_has_ended_leaves_its_name(ctx: &Ctx) -> Result {
    let (image, id) = (Layout::new(ctx, "image")?.finish(&json!({"Cmd": ["/bin/sleep", "100"]}))?, ctx.id());
    let kinds: [(&[&str], &[&str]); 2] =
        [(&["--rm"], &["stop", "--time", "0"]), (&[], &["delete", "--force"])];
    for (more, words) in kinds {
        run(ctx, &[&[&*image, "-d", "--name", &id], more].concat())?.succeeded("run --image")?;
        let _stopped = Container::named(ctx, id.clone(), &ctx.dir);
        let held = fs::File::open(store(ctx).join("containers").join(&id))?;
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)?;
        let mut ends = command(ctx, &[words, &[&*id]].concat()).stdin(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(300));
        let early = ends.try_wait()?;
        drop(held);
        check!(ends.wait()?.success(), "{words:?}");
        check!(early.is_none(), "{words:?} returned while the container was in another's hands");
        check_eq!(kept(ctx, "containers")?.len(), 0, "containers after {words:?}");
    }
    Ok(())
}

/// What was unpacked is not unpacked again when only the user was wrong; nor taken for whole before.
fn an_unknown_user_keeps_what_was_unpacked(ctx: &Ctx) -> Result {
    let wrong = json!({"Cmd": ["/bin/sh", "-c", "id -u; exit 3"], "User": "nobody-knows"});
    let image = Layout::new(ctx, "image")?.finish(&wrong)?;
    let bundle = ctx.dir.join("bundle");
    let unpack = |more: &[&str]| call(ctx, &[&["unpack", &image, "bundle"], more].concat());
    let refused = |output: crate::harness::Output| -> Result {
        check!(output.code != 0, "an unknown user unpacks");
        check!(
            output.stderr().contains("nobody-knows") && output.stderr().contains("--user"),
            "message: {}",
            output.stderr()
        );
        check!(!bundle.join("config.json").exists(), "there is a config.json");
        Ok(())
    };
    refused(unpack(&[])?)?;
    let kept = std::os::unix::fs::MetadataExt::ino(&fs::metadata(bundle.join("rootfs/bin"))?);
    refused(unpack(&[])?)?;
    let output = call(ctx, &["run", "--bundle", "bundle", &ctx.id()])?;
    check!(output.code != 0 && output.code != 3, "what is half-made runs");
    unpack(&["--user", "0"])?.succeeded("unpack --user")?;
    let again = std::os::unix::fs::MetadataExt::ino(&fs::metadata(bundle.join("rootfs/bin"))?);
    check_eq!(again, kept, "inode of a directory that was unpacked before");
    let output = call(ctx, &["run", "--bundle", "bundle", &ctx.id()])?;
    check_eq!((output.code, output.stdout().trim()), (3, "0"), "run ({})", output.stderr());
    let container = Container::named(ctx, ctx.id(), &bundle);
    call(ctx, &["create", "--bundle", "bundle", &container.id])?.succeeded("create")?;
    let output = call(ctx, &["rmi", "./bundle"])?;
    check!(output.code != 0 && output.stderr().contains(&container.id), "of one in use: {}", output.stderr());
    ctx.call(&["delete", "--force", &container.id])?.succeeded("delete")?;
    call(ctx, &["rmi", "./bundle"])?.succeeded("rmi of the bundle")?;
    check!(!bundle.exists(), "the bundle is still there");
    // One that somebody made by hand is theirs.
    let own = ctx.bundle()?;
    own.write()?;
    let output = call(ctx, &["rmi", &own.dir.display().to_string()])?;
    check!(output.code != 0 && own.rootfs().exists(), "of a bundle made by hand: {}", output.stderr());
    // Who gives up: rmi. Who unpacks something else there: begins anew.
    refused(unpack(&[])?)?;
    call(ctx, &["rmi", "./bundle"])?.succeeded("rmi of what is left")?;
    check!(!bundle.exists(), "what is left is still there");
    refused(unpack(&[])?)?;
    let mut other = Layout::empty(ctx, "other")?;
    other.layer(&ctx.dir.join("image-root"), &["probe"])?;
    let other = other.finish(&json!({"Cmd": ["/probe", "exit", "5"]}))?;
    call(ctx, &["unpack", &other, "bundle"])?.succeeded("unpack of another image")?;
    check!(!bundle.join("rootfs/etc").exists(), "files of the image before");
    // In the store: the layers stay, no container.
    let output = run(ctx, &[&image, "--rm"])?;
    check!(output.code != 0 && output.stderr().contains("--user"), "run: {}", output.stderr());
    check_eq!(fs::read_dir(store(ctx).join("containers"))?.count(), 0, "containers");
    check_eq!(crate::harness::image::kept(ctx, "layers")?.len(), 1, "layers");
    let output = run(ctx, &[&image, "--rm", "--user", "12:34"])?;
    check_eq!((output.code, output.stdout().trim()), (3, "12"), "run --user ({})", output.stderr());
    Ok(())
}

/// Runs, removals, stops and deaths at once, in one store: no command fails that is left alive, and nothing is left over.
fn runs_removals_and_deaths_at_once(ctx: &Ctx) -> Result {
    use std::sync::atomic::{AtomicBool, Ordering};
    let image = image(ctx, "exit 3")?;
    let (sleeper, id) =
        (Layout::new(ctx, "sleeper")?.finish(&json!({"Cmd": ["/bin/sleep", "100"]}))?, ctx.id());
    let stop = AtomicBool::new(false);
    // Not by Ctx, which counts its commands and is one thread's.
    let (runtime, root, place, dir) = (&ctx.runtime, &ctx.state_root(), &store(ctx), &ctx.dir);
    let command = |words: &[&str]| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(root).args(words).env("CORACLE_STORE", place).current_dir(dir);
        command.stdin(Stdio::null());
        command
    };
    let until = |once: &dyn Fn(u64) -> std::result::Result<(), String>| {
        let mut times = 0;
        while !stop.load(Ordering::Relaxed) {
            once(times)?;
            times += 1;
        }
        Ok::<u64, String>(times)
    };
    let gives = |words: &[&str], code: i32| {
        let output = command(words).output().map_err(|e| e.to_string())?;
        match output.status.code() {
            Some(got) if got == code => Ok(()),
            got => Err(format!("{words:?} gives {got:?}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    };
    let runs = |_| gives(&["run", "--image", &image, "--rm"], 3);
    let removes = |_| gives(&["rmi", "--all"], 0);
    let lists = |_| gives(&["images"], 0);
    let stays = |_| {
        // A file, for a pipe would stay open as long as the container.
        let told = dir.join("told");
        let file = fs::File::create(&told).map_err(|e| e.to_string())?;
        let mut run = command(&["run", "--image", &sleeper, "-d", "--rm", "--name", &id]);
        match run.stdout(Stdio::null()).stderr(file).status() {
            Ok(status) if status.success() => gives(&["stop", "--time", "0", &id], 0),
            other => Err(format!("run -d gives {other:?}: {:?}", fs::read_to_string(&told))),
        }
    };
    let dies = |times: u64| {
        let mut child = command(&["run", "--image", &image, "--rm"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        sleep(Duration::from_millis(times * 7 % 60));
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|e| e.to_string())
    };
    type Work<'a> = &'a (dyn Fn(u64) -> std::result::Result<(), String> + Sync);
    let works: [Work; 7] = [&runs, &runs, &removes, &removes, &lists, &stays, &dies];
    let results = std::thread::scope(|scope| {
        let until = &until;
        let threads = works.map(|work| scope.spawn(move || until(&|times| work(times))));
        let end = std::time::Instant::now() + Duration::from_secs(6);
        while std::time::Instant::now() < end && !threads.iter().any(|t| t.is_finished()) {
            sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        threads.map(|t| t.join().unwrap_or_else(|_| Err("a thread gave up".into())))
    });
    for result in &results {
        check!(result.as_ref().is_ok_and(|times| *times > 0), "{results:?}");
    }
    println!("{results:?}");
    // Those that were killed may have left a container that runs, or one that never began.
    for id in call(ctx, &["list", "--quiet"])?.stdout().lines() {
        call(ctx, &["delete", "--force", id])?.succeeded("delete of one whose run was killed")?;
    }
    container::until("the store is empty", || {
        call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
        let left = |name: &str| Ok::<_, std::io::Error>(fs::read_dir(store(ctx).join(name))?.count());
        let layers = if store(ctx).join("layers").exists() { left("layers")? } else { 0 };
        Ok((layers + left("containers")? + left("partial")? == 0).then_some(()))
    })
}

fn host_directories_are_bound(ctx: &Ctx) -> Result {
    let image = image(ctx, "cat /in/file; echo w >/out/file; echo w >/in/other")?;
    let (from, to) = (ctx.dir.join("in"), ctx.dir.join("out"));
    fs::create_dir_all(&from)?;
    fs::create_dir_all(&to)?;
    fs::write(from.join("file"), "hello\n")?;
    let (from, to) = (format!("{}:/in:ro", from.display()), format!("{}:/out", to.display()));
    let output = run(ctx, &[&image, "--rm", "-v", &from, "-v", &to])?;
    check!(output.code != 0, "a read-only volume was written to");
    check_eq!(output.stdout(), "hello\n", "the volume's file");
    check_eq!(fs::read_to_string(ctx.dir.join("out/file"))?, "w\n", "what the container wrote");
    let wrong = run(ctx, &[&image, "--rm", "-v", "/nowhere:/x"])?;
    check!(wrong.code != 0 && wrong.stderr().contains("/nowhere"), "message: {}", wrong.stderr());
    Ok(())
}

/// Mount points that the image lacks are made all the same; what the image calls a volume is written to.
fn volumes_under_a_readonly_root(ctx: &Ctx) -> Result {
    let mut layout = Layout::new(ctx, "image")?;
    let root = ctx.dir.join("more");
    fs::create_dir_all(root.join("data/sub"))?;
    fs::write(root.join("data/sub/seed"), "seeded\n")?;
    layout.layer(&root, &["data"])?;
    let script = "cat /mine/new/file /data/sub/seed; : >/data/sub/w && echo written; touch /x || touch /mine/new/x || echo refused";
    let image = layout.finish(&json!({"Cmd": ["/bin/sh", "-c", script], "Volumes": {"/data": {}}}))?;
    let from = ctx.dir.join("in");
    fs::create_dir_all(&from)?;
    fs::write(from.join("file"), "hello\n")?;
    let volume = format!("{}:/mine/new:ro", from.display());
    for _ in 0..2 {
        let output = run(ctx, &[&image, "--rm", "--read-only", "-v", &volume])?.succeeded("run --image")?;
        check_eq!(output.stdout(), "hello\nseeded\nwritten\nrefused\n", "output ({})", output.stderr());
        check!(output.stderr().contains("/data"), "nothing is said of the volume: {}", output.stderr());
    }
    Ok(())
}

/// Overlayfs does not take itself for its writable layer: on a store that lies on one, the container has a copy.
fn without_overlayfs_there_is_a_copy(ctx: &Ctx) -> Result {
    on_an_overlay(ctx, &["--mount"])
}

/// Runs an image, twice, with a store on an overlay that a namespace of these unshare(1) words has.
fn on_an_overlay(ctx: &Ctx, words: &[&str]) -> Result {
    let mut layout = Layout::new(ctx, "image")?;
    let root = ctx.dir.join("more");
    fs::create_dir_all(&root)?;
    fs::write(root.join(".wh.home"), "")?;
    layout.layer(&root, &[".wh.home"])?;
    let image =
        layout.finish(&json!({"Cmd": ["/bin/sh", "-c", "ls -d /home /etc/passwd; touch /made; exit 3"]}))?;
    let places = ["below", "upper", "work", "store"].map(|name| ctx.dir.join(name));
    for place in &places {
        fs::create_dir_all(place)?;
    }
    let [below, upper, work, store] = places.map(|place| place.display().to_string());
    let script = format!(
        "mount -t overlay overlay -o lowerdir={below},upperdir={upper},workdir={work},userxattr {store} || exit 9
        for i in 1 2; do \"$@\"; echo $?; done; ls {store}/containers | wc -l"
    );
    let run = command(ctx, &["run", "--image", &image, "--rm"]);
    let mut within = Command::new("unshare");
    within.args(words).args(["--propagation", "private", "sh", "-c", &script, "sh"]);
    within.arg(run.get_program()).args(run.get_args()).current_dir(&ctx.dir).stdin(Stdio::null());
    within.env("CORACLE_STORE", &store);
    let output = ctx.finish(within)?;
    check_eq!(output.stdout(), "/etc/passwd\n3\n/etc/passwd\n3\n0\n", "two runs ({})", output.stderr());
    check!(output.stderr().contains("copy of the image"), "no warning: {}", output.stderr());
    Ok(())
}

fn more_layers_than_overlayfs_joins(ctx: &Ctx) -> Result {
    let mut layout = Layout::new(ctx, "image")?;
    let root = ctx.dir.join("more");
    fs::create_dir_all(&root)?;
    for i in 0..130 {
        fs::write(root.join("last"), i.to_string())?;
        layout.layer(&root, &["last"])?;
    }
    let image = layout.finish(&json!({"Cmd": ["/bin/cat", "/last"]}))?;
    let output = run(ctx, &[&image, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout(), "129", "what the last layer says");
    check!(output.stderr().contains("131 layers"), "no warning: {}", output.stderr());
    check_eq!(kept(ctx, "containers")?.len(), 0, "containers left");
    Ok(())
}

/// What unshare(1) makes of root: an id that no other file can be given to.
fn root_of_one_id_unpacks(ctx: &Ctx) -> Result {
    let image = owned_by_others(ctx)?;
    let unpack = command(ctx, &["unpack", &image, "bundle"]);
    let mut within = Command::new("unshare");
    within.args(["--user", "--map-root-user"]).arg(unpack.get_program()).args(unpack.get_args());
    within.current_dir(&ctx.dir).stdin(Stdio::null());
    let output = ctx.finish(within)?.succeeded("unpack")?;
    check!(output.stderr().contains("belong to you alone"), "nothing is said: {}", output.stderr());
    let owner = fs::metadata(ctx.dir.join("bundle/rootfs/file"))?;
    check_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "owner");
    Ok(())
}

/// A user that /etc/subuid does not name: run, unpack, run the bundle, and remove everything again.
fn a_user_with_one_id_keeps_all_files(ctx: &Ctx) -> Result {
    let image = owned_by_others(ctx)?;
    let home = ctx.dir.join("home");
    fs::create_dir_all(&home)?;
    std::os::unix::fs::chown(&home, Some(54_321), Some(54_321))?;
    let call = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]).arg(&ctx.runtime);
        command.arg("--root").arg(home.join("state")).args(words);
        command
            .env("CORACLE_STORE", home.join("store"))
            .env("HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::null());
        ctx.finish(command)
    };
    let output = call(&["run", "--image", &image, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout().trim(), "0:0", "owner within");
    let unpacked = call(&["unpack", &image, "bundle"])?.succeeded("unpack")?;
    check!(unpacked.stderr().contains("belong to you alone"), "nothing is said: {}", unpacked.stderr());
    let owner = fs::metadata(home.join("bundle/rootfs/file"))?;
    check_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 54_321, "owner outside");
    let output = call(&["run", "--bundle", "bundle", &ctx.id()])?.succeeded("run of the bundle")?;
    check_eq!(output.stdout().trim(), "0:0", "owner within the bundle");
    call(&["rmi", "./bundle"])?.succeeded("rmi of the bundle")?;
    call(&["rmi", "--all"])?.succeeded("rmi --all")?;
    check!(!home.join("bundle").exists(), "the bundle is still there");
    for directory in ["layers", "layers-single", "containers"] {
        let left = fs::read_dir(home.join("store").join(directory))?.count();
        check_eq!(left, 0, "left in {directory}");
    }
    Ok(())
}

/// An image with a file of user 33 and group 42.
fn owned_by_others(ctx: &Ctx) -> Result<String> {
    let mut layout = Layout::new(ctx, "image")?;
    let root = ctx.dir.join("more");
    fs::create_dir_all(&root)?;
    fs::write(root.join("file"), "")?;
    layout.layer_of(&root, &["file"], (33, 42))?;
    layout.finish(&json!({"Cmd": ["/bin/stat", "-c", "%u:%g", "/file"]}))
}

fn a_terminal_when_asked_for(ctx: &Ctx) -> Result {
    let image = image(ctx, "test -t 0 && test -t 1 && echo yes $TERM || echo no")?;
    check_eq!(run(ctx, &[&image, "--rm"])?.stdout().trim(), "no", "without --tty");
    check_eq!(run(ctx, &[&image, "--rm", "-it"])?.stdout().trim(), "yes xterm", "with -it");
    Ok(())
}

/// The command and all that it started are killed after so many milliseconds; then a run must succeed and clean up.
fn killed_at_any_moment_the_next_run_succeeds(ctx: &Ctx) -> Result {
    let image = image(ctx, "echo whole; ls /bin/sh")?;
    for milliseconds in [1, 3, 6, 10, 15, 20, 30, 45, 70, 110] {
        // Its layers are unpacked anew each time.
        call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
        let id = ctx.id();
        let mut child = command(ctx, &["run", "--image", &image, "--name", &id, "--rm"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        sleep(Duration::from_millis(milliseconds));
        child.kill()?;
        child.wait()?;
        call(ctx, &["delete", "--force", &id])?.succeeded("delete --force")?;
        let output = run(ctx, &[&image, "--rm", "--name", &id])?;
        check_eq!(
            output.stdout(),
            "whole\n/bin/sh\n",
            "after a death at {milliseconds} ms ({})",
            output.stderr()
        );
        check_eq!(kept(ctx, "containers")?.len(), 0, "containers left after a death at {milliseconds} ms");
    }
    Ok(())
}

/// CVE-2026-94603, CVE-2026-57231: labels that runtimes act on, environment that names the host's.
fn an_image_cannot_steer_the_runtime(ctx: &Ctx) -> Result {
    let labels = json!({"run.oci.keep_original_groups": "1", "org.systemd.property.DeviceAllow": "x",
        "io.podman.annotations.seccomp": "unconfined", "coracle.container": "/etc", "maintainer": "me"});
    let config = json!({"Cmd": ["/bin/sh", "-c", "env"], "Env": ["HOME*", "*", "SECRET", "=x", "GOOD=1"], "Labels": labels});
    let image = Layout::new(ctx, "image")?.finish(&config)?;
    let bundle = ctx.dir.join("bundle").display().to_string();
    call(ctx, &["unpack", &image, &bundle])?.succeeded("unpack")?;
    let spec: Value = serde_json::from_slice(&fs::read(format!("{bundle}/config.json"))?)?;
    let names: Vec<&String> = spec["annotations"].as_object().into_iter().flat_map(|a| a.keys()).collect();
    let passed = |n: &&&String| !n.starts_with("org.opencontainers.image.") && n.as_str() != "maintainer";
    check!(names.iter().find(passed).is_none(), "annotations: {names:?}");
    let mut command = command(ctx, &["run", "--image", &image, "--rm"]);
    command.env("SECRET", "leaked");
    let output = ctx.finish(command)?.succeeded("run --image")?;
    check!(output.stdout().contains("GOOD=1") && !output.stdout().contains("leaked"), "{}", output.stdout());
    Ok(())
}

/// Nobody means to hide a directory from all others who mistypes the name of a store; and who only looks makes none.
fn a_directory_that_is_no_store_stays_as_it_is(ctx: &Ctx) -> Result {
    let image = Layout::new(ctx, "image")?.finish(&json!({"Cmd": ["/bin/true"]}))?;
    let srv = ctx.dir.join("srv");
    fs::create_dir(&srv)?;
    fs::write(srv.join("letter"), "")?;
    fs::set_permissions(&srv, fs::Permissions::from_mode(0o755))?;
    let refused = run(ctx, &[&*image, "--rm", "--store", "srv"])?;
    check_eq!(refused.code, 125, "run --store srv");
    check!(refused.stderr().contains("is no store of images, and letter lies in it"), "{}", refused.stderr());
    let listed = call(ctx, &["images", "--store", "srv"])?.succeeded("images")?;
    check_eq!(listed.stdout().lines().count(), 1, "lines of {}", listed.stdout());
    let names = fs::read_dir(&srv)?.count();
    check_eq!((names, fs::metadata(&srv)?.permissions().mode() & 0o777), (1, 0o755), "srv");
    call(ctx, &["images", "--store", "nowhere"])?.succeeded("images")?;
    let removed = call(ctx, &["rmi", "--store", "nowhere", "busybox"])?;
    check!(
        removed.code != 0 && removed.stderr().contains("there is no image busybox"),
        "{}",
        removed.stderr()
    );
    check!(!ctx.dir.join("nowhere").exists(), "a store was made by a look");
    // One whose making was interrupted is made to the end.
    fs::create_dir_all(ctx.dir.join("begun/images"))?;
    run(ctx, &[&*image, "--rm", "--store", "begun"])?.succeeded("run --store begun").map(drop)
}

/// CVE-2021-41103: root file systems hold set-id programs. Whatever the umask, and whatever the directory was before.
fn nobody_else_looks_into_bundles_and_stores(ctx: &Ctx) -> Result {
    let image = image(ctx, "sleep 100")?;
    let there = ctx.dir.join("there");
    fs::create_dir_all(&there)?;
    fs::set_permissions(&there, fs::Permissions::from_mode(0o777))?;
    let id = ctx.id();
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    for words in [
        vec!["unpack", &image, "made"],
        vec!["unpack", &image, "there"],
        vec!["run", "--image", &image, "-d", "--name", &id],
    ] {
        let plain = command(ctx, &words);
        let mut open = Command::new("sh");
        open.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
        open.env("CORACLE_STORE", store(ctx)).current_dir(&ctx.dir).stdin(Stdio::null());
        ctx.finish(open)?.succeeded(&format!("{words:?}"))?;
    }
    let container = format!("store/containers/{id}");
    for name in ["made", "there", "store", "store/layers", "store/images", "store/containers", &container] {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(ctx.dir.join(name))?);
        check_eq!(format!("{:o}", mode & 0o777), "700", "mode of {name}");
    }
    Ok(())
}

/// Records have the path without links: by that a container's directory was nobody's, and the next run removed it.
fn a_store_behind_a_link_keeps_what_runs(ctx: &Ctx) -> Result {
    let image = image(ctx, "sleep 100")?;
    let elsewhere = ctx.dir.join("elsewhere");
    fs::create_dir_all(&elsewhere)?;
    std::os::unix::fs::symlink(&elsewhere, store(ctx))?;
    let id = ctx.id();
    run(ctx, &[&image, "-d", "--name", &id])?.succeeded("run --image -d")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    run(ctx, &[&image, "--rm", "--", "true"])?.succeeded("run --image --rm")?;
    check_eq!(kept(ctx, "containers")?.join(" "), id, "containers");
    call(ctx, &["exec", &id, "touch", "/made"])?.succeeded("exec")?;
    call(ctx, &["delete", "--force", &id])?.succeeded("delete")?;
    check_eq!(kept(ctx, "containers")?.len(), 0, "containers after delete");
    Ok(())
}

/// A user's store may hold links to anywhere, and root would remove what is there.
fn somebody_elses_store_is_refused(ctx: &Ctx) -> Result {
    let image = image(ctx, "exit 0")?;
    let (store, others) = (store(ctx), ctx.dir.join("others"));
    for directory in [&store.join("images"), &others] {
        fs::create_dir_all(directory)?;
    }
    fs::write(store.join("images/oci-layout"), "{}")?;
    fs::write(others.join("file"), "")?;
    std::os::unix::fs::symlink(&others, store.join("containers"))?;
    std::os::unix::fs::chown(&store, Some(1000), Some(1000))?;
    for words in [&["run", "--image", &image, "--rm"][..], &["pull", &image], &["rmi", "--all"]] {
        let output = call(ctx, words)?;
        check!(output.code != 0, "{words:?} succeeded");
        check!(output.stderr().contains("belongs to user 1000"), "{words:?}: {}", output.stderr());
        check!(others.join("file").exists(), "{words:?} removed what its link led to");
    }
    check_eq!(fs::read_dir(&others)?.count(), 1, "files where the link leads");
    Ok(())
}

fn what_cannot_run_leaves_nothing(ctx: &Ctx) -> Result {
    let image = image(ctx, "exit 0")?;
    for (words, said) in [
        // First: what has been unpacked once is not unpacked again.
        (vec!["--max-size", "1K"], "--max-size"),
        (vec!["--user", "nobody-knows"], "nobody-knows"),
        (vec!["--platform", "linux/s390x"], "s390x"),
        (vec!["--", "/no/such/program"], "/no/such/program"),
    ] {
        let output = run(ctx, &[&[image.as_str(), "--rm"], &words[..]].concat())?;
        check!(output.code != 0 && output.stderr().contains(said), "{words:?}: {}", output.stderr());
        check_eq!(kept(ctx, "containers")?.len(), 0, "containers after {words:?}");
    }
    Ok(())
}

fn as_a_user_an_unpacked_image_runs_unedited(ctx: &Ctx) -> Result {
    an_unpacked_image_runs_unedited(ctx)?;
    // A bundle's files may be of subordinate ids, which the user alone cannot remove.
    let bundle = ctx.dir.join("bundle");
    call(ctx, &["rmi", &bundle.display().to_string()])?.succeeded("rmi of a bundle")?;
    check!(!bundle.exists(), "the bundle is still there");
    Ok(())
}

fn as_a_user_runc_runs_an_unpacked_image_unedited(ctx: &Ctx) -> Result {
    runc_runs_an_unpacked_image_unedited(ctx)
}

fn as_a_user_crun_runs_an_unpacked_image_unedited(ctx: &Ctx) -> Result {
    crun_runs_an_unpacked_image_unedited(ctx)
}

fn as_a_user_one_step_from_image_to_exit_status(ctx: &Ctx) -> Result {
    one_step_from_image_to_exit_status(ctx)?;
    let image = ctx.dir.join("image").display().to_string();
    let output =
        run(ctx, &[&image, "--rm", "--", "/bin/sh", "-c", "id -u; chown 7:9 /tmp; stat -c %u:%g /tmp /etc"])?;
    check_eq!(output.stdout(), "0\n7:9\n0:0\n", "ids ({})", output.stderr());
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    check_eq!(kept(ctx, "layers")?.len(), 0, "layers after rmi");
    Ok(())
}

fn as_a_user_a_layer_keeps_what_lower_ones_say_of_its_directories(ctx: &Ctx) -> Result {
    a_layer_keeps_what_lower_ones_say_of_its_directories(ctx)
}

fn as_a_user_the_whole_life_of_a_container_from_an_image(ctx: &Ctx) -> Result {
    the_whole_life_of_a_container_from_an_image(ctx)
}

fn as_a_user_killed_at_any_moment_the_next_run_succeeds(ctx: &Ctx) -> Result {
    killed_at_any_moment_the_next_run_succeeds(ctx)
}

fn as_a_user_host_directories_are_bound(ctx: &Ctx) -> Result {
    host_directories_are_bound(ctx)
}

fn as_a_user_an_image_says_how_it_is_stopped(ctx: &Ctx) -> Result {
    an_image_says_how_it_is_stopped(ctx)
}

fn as_a_user_an_unknown_user_keeps_what_was_unpacked(ctx: &Ctx) -> Result {
    an_unknown_user_keeps_what_was_unpacked(ctx)
}

fn as_a_user_runs_removals_and_deaths_at_once(ctx: &Ctx) -> Result {
    runs_removals_and_deaths_at_once(ctx)
}

fn as_a_user_volumes_under_a_readonly_root(ctx: &Ctx) -> Result {
    volumes_under_a_readonly_root(ctx)
}

fn as_a_user_a_terminal_when_asked_for(ctx: &Ctx) -> Result {
    a_terminal_when_asked_for(ctx)
}

fn as_a_user_an_image_cannot_steer_the_runtime(ctx: &Ctx) -> Result {
    an_image_cannot_steer_the_runtime(ctx)
}

fn as_a_user_owners_are_the_images(ctx: &Ctx) -> Result {
    let output = run(ctx, &[&owned_by_others(ctx)?, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout().trim(), "33:42", "owner within");
    Ok(())
}

fn as_a_user_without_overlayfs_there_is_a_copy(ctx: &Ctx) -> Result {
    on_an_overlay(ctx, &["--user", "--map-root-user", "--mount"])
}

fn as_a_user_pasta_connects(ctx: &Ctx) -> Result {
    pasta_connects(ctx)
}

/// There is a second interface with an address, a way to resolve names, and no pasta afterwards.
fn pasta_connects(ctx: &Ctx) -> Result {
    let image = image(ctx, "cat /etc/resolv.conf; ip -o address show | grep -v ' lo '")?;
    let output = run(ctx, &[&image, "--rm", "--net", "pasta"])?.succeeded("run --net pasta")?;
    check!(output.stdout().contains("nameserver 169.254.1.1"), "resolv.conf: {}", output.stdout());
    check!(output.stdout().contains("inet "), "no address: {}", output.stdout());
    container::until("pasta has ended", || {
        let own = store(ctx).display().to_string();
        let of_ours =
            |e: fs::DirEntry| fs::read_to_string(e.path().join("cmdline")).unwrap_or_default().contains(&own);
        Ok((!fs::read_dir("/proc")?.flatten().any(of_ours)).then_some(()))
    })
}

/// What people type who come from podman and docker.
fn words_as_with_engines(ctx: &Ctx) -> Result {
    let image = Layout::new(ctx, "image")?
        .finish(&json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["exit 9"], "Env": ["COLOUR=blue"]}))?;
    let file = ctx.dir.join("lines");
    fs::write(&file, "# none\n\nCOLOUR=red\nSHAPE=a b=c\n")?;
    let file = file.display().to_string();
    let masks = "grep -e CapBnd /proc/self/status | cut -f2";
    let cases: &[(&[&str], i32, &str)] = &[
        // Without --, and options behind the first word are the program's.
        (&["echo with $0 $1", "-n", "--rm"], 0, "with -n --rm\n"),
        (&["--entrypoint", "", "/bin/echo", "plain"], 0, "plain\n"),
        (&["--entrypoint", r#"["/bin/echo", "a b"]"#, "c"], 0, "a b c\n"),
        (&["--env-file", &file, "echo $COLOUR $SHAPE"], 0, "red a b=c\n"),
        (&["--env-file", &file, "-e", "COLOUR=green", "echo $COLOUR"], 0, "green\n"),
        (&["--network", "none", "echo alone"], 0, "alone\n"),
        (
            &["--tmpfs", "/made/new:size=64k,mode=750", "stat -c %a /made/new; stat -f -c %T /made/new"],
            0,
            "750\ntmpfs\n",
        ),
        (&["--cap-drop", "all", "--cap-add", "chown,CAP_KILL", masks], 0, "0000000000000021\n"),
        (&["--cap-drop", "mknod", masks], 0, "00000000a00425fb\n"),
        (&["exit 3"], 3, ""),
        (&["--entrypoint", "nosuch"], 127, ""),
        (&["--entrypoint", "/etc/passwd"], 126, ""),
        (&["--user", "nosuch"], 125, ""),
        (&["--net", "host", "-p", "80:80"], 125, ""),
        (&["--volume", "named:/x"], 125, ""),
    ];
    for (words, code, said) in cases {
        let output = run(ctx, &[&[image.as_str(), "--rm"], *words].concat())?;
        check_eq!((output.code, output.stdout().as_str()), (*code, *said), "{words:?} ({})", output.stderr());
    }
    for (words, why) in [
        (["--hostname", "a\nb"], "host name"),
        (["-e", "=x"], "names no variable"),
        (["-p", "80"], "port of the host"),
        (["--cap-add", "NONSENSE"], "no such capability"),
    ] {
        let output = run(ctx, &[&[image.as_str(), "--rm"], &words[..]].concat())?;
        check!(output.code != 0 && output.stderr().contains(why), "{words:?}: {}", output.stderr());
    }
    Ok(())
}

fn as_a_user_words_as_with_engines(ctx: &Ctx) -> Result {
    words_as_with_engines(ctx)
}

/// `id=$(coracle run --image … -d)` comes back at once: the program has none of its caller's pipes.
fn a_detached_container_lets_go_of_its_caller(ctx: &Ctx) -> Result {
    let image = image(ctx, "echo said; echo wrong >&2; sleep 1000")?;
    let id = ctx.id();
    // Read to the end: whoever still has the pipe would keep this waiting.
    let output = run(ctx, &[&image, "-d", "--name", &id])?.succeeded("run --image -d")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    check_eq!(
        (output.stdout().as_str(), output.stderr().as_str()),
        (format!("{id}\n").as_str(), ""),
        "output"
    );
    let file = store(ctx).join("containers").join(&id).join("output");
    container::until("its own output is kept", || {
        Ok((fs::read_to_string(&file).unwrap_or_default() == "said\nwrong\n").then_some(()))
    })?;
    let mode = fs::metadata(&file)?.permissions().mode();
    check_eq!(mode & 0o777, 0o600, "mode of the file");
    call(ctx, &["delete", "--force", &id])?.succeeded("delete")?;
    check_eq!(fs::read_dir(store(ctx).join("containers"))?.count(), 0, "containers left");
    Ok(())
}

fn as_a_user_a_detached_container_lets_go_of_its_caller(ctx: &Ctx) -> Result {
    a_detached_container_lets_go_of_its_caller(ctx)
}

/// layer.md, "Whiteouts": a layer links to a lower layer's files and takes those away, in either order of tree and flat.
fn a_link_outlives_its_hidden_target(ctx: &Ctx) -> Result {
    let mut layout = Layout::new(ctx, "image")?;
    let below = ctx.dir.join("below");
    fs::create_dir_all(below.join("tree/deep"))?;
    for name in ["one", "tree/two", "tree/deep/three", "stays"] {
        fs::write(below.join(name), format!("{name}\n"))?;
    }
    layout.layer(&below, &["one", "tree", "stays"])?;
    for (link, target) in [("l1", "one"), ("l2", "tree/two"), ("l3", "tree/deep/three"), ("l4", "stays")] {
        fs::hard_link(below.join(target), below.join(link))?;
    }
    for name in [".wh.one", ".wh.tree"] {
        fs::write(below.join(name), "")?;
    }
    // Of the two names of a file tar makes the second a link; the first is left out.
    let script =
        "tar --no-recursion -cf all.tar one tree/two tree/deep/three stays l1 l2 l3 l4 .wh.one .wh.tree
        tar --delete -f all.tar one tree/two tree/deep/three stays";
    let status = Command::new("sh").args(["-ec", script]).current_dir(&below).status()?;
    check!(status.success(), "tar: {status}");
    layout.archive(&below.join("all.tar"))?;
    let image = layout.finish(
        &json!({"Cmd": ["/bin/sh", "-c", "cat /l1 /l2 /l3 /l4; ls -d /one /stays; find /tree -type f"]}),
    )?;
    let output = run(ctx, &[&image, "--rm"])?;
    check_eq!(
        output.stdout(),
        "one\ntree/two\ntree/deep/three\nstays\n/stays\n",
        "joined ({})",
        output.stderr()
    );
    call(ctx, &["unpack", &image, "bundle"])?.succeeded("unpack")?;
    let root = ctx.dir.join("bundle/rootfs");
    let there = ["l3", "one", "tree", "stays"].map(|name| root.join(name).exists());
    check_eq!(there, [true, false, false, true], "what is in the flat tree");
    Ok(())
}

fn as_a_user_pasta_publishes(ctx: &Ctx) -> Result {
    pasta_publishes(ctx)
}

/// A port of the host's loopback leads to one of the container's, and is closed with it.
fn pasta_publishes(ctx: &Ctx) -> Result {
    use std::io::Read;
    let image = image(ctx, "while :; do echo from within | nc -l -p 80; done")?;
    let id = ctx.id();
    // Free a moment ago: a test beside this one may have taken it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let ports = format!("127.0.0.1:{port}:80");
    run(ctx, &[&image, "-d", "--rm", "--name", &id, "-p", &ports])?.succeeded("run --image -p")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    container::until("the port answers", || {
        let mut text = String::new();
        let answer = std::net::TcpStream::connect(("127.0.0.1", port)).and_then(|mut s| {
            s.set_read_timeout(Some(Duration::from_secs(1)))?;
            s.read_to_string(&mut text)
        });
        Ok((answer.is_ok() && text == "from within\n").then_some(()))
    })?;
    call(ctx, &["stop", "--time", "0", &id])?.succeeded("stop")?;
    container::until("the port is closed", || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()))
    })
}
