//! Layouts and archives, honest and hostile; choosing an image; what interrupted work leaves.
#![allow(missing_docs)]

mod common;
use common::{Image, Scratch, Tar, gzip, sha256};
use coracle_image::limits::Limits;
use coracle_image::source::{Query, Source, split_location};
use coracle_image::{Kind, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn image() -> Image {
    Image::of(&[gzip(&Tar::new().file("f", "1").end()), Tar::new().file("g", "2").end()])
}

fn layout(scratch: &Scratch) -> std::path::PathBuf {
    let dir = scratch.path.join("layout");
    fs::remove_dir_all(&dir).ok();
    image().write(&dir);
    dir
}

fn try_open(dir: &Path) -> Result<()> {
    Source::open(dir.to_str().unwrap(), &Limits::default())?.image(&Query::default()).map(drop)
}

/// Apple's GHSA-r3h2 and the like: parts of a layout that are not files of it.
#[test]
fn a_layouts_parts_are_regular_files_of_its_own() {
    let scratch = Scratch::new();
    let canary = scratch.canary() + "/file";
    let manifest = |dir: &Path| {
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        format!("blobs/{}", index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/"))
    };
    let layer = |dir: &Path| {
        let m: Value = serde_json::from_slice(&fs::read(dir.join(manifest(dir))).unwrap()).unwrap();
        format!("blobs/{}", m["layers"][0]["digest"].as_str().unwrap().replace(':', "/"))
    };
    let parts: [&dyn Fn(&Path) -> String; 4] =
        [&|_| "oci-layout".into(), &|_| "index.json".into(), &manifest, &layer];
    for part in parts {
        for way in 0..5 {
            let dir = layout(&scratch);
            let path = dir.join(part(&dir));
            let saved = scratch.path.join("saved");
            fs::rename(&path, &saved).unwrap();
            match way {
                0 => symlink(&canary, &path).unwrap(),
                1 => symlink(&saved, &path).unwrap(),
                2 => fs::create_dir(&path).unwrap(),
                3 => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
                _ => {}
            }
            assert!(try_open(&dir).is_err(), "{path:?}, way {way}");
        }
    }
    let dir = layout(&scratch);
    fs::rename(dir.join("blobs"), scratch.path.join("elsewhere")).unwrap();
    symlink(scratch.path.join("elsewhere"), dir.join("blobs")).unwrap();
    assert!(try_open(&dir).is_err(), "blobs as a link");
}

#[test]
fn sizes_digests_and_counts_must_be_right() {
    let scratch = Scratch::new();
    let refused = |change: &dyn Fn(&mut Image)| {
        let mut image = image();
        change(&mut image);
        let e = scratch.unpack_with(&image, &Limits::default()).unwrap_err();
        assert!(matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Os(_)), "{e}");
    };
    let size = image().manifest["layers"][0]["size"].as_u64().unwrap();
    for wrong in [json!(size + 1), json!(size - 1), json!(0), json!(-1), json!(1u64 << 63)] {
        refused(&|i| i.manifest["layers"][0]["size"] = wrong.clone());
    }
    let zeros = format!("sha256:{}", "0".repeat(64));
    for wrong in [zeros.as_str(), "sha256:../../x", "sha256:", "md5:00", ""] {
        refused(&|i| i.manifest["layers"][0]["digest"] = json!(wrong));
        refused(&|i| i.config["rootfs"]["diff_ids"][1] = json!(wrong));
    }
    refused(&|i| drop(i.config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()));
    refused(&|i| i.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(zeros)));
    refused(&|i| i.config["os"] = json!("windows"));
    refused(&|i| i.config["architecture"] = json!("s390x"));
    refused(&|i| i.config["rootfs"]["type"] = json!("tarballs"));
    refused(&|i| i.manifest["manifests"] = json!([]));
    // The right size and a blob of other content.
    let dir = layout(&scratch);
    let blob = dir.join("blobs").join(sha256(&image().blobs[1]).replace(':', "/"));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert!(scratch.unpack_from(dir.to_str().unwrap(), &Query::default(), &Limits::default()).is_err());
}

fn outer(files: &[(&str, &[u8])]) -> Vec<u8> {
    files.iter().fold(Tar::new(), |t, (n, d)| t.header(n, b'0', d.len() as u64, "", 0o644, 0).data(d)).end()
}

fn docker_archive(layers: &[(&str, &[u8])], config: &Value, tags: Value) -> Vec<u8> {
    let config = config.to_string();
    let name = format!("{}.json", &sha256(config.as_bytes())[7..]);
    let manifest =
        json!([{"Config": name, "RepoTags": tags, "Layers": layers.iter().map(|l| l.0).collect::<Vec<_>>()}])
            .to_string();
    let mut files = vec![(name.as_str(), config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    files.extend(layers);
    outer(&files)
}

#[test]
fn archives_of_both_kinds() {
    let scratch = Scratch::new();
    let image = image();
    let limits = Limits::default();
    let layers: Vec<Vec<u8>> = vec![Tar::new().file("f", "1").end(), Tar::new().file("g", "2").end()];
    let saved = docker_archive(
        &[("a/layer.tar", &layers[0]), ("b/layer.tar", &layers[1])],
        &image.config,
        json!(["x:1"]),
    );
    let file = scratch.path.join("saved.tar");
    for bytes in [saved.clone(), gzip(&saved), zstd::encode_all(&saved[..], 1).unwrap()] {
        fs::write(&file, bytes).unwrap();
        scratch.unpack_from(file.to_str().unwrap(), &Query::default(), &limits).unwrap();
        assert_eq!((scratch.read("f"), scratch.read("g")), ("1".into(), "2".into()));
    }
    let missing = Query { tag: Some("2".into()), ..Query::default() };
    let e = scratch.unpack_from(file.to_str().unwrap(), &missing, &limits).unwrap_err().to_string();
    assert!(e.contains("x:1"), "{e}");
    // An oci-archive: the layout's files in a tar.
    let dir = layout(&scratch);
    let oci = scratch.path.join("oci.tar");
    assert!(
        std::process::Command::new("tar")
            .arg("-C")
            .arg(&dir)
            .arg("-cf")
            .arg(&oci)
            .arg(".")
            .status()
            .unwrap()
            .success()
    );
    scratch.unpack_from(oci.to_str().unwrap(), &Query::default(), &limits).unwrap();
    assert_eq!(scratch.read("g"), "2");
    let swapped = docker_archive(&[("b", &layers[1]), ("a", &layers[0])], &image.config, json!(null));
    fs::write(&file, swapped).unwrap();
    let e = scratch.unpack_from(file.to_str().unwrap(), &Query::default(), &limits).unwrap_err();
    assert!(e.to_string().contains("digest"), "{e}");
}

/// zstd:chunked: zstd in frames, then frames with a table of contents that readers of zstd skip. The sample is skopeo's
/// (`skopeo copy --dest-compress-format zstd:chunked`); by hand, skipped frames stand in other places too.
#[test]
fn zstd_chunked_is_read_as_zstd() {
    let scratch = Scratch::new();
    let limits = Limits::default();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/zstd-chunked.tar");
    let query = Query { platform: Some("linux/amd64".parse().unwrap()), ..Query::default() };
    if common::is_root() {
        scratch.unpack_from(sample, &query, &limits).unwrap();
        assert_eq!(scratch.read("dir/file"), "hello\n");
        assert_eq!(scratch.read("again").lines().count(), 2000);
        assert_eq!(fs::read_link(scratch.rootfs("link")).unwrap(), Path::new("dir/file"));
    }
    // Whatever the annotations say of it: the stream decides, and its digest.
    let sample = Source::open(sample, &limits).unwrap().image(&query).unwrap();
    assert!(sample.layers[0].blob.magic::<4>().unwrap() == [0x28, 0xb5, 0x2f, 0xfd]);
    let tar = Tar::new().file("f", "1").file("g", &"2".repeat(2000)).end();
    let skipped = |n: u8, body: &[u8]| {
        [&[0x50 + n, 0x2a, 0x4d, 0x18][..], &(body.len() as u32).to_le_bytes(), body].concat()
    };
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let layer = [
        skipped(15, b"before"),
        frame(&tar[..700]),
        skipped(0, b"between"),
        skipped(0, b""),
        frame(&tar[700..]),
        skipped(0, &[0x28; 300]),
        skipped(0, b"GNUlInUx"),
    ]
    .concat();
    let mut image = Image::of(&[]);
    image.manifest["layers"] = json!([{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
        "digest": sha256(&layer), "size": layer.len(),
        "annotations": {"io.github.containers.zstd-chunked.manifest-position": "18446744073709551615:1:1:1",
            "io.github.containers.zstd-chunked.manifest-checksum": "sha256:../../x"}}]);
    image.config["rootfs"]["diff_ids"] = json!([sha256(&tar)]);
    image.blobs = vec![layer.clone()];
    scratch.unpack_with(&image, &limits).unwrap();
    assert_eq!((scratch.read("f"), scratch.read("g").len()), ("1".into(), 2000));
    // A skipped frame counts for the blob's digest like any other byte.
    let last = layer.len() - 1;
    image.blobs[0][last] ^= 1;
    let dir = scratch.path.join("changed");
    image.write(&dir);
    let path = dir.join("blobs").join(sha256(&layer).replace(':', "/"));
    fs::write(path, &image.blobs[0]).unwrap();
    let e = scratch.unpack_from(dir.to_str().unwrap(), &Query::default(), &limits).unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
}

/// Neither the runtime's time nor its memory is for what never ends.
#[test]
fn what_is_no_archive_is_called_so() {
    let scratch = Scratch::new();
    let text = scratch.path.join("text");
    fs::write(&text, "root:x:0:0:root:/root:/bin/bash\n".repeat(40)).unwrap();
    for (path, said) in
        [(text.as_path(), "neither an OCI layout nor an archive"), (Path::new("/dev/zero"), "a device")]
    {
        let failed = try_open(path).unwrap_err().to_string();
        assert!(failed.contains(said), "{}: {failed}", path.display());
    }
}

/// CVE-2025-11395: the outer archive is as hostile as a layer.
#[test]
fn hostile_outer_archives() {
    let scratch = Scratch::new();
    let limits = Limits::default();
    let file = scratch.path.join("saved.tar");
    let config = image().config;
    let layer = Tar::new().file("f", "1").end();
    let attempt = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        scratch.unpack_from(file.to_str().unwrap(), &Query::default(), &limits)
    };
    let canary = scratch.canary() + "/file";
    for name in ["../layer.tar", canary.as_str(), "missing"] {
        let manifest = json!([{"Config": "c.json", "Layers": [name, name]}]).to_string();
        let config = config.to_string();
        let files = outer(&[("manifest.json", manifest.as_bytes()), ("c.json", config.as_bytes())]);
        assert!(attempt(&files).is_err(), "{name}");
    }
    assert!(attempt(&outer(&[("../x", b""), ("manifest.json", b"[]")])).is_err(), "a name that leads out");
    assert!(
        attempt(&outer(&[("manifest.json", b"[]"), ("manifest.json", b"[]")])).is_err(),
        "twice the same name"
    );
    assert!(attempt(&outer(&[("manifest.json", b"[]")])).is_err(), "no image");
    assert!(attempt(&outer(&[("other", b"")])).is_err(), "neither form");
    assert!(
        attempt(b"").is_err()
            && attempt(&[0; 4096]).is_err()
            && attempt(b"garbage".repeat(999).as_slice()).is_err()
    );
    let link =
        Tar::new().symlink("l.tar", &canary).header("manifest.json", b'0', 2, "", 0o644, 0).data(b"[]").end();
    assert!(attempt(&link).is_err(), "a link out");
    let wrong_name = docker_archive(&[("a", &layer), ("b", &layer)], &config, json!([]));
    let turned = String::from_utf8_lossy(&wrong_name).replace("\"linux\"", "\"linuz\"");
    assert!(attempt(turned.as_bytes()).is_err(), "a configuration that is not what its name says");
}

/// A compressed archive goes into a temporary file: not however much it inflates to.
#[test]
fn compressed_archives_are_no_bombs() {
    let scratch = Scratch::new();
    let file = scratch.path.join("saved.tar.gz");
    let layer = Tar::new().file("f", "1").end();
    let plain = docker_archive(&[("a", &layer)], &Image::of(std::slice::from_ref(&layer)).config, json!([]));
    let limits = Limits { inflate_free: 1 << 20, ..Limits::default() };
    let attempt = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        scratch.unpack_from(file.to_str().unwrap(), &Query::default(), &limits)
    };
    attempt(&gzip(&plain)).unwrap();
    let zeros = vec![0; 16 << 20];
    for bomb in [gzip(&zeros), zstd::encode_all(&zeros[..], 3).unwrap()] {
        let e = attempt(&bomb).unwrap_err();
        assert!(e.kind() == Kind::Limit && e.to_string().contains("bomb"), "{e}");
    }
}

#[test]
fn indexes_platforms_and_tags() {
    let scratch = Scratch::new();
    let dir = layout(&scratch);
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0].clone();
    let put = |v: &Value| {
        let text = v.to_string();
        fs::write(dir.join("blobs").join(sha256(text.as_bytes()).replace(':', "/")), &text).unwrap();
        json!({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "digest": sha256(text.as_bytes()), "size": text.len()})
    };
    let set = |manifests: Value| {
        fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string())
            .unwrap()
    };
    let on = |arch: &str| {
        let mut m = manifest.clone();
        m["platform"] = json!({"os": "linux", "architecture": arch});
        m
    };
    let host = coracle_image::platform::Platform::host().architecture;
    let get = |tag: Option<&str>| {
        Source::open(dir.to_str().unwrap(), &Limits::default())?
            .image(&Query { tag: tag.map(Into::into), ..Query::default() })
    };
    let nested = (0..3).fold(
        json!({"schemaVersion": 2, "manifests": [on("s390x"), on(&host)]}),
        |inner, _| json!({"schemaVersion": 2, "manifests": [put(&inner)]}),
    );
    set(nested["manifests"].clone());
    get(None).unwrap();
    let deeper = (0..4).fold(nested, |inner, _| json!({"schemaVersion": 2, "manifests": [put(&inner)]}));
    set(deeper["manifests"].clone());
    assert_eq!(get(None).unwrap_err().kind(), Kind::Limit);
    set(json!([on("s390x"), on("mips")]));
    let e = get(None).unwrap_err().to_string();
    assert!(e.contains("linux/s390x") && e.contains("linux/mips"), "{e}");
    let tagged = |tag: &str, mut m: Value| {
        m["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        m
    };
    let other = put(&json!({"schemaVersion": 2, "manifests": [on("s390x")]}));
    set(json!([tagged("a", manifest.clone()), tagged("example.org/x:b", other)]));
    get(Some("a")).unwrap();
    assert!(get(Some("b")).unwrap_err().to_string().contains("s390x"));
    let e = get(None).unwrap_err();
    assert!(e.kind() == Kind::Ambiguous && e.to_string().contains("\"a\""), "{e}");
    assert_eq!(get(Some("c")).unwrap_err().kind(), Kind::NotFound);
}

/// `docker save` since version 25 writes a layout and a manifest.json; the tags in the layout are those of any name.
#[test]
fn what_docker_saves_keeps_its_names() {
    let scratch = Scratch::new();
    let dir = scratch.path.join("saved");
    fs::create_dir_all(&dir).unwrap();
    let layers = ["first", "second"].map(|text| Tar::new().file("f", text).end());
    let images = layers.each_ref().map(|layer| Image::of(std::slice::from_ref(layer)));
    let mut manifests = Vec::new();
    for (image, name) in images.iter().zip(["docker.io/library/a:1", "docker.io/library/b:1"]) {
        image.write(&dir);
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let mut manifest = index["manifests"][0].clone();
        manifest["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
        // Version 25 says the platform too.
        manifest["platform"] = json!({"os": "linux", "architecture": image.config["architecture"]});
        manifests.push(manifest);
    }
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string())
        .unwrap();
    fs::write(dir.join("manifest.json"), "[]").unwrap();
    let get = |tag: &str| {
        let query = Query { tag: Some(tag.into()), ..Query::default() };
        scratch.unpack_from(dir.to_str().unwrap(), &query, &Limits::default()).map(|_| scratch.read("f"))
    };
    for (tag, text) in [("a:1", "first"), ("b:1", "second"), ("docker.io/library/b:1", "second")] {
        assert_eq!(get(tag).unwrap(), text, "{tag}");
    }
    let e = get("1").unwrap_err();
    assert!(e.kind() == Kind::Ambiguous && e.to_string().contains("library/b:1"), "{e}");
    assert_eq!(get("c:1").unwrap_err().kind(), Kind::NotFound);
}

/// Of a tag's variants, this processor's: an index that only has one for a newer processor than any says so.
#[test]
fn variants_of_a_processor() {
    let scratch = Scratch::new();
    let dir = layout(&scratch);
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let get = |variant: &str| {
        let mut manifest = index["manifests"][0].clone();
        manifest["platform"] = json!({"os": "linux", "architecture": coracle_image::platform::Platform::host().architecture, "variant": variant});
        fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
            .unwrap();
        Source::open(dir.to_str().unwrap(), &Limits::default())?.image(&Query::default())
    };
    get(&coracle_image::platform::Platform::host().variant).unwrap();
    let e = get("v99").unwrap_err().to_string();
    assert!(e.contains("v99"), "{e}");
}

/// RFC 1952, 2.2: estargz, pigz and others write a layer as many members.
#[test]
fn gzip_in_members() {
    let scratch = Scratch::new();
    let tar = Tar::new().file("f", &"x".repeat(70_000)).file("g", "1").end();
    let image = Image::of(&[tar.chunks(10_000).flat_map(gzip).collect()]);
    scratch.unpack_with(&image, &Limits::default()).unwrap();
    assert_eq!((scratch.read("f").len(), scratch.read("g")), (70_000, "1".into()));
}

#[test]
fn locations() {
    let scratch = Scratch::new();
    let dir = layout(&scratch);
    let at = dir.to_str().unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(split_location(at).unwrap().0, at);
    let (path, query) = split_location(&format!("{at}:latest@{digest}")).unwrap();
    assert_eq!(
        (path.as_str(), query.tag.as_deref(), query.digest.map(|d| d.to_string())),
        (at, Some("latest"), Some(digest))
    );
    let (path, query) = split_location(&format!("{at}:host:5000/x:1")).unwrap();
    assert_eq!((path.as_str(), query.tag.as_deref()), (at, Some("host:5000/x:1")));
    assert!(
        split_location("/none/at/all:tag").is_err() && split_location(&format!("{at}@sha256:00")).is_err()
    );
    let pinned =
        Query { digest: Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap()), ..Query::default() };
    assert!(Source::open(at, &Limits::default()).unwrap().image(&pinned).is_err());
}

/// Killed at any point: the next run sees it, cleans up, and succeeds.
#[test]
fn what_a_killed_run_leaves_is_cleaned_up() {
    let scratch = Scratch::new();
    let bundle = scratch.bundle();
    let fill = || {
        let source = Source::open(layout(&scratch).to_str().unwrap(), &Limits::default()).unwrap();
        let limits = Limits::default();
        let how = coracle_image::unpack::How {
            owners: if common::is_root() {
                coracle_image::layer::apply::Owners::Kept
            } else {
                coracle_image::layer::apply::Owners::Caller
            },
            style: coracle_image::layer::apply::Style::Flat,
            lower: None,
            limits: &limits,
            events: &coracle_image::events::Silent,
        };
        coracle_image::bundle::fill(&source.image(&Query::default()).unwrap(), &bundle, &how, |_| {
            Ok(b"{}".to_vec())
        })
    };
    for stage in 0..4 {
        fs::remove_dir_all(&bundle).ok();
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join(".coracle-unpack"), if stage == 0 { "" } else { "being unpacked\n" }).unwrap();
        if stage > 1 {
            fs::create_dir_all(bundle.join(".coracle-work/rootfs/half")).unwrap();
            fs::create_dir_all(bundle.join(".coracle-work/trash/1/2")).unwrap();
        }
        if stage > 2 {
            fs::create_dir_all(bundle.join("rootfs/half")).unwrap();
        }
        fill().unwrap();
        let mut names: Vec<_> = fs::read_dir(&bundle).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.json", "rootfs"], "stage {stage}");
        assert!(!bundle.join("rootfs/half").exists());
    }
    assert_eq!(fill().unwrap_err().kind(), Kind::Busy, "a whole bundle stays");
    fs::remove_file(bundle.join("config.json")).unwrap();
    assert_eq!(fill().unwrap_err().kind(), Kind::Busy, "somebody's rootfs stays");
    assert_eq!(fs::read_dir(&bundle).unwrap().count(), 1);
}
