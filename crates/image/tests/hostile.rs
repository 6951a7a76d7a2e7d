//! Hostile layers: whatever they say, nothing outside the root file system changes, and nothing half-made stays.
//! CVE numbers name the attacks that others fell to.
#![allow(missing_docs)]

mod common;
use common::{Image, Scratch, Tar, gzip, is_root};
use coracle_image::Kind;
use coracle_image::limits::Limits;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

type Step = fn(Tar) -> Tar;

/// CVE-2021-38511, CVE-2026-17106, CVE-2021-29136, CVE-2021-32760: a link, then something through it.
#[test]
fn links_then_writes_through_them_stay_inside() {
    let scratch = Scratch::new();
    let canary = scratch.canary();
    let up = format!("../../../../../../../../../../..{canary}");
    let links: Vec<(&str, String)> = vec![
        ("absolute", canary.clone()),
        ("relative", up.clone()),
        ("proc", format!("/proc/self/root{canary}")),
        ("dangling", "/nowhere/at/all".into()),
        ("loop", "l".into()),
        ("dir", format!("{canary}/dir")),
    ];
    let throughs: Vec<(&str, Step)> = vec![
        ("file", |t| t.file("l/file", "dead")),
        ("new file", |t| t.file("l/new", "dead")),
        ("deep file", |t| t.file("l/a/b/c", "dead")),
        ("directory", |t| t.dir("l/dir").file("l/dir/x", "dead")),
        ("the directory itself", |t| t.header("l/", b'5', 0, "", 0o777, 99)),
        ("the directory itself, with an attribute", |t| {
            t.pax(&[("SCHILY.xattr.user.dead", b"1"), ("mtime", b"99.5")]).header("l", b'5', 0, "", 0o777, 99)
        }),
        ("a file's attribute", |t| t.pax(&[("SCHILY.xattr.user.dead", b"1")]).file("l/file", "dead")),
        ("the link as a file", |t| t.file("l", "dead")),
        ("hard link out", |t| t.hardlink("stolen", "l/file").file("stolen", "dead")),
        ("hard link to the link", |t| t.hardlink("stolen", "l").file("stolen", "dead")),
        ("hard link in", |t| t.file("x", "dead").hardlink("l/file", "x")),
        ("whiteout", |t| t.file("l/.wh.file", "")),
        ("opaque", |t| t.file("l/.wh..wh..opq", "")),
        ("fifo", |t| t.header("l/fifo", b'6', 0, "", 0o644, 7)),
        ("device", |t| t.header("l/file", b'3', 0, "", 0o644, 7)),
        ("symlink", |t| t.symlink("l/link", "/dead")),
    ];
    for (link, target) in &links {
        for (name, through) in &throughs {
            let same = vec![through(Tar::new().symlink("l", target)).end()];
            let next = vec![Tar::new().symlink("l", target).end(), through(Tar::new()).end()];
            let chain = vec![through(Tar::new().symlink("k", target).symlink("l", "k")).end()];
            for layers in [same, next, chain] {
                // Whether it is refused or kept inside: unpack() looks at the canary, and at what is left.
                if let Err(e) = scratch.unpack(&layers) {
                    assert!(!e.to_string().contains('\n'), "{link}, {name}: {e}");
                }
            }
        }
    }
}

/// CVE-2014-9357, CVE-2020-10696: names that lead out.
#[test]
fn names_that_lead_out() {
    let scratch = Scratch::new();
    for bad in ["../x", "a/../../x", "..", "a/..", "/../x"] {
        for t in [
            Tar::new().file(bad, "dead"),
            Tar::new().hardlink(bad, "a"),
            Tar::new().symlink(bad, "a"),
            Tar::new().dir(bad),
        ] {
            assert!(scratch.unpack(&[t.end()]).is_err(), "{bad}");
        }
    }
    scratch.unpack(&[Tar::new().file("/abs", "1").file("./dot//x", "2").end()]).unwrap();
    assert_eq!((scratch.read("abs"), scratch.read("dot/x")), ("1".into(), "2".into()));
    for bad in ["", "/", ".", "./"] {
        assert!(
            scratch.unpack(&[Tar::new().file(bad, "dead").end()]).is_err(),
            "a file as the root: {bad:?}"
        );
    }
}

/// CVE-2021-29136, CVE-2026-48749: the root itself becomes something else.
#[test]
fn the_root_stays_a_directory() {
    let scratch = Scratch::new();
    let ok = Tar::new().file("f", "1").end();
    let canary = scratch.canary();
    for name in [".", "/", "./"] {
        for bad in [
            Tar::new().symlink(name, &canary),
            Tar::new().hardlink(name, "f"),
            Tar::new().header(name, b'6', 0, "", 0o644, 7),
        ] {
            let e = scratch.unpack(&[ok.clone(), bad.end()]).unwrap_err();
            assert_eq!(e.kind(), Kind::Corrupt, "{name}: {e}");
        }
    }
    for bad in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", ".wh.x/y"] {
        let e = scratch.unpack(&[ok.clone(), Tar::new().dir("d").file(bad, "").end()]).unwrap_err();
        assert!(e.to_string().contains("whiteout"), "{bad}: {e}");
    }
    assert!(scratch.unpack(&[Tar::new().header("./", b'5', 0, "", 0o711, 7).end()]).is_ok());
    assert_eq!(scratch.rootfs("").metadata().unwrap().mode() & 0o7777, 0o711);
}

/// Buildah's layers do not name it: every user of the container passes through it all the same.
#[test]
fn a_root_that_no_layer_names_is_open() {
    let scratch = Scratch::new();
    let mode = || scratch.rootfs("").metadata().unwrap().mode() & 0o7777;
    scratch.unpack(&[Tar::new().file("f", "1").end()]).unwrap();
    assert_eq!(mode(), 0o755);
    let named = Tar::new().header("./", b'5', 0, "", 0o700, 7).end();
    scratch.unpack(&[named, Tar::new().file("f", "1").end()]).unwrap();
    assert_eq!(mode(), 0o700);
}

/// CVE-2026-50163: link targets count from the root file system, not from where the program runs.
#[test]
fn hard_links_count_from_the_root() {
    let scratch = Scratch::new();
    for target in ["Cargo.toml", "../../etc/passwd", "/etc/passwd", "none", ".", "d"] {
        assert!(scratch.unpack(&[Tar::new().dir("d").hardlink("x", target).end()]).is_err(), "{target}");
    }
    let layers = [
        Tar::new().file("a", "1").symlink("s", "a").end(),
        Tar::new().hardlink("b", "a").hardlink("t", "./s").hardlink("b", "b").end(),
    ];
    scratch.unpack(&layers).unwrap();
    assert_eq!(scratch.rootfs("a").metadata().unwrap().nlink(), 2);
    assert!(scratch.rootfs("t").symlink_metadata().unwrap().is_symlink());
    // Written again under one name: the other keeps its content.
    scratch.unpack(&[Tar::new().file("a", "1").hardlink("b", "a").file("a", "2").end()]).unwrap();
    assert_eq!((scratch.read("a"), scratch.read("b")), ("2".into(), "1".into()));
}

#[test]
fn whiteouts_in_either_order() {
    let scratch = Scratch::new();
    let base = Tar::new()
        .dir("d")
        .file("d/old", "1")
        .dir("d/sub")
        .file("d/sub/old", "1")
        .file("f", "1")
        .dir("e")
        .file("e/x", "1")
        .end();
    // Of each pair, what the layer brings stays, and what was below goes.
    let upper: Vec<(&str, Tar)> = vec![
        ("before", Tar::new().file(".wh.d", "").dir("d").file("d/new", "2").file(".wh.f", "").file("f", "2")),
        ("after", Tar::new().dir("d").file("d/new", "2").file(".wh.d", "").file("f", "2").file(".wh.f", "")),
        ("opaque before", Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "2").file("f", "2")),
        ("opaque after", Tar::new().dir("d").file("d/new", "2").file("d/.wh..wh..opq", "").file("f", "2")),
        (
            "opaque last, twice",
            Tar::new()
                .file("d/new", "2")
                .file("d/.wh..wh..opq", "")
                .file("d/.wh..wh..opq", "")
                .file("f", "2"),
        ),
    ];
    for (name, tar) in upper {
        scratch.unpack(&[base.clone(), tar.end()]).unwrap();
        assert_eq!(
            (scratch.read("d/new"), scratch.read("f"), scratch.read("e/x")),
            ("2".into(), "2".into(), "1".into()),
            "{name}"
        );
        assert!(!scratch.rootfs("d/old").exists() && !scratch.rootfs("d/sub").exists(), "{name}");
    }
    scratch
        .unpack(&[
            base.clone(),
            Tar::new()
                .file(".wh.d", "")
                .file("e/.wh.x", "")
                .file(".wh.none", "")
                .file("none/.wh.x", "")
                .end(),
        ])
        .unwrap();
    assert!(
        !scratch.rootfs("d").exists()
            && !scratch.rootfs("e/x").exists()
            && scratch.rootfs("e").exists()
            && !scratch.rootfs("none").exists()
    );
    // A listed directory stays although everything in it goes; so does one that was filled through a link.
    scratch
        .unpack(&[base.clone(), Tar::new().dir("d").dir("d/sub").file("d/.wh..wh..opq", "").end()])
        .unwrap();
    assert!(scratch.rootfs("d/sub").is_dir() && !scratch.rootfs("d/sub/old").exists());
    let linked = Tar::new().dir("d").file("d/old", "1").symlink("l", "d").end();
    scratch.unpack(&[linked, Tar::new().file("l/new", "2").file("d/.wh..wh..opq", "").end()]).unwrap();
    assert_eq!((scratch.read("d/new"), scratch.rootfs("d/old").exists()), ("2".into(), false));
    // In the base layer there is nothing to hide.
    scratch.unpack(&[Tar::new().file("f", "1").file(".wh.f", "").end()]).unwrap();
    assert_eq!(scratch.read("f"), "1");
    assert!(!scratch.rootfs(".wh.f").exists());
}

#[test]
fn types_change_between_layers() {
    let scratch = Scratch::new();
    let base = Tar::new().dir("a").file("a/x", "1").file("b", "1").symlink("c", "b").end();
    scratch
        .unpack(&[base, Tar::new().file("a", "2").dir("b").file("b/x", "2").dir("c").file("c/x", "2").end()])
        .unwrap();
    assert_eq!(
        (scratch.read("a"), scratch.read("b/x"), scratch.read("c/x")),
        ("2".into(), "2".into(), "2".into())
    );
}

/// CVE-2026-95838: whiteouts must not cost the square of their number.
#[test]
fn ten_thousand_opaque_markers_over_ten_thousand_files() {
    let scratch = Scratch::new();
    let files = (0..10_000).fold(Tar::new().dir("d"), |t, i| t.file(&format!("d/{i}"), ""));
    let opaque = |t: Tar| (0..10_000).fold(t, |t, _| t.file("d/.wh..wh..opq", ""));
    let nested = (0..200).fold((Tar::new(), "d".to_owned()), |(t, p), _| {
        let p = format!("{p}/s");
        (
            t.pax(&[("path", p.as_bytes())])
                .dir("x")
                .pax(&[("path", format!("{p}/.wh..wh..opq").as_bytes())])
                .file("x", ""),
            p,
        )
    });
    let began = Instant::now();
    scratch.unpack(&[files.clone().end(), opaque(files).end(), opaque(nested.0).end()]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(std::fs::read_dir(scratch.rootfs("d")).unwrap().count(), 1);
}

/// CVE-2023-25153, CVE-2021-20291 and the bombs of every peer.
#[test]
fn bombs_meet_limits() {
    let scratch = Scratch::new();
    let small = Limits { total_bytes: 1 << 20, entries: 10, ..Limits::default() };
    let limited = |t: Tar| {
        let e = scratch.unpack_with(&Image::of(&[gzip(&t.end())]), &small).unwrap_err();
        assert_eq!(e.kind(), Kind::Limit, "{e}");
        e.to_string()
    };
    assert!(limited(Tar::new().header("big", b'0', 4 << 30, "", 0o644, 7)).contains("--max-size"));
    limited((0..11).fold(Tar::new(), |t, i| t.file(&i.to_string(), "")));
    limited(
        Tar::new().pax(&[("GNU.sparse.size", b"9000000000"), ("GNU.sparse.map", b"0,1")]).file("sparse", "x"),
    );
    limited(Tar::new().pax(&[("path", &[b'n'; 5000])]).file("x", ""));
    limited(Tar::new().header("pax", b'x', 2 << 20, "", 0o644, 0).data(&vec![b'x'; 2 << 20]));
    limited(Tar::new().pax(&[("SCHILY.xattr.user.x", &[0; 70_000])]).file("x", ""));
    limited(Tar::new().pax(&[("path", "a/".repeat(600).as_bytes())]).dir("x"));
    // By its ratio alone: 12 MB of zeros behind the archive's end.
    let bomb = gzip(&vec![0; 12_000_000]);
    let mut image = Image::of(&[gzip(&Tar::new().end())]);
    image.manifest["layers"][0]["digest"] = common::sha256(&bomb).into();
    image.manifest["layers"][0]["size"] = bomb.len().into();
    image.blobs = vec![bomb];
    let e = scratch.unpack_with(&image, &Limits { inflate_free: 1 << 20, ..Limits::default() }).unwrap_err();
    assert!(e.kind() == Kind::Limit && e.to_string().contains("bomb"), "{e}");
}

/// Directories are held until the end, each with a name and attributes of its own: there is a limit on that too.
#[test]
fn directories_do_not_fill_the_memory() {
    let scratch = Scratch::new();
    let limits = Limits { directory_bytes: 500_000, ..Limits::default() };
    let attribute = vec![b'x'; 60_000];
    let with = |t: Tar, name: &str| t.pax(&[("SCHILY.xattr.user.x", &attribute)]).dir(name);
    let same = (0..20).fold(Tar::new(), |t, _| with(t, "d"));
    let many = (0..20).fold(Tar::new(), |t, i| with(t, &i.to_string()));
    let named = (0..200).fold(Tar::new(), |t, i| {
        t.pax(&[("path", format!("{}/{i}", vec!["n".repeat(250); 15].join("/")).as_bytes())]).dir("x")
    });
    // What comes again takes the place of what was held; whether a file system takes so long a value is another matter.
    if let Err(e) = scratch.unpack_with(&Image::of(&[same.end()]), &limits) {
        assert_ne!(e.kind(), Kind::Limit, "{e}");
    }
    for layer in [many, named] {
        let e = scratch.unpack_with(&Image::of(&[layer.end()]), &limits).unwrap_err();
        assert_eq!(e.kind(), Kind::Limit, "{e}");
    }
}

/// Cut off anywhere, or with one bit turned: an error, at once, and nothing is left.
#[test]
fn damaged_layers() {
    let scratch = Scratch::new();
    let tar = Tar::new().dir("d").file("d/f", &"text ".repeat(300)).symlink("s", "d").end();
    let packed = [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap()];
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for whole in &packed {
        let diff_id = common::sha256(&tar);
        let attempt = |bytes: &[u8]| {
            let mut image = Image::of(&[]);
            image.manifest["layers"] = serde_json::json!([{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": common::sha256(bytes), "size": bytes.len()}]);
            image.config["rootfs"]["diff_ids"] = serde_json::json!([diff_id]);
            image.blobs = vec![bytes.to_vec()];
            scratch.unpack_with(&image, &Limits::default())
        };
        attempt(whole).unwrap();
        let step = (whole.len() / 24).max(1);
        for cut in (0..whole.len()).step_by(step) {
            assert!(attempt(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
            let mut turned = whole.clone();
            turned[cut] ^= 0x10;
            // A compressed stream has bits that nothing depends on: what is unpacked then is what was meant.
            assert!(attempt(&turned).is_err() || whole != &tar, "bit turned at {cut}");
        }
        assert!(attempt(&[whole, &b"trailing"[..]].concat()).is_err(), "trailing junk");
    }
    assert!(fds() < 200);
}

/// RUSTSEC-2026-0067, CVE-2021-32760; and attributes that would forge a union or a label.
#[test]
fn attributes_by_policy() {
    let scratch = Scratch::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.kept", b"1"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .file("f", "")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .dir("d");
    let summary = scratch.unpack(&[tar.end()]).unwrap();
    assert!(summary.xattrs_skipped >= 4, "{summary:?}");
}

#[test]
fn times_and_modes_are_the_images() {
    let scratch = Scratch::new();
    let tar = Tar::new()
        .header("d", b'5', 0, "", 0o555, 1000)
        .file("d/f", "")
        .header("old", b'0', 0, "", 0o4755, -5)
        .header("far", b'0', 0, "", 0o600, 100_000_000_000)
        .header("shut", b'5', 0, "", 0, 5)
        .file("shut/in", "");
    scratch.unpack(&[tar.end()]).unwrap();
    let of = |n: &str| scratch.rootfs(n).symlink_metadata().unwrap();
    assert_eq!((of("d").mtime(), of("d").mode() & 0o7777), (1000, 0o555));
    assert_eq!((of("old").mtime(), of("old").mode() & 0o7777), (-5, 0o4755));
    assert_eq!((of("shut").mtime(), of("shut").mode() & 0o7777), (5, 0));
    assert!(of("far").mtime() > 4_000_000_000);
    for name in ["d", "shut"] {
        std::fs::set_permissions(scratch.rootfs(name), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
    }
}

#[test]
fn devices_are_made_by_root_alone_and_never_as_whiteouts() {
    let scratch = Scratch::new();
    let summary = scratch.unpack(&[Tar::new().header("forged", b'3', 0, "", 0o600, 7).end()]).unwrap();
    assert_eq!((summary.devices_skipped, scratch.rootfs("forged").exists()), (1, false));
    // A real one: made by root, counted as skipped by anybody else, and by root of a user namespace.
    let summary =
        scratch.unpack(&[Tar::new().file("f", "").header("null", b'4', 0, "", 0o600, 7).end()]).unwrap();
    assert_ne!(scratch.rootfs("null").exists(), summary.devices_skipped == 1);
    assert!(is_root() || summary.devices_skipped == 1);
}

/// A name with control characters never reaches a message as it is.
#[test]
fn messages_are_escaped() {
    let scratch = Scratch::new();
    let e = scratch.unpack(&[Tar::new().file("a\n\x1b[31m/../b", "").end()]).unwrap_err().to_string();
    assert!(!e.contains('\n') && !e.contains('\x1b'), "{e:?}");
}
