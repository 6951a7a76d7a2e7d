//! Builders of tar streams and images, good and bad, and a canary that must not be touched.
#![allow(dead_code, missing_docs)]

pub(crate) mod server;

use coracle_image::Result;
use coracle_image::bundle;
use coracle_image::digest::{Algorithm, Digest};
use coracle_image::events::Silent;
use coracle_image::layer::apply::{Owners, Style, Summary};
use coracle_image::limits::Limits;
use coracle_image::source::{Query, Source};
use coracle_image::unpack::How;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A tar stream in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn header(
        mut self,
        name: &str,
        flag: u8,
        size: u64,
        target: &str,
        mode: u32,
        mtime: i64,
    ) -> Self {
        let mut b = [0u8; 512];
        b[..name.len()].copy_from_slice(name.as_bytes());
        let (uid, gid) = ids();
        for (at, n, width) in [(100, u64::from(mode), 7), (108, uid, 7), (116, gid, 7), (124, size, 11)] {
            b[at..at + width].copy_from_slice(format!("{n:0width$o}").as_bytes());
        }
        b[136..148].copy_from_slice(&base256(mtime));
        b[156] = flag;
        b[157..157 + target.len()].copy_from_slice(target.as_bytes());
        b[257..265].copy_from_slice(b"ustar\x0000");
        b[148..156].fill(b' ');
        let sum: u32 = b.iter().map(|&x| u32::from(x)).sum();
        b[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(b);
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.header(name, b'0', data.len() as u64, "", 0o644, 7).data(data.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.header(name, b'5', 0, "", 0o755, 7)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.header(name, b'2', 0, target, 0o777, 7)
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.header(name, b'1', 0, target, 0o644, 7)
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).unwrap();
            body.extend([length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat());
        }
        self.header("pax", b'x', body.len() as u64, "", 0o644, 0).data(&body)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn base256(n: i64) -> [u8; 12] {
    let mut field = if n < 0 { [0xff; 12] } else { [0; 12] };
    field[4..].copy_from_slice(&n.to_be_bytes());
    field[0] |= 0x80;
    field
}

/// Entries belong to whoever runs the tests, so that they run as anybody.
fn ids() -> (u64, u64) {
    let me = fs::metadata("/proc/self").unwrap();
    (u64::from(me.uid()), u64::from(me.gid()))
}

pub(crate) fn is_root() -> bool {
    ids().0 == 0
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// A scratch directory with a canary in it, removed at the end. The canary is checked then.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    before: Vec<String>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coracle-image-test-{}-{n}", std::process::id()));
        fs::create_dir_all(path.join("canary/dir")).unwrap();
        fs::write(path.join("canary/file"), "alive").unwrap();
        fs::set_permissions(path.join("canary/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", path.join("canary/link")).unwrap();
        let before = look(&path.join("canary"));
        Self { path, before }
    }

    pub(crate) fn canary(&self) -> String {
        self.path.join("canary").to_str().unwrap().to_owned()
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.before, look(&self.path.join("canary")), "the canary was touched");
    }

    /// Where bundles go.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.path.join("bundle")
    }

    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.path.join("bundle/rootfs").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.rootfs(name)).unwrap_or_else(|e| format!("<{e}>"))
    }

    /// Unpacks plain layers.
    pub(crate) fn unpack(&self, layers: &[Vec<u8>]) -> Result<Summary> {
        self.unpack_with(&Image::of(layers), &Limits::default())
    }

    pub(crate) fn unpack_with(&self, image: &Image, limits: &Limits) -> Result<Summary> {
        let layout = self.path.join("layout");
        fs::remove_dir_all(&layout).ok();
        image.write(&layout);
        self.unpack_from(layout.to_str().unwrap(), &Query::default(), limits)
    }

    pub(crate) fn unpack_from(&self, location: &str, query: &Query, limits: &Limits) -> Result<Summary> {
        fs::remove_dir_all(self.bundle()).ok();
        let image = Source::open(location, limits)?.image(query)?;
        let owners = if is_root() { Owners::Kept } else { Owners::Caller };
        let how = How { owners, style: Style::Flat, lower: None, limits, events: &Silent };
        let done = bundle::fill(&image, &self.bundle(), &how, |_| Ok(b"{}".to_vec()));
        self.check();
        if done.is_err() {
            assert!(!self.bundle().exists(), "something is left of a failed unpacking");
        }
        done.map(|(summary, _)| summary)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Everything about a tree that must not change.
fn look(dir: &Path) -> Vec<String> {
    let mut all = vec![line(dir)];
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.symlink_metadata().unwrap().is_dir() {
            all.extend(look(&entry))
        } else {
            all.push(line(&entry))
        }
    }
    all
}

fn line(path: &Path) -> String {
    let m = path.symlink_metadata().unwrap();
    let content = if m.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    format!(
        "{path:?} {:o} {} {} {} {} {} {content:?}",
        m.mode(),
        m.uid(),
        m.gid(),
        m.nlink(),
        m.mtime(),
        m.mtime_nsec()
    )
}

/// An image as JSON and blobs, free to lie.
pub(crate) struct Image {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) config: Value,
    pub(crate) manifest: Value,
    pub(crate) index: Option<Value>,
}

impl Image {
    /// An honest image of these layers; gzip is seen by its magic.
    pub(crate) fn of(layers: &[Vec<u8>]) -> Self {
        let plain = |l: &Vec<u8>| {
            let mut out = Vec::new();
            if l.starts_with(&[0x1f, 0x8b]) {
                std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&l[..]), &mut out).unwrap();
            } else {
                out.clone_from(l);
            }
            sha256(&out)
        };
        let arch = coracle_image::platform::Platform::host().architecture;
        let config = json!({"os": "linux", "architecture": arch, "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(plain).collect::<Vec<_>>()}});
        let layer = |l: &Vec<u8>| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(l), "size": l.len()});
        let manifest = json!({"schemaVersion": 2, "layers": layers.iter().map(layer).collect::<Vec<_>>()});
        Self { blobs: layers.to_vec(), config, manifest, index: None }
    }

    /// Writes it as a layout.
    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8]| {
            let digest = sha256(bytes);
            fs::write(dir.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
            digest
        };
        self.blobs.iter().for_each(|b| drop(put(b)));
        let config = self.config.to_string();
        let mut manifest = self.manifest.clone();
        if manifest.get("config").is_none() {
            manifest["config"] = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": put(config.as_bytes()), "size": config.len()});
        }
        let manifest = manifest.to_string();
        let root = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": put(manifest.as_bytes()), "size": manifest.len()});
        let index = self.index.clone().unwrap_or_else(|| json!({"schemaVersion": 2, "manifests": [root]}));
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    }
}
