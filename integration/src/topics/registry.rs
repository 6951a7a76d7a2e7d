//! Registries, as Debian's docker-registry plays one on loopback: pull, and what it leaves in the store. Hostile ones are
//! crates/image/tests/registry.rs and tls.rs.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Ctx, Layout, Need, Result, check, check_eq, container,
    image::{call, command, kept, run, store},
    tests,
    trace::{self, Role},
};

const OURS: Need = Need::Runtime("coracle");
const SERVER: Need = Need::File(REGISTRY);
const CLIENT: Need = Need::File(SKOPEO);
const REGISTRY: &str = "/usr/bin/docker-registry";
const SKOPEO: &str = "/usr/bin/skopeo";
const OPENSSL: &str = "/usr/bin/openssl";
/// Points of an interrupted pull.
const POINTS: usize = 40;

tests! {
    a_registry_and_back [OURS, SERVER, CLIENT];
    a_certificate_and_a_password_of_its_own [OURS, SERVER, CLIENT, Need::File(OPENSSL)];
    files_say_where_images_are [OURS, SERVER, CLIENT];
    a_bar_on_a_terminal_and_lines_of_json_otherwise [OURS, SERVER, CLIENT, Need::File("/usr/bin/script")];
    pulls_and_removals_at_once [OURS, SERVER, CLIENT];
    broken_downloads_are_taken_up_again [OURS, SERVER, CLIENT];
    a_pull_killed_at_any_syscall_is_made_up_for [OURS, SERVER, CLIENT];
    as_a_user_a_registry_and_back [OURS, Need::Unprivileged, SERVER, CLIENT];
    as_a_user_a_certificate_and_a_password_of_its_own [OURS, Need::Unprivileged, SERVER, CLIENT, Need::File(OPENSSL)];
}

/// The tests' root file system as an image that runs this script.
fn image(ctx: &Ctx, name: &str, script: &str) -> Result<String> {
    Layout::new(ctx, name)?.finish(&json!({"Cmd": ["/bin/sh", "-c", script]}))
}

/// A registry of Debian's on loopback, ended by dropping.
struct Registry(Child, u16);

impl Registry {
    /// Plain and open to all.
    fn start(ctx: &Ctx) -> Result<Registry> {
        Registry::with(ctx, "", "")
    }

    /// `http` and `more` are YAML for its configuration.
    fn with(ctx: &Ctx, http: &str, more: &str) -> Result<Registry> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = ctx.dir.join("registry.yml");
        let root = ctx.dir.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"{http}}}\n{more}",
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

    fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.1)
    }

    /// Puts an image there.
    fn push(&self, image: &str, name: &str) -> Result {
        skopeo(&[
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{image}:latest"),
            &format!("docker://{name}"),
        ])
    }
}

fn skopeo(words: &[&str]) -> Result {
    let output = Command::new(SKOPEO).arg("--insecure-policy").args(words).output()?;
    check!(output.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_registry_and_back(ctx: &Ctx) -> Result {
    let image = image(ctx, "image", "echo pulled")?;
    let registry = Registry::start(ctx)?;
    let name = registry.name("test/image:one");
    registry.push(&image, &name)?;
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
    // Whoever has only its name sees it, alone, and can unpack it.
    let listed = call(ctx, &["inspect", &name])?.succeeded("inspect")?.stdout();
    let listed: Value = serde_json::from_str(&listed)?;
    check_eq!(listed["images"].as_array().map(Vec::len), Some(1), "images listed: {listed}");
    check_eq!(listed["image"]["name"], json!(name), "inspect");
    call(ctx, &["unpack", &name, "unpacked"])?.succeeded("unpack by name")?;
    let output = call(ctx, &["run", "--bundle", "unpacked", &ctx.id()])?;
    check_eq!(output.stdout().trim(), "pulled", "output of the bundle");
    let none = call(ctx, &["inspect", "no/such:image"])?;
    check!(none.code != 0 && none.stderr().contains("coracle pull"), "message: {}", none.stderr());
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

/// containers-registries.conf(5), containers-registries.conf.d(5): mirrors and other places; of the files for one prefix the
/// last counts.
fn files_say_where_images_are(ctx: &Ctx) -> Result {
    let image = image(ctx, "image", "echo pulled")?;
    let registry = Registry::start(ctx)?;
    registry.push(&image, &registry.name("kept/app:1"))?;
    let place = registry.name("kept");
    let config = ctx.dir.join("config/containers");
    let more = config.join("registries.conf.d");
    fs::create_dir_all(&more)?;
    let entry = |name: &str, member: &str| format!("[[registry]]\nprefix = \"{name}\"\n{member}\n");
    let mirror = format!("[[registry.mirror]]\nlocation = \"{place}\"");
    fs::write(config.join("registries.conf"), entry("mirrored.invalid", &mirror))?;
    fs::write(more.join("10.conf"), entry("moved.invalid/team", "location = \"127.0.0.1:1/nowhere\""))?;
    fs::write(more.join("20.conf"), entry("moved.invalid/team", &format!("location = \"{place}\"")))?;
    fs::write(more.join("30.txt"), entry("moved.invalid/team", "blocked = true"))?;
    let pull = |name: &str| {
        let mut command = command(ctx, &["pull", name]);
        command.env("XDG_CONFIG_HOME", ctx.dir.join("config")).env_remove("CONTAINERS_REGISTRIES_CONF");
        ctx.finish(command)
    };
    let names = ["mirrored.invalid/app:1", "moved.invalid/team/app:1"];
    for name in names {
        pull(name)?.succeeded(&format!("pull {name}"))?;
    }
    let output = run(ctx, &[names[1], "--rm", "--pull", "never"])?;
    check_eq!(output.stdout().trim(), "pulled", "output ({})", output.stderr());
    for (text, said) in [
        (entry("moved.invalid", "blocked = true"), "pulled"),
        (entry(&names[1][..18], "blocked = true"), "blocked"),
        ("[[registry]".into(), "30.conf"),
    ] {
        fs::write(more.join("30.conf"), text)?;
        let output = pull(names[1])?;
        let refused = output.code != 0 && output.stderr().contains(said);
        // The longer prefix counts: what is blocked above it is not blocked here.
        check!(if said == "pulled" { output.code == 0 } else { refused }, "{said}: {}", output.stderr());
    }
    Ok(())
}

/// A certificate authority in the user's own certs.d, a password in a file as `skopeo login` writes it.
fn a_certificate_and_a_password_of_its_own(ctx: &Ctx) -> Result {
    let image = image(ctx, "image", "echo pulled")?;
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        echo subjectAltName=DNS:localhost >names
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
        # The user me, with the password secret, by bcrypt.
        echo 'me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a' >htpasswd";
    let made = Command::new("sh").args(["-ec", script]).current_dir(&ctx.dir).output()?;
    check!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let at = |name: &str| ctx.dir.join(name).display().to_string();
    let tls = format!(", tls: {{certificate: {}, key: {}}}", at("server.crt"), at("server.key"));
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("htpasswd"));
    let registry = Registry::with(ctx, &tls, &auth)?;
    let host = format!("localhost:{}", registry.1);
    let name = format!("{host}/test/image:one");
    let authfile = at("auth.json");
    // A key beside it would be taken for a client's.
    fs::create_dir_all(ctx.dir.join("certs"))?;
    fs::copy(ctx.dir.join("ca.crt"), ctx.dir.join("certs/ca.crt"))?;
    let (cert_dir, auth) = (format!("--cert-dir={}", at("certs")), format!("--authfile={authfile}"));
    skopeo(&["login", &cert_dir, &auth, "--username", "me", "--password", "secret", &host])?;
    skopeo(&[
        "copy",
        &format!("--dest-{}", &cert_dir[2..]),
        &auth,
        &format!("oci:{image}:latest"),
        &format!("docker://{name}"),
    ])?;
    let home = ctx.dir.join("home");
    fs::create_dir_all(&home)?;
    let pull = |words: &[&str]| {
        let mut command = command(ctx, &[&["pull", &name], words].concat());
        command.env("HOME", &home).env_remove("XDG_CONFIG_HOME");
        ctx.finish(command)
    };
    let refused = |words: &[&str], said: &str| -> Result {
        let output = pull(words)?;
        check!(output.code != 0 && output.stderr().contains(said), "{words:?}: {}", output.stderr());
        check!(!output.stderr().contains("secret"), "a password in a message: {}", output.stderr());
        check_eq!(call(ctx, &["images", "--quiet"])?.stdout(), "", "images");
        Ok(())
    };
    refused(&["--creds", "me:secret"], "certs.d")?;
    refused(&["--cert-dir", "/nowhere"], "--cert-dir")?;
    let certs = home.join(".config/containers/certs.d").join(&host);
    fs::create_dir_all(&certs)?;
    fs::copy(ctx.dir.join("ca.crt"), certs.join("ca.crt"))?;
    refused(&[], "log in")?;
    refused(&["--creds", "me:wrong"], "401")?;
    pull(&["--creds", "me:secret"])?.succeeded("pull --creds")?;
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    pull(&["--authfile", &authfile])?.succeeded("pull --authfile")?;
    fs::remove_dir_all(&certs)?;
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    pull(&["--authfile", &authfile, "--tls-verify=false"])?.succeeded("pull --tls-verify=false")?;
    let output = run(ctx, &[&name, "--rm"])?.succeeded("run --image")?;
    check_eq!(output.stdout().trim(), "pulled", "output");
    Ok(())
}

fn a_bar_on_a_terminal_and_lines_of_json_otherwise(ctx: &Ctx) -> Result {
    let image = image(ctx, "image", "true")?;
    let registry = Registry::start(ctx)?;
    let name = registry.name("test/image:one");
    registry.push(&image, &name)?;
    let pull = command(ctx, &["pull", &name]);
    let words: Vec<String> = std::iter::once(pull.get_program())
        .chain(pull.get_args())
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let mut on_terminal = Command::new("script");
    on_terminal.args(["--quiet", "--return", "--flush", "--command", &words.join(" "), "/dev/null"]);
    on_terminal.current_dir(&ctx.dir).stdin(Stdio::null()).env("CORACLE_STORE", store(ctx));
    let shown = ctx.finish(on_terminal)?.succeeded("pull on a terminal")?.stdout();
    check!(shown.contains("[##########") && shown.contains("2 of 2 blobs"), "no bar: {shown:?}");
    check!(
        shown.trim_end().rsplit(['\r', '\n', 'K']).next().is_some_and(|l| l.starts_with("sha256:")),
        "{shown:?}"
    );
    // Not on a terminal: the digest alone; or, where asked for, events that add up.
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    let output = call(ctx, &["pull", &name])?.succeeded("pull")?;
    check_eq!(
        (output.stdout().lines().count(), output.stderr()),
        (1, String::new()),
        "lines of a plain pull"
    );
    call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
    let output = call(ctx, &["pull", "--json", &name])?.succeeded("pull --json")?;
    let events: Vec<Value> =
        output.stdout().lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let whole = |e: &&Value| e["event"] == "download" && e["done"] == e["of"] && e["done"].as_u64() > Some(0);
    let mut blobs: Vec<&str> = events.iter().filter(whole).filter_map(|e| e["digest"].as_str()).collect();
    blobs.sort_unstable();
    blobs.dedup();
    check_eq!(blobs.len(), 2, "blobs that arrived whole, among {events:?}");
    Ok(())
}

/// Every file among the blobs is what its name says.
fn blobs_are_whole(store: &Path) -> Result<usize> {
    let blobs = store.join("images/blobs/sha256");
    let script = "ls | sed 's/.*/&  &/' | sha256sum --check --quiet -";
    let empty = fs::read_dir(&blobs)?.next().is_none();
    let output = Command::new("sh").args(["-c", script]).current_dir(&blobs).output()?;
    check!(empty || output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(fs::read_dir(&blobs)?.count())
}

/// Two images that share a layer are pulled and removed over and over, all at once: no command fails, nothing is half-made.
fn pulls_and_removals_at_once(ctx: &Ctx) -> Result {
    let registry = Registry::start(ctx)?;
    let names = [registry.name("test/a:1"), registry.name("test/b:1")];
    for (name, dir) in names.iter().zip(["a", "b"]) {
        registry.push(&image(ctx, dir, &format!("echo {dir}"))?, name)?;
    }
    let stop = AtomicBool::new(false);
    // Not by Ctx, which counts its commands and is one thread's.
    let (runtime, root, place) = (&ctx.runtime, &ctx.state_root(), &store(ctx));
    let again = |words: &[&str]| -> std::result::Result<usize, String> {
        let mut times = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut command = Command::new(runtime);
            command.arg("--root").arg(root).args(words).env("CORACLE_STORE", place);
            let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
            if !output.status.success() {
                return Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)));
            }
            times += 1;
        }
        Ok(times)
    };
    let [a, b] = &names;
    let results = std::thread::scope(|scope| {
        let works: [Vec<&str>; 6] = [
            vec!["pull", a],
            vec!["pull", b],
            vec!["pull", a],
            vec!["rmi", "--all"],
            vec!["images"],
            vec!["rmi", "--all"],
        ];
        let again = &again;
        let threads = works.map(|words| scope.spawn(move || again(&words)));
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end && !threads.iter().any(|t| t.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        threads.map(|t| t.join().unwrap_or_else(|_| Err("a thread gave up".into())))
    });
    for result in results {
        check!(result.as_ref().is_ok_and(|times| *times > 0), "{result:?}");
    }
    blobs_are_whole(&store(ctx))?;
    for (name, word) in names.iter().zip(["a", "b"]) {
        call(ctx, &["pull", name])?.succeeded("the last pull")?;
        check_eq!(run(ctx, &[name, "--rm", "--pull", "never"])?.stdout().trim(), word, "output");
    }
    call(ctx, &["rmi", "--all"])?.succeeded("the last rmi")?;
    check_eq!(blobs_are_whole(&store(ctx))?, 0, "blobs after all");
    check_eq!(fs::read_dir(store(ctx).join("partial"))?.count(), 0, "partial downloads after all");
    Ok(())
}

/// Ended before one of its syscalls, at many: what is among the blobs is whole, the next pull succeeds, and `rmi` leaves nothing.
fn a_pull_killed_at_any_syscall_is_made_up_for(ctx: &Ctx) -> Result {
    let registry = Registry::start(ctx)?;
    let name = registry.name("test/image:1");
    registry.push(&image(ctx, "image", "echo pulled")?, &name)?;
    let store = store(ctx);
    let at = store.display().to_string();
    let pull = ctx.command(&["pull", "--store", &at, &name]);
    let errors = ctx.dir.join("traced");
    let total = trace::run(&pull, &errors, None, None)?.counts[Role::Parent as usize];
    check!(total > 200, "only {total} syscalls: {}", fs::read_to_string(&errors)?);
    for point in trace::points(total, POINTS) {
        call(ctx, &["rmi", "--all"])?.succeeded("rmi")?;
        let left = fs::read_dir(store.join("partial"))?.count() + blobs_are_whole(&store)?;
        check_eq!(left, 0, "files left by a pull that was killed, after the next and rmi");
        let trace = trace::run(&pull, &errors, None, Some((Role::Parent, point)))?;
        check!(trace.hung.is_none(), "hangs: {:?}", trace.hung);
        blobs_are_whole(&store).map_err(|e| format!("after a death at {point} ({:?}): {e}", trace.killed))?;
        let listed = call(ctx, &["images", "--quiet"])?.succeeded("images")?;
        check!(["", name.as_str()].contains(&listed.stdout().trim()), "images: {}", listed.stdout());
        call(ctx, &["pull", &name])?.succeeded(&format!("the pull after a death at {point}"))?;
    }
    check_eq!(run(ctx, &[&name, "--rm", "--pull", "never"])?.stdout().trim(), "pulled", "output");
    Ok(())
}

/// A proxy before a server on this machine that ends each connection after so many bytes of answers; it counts them all.
struct Cutting {
    port: u16,
    most: std::sync::Arc<AtomicUsize>,
    passed: std::sync::Arc<AtomicUsize>,
}

impl Cutting {
    /// Its threads end with the test's process.
    fn start(to: u16, most: usize) -> Result<Cutting> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let most = std::sync::Arc::new(AtomicUsize::new(most));
        let passed = std::sync::Arc::new(AtomicUsize::new(0));
        let cutting = Cutting { port, most: most.clone(), passed: passed.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (most, passed) = (most.load(Ordering::Relaxed), passed.clone());
                std::thread::spawn(move || Cutting::pass(client, to, most, &passed));
            }
        });
        Ok(cutting)
    }

    fn pass(mut client: TcpStream, to: u16, mut left: usize, passed: &AtomicUsize) -> std::io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", to))?;
        let (mut asked, mut asking) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || std::io::copy(&mut asked, &mut asking));
        let mut buffer = [0; 4096];
        while left > 0 {
            let n = server.read(&mut buffer)?.min(left);
            if n == 0 {
                break;
            }
            client.write_all(&buffer[..n])?;
            passed.fetch_add(n, Ordering::Relaxed);
            left -= n;
        }
        let _ = server.shutdown(std::net::Shutdown::Both);
        client.shutdown(std::net::Shutdown::Both)
    }
}

/// No byte of a layer comes twice: within one pull, and in the next after one that gave up or was killed.
fn broken_downloads_are_taken_up_again(ctx: &Ctx) -> Result {
    const LAYER: usize = 6 << 20;
    let mut layout = Layout::new(ctx, "image")?;
    let more = ctx.dir.join("more");
    fs::create_dir_all(&more)?;
    let mut noise = vec![0; LAYER];
    fs::File::open("/dev/urandom")?.read_exact(&mut noise)?;
    fs::write(more.join("noise"), &noise)?;
    layout.layer(&more, &["noise"])?;
    let image = layout.finish(&json!({"Cmd": ["/bin/sh", "-c", "sha256sum </noise"]}))?;
    let registry = Registry::start(ctx)?;
    registry.push(&image, &registry.name("test/image:1"))?;
    let whole: usize = fs::read_dir(ctx.dir.join("image/blobs/sha256"))?
        .flatten()
        .map(|blob| blob.metadata().map_or(0, |m| m.len() as usize))
        .sum();
    let proxy = Cutting::start(registry.1, 1 << 20)?;
    let name = format!("127.0.0.1:{}/test/image:1", proxy.port);
    // Four attempts of a mebibyte each are not enough.
    let output = call(ctx, &["pull", &name])?;
    check!(output.code != 0 && output.stderr().contains("broke off"), "message: {}", output.stderr());
    let partial = || -> Result<u64> {
        let parts = fs::read_dir(store(ctx).join("partial"))?.flatten();
        Ok(parts.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum())
    };
    let had = partial()?;
    check!(had > 3 << 20, "only {had} bytes are kept of a broken download");
    check_eq!(call(ctx, &["images", "--quiet"])?.stdout(), "", "images");
    check_eq!(blobs_are_whole(&store(ctx))? > 0, true, "whole blobs");
    // Killed while it waits for the rest, it keeps what it had.
    let mut child = command(ctx, &["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    container::until("more has come", || Ok((partial()? > had + 500_000).then_some(())))?;
    child.kill()?;
    child.wait()?;
    check!(partial()? > had + 500_000, "what a killed pull had is gone");
    proxy.most.store(usize::MAX, Ordering::Relaxed);
    call(ctx, &["pull", &name])?.succeeded("the last pull")?;
    let passed = proxy.passed.load(Ordering::Relaxed);
    // Manifests, headers, and what the killed one had in hand besides.
    check!(passed < whole + LAYER / 4, "{passed} bytes passed for {whole}");
    let output = run(ctx, &[&name, "--rm", "--pull", "never"])?.succeeded("run")?;
    let sum = Command::new("sha256sum").stdin(fs::File::open(more.join("noise"))?).output()?;
    check_eq!(output.stdout(), String::from_utf8_lossy(&sum.stdout), "digest of what was pulled");
    check_eq!(fs::read_dir(store(ctx).join("partial"))?.count(), 0, "partial downloads at the end");
    Ok(())
}

fn as_a_user_a_registry_and_back(ctx: &Ctx) -> Result {
    a_registry_and_back(ctx)
}

fn as_a_user_a_certificate_and_a_password_of_its_own(ctx: &Ctx) -> Result {
    a_certificate_and_a_password_of_its_own(ctx)
}
