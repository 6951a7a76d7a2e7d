//! What each fuzz target does with an input, without libFuzzer: `fuzz_targets/` runs it at length, and
//! `crates/image/tests/kept.rs` with every input that is kept in `inputs/`, on any compiler.

use coracle_image::layer::apply::{Applier, Owners, Style};
use coracle_image::layer::inflate::{Limited, inflater};
use coracle_image::limits::Limits;
use coracle_image::manifest::{Document, ImageConfig};
use coracle_image::reference::Reference;
use coracle_image::registry;
use coracle_image::rootfs::Rootfs;
use coracle_image::tar::Reader;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A target: its name, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 5] = [
    ("layer", layer),
    ("tree", tree),
    ("document", document),
    ("reference", reference),
    ("challenge", challenge),
];

/// A layer, however compressed: inflated and read to its end within limits.
pub(crate) fn layer(data: &[u8]) {
    let limits = Limits::default();
    let Ok(plain) = inflater(data) else { return };
    let mut reader = Reader::new(BufReader::new(Limited::new(plain, 16 << 20)), &limits);
    while let Ok(Some(_)) = reader.next_entry() {}
}

/// Manifests, indexes and configurations.
pub(crate) fn document(data: &[u8]) {
    let _ = Document::parse(data, "", &Limits::default());
    let _ = ImageConfig::parse(data, 1);
}

/// References: what parses is itself when it is parsed again, and may stand in a URL.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(parsed) = text.parse::<Reference>() {
        let shown = parsed.to_string();
        let part_is_dots = shown.split(['/', ':', '@']).any(|part| matches!(part, "." | ".."));
        assert!(!part_is_dots && !shown.contains(['%', '?', '#', ' ', '\n']), "{shown:?}");
        assert_eq!(shown.parse::<Reference>().unwrap(), parsed);
    }
}

/// WWW-Authenticate, a line a header: what is made of it comes out of it.
pub(crate) fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(realm) = registry::realm(text.lines()) {
        let plain = text.replace('\\', "");
        assert!(plain.contains(&realm.replace('\\', "")), "{realm:?} is not in {text:?}");
    }
}

/// Layers of entries that the input spells, four bytes each, applied beside a canary without the second wall: nothing
/// outside of the root is touched.
pub(crate) fn tree(data: &[u8]) {
    let place = Place::new();
    let before = place.outside();
    let open = |name: &str| File::open(place.0.join(name)).expect("a directory of its own").into();
    let limits = Limits { entries: 1000, ..Limits::default() };
    let rootfs = Rootfs::new(open("root"), open("trash"));
    let mut applier = Applier::new(rootfs, Owners::Caller, Style::Flat, None, &limits);
    let mut base = true;
    for layer in data.split(|&b| b == 0xff) {
        let bytes: Vec<u8> = layer.chunks_exact(4).flat_map(|spelt| place.entry(spelt)).collect();
        let tar = BufReader::new(&bytes[..]);
        if applier.layer(tar, std::mem::take(&mut base)).is_err() {
            break;
        }
    }
    let _ = applier.finish();
    assert_eq!(place.outside(), before);
}

/// A directory with a root, a trash and a canary, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(format!("coracle-tree-{process}-{thread:?}"));
        let _ = fs::remove_dir_all(&path);
        for part in ["root", "trash", "canary/a"] {
            fs::create_dir_all(path.join(part)).expect("a directory of its own");
        }
        fs::write(path.join("canary/file"), "alive").expect("a file of its own");
        Self(path)
    }

    /// All that must not change: what there is beside the root, and everything about it.
    fn outside(&self) -> String {
        let names = |at: &Path| {
            let mut all: Vec<_> =
                fs::read_dir(at).expect("still there").flatten().map(|e| e.file_name()).collect();
            all.sort();
            all
        };
        let about = |name: &str| {
            let m = fs::symlink_metadata(self.0.join(name)).expect("still there");
            (m.ino(), m.mode(), m.uid(), m.gid(), m.nlink(), m.mtime(), m.mtime_nsec(), m.size())
        };
        let listed = ["", "trash", "canary", "canary/a"].map(|name| names(&self.0.join(name)));
        let (kind, text) = (
            fs::symlink_metadata(self.0.join("root")).map(|m| m.is_dir()),
            fs::read(self.0.join("canary/file")),
        );
        format!("{listed:?} {kind:?} {text:?} {:?}", ["canary", "canary/a", "canary/file"].map(about))
    }

    /// A tar header, with data after it for a file: kind, name, target, mode.
    fn entry(&self, spelt: &[u8]) -> Vec<u8> {
        const PARTS: [&str; 16] = [
            "a",
            "b",
            "c",
            "l",
            ".",
            "..",
            "",
            "/",
            ".wh.a",
            ".wh.b",
            ".wh.l",
            ".wh..wh..opq",
            ".wh.",
            "..a",
            "a/b/c",
            "l/l",
        ];
        let canary = self.0.join("canary").display().to_string();
        let targets = [
            "a",
            "b",
            "l",
            ".",
            "..",
            "/",
            "/a",
            "a/b",
            "l/l",
            "../canary",
            "../canary/file",
            "/../canary/a",
            "/proc/self/root",
            "/proc/self/cwd",
            &canary,
            &format!("{canary}/file"),
        ];
        let part = |n: u8| PARTS[usize::from(n & 15)];
        let name = format!("{}/{}", part(spelt[1]), part(spelt[1] >> 4));
        let kind = b"05216305"[usize::from(spelt[0] & 7)];
        let data = if kind == b'0' { "data" } else { "" };
        let mode = u32::from(spelt[3]) << 4 | 0o300;
        let mut header = [0; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &name);
        put(157, targets[usize::from(spelt[2] & 15)]);
        let numbers =
            [(100, u64::from(mode), 7), (108, 0, 7), (116, 0, 7), (124, data.len() as u64, 11), (136, 7, 11)];
        for (at, number, width) in numbers {
            put(at, &format!("{number:0width$o}"));
        }
        put(257, "ustar\x0000");
        put(148, "        ");
        header[156] = kind;
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut all = header.to_vec();
        all.extend(data.as_bytes());
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
