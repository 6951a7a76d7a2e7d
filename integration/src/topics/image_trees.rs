//! The tree that `unpack` makes of an image is the one that GNU tar makes of its layers: type, mode, owner, size, content,
//! time to the nanosecond, links, attributes. Over images that other tools have made, and on the way through some of them.
//!
//! Both trees are packed again by GNU tar, names sorted: what differs in anything that tar knows differs in bytes.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Value, json};

use crate::harness::{Ctx, Layout, Need, Result, check, image::call, tests};

const OURS: Need = Need::Runtime("coracle");
const SKOPEO: &str = "/usr/bin/skopeo";
const UMOCI: &str = "/usr/bin/umoci";
const BUILDAH: &str = "/usr/bin/buildah";
const DOCKERD: &str = "/usr/sbin/dockerd";
const DOCKER: &str = "/usr/bin/docker";
const PODMAN: &str = "/usr/bin/podman";
const DEBOOTSTRAP: &str = "/usr/bin/mmdebstrap";

tests! {
    layers_by_hand [OURS];
    skopeo_round_trips [OURS, Need::File(SKOPEO)];
    umoci_layers [OURS, Need::File(UMOCI)];
    buildah_layers [OURS, Need::File(BUILDAH)];
    docker_saves [OURS, Need::File(DOCKERD), Need::File(DOCKER), Need::File(SKOPEO)];
    podman_saves [OURS, Need::File(PODMAN), Need::File(SKOPEO)];
    debian [OURS, Need::File(DEBOOTSTRAP), Need::File("/usr/sbin/debootstrap"), Need::File(UMOCI), Need::File(SKOPEO)];
}

/// A root file system of everything that a layer can hold.
fn tree(ctx: &Ctx) -> Result<PathBuf> {
    let root = ctx.dir.join("tree");
    let at = |name: &str| root.join(name);
    for directory in
        ["etc", "d/e/f", "shut", "sticky", &format!("long/{}/{}", "n".repeat(120), "m".repeat(120))]
    {
        fs::create_dir_all(at(directory))?;
    }
    fs::write(at("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    for (name, text) in [("d/file", "text\n"), ("d/e/empty", ""), ("zürich\n", "newline\n"), ("shut/in", "x")]
    {
        fs::write(at(name), text)?;
    }
    fs::write(at(&format!("long/{}/{}/file", "n".repeat(120), "m".repeat(120))), "deep")?;
    fs::write(
        at("big"),
        (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )?;
    fs::File::create(at("sparse"))?.set_len(20 << 20)?;
    fs::hard_link(at("d/file"), at("d/e/f/hard"))?;
    symlink("../d/file", at("etc/link"))?;
    symlink("/nowhere/at/all", at("dangling"))?;
    fs::hard_link(at("dangling"), at("dangling-too"))?;
    mkfifo(&at("fifo"), Mode::from_bits_truncate(0o640))?;
    mknod(&at("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    mknod(&at("block"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(7, 0))?;
    for (name, uid, gid) in [
        ("d/file", 1000, 1001),
        ("d/e", 65_534, 65_534),
        ("fifo", 7, 8),
        ("null", 0, 5),
        ("d/e/empty", 3_000_000, 2),
    ] {
        chown(at(name), Some(uid), Some(gid))?;
    }
    std::os::unix::fs::lchown(at("dangling"), Some(12), Some(13))?;
    for (name, mode) in
        [("d/e/empty", 0o6755), ("d/e", 0o2770), ("sticky", 0o1777), ("shut", 0o000), ("big", 0o400)]
    {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode))?;
    }
    setxattr(at("big"), "user.mine", b"value\0with a NUL", XattrFlags::empty())?;
    setxattr(at("d"), "user.directory", b"", XattrFlags::empty())?;
    // cap_net_bind_service=ep, as capability.h's vfs_cap_data has it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(at("d/file"), "security.capability", &capability, XattrFlags::empty())?;
    let times = "touch -hd @1234567890.123456789 dangling d/file; touch -d @0 d/e/empty; touch -hd @-5 etc/link; touch -d @4000000000 fifo; touch -d @999999999.5 sticky d/e etc .";
    sh(&root, times)?;
    Ok(root)
}

fn sh(directory: &Path, script: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", script]).current_dir(directory).output()?;
    check!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// GNU tar's words that keep everything.
const ALL: &str = "--numeric-owner --xattrs --xattrs-include='*'";

/// The tree that GNU tar makes of an image's layers, one after the other.
fn reference(ctx: &Ctx, image: &Path, name: &str) -> Result<PathBuf> {
    let mut layout = image.to_owned();
    if image.is_file() {
        layout = ctx.dir.join(format!("{name}-outer"));
        fs::create_dir_all(&layout)?;
        sh(&layout, &format!("tar -xf '{}'", image.display()))?;
    }
    let read = |file: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(layout.join(file))?)?) };
    let blob =
        |value: &Value| format!("blobs/{}", value["digest"].as_str().unwrap_or_default().replace(':', "/"));
    let layers: Vec<String> = if layout.join("index.json").exists() {
        let manifest = read(&blob(&read("index.json")?["manifests"][0]))?;
        manifest["layers"].as_array().into_iter().flatten().map(blob).collect()
    } else {
        let manifest = read("manifest.json")?;
        let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
        layers.iter().filter_map(|l| l.as_str().map(str::to_owned)).collect()
    };
    check!(!layers.is_empty(), "{} has no layers", image.display());
    let tree = ctx.dir.join(format!("{name}-tar"));
    fs::create_dir_all(&tree)?;
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
    for layer in layers {
        // Compressed or not: seen by its first bytes.
        let script = format!(
            "case $(head -c 4 '{0}' | od -An -tx1) in
                ' 1f 8b'*) gzip -dc '{0}' ;;
                ' 28 b5 2f fd') zstd -dc '{0}' ;;
                *) cat '{0}' ;;
            esac | tar -xpf - {ALL} --same-owner -C '{1}'",
            layer,
            tree.display()
        );
        sh(&layout, &script)?;
    }
    Ok(tree)
}

/// Unpacks an image with Coracle and compares the tree with GNU tar's.
fn compare(ctx: &Ctx, image: &Path, name: &str) -> Result {
    let tree = reference(ctx, image, name)?;
    let bundle = ctx.dir.join(format!("{name}-bundle"));
    let (image, to) = (image.display().to_string(), bundle.display().to_string());
    call(ctx, &["unpack", &image, &to, "--", "/true"])?.succeeded(&format!("unpack of {name}"))?;
    // Of the root, which not every image names, what it would be without.
    let pack = |directory: &Path, out: &str| {
        let pack = format!(
            "find . -mindepth 1 -maxdepth 1 -print0 | sort -z | tar --null --verbatim-files-from -T - --sort=name {ALL} \
             --format=posix --pax-option=delete=atime,delete=ctime -cf '{out}'; stat -c '%a %u %g' . >'{out}.root'"
        );
        sh(directory, &pack)
    };
    let (theirs, ours) = (ctx.dir.join("theirs.tar"), ctx.dir.join("ours.tar"));
    pack(&tree, &theirs.display().to_string())?;
    pack(&bundle.join("rootfs"), &ours.display().to_string())?;
    let entries = sh(&ctx.dir, "tar -tf ours.tar | wc -l")?;
    check!(entries.trim().parse::<usize>()? > 15, "{name}: only {entries} entries: what was compared?");
    let list = "for t in theirs ours; do tar -tvvf $t.tar --full-time --numeric-owner --xattrs >$t.list; done; cmp theirs.tar.root ours.tar.root && cmp theirs.tar ours.tar || diff theirs.list ours.list | head -20";
    let differ = sh(&ctx.dir, list)?;
    check!(differ.is_empty(), "{name}: the trees differ: {differ}");
    println!("{name}: {} entries are GNU tar's", entries.trim());
    for directory in [tree, bundle] {
        sh(&ctx.dir, &format!("rm -rf '{}'", directory.display()))?;
    }
    Ok(())
}

/// The tree as an image of one layer, and a second that changes a file; `holes`: tar's option by which a sparse file stays one,
/// which older containers-storage cannot pack again.
fn by_hand(ctx: &Ctx, holes: &str) -> Result<PathBuf> {
    let mut layout = Layout::new(ctx, "image")?;
    let tree = tree(ctx)?;
    layout.tar(&tree, &format!("{ALL} --format=posix"))?;
    let more = ctx.dir.join("more");
    fs::create_dir_all(more.join("d"))?;
    fs::write(more.join("d/file"), "changed\n")?;
    // tar keeps the attributes that a directory had before; these are all that it has.
    setxattr(more.join("d"), "user.directory", b"", XattrFlags::empty())?;
    let sparse = fs::File::create(more.join("holes"))?;
    sparse.write_all_at(b"between holes", 3 << 20)?;
    sparse.set_len(8 << 20)?;
    layout.tar(&more, &format!("{ALL} --format=posix {holes}"))?;
    Ok(layout.finish(&json!({}))?.into())
}

fn layers_by_hand(ctx: &Ctx) -> Result {
    compare(ctx, &by_hand(ctx, "--sparse")?, "image")
}

fn skopeo_round_trips(ctx: &Ctx) -> Result {
    let layout = by_hand(ctx, "--sparse")?;
    let copy = |from: &str, to: &str| {
        sh(&ctx.dir, &format!("{SKOPEO} --insecure-policy copy --quiet '{from}' '{to}'")).map(drop)
    };
    copy(&format!("oci:{}:latest", layout.display()), "docker-archive:docker.tar:x:1")?;
    copy("docker-archive:docker.tar:x:1", "oci-archive:oci.tar:y")?;
    copy("oci-archive:oci.tar:y", "oci:again:z")?;
    for name in ["docker.tar", "oci.tar", "again"] {
        compare(ctx, &ctx.dir.join(name), name)?;
    }
    // zstd:chunked since skopeo 1.14.
    let chunked = "--dest-compress-format zstd:chunked --insecure-policy";
    let copied = sh(&ctx.dir, &format!("{SKOPEO} copy {chunked} --quiet oci:again:z oci:chunked:z"));
    // Old ones write it otherwise than they say in the configuration: by zstd's own word.
    let told = "for f in chunked/blobs/sha256/*; do zstd -qdc $f 2>/dev/null | sha256sum; done | cut -c-64 | while read d; do
        if cat chunked/blobs/sha256/* | grep -aq \"sha256:$d\"; then echo told; fi; done";
    if copied.is_err() || sh(&ctx.dir, told)?.lines().count() != 2 {
        println!("zstd:chunked is left out: this skopeo does not write it, or otherwise than it says");
        return Ok(());
    }
    compare(ctx, &ctx.dir.join("chunked"), "chunked")
}

/// umoci adds a layer of its own making to what is there.
fn umoci_layers(ctx: &Ctx) -> Result {
    let tree = tree(ctx)?;
    let script = format!(
        "umoci init --layout made && umoci new --image made:x && umoci unpack --image made:x b && cp -a '{}/.' b/rootfs/ &&
         umoci repack --image made:x b && echo more >b/rootfs/etc/more && umoci repack --image made:x b",
        tree.display()
    );
    sh(&ctx.dir, &script)?;
    compare(ctx, &ctx.dir.join("made"), "made")
}

/// Buildah writes a layout and an archive like `docker save`'s.
fn buildah_layers(ctx: &Ctx) -> Result {
    let tree = tree(ctx)?;
    let script = format!(
        "b() {{ buildah --root '{0}/store' --runroot '{0}/run' --storage-driver vfs \"$@\"; }}
         c=$(b from scratch) && m=$(b mount $c) && cp -a '{1}/.' $m/ && b umount $c && b commit --quiet $c oci:{0}/made:x &&
         b commit --quiet $c docker-archive:{0}/made.tar:x:1; code=$?; b rm -a >/dev/null; exit $code",
        ctx.dir.display(),
        tree.display()
    );
    sh(&ctx.dir, &script)?;
    compare(ctx, &ctx.dir.join("made"), "made")?;
    compare(ctx, &ctx.dir.join("made.tar"), "made.tar")
}

/// What `docker save` writes of an image that Docker has unpacked, packed and added a layer to.
fn docker_saves(ctx: &Ctx) -> Result {
    let layout = by_hand(ctx, "")?;
    let dir = ctx.dir.display();
    // The paths of sockets are short.
    let socket = format!("/run/{}.sock", ctx.id());
    let log = fs::File::create(ctx.dir.join("dockerd.log"))?;
    fs::write(ctx.dir.join("docker.json"), "{}")?;
    let mut daemon = Command::new(DOCKERD)
        .args([
            "--config-file",
            &format!("{dir}/docker.json"),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ])
        .args(["--ip-forward=false", "--ip-masq=false", "-H", &format!("unix://{socket}")])
        .args([
            "--data-root",
            &format!("{dir}/data"),
            "--exec-root",
            &format!("{dir}/exec"),
            "-p",
            &format!("{dir}/pid"),
        ])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let script = format!(
        "d() {{ DOCKER_BUILDKIT=0 {DOCKER} -H unix://{socket} \"$@\"; }}
         i=0; until d version >/dev/null 2>&1; do i=$((i + 1)); test $i -lt 300; sleep 0.1; done
         {SKOPEO} --insecure-policy copy --quiet oci:'{}':latest docker-archive:in.tar:x:1
         d load --quiet --input in.tar
         mkdir context && echo added >context/added && ln -s added context/link
         printf 'FROM x:1\nCOPY . /added/new/\nCOPY . /added/again/\nCOPY . /added/again/\nSTOPSIGNAL SIGQUIT\n' >context/Dockerfile
         d build --quiet --network none -t x:2 context
         d import tree.tar x:3
         for i in 1 2 3; do d save --output $i.tar x:$i; done
         d save --output all.tar x:1 x:2 x:3",
        layout.display()
    );
    sh(&ctx.dir.join("tree"), &format!("tar {ALL} --format=posix -cf '{dir}/tree.tar' ."))?;
    let made = sh(&ctx.dir, &script);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(daemon.id())?),
        nix::sys::signal::SIGTERM,
    )?;
    daemon.wait()?;
    let mounts = format!(
        "for m in $(cut -d' ' -f5 /proc/self/mountinfo | grep '^{dir}/' | sort -r); do umount -l $m; done"
    );
    sh(&ctx.dir, &mounts)?;
    fs::remove_file(&socket).ok();
    made.map_err(|e| {
        format!("{e}; dockerd: {}", fs::read_to_string(ctx.dir.join("dockerd.log")).unwrap_or_default())
    })?;
    for name in ["1.tar", "2.tar", "3.tar"] {
        compare(ctx, &ctx.dir.join(name), name)?;
    }
    // Several in one archive: one is to be chosen, and is the same.
    let all = ctx.dir.join("all.tar").display().to_string();
    let which = call(ctx, &["unpack", &all, "which"])?;
    check!(
        which.code != 0 && ["x:1", "x:2", "x:3"].iter().all(|n| which.stderr().contains(n)),
        "{}",
        which.stderr()
    );
    call(ctx, &["unpack", &format!("{all}:x:2"), "chosen", "--", "/true"])?
        .succeeded("unpack of one of several")?;
    check!(ctx.dir.join("chosen/rootfs/added/new/added").exists(), "another image than the chosen one");
    let spec = fs::read_to_string(ctx.dir.join("chosen/config.json"))?;
    check!(spec.contains("\"org.opencontainers.image.stopSignal\": \"SIGQUIT\""), "stop signal: {spec}");
    Ok(())
}

/// Into Podman's store and out of it again, in both forms.
fn podman_saves(ctx: &Ctx) -> Result {
    let layout = by_hand(ctx, "")?;
    let script = format!(
        "p() {{ podman --root '{0}/store' --runroot '{0}/run' --storage-driver vfs \"$@\"; }}
         echo '{{\"default\":[{{\"type\":\"insecureAcceptAnything\"}}]}}' >policy.json
         {SKOPEO} --insecure-policy copy --quiet oci:'{1}':latest oci-archive:in.tar:localhost/x:1
         p load --quiet --signature-policy policy.json --input in.tar
         p save --quiet --format docker-archive --output saved.tar localhost/x:1
         p save --quiet --format oci-archive --output oci.tar localhost/x:1",
        ctx.dir.display(),
        layout.display()
    );
    sh(&ctx.dir, &script)?;
    compare(ctx, &ctx.dir.join("saved.tar"), "saved.tar")?;
    compare(ctx, &ctx.dir.join("oci.tar"), "oci.tar")
}

/// A whole Debian, made by debootstrap and by mmdebstrap: not part of `make test` where these are not installed.
fn debian(ctx: &Ctx) -> Result {
    let mirror = std::env::var("DEBIAN_MIRROR").unwrap_or_default();
    let script = format!(
        "debootstrap --variant=minbase trixie debian {mirror} >debootstrap.log 2>&1
         tar {ALL} --format=posix -cf one.tar -C debian . && rm -rf debian
         mmdebstrap --quiet --variant=minbase trixie two.tar {mirror}
         for i in one two; do umoci init --layout $i; umoci new --image $i:x; umoci raw add-layer --image $i:x $i.tar; done
         {SKOPEO} --insecure-policy copy --quiet oci:one:x docker-archive:one.docker:x:1"
    );
    sh(&ctx.dir, &script)?;
    for name in ["one", "two", "one.docker"] {
        compare(ctx, &ctx.dir.join(name), name)?;
    }
    Ok(())
}
