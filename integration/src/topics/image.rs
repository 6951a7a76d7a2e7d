//! From an image to a running container: unpack, pull, run --image, images, rmi. Promises of Coracle alone: no other
//! low-level runtime reads images.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Ctx, Layout, Need, Output, Result, check, check_eq, container, tests};

const OURS: Need = Need::Runtime("coracle");
const REGISTRY: &str = "/usr/bin/docker-registry";
const SKOPEO: &str = "/usr/bin/skopeo";

tests! {
    an_unpacked_image_runs_unedited [OURS];
    one_step_from_image_to_exit_status [OURS];
    layers_are_kept_once_and_nothing_stays_mounted [OURS];
    a_layer_keeps_what_lower_ones_say_of_its_directories [OURS];
    what_a_container_removes_comes_back_for_the_next [OURS];
    the_whole_life_of_a_container_from_an_image [OURS];
    an_image_in_use_keeps_its_layers [OURS];
    host_directories_are_bound [OURS];
    a_terminal_when_asked_for [OURS];
    killed_at_any_moment_the_next_run_succeeds [OURS];
    an_image_cannot_steer_the_runtime [OURS];
    what_cannot_run_leaves_nothing [OURS];
    a_registry_and_back [OURS, Need::File(REGISTRY), Need::File(SKOPEO)];
    as_a_user_an_unpacked_image_runs_unedited [OURS, Need::Unprivileged];
    as_a_user_one_step_from_image_to_exit_status [OURS, Need::Unprivileged];
    as_a_user_a_layer_keeps_what_lower_ones_say_of_its_directories [OURS, Need::Unprivileged];
    as_a_user_the_whole_life_of_a_container_from_an_image [OURS, Need::Unprivileged];
    as_a_user_killed_at_any_moment_the_next_run_succeeds [OURS, Need::Unprivileged];
    as_a_user_pasta_connects [OURS, Need::Unprivileged, Need::File("/usr/bin/pasta"), Need::Writable("/dev/net/tun")];
    pasta_connects [OURS, Need::File("/usr/bin/pasta"), Need::File("/dev/net/tun")];
}

/// The tests' root file system as an image that runs this script.
fn image(ctx: &Ctx, script: &str) -> Result<String> {
    Layout::new(ctx, "image")?.finish(&json!({"Cmd": ["/bin/sh", "-c", script], "Env": ["COLOUR=blue"]}))
}

fn store(ctx: &Ctx) -> PathBuf {
    ctx.dir.join("store")
}

/// The runtime with a store of this test's own.
fn command(ctx: &Ctx, words: &[&str]) -> Command {
    let mut command = ctx.command(words);
    command.env("CORACLE_STORE", store(ctx));
    command
}

fn call(ctx: &Ctx, words: &[&str]) -> Result<Output> {
    ctx.finish(command(ctx, words))
}

fn run(ctx: &Ctx, words: &[&str]) -> Result<Output> {
    call(ctx, &[&["run", "--image"], words].concat())
}

/// The names below a directory of the store, but those that begin with a dot.
fn kept(ctx: &Ctx, directory: &str) -> Result<Vec<String>> {
    let list = fs::read_dir(store(ctx).join(directory))?.flatten();
    let names = list.map(|e| e.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|n| !n.starts_with('.')).collect())
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
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    check_eq!(kept(ctx, "layers")?.len(), 0, "layers that no image needs");
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
    let id = ctx.id();
    run(ctx, &[&image, "-d", "--name", &id])?.succeeded("run --image")?;
    let _stopped = container::Container::named(ctx, id.clone(), &ctx.dir);
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    check_eq!(kept(ctx, "layers")?.len(), 1, "layers of a running container");
    let output = call(ctx, &["exec", &id, "/bin/ls", "/etc/passwd"])?;
    check_eq!(output.code, 0, "exec after rmi ({})", output.stderr());
    Ok(())
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

/// A registry of Debian's on loopback, ended by dropping.
struct Registry(Child, u16);

impl Registry {
    fn start(ctx: &Ctx) -> Result<Registry> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = ctx.dir.join("registry.yml");
        let root = ctx.dir.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
                root.display()
            ),
        )?;
        let child = Command::new(REGISTRY)
            .args(["serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Registry(child, port);
        container::until("the registry answers", || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_registry_and_back(ctx: &Ctx) -> Result {
    let image = image(ctx, "echo pulled")?;
    let registry = Registry::start(ctx)?;
    let name = format!("127.0.0.1:{}/test/image:one", registry.1);
    let skopeo = |words: &[&str]| -> Result {
        let output = Command::new(SKOPEO).arg("--insecure-policy").args(words).output()?;
        check!(output.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("oci:{image}:latest"),
        &format!("docker://{name}"),
    ])?;
    let pulled = call(ctx, &["pull", &name])?.succeeded("pull")?;
    check!(pulled.stdout().starts_with("sha256:"), "pull printed {}", pulled.stdout());
    let events = call(ctx, &["pull", "--json", &name])?.succeeded("pull --json")?;
    let events: Vec<Value> =
        events.stdout().lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    check!(events.iter().any(|e| e["event"] == "download"), "no download among {events:?}");
    let last = events.last().map(|e| (e["event"].clone(), e["digest"].clone()));
    check_eq!(last, Some((json!("done"), json!(pulled.stdout().trim()))), "the last event");
    let listed: Value = serde_json::from_str(&call(ctx, &["images", "--format", "json"])?.stdout())?;
    check_eq!(listed[0]["name"], json!(name), "images");
    // Without the registry: from the store. And the store is a layout that other tools read.
    drop(registry);
    let output = run(ctx, &[&name, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout().trim(), "pulled", "output");
    let copy = ctx.dir.join("copy");
    skopeo(&[
        "copy",
        &format!("oci:{}:{name}", store(ctx).join("images").display()),
        &format!("dir:{}", copy.display()),
    ])?;
    call(ctx, &["rmi", &name])?.succeeded("rmi")?;
    check_eq!(fs::read_dir(store(ctx).join("images/blobs/sha256"))?.count(), 0, "blobs after rmi");
    check_eq!(kept(ctx, "layers")?.len(), 0, "layers after rmi");
    let output = run(ctx, &[&name, "--rm", "--pull", "never"])?;
    check!(output.code != 0 && output.stderr().contains("not in the store"), "message: {}", output.stderr());
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
