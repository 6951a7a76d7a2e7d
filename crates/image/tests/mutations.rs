//! A short run of what `fuzz/` does at length: good inputs, changed at random but the same each time. No input may make
//! a parser panic or hang, and no layer may touch anything outside. Listings of good archives equal Python's tarfile.
#![allow(missing_docs)]

mod common;
#[path = "../../../fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;
use common::{Scratch, Tar};
use coracle_image::limits::Limits;
use coracle_image::manifest::{Document, ImageConfig};
use coracle_image::reference::Reference;
use coracle_image::tar::{Reader, What};
use std::process::Command;

/// xorshift64*: enough to change bytes, the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most.max(1)
    }

    /// A few bytes set, cut, doubled or moved.
    fn change(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            let (at, other) = (self.below(bytes.len()), self.below(bytes.len()));
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => {
                    let piece: Vec<u8> = bytes[at..].iter().take(1024).copied().collect();
                    bytes.splice(other..other, piece);
                }
                2 => bytes.swap(at, other),
                3 => bytes[at] = b"\0/.\"\\=:{}[]-9x\xff"[self.below(15)],
                _ => bytes[at] = self.below(256) as u8,
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes
    }
}

fn layer() -> Vec<u8> {
    Tar::new()
        .dir("a")
        .pax(&[("path", b"a/long-name"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"y")])
        .file("short", "data")
        .symlink("l", "../../../canary")
        .hardlink("h", "a/long-name")
        .file("l/dir/through", "x")
        .file("a/.wh.b", "")
        .end()
}

/// A checksum that is right again lets a changed header through to what reads it.
fn repair(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&x| u32::from(x)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

#[test]
fn changed_layers_do_no_harm() {
    let (good, mut numbers) = (layer(), Numbers(1));
    for _ in 0..300 {
        let scratch = Scratch::new();
        let mut bytes = numbers.change(&good);
        repair(&mut bytes);
        // Checks the canary, and that nothing is left of a failed unpacking.
        let _ = scratch.unpack(&[good.clone(), bytes]);
    }
}

#[test]
fn changed_documents_do_no_harm() {
    let hex = "0a".repeat(32);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{hex}","size":2}},"layers":[]}}"#
    );
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","config":{{"Env":["A=b"],"Cmd":null,"Labels":{{"a":"b"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{hex}"]}}}}"#
    );
    let reference = format!("[::1]:5000/a.b/c__d:tag@sha256:{hex}");
    let mut numbers = Numbers(2);
    for _ in 0..20_000 {
        let _ = Document::parse(&numbers.change(manifest.as_bytes()), "", &Limits::default());
        let _ = ImageConfig::parse(&numbers.change(config.as_bytes()), 1);
        if let Ok(text) = String::from_utf8(numbers.change(reference.as_bytes()))
            && let Ok(parsed) = text.parse::<Reference>()
        {
            // What parses is safe in a URL and in a path, and is itself when it is parsed again.
            let shown = parsed.to_string();
            assert!(!shown.contains("..") && !shown.contains(['%', '?', '#', ' ', '\n']), "{shown:?}");
            assert_eq!(shown.parse::<Reference>().unwrap(), parsed);
        }
    }
}

/// Python's listing of an archive: kind, name, size, target.
const LIST: &str = r#"
import sys, tarfile
for m in tarfile.open(sys.argv[1]):
    kind = "f" if m.isreg() else "d" if m.isdir() else "h" if m.islnk() else "l" if m.issym() else "?"
    print(kind, m.name, m.size if kind == "f" else 0, m.linkname if kind in "hl" else "")
"#;

#[test]
#[allow(clippy::print_stderr)] // a skip is said
fn listings_equal_pythons() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: needs python3");
        return;
    }
    let scratch = Scratch::new();
    let tree = scratch.path.join("tree");
    std::fs::create_dir_all(tree.join("d").join("n".repeat(90)).join("m".repeat(90))).unwrap();
    let script = format!(
        "cd {} && echo 1 >d/f && ln d/f d/h && ln -s {} d/s && truncate -s 3M sparse && echo x >>sparse && echo y >'d/{}'",
        tree.display(),
        "t".repeat(90),
        "é".repeat(60)
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
    for format in ["ustar", "gnu", "posix", "--sparse"] {
        let file = scratch.path.join("x.tar");
        let mut tar = Command::new("tar");
        let word = if format == "--sparse" { format.to_owned() } else { format!("--format={format}") };
        // ustar cannot hold the longest names: what it leaves out is left out for both readers.
        let done = tar.arg(word).arg("-cf").arg(&file).arg("-C").arg(&tree).arg(".").output().unwrap();
        assert!(done.status.success() || format == "ustar");
        let python = Command::new("python3").args(["-c", LIST]).arg(&file).output().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let (limits, mut ours) = (Limits::default(), String::new());
        let mut reader = Reader::new(&bytes[..], &limits);
        while let Some(entry) = reader.next_entry().unwrap() {
            let (kind, size) = match entry.what {
                What::File => ("f", entry.size),
                What::Directory => ("d", 0),
                What::Hardlink => ("h", 0),
                What::Symlink => ("l", 0),
                _ => ("?", 0),
            };
            let name = String::from_utf8(entry.path).unwrap();
            let name = name.strip_suffix('/').unwrap_or(&name);
            ours += &format!("{kind} {name} {size} {}\n", String::from_utf8(entry.target).unwrap());
        }
        assert_eq!(ours, String::from_utf8(python.stdout).unwrap(), "{format}");
    }
}

/// What we read, or `None` where we refuse: then nobody is misled.
fn names(bytes: &[u8]) -> Option<Vec<String>> {
    let limits = Limits::default();
    let mut reader = Reader::new(bytes, &limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        all.push(name.strip_suffix('/').unwrap_or(&name).to_owned());
    }
    Some(all)
}

/// CVE-2025-62518, RUSTSEC-2026-0068: an archive that two readers take for two lists. Of the inputs that are kept for the
/// fuzzers, whatever is read at all is what GNU tar lists, and Python.
#[test]
#[allow(clippy::print_stderr)] // a skip is said
fn kept_layers_are_listed_like_gnu_tar_and_python() {
    let python = "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name)";
    let inputs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/inputs/layer");
    let (mut read, mut refused) = (0, Vec::new());
    for path in std::fs::read_dir(inputs).unwrap().map(|e| e.unwrap().path()) {
        let bytes = std::fs::read(&path).unwrap();
        // Plain ones only: compression is no matter of lists.
        if bytes.get(257..262) != Some(b"ustar") {
            continue;
        }
        let Some(ours) = names(&bytes) else {
            refused.push(path);
            continue;
        };
        let list = |command: &mut Command| {
            let output = command.arg(&path).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Some(text.lines().map(|l| l.strip_suffix('/').unwrap_or(l).to_owned()).collect::<Vec<_>>())
        };
        let tar = list(Command::new("tar").args(["--quoting-style=literal", "-tf"]));
        assert_eq!(tar.as_ref(), Some(&ours), "GNU tar, {path:?}");
        match list(Command::new("python3").args(["-c", python])) {
            Some(python) => assert_eq!(python, ours, "Python, {path:?}"),
            None => eprintln!("skipped in part: needs python3"),
        }
        read += 1;
    }
    assert!(read >= 5, "only {read} were read; refused: {refused:?}");
}

/// Entries of every kind, with names and targets that lead out, in any order and over several layers; by the first wall
/// alone.
#[test]
fn layers_at_random_touch_nothing_outside() {
    let mut numbers = Numbers(0x5eed);
    for _ in 0..3000 {
        let length = numbers.below(120);
        let spelt: Vec<u8> = (0..length).map(|_| numbers.below(256) as u8).collect();
        targets::tree(&spelt);
    }
}
